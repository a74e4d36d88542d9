//! Sealing secrets at rest: ChaCha20-Poly1305, a key id in front, the owning row as associated data, so that a
//! sealed value copied to another row or tenant does not open.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

/// Opens and seals with `ENCRYPTION_KEY`; older keys open only.
pub struct Sealer {
    current: Key,
    older: Vec<Key>,
    random: SystemRandom,
}

struct Key {
    id: [u8; 4],
    aead: LessSafeKey,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("ENCRYPTION_KEY must be 32 bytes, as 64 hex digits")]
    BadKey,
    #[error("sealed with a key that is not configured (key id {0})")]
    UnknownKey(String),
    #[error("the sealed value is damaged or belongs to another row")]
    Damaged,
    #[error("no randomness available")]
    NoRandomness,
}

impl Key {
    fn parse(hex_key: &str) -> Result<Self, SealError> {
        let bytes = hex::decode(hex_key.trim()).map_err(|_| SealError::BadKey)?;
        let aead = LessSafeKey::new(
            UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| SealError::BadKey)?,
        );
        let hash = digest::digest(&digest::SHA256, &bytes);
        let mut id = [0; 4];
        id.copy_from_slice(&hash.as_ref()[..4]);
        Ok(Self { id, aead })
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("key_id", &hex::encode(self.current.id))
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// `current` seals; `older` keys still open what they sealed.
    pub fn new(current: &str, older: &[String]) -> Result<Self, SealError> {
        Ok(Self {
            current: Key::parse(current)?,
            older: older
                .iter()
                .map(|key| Key::parse(key))
                .collect::<Result<_, _>>()?,
            random: SystemRandom::new(),
        })
    }

    /// Seals `plain` for one row of one tenant: key id ‖ nonce ‖ ciphertext ‖ tag.
    pub fn seal(&self, org_id: Uuid, row_id: Uuid, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        self.random
            .fill(&mut nonce)
            .map_err(|_| SealError::NoRandomness)?;
        let mut sealed = plain.to_vec();
        self.current
            .aead
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                associated(org_id, row_id),
                &mut sealed,
            )
            .map_err(|_| SealError::Damaged)?;
        Ok([&self.current.id[..], &nonce, &sealed].concat())
    }

    /// Opens what [`Self::seal`] made for the same row.
    pub fn open(&self, org_id: Uuid, row_id: Uuid, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (id, rest) = sealed.split_first_chunk::<4>().ok_or(SealError::Damaged)?;
        let (nonce, ciphertext) = rest
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(SealError::Damaged)?;
        let key = std::iter::once(&self.current)
            .chain(&self.older)
            .find(|key| key.id == *id)
            .ok_or_else(|| SealError::UnknownKey(hex::encode(id)))?;
        let mut plain = ciphertext.to_vec();
        let length = key
            .aead
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                associated(org_id, row_id),
                &mut plain,
            )
            .map_err(|_| SealError::Damaged)?
            .len();
        plain.truncate(length);
        Ok(plain)
    }
}

fn associated(org_id: Uuid, row_id: Uuid) -> Aad<[u8; 32]> {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(org_id.as_bytes());
    bytes[16..].copy_from_slice(row_id.as_bytes());
    Aad::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: &str) -> Sealer {
        Sealer::new(&byte.repeat(32), &[]).unwrap()
    }

    #[test]
    fn a_sealed_secret_opens_only_for_its_own_row_and_key() {
        let (org, row) = (Uuid::now_v7(), Uuid::now_v7());
        let sealed = sealer("aa").seal(org, row, b"token").unwrap();
        assert!(!sealed.windows(5).any(|w| w == b"token"));
        assert_eq!(sealer("aa").open(org, row, &sealed).unwrap(), b"token");
        assert_eq!(
            sealer("aa").open(Uuid::now_v7(), row, &sealed),
            Err(SealError::Damaged)
        );
        assert_eq!(
            sealer("aa").open(org, Uuid::now_v7(), &sealed),
            Err(SealError::Damaged)
        );
        assert!(matches!(
            sealer("bb").open(org, row, &sealed),
            Err(SealError::UnknownKey(_))
        ));
        assert_eq!(
            sealer("aa").open(org, row, &sealed[..10]),
            Err(SealError::Damaged)
        );
    }

    #[test]
    fn an_older_key_still_opens_after_rotation() {
        let (org, row) = (Uuid::now_v7(), Uuid::now_v7());
        let sealed = sealer("aa").seal(org, row, b"token").unwrap();
        let rotated = Sealer::new(&"bb".repeat(32), &["aa".repeat(32)]).unwrap();
        assert_eq!(rotated.open(org, row, &sealed).unwrap(), b"token");
    }

    #[test]
    fn a_key_of_the_wrong_length_is_refused() {
        assert_eq!(Sealer::new("abcd", &[]).err(), Some(SealError::BadKey));
    }
}
