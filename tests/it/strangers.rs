//! Strangers: whoever is not let in costs a bounded little, is counted, and the data path does not
//! notice.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use dunlin_protocol::wire::codec;
use dunlin_protocol::wire::handshake::{Hello, Versions};
use dunlin_tests::wait_for;
use futures::AsyncWriteExt;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::beside::{beside, counter, mesh, node_id, runtime, token, wait_until_counted};
use crate::stranger::{HELLO, MODULE, PEER, RPC, Stranger, in_time};

const CONNECTIONS: usize = 2_000;

/// This process needs descriptors for its own end of every connection.
fn may_open(descriptors: u64) -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < descriptors) {
        limit.current = limit.maximum.map_or(Some(descriptors), |maximum| Some(maximum.min(descriptors)));
        let _ = setrlimit(Resource::Nofile, limit);
    }
    getrlimit(Resource::Nofile).current.is_none_or(|current| current >= descriptors)
}

/// `/ip4/127.0.0.1/tcp/4001/p2p/…` as `127.0.0.1:4001`.
fn socket(multiaddr: &str) -> String {
    let parts: Vec<&str> = multiaddr.split('/').collect();
    format!("{}:{}", parts[2], parts[4])
}

#[test]
fn two_thousand_connections_that_say_nothing_or_nonsense_cost_little() {
    if !may_open(2 * CONNECTIONS as u64 + 500) {
        eprintln!("not checked: this user may not open {CONNECTIONS} connections (ulimit -n)");
        return;
    }
    let mesh = mesh();
    let node = &mesh[0];
    let (mesh_port, http_port) = (socket(&node.listen[0]), node.http.clone());
    for (what, port) in
        [("2,000 half-open connections to the mesh's port", &mesh_port), ("the same to HTTP", &http_port)]
    {
        beside(node, what, || {
            let mut open = Vec::new();
            for n in 0..CONNECTIONS {
                // A refusal is an answer, too.
                let Ok(mut stream) = TcpStream::connect(port) else { continue };
                let bytes: &[u8] = match n % 4 {
                    0 => b"",
                    1 => b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Slow: ",
                    2 => &[0xff; 700],
                    _ => b"\x13/multistream/1.0.0\n",
                };
                let _ = stream.write_all(bytes);
                open.push(stream);
            }
            // A byte now and then, as a slow-loris does.
            for _ in 0..10 {
                for stream in open.iter_mut().step_by(7) {
                    let _ = stream.write_all(b"a");
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
    }
    // They are gone by themselves, and a member that comes back is let in.
    drop(mesh);
    let mut mesh = crate::beside::mesh();
    let port = socket(&mesh[0].listen[0]);
    let held: Vec<TcpStream> = (0..CONNECTIONS).filter_map(|_| TcpStream::connect(&port).ok()).collect();
    mesh[1].kill();
    mesh[1].start();
    mesh.meet();
    wait_for("idle strangers are dropped", 60, || {
        let dropped = |mut stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            // Bytes that the node said before it closed are taken first.
            let mut bytes = [0; 1024];
            matches!(stream.read(&mut bytes), Ok(0))
                || stream.read(&mut bytes).is_err_and(|why| why.kind() == std::io::ErrorKind::ConnectionReset)
        };
        held.iter().all(dropped).then_some(())
    });
    wait_until_counted(&mesh[0], "connections_refused", 1);
}

#[test]
fn nobody_is_let_in_by_a_hello_that_is_not_his() {
    let mesh = mesh();
    let node = &mesh[0];
    let (address, token) = (node.listen[0].clone(), token(node));
    let failed = counter(node, "hellos_failed");
    runtime().block_on(async {
        // Before hello nothing else is served.
        let stranger = Stranger::new();
        let connection = stranger.connect(&address).await.unwrap();
        for protocol in [PEER, RPC, MODULE, "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"] {
            assert!(connection.open(protocol).await.is_err(), "{protocol}");
        }
        // And who says none is dropped.
        connection.closed().await;

        // Somebody else's words, word by word.
        let genuine = stranger.as_client(&token, node_id(node));
        let thief = Stranger::new();
        let refused = thief.connect(&address).await.unwrap().hello(&genuine).await.unwrap_err();
        assert!(refused.to_string().contains("not one of this mesh"), "{refused}");
        let member = stranger.join(&address, &token).await;
        let refused = thief.connect(&address).await.unwrap();
        let refused = refused.hello(&thief.as_member(member.clone())).await.unwrap_err();
        assert!(refused.to_string().contains("not genuine"), "{refused}");
        // His own, to another node than it was meant for.
        let elsewhere = stranger.connect(&mesh[1].listen[0]).await.unwrap();
        let refused = elsewhere.hello(&genuine).await.unwrap_err();
        assert!(refused.to_string().contains("not one of this mesh"), "{refused}");

        // Another wire version is a sentence, not a riddle.
        let future = Hello { versions: Versions { min: 7, max: 9 }, ..stranger.as_member(member.clone()) };
        let refused = stranger.connect(&address).await.unwrap().hello(&future).await.unwrap_err();
        assert!(
            refused.to_string().contains("no common wire version: one side speaks 3 to 3, the other 7 to 9"),
            "{refused}"
        );
        // And one that speaks ours among others is agreed with.
        let both = Hello { versions: Versions { min: 1, max: 9 }, ..stranger.as_member(member) };
        let connection = stranger.connect(&address).await.unwrap();
        assert_eq!(connection.hello(&both).await.unwrap().1.version, 3);

        // Bytes that are no hello: too long, cut off, noise, a frame of another framing.
        let whole = codec::encode(&genuine);
        let mut cases: Vec<Vec<u8>> = vec![
            [&[0xff, 0xff, 0xff, 0x7f, 1][..], &[0; 4000]].concat(),
            [&[0, 0, 0, 0, 1][..], &whole].concat(),
            [&(whole.len() as u32 + 1).to_le_bytes()[..], &[2], &whole].concat(),
            vec![b'x'; 3000],
        ];
        for cut in [1, whole.len() / 2, whole.len() - 1] {
            // The frame is whole; what is in it is not.
            cases.push([&(cut as u32 + 1).to_le_bytes()[..], &[1], &whole[..cut]].concat());
        }
        for bytes in cases {
            let connection = Stranger::new().connect(&address).await.unwrap();
            let mut stream = connection.open(HELLO).await.unwrap();
            // The node may have closed before the last byte.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            connection.closed().await;
        }
        // One that is told in single bytes and never ends.
        let connection = Stranger::new().connect(&address).await.unwrap();
        let mut stream = connection.open(HELLO).await.unwrap();
        let began = Instant::now();
        let slow = async {
            for byte in [100, 0, 0, 0, 1].into_iter().chain(std::iter::repeat(7)) {
                if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        in_time("a slow hello is given up", slow).await;
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    });
    wait_until_counted(node, "hellos_failed", failed + 12);
    // The joiner was one; nobody else is a member.
    let members = node.get("/v1/nodes").body.matches("\"node\"").count();
    assert!(members <= 2, "a hello alone makes no member of the catalog: {}", node.get("/v1/nodes").body);
}
