//! HTTP: our own API under `/v1`, the documents' paths under `compat`, providers' webhooks, and what operators need.

pub mod auth_v1;
pub mod compat;
pub mod error;
pub mod extract;
pub mod limits;
pub mod middleware;
pub mod openapi;
pub mod operators;
pub mod page;
pub mod realtime;
pub mod realtime_broadcast;
pub mod rest_v1;
pub mod router;
pub mod storage_v1;
pub mod supabase_project;
pub mod v1;
pub mod webhooks;
