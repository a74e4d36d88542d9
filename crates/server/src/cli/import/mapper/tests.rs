use chrono::DateTime;
use wasel_db::channels::Channel;
use wasel_db::import::Thread;

use super::*;
use crate::cli::import::shapes::Shape;

/// Of an organisation in Egypt with a channel of each family.
fn mapper(table: &str, columns: &str) -> Mapper {
    let columns: Vec<String> = columns.split(' ').map(str::to_owned).collect();
    let shape = Shape::recognise(table, &columns).unwrap();
    let channel = |kind: &str| Channel {
        org_id: Uuid::nil(),
        id: Uuid::nil(),
        kind: kind.to_owned(),
        name: kind.to_owned(),
        status: "active".to_owned(),
        status_reason: None,
        settings: serde_json::json!({}),
        limits: serde_json::json!({}),
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    };
    let channels = ["twilio_whatsapp", "twilio_sms", "email"].map(channel);
    Mapper {
        layout: Arc::new(Layout::new(shape, &columns)),
        source: "old".to_owned(),
        old_org: None,
        region: wasel_domain::phone::parse_region("EG").ok(),
        channels: Channels::new(channels.into(), &[]).unwrap(),
        customers: Arc::default(),
        numbers: Arc::default(),
        keep_pending: true,
        phones: HashMap::new(),
        found: HashMap::new(),
        unnamed: HashMap::new(),
    }
}

fn map(mapper: &mut Mapper, values: &[&str]) -> Result<Mapped, String> {
    let record = StringRecord::from(values);
    mapper
        .map(&record, 1)
        .map_err(|skip| skip.reason.into_owned())
}

#[track_caller]
fn message(mapper: &mut Mapper, values: &[&str]) -> NewMessage {
    match map(mapper, values) {
        Ok(Mapped::Message(message)) => message,
        Ok(_) => panic!("no message"),
        Err(reason) => panic!("{reason}"),
    }
}

#[track_caller]
fn refused(mapper: &mut Mapper, values: &[&str]) -> String {
    map(mapper, values).err().expect("it was moved")
}

const INBOX: &str = "id conversation_id content direction created_at";

#[test]
fn a_message_that_does_not_say_who_wrote_it_is_nobodys() {
    let mut inbox = mapper("whatsapp_messages", INBOX);
    assert_eq!(
        refused(&mut inbox, &["1", "7", "hello", "", "2024-01-01"]),
        "direction: missing"
    );
    let mut without = mapper("messages", "id conversation_id content created_at");
    assert_eq!(
        refused(&mut without, &["1", "7", "hello", "2024-01-01"]),
        "direction: missing"
    );
    // A log of what was sent needs to say nothing.
    let mut log = mapper("message_logs", "id recipient message_type sent_at");
    assert!(!message(&mut log, &["1", "01012345678", "sms", "2024-01-01"]).inbound);
}

#[test]
fn the_first_direction_that_is_understood_counts() {
    let mut messages = mapper(
        "messages",
        "id sender direction conversation_id content created_at",
    );
    let row = message(
        &mut messages,
        &["1", "Ahmad", "inbound", "7", "x", "2024-01-01"],
    );
    assert!(
        row.inbound && row.metadata.contains("Ahmad"),
        "{}",
        row.metadata
    );
    let mut other = mapper(
        "messages",
        "id direction sender conversation_id content created_at",
    );
    assert!(message(&mut other, &["1", "?", "customer", "7", "x", "2024-01-01"]).inbound);
    assert_eq!(
        refused(&mut other, &["1", "?", "Ahmad", "7", "x", "2024-01-01"]),
        "direction: neither inbound nor outbound"
    );
}

#[test]
fn an_address_must_be_one_that_the_channel_can_answer() {
    let mut log = mapper("message_logs", "id recipient message_type sent_at");
    for (recipient, channel, reason) in [
        (
            "a@shop.test",
            "sms",
            "recipient: an e-mail address, on another channel",
        ),
        ("01012345678", "email", "recipient: no e-mail address"),
        (
            "201012345678@lid",
            "whatsapp",
            "recipient: an address without a number",
        ),
        (
            "status@broadcast",
            "whatsapp",
            "recipient: an address without a number",
        ),
        ("12@g.us", "whatsapp", "recipient: a group"),
        (
            "01012345678",
            "pigeon",
            "channel: none of whatsapp, sms and email",
        ),
    ] {
        assert_eq!(
            refused(&mut log, &["1", recipient, channel, "2024-01-01"]),
            reason
        );
    }
    let row = message(&mut log, &["1", "A@Shop.test", "email", "2024-01-01"]);
    let Thread::Customer { identity, .. } = row.thread else {
        panic!("no customer");
    };
    assert_eq!(identity, Identity::new(IdentityKind::Email, "a@shop.test"));
    // Of several the one that fits, whatever comes first.
    let mut conversations = mapper("conversations", "id channel email phone created_at");
    let row = ["1", "sms", "a@shop.test", "01012345678", "2024-01-01"];
    let Ok(Mapped::Conversation(row)) = map(&mut conversations, &row) else {
        panic!("not moved");
    };
    assert_eq!(
        row.identity,
        Identity::new(IdentityKind::Phone, "+201012345678")
    );
}

#[test]
fn what_no_index_takes_is_a_reason_and_not_the_end() {
    let long = "x".repeat(LONGEST_KEY + 1);
    let mut log = mapper(
        "message_logs",
        "id recipient message_type external_id sent_at",
    );
    let mut refuse = |values: &[&str]| {
        let reason = refused(&mut log, values);
        assert!(reason.ends_with(": longer than 1000 bytes"), "{reason}");
    };
    refuse(&[&long, "01012345678", "sms", "SM1", "2024-01-01"]);
    refuse(&["1", "01012345678", "sms", &long, "2024-01-01"]);
    refuse(&[
        "1",
        &format!("{long}@shop.test"),
        "email",
        "SM1",
        "2024-01-01",
    ]);
    let huge = "x".repeat(LONGEST_VALUE + 1);
    let mut inbox = mapper("whatsapp_messages", INBOX);
    assert!(refused(&mut inbox, &["1", "7", &huge, "inbound", "2024-01-01"]).contains("16 MB"));
    let mut conversations = mapper(
        "whatsapp_conversations",
        "id phone_number customer_name unread_count created_at",
    );
    let Ok(Mapped::Conversation(row)) = map(
        &mut conversations,
        &["1", "01012345678", &long, "2147483647", "2024-01-01"],
    ) else {
        panic!("not moved");
    };
    assert_eq!(row.unread_count, 10_000);
    assert_eq!(row.customer_name.unwrap().len(), 250);
}

#[test]
fn a_distributor_is_an_old_organisation_and_a_message_goes_with_its_conversation() {
    let mut conversations = mapper(
        "conversations",
        "id channel phone distributor_id created_at",
    );
    conversations.old_org = Some("A".to_owned());
    let mut row = |distributor| {
        let values = ["1", "sms", "01012345678", distributor, "2024-01-01"];
        map(&mut conversations, &values).err()
    };
    assert_eq!(row("A"), None);
    assert_eq!(row("B").unwrap(), "distributor_id: another organisation's");
    assert_eq!(
        row("").unwrap(),
        "distributor_id: the row belongs to nobody"
    );
    let mut messages = mapper(
        "messages",
        "id conversation_id content sender distributor_id created_at",
    );
    messages.old_org = Some("A".to_owned());
    message(
        &mut messages,
        &["1", "7", "x", "customer", "", "2024-01-01"],
    );
    let others = ["1", "7", "x", "customer", "B", "2024-01-01"];
    assert!(refused(&mut messages, &others).contains("another organisation's"));
}

#[test]
fn equal_rows_without_an_id_are_two_and_a_new_column_or_status_makes_no_third() {
    let columns = "recipient message_type message_content status sent_at";
    let row = ["01012345678", "sms", "hello", "sent", "2024-01-01"];
    let names = |columns: &str, row: &[&str]| {
        let mut log = mapper("message_logs", columns);
        [0, 1].map(|_| message(&mut log, row).external_id)
    };
    let first = names(columns, &row);
    assert_ne!(first[0], first[1]);
    assert_eq!(names(columns, &row), first, "the same in every run");
    let later = ["sent", "green", "hello", "01012345678", "sms", "2024-01-01"]
        .map(|value| if value == "sent" { "delivered" } else { value });
    let other = "status colour message_content recipient message_type sent_at";
    assert_eq!(names(other, &later), first);
}

#[test]
fn a_template_has_the_variables_of_its_text() {
    let mut templates = mapper(
        "whatsapp_templates",
        "id name message_template variables created_at",
    );
    // The old list, which may be anything, is not even read.
    let row = ["1", "welcome", "أهلاً {{ name }}", "2024-01-01"];
    let Ok(Mapped::Template(row)) = map(&mut templates, &row) else {
        panic!("not moved");
    };
    assert_eq!(row.variables, serde_json::json!(["name"]));
}

#[test]
fn what_the_old_system_was_sending_is_never_sent_again() {
    let mut queue = mapper(
        "notification_queue",
        "id notification_type status created_at",
    );
    let mut status = |word| match map(&mut queue, &["1", "sms", word, "2024-01-01"]) {
        Ok(Mapped::Queued(row)) => (row.status, row.error_message.is_some()),
        _ => panic!("not moved"),
    };
    assert_eq!(status("processing"), ("cancelled", true));
    assert_eq!(status("pending"), ("pending", false), "--keep-pending");
}

#[test]
fn u0000_is_found_in_json_and_not_in_a_text_about_it() {
    assert_eq!(
        readable(r#"{"a": ["x\u0000y"], "b": "\\u0000"}"#),
        serde_json::json!({ "a": ["x\u{fffd}y"], "b": "\\u0000" })
    );
}
