//! Everything the rules need to know of a batch, loaded at once.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;
use wasel_db::SystemTx;
use wasel_db::governor::{self, ChannelRules, Facts};
use wasel_db::outbox::Claimed;
use wasel_domain::limits::{
    ChannelLimits, SendingPolicy, TimeZoneSource, next_midnight, time_zone_of_recipient,
};
use wasel_domain::{Category, window};
use wasel_providers::PairPace;

use super::HoldReason;
use crate::registry::Channel;

/// One message with all that counts for it.
pub struct Letter<'a> {
    pub message: &'a Claimed,
    pub facts: &'a Facts,
    pub category: Category,
    pub policy: &'a SendingPolicy,
    /// The organisation's zone.
    organization_zone: &'a str,
    /// Free-form content on a channel with a 24-hour window.
    pub needs_open_window: bool,
    pub pair_pace: Option<PairPace>,
    /// Which counts of people it adds to, if its window is closed.
    pub reaches: &'a [ReachGroup],
}

impl Letter<'_> {
    pub fn window_is_open(&self, now: DateTime<Utc>) -> bool {
        window::is_open(self.facts.last_inbound_at, now)
    }

    pub fn time_zone(&self, source: TimeZoneSource) -> Tz {
        match source {
            TimeZoneSource::Organization => self.organization_zone.parse().unwrap_or(Tz::UTC),
            TimeZoneSource::Recipient => time_zone_of_recipient(
                self.facts.timezone.as_deref(),
                self.facts.phone_number.as_deref(),
                self.organization_zone,
            ),
        }
    }
}

/// Who shares a limit of people, and how many they may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReachGroup {
    pub reason: HoldReason,
    /// `waba:<id>` or `channel:<id>`.
    pub group: String,
    pub limit: u32,
    /// When the limit itself is a larger one.
    pub grows_at: Option<DateTime<Utc>>,
}

/// A channel's limits of people at this time: its account's, and that of its warm-up.
#[must_use]
pub fn reach_groups(channel: &ChannelRules, zone: &str, now: DateTime<Utc>) -> Vec<ReachGroup> {
    let mut limits: ChannelLimits = parse(&channel.limits, "a channel's limits", channel.id);
    limits.daily_reach = channel
        .daily_reach
        .map(|people| u32::try_from(people.max(0)).unwrap_or(u32::MAX));
    let mut groups = Vec::new();
    if let Some(limit) = limits.daily_reach {
        let group = match &channel.waba_id {
            Some(waba) => format!("waba:{waba}"),
            None => format!("account:{}", channel.id),
        };
        groups.push(ReachGroup {
            reason: HoldReason::DailyReach,
            group,
            limit,
            grows_at: None,
        });
    }
    let zone = zone.parse().unwrap_or(Tz::UTC);
    let today = now.with_timezone(&zone).date_naive();
    if let Some(limit) = limits.warm_up_on(today) {
        let tomorrow = today.succ_opt().and_then(|day| limits.warm_up_on(day));
        groups.push(ReachGroup {
            reason: HoldReason::WarmUp,
            group: format!("channel:{}", channel.id),
            limit,
            grows_at: (tomorrow.is_none_or(|people| people > limit))
                .then(|| next_midnight(now, zone)),
        });
    }
    groups
}

/// What is written by hand and cannot be read must not stop the sending.
fn parse<T: DeserializeOwned + Default>(value: &Value, what: &str, id: Uuid) -> T {
    T::deserialize(value).unwrap_or_else(|error| {
        tracing::error!(%id, %error, "{what} cannot be read and are left out");
        T::default()
    })
}

struct Organization {
    timezone: String,
    policy: SendingPolicy,
}

/// The rules of all tenants and channels of a batch.
pub struct Rules<'a> {
    facts: HashMap<(Uuid, Uuid), Facts>,
    organizations: HashMap<Uuid, Organization>,
    reaches: HashMap<(Uuid, Uuid), Vec<ReachGroup>>,
    channels: &'a HashMap<Uuid, Arc<Channel>>,
}

impl<'a> Rules<'a> {
    pub async fn load(
        tx: &mut SystemTx,
        claimed: &[Claimed],
        channels: &'a HashMap<Uuid, Arc<Channel>>,
        now: DateTime<Utc>,
    ) -> wasel_db::Result<Self> {
        let messages: Vec<_> = claimed.iter().map(|m| (m.org_id, m.message_id)).collect();
        let facts = governor::list_facts(tx, &messages).await?;
        let orgs = distinct(claimed.iter().map(|m| m.org_id));
        let organizations: HashMap<_, _> = governor::list_organizations(tx, &orgs)
            .await?
            .into_iter()
            .map(|row| {
                let policy = parse(
                    &row.sending_policy,
                    "an organisation's sending rules",
                    row.id,
                );
                let timezone = row.timezone;
                (row.id, Organization { timezone, policy })
            })
            .collect();
        let used = distinct(claimed.iter().map(|m| (m.org_id, m.channel_id)));
        let reaches = governor::list_channels(tx, &used)
            .await?
            .into_iter()
            .map(|row| {
                let zone = organizations
                    .get(&row.org_id)
                    .map_or("UTC", |organization| &organization.timezone);
                ((row.org_id, row.id), reach_groups(&row, zone, now))
            })
            .collect();
        Ok(Self {
            facts: facts
                .into_iter()
                .map(|facts| ((facts.org_id, facts.message_id), facts))
                .collect(),
            organizations,
            reaches,
            channels,
        })
    }

    /// `None` if the message is no more.
    pub fn letter<'r>(&'r self, message: &'r Claimed) -> Option<Letter<'r>> {
        let facts = self.facts.get(&(message.org_id, message.message_id))?;
        let organization = self.organizations.get(&message.org_id)?;
        let capabilities = self
            .channels
            .get(&message.channel_id)
            .filter(|channel| channel.org_id.0 == message.org_id)
            .map(|channel| channel.open.capabilities());
        let is_template = message.content["type"] == "template";
        Some(Letter {
            message,
            facts,
            category: Category::parse(&message.category).unwrap_or_default(),
            policy: &organization.policy,
            organization_zone: &organization.timezone,
            needs_open_window: !is_template && capabilities.is_some_and(|c| c.has_service_window),
            pair_pace: capabilities.and_then(|c| c.pair_pace),
            reaches: self
                .reaches
                .get(&(message.org_id, message.channel_id))
                .map_or(&[], Vec::as_slice),
        })
    }
}

fn distinct<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}
