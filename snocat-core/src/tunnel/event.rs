//! What a tunnel tells its application, and the names it uses for it.

use std::fmt;
use std::net::SocketAddr;

use crate::auth::{Claim, Outcome, Question};
use crate::code::{Code, Escaped, Refusal};
use crate::open::Header;
use crate::route::RouteAddress;

/// Names a stream of one tunnel, for good: ids are never reused within a tunnel.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) quinn_proto::StreamId);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        u64::from(self.0).fmt(f)
    }
}

/// Names a binding that one side has asked the other for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindingId(pub(super) u64);

impl fmt::Display for BindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The right to answer once in an authentication. A second use is caught.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(pub(super) u64);

/// What has happened in a tunnel.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is done. Only when [`ConnectConfig::hold`](crate::ConnectConfig::hold) is set: then the
    /// tunnel waits for [`Tunnel::authenticate`](crate::Tunnel::authenticate).
    Connected,
    /// The peer has proven `claim`. Answer with [`Tunnel::admit`](crate::Tunnel::admit) or
    /// [`Tunnel::refuse_peer`](crate::Tunnel::refuse_peer), now or later: the deadline of the authentication
    /// runs on.
    AuthRequested {
        /// Goes with the answer.
        ticket: Ticket,
        /// Who the peer is, and what it wants its tunnel to be called.
        claim: Claim,
    },
    /// A method of the authentication asks what it cannot know by itself
    /// ([`External`](crate::auth::External)). Answer with
    /// [`Tunnel::answer_question`](crate::Tunnel::answer_question), now or later: the deadline of the authentication
    /// runs on.
    AuthQuestion {
        /// Goes with the answer.
        ticket: Ticket,
        /// What is asked.
        question: Question,
    },
    /// Authentication is over and was successful: from here on both sides are equal.
    Authenticated(Outcome),
    /// The peer asks for a port. Answer with [`Tunnel::answer_binding`](crate::Tunnel::answer_binding).
    BindingRequested {
        /// Goes with the answer.
        binding: BindingId,
        /// The port it wants; 0 for any.
        port: u16,
        /// The address that the streams of this binding are to carry.
        address: RouteAddress,
    },
    /// The peer has answered [`Tunnel::request_binding`](crate::Tunnel::request_binding).
    BindingAnswered {
        /// Which request.
        binding: BindingId,
        /// Where the peer listens, or why it does not.
        result: Result<Vec<SocketAddr>, Refusal>,
    },
    /// The peer offers a stream. Answer with [`Tunnel::accept`](crate::Tunnel::accept) or
    /// [`Tunnel::refuse`](crate::Tunnel::refuse) within the time to dial.
    OpenRequested {
        /// The stream.
        stream: StreamId,
        /// What it is for.
        header: Header,
    },
    /// An offered stream that was not answered yet is gone: the peer took it back, or the time was up.
    OpenCancelled {
        /// The stream.
        stream: StreamId,
    },
    /// The peer has accepted a stream that this side opened.
    Accepted {
        /// The stream.
        stream: StreamId,
    },
    /// The peer has refused a stream that this side opened, or did not answer in time. The stream is gone.
    Refused {
        /// The stream.
        stream: StreamId,
        /// Why.
        refusal: Refusal,
    },
    /// There may be something to read: bytes, or the end.
    Readable {
        /// The stream.
        stream: StreamId,
    },
    /// A write that was blocked may succeed.
    Writable {
        /// The stream.
        stream: StreamId,
    },
    /// The peer has cut its direction off. What lay unread is gone. (Where the peer wants its bytes to be read before, no
    /// event tells; [`Tunnel::read`](crate::Tunnel::read) does, behind them.)
    Reset {
        /// The stream.
        stream: StreamId,
        /// Why.
        code: Code,
    },
    /// The peer wants no more bytes of this stream. This side's direction has been reset with the same code.
    Stopped {
        /// The stream.
        stream: StreamId,
        /// Why.
        code: Code,
    },
    /// Everything written, and the end, has arrived at the peer.
    Finished {
        /// The stream.
        stream: StreamId,
    },
    /// This side has reset a stream by itself: nobody read its bytes, and the tunnel's memory was used up.
    Stalled {
        /// The stream.
        stream: StreamId,
    },
    /// An [`open`](crate::Tunnel::open) that met the limit may succeed.
    StreamsAvailable,
    /// The tunnel has ended, and all its streams with it. Always the last event. What has arrived in order of streams that
    /// were accepted can still be [read](crate::Tunnel::read).
    Closed(CloseReason),
}

/// Who or what ended a tunnel.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClosedBy {
    /// This side.
    Local,
    /// The peer.
    Peer,
    /// Silence: nothing came for longer than the idle time.
    Idle,
    /// The peer has no memory of the tunnel; most likely it was started anew.
    Reset,
    /// This side rejected the handshake: the peer's certificate, or what it speaks. With the TLS alert.
    Handshake(Option<u8>),
    /// The peer rejected the handshake. With the TLS alert.
    PeerHandshake(Option<u8>),
    /// QUIC itself failed.
    Transport,
}

/// Why a tunnel ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// Who or what ended it.
    pub by: ClosedBy,
    /// The code from the table of Protocol.md.
    pub code: Code,
    /// Words for people. From the peer, so not to be trusted; `Display` escapes it.
    pub text: String,
}

impl CloseReason {
    /// A reason of this side's own.
    pub fn local(refusal: Refusal) -> Self {
        Self { by: ClosedBy::Local, code: refusal.code, text: refusal.text }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Escaped(&self.text);
        match self.by {
            ClosedBy::Local => write!(f, "{text} ({})", self.code),
            ClosedBy::Peer => write!(f, "ended by the peer: {text} ({})", self.code),
            ClosedBy::Idle => f.write_str("the peer has fallen silent"),
            ClosedBy::Reset => f.write_str("the peer was restarted"),
            ClosedBy::Handshake(_) => write!(f, "handshake failed: {text}"),
            ClosedBy::PeerHandshake(_) => write!(f, "the peer rejected the handshake: {text}"),
            ClosedBy::Transport => write!(f, "connection failed: {text}"),
        }
    }
}

impl From<quinn_proto::ConnectionError> for CloseReason {
    fn from(error: quinn_proto::ConnectionError) -> Self {
        use quinn_proto::ConnectionError as Error;
        let bare = |by, code, text: String| {
            let refusal = Refusal::new(code, text);
            Self { by, code: refusal.code, text: refusal.text }
        };
        match error {
            Error::ApplicationClosed(close) => bare(
                ClosedBy::Peer,
                Code::new(close.error_code.into_inner()),
                String::from_utf8_lossy(&close.reason).into_owned(),
            ),
            Error::ConnectionClosed(close) => {
                let text = format!("{}: {}", close.error_code, String::from_utf8_lossy(&close.reason));
                match alert(close.error_code) {
                    // What an application's close becomes before the handshake is done (RFC 9000, 10.2.3).
                    None if close.error_code == quinn_proto::TransportErrorCode::APPLICATION_ERROR => {
                        bare(ClosedBy::Peer, Code::CLOSED, "it gave up during the handshake".into())
                    }
                    Some(alert) => bare(ClosedBy::PeerHandshake(Some(alert)), Code::PROTOCOL, text),
                    None => bare(ClosedBy::Transport, Code::PROTOCOL, text),
                }
            }
            Error::TransportError(error) => match alert(error.code) {
                Some(alert) => bare(ClosedBy::Handshake(Some(alert)), Code::PROTOCOL, error.reason),
                None => bare(ClosedBy::Transport, Code::PROTOCOL, error.to_string()),
            },
            Error::TimedOut => bare(ClosedBy::Idle, Code::TIMEOUT, String::new()),
            Error::Reset => bare(ClosedBy::Reset, Code::CLOSED, String::new()),
            Error::VersionMismatch => {
                bare(ClosedBy::PeerHandshake(None), Code::PROTOCOL, "it does not speak QUIC version 1".into())
            }
            other => bare(ClosedBy::Transport, Code::INTERNAL, other.to_string()),
        }
    }
}

/// The TLS alert in a QUIC error code (RFC 9001, section 4.8).
fn alert(code: quinn_proto::TransportErrorCode) -> Option<u8> {
    let code = u64::from(code);
    (0x100..0x200).contains(&code).then(|| u8::try_from(code - 0x100).ok()).flatten()
}
