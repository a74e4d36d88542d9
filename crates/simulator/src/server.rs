//! The running simulator.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{Json, Router, extract::DefaultBodyLimit, http::StatusCode, middleware};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

#[cfg(feature = "linked-phones")]
use crate::whatsapp_web::WhatsappWeb;
use crate::{
    control,
    gate::{self, Gate},
    listener::{Plug, PluggedListener},
    meta,
    s3::S3Storage,
    smtp, twilio,
    world::{Provider, World},
};

/// Open connections get this long to finish when the simulator stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// A running server. Both providers and the control API share one port; Twilio's storage host, which
/// must be another origin, takes a second one of its own, and so does the mail server, twice.
pub struct Simulator {
    world: World,
    s3: S3Storage,
    #[cfg(feature = "linked-phones")]
    whatsapp_web: WhatsappWeb,
    base_url: String,
    servers: Vec<JoinHandle<io::Result<()>>>,
}

impl Simulator {
    /// Starts listening. Port 0 takes any free one.
    ///
    /// # Errors
    /// When the address cannot be bound, or no HTTP client can be made.
    pub async fn start(listen: SocketAddr) -> io::Result<Self> {
        let main = TcpListener::bind(listen).await?;
        let storage = TcpListener::bind(SocketAddr::new(listen.ip(), 0)).await?;
        let base_url = format!("http://{}", reachable(main.local_addr()?));
        let storage_base = format!("http://{}", reachable(storage.local_addr()?));
        let (mail, mail_server) = smtp::Listeners::bind(listen).await?;
        let world = World::new(http_client()?, base_url.clone(), storage_base, mail_server);
        mail.serve(&world);

        #[cfg(feature = "linked-phones")]
        let whatsapp_web = {
            let host = base_url.trim_start_matches("http://").to_owned();
            WhatsappWeb::new(host, world.stopping().clone())?
        };

        let s3 = S3Storage::default();
        let app = meta_router(&world)
            .merge(twilio_router(&world))
            .merge(s3.router())
            .nest("/sim", control::router());
        #[cfg(feature = "linked-phones")]
        let app = app.merge(whatsapp_web.router()).nest(
            "/sim/whatsapp-web",
            crate::whatsapp_web::control::router(whatsapp_web.clone()),
        );
        let app = app
            .fallback(not_found)
            .layer(DefaultBodyLimit::disable())
            .with_state(world.clone());
        let main = axum::serve(
            PluggedListener(main),
            app.into_make_service_with_connect_info::<Plug>(),
        )
        .with_graceful_shutdown(world.stopping().clone().cancelled_owned());
        let storage = axum::serve(storage, twilio::storage_router().with_state(world.clone()))
            .with_graceful_shutdown(world.stopping().clone().cancelled_owned());
        let servers = vec![
            tokio::spawn(main.into_future()),
            tokio::spawn(storage.into_future()),
        ];
        release_scheduled_messages(&world);
        Ok(Self {
            world,
            s3,
            #[cfg(feature = "linked-phones")]
            whatsapp_web,
            base_url,
            servers,
        })
    }

    /// `http://host:port`, without a trailing slash.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// For `META_GRAPH_BASE`.
    pub fn meta_base(&self) -> String {
        self.base_url.clone()
    }

    /// For `TWILIO_API_BASE`.
    pub fn twilio_base(&self) -> String {
        self.base_url.clone()
    }

    /// For `WASEL_STORAGE_ENDPOINT`; any bucket, with [`S3_ACCESS_KEY_ID`](crate::S3_ACCESS_KEY_ID).
    pub fn s3_endpoint(&self) -> String {
        format!("{}/s3", self.base_url)
    }

    /// What is stored there.
    pub fn s3(&self) -> S3Storage {
        self.s3.clone()
    }

    /// The same operations as the control API, typed.
    pub fn world(&self) -> World {
        self.world.clone()
    }

    /// The simulated WhatsApp that phones and linked devices meet on.
    #[cfg(feature = "linked-phones")]
    pub fn whatsapp_web(&self) -> WhatsappWeb {
        self.whatsapp_web.clone()
    }

    /// For `WHATSAPP_WEB_URL`.
    #[cfg(feature = "linked-phones")]
    pub fn whatsapp_web_url(&self) -> String {
        self.whatsapp_web.url()
    }

    /// Stops listening, ends what runs in the background, and returns when the ports are free.
    pub async fn stop(mut self) {
        self.world.stop().await;
        #[cfg(feature = "linked-phones")]
        self.whatsapp_web.stopped().await;
        for mut server in std::mem::take(&mut self.servers) {
            if tokio::time::timeout(STOP_GRACE, &mut server).await.is_err() {
                server.abort();
                // Aborting is what it then ends with.
                drop(server.await);
            }
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.world.stopping().cancel();
    }
}

fn meta_router(world: &World) -> Router<World> {
    gated(meta::router(), world, Provider::Meta)
}

fn twilio_router(world: &World) -> Router<World> {
    gated(twilio::router(), world, Provider::Twilio)
}

fn gated(router: Router<World>, world: &World, provider: Provider) -> Router<World> {
    let gate = Gate {
        world: world.clone(),
        provider,
    };
    router.route_layer(middleware::from_fn_with_state(gate, gate::pass))
}

async fn not_found() -> (StatusCode, Json<serde_json::Value>) {
    let body =
        json!({"error": {"message": "Unknown path", "type": "OAuthException", "code": 2500}});
    (StatusCode::NOT_FOUND, Json(body))
}

/// An address a client can use: "any" is no host to connect to.
pub(crate) fn reachable(bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), bound.port())
    } else {
        bound
    }
}

/// The client webhooks go out with. No proxy from the environment: receivers are configured addresses.
fn http_client() -> io::Result<reqwest::Client> {
    // An error says that the process has one already, which serves as well.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .build()
        .map_err(io::Error::other)
}

fn release_scheduled_messages(world: &World) {
    let handle = world.clone();
    world.spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            twilio::release_scheduled(&handle);
        }
    });
}
