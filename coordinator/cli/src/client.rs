//! An observer of a cluster: connects with a profile, asks, hears of watched changes. Holds nothing, locks nothing.

use bytes::Bytes;
use kiln_protocol::codec::decode_to_node;
use kiln_protocol::connection::{IDLE_TIMEOUT_MS, INITIAL_RTT, KEEP_ALIVE};
use kiln_protocol::limits::NAME_BYTES_MAX;
use kiln_protocol::message::{Hello, Record, Role};
use kiln_protocol::{
    ALPN, CloseCode, Epoch, Failure, FrameDecoder, Profile, ProfileError, RequestId, RootId, ToCoordinator, ToNode,
    encode_to_coordinator,
};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, IdleTimeout, RecvStream, SendStream, VarInt};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long to wait for the last words: the coordinator notices on its own as well.
const GOODBYE: Duration = Duration::from_millis(500);
/// Events that arrive while an answer is awaited. A watch asks nothing, so only a coordinator gone wrong exceeds it.
const EVENTS_MAX: usize = 1 << 16;
/// The TLS alerts that say "your certificate" (RFC 8446, 6.2), as QUIC shows them.
const CERTIFICATE_ALERTS: std::ops::RangeInclusive<u64> = 0x100 + 42..=0x100 + 49;
const CERTIFICATE_REQUIRED_ALERT: u64 = 0x100 + 116;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(
        "there is no profile {}: start a coordinator with `kiln serve`, which writes one, or copy the one of your \
         cluster here; name another with --profile or KILN_PROFILE",
        path.display()
    )]
    NoProfile { path: PathBuf },
    #[error("cannot read the profile {}: {error}", path.display())]
    ReadProfile { path: PathBuf, error: io::Error },
    #[error("the profile {} is wrong: {error}", path.display())]
    BadProfile { path: PathBuf, error: ProfileError },
    #[error("the credentials in the profile cannot be used: {what}; let the coordinator write it again")]
    Credentials { what: String },
    #[error("cannot resolve {address}: {error}; check `address` in the profile")]
    Resolve { address: String, error: io::Error },
    #[error("cannot connect to {address}: {what}; {hint}")]
    Connect { address: String, what: String, hint: &'static str },
    #[error("the coordinator at {address} does not attach this program: {failure}")]
    Refused { address: String, failure: Box<Failure> },
    #[error("the coordinator refuses: {0}")]
    Failed(Box<Failure>),
    #[error("no answer from the coordinator within {} s; --timeout sets how long to wait", after.as_secs_f64())]
    Timeout { after: Duration },
    #[error("the connection to the coordinator ended: {what}")]
    Lost { what: String },
    #[error("the coordinator is stopping")]
    Stopping,
    #[error("the coordinator answered with something else: {what}; run the same version of Kiln on both")]
    Unexpected { what: String },
}

/// Reads the profile file.
pub(crate) fn load_profile(path: &Path) -> Result<Profile, ClientError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let path = path.to_owned();
        if error.kind() == io::ErrorKind::NotFound {
            ClientError::NoProfile { path }
        } else {
            ClientError::ReadProfile { path, error }
        }
    })?;
    if let Some(mode) = open_to_others(path) {
        crate::output::note(format_args!(
            "{} has mode {mode:04o}, so others can read its private key: run `chmod 600 {}`",
            path.display(),
            path.display()
        ));
    }
    Profile::parse(&text).map_err(|error| ClientError::BadProfile { path: path.to_owned(), error })
}

/// The mode of a file that others than its owner can reach.
fn open_to_others(path: &Path) -> Option<u32> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

/// An attached observer.
pub(crate) struct Client {
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    decoder: FrameDecoder,
    epoch: Epoch,
    last_request: RequestId,
    events: VecDeque<ToNode>,
    patience: Duration,
}

impl Client {
    /// Connects and attaches. `patience` is how long to wait for that, and for each answer.
    pub(crate) async fn attach(profile: &Profile, patience: Duration) -> Result<Self, ClientError> {
        timeout(patience, Self::attach_patiently(profile, patience))
            .await
            .unwrap_or_else(|_elapsed| Err(connect_error(&profile.address, &ConnectionError::TimedOut)))
    }

    async fn attach_patiently(profile: &Profile, patience: Duration) -> Result<Self, ClientError> {
        let address = &profile.address;
        let config = config(profile)?;
        let mut candidates = tokio::net::lookup_host(address.as_str())
            .await
            .map_err(|error| ClientError::Resolve { address: address.clone(), error })?;
        let mut last = ConnectionError::TimedOut;
        let (endpoint, connection) = loop {
            let Some(candidate) = candidates.next() else {
                return Err(connect_error(address, &last));
            };
            let endpoint = endpoint(candidate)?;
            let connecting = endpoint
                .connect_with(config.clone(), candidate, &profile.server_name)
                .map_err(|error| ClientError::Credentials { what: error.to_string() })?;
            match connecting.await {
                Ok(connection) => break (endpoint, connection),
                Err(error) => last = error,
            }
        };
        let opened = connection.open_bi().await;
        let (send, receive) = opened.map_err(|error| connect_error(address, &error))?;
        let mut client = Self {
            endpoint,
            connection,
            send,
            receive,
            decoder: FrameDecoder::default(),
            epoch: Epoch::default(),
            last_request: RequestId::default(),
            events: VecDeque::new(),
            patience,
        };
        client.hello(address).await?;
        Ok(client)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "anything else is out of place here")]
    async fn hello(&mut self, address: &str) -> Result<(), ClientError> {
        let user = std::env::var("USER").unwrap_or_default();
        let mut name = format!("kiln-cli {user}").trim_end().to_owned();
        name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
        let hello = ToCoordinator::Hello(Hello::new(name, Role::Observer));
        let welcome = match self.say(&hello).await {
            Ok(()) => self.receive().await,
            Err(error) => Err(error),
        };
        // In TLS 1.3 a client hears only now that its certificate was refused.
        let welcome = welcome.map_err(|error| match self.connection.close_reason() {
            Some(reason) => connect_error(address, &reason),
            None => error,
        })?;
        match welcome {
            ToNode::Welcome { epoch, .. } => {
                self.epoch = epoch;
                Ok(())
            }
            ToNode::Refused { failure } => {
                Err(ClientError::Refused { address: address.to_owned(), failure: Box::new(failure) })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Asks, and returns the answer. Events that come before it are kept for [`Client::event`].
    pub(crate) async fn ask(
        &mut self,
        question: impl FnOnce(RequestId) -> ToCoordinator,
    ) -> Result<ToNode, ClientError> {
        let patience = self.patience;
        timeout(patience, self.ask_patiently(question)).await.unwrap_or(Err(ClientError::Timeout { after: patience }))
    }

    async fn ask_patiently(
        &mut self,
        question: impl FnOnce(RequestId) -> ToCoordinator,
    ) -> Result<ToNode, ClientError> {
        self.last_request = self.last_request.next();
        let request = self.last_request;
        self.say(&question(request)).await?;
        self.hear().await
    }

    /// Another answer to the last question.
    pub(crate) async fn answer(&mut self) -> Result<ToNode, ClientError> {
        let patience = self.patience;
        timeout(patience, self.hear()).await.unwrap_or(Err(ClientError::Timeout { after: patience }))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "anything else is an answer")]
    async fn hear(&mut self) -> Result<ToNode, ClientError> {
        loop {
            let message = self.receive().await?;
            match message {
                ToNode::Failed { failure, .. } => return Err(ClientError::Failed(Box::new(failure))),
                ToNode::Event { .. } => {
                    if self.events.len() == EVENTS_MAX {
                        return Err(unexpected(&message));
                    }
                    self.events.push_back(message);
                }
                ToNode::Stopping => return Err(ClientError::Stopping),
                ToNode::Barrier { barrier } => self.say(&ToCoordinator::Barrier { barrier }).await?,
                answer => return Ok(answer),
            }
        }
    }

    /// Looks at an object; `None` when the root has no such key.
    pub(crate) async fn peek(&mut self, root: RootId, key: Bytes) -> Result<Option<Record>, ClientError> {
        let answer = self.ask(|request| ToCoordinator::Peek { request, root, key }).await?;
        if let ToNode::Absent { .. } = answer {
            return Ok(None);
        }
        let ToNode::Fetched { record, .. } = answer else {
            return Err(unexpected(&answer));
        };
        Ok(Some(record))
    }

    /// The next event of a watch, however long it takes.
    #[expect(clippy::wildcard_enum_match_arm, reason = "anything else is out of place here")]
    pub(crate) async fn event(&mut self) -> Result<ToNode, ClientError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        loop {
            let message = self.receive().await?;
            match message {
                ToNode::Event { .. } => return Ok(message),
                ToNode::Stopping => return Err(ClientError::Stopping),
                ToNode::Barrier { barrier } => self.say(&ToCoordinator::Barrier { barrier }).await?,
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Whether an event has arrived already.
    pub(crate) fn has_event(&self) -> bool {
        !self.events.is_empty() || self.decoder.pending_bytes() > 0
    }

    /// Leaves. There is nothing to lose, so failures are not reported.
    pub(crate) async fn leave(mut self) {
        if self.connection.close_reason().is_some() {
            return;
        }
        let goodbye = async {
            self.say(&ToCoordinator::Bye).await?;
            while self.receive().await? != ToNode::Goodbye {}
            Ok::<(), ClientError>(())
        };
        drop(timeout(GOODBYE, goodbye).await);
        self.connection.close(VarInt::from_u32(CloseCode::Goodbye.to_bits()), b"goodbye");
        drop(timeout(GOODBYE, self.endpoint.wait_idle()).await);
    }

    async fn say(&mut self, message: &ToCoordinator) -> Result<(), ClientError> {
        let mut bytes = Vec::new();
        encode_to_coordinator(&mut bytes, self.epoch, message);
        let written = self.send.write_all(&bytes).await;
        written.map_err(|error| self.lost(&error))
    }

    async fn receive(&mut self) -> Result<ToNode, ClientError> {
        loop {
            let frame =
                self.decoder.next_frame().map_err(|error| ClientError::Unexpected { what: error.to_string() })?;
            if let Some(frame) = frame {
                return decode_to_node(self.epoch, &frame)
                    .map_err(|error| ClientError::Unexpected { what: error.to_string() });
            }
            let mut chunk = [Bytes::new()];
            match self.receive.read_chunks(&mut chunk).await {
                Ok(Some(_)) => self.decoder.push(&chunk[0]),
                Ok(None) => return Err(ClientError::Lost { what: "it ended the stream".into() }),
                Err(error) => return Err(self.lost(&error)),
            }
        }
    }

    fn lost(&self, error: &dyn std::error::Error) -> ClientError {
        ClientError::Lost {
            what: match self.connection.close_reason() {
                Some(ConnectionError::ApplicationClosed(close)) => {
                    crate::output::shown(&String::from_utf8_lossy(&close.reason))
                }
                Some(reason) => reason.to_string(),
                None => error.to_string(),
            },
        }
    }
}

/// An answer of the wrong kind.
pub(crate) fn unexpected(message: &ToNode) -> ClientError {
    let mut what = crate::output::shown(&format!("{message:?}"));
    what.truncate(what.floor_char_boundary(200));
    ClientError::Unexpected { what }
}

fn endpoint(candidate: SocketAddr) -> Result<Endpoint, ClientError> {
    let local: SocketAddr =
        if candidate.is_ipv6() { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
    Endpoint::client(local).map_err(|error| ClientError::Connect {
        address: candidate.to_string(),
        what: error.to_string(),
        hint: "this machine gives no UDP socket",
    })
}

fn config(profile: &Profile) -> Result<ClientConfig, ClientError> {
    let credentials = |what: &dyn std::fmt::Display| ClientError::Credentials { what: what.to_string() };
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(profile.ca.as_bytes()).map_err(|error| credentials(&error))?;
    roots.add(ca).map_err(|error| credentials(&error))?;
    let certificate =
        CertificateDer::from_pem_slice(profile.certificate.as_bytes()).map_err(|error| credentials(&error))?;
    let key = PrivateKeyDer::from_pem_slice(profile.key.as_bytes()).map_err(|error| credentials(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| credentials(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .map_err(|error| credentials(&error))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| credentials(&error))?;
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE));
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// What a failed connection means, and what to do about it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest has no better hint")]
fn connect_error(address: &str, error: &ConnectionError) -> ClientError {
    const RUNNING: &str = "is the coordinator running there, and does UDP get through?";
    const OTHER_CA: &str =
        "the profile is of another coordinator, or an old one: copy the profile of the coordinator that runs there";
    let (what, hint) = match error {
        ConnectionError::TimedOut => ("nobody answers".to_owned(), RUNNING),
        ConnectionError::ApplicationClosed(close) => {
            (crate::output::shown(&String::from_utf8_lossy(&close.reason)), "the coordinator closed the connection")
        }
        ConnectionError::TransportError(error) if is_about_certificates(u64::from(error.code)) => {
            (format!("the coordinator's certificate is not accepted ({error})"), OTHER_CA)
        }
        ConnectionError::ConnectionClosed(close) if is_about_certificates(u64::from(close.error_code)) => {
            (format!("the coordinator does not accept the profile's certificate ({close})"), OTHER_CA)
        }
        other => (other.to_string(), RUNNING),
    };
    ClientError::Connect { address: address.to_owned(), what, hint }
}

fn is_about_certificates(code: u64) -> bool {
    CERTIFICATE_ALERTS.contains(&code) || code == CERTIFICATE_REQUIRED_ALERT
}
