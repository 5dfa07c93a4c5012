//! Frames through a NATS server: one connection, on which the node says that it is there, hears who else is, and sends
//! and receives. Connections are made anew by this module and not by the client, so that files are read again and what
//! fails can be said.

mod access;
mod beacon;
mod members;
mod server;
mod status;
mod subjects;

use std::{
    future::{Future, ready},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use async_nats::{Client, Event, Message, Subscriber, connection::State};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use rand::RngExt as _;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tracing::info;

pub(crate) use access::Access;
pub use server::NatsServer;
pub(crate) use status::Status;

use crate::{
    Reason,
    context::HANDSHAKE,
    dial::{FIRST_PAUSE, LONGEST_PAUSE},
    links::{Heard, Links},
    wire::{ALIVE, HERE, take},
};
use beacon::Beacon;
use members::Members;
use subjects::Subjects;

/// How often it is looked who is silent.
const LOOK: Duration = Duration::from_millis(250);
/// Messages that wait to be taken, at most, for each subscription. What is more the client drops.
const WAITING: usize = 4_096;
/// Messages that wait to be written, at most: of 64 kB each, or of one frame. Then those who send them wait.
const COMMANDS: usize = 64;
/// How long an agent that ends tries to say so.
pub(crate) const GOODBYE: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Nats {
    links: Arc<Links>,
    status: Arc<Status>,
    subjects: Arc<Subjects>,
    members: Members,
    heard: mpsc::Sender<Heard>,
    client: watch::Sender<Option<Client>>,
}

/// A connection with a server.
struct Session {
    client: Client,
    here: Subscriber,
    to: Subscriber,
    events: mpsc::Receiver<Event>,
    life: u64,
}

impl Nats {
    pub(crate) fn new(links: Arc<Links>, status: Arc<Status>, heard: mpsc::Sender<Heard>) -> Self {
        let subjects = Arc::new(Subjects::new(&links.cluster, &links.node));
        let (client, from_client) = watch::channel(None);
        let members = Members::new(links.clone(), subjects.clone(), from_client);
        Self { links, status, subjects, members, heard, client }
    }

    /// Goes on until it is stopped, and says goodbye.
    pub(crate) async fn keep(mut self, stopped: oneshot::Receiver<()>) {
        tokio::select! {
            () = self.run() => {}
            _ = stopped => self.goodbye().await,
        }
    }

    /// Connects to one server after another, over and over.
    async fn run(&mut self) {
        let mut longest = FIRST_PAUSE;
        for at in (0..self.status.len()).cycle() {
            let why = match self.connect(at).await {
                Ok(session) => {
                    let began = Instant::now();
                    let why = self.session(at, session).await;
                    self.client.send_replace(None);
                    if began.elapsed() > longest {
                        longest = FIRST_PAUSE;
                    }
                    why
                }
                Err(why) => why,
            };
            self.status.failing(at, why);
            // Not all at once, if all have lost their connection at once.
            let wait = longest.mul_f64(rand::rng().random_range(0.5..=1.0));
            self.meanwhile(sleep(wait)).await;
            longest = (longest * 2).min(LONGEST_PAUSE);
        }
    }

    /// Looks who is silent until something is done.
    async fn meanwhile<T>(&mut self, it: impl Future<Output = T>) -> T {
        let mut it = pin!(it);
        loop {
            match timeout(LOOK, &mut it).await {
                Ok(done) => return done,
                Err(_) => self.members.sweep(Instant::now()),
            }
        }
    }

    async fn connect(&mut self, at: usize) -> Result<Session, String> {
        let server = self.status.server(at);
        let (to_events, events) = mpsc::channel(WAITING);
        let links = self.links.clone();
        let options = self
            .status
            .access
            .options(server)
            .name(format!("flowpin {}", self.links.node))
            .no_echo()
            .ignore_discovered_servers()
            // The fewest there are: it tries once more, and then tells.
            .max_reconnects(1)
            .connection_timeout(HANDSHAKE)
            .ping_interval(ALIVE)
            .client_capacity(COMMANDS)
            .subscription_capacity(WAITING)
            .event_callback(move |event| {
                if matches!(event, Event::SlowConsumer(_)) {
                    let why = "messages come faster than they can be taken; some were dropped";
                    links.refuse(Reason::Flood, None, &"the NATS server", &why);
                } else {
                    // Who doesn't wait for events any more needs none.
                    let _ = to_events.try_send(event);
                }
                ready(())
            });
        let address = server.address().clone();
        let client = match self.meanwhile(options.connect(address)).await {
            Ok(client) => client,
            Err(error) => return Err(self.status.refused(at, &self.links, &error)),
        };
        let subscribed = async {
            let here = client.subscribe(self.subjects.all_here()).await?;
            let to = client.subscribe(self.subjects.all_to()).await?;
            Ok::<_, async_nats::SubscribeError>((here, to))
        };
        let (here, to) = subscribed.await.map_err(|error| error.to_string())?;
        Ok(Session { client, here, to, events, life: rand::random() })
    }

    /// Until the connection ends: why.
    async fn session(&mut self, at: usize, mut session: Session) -> String {
        let name = session.client.server_info().server_name;
        self.status.connected(at, &name);
        info!("connected to {}", self.status.server(at));
        self.client.send_replace(Some(session.client.clone()));
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = Instant::now();
        loop {
            tokio::select! {
                Some(message) = session.here.next() => self.on_here(&mut session, message).await,
                Some(message) = session.to.next() => self.on_frames(message).await,
                Some(event) = session.events.recv() => match event {
                    Event::Disconnected | Event::Closed => return "the connection has ended".into(),
                    Event::ServerError(error) => self.status.disallowed(at, &error, &self.subjects),
                    _ => {}
                },
                _ = look.tick() => {
                    let now = Instant::now();
                    self.members.sweep(now);
                    if session.client.connection_state() != State::Connected {
                        return "the connection has ended".into();
                    }
                    if due <= now {
                        let every = self.members.pace();
                        due = now + every;
                        let beacon = Beacon { every, life: session.life };
                        self.say(&session.client, self.subjects.here(), beacon.encode()).await;
                    }
                }
            }
        }
    }

    /// If it can't be said, the connection is about to end.
    async fn say(&self, client: &Client, subject: String, bytes: Bytes) {
        let _ = timeout(ALIVE, client.publish(subject, bytes)).await;
    }

    /// The name of the node that has sent a message; `None`: it is refused.
    fn sender(&self, message: &Message) -> Option<String> {
        let refuse = |from: &str, why: &str| {
            self.links.refuse(Reason::Name, None, &from, &why);
            None
        };
        match self.subjects.sender(&message.subject) {
            // The server doesn't send a connection what it has sent itself.
            Ok(name) if name == self.links.node => {
                refuse(&name, "another agent has this node's name: give each its own")
            }
            Ok(name) => Some(name),
            Err(why) => refuse("the NATS server", &why),
        }
    }

    /// A node says that it is there, or that it ends.
    async fn on_here(&mut self, session: &mut Session, message: Message) {
        let Some(name) = self.sender(&message) else { return };
        let beacon = match Beacon::decode(&message.payload) {
            Ok(beacon) => beacon,
            Err(why) => return self.links.refuse(Reason::Malformed, None, &name, &why),
        };
        if beacon.every.is_zero() {
            // What it has sent before is there already, and would bring it back.
            while let Some(Some(message)) = session.to.next().now_or_never() {
                self.on_frames(message).await;
            }
            if let Some(id) = self.members.leave(&name) {
                // If the driver is gone, the mesh ends.
                let _ = self.heard.send(Heard::Gone(id)).await;
            }
            return;
        }
        let Some(presence) = self.members.heard(&name, Instant::now()) else { return };
        if !presence.node.may(message.payload.len()) {
            return presence.node.link().floods();
        }
        if presence.node.said(beacon) || presence.is_new {
            self.say(&session.client, self.subjects.to(&name), Bytes::from_static(&HERE)).await;
        }
    }

    /// Frames of a node's, as many as were written at once.
    async fn on_frames(&mut self, message: Message) {
        let Some(name) = self.sender(&message) else { return };
        let Some(presence) = self.members.heard(&name, Instant::now()) else { return };
        let (links, node, mut rest) = (&self.links, presence.node, message.payload);
        loop {
            let bytes = match take(&mut rest) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return,
                Err(why) => return links.refuse(Reason::Malformed, Some(&node.link().meter), &name, &why),
            };
            if !node.may(bytes.len()) {
                return node.link().floods();
            }
            if bytes.is_empty() {
                continue;
            }
            // If the driver is gone, the mesh ends.
            let _ = node.link().take_in(&bytes, &self.heard).await;
        }
    }

    /// So that others needn't wait for the silence.
    async fn goodbye(&mut self) {
        self.members.hush();
        let Some(client) = self.client.borrow().clone() else { return };
        let beacon = Beacon { every: Duration::ZERO, life: 0 };
        let said = async {
            // If it can't be said, others notice.
            if client.publish(self.subjects.here(), beacon.encode()).await.is_ok() {
                let _ = client.flush().await;
            }
        };
        let _ = timeout(GOODBYE, said).await;
    }
}
