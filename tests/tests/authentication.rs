//! Who somebody is, what that one may do, and how it ends: identities and their names, ports and withdrawal, and methods
//! of an application's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use snocat_driver::core::auth::{
    AuthorizedKey, AuthorizedKeys, ConnectingConfig, Credential, Ed25519Key, Grant, ListeningConfig, Names,
    NoProof, Proven, TokenKey, TokenKeys, TokenSecret,
};
use snocat_driver::core::{ClosedBy, Code};
use snocat_driver::{
    AuthenticationChannel, AuthenticationClient, AuthenticationHandler, ClientConfig, ConnectError, Denied,
    ServerConfig,
};
use snocat_tests::{Client, Failure, Lab, Options, Pairing, Said, Server, Target, pairings};

pairings!(
    a_key_that_is_authorized_gets_in_and_another_does_not,
    a_newer_connection_of_the_same_identity_takes_name_and_port_over_at_once,
    the_name_of_another_identity_is_refused,
    a_name_is_made_up_unless_all_that_could_be_belong_to_somebody,
    a_name_that_proves_nothing_is_held_while_its_tunnel_lives,
    a_credential_that_is_withdrawn_ends_its_tunnels_and_no_others,
    a_credential_whose_grant_changes_ends_its_tunnels,
    only_ports_that_are_granted_are_bound,
    a_source_that_is_not_granted_is_refused_like_a_wrong_secret,
    a_method_of_ones_own_lets_in_who_it_wants,
    a_method_of_ones_own_may_have_several_messages,
    a_method_that_never_decides_is_over_after_the_deadline,
    a_method_that_gives_up_ends_the_attempt_at_once,
    what_a_method_denies_looks_the_same_whosever_turn_it_is,
    a_server_that_accepts_sooner_than_its_client_is_content_gains_nothing,
);

/// What is to happen at once happens within this.
const AT_ONCE: Duration = Duration::from_secs(2);

fn secret(of: u8) -> TokenSecret {
    TokenSecret::new([of; 32]).unwrap()
}

fn tokens(keys: impl IntoIterator<Item = TokenKey>) -> ListeningConfig {
    ListeningConfig::only(TokenKeys::new(keys.into_iter().collect()))
}

/// A server that accepts by these methods.
fn server(lab: &Lab, accepted: ListeningConfig) -> Server {
    let config = ServerConfig::new(lab.server_config(&Options::default()).tls, accepted);
    lab.server_from(config, &Options::default())
}

/// A client with this credential, which asks for this name and port.
fn client(
    lab: &Lab,
    server: &Server,
    credential: impl Credential + 'static,
    name: Option<&'static str>,
    port: u16,
) -> Result<Client, Failure> {
    let options = Options { port, ..Options::default() };
    let mut config = lab.client_config(&options);
    config.authentication = ConnectingConfig {
        name: name.map(|name| name.parse().unwrap()),
        ..ConnectingConfig::only(credential)
    };
    lab.client_from(config, server.quic, target(), &options)
}

/// A target that nobody visits.
fn target() -> SocketAddr {
    Target::new().address
}

fn code(result: Result<Client, Failure>) -> Option<Code> {
    result.err().and_then(|failure| failure.code())
}

fn up(name: &str) -> Said {
    Said::Up(name.to_owned())
}

fn down(name: &str, code: Code) -> Said {
    Said::Down(name.to_owned(), code)
}

fn a_key_that_is_authorized_gets_in_and_another_does_not(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let known = Ed25519Key::from_seed(&[1; 32]);
    let alice =
        AuthorizedKey { key: known.public_key(), identity: "alice".into(), grant: Grant::to("alice") };
    let server = server(&lab, ListeningConfig::only(AuthorizedKeys::new(vec![alice])));
    let stranger = client(&lab, &server, Ed25519Key::from_seed(&[2; 32]), None, 0);
    assert_eq!(code(stranger), Some(Code::AUTH_REFUSED));
    let _alice = client(&lab, &server, known, None, 0).unwrap();
    assert_eq!(server.next_up_or_down(), up("alice"));
}

fn a_newer_connection_of_the_same_identity_takes_name_and_port_over_at_once(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = server(&lab, tokens([TokenKey::of("alice", secret(1))]));
    let older = client(&lab, &server, secret(1), Some("alice"), 0).unwrap();
    assert_eq!(server.next_up_or_down(), up("alice"));
    let begin = Instant::now();
    let newer = client(&lab, &server, secret(1), Some("alice"), older.port.port()).unwrap();
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    assert_eq!(newer.port, older.port);
    let end = older.end();
    assert_eq!((end.by, end.code), (ClosedBy::Peer, Code::SUPERSEDED));
    let said = [server.next_up_or_down(), server.next_up_or_down()];
    assert!(said.contains(&down("alice", Code::SUPERSEDED)) && said.contains(&up("alice")), "{said:?}");
    // The end of the older one did not take the name from the newer one.
    newer.stop();
    assert_eq!(server.next_up_or_down(), down("alice", Code::STOPPING));
}

fn the_name_of_another_identity_is_refused(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let keys = [
        TokenKey::of("alice", secret(1)),
        TokenKey::of("bob", secret(2)),
        TokenKey::nameless(secret(3)),
        TokenKey { grant: Grant::default(), ..TokenKey::of("carol", secret(4)) },
    ];
    let server = server(&lab, tokens(keys));
    // Whether or not it is in use, and whoever asks.
    for stranger in [2, 3, 4] {
        assert_eq!(code(client(&lab, &server, secret(stranger), Some("alice"), 0)), Some(Code::NAME_REFUSED));
    }
    let _alice = client(&lab, &server, secret(1), Some("alice"), 0).unwrap();
    assert_eq!(code(client(&lab, &server, secret(2), Some("alice"), 0)), Some(Code::NAME_REFUSED));
    // What is nobody's is for the first who asks.
    let _carol = client(&lab, &server, secret(4), Some("web"), 0).unwrap();
    assert_eq!(code(client(&lab, &server, secret(3), Some("web"), 0)), Some(Code::NAME_TAKEN));
    assert_eq!(code(client(&lab, &server, secret(1), Some("web"), 0)), Some(Code::NAME_REFUSED));
}

fn a_name_is_made_up_unless_all_that_could_be_belong_to_somebody(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let bob = |patterns: &[&str]| {
        let names = Names::Only(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect());
        TokenKey { grant: Grant { names, ..Grant::default() }, ..TokenKey::of("bob", secret(1)) }
    };
    let some = ["tunnel-1", "tunnel-2"];
    let server = server(&lab, tokens([bob(&some), TokenKey::nameless(secret(2))]));
    let _nameless = client(&lab, &server, secret(2), None, 0).unwrap();
    assert_eq!(server.next_up_or_down(), up("tunnel-3"));
    server.accept_by(tokens([bob(&["t*"]), TokenKey::nameless(secret(2))]));
    assert_eq!(server.next_up_or_down(), down("tunnel-3", Code::WITHDRAWN));
    assert_eq!(code(client(&lab, &server, secret(2), None, 0)), Some(Code::NAME_REFUSED));
    // The server goes on.
    let _nameless = client(&lab, &server, secret(2), Some("web"), 0).unwrap();
    assert_eq!(server.next_up_or_down(), up("web"));
    let _bob = client(&lab, &server, secret(1), None, 0).unwrap();
}

fn a_name_that_proves_nothing_is_held_while_its_tunnel_lives(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = server(&lab, ListeningConfig::only(NoProof));
    let holder = client(&lab, &server, NoProof, Some("home"), 0).unwrap();
    assert_eq!(server.next_up_or_down(), up("home"));
    assert_eq!(code(client(&lab, &server, NoProof, Some("home"), 0)), Some(Code::NAME_TAKEN));
    holder.stop();
    assert_eq!(server.next_up_or_down(), down("home", Code::STOPPING));
    let _next = client(&lab, &server, NoProof, Some("home"), 0).unwrap();
    assert_eq!(server.next_up_or_down(), up("home"));
}

fn a_credential_that_is_withdrawn_ends_its_tunnels_and_no_others(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let [alice, bob] = [TokenKey::of("alice", secret(1)), TokenKey::of("bob", secret(2))];
    let server = server(&lab, tokens([alice, bob.clone()]));
    let alice = client(&lab, &server, secret(1), None, 0).unwrap();
    let bobs = client(&lab, &server, secret(2), None, 0).unwrap();
    let begin = Instant::now();
    server.accept_by(tokens([bob]));
    let end = alice.end();
    assert_eq!((end.by, end.code), (ClosedBy::Peer, Code::WITHDRAWN));
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    assert_eq!(code(client(&lab, &server, secret(1), None, 0)), Some(Code::AUTH_REFUSED));
    assert_eq!(bobs.stop().code, Code::STOPPING);
}

fn a_credential_whose_grant_changes_ends_its_tunnels(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let key = TokenKey::of("alice", secret(1));
    let server = server(&lab, tokens([key.clone()]));
    let tunnel = client(&lab, &server, secret(1), None, 0).unwrap();
    let narrow = Grant { ports: Some(vec![1..=1]), ..key.grant.clone() };
    server.accept_by(tokens([TokenKey { grant: narrow, ..key }]));
    assert_eq!(tunnel.end().code, Code::WITHDRAWN);
    assert_eq!(code(client(&lab, &server, secret(1), None, 0)), Some(Code::PORT_OUTSIDE));
}

fn only_ports_that_are_granted_are_bound(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let grant = Grant { ports: Some(vec![free..=free]), ..Grant::to("alice") };
    let server = server(&lab, tokens([TokenKey { grant, ..TokenKey::of("alice", secret(1)) }]));
    let other = if free == u16::MAX { free - 1 } else { free + 1 };
    assert_eq!(code(client(&lab, &server, secret(1), None, other)), Some(Code::PORT_OUTSIDE));
    let any = client(&lab, &server, secret(1), None, 0).unwrap();
    assert_eq!(any.port.port(), free);
}

fn a_source_that_is_not_granted_is_refused_like_a_wrong_secret(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let grant = |source: &str| Grant { sources: Some(vec![source.parse().unwrap()]), ..Grant::default() };
    let keys = [("192.0.2.0/24", 1), ("127.0.0.0/8", 2)]
        .map(|(source, of)| TokenKey { grant: grant(source), ..TokenKey::of("alice", secret(of)) });
    let server = server(&lab, tokens(keys));
    let told = |of| match client(&lab, &server, secret(of), None, 0).err() {
        Some(Failure::Connect(ConnectError::Closed(reason))) => (reason.code, reason.text),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(1).0, Code::AUTH_REFUSED);
    assert_eq!(told(1), told(3));
    client(&lab, &server, secret(2), None, 0).unwrap();
}

/// Lets in who knows the word.
struct Word(&'static str);

impl AuthenticationHandler for Word {
    async fn authenticate(&self, channel: &mut AuthenticationChannel) -> Result<Proven, Denied> {
        let said = channel.receive().await?;
        let expected = [self.0.as_bytes(), &said.binding].concat();
        if said.message != expected {
            return Err(Denied::new("the word is wrong"));
        }
        Ok(Proven::new("friend", Grant::to("friend")))
    }
}

impl AuthenticationClient for Word {
    async fn authenticate(&self, channel: &mut AuthenticationChannel) -> Result<(), Denied> {
        let message = [self.0.as_bytes(), &channel.binding()].concat();
        Ok(channel.send(message)?)
    }
}

/// A server with a method of its own.
fn handling(lab: &Lab, handler: impl AuthenticationHandler, limit: Duration) -> Server {
    let mut config =
        ServerConfig::new(lab.server_config(&Options::default()).tls, tokens([])).handle("x.word", handler);
    config.limits.authentication_time = limit;
    lab.server_from(config, &Options::default())
}

/// A client that offers the method, behind a token that nobody wants or as its only one.
fn offering(
    lab: &Lab,
    server: &Server,
    method: impl AuthenticationClient,
    alone: bool,
) -> Result<Client, Failure> {
    let tls = lab.client_config(&Options::default()).tls;
    let mut first = ConnectingConfig::default();
    if !alone {
        first.methods.push(Arc::new(NoProof));
    }
    let config = ClientConfig::new(tls, first).offer("x.word", method);
    lab.client_from(config, server.quic, target(), &Options::default())
}

const PATIENT: Duration = Duration::from_secs(10);

fn a_method_of_ones_own_lets_in_who_it_wants(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = handling(&lab, Word("friend"), PATIENT);
    for alone in [true, false] {
        let friend = offering(&lab, &server, Word("friend"), alone).unwrap();
        assert_eq!(server.next_up_or_down(), up("friend"));
        friend.stop();
        assert_eq!(server.next_up_or_down(), down("friend", Code::STOPPING));
        assert_eq!(code(offering(&lab, &server, Word("enemy"), alone)), Some(Code::AUTH_REFUSED));
    }
}

/// Both sides count, each what the other said and one more, until it is enough.
struct Count(u8);

impl AuthenticationHandler for Count {
    async fn authenticate(&self, channel: &mut AuthenticationChannel) -> Result<Proven, Denied> {
        loop {
            let said = channel.receive().await?.message;
            match said.as_slice() {
                [number] if *number == self.0 => break,
                [number] => channel.send([number + 1])?,
                _ => return Err(Denied::new("that is no number")),
            }
        }
        assert!(channel.receive().await.is_err(), "it is this side's turn");
        Ok(Proven {
            attributes: [("count".into(), self.0.to_string())].into(),
            ..Proven::new("counter", Grant::default())
        })
    }
}

impl AuthenticationClient for Count {
    async fn authenticate(&self, channel: &mut AuthenticationChannel) -> Result<(), Denied> {
        channel.send([0])?;
        assert!(channel.send([0]).is_err(), "it is the other's turn");
        loop {
            let [number] = channel.receive().await?.message[..] else { return Err(Denied::new("no number")) };
            channel.send([number + 1])?;
            if number + 1 == self.0 {
                return Ok(());
            }
        }
    }
}

fn a_method_of_ones_own_may_have_several_messages(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = handling(&lab, Count(6), PATIENT);
    let _client = offering(&lab, &server, Count(6), true).unwrap();
    assert_eq!(server.next_up_or_down(), up("counter"));
}

/// Never comes to a decision.
struct Never;

impl AuthenticationHandler for Never {
    async fn authenticate(&self, channel: &mut AuthenticationChannel) -> Result<Proven, Denied> {
        channel.receive().await?;
        std::future::pending().await
    }
}

fn a_method_that_never_decides_is_over_after_the_deadline(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = handling(&lab, Never, Duration::from_secs(1));
    let begin = Instant::now();
    assert_eq!(code(offering(&lab, &server, Word("friend"), true)), Some(Code::TIMEOUT));
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(5), "{took:?}");
}

/// A client that is not content with being accepted: the server has to know a word, too.
struct Distrust;

impl AuthenticationClient for Distrust {
    async fn authenticate(&self, channel: &mut AuthenticationChannel) -> Result<(), Denied> {
        let message = [b"friend", &channel.binding()[..]].concat();
        channel.send(message)?;
        channel.receive().await?;
        Ok(())
    }
}

fn a_server_that_accepts_sooner_than_its_client_is_content_gains_nothing(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = handling(&lab, Word("friend"), PATIENT);
    let begin = Instant::now();
    assert_eq!(code(offering(&lab, &server, Distrust, true)), Some(Code::UNPROVEN));
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

/// Has nothing to say to such a server.
struct Sulk;

impl AuthenticationClient for Sulk {
    async fn authenticate(&self, _: &mut AuthenticationChannel) -> Result<(), Denied> {
        Err(Denied::new("not with this one"))
    }
}

fn a_method_that_gives_up_ends_the_attempt_at_once(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = handling(&lab, Never, PATIENT);
    let begin = Instant::now();
    assert!(offering(&lab, &server, Sulk, true).is_err());
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

/// Asks back, and then has seen enough: at once, or after the answer.
struct Denies {
    at_once: bool,
}

impl AuthenticationHandler for Denies {
    async fn authenticate(&self, channel: &mut AuthenticationChannel) -> Result<Proven, Denied> {
        channel.receive().await?;
        channel.send(*b"?")?;
        if !self.at_once {
            channel.receive().await?;
        }
        Err(Denied::new("no"))
    }
}

/// Waits to be asked, and for what becomes of the answer.
struct Answers;

impl AuthenticationClient for Answers {
    async fn authenticate(&self, channel: &mut AuthenticationChannel) -> Result<(), Denied> {
        channel.send(*b"!")?;
        channel.receive().await?;
        std::thread::sleep(Duration::from_millis(100));
        channel.send(*b"!")?;
        channel.receive().await?;
        Ok(())
    }
}

fn what_a_method_denies_looks_the_same_whosever_turn_it_is(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let told = [true, false].map(|at_once| {
        let server = handling(&lab, Denies { at_once }, PATIENT);
        match offering(&lab, &server, Answers, true).err() {
            Some(Failure::Connect(ConnectError::Closed(reason))) => (reason.by, reason.code, reason.text),
            other => panic!("{other:?}"),
        }
    });
    assert_eq!((told[0].0, told[0].1), (ClosedBy::Peer, Code::AUTH_REFUSED));
    assert_eq!(told[0], told[1]);
}
