//! Sessions with a field that cannot be archived, by policy.

use crate::http::Servers;
use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use kiln::{Clustered, Distribution};
use kiln_sessions::{Session, SessionError, SessionLayer};
use kiln_tests::{Browser, Coordinator};

#[derive(Clustered, Default)]
struct Upload {
    user: Option<String>,
    #[clustered(on_archive_failure = "leave_out")]
    preview: Vec<u8>,
    #[clustered(on_archive_failure = "keep_local")]
    draft: Vec<u8>,
    #[clustered(on_archive_failure = "stop")]
    scan: Vec<u8>,
}

type Result<T> = std::result::Result<T, SessionError>;

async fn look(session: Session<Upload>) -> String {
    let lengths = session.get(|upload| {
        let user = upload.user().as_ref().map_or_else(|| "nobody".to_owned(), |user| user.to_string());
        format!("{user} {} {} {}", upload.preview().len(), upload.draft().len(), upload.scan().len())
    });
    let distribution = session.handle().map_or(Distribution::Distributed, kiln::Shared::distribution);
    format!("{} {distribution:?}", lengths.unwrap_or_else(|| "none".to_owned()))
}

/// Sets one field to so many MiB.
async fn set(session: Session<Upload>, Path((field, mib)): Path<(String, usize)>) -> Result<()> {
    let change = session.update(|upload| {
        let bytes = vec![1; mib << 20];
        match field.as_str() {
            "preview" => upload.preview.set(bytes),
            "draft" => upload.draft.set(bytes),
            _ => upload.scan.set(bytes),
        }
        upload.user.set(Some(format!("{field}-{mib}")));
    });
    change.await
}

async fn logout(mut session: Session<Upload>) -> Result<()> {
    session.destroy().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_too_large_goes_on_as_its_fields_say() {
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let site = |kiln: &kiln::Runtime| {
        let router = Router::new().route("/look", get(look)).route("/set/{field}/{mib}", get(set));
        router.route("/logout", get(logout)).layer(SessionLayer::<Upload>::new(kiln))
    };
    let [a, b] = servers.serve_two(&coordinator, site).await;
    let mut browser = Browser::default();
    for path in ["/set/preview/1", "/set/preview/16"] {
        assert_eq!(browser.get(a, path).await.status, 200, "{path}");
    }
    // Left out, and the rest is everybody's.
    for node in [a, b] {
        assert_eq!(browser.get(node, "/look").await.body, "preview-16 1048576 0 0 Distributed");
    }
    // Kept on this node, until it fits again.
    assert_eq!(browser.get(a, "/set/draft/16").await.status, 200);
    assert_eq!(browser.get(a, "/look").await.body, "draft-16 1048576 16777216 0 KeptLocal");
    assert_eq!(browser.get(b, "/look").await.body, "preview-16 1048576 0 0 Distributed");
    assert_eq!(browser.get(a, "/set/draft/1").await.status, 200);
    for node in [a, b] {
        assert_eq!(browser.get(node, "/look").await.body, "draft-1 1048576 1048576 0 Distributed");
    }
    // Kept for good, but for the logout.
    assert_eq!(browser.get(a, "/set/scan/16").await.status, 200);
    assert_eq!(browser.get(a, "/set/scan/1").await.status, 200);
    assert_eq!(browser.get(a, "/look").await.body, "scan-1 1048576 1048576 1048576 Stopped");
    assert_eq!(browser.get(b, "/look").await.body, "draft-1 1048576 1048576 0 Distributed");
    let before = browser.clone();
    browser.get(b, "/logout").await;
    for node in [a, b] {
        assert_eq!(before.ask(node, "/look").await.body, "none Distributed");
    }
}
