//! How long a lease may be relied on, by this process's own clock.
//!
//! The database counts a lease from when it executes the renewal; we count it from before the renewal was sent and stop
//! a little early, so that no other node can hold the session while we still believe in it. The clock is monotonic and
//! goes on while the process is stopped (SIGSTOP), so a process that wakes up late finds its leases gone before it does
//! anything with them.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Milliseconds since some moment of this process, never 0.
pub(crate) type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

pub(crate) fn system_clock() -> Clock {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    Arc::new(move || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1)
}

/// The end of a lease, shared by everything that acts under it.
pub(crate) struct Deadline {
    /// 0 once the lease is known to be lost: nothing extends it again.
    until: AtomicU64,
    clock: Clock,
}

impl Deadline {
    /// Of a lease taken for `ttl` by a request sent at `asked`.
    pub(crate) fn new(clock: Clock, asked: u64, ttl: Duration) -> Self {
        Self {
            until: AtomicU64::new(end(asked, ttl)),
            clock,
        }
    }

    pub(crate) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// Whether one may still act.
    pub(crate) fn holds(&self) -> bool {
        self.now() < self.until.load(Ordering::Acquire)
    }

    /// Renewed by a request sent at `asked`. A lease that ran out in between stays lost: what depends on it has
    /// been told so.
    pub(crate) fn extend(&self, asked: u64, ttl: Duration) -> bool {
        let now = self.now();
        self.until
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |until| {
                (now < until).then(|| until.max(end(asked, ttl)))
            })
            .is_ok()
    }

    /// The lease is lost or given back.
    pub(crate) fn cut(&self) {
        self.until.store(0, Ordering::Release);
    }
}

/// A tenth of the lease is kept back: clocks of two machines do not run equally fast, and a frame that is written is
/// not yet sent.
fn end(asked: u64, ttl: Duration) -> u64 {
    let usable = ttl - ttl / 10;
    asked.saturating_add(u64::try_from(usable.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A clock that stands until it is moved.
    #[derive(Clone)]
    pub(crate) struct Hands(Arc<AtomicU64>);

    impl Hands {
        pub(crate) fn at(millis: u64) -> Self {
            Self(Arc::new(AtomicU64::new(millis)))
        }

        pub(crate) fn forward(&self, by: Duration) {
            self.0
                .fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
        }

        pub(crate) fn clock(&self) -> Clock {
            let hands = self.0.clone();
            Arc::new(move || hands.load(Ordering::SeqCst))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Hands;
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    #[test]
    fn a_lease_counts_from_before_it_was_asked_for() {
        let hands = Hands::at(1_000);
        let asked = 1_000;
        // The answer took long.
        hands.forward(Duration::from_secs(13));
        let deadline = Deadline::new(hands.clock(), asked, LEASE);
        assert!(deadline.holds());
        hands.forward(Duration::from_millis(500));
        assert!(!deadline.holds(), "a tenth is kept back");
    }

    #[test]
    fn a_renewal_lengthens_and_an_old_answer_does_not_shorten() {
        let hands = Hands::at(1_000);
        let deadline = Deadline::new(hands.clock(), 1_000, LEASE);
        hands.forward(Duration::from_secs(5));
        assert!(deadline.extend(6_000, LEASE));
        assert!(deadline.extend(2_000, LEASE));
        hands.forward(Duration::from_secs(13));
        assert!(deadline.holds());
    }

    #[test]
    fn what_ran_out_or_was_cut_stays_lost() {
        let hands = Hands::at(1_000);
        let slept = Deadline::new(hands.clock(), 1_000, LEASE);
        let cut = Deadline::new(hands.clock(), 1_000, LEASE);
        cut.cut();
        assert!(!cut.extend(1_000, LEASE));
        assert!(!cut.holds());
        hands.forward(Duration::from_secs(20));
        assert!(!slept.extend(21_000, LEASE));
        assert!(!slept.holds());
    }
}
