//! Where files are kept: a directory, or anything that speaks S3.

pub mod file_type;
pub mod places;
pub mod signed_url;
mod upload;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use uuid::Uuid;
use wasel_db::storage::Version;

pub use upload::Upload;

/// Files by tenant: `<org>/<file id>` for what customers sent, `storage/<org>/<version>` for the bucket.
#[derive(Clone)]
pub struct MediaStorage(Arc<dyn ObjectStore>);

impl MediaStorage {
    /// As configured; in `media` in the data directory if nothing is said.
    pub fn open(config: &wasel_config::Storage, data_dir: &Path) -> anyhow::Result<Self> {
        let Some((bucket, prefix)) = config.s3() else {
            let directory = config
                .url
                .as_ref()
                .map_or_else(|| data_dir.join("media"), Into::into);
            return Self::local(&directory);
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&config.region)
            // Not every service has deletion in bulk, and we delete one by one.
            .with_disable_bulk_delete(true);
        if let Some(endpoint) = &config.endpoint {
            // Others than Amazon have no host name per bucket. Plain http was let through for loopback only.
            builder = builder
                .with_endpoint(endpoint.as_str())
                .with_virtual_hosted_style_request(false)
                .with_allow_http(endpoint.as_str().starts_with("http:"));
        }
        match (&config.access_key_id, &config.secret_access_key) {
            (Some(id), Some(secret)) => {
                builder = builder
                    .with_access_key_id(id)
                    .with_secret_access_key(secret.expose());
            }
            (None, None) => {}
            _ => anyhow::bail!(
                "WASEL_STORAGE_ACCESS_KEY_ID and WASEL_STORAGE_SECRET_ACCESS_KEY go together: set both or neither"
            ),
        }
        let store = builder.build().context("WASEL_STORAGE_URL")?;
        if prefix.is_empty() {
            return Ok(Self(Arc::new(store)));
        }
        let prefix = object_store::path::Path::parse(prefix).context("WASEL_STORAGE_URL")?;
        Ok(Self(Arc::new(PrefixStore::new(store, prefix))))
    }

    /// On local disk, in a directory that is made if missing.
    pub fn local(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("{} cannot be made", directory.display()))?;
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

    /// A whole file.
    pub async fn get(&self, key: &str) -> anyhow::Result<Bytes> {
        Ok(self
            .0
            .get(&object_store::path::Path::from(key))
            .await?
            .bytes()
            .await?)
    }

    /// Begins to store the bytes of an upload.
    #[must_use]
    pub fn begin(&self, bytes: Version) -> Upload {
        Upload::new(self.0.clone(), path_of(bytes))
    }

    /// The bytes from `start` up to but without `end`, as they come.
    pub async fn read(
        &self,
        bytes: Version,
        start: u64,
        end: u64,
    ) -> object_store::Result<BoxStream<'static, object_store::Result<Bytes>>> {
        if start >= end {
            return Ok(futures_util::stream::empty().boxed());
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(start..end)),
            ..GetOptions::default()
        };
        Ok(self
            .0
            .get_opts(&path_of(bytes), options)
            .await?
            .into_stream())
    }

    /// Stores the same bytes once more.
    pub async fn copy(&self, from: Version, to: Version) -> object_store::Result<()> {
        self.0.copy(&path_of(from), &path_of(to)).await
    }

    /// Removes bytes; those that are not there are removed already.
    pub async fn delete(&self, bytes: Version) -> object_store::Result<()> {
        match self.0.delete(&path_of(bytes)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            result => result,
        }
    }
}

fn path_of(bytes: Version) -> object_store::path::Path {
    format!("storage/{}/{}", bytes.org_id, bytes.version).into()
}
