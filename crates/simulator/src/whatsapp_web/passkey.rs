//! Linking with a passkey: before it links a device, the phone wants an assertion only its owner's browser can make.
//!
//! The device scanned by QR is asked for an assertion over a challenge. It answers with it and with a commitment to
//! a nonce; phone and device exchange ephemeral keys and nonces, both show the same verification code, and the device
//! sends its secret under the key they agreed on. The signature of the assertion is not checked: no real key stands
//! behind it. That it answers this challenge is.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::digest;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use wacore::shortcake::ShortcakeUtils;
use wacore_binary::{Node, builder::NodeBuilder};
use wacore_libsignal::{crypto::aes_256_gcm_decrypt, protocol::KeyPair};
use waproto::{
    buffa::Message,
    whatsapp::{
        CompanionEphemeralIdentity, EncryptedPairingRequest, PairingRequest,
        PrimaryEphemeralIdentity, ProloguePayload,
    },
};

use super::{
    Broken, Hub, LinkedCompanion,
    code::agree,
    iq::{error, notification, result, result_with},
    login::{say, stanza_id},
    noise::new_key,
    pairing::Linked,
    phone::public_bytes,
    state::{Unlinked, child_content, content},
};

const PHONE_THINKS: Duration = Duration::from_millis(300);

/// A linking that waits for the owner.
pub(super) struct Ceremony {
    number: String,
    challenge: String,
    reference: String,
    key: KeyPair,
    nonce: [u8; 32],
    /// The device's half, once it answered the challenge.
    device: Option<DeviceHalf>,
    done: Option<oneshot::Sender<Result<LinkedCompanion, Broken>>>,
}

struct DeviceHalf {
    identity: Vec<u8>,
    commitment: Vec<u8>,
    revealed: bool,
}

impl Hub {
    pub(super) fn ask_passkey(&self, number: &str, device: &Arc<Unlinked>) -> Linked {
        let (done, linked) = oneshot::channel();
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(rand_for_signal::random::<[u8; 32]>());
        let options = json!({
            "challenge": challenge,
            "rpId": "whatsapp.com",
            "allowCredentials": [{"type": "public-key", "id": BASE64_URL_SAFE_NO_PAD.encode(number)}],
            "userVerification": "required",
            "timeout": 300_000,
        });
        *super::locked(&device.ceremony) = Some(Ceremony {
            number: number.to_owned(),
            challenge,
            reference: stanza_id(),
            key: new_key(),
            nonce: rand_for_signal::random(),
            device: None,
            done: Some(done),
        });
        let options = NodeBuilder::new("passkey_request_options")
            .bytes(options.to_string().into_bytes())
            .build();
        let server = wacore_binary::Jid::new("", wacore_binary::Server::Pn);
        let asked = notification(server, "passkey_prologue_request")
            .children([options])
            .build();
        say(&device.sender, asked);
        linked
    }

    /// One step of the device. Anything else is just answered.
    pub(super) fn hear_passkey_step(&self, device: &Arc<Unlinked>, iq: &Node) -> Node {
        let mut ceremony = super::locked(&device.ceremony);
        let (Some(under_way), Some(step)) =
            (ceremony.as_mut(), iq.children().and_then(<[Node]>::first))
        else {
            return result(iq);
        };
        let outcome = match &*step.tag {
            "ref" => {
                let reference = under_way.reference.clone().into_bytes();
                let node = NodeBuilder::new("ref").bytes(reference).build();
                return result_with(iq, [node]);
            }
            "passkey_prologue" => under_way.hear_prologue(step).map(|identity| {
                let server = wacore_binary::Jid::new("", wacore_binary::Server::Pn);
                let next = notification(server, "crsc_continuation")
                    .children([NodeBuilder::new("primary_ephemeral_identity")
                        .bytes(identity)
                        .build()])
                    .build();
                // A phone takes its time, and clients need the answer to this step before.
                let sender = device.sender.clone();
                self.spawn(async move {
                    tokio::time::sleep(PHONE_THINKS).await;
                    say(&sender, next);
                });
                result(iq)
            }),
            "companion_nonce" => under_way.hear_nonce(step).map(|()| result(iq)),
            "encrypted_pairing_request" => under_way.open(device, step).map(|secret| {
                let (number, done) = (under_way.number.clone(), under_way.done.take());
                let (me, device) = (self.me.clone(), Arc::clone(device));
                // The device keeps its new secret once it has this answer.
                self.spawn(async move {
                    tokio::time::sleep(PHONE_THINKS).await;
                    if let Some(hub) = me.upgrade() {
                        hub.finish_ceremony(&device, &number, &secret, done);
                    }
                });
                result(iq)
            }),
            _ => Ok(result(iq)),
        };
        match outcome {
            Ok(answer) => answer,
            Err(broken) => {
                if let Some(done) = under_way.done.take() {
                    // The one who scanned may have given up.
                    drop(done.send(Err(broken)));
                }
                *ceremony = None;
                error(iq, 400, "bad-request")
            }
        }
    }

    fn finish_ceremony(
        &self,
        device: &Arc<Unlinked>,
        number: &str,
        secret: &[u8],
        done: Option<oneshot::Sender<Result<LinkedCompanion, Broken>>>,
    ) {
        let Some(done) = done else {
            return;
        };
        match self.link(number, device, secret) {
            Ok(linked) => self.spawn(async move {
                if let Ok(outcome) = linked.await {
                    drop(done.send(outcome));
                }
            }),
            Err(refused) => drop(done.send(Err(Broken::crypto(refused)))),
        }
    }
}

impl Ceremony {
    /// Checks that the assertion answers the challenge; returns the phone's half.
    fn hear_prologue(&mut self, step: &Node) -> Result<Vec<u8>, Broken> {
        let assertion =
            child_content(step, "webauthn_assertion").ok_or(Broken::Stanza("no assertion"))?;
        let assertion: Value = serde_json::from_slice(assertion).map_err(Broken::crypto)?;
        let client = assertion["response"]["clientDataJSON"]
            .as_str()
            .and_then(|text| {
                let text = text.trim_end_matches('=');
                BASE64_URL_SAFE_NO_PAD.decode(text).ok()
            })
            .ok_or(Broken::Stanza("no client data"))?;
        let client: Value = serde_json::from_slice(&client).map_err(Broken::crypto)?;
        let answered = client["challenge"].as_str().unwrap_or_default();
        if answered.trim_end_matches('=') != self.challenge || client["type"] != "webauthn.get" {
            return Err(Broken::Stanza("the assertion answers another challenge"));
        }
        let payload =
            child_content(step, "prologue_payload").ok_or(Broken::Stanza("no prologue payload"))?;
        let payload = ProloguePayload::decode_from_slice(payload).map_err(Broken::crypto)?;
        self.device = Some(DeviceHalf {
            identity: payload.companion_ephemeral_identity.unwrap_or_default(),
            commitment: payload.commitment.hash.clone().unwrap_or_default(),
            revealed: false,
        });
        Ok(PrimaryEphemeralIdentity {
            public_key: Some(public_bytes(&self.key.public_key).to_vec()),
            nonce: Some(self.nonce.to_vec()),
        }
        .encode_to_vec())
    }

    fn hear_nonce(&mut self, step: &Node) -> Result<(), Broken> {
        let nonce = content(step).ok_or(Broken::Stanza("no nonce"))?;
        let device = self
            .device
            .as_mut()
            .ok_or(Broken::Stanza("a nonce before the assertion"))?;
        let hash = digest::digest(&digest::SHA256, &[&device.identity, nonce].concat());
        if hash.as_ref() != device.commitment {
            return Err(Broken::Stanza("the nonce is not the one committed to"));
        }
        device.revealed = true;
        Ok(())
    }

    /// The device's secret.
    fn open(&self, device: &Unlinked, step: &Node) -> Result<Vec<u8>, Broken> {
        let half = self
            .device
            .as_ref()
            .filter(|half| half.revealed)
            .ok_or(Broken::Stanza("a request before the nonce"))?;
        let identity = CompanionEphemeralIdentity::decode_from_slice(&half.identity)
            .map_err(Broken::crypto)?;
        let theirs: [u8; 32] = identity
            .public_key
            .as_deref()
            .and_then(|key| key.try_into().ok())
            .ok_or(Broken::Stanza("no ephemeral key"))?;
        let reference = identity.r#ref.unwrap_or_default();
        if reference != self.reference {
            return Err(Broken::Stanza("another reference"));
        }
        let key = ShortcakeUtils::derive_encryption_key_from_shared_secret(
            &agree(&self.key, &theirs)?,
            identity.device_type.unwrap_or_default(),
            &reference,
        )
        .map_err(Broken::crypto)?;
        let sealed = content(step).ok_or(Broken::Stanza("no request"))?;
        let sealed = EncryptedPairingRequest::decode_from_slice(sealed).map_err(Broken::crypto)?;
        let nonce: [u8; 12] = sealed
            .iv
            .as_deref()
            .and_then(|iv| iv.try_into().ok())
            .ok_or(Broken::Stanza("no initialisation vector"))?;
        let mut plain = Vec::new();
        let payload = sealed.encrypted_payload.as_deref().unwrap_or_default();
        aes_256_gcm_decrypt(&key, &nonce, b"", payload, &mut plain).map_err(Broken::crypto)?;
        let request = PairingRequest::decode_from_slice(&plain).map_err(Broken::crypto)?;
        let named = request.companion_identity_key.as_deref();
        if named != Some(&device.registration.identity[..]) {
            return Err(Broken::Stanza("the request is another device's"));
        }
        request.adv_secret.ok_or(Broken::Stanza("no secret"))
    }
}
