//! The programs, loaded without pins or interfaces, and maps filled by hand.

use std::{net::IpAddr, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
    programs::{Program, TestRun, TestRunOptions},
};
use lb_common::{
    abi::{
        Active, Addr4, Addr6, Algorithm, Backend, BackendCounters, BackendId, Flow, FlowKey, PoolBlock,
        PortBe, Proto, Reason, Service, ServiceKey, Stray, maps, programs, sweep::Request, table::Chunk,
    },
    maglev,
};

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// `flowpin_xdp`
    Xdp,
    /// `flowpin_xdp_virt`
    Virtual,
    /// `flowpin_tc`
    Tc,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// On to the stack, with these bytes.
    Pass(Vec<u8>),
    /// Sent back, with these bytes.
    Back(Vec<u8>),
    /// Dropped.
    Drop,
}

/// Loaded programs.
pub struct Rig {
    ebpf: Ebpf,
}

impl Rig {
    /// With flow tables of `flows` entries.
    ///
    /// # Panics
    /// Without root or the object.
    pub fn new(flows: u32) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test loads BPF programs and needs root: sudo scripts/test"
        );
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/flowpin-bpf.o");
        let object =
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; cargo xtask build", path.display()));
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(maps::FLOWS4, flows)
            .map_max_entries(maps::FLOWS6, flows)
            .override_global("AYA_LOG_LEVEL", &0u8, true)
            .load(&object)
            .expect("load");
        for (_, program) in ebpf.programs_mut() {
            match program {
                Program::Xdp(p) => p.load().expect("XDP"),
                Program::SchedClassifier(p) => p.load().expect("TC"),
                _ => unreachable!("the object has XDP and TC programs only"),
            }
        }
        Self { ebpf }
    }

    /// Adds a service with backends (address, port or none, weight, limit) in blocks from `16 * block` on.
    pub fn service(
        &mut self,
        id: u32,
        vip: &str,
        ports: &[(u16, Proto)],
        algorithm: Algorithm,
        backends: &[(&str, Option<u16>, u32, u32)],
    ) {
        let block_id = id + 1;
        let mut block = PoolBlock { service: id, ..PoolBlock::FREE };
        let mut members = Vec::new();
        for (slot, (address, port, weight, limit)) in backends.iter().enumerate() {
            let backend = BackendId::new(block_id, slot as u32);
            self.array::<Backend>(maps::BACKENDS)
                .set(backend.0, Backend::new(address.parse().unwrap(), *port, id), 0)
                .unwrap();
            (block.weight[slot], block.limit[slot]) = (*weight, *limit);
            if *weight > 0 {
                members.push(maglev::Member { name: address, id: backend.0, weight: *weight });
            }
        }
        self.array::<PoolBlock>(maps::POOLS).set(block_id, block, 0).unwrap();
        if algorithm == Algorithm::CONSISTENT_HASH {
            let slots = maglev::build(&members);
            let words: Vec<u32> = std::iter::once(slots.len() as u32).chain(slots).collect();
            let mut inner: Array<MapData, Chunk> =
                Array::create(words.len().div_ceil(512) as u32, 0x1000).unwrap();
            for (i, part) in words.chunks(512).enumerate() {
                let mut chunk = Chunk([0; 512]);
                chunk.0[..part.len()].copy_from_slice(part);
                inner.set(i as u32, chunk, 0).unwrap();
            }
            let mut tables: aya::maps::ArrayOfMaps<_, Array<MapData, Chunk>> =
                self.ebpf.map_mut(maps::TABLES).unwrap().try_into().unwrap();
            tables.set(id, &inner, 0).unwrap();
        }
        let stray = if algorithm == Algorithm::CONSISTENT_HASH { Stray::FORWARD } else { Stray::RESET };
        let value = Service { id, first_block: block_id, algorithm, stray, _pad: [0; 6] };
        for (port, proto) in ports {
            match vip.parse().unwrap() {
                IpAddr::V4(vip) => {
                    let key = ServiceKey::new(Addr4::from(vip), PortBe::new(*port), *proto);
                    self.hash::<ServiceKey<Addr4>, Service>(maps::SERVICES4).insert(key, value, 0).unwrap();
                    self.hash::<Addr4, u32>(maps::VIPS4).insert(Addr4::from(vip), 1, 0).unwrap();
                }
                IpAddr::V6(vip) => {
                    let key = ServiceKey::new(Addr6::from(vip), PortBe::new(*port), *proto);
                    self.hash::<ServiceKey<Addr6>, Service>(maps::SERVICES6).insert(key, value, 0).unwrap();
                    self.hash::<Addr6, u32>(maps::VIPS6).insert(Addr6::from(vip), 1, 0).unwrap();
                }
            }
        }
    }

    fn array<V: aya::Pod>(&mut self, name: &str) -> Array<&mut MapData, V> {
        self.ebpf.map_mut(name).unwrap().try_into().unwrap()
    }

    fn hash<K: aya::Pod, V: aya::Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        self.ebpf.map_mut(name).unwrap().try_into().unwrap()
    }

    /// Forgets all flows. What they counted stays counted.
    pub fn clear(&mut self) {
        fn all<K: aya::Pod, V: aya::Pod>(mut map: HashMap<&mut MapData, K, V>) {
            let keys: Vec<K> = map.keys().map(Result::unwrap).collect();
            keys.iter().for_each(|key| map.remove(key).unwrap());
        }
        all(self.hash::<FlowKey<Addr4>, Flow<Addr4>>(maps::FLOWS4));
        all(self.hash::<FlowKey<Addr6>, Flow<Addr6>>(maps::FLOWS6));
    }

    /// Runs a packet through a program.
    pub fn run(&self, face: Face, packet: &[u8]) -> Outcome {
        let mut out = vec![0; packet.len() + 256];
        let options =
            TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::new() };
        let (result, pass, back, drop) = match face {
            Face::Tc => {
                let Some(Program::SchedClassifier(p)) = self.ebpf.program(programs::TC) else {
                    panic!("no TC program")
                };
                (p.test_run(options), u32::MAX, 7, 2)
            }
            _ => {
                let name = if face == Face::Xdp { programs::XDP } else { programs::XDP_VIRTUAL };
                let Some(Program::Xdp(p)) = self.ebpf.program(name) else { panic!("no XDP program") };
                (p.test_run(options), 2, 3, 1)
            }
        };
        let result = result.unwrap_or_else(|e| panic!("{face:?}, {} bytes: {e}", packet.len()));
        out.truncate(result.data_size_out as usize);
        match result.return_value {
            v if v == pass => Outcome::Pass(out),
            v if v == back => Outcome::Back(out),
            v if v == drop => Outcome::Drop,
            v => panic!("verdict {v}"),
        }
    }

    /// Runs the sweep program for IPv4.
    pub fn sweep4(&self, requests: &[Request<Addr4>]) -> u32 {
        let mut packet = vec![0; 16];
        for r in requests {
            // SAFETY: plain data without padding (asserted in lb-common).
            packet.extend_from_slice(unsafe {
                std::slice::from_raw_parts((&raw const *r).cast::<u8>(), size_of::<Request<Addr4>>())
            });
        }
        let Some(Program::Xdp(p)) = self.ebpf.program(programs::SWEEP4) else { panic!("no sweep program") };
        p.test_run(TestRunOptions { data_in: Some(&packet), ..TestRunOptions::new() }).unwrap().return_value
    }

    /// Active count of slot `slot` of service `id`.
    pub fn active(&self, id: u32, slot: usize) -> u32 {
        let map: Array<_, Active> = self.ebpf.map(maps::ACTIVE).unwrap().try_into().unwrap();
        map.get(&(id + 1), 0).unwrap().count[slot]
    }

    /// Counters of slot `slot` of service `id`.
    pub fn counters(&self, id: u32, slot: u32) -> BackendCounters {
        let map: PerCpuArray<_, BackendCounters> =
            self.ebpf.map(maps::BACKEND_COUNTERS).unwrap().try_into().unwrap();
        let mut sum = BackendCounters::default();
        for c in map.get(&BackendId::new(id + 1, slot).0, 0).unwrap().iter() {
            sum.connections += c.connections;
            sum.packets_in += c.packets_in;
            sum.bytes_in += c.bytes_in;
            sum.packets_out += c.packets_out;
            sum.bytes_out += c.bytes_out;
        }
        sum
    }

    /// How often a reason was counted.
    pub fn reason(&self, reason: Reason) -> u64 {
        let map: PerCpuArray<_, u64> = self.ebpf.map(maps::REASONS).unwrap().try_into().unwrap();
        map.get(&(reason as u32), 0).unwrap().iter().sum()
    }

    /// The IPv4 flow table.
    pub fn flows4(&self) -> Vec<(FlowKey<Addr4>, Flow<Addr4>)> {
        let map: HashMap<&MapData, FlowKey<Addr4>, Flow<Addr4>> = match self.ebpf.map(maps::FLOWS4).unwrap() {
            map @ Map::HashMap(_) => map.try_into().unwrap(),
            _ => panic!("a hash"),
        };
        map.iter().map(Result::unwrap).collect()
    }
}
