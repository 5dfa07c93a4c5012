//! The same through a NATS server.

mod login;
mod server;

use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use lb_cluster::{
    NodeId,
    frame::{Alive, Ask, Frame, Hello, Own, Report, Subscribe},
};
use lb_mesh::{Member, Nats, NatsServer as Address, PeerState, Reason};
use tokio::time::Instant;

use crate::{
    cluster::{Cluster, NAME, backend, name, refused, service, until},
    converge::churn,
};
use server::NatsServer;

const PASSWORD: &str = "s3cret";

/// What a server is told: a login for each node, that may speak for it and nobody else.
fn permissions(nodes: usize) -> String {
    let user = |at| {
        let node = name(at);
        format!(
            "{{ user: {node}, password: {PASSWORD}, permissions: {{ publish: \"flowpin.{NAME}.{node}.>\", \
             subscribe: [\"flowpin.{NAME}.*.here\", \"flowpin.{NAME}.*.to.{node}\"] }} }}\n"
        )
    };
    format!("authorization: {{ users: [\n{}] }}", (0..nodes).map(user).collect::<String>())
}

fn nats(url: &str) -> Nats {
    Nats { servers: Address::list(url).unwrap(), credentials: None, ca: None, certificate: None }
}

/// So many that run, each with its own login.
async fn cluster(nodes: usize) -> (Cluster, NatsServer) {
    let server = NatsServer::start(&permissions(nodes)).await;
    let urls = (0..nodes).map(|at| server.url(&format!("{}:{PASSWORD}@", name(at)))).collect();
    (of(urls).await, server)
}

/// Nodes at these servers.
async fn of(urls: Vec<String>) -> Cluster {
    let mut cluster = Cluster::new(urls.len());
    cluster.nats = urls.iter().map(|url| nats(url)).collect();
    for at in 0..urls.len() {
        cluster.start(at, Vec::new()).await;
    }
    cluster.meshed().await;
    cluster
}

/// Two nodes that have connections, and a server that lets anybody say anything, as whom `node-2` may come.
async fn open() -> (Cluster, NatsServer, Client) {
    let server = NatsServer::start("").await;
    let cluster = of(vec![server.url(""); 2]).await;
    cluster.change(0, service(0), 0, 2);
    cluster.change(1, service(0), 1, 3);
    cluster.converged().await;
    let stranger = async_nats::connect(server.url("")).await.unwrap();
    (cluster, server, stranger)
}

fn packed(side: u8, frame: &[u8]) -> Vec<u8> {
    [&(1 + frame.len() as u32).to_be_bytes(), &[side][..], frame].concat()
}

async fn publish(stranger: &Client, subject: &str, bytes: impl Into<Bytes>) {
    stranger.publish(subject.to_owned(), bytes.into()).await.unwrap();
    stranger.flush().await.unwrap();
}

/// A node as another sees it, if it is a member.
async fn member(cluster: &Cluster, at: usize, node: usize) -> Option<Member> {
    cluster.view(at).await.members.into_iter().find(|member| member.name == name(node))
}

#[tokio::test]
async fn three_nodes_agree_and_nothing_is_refused() {
    let (cluster, server) = cluster(3).await;
    churn(&cluster, 5, 600, 3).await;
    cluster.converged().await;
    for at in 0..3 {
        let view = cluster.view(at).await;
        assert!(view.refused.values().all(|count| *count == 0), "{:?}", view.refused);
        assert!(matches!(&view.peers[..], [peer] if matches!(peer.state, PeerState::Connected(_))));
        assert_eq!(view.peers[0].peer, server.url(&format!("{}:***@", name(at))));
        assert!(!format!("{view:?} {:?}", cluster.nats).contains(PASSWORD));
        assert!(view.traffic.frames_in > 0 && view.traffic.bytes_out > 0, "{:?}", view.traffic);
        let members = view.members.iter().filter(|member| !member.itself);
        assert_eq!(members.clone().map(|it| it.traffic.frames_in).sum::<u64>(), view.traffic.frames_in);
        assert!(members.clone().all(|it| it.heard.is_some() && it.address.is_none() && it.incoming == 1));
        assert_eq!((members.count(), view.traffic.dropped), (2, 0));
    }
}

/// The only sign is that nothing comes: 3 seconds after the last that did.
#[tokio::test]
async fn a_node_that_is_killed_is_gone_after_the_silence() {
    let (mut cluster, _server) = cluster(3).await;
    (0..3).for_each(|at| cluster.change(at, service(0), at, 1));
    cluster.converged().await;
    let killed = Instant::now();
    cluster.nodes[2] = None;
    until("it is still a member", || async {
        match member(&cluster, 0, 2).await {
            None => Ok(()),
            Some(member) => Err(member),
        }
    })
    .await;
    let after = killed.elapsed();
    // The last that came was a beacon or a frame of the second before, and the silence is all that is waited for.
    assert!(after > Duration::from_millis(1_900) && after < Duration::from_secs(6), "{after:?}");
    cluster.converged().await;
    cluster.meshed().await;
    cluster.start(2, Vec::new()).await;
    cluster.meshed().await;
    cluster.converged().await;
}

/// As when a connection is closed: at once it isn't connected any more, and a member for a moment yet.
#[tokio::test]
async fn a_node_that_ends_says_so() {
    let (mut cluster, _server) = cluster(2).await;
    (0..2).for_each(|at| cluster.change(at, service(0), at, 1));
    cluster.converged().await;
    let ended = Instant::now();
    cluster.nodes[1].take().unwrap().stop().await;
    until("it is still connected", || async {
        match member(&cluster, 0, 1).await {
            Some(member) if member.connected.is_none() => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert!(ended.elapsed() < Duration::from_millis(1_900), "{:?}", ended.elapsed());
    cluster.start(1, Vec::new()).await;
    cluster.meshed().await;
    cluster.converged().await;
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back() {
    let (cluster, mut server) = cluster(3).await;
    churn(&cluster, 3, 100, 1).await;
    cluster.converged().await;
    for long in [false, true] {
        server.kill();
        // Counts go on changing; who tells of them isn't kept waiting.
        churn(&cluster, 3, 200, 2).await;
        if long {
            until("nodes don't count by themselves", || async {
                for at in 0..3 {
                    let view = cluster.view(at).await;
                    let failing =
                        matches!(&view.peers[0].state, PeerState::Failing(why) if why.contains("refused"));
                    if view.members.len() != 1 || !failing {
                        return Err(view);
                    }
                }
                Ok(())
            })
            .await;
        }
        server.run_again();
        cluster.meshed().await;
        churn(&cluster, 3, 100, 3).await;
        cluster.converged().await;
    }
    for at in 0..3 {
        let view = cluster.view(at).await;
        assert_eq!(view.members.len(), 3, "{:#?}", view.members);
        assert!(view.refused.values().all(|count| *count == 0), "{:?}", view.refused);
    }
}

/// No connection is closed, and nothing answers.
#[tokio::test]
async fn a_server_that_answers_nothing() {
    let (cluster, server) = cluster(2).await;
    (0..2).for_each(|at| cluster.change(at, service(0), at, 1));
    cluster.converged().await;
    server.set_stuck(true);
    for at in 0..2 {
        failing(&cluster, at, "no answer in 5s").await;
        assert_eq!(cluster.view(at).await.members.len(), 1);
    }
    churn(&cluster, 2, 100, 4).await;
    server.set_stuck(false);
    cluster.meshed().await;
    cluster.converged().await;
}

/// The second of a list is taken while the first is away.
#[tokio::test]
async fn servers_are_tried_in_turn() {
    let server = NatsServer::start("").await;
    let urls = format!("nats://127.0.0.1:1,{}", server.url(""));
    let cluster = of(vec![urls; 2]).await;
    let states: Vec<_> = cluster.view(0).await.peers.into_iter().map(|peer| peer.state).collect();
    assert!(matches!(&states[..], [PeerState::Failing(_), PeerState::Connected(_)]), "{states:?}");
}

/// Waits until a node says that its server can't be used, for a reason.
async fn failing(cluster: &Cluster, at: usize, said: &str) {
    until(&format!("it isn't said: {said}"), || async {
        let view = cluster.view(at).await;
        assert!(!format!("{view:?}").contains(PASSWORD));
        match &view.peers[0].state {
            PeerState::Failing(why) if why.contains(said) => Ok(()),
            _ => Err(view.peers),
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_speaks_for_another_and_messages_that_are_nobodys() {
    let (cluster, _server, stranger) = open().await;
    let (node, service) = (NodeId::of("node-1"), service(0));
    let counts = vec![Own { backend: backend(0), open: 99 }];
    let report = Report { node, service, epoch: u64::MAX, seq: 1, base: 0, pool: 4, counts };
    let hello = Hello { node: name(1), cluster: NAME.into(), epoch: 1 };
    let mut all = Vec::new();
    for (side, frame) in [
        (0, Frame::Report(report)),
        (0, Frame::Hello(hello)),
        (0, Frame::Subscribe(Subscribe { node, service })),
        (1, Frame::Ask(Ask { from: node, service })),
        (1, Frame::Alive(Alive { owner: node, epoch: u64::MAX, greeting: None })),
    ] {
        all.extend(packed(side, &frame.encode().unwrap()));
    }
    // All at once, as a node writes them.
    publish(&stranger, "flowpin.test.node-2.to.node-0", all).await;
    let other = Hello { node: name(2), cluster: "other".into(), epoch: 1 };
    let other = packed(0, &Frame::Hello(other).encode().unwrap());
    publish(&stranger, "flowpin.test.node-2.to.node-0", other).await;
    for bytes in
        [&[0, 0][..], &[0, 0, 0, 9, 0], &packed(2, &[1]), &packed(0, b"\x01\xff"), &packed(0, b"\x02")]
    {
        publish(&stranger, "flowpin.test.node-2.to.node-0", bytes.to_vec()).await;
    }
    publish(&stranger, "flowpin.test.node-2.here", "here").await;
    // Who nobody can be, and who this node is itself.
    publish(&stranger, "flowpin.test.Node.to.node-0", packed(0, &[1])).await;
    publish(&stranger, "flowpin.test.node-0.to.node-0", packed(0, &[1])).await;
    publish(&stranger, "flowpin.test.node-0.here", [0, 0, 3, 232, 0, 0, 0, 0, 0, 0, 0, 1].to_vec()).await;
    let handle = cluster.handle(0);
    until("not all were counted", || async {
        let refused = handle.view().await.unwrap().refused;
        let counts = [Reason::ForAnother, Reason::Name, Reason::Malformed].map(|reason| refused[&reason]);
        if counts == [5, 1 + 3, 6] { Ok(()) } else { Err(refused) }
    })
    .await;
    cluster.goes_on().await;
    let view = cluster.view(0).await;
    let refused: u64 = view.refused.values().sum();
    assert_eq!(refused, 15, "{:?}", view.refused);
}

#[tokio::test]
async fn a_flood_of_frames_is_bounded_and_delays_no_other() {
    let (cluster, _server, stranger) = open().await;
    let frame = Frame::Ask(Ask { from: NodeId::of("node-2"), service: service(9) }).encode().unwrap();
    let frame = Bytes::from(packed(0, &frame).repeat(10));
    let flood = async {
        loop {
            for _ in 0..1_000 {
                stranger.publish("flowpin.test.node-2.to.node-0", frame.clone()).await.unwrap();
            }
            stranger.flush().await.unwrap();
        }
    };
    let meanwhile = async {
        refused(&cluster.handle(0), Reason::Flood).await;
        for _ in 0..20 {
            cluster.goes_on().await;
        }
        let flooding = member(&cluster, 0, 2).await.expect("it is heard");
        assert!(flooding.traffic.refused > 0 && flooding.traffic.frames_in >= 20_000, "{flooding:?}");
        assert!(member(&cluster, 0, 1).await.is_some_and(|it| it.connected.is_some()));
    };
    tokio::select! {
        () = flood => {}
        () = meanwhile => {}
    }
}
