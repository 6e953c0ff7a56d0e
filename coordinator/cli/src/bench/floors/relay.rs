//! Three processes: what one sends, the relay passes on to the other, and back. The least that any lock service with a
//! coordinator between its nodes pays for a hand-off.

use super::quic::{MESSAGE_BYTES, Result, connect, pass, server};
use crate::bench::clock::Laps;
use crate::bench::peer::{Peer, Role, Steered};
use crate::bench::row::Figures;
use crate::bench::{Bench, BenchError};
use quinn::VarInt;

/// There and back are two hand-offs.
const HAND_OFFS: u32 = 2;
/// A stream exists for its peer once something was sent on it.
const HELLO: &[u8] = b"!";

/// Passes the bytes of each of two connections on to the other.
pub(in crate::bench) async fn serve_relay() -> Result<()> {
    let endpoint = server()?;
    let first = endpoint.accept().await.ok_or("closed")?.await?;
    let (mut first_send, mut first_receive) = first.accept_bi().await?;
    first_receive.read_exact(&mut [0; HELLO.len()]).await?;
    Steered::say("first")?;
    let second = endpoint.accept().await.ok_or("closed")?.await?;
    let (mut second_send, mut second_receive) = second.accept_bi().await?;
    second_receive.read_exact(&mut [0; HELLO.len()]).await?;
    Steered::say("second")?;
    // Both directions in one task: no wake-up between receiving and sending.
    tokio::try_join!(pass(&mut first_receive, &mut second_send), pass(&mut second_receive, &mut first_send))?;
    Ok(())
}

/// Connects to the relay it is told of, and sends back what comes in.
pub(in crate::bench) async fn serve_relay_client(steered: &mut Steered) -> Result<()> {
    let ready = steered.next().await.ok_or("nobody told where the relay is")?;
    let (_endpoint, _connection, mut send, mut receive) = connect(&ready).await?;
    send.write_all(HELLO).await?;
    pass(&mut receive, &mut send).await
}

pub(super) async fn measure_relay(bench: &Bench) -> std::result::Result<Figures, BenchError> {
    let mut relay = Peer::start(Role::Relay)?;
    let mut client = Peer::start(Role::RelayClient)?;
    let ready = relay.hear("ready").await?;
    let (_endpoint, connection, mut send, mut receive) = connect(&ready).await.map_err(BenchError::Quic)?;
    send.write_all(HELLO).await.map_err(|error| BenchError::Quic(error.into()))?;
    relay.hear("first").await?;
    client.tell(&ready)?;
    relay.hear("second").await?;
    let measured = async {
        let mut message = [0x5a; MESSAGE_BYTES];
        let mut laps = Laps::new(bench.secs());
        while let Some(lap) = laps.next() {
            send.write_all(&message).await?;
            receive.read_exact(&mut message).await?;
            laps.end(lap, HAND_OFFS);
        }
        connection.close(VarInt::from_u32(0), b"done");
        let times = laps.times();
        // The mean, as in the rows of hand-offs: of two nodes that take turns, only the rate is known.
        let per_hand_off = Figures { value: 1e6 / times.rate, ..Figures::micros(times) };
        Ok(per_hand_off.noted(format!("{:.0} hand-offs/s", times.rate)))
    };
    measured.await.map_err(BenchError::Quic)
}
