//! A host in memory, with leases and fencing as the server's database has them, and what a test needs around it.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;
use wasel_domain::{ChannelId, OrgId, ProviderEvent};
use wasel_sessions::{
    Claimed, Host, HostError, KeyRow, KeyRows, Lease, LiveSignal, Manager, Session, SessionNews,
    SessionOptions, Settings,
};
use wasel_simulator::Simulator;
use wasel_simulator::{NewWhatsappPhone, WhatsappWeb};

/// What several hosts (nodes) share: the database.
#[derive(Default)]
pub struct Database {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    sessions: HashMap<Uuid, Row>,
    keys: BTreeMap<(Uuid, i16, Vec<u8>), KeyRow>,
    news: Vec<(Uuid, SessionNews)>,
    events: Vec<ProviderEvent>,
    raw: Vec<Bytes>,
    signals: Vec<LiveSignal>,
}

struct Row {
    session: Session,
    options: SessionOptions,
    enabled: bool,
    token: i64,
    until: Option<Instant>,
}

impl Database {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn add(&self, options: SessionOptions) -> Session {
        let session = Session {
            org_id: OrgId::generate(),
            id: Uuid::now_v7(),
            channel_id: ChannelId::generate(),
        };
        self.lock().sessions.insert(
            session.id,
            Row {
                session,
                options,
                enabled: true,
                token: 0,
                until: None,
            },
        );
        session
    }

    pub fn enable(&self, session: &Session, enabled: bool) {
        self.lock().sessions.get_mut(&session.id).unwrap().enabled = enabled;
    }

    pub fn news_of(&self, session: &Session) -> Vec<SessionNews> {
        let inner = self.lock();
        let news = inner.news.iter().filter(|(id, _)| *id == session.id);
        news.map(|(_, news)| news.clone()).collect()
    }

    pub fn events(&self) -> Vec<ProviderEvent> {
        self.lock().events.clone()
    }

    pub fn raw(&self) -> Vec<Bytes> {
        self.lock().raw.clone()
    }

    pub fn signals(&self) -> Vec<LiveSignal> {
        self.lock().signals.clone()
    }

    pub fn key_count(&self) -> usize {
        self.lock().keys.len()
    }

    pub fn token(&self, session: &Session) -> i64 {
        self.lock().sessions[&session.id].token
    }
}

/// One node's view of the database.
pub struct Node {
    pub database: Arc<Database>,
    /// The node cannot reach its database.
    pub cut_off: AtomicBool,
}

impl Node {
    pub fn new(database: &Arc<Database>) -> Arc<Self> {
        Arc::new(Self {
            database: database.clone(),
            cut_off: AtomicBool::new(false),
        })
    }

    pub fn cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), HostError> {
        if self.cut_off.load(Ordering::SeqCst) {
            Err(HostError::Unavailable)
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl Host for Node {
    async fn claim(&self, limit: usize, ttl: Duration) -> Result<Vec<Claimed>, HostError> {
        self.check()?;
        let now = Instant::now();
        let mut inner = self.database.lock();
        let free = inner
            .sessions
            .values_mut()
            .filter(|row| row.enabled && row.until.is_none_or(|until| until < now));
        Ok(free
            .take(limit)
            .map(|row| {
                row.token += 1;
                row.until = Some(now + ttl);
                Claimed {
                    lease: Lease {
                        session: row.session,
                        token: row.token,
                    },
                    options: row.options.clone(),
                }
            })
            .collect())
    }

    async fn renew(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<Lease>, HostError> {
        self.check()?;
        let until = Instant::now() + ttl;
        let mut inner = self.database.lock();
        let mut renewed = Vec::new();
        for lease in leases {
            let row = inner.sessions.get_mut(&lease.session.id).unwrap();
            if row.token == lease.token && row.enabled {
                row.until = Some(until);
                renewed.push(*lease);
            }
        }
        Ok(renewed)
    }

    async fn release(&self, leases: &[Lease]) -> Result<(), HostError> {
        self.check()?;
        let mut inner = self.database.lock();
        for lease in leases {
            let row = inner.sessions.get_mut(&lease.session.id).unwrap();
            if row.token == lease.token {
                row.until = None;
            }
        }
        Ok(())
    }

    fn key_rows(&self, lease: &Lease) -> Arc<dyn KeyRows> {
        Arc::new(Rows {
            database: self.database.clone(),
            lease: *lease,
        })
    }

    async fn news(&self, lease: &Lease, news: SessionNews) -> Result<(), HostError> {
        self.check()?;
        let mut inner = self.database.lock();
        let row = inner.sessions.get_mut(&lease.session.id).unwrap();
        if row.token != lease.token {
            return Err(HostError::LeaseLost);
        }
        if let SessionNews::Stopped { .. } | SessionNews::LoggedOut { .. } = news {
            row.enabled = false;
        }
        if let SessionNews::LoggedOut { .. } = news {
            inner.keys.retain(|(id, _, _), _| *id != lease.session.id);
        }
        inner.news.push((lease.session.id, news));
        Ok(())
    }

    async fn commit(
        &self,
        _session: &Session,
        raw: Bytes,
        events: Vec<ProviderEvent>,
    ) -> Result<(), HostError> {
        self.check()?;
        let mut inner = self.database.lock();
        inner.raw.push(raw);
        inner.events.extend(events);
        Ok(())
    }

    async fn signal(&self, _session: &Session, signal: LiveSignal) {
        self.database.lock().signals.push(signal);
    }
}

struct Rows {
    database: Arc<Database>,
    lease: Lease,
}

impl Rows {
    fn write(&self) -> Result<MutexGuard<'_, Inner>, HostError> {
        let inner = self.database.lock();
        if inner.sessions[&self.lease.session.id].token != self.lease.token {
            return Err(HostError::LeaseLost);
        }
        Ok(inner)
    }
}

#[async_trait]
impl KeyRows for Rows {
    async fn get(&self, kind: i16, keys: &[&[u8]]) -> Result<Vec<KeyRow>, HostError> {
        let inner = self.database.lock();
        let found = keys
            .iter()
            .filter_map(|key| inner.keys.get(&(self.lease.session.id, kind, key.to_vec())));
        Ok(found.cloned().collect())
    }

    async fn list(&self, kind: i16) -> Result<Vec<KeyRow>, HostError> {
        let inner = self.database.lock();
        let rows = inner
            .keys
            .iter()
            .filter(|((id, of, _), _)| *id == self.lease.session.id && *of == kind);
        Ok(rows.map(|(_, row)| row.clone()).collect())
    }

    async fn put(&self, rows: Vec<KeyRow>) -> Result<(), HostError> {
        let mut inner = self.write()?;
        for row in rows {
            let key = (self.lease.session.id, row.kind, row.key.clone());
            inner.keys.insert(key, row);
        }
        Ok(())
    }

    async fn delete(&self, kind: i16, keys: &[&[u8]]) -> Result<(), HostError> {
        let mut inner = self.write()?;
        for key in keys {
            inner
                .keys
                .remove(&(self.lease.session.id, kind, key.to_vec()));
        }
        Ok(())
    }

    async fn delete_kind(&self, kind: i16) -> Result<(), HostError> {
        let id = self.lease.session.id;
        self.write()?
            .keys
            .retain(|(of, family, _), _| *of != id || *family != kind);
        Ok(())
    }

    async fn delete_before(&self, kind: i16, touched: i64) -> Result<u64, HostError> {
        let id = self.lease.session.id;
        let mut inner = self.write()?;
        let before = inner.keys.len();
        inner.keys.retain(|(of, family, _), row| {
            *of != id || *family != kind || row.touched.is_none_or(|at| at >= touched)
        });
        Ok(u64::try_from(before - inner.keys.len()).unwrap())
    }
}

/// The simulated WhatsApp with one business phone and one customer.
pub struct World {
    pub simulator: Simulator,
    pub web: WhatsappWeb,
    pub database: Arc<Database>,
}

pub const BUSINESS: &str = "+201000000001";
pub const CUSTOMER: &str = "+201000000002";

impl World {
    pub async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let simulator = Simulator::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .unwrap();
        let web = simulator.whatsapp_web();
        web.register(&NewWhatsappPhone::new(BUSINESS, "Shop"))
            .unwrap();
        web.register(&NewWhatsappPhone::new(CUSTOMER, "Mona"))
            .unwrap();
        Self {
            simulator,
            web,
            database: Arc::default(),
        }
    }

    pub fn settings(&self) -> Settings {
        let url = self.web.url().parse().unwrap();
        let mut settings = Settings::new(url, http());
        settings.lease = Duration::from_secs(3);
        settings.renew_every = Duration::from_millis(500);
        settings.look_every = Duration::from_millis(200);
        settings
    }

    pub fn manager(&self) -> Manager {
        self.manager_on(&Node::new(&self.database))
    }

    pub fn manager_on(&self, node: &Arc<Node>) -> Manager {
        Manager::start(node.clone(), self.settings()).unwrap()
    }

    /// A session that a phone with this number has scanned, connected.
    pub async fn linked(&self, manager: &Manager) -> Session {
        self.linked_with(manager, options()).await
    }

    pub async fn linked_with(&self, manager: &Manager, options: SessionOptions) -> Session {
        let session = self.database.add(options);
        manager.wake();
        let qr = self.qr(&session).await;
        self.web.scan(BUSINESS, &qr).await.unwrap();
        self.connected(manager, &session).await;
        session
    }

    pub async fn qr(&self, session: &Session) -> String {
        until("a QR code is shown", || {
            self.database
                .news_of(session)
                .into_iter()
                .rev()
                .find_map(|news| match news {
                    SessionNews::QrCode { code, .. } => Some(code),
                    _ => None,
                })
        })
        .await
    }

    pub async fn connected(&self, manager: &Manager, session: &Session) {
        until("the session is connected", || {
            manager.is_connected(session.channel_id).then_some(())
        })
        .await;
    }

    pub async fn news<T>(
        &self,
        session: &Session,
        what: &str,
        pick: impl Fn(&SessionNews) -> Option<T>,
    ) -> T {
        until(what, || {
            self.database.news_of(session).iter().rev().find_map(&pick)
        })
        .await
    }

    pub async fn event<T>(&self, what: &str, pick: impl Fn(&ProviderEvent) -> Option<T>) -> T {
        until(what, || self.database.events().iter().find_map(&pick)).await
    }

    pub async fn stop(self, managers: impl IntoIterator<Item = Manager>) {
        for manager in managers {
            manager.stop().await;
        }
        self.simulator.stop().await;
    }
}

pub fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap()
}

pub fn options() -> SessionOptions {
    SessionOptions {
        auto_reconnect: true,
        ..SessionOptions::default()
    }
}

/// Looks until there is something, and fails after a generous while.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
