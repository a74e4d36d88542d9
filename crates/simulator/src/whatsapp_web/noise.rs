//! The server's side of the Noise handshake: XX for a first contact, IK for a device that remembers the server's key,
//! and XX-fallback when it remembers a wrong one.
//!
//! The certificates have the structure of the real ones (serial 1 issued by 0, the leaf issued by 1 and carrying the
//! static key) under a root of our own, so a client must have been built to skip the check of the signatures.

use wacore_binary::consts::{
    NOISE_PATTERN_IK, NOISE_PATTERN_XX, NOISE_PATTERN_XXFALLBACK, WA_CONN_HEADER,
};
use wacore_libsignal::protocol::KeyPair;
use wacore_noise::{NoiseCipher, NoiseHandshake};
use waproto::{
    buffa::{Message, MessageField},
    whatsapp::{
        CertChain, HandshakeMessage,
        cert_chain::{NoiseCertificate, noise_certificate::Details},
        handshake_message::{ClientFinish, ClientHello, ServerHello},
    },
};

use super::{Broken, phone::public_bytes};

const VALID_FROM: u64 = 1_700_000_000;
const VALID_UNTIL: u64 = 4_000_000_000;

/// The server's static key and the certificate that vouches for it.
pub(super) struct ServerKeys {
    /// Public half of the root that signs for this server.
    pub(super) root: [u8; 32],
    key: KeyPair,
    certificate: Vec<u8>,
}

impl ServerKeys {
    pub(super) fn generate() -> Result<Self, Broken> {
        let (root, intermediate, key) = (new_key(), new_key(), new_key());
        let intermediate_details = Details {
            serial: Some(1),
            issuer_serial: Some(0),
            key: Some(intermediate.public_key.public_key_bytes().to_vec()),
            not_before: Some(VALID_FROM),
            not_after: Some(VALID_UNTIL),
        };
        let leaf_details = Details {
            serial: Some(2),
            issuer_serial: Some(1),
            key: Some(key.public_key.public_key_bytes().to_vec()),
            not_before: Some(VALID_FROM),
            not_after: Some(VALID_UNTIL),
        };
        let chain = CertChain {
            intermediate: MessageField::some(certify(&root, &intermediate_details)?),
            leaf: MessageField::some(certify(&intermediate, &leaf_details)?),
        };
        Ok(Self {
            root: public_bytes(&root.public_key),
            key,
            certificate: chain.encode_to_vec(),
        })
    }
}

fn certify(issuer: &KeyPair, details: &Details) -> Result<NoiseCertificate, Broken> {
    let details = details.encode_to_vec();
    let signature = issuer
        .calculate_signature(&details, &mut rand_for_signal::rng())
        .map_err(Broken::crypto)?;
    Ok(NoiseCertificate {
        details: Some(details),
        signature: Some(signature.to_vec()),
    })
}

pub(super) fn new_key() -> KeyPair {
    KeyPair::generate(&mut rand_for_signal::rng())
}

/// What one handshake frame led to.
pub(super) enum Progress {
    /// Send this and wait for the client's second frame.
    Reply(Vec<u8>),
    /// Both sides know each other.
    Done(Box<Established>),
}

pub(super) struct Established {
    /// Still to be sent, in the clear.
    pub(super) reply: Option<Vec<u8>>,
    pub(super) transport: Transport,
    /// The client's static key: its noise key.
    pub(super) client_key: [u8; 32],
    /// An encoded `ClientPayload`.
    pub(super) payload: Vec<u8>,
}

/// One connection's handshake, fed frame by frame.
pub(super) enum Handshake {
    Start,
    /// The server's hello is out.
    AwaitingFinish(Box<(NoiseHandshake, KeyPair)>),
}

impl Handshake {
    /// # Errors
    /// When the frame is not what belongs here, or was not made for this server.
    pub(super) fn read(&mut self, frame: &[u8], server: &ServerKeys) -> Result<Progress, Broken> {
        let message = HandshakeMessage::decode_from_slice(frame).map_err(Broken::crypto)?;
        match std::mem::replace(self, Self::Start) {
            Self::Start => {
                let hello = message
                    .client_hello
                    .into_option()
                    .ok_or(Broken::Handshake("no client hello"))?;
                self.hello(&hello, server)
            }
            Self::AwaitingFinish(state) => {
                let finish = message
                    .client_finish
                    .into_option()
                    .ok_or(Broken::Handshake("no client finish"))?;
                let (noise, ephemeral) = *state;
                finish_xx(noise, &ephemeral, &finish)
            }
        }
    }

    fn hello(&mut self, hello: &ClientHello, server: &ServerKeys) -> Result<Progress, Broken> {
        let client_ephemeral = key_bytes(hello.ephemeral.as_deref())?;
        let Some((sealed_key, sealed_payload)) =
            hello.r#static.as_deref().zip(hello.payload.as_deref())
        else {
            return self.answer_xx(NOISE_PATTERN_XX, &client_ephemeral, server);
        };
        match resume_ik(&client_ephemeral, sealed_key, sealed_payload, server) {
            Ok(done) => Ok(done),
            // The client remembers another server's key, say of a simulator before this one.
            Err(_) => self.answer_xx(NOISE_PATTERN_XXFALLBACK, &client_ephemeral, server),
        }
    }

    fn answer_xx(
        &mut self,
        pattern: &str,
        client_ephemeral: &[u8; 32],
        server: &ServerKeys,
    ) -> Result<Progress, Broken> {
        let ephemeral = new_key();
        let public = ephemeral.public_key.public_key_bytes();
        let mut noise = NoiseHandshake::new(pattern, &WA_CONN_HEADER).map_err(Broken::crypto)?;
        noise.authenticate(client_ephemeral);
        noise.authenticate(public);
        mix(&mut noise, &ephemeral, client_ephemeral)?;
        let sealed_key = noise
            .encrypt(server.key.public_key.public_key_bytes())
            .map_err(Broken::crypto)?;
        mix(&mut noise, &server.key, client_ephemeral)?;
        let sealed_certificate = noise.encrypt(&server.certificate).map_err(Broken::crypto)?;
        let reply = server_hello(public, Some(sealed_key), sealed_certificate);
        *self = Self::AwaitingFinish(Box::new((noise, ephemeral)));
        Ok(Progress::Reply(reply))
    }
}

fn resume_ik(
    client_ephemeral: &[u8; 32],
    sealed_key: &[u8],
    sealed_payload: &[u8],
    server: &ServerKeys,
) -> Result<Progress, Broken> {
    let mut noise =
        NoiseHandshake::new(NOISE_PATTERN_IK, &WA_CONN_HEADER).map_err(Broken::crypto)?;
    noise.authenticate(server.key.public_key.public_key_bytes());
    noise.authenticate(client_ephemeral);
    mix(&mut noise, &server.key, client_ephemeral)?;
    let client_key = noise.decrypt(sealed_key).map_err(Broken::crypto)?;
    let client_key = key_bytes(Some(&client_key))?;
    mix(&mut noise, &server.key, &client_key)?;
    let payload = noise.decrypt(sealed_payload).map_err(Broken::crypto)?;

    let ephemeral = new_key();
    let public = ephemeral.public_key.public_key_bytes();
    noise.authenticate(public);
    mix(&mut noise, &ephemeral, client_ephemeral)?;
    mix(&mut noise, &ephemeral, &client_key)?;
    let sealed_certificate = noise.encrypt(&server.certificate).map_err(Broken::crypto)?;
    let reply = server_hello(public, None, sealed_certificate);
    Ok(Progress::Done(Box::new(Established {
        reply: Some(reply),
        transport: Transport::split(noise)?,
        client_key,
        payload,
    })))
}

fn finish_xx(
    mut noise: NoiseHandshake,
    ephemeral: &KeyPair,
    finish: &ClientFinish,
) -> Result<Progress, Broken> {
    let sealed_key = finish
        .r#static
        .as_deref()
        .ok_or(Broken::Handshake("no client key"))?;
    let sealed_payload = finish
        .payload
        .as_deref()
        .ok_or(Broken::Handshake("no client payload"))?;
    let client_key = noise.decrypt(sealed_key).map_err(Broken::crypto)?;
    let client_key = key_bytes(Some(&client_key))?;
    mix(&mut noise, ephemeral, &client_key)?;
    let payload = noise.decrypt(sealed_payload).map_err(Broken::crypto)?;
    Ok(Progress::Done(Box::new(Established {
        reply: None,
        transport: Transport::split(noise)?,
        client_key,
        payload,
    })))
}

fn mix(noise: &mut NoiseHandshake, ours: &KeyPair, theirs: &[u8; 32]) -> Result<(), Broken> {
    noise
        .mix_shared_secret(ours.private_key.serialize(), theirs)
        .map_err(Broken::crypto)
}

fn key_bytes(bytes: Option<&[u8]>) -> Result<[u8; 32], Broken> {
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(Broken::Handshake("a key is not 32 bytes long"))
}

fn server_hello(ephemeral: &[u8], key: Option<Vec<u8>>, certificate: Vec<u8>) -> Vec<u8> {
    HandshakeMessage {
        server_hello: MessageField::some(ServerHello {
            ephemeral: Some(ephemeral.to_vec()),
            r#static: key,
            payload: Some(certificate),
            ..Default::default()
        }),
        ..Default::default()
    }
    .encode_to_vec()
}

/// The two ciphers of an established connection, each with its own counter.
pub(super) struct Transport {
    read: NoiseCipher,
    write: NoiseCipher,
    read_count: u32,
    write_count: u32,
}

impl Transport {
    fn split(noise: NoiseHandshake) -> Result<Self, Broken> {
        // Named from the initiator, who is the other side.
        let (read, write) = noise.finish().map_err(Broken::crypto)?;
        Ok(Self {
            read,
            write,
            read_count: 0,
            write_count: 0,
        })
    }

    pub(super) fn open(&mut self, frame: &mut bytes::BytesMut) -> Result<(), Broken> {
        self.read
            .decrypt_in_place_with_counter(self.read_count, frame)
            .map_err(Broken::crypto)?;
        self.read_count = self.read_count.wrapping_add(1);
        Ok(())
    }

    pub(super) fn seal(&mut self, plain: &mut Vec<u8>) -> Result<(), Broken> {
        self.write
            .encrypt_in_place_with_counter(self.write_count, plain)
            .map_err(Broken::crypto)?;
        self.write_count = self.write_count.wrapping_add(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wacore_noise::{IkHandshakeState, IkServerHelloOutcome, XxHandshakeState};

    /// A client with its own code on the other side of [`Handshake`].
    fn shake_xx(server: &ServerKeys) -> (Established, Transport) {
        let mut client =
            XxHandshakeState::new(new_key(), b"payload".to_vec(), &WA_CONN_HEADER).expect("client");
        let mut handshake = Handshake::Start;
        let hello = client.build_client_hello().expect("hello");
        let Progress::Reply(reply) = handshake.read(&hello, server).expect("hello is read") else {
            panic!("XX takes two steps");
        };
        let finish = client
            .read_server_hello_and_build_client_finish(&reply)
            .expect("the certificate has the right structure");
        let Progress::Done(done) = handshake.read(&finish, server).expect("finish is read") else {
            panic!("XX is done");
        };
        let client = client.finish().expect("client is done");
        let transport = Transport {
            read: client.read_cipher,
            write: client.write_cipher,
            read_count: 0,
            write_count: 0,
        };
        (*done, transport)
    }

    #[test]
    fn both_sides_read_each_other_after_xx() {
        let server = ServerKeys::generate().expect("keys");
        let (mut done, mut client) = shake_xx(&server);
        assert_eq!(done.payload, b"payload");
        for text in ["one", "two"] {
            let mut frame = text.as_bytes().to_vec();
            client.seal(&mut frame).expect("sealed");
            let mut frame = bytes::BytesMut::from(&frame[..]);
            done.transport.open(&mut frame).expect("opened");
            assert_eq!(&frame[..], text.as_bytes());
        }
    }

    #[test]
    fn a_client_that_knows_the_key_resumes_in_one_step_and_another_falls_back() {
        let server = ServerKeys::generate().expect("keys");
        let hello = |key: &KeyPair| {
            let public = key_bytes(Some(key.public_key.public_key_bytes())).expect("key");
            let mut client =
                IkHandshakeState::new(new_key(), public, b"payload".to_vec(), &WA_CONN_HEADER)
                    .expect("client");
            let hello = client.build_client_hello().expect("hello");
            (client, hello)
        };
        let (client, bytes) = hello(&server.key);
        let Progress::Done(done) = Handshake::Start.read(&bytes, &server).expect("read") else {
            panic!("IK takes one step");
        };
        let reply = done.reply.expect("a reply");
        assert!(matches!(
            client.read_server_hello(&reply).expect("hello"),
            IkServerHelloOutcome::Continue(_)
        ));

        let (client, bytes) = hello(&new_key());
        let Progress::Reply(reply) = Handshake::Start.read(&bytes, &server).expect("read") else {
            panic!("a fallback needs the client's answer");
        };
        assert!(matches!(
            client.read_server_hello(&reply).expect("hello"),
            IkServerHelloOutcome::Fallback(_)
        ));
    }

    #[test]
    fn damaged_handshakes_are_refused_without_a_panic() {
        let server = ServerKeys::generate().expect("keys");
        let client = XxHandshakeState::new(new_key(), Vec::new(), &WA_CONN_HEADER).expect("client");
        let hello = client.build_client_hello().expect("hello");
        for cut in 0..hello.len() {
            // Cut short is refused or, where the cut falls between fields, just as incomplete.
            drop(Handshake::Start.read(&hello[..cut], &server));
        }
        for at in 0..hello.len() {
            let mut damaged = hello.clone();
            damaged[at] ^= 0x55;
            drop(Handshake::Start.read(&damaged, &server));
        }
        assert!(Handshake::Start.read(&[], &server).is_err());
        assert!(Handshake::Start.read(&[0xff; 64], &server).is_err());
    }
}
