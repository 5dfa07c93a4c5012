//! The last list, on disk: for a start when no API server is there. Replaced whole.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    Options, State,
    cache::{Cache, Kind, Words},
    node::Node,
    record::{Service, Slice},
    zones::Zones,
};
use crate::{
    model::{OwnAddresses, ServiceSpec, uptime},
    source::runtime::{read, replace},
};

/// Where it is kept.
pub fn path(state_file: &Path) -> PathBuf {
    state_file.with_file_name("kubernetes.json")
}

/// Services of ours, by name, that follow from the list, if it is of this node.
///
/// # Errors
/// It is there and can't be used.
pub fn specs(
    path: &Path,
    node: &str,
    options: &Options,
    own: &OwnAddresses,
) -> Result<BTreeMap<String, Arc<ServiceSpec>>, String> {
    let Some(saved) = Saved::load(path)?.filter(|saved| saved.node == node) else {
        return Ok(BTreeMap::new());
    };
    let mut state = State::new(node, options.clone());
    state.set_own(own);
    saved.restore(&mut state.cache);
    state.follow(uptime::now());
    Ok(state.specs().map(|spec| (spec.name.clone(), spec.clone())).collect())
}

/// Version of the file's form.
const VERSION: u32 = 1;

/// The API server's own Service.
pub const API: &str = "default/kubernetes";

/// Where the API server is, as itself says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiServer {
    /// Cluster addresses, which this agent serves.
    pub cluster: Vec<IpAddr>,
    /// What is behind them.
    pub endpoints: Vec<SocketAddr>,
}

impl ApiServer {
    /// From what is known.
    pub fn of(cache: &Cache) -> Self {
        let cluster = cache.services.get(API).into_iter().flat_map(|api| api.cluster.into_iter().flatten());
        let slices = cache.slices_of(API).into_iter();
        let endpoints = slices.flat_map(|slice| {
            let https = slice.ports.iter().filter(|port| &*port.name == "https");
            https.flat_map(|port| slice.endpoints.iter().map(|e| SocketAddr::new(e.address, port.port)))
        });
        Self { cluster: cluster.collect(), endpoints: endpoints.collect() }
    }
}

type All<T> = Vec<(Arc<str>, T)>;

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    /// Whose list it is.
    pub node: String,
    /// Where the API server was.
    pub api: ApiServer,
    zones: Vec<Box<[Box<str>]>>,
    services: All<Service>,
    slices: All<Slice>,
    nodes: All<Node>,
    cidrs: All<Box<[IpNet]>>,
    namespaces: All<Words>,
}

fn all<T: Clone + PartialEq>(kind: &Kind<T>) -> All<T> {
    kind.iter().map(|(key, kept)| (key.clone(), kept.clone())).collect()
}

impl Saved {
    /// What is known.
    pub fn of(cache: &Cache) -> Self {
        Self {
            version: VERSION,
            node: cache.me().into(),
            api: ApiServer::of(cache),
            zones: cache.zones.lists().to_vec(),
            services: all(&cache.services),
            slices: all(&cache.slices),
            nodes: cache.known_nodes(),
            cidrs: all(&cache.cidrs),
            namespaces: all(&cache.namespaces),
        }
    }

    /// Is known again, until there is a list.
    pub fn restore(self, cache: &mut Cache) {
        cache.zones = Zones::from_lists(self.zones);
        cache.services.restore(self.services);
        cache.slices.restore(self.slices);
        cache.nodes.restore(self.nodes);
        cache.cidrs.restore(self.cidrs);
        cache.namespaces.restore(self.namespaces);
        cache.restored();
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// The disk refused; the old file is untouched.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_vec(self).map_err(|e| e.to_string())?;
        replace(path, &text).map_err(|e| e.to_string())
    }

    /// Reads it. `None`: there is none.
    ///
    /// # Errors
    /// It is there and can't be used.
    pub fn load(path: &Path) -> Result<Option<Self>, String> {
        read(path, VERSION)
    }
}
