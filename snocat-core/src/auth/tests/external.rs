//! Methods that are run outside: questions and answers.

use super::*;

const METHOD: &str = "ours";

fn external() -> Arc<External> {
    Arc::new(External::new(METHOD))
}

fn offering() -> Connecting {
    connecting([external() as Arc<dyn Credential>])
}

fn accepting_it() -> Listening {
    listening_to([external() as Arc<dyn Authenticator>])
}

fn guest() -> Answer {
    Answer::Satisfied(Proven::new("guest", Grant::default()))
}

/// A listening side that has asked what to do with the first message, `hello`.
fn asked() -> Listening {
    let mut listening = accepting_it();
    listening.handle(&frame(Frame::OFFER, b"\x00\x00\x01\x04ours"), &exporter(1)).unwrap();
    let step = listening.handle(&frame(Frame::PROOF, b"hello"), &exporter(1));
    assert!(matches!(step, Ok(ListeningStep::Ask { .. })), "{step:?}");
    listening
}

/// Runs a conversation of `rounds` messages of the connecting side, and notes who was asked what.
fn conversation(connecting: Connecting, listening: Listening, rounds: u8) -> (Run, Vec<(Side, Question)>) {
    let asked = RefCell::new(Vec::new());
    let answer = |side: Side, question: &Question| {
        asked.borrow_mut().push((side, question.clone()));
        let heard = question.received.as_ref().and_then(|received| received.message.first()).copied();
        match side {
            Side::Connecting => Answer::Say(vec![heard.map_or(1, |heard| heard + 1)]),
            Side::Listening if heard == Some(rounds) => guest(),
            Side::Listening => Answer::Say(vec![heard.unwrap()]),
        }
    };
    let exchange = Lab { answer: &answer, ..Lab::default() }.run(connecting, listening);
    (exchange, asked.into_inner())
}

#[test]
fn each_turn_is_a_question_and_a_message_is_bound_to_the_same_on_both_sides() {
    let (exchange, asked) = conversation(offering(), accepting_it(), 3);
    assert_eq!((exchange.proofs(), exchange.identity()), (5, Some("guest")));
    assert_eq!(exchange.connecting.unwrap().method, METHOD);
    let sides: Vec<_> = asked.iter().map(|(side, _)| *side).collect();
    let (c, l) = (Side::Connecting, Side::Listening);
    assert_eq!(sides, [c, l, c, l, c, l]);
    for (_, question) in &asked {
        assert_eq!(question.method, METHOD);
        assert_eq!(question.remote, Tls::of(1).remote);
        assert_eq!(question.requested.as_ref().unwrap().as_str(), "wanted");
    }
    assert!(asked[0].1.received.is_none(), "nothing was said before the first message");
    let mut bindings = Vec::new();
    for pair in asked.windows(2) {
        let received = pair[1].1.received.as_ref().unwrap();
        assert_eq!(pair[0].1.binding, received.binding);
        bindings.push(received.binding);
    }
    bindings.sort_unstable();
    bindings.dedup();
    assert_eq!(bindings.len(), 5, "each message has a binding of its own");
}

#[test]
fn it_need_not_be_the_preferred_one() {
    // Its first message is due after the selection; that of the token was for nothing.
    let (exchange, asked) = conversation(connecting([token(SECRET), external()]), accepting_it(), 2);
    assert_eq!((exchange.proofs(), exchange.identity()), (4, Some("guest")));
    assert!(exchange.connecting.is_ok());
    assert_eq!(asked.len(), 4);
    assert!(asked[0].1.received.is_none());
    assert_eq!(asked[0].1.binding, asked[1].1.received.as_ref().unwrap().binding);
}

#[test]
fn it_is_asked_for_its_first_message_even_if_another_one_is_picked() {
    let (exchange, asked) =
        conversation(connecting([external(), token(SECRET)]), listening(false, keys("me", SECRET)), 1);
    assert_eq!((exchange.identity(), asked.len()), (Some("me"), 1));
    assert_eq!(exchange.connecting.unwrap().method, "token");
}

#[test]
fn who_is_denied_learns_no_reason_and_who_is_refused_does() {
    let run = |side: Side, end: fn() -> Answer| {
        let answer = move |asked: Side, question: &Question| {
            if asked == side { end() } else { password(asked, question) }
        };
        Lab { answer: &answer, ..Lab::default() }.run(offering(), accepting_it())
    };
    let exchange = run(Side::Listening, || Answer::Denied("the database does not know it".into()));
    assert_eq!(denied(&exchange.listening), Some("the database does not know it"));
    assert_eq!(refusals(exchange.listening), Err(uniform()));
    let busy = || Refusal::new(Code::BUSY, "the database is away");
    let exchange = run(Side::Listening, || Answer::Refused(Refusal::new(Code::BUSY, "the database is away")));
    assert_eq!(refusals(exchange.listening), Err(busy()));
    let exchange =
        run(Side::Connecting, || Answer::Refused(Refusal::new(Code::BUSY, "the database is away")));
    assert_eq!(refusals(exchange.connecting), Err(busy()));
    let exchange = run(Side::Connecting, guest);
    assert_eq!(code(&exchange.connecting), Some(Code::INTERNAL), "who connects does not say who it is");
}

#[test]
fn an_answer_that_does_not_fit_into_a_frame_is_a_failure_of_this_side() {
    let say = |length: usize| move |_: Side, _: &Question| Answer::Say(vec![7; length]);
    let exchange = Lab { answer: &say(4097), ..Lab::default() }.run(offering(), accepting_it());
    assert_eq!(code(&exchange.connecting), Some(Code::INTERNAL));
    let one = |length: usize| asked().answer(Answer::Say(vec![7; length]), &exporter(1));
    assert_eq!(code(&one(4097)), Some(Code::INTERNAL));
    assert!(one(4096).is_ok());
    // In a chain, what is said together must fit.
    let chain: Vec<Arc<dyn Credential>> = vec![external(), external()];
    let chain = || connecting([Arc::new(Chain::of_credentials(chain.clone())) as _]);
    let run = |length: usize| Lab { answer: &say(length), ..Lab::default() }.run(chain(), accepting_it());
    assert_eq!(code(&run(2048).connecting), Some(Code::INTERNAL));
    assert_eq!(code(&run(4096).connecting), Some(Code::INTERNAL));
    assert_eq!(code(&run(2000).listening), Some(Code::AUTH_NO_METHOD), "it was sent");
}

#[test]
fn an_answer_to_nothing_is_a_failure_of_this_side() {
    let here = exporter(1);
    let say = || Answer::Say(b"hello".to_vec());
    assert_eq!(code(&offering().answer(say(), &here)), Some(Code::INTERNAL), "not started");
    assert_eq!(code(&accepting_it().answer(say(), &here)), Some(Code::INTERNAL), "nothing is there");
    let mut connecting = offering();
    connecting.start(&here).unwrap();
    assert_eq!(said(connecting.answer(say(), &here).unwrap()), Frame::encode(Frame::PROOF, b"hello"));
    assert_eq!(code(&connecting.answer(say(), &here)), Some(Code::INTERNAL), "a second time");
    let mut listening = asked();
    assert!(matches!(listening.answer(guest(), &here), Ok(ListeningStep::Decide { .. })));
    assert_eq!(code(&listening.answer(guest(), &here)), Some(Code::INTERNAL), "a second time");
    assert!(listening.accept("n".parse().unwrap(), Attributes::new(), &here).is_err(), "it is over");
    // A method that never asks does not take an answer either.
    let mut token_only = self::connecting([token(SECRET)]);
    token_only.start(&here).unwrap();
    assert_eq!(code(&token_only.answer(say(), &here)), Some(Code::INTERNAL));
}

#[test]
fn while_it_is_asked_the_peer_has_nothing_to_say() {
    let here = exporter(1);
    for kind in [Frame::OFFER, Frame::PROOF, Frame::OUTCOME, 0x02, 0x09] {
        let mut listening = asked();
        assert_eq!(code(&listening.handle(&frame(kind, b""), &here)), Some(Code::PROTOCOL), "{kind:#x}");
        assert_eq!(code(&listening.answer(guest(), &here)), Some(Code::INTERNAL), "an answer comes too late");
    }
    for kind in [Frame::SELECT, Frame::PROOF, Frame::OUTCOME, 0x02, 0x09] {
        let mut connecting = offering();
        connecting.start(&here).unwrap();
        let step = connecting.handle(&frame(kind, b"\x00\x04ours"), &here);
        assert_eq!(code(&step), Some(Code::PROTOCOL), "{kind:#x}");
    }
}

#[test]
fn an_outcome_shows_that_both_sides_mean_the_same_conversation() {
    // The listening side says something else than what arrives.
    let changed = |kind: u64| {
        let answer = |side: Side, question: &Question| match (side, &question.received) {
            (Side::Listening, Some(received)) if received.message == b"second" => guest(),
            (Side::Connecting, Some(_)) => Answer::Say(b"second".to_vec()),
            (side, _) => Answer::Say(vec![side as u8; 3]),
        };
        let tamper = move |from: &'static str, frame: &mut Frame| {
            if (from, frame.kind) == ("listening", kind) {
                edit(frame, |payload| *payload.last_mut().unwrap() ^= 1);
            }
        };
        Lab { answer: &answer, tamper: &tamper, ..Lab::default() }.run(offering(), accepting_it()).connecting
    };
    assert!(changed(0).is_ok());
    assert_eq!(code(&changed(Frame::PROOF)), Some(Code::UNPROVEN));
    assert_eq!(code(&changed(Frame::OUTCOME)), Some(Code::UNPROVEN));
}

#[test]
fn in_a_chain_it_is_one_member_among_others() {
    let offers: Vec<Arc<dyn Credential>> = vec![token(SECRET), external(), external()];
    let accepts: Vec<Arc<dyn Authenticator>> = vec![token_of("me", SECRET), external(), external()];
    let run = |secret: &[u8], third: &'static str| {
        let mut offers = offers.clone();
        offers[0] = token(secret);
        let asked = RefCell::new(Vec::new());
        let answer = |side: Side, question: &Question| {
            let mut asked = asked.borrow_mut();
            asked.push((side, question.binding, question.received.clone()));
            match asked.len() {
                4 if third == "denied" => Answer::Denied("not that one".into()),
                _ => password(side, question),
            }
        };
        let connecting = connecting([Arc::new(Chain::of_credentials(offers)) as _]);
        let listening = listening_to([Arc::new(Chain::of_authenticators(accepts.clone())) as _]);
        let exchange = Lab { answer: &answer, ..Lab::default() }.run(connecting, listening);
        (exchange, asked.into_inner())
    };
    let (exchange, asked) = run(SECRET, "satisfied");
    assert_eq!((exchange.proofs(), exchange.identity()), (1, Some("me")));
    assert_eq!(exchange.connecting.unwrap().method, "token+ours+ours");
    assert_eq!(exchange.claim.unwrap().proven.parts.len(), 3);
    // Each of the two is asked on each side, one after the other, and each has a place, thus a binding, of its own.
    let [first, second, heard_first, heard_second] = &asked[..] else { panic!("{}", asked.len()) };
    assert_eq!((first.0, second.0), (Side::Connecting, Side::Connecting));
    assert_eq!(first.1, heard_first.2.as_ref().unwrap().binding);
    assert_eq!(second.1, heard_second.2.as_ref().unwrap().binding);
    assert_ne!(first.1, second.1);

    let (exchange, asked) = run(SECRET, "denied");
    assert_eq!((denied(&exchange.listening), asked.len()), (Some("not that one"), 4));
    assert_eq!(refusals(exchange.listening), Err(uniform()));
    // Nobody outside is bothered by a stranger whose token is wrong.
    let (exchange, asked) = run(&[1; 32], "satisfied");
    assert_eq!((refusals(exchange.listening), asked.len()), (Err(uniform()), 2));
}

#[test]
fn messages_are_not_shown() {
    let message = || b"correct horse".to_vec();
    let (exchange, asked) = conversation(offering(), accepting_it(), 1);
    assert!(exchange.connecting.is_ok());
    let mut question = asked[1].1.clone();
    question.received.as_mut().unwrap().message = message();
    let shown = format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        question,
        Answer::Say(message()),
        Turn::Say(message()),
        ConnectingStep::Ask { send: message(), question: question.clone() },
        ListeningStep::Send(message()),
        Turn::Ask(question.clone()),
    );
    assert!(!shown.contains("99, 111, 114") && !shown.contains("correct"), "{shown}");
    assert!(shown.contains("13 bytes"), "{shown}");
}
