//! Questions to other nodes and their answers, for operators: what the mesh itself doesn't understand.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lb_cluster::NodeId;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::links::Event;

/// Questions of other nodes that wait for an answer, at most; who asks more than that hears nothing.
pub(crate) const WAITING: usize = 16;

/// What another node asks.
pub struct Question {
    /// Its name.
    pub from: String,
    /// Whatever it says.
    pub body: Vec<u8>,
    pub(crate) to: NodeId,
    pub(crate) number: u64,
    pub(crate) events: mpsc::UnboundedSender<Event>,
}

impl Question {
    /// Answers it, with at most [`MAX_TALK`](lb_cluster::frame::MAX_TALK) bytes.
    pub fn answer(self, body: Vec<u8>) {
        // If the mesh has ended, nobody waits.
        let _ = self.events.send(Event::Answer { to: self.to, number: self.number, body });
    }
}

/// What a node has said to a question.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its name.
    pub node: String,
    /// `None`: nothing, in time.
    pub body: Option<Vec<u8>>,
}

/// A node's answer, or that it is asked.
pub(crate) enum Heard {
    Asked(String),
    Said(String, Vec<u8>),
}

/// Questions of this node's that others may answer yet.
#[derive(Default)]
pub(crate) struct Asked {
    last: u64,
    open: BTreeMap<u64, (BTreeSet<NodeId>, mpsc::UnboundedSender<Heard>)>,
}

impl Asked {
    /// Another question, to these nodes: its number. Those that nobody waits for any more are forgotten.
    pub(crate) fn ask(
        &mut self,
        to: impl Iterator<Item = (NodeId, String)>,
        heard: mpsc::UnboundedSender<Heard>,
    ) -> (u64, Vec<NodeId>) {
        self.open.retain(|_, (_, heard)| !heard.is_closed());
        self.last += 1;
        let mut nodes = Vec::new();
        for (id, name) in to {
            // Who asks is still there, or needs no answer.
            let _ = heard.send(Heard::Asked(name));
            nodes.push(id);
        }
        if !nodes.is_empty() {
            self.open.insert(self.last, (nodes.iter().copied().collect(), heard));
        }
        (self.last, nodes)
    }

    /// A node's answer; nothing if it wasn't asked that, or has answered already.
    pub(crate) fn answered(&mut self, from: NodeId, name: String, number: u64, body: Vec<u8>) {
        let Some((nodes, heard)) = self.open.get_mut(&number) else { return };
        if !nodes.remove(&from) {
            return;
        }
        // As above.
        let _ = heard.send(Heard::Said(name, body));
        if nodes.is_empty() {
            self.open.remove(&number);
        }
    }
}

/// Waits until all that were asked have answered, at most so long. By name.
pub(crate) async fn replies(mut heard: mpsc::UnboundedReceiver<Heard>, patience: Duration) -> Vec<Reply> {
    let mut replies = BTreeMap::new();
    let end = Instant::now() + patience;
    while let Ok(Some(it)) = timeout_at(end, heard.recv()).await {
        match it {
            Heard::Asked(node) => replies.insert(node, None),
            Heard::Said(node, body) => replies.insert(node, Some(body)),
        };
    }
    replies.into_iter().map(|(node, body)| Reply { node, body }).collect()
}
