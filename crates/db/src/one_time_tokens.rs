//! Links and codes that are good once: invitations, recovery, a new address. Not tenant data, so only [`SystemTx`]
//! reaches it.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;
use wasel_domain::{OrgId, UserId};

use crate::identity::TokenHash;
use crate::{Result, SystemTx};

/// Wrong codes after which only the link works.
const MAX_WRONG_CODES: i16 = 5;
/// Wrong codes of a person in a day after which only links work: a new mail gives five more guesses, so without this a
/// patient guesser finds one of a million codes in the end.
const MAX_WRONG_CODES_A_DAY: i32 = 20;

/// What a link or code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Invite,
    Recovery,
    EmailChange,
}

impl Kind {
    /// As in `one_time_tokens.kind`, and in GoTrue's `type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invite => "invite",
            Self::Recovery => "recovery",
            Self::EmailChange => "email_change",
        }
    }

    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Invite, Self::Recovery, Self::EmailChange]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// A token that has not expired.
#[derive(Clone, Debug, FromRow)]
pub struct OneTimeToken {
    /// Of a recovery or a change of address.
    pub user_id: Option<Uuid>,
    /// Of an invitation.
    pub org_id: Option<Uuid>,
    pub invitation_id: Option<Uuid>,
    /// It was only ever in a mail to `email`.
    pub by_mail: bool,
    pub email: String,
}

/// Whom or what a new token is for.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    Invitation(OrgId, Uuid),
    User(UserId),
}

/// What it takes to add a token.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    pub hash: TokenHash,
    pub kind: Kind,
    pub subject: Subject,
    pub by_mail: bool,
    pub email: &'a str,
    /// Of the digits beside the link.
    pub code_hash: Option<TokenHash>,
    pub lifetime: Duration,
}

/// Adds a token. One for a person takes the place of their last of this kind.
pub async fn insert(tx: &mut SystemTx, token: &NewToken<'_>) -> Result<()> {
    let (user, org, invitation) = match token.subject {
        Subject::Invitation(org, invitation) => (None, Some(org.0), Some(invitation)),
        Subject::User(user) => {
            delete_of_user(tx, user, token.kind).await?;
            (Some(user.0), None, None)
        }
    };
    sqlx::query(
        "INSERT INTO wasel.one_time_tokens
             (token_hash, kind, user_id, org_id, invitation_id, by_mail, email, code_hash, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() + make_interval(secs => $9))
         ON CONFLICT (user_id, kind) WHERE user_id IS NOT NULL DO UPDATE SET token_hash = excluded.token_hash,
             email = excluded.email, code_hash = excluded.code_hash, wrong_codes = 0, expires_at = excluded.expires_at",
    )
    .bind(&token.hash[..])
    .bind(token.kind.as_str())
    .bind(user)
    .bind(org)
    .bind(invitation)
    .bind(token.by_mail)
    .bind(token.email)
    .bind(token.code_hash.as_ref().map(|hash| &hash[..]))
    .bind(token.lifetime.as_secs_f64())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A token that is still good, without using it.
pub async fn find(tx: &mut SystemTx, kind: Kind, hash: &TokenHash) -> Result<Option<OneTimeToken>> {
    Ok(sqlx::query_as(
        "SELECT * FROM wasel.one_time_tokens WHERE token_hash = $1 AND kind = $2 AND expires_at > now()",
    )
    .bind(&hash[..])
    .bind(kind.as_str())
    .fetch_optional(&mut **tx)
    .await?)
}

/// Uses a token: it is gone once this is committed.
pub async fn take(tx: &mut SystemTx, kind: Kind, hash: &TokenHash) -> Result<Option<OneTimeToken>> {
    Ok(sqlx::query_as(
        "DELETE FROM wasel.one_time_tokens WHERE token_hash = $1 AND kind = $2 AND expires_at > now() RETURNING *",
    )
    .bind(&hash[..])
    .bind(kind.as_str())
    .fetch_optional(&mut **tx)
    .await?)
}

/// Uses the token of this address by its code. A wrong code is counted; after five of one mail, or twenty of one person
/// in a day, only the link works: commit whatever the outcome.
pub async fn take_by_code(
    tx: &mut SystemTx,
    kind: Kind,
    email: &str,
    code_hash: &TokenHash,
) -> Result<Option<OneTimeToken>> {
    if email.contains('\0') {
        return Ok(None);
    }
    // The lock makes guesses take turns, so that a hundred at once count as a hundred.
    let candidates: Vec<(Vec<u8>, Vec<u8>, Uuid)> = sqlx::query_as(
        "SELECT t.token_hash, t.code_hash, u.id FROM wasel.one_time_tokens t JOIN wasel.users u ON u.id = t.user_id
         WHERE lower(t.email) = lower($1) AND t.kind = $2 AND t.code_hash IS NOT NULL AND t.wrong_codes < $3
           AND t.expires_at > now()
           AND (u.wrong_codes < $4 OR u.wrong_codes_since <= now() - interval '1 day')
         ORDER BY t.token_hash FOR UPDATE OF t",
    )
    .bind(email)
    .bind(kind.as_str())
    .bind(MAX_WRONG_CODES)
    .bind(MAX_WRONG_CODES_A_DAY)
    .fetch_all(&mut **tx)
    .await?;
    let fitting = candidates.iter().find(|(_, code, _)| code == code_hash);
    if let Some((hash, _, _)) = fitting {
        return Ok(sqlx::query_as(
            "DELETE FROM wasel.one_time_tokens WHERE token_hash = $1 RETURNING *",
        )
        .bind(hash)
        .fetch_optional(&mut **tx)
        .await?);
    }
    let (tried, people): (Vec<Vec<u8>>, Vec<Uuid>) = candidates
        .into_iter()
        .map(|(hash, _, person)| (hash, person))
        .unzip();
    sqlx::query(
        "UPDATE wasel.one_time_tokens SET wrong_codes = wrong_codes + 1 WHERE token_hash = ANY ($1)",
    )
    .bind(tried)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "UPDATE wasel.users SET
             wrong_codes = CASE WHEN wrong_codes_since > now() - interval '1 day' THEN wrong_codes + 1 ELSE 1 END,
             wrong_codes_since = CASE WHEN wrong_codes_since > now() - interval '1 day' THEN wrong_codes_since
                                      ELSE now() END
         WHERE id = ANY ($1)",
    )
    .bind(people)
    .execute(&mut **tx)
    .await?;
    Ok(None)
}

/// Ends a person's token of a kind.
pub async fn delete_of_user(tx: &mut SystemTx, user: UserId, kind: Kind) -> Result<()> {
    sqlx::query("DELETE FROM wasel.one_time_tokens WHERE user_id = $1 AND kind = $2")
        .bind(user.0)
        .bind(kind.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Ends all links of an invitation.
pub async fn delete_of_invitation(tx: &mut SystemTx, org: OrgId, invitation: Uuid) -> Result<()> {
    sqlx::query("DELETE FROM wasel.one_time_tokens WHERE org_id = $1 AND invitation_id = $2")
        .bind(org.0)
        .bind(invitation)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Housekeeping.
pub async fn delete_expired(tx: &mut SystemTx) -> Result<u64> {
    let done = sqlx::query("DELETE FROM wasel.one_time_tokens WHERE expires_at < now()")
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected())
}
