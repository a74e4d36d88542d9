//! Looking at the world: phones and threads for people, records for tests.

use std::collections::HashMap;

use super::{
    AcceptedSend, Alert, Line, Message, Origin, Phone, Provider, RecordedRequest, State,
    ThreadSummary, Tick, TwilioChannel, WebhookAttempt, World,
};

impl World {
    /// The business addresses a customer can write to.
    pub fn lines(&self) -> Vec<Line> {
        let state = self.lock();
        let meta = state.meta_numbers.values().map(|number| Line {
            provider: Provider::Meta,
            line: number.phone_number_id.clone(),
            number: number.display_phone_number.clone(),
            channel: "whatsapp".to_owned(),
            name: number.verified_name.clone(),
        });
        let twilio = state
            .twilio_accounts
            .values()
            .flat_map(|account| &account.numbers)
            .map(|number| Line {
                provider: Provider::Twilio,
                line: number.address(),
                number: number.number.clone(),
                channel: match number.channel {
                    TwilioChannel::Sms => "sms",
                    TwilioChannel::Whatsapp => "whatsapp",
                }
                .to_owned(),
                name: "Twilio".to_owned(),
            });
        meta.chain(twilio).collect()
    }

    /// Every simulated phone with its threads.
    pub fn phones(&self) -> Vec<Phone> {
        let state = self.lock();
        let mut threads: HashMap<&str, Vec<ThreadSummary>> = HashMap::new();
        for ((line, customer), ids) in &state.threads {
            if let Some(summary) = summarise(&state, line, customer, ids.iter()) {
                threads.entry(customer).or_default().push(summary);
            }
        }
        state
            .customers
            .values()
            .map(|customer| Phone {
                customer: customer.clone(),
                threads: threads.remove(customer.number.as_str()).unwrap_or_default(),
            })
            .collect()
    }

    /// The newest `limit` messages of a thread, oldest first.
    pub fn thread(&self, line: &str, customer: &str, limit: usize) -> Vec<Message> {
        let state = self.lock();
        let key = (line.to_owned(), customer.to_owned());
        let Some(ids) = state.threads.get(&key) else {
            return Vec::new();
        };
        ids.iter()
            .skip(ids.len().saturating_sub(limit))
            .filter_map(|id| state.message(id))
            .cloned()
            .collect()
    }

    pub fn message(&self, id: &str) -> Option<Message> {
        self.lock().message(id).cloned()
    }

    /// Requests the server made, oldest first.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.lock().requests.iter().cloned().collect()
    }

    /// Sends the providers took, oldest first. This is where a double send shows.
    pub fn accepted(&self) -> Vec<AcceptedSend> {
        self.lock().accepted.iter().cloned().collect()
    }

    /// Sends taken with this `biz_opaque_callback_data` or `StatusCallback`.
    pub fn accepted_with(&self, reference: &str) -> Vec<AcceptedSend> {
        let state = self.lock();
        state
            .accepted
            .iter()
            .filter(|send| send.reference.as_deref() == Some(reference))
            .cloned()
            .collect()
    }

    /// References that were taken more than once, with how often.
    pub fn double_sends(&self) -> Vec<(String, usize)> {
        let state = self.lock();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for reference in state.accepted.iter().filter_map(|s| s.reference.as_deref()) {
            *counts.entry(reference).or_default() += 1;
        }
        counts
            .into_iter()
            .filter(|(_, count)| *count > 1)
            .map(|(reference, count)| (reference.to_owned(), count))
            .collect()
    }

    /// Webhook attempts, oldest first.
    pub fn webhooks(&self) -> Vec<WebhookAttempt> {
        self.lock().webhooks.iter().cloned().collect()
    }

    /// Twilio's debugger entries, oldest first.
    pub fn alerts(&self) -> Vec<Alert> {
        self.lock().alerts.iter().cloned().collect()
    }

    /// Forgets requests, accepted sends, webhook attempts and alerts; threads stay.
    pub fn clear_records(&self) {
        let mut state = self.lock();
        state.requests.clear();
        state.accepted.clear();
        state.webhooks.clear();
        state.alerts.clear();
    }
}

fn summarise<'a>(
    state: &State,
    line: &str,
    customer: &str,
    ids: impl Iterator<Item = &'a String>,
) -> Option<ThreadSummary> {
    let messages: Vec<&Message> = ids.filter_map(|id| state.message(id)).collect();
    let last = (*messages.last()?).clone();
    let unread = messages
        .iter()
        .filter(|m| m.origin != Origin::Customer && matches!(m.tick, Tick::Sent | Tick::Delivered))
        .count();
    let is_sms = last.provider == Provider::Twilio && !line.starts_with("whatsapp:");
    Some(ThreadSummary {
        provider: last.provider,
        line: line.to_owned(),
        customer: customer.to_owned(),
        messages: messages.len(),
        unread,
        window_closes_at: state.window_closes_at(line, customer).filter(|_| !is_sms),
        last: Some(last),
    })
}
