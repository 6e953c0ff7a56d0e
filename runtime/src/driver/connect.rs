//! From a profile to a welcomed connection.

use super::stream::next_message;
use super::{GOODBYE, Line, tls};
use crate::api::AttachError;
use crate::api::internals::Options;
use crate::clock::boot_nanos;
use kiln_protocol::connection::{IDLE_TIMEOUT_MS, INITIAL_CONGESTION_WINDOW_BYTES, INITIAL_RTT, KEEP_ALIVE};
use kiln_protocol::limits::NAME_BYTES_MAX;
use kiln_protocol::message::{Hello, Past, Resume, Role};
use kiln_protocol::profile::Profile;
use kiln_protocol::{Epoch, FrameDecoder, Incarnation, Secret, ToCoordinator, ToNode, encode_to_coordinator};
use quinn::{ClientConfig, Endpoint, IdleTimeout, RecvStream, SendStream, TransportConfig, VarInt};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const STREAM_RECEIVE_WINDOW_BYTES: u32 = 32 << 20;
const SEND_WINDOW_BYTES: u64 = 8 << 20;

/// An attached connection.
pub(super) struct Welcomed {
    pub(super) line: Line,
    pub(super) send: SendStream,
    /// The rest of the stream, and what was read of it.
    pub(super) receive: (RecvStream, FrameDecoder),
    pub(super) epoch: Epoch,
    /// The coordinator keeps a log.
    pub(super) durable: bool,
    pub(super) incarnation: Incarnation,
    pub(super) secret: Secret,
    /// For how long grants can be trusted after the sending of an answered heartbeat.
    pub(super) trusted: Duration,
    /// When the Hello was sent, on the clock of leases.
    pub(super) sent_nanos: u64,
    /// What became of the incarnation that was to be resumed.
    pub(super) past: Past,
}

fn transport() -> TransportConfig {
    let mut congestion = quinn::congestion::CubicConfig::default();
    congestion.initial_window(INITIAL_CONGESTION_WINDOW_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .congestion_controller_factory(Arc::new(congestion));
    transport
}

/// Connects and waits for the welcome.
pub(super) async fn connect(
    profile: &Profile,
    options: &Options,
    resume: Option<Resume>,
) -> Result<Welcomed, AttachError> {
    let address = profile.address.clone();
    let failed = |what: String| AttachError::Connect { address: address.clone(), what };
    let attempt = async {
        let crypto = Arc::new(tls::client_config(profile).map_err(|what| AttachError::Credentials { what })?);
        let mut last = failed("the address resolves to nothing".to_owned());
        for candidate in resolve(&profile.address).await? {
            match open(candidate, Arc::clone(&crypto), &profile.server_name).await {
                Ok(opened) => return hello(opened, options, resume, &profile.address).await,
                Err(what) => last = failed(what),
            }
        }
        Err(last)
    };
    let elapsed = || failed(format!("no answer within {CONNECT_TIMEOUT:?}"));
    tokio::time::timeout(CONNECT_TIMEOUT, attempt).await.unwrap_or_else(|_elapsed| Err(elapsed()))
}

async fn resolve(address: &str) -> Result<Vec<SocketAddr>, AttachError> {
    let resolved = tokio::net::lookup_host(address).await;
    let resolved = resolved.map_err(|error| AttachError::Resolve { address: address.to_owned(), error })?;
    Ok(resolved.collect())
}

async fn open(
    candidate: SocketAddr,
    crypto: Arc<quinn::crypto::rustls::QuicClientConfig>,
    server_name: &str,
) -> Result<Line, String> {
    let any = if candidate.is_ipv6() { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
    let mut endpoint = Endpoint::client(any).map_err(|error| format!("cannot open a UDP socket: {error}"))?;
    let mut config = ClientConfig::new(crypto);
    config.transport_config(Arc::new(transport()));
    endpoint.set_default_client_config(config);
    let connecting = endpoint.connect(candidate, server_name).map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    Ok(Line { endpoint, connection })
}

/// A newcomer that has said hello: whoever gives up waiting for the answer leaves no node behind.
struct Newcomer(Option<Line>);

impl Drop for Newcomer {
    fn drop(&mut self) {
        if let Some(line) = self.0.take() {
            line.close(GOODBYE, b"gave up attaching");
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a first message is one of two")]
async fn hello(line: Line, options: &Options, resume: Option<Resume>, address: &str) -> Result<Welcomed, AttachError> {
    let lost = |what: &dyn std::fmt::Display| AttachError::Connect {
        address: address.to_owned(),
        // A connection that the coordinator closed says why.
        what: line.connection.close_reason().map_or_else(|| what.to_string(), |reason| reason.to_string()),
    };
    let (mut send, mut receive) = line.connection.open_bi().await.map_err(|error| lost(&error))?;
    let mut name = options.node_name.clone();
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    let hello = ToCoordinator::Hello(Hello { resume, ..Hello::new(name, Role::Node) });
    let mut newcomer = Newcomer(resume.is_none().then(|| line.clone()));
    let mut bytes = Vec::new();
    let sent_nanos = boot_nanos();
    encode_to_coordinator(&mut bytes, Epoch::default(), &hello);
    send.write_all(&bytes).await.map_err(|error| lost(&error))?;
    let mut decoder = FrameDecoder::default();
    match next_message(&mut receive, &mut decoder, Epoch::default()).await.map_err(|error| lost(&error))? {
        ToNode::Welcome { epoch, incarnation, secret, lease_ms, durable, past, .. } => {
            let trusted = kiln_engine::trusted(Duration::from_millis(lease_ms.into()));
            let receive = (receive, decoder);
            newcomer.0 = None;
            Ok(Welcomed { line, send, receive, epoch, durable, incarnation, secret, trusted, sent_nanos, past })
        }
        ToNode::Refused { failure } => {
            Err(AttachError::Refused { address: address.to_owned(), failure: failure.into() })
        }
        other => Err(lost(&format!("the coordinator answered `Hello` with {other:?}"))),
    }
}
