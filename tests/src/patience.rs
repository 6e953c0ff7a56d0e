//! Deadlines: nothing in a test takes longer, unless it hangs.

use std::future::Future;
use std::time::Duration;

/// How long a test waits for anything at all. Far above what anything takes on a busy machine of two cores, so that a
/// test that runs into it has found something.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `future`.
///
/// # Panics
/// When it takes longer than [`PATIENCE`]; says `what` it was.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_elapsed) => panic!("{what}: nothing for {PATIENCE:?}"),
    }
}

/// Asks again and again until the answer is yes, for what nobody announces. `ask` lets others run meanwhile.
///
/// # Panics
/// When it takes longer than [`PATIENCE`]; says `what` it was.
pub async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        while !ask().await {
            tokio::task::yield_now().await;
        }
    };
    soon(what, asking).await;
}
