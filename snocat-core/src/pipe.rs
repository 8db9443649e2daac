//! How a TCP connection and a stream end each other (Protocol.md, "Ending").
//!
//! Pure: told what happened on either side, it says what to do on the other. Bytes do not pass through it.
//!
//! Two directions, *up* from TCP to the stream and *down* from the stream to TCP, end one by one when they end
//! well and together when anything fails, so that a cut-off transfer never looks complete.

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

/// What to do, in the order of the fields. The default is nothing. Whether both sides are over is no action, which
/// could get lost: ask [`Pipe::end`].
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
    end: Option<End>,
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
        Self { up: Up::Open, down: true, end: None }
    }

    /// Takes in what happened, and says what to do: nothing, once there is an [end](Self::end).
    pub fn handle(&mut self, input: Input) -> Actions {
        let mut actions = Actions::default();
        if self.end.is_some() {
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
            Input::StreamStopped(code) if self.up != Up::Done => return self.abort(code, true, true),
            // Nobody is left to be told anything.
            Input::TunnelLost => return self.abort(Code::CLOSED, false, false),
            _ => {}
        }
        if self.up == Up::Done && !self.down {
            self.end = Some(End::Clean);
        }
        actions
    }

    /// How it ended, once both sides are over: close TCP like this, and forget the stream. It does not change any more.
    pub const fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether TCP is still to be read for the stream.
    pub fn up_open(&self) -> bool {
        self.end.is_none() && self.up == Up::Open
    }

    /// Whether the stream is still to be read for TCP.
    pub const fn down_open(&self) -> bool {
        self.end.is_none() && self.down
    }

    fn abort(&mut self, code: Code, reset: bool, stop: bool) -> Actions {
        self.end = Some(End::Abort(code));
        Actions {
            reset: (reset && self.up != Up::Done).then_some(code),
            stop: (stop && self.down).then_some(code),
            ..Actions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUTS: [Input; 9] = [
        Input::TcpEof,
        Input::TcpFailed,
        Input::StreamEof,
        Input::StreamReset(Code::LIMIT),
        Input::StreamReset(Code::NONE),
        Input::StreamStopped(Code::BUSY),
        Input::StreamStopped(Code::NONE),
        Input::StreamFinished,
        Input::TunnelLost,
    ];

    /// Every sequence of exactly `length` inputs; the shorter ones are their beginnings.
    fn sequences(length: u32) -> impl Iterator<Item = Vec<Input>> {
        (0..INPUTS.len().pow(length)).map(move |number| {
            (0..length).map(|place| INPUTS[number / INPUTS.len().pow(place) % INPUTS.len()]).collect()
        })
    }

    fn run(inputs: &[Input]) -> (Vec<Actions>, Option<End>) {
        let mut pipe = Pipe::new();
        (inputs.iter().map(|input| pipe.handle(*input)).collect(), pipe.end())
    }

    fn code_of(input: Input) -> Option<Code> {
        match input {
            Input::TcpFailed => Some(Code::RESET),
            Input::StreamReset(code) | Input::StreamStopped(code) => Some(code),
            Input::TunnelLost => Some(Code::CLOSED),
            _ => None,
        }
    }

    /// Said without the machine: what a history means.
    struct Said<'a>(&'a [Input]);

    impl Said<'_> {
        fn place(&self, input: Input) -> Option<usize> {
            self.0.iter().position(|said| *said == input)
        }

        fn eof(&self) -> bool {
            self.place(Input::TcpEof).is_some()
        }

        /// The end was acknowledged, after there was one.
        fn acknowledged(&self) -> bool {
            self.place(Input::TcpEof)
                .is_some_and(|eof| self.0.iter().skip(eof).any(|said| *said == Input::StreamFinished))
        }

        fn delivered(&self) -> bool {
            self.place(Input::StreamEof).is_some()
        }

        fn fails(&self, input: Input) -> bool {
            match input {
                Input::TcpFailed | Input::TunnelLost => true,
                Input::StreamReset(_) => !self.delivered(),
                Input::StreamStopped(_) => !self.acknowledged(),
                _ => false,
            }
        }
    }

    /// Every sequence of 5 inputs against the rules, each step by itself.
    #[test]
    fn all_sequences() {
        for inputs in sequences(5) {
            let mut pipe = Pipe::new();
            let mut end = None;
            for (step, input) in inputs.iter().enumerate() {
                let before = Said(&inputs[..step]);
                let after = Said(&inputs[..=step]);
                let actions = pipe.handle(*input);
                let context = format!("{:?} -> {actions:?}", after.0);
                if end.is_some() {
                    assert_eq!(actions, Actions::default(), "nothing after the end: {context}");
                } else if before.fails(*input) {
                    let code = code_of(*input).unwrap();
                    let told = *input != Input::TunnelLost;
                    let reset = told && !before.acknowledged();
                    let stop = told && !before.delivered() && !matches!(input, Input::StreamReset(_));
                    let expected = Actions {
                        reset: reset.then_some(code),
                        stop: stop.then_some(code),
                        ..Actions::default()
                    };
                    assert_eq!(actions, expected, "both sides learn of it: {context}");
                    end = Some(End::Abort(code));
                } else {
                    let complete = after.acknowledged() && after.delivered();
                    let expected = Actions {
                        finish: after.eof() && !before.eof(),
                        shutdown: after.delivered() && !before.delivered(),
                        ..Actions::default()
                    };
                    assert_eq!(actions, expected, "{context}");
                    end = complete.then_some(End::Clean);
                }
                assert_eq!(pipe.end(), end, "once there is an end it stays: {context}");
                assert_eq!(pipe.up_open(), end.is_none() && !after.eof(), "{context}");
                assert_eq!(pipe.down_open(), end.is_none() && !after.delivered(), "{context}");
            }
        }
    }

    /// The same sequences against properties that hold over the whole of each.
    #[test]
    fn what_always_holds() {
        for inputs in sequences(5) {
            let (actions, end) = run(&inputs);
            let count = |what: fn(&Actions) -> bool| actions.iter().filter(|actions| what(actions)).count();
            assert!(count(|actions| actions.finish) <= 1 && count(|actions| actions.shutdown) <= 1);
            if end == Some(End::Clean) {
                for needed in [Input::TcpEof, Input::StreamFinished, Input::StreamEof] {
                    assert!(inputs.contains(&needed), "clean without {needed:?}: {inputs:?}");
                }
                assert_eq!(count(|actions| actions.reset.is_some() || actions.stop.is_some()), 0);
            }
            let lost = inputs.iter().any(|input| matches!(input, Input::TcpFailed | Input::TunnelLost));
            assert!(!lost || end.is_some(), "a lost side always ends it: {inputs:?}");
        }
    }

    /// However it goes on, the loss of the tunnel is the end of it.
    #[test]
    fn nothing_outlives_its_tunnel() {
        for inputs in sequences(4) {
            let mut pipe = Pipe::new();
            for input in inputs {
                pipe.handle(input);
            }
            pipe.handle(Input::TunnelLost);
            assert!(pipe.end().is_some() && !pipe.up_open() && !pipe.down_open());
        }
    }

    #[test]
    fn both_orders_of_a_clean_end() {
        use Input::{StreamEof, StreamFinished, TcpEof};
        for inputs in [
            [TcpEof, StreamFinished, StreamEof],
            [TcpEof, StreamEof, StreamFinished],
            [StreamEof, TcpEof, StreamFinished],
        ] {
            assert_eq!(run(&inputs).1, Some(End::Clean));
        }
    }
}
