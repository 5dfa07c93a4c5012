//! Every program of the object loaded for trial, and a table made: which features this kernel takes. Over small maps
//! of the trial's own; nothing is pinned or attached, and all of it is gone afterwards.

use std::collections::BTreeMap;

use aya::{Ebpf, EbpfLoader};
use lb_common::{
    abi::{limits, maps, programs, socket::led},
    flow_table,
};

use super::{
    DatapathError,
    features::{Feature, Status},
    object, refusal,
    steps::Kind,
    tables,
};

/// A feature and its programs.
struct Part {
    name: &'static str,
    programs: &'static [&'static str],
    good: &'static str,
}

impl Part {
    /// Its programs, and those that they go on with.
    fn all(&self) -> impl Iterator<Item = &'static str> {
        let kinds: Vec<Kind> = self.programs.iter().take(1).filter_map(|name| Kind::of(name)).collect();
        let steps = kinds.into_iter().flat_map(|kind| kind.steps().1).map(|(_, name)| name);
        self.programs.iter().copied().chain(steps)
    }
}

const PARTS: [Part; 7] = [
    Part {
        name: "TC",
        programs: &[programs::TC, programs::TC_INGRESS, programs::TC_BESIDES],
        good: "attach = \"tc\"",
    },
    Part { name: "TC fast", programs: &[programs::TC_FAST], good: "attach = \"tc\" with fast" },
    Part {
        name: "XDP",
        programs: &[programs::XDP, programs::XDP_INGRESS, programs::XDP_FAST],
        good: "attach = \"xdp\"",
    },
    Part {
        name: "XDP on virtual devices",
        programs: &[programs::XDP_VIRTUAL, programs::XDP_VIRTUAL_INGRESS, programs::XDP_VIRTUAL_FAST],
        good: "attach = \"xdp\" on veth, tun, tap and bridges",
    },
    Part { name: "egress", programs: &[programs::EGRESS], good: "with TC and XDP, for packets that leave" },
    Part {
        name: "sockets",
        programs: &{
            let [a, b, c, d, e, f, g, h] = programs::SOCKET_ADDRESS;
            [a, b, c, d, e, f, g, h, programs::SOCKET_RELEASE]
        },
        good: "[sockets], for the node's own processes",
    },
    Part {
        name: "sweeper",
        programs: &[
            programs::SWEEP4,
            programs::SWEEP6,
            programs::SWEEP_SOCKETS,
            programs::FORGET,
            programs::CLOCK,
        ],
        good: "flows that are over are removed",
    },
];

/// Loads everything. A feature is missing if any program of its is refused; a refused program of no feature has its
/// own line.
///
/// # Errors
/// The object isn't there or can't be loaded at all.
pub fn run() -> Result<Vec<Feature>, DatapathError> {
    let mut ebpf =
        loader().load(object::bytes()?).map_err(DatapathError::kernel("loading the BPF object"))?;
    let refused = load_all(&mut ebpf);
    let table = ebpf.take_map(maps::TABLES).ok_or(DatapathError::NoObject).and_then(tables::try_one);
    let mut features = features(&refused);
    features.push(match table {
        Ok(()) => feature("consistent hashing", Ok("algorithm = \"consistent-hash\"")),
        Err(e) => feature("consistent hashing", Err(e.to_string())),
    });
    Ok(features)
}

fn loader() -> EbpfLoader<'static> {
    /// What an agent might choose; the verifier takes them for constants.
    const BUCKETS: u32 = flow_table::buckets(limits::MOST_DEFAULT_FLOWS);
    let mut loader = EbpfLoader::new();
    loader
        .verifier_log_level(refusal::LOG)
        .override_global("FLOW_BUCKETS", &BUCKETS, true)
        .override_global("FLOW_SEED", &1u64, true)
        .override_global(aya_log::LEVEL, &0u8, true)
        .override_global("NODE_NETNS", &1u64, true)
        .override_global("SOCKETS_LED", &led::OF_THE_NODE, true)
        .override_global("TICK_HZ", &250u32, true);
    object::shrink(&mut loader);
    loader
}

/// Loads all programs; which were refused, and why. What isn't a refusal, like a lack of permission, is one here.
fn load_all(ebpf: &mut Ebpf) -> BTreeMap<String, String> {
    ebpf.programs_mut()
        .filter_map(|(name, program)| {
            Some((name.to_string(), refusal::reason(&refusal::load(program).err()?)))
        })
        .collect()
}

fn features(refused: &BTreeMap<String, String>) -> Vec<Feature> {
    let of_part = |part: &Part| {
        let mut bad = part.all().filter_map(|name| Some((name, refused.get(name)?)));
        let Some((program, reason)) = bad.next() else { return feature(part.name, Ok(part.good)) };
        let more = match bad.count() {
            0 => String::new(),
            n => format!(" (and {n} more of its programs)"),
        };
        feature(part.name, Err(format!("this kernel refuses {program}: {reason}{more}")))
    };
    let known = |name: &str| PARTS.iter().any(|part| part.all().any(|own| own == name));
    let others = refused.iter().filter(|(name, _)| !known(name));
    let others = others.map(|(name, reason)| {
        feature(&format!("program {name}"), Err(format!("this kernel refuses it: {reason}")))
    });
    PARTS.iter().map(of_part).chain(others).collect()
}

fn feature(name: &str, found: Result<&str, String>) -> Feature {
    let (status, detail) = match found {
        Ok(good) => (Status::Available, good.to_string()),
        Err(bad) => (Status::Missing, bad),
    };
    Feature { name: name.into(), status, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_concerns_the_features_of_the_program() {
        let refused = [
            (programs::TC, "R1 min value is negative"),
            (programs::SWEEP6, "too large"),
            (programs::SWEEP4, "too large"),
            ("flowpin_other", "odd"),
        ];
        let refused = refused.map(|(name, why)| (name.to_string(), why.to_string())).into();
        let found = features(&refused);
        let of = |name: &str| found.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(of("TC").status, Status::Missing);
        assert_eq!(of("TC").detail, "this kernel refuses flowpin_tc: R1 min value is negative");
        assert_eq!(
            of("sweeper").detail,
            "this kernel refuses flowpin_sweep4: too large (and 1 more of its programs)"
        );
        assert_eq!(of("XDP").status, Status::Available);
        assert_eq!(of("program flowpin_other").detail, "this kernel refuses it: odd");
        assert_eq!(found.len(), PARTS.len() + 1);
    }
}
