//! `dunlin run`: from a data folder to a node that serves, and back to a closed folder.
//!
//! Rooms are opened from the disk outwards (storage, functions, network, HTTP) and closed in the
//! opposite order, so that nothing is promised by a room whose ground is gone.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use dunlin_protocol::mesh::catalog::NodeFacts;
use dunlin_protocol::peer::{Peer, PeerConfig, TapBounds};
use dunlin_protocol::time::Time;
use dunlin_protocol::wire::codec;
use dunlin_protocol::wire::token::Token;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::api::answers::Doors;
use crate::api::door::Door;
use crate::api::http;
use crate::api::metrics::Metrics;
use crate::cli::{RunArguments, TokenArguments};
use crate::clock::Clock;
use crate::config::Settings;
use crate::connectors::{Connectors, Ground};
use crate::crash;
use crate::data_folder::{self, Unborn};
use crate::driver::{Deployed, Driver, Rooms};
use crate::functions::{Engine, EngineSettings, Functions, FunctionsSettings, ports};
use crate::inbox::Inbox;
use crate::network::{self, Identity, MeshIdentity, Network, NetworkConfig};
use crate::storage::{ModuleStore, Recovery, StateStore, Storage};
use crate::telemetry;
use crate::wiring::{ConnectorDoor, Rpc, Shelf, Snapshots, State, heads};

/// How long requests under way may take when the node is told to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// Runs a node until SIGTERM or Ctrl-C, or until whoever started it is gone, if it hangs on that.
pub fn run(arguments: RunArguments) -> anyhow::Result<()> {
    let settings = Settings::of(arguments)?;
    telemetry::start(settings.log.as_deref()).map_err(|why| anyhow!(why))?;
    raise_descriptors();
    crash::arm().map_err(|why| anyhow!(why))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build()
        .context("the runtime did not start")?;
    let outcome = runtime.block_on(serve(settings));
    // Blocking calls that outlive the node (a sink's request, a module's compilation) are left.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

/// Threads of the runtime: half of the cores. An event passes several tasks on its way, and each time that
/// the next one is on another thread costs more than what it does; the log's threads and functions take the
/// other half.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

/// Connections and segments are descriptors; the usual soft limit of 1,024 is used up by any stranger
/// who opens as many connections, the hard one is the system's own.
fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// A token of the mesh whose node has its data here.
pub fn token(arguments: &TokenArguments, folder: &Path) -> anyhow::Result<String> {
    let identity = data_folder::read_identity(folder)?;
    let mesh = data_folder::read_mesh(folder)?.ok_or_else(|| {
        anyhow!("{} holds no mesh yet; start its node with `dunlin run` first", folder.display())
    })?;
    let mesh = MeshIdentity::decode(&mesh, Identity::from_bytes(identity).node())?;
    let addresses = data_folder::read_addresses(folder)?;
    if addresses.is_empty() {
        bail!(
            "the node of {} never told where it listens; start it with `dunlin run` first",
            folder.display()
        );
    }
    let rotations = match data_folder::read_rotations(folder)? {
        Some(bytes) => codec::decode(&bytes).with_context(|| {
            format!(
                "the rotations of tokens in {} are damaged; start its node, it writes them anew",
                folder.display()
            )
        })?,
        None => BTreeSet::new(),
    };
    Ok(mesh.token(addresses, arguments.expires, &rotations).to_text())
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let mut signals = Signals::new(settings.until_stdin_ends)?;
    let folder = settings.data.clone();
    let mut unborn = Unborn::look(&folder);
    data_folder::create(&folder)?;
    let clock = Clock::start();
    let (inbox, inputs) = Inbox::new();

    // The folder's lock comes first: two daemons must not even share an identity's start.
    let (storage, recovery) = Storage::open(&folder, inbox.clone())?;
    unborn.locked();
    // Whatever can be refused on this machine is, before a mesh is begun or joined.
    let listener = bind_http(&settings, &folder).await?;
    let http_address = listener.local_addr().context("the HTTP address is not known")?;
    let identity = Identity::from_bytes(data_folder::identity(&folder, || Identity::generate().to_bytes())?);
    let mesh = tokio::select! {
        mesh = membership(&settings, &folder, &identity) => mesh?,
        () = signals.stopped() => return Ok(()),
    };
    let state = StateStore::open(&folder)?;
    forget_strays(&state, &recovery)?;
    let modules = ModuleStore::open(&folder)?;
    let engine = Engine::new(EngineSettings::new(Some(folder.join("cache")), seed_of(&identity)))?;
    let shelf = Shelf { store: modules, engine: engine.clone(), inbox: inbox.clone() };
    let doors = Doors::new(inbox.clone());
    let metrics = Metrics::default();
    let deployed = Arc::new(Deployed::default());
    let door = Door {
        doors: doors.clone(),
        sources: deployed.clone(),
        shelf: Arc::new(shelf.clone()),
        metrics: metrics.clone(),
    };

    let functions = Functions::start(
        FunctionsSettings::new(engine),
        ports::Ports {
            state: Arc::new(State { store: state.clone(), reader: storage.reader() }),
            modules: Arc::new(shelf.clone()),
            snapshots: Arc::new(Snapshots(storage.snapshot_writer())),
        },
        heads(folder.clone()),
        inbox.clone(),
    )
    .await?;
    let rpc = Rpc { door: door.clone(), clock, runtime: Handle::current() };
    let served = network::Doors { rpc: Arc::new(rpc), modules: Arc::new(shelf.clone()) };
    let start = |listen| {
        let config = NetworkConfig { listen, bootstrap: mesh.addresses().to_vec(), mdns: settings.mdns };
        Network::start(config, &identity, mesh.clone(), inbox.clone(), served.clone())
    };
    let (remembered, wished) = listen_addresses(&settings, &folder)?;
    let network = match start(remembered.clone()).await {
        // A port that was only remembered may be somebody else's by now.
        Err(error) if remembered != wished => {
            tracing::warn!(%error, "the addresses of the last run cannot be taken again");
            start(wished).await?
        }
        outcome => outcome?,
    };
    data_folder::write_mesh(&folder, &mesh.encode())?;
    data_folder::write_listen(&folder, &network.addresses())?;
    data_folder::write_addresses(&folder, &network.dialable_addresses())?;
    data_folder::write_http(&folder, &http_address.to_string())?;
    let bearer = data_folder::bearer(&folder, rand::random())?;

    let peer = Peer::new(PeerConfig {
        key: identity.signing_key().clone(),
        generation: clock.now().0,
        seed: rand::random(),
        facts: NodeFacts {
            labels: settings.labels.iter().cloned().collect(),
            addresses: network.addresses(),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
            version: env!("CARGO_PKG_VERSION").to_string(),
        },
        mesh: mesh.mesh().to_string(),
        joined: !mesh.addresses().is_empty(),
        taps: TapBounds::default(),
        gossip: settings.gossip,
    });
    // From here on the folder is a node's, whatever becomes of this start.
    unborn.born();
    let ground = Ground { node: identity.node(), data_folder: folder.clone() };
    let connectors =
        Connectors::new(ConnectorDoor { doors: doors.clone(), runtime: Handle::current() }, ground);
    let rooms = Rooms {
        storage,
        state,
        functions,
        network: network.clone(),
        connectors,
        doors: doors.clone(),
        metrics,
        modules: shelf.clone(),
        data_folder: folder.clone(),
    };
    let mut driver = Driver::new(peer, clock, inputs, rooms, deployed);
    for digest in shelf.store.list()? {
        driver.recover(dunlin_protocol::effect::Input::ModuleHeld { digest });
    }
    recovery.for_each(&mut |input| driver.recover(input))?;

    let (stop, stopping) = watch::channel(false);
    let (open, mut opened) = watch::channel(false);
    let mut driving = tokio::spawn(driver.run(stopping.clone(), open));
    let mut stop_http = stopping.clone();
    let router = http::router(door, &bearer, opened.clone());
    let http = tokio::spawn(http::serve(listener, router, async move {
        let _ = stop_http.wait_for(|stop| *stop).await;
    }));

    let opened = tokio::select! {
        Ok(_) = opened.wait_for(|open| *open) => true,
        ended = &mut driving => return Err(ended_early(ended)),
        () = signals.stopped() => false,
    };
    let ready = json!({
        "ready": true,
        "node": identity.node().to_string(),
        "http": http_address.to_string(),
        "listen": network.dialable_addresses(),
    });
    if opened {
        println!("{ready}");
        tracing::info!(node = %identity.node(), http = %http_address, "ready");
        tokio::select! {
            () = signals.stopped() => {}
            ended = &mut driving => return Err(ended_early(ended)),
        }
    }
    tracing::info!("stopping");
    stop.send_replace(true);
    doors.close();
    let (mut rooms, _) = driving.await.map_err(|error| broken(Some(error)))?;
    rooms.connectors.stop_all();
    let _ = tokio::time::timeout(STOP_DEADLINE, http).await;
    let _ = tokio::time::timeout(STOP_DEADLINE, rooms.functions.stop()).await;
    rooms.network.stop().await;
    // Flushing waits for the disk.
    tokio::task::spawn_blocking(move || rooms.storage.stop()).await.context("the storage did not close")?;
    Ok(())
}

/// Ends removals that the last run did not come to the end of, beside everything else.
fn forget_strays(state: &StateStore, recovery: &Recovery) -> anyhow::Result<()> {
    let strays = state.strays(&recovery.logs())?;
    let state = state.clone();
    if !strays.is_empty() {
        tokio::task::spawn_blocking(move || {
            for log in strays {
                if let Err(error) = state.remove(log) {
                    tracing::warn!(%log, %error, "the keyed state of a removed log is not gone yet");
                }
            }
        });
    }
    Ok(())
}

/// The mesh that this folder belongs to; a new one, or the token's, when it belongs to none. It is
/// kept by the caller, once the node can start.
async fn membership(settings: &Settings, folder: &Path, identity: &Identity) -> anyhow::Result<MeshIdentity> {
    if let Some(stored) = data_folder::read_mesh(folder)? {
        let mesh = MeshIdentity::decode(&stored, identity.node())?;
        if let Some(token) = &settings.join {
            let token = Token::parse(token, Time(0))?;
            if token.mesh != mesh.mesh() {
                bail!(
                    "{} belongs to another mesh than the token; start without --join to resume it, or choose an empty folder with --data",
                    folder.display()
                );
            }
        }
        return Ok(mesh);
    }
    if data_folder::holds_logs(folder) {
        bail!(
            "{} holds a node's logs, but the file 'mesh', which says what mesh it is a member of and by what key, is missing: put it back, or start with an empty folder and a token",
            folder.display()
        );
    }
    match &settings.join {
        Some(token) => Ok(network::join(token, identity).await?),
        None => Ok(MeshIdentity::create(identity.node())),
    }
}

/// Where to listen: the last run's addresses where the wish leaves the port open, and the wish itself.
fn listen_addresses(settings: &Settings, folder: &Path) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    // Only remembered for comfort: without it the ports are others.
    let before = data_folder::read_listen(folder).unwrap_or_else(|error| {
        tracing::warn!(%error, "the addresses of the last run are not known");
        Vec::new()
    });
    let wished = match settings.listen.is_empty() {
        true => NetworkConfig::default().listen,
        false => settings.listen.clone(),
    };
    let remembered = wished.iter().map(|wish| data_folder::remembered(wish, &before)).collect();
    Ok((remembered, wished))
}

async fn bind_http(settings: &Settings, folder: &Path) -> anyhow::Result<TcpListener> {
    let wish = settings.http;
    if !wish.ip().is_loopback() && !settings.http_open {
        bail!(
            "HTTP on {wish} would be open to others without TLS; bind it to 127.0.0.1, or say `http_open = true` in --config if a proxy guards it"
        );
    }
    let remembered = data_folder::read_http(folder).ok().and_then(|text| text.parse::<SocketAddr>().ok());
    if wish.port() == 0
        && let Some(before) = remembered.filter(|before| before.ip() == wish.ip())
        && let Ok(listener) = TcpListener::bind(before).await
    {
        return Ok(listener);
    }
    TcpListener::bind(wish).await.with_context(|| {
        format!("HTTP cannot listen on {wish}; another program may hold the port: choose another with --http, or 127.0.0.1:0 for any")
    })
}

fn seed_of(identity: &Identity) -> [u8; 32] {
    *blake3::keyed_hash(&identity.to_bytes(), b"dunlin functions").as_bytes()
}

/// Nobody asked the node to end.
fn ended_early(ended: Result<(Rooms, Option<String>), tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok((_, Some(why))) => anyhow!(why),
        Ok((_, None)) => broken(None),
        Err(error) => broken(Some(error)),
    }
}

fn broken(error: Option<tokio::task::JoinError>) -> anyhow::Error {
    match error {
        Some(error) => anyhow!("the core stopped: {error}; start the node again, it recovers from its disk"),
        None => anyhow!("the core stopped; start the node again, it recovers from its disk"),
    }
}

/// SIGTERM, Ctrl-C, and the end of whoever started the node.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    /// True once standard input has ended; none: nobody asked to watch it.
    stdin_ended: Option<watch::Receiver<bool>>,
}

impl Signals {
    fn new(until_stdin_ends: bool) -> anyhow::Result<Signals> {
        Ok(Signals {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .context("SIGTERM cannot be watched for")?,
            stdin_ended: until_stdin_ends.then(watch_stdin),
        })
    }

    async fn stopped(&mut self) {
        #[cfg(unix)]
        let terminated = self.terminate.recv();
        #[cfg(not(unix))]
        let terminated = std::future::pending::<Option<()>>();
        tokio::select! {
            _ = terminated => {}
            _ = tokio::signal::ctrl_c() => {}
            () = ended(&mut self.stdin_ended) => {}
        }
    }
}

/// A thread of its own: a read of standard input cannot be broken off.
fn watch_stdin() -> watch::Receiver<bool> {
    let (say, ended) = watch::channel(false);
    std::thread::spawn(move || {
        // What comes is nothing to us, and an error is an end as well.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        say.send_replace(true);
    });
    ended
}

async fn ended(stdin: &mut Option<watch::Receiver<bool>>) {
    match stdin {
        // An error: the thread is gone, and nobody watches any more.
        Some(stdin) => drop(stdin.wait_for(|ended| *ended).await),
        None => std::future::pending().await,
    }
}
