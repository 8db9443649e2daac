//! Bytes without an end, of which those count that arrive in a window of time: where a congestion control has to find its
//! way, the window begins after that. Whoever receives measures, the target as well as a visitor; it ends by leaving,
//! because what lies in the buffers of a slow path could take a minute.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::Result;
use crate::load::{self, wait_for_go};
use crate::path::cubic;
use crate::results::jain;
use crate::role::say;
use crate::target::{CHUNK, Request};

/// When bytes are counted. As text "MILLISECONDS+MILLISECONDS".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// What is not counted, from the request on.
    pub skip: Duration,
    /// What is.
    pub time: Duration,
}

impl Window {
    /// Both.
    pub fn whole(self) -> Duration {
        self.skip + self.time
    }
}

impl fmt::Display for Window {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}+{}", self.skip.as_millis(), self.time.as_millis())
    }
}

impl FromStr for Window {
    type Err = Box<dyn std::error::Error + Send + Sync>;

    fn from_str(text: &str) -> Result<Self> {
        let (skip, time) = text.split_once('+').ok_or("a window has two parts")?;
        let [skip, time] = [skip.parse()?, time.parse()?].map(Duration::from_millis);
        Ok(Self { skip, time })
    }
}

/// The visitors' part: so many at once; says how many bytes arrived, and how evenly.
pub async fn visitors(
    address: SocketAddr,
    up: bool,
    count: usize,
    window: Window,
    on_path: bool,
) -> Result<()> {
    let mut connected = Vec::new();
    for _ in 0..count {
        let visitor = load::visit(address).await?;
        if on_path {
            cubic(&visitor)?;
        }
        connected.push(visitor);
    }
    wait_for_go().await?;
    let mut busy = JoinSet::new();
    for visitor in connected {
        let (receive, send) = visitor.into_split();
        busy.spawn(visit(up, window, send, receive));
    }
    let mut arrived = Vec::new();
    while let Some(one) = busy.join_next().await {
        arrived.push(one?? as f64);
    }
    say(format_args!("{} {}", arrived.iter().sum::<f64>(), jain(&arrived)))
}

/// One visitor's part.
pub async fn visit(
    up: bool,
    window: Window,
    mut send: impl AsyncWrite + Unpin,
    mut receive: impl AsyncRead + Unpin,
) -> Result<u64> {
    if up {
        send.write_all(&Request::Measure(window).encode()).await?;
        tokio::select! {
            result = give(send) => result.and(Err("the target takes no more".into())),
            arrived = receive.read_u64() => Ok(arrived?),
        }
    } else {
        send.write_all(&Request::Give.encode()).await?;
        take(receive, window).await
    }
}

/// Writes until the other side leaves.
pub async fn give(mut to: impl AsyncWrite + Unpin) -> Result<()> {
    let chunk = vec![0x5a; CHUNK];
    loop {
        to.write_all(&chunk).await?;
    }
}

/// Reads until the window is over; returns the bytes that arrived in it.
pub async fn take(mut from: impl AsyncRead + Unpin, window: Window) -> Result<u64> {
    let begin = Instant::now() + window.skip;
    let end = begin + window.time;
    let mut chunk = vec![0; CHUNK];
    let mut sum = 0;
    while let Ok(count) = timeout_at(end, from.read(&mut chunk)).await {
        match count? {
            0 => return Err("the bytes have ended before their time".into()),
            count if Instant::now() >= begin => sum += count as u64,
            _ => {}
        }
    }
    Ok(sum)
}
