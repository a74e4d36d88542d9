//! Several small values in one row, and several parts in one key.

use std::collections::BTreeMap;

use whatsapp_rust::wacore::store::error::{Result, StoreError};

/// A small map that is one row's value: a length (4 bytes, big endian) and that many bytes, for key, value, key …
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Packed(pub BTreeMap<Vec<u8>, Vec<u8>>);

impl Packed {
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self> {
        let mut map = BTreeMap::new();
        while !bytes.is_empty() {
            let key = take(&mut bytes)?;
            let value = take(&mut bytes)?;
            map.insert(key.to_vec(), value.to_vec());
        }
        Ok(Self(map))
    }

    /// As [`Self::decode`], empty where there is no row.
    pub(super) fn decode_or_empty(bytes: Option<&Vec<u8>>) -> Result<Self> {
        bytes.map_or_else(|| Ok(Self::default()), |bytes| Self::decode(bytes))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        join(
            self.0
                .iter()
                .flat_map(|(key, value)| [key.as_slice(), value]),
        )
    }
}

/// A key of several parts, different for different parts whatever bytes they hold.
pub(super) fn compound(parts: &[&[u8]]) -> Vec<u8> {
    join(parts.iter().copied())
}

fn join<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.clone().map(|part| part.len() + 4).sum());
    for part in parts {
        // Nothing near four gigabytes comes here: a message of the protocol is bounded by 16 MB.
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

fn take<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let damaged = || StoreError::Validation("a packed row ends early".into());
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    let length = u32::from_be_bytes(*length) as usize;
    let (part, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
    *bytes = rest;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_row_reads_as_it_was_written() {
        let mut packed = Packed::default();
        packed.0.insert(b"a".to_vec(), vec![]);
        packed.0.insert(vec![], b"value".to_vec());
        assert_eq!(Packed::decode(&packed.encode()).unwrap(), packed);
        assert_eq!(Packed::decode(&[]).unwrap(), Packed::default());
    }

    #[test]
    fn a_row_cut_short_is_an_error_and_not_a_smaller_map() {
        let mut packed = Packed::default();
        packed.0.insert(b"key".to_vec(), b"value".to_vec());
        let bytes = packed.encode();
        for length in 1..bytes.len() {
            assert!(Packed::decode(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        assert_ne!(compound(&[b"ab", b"c"]), compound(&[b"a", b"bc"]));
        assert_ne!(compound(&[b"a\0b"]), compound(&[b"a", b"b"]));
    }
}
