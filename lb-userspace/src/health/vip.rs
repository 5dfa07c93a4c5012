//! A check as clients come, of a backend that answers them past the node: at the VIP, by a packet that goes as theirs do. Its own address
//! may answer well while the VIP isn't on its loopback, or nothing takes its packets out of others.

use std::{net::SocketAddr, time::Duration};

use futures::future::join_all;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::probe::Failure;
use crate::{
    agent::handle::Handle,
    datapath::{
        handshake::{Answer, Handshakes, Path},
        neighbours,
        routes::{self, NoWay, Way},
    },
    model::DirectVip,
};

/// Checks a backend, whose own address has just been found well, at its VIPs.
///
/// # Errors
/// It isn't well there, or can't be asked.
pub async fn check(
    handle: &Handle,
    handshakes: &Handshakes,
    vips: &[DirectVip],
    backend: SocketAddr,
    timeout: Duration,
) -> Result<(), Failure> {
    if vips.is_empty() {
        return Ok(());
    }
    let until = Instant::now() + timeout;
    let address = backend.ip();
    let way = routes::way(&*handle.netlink().await, address).await.map_err(astray)?;
    let Some(from) = way.source else {
        return Err(Failure::Here(format!("the node has no address of its own on the way to {address}")));
    };
    let frame = match vips.iter().any(|vip| !vip.tunnel) {
        true => Some(frame(handle, &way, backend, until).await?),
        false => None,
    };
    let asked = vips.iter().map(async |vip| {
        if vip.at.ip() == from {
            let why = format!("the VIP {from} is the address that the node itself has towards {address}");
            return Err(Failure::Here(why));
        }
        let path = frame.filter(|_| !vip.tunnel).unwrap_or(Path::Tunnel { from, to: address });
        let flow = |from, to| handle.shared.tables.numbered(from, to);
        let answer = handshakes.shake(from, (vip.at, path), until, flow).await;
        judge(vip, answer.map_err(|e| Failure::Here(e.to_string()))?, timeout)
    });
    // Each to its end, also if one fails: a handshake that is dropped half-way leaves the backend without its RST.
    worst(join_all(asked).await)
}

/// What is wrong with a backend, if anything is. What the node lacks for one VIP doesn't hide what is wrong at another.
fn worst(found: Vec<Result<(), Failure>>) -> Result<(), Failure> {
    let (there, here): (Vec<_>, Vec<_>) =
        found.into_iter().filter_map(Result::err).partition(|why| matches!(why, Failure::There(_)));
    there.into_iter().chain(here).next().map_or(Ok(()), Err)
}

/// Clients' packets have no way to a backend, or the node can't tell.
fn astray(why: NoWay) -> Failure {
    match why {
        NoWay::None(_) => Failure::There(format!("clients' packets have no way to it: {why}")),
        NoWay::Kind { .. } | NoWay::Unknown { .. } => Failure::Here(why.to_string()),
    }
}

/// How a frame gets to a backend.
async fn frame(handle: &Handle, way: &Way, backend: SocketAddr, until: Instant) -> Result<Path, Failure> {
    let (interface, address) = (way.interface, backend.ip());
    if let Some(router) = way.router {
        let why = format!("it is behind the router {router}, and dsr-l2 doesn't get there");
        return Err(why.into());
    }
    let unasked = |e| Failure::Here(format!("the kernel doesn't say which MAC address {address} has: {e}"));
    let mut mac = neighbours::mac(&*handle.netlink().await, interface, address).await.map_err(unasked)?;
    if mac.is_none() {
        // The check hasn't gone there itself. Whatever comes of this, the kernel asks for the MAC address.
        let _ = timeout_at(until, TcpStream::connect(backend)).await;
        mac = neighbours::mac(&*handle.netlink().await, interface, address).await.map_err(unasked)?;
    }
    mac.map(|mac| Path::Frame { interface, mac })
        .ok_or_else(|| format!("nobody says which MAC address {address} has").into())
}

/// What an answer means.
fn judge(vip: &DirectVip, answer: Option<Answer>, timeout: Duration) -> Result<(), Failure> {
    let (at, of) = (vip.at, "though its own address is well");
    Err(match (answer, vip.tunnel) {
        (Some(Answer::Accepted), _) => return Ok(()),
        (Some(Answer::Refused), _) => {
            format!("refuses connections at the VIP {at}, {of}: does it listen there?")
        }
        (Some(Answer::Returned), _) => {
            format!("sends back what is for the VIP {at}, {of}: has it the VIP on its loopback?")
        }
        (None, tunnel) => {
            let kind = if at.is_ipv4() { "IPIP" } else { "IPv6 in IPv6" };
            let how = match tunnel {
                true => format!("does it take packets out of {kind}, and has it the VIP on its loopback?"),
                false => "has it the VIP on its loopback?".into(),
            };
            let within = humantime::format_duration(timeout);
            format!("doesn't answer at the VIP {at} within {within}, {of}: {how}")
        }
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_lacks_is_not_the_backends_fault() {
        let (there, here) = (Failure::There("there".into()), Failure::Here("here".into()));
        assert_eq!(worst(vec![Ok(()), Ok(())]), Ok(()));
        assert_eq!(worst(vec![Ok(()), Err(here.clone())]), Err(here.clone()));
        assert_eq!(worst(vec![Err(here), Ok(()), Err(there.clone())]), Err(there));
        let address = "192.0.2.1".parse().expect("an address");
        assert!(matches!(astray(NoWay::None(address)), Failure::There(_)));
        let unknown = NoWay::Unknown { address, why: "A netlink request failed".into() };
        assert!(matches!(astray(unknown), Failure::Here(_)));
    }

    #[test]
    fn what_is_wrong_is_said_with_where_to_look() {
        let of = |at: &str, tunnel, answer| {
            let vip = DirectVip { at: at.parse().expect("an address"), tunnel };
            match judge(&vip, answer, Duration::from_secs(1)) {
                Ok(()) => "well".into(),
                Err(Failure::There(why) | Failure::Here(why)) => why,
            }
        };
        assert_eq!(of("10.96.0.10:80", false, Some(Answer::Accepted)), "well");
        assert_eq!(
            of("10.96.0.10:80", false, None),
            "doesn't answer at the VIP 10.96.0.10:80 within 1s, though its own address is well: \
             has it the VIP on its loopback?"
        );
        assert_eq!(
            of("[fd96::10]:80", true, None),
            "doesn't answer at the VIP [fd96::10]:80 within 1s, though its own address is well: \
             does it take packets out of IPv6 in IPv6, and has it the VIP on its loopback?"
        );
        assert_eq!(
            of("10.96.0.10:80", false, Some(Answer::Returned)),
            "sends back what is for the VIP 10.96.0.10:80, though its own address is well: has it the VIP on its loopback?"
        );
        assert_eq!(
            of("10.96.0.10:80", true, Some(Answer::Refused)),
            "refuses connections at the VIP 10.96.0.10:80, though its own address is well: does it listen there?"
        );
    }
}
