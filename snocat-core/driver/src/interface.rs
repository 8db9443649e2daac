//! What the interface towards a peer takes.
//!
//! It is only where the search for longer datagrams ends. An interface that takes more than the path behind it costs a few
//! probes, which are lost.

use std::net::{IpAddr, SocketAddr};

/// The longest datagram that leaves for `peer`, in bytes of UDP payload. `None` where the system does not tell.
pub(crate) fn datagram_limit(local: IpAddr, peer: SocketAddr) -> Option<u16> {
    let (mtu, same_machine) = mtu(local, peer)?;
    payload(mtu, peer.ip().to_canonical(), same_machine)
}

/// The longest frames of Ethernet, with a margin for what comes before IP: jumbo frames are 9,000 bytes mostly.
const JUMBO: u32 = 9216;

/// What is left of `mtu` for the payload.
fn payload(mtu: u32, peer: IpAddr, same_machine: bool) -> Option<u16> {
    // No network takes more, but what hands packets on to a program may say so: in a rootless container it is 65,520, and
    // they are cut into pieces later. A datagram in 45 pieces is lost with each of them.
    if mtu > JUMBO && !same_machine {
        return None;
    }
    let headers = if peer.is_ipv4() { 20 + 8 } else { 40 + 8 };
    // 65,507 over IPv4: the length of the packet is a number of 16 bits.
    let longest = if peer.is_ipv4() { 65_535 } else { 65_535 + 40 };
    u16::try_from(mtu.min(longest).saturating_sub(headers)).ok()
}

/// The MTU of the interface towards `peer`, and whether it is one that nothing leaves the machine by. Nothing is sent.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn mtu(local: IpAddr, peer: SocketAddr) -> Option<(u32, bool)> {
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

    let ip = peer.ip().to_canonical();
    // The scope of a link-local address stays.
    let peer = if ip == peer.ip() { peer } else { SocketAddr::new(ip, peer.port()) };
    let local = match (local.to_canonical(), ip) {
        (local @ IpAddr::V4(_), IpAddr::V4(_)) | (local @ IpAddr::V6(_), IpAddr::V6(_)) => local,
        (_, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (_, IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(local, 0)).ok()?;
    socket.connect(peer).ok()?;
    let mtu = match ip {
        IpAddr::V4(_) => rustix::net::sockopt::ip_mtu(&socket),
        IpAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&socket),
    };
    // To an address of its own a machine speaks from just that address.
    let same_machine = ip.is_loopback() || socket.local_addr().is_ok_and(|own| own.ip() == ip);
    Some((mtu.ok()?, same_machine))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn mtu(_: IpAddr, _: SocketAddr) -> Option<(u32, bool)> {
    None
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[test]
    fn headers_are_taken_off() {
        assert_eq!(payload(1500, V4, false), Some(1472));
        assert_eq!(payload(1500, V6, false), Some(1452));
        assert_eq!(payload(9000, V4, false), Some(8972));
        assert_eq!(payload(20, V4, false), Some(0));
    }

    #[test]
    fn no_datagram_is_longer_than_ip_can_say() {
        assert_eq!(payload(65_536, V4, true), Some(65_507));
        assert_eq!(payload(u32::MAX, V4, true), Some(65_507));
        assert_eq!(payload(u32::MAX, V6, true), Some(65_527));
    }

    #[test]
    fn what_no_network_takes_is_not_believed() {
        assert_eq!(payload(65_520, V4, false), None);
        assert_eq!(payload(JUMBO, V4, false), Some(9188));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_loopback_tells_and_its_natural_mtu_is_large() {
        let peer = SocketAddr::new(V4, 9);
        for local in [V4, Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
            assert!(datagram_limit(local, peer).is_some_and(|limit| limit > 1200), "from {local}");
        }
        // Not everywhere is there IPv6.
        let v6 = datagram_limit(Ipv6Addr::UNSPECIFIED.into(), SocketAddr::new(V6, 9));
        assert!(v6.is_none_or(|limit| limit > 1200));
        let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), 9);
        assert_eq!(datagram_limit(Ipv6Addr::UNSPECIFIED.into(), mapped), datagram_limit(V4, peer));
    }
}
