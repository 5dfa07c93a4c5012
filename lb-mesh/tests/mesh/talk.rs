//! Questions to all nodes.

use std::time::{Duration, Instant};

use lb_cluster::frame::MAX_TALK;
use lb_mesh::{Question, Reason, Reply};
use tokio::sync::mpsc;

use crate::cluster::{Cluster, LIMIT, refused};

fn questions(cluster: &mut Cluster, at: usize) -> mpsc::Receiver<Question> {
    cluster.nodes[at].as_mut().and_then(lb_mesh::Mesh::take_questions).expect("it runs")
}

/// What each has said, by name.
fn said(replies: &[Reply]) -> Vec<(&str, Option<&[u8]>)> {
    replies.iter().map(|reply| (reply.node.as_str(), reply.body.as_deref())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_are_asked_answer_or_are_known_not_to() {
    let mut cluster = Cluster::running(3).await;
    cluster.meshed().await;
    let asker = cluster.handle(0);
    let [mut first, mut second] = [1, 2].map(|at| questions(&mut cluster, at));
    let answers = async {
        let question = first.recv().await.expect("it is asked");
        assert_eq!((question.from.as_str(), question.body.as_slice()), ("node-0", b"how many?".as_slice()));
        question.answer(vec![5; MAX_TALK]);
        let question = second.recv().await.expect("it is asked");
        question.answer(b"none".to_vec());
    };
    let (replies, ()) = tokio::join!(asker.ask(b"how many?".to_vec(), LIMIT), answers);
    let most = vec![5; MAX_TALK];
    assert_eq!(said(&replies), [("node-1", Some(most.as_slice())), ("node-2", Some(b"none".as_slice()))]);

    // Nobody waits for one that keeps silent longer than asked to.
    let answers = async {
        first.recv().await.expect("it is asked").answer(Vec::new());
        second.recv().await.expect("it is asked")
    };
    let start = Instant::now();
    let patience = Duration::from_millis(300);
    let (replies, late) = tokio::join!(asker.ask(b"and now?".to_vec(), patience), answers);
    assert!(start.elapsed() >= patience);
    assert_eq!(said(&replies), [("node-1", Some(b"".as_slice())), ("node-2", None)]);
    // What comes too late is no fault, and answers nothing else.
    late.answer(b"well".to_vec());
    let answers = async {
        first.recv().await.expect("it is asked").answer(b"1".to_vec());
        second.recv().await.expect("it is asked").answer(b"2".to_vec());
    };
    let (replies, ()) = tokio::join!(asker.ask(b"again?".to_vec(), LIMIT), answers);
    assert_eq!(said(&replies), [("node-1", Some(b"1".as_slice())), ("node-2", Some(b"2".as_slice()))]);
    // One alone is asked.
    let answer = async { first.recv().await.expect("it is asked").answer(b"one".to_vec()) };
    let (reply, ()) = tokio::join!(asker.ask_one("node-1", b"you?".to_vec(), LIMIT), answer);
    assert_eq!(reply.as_deref(), Some(b"one".as_slice()));
    assert!(second.try_recv().is_err());
    assert_eq!(asker.ask_one("nobody", b"you?".to_vec(), LIMIT).await, None);
    let view = cluster.view(0).await;
    assert!(view.refused.values().all(|count| *count == 0), "{:?}", view.refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_asks_too_much_is_not_heard() {
    let cluster = Cluster::running(2).await;
    cluster.meshed().await;
    let asker = cluster.handle(0);
    for _ in 0..20 {
        // Nobody answers; who asks doesn't wait either.
        let replies = asker.ask(b"?".to_vec(), Duration::from_millis(1)).await;
        assert!(replies.iter().all(|reply| reply.body.is_none()), "{replies:?}");
    }
    refused(&cluster.handle(1), Reason::Flood).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_by_itself_has_nobody_to_ask() {
    let cluster = Cluster::running(1).await;
    assert!(cluster.handle(0).ask(b"?".to_vec(), LIMIT).await.is_empty());
}
