//! The built-in identity: users, sign-ins, refresh tokens. Not tenant data, so only [`SystemTx`] reaches it.

use std::fmt;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::FromRow;
use sqlx::types::Json;
use uuid::Uuid;
use wasel_domain::{OrgId, UserId};

use crate::one_time_tokens::{self, Kind};
use crate::{Result, SystemTx};

/// An argon2id hash (PHC string). Never printed.
#[derive(Clone, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// A person with a password.
#[derive(Clone, Debug, FromRow)]
pub struct User {
    pub id: Uuid,
    pub email: String,
    pub password_hash: PasswordHash,
    pub full_name: Option<String>,
    pub phone: Option<String>,
    /// What the person says about themselves, beside name and language.
    pub user_metadata: Json<Map<String, Value>>,
    /// BCP 47; `None`: their organization's.
    pub locale: Option<String>,
    /// `None`: nobody has shown yet that they read mail at this address.
    pub email_confirmed_at: Option<DateTime<Utc>>,
    /// Asked for and not confirmed yet.
    pub new_email: Option<String>,
    pub email_change_sent_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub last_sign_in_at: Option<DateTime<Utc>>,
}

/// What it takes to add a [`User`].
#[derive(Clone, Debug)]
pub struct NewUser {
    pub id: UserId,
    pub email: String,
    pub password_hash: PasswordHash,
    pub full_name: Option<String>,
    pub phone: Option<String>,
}

/// How somebody showed who they are, in the words of the claim `amr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum SignInMethod {
    Password,
    /// A mail's link or code.
    Otp,
}

impl SignInMethod {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Otp => "otp",
        }
    }
}

/// A sign-in.
#[derive(Clone, Debug, FromRow)]
pub struct Session {
    pub id: Uuid,
    pub user_id: Uuid,
    /// The tenant chosen at sign-in; `None` when the person has several and named none.
    pub org_id: Option<Uuid>,
    pub method: SignInMethod,
    pub created_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
}

/// What is stored of a refresh token: its SHA-256.
pub type TokenHash = [u8; 32];

/// What became of a presented refresh token.
#[derive(Clone, Debug)]
pub enum Rotation {
    /// The successor is in place.
    Rotated(Session),
    /// No such token, or its session has ended.
    NotFound,
    /// The token had been used before the reuse window: somebody else has it. Its session is ended now; commit.
    AlreadyUsed,
}

/// Which sessions of a person to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndSessions {
    All,
    Only(Uuid),
    AllBut(Uuid),
}

/// Adds a user. An address in use, in whatever case, is [`crate::Error::Constraint`] `users_email`.
pub async fn insert_user(tx: &mut SystemTx, user: &NewUser) -> Result<User> {
    Ok(sqlx::query_as(
        "INSERT INTO wasel.users (id, email, password_hash, full_name, phone) VALUES ($1, $2, $3, $4, $5)
         RETURNING *",
    )
    .bind(user.id.0)
    .bind(&user.email)
    .bind(&user.password_hash)
    .bind(&user.full_name)
    .bind(&user.phone)
    .fetch_one(&mut **tx)
    .await?)
}

pub async fn find_user(tx: &mut SystemTx, id: UserId) -> Result<Option<User>> {
    Ok(sqlx::query_as("SELECT * FROM wasel.users WHERE id = $1")
        .bind(id.0)
        .fetch_optional(&mut **tx)
        .await?)
}

/// A user whom nobody else changes until this is committed.
pub async fn lock_user(tx: &mut SystemTx, id: UserId) -> Result<Option<User>> {
    Ok(
        sqlx::query_as("SELECT * FROM wasel.users WHERE id = $1 FOR NO KEY UPDATE")
            .bind(id.0)
            .fetch_optional(&mut **tx)
            .await?,
    )
}

/// By address, in whatever case. Postgres refuses a NUL character in text, so such an address is nobody's.
pub async fn find_user_by_email(tx: &mut SystemTx, email: &str) -> Result<Option<User>> {
    if email.contains('\0') {
        return Ok(None);
    }
    Ok(
        sqlx::query_as("SELECT * FROM wasel.users WHERE lower(email) = lower($1)")
            .bind(email)
            .fetch_optional(&mut **tx)
            .await?,
    )
}

/// Sets a new password. `false` when there is no such user. What waits in mails to them ends, and so does a change of
/// address: whoever knew the old password may have asked for it. Ends no session: that is the caller's choice.
pub async fn update_password(tx: &mut SystemTx, id: UserId, hash: &PasswordHash) -> Result<bool> {
    let done =
        sqlx::query("UPDATE wasel.users SET password_hash = $2, updated_at = now() WHERE id = $1")
            .bind(id.0)
            .bind(hash)
            .execute(&mut **tx)
            .await?;
    delete_new_email(tx, id).await?;
    one_time_tokens::delete_of_user(tx, id, Kind::Recovery).await?;
    Ok(done.rows_affected() == 1)
}

/// Takes back a change of address that was not confirmed, with its link and code.
pub async fn delete_new_email(tx: &mut SystemTx, id: UserId) -> Result<()> {
    sqlx::query(
        "UPDATE wasel.users SET new_email = NULL, email_change_sent_at = NULL, updated_at = now()
         WHERE id = $1 AND new_email IS NOT NULL",
    )
    .bind(id.0)
    .execute(&mut **tx)
    .await?;
    one_time_tokens::delete_of_user(tx, id, Kind::EmailChange).await
}

/// Name, language and the rest of what a person says about themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AboutUser {
    pub full_name: Option<String>,
    pub locale: Option<String>,
    pub user_metadata: Map<String, Value>,
}

/// Sets all of [`AboutUser`]. Text in it must be free of NUL characters, which Postgres refuses.
pub async fn update_about(tx: &mut SystemTx, id: UserId, about: &AboutUser) -> Result<()> {
    sqlx::query(
        "UPDATE wasel.users SET full_name = $2, locale = $3, user_metadata = $4, updated_at = now() WHERE id = $1",
    )
    .bind(id.0)
    .bind(&about.full_name)
    .bind(&about.locale)
    .bind(Json(&about.user_metadata))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes whether the person is known to read mail at their address.
pub async fn update_email_confirmed(
    tx: &mut SystemTx,
    id: UserId,
    is_confirmed: bool,
) -> Result<()> {
    sqlx::query(
        "UPDATE wasel.users SET email_confirmed_at = CASE WHEN $2 THEN coalesce(email_confirmed_at, now()) END
         WHERE id = $1",
    )
    .bind(id.0)
    .bind(is_confirmed)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes the address a person wants to have instead; it is not theirs until [`update_email`].
pub async fn update_new_email(tx: &mut SystemTx, id: UserId, new_email: &str) -> Result<()> {
    sqlx::query(
        "UPDATE wasel.users SET new_email = $2, email_change_sent_at = now(), updated_at = now() WHERE id = $1",
    )
    .bind(id.0)
    .bind(new_email)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Gives a person the address they asked for and have confirmed. `None` when they no longer ask for it, or when nobody
/// has shown that the address before was theirs. One in use is
/// [`crate::Error::Constraint`] `users_email`.
pub async fn update_email(tx: &mut SystemTx, id: UserId, email: &str) -> Result<Option<User>> {
    Ok(sqlx::query_as(
        "UPDATE wasel.users SET email = new_email, new_email = NULL, email_change_sent_at = NULL,
             email_confirmed_at = now(), updated_at = now()
         WHERE id = $1 AND new_email = $2 AND email_confirmed_at IS NOT NULL RETURNING *",
    )
    .bind(id.0)
    .bind(email)
    .fetch_optional(&mut **tx)
    .await?)
}

/// Notes a sign-in and returns the user as it now is; `None` when it has been deleted meanwhile.
pub async fn update_last_sign_in(tx: &mut SystemTx, id: UserId) -> Result<Option<User>> {
    Ok(
        sqlx::query_as("UPDATE wasel.users SET last_sign_in_at = now() WHERE id = $1 RETURNING *")
            .bind(id.0)
            .fetch_optional(&mut **tx)
            .await?,
    )
}

/// Opens a session with its first refresh token.
pub async fn insert_session(
    tx: &mut SystemTx,
    user: UserId,
    org: Option<OrgId>,
    method: SignInMethod,
    token: &TokenHash,
) -> Result<Session> {
    let session: Session = sqlx::query_as(
        "INSERT INTO wasel.auth_sessions (id, user_id, org_id, method) VALUES ($1, $2, $3, $4) RETURNING *",
    )
    .bind(Uuid::now_v7())
    .bind(user.0)
    .bind(org.map(|org| org.0))
    .bind(method)
    .fetch_one(&mut **tx)
    .await?;
    insert_refresh_token(tx, session.id, token).await?;
    Ok(session)
}

/// A session that has not ended.
pub async fn find_live_session(tx: &mut SystemTx, id: Uuid) -> Result<Option<Session>> {
    Ok(
        sqlx::query_as("SELECT * FROM wasel.auth_sessions WHERE id = $1 AND ended_at IS NULL")
            .bind(id)
            .fetch_optional(&mut **tx)
            .await?,
    )
}

/// Ends sessions of a person; their refresh tokens work no more. Returns how many it ended.
pub async fn end_sessions(tx: &mut SystemTx, user: UserId, which: EndSessions) -> Result<u64> {
    let (only, but) = match which {
        EndSessions::All => (None, None),
        EndSessions::Only(id) => (Some(id), None),
        EndSessions::AllBut(id) => (None, Some(id)),
    };
    let done = sqlx::query(
        "UPDATE wasel.auth_sessions SET ended_at = now()
         WHERE user_id = $1 AND ended_at IS NULL AND ($2::uuid IS NULL OR id = $2) AND ($3::uuid IS NULL OR id <> $3)",
    )
    .bind(user.0)
    .bind(only)
    .bind(but)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

async fn insert_refresh_token(tx: &mut SystemTx, session: Uuid, token: &TokenHash) -> Result<()> {
    sqlx::query("INSERT INTO wasel.refresh_tokens (token_hash, session_id) VALUES ($1, $2)")
        .bind(&token[..])
        .bind(session)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Uses a refresh token and puts `successor` in its place. Within `reuse_window` of its first use a token
/// may be used again and gets a successor of its own. Commit whatever the outcome: [`Rotation::AlreadyUsed`] ends the
/// session.
pub async fn rotate_refresh_token(
    tx: &mut SystemTx,
    presented: &TokenHash,
    successor: &TokenHash,
    reuse_window: Duration,
) -> Result<Rotation> {
    // The lock makes two tabs take turns. clock_timestamp(), because now() stands still while we wait for it.
    let token: Option<(Uuid, bool, bool)> = sqlx::query_as(
        "SELECT session_id, used_at IS NOT NULL,
                coalesce(used_at < clock_timestamp() - make_interval(secs => $2), false)
         FROM wasel.refresh_tokens WHERE token_hash = $1 FOR UPDATE",
    )
    .bind(&presented[..])
    .bind(reuse_window.as_secs_f64())
    .fetch_optional(&mut **tx)
    .await?;
    let Some((session_id, used, window_over)) = token else {
        return Ok(Rotation::NotFound);
    };

    if window_over {
        sqlx::query(
            "UPDATE wasel.auth_sessions SET ended_at = now() WHERE id = $1 AND ended_at IS NULL",
        )
        .bind(session_id)
        .execute(&mut **tx)
        .await?;
        return Ok(Rotation::AlreadyUsed);
    }
    let Some(session) = find_live_session(tx, session_id).await? else {
        return Ok(Rotation::NotFound);
    };
    if !used {
        sqlx::query(
            "UPDATE wasel.refresh_tokens SET used_at = clock_timestamp() WHERE token_hash = $1",
        )
        .bind(&presented[..])
        .execute(&mut **tx)
        .await?;
    }
    insert_refresh_token(tx, session_id, successor).await?;
    Ok(Rotation::Rotated(session))
}

/// Housekeeping: deletes sessions that ended before `before` and refresh tokens used before it. A token deleted here
/// is answered as unknown instead of as reused. Returns how many rows went.
pub async fn delete_before(tx: &mut SystemTx, before: DateTime<Utc>) -> Result<u64> {
    let sessions = sqlx::query("DELETE FROM wasel.auth_sessions WHERE ended_at < $1")
        .bind(before)
        .execute(&mut **tx)
        .await?;
    let tokens = sqlx::query("DELETE FROM wasel.refresh_tokens WHERE used_at < $1")
        .bind(before)
        .execute(&mut **tx)
        .await?;
    Ok(sessions.rows_affected() + tokens.rows_affected())
}
