//! Binding a TCP address.
//!
//! An address is bound long before it is listened on: what the port is has to be known when other nodes are given the
//! address, and connections are taken only when they can be answered.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket},
};

use tokio::net::{TcpListener, TcpSocket};

/// How many connections may wait to be accepted: after a restart all clients come back at once.
const BACKLOG: u32 = 4096;

/// Binds `address`, which refuses connections still; the second value is the address with its actual port.
pub(super) fn bind(address: SocketAddr) -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Else a restart would have to wait until the old connections are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let local = socket.local_addr()?;
    Ok((socket, local))
}

/// Takes connections from now on. The other half of [`bind`].
pub(super) fn listen(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// This machine's address as another one sees it. Nothing is sent. A datagram socket that is connected has the address
/// from which it would send. None where the host has no address, or no way leads there.
pub(super) fn find_own_address((host, port): (&str, u16)) -> Option<IpAddr> {
    let there = (host, port).to_socket_addrs().ok()?.next()?;
    let any: IpAddr = if there.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(there).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
