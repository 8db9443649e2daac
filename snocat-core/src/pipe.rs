//! How a TCP connection and a stream end each other (Protocol.md, "Ending").
//!
//! Pure: told what happened on either side, it says what to do on the other. Bytes do not pass through it.
//!
//! Two directions, *up* from TCP to the stream and *down* from the stream to TCP, end one by one when they end
//! well and together when anything fails, so that a cut-off transfer never looks complete. A failure goes behind the bytes
//! that came before it: what TCP has received is delivered to the stream, and what the peer has sent to TCP.

use crate::code::Code;

/// What happened.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Input {
    /// TCP's read side ended, and everything before was written to the stream.
    TcpEof,
    /// Reading or writing TCP failed, or it was reset. What it has received before is still to be written to the stream.
    TcpFailed,
    /// After [`Self::TcpFailed`]: everything that TCP had received was written to the stream.
    TcpDrained,
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
    /// End this side's half of the stream with a failure, behind everything written.
    pub finish_with_error: Option<Code>,
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
    /// Whether TCP can neither be read any further than what it has received, nor written.
    tcp_failed: bool,
    /// What one direction has failed with while the other one goes on.
    failed: Option<Code>,
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
        Self { up: Up::Open, down: true, tcp_failed: false, failed: None, end: None }
    }

    /// Takes in what happened, and says what to do: nothing, once there is an [end](Self::end).
    pub fn handle(&mut self, input: Input) -> Actions {
        let mut actions = Actions::default();
        if self.end.is_some() {
            return actions;
        }
        match input {
            Input::TcpEof if self.up == Up::Open && !self.tcp_failed => {
                self.up = Up::Finishing;
                actions.finish = true;
            }
            Input::TcpFailed => {
                actions.stop = std::mem::take(&mut self.down).then_some(Code::RESET);
                self.tcp_failed = true;
                self.failed = self.failed.or(Some(Code::RESET));
                // What was finished is still delivered.
                if self.up != Up::Open {
                    self.up = Up::Done;
                }
            }
            Input::TcpDrained if self.tcp_failed && self.up == Up::Open => {
                actions.finish_with_error = Some(Code::RESET);
                self.up = Up::Done;
            }
            Input::StreamFinished if self.up == Up::Finishing => self.up = Up::Done,
            Input::StreamEof if self.down => {
                self.down = false;
                actions.shutdown = self.failed.is_none();
            }
            // The half that the peer reset needs no stop any more.
            Input::StreamReset(code) if self.down => {
                self.down = false;
                actions.reset = self.cut_off(code);
            }
            // What the peer has sent before is still delivered.
            Input::StreamStopped(code) if self.up != Up::Done => actions.reset = self.cut_off(code),
            // Nobody is left to be told anything.
            Input::TunnelLost => self.end = Some(End::Abort(Code::CLOSED)),
            _ => {}
        }
        if self.end.is_none() && self.up == Up::Done && !self.down {
            self.end = Some(self.failed.map_or(End::Clean, End::Abort));
        }
        actions
    }

    /// This side's half carries no more bytes. Returns what to reset it with, if it is not over already.
    fn cut_off(&mut self, code: Code) -> Option<Code> {
        self.failed = self.failed.or(Some(code));
        let open = std::mem::replace(&mut self.up, Up::Done) != Up::Done;
        open.then_some(code)
    }

    /// How it ended, once both sides are over: close TCP like this, and forget the stream. It does not change any more.
    pub const fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether TCP is still to be read for the stream.
    pub fn up_open(&self) -> bool {
        self.end.is_none() && self.up == Up::Open
    }

    /// Whether TCP has failed, and what it has received is still to be written to the stream.
    pub fn is_draining(&self) -> bool {
        self.tcp_failed && self.up_open()
    }

    /// Whether the stream is still to be read for TCP.
    pub const fn down_open(&self) -> bool {
        self.end.is_none() && self.down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUTS: [Input; 10] = [
        Input::TcpEof,
        Input::TcpFailed,
        Input::TcpDrained,
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

    /// Whether `first` was said, and `then` some time after it.
    fn in_order(inputs: &[Input], first: Input, then: Input) -> bool {
        let place = inputs.iter().position(|input| *input == first);
        place.is_some_and(|place| inputs.iter().skip(place).any(|input| *input == then))
    }

    #[test]
    fn nothing_happens_after_the_end_which_stays() {
        for inputs in sequences(5) {
            let mut pipe = Pipe::new();
            for input in &inputs {
                let before = pipe.end();
                let actions = pipe.handle(*input);
                if before.is_some() {
                    assert_eq!((actions, pipe.end()), (Actions::default(), before), "{inputs:?}");
                    assert!(!pipe.up_open() && !pipe.down_open() && !pipe.is_draining());
                }
            }
        }
    }

    /// A cut-off transfer never looks complete.
    #[test]
    fn it_ends_cleanly_only_if_nothing_is_missing() {
        use Input::{StreamEof, StreamFinished, TcpEof};
        for inputs in sequences(5) {
            let (actions, end) = run(&inputs);
            if end == Some(End::Clean) {
                assert!(
                    inputs.contains(&StreamEof) && in_order(&inputs, TcpEof, StreamFinished),
                    "{inputs:?}"
                );
                let expected = |what: fn(&Actions) -> bool| actions.iter().filter(|one| what(one)).count();
                assert_eq!((expected(|one| one.finish), expected(|one| one.shutdown)), (1, 1), "{inputs:?}");
                let failed = |one: &Actions| one.reset.or(one.stop).or(one.finish_with_error).is_some();
                assert!(!actions.iter().any(failed), "{inputs:?}");
            }
        }
    }

    /// Each side learns of each end once, and of a failure with its code.
    #[test]
    fn both_sides_are_told_once() {
        for inputs in sequences(5) {
            let (actions, end) = run(&inputs);
            let count = |what: fn(&Actions) -> bool| actions.iter().filter(|one| what(one)).count();
            let finished = count(|one| one.finish) + count(|one| one.finish_with_error.is_some());
            let (reset, stopped) = (count(|one| one.reset.is_some()), count(|one| one.stop.is_some()));
            assert!(
                finished <= 1 && reset <= 1 && stopped <= 1 && count(|one| one.shutdown) <= 1,
                "{inputs:?}"
            );
            assert!(count(|one| one.finish_with_error.is_some()) + reset <= 1, "{inputs:?}");
            let lost = end == Some(End::Abort(Code::CLOSED));
            if end.is_some() && !lost {
                assert!(finished + reset >= 1, "this side's half ends: {inputs:?}");
                let by_peer = |input: &Input| matches!(input, Input::StreamEof | Input::StreamReset(_));
                assert!(stopped == 1 || inputs.iter().any(by_peer), "the peer's half ends: {inputs:?}");
            }
            for (input, actions) in inputs.iter().zip(&actions) {
                let of_peer = match input {
                    Input::StreamReset(code) | Input::StreamStopped(code) => Some(*code),
                    _ => None,
                };
                assert!(actions.reset.is_none_or(|code| Some(code) == of_peer), "{inputs:?}");
                assert!(actions.stop.is_none_or(|_| *input == Input::TcpFailed), "{inputs:?}");
            }
        }
    }

    /// What was sent before a failure is delivered before it is.
    #[test]
    fn a_failure_goes_behind_the_bytes() {
        for inputs in sequences(5) {
            let mut pipe = Pipe::new();
            for (step, input) in inputs.iter().enumerate() {
                let before = pipe.clone();
                let actions = pipe.handle(*input);
                let said = &inputs[..=step];
                match input {
                    Input::TcpFailed if before.up_open() => {
                        assert!(pipe.is_draining() && pipe.end().is_none(), "TCP is read on: {said:?}");
                    }
                    Input::TcpDrained if before.is_draining() => {
                        assert_eq!(actions.finish_with_error, Some(Code::RESET), "{said:?}");
                        assert!(matches!(pipe.end(), Some(End::Abort(_))), "{said:?}");
                    }
                    Input::StreamStopped(_) if before.down_open() => {
                        assert!(pipe.down_open() && !pipe.up_open(), "the stream is read on: {said:?}");
                    }
                    _ => {}
                }
                // A half that has ended well is left alone by what happens to TCP.
                let finished = said.contains(&Input::TcpEof) && !before.up_open();
                let by_tcp = *input == Input::TcpFailed && finished;
                assert!(!by_tcp || actions.reset.or(actions.finish_with_error).is_none(), "{said:?}");
            }
        }
    }

    /// However it goes on, either loss is the end of it.
    #[test]
    fn nothing_outlives_its_tunnel_or_its_connection() {
        for inputs in sequences(4) {
            for last in [&[Input::TunnelLost][..], &[Input::TcpFailed, Input::TcpDrained]] {
                let (_, end) = run(&[&inputs, last].concat());
                assert!(end.is_some(), "{inputs:?} {last:?}");
            }
        }
    }

    #[test]
    fn the_first_failure_gives_the_code() {
        use Input::{StreamEof, StreamReset, StreamStopped, TcpDrained, TcpFailed};
        let end = |inputs: &[Input]| run(inputs).1;
        assert_eq!(end(&[TcpFailed, TcpDrained]), Some(End::Abort(Code::RESET)));
        assert_eq!(end(&[StreamReset(Code::BUSY)]), Some(End::Abort(Code::BUSY)));
        assert_eq!(end(&[StreamStopped(Code::LIMIT), StreamEof]), Some(End::Abort(Code::LIMIT)));
        let stopped_first = [StreamStopped(Code::LIMIT), StreamReset(Code::BUSY)];
        assert_eq!(end(&stopped_first), Some(End::Abort(Code::LIMIT)));
        assert_eq!(run(&stopped_first).0[1], Actions::default(), "its own half is reset already");
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
