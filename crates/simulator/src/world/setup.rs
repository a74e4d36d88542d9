//! Registering businesses and customers. Everything here is idempotent.

use super::{
    Customer, MetaNumber, Template, TwilioAccount, World, WorldError,
    phone::{self, is_e164},
};
use crate::{meta, webhook};

impl World {
    /// Registers a Cloud API number, or replaces the one with this phone number id.
    pub fn register_meta_number(&self, mut number: MetaNumber) -> Result<(), WorldError> {
        if number.phone_number_id.is_empty() || number.waba_id.is_empty() {
            return Err(WorldError::Invalid(
                "waba_id and phone_number_id are needed".to_owned(),
            ));
        }
        check_url(&number.webhook_url)?;
        let templates = std::mem::take(&mut number.templates);
        let mut state = self.lock();
        for template in templates {
            put_template(
                state.templates.entry(number.waba_id.clone()).or_default(),
                template,
            );
        }
        state
            .meta_numbers
            .insert(number.phone_number_id.clone(), number);
        Ok(())
    }

    /// The registered Cloud API numbers, without their templates.
    pub fn meta_numbers(&self) -> Vec<MetaNumber> {
        self.lock().meta_numbers.values().cloned().collect()
    }

    /// The templates of a WABA.
    pub fn templates(&self, waba_id: &str) -> Vec<Template> {
        let state = self.lock();
        state.templates.get(waba_id).cloned().unwrap_or_default()
    }

    /// Sets a template's status and sends `message_template_status_update`.
    pub fn set_template_status(
        &self,
        waba_id: &str,
        name: &str,
        language: &str,
        status: &str,
        reason: Option<&str>,
    ) -> Result<(), WorldError> {
        let template = self.change_template(waba_id, name, language, |template| {
            template.status = status.to_owned();
            template.rejected_reason = reason.map(str::to_owned);
        })?;
        meta::tell_template_status(self, waba_id, &template, status, reason);
        Ok(())
    }

    /// Sets a template's quality (`GREEN`, `YELLOW`, `RED`) and sends `message_template_quality_update`.
    pub fn set_template_quality(
        &self,
        waba_id: &str,
        name: &str,
        language: &str,
        quality: &str,
    ) -> Result<(), WorldError> {
        let mut before = String::new();
        let template = self.change_template(waba_id, name, language, |template| {
            before = std::mem::replace(&mut template.quality, quality.to_owned());
        })?;
        meta::tell_template_quality(self, waba_id, &template, &before);
        Ok(())
    }

    fn change_template(
        &self,
        waba_id: &str,
        name: &str,
        language: &str,
        change: impl FnOnce(&mut Template),
    ) -> Result<Template, WorldError> {
        let mut state = self.lock();
        let template = state
            .templates
            .get_mut(waba_id)
            .and_then(|all| {
                all.iter_mut()
                    .find(|t| t.name == name && t.language == language)
            })
            .ok_or(WorldError::UnknownTemplate)?;
        change(template);
        Ok(template.clone())
    }

    /// Performs Meta's GET handshake against a number's webhook; an error says what the answer lacked.
    pub async fn verify_meta_webhook(&self, phone_number_id: &str) -> Result<(), WorldError> {
        let number = self.lock().meta_number(phone_number_id)?.clone();
        webhook::verify(self.http(), &number).await
    }

    /// Registers a Twilio account, or replaces the one with this SID.
    pub fn register_twilio_account(&self, account: TwilioAccount) -> Result<(), WorldError> {
        for number in &account.numbers {
            if !is_e164(&number.number) {
                return Err(WorldError::Invalid(
                    "a Twilio number is written in E.164, without a channel prefix".to_owned(),
                ));
            }
            check_url(&number.webhook_url)?;
            check_url(&number.fallback_url)?;
        }
        self.lock()
            .twilio_accounts
            .insert(account.account_sid.clone(), account);
        Ok(())
    }

    pub fn twilio_accounts(&self) -> Vec<TwilioAccount> {
        self.lock().twilio_accounts.values().cloned().collect()
    }

    /// Adds a customer, or replaces what is known of the one with this number.
    pub fn put_customer(&self, mut customer: Customer) -> Result<(), WorldError> {
        if !is_e164(&customer.number) {
            return Err(WorldError::Invalid(
                "a customer's number is written in E.164".to_owned(),
            ));
        }
        if customer.user_id.is_empty() {
            customer.user_id = phone::user_id(&customer.number);
        }
        self.lock()
            .customers
            .insert(customer.number.clone(), customer);
        Ok(())
    }
}

/// Adds a template, replacing the same name and language.
pub(crate) fn put_template(all: &mut Vec<Template>, mut template: Template) -> Template {
    let known = all
        .iter()
        .position(|t| t.name == template.name && t.language == template.language);
    if template.id.is_empty() {
        template.id = known.map_or_else(meta::new_object_id, |at| all[at].id.clone());
    }
    match known {
        Some(at) => all[at] = template.clone(),
        None => all.push(template.clone()),
    }
    template
}

fn check_url(url: &str) -> Result<(), WorldError> {
    if url.is_empty() {
        return Ok(());
    }
    match url::Url::parse(url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => Ok(()),
        _ => Err(WorldError::Invalid(
            "a webhook address starts with http:// or https://".to_owned(),
        )),
    }
}
