//! A TCP proxy in front of the database or a provider, to break the way to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use crate::TestDb;

/// Where the proxied server really is.
#[derive(Clone, Debug)]
enum Upstream {
    Tcp(String),
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Everything passes.
    Open,
    /// Connections stay, nothing passes, either way.
    Stalled,
    /// Open connections are cut and new ones closed at once.
    Refusing,
}

/// The proxy. It ends with this value.
pub struct Chaos {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Counts the cuts: each ends the connections open at that moment.
    cuts: watch::Sender<u64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Chaos {
    /// In front of a database; [`Chaos::database_url`] leads through it.
    pub async fn before_database(db: &TestDb) -> Self {
        let options = db.options();
        let upstream = match options.get_socket() {
            Some(directory) => {
                Upstream::Unix(directory.join(format!(".s.PGSQL.{}", options.get_port())))
            }
            None => Upstream::Tcp(format!("{}:{}", options.get_host(), options.get_port())),
        };
        Self::start(upstream).await
    }

    /// In front of `host:port`.
    pub async fn before(upstream: impl Into<String>) -> Self {
        Self::start(Upstream::Tcp(upstream.into())).await
    }

    async fn start(upstream: Upstream) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, watched) = watch::channel(Mode::Open);
        let (cuts, cut) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *watched.borrow() == Mode::Refusing {
                    continue;
                }
                tokio::spawn(carry(
                    client,
                    upstream.clone(),
                    watched.clone(),
                    cut.clone(),
                ));
            }
        });
        Self {
            address,
            mode,
            cuts,
            accepting,
        }
    }

    /// The address of `db` through this proxy.
    #[must_use]
    pub fn database_url(&self, db: &TestDb) -> String {
        let mut url: url::Url = db.url().parse().unwrap();
        url.set_query(None);
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        url.query_pairs_mut().append_pair("sslmode", "disable");
        url.to_string()
    }

    /// The same as options.
    #[must_use]
    pub fn database_options(&self, db: &TestDb) -> PgConnectOptions {
        self.database_url(db)
            .parse::<PgConnectOptions>()
            .unwrap()
            .ssl_mode(PgSslMode::Disable)
    }

    /// Ends the connections open now; new ones are served.
    pub fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    /// Nothing passes any more; connections stay open.
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stalled);
    }

    /// Ends all connections and serves no new ones.
    pub fn refuse(&self) {
        self.mode.send_replace(Mode::Refusing);
        self.cut();
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.mode.send_replace(Mode::Open);
    }
}

async fn carry(
    client: TcpStream,
    upstream: Upstream,
    mode: watch::Receiver<Mode>,
    mut cut: watch::Receiver<u64>,
) {
    cut.mark_unchanged();
    let (from_client, to_client) = split(client);
    let pumps = async {
        match upstream {
            Upstream::Tcp(address) => {
                let Ok(stream) = TcpStream::connect(address).await else {
                    return;
                };
                let (from_server, to_server) = split(stream);
                tokio::select! {
                    () = pump(from_client, to_server, mode.clone()) => {}
                    () = pump(from_server, to_client, mode) => {}
                }
            }
            Upstream::Unix(path) => {
                let Ok(stream) = UnixStream::connect(path).await else {
                    return;
                };
                let (from_server, to_server) = split(stream);
                tokio::select! {
                    () = pump(from_client, to_server, mode.clone()) => {}
                    () = pump(from_server, to_client, mode) => {}
                }
            }
        }
    };
    tokio::select! {
        () = pumps => {}
        _ = cut.changed() => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut mode: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        // A stalled proxy keeps what it has read.
        if mode.wait_for(|mode| *mode != Mode::Stalled).await.is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
    // One side said all it had to say; the other may still be answering.
    drop(to.shutdown().await);
    tokio::time::sleep(Duration::from_secs(5)).await;
}
