use super::*;
use crate::patience::soon;

struct Net {
    server: UdpSocket,
    proxy: Proxy,
}

impl Net {
    fn new(seed: u64) -> Self {
        let server = socket().unwrap();
        let proxy = Proxy::start(server.local_addr().unwrap(), seed);
        Self { server, proxy }
    }

    async fn client(&self) -> UdpSocket {
        let client = socket().unwrap();
        client.connect(self.proxy.address).await.unwrap();
        client
    }

    /// Waits until the proxy has decided about so many packets.
    async fn decided(&self, packets: u64) -> Packets {
        let all = || {
            let seen = self.proxy.packets();
            seen.passed + seen.lost
        };
        crate::until("packets", || async { all() == packets }).await;
        self.proxy.packets()
    }
}

async fn hear(socket: &UdpSocket) -> (u8, SocketAddr) {
    let mut byte = [0];
    let (_, from) = soon("a packet", socket.recv_from(&mut byte)).await.unwrap();
    (byte[0], from)
}

#[tokio::test]
async fn clients_have_addresses_of_their_own_and_are_answered() {
    let net = Net::new(1);
    let (one, two) = (net.client().await, net.client().await);
    one.send(&[1]).await.unwrap();
    two.send(&[2]).await.unwrap();
    let mut heard = [hear(&net.server).await, hear(&net.server).await];
    heard.sort_unstable();
    assert_ne!(heard[0].1, heard[1].1);
    for (byte, from) in heard {
        net.server.send_to(&[byte + 10], from).await.unwrap();
    }
    assert_eq!((hear(&one).await.0, hear(&two).await.0), (11, 12));
}

#[tokio::test]
async fn each_way_is_cut_alone() {
    let net = Net::new(1);
    let client = net.client().await;
    client.send(&[1]).await.unwrap();
    let (_, back) = hear(&net.server).await;
    net.proxy.set(Weather::cut_up());
    client.send(&[2]).await.unwrap();
    assert_eq!(net.decided(2).await, Packets { passed: 1, lost: 1 });
    net.server.send_to(&[3], back).await.unwrap();
    assert_eq!(hear(&client).await.0, 3);
    net.proxy.set(Weather::cut_down());
    net.server.send_to(&[4], back).await.unwrap();
    assert_eq!(net.decided(4).await, Packets { passed: 2, lost: 2 });
    client.send(&[5]).await.unwrap();
    assert_eq!(hear(&net.server).await.0, 5);
    net.proxy.heal();
    net.server.send_to(&[6], back).await.unwrap();
    assert_eq!(hear(&client).await.0, 6);
}

#[tokio::test]
async fn a_seed_loses_the_same_packets_and_delay_reorders_them() {
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let net = Net::new(seed);
        let way = Way { lost_percent: 30, delay_max: Duration::from_millis(20), ..Way::default() };
        net.proxy.set(Weather::both(way));
        let client = net.client().await;
        for byte in 0..100 {
            client.send(&[byte]).await.unwrap();
        }
        let Packets { passed, lost } = net.decided(100).await;
        assert!((10..60).contains(&lost), "{lost}");
        let mut heard = Vec::new();
        for _ in 0..passed {
            heard.push(hear(&net.server).await.0);
        }
        assert!(!heard.is_sorted(), "{heard:?}");
        heard.sort_unstable();
        runs.push(heard);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}
