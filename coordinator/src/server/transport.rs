//! QUIC as the coordinator uses it: one socket, one stream a node, tuned for a local network.

use super::StartError;
use crate::directory::{Identity, QuicKeys};
use crate::tls;
use kiln_protocol::connection::{IDLE_TIMEOUT_MS, INITIAL_CONGESTION_WINDOW_BYTES, INITIAL_RTT, KEEP_ALIVE};
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a node may send before we have read it; bounds what one node makes us keep.
const STREAM_RECEIVE_WINDOW_BYTES: u32 = 8 << 20;
/// What we keep of sent bytes until the node has acknowledged them.
const SEND_WINDOW_BYTES: u64 = 64 << 20;
/// Asked of the system, which may give less. A burst that finds the buffer full is lost and sent again much later.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// How QUIC is tuned here; public for those who measure it alone.
#[must_use]
pub fn transport() -> TransportConfig {
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_CONGESTION_WINDOW_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .congestion_controller_factory(Arc::new(congestion));
    transport
}

/// The socket; port 0 takes a free one.
pub(super) fn bind(listen: SocketAddr) -> Result<std::net::UdpSocket, StartError> {
    let open = || -> io::Result<std::net::UdpSocket> {
        let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
        if listen.is_ipv6() && listen.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.bind(&listen.into())?;
        Ok(socket.into())
    };
    open().map_err(|error| StartError::Listen { address: listen, error })
}

/// An endpoint on this socket. Must be called inside a tokio runtime.
pub(super) fn endpoint(
    socket: std::net::UdpSocket,
    identity: &Identity,
    keys: &QuicKeys,
    handshakes_max: usize,
) -> Result<Endpoint, StartError> {
    let tls = tls::server_config(&identity.ca, &identity.server).map_err(|what| StartError::Tls { what })?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| StartError::Tls { what: error.to_string() })?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(transport())).max_incoming(handshakes_max);

    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &keys.reset);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    let connection_id = keys.connection_id;
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_id)));
    Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime)).map_err(|error| StartError::Socket { error })
}
