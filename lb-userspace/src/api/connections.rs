//! Connections to what the agent serves: HTTP/1.1 until they end. Whoever connects and asks nothing, or has asked and keeps the connection, can't
//! keep others from being answered: where there are too many, the one that has been idle longest is closed for the next.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, response::IntoResponse as _, serve::Listener};
use futures::FutureExt as _;
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    server::conn::http1::Builder,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::timeout,
};
use tower::{Service as _, service_fn};

use super::error::{ApiError, Refusal};

/// Connections of a listener at a time.
const MOST: usize = 256;
/// How long a request's head may take, and a connection may be idle.
const HEAD: Duration = Duration::from_secs(30);
/// How long requests that have begun may take once the server is to stop. A client that sends half a request and waits must
/// not keep the agent from going.
const GRACE: Duration = Duration::from_secs(2);

/// How long one has to be idle before it is closed for another: what has just come is about to ask, and the end of an answer may
/// still be on its way.
const IDLE: Duration = Duration::from_secs(1);

/// One of them.
struct Connection {
    /// Since when it is idle; `None`: it is being answered.
    idle: Mutex<Option<Instant>>,
    close: Notify,
}

impl Connection {
    fn set(&self, idle: Option<Instant>) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = idle;
    }

    fn idle_since(&self) -> Option<Instant> {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered: until its answer has gone.
struct Answering(Arc<Connection>);

impl Answering {
    fn new(connection: &Arc<Connection>) -> Self {
        connection.set(None);
        Self(connection.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set(Some(Instant::now()));
    }
}

/// The body of an answer.
struct Answer {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Answer {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves until `shutdown` is done; requests that have begun are answered, for two seconds at most. `what`: for messages.
pub async fn serve<L: Listener>(
    what: &str,
    mut listener: L,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (stop, stopped) = watch::channel(());
    let mut tasks = JoinSet::new();
    let mut open: VecDeque<Weak<Connection>> = VecDeque::new();
    tokio::pin!(shutdown);
    'listening: loop {
        let (stream, _) = tokio::select! {
            () = &mut shutdown => break 'listening,
            accepted = listener.accept() => accepted,
        };
        while tasks.try_join_next().is_some() {}
        open.retain(|one| one.strong_count() > 0);
        while open.len() >= MOST && !make_room(&mut open) {
            // All are being answered, or have just come.
            tokio::select! {
                () = &mut shutdown => break 'listening,
                _ = timeout(IDLE, tasks.join_next()) => open.retain(|one| one.strong_count() > 0),
            }
        }
        let connection =
            Arc::new(Connection { idle: Mutex::new(Some(Instant::now())), close: Notify::new() });
        open.push_back(Arc::downgrade(&connection));
        tasks.spawn(converse(stream, router.clone(), connection, stopped.clone()));
    }
    drop(listener);
    drop(stop);
    if timeout(GRACE, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("{what}: a request took longer than the agent waits for when it ends");
    }
}

/// Has the one closed that has been idle longest, if any has for long enough.
fn make_room(open: &mut VecDeque<Weak<Connection>>) -> bool {
    let since = |one: &Weak<Connection>| one.upgrade().and_then(|connection| connection.idle_since());
    let idle = open.iter().enumerate().filter_map(|(i, one)| Some((since(one)?, i)));
    let Some((_, i)) = idle.min().filter(|(since, _)| since.elapsed() >= IDLE) else { return false };
    if let Some(connection) = open.remove(i).and_then(|one| one.upgrade()) {
        connection.close.notify_one();
    }
    true
}

/// Answers a connection's requests until it ends, is to be closed or nobody keeps `stopped`.
async fn converse(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    router: Router,
    connection: Arc<Connection>,
    mut stopped: watch::Receiver<()>,
) {
    let known = connection.clone();
    let answers = service_fn(move |request: http::Request<Incoming>| {
        let (answering, mut router) = (Answering::new(&known), router.clone());
        async move {
            let answered = AssertUnwindSafe(router.call(request.map(Body::new))).catch_unwind().await;
            let response = match answered {
                Ok(response) => response?,
                // Why is in the log.
                Err(_) => {
                    let said = "the agent failed at this; report it, with the log";
                    Refusal::from(ApiError::Failed(said.into())).into_response()
                }
            };
            Ok::<_, std::convert::Infallible>(response.map(|body| Answer { body, _answering: answering }))
        }
    });
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(answers));
    tokio::pin!(served);
    // How one ends is between it and its client.
    tokio::select! {
        _ = &mut served => {}
        () = connection.close.notified() => {}
        _ = stopped.changed() => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}
