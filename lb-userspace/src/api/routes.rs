//! The routes: a row each, from which they are served and described, and what each does: read the request, ask
//! [`Control`], shape the answer.

use axum::{
    Json,
    body::Body as Stream,
    extract::State,
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt as _, stream};

use super::{
    control::Control,
    error::Refusal,
    extract::{Asked, Body, Named},
    route::Route,
    types::{
        BackendDecl, BackendView, Closed, ClusterView, ConnectionClose, ConnectionQuery, ConnectionView,
        Deed, Detach, DetachedView, Drain, EventQuery, EventView, EverywhereView, ExplainQuery, ExplainView,
        Patch, RebalanceView, ServiceDecl, ServiceView, StatsView, StatusView, Task,
    },
};

/// What prometheus-client's text encoder writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Elements of a long list that are sent together, if there are as many.
const TOGETHER: usize = 1024;

/// JSON, an object a line.
const NDJSON: &str = "application/x-ndjson";

type Answer<T> = Result<Json<T>, Refusal>;

/// What TCP serves as well: the metrics page, and what probes ask.
pub fn probes<C: Control>() -> Vec<Route<C>> {
    vec![
        Route::get("/metrics", "The metrics page.", metrics::<C>).answers_as::<String>(OPENMETRICS),
        Route::get("/healthz", "Alive?", healthz::<C>).answers_as::<String>("text/plain"),
        Route::get("/readyz", "Balancing? If not (503), why.", readyz::<C>)
            .answers_as::<String>("text/plain"),
    ]
}

/// All else but the document that describes it.
pub fn routes<C: Control>() -> Vec<Route<C>> {
    let (service, backend) = ("/v1/services/{name}", "/v1/services/{name}/backends/{address}");
    vec![
        Route::get("/v1/services", "All services with their backends and counters.", services::<C>)
            .answers::<Vec<ServiceView>>(),
        Route::post("/v1/services", "Adds a service.", add_service::<C>)
            .takes::<ServiceDecl>()
            .answers::<ServiceView>()
            .with_status("201"),
        Route::get(service, "One service.", self::service::<C>).answers::<ServiceView>(),
        Route::patch(
            service,
            "Changes a service that the command line added, by a JSON Merge Patch (RFC 7396) of its ServiceDecl: what it \
             names is replaced, null takes back, lists are replaced whole. Done whole or not at all; open connections stay.",
            set_service::<C>,
        )
        .takes::<Patch>()
        .answers::<ServiceView>(),
        Route::delete(service, "Removes a service that the command line added.", remove_service::<C>),
        Route::get("/v1/services/{name}/backends", "The backends of a service.", backends::<C>)
            .answers::<Vec<BackendView>>(),
        Route::post(
            "/v1/services/{name}/backends",
            "Adds a backend, or declares one anew that was added before.",
            add_backend::<C>,
        )
        .takes::<BackendDecl>()
        .answers::<BackendView>(),
        Route::patch(
            backend,
            "Changes a backend that the command line added, by a JSON Merge Patch (RFC 7396) of its BackendDecl.",
            set_backend::<C>,
        )
        .takes::<Patch>()
        .answers::<BackendView>(),
        Route::delete(backend, "Removes a backend that the command line added.", remove_backend::<C>),
        Route::post(
            "/v1/services/{name}/backends/{address}/drain",
            "Sends no new connections to a backend.",
            drain::<C>,
        )
        .takes::<Drain>()
        .answers::<BackendView>(),
        Route::post(
            "/v1/services/{name}/backends/{address}/undrain",
            "Sends new connections to a draining backend again.",
            undrain::<C>,
        )
        .answers::<BackendView>(),
        Route::get(
            "/v1/services/{name}/rebalance",
            "How rebalancing of a service stands, and what it would move.",
            look_rebalance::<C>,
        )
        .answers::<RebalanceView>(),
        Route::post(
            "/v1/services/{name}/rebalance",
            "Begins to rebalance a service now, within its budget.",
            begin_rebalance::<C>,
        )
        .answers::<RebalanceView>(),
        Route::get("/v1/connections", "Pinned connections.", connections::<C>)
            .asked::<ConnectionQuery>()
            .answers::<Vec<ConnectionView>>(),
        Route::post("/v1/connections/close", "Closes connections.", close_connections::<C>)
            .takes::<ConnectionClose>()
            .answers::<Closed>(),
        Route::post(
            "/v1/detach",
            "Stops balancing, and takes the programs off: at once, or after the connections that are open.",
            detach::<C>,
        )
        .takes::<Detach>()
        .answers::<DetachedView>(),
        Route::post("/v1/attach", "Balances again after a detach.", attach::<C>).with_status("204"),
        Route::get("/v1/events", "What happened of late, or happens: an object a line.", events::<C>)
            .asked::<EventQuery>()
            .answers_as::<EventView>(NDJSON),
        Route::get("/v1/explain", "Where a client is, or would be given to.", explain::<C>)
            .asked::<ExplainQuery>()
            .answers::<ExplainView>(),
        Route::get("/v1/status", "State of the agent and its datapath.", status::<C>).answers::<StatusView>(),
        Route::get("/v1/cluster", "The nodes that share counts, and what they have.", cluster::<C>)
            .answers::<ClusterView>(),
        Route::get(
            "/v1/cluster/services/{name}/backends/{address}",
            "A backend at all nodes that share counts.",
            look_everywhere::<C>,
        )
        .answers::<EverywhereView>(),
        Route::post(
            "/v1/cluster/services/{name}/backends/{address}/drain",
            "Sends no new connections to a backend, at all nodes.",
            drain_everywhere::<C>,
        )
        .takes::<Drain>()
        .answers::<EverywhereView>(),
        Route::post(
            "/v1/cluster/services/{name}/backends/{address}/undrain",
            "Sends new connections to a draining backend again, at all nodes.",
            undrain_everywhere::<C>,
        )
        .answers::<EverywhereView>(),
        Route::get("/v1/stats", "Services with counters, and drops by reason.", stats::<C>).answers::<StatsView>(),
    ]
}

async fn services<C: Control>(State(control): State<C>) -> Answer<Vec<ServiceView>> {
    Ok(Json(control.services().await?))
}

async fn service<C: Control>(State(control): State<C>, Named(name): Named<String>) -> Answer<ServiceView> {
    Ok(Json(control.service(name).await?))
}

async fn add_service<C: Control>(
    State(control): State<C>,
    Body(add): Body<ServiceDecl>,
) -> Result<(StatusCode, Json<ServiceView>), Refusal> {
    Ok((StatusCode::CREATED, Json(control.add_service(add).await?)))
}

async fn set_service<C: Control>(
    State(control): State<C>,
    Named(name): Named<String>,
    Body(change): Body<Patch>,
) -> Answer<ServiceView> {
    Ok(Json(control.set_service(name, change).await?))
}

async fn remove_service<C: Control>(
    State(control): State<C>,
    Named(name): Named<String>,
) -> Result<StatusCode, Refusal> {
    control.remove_service(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn backends<C: Control>(
    State(control): State<C>,
    Named(name): Named<String>,
) -> Answer<Vec<BackendView>> {
    Ok(Json(control.service(name).await?.backends))
}

async fn add_backend<C: Control>(
    State(control): State<C>,
    Named(service): Named<String>,
    Body(add): Body<BackendDecl>,
) -> Answer<BackendView> {
    Ok(Json(control.add_backend(service, add).await?))
}

async fn set_backend<C: Control>(
    State(control): State<C>,
    Named((service, backend)): Named<(String, String)>,
    Body(change): Body<Patch>,
) -> Answer<BackendView> {
    Ok(Json(control.set_backend(service, backend, change).await?))
}

async fn remove_backend<C: Control>(
    State(control): State<C>,
    Named((service, backend)): Named<(String, String)>,
) -> Result<StatusCode, Refusal> {
    control.remove_backend(service, backend).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn drain<C: Control>(
    State(control): State<C>,
    Named((service, backend)): Named<(String, String)>,
    Body(drain): Body<Drain>,
) -> Answer<BackendView> {
    Ok(Json(control.drain(service, backend, drain).await?))
}

async fn undrain<C: Control>(
    State(control): State<C>,
    Named((service, backend)): Named<(String, String)>,
) -> Answer<BackendView> {
    Ok(Json(control.undrain(service, backend).await?))
}

async fn look_rebalance<C: Control>(
    State(control): State<C>,
    Named(service): Named<String>,
) -> Answer<RebalanceView> {
    Ok(Json(control.rebalance(service, false).await?))
}

async fn begin_rebalance<C: Control>(
    State(control): State<C>,
    Named(service): Named<String>,
) -> Answer<RebalanceView> {
    Ok(Json(control.rebalance(service, true).await?))
}

async fn look_everywhere<C: Control>(
    State(control): State<C>,
    Named((service, backend)): Named<(String, String)>,
) -> Answer<EverywhereView> {
    Ok(Json(control.everywhere(Task { service, backend, deed: Deed::Look }).await?))
}

async fn drain_everywhere<C: Control>(
    State(control): State<C>,
    Named((service, backend)): Named<(String, String)>,
    Body(drain): Body<Drain>,
) -> Answer<EverywhereView> {
    Ok(Json(control.everywhere(Task { service, backend, deed: Deed::Drain(drain) }).await?))
}

async fn undrain_everywhere<C: Control>(
    State(control): State<C>,
    Named((service, backend)): Named<(String, String)>,
) -> Answer<EverywhereView> {
    Ok(Json(control.everywhere(Task { service, backend, deed: Deed::Undrain }).await?))
}

/// A JSON list, written as its elements come, a line each.
async fn connections<C: Control>(
    State(control): State<C>,
    Asked(query): Asked<ConnectionQuery>,
) -> Result<Response, Refusal> {
    let elements = control.connections(query).await?.enumerate().ready_chunks(TOGETHER).map(|some| {
        let mut text = Vec::new();
        for (i, connection) in some {
            text.extend_from_slice(if i == 0 { b"" } else { b",\n" });
            serde_json::to_writer(&mut text, &connection)?;
        }
        Ok::<_, serde_json::Error>(text)
    });
    let part = |text: &str| stream::iter([Ok(text.as_bytes().to_vec())]);
    let list = part("[").chain(elements).chain(part("]\n"));
    Ok(([(header::CONTENT_TYPE, "application/json")], Stream::from_stream(list)).into_response())
}

async fn close_connections<C: Control>(
    State(control): State<C>,
    Body(close): Body<ConnectionClose>,
) -> Answer<Closed> {
    Ok(Json(control.close_connections(close).await?))
}

/// A line of JSON for each event, for as long as there are any.
async fn events<C: Control>(
    State(control): State<C>,
    Asked(query): Asked<EventQuery>,
) -> Result<Response, Refusal> {
    let lines = control.events(query).await?.map(|event| {
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(line)
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], Stream::from_stream(lines)).into_response())
}

async fn explain<C: Control>(
    State(control): State<C>,
    Asked(query): Asked<ExplainQuery>,
) -> Answer<ExplainView> {
    Ok(Json(control.explain(query).await?))
}

async fn status<C: Control>(State(control): State<C>) -> Answer<StatusView> {
    Ok(Json(control.status().await?))
}

async fn cluster<C: Control>(State(control): State<C>) -> Answer<ClusterView> {
    Ok(Json(control.cluster().await?))
}

async fn stats<C: Control>(State(control): State<C>) -> Answer<StatsView> {
    Ok(Json(control.stats().await?))
}

async fn metrics<C: Control>(State(control): State<C>) -> Result<Response, Refusal> {
    let pieces = stream::iter(control.metrics().await?.map(Ok::<_, std::convert::Infallible>));
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], Stream::from_stream(pieces)).into_response())
}

/// Alive: it answers, and whoever wants to change something gets his turn.
async fn healthz<C: Control>(State(control): State<C>) -> (StatusCode, &'static str) {
    if control.alive().await { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "busy\n") }
}

/// Balancing: the desired state is in force and everything is attached. If not, why.
async fn detach<C: Control>(State(control): State<C>, Body(detach): Body<Detach>) -> Answer<DetachedView> {
    Ok(Json(control.detach(detach).await?))
}

async fn attach<C: Control>(State(control): State<C>) -> Result<StatusCode, Refusal> {
    control.attach().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn readyz<C: Control>(State(control): State<C>) -> (StatusCode, String) {
    if control.ready().await {
        return (StatusCode::OK, "ready\n".into());
    }
    let problems = control.status().await.map_or_else(|_| Vec::new(), |s| s.problems);
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", problems.join("\n")))
}

pub async fn no_such_path(uri: Uri) -> Refusal {
    let error = format!("there is nothing at {}; start at /v1/services or /v1/status", uri.path());
    Refusal { status: StatusCode::NOT_FOUND, error }
}

pub async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    let error = format!("{method} is not for {}; the Allow header of this answer says what is", uri.path());
    Refusal { status: StatusCode::METHOD_NOT_ALLOWED, error }
}
