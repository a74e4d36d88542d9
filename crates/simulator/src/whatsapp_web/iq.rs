//! Questions of linked devices that are answered at once, and where the others go.

use chrono::Utc;
use wacore_binary::{Jid, Node, NodeValue, builder::NodeBuilder};
use waproto::{
    buffa::{Message, MessageField},
    whatsapp::{SyncdPatch, SyncdVersion},
};

use super::{
    Broken, Hub, groups, keys, media,
    state::{DeviceId, State, attribute, attribute_jid, child_content, content},
    usync,
};

/// `None` for what needs no answer.
pub(super) fn hear(hub: &Hub, from: &DeviceId, iq: &Node) -> Result<Option<Node>, Broken> {
    let kind = attribute(iq, "type").unwrap_or_default();
    if kind == "result" || kind == "error" {
        return Ok(None);
    }
    let space = attribute(iq, "xmlns").unwrap_or_default();
    Ok(Some(match space.as_str() {
        "encrypt" => keys::answer(hub, from, iq)?,
        "usync" => usync::answer(hub, iq)?,
        "w:g2" => groups::answer(hub, from, iq)?,
        "w:m" => media::connection(hub, iq),
        "w:sync:app:state" => app_state(&mut hub.lock(), from, iq)?,
        "passive" => {
            let answer = result(iq);
            if iq.get_optional_child("active").is_some() {
                let mut state = hub.lock();
                let account = state.accounts.get_mut(&from.number);
                if let Some(own) = account.and_then(|a| a.companions.get_mut(&from.device)) {
                    if let Some(socket) = &own.socket {
                        super::login::say(&socket.sender, answer);
                    }
                    own.activate();
                }
                return Ok(None);
            }
            answer
        }
        "md" if iq.get_optional_child("remove-companion-device").is_some() => {
            return Ok(log_out(hub, from, iq));
        }
        "abt" => result_with(
            iq,
            [NodeBuilder::new("props")
                .attr("protocol", "1")
                .attr("ab_key", "sim")
                .attr("hash", "sim")
                .attr("refresh", 86_400)
                .attr("refresh_id", 1)
                .build()],
        ),
        "blocklist" => result_with(iq, [NodeBuilder::new("list").attr("dhash", "sim").build()]),
        "privacy" if kind == "get" => privacy(iq),
        "w:profile:picture" if kind == "get" => error(iq, 404, "item-not-found"),
        "w:biz" => result_with(iq, [NodeBuilder::new("business_profile").build()]),
        "w:mex" => error(iq, 501, "feature-not-implemented"),
        // Pings, tokens, telemetry, clean marks: done, and nothing to say.
        _ => result(iq),
    }))
}

pub(super) fn result(iq: &Node) -> Node {
    answer(iq, "result").build()
}

pub(super) fn result_with(iq: &Node, children: impl IntoIterator<Item = Node>) -> Node {
    answer(iq, "result").children(children).build()
}

pub(super) fn error(iq: &Node, code: u16, text: &'static str) -> Node {
    let error = NodeBuilder::new("error")
        .attr("code", code)
        .attr("text", text)
        .build();
    answer(iq, "error").children([error]).build()
}

fn answer(iq: &Node, kind: &'static str) -> NodeBuilder {
    let from = iq.attrs.get("to").cloned();
    NodeBuilder::new("iq")
        .attr(
            "from",
            from.unwrap_or_else(|| NodeValue::from("s.whatsapp.net")),
        )
        .attr("type", kind)
        .attr("id", attribute(iq, "id").unwrap_or_default())
        .attr("t", Utc::now().timestamp())
}

fn privacy(iq: &Node) -> Node {
    let all = [
        "last",
        "online",
        "profile",
        "status",
        "groupadd",
        "readreceipts",
        "calladd",
        "messages",
    ];
    let categories = all.map(|name| {
        NodeBuilder::new("category")
            .attr("name", name)
            .attr("value", "all")
            .build()
    });
    result_with(
        iq,
        [NodeBuilder::new("privacy").children(categories).build()],
    )
}

/// The device takes itself off the list.
fn log_out(hub: &Hub, from: &DeviceId, iq: &Node) -> Option<Node> {
    let asked = iq.get_optional_child("remove-companion-device")?;
    let device = attribute_jid(asked, "jid").map_or(from.device, |jid| jid.device);
    let answer = result(iq);
    if device != from.device {
        hub.remove_companion(&from.number, device);
        return Some(answer);
    }
    let state = hub.lock();
    let own = state
        .accounts
        .get(&from.number)
        .and_then(|a| a.companions.get(&device));
    if let Some(socket) = own.and_then(|own| own.socket.as_ref()) {
        super::login::say(&socket.sender, answer);
    }
    drop(state);
    hub.remove_companion(&from.number, device);
    None
}

/// Collections of settings shared between an account's devices: patches are kept and handed on, not read.
fn app_state(state: &mut State, from: &DeviceId, iq: &Node) -> Result<Node, Broken> {
    let sync = iq
        .get_optional_child("sync")
        .ok_or(Broken::Stanza("no sync"))?;
    let account = state
        .accounts
        .get_mut(&from.number)
        .ok_or(Broken::Stanza("no account"))?;
    let mut answers = Vec::new();
    let mut changed = Vec::new();
    for asked in sync.get_children_by_tag("collection") {
        let name = attribute(asked, "name").ok_or(Broken::Stanza("a nameless collection"))?;
        let known: usize = attribute(asked, "version")
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        let patches = account.app_state.entry(name.clone()).or_default();
        let mut collection = NodeBuilder::new("collection").attr("name", name.clone());
        if let Some(patch) = child_content(asked, "patch") {
            if known != patches.len() {
                let conflict = NodeBuilder::new("error")
                    .attr("code", "409")
                    .attr("text", "conflict")
                    .build();
                collection = collection.attr("type", "error").children([conflict]);
                answers.push(collection.build());
                continue;
            }
            let mut patch = SyncdPatch::decode_from_slice(patch).map_err(Broken::crypto)?;
            let version = u64::try_from(patches.len() + 1).map_err(Broken::crypto)?;
            patch.version = MessageField::some(SyncdVersion {
                version: Some(version),
            });
            patches.push(patch.encode_to_vec());
            changed.push(name);
        }
        let news = patches.get(known..).unwrap_or_default();
        collection = collection.attr("version", patches.len());
        if !news.is_empty() && asked.get_optional_child("patch").is_none() {
            let patches = news
                .iter()
                .map(|patch| NodeBuilder::new("patch").bytes(patch.clone()).build());
            let patches = NodeBuilder::new("patches").children(patches).build();
            collection = collection.children([patches]);
        }
        answers.push(collection.build());
    }
    if !changed.is_empty() {
        let others: Vec<u16> = account.companions.keys().copied().collect();
        for device in others.into_iter().filter(|d| *d != from.device) {
            let collections = changed.iter().map(|name| {
                NodeBuilder::new("collection")
                    .attr("name", name.clone())
                    .build()
            });
            let news = notification(account.jid(0), "server_sync")
                .children(collections)
                .build();
            account.deliver(device, "notification", news);
        }
    }
    Ok(result_with(
        iq,
        [NodeBuilder::new("sync").children(answers).build()],
    ))
}

/// The head of a notification.
pub(super) fn notification(from: Jid, kind: &'static str) -> NodeBuilder {
    NodeBuilder::new("notification")
        .attr("from", from)
        .attr("type", kind)
        .attr("id", super::login::stanza_id())
        .attr("t", Utc::now().timestamp())
}

/// A node's content as text, where it is.
pub(super) fn text(node: &Node) -> Option<String> {
    content(node).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}
