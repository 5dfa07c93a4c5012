//! The daemon: wires sources, owner, sweeper and faces together, and owns their lifetimes.
//!
//! ```text
//! config file, state file ─▶ Owner ─▶ maps, links          HUP ─▶ reload
//! netlink ─▶ Seen ─▶ Owner::look                        TERM, INT ─▶ out; the datapath stays
//! host's rules, routes ─▶ hints ─▶ State::warnings, every minute
//! API server of Kubernetes ─▶ feed ─▶ Owner::follow_cluster
//! DNS ─▶ names ─▶ Owner::learn           counters ─▶ one_way ─▶ State::one_way
//! health (a task a backend) ─▶ Owner::set_health      Owner::ramp, every second
//! sweeper (thread) ─▶ census ─▶ Owner::collect             API, metrics ─▶ Handle ─▶ Owner
//! sweeper, deadlines, API ─▶ Closer ─▶ sweep programs, both ends
//! ```
//!
//! Each task is kept by [`tasks::Tasks`].

mod changes;
mod close;
mod closing;
mod control;
mod due;
pub mod events;
mod explain;
mod first;
mod flow_log;
pub mod handle;
pub mod hints;
pub mod kubernetes;
mod names;
mod netlink;
mod one_way;
pub mod owner;
mod reading;
mod saving;
mod scrape;
mod seen;
pub mod shared;
mod socket;
pub mod state;
mod sweeping;
pub(crate) mod tasks;
mod upkeep;
mod watchdog;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::{Mutex, Notify, mpsc, watch},
};

use self::{
    flow_log::{flow_logger, log_flows},
    handle::Handle,
    netlink::Netlink,
    owner::Owner,
    seen::Seen,
    shared::Shared,
    tasks::Tasks,
    upkeep::Signs,
};
use crate::{
    api::server,
    cluster, connection_log,
    datapath::{
        events::Events,
        interfaces,
        object::{Object, Wanted},
        others::Others,
        pin::PinDir,
        repin::Repin,
        sockets,
    },
    health,
    source::SocketScope,
};

/// How long tasks may take to end when they are told to.
const END: Duration = Duration::from_millis(2_300);

/// And when the process ends, come what may.
const AT_LAST: Duration = Duration::from_millis(2_800);

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
    let hup = signal(SignalKind::hangup())?;
    end_in_time(options.detach_on_exit)?;
    log_panics();
    take_files();
    let loaded = owner::load(options.config.as_deref())?;
    let config = loaded.config.clone();
    // Then the lock: whoever is refused here has touched nothing.
    let pins = Arc::new(PinDir::open(&config.pin_dir)?);
    let log = tracing::enabled!(target: "flowpin::flows", tracing::Level::DEBUG);
    let listening = async {
        let (api, socket) = socket::listen(options.api_socket.as_ref().unwrap_or(&config.api_socket)).await?;
        let metrics = TcpListener::bind(config.metrics_listen).await.with_context(|| {
            format!("metrics_listen {}: choose a free address and port", config.metrics_listen)
        })?;
        anyhow::Ok((api, socket, metrics))
    };
    let (api, socket, metrics) = listening.await.inspect_err(|_| pins.remove_empty())?;
    let led = config.sockets.scope != SocketScope::Off;
    let wanted = Wanted {
        max_flows: config.max_flows,
        max_clients: config.max_clients,
        hash_seed: config.hash_seed,
        shares: config.cluster.is_some(),
        netns: if led { sockets::own_netns()? } else { 0 },
        sockets_led: sockets::whose(&config),
        log,
    };
    let object = Object::load(&pins, &wanted)?;
    let others = config.cluster.is_some().then(|| Others::of(&object)).transpose()?;
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
    let shared = Arc::new(Shared::new(object, &pins, led, options.config.clone())?);
    let first = interfaces::connect()?;
    let mut owner = Owner::new(shared.clone(), loaded, &pins)?;
    let seen = Seen::look(&first).await;
    owner.start(&seen, &pins)?;
    first::say(&seen, &config, options.config.as_deref());
    shared.note_own(&seen);
    shared.kubernetes.send_replace(config.kubernetes.clone());
    shared.connection_log.set(config.log.clone());
    let netlink = Netlink::new(first);
    let handle = Handle::new(owner, netlink.clone());
    handle.note_ways().await;

    let (stop, stopped) = watch::channel(false);
    let report = handle.shared.clone();
    let mut tasks = Tasks::new(Arc::new(move |name, said| report.note_task(name, said)), stopped);
    let listeners = (api.into_std()?, metrics.into_std()?);
    let (change, changes) = mpsc::channel(1);
    tasks.keep("netlink", move |stopped| netlink::run(netlink.clone(), change.clone(), stopped));
    if log {
        let logger = Arc::new(Mutex::new(flow_logger(&handle.shared)?));
        tasks.keep("flow log", move |stopped| log_flows(logger.clone(), stopped));
    }
    if let (Some(spec), Some(others)) = (config.cluster.clone(), others.map(Arc::new)) {
        // Until it is, so that whoever waits for the agent waits for that too.
        let not_yet = Err("counts aren't shared yet; this node counts by itself");
        handle.shared.write().note(cluster::PROBLEM, not_yet);
        let agent = handle.clone();
        tasks.keep("cluster", move |stopped| {
            cluster::run(agent.clone(), spec.clone(), others.clone(), stopped)
        });
    }
    start(
        &mut tasks,
        &handle,
        &pins,
        listeners,
        config.ui,
        Signs { hup, changes, repin: Repin::new(pins.clone())? },
    );
    notify(&[sd_notify::NotifyState::Ready]);
    trim();
    tracing::info!("ready");

    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    stop.send_replace(true);
    if !tasks.end(END).await {
        tracing::warn!("some tasks are cut short");
    }
    handle.shared.save_last();
    // Before the lock goes: then the next agent's socket may be there.
    drop(socket);
    let off = handle.owner().lock().await.is_off();
    if options.detach_on_exit || off {
        handle.owner().lock().await.detach()?;
        pins.remove()?;
        tracing::info!("detached; nothing is left in the kernel");
    } else {
        tracing::info!("ended; the datapath stays: new connections are balanced as before");
    }
    Ok(())
}

/// Starts the agent's tasks.
fn start(
    tasks: &mut Tasks,
    handle: &Handle,
    pins: &Arc<PinDir>,
    (api, metrics): (std::os::unix::net::UnixListener, std::net::TcpListener),
    ui: bool,
    signs: Signs,
) {
    let of = || handle.clone();
    let (server, probes, due) = (of(), of(), of());
    tasks.keep("api", move |stopped| {
        let (listener, handle) = (api.try_clone().and_then(UnixListener::from_std), server.clone());
        async move {
            match listener {
                Ok(listener) => server::serve(listener, handle, down(stopped)).await,
                Err(e) => tracing::error!("API: {e}"),
            }
        }
    });
    tasks.keep("metrics", move |stopped| {
        let (listener, handle) = (metrics.try_clone().and_then(TcpListener::from_std), probes.clone());
        async move {
            match listener {
                Ok(listener) => server::serve_metrics(listener, handle, ui, down(stopped)).await,
                Err(e) => tracing::error!("metrics: {e}"),
            }
        }
    });
    tasks.keep("deadlines", move |stopped| due::run(due.clone(), stopped));
    let watched = of();
    tasks.keep("watchdog", move |stopped| watchdog::run(watched.clone(), stopped));
    let shared = handle.shared.clone();
    tasks.keep("closer", move |stopped| closing::run(shared.clone(), stopped));
    let (told, pins) = (of(), pins.clone());
    tasks.keep("events", move |stopped| {
        let (handle, pins) = (told.clone(), pins.clone());
        async move {
            match Events::open(&pins) {
                Ok(events) => events::run(handle, events, stopped).await,
                Err(e) => tracing::error!("events: {e}"),
            }
        }
    });
    let answers = of();
    tasks.keep("answers", move |stopped| one_way::run(answers.clone(), stopped));
    let logged = handle.shared.clone();
    tasks.keep("connection log", move |stopped| {
        let (log, active, noted) = (logged.connection_log.clone(), logged.clone(), logged.clone());
        let hands = connection_log::Hands {
            active: Box::new(move |backend| active.maps.active(backend)),
            note: Box::new(move |standing| noted.write().note("connection log", standing)),
        };
        connection_log::run(log, hands, stopped)
    });
    let checks = of();
    tasks.keep("health checks", move |stopped| health::run(checks.clone(), stopped));
    let host = Arc::new(Notify::new());
    let (shared, netlink, again) = (handle.shared.clone(), handle.netlink.clone(), host.clone());
    tasks.keep("host's rules", move |stopped| {
        hints::run(shared.clone(), netlink.clone(), again.clone(), stopped)
    });
    let sweeper = of();
    tasks.keep("sweeper", move |stopped| sweeping::run(sweeper.clone(), stopped));
    let follower = of();
    tasks.keep("Kubernetes", move |stopped| kubernetes::run(follower.clone(), stopped));
    let named = of();
    tasks.keep("host names", move |stopped| names::run(named.clone(), stopped));
    let asked = of();
    tasks.keep("Kubernetes' probes", move |stopped| kubernetes::listen(asked.clone(), stopped));
    let mover = of();
    tasks.keep("rebalancing", move |stopped| cluster::rebalance::run(mover.clone(), stopped));
    let (keeper, signs) = (of(), Arc::new(Mutex::new(signs)));
    tasks.keep("upkeep", move |stopped| upkeep::run(keeper.clone(), signs.clone(), host.clone(), stopped));
}

/// Ends the process some time after it was told to end, whatever it is doing then: all that packets need is in the
/// kernel, at any moment. `detach`: it was to take everything down, and may not have.
fn end_in_time(detach: bool) -> std::io::Result<()> {
    // A runtime of its own, since the other's threads may all be busy.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("end".into()).spawn(move || {
        runtime.block_on(async {
            let (Ok(mut term), Ok(mut int)) =
                (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
            else {
                return;
            };
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            tokio::time::sleep(AT_LAST).await;
            tracing::warn!("ended in the middle of something; the next agent will see to it");
            std::process::exit(i32::from(detach));
        });
    })?;
    Ok(())
}

/// Has all threads use one arena of malloc's, so that one takes what another has freed: changes are made by one thread and
/// now by another. For the beginning, when there are no others yet.
pub(crate) fn share_memory() {
    // SAFETY: it may be called at any time (mallopt(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// Has signals come to a thread of their own: the kernel gives up verifying a program when one comes for the thread that
/// loads it. For the beginning: threads that are made later are like the one that makes them.
///
/// # Errors
/// There can be no further thread.
pub(crate) fn signals_apart() -> std::io::Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let signals =
        [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGCHLD, Signal::SIGUSR1];
    let signals = SigSet::from_iter(signals);
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Err(e) = signals.thread_unblock() {
            tracing::error!("signals: {e}");
        }
        loop {
            nix::unistd::pause();
        }
    })?;
    Ok(())
}

/// Takes as many open files as it may have: each check and each connection to the API is one.
fn take_files() {
    let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let raised = nix::sys::resource::getrlimit(limit)
        .and_then(|(_, most)| nix::sys::resource::setrlimit(limit, most, most));
    if let Err(e) = raised {
        tracing::warn!("the limit of open files stays as it is: {e}");
    }
}

/// Gives memory back that a large change took for a while.
pub(crate) fn trim() {
    // SAFETY: it may be called at any time, by any thread (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Has panics logged: one that nobody waits for would otherwise be heard of by nobody.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}; report this, with the lines before it")));
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
