//! The method `ed25519`.

use super::*;

fn keys_of(keys: &[AuthorizedKey]) -> Listening {
    listening_to([Arc::new(AuthorizedKeys::new(keys.to_vec())) as _])
}

/// What comes of this PROOF behind an offer of nothing else.
fn proof(payload: &[u8]) -> Option<Code> {
    let mut listening = keys_of(&[authorized("me", &SEED)]);
    listening.handle(&frame(Frame::OFFER, b"\x00\x00\x01\x07ed25519"), &exporter(1)).unwrap();
    code(&listening.handle(&frame(Frame::PROOF, payload), &exporter(1)))
}

#[test]
fn a_signature_in_one_round_trip() {
    let exchange = run_plainly(connecting([key(&SEED)]), keys_of(&[authorized("me", &SEED)]));
    let (c, l) = ("connecting", "listening");
    assert_eq!(
        exchange.kinds(),
        [(c, Frame::OFFER), (c, Frame::PROOF), (l, Frame::SELECT), (l, Frame::OUTCOME)]
    );
    assert_eq!(exchange.payload(Frame::PROOF).len(), 96);
    assert_eq!(exchange.connecting.as_ref().unwrap().method, "ed25519");
    assert_eq!(exchange.identity(), Some("me"));
    assert_eq!(exchange.claim.unwrap().proven.grant, Grant::to("me"));
}

#[test]
fn an_unknown_key_and_a_wrong_signature_differ_only_in_the_log() {
    let me = || keys_of(&[authorized("me", &SEED)]);
    let unknown = run_plainly(connecting([key(&[9; 32])]), me());
    assert_eq!(denied(&unknown.listening), Some("the key is not authorized"));
    let wrong = run_tampered(connecting([key(&SEED)]), me(), |_, frame| {
        if frame.kind == Frame::PROOF {
            edit(frame, |payload| payload[40] ^= 1);
        }
    });
    assert_eq!(denied(&wrong.listening), Some("the signature of a known key is wrong"));
    let nobody = run_plainly(connecting([key(&SEED)]), keys_of(&[]));
    for exchange in [unknown, wrong, nobody] {
        assert_eq!(refusals(exchange.listening), Err(uniform()));
    }
}

#[test]
fn messages_of_another_length_are_none() {
    for length in [0, 31, 32, 95, 97, 4096] {
        assert_eq!(proof(&vec![7; length]), Some(Code::PROTOCOL), "{length}");
    }
    assert_eq!(proof(&[7; 96]), Some(Code::AUTH_REFUSED));
}

#[test]
fn a_key_that_every_signature_fits_is_of_no_use_even_if_it_is_authorized() {
    // The neutral element: with it, R = S = 0 satisfies the equation for every message, if one does not look (strict
    // verification, RFC 8032 section 5.1.7 leaves it open).
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut listening = keys_of(&[AuthorizedKey { key: neutral, ..authorized("me", &SEED) }]);
    listening.handle(&frame(Frame::OFFER, b"\x00\x00\x01\x07ed25519"), &exporter(1)).unwrap();
    let forged = [neutral, neutral, [0; 32]].concat();
    let step = listening.handle(&frame(Frame::PROOF, &forged), &exporter(1));
    assert_eq!(denied(&step), Some("the signature of a known key is wrong"));
    // Nor is one that is no point of the curve at all.
    let mut listening = keys_of(&[AuthorizedKey { key: [2; 32], ..authorized("me", &SEED) }]);
    listening.handle(&frame(Frame::OFFER, b"\x00\x00\x01\x07ed25519"), &exporter(1)).unwrap();
    let step = listening.handle(&frame(Frame::PROOF, &[&[2; 32][..], &[0; 64]].concat()), &exporter(1));
    assert_eq!(denied(&step), Some("the signature of a known key is wrong"));
}

#[test]
fn of_two_for_the_same_key_the_first_counts() {
    let keys = [authorized("first", &SEED), authorized("second", &SEED), authorized("other", &[9; 32])];
    let all = AuthorizedKeys::new(keys.to_vec());
    assert_eq!((all.len(), all.is_empty()), (2, false));
    assert!(AuthorizedKeys::default().is_empty());
    assert_eq!(run_plainly(connecting([key(&SEED)]), keys_of(&keys)).identity(), Some("first"));
}
