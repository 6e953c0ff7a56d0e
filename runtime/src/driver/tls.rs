//! Mutually authenticated TLS 1.3 with the credentials of a profile.

use kiln_protocol::ALPN;
use kiln_protocol::profile::Profile;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt::Display;
use std::sync::Arc;

/// The client side of the handshake.
pub(super) fn client_config(profile: &Profile) -> Result<QuicClientConfig, String> {
    let what = |part: &str, error: &dyn Display| format!("{part}: {error}");
    let certificates = |part: &str, pem: &str| {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        match all {
            Ok(all) if all.is_empty() => Err(format!("{part}: no certificate in the text")),
            done => done.map_err(|error| what(part, &error)),
        }
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", &profile.ca)? {
        roots.add(certificate).map_err(|error| what("ca", &error))?;
    }
    let chain = certificates("certificate", &profile.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(profile.key.as_bytes()).map_err(|error| what("key", &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| what("tls", &error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| what("certificate and key", &error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    QuicClientConfig::try_from(config).map_err(|error| what("tls", &error))
}
