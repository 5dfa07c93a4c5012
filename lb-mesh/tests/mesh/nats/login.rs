//! Who a node is to its server, and what it may do there.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use lb_mesh::{Mesh, Nats, PeerState, Reason, Settings, Transport, keygen};
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::{PASSWORD, failing, nats, permissions, server::NatsServer};
use crate::cluster::{Cluster, Memory, NAME, identity, name, refused, service};

#[tokio::test]
async fn a_wrong_login_is_said_and_tried_again() {
    let server = NatsServer::start(&permissions(3)).await;
    let mut cluster = Cluster::new(3);
    let login = |login: &str| nats(&server.url(login));
    cluster.nats = vec![login(&format!("node-0:{PASSWORD}x@")), login(""), login(&format!("{PASSWORD}@"))];
    for at in 0..3 {
        cluster.start(at, Vec::new()).await;
        failing(&cluster, at, "the server refuses the login (authorization violation)").await;
        assert_eq!(cluster.view(at).await.members.len(), 1);
    }
}

/// A node that may not do what it has to, such as one with another node's login.
#[tokio::test]
async fn what_the_server_does_not_allow_is_said() {
    let server = NatsServer::start(&permissions(2)).await;
    let mut cluster = Cluster::new(2);
    cluster.nats = vec![nats(&server.url(&format!("node-0:{PASSWORD}@"))); 2];
    for at in 0..2 {
        cluster.start(at, Vec::new()).await;
    }
    failing(&cluster, 1, "publish to flowpin.test.node-1.>, and to subscribe to flowpin.test.*.here and")
        .await;
    // What node 1 says nobody hears, and what is said to it neither.
    assert_eq!(cluster.view(0).await.members.len(), 1);
    let view = cluster.view(0).await;
    assert!(matches!(view.peers[0].state, PeerState::Connected(_)), "{:?}", view.peers);
}

/// The server and the nodes show certificates, of the same authority for once.
#[tokio::test]
async fn certificates_of_the_server_and_of_nodes() {
    let keys = tempfile::tempdir().unwrap();
    keygen::create(keys.path(), NAME, &["localhost".into(), name(0), name(1)]).unwrap();
    let files = identity(keys.path(), "localhost");
    let config = format!(
        "tls: {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
        files.certificate, files.key, files.ca
    );
    let server = NatsServer::start(&config).await;
    let with = |at: usize| {
        let identity = identity(keys.path(), &name(at));
        Nats {
            ca: Some(identity.ca),
            certificate: Some((identity.certificate, identity.key)),
            ..nats(&format!("tls://localhost:{}", server.port))
        }
    };
    let mut cluster = Cluster::new(4);
    let stranger = identity(cluster.keys.path(), "node-2");
    let no_one = Nats { certificate: None, ..with(0) };
    cluster.nats = vec![with(0), with(1), no_one, Nats { ca: Some(stranger.ca), ..with(0) }];
    for at in 0..4 {
        cluster.start(at, Vec::new()).await;
    }
    // It shows none.
    failing(&cluster, 2, "ertificate").await;
    // It doesn't believe the server.
    failing(&cluster, 3, "invalid peer certificate").await;
    refused(&cluster.handle(3), Reason::Certificate).await;
    (cluster.nodes[2], cluster.nodes[3]) = (None, None);
    cluster.meshed().await;
    (0..2).for_each(|at| cluster.change(at, service(0), at, 1));
    cluster.converged().await;
}

/// A signed statement, as NATS has them: who it is by, about whom, and what.
fn jwt(by: &KeyPair, about: &KeyPair, nats: Value) -> String {
    let claims =
        json!({"iss": by.public_key(), "sub": about.public_key(), "name": "test", "iat": 1, "nats": nats});
    let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let said = format!("{}.{}", encoded(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), encoded(&claims));
    let signature = URL_SAFE_NO_PAD.encode(by.sign(said.as_bytes()).unwrap());
    format!("{said}.{signature}")
}

/// Files of credentials, as `nsc` makes them; they are read for each connection.
#[tokio::test]
async fn files_of_credentials() {
    let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
    let limits =
        json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1});
    let account_jwt = jwt(&operator, &account, json!({"type": "account", "version": 2, "limits": limits}));
    let config = format!(
        "trusted_keys: [{}]\nresolver: MEMORY\nresolver_preload: {{ {}: {account_jwt} }}",
        operator.public_key(),
        account.public_key()
    );
    let server = NatsServer::start(&config).await;
    let files = tempfile::tempdir().unwrap();
    let path = |at| files.path().join(format!("{}.creds", name(at)));
    let write = |at: usize, account: &KeyPair| {
        let user = KeyPair::new_user();
        let nats = json!({
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
            "pub": {"allow": [format!("flowpin.{NAME}.{}.>", name(at))]},
            "sub": {"allow": [format!("flowpin.{NAME}.*.here"), format!("flowpin.{NAME}.*.to.{}", name(at))]},
        });
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            jwt(account, &user, nats),
            user.seed().unwrap()
        );
        std::fs::write(path(at), text).unwrap();
    };
    let mut cluster = Cluster::new(2);
    cluster.nats = (0..2).map(|at| Nats { credentials: Some(path(at)), ..nats(&server.url("")) }).collect();
    write(0, &account);
    // Of an account that the server doesn't know.
    write(1, &KeyPair::new_account());
    for at in 0..2 {
        cluster.start(at, Vec::new()).await;
    }
    failing(&cluster, 1, "authorization violation").await;
    write(1, &account);
    cluster.meshed().await;
    (0..2).for_each(|at| cluster.change(at, service(0), at, 1));
    cluster.converged().await;
}

#[tokio::test]
async fn settings_of_nats_that_cannot_be_right_are_said_to_be() {
    let cluster = Cluster::new(1);
    let good = || nats("nats://h");
    let missing = || Some("/nowhere/node-0.creds".into());
    for (nats, said) in [
        (Nats { servers: Vec::new(), ..good() }, "no NATS server is named"),
        (Nats { credentials: missing(), ..good() }, "/nowhere/node-0.creds: No such file"),
        (
            Nats { credentials: missing(), ..nats("nats://u:s3cret@h") },
            "nats://u:***@h:4222 has a user or a token, and there is a file of credentials too: keep one of them",
        ),
        (Nats { ca: Some("/nowhere/ca.pem".into()), ..good() }, "/nowhere/ca.pem: No such file"),
    ] {
        let settings = Settings { transport: Transport::Nats(nats), ..cluster.settings(0, Vec::new()) };
        let error = Mesh::start(settings, Memory::default()).await.err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(said)), "{said}: {error:?}");
    }
}
