//! Several methods together.

use super::*;
use crate::wire::{put_bytes, put_varint};

const NAME: &str = "tls-client-cert+token";

/// What both sides put together.
type Members = (Vec<Arc<dyn Credential>>, Vec<Arc<dyn Authenticator>>);

fn credentials(members: impl Into<Vec<Arc<dyn Credential>>>) -> Arc<dyn Credential> {
    Arc::new(Chain::of_credentials(members.into()))
}

fn authenticators(members: impl Into<Vec<Arc<dyn Authenticator>>>) -> Arc<dyn Authenticator> {
    Arc::new(Chain::of_authenticators(members.into()))
}

fn certificate() -> Arc<dyn Credential> {
    Arc::new(ClientCertificate)
}

/// Nameless, so that its grant leaves the certificate's as it is.
fn any_token(bytes: &[u8]) -> Arc<dyn Authenticator> {
    Arc::new(TokenKeys::new(vec![TokenKey::nameless(secret(bytes))]))
}

fn both() -> Connecting {
    connecting([credentials([certificate(), token(SECRET)])])
}

fn needs_both() -> Listening {
    listening_to([authenticators([certificates(&["alice"]), any_token(SECRET)])])
}

/// A chain's message of these parts.
fn message(parts: &[Option<&[u8]>]) -> Vec<u8> {
    let mut message = Vec::new();
    for part in parts {
        put_varint(&mut message, part.is_some().into());
        part.iter().for_each(|part| put_bytes(&mut message, part));
    }
    message
}

/// A listening side for both methods that has had the offer, and the parts that are right.
fn offered() -> (Listening, Vec<u8>, Vec<u8>) {
    let flight = frames(&said(both().start(&exporter(1)).unwrap()));
    let mut listening = needs_both();
    listening.handle(&flight[0], &Tls::of(1)).unwrap();
    let payload = &flight[1].payload;
    assert_eq!((payload.len(), payload[0], payload[1], payload[34], payload[35]), (76, 1, 32, 1, 40));
    (listening, payload[2..34].to_vec(), payload[36..].to_vec())
}

fn after(payload: &[u8]) -> Result<(), Failure> {
    offered().0.handle(&frame(Frame::PROOF, payload), &Tls::of(1)).map(drop)
}

#[test]
fn two_methods_take_no_longer_than_one() {
    let exchange = run_plainly(both(), needs_both());
    let (c, l) = ("connecting", "listening");
    assert_eq!(
        exchange.kinds(),
        [(c, Frame::OFFER), (c, Frame::PROOF), (l, Frame::SELECT), (l, Frame::OUTCOME)]
    );
    assert_eq!(exchange.connecting.as_ref().unwrap().method, NAME);
    assert_eq!(exchange.identity(), Some("alice"));
    let proven = exchange.claim.unwrap().proven;
    assert_eq!(proven.grant, Grant::to("alice"));
    assert_eq!(proven.parts.len(), 2);
}

#[test]
fn each_member_counts_and_a_refusal_does_not_tell_which() {
    let bad_token = run_plainly(connecting([credentials([certificate(), token(&[1; 32])])]), needs_both());
    assert_eq!(denied(&bad_token.listening), Some("nobody has this token"));
    let stranger = Tls { certificates: shown("mallory"), ..Tls::of(1) };
    let bad_certificate = Lab { there: stranger, ..Lab::default() }.run(both(), needs_both());
    assert_eq!(denied(&bad_certificate.listening), Some("the certificate is of nobody"));
    let stranger = Tls { certificates: shown("mallory"), ..Tls::of(1) };
    let neither = Lab { there: stranger, ..Lab::default() }
        .run(connecting([credentials([certificate(), token(&[1; 32])])]), needs_both());
    assert_eq!(denied(&neither.listening), Some("the certificate is of nobody"));
    for exchange in [bad_token, bad_certificate, neither] {
        assert_eq!(refusals(exchange.listening), Err(uniform()));
    }
}

#[test]
fn one_member_alone_is_another_method() {
    for alone in [certificate(), token(SECRET), credentials([token(SECRET), certificate()])] {
        let exchange = run_plainly(connecting([alone]), needs_both());
        let expected = Refusal::new(Code::AUTH_NO_METHOD, format!("this server accepts: {NAME}"));
        assert_eq!(refusals(exchange.listening), Err(expected));
    }
    // A chain beside its member: who offers the member alone gets in with it, because it was configured.
    let methods = [authenticators([certificates(&["alice"]), any_token(SECRET)]), any_token(SECRET)];
    let exchange = run_plainly(connecting([token(SECRET)]), listening_to(methods));
    assert_eq!(exchange.connecting.unwrap().method, "token");
}

#[test]
fn a_part_that_lacks_is_doubled_or_has_bytes_behind_it_is_a_violation() {
    let (_, certificate, token) = offered();
    let (certificate, token) = (&certificate[..], &token[..]);
    assert!(after(&message(&[Some(certificate), Some(token)])).is_ok());
    let extra = [&message(&[Some(certificate), Some(token)])[..], &[0]].concat();
    let odd = [&[2][..], &message(&[Some(token)])].concat();
    for payload in [
        message(&[]),
        message(&[Some(certificate)]),
        message(&[None, None]),
        message(&[None, Some(token)]),
        message(&[Some(certificate), None]),
        message(&[Some(certificate), Some(token), Some(token)]),
        message(&[Some(certificate), Some(token), None]),
        extra,
        odd,
        vec![1, 0x7f, 0xff],
        vec![1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        assert_eq!(code(&after(&payload)), Some(Code::PROTOCOL), "{payload:?}");
    }
    // A part of another place.
    assert_eq!(code(&after(&message(&[Some(token), Some(certificate)]))), Some(Code::AUTH_REFUSED));
}

#[test]
fn a_malformed_part_looks_the_same_whatever_the_other_part_is() {
    let (_, certificate, _) = offered();
    let malformed = |certificate: &[u8]| refusals(after(&message(&[Some(certificate), Some(&[7; 3])])));
    assert_eq!(malformed(&certificate), malformed(&[7; 32]));
    assert_eq!(code(&malformed(&[7; 32])), Some(Code::PROTOCOL));
}

#[test]
fn a_proof_holds_at_one_place_only() {
    // Twice the same method with the same secret: each place has a proof of its own.
    let twice = || connecting([credentials([token(SECRET), token(SECRET)])]);
    let needs = || listening_to([authenticators([any_token(SECRET), any_token(SECRET)])]);
    assert!(run_plainly(twice(), needs()).connecting.is_ok());
    for (from, to) in [(0, 1), (1, 0)] {
        let copied = run_tampered(twice(), needs(), |_, frame| {
            if frame.kind == Frame::PROOF {
                edit(frame, |payload| payload.copy_within(from * 42..from * 42 + 42, to * 42));
            }
        });
        assert_eq!(code(&copied.listening), Some(Code::AUTH_REFUSED));
        // The proofs in OUTCOME likewise: 33 bytes each, at the end.
        let copied = run_tampered(twice(), needs(), |_, frame| {
            if frame.kind == Frame::OUTCOME {
                let start = frame.payload.len() - 66;
                edit(frame, |payload| {
                    payload.copy_within(start + from * 33..start + from * 33 + 33, start + to * 33);
                });
            }
        });
        assert_eq!(code(&copied.connecting), Some(Code::UNPROVEN));
    }
    // A proof of the method alone is none for a member of a chain, in the same exchange so far.
    let flight = frames(&said(connecting([token(SECRET)]).start(&exporter(1)).unwrap()));
    assert_eq!(code(&after(&message(&[Some(&[7; 32]), Some(&flight[1].payload)]))), Some(Code::AUTH_REFUSED));
}

#[test]
fn an_outcome_needs_the_proof_of_every_member() {
    let cut = |change: fn(&mut Vec<u8>)| {
        let exchange = run_tampered(both(), needs_both(), |_, frame| {
            if frame.kind == Frame::OUTCOME {
                edit(frame, change);
            }
        });
        code(&exchange.connecting)
    };
    assert_eq!(cut(|_| {}), None);
    assert_eq!(cut(|payload| payload.truncate(payload.len() - 33)), Some(Code::PROTOCOL));
    assert_eq!(cut(|payload| payload.truncate(payload.len() - 66)), Some(Code::PROTOCOL));
    assert_eq!(cut(|payload| payload.push(0)), Some(Code::PROTOCOL));
    assert_eq!(cut(|payload| *payload.last_mut().unwrap() ^= 1), Some(Code::UNPROVEN));
}

#[test]
fn members_of_several_messages_speak_side_by_side() {
    // The ladder takes five messages, the token one; both orders, and the ladder twice.
    let ladder = || Arc::new(Ladder::default());
    let orders: [Members; 3] = [
        (vec![ladder(), token(SECRET)], vec![ladder(), any_token(SECRET)]),
        (vec![token(SECRET), ladder()], vec![any_token(SECRET), ladder()]),
        (vec![ladder(), ladder()], vec![ladder(), ladder()]),
    ];
    for (offers, accepts) in orders {
        let exchange =
            run_plainly(connecting([credentials(offers)]), listening_to([authenticators(accepts)]));
        assert!(exchange.connecting.is_ok(), "{exchange:?}");
        assert_eq!(exchange.proofs(), 5);
    }
}

#[test]
fn a_message_in_which_nobody_has_a_part_is_a_violation() {
    let ladder = || Arc::new(Ladder::default());
    let exchange = run_tampered(
        connecting([credentials([ladder(), token(SECRET)])]),
        listening_to([authenticators([ladder(), any_token(SECRET)])]),
        |from, frame| {
            if (from, frame.kind) == ("listening", Frame::PROOF) {
                *frame = self::frame(Frame::PROOF, &[0, 0]);
            }
        },
    );
    assert_eq!(code(&exchange.connecting), Some(Code::PROTOCOL));
}

#[test]
fn chains_that_cannot_be() {
    let start = |credential| connecting([credential]).start(&exporter(1));
    // Nobody has anything to say.
    assert_eq!(code(&start(credentials([]))), Some(Code::INTERNAL));
    // Places would be told apart no more.
    let inner = credentials([certificate(), token(SECRET)]);
    assert_eq!(code(&start(credentials([inner, certificate()]))), Some(Code::INTERNAL));
    let inner = authenticators([any_token(SECRET), any_token(SECRET)]);
    let exchange = run_plainly(
        connecting([credentials([token(SECRET), token(SECRET), certificate()])]),
        listening_to([authenticators([inner, certificates(&["alice"])])]),
    );
    assert!(exchange.listening.is_err());
    // The name is too long to be offered.
    let long: Vec<_> = (0..11).map(|_| token(SECRET)).collect();
    assert_eq!(code(&start(credentials(long))), Some(Code::INTERNAL));
}

#[test]
fn what_is_allowed_is_what_every_member_allows() {
    let tokens = TokenKeys::new(vec![TokenKey::of("bob", secret(SECRET))]);
    let accepts = authenticators([certificates(&["alice"]), Arc::new(tokens)]);
    let config = ListeningConfig { methods: vec![accepts] };
    let exchange = run_plainly(both(), Listening::new(&config));
    // Alice's certificate with bob's token: no name is both hers and his.
    let proven = exchange.claim.unwrap().proven;
    assert_eq!(proven.grant.names, Names::Only(Vec::new()));
    for name in ["alice", "bob", "wanted"] {
        assert!(!config.allows_name(&proven.grant, &name.parse().unwrap()));
    }
}

#[test]
fn a_chain_proves_something_if_a_member_does() {
    let nothing: Arc<dyn Authenticator> = Arc::new(NoProof);
    assert!(!authenticators([nothing.clone(), nothing.clone()]).proves());
    assert!(authenticators([nothing, any_token(SECRET)]).proves());
    let exchange = run_plainly(
        connecting([credentials([none(), token(SECRET)])]),
        listening_to([authenticators([Arc::new(NoProof), any_token(SECRET)])]),
    );
    assert_eq!(exchange.connecting.unwrap().method, "none+token");
}
