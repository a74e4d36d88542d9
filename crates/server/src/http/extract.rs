//! Extractors whose refusals name the field, in the shape of the surface they are used on.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use serde::de::DeserializeOwned;

use super::error::{ApiError, DocumentError};
use crate::auth::{self, AuthContext};
use crate::state::AppState;

/// A JSON body.
pub struct Json<T>(pub T);

/// Query parameters.
pub struct QueryParams<T>(pub T);

/// A path parameter; what cannot be read names nothing that exists.
pub struct PathParam<T>(pub T);

/// The caller, on the documents' paths.
pub struct DocumentCaller(pub auth::Caller);

/// A JSON body, on the documents' paths.
pub struct DocumentJson<T>(pub T);

/// A path parameter, on the documents' paths.
pub struct DocumentPath<T>(pub T);

/// Query parameters, on the documents' paths.
pub struct DocumentQuery<T>(pub T);

async fn json<T: DeserializeOwned>(request: Request, state: &AppState) -> Result<T, ApiError> {
    match axum::Json::<T>::from_request(request, state).await {
        Ok(axum::Json(value)) => Ok(value),
        Err(JsonRejection::MissingJsonContentType(_)) => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request",
            "send JSON, with Content-Type: application/json",
        )),
        Err(rejection) => {
            let (field, message) = explain(&rejection.body_text());
            let mut error = ApiError::new(rejection.status(), "invalid_request", message);
            if error.status == StatusCode::UNPROCESSABLE_ENTITY {
                error.status = StatusCode::BAD_REQUEST;
            }
            error.field = field;
            Err(error)
        }
    }
}

/// From serde's words to the field's path and a message: "…: content.body: missing field `x` at line 1 column 2".
fn explain(text: &str) -> (Option<String>, String) {
    let text = text
        .trim_start_matches("Failed to deserialize the JSON body into the target type: ")
        .trim_start_matches("Failed to parse the request body as JSON: ")
        .trim_start_matches("Failed to deserialize query string: ");
    let text = text.split(" at line ").next().unwrap_or(text);
    let missing = text
        .split("missing field `")
        .nth(1)
        .and_then(|rest| rest.split('`').next());
    let (path, message) = match text.split_once(": ") {
        Some((path, message)) if !path.contains(' ') => (Some(path), message),
        _ => (None, text),
    };
    let field = match (path, missing) {
        (Some("."), Some(missing)) | (None, Some(missing)) => Some(missing.to_owned()),
        (Some(path), Some(missing)) => Some(format!("{path}.{missing}")),
        (path, None) => path.filter(|path| *path != ".").map(str::to_owned),
    };
    (
        field,
        if missing.is_some() {
            "is missing".to_owned()
        } else {
            message.to_owned()
        },
    )
}

/// The query's parameters. NUL is refused: Postgres' text has none.
fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|rejection| query_error(&rejection))?;
    if let Some((name, _)) = pairs.iter().find(|(_, value)| value.contains('\0')) {
        return Err(ApiError::invalid(name, "holds a NUL character"));
    }
    let Query(value) = Query::try_from_uri(uri).map_err(|rejection| query_error(&rejection))?;
    Ok(value)
}

fn query_error(rejection: &QueryRejection) -> ApiError {
    let (field, message) = explain(&rejection.body_text());
    let error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", message);
    ApiError { field, ..error }
}

impl<T: DeserializeOwned> FromRequest<AppState> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        json(request, state).await.map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<AppState> for DocumentJson<T> {
    type Rejection = DocumentError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, DocumentError> {
        Ok(Self(json(request, state).await?))
    }
}

impl<T: DeserializeOwned> FromRequestParts<AppState> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, ApiError> {
        Ok(Self(query(&parts.uri)?))
    }
}

impl<T: DeserializeOwned> FromRequestParts<AppState> for DocumentQuery<T> {
    type Rejection = DocumentError;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &AppState,
    ) -> Result<Self, DocumentError> {
        Ok(Self(query(&parts.uri)?))
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for PathParam<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Path(value) = Path::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::not_found("resource"))?;
        Ok(Self(value))
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for DocumentPath<T> {
    type Rejection = DocumentError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<Self, DocumentError> {
        let PathParam(value) = PathParam::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

impl FromRequestParts<AppState> for DocumentCaller {
    type Rejection = DocumentError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<Self, DocumentError> {
        let context: &AuthContext = &state.auth;
        Ok(Self(auth::resolve(context, &parts.headers).await?))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;
    use serde::Deserialize;

    use super::{explain, query};

    #[derive(Debug, Deserialize)]
    struct Search {
        q: String,
        limit: Option<i64>,
    }

    #[test]
    fn a_query_with_a_nul_names_the_parameter() {
        let read = |uri: &'static str| query::<Search>(&Uri::from_static(uri));
        for uri in ["/?q=a%00b", "/?limit=1&q=%00", "/?q=a&limit=1%00"] {
            let error = read(uri).unwrap_err();
            let name = if uri.contains("q=a&") { "limit" } else { "q" };
            assert_eq!(error.field.as_deref(), Some(name), "{uri}");
            assert_eq!(error.status, 400, "{uri}");
        }
        let good = read("/?q=%5Cu0000&limit=2").unwrap();
        assert_eq!((good.q.as_str(), good.limit), (r"\u0000", Some(2)));
        assert_eq!(read("/").unwrap_err().field.as_deref(), Some("q"));
    }

    #[test]
    fn the_field_at_fault_is_found_in_serdes_words() {
        let prefix = "Failed to deserialize the JSON body into the target type: ";
        let case = |text: &str| explain(&format!("{prefix}{text}"));
        assert_eq!(
            case("missing field `to` at line 1 column 2"),
            (Some("to".into()), "is missing".into())
        );
        assert_eq!(
            case("content: missing field `body` at line 1 column 9"),
            (Some("content.body".into()), "is missing".into())
        );
        let (field, message) =
            case("priority: invalid type: string \"x\", expected i16 at line 1 column 9");
        assert_eq!(field.as_deref(), Some("priority"));
        assert!(message.starts_with("invalid type"), "{message}");
    }
}
