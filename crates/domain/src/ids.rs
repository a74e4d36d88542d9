//! Typed ids. All are UUIDv7, so that they sort by creation time and insert at the end of an index.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh id (UUIDv7).
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    };
}

id!(/// A tenant. Every row carries one.
    OrgId);
id!(/// A person who signs in; Supabase's `auth.uid()`.
    UserId);
id!(/// One connected account at a provider: a WABA number, a Twilio sender.
    ChannelId);
id!(/// A customer, under however many identities.
    ContactId);
id!(/// The thread between one contact and one channel.
    ConversationId);
id!(/// One message, inbound or outbound.
    MessageId);
id!(/// One try to send a message; carried to the provider so that its callbacks name it.
    AttemptId);
id!(/// One raw webhook request in the ledger.
    EventId);

impl OrgId {
    /// The system organisation: owner of system-wide templates and of authentic webhook events that no
    /// channel claims. No user belongs to it.
    pub const SYSTEM: OrgId = OrgId(Uuid::nil());
}
