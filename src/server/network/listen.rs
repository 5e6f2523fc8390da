//! Listening sockets, bound before any thread starts, so that an address in use is an error of the
//! start; and the options of those that connect.
//!
//! With several network cores each has a socket of its own on the same address and the kernel deals
//! connections out. Sockets that share an address would also let a second server bind it; so the
//! address is first bound alone, which fails if anybody has it.

#![expect(
    clippy::disallowed_methods,
    reason = "waiting for an address happens before there is an Io"
)]

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// A peer that is silent for so long is asked whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Between two questions without an answer; after three the connection is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
const BACKLOG: i32 = 1024;

/// How often an address in use is tried, and the time between two tries: 2 s in all. After a kill
/// the kernel takes the rings of the dead server apart in the background, and until it has, they
/// hold its listening sockets.
const BIND_ATTEMPTS: u32 = 40;
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// As [`bind`], but waits a moment for an address that is in use.
pub fn bind_patiently(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    for _ in 1..BIND_ATTEMPTS {
        match bind(address, count) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                std::thread::sleep(BIND_PAUSE);
            }
            done => return done,
        }
    }
    bind(address, count)
}

/// Sockets for `count` network cores; all have the address of the first.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    if count == 1 {
        return Ok(vec![socket(address, false)?]);
    }
    if address.port() != 0 {
        drop(socket(address, false)?);
    }
    let first = socket(address, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < count {
        sockets.push(socket(address, true)?);
    }
    Ok(sockets)
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES)
}

/// Sets up a connection that this side opened. The kernel gives it up when the peer acknowledges
/// nothing of what it was sent for so long.
pub fn prepare(stream: &impl AsRawFd, timeout: Duration) -> io::Result<()> {
    let socket = borrow(stream);
    let socket = SockRef::from(&socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    socket.set_tcp_user_timeout(Some(timeout))
}

/// Acknowledges at once what a connection has received.
pub fn acknowledge(stream: &impl AsRawFd) -> io::Result<()> {
    SockRef::from(&borrow(stream)).set_tcp_quickack(true)
}

fn borrow(stream: &impl AsRawFd) -> BorrowedFd<'_> {
    #[expect(
        unsafe_code,
        reason = "glommio lends its sockets by their descriptors only"
    )]
    // SAFETY: the descriptor is that of `stream`, which lives longer.
    unsafe {
        BorrowedFd::borrow_raw(stream.as_raw_fd())
    }
}

/// Connections inherit the options of the socket that accepted them.
fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::bind;
    use std::io;

    #[test]
    fn an_address_belongs_to_one_server() {
        for count in [1, 3] {
            let sockets = bind("127.0.0.1:0".parse().unwrap(), count).unwrap();
            let address = sockets[0].local_addr().unwrap();
            assert!(
                sockets
                    .iter()
                    .all(|socket| socket.local_addr().unwrap() == address)
            );
            for other in [1, 2] {
                let error = bind(address, other).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            }
        }
    }
}
