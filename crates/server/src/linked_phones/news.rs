//! What became of a session: the columns of its row that front ends watch, and what the people in charge are told.

use chrono::Utc;
use serde_json::{Value, json};
use wasel_db::notifications::{self, NewNotification};
use wasel_db::{SystemTx, organizations, session_keys, sessions};
use wasel_providers::Language;
use wasel_sessions::{HostError, Lease, SessionNews, StopReason};

use super::host::{host_error, row};
use super::qr;
use crate::state::AppState;

/// Writes it under the session's lease: the news of an older owner are refused.
pub(super) async fn record(
    state: &AppState,
    lease: &Lease,
    news: SessionNews,
) -> Result<(), HostError> {
    let patch = patch(&news).map_err(|error| HostError::Broken(error.to_string()))?;
    let write = async {
        let mut tx = state.db.system().await?;
        let (org, session) = (lease.session.org_id, lease.session.id);
        // A client that is being shut down still writes: not after the state is wiped.
        let logged_out = matches!(news, SessionNews::LoggedOut { .. });
        let allowed = if logged_out {
            sessions::revoke(&mut tx, &row(lease)).await?
        } else {
            sessions::is_newest(&mut tx, &row(lease)).await?
        };
        if !allowed {
            return Ok(false);
        }
        let is_final = logged_out || matches!(news, SessionNews::Stopped { .. });
        sessions::update(&mut tx, org.0, session, &patch, is_final).await?;
        if logged_out {
            session_keys::wipe(&mut tx, org, session).await?;
        }
        if let Some(alarm) = alarm(&news) {
            alert(&mut tx, lease, alarm).await?;
        }
        tx.commit().await?;
        Ok(true)
    };
    match write.await.map_err(host_error)? {
        true => Ok(()),
        false => Err(HostError::LeaseLost),
    }
}

/// Nothing to scan or type in any more.
fn without_codes(mut patch: Value) -> Value {
    for column in [
        "qr_code",
        "qr_expires_at",
        "pairing_code",
        "passkey_request",
        "passkey_code",
    ] {
        patch[column] = Value::Null;
    }
    patch
}

/// The columns that change.
fn patch(news: &SessionNews) -> anyhow::Result<Value> {
    let now = Utc::now();
    Ok(match news {
        SessionNews::Connecting { failures } => {
            without_codes(json!({ "status": "connecting", "retry_count": failures }))
        }
        SessionNews::QrCode { code, expires_at } => {
            let mut patch =
                without_codes(json!({ "status": "qr_pending", "connection_error": null }));
            patch["qr_code"] = json!(qr::data_url(code)?);
            patch["qr_expires_at"] = json!(expires_at);
            patch
        }
        SessionNews::PairingCode { code, expires_at } => {
            let mut patch =
                without_codes(json!({ "status": "qr_pending", "connection_error": null }));
            patch["pairing_code"] = json!(code);
            patch["qr_expires_at"] = json!(expires_at);
            patch
        }
        SessionNews::PasskeyRequested {
            request_options_json,
        } => {
            let options: Value = serde_json::from_str(request_options_json)?;
            let mut patch = without_codes(json!({ "status": "qr_pending" }));
            patch["passkey_request"] = options;
            patch
        }
        SessionNews::PasskeyConfirmation { code } => {
            let mut patch = without_codes(json!({ "status": "qr_pending" }));
            patch["passkey_code"] = json!(code);
            patch
        }
        SessionNews::Linked {
            jid,
            lid,
            phone,
            display_name,
        } => without_codes(json!({
            "status": "connecting", "whatsapp_id": jid, "whatsapp_lid": lid, "phone_number": phone,
            "display_name": display_name, "linked_at": now, "stop_reason": null, "pair_with_phone": null,
        })),
        SessionNews::Connected {
            jid,
            phone,
            display_name,
        } => {
            let mut patch = without_codes(json!({
                "status": "connected", "whatsapp_id": jid, "last_connected_at": now,
                "connection_error": null, "retry_count": 0, "stop_reason": null,
            }));
            for (column, known) in [("phone_number", phone), ("display_name", display_name)] {
                if let Some(known) = known {
                    patch[column] = json!(known);
                }
            }
            patch
        }
        SessionNews::Disconnected { reason, failures } => without_codes(json!({
            "status": "disconnected", "last_disconnected_at": now, "connection_error": reason,
            "retry_count": failures,
        })),
        SessionNews::Stopped { reason, detail } => {
            let status = match reason {
                StopReason::NotLinked | StopReason::Lost => "disconnected",
                StopReason::Replaced
                | StopReason::Banned
                | StopReason::Outdated
                | StopReason::Refused
                | StopReason::State => "error",
            };
            without_codes(json!({
                "status": status, "should_run": false, "stop_reason": reason.as_str(),
                "connection_error": detail, "last_disconnected_at": now,
            }))
        }
        SessionNews::LoggedOut { detail } => without_codes(json!({
            "status": "disconnected", "should_run": false, "stop_reason": "logged_out",
            "connection_error": detail, "last_disconnected_at": now, "linked_at": null, "whatsapp_id": null,
            "whatsapp_lid": null,
        })),
    })
}

/// What somebody has to look at.
struct Alarm {
    kind: &'static str,
    title: [&'static str; 2],
    advice: [&'static str; 2],
    detail: String,
}

/// Texts in Arabic and English.
fn alarm(news: &SessionNews) -> Option<Alarm> {
    let (kind, title, advice, detail) = match news {
        SessionNews::LoggedOut { detail } => (
            "session_logged_out",
            ["أُلغي ربط هاتف واتساب", "A WhatsApp phone was unlinked"],
            [
                "اربط الهاتف من جديد من صفحة الإعدادات. رسائلك المنتظرة محفوظة.",
                "Link the phone again in the settings. Waiting messages are kept.",
            ],
            detail,
        ),
        SessionNews::Stopped {
            reason: StopReason::Banned,
            detail,
        } => (
            "session_banned",
            [
                "حظر واتساب هذا الرقم مؤقتاً",
                "WhatsApp blocked this number for a time",
            ],
            [
                "انتظر حتى ينتهي الحظر، ثم أعد الاتصال وأرسل ببطء لمن يعرفونك فقط.",
                "Wait until it ends, then connect again and write slowly, to people who know you.",
            ],
            detail,
        ),
        SessionNews::Stopped {
            reason: StopReason::Replaced,
            detail,
        } => (
            "session_stopped",
            [
                "اتصل برنامج آخر بنفس الجلسة",
                "Another program connected with this session",
            ],
            [
                "أوقف البرنامج الآخر ثم أعد الاتصال.",
                "Stop the other program, then connect again.",
            ],
            detail,
        ),
        SessionNews::Stopped {
            reason: StopReason::Outdated | StopReason::Refused | StopReason::State,
            detail,
        } => (
            "session_stopped",
            [
                "توقّف هاتف واتساب المربوط",
                "A linked WhatsApp phone has stopped",
            ],
            [
                "راجع السبب، ثم أعد الاتصال من صفحة الإعدادات.",
                "Look at the reason, then connect again in the settings.",
            ],
            detail,
        ),
        _ => return None,
    };
    Some(Alarm {
        kind,
        title,
        advice,
        detail: detail.clone(),
    })
}

/// Tells the owners and admins, in the organisation's language.
async fn alert(tx: &mut SystemTx, lease: &Lease, alarm: Alarm) -> wasel_db::Result<()> {
    let org = lease.session.org_id;
    let locale = organizations::find(tx, org)
        .await?
        .map(|organization| organization.locale)
        .unwrap_or_default();
    let language = match Language::of_locale(&locale) {
        Language::Arabic => 0,
        Language::English => 1,
    };
    let notice = NewNotification {
        user_id: None,
        kind: alarm.kind.to_owned(),
        level: "error".to_owned(),
        title: alarm.title[language].to_owned(),
        body: Some(alarm.detail),
        advice: Some(alarm.advice[language].to_owned()),
        data: json!({ "session_id": lease.session.id, "channel_id": lease.session.channel_id }),
    };
    notifications::insert(tx, org, &notice).await?;
    Ok(())
}
