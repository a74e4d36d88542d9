//! Starting a session and waiting for what a person needs to link it: shared by `/v1/sessions` and the documents'
//! `/api/sessions`.

use std::time::Duration;

use chrono::Utc;
use tokio::time::Instant;
use uuid::Uuid;
use wasel_db::organizations;
use wasel_db::session_requests::{self, LinkedPhone};
use wasel_domain::{E164, OrgId, Region, phone};

use super::commands::{self, ANSWER_WAIT, Command, not_running};
use crate::auth::Caller;
use crate::http::error::ApiError;
use crate::state::AppState;

/// How long a request waits for a code to show.
const CODE_WAIT: Duration = Duration::from_secs(10);
/// The row is looked at this often, whatever the change log says.
const LOOK: Duration = Duration::from_secs(1);
/// What the channel is called where nobody named it.
pub const CHANNEL_NAME: &str = "WhatsApp";

/// The country of numbers that are written without one.
pub async fn region_of(state: &AppState, org: OrgId) -> Result<Option<Region>, ApiError> {
    let mut tx = state.db.system().await?;
    let organization = organizations::find(&mut tx, org).await?;
    tx.commit().await?;
    Ok(organization
        .and_then(|organization| organization.region)
        .and_then(|region| phone::parse_region(&region).ok()))
}

/// A phone number as its owner typed it.
pub async fn phone_of(state: &AppState, org: OrgId, text: &str) -> Result<E164, ApiError> {
    let region = region_of(state, org).await?;
    E164::parse(text, region).map_err(|error| ApiError::invalid("phone_number", error.to_string()))
}

/// The organisation's session as the documents know it; made, with its channel, where there is none. An imported one
/// gets its channel now.
pub async fn first_session(state: &AppState, org: OrgId) -> Result<Uuid, ApiError> {
    let mut tx = state.db.system().await?;
    let found = session_requests::find_first(&mut tx, org).await?;
    let id = match found {
        Some(session) if session.channel_id.is_some() => session.id,
        found => {
            let channel = session_requests::upsert_channel(&mut tx, org, CHANNEL_NAME).await?;
            match found {
                Some(old) if session_requests::adopt(&mut tx, org, old.id, channel).await? => {
                    old.id
                }
                _ => {
                    session_requests::find_or_insert(&mut tx, org, channel)
                        .await?
                        .0
                }
            }
        }
    };
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    Ok(id)
}

/// Has the session run, and linked by a QR code, or by a pairing code where `phone` is given. Waits a while for the code
/// to show, unless the phone is connected. Asking again is no harm: what is under way goes on.
pub async fn link(
    state: &AppState,
    caller: &Caller,
    id: Uuid,
    phone: Option<&E164>,
) -> Result<LinkedPhone, ApiError> {
    let org = caller.org_id;
    let phone = phone.map(E164::as_str);
    let missing = || ApiError::not_found("session");
    let mut tx = state.db.system().await?;
    let session = session_requests::find(&mut tx, org, id).await?;
    let session = session.ok_or_else(missing)?;
    let runs = session_requests::is_running(&mut tx, org, id).await?;
    if runs && session.status == "connected" {
        return Ok(session);
    }
    if session.channel_id.is_none() {
        let channel = session_requests::upsert_channel(&mut tx, org, CHANNEL_NAME).await?;
        if !session_requests::adopt(&mut tx, org, id, channel).await? {
            return Err(ApiError::refused(
                "channel_taken",
                "this session serves no channel, and the channel WhatsApp has another session: delete one of the two",
            ));
        }
    }
    session_requests::request_start(&mut tx, org, id, phone).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    state.phones.wake();
    let under_way = runs && session.should_run && session.linked_at.is_none();
    if under_way && session.pair_with_phone.as_deref() != phone {
        // It is being linked in another way.
        commands::ask(state, org, id, &Command::Relink, ANSWER_WAIT).await?;
    }
    wait_for_code(state, org, id, phone).await
}

/// A code that is good for a while, of the kind asked for.
fn shows_code(session: &LinkedPhone, phone: Option<&str>) -> bool {
    let valid =
        session.status == "qr_pending" && session.qr_expires_at.is_some_and(|at| at > Utc::now());
    let code = match phone {
        Some(_) => &session.pairing_code,
        None => &session.qr_code,
    };
    valid && code.is_some()
}

/// Watches the row until there is something for a person to do, or nothing more will come of it.
async fn wait_for_code(
    state: &AppState,
    org: OrgId,
    id: Uuid,
    phone: Option<&str>,
) -> Result<LinkedPhone, ApiError> {
    let deadline = Instant::now() + CODE_WAIT;
    let mut tail = state.tail.clone();
    loop {
        let seen = tail.get();
        let mut tx = state.db.system().await?;
        let session = session_requests::find(&mut tx, org, id).await?;
        let runs = session_requests::is_running(&mut tx, org, id).await?;
        tx.commit().await?;
        let session = session.ok_or_else(|| ApiError::not_found("session"))?;
        let ended = session.stop_reason.is_some() || !session.should_run;
        let done = (runs && session.status == "connected")
            || shows_code(&session, phone)
            || session.passkey_request.is_some()
            || ended;
        if done {
            return Ok(session);
        }
        if Instant::now() >= deadline {
            return if runs {
                Ok(session)
            } else {
                Err(not_running())
            };
        }
        tokio::select! {
            () = tail.wait_beyond(seen) => {}
            () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK)) => {}
        }
    }
}

/// Unlinks the phone. Where none is linked, linking ends.
pub async fn log_out(state: &AppState, org: OrgId, session: &LinkedPhone) -> Result<(), ApiError> {
    let mut tx = state.db.system().await?;
    if session.linked_at.is_none()
        && session_requests::request_stop(&mut tx, org, session.id).await?
    {
        tx.commit().await?;
        state.signals.commits.changes.notify_one();
        state.phones.wake();
        return Ok(());
    }
    tx.commit().await?;
    commands::ask(state, org, session.id, &Command::LogOut, ANSWER_WAIT).await?;
    Ok(())
}
