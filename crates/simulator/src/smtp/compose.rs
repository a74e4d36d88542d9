//! Mail as customers' programs and mail servers write it.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::model::{CustomerEmail, EmailBounce, Mailbox, ReceivedEmail};

/// A customer's mail. `answered` is what it answers.
pub(super) fn customer_mail(
    mailbox: &Mailbox,
    email: &CustomerEmail,
    answered: Option<&ReceivedEmail>,
    message_id: &str,
    now: DateTime<Utc>,
) -> String {
    let mut mail = format!("Delivered-To: {}\r\n", mailbox.address);
    let mut header = |name: &str, value: String| mail += &format!("{name}: {value}\r\n");
    header("From", named(&email.name, &email.from));
    header("To", format!("<{}>", mailbox.address));
    header("Date", now.to_rfc2822());
    header("Message-ID", format!("<{message_id}>"));
    let mut text = email.text.clone();
    let mut subject = email.subject.clone();
    if let Some(answered) = answered {
        if subject.is_empty() {
            let marked = answered.subject.starts_with("Re: ");
            let mark = if marked { "" } else { "Re: " };
            subject = format!("{mark}{}", answered.subject);
        }
        header("In-Reply-To", format!("<{}>", answered.message_id));
        let ids = answered.references.iter().chain([&answered.message_id]);
        let ids: Vec<String> = ids.map(|id| format!("<{id}>")).collect();
        header("References", ids.join("\r\n "));
        let quoted: Vec<String> = answered
            .text
            .iter()
            .flat_map(|text| text.lines())
            .map(|line| format!("> {line}"))
            .collect();
        text += &format!(
            "\r\n\r\nOn {} {} wrote:\r\n\r\n{}\r\n",
            answered.at.format("%a, %b %-d, %Y at %-I:%M %p"),
            named(
                answered.from_name.as_deref().unwrap_or_default(),
                &answered.mail_from
            ),
            quoted.join("\r\n")
        );
    }
    header("Subject", encoded(&subject));
    header("MIME-Version", "1.0".to_owned());

    let mut parts = vec![part("text/plain; charset=utf-8", "", text.as_bytes())];
    if let Some(html) = &email.html {
        let html = part("text/html; charset=utf-8", "", html.as_bytes());
        parts = vec![multipart("alternative", &[parts.remove(0), html])];
    }
    for file in &email.attachments {
        let name = encoded(&file.filename);
        let kind = format!("{}; name=\"{name}\"", file.mime_type);
        let disposition = format!("Content-Disposition: attachment; filename=\"{name}\"\r\n");
        let bytes = BASE64.decode(&file.base64).unwrap_or_default();
        parts.push(part(&kind, &disposition, &bytes));
    }
    let body = match &parts[..] {
        [one] => one.clone(),
        several => multipart("mixed", several),
    };
    mail + &body
}

/// A report as RFC 3464 has it, with the headers of what came back.
pub(super) fn bounce(
    mailbox: &Mailbox,
    email: &ReceivedEmail,
    bounce: &EmailBounce,
    now: DateTime<Utc>,
) -> String {
    let recipient = email.recipients.first().cloned().unwrap_or_default();
    let words = match bounce.action.as_str() {
        "failed" => "could not be delivered",
        "delayed" => "has not been delivered yet",
        _ => "was delivered",
    };
    let status = format!(
        "Reporting-MTA: dns; simulator.example\r\n\r\n\
         Final-Recipient: rfc822; {recipient}\r\nAction: {}\r\nStatus: {}\r\n\
         Diagnostic-Code: smtp; 550 {} <{recipient}> {words}\r\n",
        bounce.action, bounce.status, bounce.status
    );
    let headers = email.raw.split("\r\n\r\n").next().unwrap_or_default();
    let plain = |kind: &str, text: &str| format!("Content-Type: {kind}\r\n\r\n{text}\r\n");
    let report = multipart(
        "report; report-type=delivery-status",
        &[
            plain(
                "text/plain",
                &format!("Your message to {recipient} {words}."),
            ),
            plain("message/delivery-status", &status),
            plain("text/rfc822-headers", headers),
        ],
    );
    format!(
        "Delivered-To: {0}\r\nReturn-Path: <>\r\n\
         From: Mail Delivery System <MAILER-DAEMON@simulator.example>\r\nTo: <{0}>\r\n\
         Subject: Delivery report: {words}\r\nDate: {1}\r\n\
         Message-ID: <{2}@simulator.example>\r\nAuto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n{report}",
        mailbox.address,
        now.to_rfc2822(),
        Uuid::new_v4()
    )
}

fn named(name: &str, address: &str) -> String {
    match name {
        "" => format!("<{address}>"),
        name => format!("{} <{address}>", encoded(name)),
    }
}

/// A header's words; an encoded word (RFC 2047) each few letters, where they need it.
fn encoded(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " .-_:!?'#".contains(c);
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    // 11 letters of up to 4 bytes keep below the 75 characters that an encoded word may have.
    let letters: Vec<char> = text.chars().filter(|c| !c.is_control()).collect();
    let words = letters.chunks(11).map(|chunk| {
        let chunk: String = chunk.iter().collect();
        format!("=?utf-8?B?{}?=", BASE64.encode(chunk))
    });
    words.collect::<Vec<_>>().join(" ")
}

fn part(kind: &str, headers: &str, bytes: &[u8]) -> String {
    let encoded = BASE64.encode(bytes);
    let lines: Vec<&str> = encoded
        .as_bytes()
        .chunks(76)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "Content-Type: {kind}\r\n{headers}Content-Transfer-Encoding: base64\r\n\r\n{}\r\n",
        lines.join("\r\n")
    )
}

fn multipart(kind: &str, parts: &[String]) -> String {
    let boundary = Uuid::new_v4().simple().to_string();
    let parts: String = parts
        .iter()
        .map(|part| format!("--{boundary}\r\n{part}\r\n"))
        .collect();
    format!(
        "Content-Type: multipart/{kind}; boundary=\"{boundary}\"\r\n\r\n{parts}--{boundary}--\r\n"
    )
}
