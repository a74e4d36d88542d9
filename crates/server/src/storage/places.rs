//! How many uploads there are at the same time, in all and of one organisation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

/// Each upload holds a few parts of 5 MiB.
const AT_ONCE: usize = 64;
/// Of one organisation, so that none of them stops the others.
const AT_ONCE_OF_ONE: usize = 16;
const WAIT: Duration = Duration::from_secs(5);

/// Gives out the places.
pub struct UploadPlaces {
    all: Arc<Semaphore>,
    /// Those of the organisations that upload something now.
    of_orgs: Mutex<HashMap<Uuid, Weak<Semaphore>>>,
    of_one: usize,
    wait: Duration,
}

/// A place among the uploads, until it is dropped.
pub struct UploadPlace {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

impl Default for UploadPlaces {
    fn default() -> Self {
        Self::new(AT_ONCE, AT_ONCE_OF_ONE, WAIT)
    }
}

impl UploadPlaces {
    fn new(all: usize, of_one: usize, wait: Duration) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            of_orgs: Mutex::default(),
            of_one,
            wait,
        }
    }

    /// Waits a while for a place; `None` if there is none by then.
    pub async fn take(&self, org: Uuid) -> Option<UploadPlace> {
        let (own, all) = (self.of_org(org), self.all.clone());
        let place = async {
            // One's own first: who waits for that holds no place of the others.
            let own = own.acquire_owned().await.ok()?;
            let shared = all.acquire_owned().await.ok()?;
            Some(UploadPlace {
                _own: own,
                _shared: shared,
            })
        };
        tokio::time::timeout(self.wait, place).await.ok().flatten()
    }

    fn of_org(&self, org: Uuid) -> Arc<Semaphore> {
        let mut of_orgs = self.of_orgs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = of_orgs.get(&org).and_then(Weak::upgrade) {
            return own;
        }
        of_orgs.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.of_one));
        of_orgs.insert(org, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_organisation_that_fills_its_places_leaves_the_others_theirs() {
        let places = UploadPlaces::new(3, 2, Duration::from_millis(10));
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let first = places.take(a).await;
        let second = places.take(a).await;
        assert!(first.is_some() && second.is_some());
        assert!(places.take(a).await.is_none());
        let other = places.take(b).await;
        assert!(other.is_some());
        assert!(places.take(b).await.is_none(), "all are taken");
        drop(first);
        assert!(places.take(b).await.is_some(), "one is free again");
    }

    #[tokio::test]
    async fn nothing_is_kept_of_organisations_that_upload_nothing() {
        let places = UploadPlaces::new(3, 2, Duration::from_millis(10));
        for org in 0..100 {
            assert!(places.take(Uuid::from_u128(org)).await.is_some());
        }
        assert_eq!(places.of_orgs.lock().unwrap().len(), 1);
    }
}
