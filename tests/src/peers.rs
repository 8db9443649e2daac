//! Visitors and targets: blocking sockets, so that they say nothing about the runtimes under test.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

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
                // There may be a thousand of them.
                let thread = std::thread::Builder::new().stack_size(128 * 1024);
                thread.spawn(move || serve(stream)).unwrap();
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

/// After so many bytes the pattern repeats: a prime, so that no buffer size hides what is missing.
const PERIOD: usize = 1_048_583;
/// The most bytes of the pattern that are asked for at once.
const PIECE: usize = 64 * 1024;

/// Bytes that are a function of their offset, so that nothing has to be stored to check them. At most 64 KiB.
pub fn pattern(offset: u64, length: usize) -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let at = |at: usize| ((at % PERIOD) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..PERIOD + PIECE).map(|offset| (at(offset) >> 56) as u8).collect()
    });
    let start = (offset % PERIOD as u64) as usize;
    &bytes[start..start + length]
}

/// Writes `length` bytes of the [`pattern`].
///
/// # Errors
/// Those of writing.
pub fn write_pattern(stream: &mut impl Write, length: u64) -> io::Result<()> {
    let mut offset = 0;
    while offset < length {
        let chunk = pattern(offset, (length - offset).min(PIECE as u64) as usize);
        stream.write_all(chunk)?;
        offset += chunk.len() as u64;
    }
    Ok(())
}

/// Reads to the end, which must be a clean one, and checks each byte. Returns how many there were.
pub fn verify_pattern(stream: &mut impl Read) -> u64 {
    let mut offset = 0;
    let mut buffer = vec![0; PIECE];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            return offset;
        }
        assert!(buffer[..count] == *pattern(offset, count), "bytes from offset {offset}");
        offset += count as u64;
    }
}

/// Reads so many bytes and checks that they are the pattern's from `offset` on.
pub fn expect_pattern(stream: &mut impl Read, offset: u64, length: usize) {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    assert!(bytes == pattern(offset, length), "bytes from offset {offset}");
}

/// Writes until the connection is reset, which must happen within [`PATIENCE`].
pub fn write_to_reset(stream: &mut impl Write) {
    let failure = (0..u64::MAX).find_map(|piece| stream.write_all(pattern(piece, PIECE)).err()).unwrap();
    assert_eq!(failure.kind(), io::ErrorKind::ConnectionReset, "{failure}");
}

/// Waits for a reset without reading: whoever does not read learns of it, too. To a side that has seen the end
/// of the other direction, the system calls it a broken pipe.
pub fn await_reset(stream: &TcpStream) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(error) = stream.take_error().unwrap() {
            let reset = matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
            return assert!(reset, "{error}");
        }
        assert!(Instant::now() < deadline, "no reset within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads until the connection is reset, which must happen instead of a clean end. Returns how many bytes there
/// were.
pub fn read_to_reset(stream: &mut impl Read) -> u64 {
    let mut offset = 0;
    let mut buffer = vec![0; PIECE];
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
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}
