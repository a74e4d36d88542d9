//! What people ask of a session (log out, a pairing code, a new group, …). The request is a row, because the session may
//! run on another node than the one that was asked.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use uuid::Uuid;
use wasel_db::sessions;
use wasel_jobs::{Job, JobError, Next};
use wasel_sessions::Command;

use super::Phones;
use crate::state::AppState;

/// Other nodes write commands, too.
const POLL: Duration = Duration::from_millis(500);
const BATCH: i64 = 32;

/// Carries out the commands for the sessions of this node.
pub struct CarryOutCommands(pub AppState);

#[async_trait]
impl Job for CarryOutCommands {
    const NAME: &'static str = "session_commands";

    async fn run(&self) -> Result<Next, JobError> {
        let sessions = self.0.phones.running();
        if sessions.is_empty() {
            return Ok(Next::After(POLL));
        }
        let mut tx = self.0.db.system().await?;
        let commands = sessions::lock_commands(&mut tx, &sessions, BATCH).await?;
        tx.commit().await?;
        let again = commands.len() as i64 == BATCH;
        let mut by_session: HashMap<Uuid, Vec<sessions::Command>> = HashMap::new();
        for command in commands {
            by_session
                .entry(command.session_id)
                .or_default()
                .push(command);
        }
        for commands in by_session.into_values() {
            let state = self.0.clone();
            // One that waits for its phone must not keep the others; those of one phone go in order.
            tokio::spawn(async move {
                for command in commands {
                    carry_out(&state, command).await;
                }
            });
        }
        Ok(if again { Next::Now } else { Next::After(POLL) })
    }
}

async fn carry_out(state: &AppState, row: sessions::Command) {
    let answer = match serde_json::from_value::<Command>(row.command) {
        Ok(command) => answer(&state.phones, row.session_id, command).await,
        Err(error) => problem("unknown_command", &error.to_string()),
    };
    let write = async {
        let mut tx = state.db.system().await?;
        sessions::answer_command(&mut tx, row.org_id, row.id, &answer).await?;
        tx.commit().await
    };
    if let Err(error) = write.await {
        tracing::warn!(session.id = %row.session_id, %error, "the answer to a command was lost");
    }
}

async fn answer(phones: &Phones, session: Uuid, command: Command) -> Value {
    match phones.command(session, command).await {
        Ok(value) => json!({ "ok": value }),
        Err(error) => problem(error.code(), &error.to_string()),
    }
}

fn problem(code: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message } })
}
