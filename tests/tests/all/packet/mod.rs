//! Tables of packets: bytes in; verdict, bytes and counters out.

mod fuzz;
mod refused;
mod tracking;
mod translated;

use flowpin_tests::packet::{Face, Frame, Rig};
use lb_common::abi::{Algorithm, Proto};

pub const FACES: [Face; 3] = [Face::Xdp, Face::Virtual, Face::Tc];
pub const NO_LIMIT: u32 = u32::MAX;

/// VIP, backend, client of a family.
#[derive(Clone, Copy)]
pub struct Names {
    pub vip: &'static str,
    pub backend: &'static str,
    pub client: &'static str,
}

pub const V4: Names = Names { vip: "10.96.0.10", backend: "10.2.0.2", client: "192.0.2.7" };
pub const V6: Names = Names { vip: "fd96::10", backend: "fd02::2", client: "2001:db8::7" };

/// One service of each family with one backend on another port: 80/tcp, 53/udp.
pub fn rig() -> Rig {
    let mut rig = Rig::new(1024);
    for (id, names) in [(0, V4), (1, V6)] {
        let ports = [(80, Proto::TCP), (53, Proto::UDP)];
        rig.service(
            id,
            names.vip,
            &ports,
            Algorithm::LEAST_CONNECTIONS,
            &[(names.backend, Some(8080), 1, NO_LIMIT)],
        );
    }
    rig
}

pub fn to_vip(n: Names, flags: u8) -> Frame {
    Frame::tcp((n.client, 40_000), (n.vip, 80), flags)
}

pub fn datagram(n: Names, payload: &[u8]) -> Frame {
    Frame::udp((n.client, 40_000), (n.vip, 53), payload)
}
