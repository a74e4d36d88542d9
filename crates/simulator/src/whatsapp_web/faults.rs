//! Breaking things on purpose.

use chrono::{Duration, Utc};
use wacore_binary::{Node, NodeContent, builder::NodeBuilder};

use super::{
    Hub, WhatsappDisruption, WhatsappFaults, WhatsappWeb, WhatsappWebError, login,
    state::{SocketSender, ToSocket},
};

impl WhatsappWeb {
    /// The switches as they stand, with what is left of each count.
    pub fn faults(&self) -> WhatsappFaults {
        self.hub.lock().faults.clone()
    }

    /// Replaces all switches. The default heals everything.
    pub fn set_faults(&self, faults: WhatsappFaults) {
        self.hub.lock().faults = faults;
    }

    /// Hits the connected devices of one number, or of all. Returns how many.
    ///
    /// # Errors
    /// When there is no such phone.
    pub fn disrupt(
        &self,
        number: Option<&str>,
        what: WhatsappDisruption,
    ) -> Result<usize, WhatsappWebError> {
        let number = number.map(|number| self.known(number)).transpose()?;
        let senders = self.hub.sockets_of(number.as_deref());
        for sender in &senders {
            // One that has gone already is as good as hit.
            drop(sender.send(match what {
                WhatsappDisruption::Drop => ToSocket::Drop,
                WhatsappDisruption::Unavailable => {
                    ToSocket::Farewell(NodeBuilder::new("stream:error").attr("code", "503").build())
                }
                WhatsappDisruption::Replaced => ToSocket::Farewell(login::replaced()),
            }));
        }
        Ok(senders.len())
    }

    /// Bans a number's devices for a while: their sockets end, and logins are refused with 402.
    ///
    /// # Errors
    /// When there is no such phone.
    pub fn ban(&self, number: &str, seconds: u32) -> Result<(), WhatsappWebError> {
        let number = self.known(number)?;
        {
            let mut state = self.hub.lock();
            if let Some(account) = state.accounts.get_mut(&number) {
                let until = Utc::now() + Duration::seconds(i64::from(seconds));
                account.banned_until = (seconds > 0).then_some(until);
            }
        }
        if seconds > 0 {
            for sender in self.hub.sockets_of(Some(&number)) {
                drop(sender.send(ToSocket::Drop));
            }
        }
        Ok(())
    }
}

impl Hub {
    fn sockets_of(&self, number: Option<&str>) -> Vec<SocketSender> {
        let state = self.lock();
        state
            .sockets
            .values()
            .filter(|socket| match (number, &socket.owner) {
                (Some(number), Some(owner)) => owner.number == number,
                (None, Some(_)) => true,
                _ => false,
            })
            .map(|socket| socket.sender.clone())
            .collect()
    }

    /// Whether this stanza costs its device the socket.
    pub(super) fn loses_socket(&self) -> bool {
        let chance = self.lock().faults.drop_probability;
        chance > 0.0 && rand_for_signal::random::<f64>() < chance
    }

    /// The code the next message of a device is refused with, if it is.
    pub(super) fn nacks(&self) -> Option<u16> {
        let mut state = self.lock();
        let faults = &mut state.faults;
        faults.nack_next = faults.nack_next.checked_sub(1)?;
        Some(faults.nack_code)
    }
}

/// Flips a bit of each ciphertext while the switch says so.
pub(super) fn damage(faults: &mut WhatsappFaults, nodes: &mut [Node]) {
    let Some(left) = faults.damage_next.checked_sub(1) else {
        return;
    };
    faults.damage_next = left;
    for node in nodes {
        if let Some(NodeContent::Bytes(bytes)) = &mut node.content
            && let Some(last) = bytes.last_mut()
        {
            *last ^= 1;
        }
    }
}
