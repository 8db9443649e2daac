//! A way between a client and a server that can be cut.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Carries datagrams between one client and a server, until it is cut.
pub struct Relay {
    /// Where the client connects to.
    pub address: SocketAddr,
    cut: Arc<AtomicBool>,
    _sockets: [Arc<UdpSocket>; 2],
}

impl Relay {
    /// A relay to this server.
    pub fn new(server: SocketAddr) -> Self {
        let [outer, inner] = [(); 2].map(|()| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            Arc::new(socket)
        });
        inner.connect(server).unwrap();
        let address = outer.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let sockets = [outer.clone(), inner.clone()];
        let threads = (outer, inner, cut.clone());
        std::thread::spawn(move || {
            let (outer, inner, cut) = threads;
            let mut buffer = [0; 65_536];
            let mut there = None;
            while !cut.load(Ordering::Relaxed) {
                let Ok((length, client)) = outer.recv_from(&mut buffer) else { continue };
                if there.replace(client).is_none() {
                    let (outer, inner, cut) = (outer.clone(), inner.clone(), cut.clone());
                    std::thread::spawn(move || back(&inner, &outer, client, &cut));
                }
                let _lost_as_on_any_network = inner.send(&buffer[..length]);
            }
        });
        Self { address, cut, _sockets: sockets }
    }

    /// Carries nothing any more. Its sockets stay: nobody is told.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
    }
}

fn back(inner: &UdpSocket, outer: &UdpSocket, client: SocketAddr, cut: &AtomicBool) {
    let mut buffer = [0; 65_536];
    while !cut.load(Ordering::Relaxed) {
        if let Ok(length) = inner.recv(&mut buffer) {
            let _lost_as_on_any_network = outer.send_to(&buffer[..length], client);
        }
    }
}
