//! Frames of both protocol versions: whatever comes in, the decoder answers without a panic, and what it understood as
//! text survives being written again.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wasel_realtime::codec::{Body, Outgoing, Vsn, decode_binary, decode_text};

fuzz_target!(|data: &[u8]| {
    for vsn in [Vsn::V1, Vsn::V2] {
        decode_binary(vsn, &Bytes::copy_from_slice(data));
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
