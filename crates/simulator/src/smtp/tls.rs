//! A certificate for the loopback, made anew at every start.

use std::{io, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio_rustls::TlsAcceptor;

/// The server's side of TLS, and the root to trust in PEM.
pub(super) fn acceptor() -> io::Result<(TlsAcceptor, String)> {
    let made = |error: rcgen::Error| io::Error::other(error.to_string());
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let name = "Simulated mail server root";
    root.distinguished_name.push(DnType::CommonName, name);
    let root =
        CertifiedIssuer::self_signed(root, KeyPair::generate().map_err(made)?).map_err(made)?;

    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let key = KeyPair::generate().map_err(made)?;
    let leaf = CertificateParams::new(names).map_err(made)?;
    let leaf = leaf.signed_by(&key, &root).map_err(made)?;

    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| {
            config
                .with_no_client_auth()
                .with_single_cert(vec![leaf.der().clone()], key)
        })
        .map_err(io::Error::other)?;
    Ok((TlsAcceptor::from(Arc::new(config)), root.pem()))
}
