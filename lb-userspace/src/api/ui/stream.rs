//! Server-sent events (HTML Living Standard, 9.2): every second what has changed of a view, then a `tick`.

use std::{collections::HashMap, convert::Infallible, fmt::Write as _, sync::Arc};

use axum::body::Body;
use futures::{StreamExt as _, stream};
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::{
    frame::Frame,
    hub::{EVERY, Hub, Viewer},
    view::View,
};
use crate::api::{control::Control, error::Refusal};

/// Sent first: how soon a browser is to come back, in milliseconds.
const RETRY: &str = "retry: 2000\n\n";

/// Somebody who looks at something.
struct Looking<C: Control> {
    viewer: Viewer<C>,
    view: View,
    sent: Sent,
    ticks: Interval,
    /// What is shown at once.
    first: Option<Arc<Frame>>,
}

/// What a viewer has.
#[derive(Default)]
struct Sent {
    parts: HashMap<&'static str, Arc<str>>,
    rows: HashMap<String, Arc<str>>,
}

/// The events of a view, until the agent ends. What is wrong with it is said at once.
///
/// # Errors
/// There are too many viewers, no such service, or the kernel refuses.
pub async fn body<C: Control>(hub: Arc<Hub<C>>, view: View) -> Result<Body, Refusal> {
    let viewer = hub.admit()?;
    let first = Some(hub.frame(&view).await?);
    let mut ticks = interval_at(tokio::time::Instant::now() + EVERY, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopped = hub.stopped.clone();
    let looking = Looking { viewer, view, sent: Sent::default(), ticks, first };
    let events = stream::unfold(looking, |mut looking| async {
        let text = looking.next().await;
        Some((Ok::<_, Infallible>(text), looking))
    });
    let until = async move {
        // An error means that nobody keeps it.
        let _ = stopped.changed().await;
    };
    Ok(Body::from_stream(events.take_until(until)))
}

impl<C: Control> Looking<C> {
    async fn next(&mut self) -> String {
        if let Some(first) = self.first.take() {
            return format!("{RETRY}{}", self.sent.news(&first));
        }
        self.ticks.tick().await;
        match self.viewer.hub.frame(&self.view).await {
            Ok(frame) => self.sent.news(&frame),
            // A service may have gone, and may come back.
            Err(error) => {
                self.sent = Sent::default();
                let mut text = String::new();
                event(&mut text, "failure", &json!({ "error": Refusal::from(error).line() }).to_string());
                text
            }
        }
    }
}

impl Sent {
    /// What isn't as it was.
    fn news(&mut self, frame: &Frame) -> String {
        let mut text = String::new();
        for (name, part) in &frame.parts {
            if self.parts.insert(name, part.clone()).is_none_or(|old| old != *part) {
                event(&mut text, name, part);
            }
        }
        let mut rows = Vec::new();
        let before = std::mem::take(&mut self.rows);
        for (name, row) in &frame.rows {
            if before.get(name) != Some(row) {
                rows.push(&**row);
            }
            self.rows.insert(name.clone(), row.clone());
        }
        if !rows.is_empty() {
            event(&mut text, "rows", &format!("[{}]", rows.join(",")));
        }
        event(&mut text, "tick", &json!({ "at": frame.at }).to_string());
        text
    }
}

/// JSON has no line breaks but between its words, and these have none.
fn event(text: &mut String, name: &str, data: &str) {
    // A String takes it all.
    let _ = write!(text, "event: {name}\ndata: {data}\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(at: f64, list: &str, rows: &[(&str, &str)]) -> Frame {
        let rows = rows.iter().map(|(name, row)| (name.to_string(), Arc::from(*row))).collect();
        Frame { at, parts: vec![("list", list.into())], rows }
    }

    #[test]
    fn only_what_has_changed_is_sent_again() {
        let mut sent = Sent::default();
        let first = sent.news(&frame(1.0, "{}", &[("a", "{\"n\":1}"), ("b", "{\"n\":2}")]));
        assert_eq!(
            first,
            "event: list\ndata: {}\n\nevent: rows\ndata: [{\"n\":1},{\"n\":2}]\n\nevent: tick\ndata: {\"at\":1.0}\n\n"
        );
        let same = sent.news(&frame(2.0, "{}", &[("a", "{\"n\":1}"), ("b", "{\"n\":2}")]));
        assert_eq!(same, "event: tick\ndata: {\"at\":2.0}\n\n");
        let changed = sent.news(&frame(3.0, "{}", &[("b", "{\"n\":3}")]));
        assert_eq!(changed, "event: rows\ndata: [{\"n\":3}]\n\nevent: tick\ndata: {\"at\":3.0}\n\n");
        let back = sent.news(&frame(4.0, "{}", &[("a", "{\"n\":1}"), ("b", "{\"n\":3}")]));
        assert!(
            back.contains("data: [{\"n\":1}]\n"),
            "a row that was left out is sent when it is back: {back}"
        );
    }
}
