//! wasel-server

pub mod auth;
pub mod http {
    pub mod auth_v1;
}
