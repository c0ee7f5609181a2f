//! The hello exchange on one connection. What is judged is in `dunlin_protocol::wire::handshake`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dunlin_protocol::id::NodeId;
use dunlin_protocol::limits::NODES_MAX;
use dunlin_protocol::mesh::roll::Roll;
use dunlin_protocol::wire::handshake::{
    Admission, Answer, HELLO_BYTES_MAX, Hello, HelloKind, MeshId, Pass, Ready, Refusal, Role, VERSIONS,
    Welcome,
};
use dunlin_protocol::wire::token::Token;
use futures::future::BoxFuture;
use futures::io::AsyncReadExt as _;
use libp2p::{Stream, StreamProtocol};
use thiserror::Error;
use tokio::sync::watch;

use super::door::HELLO_DEADLINE;
use super::frames::{self, FrameReader, StreamError};
use super::identity::{MeshIdentity, now};
use super::protocols::{FOR_CLIENTS, FOR_MEMBERS};

/// How long a dialer that is not let in may take to read the answer.
const LINGER: Duration = Duration::from_secs(1);

/// What this side shows of itself.
#[derive(Debug, Clone)]
pub(super) enum Credentials {
    Member(MeshIdentity),
    Joiner(Token),
    Client(Token),
}

/// Says hello for this node on every connection.
#[derive(Debug)]
pub(super) struct Greeter {
    pub me: NodeId,
    /// A random number of this run.
    pub incarnation: u64,
    pub credentials: Credentials,
    /// Who may come in, as the catalog says. Until it is known hello waits, and with it its deadline.
    pub roll: watch::Receiver<Option<Arc<Roll>>>,
    /// Whom this node let in, since its start: the catalog may be told of them later than they come back.
    pub let_in: Mutex<BTreeSet<NodeId>>,
}

/// Hello has passed.
#[derive(Debug, Clone)]
pub(super) struct Passed {
    /// What the remote is here.
    pub role: Role,
    pub incarnation: u64,
    /// What a joiner was given.
    pub admission: Option<MeshIdentity>,
}

/// Hello has not passed. The connection is dropped and counted.
#[derive(Debug, Error)]
pub(super) enum HelloError {
    /// The other side's sentence.
    #[error("refused by the other node: {0}")]
    Refused(String),
    /// Ours.
    #[error("{0}")]
    Refusal(#[from] Refusal),
    #[error("the other side did not say hello within {} s", HELLO_DEADLINE.as_secs())]
    TooLate,
    #[error("the other side does not answer hello: {0}")]
    Unanswered(String),
    #[error("hello broke off: {0}")]
    Broken(#[from] StreamError),
    #[error("it had not passed hello yet when others needed its place")]
    Crowded,
    #[error("this side is no member and lets nobody in")]
    NoMember,
    /// Not an error: the joiner has what it came for, and comes back as a member.
    #[error("the joiner was admitted")]
    Admitted,
}

/// How a hello exchange ended that did not pass.
pub(super) struct TurnedAway {
    pub error: HelloError,
    /// Closing the connection at once could overtake the answer: first wait for this.
    pub linger: Option<BoxFuture<'static, ()>>,
}

impl Greeter {
    pub fn new(me: NodeId, credentials: Credentials, roll: watch::Receiver<Option<Arc<Roll>>>) -> Greeter {
        Greeter { me, incarnation: rand::random(), credentials, roll, let_in: Mutex::default() }
    }

    /// What the catalog says now, with those that were let in here.
    pub fn roll(&self) -> Option<Roll> {
        let mut roll = Roll::clone(self.roll.borrow().as_deref()?);
        roll.vouched.extend(self.let_in().iter());
        Some(roll)
    }

    async fn known_roll(&self) -> Result<Roll, HelloError> {
        let known = self.roll.clone().wait_for(Option::is_some).await.is_ok();
        self.roll().filter(|_| known).ok_or(HelloError::NoMember)
    }

    fn on_let_in(&self, node: NodeId) {
        let mut let_in = self.let_in();
        if let_in.len() < NODES_MAX {
            let_in.insert(node);
        }
    }

    fn let_in(&self) -> std::sync::MutexGuard<'_, BTreeSet<NodeId>> {
        self.let_in.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mesh(&self) -> MeshId {
        match &self.credentials {
            Credentials::Member(mesh) => mesh.mesh(),
            Credentials::Joiner(token) | Credentials::Client(token) => token.mesh,
        }
    }

    /// The protocols of ours that a remote in this role may open here.
    pub fn serves(&self, remote: Role) -> &'static [StreamProtocol] {
        match (&self.credentials, remote) {
            (Credentials::Member(_), Role::Member) => FOR_MEMBERS,
            (Credentials::Member(_), Role::Client) => FOR_CLIENTS,
            (Credentials::Member(_), Role::Joiner) | (Credentials::Joiner(_) | Credentials::Client(_), _) => {
                &[]
            }
        }
    }

    fn hello(&self, to: NodeId) -> Hello {
        let pass = |token: &Token| Pass::new(token, self.me, to, rand::random());
        let kind = match &self.credentials {
            Credentials::Member(mesh) => HelloKind::Member { certificate: mesh.certificate().clone() },
            Credentials::Joiner(token) => HelloKind::Joiner(pass(token)),
            Credentials::Client(token) => HelloKind::Client(pass(token)),
        };
        Hello { versions: VERSIONS, incarnation: self.incarnation, kind }
    }

    /// The dialer's part: hello, the answer, ready.
    pub async fn dial(
        self: Arc<Self>,
        remote: NodeId,
        mut stream: Stream,
        open: Arc<OnceLock<Role>>,
    ) -> Result<Passed, TurnedAway> {
        let outcome = self.try_dial(remote, &mut stream, &open).await;
        outcome.map_err(|error| TurnedAway { error, linger: None })
    }

    async fn try_dial(
        &self,
        remote: NodeId,
        stream: &mut Stream,
        open: &OnceLock<Role>,
    ) -> Result<Passed, HelloError> {
        frames::write(stream, &self.hello(remote)).await?;
        let answer: Answer = reader(stream).value().await?;
        let welcome = match answer {
            Answer::Refused { why } => return Err(HelloError::Refused(why)),
            Answer::Welcome(welcome) => welcome,
        };
        VERSIONS.agree(dunlin_protocol::wire::handshake::Versions {
            min: welcome.version,
            max: welcome.version,
        })?;
        welcome.certificate.check(self.mesh(), remote)?;
        self.known_roll().await?.check_member(remote)?;
        let admission = match (&self.credentials, welcome.admission) {
            (Credentials::Joiner(token), Some(admission)) => {
                let key = admission.check(token.mesh, self.me)?;
                Some(MeshIdentity::new(key, admission.certificate, token.addresses.clone()))
            }
            (Credentials::Joiner(_), None) => return Err(Refusal::WrongCertificate.into()),
            (Credentials::Member(_) | Credentials::Client(_), _) => None,
        };
        if admission.is_none() {
            let _ = open.set(Role::Member);
            frames::write(stream, &Ready).await?;
        }
        Ok(Passed { role: Role::Member, incarnation: welcome.incarnation, admission })
    }

    /// The listener's part: hello, judged and answered, ready.
    pub async fn listen(
        self: Arc<Self>,
        remote: NodeId,
        mut stream: Stream,
        open: Arc<OnceLock<Role>>,
    ) -> Result<Passed, TurnedAway> {
        self.try_listen(remote, &mut stream, &open).await.map_err(|error| {
            let answered = matches!(error, HelloError::Refusal(_) | HelloError::Admitted);
            let linger: BoxFuture<'static, ()> = Box::pin(linger(stream));
            TurnedAway { error, linger: answered.then_some(linger) }
        })
    }

    async fn try_listen(
        &self,
        remote: NodeId,
        stream: &mut Stream,
        open: &OnceLock<Role>,
    ) -> Result<Passed, HelloError> {
        let hello: Hello = reader(stream).value().await?;
        let Credentials::Member(mesh) = &self.credentials else {
            return Err(HelloError::NoMember);
        };
        let roll = self.known_roll().await?;
        let (version, role) = match mesh.key().judge(&hello, (remote, self.me), now(), &roll) {
            Ok(verdict) => verdict,
            Err(refusal) => {
                frames::write(stream, &Answer::Refused { why: refusal.to_string() }).await?;
                return Err(refusal.into());
            }
        };
        let admission = (role == Role::Joiner).then(|| Admission {
            certificate: mesh.key().certify(remote, now()),
            mesh_secret: mesh.key().secret(),
        });
        let welcome = Welcome {
            version,
            incarnation: self.incarnation,
            certificate: mesh.certificate().clone(),
            admission,
        };
        if role == Role::Joiner {
            self.on_let_in(remote);
            frames::write(stream, &Answer::Welcome(welcome)).await?;
            return Err(HelloError::Admitted);
        }
        // Before the answer leaves: the dialer may open substreams as soon as it has read it.
        let _ = open.set(role);
        frames::write(stream, &Answer::Welcome(welcome)).await?;
        let _: Ready = reader(stream).value().await?;
        Ok(Passed { role, incarnation: hello.incarnation, admission: None })
    }
}

fn reader(stream: &mut Stream) -> FrameReader<&mut Stream> {
    FrameReader::new(stream, HELLO_BYTES_MAX, HELLO_DEADLINE)
}

/// The dialer closes when it has read the answer.
async fn linger(mut stream: Stream) {
    let _ = tokio::time::timeout(LINGER, stream.read(&mut [0; 1])).await;
}
