//! How a session's life with WhatsApp ends, and what is to be done about it.

use whatsapp_rust::prelude::Event;
use whatsapp_rust::types::events::{ConnectFailureReason, LoggedOut, TemporaryBan};

use crate::host::{SessionNews, StopReason};

/// What an event means for the connection.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    /// For good, or until somebody does something.
    Final(SessionNews),
    /// WhatsApp refuses our version: a newer one may do.
    Outdated,
    /// It will be tried again.
    Passing(&'static str),
}

pub(super) fn of(event: &Event) -> Option<End> {
    Some(match event {
        Event::LoggedOut(out) => logged_out(out),
        Event::StreamReplaced(_) => replaced(),
        Event::TemporaryBan(ban) => stopped(StopReason::Banned, banned(ban)),
        Event::ClientOutdated(_) => End::Outdated,
        Event::ConnectFailure(failure) => match failure.reason {
            reason if reason.should_reconnect() => End::Passing("WhatsApp is not available"),
            ConnectFailureReason::TempBanned => stopped(
                StopReason::Banned,
                "WhatsApp blocked the account for a time it does not tell".to_owned(),
            ),
            reason => stopped(
                StopReason::Refused,
                format!("WhatsApp refused the connection ({})", reason.code()),
            ),
        },
        Event::PairingQrCodesExhausted(_) => stopped(
            StopReason::NotLinked,
            "no phone scanned the code in time".to_owned(),
        ),
        Event::QrScannedWithoutMultidevice(_) => stopped(
            StopReason::NotLinked,
            "the phone's WhatsApp is too old to link devices".to_owned(),
        ),
        Event::PairError(_) => stopped(
            StopReason::NotLinked,
            "the phone could not be linked: its answer was not valid".to_owned(),
        ),
        Event::PairPasskeyError(failed) => stopped(
            StopReason::NotLinked,
            if failed.continuation {
                "the passkey was not accepted".to_owned()
            } else {
                "the passkey could not be asked for".to_owned()
            },
        ),
        Event::PairingCodeError(failed) => stopped(
            StopReason::NotLinked,
            match failed.backoff {
                Some(wait) => format!(
                    "WhatsApp gives no pairing code; it asks to wait {} seconds",
                    wait.as_secs()
                ),
                None => "WhatsApp gives no pairing code for this number".to_owned(),
            },
        ),
        _ => return None,
    })
}

fn stopped(reason: StopReason, detail: String) -> End {
    End::Final(SessionNews::Stopped { reason, detail })
}

fn replaced() -> End {
    stopped(
        StopReason::Replaced,
        "another program connected as this linked device".to_owned(),
    )
}

/// Only a confirmed log-out wipes the state. The crate reports as one whatever ends a session by force.
fn logged_out(out: &LoggedOut) -> End {
    let conflict = out.raw.as_ref().and_then(|raw| {
        let conflict = raw.get_optional_child("conflict")?;
        Some(conflict.attrs.get("type")?.as_str().into_owned())
    });
    match (out.reason, conflict.as_deref()) {
        (ConnectFailureReason::LoggedOut, None | Some("device_removed")) => {
            End::Final(SessionNews::LoggedOut {
                detail: "the device was unlinked on the phone".to_owned(),
            })
        }
        (ConnectFailureReason::LoggedOut, Some(_)) => replaced(),
        (ConnectFailureReason::AccountLocked, _) => stopped(
            StopReason::Banned,
            "WhatsApp locked the account; the phone says more".to_owned(),
        ),
        (reason, _) => stopped(
            StopReason::Refused,
            format!("WhatsApp ended the session ({})", reason.code()),
        ),
    }
}

fn banned(ban: &TemporaryBan) -> String {
    let minutes = ban.expire.num_minutes().max(1);
    let span = match minutes {
        0..120 => format!("{minutes} minutes"),
        120..2_880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 1_440),
    };
    let until = (chrono::Utc::now() + ban.expire).format("%Y-%m-%d %H:%M UTC");
    format!(
        "WhatsApp blocked the account for {span}, until {until}: {}",
        ban.code
    )
}

#[cfg(test)]
mod tests {
    use chrono::Duration;
    use whatsapp_rust::NodeBuilder;
    use whatsapp_rust::types::events::{
        ClientOutdated, ConnectFailure, PairingQrCodesExhausted, StreamReplaced, TempBanReason,
    };

    use super::*;

    fn out(reason: ConnectFailureReason, conflict: Option<&'static str>) -> Event {
        let raw = conflict.map(|kind| {
            let child = NodeBuilder::new("conflict").attr("type", kind).build();
            NodeBuilder::new("stream:error").children([child]).build()
        });
        Event::LoggedOut(
            LoggedOut::builder()
                .on_connect(raw.is_none())
                .reason(reason)
                .maybe_raw(raw)
                .build(),
        )
    }

    fn reason(event: &Event) -> Option<StopReason> {
        match of(event) {
            Some(End::Final(SessionNews::Stopped { reason, .. })) => Some(reason),
            _ => None,
        }
    }

    #[test]
    fn only_a_confirmed_log_out_wipes_the_state() {
        for confirmed in [
            out(ConnectFailureReason::LoggedOut, None),
            out(ConnectFailureReason::LoggedOut, Some("device_removed")),
        ] {
            assert!(matches!(
                of(&confirmed),
                Some(End::Final(SessionNews::LoggedOut { .. }))
            ));
        }
        assert_eq!(
            reason(&out(ConnectFailureReason::LoggedOut, Some("something_new"))),
            Some(StopReason::Replaced)
        );
        assert_eq!(
            reason(&out(ConnectFailureReason::AccountLocked, None)),
            Some(StopReason::Banned)
        );
        assert_eq!(
            reason(&out(ConnectFailureReason::UnknownLogout, None)),
            Some(StopReason::Refused)
        );
    }

    #[test]
    fn what_needs_a_person_stops_and_what_passes_is_tried_again() {
        let failure =
            |reason| Event::ConnectFailure(ConnectFailure::builder().reason(reason).build());
        assert_eq!(
            of(&failure(ConnectFailureReason::ServiceUnavailable)),
            Some(End::Passing("WhatsApp is not available"))
        );
        assert_eq!(
            reason(&failure(ConnectFailureReason::BadUserAgent)),
            Some(StopReason::Refused)
        );
        assert_eq!(
            reason(&failure(ConnectFailureReason::TempBanned)),
            Some(StopReason::Banned)
        );
        assert_eq!(
            reason(&Event::StreamReplaced(StreamReplaced::builder().build())),
            Some(StopReason::Replaced)
        );
        let exhausted = PairingQrCodesExhausted::builder()
            .disconnected(true)
            .build();
        assert_eq!(
            reason(&Event::PairingQrCodesExhausted(exhausted)),
            Some(StopReason::NotLinked)
        );
        assert_eq!(
            of(&Event::ClientOutdated(ClientOutdated::builder().build())),
            Some(End::Outdated)
        );
    }

    #[test]
    fn a_ban_says_how_long_and_why() {
        let ban = TemporaryBan::builder()
            .code(TempBanReason::SentTooManySameMessage)
            .expire(Duration::hours(24))
            .build();
        let Some(End::Final(SessionNews::Stopped { reason, detail })) =
            of(&Event::TemporaryBan(ban))
        else {
            panic!("a ban stops");
        };
        assert_eq!(reason, StopReason::Banned);
        assert!(detail.contains("24 hours"), "{detail}");
        assert!(
            detail.contains("same message to too many people"),
            "{detail}"
        );
    }
}
