//! One node of the shop: a process that attaches to the cluster and answers on a port.

use crate::error::Failed;
use crate::options;
use crate::output::say;
use crate::signals;
use crate::site::Site;
use axum::serve::ListenerExt as _;
use kiln::Runtime;
use std::io::{BufRead as _, ErrorKind};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

/// What a node says on its standard output once it answers; its port follows.
pub(crate) const READY: &str = "ready ";
/// What it says once it knows the other node's port.
pub(crate) const PAIRED: &str = "paired";
/// How many ports are tried from the wanted one on.
const PORTS_TRIED: u16 = 100;
/// What requests under way get when the node stops.
const GRACE: Duration = Duration::from_secs(3);
const DETACH_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs a node until the process that started it ends or says so.
pub(crate) async fn run(options: options::Node) -> Result<ExitCode, Failed> {
    let told = signals::stop_but_not_interrupt()?;
    let peer = Arc::new(OnceLock::new());
    let released = follow_parent(Arc::clone(&peer));
    let attached = Runtime::builder().node_name(&options.name).profile(&options.profile).attach().await;
    let kiln = attached.map_err(Failed::to(format!("attach {}", options.name)))?;
    let site = Site::open(kiln.clone(), peer).await.map_err(Failed::to("open the shop's roots"))?;
    let listener = bind(options.port).await.map_err(Failed::to("find a free port"))?;
    let port = listener.local_addr().map_err(Failed::to("learn the port"))?.port();
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));

    let stopping = Arc::new(Notify::new());
    let stop = Arc::clone(&stopping);
    let server = axum::serve(listener, site.router()).with_graceful_shutdown(async move { stop.notified().await });
    let mut server = Box::pin(server.into_future());
    say(format_args!("{READY}{port}"));
    let lost = tokio::select! {
        served = &mut server => Some(served.map_or_else(|error| error.to_string(), |()| "it stopped answering".to_owned())),
        () = told => None,
        () = released => None,
        ended = kiln.closed() => Some(ended.to_string()),
    };
    stopping.notify_one();
    // Connections that are still busy after the grace end with the process.
    drop(tokio::time::timeout(GRACE, server).await);
    match lost {
        None => kiln.detach(DETACH_TIMEOUT).await.map(|()| ExitCode::SUCCESS).map_err(Failed::to("leave the cluster")),
        Some(why) => Err(Failed::to(format!("go on as {}", options.name))(why)),
    }
}

/// Listens on the port, or on the next free one; 0 is any.
async fn bind(port: u16) -> std::io::Result<TcpListener> {
    let last = if port == 0 { 0 } else { port.saturating_add(PORTS_TRIED) };
    let mut next = port;
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, next)).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && next < last => next += 1,
            bound => return bound,
        }
    }
}

/// Reads what the parent says: the other node's port, once. The standard input ends when the parent lets go of it or is
/// gone, however it ended; then the future resolves.
#[expect(clippy::disallowed_methods, reason = "the standard input blocks, and its thread ends with the process")]
fn follow_parent(peer: Arc<OnceLock<u16>>) -> impl Future<Output = ()> {
    let (ended, end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if let Ok(port) = line.trim().parse() {
                peer.get_or_init(|| port);
                say(PAIRED);
            }
        }
        drop(ended);
    });
    async { drop(end.await) }
}
