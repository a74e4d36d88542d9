//! `/storage/v1`: the bucket `whatsapp-media` (S4.14) in the dialect of Supabase Storage, so that `supabase.storage`
//! works here.
//!
//! Every organisation has the bucket to itself: a path names a file of the caller's organisation, whatever it begins
//! with. Errors are HTTP 400 with the real status in the body, as the client expects. What is public and why:
//! docs/storage.md.

mod bounds;
mod bucket;
mod error;
mod extract;
mod files;
mod list;
mod public;
mod serve;
mod sign;
pub mod upload;

use axum::extract::DefaultBodyLimit;
use chrono::TimeDelta;
use utoipa_axum::router::OpenApiRouter;
use wasel_domain::OrgId;
use wasel_domain::storage_path::ObjectName;

pub use error::StorageError;

use crate::state::AppState;

const TAG: &str = "storage";

pub fn router() -> OpenApiRouter<AppState> {
    let uploads = OpenApiRouter::new()
        .merge(upload::router())
        // Files are counted as they come in, by their type's own limit.
        .layer(DefaultBodyLimit::disable());
    OpenApiRouter::new()
        .merge(uploads)
        .merge(serve::router())
        .merge(public::router())
        .merge(list::router())
        .merge(files::router())
        .merge(sign::router())
        .merge(bucket::router())
}

/// A whole address of a file that a provider can fetch: the public one where it has one, else one that works for
/// `lifetime`.
pub fn address_of(
    state: &AppState,
    org: OrgId,
    name: &ObjectName,
    lifetime: TimeDelta,
) -> Result<String, StorageError> {
    let path = match public::public_path(state, name) {
        Some(path) => path,
        None => sign::download_path(state, org, name, lifetime)?,
    };
    // As a browser writes it: letters of other scripts and blanks are escaped.
    let url = format!("{}/storage/v1{path}", state.public_url);
    Ok(url::Url::parse(&url).map_or(url, String::from))
}
