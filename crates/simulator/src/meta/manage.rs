//! Numbers and templates.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, Method, Uri},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    MetaError, new_object_id, number_for, outbound::tell_template_status, template::placeholders,
    token, upload,
};
use crate::world::{MetaNumber, Template, World, put_template};

type Answer = Result<Json<Value>, MetaError>;
type Ids = Path<(String, String)>;

fn query(uri: &Uri, wanted: &str) -> Option<String> {
    url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .find(|(key, _)| key == wanted)
        .map(|(_, value)| value.into_owned())
}

/// Any number of the WABA the token opens.
fn waba(world: &World, token: &str, method: &str, waba_id: &str) -> Result<(), MetaError> {
    let state = world.lock();
    let known = state
        .meta_numbers
        .values()
        .any(|n| n.waba_id == waba_id && n.access_token == token);
    if known {
        Ok(())
    } else {
        Err(MetaError::no_object(method, waba_id))
    }
}

fn describe_number(number: &MetaNumber) -> Value {
    json!({
        "id": number.phone_number_id,
        "display_phone_number": number.display_phone_number,
        "verified_name": number.verified_name,
        "quality_rating": "GREEN",
        "code_verification_status": "VERIFIED",
        "platform_type": "CLOUD_API",
        "status": "CONNECTED",
        "throughput": {"level": "STANDARD"},
        "whatsapp_business_manager_messaging_limit": "TIER_250",
    })
}

/// Keeps the asked fields, and `id`, which Graph always gives.
fn pick(mut object: Value, fields: Option<&str>) -> Value {
    if let (Some(map), Some(fields)) = (object.as_object_mut(), fields) {
        let wanted: Vec<&str> = fields.split(',').map(str::trim).collect();
        map.retain(|key, _| key == "id" || wanted.contains(&key.as_str()));
    }
    object
}

pub(super) async fn list_numbers(
    State(world): State<World>,
    Path((_, waba_id)): Ids,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let token = token(&world, &headers, &uri)?;
    waba(&world, &token, "get", &waba_id)?;
    let fields = query(&uri, "fields");
    let state = world.lock();
    let data: Vec<Value> = state
        .meta_numbers
        .values()
        .filter(|n| n.waba_id == waba_id && n.access_token == token)
        .map(|n| pick(describe_number(n), fields.as_deref()))
        .collect();
    Ok(Json(
        json!({"data": data, "paging": {"cursors": {"before": "MA", "after": "MA"}}}),
    ))
}

/// `GET /{id}`: a number, a template or media.
pub(super) async fn get_object(
    State(world): State<World>,
    Path((_, id)): Ids,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let token = token(&world, &headers, &uri)?;
    let fields = query(&uri, "fields");
    let asked_for = query(&uri, "phone_number_id");
    if let Some(media) = upload::describe(&world, &token, &id, asked_for.as_deref()) {
        return Ok(Json(media));
    }
    if let Ok((_, template)) = find_template(&world, &token, "get", &id) {
        return Ok(Json(pick(describe_template(&template), fields.as_deref())));
    }
    let number = number_for(&world, &token, "get", &id)?;
    // Without `fields` Graph gives the short form.
    let fields = fields.unwrap_or_else(|| {
        "verified_name,code_verification_status,display_phone_number,quality_rating,platform_type,throughput"
            .to_owned()
    });
    Ok(Json(pick(describe_number(&number), Some(&fields))))
}

/// `register`, `deregister` and `subscribed_apps` change nothing here; the token must still fit.
pub(super) async fn accept(
    State(world): State<World>,
    Path((_, id)): Ids,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let token = token(&world, &headers, &uri)?;
    waba(&world, &token, "post", &id)
        .or_else(|_| number_for(&world, &token, "post", &id).map(drop))?;
    Ok(Json(json!({"success": true})))
}

fn describe_template(template: &Template) -> Value {
    json!({
        "id": template.id,
        "name": template.name,
        "language": template.language,
        "status": template.status,
        "category": template.category,
        "parameter_format": template.parameter_format,
        "components": template.components,
        "quality_score": {"score": if template.quality.is_empty() { "UNKNOWN" } else { &template.quality }},
        "rejected_reason": template.rejected_reason.as_deref().unwrap_or("NONE"),
    })
}

/// Cursor paging: the cursor is where the next page starts.
pub(super) async fn list_templates(
    State(world): State<World>,
    Path((version, waba_id)): Ids,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let token = token(&world, &headers, &uri)?;
    waba(&world, &token, "get", &waba_id)?;
    let fields = query(&uri, "fields");
    let limit = query(&uri, "limit")
        .and_then(|limit| limit.parse::<usize>().ok())
        .unwrap_or(25)
        .clamp(1, 1_000);
    let start = query(&uri, "after")
        .and_then(|after| after.strip_prefix('c')?.parse::<usize>().ok())
        .unwrap_or(0);
    let (name, status) = (query(&uri, "name"), query(&uri, "status"));
    let mut found = world.templates(&waba_id);
    found.retain(|template| {
        name.as_ref()
            .is_none_or(|name| template.name.contains(name))
            && status.as_ref().is_none_or(|s| template.status == *s)
    });
    let page: Vec<Value> = found
        .iter()
        .skip(start)
        .take(limit)
        .map(|template| pick(describe_template(template), fields.as_deref()))
        .collect();
    let end = start + page.len();
    let mut paging =
        json!({"cursors": {"before": format!("c{start}"), "after": format!("c{end}")}});
    if end < found.len() {
        let kept = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .filter(|(key, _)| key != "after")
            .collect::<Vec<_>>();
        let mut next = url::form_urlencoded::Serializer::new(String::new());
        next.extend_pairs(kept)
            .append_pair("after", &format!("c{end}"));
        let base = world.base();
        paging["next"] = json!(format!(
            "{base}/{version}/{waba_id}/message_templates?{}",
            next.finish()
        ));
    }
    Ok(Json(json!({"data": page, "paging": paging})))
}

fn parse(body: &Bytes) -> Result<Value, MetaError> {
    serde_json::from_slice(body)
        .map_err(|_| MetaError::parameter("The request body is not valid JSON."))
}

pub(super) async fn create_template(
    State(world): State<World>,
    Path((_, waba_id)): Ids,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Answer {
    let token = token(&world, &headers, &uri)?;
    waba(&world, &token, "post", &waba_id)?;
    let body = parse(&body)?;
    let field = |key: &str| {
        body[key]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| MetaError::parameter(format!("The parameter {key} is required.")))
    };
    let (name, language, category) = (field("name")?, field("language")?, field("category")?);
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() || name.len() > 512 || !name.bytes().all(plain) {
        return Err(MetaError::parameter(
            "Param name may only hold lower-case letters, digits and underscores.",
        ));
    }
    if !["UTILITY", "MARKETING", "AUTHENTICATION"].contains(&category.as_str()) {
        return Err(MetaError::parameter(
            "Param category must be one of {UTILITY, MARKETING, AUTHENTICATION}",
        ));
    }
    let mut components = components(&body)?;
    if category == "AUTHENTICATION" {
        components = authentication(&components)?;
    }
    let parameter_format = body["parameter_format"]
        .as_str()
        .unwrap_or("POSITIONAL")
        .to_uppercase();
    let template = {
        let mut state = world.lock();
        let all = state.templates.entry(waba_id.clone()).or_default();
        if all.iter().any(|t| t.name == name && t.language == language) {
            return Err(MetaError::parameter(
                "There is already content in this language for this template.",
            ));
        }
        put_template(
            all,
            Template {
                id: new_object_id(),
                name,
                language,
                category,
                status: "PENDING".to_owned(),
                components,
                parameter_format,
                quality: String::new(),
                rejected_reason: None,
            },
        )
    };
    review(&world, &waba_id, &template);
    Ok(Json(json!({
        "id": template.id,
        "status": "PENDING",
        "category": template.category,
    })))
}

/// A body is needed, and an example wherever there is a placeholder.
fn components(body: &Value) -> Result<Vec<Value>, MetaError> {
    let components = body["components"]
        .as_array()
        .cloned()
        .ok_or_else(|| MetaError::parameter("The parameter components is required."))?;
    let is_body = |c: &Value| {
        c["type"]
            .as_str()
            .is_some_and(|t| t.eq_ignore_ascii_case("BODY"))
    };
    if !components.iter().any(is_body) {
        return Err(MetaError::parameter(
            "Message template needs a BODY component.",
        ));
    }
    for component in &components {
        let text = component["text"].as_str().unwrap_or_default();
        if !placeholders(text).is_empty() && component["example"].is_null() {
            return Err(MetaError::parameter(
                "Message template components with variables need an example.",
            ));
        }
    }
    Ok(components)
}

/// Meta writes the text of a one-time password itself, and a button that copies the code.
fn authentication(given: &[Value]) -> Result<Vec<Value>, MetaError> {
    let has = |kind: &str, field: &str| {
        given
            .iter()
            .any(|c| c["type"] == kind && !c[field].is_null())
    };
    let button = given
        .iter()
        .find(|c| c["type"] == "BUTTONS")
        .map_or(&Value::Null, |c| &c["buttons"][0]);
    if has("BODY", "text") || button["type"] != "OTP" {
        return Err(MetaError::parameter(
            "An authentication template has a fixed body and one button of type OTP.",
        ));
    }
    Ok(vec![
        json!({"type": "BODY", "text": "*{{1}}* is your verification code.",
            "add_security_recommendation": true, "example": {"body_text": [["123456"]]}}),
        json!({"type": "BUTTONS", "buttons": [{"type": "URL", "text": "Copy code",
            "url": "https://www.whatsapp.com/otp/code/?otp_type=COPY_CODE&code=otp{{1}}"}]}),
    ])
}

/// Meta's review, which here takes no time and says yes unless the settings leave it to the user.
fn review(world: &World, waba_id: &str, template: &Template) {
    let approve = {
        let mut state = world.lock();
        let approve = state.settings.approve_templates;
        if approve && let Some(all) = state.templates.get_mut(waba_id) {
            for known in all.iter_mut().filter(|t| t.id == template.id) {
                known.status = "APPROVED".to_owned();
            }
        }
        approve
    };
    if approve {
        tell_template_status(world, waba_id, template, "APPROVED", None);
    }
}

fn find_template(
    world: &World,
    token: &str,
    method: &str,
    id: &str,
) -> Result<(String, Template), MetaError> {
    let found = {
        let state = world.lock();
        state.templates.iter().find_map(|(waba_id, all)| {
            let template = all.iter().find(|t| t.id == id)?;
            Some((waba_id.clone(), template.clone()))
        })
    };
    let (waba_id, template) = found.ok_or_else(|| MetaError::no_object(method, id))?;
    waba(world, token, method, &waba_id)?;
    Ok((waba_id, template))
}

/// `POST /{id}`: edits a template. For a number it takes settings (`webhook_configuration`) and ignores them.
pub(super) async fn edit_object(
    State(world): State<World>,
    Path((_, id)): Ids,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Answer {
    let token = token(&world, &headers, &uri)?;
    if number_for(&world, &token, method.as_str(), &id).is_ok() {
        return Ok(Json(json!({"success": true})));
    }
    let (waba_id, mut template) = find_template(&world, &token, method.as_str(), &id)?;
    let body = parse(&body)?;
    if !body["components"].is_null() {
        template.components = components(&body)?;
    }
    if let Some(category) = body["category"].as_str() {
        template.category = category.to_owned();
    }
    template.status = "PENDING".to_owned();
    put_template(
        world.lock().templates.entry(waba_id.clone()).or_default(),
        template.clone(),
    );
    review(&world, &waba_id, &template);
    Ok(Json(json!({"success": true})))
}

pub(super) async fn delete_template(
    State(world): State<World>,
    Path((_, waba_id)): Ids,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let token = token(&world, &headers, &uri)?;
    waba(&world, &token, "delete", &waba_id)?;
    let name = query(&uri, "name")
        .ok_or_else(|| MetaError::parameter("The parameter name is required."))?;
    let id = query(&uri, "hsm_id");
    let mut state = world.lock();
    let all = state.templates.entry(waba_id).or_default();
    let before = all.len();
    all.retain(|t| t.name != name || id.as_ref().is_some_and(|id| t.id != *id));
    if all.len() == before {
        return Err(MetaError::parameter("Message Template Not Found"));
    }
    Ok(Json(json!({"success": true})))
}
