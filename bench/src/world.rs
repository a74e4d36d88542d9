//! The made-up tenants, their customers, and the webhooks Meta would send for them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac;
use serde_json::{Value, json};

/// One tenant with one WhatsApp number.
pub struct Tenant {
    pub slug: String,
    waba_id: String,
    phone_number_id: String,
    display_phone_number: String,
    app_secret: String,
    key: hmac::Key,
}

pub struct World {
    pub tenants: Vec<Tenant>,
    /// Per tenant.
    pub customers: u32,
}

/// One message. A message with the same number is the same message: it repeats the provider's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub number: u64,
    pub tenant: u32,
    pub customer: u32,
}

/// Pads the message to what Meta's webhooks weigh, about 950 bytes.
const TEXT: &str = "Good morning, I ordered two pairs of the walking shoes last week and only one of them came. The box \
    was open when the driver handed it over, and the invoice inside lists both pairs. Could you please look where the \
    second one is, and tell me whether it can still be here before Thursday? Otherwise I would rather have it sent to \
    my office instead; the address is the one of my first order.";

impl World {
    pub fn new(tenants: u32, customers: u32) -> Self {
        let tenant = |n: u32| {
            let app_secret = format!("{:032x}", mix(u64::from(n) + 7));
            Tenant {
                slug: format!("bench-{n}"),
                waba_id: format!("{}", 102_290_129_000_000u64 + u64::from(n)),
                phone_number_id: format!("{}", 106_540_352_000_000u64 + u64::from(n)),
                display_phone_number: format!("+1555078{n:04}"),
                key: hmac::Key::new(hmac::HMAC_SHA256, app_secret.as_bytes()),
                app_secret,
            }
        };
        Self {
            tenants: (0..tenants).map(tenant).collect(),
            customers,
        }
    }

    /// How many customers there are in all.
    pub fn population(&self) -> u32 {
        self.tenants.len() as u32 * self.customers
    }

    /// What `wasel apply` takes.
    pub fn declaration(&self) -> String {
        let mut text = String::new();
        for tenant in &self.tenants {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "[[organizations]]\nslug = \"{0}\"\nname = \"{0}\"\n",
                tenant.slug
            );
            let _ = writeln!(
                text,
                "[[organizations.channels]]\nkind = \"whatsapp_cloud\"\nname = \"main\""
            );
            for (key, value) in [tenant.settings(), tenant.secrets()]
                .iter()
                .filter_map(Value::as_object)
                .flatten()
            {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        text
    }

    /// The message with this number: tenant and customer follow from the number.
    pub fn message(&self, number: u64) -> Message {
        let random = mix(number);
        Message {
            number,
            tenant: ((random >> 32) % self.tenants.len() as u64) as u32,
            customer: ((random & 0xffff_ffff) % u64::from(self.customers)) as u32,
        }
    }

    /// The first message of each customer, one after the other.
    pub fn first_message(&self, nth: u32) -> Message {
        Message {
            number: u64::from(nth),
            tenant: nth / self.customers,
            customer: nth % self.customers,
        }
    }

    /// Writes the whole HTTP request for this message into `into`, signed as Meta signs it. `body` is scratch space.
    pub fn write_request(&self, message: Message, body: &mut Vec<u8>, into: &mut Vec<u8>) {
        let tenant = &self.tenants[message.tenant as usize];
        body.clear();
        into.clear();
        // Writing to a Vec cannot fail.
        let _ = write!(
            body,
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{waba}","changes":[{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"{display}","phone_number_id":"{phone}"}},"contacts":[{{"profile":{{"name":"Customer {customer}"}},"wa_id":"{wa_id}","user_id":"US.{user_id}"}}],"messages":[{{"from":"{wa_id}","from_user_id":"US.{user_id}","id":"{wamid}","timestamp":"{time}","type":"text","text":{{"body":"{TEXT}"}}}}]}},"field":"messages"}}]}}]}}"#,
            waba = tenant.waba_id,
            display = &tenant.display_phone_number[1..],
            phone = tenant.phone_number_id,
            customer = message.customer,
            wa_id = &message.phone()[1..],
            user_id = 13_491_208_000_000_000u64
                + u64::from(message.tenant) * 1_000_000
                + u64::from(message.customer),
            wamid = message.wamid(),
            time = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
        );
        let mut signature = [0u8; 64];
        // 32 bytes are 64 digits.
        let _ = hex::encode_to_slice(hmac::sign(&tenant.key, body).as_ref(), &mut signature);
        let _ = write!(
            into,
            "POST /api/webhooks/whatsapp HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: facebookexternalua\r\nAccept: */*\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nX-Hub-Signature-256: sha256=",
            body.len()
        );
        into.extend_from_slice(&signature);
        into.extend_from_slice(b"\r\n\r\n");
        into.extend_from_slice(body);
    }
}

impl Tenant {
    pub fn settings(&self) -> Value {
        json!({
            "waba_id": self.waba_id,
            "phone_number_id": self.phone_number_id,
            "display_phone_number": self.display_phone_number,
        })
    }

    pub fn secrets(&self) -> Value {
        json!({ "access_token": "bench", "app_secret": self.app_secret, "verify_token": "bench" })
    }
}

impl Message {
    /// Meta's id for it: about 60 characters.
    pub fn wamid(self) -> String {
        format!(
            "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQz{:016X}NjU5OUFFRTAzODEA",
            self.number
        )
    }

    /// The number in a `wamid`.
    pub fn number_of(wamid: &str) -> Option<u64> {
        u64::from_str_radix(wamid.get(34..50)?, 16).ok()
    }

    pub fn phone(self) -> String {
        format!("+1650{:03}{:04}", 200 + self.tenant, self.customer)
    }

    pub fn text(self) -> &'static str {
        TEXT
    }
}

/// splitmix64: spreads consecutive numbers evenly.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};
    use wasel_domain::{ChannelId, ProviderEvent};
    use wasel_providers::{ChannelKind, ProviderConfig, Providers, WebhookRequest};

    use super::*;

    #[test]
    fn a_made_up_webhook_is_believed_and_understood_by_the_real_provider() {
        let world = World::new(2, 3);
        let message = world.message(0x0102_0003_0000_0004);
        let (mut body, mut request) = (Vec::new(), Vec::new());
        world.write_request(message, &mut body, &mut request);
        assert!((900..1000).contains(&body.len()), "{} bytes", body.len());
        let head = std::str::from_utf8(&request[..request.len() - body.len()]).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
            headers.insert(
                http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        let body = Bytes::from(body);
        let request = WebhookRequest {
            method: &Method::POST,
            url: "http://localhost/api/webhooks/whatsapp",
            headers: &headers,
            body: &body,
            received_at: chrono::Utc::now(),
        };
        let providers = Providers::new(
            ProviderConfig {
                meta_graph_base: "http://localhost".to_owned(),
                meta_graph_version: "v26.0".to_owned(),
                ..ProviderConfig::default()
            },
            None,
        );
        let provider = providers.of(ChannelKind::WhatsappCloud);
        let tenant = &world.tenants[message.tenant as usize];
        let channel = provider
            .open(
                ChannelId::generate(),
                ChannelKind::WhatsappCloud,
                &tenant.settings(),
                &tenant.secrets(),
            )
            .unwrap();
        channel.verify(&request).unwrap();
        let events = provider.parse(&request).unwrap();
        let [event] = events.as_slice() else {
            panic!("{} events", events.len())
        };
        let ProviderEvent::Message(parsed) = &event.event else {
            panic!("{:?}", event.event)
        };
        assert_eq!(
            Message::number_of(&parsed.provider_message_id),
            Some(message.number)
        );
        assert_eq!(parsed.customer.identities[0].value, message.phone());
    }
}
