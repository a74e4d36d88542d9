//! `wasel import`: the tables of older systems, moved by the real program into a real database.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;
use wasel_testkit::{TestDb, wait_until};

use crate::binary::{data_dir, run, succeed, wasel};

/// Two tenants with the same channels.
const TENANTS: &str = r#"
[[organizations]]
slug = "ORG"
name = "ORG"
timezone = "Africa/Cairo"
[[organizations.users]]
email = "owner@ORG.test"
password = "a good password"
role = "owner"
[[organizations.channels]]
kind = "whatsapp_cloud"
name = "Cloud"
waba_id = "1"
phone_number_id = "10N"
display_phone_number = "+1415555010N"
access_token = "t"
app_secret = "s"
verify_token = "v"
[[organizations.channels]]
kind = "twilio_sms"
name = "SMS"
account_sid = "AC0000000000000000000000000000000N"
auth_token = "t"
from = "+1202555010N"
[[organizations.channels]]
kind = "twilio_whatsapp"
name = "Twilio"
account_sid = "AC0000000000000000000000000000000N"
auth_token = "t"
from = "+1303555010N"
"#;

struct Install {
    folder: tempfile::TempDir,
    db: TestDb,
    owner: PgPool,
}

impl Install {
    async fn new() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let (folder, db) = (data_dir(), TestDb::new().await);
        let owner = db.owner();
        let install = Self { folder, db, owner };
        let file = install.path("tenants.toml");
        let both: String = [("a", "1"), ("b", "2")]
            .map(|(org, n)| {
                TENANTS
                    .replace("ORG", org)
                    .replace("10N", &format!("10{n}"))
                    .replace("0N", &format!("0{n}"))
            })
            .concat();
        std::fs::write(&file, both).unwrap();
        succeed(&mut install.wasel(&["apply", &file]));
        install
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn wasel(&self, args: &[&str]) -> std::process::Command {
        let mut command = wasel(self.folder.path(), args);
        command.env("DATABASE_URL", self.db.url());
        command
    }

    fn command(&self, org: &str, from: &str, more: &[&str]) -> std::process::Command {
        let mut args = vec!["import", "--json", "--org", org, "--from", from];
        args.extend(more);
        self.wasel(&args)
    }

    #[track_caller]
    fn import(&self, org: &str, from: &str, more: &[&str]) -> Value {
        serde_json::from_str(&succeed(&mut self.command(org, from, more))).unwrap()
    }

    #[track_caller]
    fn refused(&self, org: &str, from: &str, more: &[&str]) -> String {
        let output = run(&mut self.command(org, from, more));
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    async fn one<T>(&self, sql: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.owner)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Everything an import may write, without what is made anew each time.
    async fn dump(&self, with_ids: bool) -> Vec<String> {
        let id = if with_ids { "''" } else { "'id'" };
        let strip = format!("- 'org_id' - 'conversation_id' - 'contact_id' - 'channel_id' - {id}");
        let mut all = Vec::new();
        for sql in [
            format!("SELECT (to_jsonb(m) {strip})::text || c.phone_number FROM messages m JOIN conversations c USING (org_id)
                     WHERE c.id = m.conversation_id"),
            format!("SELECT (to_jsonb(c) {strip} - 'id')::text FROM conversations c"),
            "SELECT (to_jsonb(c) - 'org_id' - 'id')::text FROM contacts c".to_owned(),
            "SELECT kind || value FROM contact_identities".to_owned(),
            format!("SELECT (to_jsonb(t) - 'org_id' - {id})::text FROM templates t WHERE NOT is_system"),
            format!("SELECT (to_jsonb(t) - 'org_id' - {id})::text FROM whatsapp_sessions t"),
            format!("SELECT (to_jsonb(t) - 'org_id' - {id})::text FROM notification_queue t"),
            "SELECT source || kind || external_id FROM external_refs".to_owned(),
            "SELECT 'outbox' || message_id FROM outbox".to_owned(),
            "SELECT 'change ' || table_name FROM change_log WHERE table_name NOT IN ('organizations', 'profiles', 'channels')".to_owned(),
        ] {
            let mut rows: Vec<String> =
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&self.owner).await.unwrap();
            rows.sort();
            all.push(format!("{} rows", rows.len()));
            all.extend(rows);
        }
        all
    }
}

/// An old database.
async fn old(sql: &str) -> TestDb {
    let db = TestDb::empty().await;
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut db.connect().await)
        .await
        .unwrap();
    db
}

fn table<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["tables"]
        .as_array()
        .unwrap()
        .iter()
        .find(|table| table["table"] == name)
        .unwrap_or_else(|| panic!("{name}: {report:#}"))
}

#[track_caller]
fn assert_moved(report: &Value, name: &str, read: u64, moved: u64) {
    let table = table(report, name);
    assert_eq!(
        (&table["read"], &table["moved"]),
        (&read.into(), &moved.into()),
        "{table:#}"
    );
}

const INBOX: &str = "
    CREATE TABLE whatsapp_conversations (id uuid, phone_number text, status text, last_message_at timestamp, unread_count int,
        assigned_to uuid, notes text, tags text[], patient_id text, favourite_colour text, created_at timestamptz);
    CREATE TABLE whatsapp_messages (id uuid, conversation_id uuid, content text, message_type text, direction text,
        status text, created_at timestamptz, delivered_at timestamptz, read_at timestamptz);
    CREATE TABLE whatsapp_settings (id int);
    CREATE TABLE bookings (id int);
    INSERT INTO whatsapp_conversations VALUES
        ('11111111-0000-4000-8000-000000000001', '٠١٠١٢٣٤٥٦٧٨', 'archived', '2024-05-01 10:00:07', 3, NULL, 'عميل مهم',
         '{vip,\"two words\"}', 'P-7', 'green', '2024-01-01 00:00:00+02'),
        ('11111111-0000-4000-8000-000000000002', '00201112345678', 'active', NULL, 0, NULL, NULL, NULL, NULL, NULL, '2024-01-02'),
        ('11111111-0000-4000-8000-000000000003', 'nobody', 'active', NULL, 0, NULL, NULL, NULL, NULL, NULL, '2024-01-02');
    INSERT INTO whatsapp_messages VALUES
        ('22222222-0000-4000-8000-000000000001', '11111111-0000-4000-8000-000000000001', 'مرحبا، متى الموعد؟', 'text', 'inbound', 'read', '2024-05-01 09:00:00Z', NULL, '2024-05-01 09:00:30Z'),
        ('22222222-0000-4000-8000-000000000002', '11111111-0000-4000-8000-000000000001', 'غدًا', 'text', 'outbound', 'delivered', '2024-05-01 10:00:00Z', '2024-05-01 10:00:05Z', NULL),
        ('22222222-0000-4000-8000-000000000003', '11111111-0000-4000-8000-000000000003', 'lost', 'text', 'inbound', 'read', '2024-05-01 09:00:00Z', NULL, NULL),
        ('22222222-0000-4000-8000-000000000004', '11111111-0000-4000-8000-000000000002', 'where?', 'text', 'sideways', 'read', '2024-05-01 09:00:00Z', NULL, NULL);";

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_moves_with_its_threads_times_and_arabic_and_a_second_run_changes_nothing() {
    let (install, old) = tokio::join!(Install::new(), old(INBOX));
    let several = install.refused("a", &old.url(), &[]);
    assert!(
        several.contains("--channel \"Cloud\" or \"Twilio\""),
        "{several}"
    );
    let wrong = install.refused("a", &old.url(), &["--channel", "Pigeon"]);
    assert!(
        wrong.contains("no channel `Pigeon`; there are: Cloud"),
        "{wrong}"
    );
    let before = install.dump(true).await;
    let dry = install.import("a", &old.url(), &["--channel", "Cloud", "--dry-run"]);
    assert_eq!(install.dump(true).await, before, "a dry run writes nothing");
    let report = install.import("a", &old.url(), &["--channel", "whatsapp_cloud"]);
    assert_eq!(dry["tables"], report["tables"]);
    assert_moved(&report, "whatsapp_conversations", 3, 2);
    assert_moved(&report, "whatsapp_messages", 4, 2);
    let skipped = &table(&report, "whatsapp_messages")["skipped"];
    assert_eq!(
        skipped["conversation_id: that conversation was not moved"]["examples"][0],
        "22222222-0000-4000-8000-000000000003"
    );
    assert_eq!(
        skipped["direction: neither inbound nor outbound"]["rows"], 1,
        "{skipped:#}"
    );
    let skipped = &table(&report, "whatsapp_conversations")["skipped"];
    assert_eq!(
        skipped["phone_number: not a phone number"]["rows"], 1,
        "{skipped:#}"
    );
    assert_eq!(report["unknown_tables"], serde_json::json!(["bookings"]));
    assert_eq!(
        report["nothing_to_move"],
        serde_json::json!(["whatsapp_settings"])
    );
    assert_eq!(
        table(&report, "whatsapp_conversations")["unknown_columns"],
        serde_json::json!(["favourite_colour"])
    );
    let conversation: Value = install
        .one("SELECT to_jsonb(c) FROM conversations c WHERE id = '11111111-0000-4000-8000-000000000001'")
        .await;
    for (column, value) in [
        ("phone_number", "+201012345678"),
        ("status", "archived"),
        ("notes", "عميل مهم"),
        ("patient_id", "P-7"),
        ("last_message", "غدًا"),
        ("last_direction", "outbound"),
        ("last_message_at", "2024-05-01T10:00:00+00:00"),
        ("last_inbound_at", "2024-05-01T09:00:00+00:00"),
        ("created_at", "2023-12-31T22:00:00+00:00"),
    ] {
        assert_eq!(conversation[column], value, "{column}");
    }
    assert_eq!(conversation["unread_count"], 3);
    assert_eq!(
        conversation["tags"],
        serde_json::json!(["vip", "two words"])
    );
    assert_eq!(
        conversation["metadata"]["imported"]["phone_number"],
        "٠١٠١٢٣٤٥٦٧٨"
    );
    assert_eq!(
        conversation["metadata"]["imported"]["favourite_colour"],
        "green"
    );
    let message: Value = install
        .one("SELECT to_jsonb(m) FROM messages m WHERE id = '22222222-0000-4000-8000-000000000001'")
        .await;
    assert_eq!(message["body"], "مرحبا، متى الموعد؟");
    assert_eq!(
        (&message["status"], &message["direction"]),
        (&"received".into(), &"inbound".into())
    );
    assert_eq!(message["address"], "+201012345678");
    assert_eq!(message["read_at"], "2024-05-01T09:00:30+00:00");
    let news: i64 = install.one("SELECT count(*) FROM change_log WHERE table_name IN ('messages', 'conversations', 'contacts')").await;
    assert_eq!(news, 0, "an import is no news");
    let first = install.dump(true).await;
    for dry in [&[][..], &["--dry-run"]] {
        let again = install.import("a", &old.url(), &[&["--channel", "Cloud"], dry].concat());
        assert_moved(&again, "whatsapp_messages", 4, 0);
        assert_eq!(table(&again, "whatsapp_messages")["already_moved"], 2);
        assert_eq!(table(&again, "whatsapp_conversations")["already_moved"], 2);
        assert_eq!(install.dump(true).await, first);
    }
    // The same into another tenant: its own rows, and nothing of the first one's is touched.
    install.import("b", &old.url(), &["--channel", "Cloud"]);
    let moved: i64 = install.one("SELECT count(*) FROM messages WHERE org_id = (SELECT id FROM organizations WHERE slug = 'b')").await;
    assert_eq!(moved, 2);
    let after = install.dump(true).await;
    assert!(
        first
            .iter()
            .filter(|line| !line.ends_with(" rows"))
            .all(|line| after.contains(line))
    );
    let crossed: i64 = install
        .one("SELECT count(*) FROM messages m JOIN channels c ON c.id = m.channel_id WHERE c.org_id <> m.org_id")
        .await;
    assert_eq!(crossed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_chat_moves_to_the_channel_of_its_number() {
    let sql = "
        CREATE TABLE waba_accounts (waba_id text, user_id uuid, owner_business_id text, access_token text, created_at timestamptz);
        CREATE TABLE phone_numbers (id uuid, waba_id text, phone_number_id text, display_phone_number text, verified_name text, is_registered bool);
        CREATE TABLE chat_conversations (id uuid, user_id uuid, waba_id text, phone_number_id text, customer_phone text,
            customer_name text, customer_profile_pic text, last_message text, last_message_time timestamptz, unread_count int,
            status text DEFAULT 'active', created_at timestamptz, updated_at timestamptz);
        CREATE TABLE chat_messages (id int, conversation_id uuid, message_id text, wa_message_id text, content text,
            message_type text, media_url text, media_caption text, sender text, status text, \"timestamp\" timestamptz,
            metadata jsonb, created_at timestamptz);
        INSERT INTO waba_accounts VALUES ('1', NULL, NULL, 'the-old-secret-token', now());
        INSERT INTO phone_numbers VALUES ('33333333-0000-4000-8000-000000000001', '1', '101', '+1', 'Shop', true),
            ('33333333-0000-4000-8000-000000000002', '1', '999', '+2', 'Other', true);
        INSERT INTO chat_conversations VALUES
            ('44444444-0000-4000-8000-000000000001', NULL, '1', '101', '966512345678', 'سارة', 'https://x/p.jpg', 'only here', '2024-02-02', 2, 'active', '2024-01-01', '2024-02-02'),
            ('44444444-0000-4000-8000-000000000002', NULL, '1', '33333333-0000-4000-8000-000000000001', '201012345678', NULL, NULL, NULL, NULL, 0, 'active', '2024-01-01', '2024-02-02');
        INSERT INTO chat_messages VALUES
            (1, '44444444-0000-4000-8000-000000000001', 'm1', 'wamid.1', NULL, 'image', 'https://x/a.jpg', 'صورة', 'customer', 'delivered', '2024-02-01 10:00Z', '{\"a\": 1}', '2024-02-03'),
            (2, '44444444-0000-4000-8000-000000000001', 'm2', 'wamid.2', 'thanks', 'text', NULL, NULL, 'user', 'read', '2024-02-01 11:00Z', '[1]', '2024-02-03'),
            (3, '44444444-0000-4000-8000-000000000001', 'm3', 'wamid.2', 'the same again', 'text', NULL, NULL, 'user', 'read', '2024-02-01 11:00Z', NULL, '2024-02-03');";
    let (install, old) = tokio::join!(Install::new(), old(sql));
    let missing = install.refused("b", &old.url(), &[]);
    assert!(
        missing.contains("phone_number_id `101`") && missing.contains("nothing was written"),
        "{missing}"
    );
    let dry = install.import("a", &old.url(), &["--dry-run"]);
    let report = install.import("a", &old.url(), &[]);
    assert_eq!(dry["tables"], report["tables"]);
    assert_moved(&report, "chat_conversations", 2, 2);
    assert_moved(&report, "chat_messages", 3, 2);
    assert_eq!(
        table(&report, "chat_messages")["skipped"]["already in the log"]["examples"][0],
        "3"
    );
    assert_eq!(
        table(&report, "phone_numbers")["skipped"]
            .as_object()
            .unwrap()
            .len(),
        1
    );
    assert!(
        !install
            .dump(true)
            .await
            .iter()
            .any(|line| line.contains("the-old-secret-token"))
    );
    let (phone, name, avatar): (String, String, String) = sqlx::query_as(
        "SELECT c.phone_number, c.customer_name, p.avatar_url FROM conversations c JOIN contacts p ON p.id = c.contact_id
         WHERE c.id = '44444444-0000-4000-8000-000000000001'",
    )
    .fetch_one(&install.owner)
    .await
    .unwrap();
    assert_eq!(
        (phone.as_str(), name.as_str(), avatar.as_str()),
        ("+966512345678", "سارة", "https://x/p.jpg")
    );
    let image: Value = install
        .one("SELECT to_jsonb(m) FROM messages m WHERE provider_message_id = 'wamid.1'")
        .await;
    assert_eq!(image["body"], "صورة");
    assert_eq!(image["media"][0]["url"], "https://x/a.jpg");
    assert_eq!(image["created_at"], "2024-02-01T10:00:00+00:00");
    assert_eq!(
        (
            &image["metadata"]["a"],
            &image["metadata"]["imported"]["message_id"]
        ),
        (&1.into(), &"m1".into())
    );
    let derived: Uuid = serde_json::from_value(image["id"].clone()).unwrap();
    assert_eq!(derived.get_version_num(), 7);
    assert_eq!(
        install.import("a", &old.url(), &[])["tables"][3]["already_moved"],
        2
    );
}

const TWILIO: &str = "
    CREATE TABLE message_logs (id uuid, request_id text, recipient text, message_type text, message_content text, provider text,
        status text, external_id text, metadata jsonb, sender_id text, media_url text, sent_at timestamp, delivered_at timestamp,
        read_at timestamp, failed_at timestamp, error_code text, error_message text, created_at timestamptz);
    CREATE TABLE whatsapp_messages (id uuid, sender_id uuid, recipient_phone text, message_content text, message_sid text,
        status text, error_code text, error_message text, media_url text, request_id text, sent_at timestamptz,
        delivered_at timestamptz, read_at timestamptz, failed_at timestamptz);
    INSERT INTO message_logs VALUES
        ('55555555-0000-4000-8000-000000000001', 'r1', '+201012345678', 'sms', 'كودك ١٢٣', 'twilio', 'sent', 'SM1', '{\"k\": \"v\"}', 'somebody', NULL, '2024-01-01 10:00', NULL, NULL, NULL, NULL, NULL, '2024-01-01 10:00Z'),
        ('55555555-0000-4000-8000-000000000002', NULL, 'whatsapp:+201012345678', 'whatsapp', 'hi', 'twilio', 'undelivered', 'SM2', NULL, '66666666-0000-4000-8000-000000000001', 'https://x/f.pdf', '2024-01-01 10:01', NULL, NULL, '2024-01-01 10:02', '63016', 'outside the window', '2024-01-01 10:01Z'),
        ('55555555-0000-4000-8000-000000000003', NULL, '12', 'sms', 'x', 'twilio', 'sent', 'SM3', NULL, NULL, NULL, '2024-01-01', NULL, NULL, NULL, NULL, NULL, NULL),
        ('55555555-0000-4000-8000-000000000004', NULL, '+201012345678', 'pigeon', 'x', 'twilio', 'sent', 'SM4', NULL, NULL, NULL, '2024-01-01', NULL, NULL, NULL, NULL, NULL, NULL),
        ('55555555-0000-4000-8000-000000000005', NULL, '+201012345678', 'sms', 'x', 'twilio', 'sent', 'SM5', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        ('55555555-0000-4000-8000-000000000006', NULL, '+201012345678', 'sms', 'waiting', 'twilio', 'accepted', 'SM6', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2024-01-01');
    INSERT INTO whatsapp_messages VALUES
        ('77777777-0000-4000-8000-000000000001', NULL, '01012345678', 'moved before', 'SM2', 'failed', NULL, NULL, NULL, NULL, '2024-01-01 10:01', NULL, NULL, NULL),
        ('77777777-0000-4000-8000-000000000002', NULL, '01012345678', 'قديم', 'SM20', 'read', NULL, NULL, NULL, NULL, '2023-01-01 10:01Z', '2023-01-01 10:02Z', '2023-01-01 10:03Z', NULL);";

#[tokio::test(flavor = "multi_thread")]
async fn a_twilio_log_and_the_table_before_it_become_one_and_a_late_callback_finds_its_message() {
    let (install, old) = tokio::join!(Install::new(), old(TWILIO));
    let dry = install.import("a", &old.url(), &["--dry-run"]);
    let report = install.import("a", &old.url(), &[]);
    assert_eq!(dry["tables"], report["tables"]);
    assert_moved(&report, "message_logs", 6, 3);
    let skipped = &table(&report, "message_logs")["skipped"];
    for reason in [
        "recipient: too long or too short to be a phone number",
        "channel: none of whatsapp, sms and email",
        "created_at: the row has no time at all",
    ] {
        assert_eq!(skipped[reason]["rows"], 1, "{skipped:#}");
    }
    assert_moved(&report, "whatsapp_messages", 2, 1);
    assert_eq!(
        table(&report, "whatsapp_messages")["skipped"]["already in the log"]["rows"],
        1
    );
    let row = async |sid: &str| -> Value {
        install
            .one(&format!("SELECT to_jsonb(m) || jsonb_build_object('kind', c.kind) FROM messages m JOIN channels c ON c.id = m.channel_id
                 WHERE provider_message_id = '{sid}'"))
            .await
    };
    let failed = row("SM2").await;
    for (column, value) in [
        ("kind", "twilio_whatsapp"),
        ("status", "failed"),
        ("error_code", "63016"),
        ("failed_at", "2024-01-01T10:02:00+00:00"),
        ("sender_id", "66666666-0000-4000-8000-000000000001"),
        ("message_type", "document"),
        ("address", "+201012345678"),
    ] {
        assert_eq!(failed[column], value, "{column}");
    }
    assert_eq!(
        failed["metadata"]["imported"]["recipient"],
        "whatsapp:+201012345678"
    );
    let sms = row("SM1").await;
    assert_eq!(
        (&sms["kind"], &sms["status"], &sms["request_id"]),
        (&"twilio_sms".into(), &"sent".into(), &"r1".into())
    );
    assert_eq!(
        (
            &sms["metadata"]["k"],
            &sms["metadata"]["imported"]["sender_id"]
        ),
        (&"v".into(), &"somebody".into())
    );
    assert_eq!(row("SM6").await["status"], "queued");
    assert_eq!(row("SM20").await["read_at"], "2023-01-01T10:03:00+00:00");
    let waiting: i64 = install
        .one("SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM message_failures)")
        .await;
    assert_eq!(
        waiting, 0,
        "an import sends nothing and complains of nothing"
    );
    let contacts: i64 = install.one("SELECT count(*) FROM contacts").await;
    assert_eq!(contacts, 1, "one person on two channels");
    // Twilio tells of the old message years later.
    sqlx::query(
        "SELECT wasel.advance_status(ARRAY[gen_random_uuid()], ARRAY[org_id], ARRAY[channel_id], ARRAY['SM1'], ARRAY[NULL]::uuid[],
             ARRAY['delivered'], ARRAY[now()], ARRAY['{\"provider_message_id\": \"SM1\"}']) FROM messages WHERE provider_message_id = 'SM1'",
    )
    .execute(&install.owner)
    .await
    .unwrap();
    let sms = row("SM1").await;
    assert_eq!(sms["status"], "delivered");
    assert!(sms["delivered_at"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_with_ai_fields_move_by_channel_and_find_their_customers() {
    let sql = "
        CREATE TABLE customers (id int, name text, phone text, email text);
        CREATE TABLE conversations (id int, customer_id int, distributor_id uuid, channel text, ai_context_summary text, unread_count int, created_at timestamptz);
        CREATE TABLE messages (id int, conversation_id int, sender_type text, message_type text, content text, media_url text,
            ai_processed boolean, ai_intent text, external_message_id text, created_at timestamptz);
        INSERT INTO customers VALUES (1, 'أحمد', '01012345678', 'Ahmad@Shop.test'), (2, 'Nobody', NULL, NULL);
        INSERT INTO conversations VALUES (1, 1, NULL, 'whatsapp', 'يسأل عن السعر', 4, '2024-01-01'), (2, 1, NULL, 'SMS', NULL, 0, '2024-01-01'),
            (3, 2, NULL, 'sms', NULL, 0, '2024-01-01');
        INSERT INTO messages VALUES (1, 1, 'customer', 'Media', NULL, 'https://x/v.MP4?t=1', true, 'price', 'SM1', '2024-01-01 10:00Z'),
            (2, 1, 'ai', 'Text', 'السعر ٥٠', NULL, false, NULL, 'SM2', '2024-01-01 10:01Z'),
            (3, 2, 'distributor', 'File', 'bill', 'https://x/bill.pdf', NULL, NULL, NULL, '2024-01-01 10:01Z'),
            (4, 3, 'customer', 'Text', 'x', NULL, NULL, NULL, NULL, '2024-01-01 10:01Z');";
    let (install, old) = tokio::join!(Install::new(), old(sql));
    let dry = install.import("a", &old.url(), &["--channel", "Twilio", "--dry-run"]);
    let report = install.import("a", &old.url(), &["--channel", "Twilio"]);
    assert_eq!(dry["tables"], report["tables"]);
    assert_moved(&report, "conversations", 3, 2);
    assert_moved(&report, "messages", 4, 3);
    let kinds: Vec<String> = sqlx::query_scalar(
        "SELECT concat_ws(' ', c.kind, m.direction, m.message_type, m.status, m.address, m.metadata #>> '{imported,ai_intent}') FROM messages m
         JOIN channels c ON c.id = m.channel_id ORDER BY m.created_at, 1",
    )
    .fetch_all(&install.owner)
    .await
    .unwrap();
    assert_eq!(
        kinds,
        [
            "twilio_whatsapp inbound video received +201012345678 price",
            "twilio_sms outbound document sent +201012345678",
            "twilio_whatsapp outbound text sent +201012345678",
        ]
    );
    let summary: String = install.one("SELECT metadata #>> '{imported,ai_context_summary}' FROM conversations WHERE unread_count = 4").await;
    assert_eq!(summary, "يسأل عن السعر");
}

const FLEET: &str = "
    CREATE TABLE whatsapp_sessions (id uuid, org_id uuid, status text, phone_number text, whatsapp_id text, display_name text,
        auth_state jsonb, qr_code text, qr_expires_at timestamptz, last_connected_at timestamptz, last_disconnected_at timestamptz,
        connection_error text, retry_count int, auto_reconnect bool, enabled bool, created_at timestamptz, updated_at timestamptz);
    CREATE TABLE whatsapp_templates (id uuid, org_id uuid, name text, description text, category text, message_template text,
        variables jsonb, media_type text, media_url text, is_active bool, is_system bool, usage_count int, last_used_at timestamptz,
        created_at timestamptz, updated_at timestamptz);
    CREATE TABLE whatsapp_messages (id uuid, org_id uuid, session_id uuid, recipient_phone text, recipient_name text, message_type text,
        message_body text, template_name text, template_params jsonb, media_url text, status text, whatsapp_message_id text,
        error_message text, retry_count int, sent_by uuid, trigger_type text, related_entity_id uuid, scheduled_at timestamptz,
        sent_at timestamptz, delivered_at timestamptz, read_at timestamptz, created_at timestamptz, updated_at timestamptz);
    CREATE TABLE notification_queue (id uuid, org_id uuid, notification_type text, recipient_id uuid, recipient_phone text,
        recipient_email text, template_id uuid, message_data jsonb, priority int, scheduled_for timestamptz, status text, attempts int,
        max_attempts int, last_attempt_at timestamptz, error_message text, whatsapp_message_id text, created_at timestamptz,
        updated_at timestamptz, completed_at timestamptz);
    INSERT INTO whatsapp_sessions VALUES ('88888888-0000-4000-8000-000000000001', '00000000-0000-4000-8000-00000000000a', 'connected', '201012345678', '201012345678:3@s.whatsapp.net',
        'Fleet', '{\"creds\": \"very-secret\"}', 'data:', NULL, '2024-01-01', NULL, NULL, 0, false, true, '2023-01-01', '2024-01-01');
    INSERT INTO whatsapp_templates (id, org_id, name, category, message_template, variables, is_active, is_system, usage_count, created_at) VALUES
        ('88888888-0000-4000-8000-000000000002', '00000000-0000-4000-8000-00000000000a', 'welcome', 'trial_welcome', 'أهلاً {{name}}', '[\"name\"]', true, false, 7, '2023-01-01'),
        ('88888888-0000-4000-8000-000000000003', '00000000-0000-4000-8000-00000000000a', 'taken', 'strange', 'x', NULL, false, false, 0, '2023-01-01'),
        ('88888888-0000-4000-8000-000000000004', NULL, 'system', 'trial_welcome', 'x', '[]', true, true, 0, '2023-01-01');
    INSERT INTO whatsapp_messages (id, org_id, recipient_phone, recipient_name, message_type, message_body, template_name, template_params, status,
        whatsapp_message_id, retry_count, trigger_type, created_at, updated_at, scheduled_at) VALUES
        ('88888888-0000-4000-8000-000000000005', '00000000-0000-4000-8000-00000000000a', '201012345678@s.whatsapp.net', 'منى', 'template', 'أهلاً منى', 'welcome', '{\"name\": \"منى\"}', 'read', '3EB0', 1, 'trial_welcome', '2024-01-01', '2024-01-02', NULL),
        ('88888888-0000-4000-8000-000000000006', '00000000-0000-4000-8000-00000000000a', '+201012345678', NULL, 'text', 'later', NULL, NULL, 'pending', NULL, 0, 'manual', '2024-01-03', '2024-01-03', '2024-01-09'),
        ('88888888-0000-4000-8000-000000000007', '00000000-0000-4000-8000-00000000000b', '+201012345678', NULL, 'text', 'of others', NULL, NULL, 'sent', NULL, 0, 'manual', '2024-01-03', '2024-01-03', NULL);
    INSERT INTO notification_queue (id, org_id, notification_type, recipient_phone, template_id, message_data, priority, scheduled_for, status, attempts, created_at, whatsapp_message_id) VALUES
        ('88888888-0000-4000-8000-000000000008', '00000000-0000-4000-8000-00000000000a', 'whatsapp', '01012345678', '88888888-0000-4000-8000-000000000002', '{\"name\": \"منى\"}', 3, '2024-01-01', 'pending', 0, '2024-01-01', NULL),
        ('88888888-0000-4000-8000-000000000009', '00000000-0000-4000-8000-00000000000a', 'sms', '+201012345678', NULL, NULL, 99, '2024-01-01', 'completed', 1, '2024-01-01', '3EB0');";

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_moves_one_tenant_without_its_keys_and_without_sending_what_waited() {
    let (install, old) = tokio::join!(Install::new(), old(FLEET));
    let refused = install.refused("a", &old.url(), &["--channel", "Twilio"]);
    assert!(
        refused.contains("2 old organisations") && refused.contains("--old-org"),
        "{refused}"
    );
    sqlx::query("INSERT INTO templates (org_id, id, name, message_template) SELECT id, gen_random_uuid(), 'taken', 'ours' FROM organizations WHERE slug = 'a'")
        .execute(&install.owner)
        .await
        .unwrap();
    let options = [
        "--channel",
        "Twilio",
        "--old-org",
        "00000000-0000-4000-8000-00000000000a",
    ];
    let dry = install.import("a", &old.url(), &[&options[..], &["--dry-run"]].concat());
    let report = install.import("a", &old.url(), &options);
    assert_eq!(dry["tables"], report["tables"]);
    assert_moved(&report, "whatsapp_sessions", 1, 1);
    assert_moved(&report, "whatsapp_templates", 3, 1);
    assert_moved(&report, "whatsapp_messages", 3, 2);
    assert_moved(&report, "notification_queue", 2, 2);
    let skipped = &table(&report, "whatsapp_templates")["skipped"];
    assert_eq!(
        skipped["name: there is a template of this name"]["rows"], 1,
        "{skipped:#}"
    );
    assert_eq!(
        skipped["org_id: a system template; Wasel brings its own"]["rows"], 1,
        "{skipped:#}"
    );
    assert_eq!(
        table(&report, "whatsapp_messages")["skipped"]["org_id: another organisation's"]["rows"],
        1
    );
    let session: Value = install
        .one("SELECT to_jsonb(s) FROM whatsapp_sessions s")
        .await;
    assert_eq!(
        (&session["status"], &session["phone_number"]),
        (&"disconnected".into(), &"+201012345678".into())
    );
    assert_eq!(
        session["connection_error"],
        "imported: link this phone again"
    );
    assert_eq!(
        (&session["auto_reconnect"], &session["qr_code"]),
        (&false.into(), &Value::Null)
    );
    assert_eq!(
        (&session["should_run"], &session["channel_id"]),
        (&false.into(), &Value::Null),
        "it waits for somebody to link it"
    );
    assert!(
        !install
            .dump(true)
            .await
            .iter()
            .any(|line| line.contains("very-secret"))
    );
    let template: Value = install
        .one("SELECT to_jsonb(m) FROM messages m WHERE provider_message_id = '3EB0'")
        .await;
    assert_eq!(
        (
            &template["content"]["name"],
            &template["content"]["variables"]["name"]
        ),
        (&"welcome".into(), &"منى".into())
    );
    assert_eq!(
        (&template["trigger_type"], &template["address"]),
        (&"trial_welcome".into(), &"+201012345678".into())
    );
    let waiting: Value = install
        .one("SELECT to_jsonb(m) FROM messages m WHERE body = 'later'")
        .await;
    assert_eq!(
        (&waiting["status"], &waiting["scheduled_at"]),
        (&"pending".into(), &"2024-01-09T00:00:00+00:00".into())
    );
    let queue: Vec<String> = sqlx::query_scalar(
        "SELECT concat_ws(' ', status, priority, recipient_phone, template_id, left(error_message, 15), message_data) FROM notification_queue ORDER BY priority",
    )
    .fetch_all(&install.owner)
    .await
    .unwrap();
    assert_eq!(
        queue,
        [
            "cancelled 3 +201012345678 88888888-0000-4000-8000-000000000002 imported unsent {\"name\": \"منى\"}",
            "completed 10 +201012345678 {\"imported_message_id\": \"3EB0\"}",
        ]
    );
    let first = install.dump(true).await;
    let again = install.import("a", &old.url(), &options);
    for (name, moved) in [
        ("whatsapp_sessions", 1),
        ("whatsapp_templates", 1),
        ("whatsapp_messages", 2),
        ("notification_queue", 2),
    ] {
        assert_moved(
            &again,
            name,
            table(&again, name)["read"].as_u64().unwrap(),
            0,
        );
        assert_eq!(table(&again, name)["already_moved"], moved, "{name}");
    }
    assert_eq!(install.dump(true).await, first);
    // Two old tenants may become one; ids that are taken are replaced.
    let more = install.import(
        "a",
        &old.url(),
        &[
            "--channel",
            "Twilio",
            "--all-orgs-into-one",
            "--source",
            "second",
            "--keep-pending",
            "--table",
            "notification_queue",
            "--table",
            "whatsapp_messages",
        ],
    );
    assert_moved(&more, "notification_queue", 2, 2);
    let pending: i64 = install
        .one("SELECT count(*) FROM notification_queue WHERE status = 'pending'")
        .await;
    assert_eq!(pending, 1);
    assert_moved(&more, "whatsapp_messages", 3, 2);
}

/// A log as CSV with as many rows; every tenth Twilio id comes twice.
fn csv(rows: usize) -> String {
    let mut text = "\u{feff}id,recipient,message_type,message_content,provider,status,external_id,created_at\r\n".to_owned();
    for n in 0..rows {
        let kind = if n % 3 == 0 { "sms" } else { "whatsapp" };
        let sid = if n % 10 == 9 { n - 5 } else { n };
        text += &format!(
            "99999999-0000-4000-8000-{n:012},0101234{:04},{kind},\"سطر \"\"{n}\"\",\r\nوآخر\",twilio,delivered,SM{sid}-{kind},2024-01-01 10:{:02}:{:02}\r\n",
            n % 500,
            n / 60 % 60,
            n % 60
        );
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_and_repeated_ends_like_one_that_was_not() {
    const ROWS: usize = 30_000;
    let (whole, broken) = tokio::join!(Install::new(), Install::new());
    for install in [&whole, &broken] {
        std::fs::write(install.path("message_logs.csv"), csv(ROWS)).unwrap();
    }
    let options = ["--batch", "500", "--source", "log"];
    let dry = whole.import(
        "a",
        &whole.path("message_logs.csv"),
        &[&options[..], &["--dry-run"]].concat(),
    );
    let report = whole.import("a", &whole.path("message_logs.csv"), &options);
    assert_eq!(dry["tables"], report["tables"]);
    let mut kills = 0;
    for target in [2_000, 9_000] {
        let mut child = broken
            .command("a", &broken.path("message_logs.csv"), &options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the import is under way", async || {
            let moved: i64 = broken.one("SELECT count(*) FROM external_refs").await;
            (moved > target).then_some(())
        })
        .await;
        kill(
            Pid::from_raw(i32::try_from(child.id()).unwrap()),
            Signal::SIGKILL,
        )
        .unwrap();
        kills += u32::from(!child.wait().unwrap().success());
    }
    assert_eq!(kills, 2, "killed while it worked");
    let moved: i64 = broken.one("SELECT count(*) FROM messages").await;
    assert!(
        moved > 0 && moved < ROWS as i64 / 2,
        "in the middle: {moved}"
    );
    let last = broken.import("a", &broken.path("message_logs.csv"), &options);
    let count = |report: &Value, key: &str| table(report, "message_logs")[key].as_u64().unwrap();
    assert!(count(&last, "already_moved") > 9_000);
    assert_eq!(
        count(&last, "already_moved") + count(&last, "moved"),
        count(&report, "moved")
    );
    assert_eq!(
        table(&last, "message_logs")["skipped"],
        table(&report, "message_logs")["skipped"]
    );
    let (expected, got) = tokio::join!(whole.dump(false), broken.dump(false));
    assert!(expected.len() > ROWS);
    let differing = expected.iter().zip(&got).find(|(a, b)| a != b);
    assert!(expected == got, "the rows differ: {differing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_finishes_the_batch_and_says_how_to_go_on() {
    let install = Install::new().await;
    let file = install.path("message_logs.csv");
    std::fs::write(&file, csv(30_000)).unwrap();
    let child = install
        .command("a", &file, &["--batch", "500"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the import is under way", async || {
        let moved: i64 = install.one("SELECT count(*) FROM external_refs").await;
        (moved > 1_000).then_some(())
    })
    .await;
    kill(
        Pid::from_raw(i32::try_from(child.id()).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        said.contains("the same command goes on from there: interrupted"),
        "{said}"
    );
    let done: i64 = install.one("SELECT count(*) FROM external_refs").await;
    let messages: i64 = install.one("SELECT count(*) FROM messages").await;
    assert_eq!(done, messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_format_hold_the_same_rows() {
    let install = Install::new().await;
    let directory = install.path("old export");
    std::fs::create_dir(&directory).unwrap();
    let rows = |text: &str| -> Vec<Value> {
        csv::Reader::from_reader(text.trim_start_matches('\u{feff}').as_bytes())
            .deserialize::<std::collections::BTreeMap<String, String>>()
            .map(|row| serde_json::to_value(row.unwrap()).unwrap())
            .collect()
    };
    let text = csv(50);
    let mut reports = Vec::new();
    for (name, content) in [
        ("message_logs.csv", text.clone()),
        (
            "message_logs.json",
            serde_json::to_string_pretty(&rows(&text)).unwrap(),
        ),
        (
            "message_logs.jsonl",
            rows(&text).iter().map(|row| format!("{row}\n")).collect(),
        ),
    ] {
        let file = format!("{directory}/{name}");
        std::fs::write(&file, content).unwrap();
        let mut report = install.import("a", &directory, &["--dry-run"]);
        reports.push(report["tables"].take());
        std::fs::remove_file(&file).unwrap();
        // A file of another name is the table one says it is.
        let other = install.path(&name.replace("message_logs", "export"));
        std::fs::write(
            &other,
            rows(&text)
                .iter()
                .map(|row| format!("{row}\n"))
                .collect::<String>(),
        )
        .unwrap();
        if !name.ends_with(".csv") {
            let report = install.import("a", &other, &["--table", "message_logs", "--dry-run"]);
            assert_moved(&report, "message_logs", 50, 48);
        }
    }
    assert_eq!(reports[0][0]["moved"], 48, "{:#}", reports[0]);
    assert_eq!(reports[0][0]["source"], "twilio:old export");
    assert!(
        reports.iter().all(|report| *report == reports[0]),
        "{reports:#?}"
    );
    std::fs::write(
        format!("{directory}/message_logs.csv"),
        "id,recipient,message_type\n1,2\n",
    )
    .unwrap();
    let broken = install.refused("a", &directory, &[]);
    assert!(
        broken.contains("message_logs.csv") && broken.contains("line"),
        "{broken}"
    );
    let ours = install.refused("a", &install.db.url(), &[]);
    assert!(ours.contains("a Wasel database already"), "{ours}");
    // Old tables that were moved aside in the same database.
    let aside = "CREATE SCHEMA old; SET search_path = old; CREATE TABLE message_logs (id text, recipient text, message_type text, sent_at text);
        INSERT INTO message_logs VALUES ('1', '01012345678', 'sms', '2024-01-01'); RESET search_path";
    sqlx::raw_sql(aside)
        .execute(&mut install.db.connect().await)
        .await
        .unwrap();
    let report = install.import("a", &install.db.url(), &["--schema", "old"]);
    assert_moved(&report, "message_logs", 1, 1);
    let nowhere = install.refused("a", "postgres://user:hunter2secret@127.0.0.1:1/x", &[]);
    assert!(!nowhere.contains("hunter2secret"), "{nowhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_would_hide_rows_or_mix_tenants_is_refused_and_two_databases_are_two_sources()
{
    let sql = "
        CREATE TABLE message_logs (id int, recipient text, message_type text, external_id text, sent_at timestamptz);
        INSERT INTO message_logs VALUES (1, '01012345678', 'sms', 'SM1', '2024-01-01'), (2, '01012345679', 'sms', 'SM2', '2024-01-01');";
    let (install, one, two) = tokio::join!(Install::new(), old(sql), old(sql));
    let mixed = install.refused("a", &one.url(), &["--old-org", "A"]);
    assert!(
        mixed.contains("`message_logs` does not say whose its rows are"),
        "{mixed}"
    );
    // A user who may read the table, and of whose rows a policy hides one.
    let role = format!("reader_{}", Uuid::now_v7().simple());
    sqlx::raw_sql(AssertSqlSafe(format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT SELECT ON message_logs TO {role};
         ALTER TABLE message_logs ENABLE ROW LEVEL SECURITY; CREATE POLICY hides ON message_logs USING (id = 1)"
    )))
    .execute(&mut one.connect().await)
    .await
    .unwrap();
    let mut url = url::Url::parse(&one.url()).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("secret")).unwrap();
    let hidden = install.refused("a", url.as_str(), &[]);
    sqlx::raw_sql(AssertSqlSafe(format!(
        "DROP OWNED BY {role}; DROP ROLE {role}"
    )))
    .execute(&mut one.connect().await)
    .await
    .unwrap();
    assert!(
        hidden.contains("row-level security would hide rows") && hidden.contains("BYPASSRLS"),
        "{hidden}"
    );
    // Serial ids: the same in every old system, and not the same rows.
    sqlx::query("UPDATE message_logs SET external_id = 'other ' || external_id")
        .execute(&mut two.connect().await)
        .await
        .unwrap();
    for db in [&one, &two] {
        let report = install.import("a", &db.url(), &[]);
        assert_moved(&report, "message_logs", 2, 2);
        let source = table(&report, "message_logs")["source"].as_str().unwrap();
        assert!(source.ends_with("/public"), "{source}");
    }
}

/// Forwards connections to the database and stops for good after so many bytes of its answers.
async fn stalling(db: &TestDb, bytes: u64) -> (String, tokio::sync::oneshot::Receiver<()>) {
    let (tell, stalled) = tokio::sync::oneshot::channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = db.options();
    let mut url = url::Url::parse(&db.url()).unwrap();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port()))
        .unwrap();
    url.set_username(options.get_username()).unwrap();
    url.set_query(Some("sslmode=disable"));
    let (host, port) = (options.get_host().to_owned(), options.get_port());
    let socket = options
        .get_socket()
        .map(|folder| folder.join(format!(".s.PGSQL.{port}")));
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        match socket {
            Some(path) => {
                let server = tokio::net::UnixStream::connect(path).await.unwrap();
                forward(client, server, bytes, tell).await;
            }
            None => {
                let server = tokio::net::TcpStream::connect((host, port)).await.unwrap();
                forward(client, server, bytes, tell).await;
            }
        }
    });
    (url.to_string(), stalled)
}

async fn forward<S>(
    client: tokio::net::TcpStream,
    server: S,
    bytes: u64,
    tell: tokio::sync::oneshot::Sender<()>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
{
    use tokio::io::AsyncReadExt;
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = tokio::io::split(server);
    let asking =
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut some = from_server.take(bytes);
    tokio::io::copy(&mut some, &mut to_client).await.unwrap();
    tell.send(()).unwrap();
    // Both ends stay open.
    drop(asking.await);
    drop((some, to_client));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_an_import_whose_source_says_nothing_any_more() {
    let sql = "CREATE TABLE message_logs (id int, recipient text, message_type text, message_content text, sent_at timestamptz);
        INSERT INTO message_logs SELECT n, '01012345678', 'sms', repeat('x', 100), '2024-01-01' FROM generate_series(1, 40000) n";
    let (install, old) = tokio::join!(Install::new(), old(sql));
    let (url, stalled) = stalling(&old, 2_000_000).await;
    let mut child = install
        .command("a", &url, &["--batch", "100000"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    stalled.await.unwrap();
    kill(
        Pid::from_raw(i32::try_from(child.id()).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let ended = wait_until("it ends", async || child.try_wait().unwrap()).await;
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!ended.success());
    assert!(said.contains("goes on from there: interrupted"), "{said}");
}
