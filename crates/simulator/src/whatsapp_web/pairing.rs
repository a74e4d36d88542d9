//! Linking a device to a phone: by a QR the device shows, or by a code typed into the phone.
//!
//! The phone signs the device's identity key with the account's (which is the phone's own identity key: whoever
//! receives the device's keys checks them against it), and proves to the device that it has read the secret in the
//! QR. The device signs back, and both must start over with a new connection.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::Utc;
use tokio::sync::oneshot;
use wacore::companion_reg::NATIVE_CAMERA_DEEP_LINK_PREFIX;
use wacore_binary::{Node, builder::NodeBuilder};
use wacore_libsignal::{
    crypto::hmac_sha256,
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
    keys::{DeviceKeys, public_key},
    login::{say, stanza_id},
    phone::public_bytes,
    state::{Companion, PendingLink, ToSocket, Unlinked, attribute, content},
    usync::raw_id,
};

/// A device that has not signed by then has gone.
pub(super) const SIGNS_WITHIN: Duration = Duration::from_secs(20);
const PERSON_WITHIN: Duration = Duration::from_secs(300);
const ACCOUNT_SIGNATURE: [u8; 2] = [6, 0];
const DEVICE_SIGNATURE: [u8; 2] = [6, 1];

pub(super) type Linked = oneshot::Receiver<Result<LinkedCompanion, Broken>>;

impl WhatsappWeb {
    /// The phone scans a QR: `qr` is the text inside. Returns when the device is linked, which takes as long as
    /// the person at the device where the phone asks for a passkey.
    ///
    /// # Errors
    /// When no device shows this QR any more, or it does not complete the linking.
    pub async fn scan(&self, number: &str, qr: &str) -> Result<LinkedCompanion, WhatsappWebError> {
        let number = digits(number)?;
        let linked = self.hub.scan(&number, qr)?;
        // With a passkey a person takes part.
        let passkey = self.phone(&number)?.settings.passkey;
        finished(linked, if passkey { PERSON_WITHIN } else { SIGNS_WITHIN }).await
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

pub(super) async fn finished(
    linked: Linked,
    within: Duration,
) -> Result<LinkedCompanion, WhatsappWebError> {
    let refused = |reason: String| WhatsappWebError::NotLinked(reason);
    match tokio::time::timeout(within, linked).await {
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
        let phone = self.phone(number).ok_or(WhatsappWebError::UnknownPhone)?;
        if super::locked(&phone).settings.passkey {
            return Ok(self.ask_passkey(number, &device));
        }
        self.link(number, &device, &secret)
    }

    /// Signs the device and sends it the signature.
    pub(super) fn link(
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
                None => Some(self.hear_passkey_step(device, iq)),
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
            logins: 0,
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
