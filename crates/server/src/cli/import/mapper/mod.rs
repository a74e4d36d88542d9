//! One old row becomes one of ours, or a reason why not.

mod address;
mod layout;
mod tables;
mod threads;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use csv::StringRecord;
use ring::digest;
use serde_json::{Map, Value};
use uuid::Uuid;
use wasel_db::import::{NewConversation, NewMessage, NewQueued, NewSession, NewTemplate};
use wasel_domain::E164;
use wasel_domain::event::{Identity, IdentityKind};
use wasel_domain::phone::Region;

use super::channels::{Channels, Family, Found, Hint};
use super::shapes::{Field, Kind, Wants};
use super::values;
pub use layout::Layout;

/// Numbers and channels remembered; a few ten megabytes.
const CACHE: usize = 200_000;
/// The longest id, address or name, in bytes: Postgres takes about 2,700 into an index, and several are in one.
const LONGEST_KEY: usize = 1000;
/// The longest name of a customer, in characters.
const LONGEST_NAME: usize = 250;
/// The longest value, in bytes.
const LONGEST_VALUE: usize = 16 << 20;
/// A customer's address and name, as the old system kept them apart. About 250 bytes each.
pub type Customers = HashMap<String, (Vec<String>, Option<String>)>;

/// Why a row is not moved, and which it is.
#[derive(Debug)]
pub struct Skip {
    pub reason: Cow<'static, str>,
    pub id: String,
}

pub enum Mapped {
    Conversation(NewConversation),
    Message(NewMessage),
    Session(NewSession),
    Template(NewTemplate),
    Queued(NewQueued),
}

type Reason = Cow<'static, str>;

/// Everything that tells what a row of one table becomes.
pub struct Mapper {
    pub layout: Arc<Layout>,
    /// The name of the source, which goes into derived ids.
    pub source: String,
    /// Only rows of this old tenant.
    pub old_org: Option<String>,
    pub region: Option<Region>,
    pub channels: Channels,
    pub customers: Arc<Customers>,
    /// `phone_numbers.id` to Meta's id of the number.
    pub numbers: Arc<HashMap<String, String>>,
    pub keep_pending: bool,
    pub phones: HashMap<String, Result<E164, Reason>>,
    pub found: HashMap<Hint, Result<Found, Reason>>,
    /// How often each row without an id came so far, by its hash.
    pub unnamed: HashMap<u128, u32>,
}

impl Mapper {
    pub fn map(&mut self, record: &StringRecord, number: u64) -> Result<Mapped, Skip> {
        let external_id = self.layout.get(record, Field::Id).map(str::to_owned);
        self.map_row(record, external_id.clone())
            .map_err(|reason| Skip {
                reason,
                id: external_id.unwrap_or_else(|| format!("row {number}")),
            })
    }

    fn map_row(
        &mut self,
        record: &StringRecord,
        external_id: Option<String>,
    ) -> Result<Mapped, Reason> {
        self.check_org(record)?;
        if record.iter().any(|value| value.len() > LONGEST_VALUE) {
            return Err("the row has a value of more than 16 MB".into());
        }
        let external_id = match external_id {
            Some(id) => bounded(self.layout.column(Field::Id).unwrap_or("id"), id)?,
            None => self.name_for(record),
        };
        Ok(match self.layout.shape.kind {
            Kind::Conversations => Mapped::Conversation(self.conversation(record, external_id)?),
            Kind::Messages => Mapped::Message(self.message(record, external_id)?),
            Kind::Sessions => Mapped::Session(self.session(record, external_id)?),
            Kind::Templates => Mapped::Template(self.template(record, external_id)?),
            Kind::Queue => Mapped::Queued(self.queued(record, external_id)?),
            Kind::Numbers | Kind::Customers => return Err("has nothing to move".into()),
        })
    }

    /// A name for a row without an id: the same in every run while nobody changes what lasts of it. Of rows that are
    /// equal in that, the second is another row and not the first one again.
    fn name_for(&mut self, record: &StringRecord) -> String {
        let parts = self.layout.lasting(record);
        let mut hash = hash_of(parts.flat_map(|(column, value)| [column, value]));
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        let seen = self.unnamed.entry(u128::from_be_bytes(key)).or_default();
        if *seen > 0 {
            hash = hash_of([hex::encode(hash).as_str(), &seen.to_string()].into_iter());
        }
        *seen += 1;
        hex::encode(hash)
    }

    fn check_org(&self, record: &StringRecord) -> Result<(), Reason> {
        let Some(column) = self.layout.column(Field::Org) else {
            return Ok(());
        };
        let shape = self.layout.shape;
        match (self.layout.get(record, Field::Org), &self.old_org) {
            (None, _) if shape.kind == Kind::Templates => {
                Err(format!("{column}: a system template; Wasel brings its own").into())
            }
            // Its conversation says whose it is.
            (None, Some(_)) if shape.conversations.is_some() => Ok(()),
            (None, Some(_)) => Err(format!("{column}: the row belongs to nobody").into()),
            (Some(org), Some(wanted)) if org != wanted => {
                Err(format!("{column}: another organisation's").into())
            }
            _ => Ok(()),
        }
    }

    /// The old id where it is a UUID, else one made of it.
    fn ids(&self, external_id: &str, at: DateTime<Utc>) -> (Uuid, Uuid) {
        let parts = [self.source.as_str(), self.layout.shape.table, external_id];
        let spare = values::derived_id(&hash_of(parts.into_iter()), at);
        (external_id.parse().unwrap_or(spare), spare)
    }

    fn time(&self, record: &StringRecord, field: Field) -> Result<Option<DateTime<Utc>>, Reason> {
        match self.layout.all(record, field).next() {
            None => Ok(None),
            Some((column, text)) => match values::time(text) {
                Some(at) => Ok(Some(at)),
                None => Err(format!("{column}: not a time").into()),
            },
        }
    }

    fn own_time(
        &self,
        record: &StringRecord,
        column: &str,
    ) -> Result<Option<DateTime<Utc>>, Reason> {
        match self.layout.own(record, column) {
            None => Ok(None),
            Some(text) => values::time(text)
                .map(Some)
                .ok_or_else(|| format!("{column}: not a time").into()),
        }
    }

    /// When the row was made and last changed. Without any time of its own a row would be new, which it is not.
    fn created_and_updated(
        &self,
        record: &StringRecord,
        others: &[Option<DateTime<Utc>>],
    ) -> Result<(DateTime<Utc>, DateTime<Utc>), Reason> {
        let updated = self.time(record, Field::UpdatedAt)?;
        let created = self
            .time(record, Field::CreatedAt)?
            .or_else(|| others.iter().flatten().next().copied())
            .or(updated)
            .ok_or("created_at: the row has no time at all")?;
        Ok((created, updated.unwrap_or(created)))
    }

    /// E.164, from any spelling these tables use.
    fn phone(&mut self, raw: &str) -> Result<E164, Reason> {
        if let Some(known) = self.phones.get(raw) {
            return known.clone();
        }
        if self.phones.len() >= CACHE {
            self.phones.clear();
        }
        let is_meta = self.layout.shape.wants == Wants::CloudNumber;
        let found = address::read_phone(raw, self.region, is_meta);
        self.phones.insert(raw.to_owned(), found.clone());
        found
    }

    /// The first of the texts (with their columns) that is an address of this family.
    fn identity<'a>(
        &mut self,
        family: Family,
        texts: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(Identity, &'a str, &'a str), Reason> {
        let (mut reason, mut other) = (None, None);
        for (column, text) in texts {
            let because = |why: &str| Reason::from(format!("{column}: {why}"));
            match (address::kind_of(text), family) {
                (Err(why), _) => {
                    reason.get_or_insert_with(|| because(why));
                }
                (Ok(IdentityKind::Email), Family::Email) => {
                    let value = bounded(column, text.trim().to_lowercase())?;
                    return Ok((Identity::new(IdentityKind::Email, value), column, text));
                }
                (Ok(IdentityKind::Email), _) => {
                    other.get_or_insert_with(|| because("an e-mail address, on another channel"));
                }
                (Ok(_), Family::Email) => {
                    other.get_or_insert_with(|| because("no e-mail address"));
                }
                (Ok(_), _) => match self.phone(text) {
                    Ok(number) => {
                        let identity = Identity::new(IdentityKind::Phone, number.as_str());
                        return Ok((identity, column, text));
                    }
                    Err(why) => {
                        reason.get_or_insert_with(|| because(&why));
                    }
                },
            }
        }
        Err(reason
            .or(other)
            .unwrap_or("the row names no number or address".into()))
    }

    fn channel(&mut self, record: &StringRecord) -> Result<Found, Reason> {
        let hint = self.hint(|field| self.layout.get(record, field).map(str::to_owned));
        if let Some(known) = self.found.get(&hint) {
            return known.clone();
        }
        if self.found.len() >= CACHE {
            self.found.clear();
        }
        let found = self.channels.find(self.layout.shape.wants, &hint);
        self.found.insert(hint, found.clone());
        found
    }

    /// What a row says about its channel.
    pub fn hint(&self, get: impl Fn(Field) -> Option<String>) -> Hint {
        let wants = self.layout.shape.wants;
        let by_name = matches!(wants, Wants::Log | Wants::Channel);
        let number = || {
            let id = get(Field::PhoneNumberId)?;
            Some(self.numbers.get(&id).cloned().unwrap_or(id))
        };
        Hint {
            channel: by_name.then(|| get(Field::Channel)).flatten(),
            provider: (wants == Wants::Log)
                .then(|| get(Field::Provider))
                .flatten(),
            phone_number_id: (wants == Wants::CloudNumber).then(number).flatten(),
        }
    }

    /// What has no column here, for `metadata.imported`.
    fn kept(&self, record: &StringRecord) -> Map<String, Value> {
        self.layout
            .kept(record)
            .map(|(column, value)| (column.to_owned(), readable(value)))
            .collect()
    }
}

/// A text that goes into an index.
fn bounded(column: &str, text: String) -> Result<String, Reason> {
    if text.len() > LONGEST_KEY {
        return Err(format!("{column}: longer than {LONGEST_KEY} bytes").into());
    }
    Ok(text)
}

/// A customer's name: contacts are looked up by it, too, and a long one is better shorter than not moved.
fn name_of(text: &str) -> String {
    text.chars().take(LONGEST_NAME).collect()
}

/// JSON where it is an object or a list, else text.
fn readable(value: &str) -> Value {
    if value.starts_with(['{', '['])
        && let Ok(mut json) = serde_json::from_str(value)
    {
        if value.contains("\\u0000") {
            clean_json(&mut json);
        }
        return json;
    }
    value.into()
}

/// jsonb keeps no U+0000. The text `\u0000` after a backslash of its own is none.
fn clean_json(value: &mut Value) {
    match value {
        Value::String(text) => *text = clean(text),
        Value::Array(items) => items.iter_mut().for_each(clean_json),
        Value::Object(fields) => {
            for (key, mut value) in std::mem::take(fields) {
                clean_json(&mut value);
                fields.insert(clean(&key), value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Without U+0000, which Postgres keeps in no text.
pub fn clean(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

fn hash_of<'a>(parts: impl Iterator<Item = &'a str>) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
        // No byte of UTF-8: "ab", "c" is not "a", "bc".
        context.update(&[0xFF]);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests;
