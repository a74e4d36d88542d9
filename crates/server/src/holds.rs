//! Why a message waits, and until when, in words.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;
use wasel_db::holds::{self, Waiting};
use wasel_db::messages::Message;
use wasel_domain::OrgId;
use wasel_providers::Language;

/// Why a message has not left yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HoldView {
    /// For programs: `quiet_hours`, `frequency_cap`, `daily_reach`, `warm_up`, `pair_pace`, `order`, `retry`, `unknown`,
    /// `channel_paused`, `channel_blocked`, `phone_not_connected`, `circuit_breaker`, `job_paused`, `channel_rate`. There
    /// will be more.
    pub reason: String,
    /// When it is looked at again; `null` where that depends on somebody.
    pub until: Option<DateTime<Utc>>,
    /// For people, in the organisation's language.
    pub message: String,
}

impl HoldView {
    /// A reason in words.
    #[must_use]
    pub fn new(reason: &str, until: Option<DateTime<Utc>>, language: Language) -> Self {
        Self {
            reason: reason.to_owned(),
            until,
            message: words(reason, language).to_owned(),
        }
    }

    /// With what the channel says of itself.
    fn because(mut self, detail: Option<&str>) -> Self {
        if let Some(detail) = detail.filter(|detail| !detail.is_empty()) {
            self.message = format!("{} ({detail})", self.message);
        }
        self
    }
}

/// Why each of these messages waits, of those that do.
pub async fn of_messages(
    connection: &mut PgConnection,
    org: OrgId,
    messages: &[Message],
) -> wasel_db::Result<HashMap<Uuid, HoldView>> {
    let waiting: Vec<Uuid> = messages
        .iter()
        .filter(|message| message.direction == "outbound" && may_wait(&message.status))
        .map(|message| message.id)
        .collect();
    if waiting.is_empty() {
        return Ok(HashMap::new());
    }
    let now = Utc::now();
    let rows = holds::list(connection, org, &waiting).await?;
    Ok(rows
        .iter()
        .filter_map(|row| Some((row.message_id, hold_of(row, now)?)))
        .collect())
}

fn may_wait(status: &str) -> bool {
    matches!(status, "pending" | "queued" | "sending" | "unknown")
}

/// The first reason that applies: its own, the channel's state, its phone's, its breaker, the bulk job's state, the channel's rate.
fn hold_of(row: &Waiting, now: DateTime<Utc>) -> Option<HoldView> {
    if row.is_leased {
        return None;
    }
    let language = Language::of_locale(&row.locale);
    let hold = |reason: &str, until| Some(HoldView::new(reason, until, language));
    if let (Some(reason), Some(due)) = (&row.hold_reason, row.due_at)
        && due > now
    {
        return hold(reason, Some(due));
    }
    if row.channel_status != "active" {
        let reason = match row.channel_status.as_str() {
            "blocked" => "channel_blocked",
            _ => "channel_paused",
        };
        return hold(reason, None).map(|hold| hold.because(row.channel_reason.as_deref()));
    }
    if row
        .phone_status
        .as_deref()
        .is_some_and(|s| s != "connected")
    {
        return hold("phone_not_connected", None)
            .map(|hold| hold.because(row.phone_reason.as_deref()));
    }
    if let Some(until) = row.breaker_until.filter(|until| *until > now) {
        return hold("circuit_breaker", Some(until))
            .map(|hold| hold.because(row.breaker_reason.as_deref()));
    }
    if row.job_status.as_deref().is_some_and(|s| s != "running") {
        return hold("job_paused", None).map(|hold| hold.because(row.job_reason.as_deref()));
    }
    let next = row.next_at.filter(|next| *next > now)?;
    hold("channel_rate", Some(next))
}

fn words(reason: &str, language: Language) -> &'static str {
    let (english, arabic) = match reason {
        "quiet_hours" => (
            "It is quiet time for this person; the message goes out when it ends.",
            "هذا وقت هدوء لدى هذا الشخص؛ تُرسل الرسالة عند انتهائه.",
        ),
        "frequency_cap" => (
            "This person has got as many messages of this kind as you allow; this one waits its turn.",
            "وصل هذا الشخص إلى الحد الذي حددته لهذا النوع من الرسائل؛ تنتظر هذه الرسالة دورها.",
        ),
        "daily_reach" => (
            "As many people have been written to in 24 hours as the provider allows; sending goes on as room comes free.",
            "بلغ عدد من روسلوا خلال 24 ساعة الحد الذي يسمح به مزوّد الخدمة؛ يستمر الإرسال كلما توفر مكان.",
        ),
        "warm_up" => (
            "The number is new and writes to few people at first, so that it is not banned.",
            "الرقم جديد ويراسل عدداً قليلاً في البداية حتى لا يُحظر.",
        ),
        "pair_pace" => (
            "Too many messages to this person in a short time; this one waits a moment.",
            "أُرسلت رسائل كثيرة إلى هذا الشخص في وقت قصير؛ تنتظر هذه الرسالة قليلاً.",
        ),
        "order" => (
            "An earlier message of the conversation goes first.",
            "تسبقها رسالة أقدم في المحادثة نفسها.",
        ),
        "retry" => (
            "The provider did not take it; it is sent again.",
            "لم يقبلها مزوّد الخدمة؛ سيُعاد إرسالها.",
        ),
        "unknown" => (
            "It is not known whether the provider took it; its report is awaited.",
            "لا يُعرف هل استلمها مزوّد الخدمة؛ ننتظر إفادته.",
        ),
        "channel_paused" => ("The channel is paused.", "القناة متوقفة مؤقتاً."),
        "channel_blocked" => (
            "The channel may not send until somebody mends it.",
            "لا يُسمح للقناة بالإرسال حتى يعالج أحد المشكلة.",
        ),
        "phone_not_connected" => (
            "The linked phone is not connected; the message goes out once it is.",
            "الهاتف المربوط غير متصل؛ تُرسل الرسالة عند اتصاله.",
        ),
        "circuit_breaker" => (
            "The provider refuses too much from this channel; it rests before it tries again.",
            "يرفض مزوّد الخدمة كثيراً من رسائل هذه القناة؛ تستريح قبل أن تحاول من جديد.",
        ),
        "job_paused" => ("The bulk job is paused.", "الإرسال الجماعي متوقف مؤقتاً."),
        "channel_rate" => (
            "It waits its turn: the channel sends as fast as it may.",
            "تنتظر دورها: ترسل القناة بأقصى سرعة مسموح بها.",
        ),
        _ => ("It waits.", "قيد الانتظار."),
    };
    match language {
        Language::English => english,
        Language::Arabic => arabic,
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::governor::HoldReason;

    fn waiting() -> Waiting {
        Waiting {
            message_id: Uuid::nil(),
            hold_reason: None,
            due_at: None,
            is_leased: false,
            channel_status: "active".to_owned(),
            channel_reason: None,
            phone_status: None,
            phone_reason: None,
            job_status: None,
            job_reason: None,
            breaker_until: None,
            breaker_reason: None,
            next_at: None,
            locale: "en".to_owned(),
        }
    }

    #[test]
    fn every_reason_of_the_governor_has_words_in_both_languages() {
        let governors = [
            HoldReason::PairPace,
            HoldReason::QuietHours,
            HoldReason::FrequencyCap,
            HoldReason::DailyReach,
            HoldReason::WarmUp,
        ];
        for reason in governors
            .map(HoldReason::as_str)
            .into_iter()
            .chain(["order"])
        {
            for language in [Language::Arabic, Language::English] {
                assert_ne!(words(reason, language), words("", language));
            }
            assert!(words(reason, Language::English).is_ascii());
            assert!(!words(reason, Language::Arabic).is_ascii());
        }
    }

    #[test]
    fn its_own_reason_comes_first_then_the_channels_state_its_phone_its_breaker_the_job_and_the_rate()
     {
        let now = Utc::now();
        let soon = Some(now + TimeDelta::minutes(1));
        let mut row = Waiting {
            hold_reason: Some("quiet_hours".to_owned()),
            due_at: soon,
            channel_status: "blocked".to_owned(),
            channel_reason: Some("token expired".to_owned()),
            breaker_until: soon,
            next_at: soon,
            ..waiting()
        };
        let reason = |row: &Waiting| hold_of(row, now).map(|hold| (hold.reason, hold.until));
        assert_eq!(reason(&row), Some(("quiet_hours".to_owned(), soon)));
        row.due_at = None;
        assert_eq!(reason(&row), Some(("channel_blocked".to_owned(), None)));
        assert!(
            hold_of(&row, now)
                .unwrap()
                .message
                .contains("token expired")
        );
        row.channel_status = "active".to_owned();
        row.phone_status = Some("disconnected".to_owned());
        assert_eq!(reason(&row), Some(("phone_not_connected".to_owned(), None)));
        row.phone_status = Some("connected".to_owned());
        assert_eq!(reason(&row), Some(("circuit_breaker".to_owned(), soon)));
        row.breaker_until = Some(now - TimeDelta::seconds(1));
        row.job_status = Some("paused".to_owned());
        assert_eq!(reason(&row), Some(("job_paused".to_owned(), None)));
        row.job_status = Some("running".to_owned());
        assert_eq!(reason(&row), Some(("channel_rate".to_owned(), soon)));
        row.is_leased = true;
        assert_eq!(reason(&row), None, "it is on its way");
        assert_eq!(reason(&waiting()), None, "nothing is in its way");
    }
}
