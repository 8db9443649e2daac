//! What a credential allows, where from, and for how long; and what of it may be shown.

use super::*;

fn name(text: &str) -> TunnelName {
    text.parse().unwrap()
}

fn config(methods: impl Into<Vec<Arc<dyn Authenticator>>>) -> ListeningConfig {
    ListeningConfig { methods: methods.into() }
}

fn tokens(keys: &[&TokenKey]) -> Arc<dyn Authenticator> {
    Arc::new(TokenKeys::new(keys.iter().copied().cloned().collect()))
}

fn public(keys: &[&AuthorizedKey]) -> Arc<dyn Authenticator> {
    Arc::new(AuthorizedKeys::new(keys.iter().copied().cloned().collect()))
}

/// What this credential proves to that configuration.
fn claim(credential: Arc<dyn Credential>, config: &ListeningConfig) -> Claim {
    run_plainly(connecting([credential]), Listening::new(config)).claim.unwrap()
}

#[test]
fn a_good_credential_from_elsewhere_is_refused_like_a_bad_one() {
    let from = |sources: &[&str], remote: &str| {
        let grant = Grant {
            sources: Some(sources.iter().map(|source| source.parse().unwrap()).collect()),
            ..Grant::to("me")
        };
        let there = Tls { remote: remote.parse().unwrap(), ..Tls::of(1) };
        let key = TokenKey { grant, ..TokenKey::of("me", secret(SECRET)) };
        let listening = Listening::new(&config([tokens(&[&key])]));
        Lab { there, ..Lab::default() }.run(connecting([token(SECRET)]), listening)
    };
    assert!(from(&["192.0.2.0/24"], "192.0.2.77:5").connecting.is_ok());
    assert!(from(&["2001:db8::/32", "192.0.2.0/24"], "[::ffff:192.0.2.77]:5").connecting.is_ok());
    for exchange in [from(&["192.0.2.0/24"], "198.51.100.1:5"), from(&[], "192.0.2.77:5")] {
        assert!(denied(&exchange.listening).unwrap().contains("not from this address"));
        assert!(exchange.claim.is_none());
        assert_eq!(refusals(exchange.listening), Err(uniform()));
    }
}

#[test]
fn the_sources_of_every_member_of_a_chain_count() {
    let limited = |source: &str, remote: &str| {
        let sources = Some(vec![source.parse().unwrap()]);
        let signer =
            AuthorizedKey { grant: Grant { sources, ..Grant::default() }, ..authorized("me", &SEED) };
        let accepts = Chain::of_authenticators(vec![public(&[&signer]), token_of("me", SECRET)]);
        let offers = Chain::of_credentials(vec![key(&SEED), token(SECRET)]);
        let there = Tls { remote: remote.parse().unwrap(), ..Tls::of(1) };
        Lab { there, ..Lab::default() }
            .run(connecting([Arc::new(offers) as _]), listening_to([Arc::new(accepts) as _]))
    };
    assert!(limited("192.0.2.0/24", "192.0.2.1:1").connecting.is_ok());
    assert_eq!(refusals(limited("192.0.2.0/24", "192.0.3.1:1").listening), Err(uniform()));
}

#[test]
fn a_credential_stands_as_long_as_it_is_there_and_grants_the_same() {
    let me = TokenKey::of("me", secret(SECRET));
    let other = TokenKey::of("other", secret(b"another secret, as long"));
    let proven = claim(token(SECRET), &config([tokens(&[&me])])).proven;
    let stands = |keys: &[&TokenKey]| config([tokens(keys)]).stands("token", &proven);
    assert!(stands(&[&me]) && stands(&[&other, &me]));
    assert!(!stands(&[]) && !stands(&[&other]), "it is not there any more");
    let renamed = TokenKey { identity: Some("you".into()), ..me.clone() };
    let fewer_ports =
        TokenKey { grant: Grant { ports: Some(vec![80..=80]), ..Grant::to("me") }, ..me.clone() };
    assert!(!stands(&[&renamed]) && !stands(&[&fewer_ports]), "it says something else");
    let same_name = TokenKey::of("me", secret(b"another secret, as long"));
    assert!(!stands(&[&same_name]), "it is another one of the same identity");
    assert!(!config([public(&[&authorized("me", &SEED)])]).stands("token", &proven), "the method is gone");
    assert!(!config([tokens(&[&me])]).stands("ed25519", &proven), "it was another method");

    let me = authorized("me", &SEED);
    let proven = claim(key(&SEED), &config([public(&[&me])])).proven;
    let stands = |keys: &[&AuthorizedKey]| config([public(keys)]).stands("ed25519", &proven);
    assert!(stands(&[&me]) && stands(&[&authorized("other", &[9; 32]), &me]));
    assert!(!stands(&[]) && !stands(&[&authorized("me", &[9; 32])]));
    assert!(!stands(&[&AuthorizedKey { identity: "you".into(), ..me.clone() }]));
    assert!(!stands(&[&AuthorizedKey { grant: Grant::default(), ..me.clone() }]));
    for evidence in [&[][..], &SEED[..31]] {
        let odd = Proven { evidence: evidence.to_vec(), ..proven.clone() };
        assert!(!config([public(&[&me])]).stands("ed25519", &odd));
    }
}

#[test]
fn a_chain_stands_as_long_as_every_member_does() {
    let chain = |identities: &'static [&'static str], keys: &[&TokenKey]| {
        let members = vec![certificates(identities), tokens(keys)];
        config([Arc::new(Chain::of_authenticators(members)) as _])
    };
    let me = TokenKey::nameless(secret(SECRET));
    let credential = Chain::of_credentials(vec![Arc::new(ClientCertificate), token(SECRET)]);
    let claim = claim(Arc::new(credential), &chain(&["alice"], &[&me]));
    let stands = |config: ListeningConfig| config.stands(&claim.method, &claim.proven);
    assert!(stands(chain(&["alice", "bob"], &[&me])));
    assert!(!stands(chain(&["bob"], &[&me])) && !stands(chain(&["alice"], &[])));
    // One method less or more is another method, and so is another order.
    assert!(!stands(config([certificates(&["alice"])])));
    let reversed = vec![tokens(&[&me]), certificates(&["alice"])];
    assert!(!stands(config([Arc::new(Chain::of_authenticators(reversed)) as _])));
    // Nor is the evidence of one worth anything to all.
    let alone = Proven { parts: claim.proven.parts[..1].to_vec(), ..claim.proven.clone() };
    assert!(!chain(&["alice"], &[&me]).stands(&claim.method, &alone));
    let none = Proven { parts: Vec::new(), ..claim.proven.clone() };
    assert!(!chain(&["alice"], &[&me]).stands(&claim.method, &none));
}

#[test]
fn none_and_what_is_decided_outside_stand_as_long_as_they_are_configured() {
    let (nothing, outside): (Arc<dyn Authenticator>, _) = (Arc::new(NoProof), External::new("ours"));
    let outside: Arc<dyn Authenticator> = Arc::new(outside);
    let proven = Proven::default();
    assert!(config([nothing.clone()]).stands("none", &proven) && !config([nothing]).stands("ours", &proven));
    assert!(config([outside.clone()]).stands("ours", &proven) && !config([outside]).stands("none", &proven));
}

#[test]
fn a_name_that_is_listed_for_somebody_is_nobody_elses() {
    let key = AuthorizedKey {
        grant: Grant { names: Names::Only(vec!["db-*".parse().unwrap()]), ..Grant::default() },
        ..authorized("dba", &[9; 32])
    };
    let members = vec![public(&[&key]), certificates(&["alice"])];
    let config = config([
        tokens(&[&TokenKey::of("web", secret(SECRET))]),
        Arc::new(Chain::of_authenticators(members)),
    ]);
    let allows = |grant: &Grant, text: &str| config.allows_name(grant, &name(text));
    for reserved in ["web", "db-1", "alice"] {
        assert!(!allows(&Grant::default(), reserved), "{reserved}");
    }
    assert!(allows(&Grant::default(), "db") && allows(&Grant::default(), "web2"));
    assert!(allows(&Grant::to("web"), "web") && !allows(&Grant::to("web"), "web2"));
    assert!(!allows(&Grant { names: Names::Only(Vec::new()), ..Grant::default() }, "web2"), "no name at all");
}

#[test]
fn no_secret_is_shown() {
    let chain = Chain::of_credentials(vec![token(SECRET), key(&SEED)]);
    let connects = ConnectingConfig { methods: vec![token(SECRET), key(&SEED), Arc::new(chain)], name: None };
    let chain = Chain::of_authenticators(vec![token_of("me", SECRET), public(&[&authorized("me", &SEED)])]);
    let listens = config([token_of("me", SECRET), public(&[&authorized("me", &SEED)]), Arc::new(chain)]);
    let mut connecting = Connecting::new(&connects);
    let mut listening = Listening::new(&listens);
    let mut shown =
        format!("{connects:?} {listens:?} {:?} {:?}", secret(SECRET), Ed25519Key::from_seed(&SEED));
    let step = connecting.start(&exporter(1)).unwrap();
    shown += &format!("{connecting:?} {step:?}");
    for frame in frames(&said(step)) {
        let step = listening.handle(&frame, &exporter(1));
        shown += &format!("{listening:?} {step:?}");
    }
    let exchange = run_plainly(Connecting::new(&connects), Listening::new(&listens));
    shown += &format!("{:?} {:?} {:?}", exchange.claim, exchange.connecting, exchange.listening);
    for secret in [SECRET, &SEED] {
        let text = String::from_utf8(secret[..8].to_vec()).unwrap();
        let numbers = format!("{:?}", &secret[..4]);
        let hex: String = secret[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        for trace in [&text, numbers.trim_matches(['[', ']']), &hex] {
            assert!(!shown.contains(trace), "{trace} in {shown}");
        }
    }
}
