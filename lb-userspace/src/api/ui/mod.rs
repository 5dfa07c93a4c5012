//! The stats page: `/ui` on the metrics listener, for browsers. It only shows; nothing can be changed by it.
//!
//! ```text
//! page.html, .css, .js, live.js ─▶ browser ─▶ /ui/events?search=&sort=&page=&service= ─▶ View
//!                                   ▲                                                     │
//!                    parts that have changed, every second ◀─ stream ◀─ Hub (for all viewers) ◀─ Control
//! ```

mod frame;
mod hub;
mod stream;
mod view;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};
use tokio::sync::watch;

use self::{
    hub::Hub,
    view::{EventsQuery, View},
};
use super::{control::Control, error::Refusal, extract::Asked};

/// What the page may do in a browser: load its own script, style and icon, and ask for its own events. Nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// With every answer. The page is of the running binary: browsers ask whether theirs still is.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-cache"),
];

/// Path, media type, content.
const FILES: [(&str, &str, &str); 5] = [
    ("/ui", "text/html; charset=utf-8", include_str!("page.html")),
    ("/ui/page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("/ui/page.js", "text/javascript; charset=utf-8", include_str!("page.js")),
    ("/ui/live.js", "text/javascript; charset=utf-8", include_str!("live.js")),
    ("/ui/icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

/// The page and its events, until nobody keeps `stopped`.
pub fn router<C: Control>(control: C, stopped: watch::Receiver<()>) -> Router {
    let hub = Arc::new(Hub::new(control, stopped));
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, media, text)| {
            router.route(path, get(async move || ([(header::CONTENT_TYPE, media)], HEADERS, text)))
        })
        .route("/ui/", get(async || Redirect::permanent("/ui")))
        .route("/ui/events", get(events::<C>))
        .with_state(hub)
}

/// What is said where there is no page.
pub fn off() -> Router {
    let refusal = || {
        Refusal {
        status: StatusCode::NOT_FOUND,
        error: "the stats page is switched off; set ui = true in [agent] of the config file and restart the agent".into(),
    }
    };
    Router::new().route("/ui", get(async move || refusal()))
}

/// What a view shows, now and for as long as somebody looks.
async fn events<C: Control>(
    State(hub): State<Arc<Hub<C>>>,
    Asked(query): Asked<EventsQuery>,
) -> Result<Response, Refusal> {
    let view = View::try_from(query)?;
    let body = stream::body(hub, view).await?;
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], HEADERS, body).into_response())
}
