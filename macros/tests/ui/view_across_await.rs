use kiln::Clustered;

#[derive(Clustered)]
struct Session {
    visits: u64,
}

fn spawn<F: Future + Send>(_: F) {}

fn handler(view: SessionView<'static>) {
    spawn(async move {
        std::future::ready(()).await;
        drop(view);
    });
}

fn main() {}
