//! Passwords: argon2id with the crate's default parameters (19 MiB, 2 passes, 1 lane: OWASP's recommendation).

use std::sync::OnceLock;

use argon2::password_hash::phc::PasswordHash as Phc;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, password_hash};
use tokio::sync::Semaphore;
use wasel_db::identity::PasswordHash;

/// How many hashes are computed at a time. Each takes 19 MiB and a core; a flood of sign-ins waits its turn instead
/// of taking the machine.
static TURNS: Semaphore = Semaphore::const_new(4);

/// The shortest password somebody may choose, in characters: NIST SP 800-63B section 5.1.1.2.
pub const MIN_CHARS: usize = 8;
/// The longest, so that nobody has us hash a book.
pub const MAX_CHARS: usize = 1000;

/// Hashing failed: out of memory, or the thread that did it died.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("hashing failed: {0}")]
    Hash(password_hash::Error),
    #[error("hashing was interrupted")]
    Interrupted,
}

/// Hashes a password with a fresh salt. The password is taken byte for byte, of any length.
pub async fn hash(password: &str) -> Result<PasswordHash, PasswordError> {
    let password = password.to_owned();
    in_turn(move || hash_now(&password)).await?
}

/// A hash that no password anybody knows fits, for somebody who has yet to choose one.
pub async fn hash_of_nothing() -> Result<PasswordHash, PasswordError> {
    hash(&hex::encode(rand::random::<[u8; 32]>())).await
}

/// Whether the password fits. Without a hash (there is no such user) it does the same work and says no, so that the
/// time taken tells nobody which addresses exist. A hash that is no PHC string fits no password.
pub async fn verify(password: &str, hash: Option<&PasswordHash>) -> Result<bool, PasswordError> {
    let password = password.to_owned();
    let hash = hash.cloned();
    in_turn(move || {
        let (hash, is_real) = match hash {
            Some(hash) => (hash, true),
            None => (dummy()?, false),
        };
        let fits = match Phc::new(&hash.0) {
            Ok(phc) => Argon2::default()
                .verify_password(password.as_bytes(), &phc)
                .is_ok(),
            Err(error) => {
                tracing::error!(%error, "a stored password hash is unreadable");
                false
            }
        };
        Ok(fits && is_real)
    })
    .await?
}

fn hash_now(password: &str) -> Result<PasswordHash, PasswordError> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash: Phc| PasswordHash(hash.to_string()))
        .map_err(PasswordError::Hash)
}

/// The hash for users who don't exist, with today's parameters.
fn dummy() -> Result<PasswordHash, PasswordError> {
    static DUMMY: OnceLock<PasswordHash> = OnceLock::new();
    if let Some(hash) = DUMMY.get() {
        return Ok(hash.clone());
    }
    let hash = hash_now("nobody's password")?;
    Ok(DUMMY.get_or_init(|| hash).clone())
}

async fn in_turn<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PasswordError> {
    let turn = TURNS
        .acquire()
        .await
        .map_err(|_| PasswordError::Interrupted)?;
    // The turn travels along: a caller who hangs up does not stop the work already started.
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    })
    .await
    .map_err(|_| PasswordError::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_in_any_script_fits_its_own_hash_and_no_other() {
        for password in [
            "hunter2",
            "كلمة السر ١٢٣",
            "пароль🔑",
            " leading and trailing ",
            "",
            "\0nul",
            &"長".repeat(400),
        ] {
            let stored = hash(password).await.unwrap();
            assert!(
                stored.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
                "{}",
                stored.0
            );
            assert!(
                verify(password, Some(&stored)).await.unwrap(),
                "{password:?}"
            );
            assert!(
                !verify(&format!("{password}x"), Some(&stored))
                    .await
                    .unwrap(),
                "{password:?}"
            );
        }
    }

    #[tokio::test]
    async fn long_passwords_are_not_cut_off() {
        let stored = hash(&"a".repeat(100)).await.unwrap();
        assert!(!verify(&"a".repeat(99), Some(&stored)).await.unwrap());
    }

    #[tokio::test]
    async fn equal_passwords_have_different_hashes() {
        assert_ne!(hash("same").await.unwrap(), hash("same").await.unwrap());
    }

    #[tokio::test]
    async fn nobody_signs_in_without_a_hash_even_with_the_dummy_password() {
        assert!(!verify("nobody's password", None).await.unwrap());
        assert!(
            !verify("x", Some(&PasswordHash("not a hash".into())))
                .await
                .unwrap()
        );
    }

    #[test]
    fn a_hash_is_never_printed() {
        assert!(!format!("{:?}", PasswordHash("$argon2id$secret".into())).contains("secret"));
    }
}
