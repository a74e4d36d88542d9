//! Groups: making them, who is in them, and messages to all of them.

use chrono::Utc;
use uuid::Uuid;
use wacore_binary::{Jid, Node, builder::NodeBuilder};

use super::{
    Broken, Hub, WhatsappGroup, WhatsappWeb, WhatsappWebError, digits,
    iq::{error, notification, result, result_with, text},
    messages::{Head, parcel, with_identity},
    state::{DeviceId, Parcel, State, attribute, attribute_jid},
};

impl WhatsappWeb {
    /// A phone makes a group; every member's devices are told.
    ///
    /// # Errors
    /// When a number is not registered.
    pub fn create_group(
        &self,
        creator: &str,
        subject: &str,
        members: &[&str],
    ) -> Result<WhatsappGroup, WhatsappWebError> {
        let creator = self.known(creator)?;
        let mut numbers = vec![creator.clone()];
        for member in members {
            let member = self.known(member)?;
            if !numbers.contains(&member) {
                numbers.push(member);
            }
        }
        let mut state = self.hub.lock();
        Ok(state.new_group(creator, subject, numbers))
    }

    /// All groups there are.
    pub fn groups(&self) -> Vec<WhatsappGroup> {
        self.hub.lock().groups.values().cloned().collect()
    }

    /// Adds a phone to a group, or takes it out.
    ///
    /// # Errors
    /// When the group or the number is unknown.
    pub fn change_member(
        &self,
        group: &str,
        number: &str,
        member: bool,
    ) -> Result<WhatsappGroup, WhatsappWebError> {
        let number = digits(number)?;
        let mut state = self.hub.lock();
        if !state.accounts.contains_key(&number) {
            return Err(WhatsappWebError::UnknownPhone);
        }
        state
            .change_member(group, &number, member)
            .ok_or(WhatsappWebError::UnknownGroup)
    }
}

impl State {
    fn new_group(&mut self, creator: String, subject: &str, members: Vec<String>) -> WhatsappGroup {
        // As long as real ones are.
        let id = Uuid::new_v4().as_u128() % 1_000_000_000_000_000;
        let group = WhatsappGroup {
            jid: format!("120{id:015}@g.us"),
            subject: subject.to_owned(),
            creator,
            members,
            created_at: Utc::now(),
        };
        self.groups.insert(group.jid.clone(), group.clone());
        let node = self.group_node(&group);
        let create = NodeBuilder::new("create")
            .attr("type", "new")
            .children([node])
            .build();
        self.tell_members(&group, &create);
        group
    }

    fn change_member(&mut self, jid: &str, number: &str, member: bool) -> Option<WhatsappGroup> {
        let before = self.groups.get(jid)?.clone();
        let group = self.groups.get_mut(jid)?;
        group.members.retain(|known| known != number);
        if member {
            group.members.push(number.to_owned());
        }
        let after = group.clone();
        let participant = self.participant(number, "", &after.creator)?;
        let change = NodeBuilder::new(if member { "add" } else { "remove" })
            .children([participant])
            .build();
        // Who is taken out is told as well.
        self.tell_members(if member { &after } else { &before }, &change);
        Some(after)
    }

    fn tell_members(&mut self, group: &WhatsappGroup, change: &Node) {
        let Some(creator) = self.accounts.get(&group.creator) else {
            return;
        };
        let (author, author_pn) = (creator.lid_jid(0), creator.jid(0));
        let from: Jid = group.jid.parse().unwrap_or_default();
        for member in &group.members {
            let Some(account) = self.accounts.get_mut(member) else {
                continue;
            };
            let devices: Vec<u16> = account.companions.keys().copied().collect();
            for device in devices {
                let news = notification(from.clone(), "w:gp2")
                    .attr("participant", author.clone())
                    .attr("participant_pn", author_pn.clone())
                    .attr("addressing_mode", "lid")
                    .children([change.clone()])
                    .build();
                account.deliver(device, "notification", news);
            }
        }
    }

    fn participant(&self, number: &str, kind: &'static str, creator: &str) -> Option<Node> {
        let account = self.accounts.get(number)?;
        let mut node = NodeBuilder::new("participant")
            .attr("jid", account.lid_jid(0))
            .attr("phone_number", account.jid(0));
        let kind = if number == creator && kind == "role" {
            Some("superadmin")
        } else {
            None
        };
        if let Some(kind) = kind {
            node = node.attr("type", kind);
        }
        Some(node.build())
    }

    fn group_node(&self, group: &WhatsappGroup) -> Node {
        let participants: Vec<Node> = group
            .members
            .iter()
            .filter_map(|member| self.participant(member, "role", &group.creator))
            .collect();
        let made = group.created_at.timestamp();
        let id = group.jid.trim_end_matches("@g.us").to_owned();
        let mut node = NodeBuilder::new("group")
            .attr("id", id)
            .attr("subject", group.subject.as_str())
            .attr("addressing_mode", "lid")
            .attr("creation", made)
            .attr("s_t", made)
            .attr("size", participants.len())
            .attr("p_v_id", made)
            .attr("a_v_id", made);
        if let Some(creator) = self.accounts.get(&group.creator) {
            node = node
                .attr("creator", creator.lid_jid(0))
                .attr("creator_pn", creator.jid(0))
                .attr("s_o", creator.lid_jid(0))
                .attr("s_o_pn", creator.jid(0));
        }
        node.children(participants).build()
    }
}

/// `xmlns="w:g2"`.
pub(super) fn answer(hub: &Hub, from: &DeviceId, iq: &Node) -> Result<Node, Broken> {
    let to = attribute_jid(iq, "to").ok_or(Broken::Stanza("to no group"))?;
    let mut state = hub.lock();
    let wish = iq
        .children()
        .and_then(<[Node]>::first)
        .ok_or(Broken::Stanza("an empty question"))?;
    match &*wish.tag {
        "create" => {
            let subject = attribute(wish, "subject").unwrap_or_default();
            let mut members = vec![from.number.clone()];
            for jid in participants(wish) {
                if let Some(device) = state.resolve(&jid)
                    && !members.contains(&device.number)
                {
                    members.push(device.number);
                }
            }
            let group = state.new_group(from.number.clone(), &subject, members);
            let node = state.group_node(&group);
            return Ok(result_with(iq, [node]));
        }
        "participating" => {
            let mine = |group: &&WhatsappGroup| group.members.contains(&from.number);
            let groups: Vec<Node> = state
                .groups
                .values()
                .filter(mine)
                .map(|group| state.group_node(group))
                .collect();
            let list = NodeBuilder::new("groups").children(groups).build();
            return Ok(result_with(iq, [list]));
        }
        "leave" => {
            for left in wish.get_children_by_tag("group") {
                if let Some(jid) = attribute(left, "id") {
                    state.change_member(&jid, &from.number, false);
                }
            }
            return Ok(result_with(iq, [wish.clone()]));
        }
        _ => {}
    }
    let jid = to.to_string();
    let Some(group) = state.groups.get(&jid).cloned() else {
        return Ok(error(iq, 404, "item-not-found"));
    };
    if !group.members.contains(&from.number) {
        return Ok(error(iq, 403, "forbidden"));
    }
    Ok(match &*wish.tag {
        "query" => result_with(iq, [state.group_node(&group)]),
        action @ ("add" | "remove") => {
            let member = action == "add";
            let mut changed = Vec::new();
            for jid in participants(wish) {
                let Some(device) = state.resolve(&jid) else {
                    continue;
                };
                state.change_member(&group.jid, &device.number, member);
                changed.extend(state.participant(&device.number, "", &group.creator));
            }
            let answer = NodeBuilder::new_dynamic(action.to_owned())
                .children(changed)
                .build();
            result_with(iq, [answer])
        }
        "subject" => {
            if let (Some(group), Some(subject)) = (state.groups.get_mut(&jid), text(wish)) {
                group.subject = subject;
            }
            result(iq)
        }
        _ => result(iq),
    })
}

fn participants(wish: &Node) -> impl Iterator<Item = Jid> {
    wish.get_children_by_tag("participant")
        .filter_map(|participant| attribute_jid(participant, "jid"))
}

impl Hub {
    /// A device's message to a group: to each member's devices the group's ciphertext, and the sender's key where it
    /// is for that device.
    pub(super) fn route_to_group(
        &self,
        me: &DeviceId,
        id: &str,
        to: &Jid,
        node: &Node,
    ) -> Result<Vec<(String, Parcel)>, Broken> {
        let kind = attribute(node, "type").unwrap_or_else(|| "text".to_owned());
        let edit = attribute(node, "edit");
        let group_jid = to.to_string();
        let for_all = node.get_optional_child("enc");
        let mut state = self.lock();
        let group = state.groups.get(&group_jid);
        let members = group
            .filter(|group| group.members.contains(&me.number))
            .map(|group| group.members.clone())
            .ok_or(Broken::Stanza("not a member"))?;
        let named: Vec<(DeviceId, &Node)> = node
            .get_optional_child("participants")
            .into_iter()
            .flat_map(|list| list.get_children_by_tag("to"))
            .filter_map(|to| {
                let device = state.resolve(&attribute_jid(to, "jid")?)?;
                Some((device, to.get_optional_child("enc")?))
            })
            .collect();
        let mut devices = Vec::new();
        for member in &members {
            let Some(account) = state.accounts.get(member) else {
                continue;
            };
            devices.push(account.id(0));
            devices.extend(account.companions.keys().map(|device| account.id(*device)));
        }
        let mut parcels = Vec::new();
        for device in devices.into_iter().filter(|device| device != me) {
            let own = named.iter().find(|(named, _)| *named == device);
            let ciphertexts: Vec<&Node> = own
                .map(|(_, node)| *node)
                .into_iter()
                .chain(for_all)
                .collect();
            if ciphertexts.is_empty() {
                continue;
            }
            if device.device == 0 {
                let parcel = parcel(me, id, Some(group_jid.clone()), ciphertexts);
                parcels.push((device.number, parcel));
                continue;
            }
            let sender = state
                .accounts
                .get(&me.number)
                .ok_or(Broken::Stanza("no account"))?;
            let head = Head {
                id,
                kind: &kind,
                edit: edit.as_deref(),
                peer: false,
                group: Some(&group_jid),
                chat: None,
            };
            let ciphertexts = ciphertexts.into_iter().cloned().collect();
            let stanza = head
                .stanza(sender, me.device)
                .children(with_identity(node, ciphertexts))
                .build();
            if let Some(account) = state.accounts.get_mut(&device.number) {
                account.deliver(device.device, "message", stanza);
            }
        }
        Ok(parcels)
    }
}
