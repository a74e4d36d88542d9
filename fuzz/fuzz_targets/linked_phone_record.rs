//! Any bytes as what a linked phone heard, and any message in a record that is otherwise whole: it is read or refused, the
//! same twice, and never panics.
#![no_main]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|data: &[u8]| {
    drop(wasel_sessions::replay(data));
    // What strangers choose is the protobuf.
    let record = json!({ "linked_phone": 1, "items": [{
        "kind": "message",
        "id": "3EB0",
        "who": { "number": "201001234567" },
        "at": 1_700_000_000,
        "message": BASE64_STANDARD.encode(data),
    }] });
    let record = record.to_string();
    let read = || wasel_sessions::replay(record.as_bytes()).expect("the record is whole");
    assert_eq!(read(), read(), "not the same twice");
});
