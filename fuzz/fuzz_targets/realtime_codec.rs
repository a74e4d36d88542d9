//! Frames of both protocol versions: whatever comes in, the decoder answers without a panic, and what it understood as
//! text survives being written again.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wasel_realtime::PeerMessage;
use wasel_realtime::codec::{Body, Outgoing, Vsn, decode_binary, decode_text, encode_raw_broadcast};

fuzz_target!(|data: &[u8]| {
    // What nodes tell each other.
    if let Some(message) = PeerMessage::decode(data) {
        let again = PeerMessage::decode(&message.encode()).expect("own messages are valid");
        assert_eq!(format!("{message:?}"), format!("{again:?}"));
    }
    for vsn in [Vsn::V1, Vsn::V2] {
        // Both directions of the binary kinds.
        if let Some(message) = decode_binary(vsn, &Bytes::copy_from_slice(data)) {
            let Body::Broadcast { event, .. } = &message.body else {
                panic!("a binary frame gave an event");
            };
            encode_raw_broadcast(&message.topic, event, data);
        }
        let Some(message) = decode_text(vsn, data) else {
            continue;
        };
        let Body::Event { name, payload } = &message.body else {
            panic!("a text frame gave a binary broadcast");
        };
        let written = Outgoing {
            join_ref: message.join_ref.as_deref(),
            reference: message.reference.as_deref(),
            topic: &message.topic,
            event: name,
            payload: payload.get().as_bytes(),
        }
        .encode(vsn);
        let again = decode_text(vsn, &written).expect("own frames are valid");
        assert_eq!(again.topic, message.topic);
        assert_eq!(again.reference, message.reference);
        assert_eq!(again.join_ref, message.join_ref);
    }
});
