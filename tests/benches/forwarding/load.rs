//! The visitors: each measure is a process of its own, with a task of tokio for each visitor. It connects, says
//! "ready", begins when the benchmark says so, and says what it found, as numbers on one line.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Result;
use crate::role::{Arguments, hear, say};
use crate::steady;
use crate::target::{CHUNK, MESSAGE, Request};

/// The name of the role. Its arguments: what to do, the address to visit, and what [`Work`] says.
pub const ROLE: &str = "load";

/// Connections that are opened one after another, or by all workers together, at most: ports of closed connections
/// can be used again after a second, and of the 28,000 that there are Linux looks for one through the odd or the even ones alone
/// before it tries the others: with more than 14,000 in use each connect costs a search, and it is that which is measured.
const CONNECTIONS: usize = 12_000;

/// What visitors can do, by the name that it has on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work(pub &'static str);

/// Arguments: visitors, milliseconds. Result: bytes, seconds.
pub const DOWN: Work = Work("down");
/// The same upwards.
pub const UP: Work = Work("up");
/// Argument: milliseconds. Result: p50 and p99 in microseconds.
pub const PING_PONG: Work = Work("ping-pong");
/// Argument: milliseconds. Result: p50 and p99 in microseconds.
pub const CONNECT: Work = Work("connect");
/// Arguments: workers, milliseconds. Result: connections, seconds.
pub const WORKERS: Work = Work("workers");
/// Arguments: visitors, a window, whether on a path. Result: the bytes that arrived in the window, Jain's index of each one's.
pub const STEADY_DOWN: Work = Work("steady-down");
/// The same upwards.
pub const STEADY_UP: Work = Work("steady-up");
/// Argument: connections. They are open when it says "ready", and closed as soon as it is told so.
pub const HOLD: Work = Work("hold");

/// The role.
pub fn run(arguments: &Arguments<'_>) -> Result<()> {
    let (work, address) = (arguments.get::<String>(0)?, arguments.get(1)?);
    let is = |other: Work| work == other.0;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // In a task: the thread that blocks on the runtime is not one of its workers.
    let task = if is(DOWN) || is(UP) {
        runtime.spawn(bulk(address, is(UP), arguments.get(2)?, arguments.time(3)?))
    } else if is(PING_PONG) {
        runtime.spawn(ping_pong(address, arguments.time(2)?))
    } else if is(CONNECT) {
        runtime.spawn(connect(address, arguments.time(2)?))
    } else if is(WORKERS) {
        runtime.spawn(workers(address, arguments.get(2)?, arguments.time(3)?))
    } else if is(STEADY_DOWN) || is(STEADY_UP) {
        let (count, window, on_path) = (arguments.get(2)?, arguments.get(3)?, arguments.get(4)?);
        runtime.spawn(steady::visitors(address, is(STEADY_UP), count, window, on_path))
    } else if is(HOLD) {
        snocat_tests::enough_descriptors(16_384);
        runtime.spawn(hold(address, arguments.get(2)?))
    } else {
        return Err(format!("visitors cannot `{work}`").into());
    };
    runtime.block_on(task)?
}

/// A visitor that is there.
pub async fn visit(address: SocketAddr) -> Result<TcpStream> {
    let connected = TcpStream::connect(address).await;
    let visitor = connected.map_err(|error| format!("cannot visit {address}: {error}"))?;
    visitor.set_nodelay(true)?;
    Ok(visitor)
}

/// Tells the benchmark that all is ready, and waits for its word.
pub async fn wait_for_go() -> Result<()> {
    say("ready")?;
    tokio::task::spawn_blocking(hear).await??.map(drop).ok_or_else(|| "the benchmark is gone".into())
}

async fn bulk(address: SocketAddr, up: bool, visitors: usize, time: Duration) -> Result<()> {
    let mut connected = Vec::new();
    for _ in 0..visitors {
        connected.push(visit(address).await?);
    }
    wait_for_go().await?;
    let begin = Instant::now();
    let mut busy = JoinSet::new();
    for visitor in connected {
        busy.spawn(async move { if up { send(visitor, time).await } else { take(visitor, time).await } });
    }
    let bytes = sum(busy).await?;
    say(format_args!("{bytes} {}", begin.elapsed().as_secs_f64()))
}

async fn sum(mut busy: JoinSet<Result<u64>>) -> Result<u64> {
    let mut sum = 0;
    while let Some(one) = busy.join_next().await {
        sum += one??;
    }
    Ok(sum)
}

/// Downwards the target measures the time. Both ends of it are in the measured time.
async fn take(mut visitor: TcpStream, time: Duration) -> Result<u64> {
    visitor.write_all(&Request::Send(time).encode()).await?;
    let mut chunk = vec![0; CHUNK];
    let mut sum = 0;
    loop {
        match visitor.read(&mut chunk).await? {
            0 => return Ok(sum),
            count => sum += count as u64,
        }
    }
}

/// Upwards all has arrived when the target has said how much.
async fn send(mut visitor: TcpStream, time: Duration) -> Result<u64> {
    let begin = Instant::now();
    visitor.write_all(&Request::Take.encode()).await?;
    let chunk = vec![0x5a; CHUNK];
    let mut sum = 0;
    while begin.elapsed() < time {
        visitor.write_all(&chunk).await?;
        sum += CHUNK as u64;
    }
    visitor.shutdown().await?;
    let arrived = visitor.read_u64().await?;
    if arrived == sum { Ok(sum) } else { Err(format!("{sum} bytes sent, {arrived} have arrived").into()) }
}

async fn echo(visitor: &mut TcpStream) -> Result<()> {
    let sent = Request::Echo.encode();
    visitor.write_all(&sent).await?;
    let mut back = [0; MESSAGE];
    visitor.read_exact(&mut back).await?;
    if back == sent { Ok(()) } else { Err("another message has come back".into()) }
}

async fn visit_and_leave(address: SocketAddr) -> Result<()> {
    echo(&mut visit(address).await?).await
}

async fn ping_pong(address: SocketAddr, time: Duration) -> Result<()> {
    let mut visitor = visit(address).await?;
    let warm = Instant::now() + time / 4;
    for _ in 0..200 {
        if Instant::now() < warm {
            echo(&mut visitor).await?;
        }
    }
    wait_for_go().await?;
    let (end, mut took) = (Instant::now() + time, Vec::new());
    while Instant::now() < end {
        let begin = Instant::now();
        echo(&mut visitor).await?;
        took.push(begin.elapsed());
    }
    say_percentiles(&took)
}

async fn connect(address: SocketAddr, time: Duration) -> Result<()> {
    for _ in 0..20 {
        visit_and_leave(address).await?;
    }
    wait_for_go().await?;
    let (end, mut took) = (Instant::now() + time, Vec::new());
    while Instant::now() < end && took.len() < CONNECTIONS {
        let begin = Instant::now();
        visit_and_leave(address).await?;
        took.push(begin.elapsed());
    }
    say_percentiles(&took)
}

async fn workers(address: SocketAddr, workers: usize, time: Duration) -> Result<()> {
    wait_for_go().await?;
    let begun = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let mut busy = JoinSet::new();
    for _ in 0..workers {
        let begun = begun.clone();
        busy.spawn(async move {
            let mut done = 0;
            while begin.elapsed() < time && begun.fetch_add(1, Ordering::Relaxed) < CONNECTIONS {
                visit_and_leave(address).await?;
                done += 1;
            }
            Ok(done)
        });
    }
    let done = sum(busy).await?;
    say(format_args!("{done} {}", begin.elapsed().as_secs_f64()))
}

async fn hold(address: SocketAddr, connections: usize) -> Result<()> {
    let mut visitors = Vec::new();
    for _ in 0..connections {
        let mut visitor = visit(address).await?;
        echo(&mut visitor).await?;
        visitors.push(visitor);
    }
    wait_for_go().await?;
    drop(visitors);
    say("closed")
}

/// Says p50 and p99 in microseconds.
pub fn say_percentiles(took: &[Duration]) -> Result<()> {
    let mut took: Vec<_> = took.iter().map(|took| took.as_secs_f64() * 1e6).collect();
    took.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let last = took.len().checked_sub(1).ok_or("nothing was measured")?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(took[last * percent / 100])
    };
    say(format_args!("{} {}", at(50)?, at(99)?))
}
