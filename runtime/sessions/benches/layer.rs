//! What the layer costs a request that only reads a session which is resident on its node.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use criterion::{Criterion, criterion_group, criterion_main};
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response};
use kiln::{Clustered, Runtime};
use kiln_sessions::{Session, SessionLayer};
use std::convert::Infallible;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

#[derive(Clustered, Debug, Default)]
struct Shop {
    user: Option<String>,
    visits: u64,
}

/// Answers with the visits.
#[derive(Clone)]
struct Look;

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Infallible>> + Send>>;

impl Service<Request<()>> for Look {
    type Response = Response<u64>;
    type Error = Infallible;
    type Future = Answer<u64>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        Box::pin(async move {
            let session = Session::<Shop>::of(request.extensions()).await.unwrap();
            Ok(Response::new(session.get(|shop| shop.visits()).unwrap()))
        })
    }
}

/// Makes the session.
#[derive(Clone)]
struct Visit;

impl Service<Request<()>> for Visit {
    type Response = Response<u64>;
    type Error = Infallible;
    type Future = Answer<u64>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        Box::pin(async move {
            let session = Session::<Shop>::of(request.extensions()).await.unwrap();
            Ok(Response::new(
                session
                    .update(|shop| {
                        *shop.visits += 1;
                        *shop.visits
                    })
                    .await
                    .unwrap(),
            ))
        })
    }
}

/// The same service without sessions, boxed likewise: what is not the layer's.
#[derive(Clone)]
struct Nothing;

impl Service<Request<()>> for Nothing {
    type Response = Response<u64>;
    type Error = Infallible;
    type Future = Answer<u64>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        Box::pin(async move {
            drop(request);
            Ok(Response::new(1))
        })
    }
}

/// So many requests are made before they are measured: as one that a server has just read, they are in the processor's caches.
const BATCH: criterion::BatchSize = criterion::BatchSize::NumIterations(64);

fn reads(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let kiln = runtime.block_on(Runtime::embedded()).unwrap();
    let layer = SessionLayer::<Shop>::new(&kiln);
    let made = runtime.block_on(layer.layer(Visit).call(Request::new(()))).unwrap();
    let cookie = made.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let request = || Request::builder().header(COOKIE, cookie.as_str()).body(()).unwrap();

    let mut service = layer.layer(Look);
    // The first one of this node hashes the id.
    assert_eq!(*runtime.block_on(service.call(request())).unwrap().body(), 1);

    let mut group = criterion.benchmark_group("a request");
    group.bench_function("without the layer", |bencher| {
        bencher.iter_batched(request, |request| poll_once(Nothing.call(request)), BATCH);
    });
    group.bench_function("that reads a resident session", |bencher| {
        bencher.iter_batched(request, |request| assert_eq!(poll_once(service.call(request)), 1), BATCH);
    });
    group.finish();
}

/// The answer, which nothing has to be waited for.
fn poll_once(answer: impl Future<Output = Result<Response<u64>, Infallible>>) -> u64 {
    let mut context = Context::from_waker(std::task::Waker::noop());
    match pin!(answer).poll(&mut context) {
        Poll::Ready(Ok(response)) => *black_box(response).body(),
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => panic!("a read of a resident session waits"),
    }
}

criterion_group!(benches, reads);
criterion_main!(benches);
