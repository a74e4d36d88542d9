//! The schema as it was when last read.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use wasel_db::Db;
use wasel_rest::Schema;

/// Read again after this time, for columns added and tables changed from outside.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// A caller who asks for what is not there cannot have it read more often.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Read {
    at: Instant,
    schema: Arc<Schema>,
}

/// Keeps the schema in memory.
#[derive(Debug, Default)]
pub struct SchemaCache {
    newest: RwLock<Option<Read>>,
    /// One reads, the others wait for what it finds.
    reading: tokio::sync::Mutex<()>,
}

impl SchemaCache {
    /// The schema, not much older than a minute.
    pub async fn get(&self, db: &Db) -> wasel_db::Result<Arc<Schema>> {
        self.no_older_than(db, FRESH_FOR).await
    }

    /// The schema after a request for something it does not have: read again unless that has just been done.
    pub async fn newer(&self, db: &Db) -> wasel_db::Result<Arc<Schema>> {
        self.no_older_than(db, AT_MOST_EVERY).await
    }

    async fn no_older_than(&self, db: &Db, age: Duration) -> wasel_db::Result<Arc<Schema>> {
        let fresh = || {
            let newest = self.newest.read().unwrap_or_else(PoisonError::into_inner);
            let fresh = newest.as_ref().filter(|read| read.at.elapsed() < age);
            fresh.map(|read| read.schema.clone())
        };
        if let Some(schema) = fresh() {
            return Ok(schema);
        }
        let _reading = self.reading.lock().await;
        if let Some(schema) = fresh() {
            return Ok(schema);
        }
        let at = Instant::now();
        let mut tx = db.system().await?;
        let schema = Arc::new(wasel_db::rest::find_schema(&mut tx).await?);
        tx.commit().await?;
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = Some(Read {
            at,
            schema: schema.clone(),
        });
        Ok(schema)
    }
}
