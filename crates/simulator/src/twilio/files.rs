//! Media of messages. The API answers a redirect to a storage host, which takes no credentials.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, LOCATION},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::{API_VERSION, TwilioError, account_for, messages::find};
use crate::world::{Provider, World, media::StoredMedia};

type Ids = Path<(String, String, String)>;

fn describe(account: &str, message: &str, media: &StoredMedia) -> Value {
    let created = media.created_at.to_rfc2822();
    json!({
        "sid": media.id,
        "account_sid": account,
        "parent_sid": message,
        "content_type": media.mime_type,
        "date_created": created,
        "date_updated": created,
        "uri": format!("/{API_VERSION}/Accounts/{account}/Messages/{message}/Media/{}.json", media.id),
    })
}

pub(super) async fn list(
    State(world): State<World>,
    Path((account, message)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, TwilioError> {
    account_for(&world, &headers, &account)?;
    find(&world, &account, &message)?;
    let list: Vec<Value> = world
        .lock()
        .media_of_message(&message)
        .iter()
        .map(|media| describe(&account, &message, media))
        .collect();
    let uri = format!("/{API_VERSION}/Accounts/{account}/Messages/{message}/Media.json");
    Ok(Json(json!({
        "media_list": list,
        "page": 0,
        "page_size": 50,
        "first_page_uri": uri,
        "next_page_uri": null,
        "previous_page_uri": null,
        "uri": uri,
    })))
}

fn stored(
    world: &World,
    account: &str,
    message: &str,
    sid: &str,
) -> Result<StoredMedia, TwilioError> {
    find(world, account, message)?;
    let state = world.lock();
    state
        .media(sid)
        .filter(|media| media.parent.as_deref() == Some(message))
        .cloned()
        .ok_or_else(|| TwilioError::not_found(&format!("Media/{sid}")))
}

/// `ME….json` describes the file; `ME…` redirects to it.
pub(super) async fn fetch(
    State(world): State<World>,
    Path((account, message, file)): Ids,
    headers: HeaderMap,
) -> Result<Response, TwilioError> {
    account_for(&world, &headers, &account)?;
    if let Some(sid) = file.strip_suffix(".json") {
        let media = stored(&world, &account, &message, sid)?;
        return Ok(Json(describe(&account, &message, &media)).into_response());
    }
    let media = stored(&world, &account, &message, &file)?;
    let target = media
        .external_url
        .unwrap_or_else(|| format!("{}/{}", world.storage_base(), media.id));
    Ok((StatusCode::TEMPORARY_REDIRECT, [(LOCATION, target)]).into_response())
}

pub(super) async fn delete(
    State(world): State<World>,
    Path((account, message, file)): Ids,
    headers: HeaderMap,
) -> Result<StatusCode, TwilioError> {
    account_for(&world, &headers, &account)?;
    let sid = file.strip_suffix(".json").unwrap_or(&file);
    stored(&world, &account, &message, sid)?;
    world.lock().remove_media(sid);
    Ok(StatusCode::NO_CONTENT)
}

/// The storage host. It refuses requests that carry credentials: whoever forwards them would leak them.
pub(crate) fn storage_router() -> Router<World> {
    Router::new().route("/{sid}", get(storage))
}

async fn storage(
    State(world): State<World>,
    Path(sid): Path<String>,
    headers: HeaderMap,
) -> Response {
    if headers.contains_key(AUTHORIZATION) {
        return (
            StatusCode::BAD_REQUEST,
            "Only one auth mechanism allowed: the address itself grants access",
        )
            .into_response();
    }
    let state = world.lock();
    match state
        .media(&sid)
        .filter(|media| media.provider == Provider::Twilio)
    {
        Some(media) => (
            [(CONTENT_TYPE, media.mime_type.clone())],
            media.bytes.clone(),
        )
            .into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
