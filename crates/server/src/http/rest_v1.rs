//! `/rest/v1`: tables and views in PostgREST's dialect, under row-level security as the caller.

use utoipa_axum::router::OpenApiRouter;

use crate::state::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
}
