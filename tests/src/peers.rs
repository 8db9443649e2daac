//! Visitors and targets: blocking sockets, so that they say nothing about the runtimes under test.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use crate::lab::PATIENCE;

/// A TCP service in a thread of its own.
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    taken: Receiver<TcpStream>,
}

impl Target {
    /// A target whose connections the test takes one by one with [`next`](Self::next).
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, taken) = channel();
        // Ends with the test: the next connection then finds nobody who takes it.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = bounded(stream.unwrap());
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { address, taken }
    }

    /// A target that sends everything back.
    pub fn echo() -> Self {
        Self::each(|mut stream| {
            let mut back = stream.try_clone()?;
            io::copy(&mut stream, &mut back)?;
            back.shutdown(std::net::Shutdown::Write)
        })
    }

    /// A target that does this with each connection, in a thread of its own.
    pub fn each(serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (_, taken) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, serve) = (bounded(stream.unwrap()), serve.clone());
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { address, taken }
    }

    /// The next connection.
    pub fn next(&self) -> TcpStream {
        self.taken.recv_timeout(PATIENCE).unwrap()
    }
}

impl Default for Target {
    fn default() -> Self {
        Self::new()
    }
}

/// Connects as a visitor. Reads and writes give up after [`PATIENCE`].
pub fn connect(address: SocketAddr) -> TcpStream {
    bounded(TcpStream::connect_timeout(&address, PATIENCE).unwrap())
}

fn bounded(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Bytes that are a function of their offset, so that nothing has to be stored to check them.
pub fn pattern(offset: u64, length: usize) -> Vec<u8> {
    (offset..offset + length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Writes `length` bytes of the [`pattern`].
///
/// # Errors
/// Those of writing.
pub fn write_pattern(stream: &mut impl Write, length: u64) -> io::Result<()> {
    let mut offset = 0;
    while offset < length {
        let chunk = pattern(offset, (length - offset).min(64 * 1024) as usize);
        stream.write_all(&chunk)?;
        offset += chunk.len() as u64;
    }
    Ok(())
}

/// Reads to the end, which must be a clean one, and checks each byte. Returns how many there were.
pub fn verify_pattern(stream: &mut impl Read) -> u64 {
    let mut offset = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            return offset;
        }
        assert_eq!(buffer[..count], pattern(offset, count), "bytes from offset {offset}");
        offset += count as u64;
    }
}

/// Reads until the connection is reset, which must happen instead of a clean end. Returns how many bytes there
/// were.
pub fn read_to_reset(stream: &mut impl Read) -> u64 {
    let mut offset = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => panic!("a clean end after {offset} bytes instead of a reset"),
            Ok(count) => offset += count as u64,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
                return offset;
            }
        }
    }
}

/// Closes a connection with RST.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
}
