use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::values::{WebUrl, optional};

/// The HTTP server.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// TCP port; 0 takes any free one.
    pub port: u16,
    pub listen: IpAddr,
    #[serde(with = "optional")]
    pub public_url: Option<WebUrl>,
    /// CORS origins as browsers send them, `https://app.example.com`.
    pub allowed_origins: Vec<String>,
    /// How many entries of `X-Forwarded-For`, from its end, were added by proxies that belong to the installation.
    pub trusted_proxy_hops: u8,
    #[serde(with = "crate::values::duration")]
    pub shutdown_grace: std::time::Duration,
}

impl Server {
    /// Where to listen.
    #[must_use]
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.listen, self.port)
    }

    /// The address the world knows, without a slash at its end; `http://localhost:<port>` where none is set.
    /// `port` is the one really listened on, which differs from the setting when that is 0.
    #[must_use]
    pub fn public_url_or_local(&self, port: u16) -> String {
        self.public_url.as_ref().map_or_else(
            || format!("http://localhost:{port}"),
            |url| url.as_str().to_owned(),
        )
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        match self
            .allowed_origins
            .iter()
            .find(|origin| !is_origin(origin))
        {
            Some(origin) => Err(format!(
                "{origin:?} is not an origin: write scheme and host, such as https://app.example.com, \
                 in lower case and without a path or a slash at the end"
            )),
            None => Ok(()),
        }
    }
}

/// Whether browsers could send exactly this text as `Origin`. A `*` is not one: it is refused with credentials.
fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for text in [
            "https://myfleet.app",
            "http://localhost:5173",
            "http://[::1]:80",
        ] {
            assert_eq!(is_origin(text), text != "http://[::1]:80", "{text}");
        }
        for text in [
            "*",
            "null",
            "myfleet.app",
            "https://myfleet.app/",
            "https://a.b/c",
            "https://A.b",
            "file:///x",
        ] {
            assert!(!is_origin(text), "{text}");
        }
    }

    #[test]
    fn without_a_public_url_it_is_this_machine() {
        let mut server = crate::Config::default().server;
        assert_eq!(server.public_url_or_local(4000), "http://localhost:4000");
        server.public_url = Some(WebUrl::try_from("https://chat.example.com/".to_owned()).unwrap());
        assert_eq!(server.public_url_or_local(4000), "https://chat.example.com");
        assert_eq!(server.socket_addr().to_string(), "0.0.0.0:3001");
    }
}
