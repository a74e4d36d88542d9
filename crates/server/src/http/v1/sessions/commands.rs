//! Asking something of the node that runs a session, which may be another than this.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;
use wasel_db::session_requests::{self, Outcome};
use wasel_domain::OrgId;

use crate::http::error::ApiError;
use crate::state::AppState;

/// For what WhatsApp has to answer, too.
pub const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// Between two looks at the answer: quick at first, for most answers are.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LATER_LOOKS: Duration = Duration::from_millis(250);

/// Whom a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// E.164.
    Phone(String),
    /// `201012345678@s.whatsapp.net`.
    Jid(String),
    /// `123456789012345@lid`.
    Lid(String),
    /// `120363…@g.us`.
    Group(String),
}

impl Recipient {
    fn to_json(&self) -> Value {
        match self {
            Self::Phone(phone) => json!({ "phone": phone }),
            Self::Jid(jid) => json!({ "jid": jid }),
            Self::Lid(lid) => json!({ "lid": lid }),
            Self::Group(jid) => json!({ "group": jid }),
        }
    }
}

/// What can be asked of a session. Its JSON is that of `wasel_sessions::Command`, which a build without linked phones
/// does not have: another node may.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Unlinks the phone for good.
    LogOut,
    /// Begins linking anew, in the way its row says by now.
    Relink,
    /// What the browser's authenticator said.
    PasskeyResponse { assertion: Value },
    /// The person has compared the codes.
    PasskeyConfirm,
    /// The groups the phone is in.
    Groups,
    CreateGroup {
        subject: String,
        participants: Vec<Recipient>,
    },
    /// Shows a customer or a group that somebody types.
    Typing {
        to: Recipient,
        typing: bool,
        recording: bool,
    },
}

impl Command {
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::LogOut => json!({ "command": "log_out" }),
            Self::Relink => json!({ "command": "relink" }),
            Self::PasskeyResponse { assertion } => {
                json!({ "command": "passkey_response", "assertion": assertion })
            }
            Self::PasskeyConfirm => json!({ "command": "passkey_confirm" }),
            Self::Groups => json!({ "command": "groups" }),
            Self::CreateGroup {
                subject,
                participants,
            } => {
                let participants: Vec<Value> =
                    participants.iter().map(Recipient::to_json).collect();
                json!({ "command": "create_group", "subject": subject, "participants": participants })
            }
            Self::Typing {
                to,
                typing,
                recording,
            } => {
                json!({ "command": "typing", "to": to.to_json(), "typing": typing, "recording": recording })
            }
        }
    }
}

/// 409: no node runs the session, so nobody can carry anything out.
pub fn not_running() -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        "not_running",
        "no node runs this session: start it by linking it, and see that a server with the feature linked-phones runs",
    )
}

/// Hands the command over and does not wait: for what is worthless a moment later.
pub async fn tell(
    state: &AppState,
    org: OrgId,
    session: Uuid,
    command: &Command,
    ttl: Duration,
) -> Result<Uuid, ApiError> {
    let mut tx = state.db.system().await?;
    let command = command.to_json();
    let id = session_requests::insert_command(&mut tx, org, session, &command, ttl).await?;
    tx.commit().await?;
    state.signals.sessions.notify_one();
    id.ok_or_else(not_running)
}

/// Hands the command over and waits for the answer's `ok`.
pub async fn ask(
    state: &AppState,
    org: OrgId,
    session: Uuid,
    command: &Command,
    wait: Duration,
) -> Result<Value, ApiError> {
    let id = tell(state, org, session, command, wait).await?;
    let deadline = Instant::now() + wait;
    let mut pause = FIRST_LOOK;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LATER_LOOKS);
        let mut tx = state.db.system().await?;
        let outcome = session_requests::find_outcome(&mut tx, org, id).await?;
        tx.commit().await?;
        match outcome {
            Outcome::Answered(answer) => return read_answer(answer),
            Outcome::Gone => return Err(ApiError::not_found("session")),
            Outcome::Waiting if Instant::now() < deadline => {}
            Outcome::Waiting => break,
        }
    }
    let mut tx = state.db.system().await?;
    let withdrawn = session_requests::withdraw_command(&mut tx, org, id).await?;
    tx.commit().await?;
    let message = if withdrawn {
        "the node that runs this session did not take it up in time; nothing was done"
    } else {
        "the session has not answered in time; it may still carry this out"
    };
    Err(ApiError::new(
        StatusCode::GATEWAY_TIMEOUT,
        "no_answer",
        message,
    ))
}

/// `{ok: …}`, or `{error: {code, message}}` as 422 with the session's own code in `details`.
fn read_answer(mut answer: Value) -> Result<Value, ApiError> {
    if let Some(ok) = answer.get_mut("ok") {
        return Ok(ok.take());
    }
    let error = &answer["error"];
    let message = error["message"]
        .as_str()
        .unwrap_or("the session gave no reason");
    let code = error["code"].as_str().unwrap_or("unknown");
    Err(ApiError::refused("session_refused", message).with_details(json!({ "code": code })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "linked-phones")]
    #[test]
    fn the_sessions_read_what_is_written_here() {
        use wasel_sessions::Command as Read;
        let people = vec![
            Recipient::Phone("+201012345678".to_owned()),
            Recipient::Jid("201012345678@s.whatsapp.net".to_owned()),
            Recipient::Lid("77@lid".to_owned()),
        ];
        let commands = [
            Command::LogOut,
            Command::Relink,
            Command::PasskeyResponse {
                assertion: json!({ "id": "x" }),
            },
            Command::PasskeyConfirm,
            Command::Groups,
            Command::CreateGroup {
                subject: "x".to_owned(),
                participants: people,
            },
            Command::Typing {
                to: Recipient::Group("1203@g.us".to_owned()),
                typing: true,
                recording: false,
            },
        ];
        for command in commands {
            let json = command.to_json();
            let read: Read = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), json);
        }
    }

    #[test]
    fn an_answer_is_its_ok_or_an_error_in_the_sessions_words() {
        assert_eq!(
            read_answer(json!({ "ok": { "a": 1 } })).unwrap(),
            json!({ "a": 1 })
        );
        assert_eq!(read_answer(json!({ "ok": null })).unwrap(), Value::Null);
        let error = read_answer(
            json!({ "error": { "code": "not_connected", "message": "not connected yet" } }),
        )
        .unwrap_err();
        assert_eq!(
            (error.status.as_u16(), error.message.as_str()),
            (422, "not connected yet")
        );
        assert_eq!(*error.details.unwrap(), json!({ "code": "not_connected" }));
        for rubbish in [Value::Null, json!([]), json!({ "error": "x" })] {
            assert_eq!(
                read_answer(rubbish).unwrap_err().message,
                "the session gave no reason"
            );
        }
    }
}
