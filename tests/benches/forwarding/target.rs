//! What visitors reach: one TCP service that echoes, sends, or takes what it gets, as each visitor's first message
//! says. A task of tokio for each connection, as most services have it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Result;
use crate::path;
use crate::role::{Arguments, say};
use crate::steady::{self, Window};

/// The name of the role. Its arguments: the IP address to listen on, and whether that is on a path.
pub const ROLE: &str = "target";

/// The length of a visitor's first message, and of each message that is echoed.
pub const MESSAGE: usize = 64;

/// What is read and written at once.
pub const CHUNK: usize = 64 * 1024;

/// What a visitor wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Everything back, this message included.
    Echo,
    /// Bytes for so long, then the end.
    Send(Duration),
    /// To send bytes until the end, and to get their number as eight bytes.
    Take,
    /// Bytes until it leaves.
    Give,
    /// To send bytes without an end: to get the number of those that arrive in a window, and to leave.
    Measure(Window),
}

impl Request {
    /// As a message.
    pub fn encode(self) -> [u8; MESSAGE] {
        let (kind, times) = match self {
            Self::Echo => (b'E', [Duration::ZERO; 2]),
            Self::Send(time) => (b'S', [time, Duration::ZERO]),
            Self::Take => (b'T', [Duration::ZERO; 2]),
            Self::Give => (b'G', [Duration::ZERO; 2]),
            Self::Measure(Window { skip, time }) => (b'M', [skip, time]),
        };
        let mut message = [0x5a; MESSAGE];
        message[0] = kind;
        for (bytes, time) in message[1..17].chunks_exact_mut(8).zip(times) {
            bytes.copy_from_slice(&(time.as_millis() as u64).to_be_bytes());
        }
        message
    }

    /// Of a message.
    pub fn decode(message: &[u8; MESSAGE]) -> Result<Self> {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let [one, other] =
            [&message[1..9], &message[9..17]].map(|bytes| Duration::from_millis(number(bytes)));
        match message[0] {
            b'E' => Ok(Self::Echo),
            b'S' => Ok(Self::Send(one)),
            b'T' => Ok(Self::Take),
            b'G' => Ok(Self::Give),
            b'M' => Ok(Self::Measure(Window { skip: one, time: other })),
            other => Err(format!("no request begins with {other:#x}").into()),
        }
    }
}

/// The role, until the benchmark ends it.
pub fn run(arguments: &Arguments<'_>) -> Result<()> {
    let (address, on_path) = (arguments.get::<IpAddr>(0)?, arguments.get(1)?);
    snocat_tests::enough_descriptors(16_384);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((address, 0)).await?;
        say(format_args!("listening {}", listener.local_addr()?))?;
        // Not here: the thread that blocks on the runtime is not one of its workers.
        tokio::spawn(async move {
            loop {
                let (visitor, _) = listener.accept().await?;
                // A visitor that does not say what it wants has only looked whether somebody is here.
                tokio::spawn(serve(visitor, on_path));
            }
        })
        .await?
    })
}

async fn serve(mut visitor: TcpStream, on_path: bool) -> Result<()> {
    visitor.set_nodelay(true)?;
    if on_path {
        path::cubic(&visitor)?;
    }
    let mut message = [0; MESSAGE];
    visitor.read_exact(&mut message).await?;
    match Request::decode(&message)? {
        Request::Echo => {
            visitor.write_all(&message).await?;
            loop {
                match visitor.read(&mut message).await? {
                    0 => return Ok(()),
                    count => visitor.write_all(&message[..count]).await?,
                }
            }
        }
        Request::Send(time) => {
            let begin = Instant::now();
            let chunk = vec![0x5a; CHUNK];
            while begin.elapsed() < time {
                visitor.write_all(&chunk).await?;
            }
            visitor.shutdown().await?;
            // Closing before the visitor does could cut off what is still on its way.
            if visitor.read(&mut message).await? > 0 {
                return Err("this visitor was to listen".into());
            }
        }
        Request::Take => {
            let mut chunk = vec![0; CHUNK];
            let mut sum = 0;
            loop {
                match visitor.read(&mut chunk).await? {
                    0 => break,
                    count => sum += count as u64,
                }
            }
            visitor.write_all(&sum.to_be_bytes()).await?;
        }
        Request::Give => steady::give(visitor).await?,
        Request::Measure(window) => {
            let (mut from, mut to) = visitor.split();
            let arrived = steady::take(&mut from, window).await?;
            to.write_all(&arrived.to_be_bytes()).await?;
            // Until the visitor leaves: closing before would cut off the number.
            tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
        }
    }
    Ok(())
}
