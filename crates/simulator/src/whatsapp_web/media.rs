//! The media store: encrypted files by path, as clients upload and fetch them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use uuid::Uuid;
use wacore::{
    download::{DownloadUtils, MediaType},
    upload::{EncryptedMediaInfo, MediaEncryptor},
};
use wacore_binary::{Node, builder::NodeBuilder};

use super::{Broken, Hub, iq::result_with, locked};

/// WhatsApp takes files up to 2 GB; nobody simulates with those.
const MAX_FILE: usize = 128 << 20;
/// What is kept in all; the oldest files go first.
const MAX_STORED: usize = 512 << 20;

#[derive(Default)]
pub(super) struct Store {
    files: HashMap<String, Bytes>,
    order: VecDeque<String>,
    bytes: usize,
}

/// A file a phone sends.
pub(super) struct Upload {
    pub(super) plain: Vec<u8>,
    pub(super) kind: MediaType,
}

/// Where a file is and how to open it.
pub(super) struct Stored {
    pub(super) path: String,
    pub(super) url: String,
    pub(super) sealed: EncryptedMediaInfo,
}

pub(super) fn router() -> Router<Arc<Hub>> {
    Router::new()
        .route("/mms/{kind}/{token}", post(upload))
        .route("/whatsapp-web/media/{id}", get(download))
        .layer(DefaultBodyLimit::max(MAX_FILE))
}

async fn upload(
    State(hub): State<Arc<Hub>>,
    RawQuery(query): RawQuery,
    bytes: Bytes,
) -> Json<Value> {
    // The question before a large file: how much of it is here already.
    let asks = |query: String| query.split('&').any(|pair| pair == "resume=1");
    if query.is_some_and(asks) {
        return Json(json!({ "resume": "0" }));
    }
    let path = hub.keep(bytes);
    let url = format!("https://{}{path}", hub.host);
    Json(json!({ "url": url, "direct_path": path, "handle": "" }))
}

async fn download(State(hub): State<Arc<Hub>>, Path(id): Path<String>) -> Response {
    let file = locked(&hub.media).files.get(&id).cloned();
    match file {
        Some(file) => file.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// `xmlns="w:m"`: where to upload.
pub(super) fn connection(hub: &Hub, iq: &Node) -> Node {
    let host = NodeBuilder::new("host")
        .attr("hostname", hub.host.as_str())
        .attr("type", "primary")
        .attr("maxContentLengthBytes", MAX_FILE)
        .children([
            NodeBuilder::new("upload").build(),
            NodeBuilder::new("download").build(),
        ])
        .build();
    let connection = NodeBuilder::new("media_conn")
        .attr("auth", "sim")
        .attr("ttl", 86_400)
        .attr("auth_ttl", 86_400)
        .attr("max_buckets", 12)
        .attr("max_manual_retry", 3)
        .attr("id", 1)
        .children([host])
        .build();
    result_with(iq, [connection])
}

impl Hub {
    /// Keeps an encrypted file; returns its path.
    fn keep(&self, bytes: Bytes) -> String {
        let id = Uuid::new_v4().simple().to_string();
        let path = format!("/whatsapp-web/media/{id}");
        let mut store = locked(&self.media);
        store.bytes += bytes.len();
        store.files.insert(id.clone(), bytes);
        store.order.push_back(id);
        while store.bytes > MAX_STORED {
            let Some(oldest) = store.order.pop_front() else {
                break;
            };
            let gone = store.files.remove(&oldest).map_or(0, |file| file.len());
            store.bytes -= gone;
        }
        path
    }

    pub(super) fn store(&self, upload: &Upload) -> Result<Stored, Broken> {
        let mut sealed = Vec::with_capacity(upload.plain.len() + 64);
        let mut encryptor = MediaEncryptor::new(upload.kind).map_err(Broken::crypto)?;
        encryptor.update(&upload.plain, &mut sealed);
        let info = encryptor.finalize(&mut sealed).map_err(Broken::crypto)?;
        let path = self.keep(sealed.into());
        Ok(Stored {
            url: format!("https://{}{path}", self.host),
            path,
            sealed: info,
        })
    }

    /// A file in the clear, if it is there and the key is its key.
    pub(super) fn fetch(&self, path: &str, key: &[u8], kind: MediaType) -> Option<Bytes> {
        let id = path.split('?').next()?.rsplit('/').next()?;
        let file = locked(&self.media).files.get(id).cloned()?;
        let plain = DownloadUtils::verify_and_decrypt(&file, key, kind).ok()?;
        Some(plain.into())
    }
}
