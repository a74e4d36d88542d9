//! The real server in the test's process.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use tempfile::TempDir;
use uuid::Uuid;
use wasel_config::{Config, Secret};
use wasel_db::{identity, organizations};
use wasel_domain::OrgId;
use wasel_server::app::{Foundation, Running, start};
use wasel_server::auth::{SignInMethod, TokenSubject};
use wasel_server::cli::apply::{Declaration, Report, apply};
use wasel_server::state::AppState;
use wasel_simulator::{Simulator, World};

use crate::{Org, TestDb, meta, twilio, wait_until};

/// Signs the tokens of tests.
pub(crate) const JWT_SECRET: &str = "the JWT secret of tests, of at least thirty-two bytes";
pub(crate) const ENCRYPTION_KEY: &str =
    "0101010101010101010101010101010101010101010101010101010101010101";

/// The server with its database and simulated providers. What it started ends with it.
pub struct TestApp {
    running: Running,
    /// `http://127.0.0.1:port`.
    pub base: String,
    pub http: reqwest::Client,
    pub simulator: Arc<Simulator>,
    /// The schema's owner, who passes row-level security.
    pub owner: PgPool,
    pub db: Arc<TestDb>,
    data_dir: TempDir,
}

/// A change to the configuration a test asks for.
type Configure = Box<dyn FnOnce(&mut Config)>;

/// What may differ from the usual before the start.
#[derive(Default)]
pub struct TestAppBuilder {
    db: Option<Arc<TestDb>>,
    simulator: Option<Arc<Simulator>>,
    database_url: Option<String>,
    configure: Option<Configure>,
}

impl TestAppBuilder {
    /// On this database, which another node may use too.
    #[must_use]
    pub fn on(mut self, db: Arc<TestDb>) -> Self {
        self.db = Some(db);
        self
    }

    /// With the simulator of another node.
    #[must_use]
    pub fn with_simulator(mut self, simulator: Arc<Simulator>) -> Self {
        self.simulator = Some(simulator);
        self
    }

    /// Reaches the database by another way, such as through a [`crate::Chaos`].
    #[must_use]
    pub fn database_url(mut self, url: String) -> Self {
        self.database_url = Some(url);
        self
    }

    /// Changes the settings.
    #[must_use]
    pub fn configure(mut self, configure: impl FnOnce(&mut Config) + 'static) -> Self {
        self.configure = Some(Box::new(configure));
        self
    }

    pub async fn start(self) -> TestApp {
        // Another test of this process may have been first.
        drop(rustls::crypto::ring::default_provider().install_default());
        let db = match self.db {
            Some(db) => db,
            None => Arc::new(TestDb::new().await),
        };
        let simulator = match self.simulator {
            Some(simulator) => simulator,
            None => Arc::new(
                Simulator::start((Ipv4Addr::LOCALHOST, 0).into())
                    .await
                    .unwrap(),
            ),
        };
        let data_dir = tempfile::tempdir().unwrap();
        let mut config = settings(&simulator, &data_dir);
        config.database.url = Some(secret(&self.database_url.unwrap_or_else(|| db.url())));
        if let Some(configure) = self.configure {
            configure(&mut config);
        }
        let running = start(config, None).await.unwrap();
        let base = format!("http://{}", running.address);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        TestApp {
            running,
            base,
            http,
            simulator,
            owner: db.owner(),
            db,
            data_dir,
        }
    }
}

fn settings(simulator: &Simulator, data_dir: &TempDir) -> Config {
    let mut config = Config::default();
    config.server.port = 0;
    config.server.listen = Ipv4Addr::LOCALHOST.into();
    config.database.data_dir = data_dir.path().to_owned();
    config.database.tenant_connections = 8.try_into().unwrap();
    config.database.system_connections = 8.try_into().unwrap();
    config.auth.jwt_secret = Some(secret(JWT_SECRET));
    config.secrets.encryption_key = Some(secret(ENCRYPTION_KEY));
    config.providers.meta_graph_base = simulator.meta_base().try_into().unwrap();
    config.providers.twilio_api_base = simulator.twilio_base().try_into().unwrap();
    config.providers.whatsapp_web_url = Some(simulator.whatsapp_web_url().try_into().unwrap());
    // Tests of the limits set their own.
    config.limits.api_requests = 0;
    config.limits.org_sends_per_minute = 0;
    config.limits.user_sends_per_minute = 0;
    config.outbox.retry_base = Duration::from_millis(20);
    config.outbox.reconcile_wait = Duration::from_millis(300);
    config.outbox.lease = Duration::from_secs(2);
    config
}

pub(crate) fn secret(text: &str) -> Secret {
    text.to_owned().try_into().unwrap()
}

impl TestApp {
    #[must_use]
    pub fn builder() -> TestAppBuilder {
        TestAppBuilder::default()
    }

    /// With the usual settings: no rate limits, quick retries.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// What a command beside this server works with.
    #[must_use]
    pub fn foundation(&self) -> Foundation {
        self.running.foundation()
    }

    /// What the server's own parts see.
    #[must_use]
    pub fn state(&self) -> &AppState {
        &self.running.state
    }

    /// The simulated providers and customers.
    #[must_use]
    pub fn world(&self) -> World {
        self.simulator.world()
    }

    #[must_use]
    pub fn data_dir(&self) -> &std::path::Path {
        self.data_dir.path()
    }

    /// An orderly end; the database stays.
    pub async fn stop(self) -> Arc<TestDb> {
        self.running.stop().await.unwrap();
        self.db
    }

    /// Declares tenants, people and channels, as `wasel apply` does, and lets the server know.
    pub async fn apply(&self, declaration: &str) -> Report {
        let declaration: Declaration = toml::from_str(declaration).unwrap();
        let report = apply(&self.foundation(), &declaration).await.unwrap();
        self.running.state.registry.reload().await.unwrap();
        report
    }

    /// A tenant with an owner, an agent, a viewer and a channel of each kind, known to the simulator.
    pub async fn org(&self, slug: &str) -> Org {
        Org::declare(self, slug).await
    }

    /// A person's access token for an organisation, as `wasel token` prints it.
    pub async fn token(&self, org: Uuid, email: &str) -> String {
        let mut tx = self.state().db.system().await.unwrap();
        let user = identity::find_user_by_email(&mut tx, email)
            .await
            .unwrap()
            .expect("a known user");
        tx.commit().await.unwrap();
        let subject = TokenSubject {
            user: &user,
            org_id: Some(OrgId(org)),
            session_id: None,
            method: SignInMethod::Password,
            authenticated_at: chrono::Utc::now(),
        };
        self.state()
            .auth
            .tokens
            .issue(&subject, Duration::from_secs(3600))
            .unwrap()
            .token
    }

    /// The id of an organisation.
    pub async fn org_id(&self, slug: &str) -> Uuid {
        let mut tx = self.state().db.system().await.unwrap();
        let org = organizations::find_by_slug(&mut tx, slug)
            .await
            .unwrap()
            .expect("a known organisation");
        tx.commit().await.unwrap();
        org.id
    }

    /// A request to this server.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub async fn get(&self, token: &str, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path).bearer_auth(token)).await
    }

    pub async fn post(&self, token: &str, path: &str, body: &Value) -> Answer {
        Answer::of(
            self.request(Method::POST, path)
                .bearer_auth(token)
                .json(body),
        )
        .await
    }

    pub async fn patch(&self, token: &str, path: &str, body: &Value) -> Answer {
        Answer::of(
            self.request(Method::PATCH, path)
                .bearer_auth(token)
                .json(body),
        )
        .await
    }

    /// Posts a webhook that Meta signed with the organisation's app secret.
    pub async fn meta_webhook(&self, org: &Org, payload: &Value) -> Answer {
        self.meta_webhook_signed(&org.app_secret, payload.to_string().into_bytes())
            .await
    }

    /// Posts raw bytes, signed with this app secret.
    pub async fn meta_webhook_signed(&self, app_secret: &str, body: Vec<u8>) -> Answer {
        let signature = meta::signature(app_secret, &body);
        let request = self.request(Method::POST, "/api/webhooks/whatsapp");
        let request = request
            .header("content-type", "application/json")
            .header("x-hub-signature-256", signature);
        Answer::of(request.body(body)).await
    }

    /// Posts a form that Twilio signed with the organisation's auth token.
    pub async fn twilio_webhook(&self, org: &Org, path: &str, form: &[(&str, &str)]) -> Answer {
        let signature = twilio::signature(&org.auth_token, &format!("{}{path}", self.base), form);
        let request = self
            .request(Method::POST, path)
            .header(
                "content-type",
                "application/x-www-form-urlencoded; charset=UTF-8",
            )
            .header("x-twilio-signature", signature);
        Answer::of(request.body(twilio::body(form))).await
    }

    /// One number from the database, seen by its owner.
    pub async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.owner)
            .await
            .unwrap()
    }

    /// A message with its timeline, once it is as wanted.
    pub async fn wait_message(
        &self,
        token: &str,
        id: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let path = format!("/v1/messages/{id}");
        let mut last = Value::Null;
        let found = tokio::time::timeout(crate::PATIENCE, async {
            loop {
                last = self.get(token, &path).await.body;
                if wanted(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert!(
            found.is_ok(),
            "the message never came to be as wanted: {last:#}"
        );
        last
    }

    /// The same by its status.
    pub async fn wait_status(&self, token: &str, id: &str, status: &str) -> Value {
        self.wait_message(token, id, |message| message["status"] == status)
            .await
    }

    /// Waits until a query gives this number.
    pub async fn wait_count(&self, sql: &str, wanted: i64) {
        wait_until(&format!("{wanted} from {sql}"), async || {
            (self.count(sql).await == wanted).then_some(())
        })
        .await;
    }
}

/// An answer of the server.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    /// The body as JSON, else `null`.
    pub body: Value,
    pub text: String,
}

impl Answer {
    /// Sends a request and reads the whole answer.
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("an answer");
        let (status, headers): (StatusCode, _) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self {
            status: status.as_u16(),
            headers,
            body,
            text,
        }
    }

    /// The body, if the status is the wanted one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// A header's text; empty if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }
}
