//! What `keygen` makes.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

use lb_mesh::{Mesh, Settings, Tcp, Transport, keygen};

use crate::cluster::{Memory, NAME, identity};

fn create(directory: &Path, cluster: &str, nodes: &[&str]) -> Result<Vec<String>, String> {
    let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
    let written = keygen::create(directory, cluster, &nodes).map_err(|error| error.to_string())?;
    Ok(written.iter().map(|path| path.strip_prefix(directory).unwrap().display().to_string()).collect())
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let file =
        |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    fs::read_dir(directory).unwrap().map(|entry| file(entry.unwrap())).collect()
}

async fn is_good(directory: &Path, node: &str) -> bool {
    let settings = Settings {
        node: node.into(),
        cluster: NAME.into(),
        transport: Transport::Tcp(Tcp {
            listen: "127.0.0.1:0".parse().unwrap(),
            peers: Vec::new(),
            identity: identity(directory, node),
        }),
        aggregators: Vec::new(),
    };
    Mesh::start(settings, Memory::default()).await.is_ok()
}

#[tokio::test]
async fn nodes_are_added_and_nothing_is_written_over() {
    let parent = tempfile::tempdir().unwrap();
    let directory = &parent.path().join("keys");
    let made = create(directory, NAME, &["a", "b.example"]).unwrap();
    assert_eq!(made, ["ca.key", "ca.pem", "a.key", "a.pem", "b.example.key", "b.example.pem"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(directory), 0o700);
    for (file, _) in files(directory) {
        let wanted = if file.ends_with(".key") { 0o600 } else { 0o644 };
        assert_eq!(mode(&directory.join(&file)), wanted, "{file}");
    }
    let before = files(directory);
    assert_eq!(create(directory, NAME, &["a", "b.example"]), Ok(vec![]));
    assert_eq!(create(directory, NAME, &["a", "c"]).unwrap(), ["c.key", "c.pem"]);
    let after = files(directory);
    assert!(before.iter().all(|(file, bytes)| after[file] == *bytes), "none is written over");
    assert_eq!(after.len(), before.len() + 2, "no others are left behind");
    for node in ["a", "b.example", "c"] {
        assert!(is_good(directory, node).await, "{node}");
    }
}

#[test]
fn what_cannot_be_made_is_said_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    create(directory, NAME, &["a"]).unwrap();
    let before = files(directory);
    for (cluster, nodes, said) in [
        ("other", &["b"][..], "isn't the authority of cluster \"other\""),
        ("other", &[], "isn't the authority of cluster \"other\""),
        (NAME, &["b", "B"], "\"B\" can't be a node's name"),
        ("", &["b"], "\"\" can't be a cluster's name"),
        (NAME, &["ca"], "name the node something else"),
    ] {
        let error = create(directory, cluster, nodes).unwrap_err();
        assert!(error.contains(said), "{error}");
        assert_eq!(files(directory), before);
    }
    fs::remove_file(directory.join("a.key")).unwrap();
    let error = create(directory, NAME, &["a"]).unwrap_err();
    assert!(error.contains("a.key that belongs to it is missing"), "{error}");
    fs::remove_file(directory.join("ca.key")).unwrap();
    let error = create(directory, NAME, &["b"]).unwrap_err();
    assert!(error.contains("ca.key is missing"), "{error}");
    fs::write(directory.join("ca.key"), "none").unwrap();
    assert!(create(directory, NAME, &["b"]).unwrap_err().contains("no private key"));
}

/// Was it stopped between the two, or was the certificate lost: it is made again, and what the old one vouched for
/// stays good.
#[tokio::test]
async fn an_authority_is_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    create(directory, NAME, &["a"]).unwrap();
    fs::remove_file(directory.join(keygen::CA)).unwrap();
    assert_eq!(create(directory, NAME, &["a", "b"]).unwrap(), ["ca.pem", "b.key", "b.pem"]);
    assert!(is_good(directory, "a").await && is_good(directory, "b").await);
}
