//! Which of the tenant's channels an old row went by.

use std::borrow::Cow;

use anyhow::{Result, bail};
use uuid::Uuid;
use wasel_db::channels::Channel;

use super::shapes::Wants;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    Whatsapp,
    Sms,
    Email,
}

impl Family {
    fn of_kind(kind: &str) -> Option<Self> {
        if kind.contains("whatsapp") {
            Some(Self::Whatsapp)
        } else if kind.contains("sms") {
            Some(Self::Sms)
        } else {
            (kind == "email").then_some(Self::Email)
        }
    }

    fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "whatsapp" => Some(Self::Whatsapp),
            "sms" => Some(Self::Sms),
            "email" | "e-mail" => Some(Self::Email),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Whatsapp => "WhatsApp",
            Self::Sms => "SMS",
            Self::Email => "e-mail",
        }
    }
}

/// Whether a word for a channel is one we know.
pub fn is_family(word: &str) -> bool {
    Family::parse(word).is_some()
}

/// What an old row says about its channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hint {
    /// `whatsapp`, `sms`, `email`, where the table has such a column.
    pub channel: Option<String>,
    pub provider: Option<String>,
    pub phone_number_id: Option<String>,
}

/// The channel of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: Uuid,
    pub family: Family,
}

/// The tenant's channels and those the operator named.
#[derive(Clone, Debug)]
pub struct Channels {
    all: Vec<Channel>,
    chosen: Vec<Channel>,
}

impl Channels {
    /// `names`: kinds, names or ids of channels to take for all rows of their family.
    pub fn new(all: Vec<Channel>, names: &[String]) -> Result<Self> {
        let mut chosen: Vec<Channel> = Vec::new();
        for name in names {
            let mut found = all.iter().filter(|channel| {
                channel.name == *name || channel.kind == *name || channel.id.to_string() == *name
            });
            match (found.next(), found.next()) {
                (Some(channel), None) => chosen.push(channel.clone()),
                (None, _) => {
                    let names: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
                    bail!(
                        "--channel: there is no channel `{name}`; there are: {}",
                        names.join(", ")
                    );
                }
                (Some(_), Some(_)) => {
                    bail!("--channel: several channels are called `{name}`; give the name of one")
                }
            }
        }
        Ok(Self { all, chosen })
    }

    /// Whether a WhatsApp Cloud channel has this number.
    pub fn has_number(&self, phone_number_id: &str) -> bool {
        self.all
            .iter()
            .any(|channel| is_number(channel, phone_number_id))
    }

    /// The channel for a row, or why there is none, in words for the operator.
    pub fn find(&self, wants: Wants, hint: &Hint) -> Result<Found, Cow<'static, str>> {
        let word = hint.channel.as_deref().unwrap_or("whatsapp");
        let family = match wants {
            Wants::Log | Wants::Channel => {
                // Without the word: it would make a reason of its own for every row.
                Family::parse(word).ok_or("channel: none of whatsapp, sms and email")?
            }
            _ => Family::Whatsapp,
        };
        let of_family = |channel: &&Channel| Family::of_kind(&channel.kind) == Some(family);
        let chosen: Vec<&Channel> = self.chosen.iter().filter(of_family).collect();
        if !chosen.is_empty() {
            return one(&chosen, family);
        }
        let kind = match (wants, family) {
            (Wants::CloudNumber, _) => {
                let id = hint.phone_number_id.as_deref().unwrap_or("");
                let found: Vec<&Channel> = self.all.iter().filter(|c| is_number(c, id)).collect();
                return match found.as_slice() {
                    [channel, ..] => Ok(Found { id: channel.id, family }),
                    [] => Err(format!(
                        "no whatsapp_cloud channel has phone_number_id `{id}`: connect it with `wasel apply`, \
                         or name another channel with --channel"
                    )
                    .into()),
                };
            }
            (Wants::TwilioWhatsapp, _) => Some("twilio_whatsapp"),
            (Wants::Log, Family::Whatsapp) => match hint.provider.as_deref() {
                Some("meta" | "whatsapp_cloud" | "facebook") => Some("whatsapp_cloud"),
                _ => Some("twilio_whatsapp"),
            },
            (Wants::Log, Family::Sms) => Some("twilio_sms"),
            _ => None,
        };
        let found: Vec<&Channel> = match kind {
            Some(kind) => self.all.iter().filter(|c| c.kind == kind).collect(),
            None => self.all.iter().filter(of_family).collect(),
        };
        if found.is_empty() {
            let what = kind.map_or_else(|| family.name().to_owned(), str::to_owned);
            return Err(format!(
                "the organisation has no {what} channel: add one with `wasel apply`, or name another {} channel with --channel",
                family.name()
            )
            .into());
        }
        one(&found, family)
    }
}

fn is_number(channel: &Channel, phone_number_id: &str) -> bool {
    channel.kind == "whatsapp_cloud" && channel.settings["phone_number_id"] == phone_number_id
}

fn one(found: &[&Channel], family: Family) -> Result<Found, Cow<'static, str>> {
    match found {
        [channel] => Ok(Found {
            id: channel.id,
            family,
        }),
        several => {
            let names: Vec<String> = several
                .iter()
                .map(|channel| format!("\"{}\"", channel.name))
                .collect();
            Err(format!(
                "several {} channels fit: name one with --channel {}",
                family.name(),
                names.join(" or ")
            )
            .into())
        }
    }
}
