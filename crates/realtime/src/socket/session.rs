//! What a client may ask for over its socket, message by message.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::Utc;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::rate::Rate;
use super::requests::{parse, read_broadcast, read_presence};
use super::{ConnectParams, Frame, messages};
use crate::auth::{Access, Claims, ErrorCode, TokenError, TopicRights, is_opaque_key};
use crate::binding;
use crate::codec::{Body, Incoming, decode_binary, decode_text};
use crate::hub::{Hub, Join, Membership, TOPIC_PREFIX, TopicKey, TrackOutcome};
use crate::outbox::Outbox;

/// Longest topic and presence key.
const MAX_NAME_BYTES: usize = 1024;

/// The channels of one socket.
pub(super) struct Session {
    hub: Arc<Hub>,
    outbox: Arc<Outbox>,
    id: u64,
    /// The token of joins that carry none.
    apikey: Option<Arc<str>>,
    channels: HashMap<Arc<str>, Channel>,
    rate: Rate,
    /// Not later than the next moment at which a channel's token must be looked at.
    next_check: Option<Instant>,
    /// Since when there is no channel because the last was ended for its token.
    unauthorized_since: Option<Instant>,
    /// The tenant that the connection names.
    org_id: Option<Uuid>,
}

struct Channel {
    membership: Membership,
    join_ref: String,
    token: Arc<str>,
    expires_at: Option<Instant>,
    recheck_at: Instant,
    echo: bool,
    acknowledge: bool,
    rights: TopicRights,
}

impl Channel {
    fn due_at(&self) -> Instant {
        self.expires_at
            .map_or(self.recheck_at, |at| at.min(self.recheck_at))
    }
}

impl Session {
    pub fn new(hub: Arc<Hub>, outbox: Arc<Outbox>, params: ConnectParams) -> Self {
        Self {
            id: hub.next_socket(),
            rate: Rate::new(hub.limits.messages_per_second),
            hub,
            outbox,
            apikey: params.apikey,
            org_id: params.org_id,
            channels: HashMap::new(),
            next_check: None,
            unauthorized_since: None,
        }
    }

    /// When [`Self::check_due`] or [`Self::is_unauthorized`] has something to say.
    pub fn next_check(&self) -> Option<Instant> {
        let ends = self
            .unauthorized_since
            .map(|since| since + self.hub.limits.unauthorized);
        [self.next_check, ends].into_iter().flatten().min()
    }

    /// Whether nobody who may listen has been here for long enough to close the socket.
    pub fn is_unauthorized(&self) -> bool {
        self.unauthorized_since
            .is_some_and(|since| since + self.hub.limits.unauthorized <= Instant::now())
    }

    /// Lets channels that have fallen behind read history.
    pub fn catch_up(&mut self) {
        for channel in self.channels.values_mut() {
            channel.membership.catch_up();
        }
    }

    /// Does what a frame asks. Frames that mean nothing are dropped.
    pub async fn handle(&mut self, frame: Frame) {
        let too_large = frame.len() > self.hub.limits.frame_bytes;
        let message = match &frame {
            Frame::Text(text) => decode_text(self.outbox.vsn, text),
            Frame::Binary(bytes) => decode_binary(self.outbox.vsn, bytes),
            Frame::Close => None,
        };
        let Some(message) = message else {
            self.count_dropped();
            return;
        };
        let name = match &message.body {
            Body::Broadcast { .. } => "broadcast",
            Body::Event { name, .. } => name.as_str(),
        };
        if too_large {
            self.count_dropped();
            if name == "broadcast" {
                self.refuse_large_broadcast(&message);
            }
            return;
        }
        if message.topic == "phoenix" {
            if name == "heartbeat" {
                self.reply_ok(&message);
            }
            return;
        }
        match name {
            "phx_join" => self.join(&message).await,
            "phx_leave" => self.leave(&message),
            "access_token" => self.access_token(&message).await,
            "broadcast" => self.broadcast(message),
            "presence" => self.presence(&message),
            _ => {}
        }
    }

    /// Ends the channels whose token has expired and verifies those that are due.
    pub async fn check_due(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self
            .channels
            .iter()
            .filter(|(_, channel)| channel.due_at() <= now)
            .map(|(topic, _)| topic.clone())
            .collect();
        self.recheck(due).await;
    }

    /// Verifies the tokens of all channels now.
    pub async fn recheck_all(&mut self) {
        let topics = self.channels.keys().cloned().collect();
        self.recheck(topics).await;
    }

    /// Tells all channels to join again, elsewhere.
    pub fn end_all(&mut self) {
        for (topic, channel) in self.channels.drain() {
            let frame = messages::channel_error(self.outbox.vsn, &topic, &channel.join_ref);
            self.outbox.push(frame);
        }
    }

    async fn join(&mut self, message: &Incoming) {
        // Whatever becomes of it, a new join ends the one before, as in Phoenix.
        self.channels.remove(message.topic.as_str());
        if let Err(error) = self.try_join(message).await {
            self.reply_error(message, &json!({ "reason": error.to_string() }));
        }
    }

    async fn try_join(&mut self, message: &Incoming) -> Result<(), TokenError> {
        let limits = self.hub.limits;
        if !self.allow_message() {
            return Err(TokenError::new(
                ErrorCode::ClientJoinRateLimitReached,
                "Too many messages per second",
            ));
        }
        let named = message
            .topic
            .strip_prefix(TOPIC_PREFIX)
            .is_some_and(|name| !name.is_empty());
        if !named || message.topic.len() > MAX_NAME_BYTES {
            return Err(TokenError::new(
                ErrorCode::TopicNameRequired,
                "You must provide a topic name",
            ));
        }
        if self.channels.len() >= limits.channels_per_socket {
            return Err(TokenError::new(
                ErrorCode::ChannelRateLimitReached,
                "Too many channels on this connection",
            ));
        }
        let malformed = |text: &str| TokenError::new(ErrorCode::UnknownErrorOnChannel, text);
        let payload: Value = parse(&message.body).unwrap_or_default();
        let config = &payload["config"];
        let asked = binding::read(config.get("postgres_changes")).map_err(malformed)?;
        if asked.len() > limits.bindings_per_channel {
            return Err(malformed("Too many postgres_changes bindings"));
        }
        let presence_key = match config["presence"]["key"].as_str() {
            Some(key) if key.len() > MAX_NAME_BYTES => {
                return Err(malformed("The presence key is too long"));
            }
            Some(key) if !key.is_empty() => key.to_owned(),
            _ => Uuid::new_v4().to_string(),
        };
        let token = payload["access_token"]
            .as_str()
            .filter(|token| !is_opaque_key(token))
            .map(|token| self.share_token(token))
            .or_else(|| self.apikey.clone());
        let Some(token) = token else {
            return Err(TokenError::new(
                ErrorCode::Unauthorized,
                "A token is needed to join. Sign in first",
            ));
        };
        let (access, claims) = self.authorize(&token).await?;
        let private = config["private"].as_bool().unwrap_or(false);
        let rights = self.open(private, &claims, &message.topic).await?;
        // Here a subscription is live before the reply. A client that asks to wait for that wants no reply if it is not.
        if config["postgres_changes_options"]["wait"] == true {
            let problem = self.hub.problem_of(&asked, &access.scope.role);
            if !problem.is_empty() {
                return Err(malformed(&problem));
            }
        }
        let checked = Checked::new(&access, self.recheck_interval());

        // Without a reference of its own the join answers to none, as with any other client.
        let join_ref = message
            .join_ref
            .clone()
            .or_else(|| message.reference.clone())
            .unwrap_or_default();
        let topic: Arc<str> = Arc::from(message.topic.as_str());
        let membership = self.hub.join(
            access.org_id,
            access.scope,
            Join {
                socket: self.id,
                outbox: &self.outbox,
                topic: TopicKey {
                    name: topic.clone(),
                    private,
                },
                join_ref: &join_ref,
                reference: message.reference.as_deref(),
                asked,
                user_id: access.user_id,
                presence_key,
                // Clients from before the field existed all listen.
                hears_presence: config["presence"]["enabled"].as_bool().unwrap_or(true),
                wants_replay: config["broadcast"]["replay"].is_object(),
            },
        );
        let channel = Channel {
            membership,
            join_ref,
            token,
            expires_at: checked.expires_at,
            recheck_at: checked.recheck_at,
            echo: config["broadcast"]["self"].as_bool().unwrap_or(false),
            acknowledge: config["broadcast"]["ack"].as_bool().unwrap_or(false),
            rights,
        };
        let due_at = channel.due_at();
        self.channels.insert(topic, channel);
        self.unauthorized_since = None;
        self.look_again_at(due_at);
        Ok(())
    }

    /// What may be done on a topic; on a public one everything.
    async fn open(
        &self,
        private: bool,
        claims: &Claims,
        topic: &str,
    ) -> Result<TopicRights, TokenError> {
        if !private {
            return Ok(TopicRights { send: true });
        }
        let topic = topic.strip_prefix(TOPIC_PREFIX).unwrap_or(topic);
        let open = self.hub.authorizer.open_private(claims, topic);
        timeout(self.hub.limits.authorize, open)
            .await
            .unwrap_or_else(|_| Err(not_in_time()))
    }

    fn leave(&mut self, message: &Incoming) {
        let topic = message.topic.as_str();
        // A late leave of an earlier join must not end the current one.
        let current = self.channels.get(topic).is_some_and(|channel| {
            message
                .join_ref
                .as_ref()
                .is_none_or(|join_ref| *join_ref == channel.join_ref)
        });
        if current {
            self.channels.remove(topic);
        }
        self.reply_ok(message);
    }

    async fn access_token(&mut self, message: &Incoming) {
        let payload: Value = parse(&message.body).unwrap_or_default();
        let Some(token) = payload["access_token"].as_str() else {
            return;
        };
        let Some((topic, channel)) = self.channels.get_key_value(message.topic.as_str()) else {
            return;
        };
        if is_opaque_key(token) || *channel.token == *token {
            return;
        }
        let topic = topic.clone();
        // Past the rate the token goes unseen; when the old one ends the client joins again with its newest.
        if !self.allow_message() {
            return;
        }
        let token = self.share_token(token);
        let answer = self.authorize(&token).await;
        self.take_token(&topic, token, answer).await;
    }

    fn broadcast(&mut self, message: Incoming) {
        if !self.channels.contains_key(message.topic.as_str()) {
            return;
        }
        let allowed = self.allow_message();
        let Some(channel) = self.channels.get(message.topic.as_str()) else {
            return;
        };
        let Some((event, payload)) = read_broadcast(&message.body) else {
            self.count_dropped();
            return;
        };
        let may_send = channel.rights.send;
        if allowed && may_send {
            channel.membership.broadcast(&event, &payload, channel.echo);
        }
        if channel.acknowledge {
            if !may_send {
                self.reply_error(&message, &json!({ "error": "unauthorized" }));
            } else if allowed {
                self.reply_ok(&message);
            } else {
                self.reply_error(&message, &json!({ "error": "rate_limit_exceeded" }));
            }
        }
    }

    fn presence(&mut self, message: &Incoming) {
        if !self.channels.contains_key(message.topic.as_str()) {
            return;
        }
        let refuse = |code: ErrorCode, text: &str| json!({ "reason": TokenError::new(code, text).to_string() });
        if !self.allow_message() {
            let reason = refuse(
                ErrorCode::ClientPresenceRateLimitReached,
                "Too many messages per second",
            );
            self.reply_error(message, &reason);
            return;
        }
        let tracked = match read_presence(&message.body, self.hub.limits.presence_bytes) {
            Ok(tracked) => tracked,
            Err(problem) => {
                let reason = refuse(ErrorCode::UnknownErrorOnChannel, problem);
                self.reply_error(message, &reason);
                return;
            }
        };
        let Some(channel) = self.channels.get(message.topic.as_str()) else {
            return;
        };
        if let Some(payload) = &tracked {
            let refused = if !channel.rights.send {
                Some((ErrorCode::Unauthorized, "You may only listen on this topic"))
            } else if !channel.membership.has_room_for(payload) {
                Some((
                    ErrorCode::UnknownErrorOnChannel,
                    "Too much presence in this organization",
                ))
            } else {
                None
            };
            if let Some((code, text)) = refused {
                self.reply_error(message, &refuse(code, text));
                return;
            }
        }
        // The reply goes first: it ends the client's call, the diff is news for everybody.
        self.reply_ok(message);
        if channel.membership.track(tracked) == TrackOutcome::NotJoined {
            tracing::error!("a joined channel was unknown to the hub");
        }
    }

    async fn recheck(&mut self, topics: Vec<Arc<str>>) {
        // Channels share their token as a rule: it is verified once.
        let mut verified: Option<(Arc<str>, Verified)> = None;
        for topic in topics {
            let Some(channel) = self.channels.get(&topic) else {
                continue;
            };
            if channel.expires_at.is_some_and(|at| at <= Instant::now()) {
                let now = Utc::now();
                self.end(&topic, &TokenError::expired(now, now));
                continue;
            }
            let token = channel.token.clone();
            let answer = match &verified {
                Some((known, answer)) if *known == token => answer.clone(),
                _ => {
                    let answer = self.authorize(&token).await;
                    verified = Some((token.clone(), answer.clone()));
                    answer
                }
            };
            match answer {
                // Nothing was learnt about the token, it was good before and has not expired: look again soon.
                Err(error) if error.code == ErrorCode::UnknownErrorOnChannel => {
                    self.check_soon(&topic);
                }
                answer => self.take_token(&topic, token, answer).await,
            }
        }
        self.next_check = self.channels.values().map(Channel::due_at).min();
    }

    /// Lets a channel go on with what the token proves now, or ends it.
    async fn take_token(&mut self, topic: &Arc<str>, token: Arc<str>, answer: Verified) {
        let (access, claims) = match answer {
            Ok(verified) => verified,
            Err(error) => return self.end(topic, &error),
        };
        let Some(channel) = self.channels.get(topic) else {
            return;
        };
        if channel.membership.org_id() != access.org_id {
            let error = TokenError::new(
                ErrorCode::Unauthorized,
                "The token is of another organization",
            );
            return self.end(topic, &error);
        }
        let private = channel.membership.is_private();
        let rights = match self.open(private, &claims, topic).await {
            Ok(rights) => Some(rights),
            Err(error) if error.code == ErrorCode::UnknownErrorOnChannel => None,
            Err(error) => return self.end(topic, &error),
        };
        // What could not be asked now is asked soon.
        let interval = match rights {
            Some(_) => self.recheck_interval(),
            None => self.retry_interval(),
        };
        let checked = Checked::new(&access, interval);
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        channel.rights = rights.unwrap_or(channel.rights);
        channel.membership.rescope(&access.scope, access.user_id);
        if !channel.rights.send && channel.membership.track(None) == TrackOutcome::NotJoined {
            tracing::error!("a joined channel was unknown to the hub");
        }
        channel.token = token;
        channel.expires_at = checked.expires_at;
        channel.recheck_at = checked.recheck_at;
        let due_at = channel.due_at();
        self.look_again_at(due_at);
    }

    /// Not the same for all sockets: those that came at once need not ask at once.
    fn recheck_interval(&self) -> Duration {
        let share = u32::try_from(self.id % 64).unwrap_or_default();
        self.hub.limits.recheck * (192 + share) / 256
    }

    /// After a check that could not be made: soon, for it may have been asked for because a right ended. 1 to 5 s.
    fn retry_interval(&self) -> Duration {
        Duration::from_millis(1000 + self.id % 64 * 62)
    }

    fn check_soon(&mut self, topic: &Arc<str>) {
        let interval = self.retry_interval();
        if let Some(channel) = self.channels.get_mut(topic) {
            channel.recheck_at = Instant::now() + interval;
        }
    }

    /// Ends a channel so that the client joins it again with its newest token.
    fn end(&mut self, topic: &Arc<str>, error: &TokenError) {
        let Some(channel) = self.channels.remove(topic) else {
            return;
        };
        let vsn = self.outbox.vsn;
        let join_ref = &channel.join_ref;
        self.outbox
            .push(messages::token_refused(vsn, topic, join_ref, error));
        self.outbox
            .push(messages::channel_error(vsn, topic, join_ref));
        if self.channels.is_empty() {
            self.unauthorized_since = Some(Instant::now());
        }
    }

    /// What the token opens.
    async fn authorize(&self, token: &str) -> Verified {
        let authorize = self.hub.authorizer.authorize(token, self.org_id);
        let claims = timeout(self.hub.limits.authorize, authorize)
            .await
            .map_err(|_| not_in_time())??;
        Ok((Access::from_claims(&claims, Utc::now())?, claims))
    }

    /// One copy of a token for all channels that use it.
    fn share_token(&self, token: &str) -> Arc<str> {
        self.channels
            .values()
            .map(|channel| &channel.token)
            .find(|known| ***known == *token)
            .cloned()
            .unwrap_or_else(|| Arc::from(token))
    }

    fn look_again_at(&mut self, due_at: Instant) {
        self.next_check = Some(self.next_check.map_or(due_at, |at| at.min(due_at)));
    }

    fn refuse_large_broadcast(&self, message: &Incoming) {
        let acknowledge = self
            .channels
            .get(message.topic.as_str())
            .is_some_and(|channel| channel.acknowledge);
        if acknowledge {
            self.reply_error(message, &json!({ "error": "payload_size_exceeded" }));
        }
    }

    fn allow_message(&mut self) -> bool {
        let allowed = self.rate.allow();
        if !allowed {
            let counter = &self.hub.counters.messages_limited;
            counter.fetch_add(1, Ordering::Relaxed);
        }
        allowed
    }

    fn count_dropped(&self) {
        let counter = &self.hub.counters.frames_dropped;
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn reply_ok(&self, message: &Incoming) {
        self.outbox.push(messages::reply_ok(
            self.outbox.vsn,
            &message.topic,
            message.join_ref.as_deref(),
            message.reference.as_deref(),
            &json!({}),
        ));
    }

    fn reply_error(&self, message: &Incoming, response: &Value) {
        self.outbox.push(messages::reply_error(
            self.outbox.vsn,
            &message.topic,
            message.join_ref.as_deref(),
            message.reference.as_deref(),
            response,
        ));
    }
}

/// What a token opens and proves, or why it does not.
type Verified = Result<(Access, Claims), TokenError>;

fn not_in_time() -> TokenError {
    TokenError::new(
        ErrorCode::UnknownErrorOnChannel,
        "The token could not be verified in time",
    )
}

/// When verified claims must be looked at again, on the clock that timers use.
struct Checked {
    expires_at: Option<Instant>,
    recheck_at: Instant,
}

impl Checked {
    fn new(access: &Access, recheck: Duration) -> Self {
        let now = Instant::now();
        Self {
            // A token that ends beyond what the clock can say does not end.
            expires_at: access.expires_at.and_then(|at| {
                let left = (at - Utc::now()).to_std().unwrap_or_default();
                now.checked_add(left)
            }),
            recheck_at: now + recheck,
        }
    }
}
