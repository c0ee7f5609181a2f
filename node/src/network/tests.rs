//! Nodes in one process, over loopback. Deadlines, no sleeps.

mod stranger;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dunlin_protocol::effect::Input;
use dunlin_protocol::id::{Digest, NodeId};
use dunlin_protocol::mesh::roll::{Roll, Rotation};
use dunlin_protocol::rpc::frames::{RpcCall, RpcIn, RpcOut};
use dunlin_protocol::rpc::{Fault, FaultKind, Request, Response, Tail, TailFrom};
use dunlin_protocol::wire::message::Message;
use tokio::sync::mpsc;

use super::*;
use crate::inbox::{Inbox, Inputs};

const DEADLINE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// Modules in memory; `put` under any digest is possible through `lie`.
#[derive(Default)]
struct Shelf(Mutex<BTreeMap<Digest, Bytes>>);

impl Shelf {
    fn lie(&self, digest: Digest, bytes: &'static [u8]) {
        self.0.lock().unwrap().insert(digest, Bytes::from_static(bytes));
    }
}

impl Modules for Shelf {
    fn get(&self, digest: Digest) -> Option<Bytes> {
        self.0.lock().unwrap().get(&digest).cloned()
    }

    fn put(&self, bytes: Bytes) -> Result<Digest, String> {
        let digest = Digest::of(&bytes);
        self.0.lock().unwrap().insert(digest, bytes);
        Ok(digest)
    }
}

/// Answers `Remove` with its name, a tail with as many answers as its limit says, modules from the shelf.
struct Desk(Arc<Shelf>);

impl RpcDoor for Desk {
    fn open(&self, from: RpcPeer, mut incoming: mpsc::Receiver<RpcIn>, outgoing: mpsc::Sender<RpcOut>) {
        let shelf = self.0.clone();
        tokio::spawn(async move {
            while let Some(RpcIn::Call { id, call }) = incoming.recv().await {
                let answer = |response, last| RpcOut::Answer { id, response, last };
                match call {
                    RpcCall::Request(Request::Remove { pipeline }) => {
                        outgoing.send(answer(Response::Removed { pipeline }, true)).await.unwrap();
                    }
                    RpcCall::Request(Request::Tail(tail)) => {
                        let count = tail.limit.unwrap();
                        for at in 1..=count {
                            let events = answer(Response::Events { events: Default::default() }, at == count);
                            if outgoing.send(events).await.is_err() {
                                return;
                            }
                        }
                    }
                    RpcCall::Request(_) => {
                        let detail = format!("member: {}", from.member);
                        let fault = Response::Failed(Fault { kind: FaultKind::NotYet, detail });
                        outgoing.send(answer(fault, true)).await.unwrap();
                    }
                    RpcCall::Lines(_) => {
                        outgoing.send(RpcOut::Lines { id, outcome: Ok(Default::default()) }).await.unwrap();
                    }
                    RpcCall::PutModule(bytes) => {
                        let digest = shelf.put(bytes).unwrap();
                        outgoing.send(RpcOut::Module { id, digest, held: true }).await.unwrap();
                    }
                    RpcCall::HasModule(digest) => {
                        let held = shelf.get(digest).is_some();
                        outgoing.send(RpcOut::Module { id, digest, held }).await.unwrap();
                    }
                }
            }
        });
    }
}

/// Tests on one machine must not find each other.
fn quiet() -> NetworkConfig {
    NetworkConfig { mdns: false, ..NetworkConfig::default() }
}

struct Node {
    network: Network,
    inputs: Inputs,
    identity: Identity,
    mesh: MeshIdentity,
    shelf: Arc<Shelf>,
}

impl Node {
    async fn start(identity: Identity, mesh: MeshIdentity, config: NetworkConfig) -> Node {
        let (inbox, inputs) = Inbox::new();
        let shelf = Arc::new(Shelf::default());
        let doors = Doors { rpc: Arc::new(Desk(shelf.clone())), modules: shelf.clone() };
        let network = Network::start(config, &identity, mesh.clone(), inbox, doors).await.unwrap();
        network.admit(&Roll::default());
        Node { network, inputs, identity, mesh, shelf }
    }

    /// The first node of a new mesh.
    async fn first() -> Node {
        let identity = Identity::generate();
        let mesh = MeshIdentity::create(identity.node());
        Node::start(identity, mesh, quiet()).await
    }

    /// Another node of the same mesh.
    async fn second(&self) -> Node {
        let identity = Identity::generate();
        let certificate = self.mesh.key().certify(identity.node(), identity::now());
        let mesh = MeshIdentity::new(self.mesh.key().clone(), certificate, vec![]);
        Node::start(identity, mesh, quiet()).await
    }

    fn id(&self) -> NodeId {
        self.identity.node()
    }

    fn token(&self) -> String {
        self.token_after(&Roll::default())
    }

    fn token_after(&self, roll: &Roll) -> String {
        self.mesh.token(self.network.dialable_addresses(), HOUR, &roll.rotations).to_text()
    }

    fn tcp_address(&self) -> String {
        self.network.dialable_addresses().into_iter().find(|address| address.contains("/tcp/")).unwrap()
    }

    fn dial(&self, other: &Node) {
        self.network.dial(other.id(), other.network.addresses());
    }

    #[track_caller]
    fn input(&mut self) -> impl Future<Output = Input> {
        let at = std::panic::Location::caller();
        async move {
            match tokio::time::timeout(DEADLINE, self.inputs.recv()).await {
                Ok(input) => input.unwrap(),
                Err(_) => panic!("no input came at {at}; counted: {:?}", self.network.counters().totals()),
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, expected: Input) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        let input = self.input();
        async move { assert_eq!(input.await, expected, "expected at {at}") }
    }

    async fn say(&self, to: &Node, words: std::ops::Range<u32>) {
        words.for_each(|word| self.network.send(to.id(), swim(word)));
    }

    async fn hear(&mut self, from: NodeId, words: std::ops::Range<u32>) {
        for word in words {
            self.expect(Input::Message { from, message: swim(word) }).await;
        }
    }

    fn total(&self, counter: &str) -> u64 {
        self.network.counters().totals().into_iter().find(|(name, _)| *name == counter).unwrap().1
    }

    async fn until(&self, counter: &str, at_least: u64) {
        let reached = async {
            while self.total(counter) < at_least {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(DEADLINE, reached).await;
        assert!(reached.is_ok(), "{counter} is {}", self.total(counter));
    }
}

fn swim(word: u32) -> Message {
    Message::Swim(Bytes::copy_from_slice(&word.to_le_bytes()))
}

/// Dials both ways until both cores know of a link.
async fn connect(a: &mut Node, b: &mut Node) {
    let (a_id, b_id) = (a.id(), b.id());
    let mut again = tokio::time::interval(Duration::from_millis(100));
    let input = loop {
        tokio::select! {
            input = a.inputs.recv() => break input,
            // As the core does: a dial while the last connection is still closing has no effect.
            _ = again.tick() => {
                a.network.dial(b_id, b.network.addresses());
                b.network.dial(a_id, a.network.addresses());
            }
        }
    };
    assert_eq!(input, Some(Input::Connected { node: b_id }));
    b.expect(Input::Connected { node: a_id }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_with_a_token_and_messages_arrive_in_order() {
    let mut a = Node::first().await;
    let identity = Identity::generate();
    let mesh = join(&a.token(), &identity).await.unwrap();
    assert_eq!(mesh.mesh(), a.mesh.mesh());
    assert_eq!(mesh.addresses(), a.network.dialable_addresses());
    a.until("joiners_admitted", 1).await;
    a.expect(Input::Admitted { node: identity.node() }).await;

    let stored = MeshIdentity::decode(&mesh.encode(), identity.node()).unwrap();
    let config = NetworkConfig { bootstrap: stored.addresses().to_vec(), ..quiet() };
    let mut b = Node::start(identity, stored, config).await;
    let (a_id, b_id) = (a.id(), b.id());
    a.expect(Input::Connected { node: b_id }).await;
    b.expect(Input::Connected { node: a_id }).await;
    assert_eq!(b.network.peers(), [a_id]);

    a.say(&b, 0..2000).await;
    b.say(&a, 0..2000).await;
    a.hear(b_id, 0..2000).await;
    b.hear(a_id, 0..2000).await;
    assert_eq!(a.total("hellos_failed"), 0);

    b.network.stop().await;
    a.expect(Input::Disconnected { node: b_id }).await;
    assert!(a.network.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dials_from_both_sides_end_in_one_link() {
    for _ in 0..8 {
        let mut a = Node::first().await;
        let mut b = a.second().await;
        connect(&mut a, &mut b).await;
        let (a_id, b_id) = (a.id(), b.id());
        a.dial(&b);
        b.dial(&a);
        a.say(&b, 0..50).await;
        b.say(&a, 0..50).await;
        a.hear(b_id, 0..50).await;
        b.hear(a_id, 0..50).await;
        assert_eq!((a.total("links_opened"), b.total("links_opened")), (1, 1));
    }
}

/// Takes brackets around links to `node` and sees that they alternate; `up` is where it stands.
fn bracket(input: Option<Input>, node: NodeId, up: &mut bool) {
    *up = match input {
        Some(Input::Connected { node: from }) if from == node && !*up => true,
        Some(Input::Disconnected { node: from }) if from == node && *up => false,
        other => panic!("{other:?} while up is {up}"),
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_linked_again_and_brackets_alternate() {
    let mut a = Node::first().await;
    let mut b = a.second().await;
    let (a_id, b_id) = (a.id(), b.id());
    let mut a_up = false;
    for round in 0..3 {
        // As the core does: dial, and say again what may have been lost with a link. The stopping
        // node may still take a link for a moment, so a bracket more is no mistake.
        let mut b_up = false;
        let mut again = tokio::time::interval(Duration::from_millis(50));
        let heard = async {
            loop {
                tokio::select! {
                    input = a.inputs.recv() => bracket(input, b_id, &mut a_up),
                    input = b.inputs.recv() => match input {
                        Some(Input::Message { from, message }) => break (from, message),
                        other => bracket(other, a_id, &mut b_up),
                    },
                    _ = again.tick() => {
                        a.dial(&b);
                        b.dial(&a);
                        a.network.send(b_id, swim(round));
                    }
                }
            }
        };
        let heard = tokio::time::timeout(DEADLINE, heard).await.expect("a message in time");
        assert_eq!(heard, (a_id, swim(round)));
        assert!(b_up);

        // Restarts on the same port. (QUIC's is free again only when a process ends.)
        let listen = b.network.addresses().into_iter().filter(|address| address.contains("/tcp/")).collect();
        b.network.stop().await;
        b = Node::start(b.identity, b.mesh, NetworkConfig { listen, ..quiet() }).await;
    }
    while a_up {
        bracket(Some(a.input().await), b_id, &mut a_up);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnecting_ends_the_link_on_both_sides() {
    let mut a = Node::first().await;
    let mut b = a.second().await;
    connect(&mut a, &mut b).await;
    a.network.disconnect(b.id());
    let (a_id, b_id) = (a.id(), b.id());
    a.expect(Input::Disconnected { node: b_id }).await;
    b.expect(Input::Disconnected { node: a_id }).await;
    connect(&mut a, &mut b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_nothing_is_dropped_and_counted() {
    let mut a = Node::first().await;
    let mut b = a.second().await;
    connect(&mut a, &mut b).await;
    // b's core takes nothing: first the link's places in its inbox fill up, then the connection, then a's
    // queue.
    a.say(&b, 0..6000).await;
    b.until("messages_in", 128).await;
    let bulk = Message::Swim(Bytes::from(vec![7; 1 << 20]));
    let mut sent = 0;
    while a.total("links_overflowed") == 0 && sent < 256 {
        a.network.send(b.id(), bulk.clone());
        sent += 1;
    }
    assert_eq!(a.total("links_overflowed"), 1, "after {sent} MiB");
    let b_id = b.id();
    a.expect(Input::Disconnected { node: b_id }).await;
    b.inputs.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_in_before_the_node_knows_who_may_come() {
    let a = Node::first().await;
    let (inbox, _inputs) = Inbox::new();
    let shelf = Arc::new(Shelf::default());
    let doors = Doors { rpc: Arc::new(Desk(shelf.clone())), modules: shelf };
    let (identity, mesh) = (Identity::generate(), MeshIdentity::create(a.id()));
    let network = Network::start(quiet(), &identity, mesh.clone(), inbox, doors).await.unwrap();
    let before = mesh.token(network.dialable_addresses(), HOUR, &BTreeSet::new()).to_text();
    let joiner = Identity::generate();
    let mut joining = Box::pin(join(&before, &joiner));
    // It waits; what it is told then is what the catalog says.
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut joining).await.is_err());
    network.admit(&rotated());
    let refused = tokio::time::timeout(DEADLINE, joining).await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("the token was revoked"), "{refused}");
    network.stop().await;
}

fn rotated() -> Roll {
    Roll { rotations: [Rotation { before: 0, salt: [3; 32] }].into(), ..Roll::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_revokes_tokens_ends_their_clients_and_keeps_members() {
    let mut a = Node::first().await;
    let mut b = a.second().await;
    let (a_id, b_id) = (a.id(), b.id());
    a.network.dial(b_id, b.network.addresses());
    a.expect(Input::Connected { node: b_id }).await;
    b.expect(Input::Connected { node: a_id }).await;
    let before = a.token();
    let client = RpcClient::connect(&a.tcp_address(), &before).await.unwrap();
    client.has_module(Digest([1; 32])).await.unwrap();

    let roll = Roll { vouched: [a_id, b_id].into(), ..rotated() };
    a.network.admit(&roll);
    b.network.admit(&roll);
    let ended = async {
        while client.has_module(Digest([1; 32])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.expect("the client's connection ends");
    let refused = RpcClient::connect(&a.tcp_address(), &before).await.unwrap_err().to_string();
    assert!(refused.contains("the token was revoked"), "{refused}");
    assert!(join(&before, &Identity::generate()).await.unwrap_err().to_string().contains("revoked"));
    a.say(&b, 0..10).await;
    b.hear(a_id, 0..10).await;

    // By a token of after somebody comes in, and is known at once, before the catalog says so.
    let identity = Identity::generate();
    let mesh = join(&a.token_after(&roll), &identity).await.unwrap();
    let config = NetworkConfig { bootstrap: mesh.addresses().to_vec(), ..quiet() };
    let mut c = Node::start(identity, mesh, config).await;
    a.expect(Input::Admitted { node: c.id() }).await;
    c.expect(Input::Connected { node: a_id }).await;

    // The mesh's key alone makes nobody a member any more.
    let forger = a.second().await;
    forger.network.dial(a_id, a.network.addresses());
    forger.until("hellos_failed", 1).await;
    assert_eq!(forger.network.peers(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_cut_off_and_refused_from_both_sides() {
    let mut a = Node::first().await;
    let mut b = a.second().await;
    let (a_id, b_id) = (a.id(), b.id());
    a.network.dial(b_id, b.network.addresses());
    a.expect(Input::Connected { node: b_id }).await;
    b.expect(Input::Connected { node: a_id }).await;
    a.network.admit(&Roll { removed: [b_id].into(), ..Roll::default() });
    a.expect(Input::Disconnected { node: b_id }).await;
    a.network.dial(b_id, b.network.addresses());
    a.until("hellos_failed", 1).await;
    b.network.dial(a_id, a.network.addresses());
    b.until("hellos_failed", 1).await;
    assert_eq!((a.network.peers(), b.network.peers()), (vec![], vec![]));
}

#[tokio::test]
async fn tokens_that_cannot_be_used_say_why() {
    let a = Node::first().await;
    let refuse = async |text: String| join(&text, &Identity::generate()).await.unwrap_err().to_string();

    let good = a.token();
    assert!(refuse("hello".into()).await.starts_with("the token is malformed: it does not begin with"));
    assert!(refuse(good[..good.len() - 3].into()).await.starts_with("the token's checksum does not match"));

    let expired = a.mesh.token(a.network.dialable_addresses(), Duration::ZERO, &BTreeSet::new()).to_text();
    assert!(refuse(expired).await.starts_with("the token expired at"));

    let other =
        MeshIdentity::create(a.id()).token(a.network.dialable_addresses(), HOUR, &BTreeSet::new()).to_text();
    assert_eq!(
        refuse(other).await,
        "the mesh refused this node: the token is not one of this mesh; print one with `dunlin token` on a member"
    );
    let nowhere = a.mesh.token(vec![], HOUR, &BTreeSet::new()).to_text();
    assert!(refuse(nowhere).await.starts_with("the token names no address"));
    a.until("hellos_failed", 1).await;
}

#[tokio::test]
async fn joining_waits_for_an_address_that_is_not_there_yet() {
    let identity = Identity::generate();
    let mesh = MeshIdentity::create(identity.node());
    let listen = vec!["/ip4/127.0.0.1/tcp/0".to_string()];
    let a = Node::start(identity.clone(), mesh.clone(), NetworkConfig { listen, ..quiet() }).await;
    let (address, listen, token) = (a.network.dialable_addresses(), a.network.addresses(), a.token());
    a.network.stop().await;
    drop(a);
    let joiner = Identity::generate();
    let joining = tokio::spawn(async move { join(&token, &joiner).await.map(|mesh| mesh.mesh()) });
    // Started again while the joiner is trying; whether before or after its first try is the same.
    tokio::task::yield_now().await;
    let a = Node::start(identity, mesh, NetworkConfig { listen, ..quiet() }).await;
    assert_eq!(a.network.dialable_addresses(), address);
    let mesh = tokio::time::timeout(DEADLINE, joining).await.unwrap().unwrap().unwrap();
    assert_eq!(mesh, a.mesh.mesh());
}

#[tokio::test]
async fn a_member_of_another_mesh_is_turned_away() {
    let mut a = Node::first().await;
    let b = Node::first().await;
    b.dial(&a);
    a.until("hellos_failed", 1).await;
    b.until("hellos_failed", 1).await;
    assert!(a.network.peers().is_empty() && b.network.peers().is_empty());
    assert!(a.inputs.try_recv().is_none());
}

#[tokio::test]
async fn a_port_in_use_is_said() {
    let a = Node::first().await;
    for address in a.network.addresses() {
        let (inbox, _inputs) = Inbox::new();
        let shelf = Arc::new(Shelf::default());
        let doors = Doors { rpc: Arc::new(Desk(shelf.clone())), modules: shelf };
        let identity = Identity::generate();
        let mesh = MeshIdentity::create(identity.node());
        let config = NetworkConfig { listen: vec![address.clone()], ..quiet() };
        let error = Network::start(config, &identity, mesh, inbox, doors).await.unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "cannot listen on {address}: the port is in use; stop the program that holds it, or choose another port (0 picks a free one)"
            )
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_a_token_calls() {
    let a = Node::first().await;
    for address in a.network.dialable_addresses() {
        let client = RpcClient::connect(&address, &a.token()).await.unwrap();
        assert_eq!(client.node(), a.id());

        let mut answers = client.call(Request::Status).await.unwrap();
        let (response, last) = answers.next().await.unwrap().unwrap();
        assert!(last && matches!(response, Response::Failed(fault) if fault.detail == "member: false"));
        assert!(answers.next().await.is_none());

        let tail = Tail {
            pipeline: "p".parse().unwrap(),
            stream: dunlin_protocol::pipeline::manifest::StreamName {
                base: "s".parse().unwrap(),
                side: None,
            },
            from: TailFrom::Start,
            limit: Some(300),
            follow: false,
            credit: 1,
        };
        let mut answers = client.call(Request::Tail(tail)).await.unwrap();
        for at in 1..=300 {
            assert_eq!(answers.next().await.unwrap().unwrap().1, at == 300);
        }

        let module = Bytes::from(vec![3; 5 << 20]);
        let digest = Digest::of(&module);
        assert!(!client.has_module(Digest::default()).await.unwrap());
        assert_eq!(client.put_module(module.clone()).await.unwrap(), digest);
        assert!(client.has_module(digest).await.unwrap());
        assert_eq!(a.shelf.get(digest), Some(module));
        a.shelf.0.lock().unwrap().clear();
    }
    // A client is no member: nobody told the core of it.
    assert_eq!(a.total("links_opened"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_without_a_good_token_or_a_node_hear_why() {
    let a = Node::first().await;
    let address = a.tcp_address();
    let other = MeshIdentity::create(a.id()).token(vec![], HOUR, &BTreeSet::new()).to_text();
    let error = RpcClient::connect(&address, &other).await.unwrap_err().to_string();
    assert!(error.contains("refused this client: the token is not one of this mesh"), "{error}");

    let token = a.token();
    let client = RpcClient::connect(&address, &token).await.unwrap();
    a.network.stop().await;
    let asked = async {
        loop {
            match client.call(Request::Status).await {
                Err(error) => break error,
                Ok(mut answers) => {
                    if let Some(Err(error)) = answers.next().await {
                        break error;
                    }
                }
            }
        }
    };
    let error = tokio::time::timeout(DEADLINE, asked).await.unwrap().to_string();
    assert!(error.starts_with("the connection to the node was lost"), "{error}");

    let error = RpcClient::connect(&address, &token).await.unwrap_err().to_string();
    assert!(error.contains("cannot be reached: "), "{error}");
    let error = RpcClient::connect("127.0.0.1:7070", &token).await.unwrap_err().to_string();
    assert!(error.starts_with("'127.0.0.1:7070' is no multiaddr"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_module_is_fetched_from_the_next_holder() {
    let mut a = Node::first().await;
    let mut b = a.second().await;
    let mut c = a.second().await;
    let mut d = a.second().await;
    for other in [&mut b, &mut c, &mut d] {
        connect(&mut a, other).await;
    }
    let module = Bytes::from((0..3_000_000u32).map(|byte| byte as u8).collect::<Vec<_>>());
    let digest = d.shelf.put(module.clone()).unwrap();
    b.shelf.lie(digest, b"not the module");

    a.network.fetch_module(digest, vec![b.id(), c.id(), d.id()]);
    a.expect(Input::ModuleHeld { digest }).await;
    assert_eq!(a.shelf.get(digest), Some(module));
    assert_eq!(a.total("modules_corrupt"), 1);
    d.until("modules_served", 1).await;
    assert_eq!(a.shelf.0.lock().unwrap().len(), 1, "what was corrupt is not kept");

    let missing = Digest::of(b"missing");
    a.network.fetch_module(missing, vec![b.id(), c.id()]);
    let Input::ModuleMissing { digest, why } = a.input().await else { panic!("an answer") };
    assert_eq!(digest, missing);
    assert!(why.contains("it does not hold the module"), "{why}");
}
