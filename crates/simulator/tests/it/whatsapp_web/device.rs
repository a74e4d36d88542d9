//! A linked device: the real client, its state in memory.

use std::{sync::Arc, time::Duration};

use wacore::store::InMemoryBackend;
use wasel_simulator::{LinkedCompanion, NewWhatsappPhone, Simulator, WhatsappWeb};
use whatsapp_rust::{
    anyhow, async_channel, async_trait,
    http::{HttpClient, HttpRequest, HttpResponse},
    pair_code::PairCodeOptions,
    prelude::*,
    transport::TokioWebSocketTransportFactory,
};

pub const SHOP: &str = "15550100";
pub const MONA: &str = "201001234567";
const PATIENCE: Duration = Duration::from_secs(60);

/// A simulator with one business phone and one customer.
pub async fn stage() -> (Simulator, WhatsappWeb) {
    let simulator = Simulator::start("127.0.0.1:0".parse().expect("address"))
        .await
        .expect("simulator starts");
    let web = simulator.whatsapp_web();
    for (number, name) in [(SHOP, "Shop"), (MONA, "Mona")] {
        web.register(&NewWhatsappPhone::new(number, name))
            .expect("registers");
    }
    (simulator, web)
}

pub struct Device {
    pub client: Arc<Client>,
    handle: Option<BotHandle>,
    events: async_channel::Receiver<Arc<Event>>,
    seen: Vec<Arc<Event>>,
    messages: Vec<InboundMessage>,
    pub store: Arc<InMemoryBackend>,
}

impl Device {
    pub async fn start(web: &WhatsappWeb, store: Arc<InMemoryBackend>) -> Self {
        Self::with_code(web, store, None).await
    }

    /// With a number, the device asks for a code of that phone.
    pub async fn with_code(
        web: &WhatsappWeb,
        store: Arc<InMemoryBackend>,
        number: Option<&str>,
    ) -> Self {
        let mut builder = Bot::builder()
            .with_backend_arc(Arc::clone(&store) as _)
            .with_transport_factory(TokioWebSocketTransportFactory::new().with_url(web.url()))
            .with_http_client(PlainHttp(
                reqwest::Client::builder()
                    .no_proxy()
                    .build()
                    .expect("client"),
            ))
            .with_runtime(TokioRuntime)
            .with_version((2, 3000, 1_027_934_701));
        if let Some(number) = number {
            builder = builder.with_pair_code(PairCodeOptions {
                phone_number: number.to_owned(),
                ..Default::default()
            });
        }
        let bot = builder.build().await.expect("builds");
        let client = bot.client();
        let (handler, events) = ChannelEventHandler::new();
        client.subscribe_handler(handler).detach();
        Self {
            client,
            handle: Some(bot.spawn()),
            events,
            seen: Vec::new(),
            messages: Vec::new(),
            store,
        }
    }

    /// Starts, shows its QR, is scanned by `number` and connects.
    pub async fn linked(web: &WhatsappWeb, number: &str) -> (Self, LinkedCompanion) {
        let mut device = Self::start(web, Arc::default()).await;
        let qr = device
            .wait(|event| match event {
                Event::PairingQrCode(qr) => Some(qr.code.clone()),
                _ => None,
            })
            .await;
        let companion = web.scan(number, &qr).await.expect("is linked");
        device.connected().await;
        (device, companion)
    }

    pub async fn connected(&mut self) {
        self.wait(|event| matches!(event, Event::Connected(_)).then_some(()))
            .await;
    }

    /// The first event, past ones included, that `look` finds something in. Each is looked at once.
    pub async fn wait<T>(&mut self, look: impl Fn(&Event) -> Option<T>) -> T {
        for (at, event) in self.seen.iter().enumerate() {
            if let Some(found) = look(event) {
                self.seen.remove(at);
                return found;
            }
        }
        let waiting = async {
            loop {
                let event = self.events.recv().await.expect("the client lives");
                if let Some(found) = look(&event) {
                    return found;
                }
                self.seen.push(event);
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain; seen: {:?}", kinds(&self.seen)),
        }
    }

    /// The next message with this text.
    pub async fn wait_text(&mut self, text: &str) -> InboundMessage {
        self.wait_message(|message| message.text_content() == Some(text))
            .await
    }

    /// The first message not taken yet that is as wanted.
    pub async fn wait_message(&mut self, wanted: impl Fn(&wa::Message) -> bool) -> InboundMessage {
        loop {
            if let Some(at) = self.messages.iter().position(|m| wanted(&m.message)) {
                return self.messages.remove(at);
            }
            let batch = self
                .wait(|event| match event {
                    Event::Messages(batch) => Some(batch.messages.to_vec()),
                    _ => None,
                })
                .await;
            self.messages.extend(batch);
        }
    }

    /// Sends a text; the id.
    pub async fn text(&self, to: &str, text: &str) -> String {
        let to = Jid::pn(to);
        self.client
            .send_text(to, text)
            .await
            .expect("is sent")
            .message_id
            .clone()
    }

    /// Sends a text as soon as there is a connection; the id.
    pub async fn wait_sent(&self, to: &str, text: &str) -> String {
        self.client
            .wait_for_connected(PATIENCE)
            .await
            .expect("connects");
        self.text(to, text).await
    }

    /// Messages nobody waited for.
    pub fn left_over(&mut self) -> Vec<InboundMessage> {
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(event);
        }
        for event in self.seen.drain(..) {
            if let Event::Messages(batch) = &*event {
                self.messages.extend(batch.messages.to_vec());
            }
        }
        std::mem::take(&mut self.messages)
    }

    /// Stops without logging out; the store stays.
    pub async fn stop(mut self) -> Arc<InMemoryBackend> {
        if let Some(handle) = self.handle.take() {
            handle.shutdown().await;
        }
        Arc::clone(&self.store)
    }
}

fn kinds(events: &[Arc<Event>]) -> Vec<String> {
    events
        .iter()
        .map(|event| {
            let text = format!("{event:?}");
            text.chars().take(160).collect()
        })
        .collect()
}

/// Speaks plain HTTP to the media store, which has no certificate.
struct PlainHttp(reqwest::Client);

#[async_trait]
impl HttpClient for PlainHttp {
    async fn execute(&self, request: HttpRequest) -> anyhow::Result<HttpResponse> {
        let url = request.url.replacen("https://", "http://", 1);
        let mut call = self.0.request(request.method.parse()?, url);
        for (name, value) in &request.headers {
            call = call.header(name, value);
        }
        if let Some(body) = request.body {
            call = call.body(body);
        }
        let response = call.send().await?;
        Ok(HttpResponse {
            status_code: response.status().as_u16(),
            body: response.bytes().await?.to_vec(),
        })
    }
}

/// Looks until there is something to see.
pub async fn eventually<T>(look: impl Fn() -> Option<T>) -> T {
    let started = tokio::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
