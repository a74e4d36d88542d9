//! The data under the lock, and the small steps that keep it consistent.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    AcceptedSend, Alert, Customer, Message, MetaNumber, Origin, Provider, RecordedRequest,
    Settings, Template, Tick, TwilioAccount, WebhookAttempt, WorldError,
    limits::Bucket,
    media::{MEDIA_BUDGET, StoredMedia},
    phone,
};
use crate::{faults::Faults, webhook::Lanes};

/// (line, customer)
pub(crate) type ThreadKey = (String, String);

#[derive(Default)]
pub(crate) struct State {
    clock_offset: chrono::Duration,
    pub(crate) settings: Settings,
    pub(crate) faults: Faults,
    pub(crate) meta_numbers: BTreeMap<String, MetaNumber>,
    /// By WABA id.
    pub(crate) templates: BTreeMap<String, Vec<Template>>,
    pub(crate) twilio_accounts: BTreeMap<String, TwilioAccount>,
    /// (sender address or service SID, customer)
    pub(crate) opted_out: HashSet<(String, String)>,
    pub(crate) customers: BTreeMap<String, Customer>,
    messages: HashMap<String, Message>,
    message_order: VecDeque<String>,
    pub(crate) threads: BTreeMap<ThreadKey, VecDeque<String>>,
    /// When the customer last wrote.
    pub(crate) last_inbound: HashMap<ThreadKey, DateTime<Utc>>,
    throughput: HashMap<String, Bucket>,
    pairs: HashMap<ThreadKey, Bucket>,
    media: HashMap<String, StoredMedia>,
    media_order: VecDeque<String>,
    media_bytes: usize,
    pub(crate) accepted: VecDeque<AcceptedSend>,
    pub(crate) requests: VecDeque<RecordedRequest>,
    pub(crate) requests_seen: u64,
    pub(crate) webhooks: VecDeque<WebhookAttempt>,
    pub(crate) alerts: VecDeque<Alert>,
    pub(crate) lanes: Lanes,
}

/// A message about to be stored.
pub(crate) struct NewMessage {
    pub(crate) id: String,
    pub(crate) provider: Provider,
    pub(crate) line: String,
    pub(crate) customer: String,
    pub(crate) origin: Origin,
    pub(crate) kind: String,
    pub(crate) text: Option<String>,
    pub(crate) content: Value,
    pub(crate) tick: Tick,
    pub(crate) context_id: Option<String>,
    pub(crate) reference: Option<String>,
    pub(crate) meta: Option<crate::meta::MetaExtra>,
    pub(crate) twilio: Option<crate::twilio::TwilioExtra>,
}

/// Customers remembered; far more than a load test makes, few enough to hold.
const KEEP_CUSTOMERS: usize = 500_000;

impl State {
    pub(crate) fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.clock_offset
    }

    pub(crate) fn advance_clock(&mut self, by: Duration) {
        self.clock_offset += chrono::Duration::from_std(by).unwrap_or(chrono::Duration::zero());
    }

    pub(crate) fn clear(&mut self) {
        *self = Self {
            clock_offset: self.clock_offset,
            settings: std::mem::take(&mut self.settings),
            faults: std::mem::take(&mut self.faults),
            meta_numbers: std::mem::take(&mut self.meta_numbers),
            templates: std::mem::take(&mut self.templates),
            twilio_accounts: std::mem::take(&mut self.twilio_accounts),
            requests_seen: self.requests_seen,
            ..Self::default()
        };
    }

    // Customers

    /// The customer with this number, made when unknown.
    pub(crate) fn customer(&mut self, number: &str) -> &mut Customer {
        if self.customers.len() >= KEEP_CUSTOMERS && !self.customers.contains_key(number) {
            self.customers.pop_first();
        }
        self.customers
            .entry(number.to_owned())
            .or_insert_with(|| Customer {
                number: number.to_owned(),
                name: "Customer".to_owned(),
                user_id: phone::user_id(number),
                username: None,
                reachable: true,
                marketing_stopped: false,
            })
    }

    pub(crate) fn customer_by_user_id(&self, user_id: &str) -> Option<&Customer> {
        self.customers.values().find(|c| c.user_id == user_id)
    }

    // Messages

    pub(crate) fn message(&self, id: &str) -> Option<&Message> {
        self.messages.get(id)
    }

    pub(crate) fn message_mut(&mut self, id: &str) -> Option<&mut Message> {
        self.messages.get_mut(id)
    }

    /// Newest first.
    pub(crate) fn messages_newest_first(&self) -> impl Iterator<Item = &Message> {
        self.message_order
            .iter()
            .rev()
            .filter_map(|id| self.messages.get(id))
    }

    pub(crate) fn insert_message(&mut self, new: NewMessage) -> Message {
        let now = self.now();
        let key = (new.line.clone(), new.customer.clone());
        let message = Message {
            id: new.id,
            provider: new.provider,
            line: new.line,
            customer: new.customer,
            origin: new.origin,
            kind: new.kind,
            text: new.text,
            content: new.content,
            tick: new.tick,
            error_code: None,
            context_id: new.context_id,
            reference: new.reference,
            at: now,
            updated_at: now,
            edited: false,
            revoked: false,
            customer_reaction: None,
            business_reaction: None,
            meta: new.meta,
            twilio: new.twilio,
        };
        if message.origin == Origin::Api {
            self.accepted.push_back(AcceptedSend {
                provider: message.provider,
                message_id: message.id.clone(),
                line: message.line.clone(),
                customer: message.customer.clone(),
                reference: message.reference.clone(),
                at: now,
            });
        }
        self.threads
            .entry(key)
            .or_default()
            .push_back(message.id.clone());
        self.message_order.push_back(message.id.clone());
        self.messages.insert(message.id.clone(), message.clone());
        self.forget_old_messages();
        message
    }

    fn forget_old_messages(&mut self) {
        let keep = self.settings.keep_messages.max(1);
        while self.message_order.len() > keep {
            let Some(id) = self.message_order.pop_front() else {
                break;
            };
            self.remove_message(&id);
        }
        while self.accepted.len() > keep {
            self.accepted.pop_front();
        }
    }

    /// Takes a message out. Its place in `message_order` may stay; readers skip it.
    pub(crate) fn remove_message(&mut self, id: &str) -> Option<Message> {
        let message = self.messages.remove(id)?;
        let key = (message.line.clone(), message.customer.clone());
        if let Some(thread) = self.threads.get_mut(&key) {
            // The oldest goes first as a rule, and threads of a load test are long.
            if thread.front().is_some_and(|first| first == id) {
                thread.pop_front();
            } else {
                thread.retain(|other| other != id);
            }
            if thread.is_empty() {
                self.threads.remove(&key);
            }
        }
        Some(message)
    }

    /// Moves a message of the business forward. Returns it with the tick it had, or nothing where the
    /// step is not forward.
    pub(crate) fn move_tick(
        &mut self,
        id: &str,
        tick: Tick,
        error_code: Option<u32>,
    ) -> Option<(Message, Tick)> {
        let now = self.now();
        let message = self.messages.get_mut(id)?;
        if message.is_from_customer() || message.tick.is_final() || tick <= message.tick {
            return None;
        }
        let before = message.tick;
        message.tick = tick;
        message.error_code = error_code;
        message.updated_at = now;
        if let Some(extra) = &mut message.twilio {
            extra.note_tick(tick, error_code, now);
        }
        Some((message.clone(), before))
    }

    /// Notes that the customer wrote, which opens the 24-hour window.
    pub(crate) fn open_window(&mut self, line: &str, customer: &str) {
        let now = self.now();
        self.last_inbound
            .insert((line.to_owned(), customer.to_owned()), now);
        if self.last_inbound.len() > KEEP_CUSTOMERS {
            self.last_inbound
                .retain(|_, at| now - *at < chrono::Duration::hours(24));
        }
    }

    /// When the 24-hour window closes, if the customer ever wrote.
    pub(crate) fn window_closes_at(&self, line: &str, customer: &str) -> Option<DateTime<Utc>> {
        self.last_inbound
            .get(&(line.to_owned(), customer.to_owned()))
            .map(|at| *at + chrono::Duration::hours(24))
    }

    pub(crate) fn window_is_open(&self, line: &str, customer: &str) -> bool {
        self.window_closes_at(line, customer)
            .is_some_and(|closes| closes > self.now())
    }

    // Limits

    /// Takes one from the number's throughput; true where no limit is set.
    pub(crate) fn take_throughput(&mut self, phone_number_id: &str) -> bool {
        let now = self.now();
        let Some(rate) = self.settings.throughput_per_second else {
            return true;
        };
        let bucket = self
            .throughput
            .entry(phone_number_id.to_owned())
            .or_insert_with(|| Bucket::throughput(rate, now));
        if !bucket.is_for(rate) {
            *bucket = Bucket::throughput(rate, now);
        }
        bucket.take(now)
    }

    /// Takes one from the pair's allowance; true where the limit is off.
    pub(crate) fn take_pair(&mut self, phone_number_id: &str, customer: &str) -> bool {
        let now = self.now();
        if !self.settings.pair_rate {
            return true;
        }
        if self.pairs.len() > 100_000 {
            self.pairs.retain(|_, bucket| !bucket.is_full(now));
        }
        self.pairs
            .entry((phone_number_id.to_owned(), customer.to_owned()))
            .or_insert_with(|| Bucket::pair(now))
            .take(now)
    }

    // Media

    pub(crate) fn media(&self, id: &str) -> Option<&StoredMedia> {
        let now = self.now();
        self.media
            .get(id)
            .filter(|media| media.expires_at.is_none_or(|expires| expires > now))
    }

    pub(crate) fn media_of_message(&self, sid: &str) -> Vec<StoredMedia> {
        let mut found: Vec<_> = self
            .media
            .values()
            .filter(|media| media.parent.as_deref() == Some(sid))
            .cloned()
            .collect();
        found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        found
    }

    pub(crate) fn insert_media(&mut self, media: StoredMedia) {
        self.media_bytes += media.bytes.len();
        self.media_order.push_back(media.id.clone());
        self.media.insert(media.id.clone(), media);
        while self.media_bytes > MEDIA_BUDGET
            || self.media_order.len() > self.settings.keep_messages.max(1)
        {
            let Some(id) = self.media_order.pop_front() else {
                break;
            };
            self.remove_media(&id);
        }
    }

    pub(crate) fn remove_media(&mut self, id: &str) -> Option<StoredMedia> {
        let media = self.media.remove(id)?;
        self.media_bytes -= media.bytes.len();
        Some(media)
    }

    // Records

    pub(crate) fn record_webhook(&mut self, attempt: WebhookAttempt) {
        let keep = self.settings.keep_requests.max(1);
        self.webhooks.push_back(attempt);
        while self.webhooks.len() > keep {
            self.webhooks.pop_front();
        }
    }

    pub(crate) fn record_request(&mut self, mut request: RecordedRequest) -> RecordedRequest {
        self.requests_seen += 1;
        request.number = self.requests_seen;
        request.at = self.now();
        let keep = self.settings.keep_requests.max(1);
        self.requests.push_back(request.clone());
        while self.requests.len() > keep {
            self.requests.pop_front();
        }
        request
    }

    pub(crate) fn record_answer(&mut self, number: u64, status: u16) {
        // Numbers rise by one, so the place is known.
        let first = self.requests.front().map_or(0, |request| request.number);
        if let Some(index) = number.checked_sub(first)
            && let Ok(index) = usize::try_from(index)
            && let Some(request) = self.requests.get_mut(index)
        {
            request.answered = Some(status);
        }
    }

    pub(crate) fn record_alert(&mut self, code: u32, url: &str) {
        let at = self.now();
        self.alerts.push_back(Alert {
            code,
            url: url.to_owned(),
            at,
        });
        while self.alerts.len() > 1_000 {
            self.alerts.pop_front();
        }
    }

    /// Finds the Meta number a line names.
    pub(crate) fn meta_number(&self, phone_number_id: &str) -> Result<&MetaNumber, WorldError> {
        self.meta_numbers
            .get(phone_number_id)
            .ok_or(WorldError::UnknownLine)
    }
}
