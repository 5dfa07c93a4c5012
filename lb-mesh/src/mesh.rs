//! A mesh: its tasks, and what others do with it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lb_cluster::{ServiceKey, frame::Own};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    Kernel, MeshError, Settings, View,
    context::Context,
    dial,
    driver::Driver,
    identity::Identities,
    links::{Event, Links},
    listen,
    nats::{Access, GOODBYE, Nats, Status},
    settings::{Nats as NatsSettings, Tcp, Transport, check_peers},
    talk::{self, Question, Reply},
};

/// More than [`GOODBYE`], which has a limit itself.
const MARGIN: Duration = Duration::from_millis(100);
/// Frames that wait for the driver, at most. Then those who send them wait.
const WAITING: usize = 1_024;

/// This node's part of the mesh, for as long as it is kept: dropping it ends all connections and tasks.
pub struct Mesh {
    handle: Handle,
    address: Option<SocketAddr>,
    tasks: JoinSet<()>,
    questions: Option<mpsc::Receiver<Question>>,
    /// Who is told before it ends.
    goodbye: Option<oneshot::Sender<()>>,
}

/// What is said to a mesh and asked of it. Of a mesh that has ended nothing is heard any more.
#[derive(Clone)]
pub struct Handle {
    events: mpsc::UnboundedSender<Event>,
    /// With TCP.
    peers: Option<Arc<watch::Sender<Vec<String>>>>,
}

impl Mesh {
    /// Starts to listen, to connect, and to write to the kernel. Within a Tokio runtime.
    ///
    /// # Errors
    /// The settings can't be right, files can't be read, or it can't listen. Peers and servers may be unreachable.
    pub async fn start(settings: Settings, kernel: impl Kernel) -> Result<Self, MeshError> {
        settings.check()?;
        match settings.transport.clone() {
            Transport::Tcp(tcp) => Self::with_tcp(&settings, tcp, kernel).await,
            Transport::Nats(nats) => Self::with_nats(&settings, nats, kernel),
        }
    }

    async fn with_tcp(settings: &Settings, tcp: Tcp, kernel: impl Kernel) -> Result<Self, MeshError> {
        let identities = Arc::new(Identities::load(tcp.identity, &settings.node, &settings.cluster)?);
        let failed = |error| MeshError::Listen { address: tcp.listen, error };
        let listener = TcpListener::bind(tcp.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (events, from_events) = mpsc::unbounded_channel();
        let (heard, from_heard) = mpsc::channel(WAITING);
        let links = Arc::new(Links::new(&settings.node, &settings.cluster, events.clone()));
        let context = Context { links: links.clone(), peers: Arc::default(), identities };
        let (asked, questions) = mpsc::channel(talk::WAITING);
        let driver = Driver::new(settings, kernel, links, Box::new(context.clone()), asked);
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run(from_events, from_heard));
        tasks.spawn(listen::keep(context.clone(), listener, heard));
        let (peers, from_peers) = watch::channel(tcp.peers);
        tasks.spawn(dial::keep(context, from_peers));
        let handle = Handle { events, peers: Some(Arc::new(peers)) };
        Ok(Self { handle, address: Some(address), tasks, questions: Some(questions), goodbye: None })
    }

    fn with_nats(settings: &Settings, nats: NatsSettings, kernel: impl Kernel) -> Result<Self, MeshError> {
        let servers = nats.servers.clone();
        let status = Arc::new(Status::new(servers, Access::load(nats)?));
        let (events, from_events) = mpsc::unbounded_channel();
        let (heard, from_heard) = mpsc::channel(WAITING);
        let links = Arc::new(Links::new(&settings.node, &settings.cluster, events.clone()));
        let (asked, questions) = mpsc::channel(talk::WAITING);
        let driver = Driver::new(settings, kernel, links.clone(), Box::new(status.clone()), asked);
        let (goodbye, stopped) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run(from_events, from_heard));
        tasks.spawn(Nats::new(links, status, heard).keep(stopped));
        Ok(Self {
            handle: Handle { events, peers: None },
            address: None,
            tasks,
            questions: Some(questions),
            goodbye: Some(goodbye),
        })
    }

    /// Where it listens; `None`: with NATS, nowhere.
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// For those who tell it of connections, and those who look.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What other nodes ask, for whoever answers; `None`: somebody has it. What waits is lost if the mesh ends.
    pub const fn take_questions(&mut self) -> Option<mpsc::Receiver<Question>> {
        self.questions.take()
    }

    /// Ends it, and waits until it doesn't listen any more: another may at the same address then. With NATS it takes
    /// up to half a second to say so to the others.
    pub async fn stop(mut self) {
        if let Some(goodbye) = self.goodbye.take()
            && goodbye.send(()).is_ok()
        {
            // The one that ends is the one that was told to.
            let _ = timeout(GOODBYE + MARGIN, self.tasks.join_next()).await;
        }
        self.tasks.shutdown().await;
    }

    /// Waits until one of its tasks has ended, which they do only by a fault: why. The mesh has to be dropped then, and
    /// may be started again.
    pub async fn ended(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) | None => "a task has ended, which nobody had told it to".into(),
        }
    }
}

impl Handle {
    /// The kernel's counts were read, as [`Agent::counted`](lb_cluster::agent::Agent::counted) wants them: those of
    /// backends whose counts may have changed. At once when a connection has opened, every 50 ms or so for others.
    /// After the start, and when a mesh was started again, all of them. `pool`: how many backends take new flows.
    /// `opened`: connections of the service that the node has opened so far.
    pub fn counted(&self, service: ServiceKey, pool: u32, opened: u64, counts: Vec<Own>) {
        self.tell(Event::Counted { service, pool, opened, counts });
    }

    /// A service's backends are others now, or in other slots: [`Kernel::write`] is called for it soon. To be called for
    /// each service after the start, too: also for one without connections the order among equals is another on each
    /// node.
    pub fn rewrite(&self, service: ServiceKey) {
        self.tell(Event::Rewrite(service));
    }

    /// The peers are others now, see [`Settings::peers`]: the file has changed, or who knows them has told so.
    /// Connections that there are stay.
    ///
    /// # Errors
    /// One of them isn't any, and the old ones stay; or it isn't TCP.
    pub fn set_peers(&self, peers: Vec<String>) -> Result<(), MeshError> {
        check_peers(&peers)?;
        self.peers.as_ref().ok_or(MeshError::NoPeers)?.send_replace(peers);
        Ok(())
    }

    /// Asks all nodes that this one is connected to, and waits for their answers, at most so long. `body`: whatever they
    /// understand, at most [`MAX_TALK`](lb_cluster::frame::MAX_TALK) bytes.
    pub async fn ask(&self, body: Vec<u8>, patience: Duration) -> Vec<Reply> {
        self.replies(None, body, patience).await
    }

    /// The same of one node, by name. `None`: this one isn't connected to it, or it has said nothing in time.
    pub async fn ask_one(&self, node: &str, body: Vec<u8>, patience: Duration) -> Option<Vec<u8>> {
        self.replies(Some(node.into()), body, patience).await.pop()?.body
    }

    async fn replies(&self, node: Option<String>, body: Vec<u8>, patience: Duration) -> Vec<Reply> {
        let (heard, answers) = mpsc::unbounded_channel();
        self.tell(Event::Ask { node, body, heard });
        talk::replies(answers, patience).await
    }

    /// What the mesh is like now; `None`: it has ended.
    pub async fn view(&self) -> Option<View> {
        let (wanted, view) = oneshot::channel();
        self.tell(Event::View(wanted));
        view.await.ok()
    }

    fn tell(&self, event: Event) {
        // The mesh has ended: whoever keeps it knows.
        let _ = self.events.send(event);
    }
}
