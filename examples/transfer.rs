//! Money moves between two accounts on two nodes at once: a transaction over both is all or nothing, and whoever looks at
//! both sees either. Each locks the account that pays first, so they come to wait for each other; then one of them is
//! told, and tries again.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use kiln::{Clustered, LockError, Root, Runtime, Shared, TransactionError};
use std::error::Error;
use std::time::Duration;
use tokio::task::JoinSet;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Clustered)]
struct Account {
    cents: u64,
}

const TRANSFERS: u64 = 500;
const TOTAL: u64 = 20_000;

/// The two accounts, as this node sees them.
async fn accounts(kiln: &Runtime) -> Result<[Shared<Account>; 2], Failure> {
    let root: Root<String, Account> = kiln.root("accounts").await?;
    let open = || Account { cents: TOTAL / 2 };
    Ok([root.get_or_create("ada", open).await?, root.get_or_create("grace", open).await?])
}

/// Pays a cent a number of times, and looks at both accounts after each.
async fn pay(kiln: Runtime, towards_grace: bool) -> Result<(), Failure> {
    let [ada, grace] = accounts(&kiln).await?;
    let (from, to) = if towards_grace { (&ada, &grace) } else { (&grace, &ada) };
    let mut paid = 0;
    while paid < TRANSFERS {
        let transfer = kiln.transaction(async |tx| {
            let (mut from, mut to) = (tx.write(from).await?, tx.write(to).await?);
            *from.cents -= 1;
            *to.cents += 1;
            Ok(())
        });
        match transfer.await {
            Ok(()) => paid += 1,
            // Nothing happened; the other one goes first.
            Err(TransactionError::RolledBack(LockError::Deadlock { .. })) => {}
            Err(error) => return Err(error.into()),
        }
        let total = kiln.view_all((&ada, &grace), |(ada, grace)| ada.cents() + grace.cents());
        if total != TOTAL {
            return Err(format!("saw half of a transfer: {total} cents together").into());
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let one = Runtime::embedded().await?;
    let profile = one.profile_path().ok_or("the embedded coordinator has a profile")?;
    let other = Runtime::attach(profile).await?;
    let mut payers = JoinSet::new();
    payers.spawn(pay(one.clone(), true));
    payers.spawn(pay(other.clone(), false));
    payers.spawn(pay(one.clone(), true));
    while let Some(done) = payers.join_next().await {
        done??;
    }
    let [ada, grace] = accounts(&other).await?;
    let (ada, grace) = (ada.read().await?.get(|a| a.cents()), grace.read().await?.get(|a| a.cents()));
    println!("{} transfers of a cent; ada has {ada}, grace has {grace}, together {}", 3 * TRANSFERS, ada + grace);
    if (ada, grace) != (TOTAL / 2 - TRANSFERS, TOTAL / 2 + TRANSFERS) {
        return Err("money was lost".into());
    }
    other.detach(Duration::from_secs(5)).await?;
    one.detach(Duration::from_secs(5)).await?;
    Ok(())
}
