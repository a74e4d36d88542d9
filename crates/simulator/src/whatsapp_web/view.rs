//! Registering phones and looking at them.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use super::{
    NewWhatsappPhone, WhatsappFailure, WhatsappMessage, WhatsappPhone, WhatsappPhoneSettings,
    WhatsappWeb, WhatsappWebError, digits, locked, phone::Phone, state::Account,
};

impl WhatsappWeb {
    /// Registers a phone, or changes the name and settings of one. Returns its number as digits.
    ///
    /// # Errors
    /// When the number is none, or no keys can be made.
    pub fn register(&self, new: &NewWhatsappPhone) -> Result<String, WhatsappWebError> {
        let number = digits(&new.number)?;
        let name = new.name.trim();
        let name = if name.is_empty() { &number } else { name };
        if let Some(account) = self.hub.lock().accounts.get_mut(&number) {
            name.clone_into(&mut account.name);
        } else {
            let phone = Phone::new(new.settings.clone())
                .map_err(|error| WhatsappWebError::Invalid(error.to_string()))?;
            let identity = phone.signal.identity();
            let mut state = self.hub.lock();
            let lid = state.new_lid();
            state.lids.insert(lid.clone(), number.clone());
            let account = Account {
                number: number.clone(),
                lid,
                name: name.to_owned(),
                identity,
                phone: Arc::new(Mutex::new(phone)),
                online: true,
                for_phone: VecDeque::new(),
                companions: BTreeMap::new(),
                next_device: 1,
                key_index: 0,
                app_state: HashMap::new(),
                contacts: HashSet::new(),
                banned_until: None,
            };
            state.accounts.insert(number.clone(), account);
        }
        self.set_settings(&number, new.settings.clone())?;
        Ok(number)
    }

    /// Changes how a phone behaves. Switched on, it receives what waited.
    ///
    /// # Errors
    /// When there is no such phone.
    pub fn set_settings(
        &self,
        number: &str,
        settings: WhatsappPhoneSettings,
    ) -> Result<(), WhatsappWebError> {
        let number = self.known(number)?;
        let phone = self.hub.phone(&number);
        let phone = phone.ok_or(WhatsappWebError::UnknownPhone)?;
        let online = settings.online;
        locked(&phone).settings = settings;
        let waited = {
            let mut state = self.hub.lock();
            let Some(account) = state.accounts.get_mut(&number) else {
                return Err(WhatsappWebError::UnknownPhone);
            };
            account.online = online;
            if online {
                std::mem::take(&mut account.for_phone)
            } else {
                VecDeque::new()
            }
        };
        for parcel in waited {
            self.hub.arrive(&number, parcel);
        }
        Ok(())
    }

    /// All phones with their devices and chats, by number.
    pub fn phones(&self) -> Vec<WhatsappPhone> {
        let numbers: Vec<String> = {
            let state = self.hub.lock();
            state.accounts.keys().cloned().collect()
        };
        let mut phones: Vec<WhatsappPhone> = numbers
            .iter()
            .filter_map(|number| self.phone(number).ok())
            .collect();
        phones.sort_by(|one, other| one.number.cmp(&other.number));
        phones
    }

    /// One phone with its devices and chats.
    ///
    /// # Errors
    /// When there is no such phone.
    pub fn phone(&self, number: &str) -> Result<WhatsappPhone, WhatsappWebError> {
        let number = self.known(number)?;
        let unknown = WhatsappWebError::UnknownPhone;
        let phone = self.hub.phone(&number).ok_or(unknown)?;
        let (settings, chats) = {
            let phone = locked(&phone);
            let chats = phone.records.chats(&phone.moods);
            (phone.settings.clone(), chats)
        };
        let state = self.hub.lock();
        let account = state.accounts.get(&number);
        let account = account.ok_or(WhatsappWebError::UnknownPhone)?;
        Ok(WhatsappPhone {
            number,
            name: account.name.clone(),
            lid: account.lid.clone(),
            settings,
            companions: account.shown_companions(),
            chats,
        })
    }

    /// What a phone received and sent, oldest first.
    ///
    /// # Errors
    /// When there is no such phone.
    pub fn messages(&self, number: &str) -> Result<Vec<WhatsappMessage>, WhatsappWebError> {
        let number = self.known(number)?;
        let phone = self.hub.phone(&number);
        let phone = phone.ok_or(WhatsappWebError::UnknownPhone)?;
        let messages = locked(&phone).records.all().cloned().collect();
        Ok(messages)
    }

    /// One message of a phone.
    pub fn message(&self, number: &str, id: &str) -> Option<WhatsappMessage> {
        let number = self.known(number).ok()?;
        let phone = self.hub.phone(&number)?;
        locked(&phone).records.get(id).cloned()
    }

    /// Messages a phone could not decrypt, oldest first.
    ///
    /// # Errors
    /// When there is no such phone.
    pub fn failures(&self, number: &str) -> Result<Vec<WhatsappFailure>, WhatsappWebError> {
        let number = self.known(number)?;
        let phone = self.hub.phone(&number);
        let phone = phone.ok_or(WhatsappWebError::UnknownPhone)?;
        let failures = locked(&phone).failures.iter().cloned().collect();
        Ok(failures)
    }

    /// A message's decrypted file.
    pub fn file(&self, number: &str, id: &str) -> Option<Bytes> {
        self.message(number, id)?.file
    }
}
