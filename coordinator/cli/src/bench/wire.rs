//! A node that is nothing but its stream: what the coordinator takes when the runtime costs nothing.

use super::job::Outcome;
use kiln_protocol::codec::{decode_to_node, encode_commit, encode_to_coordinator};
use kiln_protocol::message::{Hello, Role};
use kiln_protocol::schema::{FieldDescription, FieldKind, TypeDescription};
use kiln_protocol::{
    ALPN, Epoch, FieldId, FrameDecoder, GroupId, ObjectId, Profile, RequestId, ToCoordinator, ToNode, Token, Version,
    Write,
};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, RecvStream, SendStream};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

/// Where its objects are.
pub(super) const WIRE_ROOT: &str = "bench-wire";

/// One stream to the coordinator, attached as a node.
pub(super) struct Wire {
    _endpoint: Endpoint,
    send: SendStream,
    receive: RecvStream,
    decoder: FrameDecoder,
    epoch: Epoch,
    request: RequestId,
    buffer: Vec<u8>,
}

/// An object of one `u64`, and the grant to write it.
pub(super) struct Target {
    object: ObjectId,
    token: Token,
    version: Version,
    field: FieldId,
}

impl Wire {
    /// Connects with a profile, and attaches.
    pub(super) async fn attach(profile: &Path) -> Outcome<Self> {
        let profile = Profile::parse(&std::fs::read_to_string(profile)?)?;
        let address = tokio::net::lookup_host(&profile.address).await?.next().ok_or("no address")?;
        let local: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let endpoint = Endpoint::client(local)?;
        let connection = endpoint.connect_with(config(&profile)?, address, &profile.server_name)?.await?;
        let (send, receive) = connection.open_bi().await?;
        let mut wire = Self {
            _endpoint: endpoint,
            send,
            receive,
            decoder: FrameDecoder::default(),
            epoch: Epoch::default(),
            request: RequestId::default(),
            buffer: Vec::new(),
        };
        let hello = Hello::new("bench-wire", Role::Node);
        wire.say(&ToCoordinator::Hello(hello)).await?;
        let answer = wire.hear().await?;
        let ToNode::Welcome { epoch, .. } = answer else {
            return Err(unexpected(&answer));
        };
        wire.epoch = epoch;
        Ok(wire)
    }

    /// A new object under a key that has none.
    pub(super) async fn create(&mut self, key: &str) -> Outcome<Target> {
        let field = FieldDescription {
            name: "value".into(),
            kind: FieldKind::Scalar,
            structure: "u64".into(),
            group: String::new(),
        };
        let request = self.next_request();
        let open = ToCoordinator::OpenRoot {
            request,
            name: WIRE_ROOT.into(),
            key: "string".into(),
            type_description: TypeDescription { name: "Wire".into(), fields: vec![field] },
            options: Default::default(),
        };
        self.say(&open).await?;
        let answer = self.hear().await?;
        let ToNode::RootOpened { root, binding, .. } = answer else {
            return Err(unexpected(&answer));
        };
        let field = *binding.fields.first().ok_or("a type without its field")?;
        let mut create = Vec::new();
        Write::Scalar { field, bits: 0 }.encode(&mut create);
        let request = self.next_request();
        let key = key.as_bytes().to_vec().into();
        self.say(&ToCoordinator::Fetch { request, root, key, create: Some(create.into()) }).await?;
        let answer = self.hear().await?;
        let ToNode::Fetched { record, created: true, grants, .. } = answer else {
            return Err(unexpected(&answer));
        };
        let token = grants.iter().find(|(group, _)| *group == GroupId::DEFAULT);
        let (_, token) = token.ok_or("no grant came with the new object")?;
        let version = record.versions.iter().find(|(group, _)| *group == GroupId::DEFAULT);
        let version = version.map_or_else(Version::default, |(_, version)| *version);
        Ok(Target { object: record.object, token: *token, version, field })
    }

    /// Sends so many commits in one write.
    pub(super) async fn commit(&mut self, target: &mut Target, commits: u32, durable: bool) -> Outcome<()> {
        self.buffer.clear();
        let mut writes = Vec::new();
        for _ in 0..commits {
            target.version = target.version.next_in(self.epoch);
            writes.clear();
            Write::Scalar { field: target.field, bits: target.version.number() }.encode(&mut writes);
            let part = (target.object, GroupId::DEFAULT, target.token, target.version, &writes[..]);
            encode_commit(&mut self.buffer, self.epoch, false, durable, [part].into_iter());
        }
        Ok(self.send.write_all(&self.buffer).await?)
    }

    /// Waits for the next acknowledgement: how many commits of this node are applied, or `durable`.
    pub(super) async fn acknowledged(&mut self, durable: bool) -> Outcome<u64> {
        loop {
            let answer = self.hear().await?;
            let (ToNode::Ack { applied: seq } | ToNode::Durable { seq }) = answer else {
                return Err(unexpected(&answer));
            };
            if !durable || matches!(answer, ToNode::Durable { .. }) {
                return Ok(seq.to_bits());
            }
        }
    }

    fn next_request(&mut self) -> RequestId {
        self.request = self.request.next();
        self.request
    }

    async fn say(&mut self, message: &ToCoordinator) -> Outcome<()> {
        let mut bytes = Vec::new();
        encode_to_coordinator(&mut bytes, self.epoch, message);
        Ok(self.send.write_all(&bytes).await?)
    }

    async fn hear(&mut self) -> Outcome<ToNode> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                let message = decode_to_node(self.epoch, &frame)?;
                // Who else is attached is of no interest here.
                if !matches!(message, ToNode::Member { .. }) {
                    return Ok(message);
                }
                continue;
            }
            let chunk = self.receive.read_chunk(usize::MAX, true).await?.ok_or("the coordinator ended the stream")?;
            self.decoder.push(&chunk.bytes);
        }
    }
}

fn unexpected(message: &ToNode) -> Box<dyn std::error::Error + Send + Sync> {
    format!("the coordinator said {message:?}").into()
}

fn config(profile: &Profile) -> Outcome<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(profile.ca.as_bytes())?)?;
    let certificate = CertificateDer::from_pem_slice(profile.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(profile.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(super::floors::transport());
    Ok(config)
}
