//! Meta's webhooks and what is read out of them. The payloads follow the samples of Meta's documentation and its way
//! of escaping.

use wasel_providers::conformance::{Request, WebhookCase};

use super::WEBHOOK_URL;

macro_rules! case {
    ($name:literal, [$($line:literal),* $(,)?]) => {
        case!($name, [$($line),*], also for [])
    };
    ($name:literal, [$($line:literal),* $(,)?], also for [$($neighbour:literal),*]) => {
        WebhookCase {
            name: $name,
            request: Request::post(
                WEBHOOK_URL,
                include_bytes!(concat!("../../payloads/whatsapp_cloud/", $name, ".json")),
            ),
            expected: vec![$($line),*],
            neighbours: vec![$($neighbour),*],
        }
    };
}

pub fn cases() -> Vec<WebhookCase> {
    vec![
        case!(
            "text",
            [
                r#"message wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQzQTRBNjU5OUFFRTAzODEwMTQ0RgA= from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 text "Does it come in another color?""#,
            ]
        ),
        case!(
            "text_arabic_and_emoji",
            [
                r#"message wamid.ar from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 text "مرحبا، كم السعر؟ 😀👨\u{200d}👩\u{200d}👧 https://example.com/a""#,
            ]
        ),
        case!(
            "half_an_emoji_and_nul",
            [
                r#"message wamid.half from phone:+16505551234 (Sheena �) at 1749416383 text "cut � and � مرحبا 😀 a/b""#,
            ]
        ),
        case!(
            "text_quoted_and_forwarded",
            [
                r#"message wamid.q1 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 text "This one" quotes wamid.ours"#,
                r#"message wamid.q2 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 text "Look" forwarded"#,
                r#"message wamid.q3 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 text "Look at this" forwarded"#,
                r#"message wamid.q4 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 text "Is it in stock?" {referred_product:{catalog_id:"194836987003835",product_retailer_id:"di9ozbzfi4"}} quotes wamid.cat"#,
            ]
        ),
        case!(
            "text_from_ad",
            [
                r#"message wamid.ad from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 text "Can I get more info?" referral {body:"Summer succulents are here!",ctwa_clid:"Aff-n8ZT",headline:"Chat with us",image_url:"https://scontent.example/ad.png",media_type:"image",source_id:"120226305854810726",source_type:"ad",source_url:"https://fb.me/3cr4Wqqkv",welcome_message:{text:"Hi there!"}}"#,
            ]
        ),
        case!(
            "text_in_group",
            [
                r#"message wamid.g1 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 text "Hello all" in group Y2FwaV9ncm91cDoxNzA1NTU1MDEzOToxMjAzNjM0MDQ2OTQyMzM4MjAZD"#,
            ]
        ),
        case!(
            "bsuid_only",
            [
                r#"message wamid.b1 from bsuid:US.13491208655302741918,bsuid:US.ENT.11815799212886844830 (Sheena) at 1749416383 text "no number""#,
                r#"message wamid.b2 from bsuid:US.13491208655302741918 (sheena.n) at 1749416383 text "BSUID in from""#,
                r#"message wamid.b3 from bsuid:US.13491208655302741918 (Sheena) at 1749416383 text "only in contacts""#,
            ]
        ),
        case!(
            "media",
            [
                r#"message wamid.image from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 image "Red & green / أحمر" media(2754859441498128 https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=2754859441498128&source=webhook image/jpeg SfInY0gGKTsJlUWbwxC1k+FAD0FZHvzwfpvO0zX0GUI=)"#,
                "message wamid.video from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 video media(1 video/mp4 SfInY0gGKTsJlUWbwxC1k+FAD0FZHvzwfpvO0zX0GUI=)",
                "message wamid.note from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 audio media(2 audio/ogg; codecs=opus SfInY0gGKTsJlUWbwxC1k+FAD0FZHvzwfpvO0zX0GUI= voice)",
                "message wamid.song from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 audio media(3 audio/mpeg SfInY0gGKTsJlUWbwxC1k+FAD0FZHvzwfpvO0zX0GUI=)",
                "message wamid.oldnote from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 audio media(4 audio/ogg SfInY0gGKTsJlUWbwxC1k+FAD0FZHvzwfpvO0zX0GUI= voice)",
                r#"message wamid.document from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 document "The bill" media(5 application/pdf فاتورة.pdf SfInY0gGKTsJlUWbwxC1k+FAD0FZHvzwfpvO0zX0GUI=)"#,
                "message wamid.sticker from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 sticker media(6 image/webp SfInY0gGKTsJlUWbwxC1k+FAD0FZHvzwfpvO0zX0GUI=) {animated:true}",
            ]
        ),
        case!(
            "location",
            [
                r#"message wamid.loc1 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 location "Philz Coffee" {address:"101 Forest Ave, Palo Alto, CA 94301",latitude:37.44216251868683,longitude:-122.16153582049394,name:"Philz Coffee",url:"https://foursquare.com/v/philz"}"#,
                "message wamid.loc2 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 location {latitude:30.0444,longitude:31.2357}",
            ]
        ),
        case!(
            "contacts",
            [
                r#"message wamid.con1 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 contacts "Barbara J. Johnson" {contacts:[{emails:[{email:"b@example.com",type:"WORK"}],name:{first_name:"Barbara",formatted_name:"Barbara J. Johnson"},org:{company:"Social Tsunami"},phones:[{phone:"+1 (650) 555-2345",type:"MOBILE",wa_id:"16505552345"}]},{phones:[{phone:"+20 10 1234 5678"}]}]}"#,
                r#"message wamid.con2 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 contacts "Ahmed Ali" {contacts:[{origin:"contact_request",vcard:"BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Ahmed Ali\r\nTEL;type=CELL;waid=201012345678:+20 10 12345678\r\nEND:VCARD"}]}"#,
            ]
        ),
        case!(
            "interactive",
            [
                r#"message wamid.i1 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 interactive "Change" {id:"change-button",title:"Change",type:"button_reply"} quotes wamid.ours"#,
                r#"message wamid.i2 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 interactive "Priority Mail Express" {description:"Next Day to 2 Days",id:"priority_express",title:"Priority Mail Express",type:"list_reply"}"#,
                r#"message wamid.i3 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 interactive "Sent" {body:"Sent",name:"flow",response:{day:"الأحد",flow_token:"t1"},type:"nfm_reply"}"#,
                r#"message wamid.i4 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 interactive "Sent" {body:"Sent",name:"flow",response:"just a text",type:"nfm_reply"}"#,
                r#"message wamid.i5 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 interactive "Sent" {body:"Sent",name:"flow",response:"not JSON {",type:"nfm_reply"}"#,
                r#"message wamid.i6 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 interactive "accept" {expiration_timestamp:1750021183,response:"accept",response_source:"user_action",type:"call_permission_reply"}"#,
                r#"message wamid.i7 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 interactive "New kind" {id:"x",title:"New kind",type:"later_reply"}"#,
            ]
        ),
        case!(
            "button",
            [
                r#"message wamid.btn from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 button "إلغاء الاشتراك" {payload:"Unsubscribe",text:"إلغاء الاشتراك"} quotes wamid.tpl"#,
            ]
        ),
        case!(
            "reaction",
            [
                "reaction wamid.r1 to wamid.ours 👍🏽 received by phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383",
                "reaction wamid.r2 to wamid.ours removed received by phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383",
                "reaction wamid.r3 to wamid.ours removed received by phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383",
            ]
        ),
        case!(
            "order",
            [
                r#"message wamid.order from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 order "Love these!" {catalog_id:"194836987003835",product_items:[{currency:"USD",item_price:30,product_retailer_id:"di9ozbzfi4",quantity:2}],text:"Love these!"}"#,
            ]
        ),
        case!(
            "system",
            [
                r#"same person phone:+16505551234 = phone:+12195555358 "User Sheena Nelson changed from 16505551234 to 12195555358" at 1750269342"#,
                r#"message wamid.s1 from phone:+16505551234 at 1750269342 system "User Sheena Nelson changed from 16505551234 to 12195555358" {body:"User Sheena Nelson changed from 16505551234 to 12195555358",type:"user_changed_number",wa_id:"12195555358"}"#,
                r#"same person phone:+12195555358,bsuid:US.13491208655302741918 = bsuid:US.24817305912873645029,bsuid:US.ENT.2 "User Sheena Nelson changed from US.13491208655302741918 to US.24817305912873645029" at 1750269343"#,
                r#"message wamid.s2 from phone:+12195555358,bsuid:US.13491208655302741918 at 1750269343 system "User Sheena Nelson changed from US.13491208655302741918 to US.24817305912873645029" {body:"User Sheena Nelson changed from US.13491208655302741918 to US.24817305912873645029",parent_user_id:"US.ENT.2",type:"user_changed_user_id",user_id:"US.24817305912873645029"}"#,
                r#"message wamid.s3 from bsuid:US.24817305912873645029 at 1750269344 system "changed" {body:"changed",type:"user_changed_user_id",user_id:"US.24817305912873645029"}"#,
                r#"same person phone:+16505551234 = phone:+12195555359 "no id" at 1750269345"#,
            ]
        ),
        case!(
            "unsupported",
            [
                r#"message wamid.u1 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 unsupported {errors:[{code:131051,error_data:{details:"Message type is currently not supported."},message:"Message type unknown",title:"Message type unknown"}],raw:{errors:[{code:131051,error_data:{details:"Message type is currently not supported."},message:"Message type unknown",title:"Message type unknown"}],from:"16505551234",from_user_id:"US.13491208655302741918",id:"wamid.u1",timestamp:"1749416383",type:"unsupported"},type:"unsupported"}"#,
                r#"message wamid.u2 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 unsupported {raw:{from:"16505551234",from_user_id:"US.13491208655302741918",id:"wamid.u2",timestamp:"1749416383",type:"request_welcome"},type:"request_welcome"}"#,
                r#"message wamid.u3 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 unsupported {raw:{from:"16505551234",from_user_id:"US.13491208655302741918",hologram:{depth:3},id:"wamid.u3",timestamp:"1749416383",type:"hologram"},type:"hologram"}"#,
            ]
        ),
        case!(
            "edit_and_revoke",
            [
                r#"edit of wamid.first text "Corrected" at 1749416383"#,
                r#"edit of wamid.photo image "New caption" media(7 image/jpeg SfInY0gGKTsJlUWbwxC1k+FAD0FZHvzwfpvO0zX0GUI=) at 1749416383"#,
                "revoke of wamid.first at 1749416383",
            ]
        ),
        case!(
            "malformed_in_a_batch",
            [
                r#"message wamid.m1 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 text "before""#,
                r#"message wamid.m2 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 unsupported {raw:{from:"16505551234",from_user_id:"US.13491208655302741918",id:"wamid.m2",text:{body:{not:"a text"}},timestamp:"1749416383",type:"text"},type:"text"}"#,
                r#"message wamid.m3 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 unsupported {raw:{from:"16505551234",from_user_id:"US.13491208655302741918",id:"wamid.m3",image:"no object",timestamp:"1749416383",type:"image"},type:"image"}"#,
                r#"notice malformed {part:"message",raw:{from:"16505551234",text:{body:"no id"},type:"text"}}"#,
                r#"notice malformed {part:"message",raw:"not even an object"}"#,
                r#"message wamid.m4 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 unsupported {raw:{from:"16505551234",from_user_id:"US.13491208655302741918",id:"wamid.m4",reaction:{emoji:"👍"},timestamp:"1749416383",type:"reaction"},type:"reaction"}"#,
                r#"message wamid.m5 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 unsupported {raw:{edit:{message:{text:{body:"of what?"},type:"text"}},from:"16505551234",from_user_id:"US.13491208655302741918",id:"wamid.m5",timestamp:"1749416383",type:"edit"},type:"edit"}"#,
                r#"message wamid.m6 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 0 text "no time""#,
                r#"message wamid.m7 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416384 text "after""#,
            ]
        ),
        case!(
            "batch",
            [
                r#"message wamid.t1 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 text "one""#,
                r#"message wamid.t2 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 text "two""#,
                r#"status wamid.9 delivered at 1750030073 {recipient_id:"16505551234",recipient_user_id:"US.13491208655302741918"}"#,
                r#"message wamid.t3 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 text "three""#,
                r#"message wamid.t4 from phone:+201012345678 (أحمد) at 1749416385 text "أربعة""#,
                r#"message wamid.t5 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1749416383 text "to our other number""#,
            ],
            also for ["meta:phone:106540352242923"]
        ),
        case!(
            "statuses",
            [
                r#"status wamid.1 sent at 1750030073 attempt 0197b2a4-5b6c-7d8e-9f00-112233445566 {conversation:{expiration_timestamp:"1750116480",id:"6cec",origin:{type:"marketing"}},pricing:{billable:true,category:"marketing",pricing_model:"PMP",type:"regular"},recipient_id:"16505551234",recipient_user_id:"US.13491208655302741918"}"#,
                r#"status wamid.1 delivered at 1750030073 attempt 0197b2a4-5b6c-7d8e-9f00-112233445566 {pricing:{billable:true,category:"marketing",pricing_model:"PMP",type:"regular"},recipient_id:"16505551234",recipient_user_id:"US.13491208655302741918"}"#,
                r#"status wamid.1 read at 1750030073 {recipient_id:"16505551234",recipient_user_id:"US.13491208655302741918"}"#,
                r#"status wamid.2 read at 1750030073 {recipient_id:"16505551234",recipient_user_id:"US.13491208655302741918"}"#,
                "revoke of wamid.3 at 1750030073",
                r#"status wamid.4 failed at 1750030074 attempt 0197b2a4-5b6c-7d8e-9f00-112233445566 error 131049 "This message was not delivered to maintain healthy ecosystem engagement.: In order to maintain a healthy ecosystem engagement, the message failed to be delivered." {errors:[{code:131049,error_data:{details:"In order to maintain a healthy ecosystem engagement, the message failed to be delivered."},href:"https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",message:"This message was not delivered to maintain healthy ecosystem engagement.",title:"This message was not delivered to maintain healthy ecosystem engagement."}],recipient_id:"16505551234"}"#,
                r#"status wamid.5 read at 1750030075 {recipient_id:"Y2FwaV9ncm91cDo",recipient_participant_id:"16505551234",recipient_type:"group"}"#,
                r#"notice unknown_status {id:"wamid.6",status:"teleported",timestamp:"1750030076"}"#,
                r#"notice malformed {part:"status",raw:{status:"sent"}}"#,
                r#"notice malformed {part:"status",raw:7}"#,
            ]
        ),
        case!(
            "errors",
            [
                r#"notice errors {error:{code:130429,message:"Rate limit hit",title:"Rate limit hit"},field:"messages"}"#,
                r#"notice errors pauses {error:{code:131031,message:"Account locked",title:"Account locked"},field:"messages"}"#,
            ]
        ),
        case!(
            "account",
            [
                "template 1689556908129832 order_confirmation en_US at 0 status APPROVED category - reason -",
                r#"notice account_update pauses {ban_info:{waba_ban_date:"April 17, 2025",waba_ban_state:"DISABLE"},event:"DISABLED_UPDATE"}"#,
                r#"notice account_update {ban_info:{waba_ban_date:"April 18, 2025",waba_ban_state:"REINSTATE"},event:"DISABLED_UPDATE"}"#,
                r#"notice account_update pauses {event:"ACCOUNT_RESTRICTION",restriction_info:[{expiration:1641848400,restriction_type:"RESTRICTED_BIZ_INITIATED_MESSAGING"}]}"#,
                r#"notice account_update pauses {event:"ACCOUNT_VIOLATION",violation_info:{violation_type:"SPAM"}}"#,
                r#"notice account_update pauses {event:"ACCOUNT_DELETED"}"#,
                r#"notice account_update pauses {event:"ACCOUNT_OFFBOARDED"}"#,
                r#"notice account_update pauses {disconnection_info:{reason:"CHANGE_NUMBER"},event:"PARTNER_REMOVED"}"#,
                r#"notice account_update {event:"PARTNER_ADDED"}"#,
                r#"notice account_update {event:"ACCOUNT_RECONNECTED"}"#,
                r#"notice account_update {event:"VERIFIED_ACCOUNT"}"#,
                r#"notice phone_number_quality_update {current_limit:"TIER_UNLIMITED",display_phone_number:"15550783881",event:"THROUGHPUT_UPGRADE"}"#,
                r#"notice account_review_update {decision:"APPROVED"}"#,
                r#"notice calls {calls:[{event:"connect",id:"wacid.1"}],messaging_product:"whatsapp",metadata:{display_phone_number:"15550783881",phone_number_id:"106540352242922"}}"#,
                r#"notice a_field_of_tomorrow {sync:"me"}"#,
                r#"notice malformed {part:"security",raw:"no object"}"#,
            ]
        ),
        case!(
            "user_preferences",
            [
                "consent opted_out marketing by phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1731705721",
                "consent opted_in marketing by phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1731705722",
                r#"notice malformed {part:"user_preferences",raw:{category:"marketing_messages",timestamp:1731705723,value:"perhaps",wa_id:"16505551234"}}"#,
            ]
        ),
        case!(
            "user_id_update",
            [
                r#"same person bsuid:US.13491208655302741918,bsuid:US.ENT.1 = phone:+16505551234,bsuid:US.24817305912873645029,bsuid:US.ENT.2 "" at 1750269342"#,
                r#"same person bsuid:US.13491208655302741918 = bsuid:US.3 "" at 1750269343"#,
                r#"same person phone:+16505551234 = bsuid:US.4 "" at 1750269344"#,
                r#"notice malformed {part:"user_id_update",raw:{detail:"nothing to go by"}}"#,
            ]
        ),
        case!(
            "smb_message_echoes",
            [
                r#"echo wamid.x1 from phone:+16505551234,bsuid:US.13491208655302741918 at 1739321024 text "Here's the info you requested! https://www.meta.com/quest/""#,
                "echo wamid.x2 from phone:+16505551234,bsuid:US.13491208655302741918 at 1739321024 image media(8 image/jpeg SfInY0gGKTsJlUWbwxC1k+FAD0FZHvzwfpvO0zX0GUI=)",
                "reaction wamid.x3 to wamid.theirs ❤️ from us by phone:+16505551234,bsuid:US.13491208655302741918 at 1739321024",
                r#"edit of wamid.x1 text "Corrected" at 1739321024"#,
                "revoke of wamid.x2 at 1739321024",
                r#"echo wamid.x6 from phone:+16505551234,bsuid:US.13491208655302741918 at 1739321024 unsupported {raw:{from:"15550783881",hologram:{depth:1},id:"wamid.x6",timestamp:"1739321024",to:"16505551234",to_user_id:"US.13491208655302741918",type:"hologram"},type:"hologram"}"#,
            ]
        ),
        case!(
            "history",
            [
                "notice history {chunk_order:1,phase:1,progress:55}",
                r#"echo wamid.h1 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1738796547 text "Here you go""#,
                "status wamid.h1 read at 1738796547",
                r#"echo wamid.h2 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1738796547 text "And this""#,
                r#"message wamid.h3 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1738796547 text "Thanks!""#,
                r#"message wamid.h4 from phone:+16505551234,bsuid:US.13491208655302741918 (Sheena Nelson) at 1738796548 unsupported {raw:{from:"16505551234",history_context:{status:"PENDING"},id:"wamid.h4",timestamp:"1738796548",type:"media_placeholder"},type:"media_placeholder"}"#,
                r#"notice malformed {part:"message",raw:"rubbish"}"#,
                r#"notice errors {error:{code:2593109,error_data:{details:"History sharing is turned off by the business"},message:"History sync is turned off",title:"History sync is turned off by the business from the WhatsApp Business App"},field:"history"}"#,
            ]
        ),
        case!(
            "templates",
            [
                "template 1689556908129832 order_confirmation en_US at 1749416383 status APPROVED category UTILITY reason -",
                "template 1689556908129833 قالب ar at 1749416383 status REJECTED category - reason INVALID_FORMAT alarming",
                "template 1689556908129832 order_confirmation en_US at 1749416383 status PAUSED category - reason Paused until tomorrow alarming",
                "template 1689556908129832 order_confirmation en_US at 1749416383 status - category - reason - alarming",
                "template 1689556908129832 order_confirmation en_US at 1749416383 status APPROVED category - reason -",
                "template 1689556908129832 order_confirmation en_US at 1749416383 quality YELLOW",
                "template 1689556908129832 order_confirmation en_US at 1749416383 category MARKETING announced -",
                "template 1689556908129832 order_confirmation en_US at 1749416383 category UTILITY announced MARKETING",
                r#"template 1689556908129832 order_confirmation en_US at 1749416383 texts [{format:"TEXT",text:"Ready",type:"HEADER"},{text:"Hi {{1}}, it is ready",type:"BODY"},{text:"The shop",type:"FOOTER"},{buttons:[{text:"Track",type:"URL",url:"https://example.com/{{1}}"}],type:"BUTTONS"}]"#,
                r#"notice message_template_status_update {event:"APPROVED",reason:null}"#,
                "template - order_confirmation pt_BR at 0 status DELETED category - reason -",
            ]
        ),
        case!("empty", []),
    ]
}
