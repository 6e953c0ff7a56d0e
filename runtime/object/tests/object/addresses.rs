//! Addresses as fields, in collections, and as people see them.

use crate::stage::Stage;
use kiln_object::{Clustered, Map, Stored, Value};
use kiln_protocol::structure::OwnedStructure;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

#[derive(Clone, Clustered, Debug, PartialEq)]
struct Peer {
    #[clustered(default = Ipv4Addr::UNSPECIFIED)]
    v4: Ipv4Addr,
    #[clustered(default = V6)]
    v6: Ipv6Addr,
    either: Option<IpAddr>,
    #[clustered(default = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))]
    socket_v4: SocketAddrV4,
    #[clustered(default = SocketAddrV6::new(V6, 0, 0, 0))]
    socket_v6: SocketAddrV6,
    #[clustered(default = socket())]
    socket: SocketAddr,
    seen: BTreeMap<IpAddr, u32>,
    others: Map<String, SocketAddr>,
    list: Vec<SocketAddr>,
}

const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

fn socket() -> SocketAddr {
    SocketAddr::V6(SocketAddrV6::new(V6, 4747, 1, 2))
}

fn peer() -> Peer {
    Peer {
        v4: Ipv4Addr::new(10, 1, 2, 3),
        v6: V6,
        either: Some(IpAddr::V6(V6)),
        socket_v4: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80),
        socket_v6: SocketAddrV6::new(V6, 443, 0, 0),
        socket: socket(),
        seen: BTreeMap::from([(IpAddr::V4(Ipv4Addr::LOCALHOST), 1), (IpAddr::V6(V6), 2)]),
        others: Map::from([("a".to_owned(), socket()), ("b".to_owned(), SocketAddr::from(([1, 2, 3, 4], 5)))]),
        list: vec![socket(), SocketAddr::from(([1, 2, 3, 4], 5))],
    }
}

#[test]
fn addresses_come_back_as_they_were() {
    let stage = Stage::new();
    let object = stage.object(&peer());
    assert_eq!(Peer::load(&Peer::view(object.pin())), peer());
    let view = Peer::view(object.pin());
    assert_eq!((view.v4().as_ipv4(), view.socket().as_socket_addr()), (peer().v4, socket()));
}

fn shown<T: Value>(value: &T) -> String {
    let structure: OwnedStructure = T::STRUCTURE.to_string().parse().expect("a canonical text");
    let Stored::Block(archive) = value.store().expect("an address can be stored") else {
        panic!("an address is a block")
    };
    structure.render(T::KIND, archive.bytes()).expect("an archive of its structure").to_string()
}

#[test]
fn people_see_addresses_as_they_write_them() {
    let peer = peer();
    assert_eq!(shown(&peer.v4), r#""10.1.2.3""#);
    assert_eq!(shown(&peer.v6), r#""2001:db8::1""#);
    assert_eq!(shown(&peer.either), r#""2001:db8::1""#);
    assert_eq!(shown(&peer.socket_v4), r#""127.0.0.1:80""#);
    assert_eq!(shown(&peer.socket_v6), r#""[2001:db8::1]:443""#);
    assert_eq!(shown(&peer.seen), r#"{"127.0.0.1": 1, "2001:db8::1": 2}"#);
    assert_eq!(shown(&peer.list), r#"["[2001:db8::1%2]:4747", "1.2.3.4:5"]"#);
}
