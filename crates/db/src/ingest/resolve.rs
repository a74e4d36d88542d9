//! From "who wrote on which channel" to a contact and a conversation, for a whole group at once.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;
use wasel_domain::event::{Identity, IdentityKind, Party};

use super::clean;
use crate::Result;
use crate::contacts;
use crate::error::Error;

/// Entries kept per writer; at about 200 bytes each this bounds the cache to some megabytes.
const CACHE_LIMIT: usize = 20_000;

/// Whom a message belongs to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub contact_id: Uuid,
    pub conversation_id: Uuid,
    pub customer_name: Option<String>,
    pub address: String,
    pub identities: Vec<Identity>,
}

/// Names a conversation before it is known: one channel, one customer (or group).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub org_id: Uuid,
    pub channel_id: Uuid,
    pub thread: Thread,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Thread {
    Customer(Identity),
    /// The group's id and the member who wrote.
    Group(String, Identity),
}

impl Key {
    /// `None` if the event names nobody.
    pub fn of(
        org_id: Uuid,
        channel_id: Uuid,
        customer: &Party,
        group_id: Option<&str>,
    ) -> Option<Self> {
        let first = customer.identities.first()?.clone();
        let thread = match group_id {
            Some(group) => Thread::Group(group.to_owned(), first),
            None => Thread::Customer(first),
        };
        Some(Self {
            org_id,
            channel_id,
            thread,
        })
    }

    fn group_id(&self) -> Option<&str> {
        match &self.thread {
            Thread::Customer(_) => None,
            Thread::Group(group, _) => Some(group),
        }
    }
}

/// What this writer learnt from rows it read or wrote.
#[derive(Default)]
pub(super) struct Cache {
    known: HashMap<Key, Target>,
    /// Learnt in the transaction under way; kept only if it commits.
    fresh: HashMap<Key, Target>,
}

impl Cache {
    pub fn get(&self, key: &Key) -> Option<&Target> {
        self.fresh.get(key).or_else(|| self.known.get(key))
    }

    pub fn keep(&mut self) {
        if self.known.len() + self.fresh.len() > CACHE_LIMIT {
            self.known.clear();
        }
        self.known.extend(self.fresh.drain());
    }

    pub fn drop_fresh(&mut self) {
        self.fresh.clear();
    }

    pub fn clear(&mut self) {
        self.known.clear();
        self.fresh.clear();
    }

    fn covers(&self, key: &Key, customer: &Party) -> bool {
        self.get(key).is_some_and(|target| {
            customer
                .identities
                .iter()
                .all(|identity| target.identities.contains(identity))
                && customer
                    .name
                    .as_deref()
                    .is_none_or(|name| target.customer_name.as_deref() == Some(&*clean(name)))
        })
    }
}

/// A conversation's place in the question (from 1), its id, and the name and number it shows.
type Found = (i32, Uuid, Option<String>, Option<String>);

struct Wanted {
    identities: Vec<Identity>,
    name: Option<String>,
    contact_id: Option<Uuid>,
}

/// Makes sure that every (key, customer) is in the cache, creating contacts, identities and conversations.
pub(super) async fn resolve(
    connection: &mut PgConnection,
    cache: &mut Cache,
    events: &[(Key, &Party)],
) -> Result<()> {
    let mut wanted: BTreeMap<Key, Wanted> = BTreeMap::new();
    for (key, customer) in events {
        if cache.covers(key, customer) {
            continue;
        }
        let entry = wanted.entry(key.clone()).or_insert_with(|| Wanted {
            identities: Vec::new(),
            name: None,
            contact_id: None,
        });
        for identity in &customer.identities {
            if !entry.identities.contains(identity) {
                entry.identities.push(identity.clone());
            }
        }
        if let Some(name) = &customer.name {
            entry.name = Some(clean(name).into_owned());
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    find_contacts(connection, cache, &mut wanted).await?;
    insert_contacts(connection, &mut wanted).await?;
    find_or_insert_conversations(connection, cache, &wanted).await
}

async fn find_contacts(
    connection: &mut PgConnection,
    cache: &mut Cache,
    wanted: &mut BTreeMap<Key, Wanted>,
) -> Result<()> {
    let (mut ords, mut orgs, mut kinds, mut values) = (vec![], vec![], vec![], vec![]);
    for (ord, (key, want)) in wanted.iter().enumerate() {
        for identity in &want.identities {
            ords.push(ord as i32);
            orgs.push(key.org_id);
            kinds.push(identity.kind.as_str());
            values.push(clean(&identity.value).into_owned());
        }
    }
    let found: Vec<(i32, Uuid)> = sqlx::query_as(
        "SELECT DISTINCT n.ord, i.contact_id
         FROM unnest($1::int[], $2::uuid[], $3::text[], $4::text[]) AS n(ord, org_id, kind, value)
         JOIN contact_identities i ON i.org_id = n.org_id AND i.kind = n.kind AND i.value = n.value
         ORDER BY 1, 2",
    )
    .bind(&ords)
    .bind(&orgs)
    .bind(&kinds)
    .bind(&values)
    .fetch_all(&mut *connection)
    .await?;
    let mut by_ord: HashMap<i32, Vec<Uuid>> = HashMap::new();
    for (ord, contact) in found {
        by_ord.entry(ord).or_default().push(contact);
    }
    for (ord, (key, want)) in wanted.iter_mut().enumerate() {
        let contacts = by_ord.remove(&(ord as i32)).unwrap_or_default();
        // The provider named one person by identities we had for several: they are one now.
        if let [keep, others @ ..] = contacts.as_slice() {
            for other in others {
                contacts::merge(connection, key.org_id, *keep, *other).await?;
            }
            if !others.is_empty() {
                cache.clear();
            }
            want.contact_id = Some(*keep);
        }
    }
    Ok(())
}

async fn insert_contacts(
    connection: &mut PgConnection,
    wanted: &mut BTreeMap<Key, Wanted>,
) -> Result<()> {
    // One person may be wanted on several channels at once: one contact.
    let mut by_identity: HashMap<(Uuid, Identity), Uuid> = HashMap::new();
    let (mut orgs, mut ids, mut names, mut phones, mut emails) =
        (vec![], vec![], vec![], vec![], vec![]);
    let (mut known_orgs, mut known_ids, mut known_names) = (vec![], vec![], vec![]);
    let mut identities: HashSet<(Uuid, Identity, Uuid)> = HashSet::new();
    for (key, want) in wanted.iter_mut() {
        let shared = want
            .identities
            .iter()
            .find_map(|i| by_identity.get(&(key.org_id, i.clone())).copied());
        let contact = match (want.contact_id, shared) {
            (Some(contact), _) => {
                if let Some(name) = &want.name {
                    known_orgs.push(key.org_id);
                    known_ids.push(contact);
                    known_names.push(name.clone());
                }
                contact
            }
            (None, Some(contact)) => contact,
            (None, None) => {
                let contact = Uuid::now_v7();
                orgs.push(key.org_id);
                ids.push(contact);
                names.push(want.name.clone());
                phones.push(value_of(&want.identities, IdentityKind::Phone));
                emails.push(value_of(&want.identities, IdentityKind::Email));
                contact
            }
        };
        want.contact_id = Some(contact);
        for identity in &want.identities {
            by_identity.insert((key.org_id, identity.clone()), contact);
            identities.insert((key.org_id, identity.clone(), contact));
        }
    }
    if !ids.is_empty() {
        sqlx::query(
            "INSERT INTO contacts (org_id, id, name, phone_number, email)
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[])",
        )
        .bind(&orgs)
        .bind(&ids)
        .bind(&names)
        .bind(&phones)
        .bind(&emails)
        .execute(&mut *connection)
        .await?;
    }
    if !known_ids.is_empty() {
        sqlx::query(
            "UPDATE contacts c SET name = n.name FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS n(org_id, id, name)
             WHERE c.org_id = n.org_id AND c.id = n.id AND c.name IS DISTINCT FROM n.name",
        )
        .bind(&known_orgs)
        .bind(&known_ids)
        .bind(&known_names)
        .execute(&mut *connection)
        .await?;
    }
    let (mut orgs, mut kinds, mut values, mut contacts) = (vec![], vec![], vec![], vec![]);
    for (org, identity, contact) in &identities {
        orgs.push(*org);
        kinds.push(identity.kind.as_str());
        values.push(clean(&identity.value).into_owned());
        contacts.push(*contact);
    }
    // `DO UPDATE` with the value it has makes RETURNING name the owner, whoever inserted it.
    let owners: Vec<(Uuid, String, String, Uuid)> = sqlx::query_as(
        "INSERT INTO contact_identities (org_id, kind, value, contact_id)
         SELECT DISTINCT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[])
         ON CONFLICT (org_id, kind, value) DO UPDATE SET contact_id = contact_identities.contact_id
         RETURNING org_id, kind, value, contact_id",
    )
    .bind(&orgs)
    .bind(&kinds)
    .bind(&values)
    .bind(&contacts)
    .fetch_all(&mut *connection)
    .await?;
    let expected: HashSet<(Uuid, &str, &str, Uuid)> = (0..orgs.len())
        .map(|i| (orgs[i], kinds[i], values[i].as_str(), contacts[i]))
        .collect();
    let raced = owners.iter().any(|(org, kind, value, contact)| {
        !expected.contains(&(*org, kind.as_str(), value.as_str(), *contact))
    });
    // Somebody else (a person starting a conversation) made this contact a moment ago: start over and find it.
    if raced { Err(Error::Raced) } else { Ok(()) }
}

async fn find_or_insert_conversations(
    connection: &mut PgConnection,
    cache: &mut Cache,
    wanted: &BTreeMap<Key, Wanted>,
) -> Result<()> {
    let (mut orgs, mut channels, mut contacts, mut groups) = (vec![], vec![], vec![], vec![]);
    let (mut phones, mut names, mut ids) = (vec![], vec![], vec![]);
    for (key, want) in wanted {
        let Some(contact) = want.contact_id else {
            continue;
        };
        orgs.push(key.org_id);
        channels.push(key.channel_id);
        contacts.push(contact);
        groups.push(key.group_id().map(|group| clean(group).into_owned()));
        phones.push(value_of(&want.identities, IdentityKind::Phone));
        names.push(want.name.clone());
        ids.push(Uuid::now_v7());
    }
    // Existing rows first: ON CONFLICT would burn an update of every known conversation.
    let find = "SELECT n.ord::int, c.id, c.customer_name, c.phone_number
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) WITH ORDINALITY AS n(org_id, channel_id, contact_id, group_id, ord)
         JOIN LATERAL (
             SELECT c.id, c.customer_name, c.phone_number FROM conversations c
             WHERE c.org_id = n.org_id AND c.channel_id = n.channel_id AND c.contact_id = n.contact_id
               AND c.group_id IS NULL AND n.group_id IS NULL
             UNION ALL
             SELECT c.id, c.customer_name, c.phone_number FROM conversations c
             WHERE c.org_id = n.org_id AND c.channel_id = n.channel_id AND c.group_id = n.group_id
         ) c ON true";
    let mut found: HashMap<i32, Found> = HashMap::new();
    for pass in 0..2 {
        let rows: Vec<Found> = sqlx::query_as(find)
            .bind(&orgs)
            .bind(&channels)
            .bind(&contacts)
            .bind(&groups)
            .fetch_all(&mut *connection)
            .await?;
        found.extend(rows.into_iter().map(|row| (row.0, row)));
        if found.len() == orgs.len() || pass == 1 {
            break;
        }
        let missing: Vec<usize> = (0..orgs.len())
            .filter(|i| !found.contains_key(&(*i as i32 + 1)))
            .collect();
        let pick = |ids: &[Uuid]| missing.iter().map(|i| ids[*i]).collect::<Vec<_>>();
        let pick_text = |texts: &[Option<String>]| {
            missing
                .iter()
                .map(|i| texts[*i].clone())
                .collect::<Vec<_>>()
        };
        sqlx::query(
            "INSERT INTO conversations (org_id, id, channel_id, contact_id, group_id, phone_number, customer_name)
             SELECT n.org_id, n.id, n.channel_id, n.contact_id, n.group_id, coalesce(n.phone, c.phone_number), coalesce(n.name, c.name)
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[])
                  AS n(org_id, id, channel_id, contact_id, group_id, phone, name)
             JOIN contacts c ON c.org_id = n.org_id AND c.id = n.contact_id
             ON CONFLICT DO NOTHING",
        )
        .bind(pick(&orgs))
        .bind(pick(&ids))
        .bind(pick(&channels))
        .bind(pick(&contacts))
        .bind(pick_text(&groups))
        .bind(pick_text(&phones))
        .bind(pick_text(&names))
        .execute(&mut *connection)
        .await?;
    }
    rename(connection, &orgs, &names, &phones, &found).await?;
    for (ord, (key, want)) in wanted
        .iter()
        .filter(|(_, want)| want.contact_id.is_some())
        .enumerate()
    {
        // A row that is still not visible was made by a transaction that has not committed yet.
        let (_, conversation_id, old_name, _) = found.get(&(ord as i32 + 1)).ok_or(Error::Raced)?;
        let name = want.name.clone().or_else(|| old_name.clone());
        let address = match &key.thread {
            Thread::Customer(identity) | Thread::Group(_, identity) => {
                clean(&identity.value).into_owned()
            }
        };
        let mut identities = want.identities.clone();
        if let Some(old) = cache.get(key) {
            identities.extend(
                old.identities
                    .iter()
                    .filter(|i| !want.identities.contains(i))
                    .cloned(),
            );
        }
        cache.fresh.insert(
            key.clone(),
            Target {
                contact_id: want.contact_id.ok_or(Error::Raced)?,
                conversation_id: *conversation_id,
                customer_name: name,
                address,
                identities,
            },
        );
    }
    Ok(())
}

/// The list shows a copy of the name and number: bring them up to date.
async fn rename(
    connection: &mut PgConnection,
    orgs: &[Uuid],
    names: &[Option<String>],
    phones: &[Option<String>],
    found: &HashMap<i32, Found>,
) -> Result<()> {
    let (mut r_orgs, mut r_ids, mut r_names, mut r_phones) = (vec![], vec![], vec![], vec![]);
    for (ord, id, old_name, old_phone) in found.values() {
        let i = *ord as usize - 1;
        let new_name = names[i].is_some() && names[i] != *old_name;
        let new_phone = phones[i].is_some() && phones[i] != *old_phone;
        if new_name || new_phone {
            r_orgs.push(orgs[i]);
            r_ids.push(*id);
            r_names.push(names[i].clone().or_else(|| old_name.clone()));
            r_phones.push(phones[i].clone().or_else(|| old_phone.clone()));
        }
    }
    if !r_ids.is_empty() {
        sqlx::query(
            "UPDATE conversations c SET customer_name = n.name, phone_number = n.phone, updated_at = now()
             FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) AS n(org_id, id, name, phone)
             WHERE c.org_id = n.org_id AND c.id = n.id AND c.group_id IS NULL",
        )
        .bind(&r_orgs)
        .bind(&r_ids)
        .bind(&r_names)
        .bind(&r_phones)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

fn value_of(identities: &[Identity], kind: IdentityKind) -> Option<String> {
    identities
        .iter()
        .find(|identity| identity.kind == kind)
        .map(|identity| clean(&identity.value).into_owned())
}
