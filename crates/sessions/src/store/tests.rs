//! The store over rows in memory: against the client's own reference store, and where the rows fail.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use whatsapp_rust::wacore::appstate::hash::HashState;
use whatsapp_rust::wacore::appstate::processor::AppStateMutationMAC;
use whatsapp_rust::wacore::store::InMemoryBackend;
use whatsapp_rust::wacore::store::error::StoreError;
use whatsapp_rust::wacore::store::traits::*;

use super::{Store, is_lease_lost};

type Result<T, E = StoreError> = std::result::Result<T, E>;
use crate::host::{HostError, KeyRow, KeyRows};

/// Rows in memory, which can be told to fail.
#[derive(Default)]
struct MemoryRows {
    rows: Mutex<BTreeMap<(i16, Vec<u8>), KeyRow>>,
    /// What the next writes end with.
    fail: Mutex<Option<fn() -> HostError>>,
    /// Rows written since the start.
    written: AtomicUsize,
}

impl MemoryRows {
    fn fail_with(&self, fail: Option<fn() -> HostError>) {
        *self.fail.lock().unwrap() = fail;
    }

    async fn writing(&self) -> Result<(), HostError> {
        // Others get their turn, as they would while the database works.
        tokio::task::yield_now().await;
        match *self.fail.lock().unwrap() {
            Some(fail) => Err(fail()),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl KeyRows for MemoryRows {
    async fn get(&self, kind: i16, keys: &[&[u8]]) -> Result<Vec<KeyRow>, HostError> {
        tokio::task::yield_now().await;
        let rows = self.rows.lock().unwrap();
        let found = keys
            .iter()
            .filter_map(|key| rows.get(&(kind, key.to_vec())));
        Ok(found.cloned().collect())
    }

    async fn list(&self, kind: i16) -> Result<Vec<KeyRow>, HostError> {
        tokio::task::yield_now().await;
        let rows = self.rows.lock().unwrap();
        Ok(rows
            .values()
            .filter(|row| row.kind == kind)
            .cloned()
            .collect())
    }

    async fn put(&self, new: Vec<KeyRow>) -> Result<(), HostError> {
        self.writing().await?;
        self.written.fetch_add(new.len(), Ordering::Relaxed);
        let mut rows = self.rows.lock().unwrap();
        rows.extend(
            new.into_iter()
                .map(|row| ((row.kind, row.key.clone()), row)),
        );
        Ok(())
    }

    async fn delete(&self, kind: i16, keys: &[&[u8]]) -> Result<(), HostError> {
        self.writing().await?;
        let mut rows = self.rows.lock().unwrap();
        for key in keys {
            rows.remove(&(kind, key.to_vec()));
        }
        Ok(())
    }

    async fn delete_kind(&self, kind: i16) -> Result<(), HostError> {
        self.writing().await?;
        self.rows.lock().unwrap().retain(|(of, _), _| *of != kind);
        Ok(())
    }

    async fn delete_before(&self, kind: i16, touched: i64) -> Result<u64, HostError> {
        self.writing().await?;
        let mut rows = self.rows.lock().unwrap();
        let before = rows.len();
        rows.retain(|(of, _), row| *of != kind || row.touched.is_none_or(|at| at >= touched));
        Ok((before - rows.len()) as u64)
    }
}

/// One call of the client. Numbers stand for addresses, groups, messages: few, so that calls meet.
#[derive(Clone, Debug)]
enum Op {
    PutIdentities(Vec<(u8, u8)>),
    DeleteIdentity(u8),
    PutSessions(Vec<(u8, Vec<u8>)>),
    DeleteSession(u8),
    StorePrekeys(Vec<(u8, Vec<u8>)>),
    RemovePrekey(u8),
    MarkUploaded(Vec<u8>),
    StoreSignedPrekey(u8, Vec<u8>),
    RemoveSignedPrekey(u8),
    PutSenderKeys(Vec<(u8, Vec<u8>)>),
    DeleteSenderKey(u8),
    SetSyncKey(u8, u8),
    SetVersion(u8, u8),
    PutMacs(u8, Vec<(u8, u8)>),
    DeleteMacs(u8, Vec<u8>),
    ClearMacs(u8),
    SetSenderKeyStatus(u8, Vec<(u8, bool)>),
    ClearSenderKeyDevices(u8),
    DeleteSenderKeyDevices(Vec<u8>),
    ClearAllSenderKeyDevices,
    PutLids(Vec<(u8, u8)>),
    SaveBaseKey(u8, u8, u8),
    DeleteBaseKey(u8, u8),
    UpdateDeviceLists(Vec<(u8, u8)>),
    DeleteDevices(u8),
    PutGroup(u8, Vec<u8>),
    DeleteGroup(u8),
    PutTcToken(u8, u8, Option<u8>),
    DeleteTcToken(u8),
    TouchTcToken(u8, u8),
    ReceiveTcToken(u8, u8),
    ExpireTcTokens(u8, u8),
    StoreSent(u8, u8, Vec<u8>),
    TakeSent(u8, u8),
    ExpireSent(bool),
    StorePending(Vec<(u8, u8, Vec<u8>)>),
    DeletePending(Vec<(u8, u8)>),
    ExpirePending(bool),
    PutSecrets(Vec<(u8, u8, u8, u8)>),
    ExpireSecrets(u8),
    SaveDevice(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let few = || 0..5u8;
    // Prekeys of several rows, and neighbours in one.
    let prekey = || prop_oneof![0..4u8, 62..67u8, 190..194u8];
    let bytes = || vec(any::<u8>(), 0..9);
    let some = |size: usize| 0..size;
    prop_oneof![
        vec((few(), any::<u8>()), some(4)).prop_map(Op::PutIdentities),
        few().prop_map(Op::DeleteIdentity),
        vec((few(), bytes()), some(4)).prop_map(Op::PutSessions),
        few().prop_map(Op::DeleteSession),
        vec((prekey(), bytes()), some(6)).prop_map(Op::StorePrekeys),
        prekey().prop_map(Op::RemovePrekey),
        vec(prekey(), some(4)).prop_map(Op::MarkUploaded),
        (few(), bytes()).prop_map(|(id, record)| Op::StoreSignedPrekey(id, record)),
        few().prop_map(Op::RemoveSignedPrekey),
        vec((few(), bytes()), some(4)).prop_map(Op::PutSenderKeys),
        few().prop_map(Op::DeleteSenderKey),
        (few(), any::<u8>()).prop_map(|(id, key)| Op::SetSyncKey(id, key)),
        (few(), any::<u8>()).prop_map(|(name, version)| Op::SetVersion(name, version)),
        (0..3u8, vec((few(), any::<u8>()), some(5)))
            .prop_map(|(name, macs)| Op::PutMacs(name, macs)),
        (0..3u8, vec(few(), some(3))).prop_map(|(name, indexes)| Op::DeleteMacs(name, indexes)),
        (0..3u8).prop_map(Op::ClearMacs),
        (few(), vec((few(), any::<bool>()), some(4)))
            .prop_map(|(group, devices)| Op::SetSenderKeyStatus(group, devices)),
        few().prop_map(Op::ClearSenderKeyDevices),
        vec(few(), some(3)).prop_map(Op::DeleteSenderKeyDevices),
        Just(Op::ClearAllSenderKeyDevices),
        vec((few(), few()), some(4)).prop_map(Op::PutLids),
        (few(), few(), few()).prop_map(|(at, id, key)| Op::SaveBaseKey(at, id, key)),
        (few(), few()).prop_map(|(at, id)| Op::DeleteBaseKey(at, id)),
        vec((few(), any::<u8>()), some(4)).prop_map(Op::UpdateDeviceLists),
        few().prop_map(Op::DeleteDevices),
        (few(), bytes()).prop_map(|(group, blob)| Op::PutGroup(group, blob)),
        few().prop_map(Op::DeleteGroup),
        (few(), few(), proptest::option::of(few()))
            .prop_map(|(jid, at, sent)| Op::PutTcToken(jid, at, sent)),
        few().prop_map(Op::DeleteTcToken),
        (few(), few()).prop_map(|(jid, at)| Op::TouchTcToken(jid, at)),
        (few(), few()).prop_map(|(jid, at)| Op::ReceiveTcToken(jid, at)),
        (few(), few()).prop_map(|(token, sender)| Op::ExpireTcTokens(token, sender)),
        (few(), few(), bytes()).prop_map(|(chat, id, payload)| Op::StoreSent(chat, id, payload)),
        (few(), few()).prop_map(|(chat, id)| Op::TakeSent(chat, id)),
        any::<bool>().prop_map(Op::ExpireSent),
        vec((few(), few(), bytes()), some(4)).prop_map(Op::StorePending),
        vec((few(), few()), some(3)).prop_map(Op::DeletePending),
        any::<bool>().prop_map(Op::ExpirePending),
        vec((few(), few(), any::<u8>(), few()), some(4)).prop_map(Op::PutSecrets),
        few().prop_map(Op::ExpireSecrets),
        any::<u8>().prop_map(Op::SaveDevice),
    ]
}

fn name(number: u8) -> String {
    format!("44770090{number:04}@s.whatsapp.net")
}

fn index(number: u8) -> Vec<u8> {
    // Some share a row and some do not.
    vec![number * 32; 32]
}

/// Does it and says what came back.
async fn apply(op: &Op, to: &dyn Backend) -> Result<String> {
    let shared = |number: &u8| Arc::<str>::from(name(*number));
    let records = |from: &[(u8, Vec<u8>)]| -> Vec<(Arc<str>, Bytes)> {
        from.iter()
            .map(|(at, bytes)| (shared(at), Bytes::copy_from_slice(bytes)))
            .collect()
    };
    // Long ago, or in the future: the stores take the time of the clock.
    let cutoff = |all: &bool| if *all { 1 << 40 } else { 1 };
    match op {
        Op::PutIdentities(keys) => {
            let keys: Vec<_> = keys
                .iter()
                .map(|(at, key)| (shared(at), [*key; 32]))
                .collect();
            said(to.put_identities_batch(&keys).await)
        }
        Op::DeleteIdentity(at) => said(to.delete_identity(&name(*at)).await),
        Op::PutSessions(sessions) => said(to.put_sessions_batch(&records(sessions)).await),
        Op::DeleteSession(at) => said(to.delete_session(&name(*at)).await),
        Op::StorePrekeys(keys) => {
            let keys: Vec<_> = keys
                .iter()
                .map(|(id, record)| (u32::from(*id), Bytes::copy_from_slice(record)))
                .collect();
            said(to.store_prekeys_batch(&keys, false).await)
        }
        Op::RemovePrekey(id) => said(to.remove_prekey((*id).into()).await),
        Op::MarkUploaded(ids) => {
            let ids: Vec<u32> = ids.iter().map(|id| (*id).into()).collect();
            said(to.mark_prekeys_uploaded(&ids).await)
        }
        Op::StoreSignedPrekey(id, record) => {
            said(to.store_signed_prekey((*id).into(), record).await)
        }
        Op::RemoveSignedPrekey(id) => said(to.remove_signed_prekey((*id).into()).await),
        Op::PutSenderKeys(keys) => said(to.put_sender_keys_batch(&records(keys)).await),
        Op::DeleteSenderKey(at) => said(to.delete_sender_key(&name(*at)).await),
        Op::SetSyncKey(id, key) => {
            let key = AppStateSyncKey {
                key_data: vec![*key; 3],
                fingerprint: vec![*key],
                timestamp: i64::from(*key),
            };
            said(to.set_sync_key(&[*id], key).await)
        }
        Op::SetVersion(of, version) => {
            let state = HashState {
                version: u64::from(*version),
                hash: [*version; 128],
                ..HashState::default()
            };
            said(to.set_version(&name(*of), state).await)
        }
        Op::PutMacs(of, macs) => {
            let macs: Vec<_> = macs
                .iter()
                .map(|(at, mac)| AppStateMutationMAC {
                    index_mac: index(*at),
                    value_mac: vec![*mac; 3],
                })
                .collect();
            said(to.put_mutation_macs(&name(*of), 1, &macs).await)
        }
        Op::DeleteMacs(of, indexes) => {
            let indexes: Vec<_> = indexes.iter().map(|at| index(*at)).collect();
            said(to.delete_mutation_macs(&name(*of), &indexes).await)
        }
        Op::ClearMacs(of) => said(to.clear_mutation_macs(&name(*of)).await),
        Op::SetSenderKeyStatus(group, devices) => {
            let names: Vec<_> = devices.iter().map(|(at, has)| (name(*at), *has)).collect();
            let entries: Vec<_> = names.iter().map(|(at, has)| (at.as_str(), *has)).collect();
            said(to.set_sender_key_status(&name(*group), &entries).await)
        }
        Op::ClearSenderKeyDevices(group) => said(to.clear_sender_key_devices(&name(*group)).await),
        Op::DeleteSenderKeyDevices(devices) => {
            let names: Vec<_> = devices.iter().map(|at| name(*at)).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            said(to.delete_sender_key_device_rows(&names).await)
        }
        Op::ClearAllSenderKeyDevices => said(to.clear_all_sender_key_devices().await),
        Op::PutLids(lids) => {
            let entries: Vec<_> = lids
                .iter()
                .map(|(lid, phone)| LidPnMappingEntry {
                    lid: format!("lid-{lid}"),
                    phone_number: name(*phone),
                    created_at: 1,
                    updated_at: i64::from(*phone) * 10,
                    learning_source: "usync".into(),
                })
                .collect();
            said(to.put_lid_mappings(&entries).await)
        }
        Op::SaveBaseKey(at, id, key) => {
            said(to.save_base_key(&name(*at), &name(*id), &[*key]).await)
        }
        Op::DeleteBaseKey(at, id) => said(to.delete_base_key(&name(*at), &name(*id)).await),
        Op::UpdateDeviceLists(lists) => {
            let lists = lists
                .iter()
                .map(|(user, device)| DeviceListRecord {
                    user: name(*user),
                    devices: vec![DeviceInfo::new((*device).into(), None)],
                    timestamp: 1,
                    phash: None,
                    raw_id: Some(7),
                })
                .collect();
            said(to.update_device_lists(lists).await)
        }
        Op::DeleteDevices(user) => said(to.delete_devices(&name(*user)).await),
        Op::PutGroup(group, blob) => said(to.put_group_metadata(&name(*group), blob).await),
        Op::DeleteGroup(group) => said(to.delete_group_metadata(&name(*group)).await),
        Op::PutTcToken(jid, at, sent) => {
            let entry = TcTokenEntry {
                token: vec![*at],
                token_timestamp: (*at).into(),
                sender_timestamp: sent.map(i64::from),
            };
            said(to.put_tc_token(&name(*jid), &entry).await)
        }
        Op::DeleteTcToken(jid) => said(to.delete_tc_token(&name(*jid)).await),
        Op::TouchTcToken(jid, at) => {
            let at = i64::from(*at);
            said(to.touch_tc_token_sender_timestamp(&name(*jid), at).await)
        }
        Op::ReceiveTcToken(jid, at) => {
            let at = i64::from(*at);
            said(to.store_received_tc_token(&name(*jid), &[9], at).await)
        }
        Op::ExpireTcTokens(token, sender) => {
            let (token, sender) = (i64::from(*token), i64::from(*sender));
            said(to.delete_expired_tc_tokens(token, sender).await)
        }
        Op::StoreSent(chat, id, payload) => said(
            to.store_sent_message(&name(*chat), &name(*id), payload)
                .await,
        ),
        Op::TakeSent(chat, id) => said(to.take_sent_message(&name(*chat), &name(*id)).await),
        Op::ExpireSent(all) => said(to.delete_expired_sent_messages(cutoff(all)).await),
        Op::StorePending(messages) => {
            let names: Vec<_> = messages
                .iter()
                .map(|(chat, id, message)| (name(*chat), name(*id), message))
                .collect();
            let rows: Vec<_> = names
                .iter()
                .map(|(chat, id, message)| PendingInboundRow {
                    chat,
                    sender: chat,
                    id,
                    message,
                })
                .collect();
            said(to.store_pending_inbound_batch(&rows).await)
        }
        Op::DeletePending(messages) => {
            let names: Vec<_> = messages
                .iter()
                .map(|(chat, id)| (name(*chat), name(*id)))
                .collect();
            let keys: Vec<_> = names
                .iter()
                .map(|(chat, id)| PendingInboundKey {
                    chat,
                    sender: chat,
                    id,
                })
                .collect();
            said(to.delete_pending_inbound_batch(&keys).await)
        }
        Op::ExpirePending(all) => said(to.delete_expired_pending_inbound(cutoff(all)).await),
        Op::PutSecrets(secrets) => {
            let entries = secrets
                .iter()
                .map(|(chat, id, secret, expires_at)| MsgSecretEntry {
                    chat: shared(chat),
                    sender: shared(chat),
                    msg_id: shared(id),
                    secret: [*secret; 32],
                    expires_at: (*expires_at).into(),
                    message_ts: i64::from(*expires_at) % 3,
                })
                .collect();
            said(to.put_msg_secrets(entries).await)
        }
        Op::ExpireSecrets(now) => said(to.delete_expired_msg_secrets((*now).into()).await),
        Op::SaveDevice(named) => {
            // Not made anew: that costs keys.
            let mut device = match to.load().await? {
                Some(device) => device,
                None => DEVICE.clone(),
            };
            device.push_name = named.to_string();
            said(to.save(&device).await)
        }
    }
}

static DEVICE: std::sync::LazyLock<whatsapp_rust::wacore::store::Device> =
    std::sync::LazyLock::new(whatsapp_rust::wacore::store::Device::new);

fn said<T: Debug>(result: Result<T>) -> Result<String> {
    result.map(|answer| format!("{answer:?}"))
}

/// Everything that can be read, in words.
async fn everything(of: &dyn Backend) -> Result<Vec<String>> {
    let mut all = Vec::new();
    macro_rules! note {
        ($what:expr) => {
            all.push(format!("{}: {:?}", stringify!($what), $what))
        };
    }
    for n in 0..5u8 {
        let at = name(n);
        note!(of.load_identity(&at).await?);
        note!(of.get_session(&at).await?);
        note!(of.has_session(&at).await?);
        note!(of.load_signed_prekey(n.into()).await?);
        note!(of.get_sender_key(&at).await?);
        note!(of.get_sync_key(&[n]).await?);
        let version = of.get_version(&at).await?;
        note!((version.version, version.hash));
        let mut devices = of.get_sender_key_devices(&at).await?;
        devices.sort();
        note!(devices);
        note!(of.get_lid_mapping(&format!("lid-{n}")).await?);
        note!(of.get_devices(&at).await?);
        note!(of.get_group_metadata(&at).await?);
        note!(of.get_tc_token(&at).await?);
        for m in 0..5u8 {
            let id = name(m);
            note!(of.get_mutation_mac(&at, &index(m)).await?);
            note!(of.has_same_base_key(&at, &id, &[1]).await?);
            note!(of.get_pending_inbound(&at, &at, &id).await?);
            note!(of.get_msg_secret(&at, &at, &id).await?);
            note!(of.get_msg_secret_with_ts(&at, &at, &id).await?);
        }
        let indexes: Vec<[u8; 32]> = (0..5).map(|m| index(m).try_into().unwrap()).collect();
        let macs = of.get_mutation_macs(&at, &indexes).await?;
        note!(macs.into_iter().collect::<BTreeMap<_, _>>());
    }
    let ids: Vec<u32> = (0..256).collect();
    let mut prekeys = of.load_prekeys_batch(&ids).await?;
    prekeys.sort();
    note!(prekeys);
    note!(of.load_prekey(63).await?);
    note!(of.get_max_prekey_id().await?);
    let mut signed = of.load_all_signed_prekeys().await?;
    signed.sort();
    note!(signed);
    note!(of.get_latest_sync_key_id().await?);
    let mut jids = of.get_all_tc_token_jids().await?;
    jids.sort();
    note!(jids);
    let mut lids = of.get_all_lid_mappings().await?;
    lids.sort_by(|a, b| a.lid.cmp(&b.lid));
    note!(lids);
    note!(of.exists().await?);
    note!(of.load().await?.map(|device| device.push_name));
    Ok(all)
}

/// Of the mappings to a phone number the most recent one, as the client's contract has it. The reference store keeps
/// the last one written instead, and none where that moved away.
async fn check_phones(store: &Store) {
    let all = store.get_all_lid_mappings().await.unwrap();
    for phone in (0..5).map(name) {
        let expected = all
            .iter()
            .filter(|entry| entry.phone_number == phone)
            .map(|entry| (entry.updated_at, &entry.lid))
            .max();
        let found = store.get_pn_mapping(&phone).await.unwrap();
        assert_eq!(
            found.as_ref().map(|entry| (entry.updated_at, &entry.lid)),
            expected
        );
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Around {
    Nothing,
    /// A new store over the same rows, as after a restart.
    Reopen,
    /// The database refuses the write.
    Fail,
}

fn around() -> impl Strategy<Value = Around> {
    prop_oneof![
        8 => Just(Around::Nothing),
        1 => Just(Around::Reopen),
        2 => Just(Around::Fail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_calls_leave_what_the_reference_store_has(ops in vec((op(), around()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let rows = Arc::new(MemoryRows::default());
            let reference = InMemoryBackend::new();
            let mut store = Store::new(rows.clone());
            for (op, around) in &ops {
                if *around == Around::Reopen {
                    store = Store::new(rows.clone());
                }
                if *around == Around::Fail {
                    rows.fail_with(Some(|| HostError::Unavailable));
                }
                let answer = apply(op, &store).await;
                rows.fail_with(None);
                match answer {
                    Ok(answer) => assert_eq!(answer, apply(op, &reference).await.unwrap(), "{op:?}"),
                    Err(error) => {
                        assert_eq!(*around, Around::Fail, "{op:?}: {error}");
                        assert!(!store.lost().is_cancelled());
                    }
                }
            }
            let ours = everything(&store).await.unwrap();
            assert_eq!(ours, everything(&reference).await.unwrap());
            check_phones(&store).await;
        });
    }
}

fn store() -> (Store, Arc<MemoryRows>) {
    let rows = Arc::new(MemoryRows::default());
    (Store::new(rows.clone()), rows)
}

/// As the client makes them for a new phone.
async fn fresh(store: &Store) {
    store.create().await.unwrap();
    let keys: Vec<_> = (1..=812).map(|id| (id, Bytes::from(vec![7; 72]))).collect();
    store.store_prekeys_batch(&keys, false).await.unwrap();
    store.store_signed_prekey(1, &[8; 140]).await.unwrap();
}

#[tokio::test]
async fn a_fresh_phone_is_some_rows_and_a_used_prekey_writes_one() {
    let (store, rows) = store();
    fresh(&store).await;
    let count = rows.rows.lock().unwrap().len();
    assert!(count < 20, "{count}");
    let before = rows.written.load(Ordering::Relaxed);
    store.remove_prekey(400).await.unwrap();
    assert_eq!(rows.written.load(Ordering::Relaxed), before + 1);
    assert_eq!(store.load_prekey(400).await.unwrap(), None);
    let ids: Vec<u32> = (0..1000).collect();
    assert_eq!(store.load_prekeys_batch(&ids).await.unwrap().len(), 811);
    assert_eq!(store.get_max_prekey_id().await.unwrap(), 812);
    assert!(store.exists().await.unwrap());
}

#[tokio::test]
async fn changes_to_one_row_at_the_same_time_all_count() {
    let (store, _) = store();
    fresh(&store).await;
    let (used, new) = (1..=60, 813..=830);
    tokio::join!(
        join_all(used.map(|id| {
            let store = &store;
            async move { store.remove_prekey(id).await.unwrap() }
        })),
        join_all(new.map(|id| {
            let store = &store;
            async move { store.store_prekey(id, &[1], false).await.unwrap() }
        })),
        join_all((0..20i64).map(|n| {
            let store = &store;
            async move {
                store
                    .touch_tc_token_sender_timestamp("a@lid", n)
                    .await
                    .unwrap();
                store
                    .store_received_tc_token("a@lid", &[n as u8], n)
                    .await
                    .unwrap();
            }
        })),
        join_all((0..20u8).map(|n| {
            let store = &store;
            async move {
                let device = name(n);
                store
                    .set_sender_key_status("g@g.us", &[(&device, true)])
                    .await
                    .unwrap();
            }
        })),
    );
    let ids: Vec<u32> = (0..1000).collect();
    let left = store.load_prekeys_batch(&ids).await.unwrap();
    let left: Vec<u32> = left.into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, (61..=830).collect::<Vec<u32>>());
    let token = store.get_tc_token("a@lid").await.unwrap().unwrap();
    assert_eq!(
        (token.sender_timestamp, token.token_timestamp),
        (Some(19), 19)
    );
    assert_eq!(
        store.get_sender_key_devices("g@g.us").await.unwrap().len(),
        20
    );
}

#[tokio::test]
async fn a_message_to_be_sent_again_is_taken_once() {
    let (store, _) = store();
    store
        .store_sent_message("c", "m", b"payload")
        .await
        .unwrap();
    let taken = join_all((0..4).map(|_| store.take_sent_message("c", "m"))).await;
    let taken: Vec<_> = taken
        .into_iter()
        .filter_map(|taken| taken.unwrap())
        .collect();
    assert_eq!(taken, [b"payload"]);
}

#[tokio::test]
async fn a_lost_lease_is_told_once_and_ends_the_store() {
    let (store, rows) = store();
    store.put_session("a", b"1").await.unwrap();
    rows.fail_with(Some(|| HostError::Unavailable));
    let away = store.put_session("a", b"2").await.unwrap_err();
    assert!(!is_lease_lost(&away) && !store.lost().is_cancelled());
    rows.fail_with(Some(|| HostError::LeaseLost));
    let lost = store.put_session("a", b"2").await.unwrap_err();
    assert!(is_lease_lost(&lost) && store.lost().is_cancelled());
    // Even if the rows would answer: what they say may be another node's by now.
    rows.fail_with(None);
    assert!(is_lease_lost(&store.get_session("a").await.unwrap_err()));
    assert!(is_lease_lost(
        &store.put_session("a", b"3").await.unwrap_err()
    ));
    assert_eq!(
        rows.rows.lock().unwrap().values().next().unwrap().value,
        b"1"
    );
}

#[tokio::test]
async fn a_damaged_row_is_an_error_and_not_an_empty_answer() {
    let (store, rows) = store();
    fresh(&store).await;
    store.put_identity("a", [1; 32]).await.unwrap();
    for row in rows.rows.lock().unwrap().values_mut() {
        row.value.truncate(row.value.len() / 2);
    }
    assert!(store.load().await.is_err());
    assert!(store.load_prekey(1).await.is_err());
    assert!(store.remove_prekey(1).await.is_err());
    assert!(store.load_identity("a").await.is_err());
}

#[tokio::test]
async fn the_device_comes_back_as_it_was_saved() {
    let (store, rows) = store();
    store.create().await.unwrap();
    let mut device = store.load().await.unwrap().unwrap();
    device.push_name = "Ada".into();
    store.save(&device).await.unwrap();
    let back = Store::new(rows).load().await.unwrap().unwrap();
    assert_eq!(
        serde_json::to_value(&back).unwrap(),
        serde_json::to_value(&device).unwrap()
    );
    assert_eq!(back.push_name, "Ada");
}
