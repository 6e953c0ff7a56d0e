//! A node that gives the command something to look at.

use crate::client::Client;
use bytes::Bytes;
use kiln_protocol::message::{Commit, Part, RootOptions};
use kiln_protocol::schema::{FieldDescription, FieldKind, TypeBinding, TypeDescription};
use kiln_protocol::{GroupId, ObjectId, Profile, RequestId, RootId, ToCoordinator, ToNode, Token, Version, Write};
use smallvec::smallvec;

/// A node with one root and the objects `s-1` and `s-2`.
pub(crate) struct Node {
    pub(crate) client: Client,
    pub(crate) root: RootId,
    pub(crate) fields: TypeBinding,
    pub(crate) object: ObjectId,
    token: Token,
    version: Version,
}

pub(crate) const THEME: usize = 0;
pub(crate) const VISITS: usize = 1;
pub(crate) const CART: usize = 2;
pub(crate) const CLICKS: usize = 3;

fn session() -> TypeDescription {
    let field = |name: &str, kind, structure: &str| FieldDescription {
        name: name.into(),
        kind,
        structure: structure.into(),
        group: String::new(),
    };
    TypeDescription {
        name: "Session".into(),
        fields: vec![
            field("theme", FieldKind::Block, "string"),
            field("visits", FieldKind::Scalar, "i32"),
            field("cart", FieldKind::Map, "map<string, string>"),
            field("clicks", FieldKind::Counter, "counter"),
        ],
    }
}

pub(crate) fn encode(writes: &[Write<'_>]) -> Bytes {
    let mut bytes = Vec::new();
    for write in writes {
        write.encode(&mut bytes);
    }
    bytes.into()
}

impl Node {
    pub(crate) async fn attach(profile: &Profile) -> Self {
        let mut client = Client::attach(profile, "web-1").await;
        let request = RequestId::from_bits(1);
        let options = RootOptions::default();
        let (name, key) = ("sessions".into(), "string".into());
        client.say(&ToCoordinator::OpenRoot { request, name, key, type_description: session(), options }).await;
        let answer = client.next().await;
        let ToNode::RootOpened { root, binding, .. } = answer else { panic!("no root but {answer:?}") };
        let (object, token) = create(&mut client, root, &binding, "s-1").await;
        create(&mut client, root, &binding, "s-2").await;
        Self { client, root, fields: binding, object, token, version: Version::default() }
    }

    pub(crate) async fn commit(&mut self, writes: &[Write<'_>]) {
        self.version = self.version.next_in(self.client.epoch);
        let part = Part {
            object: self.object,
            group: GroupId::DEFAULT,
            token: self.token,
            version: self.version,
            writes: encode(writes),
        };
        let commit = Commit { everywhere: false, durable: false, parts: smallvec![part] };
        self.client.say(&ToCoordinator::Commit(commit)).await;
        assert!(matches!(self.client.next().await, ToNode::Ack { .. }));
    }
}

pub(crate) async fn create(client: &mut Client, root: RootId, fields: &TypeBinding, key: &str) -> (ObjectId, Token) {
    let create = encode(&[
        Write::Block { field: fields.fields[THEME], bytes: b"dark" },
        Write::MapPut { field: fields.fields[CART], key: b"sku-1", value: b"a\x1b[2J" },
        Write::Scalar { field: fields.fields[CLICKS], bits: 7 },
    ]);
    let request = RequestId::from_bits(2);
    let key = Bytes::copy_from_slice(key.as_bytes());
    client.say(&ToCoordinator::Fetch { request, root, key, create: Some(create) }).await;
    let answer = client.next().await;
    let ToNode::Fetched { record, grants, created: true, .. } = answer else { panic!("not created but {answer:?}") };
    let grant = grants.iter().find(|(group, _)| *group == GroupId::DEFAULT);
    (record.object, grant.unwrap().1)
}
