//! Starting and ending the processes under test. Only what was started here is ended, by its process id.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const STARTUP: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

/// A server process listening on a port of this machine.
pub struct Server {
    child: Child,
    pub pid: u32,
    pub address: SocketAddr,
    /// From the start of the process to its first good answer.
    pub started_in: Duration,
}

/// A command of the server's program that knows nothing of our environment.
pub fn wasel(program: &Path, data_dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("WASEL_DATA_DIR", data_dir)
        .env("WASEL_SERVER_LISTEN", "127.0.0.1");
    for name in ["PATH", "HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs a command to its end with `input` and returns what it printed.
pub async fn output_of(mut command: Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    hand_over(&mut child, input).await?;
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!(
            "{:?} ended with {}",
            command.as_std().get_program(),
            output.status
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

async fn hand_over(child: &mut Child, input: &str) -> Result<()> {
    let mut pipe = child.stdin.take().context("no pipe to the child")?;
    pipe.write_all(input.as_bytes()).await?;
    pipe.shutdown().await?;
    Ok(())
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

impl Server {
    /// Starts `command`, which will listen on `port`, and waits until it is ready.
    pub async fn start(mut command: Command, port: u16, input: &str, log: &Path) -> Result<Self> {
        let begun = Instant::now();
        let log_file = File::create(log)?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log_file);
        let mut child = command
            .spawn()
            .with_context(|| format!("{:?}", command.as_std().get_program()))?;
        let pid = child.id().context("the server ended at once")?;
        hand_over(&mut child, input).await?;
        let mut server = Self {
            child,
            pid,
            address: ([127, 0, 0, 1], port).into(),
            started_in: Duration::ZERO,
        };
        while !is_ready(server.address).await {
            if let Some(status) = server.child.try_wait()? {
                bail!(
                    "the server ended with {status}: {}",
                    std::fs::read_to_string(log)?
                );
            }
            if begun.elapsed() > STARTUP {
                server.stop().await?;
                bail!(
                    "the server was not ready within {STARTUP:?}: {}",
                    std::fs::read_to_string(log)?
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.started_in = begun.elapsed();
        Ok(server)
    }

    /// Ends it as a crash would.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Asks it to end, then makes it end.
    pub async fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(Pid::from_raw(self.pid as i32), Signal::SIGTERM)?;
        if tokio::time::timeout(STOP, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

async fn is_ready(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    ask.await.unwrap_or(false)
}

/// The cluster our server started.
pub struct Cluster {
    pub options: PgConnectOptions,
    pub postmaster: u32,
}

impl Cluster {
    pub fn of(data_dir: &Path) -> Result<Self> {
        let options = wasel_db::cluster::options_of_running(data_dir)
            .context("the private Postgres does not run")?;
        let pid_file = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid"))?;
        let postmaster = pid_file
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok())
            .context("postmaster.pid")?;
        Ok(Self {
            options,
            postmaster,
        })
    }

    /// A URL for another process.
    pub fn url(&self, database: &str) -> Result<String> {
        let sockets = self
            .options
            .get_socket()
            .context("no socket")?
            .to_string_lossy()
            .replace('/', "%2F");
        let (port, user) = (self.options.get_port(), self.options.get_username());
        Ok(format!(
            "postgresql:///{database}?host={sockets}&port={port}&user={user}"
        ))
    }

    /// When the server had to be killed its Postgres lives on: a fast shutdown for it.
    pub async fn stop_if_running(&self) -> Result<()> {
        let pid = Pid::from_raw(self.postmaster as i32);
        // The id may be somebody else's by now: only a Postgres is asked to end.
        let is_postgres = || {
            std::fs::read_to_string(format!("/proc/{}/comm", self.postmaster))
                .is_ok_and(|name| name.trim() == "postgres")
        };
        if is_postgres() {
            kill(pid, Signal::SIGINT)?;
        }
        let begun = Instant::now();
        while is_postgres() && begun.elapsed() < STOP {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}
