//! Visitors and targets: the two ends of what is forwarded, as tasks of the simulation.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;

use snocat_driver::{Direction, Runtime, Tcp};

use super::runtime::{SimListener, SimRuntime, SimTcp};
use crate::pattern;

/// The most that a peer reads or writes at once.
const PIECE: usize = 16 * 1024;

/// One end of a TCP connection. Dropped, it is closed as any socket is.
pub struct Peer(SimTcp);

impl Peer {
    /// Connects as a visitor.
    ///
    /// # Errors
    /// If nobody listens there.
    pub async fn connect(runtime: &SimRuntime, to: SocketAddr) -> io::Result<Self> {
        let tcp = runtime.connect(to).await?;
        tcp.close_with_reset(false)?;
        Ok(Self(tcp))
    }

    /// Takes the next connection as a target; those that cannot be taken now are tried again.
    pub async fn accept(listener: &SimListener) -> Self {
        loop {
            if let Ok(tcp) = SimRuntime::accept(listener).await {
                return Self(tcp);
            }
        }
    }

    /// Writes `length` bytes of the [`pattern`] from `offset` on.
    ///
    /// # Errors
    /// If the connection was cut off.
    pub async fn write_pattern(&self, mut offset: u64, length: usize) -> io::Result<()> {
        let end = offset + length as u64;
        while offset < end {
            let bytes = pattern(offset, (end - offset).min(PIECE as u64) as usize);
            offset += self.write_some(bytes).await? as u64;
        }
        Ok(())
    }

    /// Writes some of `bytes`.
    ///
    /// # Errors
    /// If the connection was cut off.
    pub async fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|context| {
            self.0.poll_io(Direction::Write, context, |tcp| tcp.try_write(&[IoSlice::new(bytes)]))
        })
        .await
    }

    /// Reads some bytes; none at the end.
    ///
    /// # Errors
    /// If the connection was cut off.
    pub async fn read_some(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(most);
        poll_fn(|context| self.0.poll_io(Direction::Read, context, |tcp| tcp.try_read(&mut buffer))).await?;
        Ok(buffer)
    }

    /// Reads so many bytes of the pattern from `offset` on, and checks them.
    ///
    /// # Errors
    /// If the connection ended before.
    pub async fn expect_pattern(&self, offset: u64, length: usize) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let bytes = self.read_some((length - done).min(PIECE)).await?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            assert!(bytes == pattern(offset + done as u64, bytes.len()), "bytes from {offset} + {done}");
            done += bytes.len();
        }
        Ok(())
    }

    /// Reads the pattern from `offset` on to its clean end. Returns how many bytes there were.
    ///
    /// # Errors
    /// If the connection was cut off.
    pub async fn verify_pattern(&self, offset: u64) -> io::Result<u64> {
        let mut count = 0;
        loop {
            let bytes = self.read_some(PIECE).await?;
            if bytes.is_empty() {
                return Ok(count);
            }
            assert!(bytes == pattern(offset + count, bytes.len()), "bytes from {offset} + {count}");
            count += bytes.len() as u64;
        }
    }

    /// Sends everything back, until the end.
    ///
    /// # Errors
    /// If the connection was cut off.
    pub async fn echo(&self) -> io::Result<()> {
        loop {
            let bytes = self.read_some(PIECE).await?;
            if bytes.is_empty() {
                return self.shutdown();
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                rest = &rest[self.write_some(rest).await?..];
            }
        }
    }

    /// Ends this end's direction.
    ///
    /// # Errors
    /// If the connection was cut off.
    pub fn shutdown(&self) -> io::Result<()> {
        self.0.shutdown()
    }

    /// Closes with RST.
    pub fn reset(self) {
        let _it_may_be_over = self.0.close_with_reset(true);
    }
}

trait PollIo {
    /// Tries, and waits while it would block.
    fn poll_io<T>(
        &self,
        direction: Direction,
        context: &mut std::task::Context<'_>,
        operation: impl FnMut(&Self) -> io::Result<T>,
    ) -> std::task::Poll<io::Result<T>>;
}

impl<S: Tcp> PollIo for S {
    fn poll_io<T>(
        &self,
        direction: Direction,
        context: &mut std::task::Context<'_>,
        mut operation: impl FnMut(&Self) -> io::Result<T>,
    ) -> std::task::Poll<io::Result<T>> {
        loop {
            match operation(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.poll_ready(direction, context))?;
                }
                result => return std::task::Poll::Ready(result),
            }
        }
    }
}
