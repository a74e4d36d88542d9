//! The baseline: the same rows in the same schema, one transaction per message, as a webhook handler is usually
//! written. A server process of its own, with the same HTTP stack, signature check and parser.
//!
//! It does less than the server in one respect: nothing follows its change log.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use bytes::Bytes;
use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;
use wasel_db::{Db, PoolSizes};
use wasel_domain::event::InboundMessage;
use wasel_domain::{ChannelId, ProviderEvent};
use wasel_providers::{ChannelKind, OpenChannel, ProviderConfig, Providers, WebhookRequest};

const KIND: ChannelKind = ChannelKind::WhatsappCloud;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    database_url: String,
    /// Connections of the pool.
    #[arg(long, default_value_t = 16)]
    connections: u32,
}

/// A channel, as the parent process hands it over on standard input (a JSON list).
#[derive(Debug, Serialize, Deserialize)]
pub struct Handed {
    pub org_id: Uuid,
    pub channel_id: Uuid,
    pub settings: Value,
    pub secrets: Value,
}

struct Channel {
    org_id: Uuid,
    id: Uuid,
    open: Arc<dyn OpenChannel>,
}

struct Baseline {
    db: Db,
    providers: Providers,
    channels: HashMap<String, Channel>,
}

pub async fn run(args: Args) -> Result<()> {
    let handed: Vec<Handed> = serde_json::from_str(&std::io::read_to_string(std::io::stdin())?)?;
    let providers = Providers::new(
        ProviderConfig {
            // Never called.
            meta_graph_base: "http://127.0.0.1:9".to_owned(),
            meta_graph_version: "v26.0".to_owned(),
            ..ProviderConfig::default()
        },
        None,
    );
    let mut channels = HashMap::new();
    for channel in handed {
        let open = providers.of(KIND).open(
            ChannelId::generate(),
            KIND,
            &channel.settings,
            &channel.secrets,
        )?;
        for key in open.routing_keys() {
            channels.insert(
                key,
                Channel {
                    org_id: channel.org_id,
                    id: channel.channel_id,
                    open: open.clone(),
                },
            );
        }
    }
    let sizes = PoolSizes {
        tenants: 1,
        system: args.connections,
        ingest: 1,
    };
    let db = Db::new(args.database_url.parse()?, sizes);
    let state = Arc::new(Baseline {
        db,
        providers,
        channels,
    });
    let app = Router::new()
        .route("/readyz", routing::get(ready))
        .route("/api/webhooks/whatsapp", routing::post(receive))
        .with_state(state);
    let address = SocketAddr::from(([127, 0, 0, 1], args.port));
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| address.to_string())?;
    axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |stream| {
            // Small answers must not wait; where it cannot be set they merely do.
            let _ = stream.set_nodelay(true);
        }),
        app,
    )
    .await?;
    Ok(())
}

async fn ready(State(state): State<Arc<Baseline>>) -> StatusCode {
    if state.db.ping().await.is_ok() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn receive(
    State(state): State<Arc<Baseline>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let url = format!("http://127.0.0.1{uri}");
    let request = WebhookRequest {
        method: &Method::POST,
        url: &url,
        headers: &headers,
        body: &body,
        received_at: Utc::now(),
    };
    let Ok(events) = state.providers.of(KIND).parse(&request) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    for event in &events {
        let channel = event
            .routes
            .iter()
            .find_map(|route| state.channels.get(route));
        let (Some(channel), ProviderEvent::Message(message)) = (channel, &event.event) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        if channel.open.verify(&request).is_err() {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        if store(&state.db, channel, message, &request).await.is_err() {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    }
    Json(json!({ "success": true })).into_response()
}

/// One message, one transaction: look up, insert, move the conversation, note the request, commit.
async fn store(
    db: &Db,
    channel: &Channel,
    message: &InboundMessage,
    request: &WebhookRequest<'_>,
) -> Result<()> {
    let mut tx = db.system().await?;
    let (contact, conversation, name) =
        find_or_insert_conversation(&mut tx, channel, message).await?;
    let first = message
        .customer
        .identities
        .first()
        .context("nobody wrote it")?;
    let id = Uuid::now_v7();
    let created_at: Option<chrono::DateTime<Utc>> = sqlx::query_scalar(
        "INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status,
             body, content, address, customer_name, provider_message_id, quoted_message_id, referral, created_at, sent_at)
         VALUES ($1, $2, $3, $4, $5, 'inbound', $6, 'received', $7, $8, $9, $10, $11, $12, $13, least($14, now()), $14)
         ON CONFLICT (org_id, channel_id, provider_message_id) WHERE provider_message_id IS NOT NULL DO NOTHING
         RETURNING created_at",
    )
    .bind(channel.org_id)
    .bind(id)
    .bind(conversation)
    .bind(channel.id)
    .bind(contact)
    .bind(message.content.kind.as_str())
    .bind(&message.content.text)
    .bind((!message.content.detail.is_null()).then_some(&message.content.detail))
    .bind(&first.value)
    .bind(name)
    .bind(&message.provider_message_id)
    .bind(&message.quoted_message_id)
    .bind(&message.referral)
    .bind(message.sent_at)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(created_at) = created_at {
        sqlx::query(
            "UPDATE conversations SET unread_count = unread_count + 1, last_message = left($3, 200),
                 last_direction = 'inbound', last_message_at = greatest(last_message_at, $4),
                 last_inbound_at = greatest(last_inbound_at, $4),
                 status = CASE WHEN status = 'archived' THEN 'active' ELSE status END, updated_at = now()
             WHERE org_id = $1 AND id = $2",
        )
        .bind(channel.org_id)
        .bind(conversation)
        .bind(&message.content.text)
        .bind(created_at)
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query(
        "INSERT INTO webhook_events (org_id, id, channel_id, kind, method, url, content_type, body, outcome, received_at)
         VALUES ($1, $2, $3, $4, 'POST', '/api/webhooks/whatsapp', 'application/json', $5, $6, $7)",
    )
    .bind(channel.org_id)
    .bind(Uuid::now_v7())
    .bind(channel.id)
    .bind(KIND.as_str())
    .bind(&request.body[..])
    .bind(if created_at.is_some() { "stored" } else { "duplicate" })
    .bind(request.received_at)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

async fn find_or_insert_conversation(
    connection: &mut PgConnection,
    channel: &Channel,
    message: &InboundMessage,
) -> Result<(Uuid, Uuid, Option<String>)> {
    let first = message
        .customer
        .identities
        .first()
        .context("nobody wrote it")?;
    let found = sqlx::query_as(
        "SELECT i.contact_id, c.id, c.customer_name FROM contact_identities i
         JOIN conversations c ON c.org_id = i.org_id AND c.channel_id = $4 AND c.contact_id = i.contact_id
         WHERE i.org_id = $1 AND i.kind = $2 AND i.value = $3 AND c.group_id IS NULL",
    )
    .bind(channel.org_id)
    .bind(first.kind.as_str())
    .bind(&first.value)
    .bind(channel.id)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(found) = found {
        return Ok(found);
    }
    let (contact, conversation) = (Uuid::now_v7(), Uuid::now_v7());
    let name = &message.customer.name;
    sqlx::query("INSERT INTO contacts (org_id, id, name, phone_number) VALUES ($1, $2, $3, $4)")
        .bind(channel.org_id)
        .bind(contact)
        .bind(name)
        .bind(&first.value)
        .execute(&mut *connection)
        .await?;
    for identity in &message.customer.identities {
        sqlx::query("INSERT INTO contact_identities (org_id, kind, value, contact_id) VALUES ($1, $2, $3, $4)")
            .bind(channel.org_id)
            .bind(identity.kind.as_str())
            .bind(&identity.value)
            .bind(contact)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query(
        "INSERT INTO conversations (org_id, id, channel_id, contact_id, phone_number, customer_name)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(channel.org_id)
    .bind(conversation)
    .bind(channel.id)
    .bind(contact)
    .bind(&first.value)
    .bind(name)
    .execute(&mut *connection)
    .await?;
    Ok((contact, conversation, name.clone()))
}
