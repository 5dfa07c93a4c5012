//! The daemon: wires sources, owner, sweeper and faces together, and owns their lifetimes.
//!
//! ```text
//! config file, state file ─▶ Owner ─▶ maps, links          HUP ─▶ reload
//! netlink ─▶ Seen ─▶ Owner::look                        TERM, INT ─▶ out; the datapath stays
//! host's rules, routes ─▶ hints ─▶ State::warnings, every minute
//! health (a task a backend) ─▶ Owner::set_health      Owner::ramp, every second
//! sweeper (thread) ─▶ census ─▶ Owner::collect             API, metrics ─▶ Handle ─▶ Owner
//! ```

mod close;
mod control;
pub mod events;
mod explain;
mod fates;
pub mod handle;
mod hints;
pub mod owner;
mod seen;
pub mod shared;
mod socket;
mod state;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
    time::MissedTickBehavior,
};

use self::{handle::Handle, owner::Owner, seen::Seen, shared::Shared};
use crate::{
    api::server,
    conntrack::{
        census::Recount,
        clients,
        sweep::{self, Pass},
    },
    datapath::{
        DatapathError,
        events::Events,
        interfaces,
        object::{Object, Wanted},
        pin::PinDir,
        sockets,
    },
    health,
    source::SocketScope,
};

/// How often interfaces are looked at without a word from netlink: nobody says when a program was taken off, or when another
/// that was in the way has gone.
const LOOK: Duration = Duration::from_secs(5);

/// How often backends in their slow start are given more.
const RAMP: Duration = Duration::from_secs(1);

/// How often the affinity table is looked through.
const CLIENTS: Duration = Duration::from_secs(2);

/// How often bitmaps of source ports that are empty are removed.
const PORTS: Duration = Duration::from_secs(10);

/// What `flowpin agent` was asked.
pub struct AgentOptions {
    /// Config file; `None`: defaults.
    pub config: Option<PathBuf>,
    /// Take the programs off and the maps away when ending.
    pub detach_on_exit: bool,
    /// Overrides the config's `api_socket`.
    pub api_socket: Option<PathBuf>,
}

/// Runs until TERM or INT.
///
/// # Errors
/// One line on why it can't.
pub async fn run(options: AgentOptions) -> anyhow::Result<()> {
    // First: a signal that comes while things are being set up must not end the agent halfway.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hup = signal(SignalKind::hangup())?;
    let loaded = owner::load(options.config.as_deref())?;
    let config = loaded.config.clone();
    // Then the lock: whoever is refused here has touched nothing.
    let pins = PinDir::open(&config.pin_dir)?;
    let log = tracing::enabled!(target: "flowpin::flows", tracing::Level::DEBUG);
    let listening = async {
        let (api, socket) = socket::listen(options.api_socket.as_ref().unwrap_or(&config.api_socket)).await?;
        let metrics = TcpListener::bind(config.metrics_listen).await.with_context(|| {
            format!("metrics_listen {}: choose a free address and port", config.metrics_listen)
        })?;
        anyhow::Ok((api, socket, metrics))
    };
    let (api, socket, metrics) = listening.await.inspect_err(|_| pins.remove_empty())?;
    let wanted = Wanted {
        max_flows: config.max_flows,
        max_clients: config.max_clients,
        netns: if config.sockets.scope == SocketScope::Off { 0 } else { sockets::own_netns()? },
        sockets_of_all: config.sockets.scope == SocketScope::All,
        log,
    };
    let object = Object::load(&pins, &wanted)?;
    tracing::info!(
        max_flows = object.max_flows,
        "{}",
        match (object.adopted, config.flows_by_default) {
            (true, _) => "flow tables as they were made, for so many flows of each IP version",
            (false, true) =>
                "flow tables for so many flows of each IP version: the default for this machine's CPUs",
            (false, false) => "flow tables for so many flows of each IP version, as configured",
        }
    );
    if object.adopted && !config.flows_by_default && object.max_flows != config.max_flows {
        tracing::warn!(
            "the flow tables were made for {} flows and stay as they are; to have {}, stop the agent and remove {}",
            object.max_flows,
            config.max_flows,
            config.pin_dir.display()
        );
    }
    tracing::info!(adopted = object.adopted, hz = object.clock.hz, "programs loaded");
    let shared = Arc::new(Shared::new(object, &pins, options.config)?);
    if log {
        log_flows(&shared)?;
    }
    let (netlink, mut changes) = interfaces::watch()?;
    let mut owner = Owner::new(shared.clone(), loaded, &pins)?;
    owner.start(&Seen::look(&netlink).await)?;
    let handle = Handle::new(owner, netlink);
    handle.note_ways().await;

    let (stop, stopped) = watch::channel(false);
    let faces = [
        tokio::spawn(server::serve(api, handle.clone(), down(stopped.clone()))),
        tokio::spawn(server::serve_metrics(metrics, handle.clone(), down(stopped.clone()))),
    ];
    let fates = tokio::spawn(fates::run(handle.clone(), stopped.clone()));
    let told = tokio::spawn(events::run(handle.clone(), Events::open(&pins)?, stopped.clone()));
    let checks = tokio::spawn(health::run(handle.clone(), stopped.clone()));
    let host = Arc::new(Notify::new());
    let hints = tokio::spawn(hints::run(handle.shared.clone(), host.clone(), stopped.clone()));
    let sweeper = tokio::spawn(sweep_forever(handle.clone(), stopped));
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("ready");

    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ramp = tokio::time::interval(RAMP);
    ramp.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ports = tokio::time::interval(PORTS);
    ports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hup.recv() => {
                notify(&[sd_notify::NotifyState::Reloading]);
                // What is wrong is in the log and the status.
                let _ = handle.reload().await;
                host.notify_one();
                notify(&[sd_notify::NotifyState::Ready]);
            }
            Some(()) = changes.recv() => handle.look().await,
            _ = look.tick() => handle.look().await,
            _ = ramp.tick() => handle.owner().lock().await.ramp(),
            _ = ports.tick() => handle.owner().lock().await.collect_ports(),
        }
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    stop.send_replace(true);
    for task in faces {
        let _ = task.await;
    }
    let _ = sweeper.await;
    let _ = checks.await;
    let _ = fates.await;
    let _ = told.await;
    let _ = hints.await;
    // Before the lock goes: then the next agent's socket may be there.
    drop(socket);
    if options.detach_on_exit {
        handle.owner().lock().await.detach()?;
        pins.remove()?;
        tracing::info!("detached; nothing is left in the kernel");
    } else {
        tracing::info!("ended; the datapath stays: new connections are balanced as before");
    }
    Ok(())
}

/// Done when the agent is to end.
pub(crate) async fn down(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|s| *s).await;
}

/// Tells systemd, if it started us.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!("sd_notify: {e}");
    }
}

/// Records of new flows, from the programs to the log.
fn log_flows(shared: &Shared) -> anyhow::Result<()> {
    let mut object = shared.object.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let logger = crate::datapath::object::flow_log(&mut object)?;
    // SAFETY: the logger owns its descriptor, always the same one, for as long as it lives.
    let mut logger = unsafe { tokio::io::unix::AsyncFd::register(logger) }?;
    drop(object);
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}

/// Sweeps, counts and frees, until told to stop.
async fn sweep_forever(handle: Handle, mut stopped: watch::Receiver<bool>) {
    let mut recount = Recount::default();
    let (mut wait, mut clients_due) = (Duration::ZERO, Instant::now());
    loop {
        tokio::select! {
            _ = stopped.wait_for(|s| *s) => return,
            () = tokio::time::sleep(wait) => {}
        }
        let shared = handle.shared.clone();
        let (before, retired) = (shared.active(), shared.retired());
        let look_at_clients = clients_due <= Instant::now();
        let began = Instant::now();
        let pass = tokio::task::spawn_blocking(move || {
            let (timeouts, services) = (shared.timeouts(), shared.owners());
            let (object, clock) = (&shared.object, shared.clock);
            let (tables, sockets) = (&shared.tables, &shared.sockets);
            let passed =
                Pass { object, tables, sockets, clock, timeouts: &timeouts, services: &services }.run()?;
            if look_at_clients {
                let clients = clients::sweep(object, &shared.clients, clock, &shared.groups())?;
                shared.bound.store(clients, Ordering::Relaxed);
            }
            Ok::<_, DatapathError>(passed)
        });
        match pass.await {
            Ok(Ok((mut census, took))) => {
                census.drift = recount.drift(&before, &handle.shared.active(), &census.counted);
                census.generation = handle.shared.census().generation + 1;
                handle.shared.set_census(census);
                let mut owner = handle.owner().lock().await;
                owner.collect(&retired);
                owner.retry();
                wait = sweep::pause(took);
                if look_at_clients {
                    clients_due = Instant::now() + CLIENTS.max(began.elapsed() * 20);
                }
            }
            Ok(Err(e)) => {
                tracing::error!("sweep: {e}");
                wait = sweep::pause(Duration::from_secs(1));
            }
            Err(e) => tracing::error!("sweep: {e}"),
        }
    }
}
