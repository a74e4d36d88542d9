//! Bytes of a socket to stanzas and back: the opening, three-byte lengths, compression, the node codec.

use bytes::{Buf, BytesMut};
use wacore_binary::{Node, OwnedNodeRef, consts::WA_CONN_HEADER, marshal, util::unpack_bytes};

use super::Broken;

/// Larger frames than any client sends; a length above ends the connection.
const MAX_FRAME: usize = 8 << 20;
const LENGTH: usize = 3;
/// Opens a socket of a client that was told to come by another edge.
const EDGE_ROUTING: &[u8] = b"ED\x00\x01";

/// Collects what a socket delivers until it is whole frames.
#[derive(Default)]
pub(super) struct Frames {
    buffer: BytesMut,
    opened: bool,
}

impl Frames {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if one is there.
    ///
    /// # Errors
    /// When the socket does not open as WhatsApp's do, or a frame is too long.
    pub(super) fn next(&mut self) -> Result<Option<BytesMut>, Broken> {
        if !self.opened && !self.read_opening()? {
            return Ok(None);
        }
        let Some(length) = three_bytes(&self.buffer) else {
            return Ok(None);
        };
        if length > MAX_FRAME {
            return Err(Broken::Frame("too long"));
        }
        if self.buffer.len() < LENGTH + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH);
        let frame = self.buffer.split_to(length);
        if self.buffer.is_empty() {
            // An idle socket holds no memory.
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }

    fn read_opening(&mut self) -> Result<bool, Broken> {
        if self.buffer.starts_with(EDGE_ROUTING) {
            let Some(length) = three_bytes(&self.buffer[EDGE_ROUTING.len()..]) else {
                return Ok(false);
            };
            if length > MAX_FRAME {
                return Err(Broken::Frame("routing too long"));
            }
            let whole = EDGE_ROUTING.len() + LENGTH + length;
            if self.buffer.len() < whole {
                return Ok(false);
            }
            self.buffer.advance(whole);
        }
        if self.buffer.len() < WA_CONN_HEADER.len() {
            return Ok(false);
        }
        // The last byte is the version of the dictionary.
        if self.buffer[..WA_CONN_HEADER.len()] != WA_CONN_HEADER {
            return Err(Broken::Frame("not the opening of WhatsApp Web"));
        }
        self.buffer.advance(WA_CONN_HEADER.len());
        self.opened = true;
        Ok(true)
    }
}

fn three_bytes(bytes: &[u8]) -> Option<usize> {
    let [high, middle, low] = bytes.first_chunk::<LENGTH>()?;
    Some(usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low))
}

/// Puts the length before `payload` and both onto `out`.
pub(super) fn append_frame(payload: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|length| *length < 1 << 24)
        .ok_or(Broken::Frame("too long to send"))?;
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(payload);
    Ok(())
}

pub(super) fn decode_node(plain: BytesMut) -> Result<OwnedNodeRef, Broken> {
    let bytes = unpack_bytes(plain).map_err(Broken::crypto)?;
    OwnedNodeRef::new(bytes).map_err(Broken::crypto)
}

/// With the leading flag byte, ready to be sealed.
pub(super) fn encode_node(node: &Node) -> Result<Vec<u8>, Broken> {
    marshal(node).map_err(Broken::crypto)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wacore_binary::builder::NodeBuilder;

    fn stanza() -> Vec<u8> {
        let node = NodeBuilder::new("message")
            .attr("to", "15550001@s.whatsapp.net")
            .attr("id", "3EB0")
            .children([NodeBuilder::new("enc")
                .attr("v", "2")
                .bytes(vec![7; 40])
                .build()])
            .build();
        encode_node(&node).expect("encodes")
    }

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let mut wire = WA_CONN_HEADER.to_vec();
        for payload in [&b"first"[..], b"", b"third"] {
            append_frame(payload, &mut wire).expect("fits");
        }
        for step in 1..wire.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for chunk in wire.chunks(step) {
                frames.feed(chunk);
                while let Some(frame) = frames.next().expect("sound") {
                    seen.push(frame.to_vec());
                }
            }
            assert_eq!(seen, [b"first".to_vec(), b"".to_vec(), b"third".to_vec()]);
        }
    }

    #[test]
    fn a_socket_that_opens_otherwise_is_refused_and_routing_is_skipped() {
        let mut frames = Frames::default();
        frames.feed(b"GET / HTTP/1.1");
        assert!(frames.next().is_err());

        let mut frames = Frames::default();
        frames.feed(b"ED\x00\x01\x00\x00\x02abWA\x06\x03\x00\x00\x01x");
        assert_eq!(frames.next().expect("sound").as_deref(), Some(&b"x"[..]));

        let mut frames = Frames::default();
        frames.feed(b"WA\x06\x03\xff\xff\xff");
        assert!(frames.next().is_err());
    }

    #[test]
    fn damaged_stanzas_are_errors_or_other_stanzas_but_never_a_panic() {
        let sound = stanza();
        assert_eq!(
            decode_node(BytesMut::from(&sound[..]))
                .expect("sound")
                .tag(),
            "message"
        );
        for cut in 0..sound.len() {
            drop(decode_node(BytesMut::from(&sound[..cut])));
        }
        for at in 0..sound.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = sound.clone();
                damaged[at] ^= flip;
                if let Ok(node) = decode_node(BytesMut::from(&damaged[..])) {
                    // Reading attributes of nonsense must be as harmless.
                    drop(node.get_attr("to").map(|to| to.to_jid()));
                    drop(node.to_owned_node());
                }
            }
        }
    }
}
