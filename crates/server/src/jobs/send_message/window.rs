//! A channel's rate, kept by what is really under way.
//!
//! A provider counts what arrives in a second. When a request arrives is known only to lie between its start and its
//! answer, so a place in the window is taken at the start and free again one second after the answer: then no second,
//! wherever it begins, can hold more arrivals than the window has places, however uneven the network is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Window {
    under_way: usize,
    /// When the latest ones were answered, the oldest first.
    answered: VecDeque<Instant>,
}

impl Window {
    /// How many of `places` are free.
    pub fn free(&mut self, places: usize, now: Instant) -> usize {
        while self
            .answered
            .front()
            .is_some_and(|at| now.duration_since(*at) >= SECOND)
        {
            self.answered.pop_front();
        }
        places.saturating_sub(self.under_way + self.answered.len())
    }

    /// When the next place comes free by time alone.
    #[must_use]
    pub fn next_free(&self) -> Option<Instant> {
        self.answered.front().map(|at| *at + SECOND)
    }

    /// How many places are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.under_way + self.answered.len()
    }

    /// Nothing is under way, and nothing of the last second counts any more.
    pub fn is_idle(&mut self, now: Instant) -> bool {
        self.free(usize::MAX, now);
        self.len() == 0
    }

    /// Takes every place for a second: what somebody else sent is not known.
    pub fn fill(&mut self, places: usize, now: Instant) {
        self.answered = std::iter::repeat_n(now, places).collect();
    }

    pub fn start(&mut self) {
        self.under_way += 1;
    }

    /// `arrived`: whether the provider may have counted it.
    pub fn end(&mut self, arrived: bool, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        if arrived {
            self.answered.push_back(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Requests start when there is a place, arrive somewhere on the way, and are answered later.
        #[test]
        fn no_second_holds_more_arrivals_than_there_are_places(
            places in 1_usize..20,
            trips in prop::collection::vec((0_u64..300, 0_u64..300, 0_u64..40), 1..300),
        ) {
            let begin = Instant::now();
            let at = |ms: u64| begin + Duration::from_millis(ms);
            let mut window = Window::default();
            let (mut now, mut open, mut arrivals): (u64, Vec<u64>, Vec<u64>) = (0, vec![], vec![]);
            for (there, back, pause) in trips {
                now += pause;
                loop {
                    open.retain(|answer| {
                        if *answer <= now {
                            window.end(true, at(*answer));
                        }
                        *answer > now
                    });
                    if window.free(places, at(now)) > 0 {
                        break;
                    }
                    now += 1;
                }
                window.start();
                arrivals.push(now + there);
                open.push(now + there + back);
            }
            arrivals.sort_unstable();
            for (index, first) in arrivals.iter().enumerate() {
                let within = arrivals[index..].iter().take_while(|at| **at < first + 1000).count();
                prop_assert!(within <= places, "{within} in the second from {first}");
            }
        }
    }

    #[test]
    fn what_never_reached_the_provider_gives_its_place_back_at_once() {
        let now = Instant::now();
        let mut window = Window::default();
        window.start();
        assert_eq!(window.free(1, now), 0);
        window.end(false, now);
        assert_eq!(window.free(1, now), 1);
        window.start();
        window.end(true, now);
        assert_eq!(window.free(1, now), 0);
        assert_eq!(window.next_free(), Some(now + SECOND));
        assert_eq!(window.free(1, now + SECOND), 1);
    }
}
