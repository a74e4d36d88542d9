//! The channels of all tenants, opened and ready, in memory. Reloaded whenever the `channels` table changes.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use serde_json::Value;
use wasel_db::Db;
use wasel_db::seal::Sealer;
use wasel_domain::limits::ChannelLimits;
use wasel_domain::{ChannelId, OrgId, Region};
use wasel_providers::{ChannelKind, OpenChannel, Providers};

/// One channel, ready to verify and send.
pub struct Channel {
    pub org_id: OrgId,
    pub id: ChannelId,
    pub kind: ChannelKind,
    pub name: String,
    /// `active`, `paused`, `blocked`.
    pub status: String,
    /// The organisation's country, for numbers written without one.
    pub region: Option<Region>,
    pub limits: ChannelLimits,
    pub open: Arc<dyn OpenChannel>,
}

/// Limits that cannot be read (written by hand) must not stop the channel: the kind's own apply.
fn limits_of(row: &wasel_db::channels::Channel) -> ChannelLimits {
    serde_json::from_value(row.limits.clone()).unwrap_or_else(|error| {
        tracing::error!(channel.id = %row.id, %error, "a channel's limits cannot be read and are left out");
        ChannelLimits::default()
    })
}

impl Channel {
    /// What this sender may hand over in a second.
    #[must_use]
    pub fn messages_per_second(&self) -> f64 {
        self.limits
            .messages_per_second
            .unwrap_or(self.open.capabilities().messages_per_second)
    }
}

#[derive(Default)]
struct Snapshot {
    by_id: HashMap<ChannelId, Arc<Channel>>,
    by_route: HashMap<String, Vec<Arc<Channel>>>,
}

/// Finds channels by id and by the keys that webhooks name them with.
pub struct Registry {
    db: Db,
    providers: Arc<Providers>,
    sealer: Arc<Sealer>,
    snapshot: RwLock<Arc<Snapshot>>,
}

impl Registry {
    #[must_use]
    pub fn new(db: Db, providers: Arc<Providers>, sealer: Arc<Sealer>) -> Self {
        Self {
            db,
            providers,
            sealer,
            snapshot: RwLock::default(),
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        // A poisoned lock still holds a whole snapshot: it is only ever replaced.
        self.snapshot
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Reads all channels anew. One that cannot be opened is logged and left out; the others go on.
    pub async fn reload(&self) -> wasel_db::Result<()> {
        let mut tx = self.db.system().await?;
        let rows = wasel_db::channels::list_sealed(&mut tx).await?;
        tx.commit().await?;
        let mut snapshot = Snapshot::default();
        for row in rows {
            let id = row.channel.id;
            match self.open(row) {
                Ok(channel) => {
                    let channel = Arc::new(channel);
                    for key in channel.open.routing_keys() {
                        snapshot
                            .by_route
                            .entry(key)
                            .or_default()
                            .push(channel.clone());
                    }
                    snapshot.by_id.insert(channel.id, channel);
                }
                Err(reason) => {
                    tracing::error!(channel.id = %id, %reason, "a channel cannot be used")
                }
            }
        }
        *self
            .snapshot
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(snapshot);
        Ok(())
    }

    fn open(&self, row: wasel_db::channels::SealedChannel) -> Result<Channel, String> {
        let kind = ChannelKind::parse(&row.channel.kind)
            .ok_or_else(|| format!("unknown kind {}", row.channel.kind))?;
        let secrets: Value = match row.sealed {
            Some(sealed) => {
                let plain = self
                    .sealer
                    .open(row.channel.org_id, row.channel.id, &sealed)
                    .map_err(|error| error.to_string())?;
                serde_json::from_slice(&plain).map_err(|_| "its secrets are not JSON".to_owned())?
            }
            None => Value::Object(serde_json::Map::new()),
        };
        let open = self
            .providers
            .of(kind)
            .open(
                ChannelId(row.channel.id),
                kind,
                &row.channel.settings,
                &secrets,
            )
            .map_err(|error| error.to_string())?;
        let limits = limits_of(&row.channel);
        Ok(Channel {
            org_id: OrgId(row.channel.org_id),
            id: ChannelId(row.channel.id),
            kind,
            name: row.channel.name,
            status: row.channel.status,
            region: row
                .region
                .as_deref()
                .and_then(|region| wasel_domain::phone::parse_region(region).ok()),
            limits,
            open,
        })
    }

    /// The channel with this id, in any tenant. The caller checks the tenant.
    #[must_use]
    pub fn by_id(&self, id: ChannelId) -> Option<Arc<Channel>> {
        self.snapshot().by_id.get(&id).cloned()
    }

    /// This tenant's channel with this id.
    #[must_use]
    pub fn of_org(&self, org: OrgId, id: ChannelId) -> Option<Arc<Channel>> {
        self.by_id(id).filter(|channel| channel.org_id == org)
    }

    /// This tenant's active channels, by name.
    #[must_use]
    pub fn list_active(&self, org: OrgId) -> Vec<Arc<Channel>> {
        let mut channels: Vec<_> = self
            .snapshot()
            .by_id
            .values()
            .filter(|channel| channel.org_id == org && channel.status == "active")
            .cloned()
            .collect();
        channels.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        channels
    }

    /// The channels that claim any of these keys, by the most specific key that anybody claims.
    #[must_use]
    pub fn by_routes(&self, routes: &[String]) -> Vec<Arc<Channel>> {
        let snapshot = self.snapshot();
        routes
            .iter()
            .find_map(|route| snapshot.by_route.get(route))
            .cloned()
            .unwrap_or_default()
    }

    /// Every channel of these kinds.
    #[must_use]
    pub fn of_kinds(&self, kinds: &[ChannelKind]) -> Vec<Arc<Channel>> {
        self.snapshot()
            .by_id
            .values()
            .filter(|channel| kinds.contains(&channel.kind))
            .cloned()
            .collect()
    }

    /// As [`Self::by_routes`], and a channel declared a moment ago is found too: a miss asks the database.
    pub async fn find_by_routes(&self, routes: &[String]) -> wasel_db::Result<Vec<Arc<Channel>>> {
        let found = self.by_routes(routes);
        if !found.is_empty() {
            return Ok(found);
        }
        let mut tx = self.db.system().await?;
        let exists = wasel_db::channels::any_with_routes(&mut tx, routes).await?;
        tx.commit().await?;
        if exists {
            self.reload().await?;
        }
        Ok(self.by_routes(routes))
    }

    /// As [`Self::of_org`], and a channel declared a moment ago is found too.
    pub async fn find(&self, org: OrgId, id: ChannelId) -> wasel_db::Result<Option<Arc<Channel>>> {
        if let Some(channel) = self.of_org(org, id) {
            return Ok(Some(channel));
        }
        let mut tx = self.db.system().await?;
        let exists = wasel_db::channels::find(&mut tx, org, id).await?.is_some();
        tx.commit().await?;
        if exists {
            self.reload().await?;
        }
        Ok(self.of_org(org, id))
    }
}
