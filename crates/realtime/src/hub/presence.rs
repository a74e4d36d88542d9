//! Who is present on one topic: keys, each with one entry per channel that tracks under it.

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

/// What a call changed; `None` when nothing.
pub(super) type Diff = Option<Value>;

impl Presence {
    /// The payload of `presence_state`.
    pub fn state(&self) -> Value {
        let state = self.entries.iter().map(|(key, entries)| {
            let metas: Vec<_> = entries.iter().map(|entry| &entry.meta).collect();
            (key.clone(), json!({ "metas": metas }))
        });
        Value::Object(state.collect())
    }

    /// Sets the entry of a socket. A second call replaces the first: a join with a new reference, a leave with the old.
    pub fn track(&mut self, socket: u64, key: &str, payload: Map<String, Value>) -> Diff {
        let old = self.remove(socket, key);
        let mut meta = payload;
        meta.insert("phx_ref".to_owned(), Value::from(next_ref()));
        let joins = one(key, &meta);
        self.entries
            .entry(key.to_owned())
            .or_default()
            .push(Entry { socket, meta });
        let leaves = old.map_or_else(|| json!({}), |old| one(key, &old));
        Some(json!({ "joins": joins, "leaves": leaves }))
    }

    /// Removes the entry of a socket.
    pub fn untrack(&mut self, socket: u64, key: &str) -> Diff {
        let old = self.remove(socket, key)?;
        Some(json!({ "joins": {}, "leaves": one(key, &old) }))
    }

    fn remove(&mut self, socket: u64, key: &str) -> Option<Map<String, Value>> {
        let entries = self.entries.get_mut(key)?;
        let at = entries.iter().position(|entry| entry.socket == socket)?;
        let entry = entries.swap_remove(at);
        if entries.is_empty() {
            self.entries.remove(key);
        }
        Some(entry.meta)
    }
}

fn one(key: &str, meta: &Map<String, Value>) -> Value {
    json!({ key: { "metas": [meta] } })
}

/// References are unique in the process; clients only compare them.
fn next_ref() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("w{:x}", NEXT.fetch_add(1, Ordering::Relaxed))
}
