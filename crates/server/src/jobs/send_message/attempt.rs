//! One send: from the stored message to the provider's answer.

use serde::Deserialize;
use wasel_db::messages;
use wasel_db::outbox::Claimed;
use wasel_domain::event::Identity;
use wasel_domain::{AttemptId, OrgId, OutboundContent};
use wasel_providers::{Accepted, ErrorClass, Outbound, SendError, Thread};

use super::retry::repeat;
use crate::outbound::NOT_ADDRESSABLE;
use crate::registry::Channel;
use crate::state::AppState;

/// Earlier messages an e-mail refers to.
const THREAD_IDS: i64 = 10;

/// Hands one message to its provider. `None`: the database stayed away until we had to stop; the lease runs out and the
/// attempt is taken for unknown.
pub async fn send(
    state: &AppState,
    claimed: &Claimed,
    channel: Option<&Channel>,
    to: Option<&Identity>,
) -> Option<Result<Accepted, SendError>> {
    let Some(channel) = channel else {
        return Some(refuse(
            ErrorClass::ChannelBlocked,
            "channel_unusable",
            "the channel cannot be opened",
        ));
    };
    let Some(to) = to else {
        return Some(refuse(
            ErrorClass::Recipient,
            "not_addressable",
            NOT_ADDRESSABLE,
        ));
    };
    let content = match OutboundContent::deserialize(&claimed.content) {
        Ok(content) => content,
        Err(error) => {
            let detail = format!("the stored content: {error}");
            return Some(refuse(ErrorClass::Content, "bad_content", detail));
        }
    };
    let thread = if channel.open.capabilities().threads_by_id {
        let what = || find_thread(state, claimed);
        Some(repeat(state, "reading a thread", what).await?)
    } else {
        None
    };
    let callback = format!(
        "{}/functions/v1/twilio-delivery-status?attempt={}",
        state.public_url, claimed.attempt_id
    );
    let outbound = Outbound {
        message_id: claimed.message_id.into(),
        attempt_id: AttemptId(claimed.attempt_id),
        thread: thread.as_ref(),
        to,
        content: &content,
        quoted_message_id: claimed.quoted_message_id.as_deref(),
        group_id: claimed.group_id.as_deref(),
        status_callback: Some(&callback),
    };
    Some(channel.open.send(&state.http, &outbound).await)
}

fn refuse(class: ErrorClass, code: &str, detail: impl Into<String>) -> Result<Accepted, SendError> {
    Err(SendError {
        class,
        code: Some(code.to_owned()),
        detail: detail.into(),
        retry_after: None,
    })
}

async fn find_thread(state: &AppState, claimed: &Claimed) -> wasel_db::Result<Thread> {
    let mut tx = state.db.system().await?;
    let (org, conversation) = (OrgId(claimed.org_id), claimed.conversation_id.into());
    let (subject, message_ids) =
        messages::find_thread(&mut tx, org, conversation, THREAD_IDS).await?;
    tx.commit().await?;
    Ok(Thread {
        subject,
        message_ids,
    })
}
