//! The tower layer: finds the id in the request's cookie, and sets the cookie in the answer.

use crate::request::RequestState;
use crate::settings::Settings;
use crate::{Cookie, LockMode, SessionError};
use http::header::SET_COOKIE;
use http::{Request, Response};
use kiln::{Away, Clustered, Level, Listener, Runtime, Watch};
use pin_project_lite::pin_project;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tower_layer::Layer;
use tower_service::Service;

/// Gives the requests of a service their [`Session`](crate::Session)s of type `T`. A session is looked up when it is asked
/// for, so requests that ask for none cost the cluster nothing. Of several cookies with its name, as a host of the same domain
/// can set them, the first of which there is a session counts, among four, and it is an error when that cannot be said of one
/// now; a logout ends the sessions of all.
pub struct SessionLayer<T: Clustered> {
    settings: Arc<Settings<T>>,
}

impl<T: Clustered> Clone for SessionLayer<T> {
    fn clone(&self) -> Self {
        Self { settings: Arc::clone(&self.settings) }
    }
}

impl<T: Clustered> fmt::Debug for SessionLayer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { root, cookie, level, away, .. } = &*self.settings;
        let mut layer = f.debug_struct("SessionLayer");
        layer.field("root", root).field("cookie", cookie).field("level", level).field("away", away);
        layer.finish_non_exhaustive()
    }
}

impl<T: Clustered + Default> SessionLayer<T> {
    /// Sessions in the root `sessions`, with the default [`Cookie`].
    #[must_use]
    pub fn new(kiln: &Runtime) -> Self {
        Self { settings: Arc::new(Settings::new(kiln)) }
    }

    /// The root that keeps the sessions. Default: `sessions`.
    #[must_use]
    pub fn root(mut self, name: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.settings).root = name.into();
        self
    }

    /// How the cookie is made.
    ///
    /// # Panics
    /// When browsers would not keep it: `SameSite=None` without `Secure`, or a `Max-Age` of less than a second.
    #[must_use]
    pub fn cookie(mut self, cookie: Cookie) -> Self {
        if let Some(why) = cookie.refused_by_browsers() {
            panic!("{why}");
        }
        Arc::make_mut(&mut self.settings).cookie = cookie;
        self
    }

    /// How safe a change is when `update` and `commit` return. Default: [`Level::Everywhere`], so that the visitor's next
    /// request finds it on whatever node.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        Arc::make_mut(&mut self.settings).level = level;
        self
    }

    /// What requests do while the cluster is away. Default: as the runtime does. With [`Away::LocalReads`] sessions that
    /// this node holds are shown as they were last ([`Shared::state`](kiln::Shared::state) says `Stale`), and changes fail.
    ///
    /// With [`Away::LocalReadWrite`] visitors go on with this node alone: sessions that it holds are changed, new ones are
    /// made, and a logout ends a session here at once and elsewhere when the cluster is back
    /// ([`Session::destroy`](crate::Session::destroy)). With `OnReturn::Discard` the changes are forgotten then, which is
    /// closest to what session managers without a cluster's answer do; with `OnReturn::Replay` those are made that nothing else
    /// has overtaken. Not alone: sessions that this node does not hold, a new id (`rotate`), and what has a
    /// [`SessionLock`](crate::SessionLock): these answer 503.
    ///
    /// A session that another node, which is not away, gives a new id meanwhile is the same object still: with
    /// `OnReturn::Replay` changes that were made here with the old id are made in it on the return, and a logout that was made
    /// here ends it only if it has the id that it had.
    #[must_use]
    pub fn away(mut self, away: Away) -> Self {
        Arc::make_mut(&mut self.settings).away = Some(away);
        self
    }

    /// Sessions that nobody has used for this long end, on every node, by the coordinator's time: see
    /// [`RootSettings::idle_timeout`](kiln::RootSettings::idle_timeout). A request that only looks is a use. Default: none
    /// does. All nodes say the same: the coordinator refuses to open the root otherwise, and names both values. A root is for good
    /// what it was when it was opened first: with another timeout, or another [`lock_mode`](Self::lock_mode), take another
    /// [`root`](Self::root).
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        let settings = Arc::make_mut(&mut self.settings);
        settings.agreed = settings.agreed.clone().idle_timeout(timeout);
        self
    }

    /// Sessions end this long after they were made, used or not, also when they got a new id since. Default: none does. All
    /// nodes say the same.
    #[must_use]
    pub fn absolute_timeout(mut self, timeout: Duration) -> Self {
        let settings = Arc::make_mut(&mut self.settings);
        settings.agreed = settings.agreed.clone().absolute_timeout(timeout);
        self
    }

    /// Which locks the routes may keep to the end of a request ([`SessionLock`](crate::SessionLock)). All nodes say the same: the
    /// coordinator refuses to open the root otherwise, and names both. Default: [`LockMode::None`].
    #[must_use]
    pub fn lock_mode(mut self, mode: LockMode) -> Self {
        let settings = Arc::make_mut(&mut self.settings);
        settings.agreed = settings.agreed.clone().locking(mode.word());
        settings.lock_mode = mode;
        self
    }

    /// Watches all sessions from this node: who makes, changes, rotates (`Renamed`) and ends them, on whatever node. The keys
    /// are those of the root: hashes of ids ([`key_of`](crate::key_of)). What a slow watcher misses it is told as a gap.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn watch(&self) -> Result<Watch<String>, SessionError> {
        Ok(self.settings.root().await?.watch().await?)
    }

    /// Listens to all sessions for the whole cluster: of all who listen in the group of this name, one is told each event, and
    /// another one if that is gone before it has acknowledged it. See [`Root::listen`](kiln::Root::listen).
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn listen(&self, group: &str) -> Result<Listener<String>, SessionError> {
        Ok(self.settings.root().await?.listen(group).await?)
    }

    /// Opens the root now instead of at the first request: a mistake is found at the start.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn opened(self) -> Result<Self, SessionError> {
        self.settings.root().await?;
        Ok(self)
    }
}

impl<S, T: Clustered> Layer<S> for SessionLayer<T> {
    type Service = SessionService<S, T>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService { inner, settings: Arc::clone(&self.settings) }
    }
}

/// A service whose requests have sessions.
pub struct SessionService<S, T: Clustered> {
    inner: S,
    settings: Arc<Settings<T>>,
}

impl<S: Clone, T: Clustered> Clone for SessionService<S, T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), settings: Arc::clone(&self.settings) }
    }
}

impl<S, T: Clustered> fmt::Debug for SessionService<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService").finish_non_exhaustive()
    }
}

impl<S, T, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S, T>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    T: Clustered + Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = SessionFuture<S::Future, T>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let state = RequestState::new(Arc::clone(&self.settings), self.settings.cookie.find(request.headers()));
        let state = Arc::new(state);
        request.extensions_mut().insert(Arc::clone(&state));
        SessionFuture { answer: self.inner.call(request), state }
    }
}

pin_project! {
    /// The answer of a [`SessionService`].
    pub struct SessionFuture<F, T: Clustered> {
        #[pin]
        answer: F,
        state: Arc<RequestState<T>>,
    }
}

impl<F, T: Clustered> fmt::Debug for SessionFuture<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFuture").finish_non_exhaustive()
    }
}

impl<F, T, B, E> Future for SessionFuture<F, T>
where
    F: Future<Output = Result<Response<B>, E>>,
    T: Clustered + Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.answer.poll(context))?;
        if let Some(cookie) = this.state.cookie() {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        Poll::Ready(Ok(response))
    }
}
