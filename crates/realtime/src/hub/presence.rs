//! Who is present on one topic: keys, each with one entry per channel that tracks under it.
//!
//! The `presence_diff` messages take care of a defect in `@supabase/realtime-js` (2.109.0 has it, 2.119.0 no longer):
//! its callbacks strip the reference off entries that stay under a key while another comes or goes, and an entry without
//! reference never leaves again. A key is therefore always told whole: a join names all entries now under the key, and
//! where one goes, all that were there leave first. Every client ends in the same state.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

/// The entries of a topic.
#[derive(Debug, Default)]
pub(super) struct Presence {
    entries: BTreeMap<String, Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    socket: u64,
    /// What was tracked, with the server's `phx_ref`.
    meta: Map<String, Value>,
}

/// The `presence_diff` payloads that tell of a change, in order.
pub(super) type Diffs = Vec<Value>;

impl Presence {
    /// The payload of `presence_state`.
    pub fn state(&self) -> Value {
        let keys = self.entries.keys();
        Value::Object(keys.map(|key| (key.clone(), self.metas(key))).collect())
    }

    /// Sets the entry of a socket. A second call replaces the first, under a new reference.
    pub fn track(&mut self, socket: u64, key: &str, payload: Map<String, Value>) -> Diffs {
        let mut diffs = Vec::new();
        if self.has(socket, key) {
            diffs.push(self.leaves(key));
            self.remove(socket, key);
        }
        let mut meta = payload;
        meta.insert("phx_ref".to_owned(), Value::from(next_ref()));
        let entries = self.entries.entry(key.to_owned()).or_default();
        entries.push(Entry { socket, meta });
        diffs.push(self.joins(key));
        diffs
    }

    /// Removes the entry of a socket.
    pub fn untrack(&mut self, socket: u64, key: &str) -> Diffs {
        if !self.has(socket, key) {
            return Vec::new();
        }
        let mut diffs = vec![self.leaves(key)];
        self.remove(socket, key);
        if self.entries.contains_key(key) {
            diffs.push(self.joins(key));
        }
        diffs
    }

    fn has(&self, socket: u64, key: &str) -> bool {
        let entries = self.entries.get(key);
        entries.is_some_and(|entries| entries.iter().any(|entry| entry.socket == socket))
    }

    fn remove(&mut self, socket: u64, key: &str) {
        if let Some(entries) = self.entries.get_mut(key) {
            entries.retain(|entry| entry.socket != socket);
            if entries.is_empty() {
                self.entries.remove(key);
            }
        }
    }

    fn metas(&self, key: &str) -> Value {
        let entries = self.entries.get(key).into_iter().flatten();
        let metas: Vec<_> = entries.map(|entry| &entry.meta).collect();
        json!({ "metas": metas })
    }

    fn joins(&self, key: &str) -> Value {
        json!({ "joins": { key: self.metas(key) }, "leaves": {} })
    }

    fn leaves(&self, key: &str) -> Value {
        json!({ "joins": {}, "leaves": { key: self.metas(key) } })
    }
}

/// References are unique in the process; clients only compare them.
fn next_ref() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("w{:x}", NEXT.fetch_add(1, Ordering::Relaxed))
}
