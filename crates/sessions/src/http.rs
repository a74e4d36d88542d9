//! HTTP for the protocol crate, bounded and towards WhatsApp only.

/// reqwest is built without a provider of cryptography of its own.
pub(crate) fn install_tls() {
    // An error means that one is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
