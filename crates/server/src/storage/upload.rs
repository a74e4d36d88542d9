//! A file on its way in, of which no more than a few parts are in memory.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};

/// The smallest part that S3 takes. What is smaller goes in one request.
const PART: usize = 5 * 1024 * 1024;
/// Parts under way at once.
const PARTS: usize = 2;

/// Bytes being stored. Dropped before [`Upload::finish`], it leaves nothing behind.
pub struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// What there is before the first part is full.
    head: Vec<Bytes>,
    size: usize,
    parts: Option<WriteMultipart>,
}

impl Upload {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self {
            store,
            path,
            head: Vec::new(),
            size: 0,
            parts: None,
        }
    }

    /// Adds bytes; waits while too many are under way.
    pub async fn write(&mut self, bytes: Bytes) -> object_store::Result<()> {
        self.size += bytes.len();
        if let Some(parts) = &mut self.parts {
            parts.wait_for_capacity(PARTS).await?;
            parts.put(bytes);
            return Ok(());
        }
        self.head.push(bytes);
        if self.size > PART {
            let upload = self.store.put_multipart(&self.path).await?;
            let mut parts = WriteMultipart::new_with_chunk_size(upload, PART);
            for bytes in self.head.drain(..) {
                parts.put(bytes);
            }
            self.parts = Some(parts);
        }
        Ok(())
    }

    /// Returns once all of it is stored.
    pub async fn finish(mut self) -> object_store::Result<()> {
        match self.parts.take() {
            // In a task of its own: whoever waits for it may go away, and parts that are neither put together nor
            // removed would stay, and cost, for ever.
            Some(parts) => tokio::spawn(parts.finish()).await?.map(drop),
            None => {
                let payload: PutPayload = std::mem::take(&mut self.head).into_iter().collect();
                self.store.put(&self.path, payload).await.map(drop)
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else {
            return;
        };
        // The client went away: its parts would stay, and cost, for ever.
        tokio::spawn(async move {
            if let Err(error) = parts.abort().await {
                tracing::warn!(%error, "the parts of a broken upload could not be removed");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use futures_util::FutureExt;
    use object_store::memory::InMemory;
    use object_store::{MultipartUpload, PutResult, UploadPart};
    use tokio::sync::oneshot;

    use super::*;

    /// Parts that are put together when the test says so.
    #[derive(Debug)]
    struct Slow {
        go: Option<oneshot::Receiver<()>>,
        ended: Arc<Mutex<Option<&'static str>>>,
    }

    #[async_trait]
    impl MultipartUpload for Slow {
        fn put_part(&mut self, _: PutPayload) -> UploadPart {
            futures_util::future::ready(Ok(())).boxed()
        }

        async fn complete(&mut self) -> object_store::Result<PutResult> {
            if let Some(go) = self.go.take() {
                go.await.unwrap();
            }
            *self.ended.lock().unwrap() = Some("complete");
            Ok(PutResult {
                e_tag: None,
                version: None,
                extensions: Default::default(),
            })
        }

        async fn abort(&mut self) -> object_store::Result<()> {
            self.ended.lock().unwrap().get_or_insert("aborted");
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_upload_whose_client_goes_away_while_it_finishes_leaves_no_parts() {
        let (go, waiting) = oneshot::channel();
        let ended = Arc::default();
        let slow = Slow {
            go: Some(waiting),
            ended: Arc::clone(&ended),
        };
        let mut upload = Upload::new(Arc::new(InMemory::new()), Path::from("x"));
        upload.parts = Some(WriteMultipart::new_with_chunk_size(Box::new(slow), PART));
        upload.write(vec![1; PART + 1].into()).await.unwrap();
        assert!(upload.finish().now_or_never().is_none());
        go.send(()).unwrap();
        for _ in 0..500 {
            if ended.lock().unwrap().is_some() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the parts are neither put together nor removed");
    }

    async fn stored(chunks: &[usize]) -> (Vec<u8>, Bytes) {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut upload = Upload::new(store.clone(), Path::from("x"));
        let mut sent = Vec::new();
        for (at, size) in chunks.iter().enumerate() {
            let bytes = vec![at as u8; *size];
            sent.extend_from_slice(&bytes);
            upload.write(bytes.into()).await.unwrap();
        }
        upload.finish().await.unwrap();
        let got = store.get(&Path::from("x")).await.unwrap();
        (sent, got.bytes().await.unwrap())
    }

    #[tokio::test]
    async fn what_is_stored_is_what_was_sent_in_one_part_or_many() {
        for chunks in [
            &[][..],
            &[0, 3, 0],
            &[PART],
            &[PART, 1],
            &[1_000_000; 13],
            &[3 * PART + 7, 1],
        ] {
            let (sent, got) = stored(chunks).await;
            assert!(sent == got, "{chunks:?}: {} of {}", got.len(), sent.len());
        }
    }

    #[tokio::test]
    async fn an_upload_that_breaks_off_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store =
            object_store::local::LocalFileSystem::new_with_prefix(directory.path()).unwrap();
        let mut upload = Upload::new(Arc::new(store), Path::from("x"));
        upload.write(vec![1; PART + 1].into()).await.unwrap();
        drop(upload);
        let files = || std::fs::read_dir(directory.path()).unwrap().count();
        for _ in 0..500 {
            if files() == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{} files are left", files());
    }
}
