//! Who an event is about. Since 2026 a person has a business-scoped user id (BSUID, `EG.1349…`) and perhaps no
//! phone number.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/business-scoped-user-ids>

use std::borrow::Cow;
use std::collections::HashMap;

use wasel_domain::E164;
use wasel_domain::event::{Identity, IdentityKind, Party};

use super::json::Object;

/// Far beyond what Meta allows. Names and ids are copied into every event of a body that is not yet known to be
/// Meta's, so their length has a bound.
const MAX_NAME_CHARS: usize = 256;
const MAX_ID_BYTES: usize = 256;

/// Reads ids as Meta writes them, wherever it puts them: a BSUID is also seen where a phone number was.
/// Phone numbers come first: they are what a person is answered at.
pub(in super::super) fn identities<'a>(
    ids: impl IntoIterator<Item = Option<&'a str>>,
) -> Vec<Identity> {
    let mut found: Vec<Identity> = Vec::new();
    let ids = ids.into_iter().flatten();
    for id in ids.filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES) {
        let identity = identity(id);
        if !found.contains(&identity) {
            found.push(identity);
        }
    }
    found.sort_by_key(|identity| identity.kind != IdentityKind::Phone);
    found
}

fn identity(id: &str) -> Identity {
    if is_bsuid(id) {
        return Identity::new(IdentityKind::Bsuid, id);
    }
    match E164::from_wa_id(id) {
        Ok(number) => Identity::new(IdentityKind::Phone, number),
        // Something new or a short code: better kept as it is than lost.
        Err(_) => Identity::new(IdentityKind::Phone, id),
    }
}

/// ISO country, a dot, letters and digits; `US.ENT.…` for the id of a parent business.
fn is_bsuid(id: &str) -> bool {
    let country = id.as_bytes().first_chunk::<3>();
    matches!(country, Some([a, b, b'.']) if a.is_ascii_uppercase() && b.is_ascii_uppercase())
}

/// The `contacts` beside the messages: names, and every id of each person.
pub(super) struct Contacts<'a> {
    all: Vec<Contact<'a>>,
    /// Each id's place in `all`. An index, because a search per message would let a hostile body of many contacts
    /// and many messages cost their product.
    by_id: HashMap<Cow<'a, str>, usize>,
}

struct Contact<'a> {
    name: Option<Cow<'a, str>>,
    /// `wa_id`, `user_id`, `parent_user_id`.
    ids: [Option<Cow<'a, str>>; 3],
}

impl<'a> Contacts<'a> {
    pub fn read(value: &Object<'a>) -> Self {
        let contacts = value.list("contacts").into_iter().filter_map(Object::read);
        let all: Vec<Contact<'_>> = contacts.map(|contact| Contact::read(&contact)).collect();
        let mut by_id = HashMap::new();
        for (at, contact) in all.iter().enumerate() {
            for id in contact.ids.iter().flatten() {
                by_id.entry(id.clone()).or_insert(at);
            }
        }
        Self { all, by_id }
    }

    /// The person with any of these ids, with what the contacts add. A message that names nobody is from the only
    /// contact there is.
    pub fn party(&self, ids: &[Option<Cow<'_, str>>; 3]) -> Party {
        let named = || ids.iter().flatten();
        let contact = match self.all.as_slice() {
            [only] if named().next().is_none() => Some(only),
            _ => named()
                .find_map(|id| self.by_id.get(id))
                .and_then(|at| self.all.get(*at)),
        };
        let more = contact.map(|contact| &contact.ids).into_iter().flatten();
        Party {
            identities: identities(ids.iter().chain(more).map(Option::as_deref)),
            name: contact
                .and_then(|contact| contact.name.as_deref())
                .map(|name| name.chars().take(MAX_NAME_CHARS).collect()),
        }
    }
}

impl<'a> Contact<'a> {
    fn read(contact: &Object<'a>) -> Self {
        let profile = contact.object("profile");
        let profile = profile.as_ref();
        Self {
            name: profile
                .and_then(|profile| profile.text("name").or_else(|| profile.text("username"))),
            ids: ["wa_id", "user_id", "parent_user_id"].map(|name| contact.text(name)),
        }
    }
}
