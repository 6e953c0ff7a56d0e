//! A peer that can be told to misbehave: QUIC and frames, without a runtime.

use crate::patience::soon;
use kiln_protocol::codec::decode_to_node;
use kiln_protocol::message::{Hello, LockInfo, NodeInfo, Role};
use kiln_protocol::profile::split_address;
use kiln_protocol::schema::TypeDescription;
use kiln_protocol::{
    ALPN, Epoch, FrameDecoder, Incarnation, PROTOCOL_VERSION, Profile, RequestId, RootId, ToCoordinator, ToNode,
    encode_to_coordinator,
};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Bytes read at once.
const READ_BYTES_MAX: usize = 64 << 10;
/// What a connection ends with whose reason was lost on the way.
pub const RESET: &str = "(reset)";
/// Keeps the connection while a test does nothing with it.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A connected peer.
#[derive(Debug)]
pub struct Peer {
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    decoder: FrameDecoder,
    epoch: Epoch,
    incarnation: Incarnation,
    requests: RequestId,
}

fn config(profile: &Profile) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(profile.ca.as_bytes()).expect("a CA certificate");
    roots.add(authority).expect("a usable CA certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is there")
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(profile.certificate.as_bytes()).expect("a certificate")],
            PrivateKeyDer::from_pem_slice(profile.key.as_bytes()).expect("a key"),
        )
        .expect("the certificate fits the key");
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("a QUIC cipher suite")));
    config.transport_config(Arc::new(transport));
    config
}

impl Peer {
    /// Connects, and says nothing yet.
    ///
    /// # Errors
    /// When the coordinator refuses the connection.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn connect(profile: &Profile) -> Result<Self, ConnectionError> {
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a socket");
        let (host, port) = split_address(&profile.address).expect("an address");
        let address = SocketAddr::new(host.parse().expect("an IP address"), port);
        let connecting = endpoint.connect_with(config(profile), address, &profile.server_name);
        let connection = soon("connecting", connecting.expect("an endpoint")).await?;
        let (send, receive) = connection.open_bi().await?;
        Ok(Self {
            endpoint,
            connection,
            send,
            receive,
            decoder: FrameDecoder::default(),
            epoch: Epoch::default(),
            incarnation: Incarnation::default(),
            requests: RequestId::default(),
        })
    }

    /// Connects and attaches as a node.
    ///
    /// # Panics
    /// When the coordinator does not welcome it.
    pub async fn attach(profile: &Profile, name: &str) -> Self {
        let mut peer = Self::connect(profile).await.expect("the coordinator lets it in");
        peer.hello(name, PROTOCOL_VERSION).await;
        let welcome = peer.hear().await;
        let Some(ToNode::Welcome { epoch, incarnation, .. }) = welcome else {
            panic!("{name} is not welcomed but {welcome:?}")
        };
        (peer.epoch, peer.incarnation) = (epoch, incarnation);
        peer
    }

    /// Connects as a tool does: it only looks.
    ///
    /// # Panics
    /// When the coordinator does not answer.
    pub async fn observe(profile: &Profile) -> Self {
        let mut peer = Self::connect(profile).await.expect("the coordinator lets it in");
        peer.say(&ToCoordinator::Hello(Hello::new("a tool".to_owned(), Role::Observer))).await;
        let welcome = |message: &ToNode| match message {
            ToNode::Welcome { epoch, .. } => Some(*epoch),
            _ => None,
        };
        peer.epoch = peer.hear_of("the welcome", welcome).await;
        peer
    }

    /// Connects as a tool does, and asks for the nodes.
    ///
    /// # Panics
    /// When the coordinator does not answer.
    pub async fn nodes(profile: &Profile) -> Vec<NodeInfo> {
        let mut peer = Self::observe(profile).await;
        let request = peer.request();
        peer.say(&ToCoordinator::Status { request }).await;
        let status = |message: &ToNode| match message {
            ToNode::Status { status, .. } => Some(status.nodes.clone()),
            _ => None,
        };
        let nodes = peer.hear_of("the status", status).await;
        peer.vanish().await;
        nodes
    }

    /// Connects with credentials that the coordinator does not trust, and returns where from and why it was turned away.
    ///
    /// # Panics
    /// When it is let in.
    pub async fn turned_away(profile: &Profile) -> (SocketAddr, String) {
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a socket");
        let from = endpoint.local_addr().expect("a bound socket has an address");
        let address = profile.address.parse().expect("an IP address");
        let connecting = endpoint.connect_with(config(profile), address, &profile.server_name);
        // The client is done with its part of the handshake before it hears what the coordinator thinks of it.
        let why = match soon("connecting", connecting.expect("an endpoint")).await {
            Ok(connection) => soon("the coordinator closes the connection", connection.closed()).await,
            Err(why) => why,
        };
        (from, why.to_string())
    }

    /// Where it connects from.
    ///
    /// # Panics
    /// When its socket is gone.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().expect("a bound socket has an address")
    }

    /// Who it is to the coordinator, once it is attached.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The connection's epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Says hello with this protocol version.
    pub async fn hello(&mut self, name: &str, protocol: u16) {
        let name = name.to_owned();
        let role = Role::Node;
        self.say(&ToCoordinator::Hello(Hello { protocol, name, role, resume: None })).await;
    }

    /// A request id that was not used yet.
    pub fn request(&mut self) -> RequestId {
        self.requests = self.requests.next();
        self.requests
    }

    /// Sends a message. Whoever has been cut off finds out when it listens. Looking renews the lease: who looks until
    /// something has happened must not be dead before.
    pub async fn say(&mut self, message: &ToCoordinator) {
        let mut bytes = Vec::new();
        if matches!(message, ToCoordinator::Status { .. } | ToCoordinator::Locks { .. }) {
            encode_to_coordinator(&mut bytes, self.epoch, &ToCoordinator::Heartbeat { number: 0 });
        }
        encode_to_coordinator(&mut bytes, self.epoch, message);
        self.say_bytes(&bytes).await;
    }

    /// Sends bytes.
    pub async fn say_bytes(&mut self, bytes: &[u8]) {
        // An error says that the connection has been closed, which `hear` and `closed` tell.
        drop(soon("sending", self.send.write_all(bytes)).await);
    }

    /// Sends the same bytes over and over, without listening, until the coordinator closes the connection; returns its
    /// reason.
    pub async fn say_until_closed(&mut self, bytes: &[u8]) -> String {
        while self.send.write_all(bytes).await.is_ok() {}
        self.closed().await
    }

    /// The next message that is no answer to a heartbeat; `None` when the stream or the connection has ended.
    ///
    /// # Panics
    /// When nothing arrives, or what is no message.
    pub async fn hear(&mut self) -> Option<ToNode> {
        loop {
            if let Some(frame) = self.decoder.next_frame().expect("the coordinator sends frames") {
                match decode_to_node(self.epoch, &frame).expect("the coordinator sends messages") {
                    ToNode::Heartbeat { .. } => continue,
                    message => return Some(message),
                }
            }
            match soon("a message", self.receive.read_chunk(READ_BYTES_MAX, true)).await {
                Ok(Some(chunk)) => self.decoder.push(&chunk.bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next message that `wanted` picks; those before it are left out.
    ///
    /// # Panics
    /// When the connection ends first.
    pub async fn hear_of<R>(&mut self, what: &str, mut wanted: impl FnMut(&ToNode) -> Option<R>) -> R {
        loop {
            let Some(message) = self.hear().await else { panic!("the connection ended before {what}") };
            if let Some(found) = wanted(&message) {
                return found;
            }
        }
    }

    /// The locks in use, as `kiln locks` shows them.
    ///
    /// # Panics
    /// As [`Peer::hear_of`].
    pub async fn locks(&mut self) -> Vec<LockInfo> {
        let request = self.request();
        self.say(&ToCoordinator::Locks { request }).await;
        let locks = self.hear_of("the locks", |message| match message {
            ToNode::Locks { locks, .. } => Some(locks.clone()),
            _ => None,
        });
        locks.await
    }

    /// Opens a root.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open_root(&mut self, name: &str, key: &str, type_description: TypeDescription) -> RootId {
        let request = self.request();
        let (name, key) = (name.to_owned(), key.to_owned());
        let options = kiln_protocol::message::RootOptions::default();
        let open = ToCoordinator::OpenRoot { request, name, key, type_description, options };
        self.say(&open).await;
        self.hear_of("the root is open", |message| match message {
            ToNode::RootOpened { root, .. } => Some(*root),
            ToNode::Failed { failure, .. } => panic!("the root is refused: {failure}"),
            _ => None,
        })
        .await
    }

    /// Waits until the coordinator closes the connection, and returns its reason.
    ///
    /// # Panics
    /// When it stays open, or ends otherwise.
    pub async fn closed(&self) -> String {
        match soon("the coordinator closes the connection", self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => String::from_utf8_lossy(&close.reason).into_owned(),
            // The one packet with the reason was lost, and the coordinator knew nothing of the connection any more.
            ConnectionError::Reset => RESET.to_owned(),
            other => panic!("the connection ended otherwise: {other}"),
        }
    }

    /// Ends the connection without a goodbye, as a process that is killed would, but noticed at once.
    pub async fn vanish(self) {
        self.connection.close(VarInt::from_u32(99), b"");
        soon("the last packet is sent", self.endpoint.wait_idle()).await;
    }
}
