//! How WhatsApp names people: by number (`…@s.whatsapp.net`) or by hidden number (`…@lid`).

use serde::{Deserialize, Serialize};
use wasel_domain::E164;
use wasel_domain::event::{Identity, IdentityKind, Party};
use whatsapp_rust::wacore_binary::JidExt as _;
use whatsapp_rust::{Client, Jid};

/// A person, or, where the phone's owner wrote to a group, the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Who {
    /// Digits with the country code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
}

impl Who {
    /// From the names a stanza gives, in any order.
    pub(crate) fn named<'a>(jids: impl IntoIterator<Item = &'a Jid>) -> Self {
        let mut who = Self::default();
        for jid in jids {
            let user = || Some(jid.user_base().to_owned());
            if jid.server.is_pn_family() {
                who.number = who.number.or_else(user);
            } else if jid.server.is_lid_family() {
                who.lid = who.lid.or_else(user);
            } else if jid.is_group() {
                who.group = who.group.or_else(|| Some(jid.to_non_ad_string()));
            }
        }
        who
    }

    /// Adds the number of a hidden number the session has met.
    pub(crate) async fn completed(mut self, client: &Client) -> Self {
        let known = match (&self.number, &self.lid) {
            (None, Some(lid)) => Jid::lid(lid.as_str()),
            (Some(number), None) => Jid::pn(number.as_str()),
            _ => return self,
        };
        if let Ok(Some(entry)) = client.get_lid_pn_entry(&known).await {
            self.number
                .get_or_insert_with(|| entry.phone_number.to_string());
            self.lid.get_or_insert_with(|| entry.lid.to_string());
        }
        self
    }

    pub(crate) fn is_nobody(&self) -> bool {
        *self == Self::default()
    }

    /// The number first: it is what other channels know the person by.
    pub(crate) fn identities(&self) -> Vec<Identity> {
        let mut identities = Vec::new();
        if let Some(number) = &self.number {
            if let Ok(phone) = E164::from_wa_id(number) {
                identities.push(Identity::new(IdentityKind::Phone, phone));
            }
            let jid = format!("{number}@s.whatsapp.net");
            identities.push(Identity::new(IdentityKind::Jid, jid));
        }
        if let Some(lid) = &self.lid {
            identities.push(Identity::new(IdentityKind::Lid, format!("{lid}@lid")));
        }
        if let Some(group) = &self.group {
            identities.push(Identity::new(IdentityKind::Jid, group.as_str()));
        }
        identities
    }
}

/// The person with these names, for a live signal.
pub(crate) fn party_of<'a>(jids: impl IntoIterator<Item = &'a Jid>) -> Party {
    Party {
        identities: Who::named(jids).identities(),
        name: None,
    }
}
