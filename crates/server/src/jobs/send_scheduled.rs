//! Queues scheduled messages when their time has come, and moves recurring ones on to their next time.
//!
//! The message and the next time are written in one transaction under a row lock: any number of nodes send each run once.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;
use wasel_db::contacts;
use wasel_db::conversations::{self, Conversation};
use wasel_db::scheduled::{self, Run, ScheduledMessage};
use wasel_domain::{Category, OrgId, OutboundContent, UserId};
use wasel_jobs::{Job, JobError, Next};

use crate::auth::Caller;
use crate::http::error::ApiError;
use crate::outbound::{self, ChannelHandle, Origin, Recipient, SendRequest};
use crate::scheduled as planned;
use crate::state::AppState;

const BATCH: i64 = 100;
/// Rows written by other programs are seen within this time.
const POLL: Duration = Duration::from_secs(1);

pub struct SendScheduled(pub AppState);

#[async_trait]
impl Job for SendScheduled {
    const NAME: &'static str = "send_scheduled";

    async fn run(&self) -> Result<Next, JobError> {
        let state = &self.0;
        let mut tx = state.db.system().await?;
        let due = scheduled::list_due(&mut tx, BATCH).await?;
        let next_due = scheduled::next_due_in(&mut tx).await?;
        tx.commit().await?;
        let mut done = 0;
        for row in &due {
            match send(state, row).await {
                Ok(true) => done += 1,
                // Another node has it.
                Ok(false) => {}
                // One in trouble does not hold up the others; it is due until its late limit.
                Err(error) => {
                    tracing::warn!(scheduled.id = %row.id, %error, "a scheduled message could not be queued yet");
                }
            }
        }
        if done > 0 {
            outbound::wake_sender(state);
        }
        if due.len() as i64 == BATCH && done > 0 {
            return Ok(Next::Now);
        }
        // What is due and still there is in trouble.
        let wait = next_due.filter(|wait| !wait.is_zero()).unwrap_or(POLL);
        Ok(Next::After(wait.clamp(Duration::from_millis(20), POLL)))
    }
}

/// Does one run; `false` if somebody else did, or changed it.
async fn send(state: &AppState, row: &ScheduledMessage) -> Result<bool, JobError> {
    let (org, now) = (OrgId(row.org_id), Utc::now());
    let caller = Caller::service(org, row.created_by.map(UserId));
    let late = (now - row.fields.scheduled_for).as_seconds_f64();
    // Outside the transaction: it reads by connections of its own.
    let prepared = if late > row.fields.late_limit_seconds {
        Err(ApiError::refused(
            "missed",
            format!(
                "it was due at {} and is too late now",
                row.fields.scheduled_for.to_rfc3339()
            ),
        ))
    } else {
        prepare(state, &caller, row).await
    };
    let next = planned::next_run(&row.fields, row.run_count + 1, now);
    let mut tx = state.db.system().await?;
    if !scheduled::lock_due(&mut tx, row).await? {
        return Ok(false);
    }
    let queued = match prepared {
        Ok(request) => queue(&mut tx, state, &caller, row, &request).await,
        Err(error) => Err(error),
    };
    let run = match queued {
        Ok(message) => Run {
            message_id: Some(message),
            error: None,
            next: next.clone().unwrap_or_default(),
        },
        Err(error) if error.status.is_server_error() => return Err(error.message.into()),
        Err(error) => {
            // What the refused message left behind goes.
            drop(tx);
            tx = state.db.system().await?;
            if !scheduled::lock_due(&mut tx, row).await? {
                return Ok(false);
            }
            Run {
                message_id: None,
                error: Some((error.code.to_owned(), error.in_words())),
                next: next.clone().unwrap_or_default(),
            }
        }
    };
    // A recurrence that cannot be read (written by hand) went once; it says why it goes no more.
    let run = match next {
        Err(error) if run.error.is_none() => Run {
            error: Some((error.code.to_owned(), error.in_words())),
            ..run
        },
        _ => run,
    };
    scheduled::record_run(&mut tx, org, row.id, &run).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    Ok(true)
}

async fn conversation_of(
    state: &AppState,
    caller: &Caller,
    id: Uuid,
) -> Result<Conversation, ApiError> {
    let mut tx = state.db.system().await?;
    let found = conversations::find(&mut tx, caller.org_id, id.into()).await?;
    tx.commit().await?;
    found.ok_or_else(|| ApiError::not_found("conversation"))
}

async fn prepare(
    state: &AppState,
    caller: &Caller,
    row: &ScheduledMessage,
) -> Result<SendRequest, ApiError> {
    let fields = &row.fields;
    let channel = state
        .registry
        .find(caller.org_id, fields.channel_id.into())
        .await?
        .ok_or_else(|| {
            let message = "the channel cannot be opened: declare it again, then make a new message";
            ApiError::refused("channel_unusable", message)
        })?;
    let to = match fields.conversation_id {
        Some(id) => {
            let conversation = conversation_of(state, caller, id).await?;
            // Written by SQL: whoever may use one channel must not reach another one's customer by it.
            if conversation.channel_id != fields.channel_id {
                let message = "is a conversation of another channel";
                return Err(ApiError::invalid("conversation_id", message));
            }
            conversation.phone_number
        }
        None => fields.address.clone(),
    };
    let content: OutboundContent = planned::content_of(
        state,
        caller,
        &channel,
        to.as_deref(),
        fields.content.as_ref(),
        fields.template_id,
        &fields.variables,
    )
    .await?;
    let recipient = match (fields.conversation_id, &fields.address) {
        (Some(id), _) => Recipient::Conversation(id.into()),
        (None, Some(to)) => Recipient::Address {
            channel: std::sync::Arc::new(ChannelHandle(channel)),
            to: to.clone(),
        },
        (None, None) => return Err(ApiError::invalid("to", "is missing")),
    };
    Ok(SendRequest {
        priority: fields.priority,
        category: Category::parse(&fields.category).unwrap_or_default(),
        metadata: json!({ "scheduled_message_id": row.id }),
        origin: Origin {
            trigger_type: "scheduled".to_owned(),
            related_entity_id: Some(row.id.to_string()),
            ..Origin::default()
        },
        ..SendRequest::new(recipient, content)
    })
}

async fn queue(
    tx: &mut wasel_db::SystemTx,
    state: &AppState,
    caller: &Caller,
    row: &ScheduledMessage,
    request: &SendRequest,
) -> Result<Uuid, ApiError> {
    if let (Recipient::Address { channel, to }, Some(name)) =
        (&request.recipient, &row.fields.recipient_name)
    {
        let identity = outbound::address(&channel.0, to)?;
        contacts::find_or_insert(tx, caller.org_id, &identity, Some(name)).await?;
    }
    let queued = outbound::enqueue_in(tx, state, caller, request).await?;
    Ok(queued.message.id)
}

/// The default [`wasel_db::scheduled::ScheduledFields::late_limit_seconds`].
pub const LATE_LIMIT: TimeDelta = TimeDelta::hours(24);
