//! What the identity's own mails say, in Arabic and English, as text and as HTML. Short, and nothing in them tells
//! anybody when they were opened.

use wasel_domain::OutboundContent;

/// Names of organizations and people come from people; a mail shows so much of one.
const MAX_NAME_CHARS: usize = 80;

/// The language of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tongue {
    Arabic,
    English,
}

impl Tongue {
    /// From a BCP 47 tag: Arabic of any country is Arabic, everything else is English.
    pub(crate) fn of(locale: &str) -> Self {
        let language = locale.split(['-', '_']).next().unwrap_or("");
        if language.eq_ignore_ascii_case("ar") {
            Self::Arabic
        } else {
            Self::English
        }
    }
}

/// A mail of the identity.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Letter<'a> {
    Invitation {
        organization: &'a str,
        link: &'a str,
    },
    Recovery {
        link: &'a str,
        code: &'a str,
    },
    /// To the new address.
    EmailChange {
        link: &'a str,
        code: &'a str,
    },
    /// To the old address, when it is asked for.
    EmailChangeAsked,
    /// To the old address, afterwards.
    EmailChanged,
}

/// The parts of a mail, in order.
struct Words {
    subject: String,
    before: String,
    /// What the link is called, and where it leads.
    link: Option<(&'static str, String)>,
    code: Option<(&'static str, String)>,
    after: &'static str,
}

impl Letter<'_> {
    pub(crate) fn write(&self, tongue: Tongue) -> OutboundContent {
        let words = match tongue {
            Tongue::Arabic => self.in_arabic(),
            Tongue::English => self.in_english(),
        };
        OutboundContent::Email {
            text: Some(words.as_text()),
            html: Some(words.as_html(tongue)),
            subject: words.subject,
        }
    }

    fn in_english(&self) -> Words {
        const CODE: &str = "Or enter this code:";
        match *self {
            Self::Invitation { organization, link } => {
                let organization = name(organization);
                Words {
                    subject: format!("Invitation to {organization}"),
                    before: format!("You have been invited to join {organization}."),
                    link: Some(("Accept the invitation", link.to_owned())),
                    code: None,
                    after: "The link works once, within 7 days. If you did not expect this, ignore it.",
                }
            }
            Self::Recovery { link, code } => Words {
                subject: "Reset your password".to_owned(),
                before: "Somebody asked to reset the password of your account.".to_owned(),
                link: Some(("Choose a new password", link.to_owned())),
                code: Some((CODE, code.to_owned())),
                after: "Both work once, within one hour. If it was not you, ignore this: your password stays as it is.",
            },
            Self::EmailChange { link, code } => Words {
                subject: "Confirm your new address".to_owned(),
                before: "Somebody asked to use this address for their account.".to_owned(),
                link: Some(("Confirm the address", link.to_owned())),
                code: Some((CODE, code.to_owned())),
                after: "Both work once, within one hour. If it was not you, ignore this.",
            },
            Self::EmailChangeAsked => Words {
                subject: "Your address is about to change".to_owned(),
                before: "Somebody who is signed in to your account asked for another e-mail address for it."
                    .to_owned(),
                link: None,
                code: None,
                after: "If it was not you, change your password at once: that stops it and signs everybody else out.",
            },
            Self::EmailChanged => Words {
                subject: "Your address was changed".to_owned(),
                before: "Your account now has another e-mail address; this one no longer signs in."
                    .to_owned(),
                link: None,
                code: None,
                after: "If it was not you, tell the administrator of your organization at once.",
            },
        }
    }

    fn in_arabic(&self) -> Words {
        const CODE: &str = "أو أدخل هذا الرمز:";
        match *self {
            Self::Invitation { organization, link } => {
                let organization = name(organization);
                Words {
                    subject: format!("دعوة إلى {organization}"),
                    before: format!("تمت دعوتك للانضمام إلى {organization}."),
                    link: Some(("قبول الدعوة", link.to_owned())),
                    code: None,
                    after: "يعمل الرابط مرة واحدة خلال ٧ أيام. إن لم تكن تتوقع هذه الدعوة فتجاهلها.",
                }
            }
            Self::Recovery { link, code } => Words {
                subject: "إعادة تعيين كلمة المرور".to_owned(),
                before: "طلب أحدهم إعادة تعيين كلمة المرور لحسابك.".to_owned(),
                link: Some(("اختيار كلمة مرور جديدة", link.to_owned())),
                code: Some((CODE, code.to_owned())),
                after: "يعملان مرة واحدة خلال ساعة. إن لم تكن أنت من طلب ذلك فتجاهل الرسالة، وستبقى كلمة المرور كما هي.",
            },
            Self::EmailChange { link, code } => Words {
                subject: "تأكيد عنوانك الجديد".to_owned(),
                before: "طلب أحدهم استخدام هذا العنوان لحسابه.".to_owned(),
                link: Some(("تأكيد العنوان", link.to_owned())),
                code: Some((CODE, code.to_owned())),
                after: "يعملان مرة واحدة خلال ساعة. إن لم تكن أنت من طلب ذلك فتجاهل الرسالة.",
            },
            Self::EmailChangeAsked => Words {
                subject: "طلب تغيير عنوانك".to_owned(),
                before: "طلب شخص سجّل الدخول إلى حسابك عنوان بريد آخر له.".to_owned(),
                link: None,
                code: None,
                after: "إن لم تكن أنت من طلب ذلك فغيّر كلمة المرور فوراً: يلغي ذلك الطلب ويُخرج كل من سواك.",
            },
            Self::EmailChanged => Words {
                subject: "تم تغيير عنوانك".to_owned(),
                before: "أصبح لحسابك عنوان بريد آخر، ولم يعد هذا العنوان صالحاً لتسجيل الدخول."
                    .to_owned(),
                link: None,
                code: None,
                after: "إن لم تكن أنت من فعل ذلك فأخبر مسؤول مؤسستك فوراً.",
            },
        }
    }
}

impl Words {
    fn as_text(&self) -> String {
        let mut parts = vec![self.before.clone()];
        if let Some((what, link)) = &self.link {
            parts.push(format!("{what}:\n{link}"));
        }
        if let Some((what, code)) = &self.code {
            parts.push(format!("{what} {code}"));
        }
        parts.push(self.after.to_owned());
        parts.join("\n\n")
    }

    fn as_html(&self, tongue: Tongue) -> String {
        let (language, direction) = match tongue {
            Tongue::Arabic => ("ar", "rtl"),
            Tongue::English => ("en", "ltr"),
        };
        let mut body = format!("<p>{}</p>", escape(&self.before));
        if let Some((what, link)) = &self.link {
            let link = escape(link);
            body.push_str(&format!("<p><a href=\"{link}\">{what}</a></p>"));
        }
        if let Some((what, code)) = &self.code {
            body.push_str(&format!(
                "<p>{what} <strong dir=\"ltr\">{}</strong></p>",
                escape(code)
            ));
        }
        body.push_str(&format!("<p>{}</p>", self.after));
        format!(
            "<!DOCTYPE html><html lang=\"{language}\" dir=\"{direction}\"><body dir=\"{direction}\" \
             style=\"font-family:sans-serif;line-height:1.6\">{body}</body></html>"
        )
    }
}

/// A name on one line and of bounded length.
fn name(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.trim()
        .chars()
        .take(MAX_NAME_CHARS)
        .map(plain)
        .collect()
}

/// For HTML, in text and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => result.push_str("&amp;"),
            '<' => result.push_str("&lt;"),
            '>' => result.push_str("&gt;"),
            '"' => result.push_str("&quot;"),
            '\'' => result.push_str("&#39;"),
            _ => result.push(c),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(letter: Letter<'_>, locale: &str) -> (String, String, String) {
        match letter.write(Tongue::of(locale)) {
            OutboundContent::Email {
                subject,
                text: Some(text),
                html: Some(html),
            } => (subject, text, html),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mail_is_in_the_persons_language_and_direction() {
        let letter = Letter::Recovery {
            link: "https://wasel.example.test/auth/v1/verify?token=a&type=recovery",
            code: "012345",
        };
        let (subject, text, html) = parts(letter, "ar-EG");
        assert_eq!(subject, "إعادة تعيين كلمة المرور");
        assert!(text.contains("012345") && text.contains("token=a&type=recovery"));
        assert!(html.contains("dir=\"rtl\"") && html.contains("token=a&amp;type=recovery"));
        for locale in ["en", "de-DE", "", "arz"] {
            let (subject, _, html) = parts(letter, locale);
            assert_eq!(subject, "Reset your password", "{locale}");
            assert!(html.contains("dir=\"ltr\""), "{locale}");
        }
    }

    #[test]
    fn a_name_cannot_become_markup_or_a_header() {
        let organization = "<img src=x>\r\nBcc: x@example.test";
        let letter = Letter::Invitation {
            organization,
            link: "https://wasel.example.test/\"><b>",
        };
        let (subject, _, html) = parts(letter, "en");
        assert!(!subject.contains(['\r', '\n']), "{subject}");
        assert!(!html.contains("<img") && !html.contains("<b>"), "{html}");
    }
}
