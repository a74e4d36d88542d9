//! What runs for a measurement of the queue: a server with its private cluster, and the provider.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use uuid::Uuid;

use super::caller::Caller;
use super::provider::{PREFIX, Provider};
use super::rows::{self, Tenant};
use crate::children::{Cluster, Server, free_port, output_of, wasel};
use crate::world::World;

/// The key our own requests to the server carry.
const KEY: &str = "sb_secret_bench-queue-0123456789abcdef";

/// A server that sends to `provider`, with its tenants.
pub struct Stage {
    launcher: Launcher,
    /// The server's process.
    pub pid: u32,
    pub address: SocketAddr,
    /// The cluster's first process.
    pub postmaster: u32,
    pub options: PgConnectOptions,
    /// On the server's database.
    pub pool: PgPool,
    pub provider: Provider,
    pub tenants: Vec<Tenant>,
    /// Of the next message.
    next_number: u64,
}

/// Starts the server, every time in the same way.
struct Launcher {
    program: PathBuf,
    data_dir: PathBuf,
    log: PathBuf,
    port: u16,
    provider: SocketAddr,
    in_flight: Option<u32>,
}

impl Launcher {
    async fn start(&self) -> Result<Server> {
        let mut command = wasel(&self.program, &self.data_dir);
        command
            .arg("serve")
            .env("PORT", self.port.to_string())
            .env("META_GRAPH_BASE", format!("http://{}", self.provider))
            .env("SUPABASE_SERVICE_ROLE_KEY", KEY)
            // Not a line for each send.
            .env("WASEL_LOGGING_FILTER", "warn");
        if let Some(in_flight) = self.in_flight {
            command.env("WASEL_OUTBOX_IN_FLIGHT", in_flight.to_string());
        }
        Server::start(command, self.port, "", &self.log).await
    }
}

/// How to set it.
pub struct Setting<'a> {
    /// The server's program.
    pub program: &'a Path,
    pub directory: &'a Path,
    pub tenants: u32,
    /// Sends under way at once, if not the server's default.
    pub in_flight: Option<u32>,
    /// Until the provider answers.
    pub delay: Duration,
}

/// What must not run any more at the end, however that comes.
#[derive(Default)]
pub struct Running {
    server: Option<Server>,
    cluster: Option<Cluster>,
}

impl Running {
    pub async fn clear(mut self) -> Result<()> {
        let mut result = Ok(());
        if let Some(server) = &mut self.server {
            result = server.stop().await;
        }
        if let Some(cluster) = &self.cluster {
            result = result.and(cluster.stop_if_running().await);
        }
        result
    }
}

impl Stage {
    pub async fn set(setting: &Setting<'_>, running: &mut Running) -> Result<Self> {
        let provider = Provider::start(setting.delay).await?;
        let launcher = Launcher {
            program: setting.program.to_owned(),
            data_dir: setting.directory.join("wasel"),
            log: setting.directory.join("wasel.log"),
            port: free_port()?,
            provider: provider.address,
            in_flight: setting.in_flight,
        };
        let server = running.server.insert(launcher.start().await?);
        let cluster = running.cluster.insert(Cluster::of(&launcher.data_dir)?);
        let mut command = wasel(setting.program, &launcher.data_dir);
        command.args(["apply", "-"]);
        output_of(command, &World::new(setting.tenants, 1).declaration()).await?;
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .connect_with(cluster.options.clone())
            .await?;
        let tenants = rows::tenants(&pool).await?;
        if tenants.len() != setting.tenants as usize {
            bail!("{} tenants were applied", tenants.len());
        }
        Ok(Self {
            launcher,
            pid: server.pid,
            address: server.address,
            postmaster: cluster.postmaster,
            options: cluster.options.clone(),
            pool,
            provider,
            tenants,
            next_number: 1,
        })
    }

    /// Ends the server as a crash would, and starts it again. Its cluster goes on.
    pub async fn crash(&mut self, running: &mut Running) -> Result<()> {
        if let Some(server) = &mut running.server {
            server.kill().await?;
        }
        self.pid = running.server.insert(self.launcher.start().await?).pid;
        Ok(())
    }

    /// An empty database beside the server's, with the same schema.
    pub async fn database(&self, name: &str) -> Result<PgConnectOptions> {
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&self.pool)
            .await?;
        let options = self.options.clone().database(name);
        wasel_db::migrate(&options).await?;
        Ok(options)
    }

    /// `count` numbers that no message has yet.
    pub fn numbers(&mut self, count: u64) -> u64 {
        let first = self.next_number;
        self.next_number += count;
        first
    }

    /// Asks the server to send a message into a conversation. Its text carries the number.
    pub async fn ask(
        &self,
        caller: &mut Caller,
        tenant: Tenant,
        conversation: Uuid,
        number: u64,
    ) -> Result<()> {
        let body = json!({
            "conversation_id": conversation,
            "content": { "type": "text", "body": format!("{PREFIX}{number}: a single message") },
        });
        let (status, answer) = caller
            .post("/v1/messages", &headers_for(tenant), &body.to_string())
            .await?;
        if status != 202 {
            bail!(
                "POST /v1/messages: {status} {}",
                String::from_utf8_lossy(answer)
            );
        }
        Ok(())
    }

    pub async fn connect(&self) -> Result<Caller> {
        Caller::connect(self.address).await.context("the server")
    }
}

/// The header lines of a request for this tenant.
pub fn headers_for(tenant: Tenant) -> String {
    format!(
        "Authorization: Bearer {KEY}\r\nX-Org-Id: {}\r\n",
        tenant.org_id
    )
}
