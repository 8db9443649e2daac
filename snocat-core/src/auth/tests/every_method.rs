//! What must hold for every method that proves something: the right credential is let in, and nothing else is; not on
//! another connection, not twice, not in the other direction, and not for another offer.

use quickcheck::quickcheck;

use super::*;

/// A method, with a credential that is accepted and one that nobody knows.
struct Method {
    right: Arc<dyn Credential>,
    /// Not for methods whose credential is not an object of its own.
    unknown: Option<Arc<dyn Credential>>,
    accepts: Arc<dyn Authenticator>,
    identity: &'static str,
}

impl Method {
    fn name(&self) -> String {
        self.right.method().to_owned()
    }

    fn connecting(&self) -> Connecting {
        connecting([self.right.clone()])
    }

    fn listening(&self) -> Listening {
        listening_to([self.accepts.clone()])
    }
}

fn chained(credentials: Vec<Arc<dyn Credential>>) -> Arc<dyn Credential> {
    Arc::new(Chain::of_credentials(credentials))
}

fn methods() -> Vec<Method> {
    let public = || Arc::new(AuthorizedKeys::new(vec![authorized("signer", &SEED)]));
    let nameless = || Arc::new(TokenKeys::new(vec![TokenKey::nameless(secret(SECRET))]));
    let certificate = || Arc::new(ClientCertificate);
    let external = || Arc::new(External::new("password"));
    let all = |members: Vec<Arc<dyn Authenticator>>| Arc::new(Chain::of_authenticators(members));
    vec![
        Method {
            right: token(SECRET),
            unknown: Some(token(&[1; 32])),
            accepts: token_of("me", SECRET),
            identity: "me",
        },
        Method { right: key(&SEED), unknown: Some(key(&[1; 32])), accepts: public(), identity: "signer" },
        Method { right: certificate(), unknown: None, accepts: certificates(&["alice"]), identity: "alice" },
        Method { right: external(), unknown: None, accepts: external(), identity: "guest" },
        Method {
            right: Arc::new(Ladder::default()),
            unknown: None,
            accepts: Arc::new(Ladder::default()),
            identity: "climber",
        },
        Method {
            right: chained(vec![certificate(), token(SECRET)]),
            unknown: Some(chained(vec![certificate(), token(&[1; 32])])),
            accepts: all(vec![certificates(&["alice"]), nameless()]),
            identity: "alice",
        },
        Method {
            right: chained(vec![key(&SEED), external(), Arc::new(Ladder::default())]),
            unknown: Some(chained(vec![key(&[1; 32]), external(), Arc::new(Ladder::default())])),
            accepts: all(vec![public(), external(), Arc::new(Ladder::default())]),
            identity: "signer",
        },
    ]
}

/// A second keyed method to offer and accept, which is none of the others.
fn other() -> (Arc<dyn Credential>, Arc<dyn Authenticator>) {
    let credential = chained(vec![token(&[2; 32]), token(&[3; 32])]);
    let accepts = Chain::of_authenticators(vec![token_of("other", &[2; 32]), token_of("other", &[3; 32])]);
    (credential, Arc::new(accepts))
}

/// The offer of `wanted` with these methods.
fn offer(methods: &[&str]) -> Frame {
    let mut payload = b"\x00\x06wanted".to_vec();
    payload.push(u8::try_from(methods.len()).unwrap());
    for method in methods {
        payload.push(u8::try_from(method.len()).unwrap());
        payload.extend(method.as_bytes());
    }
    frame(Frame::OFFER, &payload)
}

#[test]
fn the_right_credential_is_let_in() {
    for method in methods() {
        let exchange = run_plainly(method.connecting(), method.listening());
        assert_eq!(exchange.connecting.as_ref().unwrap().method, method.name());
        assert_eq!(exchange.identity(), Some(method.identity));
        assert_eq!(*exchange.payload(Frame::OFFER), *offer(&[&method.name()]).payload);
    }
}

#[test]
fn every_way_to_be_wrong_looks_the_same() {
    for method in methods() {
        let mut wrong = Vec::new();
        // Somebody who has nothing, or something that nobody knows.
        let stranger = Lab {
            there: Tls { certificates: shown("mallory"), ..Tls::of(1) },
            answer: &|side, question| match side {
                Side::Connecting => Answer::Say(vec![7; 32]),
                Side::Listening => password(side, question),
            },
            ..Lab::default()
        };
        if method.identity != "climber" {
            let credential = method.unknown.clone().unwrap_or_else(|| method.right.clone());
            wrong.push(stranger.run(connecting([credential]), method.listening()));
        }
        // A single wrong bit at the end of each message.
        let proof = |(from, kind): (&'static str, u64)| from == "connecting" && kind == Frame::PROOF;
        let whole = run_plainly(method.connecting(), method.listening());
        for target in 0..whole.kinds().into_iter().filter(|sent| proof(*sent)).count() {
            let seen = Cell::new(0);
            wrong.push(run_tampered(method.connecting(), method.listening(), |from, frame| {
                if proof((from, frame.kind)) && seen.replace(seen.get() + 1) == target {
                    edit(frame, |payload| *payload.last_mut().unwrap() ^= 1);
                }
            }));
        }
        for exchange in wrong {
            assert!(denied(&exchange.listening).is_some(), "{}: {exchange:?}", method.name());
            assert!(exchange.failed());
            assert_eq!(refusals(exchange.listening), Err(uniform()));
        }
    }
}

#[test]
fn an_exchange_that_is_passed_on_to_another_connection_fails() {
    for method in methods() {
        let exchange = run_relayed(method.connecting(), method.listening());
        assert!(exchange.failed(), "{}: {exchange:?}", method.name());
        assert_eq!(refusals(exchange.listening), Err(uniform()));
    }
}

#[test]
fn an_exchange_that_was_recorded_is_worth_nothing_on_another_connection() {
    for method in methods() {
        let recorded = run_plainly(method.connecting(), method.listening());
        assert!(recorded.connecting.is_ok());
        let of = |who: &'static str| recorded.sent.iter().filter(move |(from, _)| *from == who);
        let mut listening = method.listening();
        for (_, frame) in of("connecting") {
            let mut step = listening.handle(frame, &Tls::of(2));
            if let Ok(ListeningStep::Ask { question, .. }) = step {
                step = listening.answer(password(Side::Listening, &question), &Tls::of(2));
            }
            assert!(!matches!(step, Ok(ListeningStep::Decide { .. })), "{}", method.name());
        }
        let mut connecting = method.connecting();
        let here = Tls::of(2);
        while let Ok(ConnectingStep::Ask { question, .. }) = connecting.start(&here) {
            connecting.answer(password(Side::Connecting, &question), &here).unwrap();
        }
        for (_, frame) in of("listening") {
            let mut step = connecting.handle(frame, &here);
            if let Ok(ConnectingStep::Ask { question, .. }) = step {
                step = connecting.answer(password(Side::Connecting, &question), &here);
            }
            assert!(!matches!(step, Ok(ConnectingStep::Done(_))), "{}", method.name());
        }
    }
}

#[test]
fn a_proof_is_worth_nothing_in_the_other_direction() {
    for method in methods() {
        let exchange = run_plainly(method.connecting(), method.listening());
        let proof = exchange.payload(Frame::PROOF).to_vec();
        let outcome = exchange.payload(Frame::OUTCOME).to_vec();
        let before = b"\x06wanted\x01\x03key\x05value".len();
        // The connecting side's own message, or the end of it, comes back as the proof in OUTCOME.
        for part in [&proof[..], &proof[proof.len() - 32..]] {
            let reflected = run_tampered(method.connecting(), method.listening(), |_, frame| {
                if frame.kind == Frame::OUTCOME {
                    edit(frame, |payload| {
                        payload.truncate(before);
                        payload.extend(part);
                    });
                }
            });
            assert!(reflected.connecting.is_err(), "{}", method.name());
        }
        // The listening side's proof comes back as the last message, or as its end.
        let outcome = &outcome[before..];
        for keep in [0, proof.len().saturating_sub(outcome.len())] {
            let reflected = run_tampered(method.connecting(), method.listening(), |from, frame| {
                if (from, frame.kind) == ("connecting", Frame::PROOF) {
                    *frame = self::frame(Frame::PROOF, &[&proof[..keep], outcome].concat());
                }
            });
            assert!(reflected.failed(), "{}: {reflected:?}", method.name());
        }
    }
}

#[test]
fn an_offer_cannot_be_shortened_reordered_or_lengthened_on_its_way() {
    let (other, accepts_other) = other();
    for method in methods() {
        let (name, other_name) = (method.name(), other.method().to_owned());
        let (name, other_name) = (name.as_str(), other_name.as_str());
        let offers = [[method.right.clone(), other.clone()], [other.clone(), method.right.clone()]];
        for offered in offers {
            let original: Vec<_> = offered.iter().map(|credential| credential.method().to_owned()).collect();
            let original: Vec<_> = original.iter().map(String::as_str).collect();
            for arrives in [
                &[name][..],
                &[other_name],
                &[name, other_name],
                &[other_name, name],
                &[name, other_name, "none"],
                &[other_name, name, "none"],
                &["none", name, other_name],
            ] {
                for accepts in [
                    vec![method.accepts.clone()],
                    vec![accepts_other.clone()],
                    vec![method.accepts.clone(), accepts_other.clone()],
                    vec![accepts_other.clone(), method.accepts.clone()],
                ] {
                    let exchange =
                        run_tampered(connecting(offered.clone()), listening_to(accepts), |_, frame| {
                            if frame.kind == Frame::OFFER {
                                *frame = offer(arrives);
                            }
                        });
                    let unchanged = original == arrives;
                    assert_eq!(
                        exchange.connecting.is_ok(),
                        unchanged,
                        "{original:?} {arrives:?} {exchange:?}"
                    );
                    assert_eq!(exchange.claim.is_some(), unchanged, "{original:?} {arrives:?} {exchange:?}");
                }
            }
        }
    }
}

#[test]
fn another_name_cannot_be_asked_for_on_the_way() {
    for method in methods() {
        for name in ["wished", ""] {
            let exchange = run_tampered(method.connecting(), method.listening(), |_, frame| {
                if frame.kind == Frame::OFFER {
                    edit(frame, |payload| {
                        let length = u8::try_from(name.len()).unwrap();
                        payload.splice(1..8, std::iter::once(length).chain(name.bytes()));
                    });
                }
            });
            assert!(exchange.failed(), "{} {name}: {exchange:?}", method.name());
        }
    }
}

#[test]
fn a_selection_cannot_be_changed_on_the_way() {
    let (other, accepts_other) = other();
    let select = |features: &[u8], name: &str, behind: &[u8]| {
        let length = u8::try_from(name.len()).unwrap();
        frame(Frame::SELECT, &[features, &[length], name.as_bytes(), behind].concat())
    };
    for method in methods() {
        // Another method; and the same one, with features and fields that mean nothing to this side.
        let name = method.name();
        for selection in
            [select(&[0], other.method(), &[]), select(&[1, 5], &name, &[]), select(&[0], &name, b"and more")]
        {
            let exchange = run_tampered(
                connecting([method.right.clone(), other.clone()]),
                listening_to([method.accepts.clone(), accepts_other.clone()]),
                |_, frame| {
                    if frame.kind == Frame::SELECT {
                        *frame = selection.clone();
                    }
                },
            );
            assert!(exchange.connecting.is_err(), "{name} {selection:?}");
        }
    }
}

#[test]
fn without_keying_material_nothing_works() {
    for method in methods() {
        let nothing = |_: &[u8; 32]| None;
        let mut step = method.connecting().start(&nothing);
        if let Ok(ConnectingStep::Ask { .. }) = step {
            step = Err(Failure::denied("it has asked without a binding"));
        }
        assert_eq!(code(&step), Some(Code::INTERNAL), "{}", method.name());
    }
}

#[test]
fn unknown_and_known_credentials_cost_the_same_number_of_bindings() {
    // What is computed from a binding is one HMAC or one verification on either path: see `receive` of the methods.
    for method in methods() {
        let Some(unknown) = method.unknown.clone() else { continue };
        let cost = |credential: Arc<dyn Credential>, flip: bool| {
            let tamper = |_: &'static str, frame: &mut Frame| {
                if flip && frame.kind == Frame::PROOF {
                    // In the signature, or the token's proof, of the first or the last member.
                    let at = if frame.payload.len() > 100 { 60 } else { frame.payload.len() - 1 };
                    edit(frame, |payload| payload[at] ^= 1);
                }
            };
            let lab = Lab { tamper: &tamper, ..Lab::default() };
            let exchange = lab.run(connecting([credential]), method.listening());
            assert_eq!(refusals(exchange.listening), Err(uniform()));
            lab.there.exports.get()
        };
        assert_eq!(cost(unknown, false), cost(method.right.clone(), true), "{}", method.name());
    }
}

quickcheck! {
    /// A bit that flips anywhere in any frame never leads to an accepted proof on the side that received it, and if the
    /// listening side received it, to none on either.
    fn no_changed_bit_is_accepted(place: usize, bit: u8, which: usize) -> bool {
        methods().iter().all(|method| {
            let whole = run_plainly(method.connecting(), method.listening());
            let target = which % whole.sent.len();
            let from = whole.sent[target].0;
            let seen = Cell::new(0);
            let exchange = run_tampered(method.connecting(), method.listening(), |_, frame| {
                if seen.replace(seen.get() + 1) == target {
                    edit(frame, |payload| {
                        let place = place % payload.len();
                        payload[place] ^= 1 << (bit % 8);
                    });
                }
            });
            exchange.connecting.is_err() && (from == "listening" || exchange.failed())
        })
    }

    /// Neither side panics, whatever comes in place of a frame; and nobody is let in, or believed, because of it.
    fn noise_in_place_of_a_frame_is_refused(which: usize, kind: u8, payload: Vec<u8>) -> bool {
        methods().iter().all(|method| {
            let whole = run_plainly(method.connecting(), method.listening());
            let target = which % whole.sent.len();
            let from = whole.sent[target].0;
            let seen = Cell::new(0);
            let exchange = run_tampered(method.connecting(), method.listening(), |_, frame| {
                if seen.replace(seen.get() + 1) == target {
                    *frame = self::frame(u64::from(kind % 18), &payload);
                }
            });
            exchange.connecting.is_err() && (from == "listening" || exchange.failed())
        })
    }
}
