//! How a TCP connection and a stream end each other (Protocol.md, "Ending").
//!
//! Pure: told what happened on either side, it says what to do on the other. Bytes do not pass through it. Two
//! directions, *up* from TCP to the stream and *down* from the stream to TCP, end one by one when they end well
//! and together when anything fails, so that a cut-off transfer never looks complete.

use crate::code::Code;

/// What happened.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Input {
    /// TCP's read side ended, and everything before was written to the stream.
    TcpEof,
    /// Reading or writing TCP failed, or it was reset.
    TcpFailed,
    /// The stream's read side ended (FIN), and everything before was written to TCP.
    StreamEof,
    /// The peer reset its half of the stream.
    StreamReset(Code),
    /// The peer stopped reading this side's half of the stream.
    StreamStopped(Code),
    /// The peer acknowledged this side's FIN, and thus everything before it.
    StreamFinished,
    /// The tunnel is gone, and the stream with it.
    TunnelLost,
}

/// What to do, in the order of the fields. The default is nothing.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct Actions {
    /// Finish this side's half of the stream (FIN).
    pub finish: bool,
    /// Reset this side's half of the stream.
    pub reset: Option<Code>,
    /// Tell the peer to stop its half of the stream.
    pub stop: Option<Code>,
    /// Shut down TCP's write side.
    pub shutdown: bool,
    /// Both are over: close TCP, forget the stream. Given exactly once.
    pub end: Option<End>,
}

/// How TCP is to be closed.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum End {
    /// Both directions are complete: close it normally (linger off).
    Clean,
    /// Something is missing: close it with RST. The code says why, for logs.
    Abort(Code),
}

/// One TCP connection and one stream.
#[derive(Clone, Debug)]
pub struct Pipe {
    up: Up,
    /// Whether bytes may still come from the stream.
    down: bool,
    done: bool,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Up {
    Open,
    /// Finished here, not yet acknowledged by the peer.
    Finishing,
    Done,
}

impl Default for Pipe {
    fn default() -> Self {
        Self::new()
    }
}

impl Pipe {
    /// A pipe with both directions open.
    pub const fn new() -> Self {
        Self { up: Up::Open, down: true, done: false }
    }

    /// Takes in what happened, and says what to do. Once [`Self::is_done`], nothing.
    pub fn handle(&mut self, input: Input) -> Actions {
        let mut actions = Actions::default();
        if self.done {
            return actions;
        }
        match input {
            Input::TcpEof if self.up == Up::Open => {
                self.up = Up::Finishing;
                actions.finish = true;
            }
            Input::StreamFinished if self.up == Up::Finishing => self.up = Up::Done,
            Input::StreamEof if self.down => {
                self.down = false;
                actions.shutdown = true;
            }
            Input::TcpFailed => return self.abort(Code::RESET, true, true),
            // The half that the peer reset needs no stop any more.
            Input::StreamReset(code) if self.down => return self.abort(code, true, false),
            // A peer that has everything (and whose acknowledgement may still be on its way) stops with `none`.
            Input::StreamStopped(code) if self.up != Up::Done && code != Code::NONE => {
                return self.abort(code, true, true);
            }
            // Nobody is left to be told anything.
            Input::TunnelLost => return self.abort(Code::CLOSED, false, false),
            _ => {}
        }
        if self.up == Up::Done && !self.down {
            self.done = true;
            actions.end = Some(End::Clean);
        }
        actions
    }

    /// Whether it is over: everything to be done has been said.
    pub const fn is_done(&self) -> bool {
        self.done
    }

    /// Whether TCP is still to be read for the stream.
    pub fn up_open(&self) -> bool {
        !self.done && self.up == Up::Open
    }

    /// Whether the stream is still to be read for TCP.
    pub const fn down_open(&self) -> bool {
        !self.done && self.down
    }

    fn abort(&mut self, code: Code, reset: bool, stop: bool) -> Actions {
        self.done = true;
        Actions {
            reset: (reset && self.up != Up::Done).then_some(code),
            stop: (stop && self.down).then_some(code),
            end: Some(End::Abort(code)),
            ..Actions::default()
        }
    }
}
