//! Where links of mails lead, and where they may lead on to.

use url::{Origin, Url};

/// The addresses of this installation.
#[derive(Clone, Debug)]
pub struct Site {
    public_url: Url,
    /// Of the pages that may be handed a session: ours and those of `ALLOWED_ORIGINS`.
    origins: Vec<Origin>,
}

impl Site {
    /// `allowed` as in `ALLOWED_ORIGINS`. `*` opens the API to every page, but hands a session to none.
    #[must_use]
    pub fn new(public_url: Url, allowed: &[String]) -> Self {
        let origins = allowed
            .iter()
            .filter_map(|origin| Some(Url::parse(origin).ok()?.origin()))
            .chain([public_url.origin()])
            .filter(Origin::is_tuple)
            .collect();
        Self {
            public_url,
            origins,
        }
    }

    /// The page a person goes to with their new session: the one asked for if it is allowed, else our own.
    #[must_use]
    pub fn landing(&self, asked: Option<&str>) -> Url {
        let mut page = asked
            .and_then(|asked| self.allowed(asked))
            .unwrap_or_else(|| self.public_url.clone());
        page.set_fragment(None);
        page
    }

    /// A page that may be handed a session.
    #[must_use]
    pub fn allowed(&self, asked: &str) -> Option<Url> {
        let page = Url::parse(asked).ok()?;
        let is_plain = matches!(page.scheme(), "http" | "https")
            && page.username().is_empty()
            && page.password().is_none();
        (is_plain && self.origins.contains(&page.origin())).then_some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        let allowed = ["https://app.example.test", "*", "null", "file:///x"];
        Site::new(
            "https://wasel.example.test/prefix".parse().unwrap(),
            &allowed.map(str::to_owned),
        )
    }

    proptest::proptest! {
        #[test]
        fn no_text_leads_elsewhere(
            asked in "(https?:|//|/|@|\\\\|#|\\?|:|\\.|app|wasel|evil|example|test|443|%2f|\\PC){0,12}"
        ) {
            let landing = site().landing(Some(&asked)).origin();
            let known = ["https://app.example.test", "https://wasel.example.test"];
            assert!(known.contains(&landing.ascii_serialization().as_str()), "{asked}");
        }
    }

    #[test]
    fn a_session_goes_to_our_own_pages_and_the_allowed_ones_only() {
        for page in [
            "https://app.example.test/",
            "https://app.example.test/welcome?x=1",
            "https://APP.example.test:443/a",
            "https://wasel.example.test/any",
        ] {
            let landing = site().landing(Some(page));
            assert_eq!(landing, page.parse().unwrap(), "{page}");
        }
        for page in [
            "http://app.example.test/",
            "https://app.example.test:8443/",
            "https://app.example.test.evil.test/",
            "https://app.example.test@evil.test/",
            "https://user:x@app.example.test/",
            "https://evil.test/https://app.example.test/",
            "//app.example.test/",
            "/welcome",
            "javascript:alert(1)//https://app.example.test",
            "data:text/html,x",
            "file:///x",
            "null",
            "*",
            "",
        ] {
            let landing = site().landing(Some(page));
            assert_eq!(
                landing.as_str(),
                "https://wasel.example.test/prefix",
                "{page}"
            );
        }
        let landing = site().landing(Some("https://app.example.test/a#access_token=x"));
        assert_eq!(landing.as_str(), "https://app.example.test/a");
    }
}
