//! Linking by an 8-letter code that the device shows and a person types into the phone.
//!
//! Both sides seal an ephemeral key with the code. Only with the same code do they agree on a secret, which takes the
//! place of the one in the QR.

use std::sync::Arc;

use tokio::sync::oneshot;
use wacore::{crypto::hkdf_sha256_into, pair_code::PairCodeUtils};
use wacore_binary::{Node, builder::NodeBuilder};
use wacore_libsignal::{
    crypto::aes_256_gcm_decrypt,
    protocol::{KeyPair, PublicKey},
};

use super::{
    Broken, Hub, LinkedCompanion, WhatsappWeb, WhatsappWebError, digits,
    iq::{notification, result, result_with},
    login::{say, stanza_id},
    noise::new_key,
    pairing::{Linked, SIGNS_WITHIN, finished},
    phone::public_bytes,
    state::{CodeRequest, Unlinked, attribute, attribute_jid, child_content},
};

impl WhatsappWeb {
    /// Types the 8-letter code a device shows into the phone. Returns when the device is linked.
    ///
    /// # Errors
    /// When no device waits for a code of this phone, the code is another, or the device does not complete the linking.
    pub async fn enter_code(
        &self,
        number: &str,
        code: &str,
    ) -> Result<LinkedCompanion, WhatsappWebError> {
        let number = digits(number)?;
        let hub = Arc::clone(&self.hub);
        let code: String = code.chars().filter(char::is_ascii_alphanumeric).collect();
        let code = code.to_ascii_uppercase();
        // Deriving the key takes a tenth of a second of computing.
        let linked = tokio::task::spawn_blocking(move || hub.enter_code(&number, &code))
            .await
            .map_err(|error| WhatsappWebError::NotLinked(error.to_string()))??;
        finished(linked, SIGNS_WITHIN).await
    }
}

impl Hub {
    pub(super) fn hear_code_step(&self, device: &Arc<Unlinked>, iq: &Node, step: &Node) -> Node {
        let number = attribute_jid(step, "jid").map(|jid| jid.user.to_string());
        let stage = attribute(step, "stage");
        let outcome = match (stage.as_deref(), number) {
            (Some("companion_hello"), Some(number)) => self.offer_code(device, step, number),
            (Some("companion_finish"), Some(number)) => self.finish_code(step, &number),
            _ => Err(Broken::Stanza("an unknown step")),
        };
        match outcome {
            Ok(Some(reply)) => result_with(iq, [reply]),
            Ok(None) => result(iq),
            Err(error) => {
                tracing::debug!(%error, "linking by code");
                super::iq::error(iq, 400, "bad-request")
            }
        }
    }

    fn offer_code(
        &self,
        device: &Arc<Unlinked>,
        step: &Node,
        number: String,
    ) -> Result<Option<Node>, Broken> {
        let sealed = child_content(step, "link_code_pairing_wrapped_companion_ephemeral_pub")
            .filter(|sealed| sealed.len() == 80)
            .ok_or(Broken::Stanza("no sealed key"))?;
        let reference = format!("3@{}", stanza_id()).into_bytes();
        let reply = NodeBuilder::new("link_code_companion_reg")
            .attr("stage", "companion_hello")
            .children([NodeBuilder::new("link_code_pairing_ref")
                .bytes(reference.clone())
                .build()])
            .build();
        let request = CodeRequest {
            device: Arc::clone(device),
            reference,
            sealed_key: sealed.to_vec(),
            phone_key: None,
            answer: None,
            code: String::new(),
        };
        self.lock().codes.insert(number, request);
        Ok(Some(reply))
    }

    fn enter_code(&self, number: &str, code: &str) -> Result<Linked, WhatsappWebError> {
        let ephemeral = new_key();
        let sealed =
            PairCodeUtils::encrypt_ephemeral_pub(&public_bytes(&ephemeral.public_key), code);
        let mut state = self.lock();
        let account = state
            .accounts
            .get(number)
            .ok_or(WhatsappWebError::UnknownPhone)?;
        let identity = public_bytes(&account.identity.public_key);
        let request = state
            .codes
            .get_mut(number)
            .ok_or(WhatsappWebError::UnknownCode)?;
        let hello = NodeBuilder::new("link_code_companion_reg")
            .attr("stage", "primary_hello")
            .children([
                NodeBuilder::new("link_code_pairing_wrapped_primary_ephemeral_pub")
                    .bytes(sealed)
                    .build(),
                NodeBuilder::new("primary_identity_pub")
                    .bytes(identity)
                    .build(),
                NodeBuilder::new("link_code_pairing_ref")
                    .bytes(request.reference.clone())
                    .build(),
            ])
            .build();
        let server = wacore_binary::Jid::new("", wacore_binary::Server::Pn);
        let hello = notification(server, "link_code_companion_reg")
            .children([hello])
            .build();
        let (done, linked) = oneshot::channel();
        request.phone_key = Some(ephemeral);
        code.clone_into(&mut request.code);
        request.answer = Some(done);
        say(&request.device.sender, hello);
        Ok(linked)
    }

    fn finish_code(&self, step: &Node, number: &str) -> Result<Option<Node>, Broken> {
        let sealed = child_content(step, "link_code_pairing_wrapped_key_bundle")
            .ok_or(Broken::Stanza("no key bundle"))?;
        let mut request = self
            .lock()
            .codes
            .remove(number)
            .ok_or(Broken::Stanza("nobody asked for this code"))?;
        let Some(done) = request.answer.take() else {
            return Err(Broken::Stanza("no code was typed in"));
        };
        let secret = self.read_key_bundle(number, &request, sealed);
        let linked = secret.and_then(|secret| {
            self.link(number, &request.device, &secret)
                .map_err(Broken::crypto)
        });
        match linked {
            Ok(linked) => self.spawn(async move {
                if let Ok(outcome) = linked.await {
                    drop(done.send(outcome));
                }
            }),
            Err(error) => drop(done.send(Err(error))),
        }
        Ok(None)
    }

    /// The secret both sides share, if the code was the device's.
    fn read_key_bundle(
        &self,
        number: &str,
        request: &CodeRequest,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Broken> {
        let wrong = Broken::Stanza("the code is another");
        let identity = self
            .lock()
            .accounts
            .get(number)
            .map(|account| account.identity.clone())
            .ok_or(Broken::Stanza("the phone has gone"))?;
        let ephemeral = request.phone_key.as_ref().ok_or(wrong)?;
        let device_key =
            PairCodeUtils::decrypt_primary_ephemeral_pub(&request.sealed_key, &request.code)
                .map_err(Broken::crypto)?;
        let shared = agree(ephemeral, &device_key)?;
        let (salt, rest) = sealed
            .split_first_chunk::<32>()
            .ok_or(Broken::Stanza("a short key bundle"))?;
        let (nonce, sealed) = rest
            .split_first_chunk::<12>()
            .ok_or(Broken::Stanza("a short key bundle"))?;
        let mut key = [0; 32];
        let purpose = b"link_code_pairing_key_bundle_encryption_key";
        hkdf_sha256_into(&shared, Some(salt), purpose, &mut key).map_err(Broken::crypto)?;
        let mut bundle = Vec::new();
        aes_256_gcm_decrypt(&key, nonce, b"", sealed, &mut bundle)
            .map_err(|_| Broken::Stanza("the code is another"))?;
        let (device_identity, rest) = bundle
            .split_first_chunk::<32>()
            .ok_or(Broken::Stanza("a short key bundle"))?;
        let random = rest
            .get(32..64)
            .ok_or(Broken::Stanza("a short key bundle"))?;
        if *device_identity != request.device.registration.identity {
            return Err(Broken::Stanza("another device answered"));
        }
        let identities = agree(&identity, device_identity)?;
        let combined = [&shared[..], &identities, random].concat();
        let mut secret = [0; 32];
        hkdf_sha256_into(&combined, None, b"adv_secret", &mut secret).map_err(Broken::crypto)?;
        Ok(secret.to_vec())
    }
}

pub(super) fn agree(ours: &KeyPair, theirs: &[u8; 32]) -> Result<[u8; 32], Broken> {
    let theirs = PublicKey::from_djb_public_key_bytes(theirs).map_err(Broken::crypto)?;
    ours.calculate_agreement(&theirs).map_err(Broken::crypto)
}
