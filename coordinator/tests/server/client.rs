//! A peer that can be told to misbehave: QUIC and frames, nothing else.

use bytes::Bytes;
use kiln_protocol::codec::decode_to_node;
use kiln_protocol::message::{Hello, Role};
use kiln_protocol::profile::split_address;
use kiln_protocol::{
    ALPN, Epoch, FrameDecoder, PROTOCOL_VERSION, Profile, ToCoordinator, ToNode, encode_to_coordinator,
};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Nothing in these tests takes longer, unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A connected peer.
#[derive(Debug)]
pub(crate) struct Client {
    endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    receive: RecvStream,
    decoder: FrameDecoder,
    pub(crate) epoch: Epoch,
}

fn config(profile: &Profile, receive_window_bytes: u32) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(profile.ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(profile.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(profile.key.as_bytes()).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(receive_window_bytes))
        .keep_alive_interval(Some(Duration::from_secs(1)));
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    config
}

impl Client {
    /// Connects, and says nothing yet.
    pub(crate) async fn connect(profile: &Profile) -> Result<Self, ConnectionError> {
        Self::connect_with_window(profile, 1 << 20).await
    }

    /// As [`Client::connect`], with room for so many unread bytes.
    pub(crate) async fn connect_with_window(profile: &Profile, bytes: u32) -> Result<Self, ConnectionError> {
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let (host, port) = split_address(&profile.address).unwrap();
        let address = SocketAddr::new(host.parse().unwrap(), port);
        let connecting = endpoint.connect_with(config(profile, bytes), address, &profile.server_name).unwrap();
        let connection = timeout(PATIENCE, connecting).await.expect("connecting hangs")?;
        let (send, receive) = connection.open_bi().await?;
        Ok(Self { endpoint, connection, send, receive, decoder: FrameDecoder::default(), epoch: Epoch::default() })
    }

    /// Connects and attaches.
    pub(crate) async fn attach(profile: &Profile, name: &str) -> Self {
        let mut client = Self::connect(profile).await.unwrap();
        client.hello(name, PROTOCOL_VERSION).await;
        let welcome = client.next().await;
        let ToNode::Welcome { epoch, .. } = welcome else { panic!("not welcomed but {welcome:?}") };
        client.epoch = epoch;
        client
    }

    pub(crate) async fn hello(&mut self, name: &str, protocol: u16) {
        let name = name.to_owned();
        let role = Role::Node;
        self.say(&ToCoordinator::Hello(Hello { protocol, name, role, resume: None })).await;
    }

    pub(crate) async fn say(&mut self, message: &ToCoordinator) {
        let mut bytes = Vec::new();
        encode_to_coordinator(&mut bytes, self.epoch, message);
        self.raw(&bytes).await;
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.expect("the coordinator still listens");
    }

    /// The next message; `None` when the stream or the connection has ended.
    pub(crate) async fn try_next(&mut self) -> Option<ToNode> {
        // Who comes and goes is none of these tests' business.
        loop {
            match self.any_next().await {
                Some(ToNode::Member { .. }) => {}
                other => return other,
            }
        }
    }

    async fn any_next(&mut self) -> Option<ToNode> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(decode_to_node(self.epoch, &frame).unwrap());
            }
            let mut chunks = [Bytes::new()];
            let read = timeout(PATIENCE, self.receive.read_chunks(&mut chunks)).await;
            match read.expect("no message arrives") {
                Ok(Some(_)) => self.decoder.push(&chunks[0]),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    pub(crate) async fn next(&mut self) -> ToNode {
        self.try_next().await.expect("another message")
    }

    /// Waits until the coordinator closes the connection: code and reason.
    pub(crate) async fn closed(&self) -> (u32, String) {
        let error = timeout(PATIENCE, self.connection.closed()).await;
        match error.expect("the connection stays open") {
            ConnectionError::ApplicationClosed(close) => {
                let code = u32::try_from(close.error_code.into_inner()).unwrap();
                (code, String::from_utf8(close.reason.to_vec()).unwrap())
            }
            other => panic!("ended otherwise: {other}"),
        }
    }

    /// Leaves without a word.
    pub(crate) async fn vanish(self) {
        self.connection.close(VarInt::from_u32(99), b"");
        self.endpoint.wait_idle().await;
    }
}
