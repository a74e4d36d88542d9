//! Twilio's webhooks and what is read out of them. No webhook carries a time, so the time of receipt stands in it.

use wasel_providers::conformance::{Request, WebhookCase};

const WEBHOOK_URL: &str = "https://wasel.example/api/webhooks/twilio";
const CALLBACK_URL: &str =
    "https://wasel.example/api/webhooks/twilio?attempt=0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b03#rc=5";

macro_rules! case {
    ($name:literal, [$($line:literal),* $(,)?]) => {
        case!($name, at WEBHOOK_URL, [$($line),*])
    };
    ($name:literal, at $url:expr, [$($line:literal),* $(,)?]) => {
        WebhookCase {
            name: $name,
            request: Request::post(
                $url,
                include_bytes!(concat!("../../payloads/twilio/", $name, ".form")),
            ),
            expected: vec![$($line),*],
            neighbours: Vec::new(),
        }
    };
}

pub fn sms() -> Vec<WebhookCase> {
    vec![
        case!(
            "sms_text",
            [
                r#"message SM00000000000000000000000000000001 from phone:+201012345678 at 1728000000 text "Hello, is it open today? مرحبا +1 & more""#,
            ]
        ),
        case!(
            "sms_service",
            [
                r#"message SM00000000000000000000000000000002 from phone:+201012345678 at 1728000000 text "hi""#,
            ]
        ),
        case!(
            "sms_stop",
            [
                r#"message SM00000000000000000000000000000003 from phone:+201012345678 at 1728000000 text "STOP""#,
                "consent opted_out all by phone:+201012345678 at 1728000000",
            ]
        ),
        case!(
            "sms_start",
            [
                r#"message SM00000000000000000000000000000004 from phone:+201012345678 at 1728000000 text "START""#,
                "consent opted_in all by phone:+201012345678 at 1728000000",
            ]
        ),
        // Asking for help decides nothing.
        case!(
            "sms_help",
            [
                r#"message SM00000000000000000000000000000005 from phone:+201012345678 at 1728000000 text "HELP""#,
            ]
        ),
        case!(
            "sms_without_body",
            [
                "message SM00000000000000000000000000000006 from phone:+201012345678 at 1728000000 text",
            ]
        ),
        case!(
            "sms_from_short_code",
            [
                r#"message SM00000000000000000000000000000007 from phone:73737 at 1728000000 text "Your code is ready""#,
            ]
        ),
        case!(
            "sms_from_letters",
            [
                r#"message SM00000000000000000000000000000008 from phone:MyBank at 1728000000 text "Your card was used""#,
            ]
        ),
        case!(
            "sms_base64",
            [
                r#"message SM00000000000000000000000000000009 from phone:+201012345678 at 1728000000 text "عرض خاص لعملائنا الكرام: خصم عشرون بالمائة حتى نهاية الأسبوع، see the shop""#,
            ]
        ),
        case!(
            "mms_two_files",
            [
                r#"message MM0000000000000000000000000000000a from phone:+201012345678 at 1728000000 image "the two pages" media(https://api.twilio.com/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages/MM0000000000000000000000000000000a/Media/ME00000000000000000000000000000000 image/png) media(https://api.twilio.com/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages/MM0000000000000000000000000000000a/Media/ME00000000000000000000000000000001 application/pdf)"#,
            ]
        ),
        // A service that has not chosen a sender yet: only its id names the channel.
        case!(
            "status_accepted",
            [
                r#"status SM00000000000000000000000000000032 sending at 1728000000 {messaging_service_sid:"MG0123456789abcdef0123456789abcdef",provider_status:"accepted"}"#,
            ]
        ),
        case!(
            "status_scheduled",
            [
                r#"status SM00000000000000000000000000000032 sending at 1728000000 {messaging_service_sid:"MG0123456789abcdef0123456789abcdef",provider_status:"scheduled"}"#,
            ]
        ),
        case!(
            "status_queued",
            [
                r#"status SM00000000000000000000000000000032 sending at 1728000000 {provider_status:"queued"}"#,
            ]
        ),
        case!(
            "status_sending",
            [
                r#"status SM00000000000000000000000000000032 sending at 1728000000 {provider_status:"sending"}"#,
            ]
        ),
        case!(
            "status_sent",
            at CALLBACK_URL,
            [
                r#"status SM00000000000000000000000000000032 sent at 1728000000 attempt 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b03 {provider_status:"sent"}"#,
            ]
        ),
        case!(
            "status_from_service",
            [
                r#"status SM00000000000000000000000000000032 sent at 1728000000 {messaging_service_sid:"MG0123456789abcdef0123456789abcdef",provider_status:"sent"}"#,
            ]
        ),
        // Proof of sending, not of delivery.
        case!(
            "status_partially_delivered",
            [
                r#"status SM00000000000000000000000000000032 sent at 1728000000 {provider_status:"partially_delivered"}"#,
            ]
        ),
        // The carrier's clock has no zone: kept, not used as a time.
        case!(
            "status_delivered",
            [
                r#"status SM00000000000000000000000000000032 delivered at 1728000000 {provider_status:"delivered",raw_dlr_done_date:"2611210915"}"#,
            ]
        ),
        case!(
            "status_undelivered",
            [
                r#"status SM00000000000000000000000000000032 failed at 1728000000 error 30003 "Unreachable destination handset" {error_code:"30003",provider_status:"undelivered",raw_dlr_done_date:"2611210915"}"#,
            ]
        ),
        case!(
            "status_failed",
            [
                r#"status SM00000000000000000000000000000032 failed at 1728000000 error 30006 "This person cannot be reached at this address on this channel." {error_code:"30006",provider_status:"failed"}"#,
            ]
        ),
        case!(
            "status_failed_without_reason",
            [
                r#"status SM00000000000000000000000000000032 failed at 1728000000 error failed "Twilio reports the message as failed and gives no reason." {provider_status:"failed"}"#,
            ]
        ),
        case!(
            "status_canceled",
            [
                r#"status SM00000000000000000000000000000032 cancelled at 1728000000 {provider_status:"canceled"}"#,
            ]
        ),
    ]
}

pub fn whatsapp() -> Vec<WebhookCase> {
    vec![
        case!(
            "whatsapp_text",
            [
                r#"message SM00000000000000000000000000000014 from phone:+201012345678 (منى) at 1728000000 text "السلام عليكم""#,
            ]
        ),
        // Known by its `WaId`.
        case!(
            "whatsapp_without_prefix",
            [
                r#"message SM00000000000000000000000000000015 from phone:+201012345678 (منى) at 1728000000 text "no prefix""#,
            ]
        ),
        case!(
            "whatsapp_bsuid_beside_number",
            [
                r#"message SM00000000000000000000000000000016 from phone:+201012345678,bsuid:EG.13491208655302741918 (منى) at 1728000000 text "hi""#,
            ]
        ),
        case!(
            "whatsapp_bsuid_only",
            [
                r#"message SM00000000000000000000000000000017 from bsuid:EG.13491208655302741918 (منى) at 1728000000 text "hi""#,
            ]
        ),
        case!(
            "whatsapp_image",
            [
                r#"message MM00000000000000000000000000000018 from phone:+201012345678 (منى) at 1728000000 image "look" media(https://api.twilio.com/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages/MM00000000000000000000000000000018/Media/ME00000000000000000000000000000000 image/jpeg)"#,
            ]
        ),
        // Twilio does not tell a voice note from other sound.
        case!(
            "whatsapp_voice",
            [
                "message MM00000000000000000000000000000019 from phone:+201012345678 (منى) at 1728000000 audio media(https://api.twilio.com/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages/MM00000000000000000000000000000019/Media/ME00000000000000000000000000000000 audio/ogg)",
            ]
        ),
        case!(
            "whatsapp_video",
            [
                "message MM0000000000000000000000000000001a from phone:+201012345678 (منى) at 1728000000 video media(https://api.twilio.com/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages/MM0000000000000000000000000000001a/Media/ME00000000000000000000000000000000 video/mp4)",
            ]
        ),
        case!(
            "whatsapp_document",
            [
                r#"message MM0000000000000000000000000000001b from phone:+201012345678 (منى) at 1728000000 document "invoice.pdf" media(https://api.twilio.com/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages/MM0000000000000000000000000000001b/Media/ME00000000000000000000000000000000 application/pdf)"#,
            ]
        ),
        case!(
            "whatsapp_sticker",
            [
                "message MM0000000000000000000000000000001c from phone:+201012345678 (منى) at 1728000000 sticker media(https://api.twilio.com/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages/MM0000000000000000000000000000001c/Media/ME00000000000000000000000000000000 image/webp)",
            ]
        ),
        // A contact card is a file at Twilio.
        case!(
            "whatsapp_contact",
            [
                "message MM0000000000000000000000000000001d from phone:+201012345678 (منى) at 1728000000 document media(https://api.twilio.com/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages/MM0000000000000000000000000000001d/Media/ME00000000000000000000000000000000 text/vcard)",
            ]
        ),
        case!(
            "whatsapp_location",
            [
                r#"message SM0000000000000000000000000000001e from phone:+201012345678 (منى) at 1728000000 location "ميدان التحرير" {address:"Cairo, Egypt",latitude:30.0444,longitude:31.2357,name:"ميدان التحرير"}"#,
            ]
        ),
        case!(
            "whatsapp_button",
            [
                r#"message SM0000000000000000000000000000001f from phone:+201012345678 (منى) at 1728000000 button "Confirm" {payload:"confirm-17",text:"Confirm"} quotes SM00000000000000000000000000000063"#,
            ]
        ),
        case!(
            "whatsapp_list",
            [
                r#"message SM00000000000000000000000000000020 from phone:+201012345678 (منى) at 1728000000 interactive "Friday 10:00" {id:"slot-3",title:"Friday 10:00",type:"list_reply"}"#,
            ]
        ),
        case!(
            "whatsapp_flow",
            [
                r#"message SM00000000000000000000000000000021 from phone:+201012345678 (منى) at 1728000000 interactive {response:{answers:[1,2],name:"x"},type:"nfm_reply"}"#,
            ]
        ),
        case!(
            "whatsapp_quoted_forwarded",
            [
                r#"message SM00000000000000000000000000000022 from phone:+201012345678 (منى) at 1728000000 text "this one" quotes SM00000000000000000000000000000062 forwarded"#,
            ]
        ),
        case!(
            "whatsapp_referral",
            [
                r#"message SM00000000000000000000000000000023 from phone:+201012345678 (منى) at 1728000000 text "I saw the ad" referral {body:"20 % off",ctwa_clid:"Aff-x",headline:"Summer sale",media_content_type:"image/jpeg",media_url:"https://media.example/ad.jpg",num_media:"1",source_id:"120212345",source_type:"ad",source_url:"https://fb.me/abc"}"#,
            ]
        ),
        case!(
            "whatsapp_reaction",
            [
                "reaction SM00000000000000000000000000000024 to SM00000000000000000000000000000061 👍 received by phone:+201012345678 (منى) at 1728000000",
            ]
        ),
        // Twilio passes no contents of an order on.
        case!(
            "whatsapp_order",
            [
                r#"message SM00000000000000000000000000000025 from phone:+201012345678 (منى) at 1728000000 unsupported {type:"order"}"#,
            ]
        ),
        case!(
            "whatsapp_image_without_file",
            [
                r#"message SM00000000000000000000000000000026 from phone:+201012345678 (منى) at 1728000000 unsupported {type:"image"}"#,
            ]
        ),
        case!(
            "whatsapp_status_delivered",
            [
                r#"status SM00000000000000000000000000000033 delivered at 1728000000 {channel_install_sid:"XE0123456789abcdef0123456789abcdef",channel_prefix:"whatsapp",event_type:"DELIVERED",provider_status:"delivered"}"#,
            ]
        ),
        case!(
            "whatsapp_status_without_prefix",
            [
                r#"status SM00000000000000000000000000000033 delivered at 1728000000 {channel_prefix:"whatsapp",provider_status:"delivered"}"#,
            ]
        ),
        case!(
            "whatsapp_status_read",
            at CALLBACK_URL,
            [
                r#"status SM00000000000000000000000000000033 read at 1728000000 attempt 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b03 {channel_install_sid:"XE0123456789abcdef0123456789abcdef",channel_prefix:"whatsapp",event_type:"READ",provider_status:"read"}"#,
            ]
        ),
        // Twilio's own word stays in the detail, and it was not `read`.
        case!(
            "whatsapp_status_read_by_event",
            [
                r#"status SM00000000000000000000000000000033 read at 1728000000 {channel_install_sid:"XE0123456789abcdef0123456789abcdef",channel_prefix:"whatsapp",event_type:"READ",provider_status:"delivered"}"#,
            ]
        ),
        case!(
            "whatsapp_status_failed",
            [
                r#"status SM00000000000000000000000000000033 failed at 1728000000 error 63016 "Failed to send freeform message to [number] because you are outside the allowed window" {channel_install_sid:"XE0123456789abcdef0123456789abcdef",channel_prefix:"whatsapp",error_code:"63016",event_type:"UNDELIVERED",provider_status:"undelivered"}"#,
            ]
        ),
    ]
}
