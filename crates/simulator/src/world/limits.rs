//! Token buckets for the rates Meta keeps.

use chrono::{DateTime, Utc};

pub(crate) struct Bucket {
    tokens: f64,
    filled_at: DateTime<Utc>,
    capacity: f64,
    per_second: f64,
}

impl Bucket {
    /// `rate` messages per second, no more saved up than one second's worth.
    pub(crate) fn throughput(rate: u32, now: DateTime<Utc>) -> Self {
        Self::full(f64::from(rate), f64::from(rate), now)
    }

    /// One message per 6 s to one user, after a burst of 45.
    pub(crate) fn pair(now: DateTime<Utc>) -> Self {
        Self::full(45.0, 1.0 / 6.0, now)
    }

    fn full(capacity: f64, per_second: f64, now: DateTime<Utc>) -> Self {
        Self {
            tokens: capacity,
            filled_at: now,
            capacity,
            per_second,
        }
    }

    /// True where the bucket was made for this rate.
    pub(crate) fn is_for(&self, rate: u32) -> bool {
        self.per_second == f64::from(rate)
    }

    /// True for a bucket that says no more than a new one would.
    pub(crate) fn is_full(&self, now: DateTime<Utc>) -> bool {
        self.level(now) >= self.capacity
    }

    fn level(&self, now: DateTime<Utc>) -> f64 {
        let seconds = (now - self.filled_at).num_milliseconds().max(0) as f64 / 1_000.0;
        (self.tokens + seconds * self.per_second).min(self.capacity)
    }

    pub(crate) fn take(&mut self, now: DateTime<Utc>) -> bool {
        self.tokens = self.level(now);
        self.filled_at = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_gets_45_at_once_and_then_one_in_six_seconds() {
        let now = Utc::now();
        let mut bucket = Bucket::pair(now);
        assert_eq!((0..60).filter(|_| bucket.take(now)).count(), 45);
        let later = now + chrono::Duration::seconds(7);
        assert!(bucket.take(later) && !bucket.take(later));
    }
}
