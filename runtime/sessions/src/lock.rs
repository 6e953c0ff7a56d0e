//! Locking for a whole request.

use crate::SessionError;
use crate::request::{Locking, RequestState};
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use kiln::{Clustered, LockError};
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_layer::Layer;
use tower_service::Service;

/// How long a request waits for the lock, where nothing is said.
const WAIT: Duration = Duration::from_secs(10);

/// What a visitor is answered whose session stays busy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Busy {
    /// 503, to be tried again after a second.
    #[default]
    Unavailable,
    /// 409.
    Conflict,
    /// 303, to this address.
    Redirect(HeaderValue),
}

/// Which locks the routes of a site may keep to the end of a request ([`SessionLock`]). The coordinator keeps it with the
/// sessions and refuses a node that says something else, naming both: where one node keeps the session locked and another
/// does not, neither has what it counts on. A route that asks for a lock that this does not allow is answered with a 500.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LockMode {
    /// None: each change takes its lock for itself alone.
    #[default]
    None,
    /// Those of field groups.
    Groups,
    /// That of the whole session.
    Session,
    /// Both: each route as it likes.
    GroupsOrSession,
}

impl LockMode {
    /// As the coordinator keeps it, and as a program says it that opens the root itself
    /// ([`RootSettings::locking`](kiln::RootSettings::locking)).
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Groups => "groups",
            Self::Session => "session",
            Self::GroupsOrSession => "groups or session",
        }
    }

    pub(crate) const fn allows(self, locking: &Locking) -> bool {
        match (self, locking) {
            (Self::GroupsOrSession, _) | (Self::Groups, Locking::Group(_)) | (Self::Session, Locking::Whole) => true,
            (Self::None, _) | (Self::Groups, Locking::Whole) | (Self::Session, Locking::Group(_)) => false,
        }
    }
}

/// Locks the session of a request, or one group of its fields, to the end of the request: the handler's changes are made
/// under that lock, and nobody else in the cluster changes what it covers in between. For the routes that need it; without
/// it, each change takes the lock for itself alone.
///
/// The request waits for its turn, and is answered as [`Busy`] says when that does not come. It never goes on without the
/// lock: not when the deadline is over, and not when the cluster is away (503; where requests wait for the cluster to be back,
/// `Away::Block`, for no longer than for the lock, and then they are answered as busy). Should the node lose its lease later, the
/// changes that come after are refused. A handler that has written under the lock and gives its
/// [`Session`](crate::Session) to what outlives the answer, a stream or a task, gives the lock with it. A visitor without a session has nothing to lock; a session that is made in the
/// request is locked at once.
///
/// It belongs inside of the [`SessionLayer`](crate::SessionLayer), for example as a `route_layer`, and the layer says on every
/// node that routes have such locks ([`lock_mode`](crate::SessionLayer::lock_mode)).
pub struct SessionLock<T> {
    terms: Arc<Terms>,
    _type: PhantomData<fn() -> T>,
}

#[derive(Clone)]
struct Terms {
    locking: Locking,
    wait: Duration,
    busy: Busy,
}

impl<T> Clone for SessionLock<T> {
    fn clone(&self) -> Self {
        Self { terms: Arc::clone(&self.terms), _type: PhantomData }
    }
}

impl<T> fmt::Debug for SessionLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLock").field("locking", &self.terms.locking).finish_non_exhaustive()
    }
}

impl<T: Clustered> SessionLock<T> {
    /// The whole session.
    #[must_use]
    pub fn whole() -> Self {
        Self::new(Locking::Whole)
    }

    /// One lock group of its fields; that of the fields without `lock` is `default`. Under it,
    /// [`Session::write`](crate::Session::write) changes only the fields of the group; a guard of another group is taken
    /// beside it, and two requests that do so crosswise wait for each other to their deadlines.
    #[must_use]
    pub fn group(name: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Locking::Group(name.into()))
    }

    fn new(locking: Locking) -> Self {
        Self { terms: Arc::new(Terms { locking, wait: WAIT, busy: Busy::default() }), _type: PhantomData }
    }

    /// How long a request waits for its turn. Default: 10 s.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        Arc::make_mut(&mut self.terms).wait = wait;
        self
    }

    /// What it is answered when that was not enough. Default: 503.
    #[must_use]
    pub fn when_busy(mut self, busy: Busy) -> Self {
        Arc::make_mut(&mut self.terms).busy = busy;
        self
    }
}

impl<S, T> Layer<S> for SessionLock<T> {
    type Service = LockedService<S, T>;

    fn layer(&self, inner: S) -> Self::Service {
        LockedService { inner, lock: self.clone() }
    }
}

/// A service whose requests hold a lock of their session.
pub struct LockedService<S, T> {
    inner: S,
    lock: SessionLock<T>,
}

impl<S: Clone, T> Clone for LockedService<S, T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), lock: self.lock.clone() }
    }
}

impl<S, T> fmt::Debug for LockedService<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedService").field("lock", &self.lock).finish_non_exhaustive()
    }
}

impl<S, T, ReqBody, ResBody> Service<Request<ReqBody>> for LockedService<S, T>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    T: Clustered + Default,
    ReqBody: Send + 'static,
    ResBody: Default + Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // The one that is ready.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let terms = Arc::clone(&self.lock.terms);
        let state = request.extensions().get::<Arc<RequestState<T>>>().cloned();
        Box::pin(async move {
            let Some(state) = state else { return Ok(refusal(&SessionError::NoLayer)) };
            let locked = match tokio::time::timeout(terms.wait, patiently(&state, &terms.locking)).await {
                Ok(Ok(locked)) => Unlock { state: &state, locked },
                Ok(Err(error)) => return Ok(refusal(&error)),
                Err(_elapsed) => {
                    let waited = terms.wait;
                    tracing::warn!(
                        ?waited,
                        "a request is not let through: its session is locked, `kiln locks` shows by whom"
                    );
                    return Ok(terms.busy.answer());
                }
            };
            let answer = inner.call(request).await;
            drop(locked);
            answer
        })
    }
}

/// Waits however often the runtime's own deadline passes.
async fn patiently<T: Clustered + Default>(state: &RequestState<T>, locking: &Locking) -> Result<bool, SessionError> {
    loop {
        match state.ask_for_lock(locking).await {
            Err(SessionError::Lock(LockError::Timeout { .. })) => {}
            asked => return asked,
        }
    }
}

/// Leaves the lock at the end of the request, also when its future is dropped before.
struct Unlock<'a, T: Clustered + Default> {
    state: &'a RequestState<T>,
    locked: bool,
}

impl<T: Clustered + Default> Drop for Unlock<'_, T> {
    fn drop(&mut self) {
        if self.locked {
            self.state.unlock();
        }
    }
}

impl Busy {
    fn answer<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = match self {
            Self::Unavailable => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Conflict => StatusCode::CONFLICT,
            Self::Redirect(to) => {
                response.headers_mut().insert(LOCATION, to.clone());
                StatusCode::SEE_OTHER
            }
        };
        response
    }
}

fn refusal<B: Default>(error: &SessionError) -> Response<B> {
    tracing::warn!(%error, "a request is not let through: its session cannot be locked");
    let mut response = Response::new(B::default());
    *response.status_mut() = error.status();
    response
}
