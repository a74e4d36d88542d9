//! Sealing secrets at rest: ChaCha20-Poly1305, a key id in front, the owning row as associated data, so that a
//! sealed value copied to another row or tenant does not open.
//!
//! [`Sealer`] is for values with a row of their own. [`RowSealer`] is for many rows whose keys are secret, too: it
//! seals key and value together and gives a keyed hash to find them by.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{self, HKDF_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};
use uuid::Uuid;

/// Opens and seals with `ENCRYPTION_KEY`; older keys open only.
pub struct Sealer {
    current: Key,
    older: Vec<Key>,
    random: SystemRandom,
}

struct Key {
    id: KeyId,
    aead: LessSafeKey,
    /// What keys for other purposes are derived from.
    derive: hkdf::Prk,
}

/// The first bytes of everything sealed: which key it was.
pub type KeyId = [u8; 4];

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
        let derive = hkdf::Salt::new(HKDF_SHA256, b"wasel").extract(&bytes);
        Ok(Self { id, aead, derive })
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
        seal(
            &self.random,
            &self.current.id,
            &self.current.aead,
            &associated(org_id, row_id),
            plain,
        )
    }

    /// Opens what [`Self::seal`] made for the same row.
    pub fn open(&self, org_id: Uuid, row_id: Uuid, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let id = key_id(sealed)?;
        let key = self
            .keys()
            .find(|key| key.id == id)
            .ok_or_else(|| SealError::UnknownKey(hex::encode(id)))?;
        open(&key.aead, &associated(org_id, row_id), sealed)
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn current_key(&self) -> KeyId {
        self.current.id
    }

    /// The ids of all configured keys.
    #[must_use]
    pub fn key_ids(&self) -> Vec<KeyId> {
        self.keys().map(|key| key.id).collect()
    }

    /// For the rows that belong to `owner` (a session, say) of a tenant.
    ///
    /// The keys are derived from ENCRYPTION_KEY for this owner alone. Nonces are random, and so many rows are written
    /// in a year that under one key for all of them two might meet.
    pub fn rows(&self, org_id: Uuid, owner: Uuid) -> Result<RowSealer, SealError> {
        let keys = self
            .keys()
            .map(|key| RowKey::derive(key, org_id, owner))
            .collect::<Result<_, _>>()?;
        Ok(RowSealer {
            owner: associated(org_id, owner),
            keys,
            random: self.random.clone(),
        })
    }

    /// The newest first.
    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.older)
    }
}

fn associated(org_id: Uuid, row_id: Uuid) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(org_id.as_bytes());
    bytes[16..].copy_from_slice(row_id.as_bytes());
    bytes
}

/// Seals the rows of one owner, keys and all. See [`Sealer::rows`].
pub struct RowSealer {
    owner: [u8; 32],
    /// The newest first, which seals; the others open only.
    keys: Vec<RowKey>,
    random: SystemRandom,
}

struct RowKey {
    id: KeyId,
    aead: LessSafeKey,
    hash: hmac::Key,
}

/// A keyed hash of a row's key: the same for the same key, and says nothing without ENCRYPTION_KEY.
pub type KeyHash = [u8; 32];

/// A row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRow {
    pub hash: KeyHash,
    pub sealed: Vec<u8>,
}

/// What [`RowSealer::open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRow {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    /// How many ENCRYPTION_KEYs ago it was sealed; 0 for the current one.
    pub age: usize,
}

impl RowKey {
    fn derive(key: &Key, org_id: Uuid, owner: Uuid) -> Result<Self, SealError> {
        let owner = associated(org_id, owner);
        let aead = key
            .derive
            .expand(&[b"row values", &owner], &CHACHA20_POLY1305)
            .map(|okm| LessSafeKey::new(UnboundKey::from(okm)))
            .map_err(|_| SealError::BadKey)?;
        let hash = key
            .derive
            .expand(&[b"row keys", &owner], hmac::HMAC_SHA256)
            .map(hmac::Key::from)
            .map_err(|_| SealError::BadKey)?;
        Ok(Self {
            id: key.id,
            aead,
            hash,
        })
    }

    fn hash(&self, kind: i16, key: &[u8]) -> KeyHash {
        let mut context = hmac::Context::with_key(&self.hash);
        context.update(&kind.to_be_bytes());
        context.update(key);
        let mut hash = KeyHash::default();
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }
}

impl RowSealer {
    /// What the row with this key may be stored under: its hash by each configured key, the newest first. A row not
    /// sealed anew since the last change of ENCRYPTION_KEY has one of the later ones.
    pub fn hashes(&self, kind: i16, key: &[u8]) -> impl Iterator<Item = KeyHash> {
        self.keys.iter().map(move |by| by.hash(kind, key))
    }

    /// Seals a row: key id ‖ nonce ‖ ciphertext of (length of the key ‖ key ‖ value) ‖ tag.
    pub fn seal(&self, kind: i16, key: &[u8], value: &[u8]) -> Result<SealedRow, SealError> {
        let by = self.keys.first().ok_or(SealError::BadKey)?;
        let hash = by.hash(kind, key);
        let length = u32::try_from(key.len()).map_err(|_| SealError::Damaged)?;
        let plain = [&length.to_be_bytes(), key, value].concat();
        let sealed = seal(
            &self.random,
            &by.id,
            &by.aead,
            &self.associated(kind, &hash),
            &plain,
        )?;
        Ok(SealedRow { hash, sealed })
    }

    /// Opens what [`Self::seal`] made for the same owner, kind and hash.
    pub fn open(&self, kind: i16, hash: &[u8], sealed: &[u8]) -> Result<OpenRow, SealError> {
        let id = key_id(sealed)?;
        let (age, by) = self
            .keys
            .iter()
            .enumerate()
            .find(|(_, key)| key.id == id)
            .ok_or_else(|| SealError::UnknownKey(hex::encode(id)))?;
        let mut plain = open(&by.aead, &self.associated(kind, hash), sealed)?;
        let (length, rest) = plain.split_first_chunk::<4>().ok_or(SealError::Damaged)?;
        let (key, value) = rest
            .split_at_checked(u32::from_be_bytes(*length) as usize)
            .ok_or(SealError::Damaged)?;
        let key = key.to_vec();
        let start = plain.len() - value.len();
        plain.drain(..start);
        Ok(OpenRow {
            key,
            value: plain,
            age,
        })
    }

    fn associated(&self, kind: i16, hash: &[u8]) -> Vec<u8> {
        [&self.owner, &kind.to_be_bytes()[..], hash].concat()
    }
}

fn key_id(sealed: &[u8]) -> Result<KeyId, SealError> {
    sealed.first_chunk().copied().ok_or(SealError::Damaged)
}

fn seal(
    random: &SystemRandom,
    id: &KeyId,
    aead: &LessSafeKey,
    associated: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE_LEN];
    random
        .fill(&mut nonce)
        .map_err(|_| SealError::NoRandomness)?;
    let mut sealed = plain.to_vec();
    aead.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(associated),
        &mut sealed,
    )
    .map_err(|_| SealError::Damaged)?;
    Ok([&id[..], &nonce, &sealed].concat())
}

fn open(aead: &LessSafeKey, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (nonce, ciphertext) = sealed
        .get(size_of::<KeyId>()..)
        .and_then(<[u8]>::split_first_chunk::<NONCE_LEN>)
        .ok_or(SealError::Damaged)?;
    let mut plain = ciphertext.to_vec();
    let length = aead
        .open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(associated),
            &mut plain,
        )
        .map_err(|_| SealError::Damaged)?
        .len();
    plain.truncate(length);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEALED_BY_THE_FIRST_RELEASE: &str =
        "e0e77a50000102030405060708090a0b3db0c6e8c8ac6f4fec780b6c19d2da1c6b40b090d2";

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
    fn what_earlier_versions_sealed_still_opens() {
        let (org, row) = (Uuid::from_u128(1), Uuid::from_u128(2));
        // Sealed by the first release, with key 0xaa…: key id, nonce, ciphertext and tag.
        let sealed = hex::decode(SEALED_BY_THE_FIRST_RELEASE).unwrap();
        assert_eq!(sealer("aa").open(org, row, &sealed).unwrap(), b"token");
    }

    #[test]
    fn a_sealed_row_opens_only_where_it_belongs() {
        let (org, owner) = (Uuid::now_v7(), Uuid::now_v7());
        let rows = sealer("aa").rows(org, owner).unwrap();
        let sealed = rows
            .seal(3, b"447700900123@s.whatsapp.net", b"ratchet")
            .unwrap();
        let found = rows.open(3, &sealed.hash, &sealed.sealed).unwrap();
        assert_eq!(found.key, b"447700900123@s.whatsapp.net");
        assert_eq!(found.value, b"ratchet");
        assert!(
            !sealed
                .sealed
                .windows(5)
                .any(|w| w == b"44770" || w == b"ratch")
        );

        let elsewhere = |org, owner, kind, hash: &[u8]| {
            let rows = sealer("aa").rows(org, owner).unwrap();
            rows.open(kind, hash, &sealed.sealed)
        };
        let other_hash = rows.seal(3, b"other", b"").unwrap().hash;
        for refused in [
            elsewhere(Uuid::now_v7(), owner, 3, &sealed.hash),
            elsewhere(org, Uuid::now_v7(), 3, &sealed.hash),
            elsewhere(org, owner, 4, &sealed.hash),
            elsewhere(org, owner, 3, &other_hash),
        ] {
            assert_eq!(refused, Err(SealError::Damaged));
        }
        let with_another_key = sealer("bb").rows(org, owner).unwrap();
        assert!(matches!(
            with_another_key.open(3, &sealed.hash, &sealed.sealed),
            Err(SealError::UnknownKey(_))
        ));
    }

    #[test]
    fn the_hash_of_a_key_differs_by_owner_kind_and_encryption_key() {
        let (org, owner) = (Uuid::now_v7(), Uuid::now_v7());
        let hash = |byte, org, owner, kind| {
            let rows = sealer(byte).rows(org, owner).unwrap();
            rows.hashes(kind, b"447700900123").next().unwrap()
        };
        let one = hash("aa", org, owner, 3);
        assert_eq!(one, hash("aa", org, owner, 3));
        assert_ne!(one, hash("aa", org, owner, 4));
        assert_ne!(one, hash("aa", org, Uuid::now_v7(), 3));
        assert_ne!(one, hash("aa", Uuid::now_v7(), owner, 3));
        assert_ne!(one, hash("bb", org, owner, 3));
    }

    #[test]
    fn a_row_is_found_by_an_older_key_until_it_is_sealed_anew() {
        let (org, owner) = (Uuid::now_v7(), Uuid::now_v7());
        let before = sealer("aa").rows(org, owner).unwrap();
        let old = before.seal(3, b"key", b"value").unwrap();
        let rotated = Sealer::new(&"bb".repeat(32), &["aa".repeat(32)]).unwrap();
        let rows = rotated.rows(org, owner).unwrap();
        let hashes: Vec<_> = rows.hashes(3, b"key").collect();
        assert_eq!(hashes[1], old.hash);
        assert_eq!(
            rows.open(3, &old.hash, &old.sealed).unwrap().value,
            b"value"
        );
        let new = rows.seal(3, b"key", b"value").unwrap();
        assert_eq!(new.hash, hashes[0]);
        assert_eq!(new.sealed[..4], rotated.current_key());
    }

    #[test]
    fn a_key_of_the_wrong_length_is_refused() {
        assert_eq!(Sealer::new("abcd", &[]).err(), Some(SealError::BadKey));
    }
}
