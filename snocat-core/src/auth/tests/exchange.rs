//! The exchange itself: what is picked, what may come when, and payloads that are none.

use quickcheck::quickcheck;

use super::*;
use crate::wire::testing::pieces;

#[test]
fn none_proves_nothing_and_is_enough_where_it_is_configured() {
    let exchange = run_plainly(connecting([none()]), listening(true, None));
    assert_eq!(exchange.connecting.as_ref().unwrap().method, "none");
    assert_eq!(exchange.identity(), None);
}

#[test]
fn a_keyed_method_goes_before_one_that_proves_nothing() {
    // The first message belonged to `none`; the one of `token` follows after the selection.
    let exchange = run_plainly(connecting([none(), token(SECRET)]), listening(true, keys("me", SECRET)));
    assert_eq!(exchange.connecting.as_ref().unwrap().method, "token");
    assert_eq!(exchange.identity(), Some("me"));
    let (c, l) = ("connecting", "listening");
    let proof = (c, Frame::PROOF);
    assert_eq!(exchange.kinds(), [(c, Frame::OFFER), proof, (l, Frame::SELECT), proof, (l, Frame::OUTCOME)]);
}

#[test]
fn none_is_picked_only_where_both_sides_configured_it() {
    let mixed = || connecting([token(SECRET), none()]);
    assert_eq!(run_plainly(mixed(), listening(true, None)).connecting.unwrap().method, "none");
    let refused = run_plainly(mixed(), listening(false, None));
    assert_eq!(code(&refused.listening), Some(Code::AUTH_NO_METHOD));
    let refused = run_plainly(connecting([token(SECRET)]), listening(true, None));
    assert_eq!(
        refusals(refused.listening),
        Err(Refusal::new(Code::AUTH_NO_METHOD, "this server accepts: none"))
    );
    let refused = run_plainly(connecting([none()]), listening(false, keys("me", SECRET)));
    assert_eq!(
        refusals(refused.listening),
        Err(Refusal::new(Code::AUTH_NO_METHOD, "this server accepts: token"))
    );
}

/// A connecting side that offered `token` and got SELECT for it (`token`), or for `none`.
fn selected(method: &str) -> Connecting {
    let mut connecting = connecting([token(SECRET), none()]);
    connecting.start(&exporter(1)).unwrap();
    let select = [&[0, u8::try_from(method.len()).unwrap()], method.as_bytes()].concat();
    connecting.handle(&frame(Frame::SELECT, &select), &exporter(1)).unwrap();
    connecting
}

#[test]
fn an_outcome_needs_exactly_the_proof_of_its_method() {
    let outcome = |proof: usize| frame(Frame::OUTCOME, &[b"\x01n\x00", &[7; 64][..proof]].concat());
    let result =
        |method, frame| selected(method).handle(&frame, &exporter(1)).map_err(|failure| failure.ending());
    for length in [0, 31, 33, 64] {
        assert!(matches!(result("token", outcome(length)), Err(Code::UNPROVEN)), "{length}");
    }
    assert!(matches!(result("none", outcome(0)), Ok(ConnectingStep::Done(_))));
    assert!(matches!(result("none", outcome(32)), Err(Code::PROTOCOL)));
}

#[test]
fn outcomes_that_are_none() {
    let result = |payload: &[u8]| selected("none").handle(&frame(Frame::OUTCOME, payload), &exporter(1));
    let many: Vec<u8> = (0..33).flat_map(|key| [1, b'A' + key, 0]).collect();
    for payload in [
        b"",
        &b"\x00\x00"[..],
        b"\x01 \x00",
        b"\x01n",
        b"\x01n\x01\x00\x00",
        b"\x01n\x02\x01a\x00\x01a\x00",
        b"\x01n\x01\x01\xff\x00",
        &[b"\x01n\x21", &many[..]].concat(),
    ] {
        assert_eq!(code(&result(payload)), Some(Code::PROTOCOL), "{payload:?}");
    }
    assert!(result(&[b"\x01n\x20", &many[..96]].concat()).is_ok());
}

#[test]
fn selections_that_are_none() {
    for payload in
        [&b""[..], b"\x00", b"\x00\x00", b"\x00\x07ed25519", b"\x01\x05\x05token", b"\x00\x05Token"]
    {
        let mut connecting = connecting([token(SECRET)]);
        connecting.start(&exporter(1)).unwrap();
        let result = connecting.handle(&frame(Frame::SELECT, payload), &exporter(1));
        let expected = if payload.starts_with(&[1]) { None } else { Some(Code::PROTOCOL) };
        assert_eq!(code(&result), expected, "{payload:?}");
    }
    // A keyed offer cannot be talked down to `none`.
    let mut connecting = connecting([token(SECRET)]);
    connecting.start(&exporter(1)).unwrap();
    let result = connecting.handle(&frame(Frame::SELECT, b"\x00\x04none"), &exporter(1));
    assert_eq!(code(&result), Some(Code::PROTOCOL));
}

#[test]
fn offers_that_are_none() {
    let result = |payload: &[u8]| {
        let refusal = listening(true, None).handle(&frame(Frame::OFFER, payload), &exporter(1));
        refusal.map(drop).map_err(|failure| failure.ending())
    };
    let methods = |count: u8| {
        let others = (1..count).flat_map(|number| [2, b'm', number]);
        [0, 0, count].into_iter().chain(*b"\x04none").chain(others).take(if count == 0 { 3 } else { 99 })
    };
    let methods = |count| methods(count).collect::<Vec<_>>();
    assert_eq!(result(&methods(1)), Ok(()));
    assert_eq!(result(&methods(16)), Ok(()));
    assert_eq!(result(&[&methods(1)[..], b"what is to come"].concat()), Ok(()));
    assert_eq!(result(b"\x02\x01\x40\x41\x00\x01\x04none"), Ok(()), "features that mean nothing here");
    assert_eq!(result(&methods(0)), Err(Code::PROTOCOL));
    assert_eq!(result(&methods(17)), Err(Code::PROTOCOL));
    assert_eq!(result(b"\x00\x00\x01\x00"), Err(Code::PROTOCOL));
    assert_eq!(result(b"\x00\x00\x02\x04none\x04none"), Err(Code::PROTOCOL), "the same one twice");
    assert_eq!(result(&[b"\x00\x00\x01\x40\x41", &[b'a'; 65][..]].concat()), Err(Code::PROTOCOL));
    assert_eq!(result(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Err(Code::PROTOCOL));
    assert_eq!(result(b"\x00\x03a/b\x01\x04none"), Err(Code::NAME_INVALID));
    assert_eq!(
        result(&[b"\x00\x40\x41", &[b'a'; 65][..], b"\x01\x04none"].concat()),
        Err(Code::NAME_INVALID)
    );
}

#[test]
fn frames_out_of_turn() {
    let here = exporter(1);
    for kind in [Frame::SELECT, Frame::PROOF, Frame::OUTCOME, 0x02, 0x09] {
        let result = listening(true, None).handle(&frame(kind, b""), &here);
        assert_eq!(code(&result), Some(Code::PROTOCOL), "the first frame is {kind:#x}");
    }
    let offer = frame(Frame::OFFER, b"\x00\x00\x01\x04none");
    let offered = || {
        let mut listening = listening(true, None);
        listening.handle(&offer, &here).unwrap();
        listening
    };
    for kind in [Frame::OFFER, Frame::SELECT, Frame::OUTCOME] {
        assert_eq!(code(&offered().handle(&frame(kind, b""), &here)), Some(Code::PROTOCOL));
    }
    assert_eq!(code(&offered().handle(&frame(0x09, b""), &here)), Some(Code::UNKNOWN_FRAME));
    assert!(offered().handle(&frame(0x02, b"to be skipped"), &here).is_ok());

    // After the last one nothing may follow, not even what could be skipped; accepting still works.
    for kind in [Frame::OFFER, Frame::PROOF, 0x02] {
        let mut listening = offered();
        assert!(matches!(
            listening.handle(&frame(Frame::PROOF, b""), &here),
            Ok(ListeningStep::Decide { .. })
        ));
        assert_eq!(code(&listening.handle(&frame(kind, b""), &here)), Some(Code::PROTOCOL));
    }
    for kind in [Frame::OFFER, Frame::PROOF, Frame::OUTCOME, 0x02, 0x09] {
        let mut connecting = connecting([none()]);
        assert_eq!(code(&connecting.handle(&frame(kind, b""), &here)), Some(Code::PROTOCOL), "not started");
        let mut connecting = self::connecting([none()]);
        connecting.start(&here).unwrap();
        assert_eq!(code(&connecting.handle(&frame(kind, b""), &here)), Some(Code::PROTOCOL), "not selected");
    }
    assert_eq!(code(&selected("none").handle(&frame(0x09, b""), &here)), Some(Code::UNKNOWN_FRAME));
    assert_eq!(
        code(&selected("none").handle(&frame(Frame::SELECT, b"\x00\x04none"), &here)),
        Some(Code::PROTOCOL)
    );
    for method in ["none", "token"] {
        let more = selected(method).handle(&frame(Frame::PROOF, b""), &here);
        assert_eq!(code(&more), Some(Code::PROTOCOL), "neither method has a second message");
    }
}

#[test]
fn what_the_application_cannot_ask_for() {
    let here = exporter(1);
    let start = |methods: &[Arc<dyn Credential>]| connecting(methods).start(&here);
    assert_eq!(code(&start(&[])), Some(Code::INTERNAL));
    let mut twice = connecting([none()]);
    twice.start(&here).unwrap();
    assert_eq!(code(&twice.start(&here)), Some(Code::INTERNAL));
    let no_exporter = |_: &[u8; 32]| None;
    assert_eq!(code(&connecting([token(SECRET)]).start(&no_exporter)), Some(Code::INTERNAL));

    let name = || "n".parse::<TunnelName>().unwrap();
    let nothing = listening(true, None).accept(name(), Attributes::new(), &here);
    assert_eq!(code(&nothing), Some(Code::INTERNAL));
    let accept = |attributes| {
        let mut listening = listening(true, None);
        listening.handle(&frame(Frame::OFFER, b"\x00\x00\x01\x04none"), &here).unwrap();
        listening.handle(&frame(Frame::PROOF, b""), &here).unwrap();
        let result = listening.accept(name(), attributes, &here);
        assert!(listening.accept(name(), Attributes::new(), &here).is_err(), "only once");
        result
    };
    let pair = |key: String, value: usize| (key, "v".repeat(value));
    assert!(accept(Attributes::from([pair("k".into(), 3800)])).is_ok());
    assert!(accept((0..32).map(|key| pair(format!("{key:064}"), 0)).collect()).is_ok());
    for attributes in [
        Attributes::from([pair("k".into(), 4000)]),
        Attributes::from([pair(String::new(), 1)]),
        Attributes::from([pair("k".repeat(65), 1)]),
        (0..33).map(|key| pair(format!("{key}"), 0)).collect(),
    ] {
        assert_eq!(code(&accept(attributes)), Some(Code::INTERNAL));
    }
}

#[test]
fn names() {
    for text in ["a", "web-1.example_2", "A", &"x".repeat(64)] {
        assert_eq!(text.parse::<TunnelName>().unwrap().to_string(), text);
    }
    for text in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(65)] {
        assert_eq!(text.parse::<TunnelName>(), Err(NameError));
    }
}

#[test]
fn methods_of_several_messages() {
    for preferred in [true, false] {
        let (ladder, other): (Arc<dyn Credential>, _) = (Arc::new(Ladder::default()), token(SECRET));
        let methods = if preferred { [ladder, other] } else { [other, ladder] };
        let accepts = listening(false, Some(Arc::new(Ladder::default())));
        let exchange = run_plainly(connecting(methods), accepts);
        assert_eq!(exchange.connecting.as_ref().unwrap().name.as_str(), "wanted");
        assert_eq!(exchange.identity(), Some("climber"));
        assert_eq!(exchange.proofs(), if preferred { 5 } else { 6 });
    }
}

#[test]
fn frames_that_are_skipped_are_covered_all_the_same() {
    // Both see the same additional frames: fine. Only one of them does: the proof fails.
    let extra = frame(0x02, b"from a later version");
    for (connecting_sees, listening_sees) in [(false, true), (true, false)] {
        let (here, there) = (exporter(1), exporter(1));
        let mut connecting = connecting([token(SECRET)]);
        let mut listening = listening(false, keys("me", SECRET));
        let flight = frames(&said(connecting.start(&here).unwrap()));
        listening.handle(&flight[0], &there).unwrap();
        if listening_sees {
            listening.handle(&extra, &there).unwrap();
        }
        let step = listening.handle(&flight[1], &there);
        if listening_sees {
            assert_eq!(code(&step), Some(Code::AUTH_REFUSED));
            continue;
        }
        let Ok(ListeningStep::Decide { send, .. }) = step else { panic!() };
        let (outcome, _) = listening.accept("n".parse().unwrap(), Attributes::new(), &there).unwrap();
        connecting.handle(&frames(&send)[0], &here).unwrap();
        if connecting_sees {
            connecting.handle(&extra, &here).unwrap();
        }
        let result = connecting.handle(&frames(&outcome)[0], &here);
        assert_eq!(code(&result), Some(Code::UNPROVEN));
    }
}

quickcheck! {
    /// Neither side panics, whatever frames it gets; and without the key nobody gets in.
    fn noise_is_refused(noise: Vec<(u8, Vec<u8>)>) -> bool {
        let here = exporter(1);
        let mut connecting = connecting([token(SECRET)]);
        let mut listening = listening(false, keys("me", SECRET));
        connecting.start(&here).unwrap();
        noise.iter().all(|(kind, payload)| {
            let frame = frame(u64::from(kind % 10), payload);
            !matches!(connecting.handle(&frame, &here), Ok(ConnectingStep::Done(_)))
                && !matches!(listening.handle(&frame, &here), Ok(ListeningStep::Decide { .. }))
        })
    }

    /// The same behind a valid offer and selection, where the noise is looked at more closely.
    fn noise_after_a_good_start_is_refused(noise: Vec<(u8, Vec<u8>)>) -> bool {
        let here = exporter(1);
        let mut connecting = selected("token");
        let mut listening = listening(false, keys("me", SECRET));
        listening.handle(&frame(Frame::OFFER, b"\x00\x00\x01\x05token"), &here).unwrap();
        noise.iter().all(|(kind, payload)| {
            let frame = frame([2, Frame::PROOF, Frame::OUTCOME][usize::from(kind % 3)], payload);
            !matches!(connecting.handle(&frame, &here), Ok(ConnectingStep::Done(_)))
                && !matches!(listening.handle(&frame, &here), Ok(ListeningStep::Decide { .. }))
        })
    }

    /// How the first flight is cut on its way does not matter.
    fn any_split_of_the_first_flight_gives_the_same(lengths: Vec<u8>) -> bool {
        let here = exporter(1);
        let flight = said(connecting([token(SECRET)]).start(&here).unwrap());
        let mut listening = listening(false, keys("me", SECRET));
        let mut decoder = FrameDecoder::new(Frame::MAX_PAYLOAD);
        let mut last = None;
        for piece in pieces(&flight, &lengths) {
            decoder.push(piece);
            while let Some(frame) = decoder.next().unwrap() {
                last = Some(listening.handle(&frame, &here));
            }
        }
        matches!(last, Some(Ok(ListeningStep::Decide { .. })))
    }
}
