//! Two servers on one database: a linked phone's session runs on one of them, and never on both.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;
use wasel_server::linked_phones::qr;
use wasel_simulator::{NewWhatsappPhone, Simulator, WhatsappSend};
use wasel_testkit::{TestDb, wait_until};

use crate::binary::{Server, data_dir, succeed, wasel};

const BUSINESS: &str = "+201001234567";
const CUSTOMER: &str = "+201119876543";

struct World {
    db: TestDb,
    simulator: Simulator,
    folders: [TempDir; 2],
}

impl World {
    /// An organisation with a phone to be linked, and no server yet.
    async fn make() -> Self {
        let world = Self {
            db: TestDb::empty().await,
            simulator: Simulator::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
                .await
                .unwrap(),
            folders: [data_dir(), data_dir()],
        };
        let file = world.folders[0].path().join("tenants.toml");
        std::fs::write(
            &file,
            r#"
            [[organizations]]
            slug = "a"
            name = "A"
            [[organizations.channels]]
            kind = "whatsapp_web"
            name = "Reception"
            "#,
        )
        .unwrap();
        succeed(&mut world.command(0, &["apply", file.to_str().unwrap()]));
        let whatsapp = world.simulator.whatsapp_web();
        for (number, name) in [(BUSINESS, "Clinic"), (CUSTOMER, "منى")] {
            whatsapp
                .register(&NewWhatsappPhone::new(number, name))
                .unwrap();
        }
        world
    }

    fn command(&self, node: usize, args: &[&str]) -> Command {
        let mut command = wasel(self.folders[node].path(), args);
        command
            .env("DATABASE_URL", self.db.url())
            .env("JWT_SECRET", "a secret of thirty-two characters or more")
            .env("ENCRYPTION_KEY", "0".repeat(64))
            .env("WHATSAPP_WEB_URL", self.simulator.whatsapp_web_url());
        command
    }

    fn serve(&self, node: usize) -> Server {
        Server::start(&mut self.command(node, &["serve"]))
    }

    async fn text(&self, sql: &'static str) -> Option<String> {
        sqlx::query_scalar(sql)
            .fetch_optional(&self.db.owner())
            .await
            .unwrap()
            .flatten()
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql)
            .fetch_one(&self.db.owner())
            .await
            .unwrap()
    }

    /// The phone scans what the only server shows.
    async fn link(&self) {
        sqlx::query("UPDATE whatsapp_sessions SET should_run = true")
            .execute(&self.db.owner())
            .await
            .unwrap();
        let code = wait_until("a QR code", async || {
            let picture = self.text("SELECT qr_code FROM whatsapp_sessions").await?;
            qr::text_of(&picture)
        })
        .await;
        let whatsapp = self.simulator.whatsapp_web();
        whatsapp.scan(BUSINESS, &code).await.unwrap();
        wait_until("the connection", async || {
            let status = self.text("SELECT status FROM whatsapp_sessions").await?;
            (status == "connected").then_some(())
        })
        .await;
    }

    /// Which fencing token the session runs under, once a node holds it that is not `before`.
    async fn wait_owner(&self, before: i64) -> i64 {
        wait_until("another owner", async || {
            let token = self
                .number("SELECT token FROM whatsapp_session_leases")
                .await;
            (token > before && self.is_connected()).then_some(token)
        })
        .await
    }

    fn is_connected(&self) -> bool {
        let phone = self.simulator.whatsapp_web().phone(BUSINESS).unwrap();
        phone.companions.iter().any(|one| one.connected)
    }

    fn logins(&self) -> u32 {
        let phone = self.simulator.whatsapp_web().phone(BUSINESS).unwrap();
        phone.companions.iter().map(|one| one.logins).sum()
    }

    /// An answer to the customer, put into the outbox as a server does.
    async fn queue(&self, body: &str) {
        sqlx::query(
            "WITH message AS (
                 INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status,
                     body, content, address)
                 SELECT org_id, $1, id, channel_id, contact_id, 'outbound', 'text', 'queued', $2, $3, phone_number
                 FROM conversations
             )
             INSERT INTO outbox (org_id, message_id, channel_id, conversation_id) SELECT org_id, $1, channel_id, id
             FROM conversations",
        )
        .bind(Uuid::now_v7())
        .bind(body)
        .bind(json!({ "type": "text", "body": body }))
        .execute(&self.db.owner())
        .await
        .unwrap();
    }

    async fn wait_shown(&self, body: &str) {
        let whatsapp = self.simulator.whatsapp_web();
        wait_until("the customer's phone to show it", async || {
            let got = whatsapp.messages(CUSTOMER).unwrap();
            let one = got
                .into_iter()
                .find(|one| one.text.as_deref() == Some(body))?;
            assert_eq!(one.copies, 1);
            Some(())
        })
        .await;
    }

    async fn customer_writes(&self, body: &str) {
        let wish = WhatsappSend::text(CUSTOMER, BUSINESS, body);
        self.simulator.whatsapp_web().send(&wish).unwrap();
        wait_until("the message in the log", async || {
            let found: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM messages WHERE direction = 'inbound' AND body = $1",
            )
            .bind(body)
            .fetch_one(&self.db.owner())
            .await
            .unwrap();
            (found == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_of_a_killed_server_moves_to_the_other_without_a_code() {
    let world = World::make().await;
    let first = world.serve(0);
    world.link().await;
    let token = world
        .number("SELECT token FROM whatsapp_session_leases")
        .await;
    let _second = world.serve(1);
    world.customer_writes("before").await;
    first.signal(Signal::SIGKILL);
    // Into the offline queue of WhatsApp's server.
    let wish = WhatsappSend::text(CUSTOMER, BUSINESS, "between");
    world.simulator.whatsapp_web().send(&wish).unwrap();
    world.wait_owner(token).await;
    world.customer_writes("after").await;
    assert_eq!(
        world
            .number("SELECT count(*) FROM messages WHERE body = 'between'")
            .await,
        1
    );
    world.queue("from the other server").await;
    world.wait_shown("from the other server").await;
    let stopped = world
        .text("SELECT stop_reason FROM whatsapp_sessions")
        .await;
    assert_eq!(stopped, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wakes_up_after_its_lease_neither_connects_nor_writes() {
    let world = World::make().await;
    let first = world.serve(0);
    world.link().await;
    let token = world
        .number("SELECT token FROM whatsapp_session_leases")
        .await;
    let logins = world.logins();
    let _second = world.serve(1);
    first.signal(Signal::SIGSTOP);
    let newest = world.wait_owner(token).await;
    world.customer_writes("to the second").await;
    assert_eq!(
        world.logins(),
        logins + 1,
        "the second server has logged in"
    );
    first.signal(Signal::SIGCONT);
    let ready = format!("{}/readyz", first.base);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    wait_until("the first one to be awake", async || {
        let answer = http.get(&ready).send().await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    // Long enough for it to do what it must not: dial, log in, take the session back, write keys or news.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(world.logins(), logins + 1, "nobody else logged in");
    assert_eq!(
        world
            .number("SELECT token FROM whatsapp_session_leases")
            .await,
        newest
    );
    let status = world.text("SELECT status FROM whatsapp_sessions").await;
    assert_eq!(status.as_deref(), Some("connected"));
    // The second one's keys are whole: it still reads and writes.
    world.customer_writes("still here").await;
    world.queue("and answering").await;
    world.wait_shown("and answering").await;
}
