//! `shop --check`: many clients drive both nodes over HTTP, and count.
//!
//! Each client has a session of its own, and shares another one with the clients of its group, as the tabs and devices
//! of one person do. All of them write through both nodes at once; then they look whether every acknowledged write is
//! there; then they log out on one node while slow requests are under way, and look whether anything is left.

mod client;
mod http;
mod logout;
mod tally;
mod verify;

use crate::cluster::Cluster;
use crate::error::Failed;
use crate::options::Load;
use crate::output::say;
use crate::signals;
use crate::site::SalesFigures;
use client::{Client, GROUP_CLIENTS, Phase};
use http::Connection;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tally::Tally;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The whole of it: a client that is stuck must not hang whoever waits for the result.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Starts the shop, drives it, and says what it found.
pub(crate) async fn run(load: Load, profile: Option<&Path>) -> Result<ExitCode, Failed> {
    let stop = signals::stop()?;
    let mut cluster = Cluster::start(0, profile).await?;
    let ports = [cluster.first.port, cluster.second.port];
    let Load { clients, rounds } = load;
    let (first, second) = (cluster.first.address(), cluster.second.address());
    say(format_args!("{clients} clients, {rounds} rounds of writes each, through {first} and {second}\n"));
    let started = Instant::now();
    let driven = tokio::select! {
        driven = tokio::time::timeout(TIMEOUT, drive(load, ports)) => driven,
        why = cluster.broken() => return Err(Failed::to("go on")(why)),
        () = stop => {
            cluster.stop().await?;
            return Err(Failed::to("finish the check")("it was told to stop"));
        }
    };
    let tally = driven.map_err(Failed::to("finish the check"))?;
    say(tally.table(started.elapsed().as_secs_f64()));
    cluster.stop().await?;
    Ok(if tally.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All clients through all phases.
async fn drive(load: Load, ports: [u16; 2]) -> Tally {
    let mut total = Tally::default();
    // Others may have shopped before, where the coordinator is not the shop's own.
    let before = match sales(ports[0]).await {
        Ok(before) => before,
        Err(error) => {
            total.fail(format!("reading the sales: {error}"));
            return total;
        }
    };
    let mut clients = (0..load.clients).map(|number| Client::new(number, ports)).collect();
    clients = all(clients, Phase::LogIn, &mut total).await;
    for group in clients.chunks_mut(GROUP_CLIENTS) {
        let (shared, out) = (group[0].shared.clone(), Arc::clone(&group[0].out));
        for member in group {
            member.shared.clone_from(&shared);
            member.out = Arc::clone(&out);
        }
    }
    clients = all(clients, Phase::Write { rounds: load.rounds }, &mut total).await;
    for group in clients.chunks_mut(GROUP_CLIENTS) {
        group[0].shared_written = group.iter_mut().map(|member| std::mem::take(&mut member.shared_written)).sum();
    }
    for phase in [Phase::Verify, Phase::LogOut, Phase::LogOutShared, Phase::StayOut] {
        clients = all(clients, phase, &mut total).await;
    }
    for port in ports {
        total.requests += 1;
        match sales(port).await {
            Ok(now) => count_sales(port, &before, &now, &mut total),
            Err(error) => total.fail(format!("reading the sales on port {port}: {error}")),
        }
    }
    total
}

/// Lets every client do its part of a phase, all at once; returns when all are done.
async fn all(clients: Vec<Client>, phase: Phase, total: &mut Tally) -> Vec<Client> {
    let mut parts = JoinSet::new();
    for mut client in clients {
        parts.spawn(async move {
            client.part(phase).await;
            client
        });
    }
    let mut clients = parts.join_all().await;
    clients.sort_by_key(|client| client.number);
    for client in &mut clients {
        total.take(&mut client.tally);
    }
    clients
}

/// Whether every order that was acknowledged was counted in the shop's sales, and no other.
fn count_sales(port: u16, before: &SalesFigures, now: &SalesFigures, total: &mut Tally) {
    let (orders, pieces) = (now.orders.saturating_sub(before.orders), now.pieces.saturating_sub(before.pieces));
    total.compare(&format!("orders in the sales on port {port}"), total.orders, orders);
    total.compare(&format!("pieces in the sales on port {port}"), total.pieces, pieces);
}

async fn sales(port: u16) -> std::io::Result<SalesFigures> {
    let answer = Connection::open(port).await?.get("/sales.json", "").await?;
    Ok(serde_json::from_slice(&answer.body)?)
}
