//! The UDP socket of a driver: batches in both directions, and who waits when it is full.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use quinn_udp::{EcnCodepoint, RecvMeta};
use snocat_core::Datagram;
use snocat_core::quic::{self, Transmit};

use crate::runtime::{Direction, Icmp, Runtime, Udp};
use crate::sync::{Key, Waiters, lock, store};

/// Buffers of one receive call. Each takes a whole batch of the kernel's (GRO).
const BUFFERS: usize = 4;
const BUFFER: usize = 64 * 1024;
/// The longest UDP payload; a longer batch would fail as a whole.
const MAX_BATCH: usize = 65_507;
/// Datagrams of one send call at most, whatever the kernel would take: a longer burst only fills queues.
const MAX_SEGMENTS: usize = 32;

/// The socket was full; the datagram is still the caller's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

pub(crate) struct Socket<R: Runtime> {
    io: R::Udp,
    local: SocketAddr,
    full: Mutex<Waiting>,
    /// The only host that this socket sends to, if it is a client's.
    peer: Option<IpAddr>,
    refused: AtomicBool,
    /// Buffers that batches are composed in, while nobody does.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// Buffers that are kept for those who compose a batch. Each is as long as a batch, so no tunnel has one of its own.
const SPARE: usize = 4;

#[derive(Default)]
struct Waiting {
    senders: Waiters,
    /// The task that owns the socket's readiness.
    receiver: Option<Waker>,
}

impl<R: Runtime> Socket<R> {
    /// Binds to `address`. If all that it sends goes to one `peer`, what that host says in ICMP messages is noted
    /// ([`take_refused`](Self::take_refused)).
    pub(crate) fn bind(runtime: &R, address: SocketAddr, peer: Option<IpAddr>) -> io::Result<Self> {
        let io = runtime.bind(address, peer.is_some())?;
        let local = io.local_addr()?;
        Ok(Self {
            io,
            local,
            full: Mutex::default(),
            peer: peer.map(|peer| peer.to_canonical()),
            refused: AtomicBool::new(false),
            spare: Mutex::default(),
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn may_fragment(&self) -> bool {
        self.io.may_fragment()
    }

    /// Whether the peer's host has said, since this was asked last, that nothing listens where a datagram went. Only a
    /// hint: anybody on the way can forge it.
    pub(crate) fn take_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed) && self.refused.swap(false, Ordering::Relaxed)
    }

    /// How many datagrams of `mtu` bytes may be sent at once. The kernel may change its mind at any time.
    pub(crate) fn max_segments(&self, mtu: u16) -> usize {
        self.io.max_segments().min(MAX_BATCH / usize::from(mtu).max(1)).clamp(1, MAX_SEGMENTS)
    }

    /// A buffer to compose a batch in.
    pub(crate) fn lend(&self) -> Vec<u8> {
        lock(&self.spare).pop().unwrap_or_default()
    }

    /// Takes back what was lent.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        if buffer.capacity() > 0 {
            let mut spare = lock(&self.spare);
            if spare.len() < SPARE {
                spare.push(buffer);
            }
        }
    }

    /// Sends datagrams. What the network would lose is lost here, too; only a full socket is the caller's to
    /// wait for.
    pub(crate) fn send(&self, transmit: &Transmit, contents: &[u8]) -> Result<(), Full> {
        let mut batch = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
            contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        let error = match self.try_send(&batch) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Full),
            Err(error) => error,
        };
        tracing::debug!(%error, bytes = contents.len(), "sending failed");
        let Some(size) = transmit.segment_size else { return Ok(()) };
        // The interface may not take batches: one by one, then.
        for segment in contents.chunks(size.max(1)) {
            batch.contents = segment;
            batch.segment_size = None;
            if self.try_send(&batch).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn try_send(&self, batch: &quinn_udp::Transmit<'_>) -> io::Result<()> {
        self.io.try_send(batch).or_else(|error| {
            // An ICMP message about an earlier datagram is reported instead of sending this one.
            if error.kind() == io::ErrorKind::WouldBlock || !self.take_errors() {
                return Err(error);
            }
            self.io.try_send(batch)
        })
    }

    /// Has `waker` woken once the socket takes datagrams again. The task to wake for that is returned. Whoever has a key
    /// is to say when it [waits no longer](Self::wait_no_longer).
    #[must_use]
    pub(crate) fn wait_writable(&self, key: &mut Option<Key>, waker: &Waker) -> Option<Waker> {
        let mut full = lock(&self.full);
        full.senders.enter(key, &Context::from_waker(waker));
        full.receiver.clone()
    }

    pub(crate) fn wait_no_longer(&self, key: Key) {
        // All are woken at once, so nobody depends on this one.
        let _was_woken = lock(&self.full).senders.leave(key);
    }

    /// The task that receives.
    pub(crate) fn receiver(&self) -> Option<Waker> {
        lock(&self.full).receiver.clone()
    }

    /// The receiving task's part in sending: it owns the readiness of the socket.
    pub(crate) fn poll_senders(&self, context: &mut Context<'_>) {
        {
            let mut full = lock(&self.full);
            store(&mut full.receiver, context);
            if !full.senders.any_asleep() {
                return;
            }
        }
        if self.io.poll_ready(Direction::Write, context).is_ready() {
            let mut woken = Vec::new();
            lock(&self.full).senders.wake_all(&mut woken);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// Receives one batch into `datagrams`.
    pub(crate) fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffers: &mut Buffers,
        datagrams: &mut Vec<Datagram>,
    ) -> Poll<io::Result<()>> {
        loop {
            if buffers.dry {
                std::task::ready!(self.io.poll_ready(Direction::Read, context))?;
                buffers.dry = false;
            }
            let received = {
                let Buffers { memory, metas, .. } = &mut *buffers;
                let mut parts = memory.chunks_exact_mut(BUFFER);
                let mut slices: [_; BUFFERS] =
                    std::array::from_fn(|_| IoSliceMut::new(parts.next().unwrap_or_default()));
                self.io.try_receive(&mut slices, metas)
            };
            match received {
                Ok(count) => {
                    buffers.split(count, datagrams);
                    // Behind a single datagram there is hardly another; behind a batch one has come once the batch is
                    // dealt with. Waiting reports what is there already, so either guess may be wrong.
                    buffers.dry = datagrams.len() == 1;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => buffers.dry = true,
                // What ICMP says about an earlier datagram is reported once, and is no reason to stop.
                Err(error) if self.take_errors() || is_icmp(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads what ICMP has to say. Returns whether there was anything.
    pub(crate) fn take_errors(&self) -> bool {
        let mut any = false;
        while let Some(error) = self.io.take_error() {
            any = true;
            if matches!(error, Icmp::PortUnreachable(host) if Some(host) == self.peer) {
                self.refused.store(true, Ordering::Relaxed);
            }
        }
        any
    }
}

/// What systems without an error queue make of ICMP messages.
fn is_icmp(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
}

/// What a receiving task keeps from batch to batch.
pub(crate) struct Buffers {
    /// One piece for all: so long a one is its own mapping, of which only what was used is resident.
    memory: Vec<u8>,
    metas: [RecvMeta; BUFFERS],
    /// There is hardly more to receive: the socket is waited for before it is tried again.
    dry: bool,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self { memory: vec![0; BUFFERS * BUFFER], metas: [RecvMeta::default(); BUFFERS], dry: false }
    }

    /// Copies each datagram into memory of its own size: a few unread bytes must not keep a whole batch alive.
    fn split(&self, count: usize, datagrams: &mut Vec<Datagram>) {
        for (buffer, meta) in self.memory.chunks_exact(BUFFER).zip(&self.metas).take(count) {
            let bytes = buffer.get(..meta.len).unwrap_or_default();
            for data in bytes.chunks(meta.stride.max(1)) {
                datagrams.push(Datagram {
                    remote: meta.addr,
                    local_ip: meta.dst_ip,
                    ecn: meta.ecn.and_then(|ecn| quic::EcnCodepoint::from_bits(ecn as u8)),
                    data: BytesMut::from(data),
                });
            }
        }
    }
}
