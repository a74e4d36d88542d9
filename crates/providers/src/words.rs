//! Failures in words a person understands, in their language.

use crate::ErrorClass;

/// A language we speak to people in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Arabic,
    English,
}

impl Language {
    /// Of a BCP 47 locale: Arabic where it says so, else English.
    #[must_use]
    pub fn of_locale(locale: &str) -> Self {
        match locale.split(['-', '_']).next() {
            Some(primary) if primary.eq_ignore_ascii_case("ar") => Self::Arabic,
            _ => Self::English,
        }
    }
}

/// Why a message did not arrive, and what can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub why: &'static str,
    pub advice: &'static str,
}

impl ErrorClass {
    /// For the person who sent the message.
    #[must_use]
    pub const fn explain(self, language: Language) -> Explanation {
        let (why, advice) = match language {
            Language::English => self.in_english(),
            Language::Arabic => self.in_arabic(),
        };
        Explanation { why, advice }
    }

    const fn in_english(self) -> (&'static str, &'static str) {
        match self {
            Self::Transient | Self::Ambiguous => (
                "The provider could not deliver it.",
                "Send it again in a while, or use another channel.",
            ),
            Self::ThrottledChannel | Self::ThrottledPair | Self::ThrottledAccount => (
                "Too many messages were sent in a short time.",
                "Send it again later, and more slowly.",
            ),
            Self::ChannelBlocked => (
                "The channel may not send: the provider refuses its account.",
                "Ask an administrator to check the channel's token, permissions and payment at the provider.",
            ),
            Self::NotNow => (
                "The provider does not deliver this kind of message to this person at present.",
                "Try another day, or use another channel.",
            ),
            Self::NeedsTemplate => (
                "More than 24 hours have passed since this person last wrote, so free text is not delivered.",
                "Send an approved template, or wait until they write.",
            ),
            Self::OptedOut => (
                "This person asked not to be written to.",
                "Do not write again on this channel; only they can undo it, by writing START.",
            ),
            Self::OptedOutOfMarketing => (
                "This person does not want marketing messages.",
                "Send only messages that concern their business with you.",
            ),
            Self::Recipient => (
                "This person cannot be reached at this address on this channel.",
                "Check the number or address, or use another channel.",
            ),
            Self::Content => (
                "The provider does not accept this content.",
                "Change the message or its file and send it again.",
            ),
        }
    }

    const fn in_arabic(self) -> (&'static str, &'static str) {
        match self {
            Self::Transient | Self::Ambiguous => (
                "لم يتمكن مزوّد الخدمة من توصيلها.",
                "أعد إرسالها بعد قليل، أو استخدم قناة أخرى.",
            ),
            Self::ThrottledChannel | Self::ThrottledPair | Self::ThrottledAccount => (
                "أُرسلت رسائل كثيرة في وقت قصير.",
                "أعد إرسالها لاحقاً وبوتيرة أبطأ.",
            ),
            Self::ChannelBlocked => (
                "لا يُسمح لهذه القناة بالإرسال: مزوّد الخدمة يرفض حسابها.",
                "اطلب من المسؤول مراجعة رمز القناة وصلاحياتها والدفع لدى مزوّد الخدمة.",
            ),
            Self::NotNow => (
                "لا يوصل مزوّد الخدمة هذا النوع من الرسائل إلى هذا الشخص حالياً.",
                "حاول في يوم آخر، أو استخدم قناة أخرى.",
            ),
            Self::NeedsTemplate => (
                "مرّ أكثر من 24 ساعة على آخر رسالة من هذا الشخص، فلا تُوصَل الرسائل الحرة.",
                "أرسل قالباً معتمداً، أو انتظر حتى يراسلك.",
            ),
            Self::OptedOut => (
                "طلب هذا الشخص عدم مراسلته.",
                "لا تراسله على هذه القناة؛ هو وحده يستطيع التراجع بإرسال كلمة START.",
            ),
            Self::OptedOutOfMarketing => (
                "لا يريد هذا الشخص رسائل تسويقية.",
                "أرسل إليه فقط ما يخص تعامله معك.",
            ),
            Self::Recipient => (
                "لا يمكن الوصول إلى هذا الشخص على هذا العنوان عبر هذه القناة.",
                "تحقق من الرقم أو العنوان، أو استخدم قناة أخرى.",
            ),
            Self::Content => (
                "لا يقبل مزوّد الخدمة هذا المحتوى.",
                "عدّل الرسالة أو الملف المرفق ثم أعد الإرسال.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_that_of_the_locale() {
        for (locale, language) in [
            ("ar", Language::Arabic),
            ("ar-EG", Language::Arabic),
            ("AR_sa", Language::Arabic),
            ("en-GB", Language::English),
            ("arn", Language::English),
            ("", Language::English),
        ] {
            assert_eq!(Language::of_locale(locale), language, "{locale}");
        }
    }

    #[test]
    fn every_class_is_explained_in_both_languages() {
        for class in ErrorClass::ALL {
            let english = class.explain(Language::English);
            let arabic = class.explain(Language::Arabic);
            assert!(
                english.why.is_ascii() && english.advice.is_ascii(),
                "{class:?}"
            );
            let is_arabic = |text: &str| text.chars().any(|c| ('\u{600}'..='\u{6FF}').contains(&c));
            assert!(
                is_arabic(arabic.why) && is_arabic(arabic.advice),
                "{class:?}"
            );
        }
    }
}
