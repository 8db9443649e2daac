//! Authentication against somebody who does not know the secret.

use std::sync::Arc;

use snocat_core::auth::{
    Attributes, Connecting, ConnectingConfig, ConnectingStep, Listening, ListeningConfig, ListeningStep,
    NoProof, Outcome, TokenKey, TokenKeys, TokenSecret,
};
use snocat_core::wire::Frame;

use super::{Source, frames};

/// Both sides of the authentication, against arbitrary frames and with somebody between them who changes what they
/// say: whoever does not know the secret is neither let in nor believed, and what is believed is what was said.
pub fn auth(data: &[u8]) {
    arbitrary(data);
    tampered(&mut Source(data));
}

fn exporter(context: &[u8; 32]) -> Option<[u8; 32]> {
    Some(context.map(|byte| byte ^ 0x5a))
}

fn secret() -> TokenSecret {
    TokenSecret::new(*b"a secret of bytes that no input knows").expect("it is long enough")
}

fn listening(none: bool) -> Listening {
    let mut accepted = ListeningConfig::only(TokenKeys::new(vec![TokenKey::nameless(secret())]));
    if none {
        accepted.methods.push(Arc::new(NoProof));
    }
    Listening::new(&accepted)
}

fn connecting() -> Connecting {
    Connecting::new(&ConnectingConfig { name: "wanted".parse().ok(), ..ConnectingConfig::only(secret()) })
}

fn arbitrary(data: &[u8]) {
    let (mut listening, mut connecting) = (listening(false), connecting());
    connecting.start(&exporter).expect("the exporter works");
    let (mut listens, mut connects) = (true, true);
    for frame in frames(data, usize::MAX).0.iter().filter(|frame| frame.is_authentication()) {
        match listening.handle(frame, &exporter) {
            Ok(ListeningStep::Send(_)) => assert!(listens, "it goes on after an error"),
            Ok(step) => panic!("let in without the secret: {step:?}"),
            Err(_) => listens = false,
        }
        match connecting.handle(frame, &exporter) {
            Ok(ConnectingStep::Send(_)) => assert!(connects, "it goes on after an error"),
            Ok(step) => panic!("believed without the secret: {step:?}"),
            Err(_) => connects = false,
        }
    }
}

/// An exchange whose frames pass through somebody's hands.
fn tampered(source: &mut Source<'_>) {
    let none = source.byte() & 1 == 1;
    let (mut listening, mut connecting) = (listening(none), connecting());
    let (mut up_changed, mut down_changed) = (false, false);
    let mut decided: Option<Outcome> = None;
    let Ok(ConnectingStep::Send(mut up)) = connecting.start(&exporter) else {
        panic!("the exporter works and nothing is asked")
    };
    for _ in 0..8 {
        let mut down = Vec::new();
        for frame in tamper(&up, source, &mut up_changed) {
            match listening.handle(&frame, &exporter) {
                Ok(ListeningStep::Send(bytes)) => down.extend(bytes),
                Ok(ListeningStep::Decide { send, claim }) => {
                    // The method `none` lets everybody in: that is what it is for.
                    assert!(
                        !up_changed || claim.method == "none",
                        "a changed exchange was accepted: {claim:?}"
                    );
                    down.extend(send);
                    let name = claim.name.unwrap_or_else(|| "chosen".parse().expect("a name"));
                    let attributes = Attributes::from([("key".to_owned(), "value".to_owned())]);
                    let accepted = listening.accept(name, attributes, &exporter);
                    let (bytes, outcome) = accepted.expect("there is a claim");
                    down.extend(bytes);
                    decided = Some(outcome);
                }
                Ok(ListeningStep::Ask { question, .. }) => panic!("nothing is asked: {question:?}"),
                Err(_) => return,
            }
        }
        up.clear();
        for frame in tamper(&down, source, &mut down_changed) {
            match connecting.handle(&frame, &exporter) {
                Ok(ConnectingStep::Send(bytes)) => up.extend(bytes),
                Ok(ConnectingStep::Done(outcome)) => {
                    assert!(!up_changed && !down_changed, "a changed exchange was believed: {outcome:?}");
                    let decided = decided.map(|decided| Outcome { proven: None, ..decided });
                    assert_eq!(Some(outcome), decided, "both sides have come to the same");
                    return;
                }
                Ok(ConnectingStep::Ask { question, .. }) => panic!("nothing is asked: {question:?}"),
                Err(_) => return,
            }
        }
    }
    assert!(up_changed || down_changed, "an exchange that nobody disturbs comes to its end");
}

/// What becomes of frames on their way.
fn tamper(bytes: &[u8], source: &mut Source<'_>, changed: &mut bool) -> Vec<Frame> {
    let sent = frames(bytes, usize::MAX).0;
    let mut received = Vec::new();
    for mut frame in sent.clone() {
        match source.byte() % 8 {
            4 => {
                let (at, change) = (source.word(), source.byte());
                let mut payload = frame.payload.to_vec();
                let at = at % payload.len().max(1);
                payload.get_mut(at).into_iter().for_each(|byte| *byte ^= change);
                frame.payload = payload.into();
            }
            5 => continue,
            6 => {
                let (kind, length) = (u64::from(source.byte() % 16), source.byte());
                received.push(Frame { kind, payload: source.bytes(length.into()).to_vec().into() });
            }
            7 => frame.kind = u64::from(source.byte() % 16),
            _ => {}
        }
        received.push(frame);
    }
    *changed |= received != sent;
    received
}
