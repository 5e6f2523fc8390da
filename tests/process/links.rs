//! The network between the replicas of a cluster: a proxy for each direction of each pair, which delays
//! what it carries, or carries nothing for a while. A replica only sends on the connections that it opens,
//! so a proxy has one direction.
//!
//! What a cut link holds back it delivers when it is whole again, as TCP does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often a cut link looks whether it is whole again.
const LOOK: Duration = Duration::from_millis(5);

/// What happens to what one replica sends to another.
#[derive(Debug, Default)]
struct Link {
    cut: AtomicBool,
    /// Microseconds.
    delay: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Links {
    /// By sender and receiver.
    links: Vec<Vec<Arc<Link>>>,
    /// Where a sender reaches a receiver.
    ports: Vec<Vec<u16>>,
}

impl Links {
    /// Links between replicas that listen on these ports.
    pub(crate) fn new(targets: &[u16]) -> Self {
        let row = |_| targets.iter().map(|_| Arc::<Link>::default()).collect();
        let links: Vec<Vec<Arc<Link>>> = targets.iter().map(row).collect();
        let listen = |(link, target): (&Arc<Link>, &u16)| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
            let port = listener.local_addr().expect("it is bound").port();
            let (link, target) = (Arc::clone(link), *target);
            let _thread = thread::spawn(move || accept(&listener, &link, target));
            port
        };
        let ports = links
            .iter()
            .map(|row| row.iter().zip(targets).map(listen).collect())
            .collect();
        Self { links, ports }
    }

    /// Where replica `from` reaches replica `to`.
    pub(crate) fn address(&self, from: usize, to: usize) -> String {
        format!("127.0.0.1:{}", self.ports[from][to])
    }

    /// What `from` sends does not reach `to`.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        self.links[from][to].cut.store(true, Ordering::Relaxed);
    }

    /// What `from` sends takes so long to reach `to`.
    pub(crate) fn delay(&self, from: usize, to: usize, delay: Duration) {
        let delay = u64::try_from(delay.as_micros()).expect("some seconds");
        self.links[from][to].delay.store(delay, Ordering::Relaxed);
    }

    /// No link is cut.
    pub(crate) fn heal(&self) {
        for link in self.links.iter().flatten() {
            link.cut.store(false, Ordering::Relaxed);
        }
    }
}

fn accept(listener: &TcpListener, link: &Arc<Link>, target: u16) {
    for incoming in listener.incoming().flatten() {
        let link = Arc::clone(link);
        let _thread = thread::spawn(move || {
            link.wait();
            let Ok(outgoing) = TcpStream::connect(("127.0.0.1", target)) else {
                return;
            };
            outgoing.set_nodelay(true).expect("it is a socket");
            let end = outgoing.try_clone().expect("a descriptor is left");
            let start = incoming.try_clone().expect("a descriptor is left");
            let (sender, receiver) = channel();
            let _thread = thread::spawn(move || {
                write(outgoing, &receiver);
                drop(start.shutdown(Shutdown::Both));
            });
            read(incoming, &link, &sender);
            drop(end.shutdown(Shutdown::Both));
        });
    }
}

impl Link {
    fn wait(&self) {
        while self.cut.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
        }
    }
}

fn read(mut incoming: TcpStream, link: &Link, sender: &Sender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(size @ 1..) = incoming.read(&mut buffer) {
        link.wait();
        let delay = Duration::from_micros(link.delay.load(Ordering::Relaxed));
        let due = Instant::now() + delay;
        if sender.send((due, buffer[..size].to_vec())).is_err() {
            return;
        }
    }
}

fn write(mut outgoing: TcpStream, receiver: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, bytes)) = receiver.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if outgoing.write_all(&bytes).is_err() {
            return;
        }
    }
}
