//! Slows down guessing and flooding: so many attempts per address or network, then a pause.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, FromRequestParts};
use http::request::Parts;

const MINUTE: Duration = Duration::from_secs(60);
/// Bounds the memory of a guesser with many addresses.
const MAX_ENTRIES: usize = 20_000;

/// Where a request comes from, as established by whoever knows which proxies to trust. Put it into the request's
/// extensions; without it the peer's address counts.
#[derive(Clone, Copy, Debug)]
pub struct ClientIp(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for ClientIp {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_else(|| {
            let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
            Self(
                peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| {
                    address.ip()
                }),
            )
        }))
    }
}

/// Attempts of the last minutes, in memory: each node counts its own.
#[derive(Debug)]
pub(crate) struct Throttle {
    window: Duration,
    max: u32,
    entries: Mutex<HashMap<Key, Entry>>,
}

/// What is counted, each by itself. What succeeds does not count, but for mails.
#[derive(Debug)]
pub(crate) struct Throttles {
    /// Wrong passwords, by person and network.
    pub passwords: Throttle,
    /// Wrong passwords, by network: somebody tries one password on many people.
    pub password_networks: Throttle,
    /// Sign-ups with a bad invitation, by network.
    pub sign_ups: Throttle,
    /// Bad links and codes, by network.
    pub verifications: Throttle,
    /// Mails somebody asked for, by address. Nobody's mailbox is filled by strangers.
    mails: Throttle,
    /// The same by network.
    mail_networks: Throttle,
}

impl Throttles {
    /// Counts mails to these addresses. `false`: no more for now. By network first: whoever may ask for none any more
    /// uses up nobody's.
    pub(crate) fn begin_mails(&self, addresses: &[&str], ip: ClientIp, now: Instant) -> bool {
        self.mail_networks.begin(&Key::of_network(ip), now)
            && addresses
                .iter()
                .all(|address| self.mails.begin(&Key::of_address(address), now))
    }
}

impl Default for Throttles {
    fn default() -> Self {
        Self {
            passwords: Throttle::new(5 * MINUTE, 10),
            password_networks: Throttle::new(5 * MINUTE, 100),
            sign_ups: Throttle::new(5 * MINUTE, 30),
            verifications: Throttle::new(5 * MINUTE, 30),
            mails: Throttle::new(15 * MINUTE, 4),
            mail_networks: Throttle::new(15 * MINUTE, 30),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    email: String,
    network: IpAddr,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    since: Instant,
    attempts: u32,
}

impl Key {
    pub(crate) fn new(email: &str, ClientIp(ip): ClientIp) -> Self {
        let network = match ip {
            // A household has a whole /64 to come from.
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => {
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)))
            }
            other => other.to_canonical(),
        };
        Self {
            email: email.to_lowercase(),
            network,
        }
    }

    /// Whoever comes from there.
    pub(crate) fn of_network(ip: ClientIp) -> Self {
        Self::new("", ip)
    }

    /// This address, wherever the request comes from.
    fn of_address(email: &str) -> Self {
        Self::new(email, ClientIp(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }
}

impl Throttle {
    /// `max` attempts in a `window`.
    pub(crate) fn new(window: Duration, max: u32) -> Self {
        Self {
            window,
            max,
            entries: Mutex::default(),
        }
    }

    /// Counts an attempt as failed, before it is made, so that a hundred at once count as a hundred. `false`: no
    /// more for now.
    pub(crate) fn begin(&self, key: &Key, now: Instant) -> bool {
        let mut entries = self.lock();
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(key) {
            make_room(&mut entries, now, self.window);
        }
        let entry = entries.entry(key.clone()).or_insert(Entry {
            since: now,
            attempts: 0,
        });
        if now.duration_since(entry.since) >= self.window {
            *entry = Entry {
                since: now,
                attempts: 0,
            };
        }
        if entry.attempts >= self.max {
            return false;
        }
        entry.attempts += 1;
        true
    }

    /// The attempt failed for a reason of ours: it does not count.
    pub(crate) fn refund(&self, key: &Key) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.attempts = entry.attempts.saturating_sub(1);
        }
    }

    /// The right password: forget the failures before it.
    pub(crate) fn clear(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(entries: &mut HashMap<Key, Entry>, now: Instant, window: Duration) {
    entries.retain(|_, entry| now.duration_since(entry.since) < window);
    if entries.len() >= MAX_ENTRIES {
        let oldest = entries
            .iter()
            .min_by_key(|(_, entry)| entry.since)
            .map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);

    fn ten() -> Throttle {
        Throttle::new(WINDOW, 10)
    }

    fn key(email: &str, ip: &str) -> Key {
        Key::new(email, ClientIp(ip.parse().unwrap()))
    }

    #[test]
    fn the_eleventh_failure_in_five_minutes_is_refused_and_the_next_window_is_free() {
        let throttle = ten();
        let start = Instant::now();
        let key = key("a@example.test", "192.0.2.1");
        for _ in 0..10 {
            assert!(throttle.begin(&key, start));
        }
        assert!(!throttle.begin(&key, start + WINDOW - Duration::from_secs(1)));
        assert!(throttle.begin(&key, start + WINDOW));
    }

    #[test]
    fn another_address_or_network_is_not_held_up() {
        let throttle = ten();
        let now = Instant::now();
        for _ in 0..10 {
            assert!(throttle.begin(&key("a@example.test", "192.0.2.1"), now));
        }
        assert!(
            !throttle.begin(&key("A@Example.TEST", "::ffff:192.0.2.1"), now),
            "same person, other spelling"
        );
        assert!(throttle.begin(&key("b@example.test", "192.0.2.1"), now));
        assert!(throttle.begin(&key("a@example.test", "192.0.2.2"), now));
    }

    #[test]
    fn one_ipv6_household_is_one_network() {
        assert_eq!(
            key("a", "2001:db8:1:2::1"),
            key("a", "2001:db8:1:2:ffff::9")
        );
        assert_ne!(key("a", "2001:db8:1:2::1"), key("a", "2001:db8:1:3::1"));
    }

    #[test]
    fn success_clears_and_our_own_failure_is_refunded() {
        let throttle = ten();
        let now = Instant::now();
        let key = key("a@example.test", "192.0.2.1");
        for _ in 0..10 {
            assert!(throttle.begin(&key, now));
        }
        throttle.refund(&key);
        assert!(throttle.begin(&key, now));
        assert!(!throttle.begin(&key, now));
        throttle.clear(&key);
        assert!(throttle.begin(&key, now));
    }

    #[test]
    fn whoever_may_ask_for_no_more_mails_uses_up_nobodys() {
        let throttles = Throttles::default();
        let now = Instant::now();
        let flooder = ClientIp("192.0.2.1".parse().unwrap());
        for n in 0..30 {
            assert!(throttles.begin_mails(&[&format!("{n}@example.test")], flooder, now));
        }
        for _ in 0..10 {
            assert!(!throttles.begin_mails(&["victim@example.test"], flooder, now));
        }
        let victim = ClientIp("192.0.2.2".parse().unwrap());
        for _ in 0..4 {
            assert!(throttles.begin_mails(&["victim@example.test"], victim, now));
        }
        assert!(!throttles.begin_mails(&["victim@example.test"], victim, now));
    }

    #[test]
    fn memory_stays_bounded_under_many_addresses() {
        let throttle = ten();
        let now = Instant::now();
        for n in 0..MAX_ENTRIES + 50 {
            assert!(throttle.begin(&key(&format!("{n}@example.test"), "192.0.2.1"), now));
        }
        assert_eq!(throttle.lock().len(), MAX_ENTRIES);
    }
}
