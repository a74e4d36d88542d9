//! Media: upload, look up, download, delete.

use axum::{
    Json,
    extract::{Multipart, Path, Query, State},
    http::{
        HeaderMap, Uri,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use ring::hmac;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{MetaError, new_object_id, number_for, token};
use crate::world::{
    Provider, World,
    media::{StoredMedia, sniff},
};

/// Stands in for `lookaside.fbsbx.com`.
pub(super) const DOWNLOAD_PATH: &str = "/whatsapp_business/attachments/";
/// A download address lives this long.
const ADDRESS_MINUTES: i64 = 5;
/// An upload lives this long.
const UPLOAD_DAYS: i64 = 30;

const MB: usize = 1024 * 1024;

/// What may be uploaded and sent, by message type, with the largest size in bytes
/// (business-phone-numbers/media, "Supported media types").
const ACCEPTED: &[(&str, usize, &[&str])] = &[
    ("image", 5 * MB, &["image/jpeg", "image/png"]),
    ("sticker", 500 * 1024, &["image/webp"]),
    ("video", 16 * MB, &["video/mp4", "video/3gpp"]),
    (
        "audio",
        16 * MB,
        &[
            "audio/aac",
            "audio/amr",
            "audio/mpeg",
            "audio/mp4",
            "audio/ogg",
        ],
    ),
    (
        "document",
        100 * MB,
        &[
            "application/pdf",
            "text/plain",
            "application/msword",
            "application/vnd.ms-excel",
            "application/vnd.ms-powerpoint",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        ],
    ),
];

/// Whether media of this MIME type may go out as `kind`. Any accepted type may go as a document.
pub(super) fn fits(kind: &str, mime_type: &str) -> bool {
    let base = base_type(mime_type);
    ACCEPTED
        .iter()
        .filter(|(accepted, ..)| kind == "document" || *accepted == kind)
        .any(|(_, _, types)| types.contains(&base))
}

fn base_type(mime_type: &str) -> &str {
    mime_type.split(';').next().unwrap_or_default().trim()
}

/// ISO containers share one signature, so those types cannot be told apart by the first bytes.
fn same_family(a: &str, b: &str) -> bool {
    const ISO: [&str; 3] = ["video/mp4", "video/3gpp", "audio/mp4"];
    a == b || (ISO.contains(&a) && ISO.contains(&b))
}

pub(super) async fn post_media(
    State(world): State<World>,
    Path((_, phone_number_id)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
    multipart: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Json<Value>, MetaError> {
    let token = token(&world, &headers, &uri)?;
    number_for(&world, &token, "post", &phone_number_id)?;
    let Ok(multipart) = multipart else {
        return Err(MetaError::parameter("The parameter file is required."));
    };
    let form = read_form(multipart).await?;
    if form.product.as_deref() != Some("whatsapp") {
        return Err(MetaError::parameter(
            "The parameter messaging_product is required.",
        ));
    }
    let Some(bytes) = form.bytes else {
        return Err(MetaError::parameter("The parameter file is required."));
    };
    let mime_type = form
        .file_type
        .or(form.kind)
        .ok_or_else(|| MetaError::parameter("The parameter type is required."))?;
    check_file(&mime_type, &bytes)?;

    let mut state = world.lock();
    let now = state.now();
    let id = new_object_id();
    state.insert_media(StoredMedia {
        id: id.clone(),
        provider: Provider::Meta,
        owner: phone_number_id,
        parent: None,
        mime_type,
        filename: form.filename,
        bytes,
        external_url: None,
        created_at: now,
        expires_at: Some(now + chrono::Duration::days(UPLOAD_DAYS)),
    });
    Ok(Json(json!({ "id": id })))
}

#[derive(Default)]
struct Form {
    product: Option<String>,
    kind: Option<String>,
    file_type: Option<String>,
    filename: Option<String>,
    bytes: Option<Bytes>,
}

async fn read_form(mut multipart: Multipart) -> Result<Form, MetaError> {
    let broken = |_| MetaError::parameter("The multipart body is malformed.");
    let mut form = Form::default();
    while let Some(field) = multipart.next_field().await.map_err(broken)? {
        match field.name() {
            Some("messaging_product") => form.product = Some(field.text().await.map_err(broken)?),
            Some("type") => form.kind = Some(field.text().await.map_err(broken)?),
            Some("file") => {
                form.file_type = field.content_type().map(str::to_owned);
                form.filename = field.file_name().map(str::to_owned);
                form.bytes = Some(field.bytes().await.map_err(broken)?);
            }
            _ => {}
        }
    }
    Ok(form)
}

fn check_file(mime_type: &str, bytes: &[u8]) -> Result<(), MetaError> {
    let base = base_type(mime_type);
    let Some((_, limit, _)) = ACCEPTED.iter().find(|(.., types)| types.contains(&base)) else {
        return Err(MetaError::parameter(format!(
            "Param file must be a file with one of the supported types. Received file of type '{base}'."
        )));
    };
    if bytes.len() > *limit {
        return Err(MetaError::coded(
            131_053,
            format!("Media file is larger than the {limit} bytes allowed for its type"),
        ));
    }
    match sniff(bytes) {
        Some(found) if !same_family(found, base) => Err(MetaError::coded(
            131_053,
            format!("The file was declared as {base} but looks like {found}"),
        )),
        _ => Ok(()),
    }
}

/// Answers `GET /{media_id}`; nothing where the id is no media the token may see.
pub(super) fn describe(
    world: &World,
    token: &str,
    id: &str,
    phone_number_id: Option<&str>,
) -> Option<Value> {
    let base = world.base();
    let state = world.lock();
    let media = state.media(id).filter(|media| {
        media.provider == Provider::Meta
            && phone_number_id.is_none_or(|wanted| wanted == media.owner)
            && state
                .meta_numbers
                .get(&media.owner)
                .is_some_and(|number| number.access_token == token)
    })?;
    Some(json!({
        "messaging_product": "whatsapp",
        "url": address(&base, id, state.now()),
        "mime_type": media.mime_type,
        "sha256": media.sha256_hex(),
        "file_size": media.bytes.len(),
        "id": id,
    }))
}

/// A download address good for five minutes.
pub(super) fn address(base: &str, id: &str, now: chrono::DateTime<chrono::Utc>) -> String {
    let expires = (now + chrono::Duration::minutes(ADDRESS_MINUTES)).timestamp();
    let hash = address_hash(id, expires);
    format!("{base}{DOWNLOAD_PATH}?mid={id}&ext={expires}&hash={hash}")
}

/// Ties id and expiry together, so that an address cannot be made up or prolonged.
fn address_hash(id: &str, expires: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"simulated media address");
    hex::encode(&hmac::sign(&key, format!("{id} {expires}").as_bytes()).as_ref()[..16])
}

#[derive(Deserialize)]
pub(super) struct Address {
    #[serde(default)]
    mid: String,
    #[serde(default)]
    ext: i64,
    #[serde(default)]
    hash: String,
}

pub(super) async fn download(
    State(world): State<World>,
    Query(asked): Query<Address>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, MetaError> {
    let token = token(&world, &headers, &uri)?;
    let state = world.lock();
    let gone = || MetaError::no_object("get", &asked.mid).with_status(404);
    if asked.hash != address_hash(&asked.mid, asked.ext) || asked.ext < state.now().timestamp() {
        return Err(gone());
    }
    let media = state.media(&asked.mid).ok_or_else(gone)?;
    let mine = state
        .meta_numbers
        .get(&media.owner)
        .is_some_and(|number| number.access_token == token);
    if !mine {
        return Err(MetaError::bad_token());
    }
    let filename = media.filename.as_deref().unwrap_or("file");
    let quoted: String = filename
        .chars()
        .filter(|c| c.is_ascii_graphic() && *c != '"' && *c != '\\')
        .collect();
    Ok((
        [
            (CONTENT_TYPE, media.mime_type.clone()),
            (
                CONTENT_DISPOSITION,
                format!("inline; filename=\"{quoted}\""),
            ),
        ],
        media.bytes.clone(),
    )
        .into_response())
}

pub(super) async fn delete_media(
    State(world): State<World>,
    Path((_, id)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<Value>, MetaError> {
    let token = token(&world, &headers, &uri)?;
    if describe(&world, &token, &id, None).is_none() {
        return Err(MetaError::no_object("delete", &id));
    }
    world.lock().remove_media(&id);
    Ok(Json(json!({"success": true})))
}
