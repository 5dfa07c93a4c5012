//! Nodes that run, stop and start end with the same totals.

use std::time::Duration;

use lb_mesh::{PeerState, Reason};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{task::yield_now, time::sleep};

use crate::{
    cluster::{BACKENDS, Cluster, Memory, name, service, until},
    relay::{Faults, Relay},
};

/// Connections open and close on all nodes that run.
pub async fn churn(cluster: &Cluster, services: usize, steps: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let running: Vec<_> = (0..cluster.nodes.len()).filter(|at| cluster.nodes[*at].is_some()).collect();
    let mut open = Vec::new();
    for _ in 0..steps {
        if rng.random_range(0..3) == 0 && !open.is_empty() {
            let (at, service, slot) = open.swap_remove(rng.random_range(0..open.len()));
            cluster.change(at, service, slot, -1);
        } else {
            let at = running[rng.random_range(0..running.len())];
            let it = (at, service(rng.random_range(0..services)), rng.random_range(0..BACKENDS));
            cluster.change(it.0, it.1, it.2, 1);
            open.push(it);
        }
        if rng.random_range(0..10) == 0 {
            // Reports and totals of a moment, not of all at once.
            sleep(Duration::from_millis(1)).await;
        }
        yield_now().await;
    }
}

async fn nodes_agree(nodes: usize) {
    let cluster = Cluster::running(nodes).await;
    cluster.meshed().await;
    churn(&cluster, 5, 600, nodes as u64).await;
    cluster.converged().await;
    for at in 0..nodes {
        let view = cluster.view(at).await;
        assert!(view.refused.values().all(|count| *count == 0), "{:?}", view.refused);
        assert_eq!(view.members.iter().filter(|member| member.itself).count(), 1);
        assert_eq!(view.members.len(), nodes);
        assert!(view.peers.iter().any(|peer| peer.state == PeerState::Itself), "{:?}", view.peers);
        assert!(
            view.services.iter().all(|service| service.age.is_some_and(|age| age < crate::cluster::LIMIT))
        );
        assert!(view.traffic.frames_in > 0 && view.traffic.bytes_out > 0, "{:?}", view.traffic);
        let members = view.members.iter().filter(|member| !member.itself);
        let (members, heard): (Vec<_>, Vec<_>) = members.map(|it| (it.traffic, it.heard)).unzip();
        assert_eq!(members.iter().map(|it| it.frames_in).sum::<u64>(), view.traffic.frames_in);
        assert!(heard.iter().all(Option::is_some));
        let memory = &cluster.memories[at];
        let before = memory.extended();
        until("what was written isn't kept good", || async {
            if memory.extended() > before { Ok(()) } else { Err(before) }
        })
        .await;
    }
}

#[tokio::test]
async fn three_nodes_agree() {
    nodes_agree(3).await;
}

#[tokio::test]
async fn eight_nodes_agree() {
    nodes_agree(8).await;
}

#[tokio::test]
async fn one_node_alone_is_a_cluster() {
    let cluster = Cluster::running(1).await;
    cluster.change(0, service(0), 2, 3);
    cluster.converged().await;
    let view = cluster.view(0).await;
    assert_eq!((view.aggregators, view.services[0].owner.clone()), (vec![name(0)], Some(name(0))));
}

/// Where a node's first connection goes follows from the order, which so has to be there before.
#[tokio::test]
async fn each_node_has_an_order_of_its_own_before_there_are_connections() {
    let mut cluster = Cluster::new(4);
    for at in 0..4 {
        cluster.start(at, Vec::new()).await;
        cluster.handle(at).rewrite(service(0));
    }
    let orders = || cluster.memories.iter().map(|memory| memory.order(service(0))).collect::<Vec<_>>();
    until("a node alone has the first place", || async {
        let orders = orders();
        if orders.iter().all(|order| order.is_some() && *order == orders[0]) { Ok(()) } else { Err(orders) }
    })
    .await;
    cluster.introduce();
    until("four places are four orders", || async {
        let orders = orders();
        let different: std::collections::BTreeSet<_> = orders.iter().flatten().collect();
        if different.len() == 4 { Ok(()) } else { Err(orders) }
    })
    .await;
}

/// Lines with 20 ms each way, of which one in a hundred portions breaks one.
#[tokio::test]
async fn slow_lines_that_break_delay_and_lose_nothing() {
    let mut cluster = Cluster::new(4);
    let mut relays = Vec::new();
    for _ in 0..4 {
        relays.push(Relay::new(Faults { delay: Duration::from_millis(20), breaks: 1 }).await);
    }
    let addresses: Vec<_> = relays.iter().map(|relay| relay.address).collect();
    for (at, relay) in relays.iter().enumerate() {
        let peers = addresses.iter().filter(|address| **address != relay.address).copied().collect();
        relay.lead_to(cluster.start(at, peers).await);
    }
    cluster.meshed().await;
    for round in 0..3 {
        churn(&cluster, 3, 150, round).await;
        cluster.converged().await;
    }
    let reported: Vec<Duration> = cluster.memories.iter().flat_map(Memory::reported).collect();
    assert!(!reported.is_empty(), "nodes say how long reports take");
    assert!(reported.iter().all(|took| *took >= Duration::from_millis(40)), "{reported:?}");
    // And all at once.
    relays.iter().for_each(Relay::cut);
    churn(&cluster, 3, 50, 9).await;
    cluster.converged().await;
}

#[tokio::test]
async fn a_mesh_that_was_stopped_can_be_started_at_the_same_address() {
    let mut cluster = Cluster::running(2).await;
    cluster.meshed().await;
    (0..2).for_each(|at| cluster.change(at, service(0), at, 1));
    let mesh = cluster.nodes[0].take().unwrap();
    let (handle, address) = (mesh.handle(), mesh.address().unwrap());
    mesh.stop().await;
    assert!(handle.view().await.is_none(), "nothing is heard of it any more");
    let tcp = lb_mesh::Tcp { listen: address, ..cluster.tcp(0, vec![cluster.address(1)]) };
    let transport = lb_mesh::Transport::Tcp(tcp);
    let settings = lb_mesh::Settings { transport, ..cluster.settings(0, Vec::new()) };
    cluster.nodes[0] = Some(lb_mesh::Mesh::start(settings, cluster.memories[0].clone()).await.unwrap());
    cluster.change(0, service(0), 0, 1);
    cluster.converged().await;
    cluster.meshed().await;
}

/// The owner of a service, among others, starts again, and then again when it was gone for long.
#[tokio::test]
async fn an_owner_that_is_killed_and_comes_back_knows_all_again() {
    let (mut cluster, relays) = Cluster::behind_relays(3).await;
    let addresses: Vec<_> = relays.iter().map(|relay| relay.address).collect();
    churn(&cluster, 4, 200, 1).await;
    cluster.converged().await;
    let owner = cluster.view(0).await.services[0].owner.clone().unwrap();
    let owner = (0..3).find(|at| name(*at) == owner).unwrap();

    relays[owner].lead_to(cluster.start(owner, addresses.clone()).await);
    relays[owner].cut();
    churn(&cluster, 4, 100, 2).await;
    cluster.converged().await;

    cluster.nodes[owner] = None;
    relays[owner].lead_to(None);
    relays[owner].cut();
    // Its services go to others, and what it had is forgotten.
    churn(&cluster, 4, 100, 3).await;
    cluster.converged().await;
    cluster.meshed().await;
    relays[owner].lead_to(cluster.start(owner, addresses).await);
    churn(&cluster, 4, 100, 4).await;
    cluster.converged().await;
    cluster.meshed().await;
}

/// What is for a node that takes nothing waits, or is dropped; others hear as before.
#[tokio::test]
async fn a_node_that_takes_nothing_delays_no_other() {
    let mut cluster = Cluster::new(3);
    cluster.aggregators = vec![name(0)];
    let relay = Relay::new(Faults::default()).await;
    let mut addresses = Vec::new();
    for at in 0..3 {
        addresses.push(cluster.start(at, Vec::new()).await.unwrap());
    }
    relay.lead_to(Some(addresses[2]));
    addresses[2] = relay.address;
    for at in 0..3 {
        cluster.handle(at).set_peers(addresses.iter().map(ToString::to_string).collect()).unwrap();
    }
    (0..3).for_each(|at| cluster.change(at, service(0), 0, 1));
    cluster.converged().await;
    relay.set_stuck(true);
    for round in 0..50 {
        cluster.change(round % 2, service(0), round % BACKENDS, 1);
        let truth = cluster.truth(service(0));
        until("the other one doesn't hear", || async {
            let view = cluster.view(1).await;
            if crate::cluster::seen(&view, service(0)) == Some(truth) { Ok(()) } else { Err(view) }
        })
        .await;
    }
    relay.set_stuck(false);
    cluster.converged().await;
    let view = cluster.view(0).await;
    assert_eq!(view.refused[&Reason::Flood], 0);
}
