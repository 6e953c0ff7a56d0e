//! How a person or a supervisor stops a program.

use crate::error::Failed;
use std::future::Future;

/// Resolves when this process is asked to stop. From the call on, and not only from the first poll, the signals no
/// longer end it at once.
#[cfg(unix)]
pub(crate) fn stop() -> Result<impl Future<Output = ()>, Failed> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(Failed::to("listen for signals"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hang_up.recv() => {} }
    })
}

/// As [`stop`], without Ctrl-C: a terminal sends that to the whole group of processes, and a node leaves when the
/// process that started it says so.
#[cfg(unix)]
pub(crate) fn stop_but_not_interrupt() -> Result<impl Future<Output = ()>, Failed> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(Failed::to("listen for signals"));
    let interrupt = listen(SignalKind::interrupt())?;
    let hang_up = listen(SignalKind::hangup())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        terminate.recv().await;
        drop((interrupt, hang_up));
    })
}

/// Resolves when Ctrl-C is pressed.
#[cfg(not(unix))]
pub(crate) fn stop() -> Result<impl Future<Output = ()>, Failed> {
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}

/// Never resolves: a node leaves when the process that started it says so. Ctrl-C is caught and left alone.
#[cfg(not(unix))]
pub(crate) fn stop_but_not_interrupt() -> Result<impl Future<Output = ()>, Failed> {
    Ok(async {
        loop {
            drop(tokio::signal::ctrl_c().await);
        }
    })
}
