//! A phone's end of the Signal protocol: its keys, its sessions with other devices, its groups' sender keys.

use std::collections::HashMap;

use futures_util::FutureExt;
use wacore::messages::{MessageUtils, decode_plaintext};
use wacore_libsignal::protocol::{
    CiphertextMessage, IdentityKey, IdentityKeyPair, KeyPair, PreKeyBundle, PreKeyId,
    PreKeySignalMessage, ProtocolAddress, PublicKey, SenderKeyDistributionMessage, SenderKeyName,
    SignalMessage, SignalProtocolError, SignedPreKeyId, UsePQRatchet,
    create_sender_key_distribution_message, group_decrypt, group_encrypt, message_decrypt,
    message_encrypt, process_prekey_bundle, process_sender_key_distribution_message,
};
use waproto::whatsapp as wa;

use super::{
    super::{
        Broken,
        keys::{Bundle, SignedKey},
        noise::new_key,
    },
    stores::{Identities, Outcome, PreKeys, SenderKeys, Sessions, SignedKeys},
};

/// Padding of the version all clients use.
const PADDING: u8 = 2;

/// An encrypted message for one device.
pub(in super::super) struct Sealed {
    /// `pkmsg` or `msg`.
    pub(in super::super) kind: &'static str,
    pub(in super::super) bytes: Vec<u8>,
}

/// Which device of which number.
pub(in super::super) fn address(number: &str, device: u16) -> ProtocolAddress {
    ProtocolAddress::new(number, u32::from(device).into())
}

pub(in super::super) struct Signal {
    identities: Identities,
    sessions: Sessions,
    prekeys: PreKeys,
    signed: SignedKeys,
    sender_keys: SenderKeys,
}

impl Signal {
    pub(in super::super) fn generate() -> Result<Self, Broken> {
        let identity = IdentityKeyPair::generate(&mut rand_for_signal::rng());
        let key = new_key();
        let signature = identity
            .private_key()
            .calculate_signature(&key.public_key.serialize(), &mut rand_for_signal::rng())
            .map_err(Broken::crypto)?;
        Ok(Self {
            identities: Identities {
                own: identity,
                registration_id: rand_for_signal::random::<u32>() >> 2 | 1,
                known: HashMap::new(),
            },
            sessions: Sessions(HashMap::new()),
            prekeys: PreKeys {
                next: 1,
                keys: HashMap::new(),
            },
            signed: SignedKeys {
                id: 1,
                key,
                signature: signature.to_vec(),
            },
            sender_keys: SenderKeys(HashMap::new()),
        })
    }

    /// The account's key: it signs what is linked to the phone.
    pub(in super::super) fn identity(&self) -> KeyPair {
        let own = &self.identities.own;
        KeyPair::new(*own.public_key(), own.private_key().clone())
    }

    /// What another device needs to write to this one for the first time.
    pub(in super::super) fn bundle(&mut self) -> Bundle {
        let id = self.prekeys.next;
        // Three bytes on the wire.
        self.prekeys.next = id % 0xff_fff0 + 1;
        let key = new_key();
        let one_time = (id, public_bytes(&key.public_key));
        self.prekeys.keys.insert(id, key);
        Bundle {
            registration_id: self.identities.registration_id,
            identity: public_bytes(self.identities.own.public_key()),
            signed: SignedKey {
                id: self.signed.id,
                key: public_bytes(&self.signed.key.public_key),
                signature: self.signed.signature.clone(),
            },
            one_time: Some(one_time),
            device_identity: None,
        }
    }

    pub(in super::super) fn has_session(&self, with: &ProtocolAddress) -> bool {
        self.sessions.0.contains_key(with.as_str())
    }

    pub(in super::super) fn forget_session(&mut self, with: &ProtocolAddress) {
        self.sessions.0.remove(with.as_str());
    }

    /// Starts a session from the other device's keys.
    pub(in super::super) fn start_session(
        &mut self,
        with: &ProtocolAddress,
        bundle: &Bundle,
    ) -> Result<(), Broken> {
        let public =
            |bytes: &[u8; 32]| PublicKey::from_djb_public_key_bytes(bytes).map_err(Broken::crypto);
        let one_time = match &bundle.one_time {
            Some((id, key)) => Some((PreKeyId::from(*id), public(key)?)),
            None => None,
        };
        let bundle = PreKeyBundle::new(
            bundle.registration_id,
            with.device_id(),
            one_time,
            SignedPreKeyId::from(bundle.signed.id),
            public(&bundle.signed.key)?,
            bundle.signed.signature.clone(),
            IdentityKey::new(public(&bundle.identity)?),
        )
        .map_err(Broken::crypto)?;
        now(process_prekey_bundle(
            with,
            &mut self.sessions,
            &mut self.identities,
            &bundle,
            &mut rand_for_signal::rng(),
            UsePQRatchet::No,
        ))?;
        Ok(())
    }

    pub(in super::super) fn encrypt(
        &mut self,
        to: &ProtocolAddress,
        message: &wa::Message,
    ) -> Result<Sealed, Broken> {
        let plain = MessageUtils::encode_and_pad(message);
        let sealed = now(message_encrypt(
            &plain,
            to,
            &mut self.sessions,
            &mut self.identities,
        ))?;
        let kind = match &sealed {
            CiphertextMessage::PreKeySignalMessage(_) => "pkmsg",
            _ => "msg",
        };
        Ok(Sealed {
            kind,
            bytes: sealed.serialize().to_vec(),
        })
    }

    /// # Errors
    /// When the bytes were not made for this phone by that device, or were read before.
    pub(in super::super) fn decrypt(
        &mut self,
        from: &ProtocolAddress,
        kind: &str,
        bytes: &[u8],
    ) -> Result<wa::Message, Broken> {
        let sealed = match kind {
            "pkmsg" => CiphertextMessage::PreKeySignalMessage(
                PreKeySignalMessage::try_from(bytes).map_err(Broken::crypto)?,
            ),
            "msg" => CiphertextMessage::SignalMessage(
                SignalMessage::try_from(bytes).map_err(Broken::crypto)?,
            ),
            _ => return Err(Broken::Stanza("an unknown kind of ciphertext")),
        };
        let opened = now(message_decrypt(
            &sealed,
            from,
            &mut self.sessions,
            &mut self.identities,
            &mut self.prekeys,
            &self.signed,
            &mut rand_for_signal::rng(),
            UsePQRatchet::No,
        ))?;
        if let Some(used) = opened.consumed_prekey_id {
            self.prekeys.keys.remove(&u32::from(used));
        }
        decode_plaintext(&opened.plaintext, PADDING).map_err(Broken::crypto)
    }

    /// What the other devices of a group need to read what this phone sends to it.
    pub(in super::super) fn distribution(&mut self, group: &str) -> Result<Vec<u8>, Broken> {
        let message = now(create_sender_key_distribution_message(
            &own_sender(group),
            &mut self.sender_keys,
            &mut rand_for_signal::rng(),
        ))?;
        Ok(message.serialized().to_vec())
    }

    pub(in super::super) fn learn_distribution(
        &mut self,
        group: &str,
        from: &ProtocolAddress,
        bytes: &[u8],
    ) -> Result<(), Broken> {
        let message = SenderKeyDistributionMessage::try_from(bytes).map_err(Broken::crypto)?;
        let name = SenderKeyName::from_parts(group, from.as_str());
        now(process_sender_key_distribution_message(
            &name,
            &message,
            &mut self.sender_keys,
        ))
    }

    pub(in super::super) fn encrypt_for_group(
        &mut self,
        group: &str,
        message: &wa::Message,
    ) -> Result<Vec<u8>, Broken> {
        let plain = MessageUtils::encode_and_pad(message);
        let sealed = now(group_encrypt(
            &mut self.sender_keys,
            &own_sender(group),
            &plain,
            &mut rand_for_signal::rng(),
        ))?;
        Ok(sealed.serialized().to_vec())
    }

    pub(in super::super) fn decrypt_from_group(
        &mut self,
        group: &str,
        from: &ProtocolAddress,
        bytes: &[u8],
    ) -> Result<wa::Message, Broken> {
        let name = SenderKeyName::from_parts(group, from.as_str());
        let plain = now(group_decrypt(bytes, &mut self.sender_keys, &name))?;
        decode_plaintext(&plain, PADDING).map_err(Broken::crypto)
    }
}

/// Everything is in memory, so no step ever waits.
fn now<T>(step: impl Future<Output = Outcome<T>>) -> Result<T, Broken> {
    step.now_or_never()
        .ok_or(Broken::Stanza("the cipher waited"))?
        .map_err(|error| match error {
            SignalProtocolError::DuplicatedMessage(..) => Broken::Duplicate,
            error => Broken::crypto(error),
        })
}

fn own_sender(group: &str) -> SenderKeyName {
    SenderKeyName::from_parts(group, "me")
}

pub(in super::super) fn public_bytes(key: &PublicKey) -> [u8; 32] {
    let mut bytes = [0; 32];
    // A curve key has 32 bytes; anything else would be refused by whoever reads it.
    if key.public_key_bytes().len() == bytes.len() {
        bytes.copy_from_slice(key.public_key_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> wa::Message {
        wa::Message {
            conversation: Some(text.to_owned()),
            ..Default::default()
        }
    }

    #[test]
    fn two_phones_talk_and_damaged_ciphertexts_are_refused() {
        let mut ana = Signal::generate().expect("keys");
        let mut ben = Signal::generate().expect("keys");
        let (to_ana, to_ben) = (address("1", 0), address("2", 0));
        ana.start_session(&to_ben, &ben.bundle()).expect("session");
        let first = ana.encrypt(&to_ben, &text("hello")).expect("sealed");
        assert_eq!(first.kind, "pkmsg");
        let opened = ben
            .decrypt(&to_ana, first.kind, &first.bytes)
            .expect("opened");
        assert_eq!(opened.conversation.as_deref(), Some("hello"));
        let answer = ben.encrypt(&to_ana, &text("yes")).expect("sealed");
        assert_eq!(answer.kind, "msg");
        ana.decrypt(&to_ben, answer.kind, &answer.bytes)
            .expect("opened");

        let next = ana.encrypt(&to_ben, &text("again")).expect("sealed");
        for at in 0..next.bytes.len() {
            let mut damaged = next.bytes.clone();
            damaged[at] ^= 0x10;
            for kind in ["msg", "pkmsg", "skmsg"] {
                assert!(ben.decrypt(&to_ana, kind, &damaged).is_err());
            }
        }
        ben.decrypt(&to_ana, next.kind, &next.bytes)
            .expect("the sound one still opens");
        assert!(ben.decrypt(&to_ana, next.kind, &next.bytes).is_err());
    }

    #[test]
    fn a_group_message_is_read_with_the_key_handed_out_before() {
        let mut ana = Signal::generate().expect("keys");
        let mut ben = Signal::generate().expect("keys");
        let from = address("1", 0);
        let key = ana.distribution("g@g.us").expect("key");
        let sealed = ana
            .encrypt_for_group("g@g.us", &text("all"))
            .expect("sealed");
        assert!(ben.decrypt_from_group("g@g.us", &from, &sealed).is_err());
        ben.learn_distribution("g@g.us", &from, &key)
            .expect("learned");
        let opened = ben
            .decrypt_from_group("g@g.us", &from, &sealed)
            .expect("opened");
        assert_eq!(opened.conversation.as_deref(), Some("all"));
        assert!(ben.learn_distribution("g@g.us", &from, &[1, 2, 3]).is_err());
    }
}
