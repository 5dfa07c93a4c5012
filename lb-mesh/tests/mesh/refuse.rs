//! What is wrong is refused and counted, changes nothing, and others go on.

use std::{fs, net::SocketAddr, path::Path};

use lb_cluster::{
    NodeId,
    frame::{Ack, Alive, Ask, Frame, Hello, Own, Report, Subscribe, Total, Totals},
};
use lb_mesh::{Mesh, MeshError, PeerState, Reason, keygen};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    cluster::{Cluster, Memory, NAME, backend, identity, name, refused, service, until},
    stranger::{Authority, Stranger, of_node},
};

const OURS: &str = "test.cluster.flowpin.internal";

/// Two nodes that have connections, keys for `node-2`, which doesn't run, and where the first one is.
async fn cluster() -> (Cluster, SocketAddr) {
    let mut cluster = Cluster::new(3);
    for at in 0..2 {
        cluster.start(at, Vec::new()).await;
    }
    cluster.introduce();
    cluster.meshed().await;
    cluster.change(0, service(0), 0, 2);
    cluster.change(1, service(0), 1, 3);
    cluster.converged().await;
    let address = cluster.address(0);
    (cluster, address)
}

/// The node as it should be for others, with certificates of the other authority being good as well.
fn trust(cluster: &Cluster, authority: &Authority) {
    let ca = cluster.keys.path().join(keygen::CA);
    let both = fs::read_to_string(&ca).unwrap() + &authority.pem;
    fs::write(ca, both).unwrap();
}

#[tokio::test]
async fn certificates_that_are_not_a_nodes() {
    let (cluster, address) = cluster().await;
    let (keys, unknown, known) = (cluster.keys.path(), Authority::new(), Authority::new());
    trust(&cluster, &known);
    let good = known.certificate(&["node-7", OURS], 1);
    assert!(Stranger::connect(address, keys, Some(good)).await.is_taken().await);
    let mut counted = cluster.view(0).await.refused;
    for (what, shown, reason) in [
        ("none", None, Reason::Certificate),
        ("an unknown authority's", Some(unknown.certificate(&["node-2", OURS], 1)), Reason::Certificate),
        ("an expired one", Some(known.certificate(&["node-2", OURS], -1)), Reason::Certificate),
        ("no cluster's", Some(known.certificate(&["node-2"], 1)), Reason::Name),
        (
            "another cluster's",
            Some(known.certificate(&["node-2", "other.cluster.flowpin.internal"], 1)),
            Reason::Name,
        ),
        (
            "one of any cluster",
            Some(known.certificate(&["node-2", "*.cluster.flowpin.internal"], 1)),
            Reason::Name,
        ),
        ("no node's", Some(known.certificate(&[OURS], 1)), Reason::Name),
        ("two nodes'", Some(known.certificate(&["node-2", "node-3", OURS], 1)), Reason::Name),
        ("one of any node", Some(known.certificate(&["*.example", OURS], 1)), Reason::Name),
        ("one in upper case", Some(known.certificate(&["Node-2", OURS], 1)), Reason::Name),
    ] {
        assert!(!Stranger::connect(address, keys, shown).await.is_taken().await, "{what}");
        *counted.get_mut(&reason).unwrap() += 1;
        let handle = cluster.handle(0);
        until(&format!("{what}: not counted as {reason:?}"), || async {
            let view = handle.view().await.unwrap();
            if view.refused == counted { Ok(()) } else { Err(view.refused) }
        })
        .await;
    }
    assert!(cluster.view(0).await.members.iter().all(|member| member.name != "node-2"));
    cluster.goes_on().await;
}

/// A whole cluster that has the same name, and is in the list of peers, but has its own authority.
#[tokio::test]
async fn a_node_of_another_authority_is_no_member() {
    let (cluster, address) = cluster().await;
    let other = Cluster::new(1);
    let mut settings = other.settings(0, vec![address]);
    settings.aggregators = Vec::new();
    let mesh = Mesh::start(settings, Memory::default()).await.unwrap();
    cluster.handle(0).set_peers(vec![mesh.address().unwrap().to_string()]).unwrap();
    refused(&mesh.handle(), Reason::Certificate).await;
    refused(&cluster.handle(0), Reason::Certificate).await;
    until("it isn't shown", || async {
        let view = cluster.view(0).await;
        let failing =
            |peer: &lb_mesh::Peer| matches!(&peer.state, PeerState::Failing(why) if why.contains("cert"));
        if view.peers.iter().any(failing) { Ok(()) } else { Err(view.peers) }
    })
    .await;
    assert_eq!(mesh.handle().view().await.unwrap().members.len(), 1);
    cluster.goes_on().await;
}

/// `node-2` as a member, from now on.
async fn member(cluster: &Cluster, address: SocketAddr) -> Stranger {
    let keys = cluster.keys.path();
    let mut stranger = Stranger::connect(address, keys, Some(of_node(keys, "node-2"))).await;
    assert!(stranger.is_taken().await);
    stranger
}

#[tokio::test]
async fn a_node_that_speaks_for_another() {
    let (cluster, address) = cluster().await;
    let mut stranger = member(&cluster, address).await;
    let (node, service) = (NodeId::of("node-1"), service(0));
    let report = Report {
        node,
        service,
        epoch: u64::MAX,
        seq: 1,
        base: 0,
        pool: 4,
        counts: vec![Own { backend: backend(0), open: 99 }],
    };
    let totals = Totals {
        owner: node,
        epoch: u64::MAX,
        service,
        seq: u64::MAX,
        whole: true,
        settling: false,
        rate: 0.0,
        gap: 0,
        counts: vec![Total { backend: backend(0), open: 99 }],
        acks: vec![Ack { node: NodeId::of("node-0"), epoch: 0, seq: 0 }],
    };
    let hello = Hello { node: name(1), cluster: NAME.into(), epoch: 1 };
    for (side, frame) in [
        (0, Frame::Report(report)),
        (0, Frame::Hello(hello)),
        (0, Frame::Subscribe(Subscribe { node, service })),
        (0, Frame::Ask(Ask { from: node, service })),
        (0, Frame::Leave(lb_cluster::frame::Leave { node, service, epoch: u64::MAX, seq: u64::MAX })),
        (1, Frame::Totals(totals)),
        (1, Frame::Ask(Ask { from: node, service })),
        (1, Frame::Alive(Alive { owner: node, epoch: u64::MAX, greeting: None })),
    ] {
        stranger.frame(side, &frame).await;
    }
    let other = Hello { node: name(2), cluster: "other".into(), epoch: 1 };
    stranger.frame(0, &Frame::Hello(other.clone())).await;
    stranger.frame(1, &Frame::Hello(other)).await;
    let handle = cluster.handle(0);
    until("not all were counted", || async {
        let refused = handle.view().await.unwrap().refused;
        let counts = [Reason::ForAnother, Reason::Name, Reason::Frame].map(|reason| refused[&reason]);
        if counts == [8, 1, 1] { Ok(()) } else { Err(refused) }
    })
    .await;
    let view = cluster.view(0).await;
    let member = view.members.iter().find(|member| member.name == "node-2").unwrap();
    assert_eq!((member.traffic.refused, member.traffic.frames_in), (10, 10));
    assert!(member.connected.is_none(), "nobody can connect to it: it owns nothing");
    assert!(!view.aggregators.contains(&name(2)));
    cluster.goes_on().await;
}

#[tokio::test]
async fn bytes_that_are_no_frames() {
    let (cluster, address) = cluster().await;
    let mut stranger = member(&cluster, address).await;
    stranger.packed(0, b"").await;
    stranger
        .packed(2, &Frame::Subscribe(Subscribe { node: NodeId(1), service: service(0) }).encode().unwrap())
        .await;
    for bytes in [&b"\x01\xff\xff\xff\xff"[..], b"\x02\x00", &[0; 100], b"GET / HTTP/1.1\r\n\r\n"] {
        stranger.packed(1, bytes).await;
    }
    let counted = |count| {
        let handle = cluster.handle(0);
        async move {
            until("not all were counted", || async {
                let refused = handle.view().await.unwrap().refused;
                if refused[&Reason::Malformed] == count { Ok(()) } else { Err(refused) }
            })
            .await;
        }
    };
    counted(6).await;
    // What comes after too great a length can't be understood any more.
    stranger.raw(&u32::MAX.to_be_bytes()).await;
    stranger.is_closed().await;
    counted(7).await;
    let mut stranger = member(&cluster, address).await;
    stranger.raw(&((1 << 20) + 2u32).to_be_bytes()).await;
    stranger.is_closed().await;
    counted(8).await;
    cluster.goes_on().await;
}

#[tokio::test]
async fn those_who_do_not_speak_tls_or_say_nothing() {
    let (cluster, address) = cluster().await;
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _ = plain.read_to_end(&mut Vec::new()).await;
    refused(&cluster.handle(0), Reason::Handshake).await;

    // From another address, so that the nodes' own isn't the one that is refused.
    let connect = || async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.connect(address).await.unwrap()
    };
    let mut silent = Vec::new();
    for _ in 0..17 {
        silent.push(connect().await);
    }
    refused(&cluster.handle(0), Reason::Connections).await;
    member(&cluster, address).await;
    cluster.goes_on().await;
    // They are given up, and others are taken in their place.
    for mut stream in silent {
        let _ = stream.read(&mut [0; 1]).await;
    }
    let before = cluster.view(0).await.refused;
    assert_eq!(before[&Reason::Connections], 1);
    assert_eq!(before[&Reason::Handshake], 17);
}

#[tokio::test]
async fn a_certificate_that_many_use_at_once() {
    let (cluster, address) = cluster().await;
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(member(&cluster, address).await);
    }
    let keys = cluster.keys.path();
    let mut more = Stranger::connect(address, keys, Some(of_node(keys, "node-2"))).await;
    assert!(!more.is_taken().await);
    refused(&cluster.handle(0), Reason::Connections).await;
    cluster.goes_on().await;
}

#[tokio::test]
async fn a_flood_of_frames() {
    let (cluster, address) = cluster().await;
    let mut stranger = member(&cluster, address).await;
    let frame = Frame::Ask(Ask { from: NodeId::of("node-2"), service: service(9) }).encode().unwrap();
    let mut packed = (1 + frame.len() as u32).to_be_bytes().to_vec();
    packed.push(0);
    packed.extend_from_slice(&frame);
    let flood = async {
        let many = packed.repeat(1_000);
        loop {
            stranger.raw(&many).await;
        }
    };
    let meanwhile = async {
        refused(&cluster.handle(0), Reason::Flood).await;
        for _ in 0..20 {
            cluster.goes_on().await;
        }
        let view = cluster.view(0).await;
        let flooding = view.members.iter().find(|member| member.name == "node-2").unwrap();
        assert!(flooding.traffic.refused > 0 && flooding.traffic.frames_in >= 20_000, "{flooding:?}");
    };
    tokio::select! {
        () = flood => {}
        () = meanwhile => {}
    }
}

fn of_another(keys: &Path) -> lb_mesh::Identity {
    let mut files = identity(keys, "node-0");
    files.key = identity(keys, "node-1").key;
    files
}

#[tokio::test]
async fn settings_that_cannot_be_right_are_said_to_be() {
    let cluster = Cluster::new(2);
    let keys = cluster.keys.path();
    let good = || cluster.settings(0, Vec::new());
    let tcp = |tcp| lb_mesh::Settings { transport: lb_mesh::Transport::Tcp(tcp), ..good() };
    let of = |identity| tcp(lb_mesh::Tcp { identity, ..cluster.tcp(0, Vec::new()) });
    let peers = lb_mesh::Tcp { peers: vec!["node-2".into()], ..cluster.tcp(0, Vec::new()) };
    let listening = Mesh::start(good(), Memory::default()).await.unwrap();
    let taken = lb_mesh::Tcp { listen: listening.address().unwrap(), ..cluster.tcp(0, Vec::new()) };
    let no_key = lb_mesh::Identity { key: keys.join(keygen::CA), ..identity(keys, "node-0") };
    let missing = lb_mesh::Identity { ca: keys.join("none"), ..identity(keys, "node-0") };
    for (settings, said) in [
        (lb_mesh::Settings { node: "Node".into(), ..good() }, "\"Node\" can't be a node's name"),
        (lb_mesh::Settings { cluster: "a b".into(), ..good() }, "\"a b\" can't be a cluster's name"),
        (tcp(peers), "peer \"node-2\": write HOST:PORT"),
        (lb_mesh::Settings { aggregators: (0..17).map(name).collect(), ..good() }, "17 aggregators: name 16"),
        (of(identity(keys, "node-1")), "take the certificate of this node"),
        (lb_mesh::Settings { cluster: "other".into(), ..good() }, "isn't among them"),
        (of(of_another(keys)), "doesn't fit"),
        (of(no_key), "no private key in PEM"),
        (of(missing), "No such file"),
        (tcp(taken), "can't listen on"),
    ] {
        let error =
            Mesh::start(settings, Memory::default()).await.err().map(|error: MeshError| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(said)), "{said}: {error:?}");
    }
}
