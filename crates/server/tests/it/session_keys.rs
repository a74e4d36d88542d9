//! The sealed state of linked phones in a real database.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::PgPool;
use uuid::Uuid;
use wasel_db::seal::Sealer;
use wasel_db::{Db, PoolSizes, TenantClaims};
use wasel_domain::{ChannelId, OrgId};
use wasel_server::linked_phones::key_rows::{KeyVault, SealedRows};
use wasel_sessions::{HostError, KeyRow, KeyRows, Lease, Session, Store};
use wasel_testkit::{TestDb, wait_until};
use whatsapp_rust::wacore::appstate::hash::HashState;
use whatsapp_rust::wacore::appstate::processor::AppStateMutationMAC;
use whatsapp_rust::wacore::store::traits::*;

use crate::binary::{data_dir, run, succeed, wasel};

const OLD: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const NEW: &str = "2222222222222222222222222222222222222222222222222222222222222222";
/// In every value that must stay secret.
const MARK: &[u8] = b"the secret of a key";

/// A database with one session and its lease.
struct Stage {
    test: TestDb,
    folder: tempfile::TempDir,
    db: Db,
    owner: PgPool,
    session: Session,
}

impl Stage {
    async fn new() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let test = TestDb::new().await;
        let stage = Self {
            db: Db::new(test.options(), PoolSizes::default()),
            owner: test.owner(),
            test,
            folder: data_dir(),
            session: Session {
                org_id: OrgId(Uuid::now_v7()),
                id: Uuid::now_v7(),
                channel_id: ChannelId(Uuid::now_v7()),
            },
        };
        stage.add_session(stage.session).await;
        stage
    }

    async fn add_session(&self, session: Session) {
        let (org, id) = (session.org_id.0, session.id);
        sqlx::query("INSERT INTO organizations (id, slug, name) VALUES ($1, 'o' || $2, 'O')")
            .bind(org)
            .bind(org.simple().to_string())
            .execute(&self.owner)
            .await
            .unwrap();
        sqlx::query("INSERT INTO whatsapp_sessions (org_id, id) VALUES ($1, $2)")
            .bind(org)
            .bind(id)
            .execute(&self.owner)
            .await
            .unwrap();
        sqlx::query(
            "INSERT INTO whatsapp_session_leases (org_id, session_id, node, token, expires_at)
             VALUES ($1, $2, $2, 1, now() + interval '1 minute')",
        )
        .bind(org)
        .bind(id)
        .execute(&self.owner)
        .await
        .unwrap();
    }

    /// The rows under a lease with this token, and these keys.
    fn rows_of(&self, session: Session, token: i64, key: &str, older: &[&str]) -> SealedRows {
        let older: Vec<_> = older.iter().map(|key| (*key).to_owned()).collect();
        let sealer = Arc::new(Sealer::new(key, &older).unwrap());
        KeyVault::new(self.db.clone(), sealer).rows(&Lease { session, token })
    }

    fn rows(&self, key: &str, older: &[&str]) -> SealedRows {
        self.rows_of(self.session, 1, key, older)
    }

    fn store(&self, key: &str, older: &[&str]) -> Store {
        Store::new(Arc::new(self.rows(key, older)))
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql)
            .fetch_one(&self.owner)
            .await
            .unwrap()
    }

    /// Every byte of the table, as it is stored.
    async fn table(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT k::text FROM whatsapp_session_keys k ORDER BY 1")
            .fetch_all(&self.owner)
            .await
            .unwrap()
    }

    fn rotate(&self, key: &str, previous: &str) -> std::process::Command {
        let mut command = wasel(self.folder.path(), &["keys", "rotate"]);
        command
            .env("DATABASE_URL", self.test.url())
            .env("ENCRYPTION_KEY", key)
            .env("PREVIOUS_ENCRYPTION_KEYS", previous);
        command
    }
}

fn row(kind: i16, key: &str, value: &[u8], touched: Option<i64>) -> KeyRow {
    KeyRow {
        kind,
        key: key.into(),
        value: value.into(),
        touched,
    }
}

/// Puts something of every family.
async fn fill(store: &Store) {
    let (at, lid) = ("447700900001@s.whatsapp.net", "100000012345678@lid");
    store.create().await.unwrap();
    store.put_identity(at, [1; 32]).await.unwrap();
    store.put_session(at, MARK).await.unwrap();
    let prekeys: Vec<_> = (1..=812).map(|id| (id, Bytes::from_static(MARK))).collect();
    store.store_prekeys_batch(&prekeys, false).await.unwrap();
    store.store_signed_prekey(1, MARK).await.unwrap();
    store.put_sender_key(at, MARK).await.unwrap();
    store
        .set_sender_key_status("1@g.us", &[(at, true)])
        .await
        .unwrap();
    let key = AppStateSyncKey {
        key_data: MARK.to_vec(),
        fingerprint: vec![1],
        timestamp: 5,
    };
    store.set_sync_key(b"id", key).await.unwrap();
    let state = HashState {
        version: 7,
        ..HashState::default()
    };
    store.set_version("regular", state).await.unwrap();
    let mac = AppStateMutationMAC {
        index_mac: vec![3; 32],
        value_mac: MARK.to_vec(),
    };
    store.put_mutation_macs("regular", 7, &[mac]).await.unwrap();
    let mapping = LidPnMappingEntry {
        lid: lid.into(),
        phone_number: "447700900001".into(),
        created_at: 1,
        updated_at: 2,
        learning_source: "usync".into(),
    };
    store.put_lid_mapping(&mapping).await.unwrap();
    store.save_base_key(at, "m", MARK).await.unwrap();
    let devices = DeviceListRecord {
        user: "447700900001".into(),
        devices: vec![DeviceInfo::new(3, Some(1))],
        timestamp: 4,
        phash: None,
        raw_id: None,
    };
    store.update_device_list(devices).await.unwrap();
    store.put_group_metadata("1@g.us", MARK).await.unwrap();
    store.store_received_tc_token(lid, MARK, 6).await.unwrap();
    store.store_sent_message(at, "m", MARK).await.unwrap();
    store
        .store_pending_inbound(at, at, "m", MARK)
        .await
        .unwrap();
    store.put_msg_secret(at, at, "m", &[9; 32]).await.unwrap();
}

/// Reads what [`fill`] put.
async fn check(store: &Store) {
    let (at, lid) = ("447700900001@s.whatsapp.net", "100000012345678@lid");
    assert!(store.exists().await.unwrap());
    assert!(store.load().await.unwrap().is_some());
    assert_eq!(store.load_identity(at).await.unwrap(), Some([1; 32]));
    assert_eq!(store.get_session(at).await.unwrap().unwrap(), MARK);
    let ids: Vec<u32> = (0..=900).collect();
    let prekeys = store.load_prekeys_batch(&ids).await.unwrap();
    assert!(prekeys.len() == 812 && prekeys.iter().all(|(_, key)| key == MARK));
    assert_eq!(store.get_max_prekey_id().await.unwrap(), 812);
    assert_eq!(
        store.load_all_signed_prekeys().await.unwrap(),
        [(1, MARK.to_vec())]
    );
    assert_eq!(store.get_sender_key(at).await.unwrap().unwrap(), MARK);
    let devices = store.get_sender_key_devices("1@g.us").await.unwrap();
    assert_eq!(devices, [(at.to_owned(), true)]);
    assert_eq!(
        store.get_sync_key(b"id").await.unwrap().unwrap().key_data,
        MARK
    );
    assert_eq!(
        store.get_latest_sync_key_id().await.unwrap().unwrap(),
        b"id"
    );
    assert_eq!(store.get_version("regular").await.unwrap().version, 7);
    let mac = store.get_mutation_mac("regular", &[3; 32]).await.unwrap();
    assert_eq!(mac.unwrap(), MARK);
    let by_lid = store.get_lid_mapping(lid).await.unwrap().unwrap();
    assert_eq!(by_lid.phone_number, "447700900001");
    let by_phone = store.get_pn_mapping("447700900001").await.unwrap().unwrap();
    assert_eq!(by_phone.lid, lid);
    assert_eq!(store.get_all_lid_mappings().await.unwrap().len(), 1);
    assert!(store.has_same_base_key(at, "m", MARK).await.unwrap());
    let devices = store.get_devices("447700900001").await.unwrap().unwrap();
    assert_eq!(devices.devices[0].device_id, 3);
    assert_eq!(
        store.get_group_metadata("1@g.us").await.unwrap().unwrap(),
        MARK
    );
    assert_eq!(store.get_tc_token(lid).await.unwrap().unwrap().token, MARK);
    assert_eq!(store.get_all_tc_token_jids().await.unwrap(), [lid]);
    let pending = store.get_pending_inbound(at, at, "m").await.unwrap();
    assert_eq!(pending.unwrap(), MARK);
    assert_eq!(
        store.get_msg_secret(at, at, "m").await.unwrap().unwrap(),
        [9; 32]
    );
    // Taken and put back, to be found by the next.
    assert_eq!(
        store.take_sent_message(at, "m").await.unwrap().unwrap(),
        MARK
    );
    assert_eq!(store.take_sent_message(at, "m").await.unwrap(), None);
    store.store_sent_message(at, "m", MARK).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_survives_a_restart() {
    let stage = Stage::new().await;
    fill(&stage.store(OLD, &[])).await;
    check(&stage.store(OLD, &[])).await;
    let families =
        "SELECT count(DISTINCT kind) FROM whatsapp_session_keys WHERE kind BETWEEN 1 AND 20";
    assert_eq!(stage.count(families).await, 20);
    let rows = stage
        .count("SELECT count(*) FROM whatsapp_session_keys")
        .await;
    assert!(rows < 40, "{rows}");

    let store = stage.store(OLD, &[]);
    assert_eq!(store.delete_expired_sent_messages(1).await.unwrap(), 0);
    assert_eq!(
        store.delete_expired_sent_messages(i64::MAX).await.unwrap(),
        1
    );
    assert_eq!(
        store
            .delete_expired_pending_inbound(i64::MAX)
            .await
            .unwrap(),
        1
    );
    assert_eq!(store.delete_expired_tc_tokens(7, 7).await.unwrap(), 1);
    let never_ends = store
        .delete_expired_msg_secrets(i64::MAX - 1)
        .await
        .unwrap();
    assert_eq!(never_ends, 0);
    store.clear_mutation_macs("regular").await.unwrap();
    assert_eq!(
        store.get_mutation_mac("regular", &[3; 32]).await.unwrap(),
        None
    );
    store.clear_all_sender_key_devices().await.unwrap();
    assert!(
        store
            .get_sender_key_devices("1@g.us")
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_rows_with_one_key_in_one_write_the_later_counts() {
    let stage = Stage::new().await;
    let rows = stage.rows(OLD, &[]);
    let both = vec![row(3, "a", b"1", None), row(3, "a", b"2", Some(5))];
    rows.put(both).await.unwrap();
    let found = rows.get(3, &[b"a", b"b"]).await.unwrap();
    assert_eq!(found, [row(3, "a", b"2", Some(5))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_do_not_see_each_other() {
    let stage = Stage::new().await;
    let other = Session {
        org_id: OrgId(Uuid::now_v7()),
        id: Uuid::now_v7(),
        ..stage.session
    };
    stage.add_session(other).await;
    let (one, two) = (stage.rows(OLD, &[]), stage.rows_of(other, 1, OLD, &[]));
    one.put(vec![row(3, "a", b"one", None)]).await.unwrap();
    assert!(two.get(3, &[b"a"]).await.unwrap().is_empty());
    two.put(vec![row(3, "a", b"two", None)]).await.unwrap();
    let distinct = "SELECT count(DISTINCT key) FROM whatsapp_session_keys";
    assert_eq!(
        stage.count(distinct).await,
        2,
        "one person looks different in each"
    );
    two.delete_kind(3).await.unwrap();
    assert_eq!(one.list(3).await.unwrap(), [row(3, "a", b"one", None)]);
    // A row copied to the other session does not open there.
    sqlx::query("UPDATE whatsapp_session_keys SET org_id = $1, session_id = $2")
        .bind(other.org_id.0)
        .bind(other.id)
        .execute(&stage.owner)
        .await
        .unwrap();
    assert!(matches!(two.list(3).await, Err(HostError::Broken(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_under_an_older_token_is_refused_and_changes_nothing() {
    let stage = Stage::new().await;
    let old = stage.rows(OLD, &[]);
    old.put(vec![row(17, "a", b"1", Some(5))]).await.unwrap();
    sqlx::query("UPDATE whatsapp_session_leases SET token = 2")
        .execute(&stage.owner)
        .await
        .unwrap();
    let before = stage.table().await;
    let writes = [
        old.put(vec![row(17, "a", b"2", None), row(17, "b", b"", None)])
            .await,
        old.delete(17, &[b"a"]).await,
        old.delete_kind(17).await,
        old.delete_before(17, 100).await.map(drop),
    ];
    for write in writes {
        assert!(matches!(write, Err(HostError::LeaseLost)), "{write:?}");
    }
    assert_eq!(stage.table().await, before);
    let new = stage.rows_of(stage.session, 2, OLD, &[]);
    assert_eq!(new.delete_before(17, 100).await.unwrap(), 1);
    // Given back: nobody's.
    sqlx::query("DELETE FROM whatsapp_session_leases")
        .execute(&stage.owner)
        .await
        .unwrap();
    let write = new.put(vec![row(17, "a", b"3", None)]).await;
    assert!(matches!(write, Err(HostError::LeaseLost)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_meets_a_takeover_waits_for_it_and_is_refused() {
    let stage = Stage::new().await;
    let mut takeover = stage.owner.begin().await.unwrap();
    sqlx::query("UPDATE whatsapp_session_leases SET token = 2")
        .execute(&mut *takeover)
        .await
        .unwrap();
    let rows = stage.rows(OLD, &[]);
    let write = tokio::spawn(async move { rows.put(vec![row(3, "a", b"late", None)]).await });
    wait_until("the write waits", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (stage.count(waiting).await > 0).then_some(())
    })
    .await;
    takeover.commit().await.unwrap();
    assert!(matches!(write.await.unwrap(), Err(HostError::LeaseLost)));
    assert!(stage.table().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tenants_sql_sees_the_rows_not_even_its_own() {
    let stage = Stage::new().await;
    fill(&stage.store(OLD, &[])).await;
    for org_id in [stage.session.org_id, OrgId(Uuid::now_v7())] {
        for sql in [
            "SELECT count(*) FROM whatsapp_session_keys",
            "SELECT count(*) FROM whatsapp_session_leases",
        ] {
            let claims = TenantClaims {
                org_id,
                user_id: None,
                role: "owner".to_owned(),
            };
            let mut tx = stage.db.tenant(&claims).await.unwrap();
            let refused = sqlx::query(sql).execute(&mut *tx).await.unwrap_err();
            let code = refused.as_database_error().unwrap().code();
            assert_eq!(code.as_deref(), Some("42501"), "{refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_wrong_key_a_session_is_unreadable_and_not_new() {
    let stage = Stage::new().await;
    fill(&stage.store(OLD, &[])).await;
    let before = stage.table().await;
    let store = stage.store(NEW, &[]);
    // "No device" would have a phone linked anew over the old state.
    assert!(store.exists().await.is_err());
    assert!(
        store
            .get_session("447700900001@s.whatsapp.net")
            .await
            .is_err()
    );
    assert!(store.create().await.is_err());
    assert_eq!(stage.table().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_reads_everything_and_the_old_one_nothing() {
    let stage = Stage::new().await;
    fill(&stage.store(OLD, &[])).await;
    let many = (0..1200).map(|n| row(18, &format!("{n}"), b"old", Some(n)));
    stage.rows(OLD, &[]).put(many.collect()).await.unwrap();

    // The server runs with both keys: it reads the old rows, and what it writes replaces them.
    let both = stage.store(NEW, &[OLD]);
    check(&both).await;
    let rows = stage.rows(NEW, &[OLD]);
    rows.put(vec![row(18, "3", b"new", Some(3))]).await.unwrap();
    rows.delete(18, &[b"4"]).await.unwrap();
    assert_eq!(
        rows.get(18, &[b"3"]).await.unwrap(),
        [row(18, "3", b"new", Some(3))]
    );
    assert!(rows.get(18, &[b"4"]).await.unwrap().is_empty());
    let pending = rows.list(18).await.unwrap().len();
    assert_eq!(pending, 1199 + 1, "the one of `fill` is among them");

    let stored = "SELECT count(*) FROM whatsapp_session_keys WHERE kind = 18";
    assert_eq!(stage.count(stored).await, 1200, "nothing is there twice");

    let missing = run(&mut stage.rotate(NEW, ""));
    assert!(!missing.status.success(), "the old key is needed");
    // It goes on writing while all is sealed anew.
    let rotate = {
        let mut command = stage.rotate(NEW, OLD);
        tokio::task::spawn_blocking(move || succeed(&mut command))
    };
    let mut round = 0;
    while !rotate.is_finished() {
        round += 1;
        for chunk in (10..1000).collect::<Vec<i64>>().chunks(50) {
            let new = chunk
                .iter()
                .map(|n| row(18, &format!("{n}"), b"live", Some(round)));
            rows.put(new.collect()).await.unwrap();
        }
    }
    assert!(rotate.await.unwrap().contains("1 linked phones"));
    assert!(round > 0);

    let after = stage.store(NEW, &[]);
    check(&after).await;
    let rows = stage.rows(NEW, &[]);
    for n in 0..1200 {
        let key = format!("{n}");
        let expected = match n {
            3 => vec![row(18, &key, b"new", Some(3))],
            4 => vec![],
            10..1000 => vec![row(18, &key, b"live", Some(round))],
            _ => vec![row(18, &key, b"old", Some(n))],
        };
        assert_eq!(rows.get(18, &[key.as_bytes()]).await.unwrap(), expected);
    }
    assert_eq!(rows.list(18).await.unwrap().len(), 1200);

    let old = stage.store(OLD, &[]);
    assert!(old.load().await.is_err());
    let said = succeed(&mut stage.rotate(NEW, OLD));
    assert!(
        said.contains(" 0 rows of 0 linked phones"),
        "nothing is left: {said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rotating_goes_on_where_it_was_interrupted() {
    let stage = Stage::new().await;
    let both = stage.rows(NEW, &[OLD]);
    let old = stage.rows(OLD, &[]);
    old.put(
        (0..20)
            .map(|n| row(18, &format!("{n}"), b"v", Some(n)))
            .collect(),
    )
    .await
    .unwrap();
    // Half are done; one is there twice, as two nodes with different keys may leave it.
    both.put(
        (0..10)
            .map(|n| row(18, &format!("{n}"), b"v", Some(n)))
            .collect(),
    )
    .await
    .unwrap();
    let twice = stage.rows_of(stage.session, 1, OLD, &[NEW]);
    sqlx::query("CREATE TABLE kept AS SELECT * FROM whatsapp_session_keys")
        .execute(&stage.owner)
        .await
        .unwrap();
    twice.put(vec![row(18, "5", b"stale", None)]).await.unwrap();
    sqlx::query("INSERT INTO whatsapp_session_keys SELECT * FROM kept ON CONFLICT DO NOTHING")
        .execute(&stage.owner)
        .await
        .unwrap();
    assert_eq!(
        stage
            .count("SELECT count(*) FROM whatsapp_session_keys")
            .await,
        21
    );
    assert_eq!(
        both.get(18, &[b"5"]).await.unwrap(),
        [row(18, "5", b"v", Some(5))]
    );
    assert_eq!(both.list(18).await.unwrap().len(), 20);

    let said = succeed(&mut stage.rotate(NEW, OLD));
    assert!(said.contains(" 11 rows of 1 linked phones"), "{said}");
    let mut all = stage.rows(NEW, &[]).list(18).await.unwrap();
    all.sort_by_key(|row| row.touched);
    let expected: Vec<_> = (0..20)
        .map(|n| row(18, &format!("{n}"), b"v", Some(n)))
        .collect();
    assert_eq!(all, expected);
}

/// What of these bytes should have been sealed.
fn leaks(bytes: &[u8]) -> BTreeSet<&'static str> {
    let secrets: [&[u8]; 6] = [
        MARK,
        b"whatsapp.net",
        b"44770090",
        b"@lid",
        b"@g.us",
        &[0x11; 8],
    ];
    let names = [
        "a value",
        "a JID",
        "a number",
        "a hidden number",
        "a group",
        "the key",
    ];
    let mut found = BTreeSet::new();
    for (at, byte) in bytes.iter().enumerate() {
        for (secret, name) in secrets.iter().zip(names) {
            if *byte == secret[0] && bytes[at..].starts_with(secret) {
                found.insert(name);
            }
        }
    }
    found
}

/// `WASEL_DUMP_ROWS` makes it a million.
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_shows_no_key_token_or_number() {
    let rows = std::env::var("WASEL_DUMP_ROWS").map_or(30_000, |n| n.parse().unwrap());
    let stage = Stage::new().await;
    let store = stage.store(OLD, &[]);
    fill(&store).await;
    for start in (0..rows).step_by(5000) {
        let sessions: Vec<(Arc<str>, Bytes)> = (start..rows.min(start + 5000))
            .map(|n| {
                let address = format!("44770090{n:07}@s.whatsapp.net");
                (address.into(), Bytes::from_static(MARK))
            })
            .collect();
        store.put_sessions_batch(&sessions).await.unwrap();
    }
    let plain = b"447700900001@s.whatsapp.net 1@lid 1@g.us the secret of a key \x11\x11\x11\x11\x11\x11\x11\x11";
    assert_eq!(leaks(plain).len(), 6, "the search finds what is there");

    let mut connection = stage.test.connect().await;
    let mut copy = connection
        .copy_out_raw("COPY whatsapp_session_keys TO STDOUT")
        .await
        .unwrap();
    let (mut text, mut lines, mut hexes) = (Vec::new(), 0, 0);
    while let Some(part) = copy.try_next().await.unwrap() {
        text.extend_from_slice(&part);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let mut found = leaks(&line);
            for hex in line.split(|byte| b"\t\n".contains(byte)) {
                if let Some(hex) = hex.strip_prefix(br"\\x") {
                    found.extend(leaks(&hex::decode(hex).unwrap()));
                    hexes += 1;
                }
            }
            assert!(found.is_empty(), "{found:?}");
            lines += 1;
        }
    }
    assert!(text.is_empty());
    assert_eq!(hexes, 2 * lines, "hash and sealed of each");
    assert!(lines >= rows, "{lines}");
    let last = format!("44770090{:07}@s.whatsapp.net", rows - 1);
    assert_eq!(store.get_session(&last).await.unwrap().unwrap(), MARK);
}
