//! `/storage/v1`: the bucket `whatsapp-media` in the dialect of Supabase Storage.

use utoipa_axum::router::OpenApiRouter;

use crate::state::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
}
