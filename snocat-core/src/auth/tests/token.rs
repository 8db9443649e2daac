//! The method `token`.

use super::*;

#[test]
fn token_in_one_round_trip() {
    let exchange = run_plainly(connecting([token(SECRET)]), listening(false, keys("me", SECRET)));
    let (c, l) = ("connecting", "listening");
    assert_eq!(
        exchange.kinds(),
        [(c, Frame::OFFER), (c, Frame::PROOF), (l, Frame::SELECT), (l, Frame::OUTCOME)]
    );
    let ours = exchange.connecting.unwrap();
    assert_eq!((ours.name.as_str(), ours.method.as_str(), ours.identity()), ("wanted", "token", None));
    assert_eq!(ours.attributes.get("key").unwrap(), "value");
    let theirs = exchange.listening.unwrap();
    assert_eq!((&theirs.name, &theirs.attributes), (&ours.name, &ours.attributes));
    assert_eq!(theirs.identity(), Some("me"));
    let claim = exchange.claim.unwrap();
    assert_eq!((claim.method.as_str(), claim.proven.identity.as_deref()), ("token", Some("me")));
    assert_eq!(claim.name.unwrap().as_str(), "wanted");
}

#[test]
fn an_unknown_key_and_a_wrong_proof_differ_only_in_the_log() {
    let me = || listening(false, keys("me", SECRET));
    let unknown = run_plainly(connecting([token(b"another secret, as long")]), me());
    assert_eq!(denied(&unknown.listening), Some("nobody has this token"));
    let wrong = run_tampered(connecting([token(SECRET)]), me(), |_, frame| {
        if frame.kind == Frame::PROOF {
            edit(frame, |payload| *payload.last_mut().unwrap() ^= 1);
        }
    });
    assert_eq!(denied(&wrong.listening), Some("the proof for a known token is wrong"));
    let no_keys = listening(false, Some(Arc::new(TokenKeys::default())));
    let empty = run_plainly(connecting([token(SECRET)]), no_keys);
    // The key that unknown ids are checked against opens nothing either.
    let dummy = run_plainly(connecting([token(&[0; 32])]), me());
    for exchange in [unknown, wrong, empty, dummy] {
        assert_eq!(refusals(exchange.listening), Err(uniform()));
    }
}

#[test]
fn proofs_of_another_length_are_wrong_ones_and_messages_without_a_key_id_are_none() {
    let id = secret(SECRET).key_id();
    let listening_to = |payload: &[u8]| {
        let mut listening = listening(false, keys("me", SECRET));
        listening.handle(&frame(Frame::OFFER, b"\x00\x00\x01\x05token"), &exporter(1)).unwrap();
        code(&listening.handle(&frame(Frame::PROOF, payload), &exporter(1)))
    };
    for length in [0, 7] {
        assert_eq!(listening_to(&id[..length]), Some(Code::PROTOCOL));
    }
    for length in [0, 31, 33, 4088] {
        assert_eq!(listening_to(&[&id[..], &vec![7; length]].concat()), Some(Code::AUTH_REFUSED));
    }
}

#[test]
fn a_server_that_does_not_know_the_key_is_not_believed() {
    let mut connecting = connecting([token(SECRET)]);
    let here = exporter(1);
    connecting.start(&here).unwrap();
    let select = frame(Frame::SELECT, b"\x00\x05token");
    assert!(matches!(connecting.handle(&select, &here), Ok(ConnectingStep::Send(bytes)) if bytes.is_empty()));
    let outcome = [b"\x06wanted\x00", &[7; 32][..]].concat();
    let refused = connecting.handle(&frame(Frame::OUTCOME, &outcome), &here);
    assert_eq!(code(&refused), Some(Code::UNPROVEN));
}

#[test]
fn of_two_for_the_same_the_first_counts() {
    let exchange = run_plainly(
        connecting([token(SECRET), token(b"another secret, as long")]),
        listening(false, keys("me", SECRET)),
    );
    assert!(exchange.connecting.is_ok());
    let key = |identity: &str| TokenKey::of(identity, secret(SECRET));
    let both = TokenKeys::new(vec![key("first"), key("second")]);
    assert_eq!((both.len(), both.is_empty()), (1, false));
    let exchange = run_plainly(connecting([token(SECRET)]), listening(false, Some(Arc::new(both))));
    assert_eq!(exchange.identity(), Some("first"));
}

#[test]
fn a_token_without_a_name_gives_an_identity_and_the_names_that_are_nobodys() {
    let nameless = TokenKeys::new(vec![TokenKey::nameless(secret(SECRET))]);
    let exchange = run_plainly(connecting([token(SECRET)]), listening_to([Arc::new(nameless) as _]));
    let proven = exchange.claim.unwrap().proven;
    let id = u64::from_be_bytes(secret(SECRET).key_id());
    assert_eq!(proven.identity, Some(format!("token:{:08x}", id >> 32)));
    assert_eq!(proven.grant, Grant::default());
}

#[test]
fn secrets_have_16_bytes() {
    assert!(matches!(TokenSecret::new([7; 15]), Err(SecretTooShort)));
    assert!(TokenSecret::new([7; 16]).is_ok());
}

/// Protocol.md, "Method token".
#[test]
fn secrets_have_a_text() {
    let text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    let secret: TokenSecret = text.parse().unwrap();
    assert_eq!(secret.key_id(), TokenSecret::new((0..32).collect::<Vec<_>>()).unwrap().key_id());
    assert_eq!(*secret.to_text(), text);
    assert!("-_-_-_-_-_-_-_-_-_-_-_-_".parse::<TokenSecret>().is_ok(), "of base64url, not of base64");
    for slip in [
        format!("{text}="),
        format!("{text}AA"),
        format!(" {text}"),
        format!("{text}\n"),
        text.replace("8", "9"),
        text.replace('B', "+"),
    ] {
        assert_eq!(slip.parse::<TokenSecret>().unwrap_err(), SecretError::Encoding, "{slip}");
    }
    let short = SecretError::TooShort(SecretTooShort);
    assert_eq!("AAECAwQFBgcICQoLDA0O".parse::<TokenSecret>().unwrap_err(), short);
    assert_eq!("".parse::<TokenSecret>().unwrap_err(), short);
}
