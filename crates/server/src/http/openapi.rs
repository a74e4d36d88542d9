//! The OpenAPI document, made from the handlers themselves.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(title = "Wasel", description = "Customer messaging: WhatsApp, SMS and e-mail behind one API."),
    modifiers(&Bearer),
    security(("bearer" = [])),
    tags(
        (name = "messages", description = "Sending, and one message's way"),
        (name = "conversations", description = "The inbox"),
        (name = "channels", description = "Connected accounts"),
        (name = "sessions", description = "Linked phones"),
        (name = "contacts", description = "Customers"),
        (name = "changes", description = "The change feed"),
        (name = "media", description = "Files"),
        (name = "templates", description = "Texts with variables"),
        (name = "notifications", description = "What people are told"),
        (name = "notification queue", description = "Messages to be sent by type, template and time; any SQL may write it"),
        (name = "reports", description = "Figures, as JSON and CSV"),
        (name = "webhooks", description = "What providers call, and the inbound ledger"),
        (name = "documents", description = "Paths of the documents, as they stand"),
        (name = "invitations", description = "Letting people in"),
        (name = "storage", description = "Files of the bucket, in Supabase's shapes"),
        (name = "rest", description = "Tables and views, in PostgREST's dialect"),
        (name = "auth", description = "Sign-in, in Supabase's shapes"),
        (name = "operators", description = "Health")
    )
)]
pub struct ApiDoc;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}
