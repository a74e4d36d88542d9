//! Where media files are kept.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};
use uuid::Uuid;

/// Files by tenant: `<org>/<file id>`.
#[derive(Clone)]
pub struct MediaStorage(Arc<dyn ObjectStore>);

impl MediaStorage {
    /// On local disk, in a directory that is made if missing.
    pub fn local(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let store = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
        Ok(Self(Arc::new(store)))
    }

    /// Stores a file and returns its key.
    pub async fn put(&self, org: Uuid, id: Uuid, bytes: Bytes) -> anyhow::Result<String> {
        let key = format!("{org}/{id}");
        self.0
            .put(&object_store::path::Path::from(key.as_str()), bytes.into())
            .await?;
        Ok(key)
    }

    pub async fn get(&self, key: &str) -> anyhow::Result<Bytes> {
        Ok(self
            .0
            .get(&object_store::path::Path::from(key))
            .await?
            .bytes()
            .await?)
    }
}
