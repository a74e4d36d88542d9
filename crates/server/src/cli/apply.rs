//! `wasel apply`: tenants, people and channels declared in a TOML file. Repeating it changes nothing; what the file
//! no longer names stays as it is.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use wasel_config::Config;
use wasel_db::channels::{self, NewChannel};
use wasel_db::identity::{self, NewUser};
use wasel_db::organizations::{self, Organization};
use wasel_db::{SystemTx, profiles, session_requests};
use wasel_domain::{ChannelId, OrgId, UserId, phone};
use wasel_providers::ChannelKind;

use super::{print, with_foundation};
use crate::app::Foundation;
use crate::auth::{Role, password};
use crate::http::v1::channels::webhook_url;

#[derive(clap::Args)]
pub struct Args {
    /// The file; `-` reads standard input.
    file: PathBuf,
    /// Print what was made as JSON.
    #[arg(long)]
    json: bool,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    #[serde(default)]
    pub organizations: Vec<DeclaredOrganization>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredOrganization {
    pub slug: String,
    pub name: String,
    /// IANA time zone; `UTC` if left out.
    pub timezone: Option<String>,
    /// BCP 47; `en` if left out.
    pub locale: Option<String>,
    /// ISO 3166-1 country of numbers written without one; guessed from locale or time zone if left out.
    pub region: Option<String>,
    #[serde(default)]
    pub users: Vec<DeclaredUser>,
    #[serde(default)]
    pub channels: Vec<toml::Table>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredUser {
    pub email: String,
    /// May be left out for somebody who has one.
    pub password: Option<String>,
    pub role: String,
    pub full_name: Option<String>,
    pub phone: Option<String>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    pub organizations: Vec<AppliedOrganization>,
}

#[derive(Debug, Serialize)]
pub struct AppliedOrganization {
    pub id: Uuid,
    pub slug: String,
    pub users: Vec<AppliedUser>,
    pub channels: Vec<AppliedChannel>,
}

#[derive(Debug, Serialize)]
pub struct AppliedUser {
    pub id: Uuid,
    pub email: String,
}

#[derive(Debug, Serialize)]
pub struct AppliedChannel {
    pub id: Uuid,
    pub kind: String,
    pub name: String,
    /// `None` for a linked phone.
    pub webhook_url: Option<String>,
    /// Only where this run made it: signs the mail posted to `webhook_url` (`docs/email.md`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_secret: Option<String>,
}

pub async fn run(config: Config, args: Args) -> Result<()> {
    let text = if args.file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(&args.file).with_context(|| args.file.display().to_string())?
    };
    // The parser quotes the line it stumbles over, which may hold a password.
    let declaration: Declaration = toml::from_str(&text)
        .map_err(|error| anyhow!("{}: {}", args.file.display(), error.message()))?;
    let report = with_foundation(config, async |foundation| {
        apply(foundation, &declaration).await
    })
    .await?;
    if args.json {
        print(&serde_json::to_string(&report)?);
        return Ok(());
    }
    for organization in &report.organizations {
        print(&format!("{} ({})", organization.slug, organization.id));
        for user in &organization.users {
            print(&format!("  user    {}", user.email));
        }
        for channel in &organization.channels {
            let what_next = channel
                .webhook_url
                .as_deref()
                .unwrap_or("link its phone through the API or the page");
            print(&format!(
                "  channel {} {}: {what_next}",
                channel.kind, channel.name
            ));
            if let Some(secret) = &channel.webhook_secret {
                print(&format!("    inbound mail is signed with {secret}"));
            }
        }
    }
    Ok(())
}

/// Applies the whole declaration or nothing.
pub async fn apply(foundation: &Foundation, declaration: &Declaration) -> Result<Report> {
    let mut tx = foundation.db.system().await?;
    let mut report = Report {
        organizations: Vec::new(),
    };
    for (index, organization) in declaration.organizations.iter().enumerate() {
        let applied = apply_organization(foundation, &mut tx, organization)
            .await
            .with_context(|| format!("organizations[{index}] ({})", organization.slug))?;
        report.organizations.push(applied);
    }
    tx.commit().await?;
    Ok(report)
}

async fn apply_organization(
    foundation: &Foundation,
    tx: &mut SystemTx,
    declared: &DeclaredOrganization,
) -> Result<AppliedOrganization> {
    let slug_is_good = declared
        .slug
        .starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && declared.slug.len() <= 63
        && declared
            .slug
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !slug_is_good || declared.slug == "system" {
        bail!("slug: must be lower-case letters, digits and dashes, and not `system`");
    }
    let timezone = declared
        .timezone
        .clone()
        .unwrap_or_else(|| "UTC".to_owned());
    if !organizations::is_time_zone(tx, &timezone).await? {
        bail!("timezone: `{timezone}` is no IANA time zone such as Africa/Cairo");
    }
    let locale = declared.locale.clone().unwrap_or_else(|| "en".to_owned());
    let region = match &declared.region {
        Some(region) => Some(
            phone::parse_region(region)
                .map_err(|error| anyhow!("region: {error}"))?
                .to_string(),
        ),
        None => guess_region(&locale, &timezone).map(str::to_owned),
    };
    let organization = Organization {
        id: OrgId::generate().0,
        slug: declared.slug.clone(),
        name: declared.name.clone(),
        timezone,
        locale,
        region,
    };
    let org = organizations::upsert(tx, &organization).await?;
    let mut users = Vec::new();
    for (index, user) in declared.users.iter().enumerate() {
        users.push(
            apply_user(tx, org, user)
                .await
                .with_context(|| format!("users[{index}]"))?,
        );
    }
    let mut applied = Vec::new();
    for (index, channel) in declared.channels.iter().enumerate() {
        let channel = apply_channel(foundation, tx, org, channel).await;
        applied.push(channel.with_context(|| format!("channels[{index}]"))?);
    }
    Ok(AppliedOrganization {
        id: org.0,
        slug: declared.slug.clone(),
        users,
        channels: applied,
    })
}

/// The country of numbers written without one: the locale's region, else that of a time zone that lies in one country.
fn guess_region<'a>(locale: &'a str, timezone: &str) -> Option<&'a str> {
    const ZONES: [(&str, &str); 18] = [
        ("Africa/Algiers", "DZ"),
        ("Africa/Cairo", "EG"),
        ("Africa/Casablanca", "MA"),
        ("Africa/Khartoum", "SD"),
        ("Africa/Tripoli", "LY"),
        ("Africa/Tunis", "TN"),
        ("Asia/Aden", "YE"),
        ("Asia/Amman", "JO"),
        ("Asia/Baghdad", "IQ"),
        ("Asia/Bahrain", "BH"),
        ("Asia/Beirut", "LB"),
        ("Asia/Damascus", "SY"),
        ("Asia/Dubai", "AE"),
        ("Asia/Kuwait", "KW"),
        ("Asia/Muscat", "OM"),
        ("Asia/Qatar", "QA"),
        ("Asia/Riyadh", "SA"),
        ("Europe/London", "GB"),
    ];
    let of_locale = locale.split(['-', '_']).skip(1).find(|part| {
        part.len() == 2
            && part.bytes().all(|b| b.is_ascii_uppercase())
            && phone::parse_region(part).is_ok()
    });
    of_locale.or_else(|| {
        ZONES
            .iter()
            .find(|(zone, _)| *zone == timezone)
            .map(|(_, region)| *region)
    })
}

async fn apply_user(tx: &mut SystemTx, org: OrgId, declared: &DeclaredUser) -> Result<AppliedUser> {
    if Role::of_profile(&declared.role).is_none() {
        bail!(
            "role: `{}` is none of owner, admin, agent, viewer, super_admin",
            declared.role
        );
    }
    if !declared.email.contains('@') || declared.email.contains(char::is_whitespace) {
        bail!("email: `{}` is no e-mail address", declared.email);
    }
    if let Some(password) = &declared.password {
        super::user::check_password(password)?;
    }
    let existing = identity::find_user_by_email(tx, &declared.email).await?;
    if let Some(user) = &existing {
        super::user::vouch(tx, org.0, user, declared.password.as_deref()).await?;
    }
    let user = match (existing, &declared.password) {
        (Some(user), Some(declared)) => {
            if !password::verify(declared, Some(&user.password_hash)).await? {
                identity::update_password(tx, UserId(user.id), &password::hash(declared).await?)
                    .await?;
            }
            user
        }
        (Some(user), None) => user,
        (None, Some(password)) => {
            let user = NewUser {
                id: UserId::generate(),
                email: declared.email.clone(),
                password_hash: password::hash(password).await?,
                full_name: declared.full_name.clone(),
                phone: declared.phone.clone(),
            };
            identity::insert_user(tx, &user).await?
        }
        (None, None) => bail!("password: is missing, and {} is new", declared.email),
    };
    let profile = profiles::Profile {
        org_id: org.0,
        id: user.id,
        email: Some(user.email.clone()),
        full_name: declared.full_name.clone().or(user.full_name),
        phone: declared.phone.clone().or(user.phone),
        role: declared.role.clone(),
    };
    profiles::upsert(tx, &profile).await?;
    Ok(AppliedUser {
        id: user.id,
        email: user.email,
    })
}

async fn apply_channel(
    foundation: &Foundation,
    tx: &mut SystemTx,
    org: OrgId,
    declared: &toml::Table,
) -> Result<AppliedChannel> {
    let text = |key: &str| declared.get(key).and_then(toml::Value::as_str);
    let word = text("kind").context("kind: is missing")?;
    let kind = ChannelKind::parse(word).with_context(|| {
        let known: Vec<_> = ChannelKind::ALL.iter().map(|kind| kind.as_str()).collect();
        format!("kind: `{word}` is none of {}", known.join(", "))
    })?;
    let name = text("name")
        .filter(|name| !name.trim().is_empty())
        .context("name: is missing")?;
    if kind == ChannelKind::WhatsappWeb {
        return apply_linked_phone(tx, org, name, declared).await;
    }
    let provider = foundation.providers.of(kind);
    let (mut settings, mut secrets) = (json!({}), json!({}));
    for (key, value) in declared
        .iter()
        .filter(|(key, _)| !["kind", "name"].contains(&key.as_str()))
    {
        // A key nobody knows is refused: a misspelt secret would be stored where every member sees it.
        let target = match key.as_str() {
            key if provider.secret_fields().contains(&key) => &mut secrets,
            key if provider.setting_fields().contains(&key) => &mut settings,
            _ => bail!("{key}: is no key of a {} channel", kind.as_str()),
        };
        target[key] = serde_json::to_value(value)?;
    }
    with_account_defaults(foundation, kind, &mut settings);
    let id = channels::find_id(tx, org, kind.as_str(), name)
        .await?
        .unwrap_or_else(ChannelId::generate);
    let open = provider.open(id, kind, &settings, &secrets)?;
    let id = channels::upsert(
        tx,
        &NewChannel {
            org_id: org,
            id,
            kind: kind.as_str(),
            name,
            settings: &settings,
            routing_keys: &open.routing_keys(),
        },
    )
    .await?;
    let made = if kind == ChannelKind::Email {
        complete_webhook_secret(foundation, tx, org, id, &mut secrets).await?
    } else {
        None
    };
    let sealed = foundation
        .sealer
        .seal(org.0, id.0, secrets.to_string().as_bytes())?;
    channels::update_secrets(tx, org, id, &sealed).await?;
    Ok(AppliedChannel {
        id: id.0,
        kind: kind.as_str().to_owned(),
        name: name.to_owned(),
        webhook_url: webhook_url(&foundation.public_url, kind.as_str(), id.0),
        webhook_secret: made,
    })
}

/// A linked phone has nothing to declare: its phone is linked later, by a person.
async fn apply_linked_phone(
    tx: &mut SystemTx,
    org: OrgId,
    name: &str,
    declared: &toml::Table,
) -> Result<AppliedChannel> {
    if let Some(key) = declared
        .keys()
        .find(|key| !["kind", "name"].contains(&key.as_str()))
    {
        let kind = ChannelKind::WhatsappWeb.as_str();
        bail!("{key}: is no key of a {kind} channel");
    }
    let id = session_requests::upsert_channel(tx, org, name).await?;
    session_requests::find_or_insert(tx, org, id).await?;
    Ok(AppliedChannel {
        id: id.0,
        kind: ChannelKind::WhatsappWeb.as_str().to_owned(),
        name: name.to_owned(),
        webhook_url: None,
        webhook_secret: None,
    })
}

/// Inbound mail must be signed, so an e-mail channel without a secret gets one, which is returned, and keeps the one it
/// has.
async fn complete_webhook_secret(
    foundation: &Foundation,
    tx: &mut SystemTx,
    org: OrgId,
    id: ChannelId,
    secrets: &mut Value,
) -> Result<Option<String>> {
    let shared = &foundation.config.providers.email_webhook_secret;
    if secrets.get("webhook_secret").is_some() || shared.is_some() {
        return Ok(None);
    }
    let kept = match channels::find_sealed_secrets(tx, org, id).await? {
        Some(sealed) => {
            let plain = foundation.sealer.open(org.0, id.0, &sealed)?;
            let known: Value =
                serde_json::from_slice(&plain).context("its secrets are not JSON")?;
            known.get("webhook_secret").cloned()
        }
        None => None,
    };
    if let Some(kept) = kept {
        secrets["webhook_secret"] = kept;
        return Ok(None);
    }
    let made = hex::encode(rand::random::<[u8; 32]>());
    secrets["webhook_secret"] = json!(made);
    Ok(Some(made))
}

/// A Twilio channel that names no account or number uses the installation's.
fn with_account_defaults(foundation: &Foundation, kind: ChannelKind, settings: &mut Value) {
    if !matches!(kind, ChannelKind::TwilioSms | ChannelKind::TwilioWhatsapp) {
        return;
    }
    let defaults = &foundation.config.providers;
    for (key, value) in [
        ("account_sid", &defaults.twilio_account_sid),
        ("from", &defaults.twilio_phone_number),
    ] {
        if let (true, Some(value)) = (settings.get(key).is_none(), value) {
            settings[key] = json!(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::guess_region;

    #[test]
    fn the_country_of_local_numbers_is_guessed_from_locale_then_time_zone() {
        assert_eq!(guess_region("ar-EG", "UTC"), Some("EG"));
        assert_eq!(guess_region("ar", "Asia/Riyadh"), Some("SA"));
        assert_eq!(guess_region("zh-Hant-TW", "UTC"), Some("TW"));
        assert_eq!(guess_region("en", "UTC"), None);
    }
}
