//! A network of the tests' own: UDP packets between nodes and a coordinator go through a [`Proxy`] on loopback, which
//! loses, delays and reorders them, and cuts either way.
//!
//! What a packet holds is never looked at. Every client address has a socket of its own towards the coordinator, so
//! that the coordinator tells clients apart as it would without the proxy. All queues are bounded, and what does not fit
//! is lost, as on any network.

use crate::random::Random;
use kiln::Profile;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// No packet is larger.
const PACKET_BYTES_MAX: usize = 1 << 16;
/// Packets of one client that have arrived and are not looked at yet.
const ARRIVED_MAX: usize = 4096;
/// Packets of one client that are delayed, both ways.
const DELAYED_MAX: usize = 16_384;
/// Clients at once. A node that connects again is another one; the one that was silent for longest has to go.
const CLIENTS_MAX: usize = 64;

/// How the network is, one way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Way {
    /// Nothing arrives.
    pub cut: bool,
    /// This share of the packets is lost.
    pub lost_percent: u8,
    /// Each packet takes a time of its own up to this, and so overtakes others.
    pub delay_max: Duration,
}

/// How the network is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Weather {
    /// From clients to the coordinator.
    pub up: Way,
    /// From the coordinator to clients.
    pub down: Way,
}

impl Weather {
    /// Nothing arrives anywhere.
    #[must_use]
    pub fn cut() -> Self {
        Self::both(Way { cut: true, ..Way::default() })
    }

    /// What clients send does not arrive; they hear everything.
    #[must_use]
    pub fn cut_up() -> Self {
        Self { up: Self::cut().up, ..Self::default() }
    }

    /// Clients hear nothing; what they send arrives.
    #[must_use]
    pub fn cut_down() -> Self {
        Self { down: Self::cut().down, ..Self::default() }
    }

    /// The same both ways.
    #[must_use]
    pub const fn both(way: Way) -> Self {
        Self { up: way, down: way }
    }
}

/// What a proxy did to packets so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Packets {
    /// Let through.
    pub passed: u64,
    /// Lost, by chance, by a cut or for want of room.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct State {
    weather: Weather,
    packets: Packets,
}

impl State {
    fn way(&self, direction: Direction) -> Way {
        match direction {
            Direction::Up => self.weather.up,
            Direction::Down => self.weather.down,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    Up,
    Down,
}

/// See the module. It ends with the value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts one in front of the coordinator at `upstream`, in fair weather. Must be called inside a tokio runtime.
    ///
    /// # Panics
    /// When there is no socket for it.
    #[must_use]
    pub fn start(upstream: SocketAddr, seed: u64) -> Self {
        let front = Arc::new(socket().expect("a socket for the proxy"));
        let address = front.local_addr().expect("a bound socket has an address");
        let state = Arc::new(Mutex::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(Front { socket: front, upstream, state: Arc::clone(&state), seed }.run());
        Self { address, state, _tasks: tasks }
    }

    /// Starts one in front of the coordinator of this profile, which must name an IP address.
    ///
    /// # Panics
    /// As [`start`](Self::start), and when the profile names a host.
    #[must_use]
    pub fn before(profile: &Profile, seed: u64) -> Self {
        Self::start(profile.address.parse().expect("the profile names an IP address"), seed)
    }

    /// The profile for clients that are to come this way. The certificate's name stays.
    #[must_use]
    pub fn profile(&self, profile: &Profile) -> Profile {
        Profile { address: self.address.to_string(), ..profile.clone() }
    }

    /// As [`profile`](Self::profile), as a file in `directory`, for a process.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn write_profile(&self, profile: &Profile, directory: &Path) -> PathBuf {
        let path = directory.join(format!("through-{}.toml", self.address.port()));
        std::fs::write(&path, self.profile(profile).print()).expect("the profile can be written");
        path
    }

    /// From now on the network is like this. Packets that are on their way are cut as well.
    pub fn set(&self, weather: Weather) {
        lock(&self.state).weather = weather;
    }

    /// From now on everything arrives at once.
    pub fn heal(&self) {
        self.set(Weather::default());
    }

    /// What it did so far.
    #[must_use]
    pub fn packets(&self) -> Packets {
        lock(&self.state).packets
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn socket() -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Where clients send to.
struct Front {
    socket: Arc<UdpSocket>,
    upstream: SocketAddr,
    state: Arc<Mutex<State>>,
    seed: u64,
}

struct Known {
    packets: mpsc::Sender<Vec<u8>>,
    /// When it was last heard of, in packets.
    heard: u64,
}

impl Front {
    async fn run(self) {
        let mut clients = BTreeMap::<SocketAddr, Known>::new();
        let mut tasks = JoinSet::new();
        let mut bytes = vec![0; PACKET_BYTES_MAX];
        for number in 0.. {
            // An error is about an earlier packet to a client that has gone.
            let Ok((length, address)) = self.socket.recv_from(&mut bytes).await else { continue };
            while tasks.try_join_next().is_some() {}
            if !clients.contains_key(&address) {
                if clients.len() == CLIENTS_MAX {
                    let silent = clients.iter().min_by_key(|(_, known)| known.heard).map(|(address, _)| *address);
                    silent.and_then(|address| clients.remove(&address));
                }
                let (packets, arrived) = mpsc::channel(ARRIVED_MAX);
                tasks.spawn(self.client(address, number).run(arrived));
                clients.insert(address, Known { packets, heard: number });
            }
            let Some(known) = clients.get_mut(&address) else { continue };
            known.heard = number;
            if known.packets.try_send(bytes[..length].to_vec()).is_err() {
                lock(&self.state).packets.lost += 1;
            }
        }
    }

    fn client(&self, address: SocketAddr, number: u64) -> Client {
        Client {
            front: Arc::clone(&self.socket),
            address,
            upstream: self.upstream,
            state: Arc::clone(&self.state),
            random: Random::new(self.seed ^ (number << 32)),
            delayed: BTreeMap::new(),
            count: 0,
        }
    }
}

/// The packets of one client, both ways.
struct Client {
    front: Arc<UdpSocket>,
    address: SocketAddr,
    upstream: SocketAddr,
    state: Arc<Mutex<State>>,
    random: Random,
    /// By when they are due, and then by when they arrived.
    delayed: BTreeMap<(Instant, u64), (Direction, Vec<u8>)>,
    count: u64,
}

impl Client {
    async fn run(mut self, mut arrived: mpsc::Receiver<Vec<u8>>) {
        let back = socket().expect("a socket for another client");
        let mut bytes = vec![0; PACKET_BYTES_MAX];
        loop {
            let due = self.delayed.keys().next().map(|(due, _)| *due);
            let timer = tokio::time::sleep_until(due.unwrap_or_else(Instant::now));
            tokio::select! {
                packet = arrived.recv() => match packet {
                    Some(packet) => self.take(Direction::Up, packet),
                    None => return,
                },
                // Not connected, so that a coordinator that is gone is silent, as on a network.
                Ok((length, _)) = back.recv_from(&mut bytes) => self.take(Direction::Down, bytes[..length].to_vec()),
                () = timer, if due.is_some() => {}
            }
            self.deliver(&back).await;
        }
    }

    /// A packet has arrived; it is lost here, or has to wait.
    fn take(&mut self, direction: Direction, packet: Vec<u8>) {
        let mut state = lock(&self.state);
        let way = state.way(direction);
        let is_lost = self.random.below(100) < usize::from(way.lost_percent);
        if is_lost || way.cut || self.delayed.len() == DELAYED_MAX {
            state.packets.lost += 1;
            return;
        }
        let delay = self.random.up_to(way.delay_max);
        self.count += 1;
        self.delayed.insert((Instant::now() + delay, self.count), (direction, packet));
    }

    /// Sends what is due.
    async fn deliver(&mut self, back: &UdpSocket) {
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= Instant::now()
        {
            let (direction, packet) = entry.remove();
            let is_cut = {
                let mut state = lock(&self.state);
                let is_cut = state.way(direction).cut;
                let Packets { passed, lost } = &mut state.packets;
                *(if is_cut { lost } else { passed }) += 1;
                is_cut
            };
            if is_cut {
                continue;
            }
            let sent = match direction {
                Direction::Up => back.send_to(&packet, self.upstream).await,
                Direction::Down => self.front.send_to(&packet, self.address).await,
            };
            // Nobody there: that packet is lost.
            drop(sent);
        }
    }
}

#[cfg(test)]
mod tests;
