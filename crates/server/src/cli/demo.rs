//! `wasel demo`: everything on one machine, nothing to sign up for. The simulated providers, a tenant with an Arabic
//! and an English side, some conversations, and the page to answer them.

mod subscriptions;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use wasel_config::Config;
use wasel_simulator::{
    CustomerEmail, CustomerSend, Mailbox, MetaNumber, Simulator, TwilioAccount, TwilioChannel,
    TwilioNumber,
};

use super::apply::{self, Declaration};
use super::{print, serve};
use crate::app;
use crate::http::page::DemoAccess;

#[derive(clap::Args)]
pub struct Args {
    /// Port of the simulated providers; the next one up from the server's if left out.
    #[arg(long)]
    simulator_port: Option<u16>,
    /// Where the demo keeps its data.
    #[arg(long, default_value = "./wasel-demo-data")]
    data_dir: PathBuf,
}

const EMAIL: &str = "demo@wasel.example";
const PASSWORD: &str = "wasel-demo";
/// The business's numbers and credentials, known to both sides. All are made up.
const PHONE_NUMBER_ID: &str = "106540352242922";
const WABA_ID: &str = "102290129340398";
const DISPLAY_NUMBER: &str = "+20 2 1234 5678";
const ACCESS_TOKEN: &str = "demo-access-token";
const APP_SECRET: &str = "demo-app-secret";
const VERIFY_TOKEN: &str = "demo-verify-token";
const ACCOUNT_SID: &str = "AC00000000000000000000000000000000";
const AUTH_TOKEN: &str = "demo-auth-token";
const SMS_NUMBER: &str = "+15005550006";
const MAILBOX: &str = "demo@shop.example";
const MAIL_USER: &str = "demo";
const MAIL_PASSWORD: &str = "demo-mail-password";
const MAIL_SECRET: &str = "demo-mail-secret";

const SEED: [(&str, &str, &[&str]); 4] = [
    (
        "+201001234567",
        "منى السيد",
        &[
            "السلام عليكم",
            "أريد حجز موعد يوم الأحد القادم، هل يوجد مكان في الصباح؟",
        ],
    ),
    ("+966512345678", "خالد العتيبي", &["متى ينتهي اشتراكي؟"]),
    (
        "+447700900123",
        "Emma Brown",
        &[
            "Hi! The heating in flat 4 stopped working last night.",
            "Can someone come today?",
        ],
    ),
    ("+15550001111", "Carlos", &["Is order 1042 on its way?"]),
];

pub async fn run(mut config: Config, args: Args) -> Result<()> {
    // A demo must not touch a real installation.
    config.database.url = None;
    config.database.data_dir = args.data_dir;
    config.server.listen = Ipv4Addr::LOCALHOST.into();
    let port = config.server.port;
    config.server.public_url = Some(
        format!("http://127.0.0.1:{port}")
            .try_into()
            .map_err(anyhow::Error::msg)?,
    );
    let simulator_port = args
        .simulator_port
        .unwrap_or(port.checked_add(1).unwrap_or(3002));
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, simulator_port));
    let simulator = Simulator::start(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    config.providers.meta_graph_base = simulator
        .meta_base()
        .try_into()
        .map_err(anyhow::Error::msg)?;
    config.providers.twilio_api_base = simulator
        .twilio_base()
        .try_into()
        .map_err(anyhow::Error::msg)?;
    #[cfg(feature = "simulated-phones")]
    {
        let url = simulator.whatsapp_web_url();
        config.providers.whatsapp_web_url = Some(url.try_into().map_err(anyhow::Error::msg)?);
    }
    // The page polls nothing, but a person trying things out should not meet a limit meant for production.
    config.limits.api_requests = 0;
    config.limits.org_sends_per_minute = 0;
    let access = DemoAccess {
        email: EMAIL.to_owned(),
        password: PASSWORD.to_owned(),
        simulator_url: simulator.base_url().to_owned(),
    };
    let running = app::start(config, Some(access)).await?;
    let declared: Declaration = toml::from_str(&declaration(&simulator.world().mail_server().smtp))
        .context("the demo's own declaration")?;
    apply::apply(&running.foundation(), &declared).await?;
    running.state.registry.reload().await?;
    let base = format!("http://{}", running.address);
    seed(&simulator, &running, &base).await?;
    subscriptions::seed(&running.state, "demo").await?;
    print("");
    print(&format!("Open      {base}/"));
    print(&format!(
        "Sign in   {EMAIL} / {PASSWORD}   (the page does it for you)"
    ));
    print(&format!(
        "Providers {}/sim   (simulated Meta, Twilio and mail server)",
        simulator.base_url()
    ));
    print("Stop      Ctrl-C");
    serve::wait_for_signal().await?;
    running.stop().await?;
    simulator.stop().await;
    Ok(())
}

fn declaration(mail_server: &str) -> String {
    format!(
        r#"
[[organizations]]
slug = "demo"
name = "شركة واصل التجريبية"
timezone = "Africa/Cairo"
locale = "ar-EG"
[[organizations.users]]
email = "{EMAIL}"
password = "{PASSWORD}"
role = "owner"
full_name = "Demo"
[[organizations.channels]]
kind = "whatsapp_cloud"
name = "WhatsApp"
waba_id = "{WABA_ID}"
phone_number_id = "{PHONE_NUMBER_ID}"
display_phone_number = "{DISPLAY_NUMBER}"
access_token = "{ACCESS_TOKEN}"
app_secret = "{APP_SECRET}"
verify_token = "{VERIFY_TOKEN}"
[[organizations.channels]]
kind = "twilio_sms"
name = "SMS"
account_sid = "{ACCOUNT_SID}"
auth_token = "{AUTH_TOKEN}"
from = "{SMS_NUMBER}"
[[organizations.channels]]
kind = "email"
name = "E-mail"
from = "Wasel demo <{MAILBOX}>"
smtp_url = "smtp://{MAIL_USER}:{MAIL_PASSWORD}@{mail_server}"
webhook_secret = "{MAIL_SECRET}"
"#
    )
}

/// Tells the simulator about the numbers and, the first time, lets some customers write.
async fn seed(simulator: &Simulator, running: &app::Running, base: &str) -> Result<()> {
    let world = simulator.world();
    world.register_meta_number(MetaNumber {
        waba_id: WABA_ID.to_owned(),
        phone_number_id: PHONE_NUMBER_ID.to_owned(),
        display_phone_number: DISPLAY_NUMBER.to_owned(),
        access_token: ACCESS_TOKEN.to_owned(),
        app_secret: APP_SECRET.to_owned(),
        verify_token: VERIFY_TOKEN.to_owned(),
        webhook_url: format!("{base}/api/webhooks/whatsapp"),
        verified_name: "Wasel demo".to_owned(),
        templates: Vec::new(),
    })?;
    world.register_twilio_account(TwilioAccount {
        account_sid: ACCOUNT_SID.to_owned(),
        auth_token: AUTH_TOKEN.to_owned(),
        numbers: vec![TwilioNumber {
            number: SMS_NUMBER.to_owned(),
            channel: TwilioChannel::Sms,
            webhook_url: format!("{base}/api/webhooks/twilio"),
            fallback_url: String::new(),
        }],
        api_keys: Vec::new(),
        messaging_services: Vec::new(),
        contents: Vec::new(),
    })?;
    world.register_mailbox(Mailbox {
        address: MAILBOX.to_owned(),
        user: MAIL_USER.to_owned(),
        password: MAIL_PASSWORD.to_owned(),
        webhook_url: format!("{base}/api/webhooks/email"),
        webhook_secret: MAIL_SECRET.to_owned(),
    })?;
    let mut settings = world.settings();
    // Slow enough to watch the ticks change.
    settings.delivered_after_ms = Some(700);
    settings.read_after_ms = Some(3000);
    world.set_settings(settings);
    let mut tx = running.state.db.system().await?;
    let seeded = wasel_db::conversations::any(&mut tx).await?;
    tx.commit().await?;
    if seeded {
        return Ok(());
    }
    for (number, name, messages) in SEED {
        let line = if number.starts_with("+1") {
            SMS_NUMBER
        } else {
            PHONE_NUMBER_ID
        };
        for message in messages {
            let mut send = CustomerSend::text(line, number, *message);
            send.profile_name = Some((*name).to_owned());
            world.send_as_customer(send)?;
        }
    }
    world.send_email(CustomerEmail {
        mailbox: MAILBOX.to_owned(),
        from: "layla@customer.example".to_owned(),
        name: "ليلى حسن".to_owned(),
        subject: "استفسار عن الفاتورة".to_owned(),
        text: "مرحباً، لم تصلني فاتورة هذا الشهر بعد.".to_owned(),
        ..CustomerEmail::default()
    })?;
    Ok(())
}
