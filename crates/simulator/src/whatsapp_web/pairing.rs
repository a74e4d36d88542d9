//! Linking a device to a phone: by a QR the device shows, or by a code typed into the phone.
//!
//! The phone signs the device's identity key with the account's (which is the phone's own identity key: whoever
//! receives the device's keys checks them against it), and proves to the device that it has read the secret in the
//! QR. The device signs back, and both must start over with a new connection.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::Utc;
use tokio::sync::oneshot;
use wacore::{
    companion_reg::NATIVE_CAMERA_DEEP_LINK_PREFIX, crypto::hkdf_sha256_into,
    pair_code::PairCodeUtils,
};
use wacore_binary::{Node, builder::NodeBuilder};
use wacore_libsignal::{
    crypto::{aes_256_gcm_decrypt, hmac_sha256},
    protocol::{KeyPair, PublicKey},
};
use waproto::{
    buffa::Message,
    whatsapp::{
        ADVDeviceIdentity, ADVSignedDeviceIdentity, ADVSignedDeviceIdentityHMAC, ClientPairingProps,
    },
};

use super::{
    Broken, Hub, LinkedCompanion, WhatsappWeb, WhatsappWebError, digits,
    iq::{notification, result, result_with},
    keys::{DeviceKeys, public_key},
    login::{say, stanza_id},
    noise::new_key,
    phone::public_bytes,
    state::{
        CodeRequest, Companion, PendingLink, ToSocket, Unlinked, attribute, attribute_jid,
        child_content, content,
    },
    usync::raw_id,
};

/// A device that has not signed by then has gone.
const SIGNS_WITHIN: Duration = Duration::from_secs(20);
const ACCOUNT_SIGNATURE: [u8; 2] = [6, 0];
const DEVICE_SIGNATURE: [u8; 2] = [6, 1];

type Linked = oneshot::Receiver<Result<LinkedCompanion, Broken>>;

impl WhatsappWeb {
    /// The phone scans a QR: `qr` is the text inside. Returns when the device is linked.
    ///
    /// # Errors
    /// When no device shows this QR any more, or it does not complete the linking.
    pub async fn scan(&self, number: &str, qr: &str) -> Result<LinkedCompanion, WhatsappWebError> {
        let number = digits(number)?;
        let linked = self.hub.scan(&number, qr)?;
        finished(linked).await
    }

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
        finished(linked).await
    }

    /// Removes all devices linked to a phone, as its owner can.
    ///
    /// # Errors
    /// When there is no such phone.
    pub fn unlink(&self, number: &str) -> Result<usize, WhatsappWebError> {
        let number = digits(number)?;
        let devices: Vec<u16> = {
            let state = self.hub.lock();
            let account = state.accounts.get(&number);
            let account = account.ok_or(WhatsappWebError::UnknownPhone)?;
            account.companions.keys().copied().collect()
        };
        for device in &devices {
            self.hub.remove_companion(&number, *device);
        }
        Ok(devices.len())
    }
}

async fn finished(linked: Linked) -> Result<LinkedCompanion, WhatsappWebError> {
    let refused = |reason: String| WhatsappWebError::NotLinked(reason);
    match tokio::time::timeout(SIGNS_WITHIN, linked).await {
        Ok(Ok(Ok(companion))) => Ok(companion),
        Ok(Ok(Err(broken))) => Err(refused(broken.to_string())),
        Ok(Err(_)) => Err(refused("it has gone".to_owned())),
        Err(_) => Err(refused("it did not answer".to_owned())),
    }
}

fn broken(error: Broken) -> WhatsappWebError {
    WhatsappWebError::NotLinked(error.to_string())
}

impl Hub {
    fn scan(&self, number: &str, qr: &str) -> Result<Linked, WhatsappWebError> {
        let body = qr.trim();
        let body = body
            .strip_prefix(NATIVE_CAMERA_DEEP_LINK_PREFIX)
            .unwrap_or(body);
        let fields: Vec<&str> = body.split(',').collect();
        let [reference, noise, identity, secret, ..] = fields[..] else {
            return Err(WhatsappWebError::Invalid("not a linking QR".to_owned()));
        };
        let key = |text: &str| {
            let bytes = BASE64_STANDARD.decode(text).ok()?;
            public_key(&bytes)
        };
        let (Some(noise), Some(identity), Ok(secret)) =
            (key(noise), key(identity), BASE64_STANDARD.decode(secret))
        else {
            return Err(WhatsappWebError::Invalid("the QR is damaged".to_owned()));
        };
        let device = self.lock().references.get(reference).cloned();
        let device = device.ok_or(WhatsappWebError::UnknownCode)?;
        if device.noise_key != noise || device.registration.identity != identity {
            return Err(WhatsappWebError::Invalid(
                "the QR is another device's".to_owned(),
            ));
        }
        self.link(number, &device, &secret)
    }

    /// Signs the device and sends it the signature.
    fn link(
        &self,
        number: &str,
        device: &Arc<Unlinked>,
        secret: &[u8],
    ) -> Result<Linked, WhatsappWebError> {
        let mut state = self.lock();
        let account = state
            .accounts
            .get_mut(number)
            .ok_or(WhatsappWebError::UnknownPhone)?;
        let id = account.next_device;
        account.next_device = account.next_device.wrapping_add(1).max(1);
        account.key_index += 1;
        let key_index = account.key_index;
        let details = ADVDeviceIdentity {
            raw_id: Some(raw_id(account)),
            timestamp: u64::try_from(Utc::now().timestamp()).ok(),
            key_index: Some(key_index),
            ..Default::default()
        }
        .encode_to_vec();
        let identity = sign_device(
            &account.identity,
            details,
            &device.registration.identity,
            secret,
        )
        .map_err(broken)?;
        let stanza = stanza_id();
        let props = ClientPairingProps {
            is_chat_db_lid_migrated: Some(true),
            ..Default::default()
        };
        let success = NodeBuilder::new("pair-success")
            .children([
                NodeBuilder::new("device-identity").bytes(identity).build(),
                NodeBuilder::new("biz")
                    .attr("name", account.name.as_str())
                    .build(),
                NodeBuilder::new("device")
                    .attr("jid", account.jid(id))
                    .attr("lid", account.lid_jid(id))
                    .build(),
                NodeBuilder::new("platform").attr("name", "android").build(),
                NodeBuilder::new("client-props")
                    .bytes(props.encode_to_vec())
                    .build(),
            ])
            .build();
        let (done, linked) = oneshot::channel();
        *super::locked(&device.pending) = Some(PendingLink {
            stanza: stanza.clone(),
            number: number.to_owned(),
            device: id,
            key_index,
            done,
        });
        drop(state);
        let iq = NodeBuilder::new("iq")
            .attr("from", "s.whatsapp.net")
            .attr("type", "set")
            .attr("id", stanza)
            .attr("t", Utc::now().timestamp())
            .attr("xmlns", "md")
            .children([success])
            .build();
        say(&device.sender, iq);
        Ok(linked)
    }

    /// What a device that is not linked yet says; only linking matters.
    pub(super) fn hear_unlinked(&self, device: &Arc<Unlinked>, iq: &Node) -> Option<Node> {
        match attribute(iq, "type").as_deref() {
            Some("result" | "error") => {
                self.hear_signature(device, iq);
                None
            }
            _ => match iq.get_optional_child("link_code_companion_reg") {
                Some(step) => Some(self.hear_code_step(device, iq, step)),
                None => Some(result(iq)),
            },
        }
    }

    fn hear_signature(&self, device: &Arc<Unlinked>, iq: &Node) {
        let pending = {
            let mut pending = super::locked(&device.pending);
            let ours = |p: &PendingLink| Some(&p.stanza) == attribute(iq, "id").as_ref();
            if !pending.as_ref().is_some_and(ours) {
                return;
            }
            pending.take()
        };
        let Some(pending) = pending else {
            return;
        };
        let PendingLink {
            number,
            device: id,
            key_index,
            done,
            ..
        } = pending;
        let outcome = self.complete_link(device, iq, &number, id, key_index);
        // The one who scanned may have given up.
        drop(done.send(outcome));
    }

    fn complete_link(
        &self,
        device: &Arc<Unlinked>,
        iq: &Node,
        number: &str,
        id: u16,
        key_index: u32,
    ) -> Result<LinkedCompanion, Broken> {
        let signed = iq
            .get_optional_child_by_tag(&["pair-device-sign", "device-identity"])
            .and_then(content)
            .ok_or(Broken::Stanza("the device refused"))?;
        let mut state = self.lock();
        let account = state
            .accounts
            .get_mut(number)
            .ok_or(Broken::Stanza("the phone has gone"))?;
        let registration = &device.registration;
        let identity = checked_identity(signed, &account.identity, &registration.identity)?;
        let companion = Companion {
            noise_key: device.noise_key,
            keys: DeviceKeys::new(registration, identity),
            key_index,
            linked_at: Utc::now(),
            socket: None,
            waiting: VecDeque::new(),
            welcomed: false,
        };
        account.companions.insert(id, companion);
        let shown = account.shown_companions();
        let restart = NodeBuilder::new("stream:error").attr("code", "515").build();
        // A socket that has gone will be back all the same.
        drop(device.sender.send(ToSocket::Farewell(restart)));
        state.announce_device(number, id, Some(key_index))?;
        drop(state);
        shown
            .into_iter()
            .find(|companion| companion.device == id)
            .ok_or(Broken::Stanza("the device has gone"))
    }

    fn hear_code_step(&self, device: &Arc<Unlinked>, iq: &Node, step: &Node) -> Node {
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

    /// Takes a device off an account and tells it.
    pub(super) fn remove_companion(&self, number: &str, device: u16) {
        let mut state = self.lock();
        let Some(account) = state.accounts.get_mut(number) else {
            return;
        };
        let Some(companion) = account.companions.remove(&device) else {
            return;
        };
        if let Some(socket) = companion.socket {
            let removed = NodeBuilder::new("conflict")
                .attr("type", "device_removed")
                .build();
            let farewell = NodeBuilder::new("stream:error")
                .attr("code", "401")
                .children([removed])
                .build();
            // A socket that has gone learns it at its next login.
            drop(socket.sender.send(ToSocket::Farewell(farewell)));
        }
        if let Err(error) = state.announce_device(number, device, None) {
            tracing::warn!(%error, "nobody was told of a removed device");
        }
    }
}

fn agree(ours: &KeyPair, theirs: &[u8; 32]) -> Result<[u8; 32], Broken> {
    let theirs = PublicKey::from_djb_public_key_bytes(theirs).map_err(Broken::crypto)?;
    ours.calculate_agreement(&theirs).map_err(Broken::crypto)
}

fn sign_device(
    account: &KeyPair,
    details: Vec<u8>,
    device: &[u8; 32],
    secret: &[u8],
) -> Result<Vec<u8>, Broken> {
    let covered = [&ACCOUNT_SIGNATURE[..], &details, device].concat();
    let signature = account
        .calculate_signature(&covered, &mut rand_for_signal::rng())
        .map_err(Broken::crypto)?;
    let signed = ADVSignedDeviceIdentity {
        details: Some(details),
        account_signature_key: Some(public_bytes(&account.public_key).to_vec()),
        account_signature: Some(signature.to_vec()),
        device_signature: None,
    }
    .encode_to_vec();
    let proof = hmac_sha256(secret, &signed);
    Ok(ADVSignedDeviceIdentityHMAC {
        details: Some(signed),
        hmac: Some(proof.to_vec()),
        account_type: None,
    }
    .encode_to_vec())
}

/// The device's own signature checked, and the account's key put back where the device left it out.
fn checked_identity(
    signed: &[u8],
    account: &KeyPair,
    device: &[u8; 32],
) -> Result<Vec<u8>, Broken> {
    let mut identity =
        ADVSignedDeviceIdentity::decode_from_slice(signed).map_err(Broken::crypto)?;
    let account = public_bytes(&account.public_key);
    let details = identity.details.as_deref().unwrap_or_default();
    let covered = [&DEVICE_SIGNATURE[..], details, device, &account].concat();
    let key = PublicKey::from_djb_public_key_bytes(device).map_err(Broken::crypto)?;
    let signature = identity.device_signature.as_deref().unwrap_or_default();
    if !key.verify_signature(&covered, signature) {
        return Err(Broken::Stanza("the device's signature is wrong"));
    }
    identity.account_signature_key = Some(account.to_vec());
    Ok(identity.encode_to_vec())
}
