//! Mutual TLS 1.3 against the coordinator's own CA. No I/O, and no mode without it.

use kiln_protocol::ALPN;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::sync::Arc;

/// A certificate, its key, and the text it came from.
pub(crate) struct Chain {
    pub(crate) pem: String,
    pub(crate) certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// What is wrong with a certificate and its key, and so which file is to blame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadPair {
    #[error("it holds no certificate ({0})")]
    Certificate(String),
    #[error("it holds no private key ({0})")]
    Key(String),
    #[error("certificate and key do not belong together ({0})")]
    Mismatch(String),
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Reads a certificate and its key, and checks that they belong together.
pub(crate) fn chain(certificate_pem: &str, key_pem: &str) -> Result<Chain, BadPair> {
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
        .map_err(|error| BadPair::Certificate(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| BadPair::Key(error.to_string()))?;
    CertifiedKey::from_der(vec![certificate.clone()], key.clone_key(), &provider())
        .map_err(|error| BadPair::Mismatch(error.to_string()))?;
    Ok(Chain { pem: certificate_pem.to_owned(), certificate, key })
}

fn roots(ca: &Chain) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    roots
        .add(ca.certificate.clone())
        .map_err(|error| format!("the CA certificate cannot vouch for others ({error})"))?;
    Ok(Arc::new(roots))
}

pub(crate) fn client_verifier(ca: &Chain) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider()).build().map_err(|error| error.to_string())
}

pub(crate) fn server_verifier(ca: &Chain) -> Result<Arc<WebPkiServerVerifier>, String> {
    WebPkiServerVerifier::builder_with_provider(roots(ca)?, provider()).build().map_err(|error| error.to_string())
}

/// Does what a client would do with the server's certificate.
pub(crate) fn verify_server(
    verifier: &WebPkiServerVerifier,
    server: &Chain,
    name: &str,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let name = ServerName::try_from(name)
        .map_err(|_invalid| rustls::Error::General(format!("`{name}` is neither a host name nor an IP address")))?;
    verifier.verify_server_cert(&server.certificate, &[], &name, &[], now).map(drop)
}

/// The server side of the handshake: TLS 1.3, our ALPN, a client certificate of our CA; no tickets and no early data,
/// so that every connection shows its certificate.
pub(crate) fn server_config(ca: &Chain, server: &Chain) -> Result<ServerConfig, String> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(client_verifier(ca)?)
        .with_single_cert(vec![server.certificate.clone()], server.key.clone_key())
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
