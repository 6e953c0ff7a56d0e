//! What the layer costs a request that only reads a session which is resident on its node.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use criterion::{Criterion, criterion_group, criterion_main};
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response};
use kiln::{Clustered, Runtime};
use kiln_sessions::{Session, SessionError, SessionLayer};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

#[derive(Clustered, Debug, Default)]
struct Shop {
    user: Option<String>,
    visits: u64,
}

/// Answers with the visits, or makes the session.
#[derive(Clone)]
struct Look;

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Infallible>> + Send>>;

impl Service<Request<bool>> for Look {
    type Response = Response<u64>;
    type Error = Infallible;
    type Future = Answer<u64>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<bool>) -> Self::Future {
        Box::pin(async move {
            let visits = async {
                let session = Session::<Shop>::of(request.extensions()).await?;
                if *request.body() {
                    session.update(|shop| *shop.visits += 1).await?;
                }
                Ok::<_, SessionError>(session.get(|shop| shop.visits()).unwrap_or_default())
            };
            Ok(Response::new(visits.await.unwrap()))
        })
    }
}

/// The same service without sessions: what is not the layer's.
#[derive(Clone)]
struct Nothing;

impl Service<Request<bool>> for Nothing {
    type Response = Response<u64>;
    type Error = Infallible;
    type Future = Ready<Result<Response<u64>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<bool>) -> Self::Future {
        ready(Ok(Response::new(u64::from(*request.body()))))
    }
}

fn reads(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let kiln = runtime.block_on(Runtime::embedded()).unwrap();
    let mut service = SessionLayer::<Shop>::new(&kiln).layer(Look);
    let made = runtime.block_on(service.call(Request::new(true))).unwrap();
    let cookie = made.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let request = || Request::builder().header(COOKIE, cookie.as_str()).body(false).unwrap();

    let mut group = criterion.benchmark_group("a request");
    group.bench_function("without the layer", |bencher| {
        bencher.iter_batched(
            request,
            |request| poll_once(Box::pin(Nothing.call(request))),
            criterion::BatchSize::SmallInput,
        );
    });
    group.bench_function("that reads a resident session", |bencher| {
        bencher.iter_batched(
            request,
            |request| assert_eq!(poll_once(service.call(request)), 1),
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// The answer, which nothing has to be waited for.
fn poll_once<F: Future<Output = Result<Response<u64>, Infallible>> + ?Sized>(mut answer: Pin<Box<F>>) -> u64 {
    let mut context = Context::from_waker(std::task::Waker::noop());
    match answer.as_mut().poll(&mut context) {
        Poll::Ready(Ok(response)) => *black_box(response).body(),
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => panic!("a read of a resident session waits"),
    }
}

criterion_group!(benches, reads);
criterion_main!(benches);
