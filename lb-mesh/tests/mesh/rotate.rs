//! Files of certificates that change while meshes run.

use std::fs;

use lb_mesh::{Reason, keygen};

use crate::{
    cluster::{Cluster, NAME, identity, name, refused, service, until},
    relay::Relay,
    stranger::{Stranger, of_node},
};

/// A new authority: what is connected stays so, what connects anew has to have a certificate of the new one's.
#[tokio::test]
async fn new_files_are_for_the_next_connection() {
    let (cluster, relays) = Cluster::behind_relays(3).await;
    (0..3).for_each(|at| cluster.change(at, service(0), at, 2));
    cluster.converged().await;

    let keys = cluster.keys.path();
    let (old, new) = (of_node(keys, "node-2"), tempfile::tempdir().unwrap());
    keygen::create(new.path(), NAME, &(0..3).map(name).collect::<Vec<_>>()).unwrap();
    let old_ca = fs::read(keys.join(keygen::CA)).unwrap();
    for at in 0..3 {
        let (from, to) = (identity(new.path(), &name(at)), identity(keys, &name(at)));
        for (from, to) in [(from.certificate, to.certificate), (from.key, to.key), (from.ca, to.ca)] {
            fs::copy(from, to).unwrap();
        }
    }
    cluster.change(1, service(0), 3, 1);
    cluster.converged().await;
    relays.iter().for_each(Relay::cut);
    until("they haven't connected anew", || async {
        for at in 0..3 {
            let view = cluster.view(at).await;
            let since = |member: &lb_mesh::Member| member.connected;
            if view.members.iter().filter(|it| since(it).is_some()).count() != 2 {
                return Err(view);
            }
        }
        Ok(())
    })
    .await;
    cluster.change(2, service(0), 0, 1);
    cluster.converged().await;
    for at in 0..3 {
        let view = cluster.view(at).await;
        assert_eq!((view.refused[&Reason::Certificate], view.identity), (0, None));
    }
    // The old authority's isn't good any more.
    let trusting = tempfile::tempdir().unwrap();
    fs::copy(keys.join(keygen::CA), trusting.path().join(keygen::CA)).unwrap();
    let address = cluster.address(0);
    assert!(!Stranger::connect(address, trusting.path(), Some(old)).await.is_taken().await);
    refused(&cluster.handle(0), Reason::Certificate).await;
    assert_ne!(old_ca, fs::read(keys.join(keygen::CA)).unwrap());
}

/// Files that are only half there, or wrong, are said to be; the last good ones stay in use.
#[tokio::test]
async fn files_that_cannot_be_used_change_nothing() {
    let mut cluster = Cluster::new(3);
    let address = cluster.start(0, Vec::new()).await.unwrap();
    let keys = cluster.keys.path();
    let shown = || of_node(keys, "node-2");
    let mine = identity(keys, "node-0");
    let good = fs::read(&mine.certificate).unwrap();
    for (bad, said) in [
        (fs::read(identity(keys, "node-1").certificate).unwrap(), "take the certificate of this node"),
        (good[..good.len() / 2].to_vec(), "PEM"),
        (Vec::new(), "there is no certificate in PEM"),
    ] {
        fs::write(&mine.certificate, bad).unwrap();
        assert!(Stranger::connect(address, keys, Some(shown())).await.is_taken().await, "{said}");
        let problem = cluster.view(0).await.identity;
        assert!(problem.as_ref().is_some_and(|problem| problem.contains(said)), "{said}: {problem:?}");
    }
    fs::write(&mine.certificate, good).unwrap();
    assert!(Stranger::connect(address, keys, Some(shown())).await.is_taken().await);
    assert_eq!(cluster.view(0).await.identity, None);
}
