//! The whole path in one process: an embedded coordinator and two runtimes.

use kiln::{Clustered, Level, Map, Runtime, Value};
use std::error::Error;

type Done = Result<(), Box<dyn Error>>;

/// A line of a cart.
#[derive(Clone, Debug, PartialEq, Value, kiln::rkyv::Archive, kiln::rkyv::Serialize, kiln::rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
pub struct CartLine {
    name: String,
    count: u32,
}

/// A session.
#[derive(Clustered, Default, Debug)]
pub struct Session {
    user: Option<String>,
    theme: String,
    visits: u64,
    #[clustered(counter)]
    clicks: i64,
    #[clustered(lock = "cart")]
    cart: Map<String, CartLine>,
}

async fn pair() -> Result<(Runtime, Runtime), Box<dyn Error>> {
    let first = Runtime::embedded().await?;
    let profile = first.profile_path().ok_or("an embedded runtime has a profile")?.to_owned();
    let second = Runtime::attach(profile).await?;
    Ok((first, second))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_nodes_see_one_object() -> Done {
    let (first, second) = pair().await?;
    let here = first.root::<String, Session>("sessions").await?.get_or_create("s-1", Session::default).await?;
    let there = second.root::<String, Session>("sessions").await?.get("s-1").await?.ok_or("it exists")?;
    assert_eq!(here.id(), there.id());

    here.update_with(Level::Everywhere, |s| {
        *s.visits += 1;
        *s.user = Some("ada".to_owned());
        s.cart.insert("sku-1".to_owned(), CartLine { name: "tea".to_owned(), count: 2 });
    })
    .await?;
    assert_eq!(there.view().visits(), 1);
    assert_eq!(there.read().await?.get(|s| s.user().as_deref().map(str::to_owned)), Some("ada".to_owned()));
    assert_eq!(there.view().cart().get("sku-1").map(|line| line.count.to_native()), Some(2));

    there.update(|s| *s.visits += 1).await?;
    assert_eq!(here.read().await?.view().visits(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_of_two_nodes_are_never_lost() -> Done {
    const TASKS: u64 = 8;
    const EACH: u64 = 50;
    let (first, second) = pair().await?;
    let mut tasks = tokio::task::JoinSet::new();
    for runtime in [&first, &second] {
        let session = runtime.root::<String, Session>("sessions").await?.get_or_create("s", Session::default).await?;
        for _ in 0..TASKS {
            let session = session.clone();
            tasks.spawn(async move {
                for _ in 0..EACH {
                    session.update(|s| *s.visits += 1).await.map_err(|error| error.to_string())?;
                    session.clicks().add(1).map_err(|error| error.to_string())?;
                }
                Ok::<_, String>(())
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let session = first.root::<String, Session>("sessions").await?.get("s").await?.ok_or("it exists")?;
    assert_eq!(session.read().await?.view().visits(), 2 * TASKS * EACH);
    Ok(())
}

#[tokio::test]
async fn a_guard_that_is_dropped_changes_nothing() -> Done {
    let runtime = Runtime::embedded().await?;
    let session = runtime.root::<String, Session>("sessions").await?.get_or_create("s", Session::default).await?;
    let mut guard = session.write().await?;
    *guard.visits = 9;
    guard.clicks.add(3);
    drop(guard);
    assert_eq!(session.view().visits(), 0);
    assert_eq!(session.clicks().get(), 0);
    assert!(session.try_write().is_some());
    Ok(())
}
