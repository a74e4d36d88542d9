//! A channel's rate, kept by what is really under way.
//!
//! A provider counts what arrives in a second. When a request arrives is known only to lie between its start and its
//! answer. A place in the window is taken at the start and free again one second after the answer, less the shortest
//! trip there and back that was seen: a request takes no less time to arrive, and its answer no less to come back, than
//! in the shortest. So no second, wherever it begins, holds more arrivals than the window has places, however uneven the
//! network is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Window {
    under_way: usize,
    /// When the places of the latest ones come free, the oldest first.
    ending: VecDeque<Instant>,
    /// The shortest trip there and back, and how many were looked at.
    shortest: Option<Duration>,
    trips: u32,
}

/// So many trips are looked at before the shortest of them is believed to be the shortest.
const ENOUGH_TRIPS: u32 = 20;

impl Window {
    /// How many of `places` are free.
    pub fn free(&mut self, places: usize, now: Instant) -> usize {
        while self.ending.front().is_some_and(|at| *at <= now) {
            self.ending.pop_front();
        }
        places.saturating_sub(self.under_way + self.ending.len())
    }

    /// When the next place comes free by time alone.
    #[must_use]
    pub fn next_free(&self) -> Option<Instant> {
        self.ending.front().copied()
    }

    /// How many places are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.under_way + self.ending.len()
    }

    /// Nothing is under way, and nothing of the last second counts any more.
    pub fn is_idle(&mut self, now: Instant) -> bool {
        self.free(usize::MAX, now);
        self.len() == 0
    }

    /// Takes every place for a second: what somebody else sent is not known.
    pub fn fill(&mut self, places: usize, now: Instant) {
        self.ending = std::iter::repeat_n(now + SECOND, places).collect();
    }

    pub fn start(&mut self) {
        self.under_way += 1;
    }

    /// `trip`: how long the request was under way; `None` where the provider cannot have counted it.
    pub fn end(&mut self, trip: Option<Duration>, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(trip) = trip else { return };
        self.trips = self.trips.saturating_add(1);
        let shortest = self.shortest.map_or(trip, |known| known.min(trip));
        self.shortest = Some(shortest);
        let believed = if self.trips > ENOUGH_TRIPS {
            shortest.min(SECOND)
        } else {
            Duration::ZERO
        };
        self.ending.push_back(now + SECOND - believed);
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
            least in (0_u64..60, 0_u64..60),
            trips in prop::collection::vec((0_u64..200, 0_u64..200, 0_u64..40), 1..300),
        ) {
            let begin = Instant::now();
            let at = |ms: u64| begin + Duration::from_millis(ms);
            let mut window = Window::default();
            let (mut now, mut arrivals): (u64, Vec<u64>) = (0, vec![]);
            let mut open: Vec<(u64, u64)> = vec![];
            // The shortest trip is seen at first.
            let quiet = std::iter::repeat_n((0, 0, 0), ENOUGH_TRIPS as usize);
            for (there, back, pause) in quiet.chain(trips) {
                now += pause;
                loop {
                    open.sort_unstable();
                    open.retain(|(answer, start)| {
                        if *answer <= now {
                            let trip = Duration::from_millis(answer - start);
                            window.end(Some(trip), at(*answer));
                        }
                        *answer > now
                    });
                    if window.free(places, at(now)) > 0 {
                        break;
                    }
                    now += 1;
                }
                window.start();
                let arrival = now + least.0 + there;
                arrivals.push(arrival);
                open.push((arrival + least.1 + back, now));
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
        window.end(None, now);
        assert_eq!(window.free(1, now), 1);
        window.start();
        window.end(Some(Duration::from_millis(50)), now);
        assert_eq!(window.free(1, now), 0);
        assert_eq!(window.next_free(), Some(now + SECOND));
        assert_eq!(window.free(1, now + SECOND), 1);
    }
}
