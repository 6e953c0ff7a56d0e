//! QUIC between two processes, tuned as Kiln tunes its own connections, and the echo over it.

use crate::bench::clock::Laps;
use crate::bench::peer::{Peer, Role, Steered};
use crate::bench::row::Figures;
use crate::bench::{Bench, BenchError};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream, ServerConfig,
    TransportConfig, VarInt,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::error::Error;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

pub(super) const MESSAGE_BYTES: usize = 64;
const SERVER_NAME: &str = "localhost";

/// Errors on this path end the row; they are for people.
pub(super) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// As the coordinator has it.
pub(in crate::bench) fn transport() -> Arc<TransportConfig> {
    Arc::new(kiln_coordinator::server::transport())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A server on a free port; says where, and with which certificate.
pub(super) fn server() -> Result<Endpoint> {
    let signed = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()])?;
    let certificate = signed.cert.der().clone();
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der())?;
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport());
    let endpoint = Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    Steered::say(&format!("ready {} {}", endpoint.local_addr()?, hex(&certificate)))?;
    Ok(endpoint)
}

/// A connection to a server that said `ready`, and its one stream. The endpoint must live as long.
pub(super) async fn connect(ready: &str) -> Result<(Endpoint, Connection, SendStream, RecvStream)> {
    let (address, certificate) = ready.split_once(' ').ok_or("no certificate")?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(unhex(certificate).ok_or("a bad certificate")?))?;
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport());
    let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let connection = endpoint.connect_with(config, address.parse()?, SERVER_NAME)?.await?;
    let (send, receive) = connection.open_bi().await?;
    Ok((endpoint, connection, send, receive))
}

/// Sends back what comes in on the first stream of one connection.
pub(in crate::bench) async fn serve_echo() -> Result<()> {
    let endpoint = server()?;
    let connection = endpoint.accept().await.ok_or("closed")?.await?;
    let (mut send, mut receive) = connection.accept_bi().await?;
    pass(&mut receive, &mut send).await
}

/// Writes to one stream what comes in on another, until the other side closes its connection.
pub(super) async fn pass(from: &mut RecvStream, to: &mut SendStream) -> Result<()> {
    loop {
        match from.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => to.write_chunk(chunk.bytes).await?,
            Ok(None) | Err(ReadError::ConnectionLost(ConnectionError::ApplicationClosed(_))) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) async fn measure_echo(bench: &Bench) -> std::result::Result<Figures, BenchError> {
    let mut peer = Peer::start(Role::Echo)?;
    let ready = peer.hear("ready").await?;
    let measured = async {
        let (_endpoint, connection, mut send, mut receive) = connect(&ready).await?;
        let mut message = [0x5a; MESSAGE_BYTES];
        let mut laps = Laps::new(bench.secs());
        while let Some(lap) = laps.next() {
            send.write_all(&message).await?;
            receive.read_exact(&mut message).await?;
            laps.end(lap, 1);
        }
        connection.close(VarInt::from_u32(0), b"done");
        Ok(Figures::micros(laps.times()))
    };
    measured.await.map_err(BenchError::Quic)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
