//! The one stream, both ways.

use kiln_engine::{Node, Output};
use kiln_protocol::codec::decode_to_node;
use kiln_protocol::{CloseCode, DecodeError, Epoch, FrameDecoder, ToNode};
use quinn::{ConnectionError, RecvStream, SendStream};
use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;

/// How much is read at once before the engine gets it.
const READ_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{0}")]
    Connection(#[from] quinn::ReadError),
    #[error("the coordinator ended the stream")]
    Finished,
    #[error("the coordinator sent bytes that are no message: {0}")]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Violation(#[from] kiln_engine::Violation),
}

async fn read_some(receive: &mut RecvStream, decoder: &mut FrameDecoder) -> Result<(), ReadError> {
    let chunk = receive.read_chunk(READ_BYTES_MAX, true).await?.ok_or(ReadError::Finished)?;
    decoder.push(&chunk.bytes);
    Ok(())
}

/// The next message, for the handshake.
pub(super) async fn next_message(
    receive: &mut RecvStream,
    decoder: &mut FrameDecoder,
    epoch: Epoch,
) -> Result<ToNode, ReadError> {
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return Ok(decode_to_node(epoch, &frame)?);
        }
        read_some(receive, decoder).await?;
    }
}

/// How a connection ended.
pub(super) struct Lost {
    pub(super) why: String,
    /// Another connection would end likewise.
    pub(super) for_good: bool,
}

/// Feeds the engine until the stream ends.
pub(super) async fn read(
    node: &Node,
    (receive, decoder): &mut (RecvStream, FrameDecoder),
    connection: &quinn::Connection,
    mut heard: impl FnMut(),
) -> Lost {
    let epoch = node.link.epoch();
    let mut feed = async || -> Result<Infallible, ReadError> {
        loop {
            while let Some(frame) = decoder.next_frame()? {
                node.handle(decode_to_node(epoch, &frame)?)?;
            }
            heard();
            read_some(receive, decoder).await?;
        }
    };
    let error = match feed().await {
        Ok(never) => match never {},
        Err(error) => error,
    };
    if matches!(error, ReadError::Decode(_) | ReadError::Violation(_)) {
        connection.close(quinn::VarInt::from_u32(CloseCode::Violation.to_bits()), error.to_string().as_bytes());
    }
    let reason = connection.close_reason();
    let why = reason.as_ref().map_or_else(|| error.to_string(), ToString::to_string);
    let for_good = match &reason {
        Some(ConnectionError::ApplicationClosed(close)) => {
            close.error_code == quinn::VarInt::from_u32(CloseCode::Violation.to_bits())
        }
        _ => matches!(error, ReadError::Decode(_) | ReadError::Violation(_)),
    };
    Lost { why, for_good }
}

/// Sends what the engine has to say until nothing more will come.
pub(super) async fn write(node: Arc<Node>, mut send: SendStream) {
    let mut bytes = Vec::new();
    loop {
        match poll_fn(|context| node.outbox.poll_output(context, &mut bytes)).await {
            Output::Closed => break,
            Output::Bytes => {}
        }
        if let Err(error) = send.write_all(&bytes).await {
            tracing::debug!(%error, "the stream cannot be written any more");
            // The reader finds out why.
            return;
        }
        bytes.clear();
    }
    if send.finish().is_err() {
        tracing::debug!("the stream was closed already");
    }
}
