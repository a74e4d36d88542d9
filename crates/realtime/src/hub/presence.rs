//! Who is present on one topic: keys, each with one entry per channel that tracks under it.
//!
//! The `presence_diff` messages take care of a defect in `@supabase/realtime-js` (2.109.0 has it, 2.119.0 no longer):
//! its callbacks strip the reference off entries that stay under a key while another comes or goes, and an entry without
//! reference never leaves again. A key is therefore always told whole: a join names all entries now under the key, and
//! where one goes, all that were there leave first. Every client ends in the same state.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The entries of a topic.
#[derive(Debug, Default)]
pub(super) struct Presence {
    entries: BTreeMap<String, Vec<Entry>>,
}

/// How much is tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub entries: usize,
    pub bytes: usize,
}

impl Load {
    /// Of one entry: its payload as JSON, and its names.
    pub fn of(topic: &str, key: &str, payload: &Map<String, Value>) -> Self {
        let mut counted = Counted(0);
        // A map of JSON always serialises; counting cannot fail.
        let bytes = match serde_json::to_writer(&mut counted, payload) {
            Ok(()) => counted.0,
            Err(_) => usize::MAX / 4,
        };
        Self {
            entries: 1,
            bytes: bytes + topic.len() + key.len(),
        }
    }

    pub fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
    }

    pub fn sub(&mut self, other: Self) {
        self.entries = self.entries.saturating_sub(other.entries);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

/// A writer that keeps the length only.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Which channel tracks: that of a socket here, or on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// `None` for this node.
    pub node: Option<Uuid>,
    pub socket: u64,
}

impl Owner {
    pub fn here(socket: u64) -> Self {
        Self { node: None, socket }
    }
}

#[derive(Debug)]
struct Entry {
    owner: Owner,
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

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sets the entry of a channel. A second call replaces the first, under a new reference.
    pub fn track(&mut self, owner: Owner, key: &str, payload: Map<String, Value>) -> Diffs {
        let mut meta = payload;
        meta.insert(PHX_REF.to_owned(), Value::from(next_ref()));
        self.set(owner, key, meta)
    }

    /// The same for an entry that has its reference. Hearing of it once more changes nothing.
    pub fn set(&mut self, owner: Owner, key: &str, meta: Map<String, Value>) -> Diffs {
        let mut diffs = Vec::new();
        if let Some(known) = self.meta(owner, key) {
            if known.get(PHX_REF) == meta.get(PHX_REF) {
                return diffs;
            }
            diffs.push(self.leaves(key));
            self.remove(owner, key);
        }
        let entries = self.entries.entry(key.to_owned()).or_default();
        entries.push(Entry { owner, meta });
        diffs.push(self.joins(key));
        diffs
    }

    /// Removes the entry of a channel.
    pub fn untrack(&mut self, owner: Owner, key: &str) -> Diffs {
        if self.meta(owner, key).is_none() {
            return Vec::new();
        }
        let mut diffs = vec![self.leaves(key)];
        self.remove(owner, key);
        if self.entries.contains_key(key) {
            diffs.push(self.joins(key));
        }
        diffs
    }

    /// What a channel tracks under that key.
    pub fn meta(&self, owner: Owner, key: &str) -> Option<&Map<String, Value>> {
        let mut entries = self.entries.get(key)?.iter();
        let entry = entries.find(|entry| entry.owner == owner)?;
        Some(&entry.meta)
    }

    /// All entries of a node, with their keys and sockets.
    pub fn of_node(&self, node: Option<Uuid>) -> Vec<(String, u64, Map<String, Value>)> {
        let all = self.entries.iter();
        all.flat_map(|(key, entries)| entries.iter().map(move |entry| (key, entry)))
            .filter(|(_, entry)| entry.owner.node == node)
            .map(|(key, entry)| (key.clone(), entry.owner.socket, entry.meta.clone()))
            .collect()
    }

    fn remove(&mut self, owner: Owner, key: &str) {
        if let Some(entries) = self.entries.get_mut(key) {
            entries.retain(|entry| entry.owner != owner);
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

/// The member that tells entries apart.
const PHX_REF: &str = "phx_ref";

/// References are unique among all nodes; clients only compare them.
fn next_ref() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    static PROCESS: LazyLock<String> = LazyLock::new(|| Uuid::new_v4().simple().to_string());
    let process = PROCESS.get(..8).unwrap_or_default();
    format!("{process}-{:x}", NEXT.fetch_add(1, Ordering::Relaxed))
}
