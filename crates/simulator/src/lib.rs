//! Stand-ins for Meta's WhatsApp Cloud API, Twilio's Messaging API and a mail server.
//!
//! A person without a Meta or Twilio account sees the product work against this, and the test-suite
//! uses the same: requests are checked as the providers check them, answered in their JSON and with
//! their error codes, and webhooks come back signed as theirs. Nothing here imports the product.
//!
//! Point `META_GRAPH_BASE` at [`Simulator::meta_base`] and `TWILIO_API_BASE` at
//! [`Simulator::twilio_base`], register numbers through [`World`] or `PUT /sim/meta/numbers` and
//! `PUT /sim/twilio/accounts`, and write as a customer with [`World::send_as_customer`] or
//! `POST /sim/send`. Mailboxes have an SMTP server of their own, [`World::mail_server`]. [`control`] lists all routes.
//!
//! With the feature `linked-phones` there is a WhatsApp multi-device server as well, with phones that link devices by
//! scanning their QR: `WhatsappWeb`, for `WHATSAPP_WEB_URL`. It links AGPL-3.0 code.

pub mod control;
mod faults;
mod gate;
mod listener;
mod meta;
mod s3;
mod server;
mod smtp;
mod twilio;
mod webhook;
#[cfg(feature = "linked-phones")]
mod whatsapp_web;
mod world;

pub use faults::{Fault, FaultKind, FaultPlan, FaultScope};
pub use s3::{S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY, S3Storage};
pub use server::Simulator;
pub use smtp::{
    CustomerEmail, EmailAttachment, EmailBounce, MailFaults, MailServer, Mailbox, ReceivedEmail,
};
#[cfg(feature = "linked-phones")]
pub use whatsapp_web::{
    LinkedCompanion, NewWhatsappPhone, OldWhatsappMessage, WhatsappChat, WhatsappContact,
    WhatsappContent, WhatsappDelete, WhatsappDisruption, WhatsappEdit, WhatsappFailure,
    WhatsappFaults, WhatsappFile, WhatsappGroup, WhatsappLocation, WhatsappMessage, WhatsappPhone,
    WhatsappPhoneSettings, WhatsappReaction, WhatsappSend, WhatsappTick, WhatsappWeb,
    WhatsappWebError,
};
pub use world::{
    AcceptedSend, Alert, BusinessEcho, Content, Customer, CustomerMedia, CustomerSend, Event, Line,
    Message, MessagingService, MetaNumber, Origin, Phone, Provider, RecordedRequest, Settings,
    Template, ThreadSummary, Tick, TwilioAccount, TwilioApiKey, TwilioChannel, TwilioContent,
    TwilioNumber, WebhookAttempt, World, WorldError,
};
