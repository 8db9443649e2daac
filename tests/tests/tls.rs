//! Who gets in with a certificate of its own, and what becomes of those who speak another protocol.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use snocat_driver::core::auth::{
    Authenticator, CertificateJudge, ClientCertificate, ClientCertificates, ConnectingConfig, Credential,
    Grant, ListeningConfig, Proven, TokenKey, TokenKeys, TokenSecret,
};
use snocat_driver::core::sim::{Chance, LinkConfig, Loss};
use snocat_driver::core::{ALPN, ClosedBy, Code, Event, Limits};
use snocat_driver::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime,
};
use snocat_driver::rustls::time_provider::TimeProvider;
use snocat_driver::{
    ClientAuthorities, ClientConfig, ClientTls, ConnectError, Connected, Destination, Runtime, ServerConfig,
    ServerTls, TlsError, Trust, TunnelServer, connect,
};
use snocat_tests::simruntime::{CLIENT, Machines, SERVER, SimRuntime, World, each_seed, simulate};
use snocat_tests::{CLIENT as CONNECTING, DELAY, Duo, SECRET, SERVER as LISTENING};

// ---- certificates

/// Who issues certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A chain, its own certificate first, and the key.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()
}

fn authority_of(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

/// For clients, from 2020 to 2040.
fn client(names: &[&str]) -> CertificateParams {
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut parameters = CertificateParams::new(names).unwrap();
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2040, 1, 1);
    parameters
}

/// The same, but for something.
fn client_but(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut parameters = client(names);
    change(&mut parameters);
    parameters
}

fn numbered(name: &str, serial: u64) -> CertificateParams {
    client_but(&[name], |parameters| parameters.serial_number = Some(SerialNumber::from(serial)))
}

impl Authority {
    fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(authority_of(name), key()).unwrap())
    }

    fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    fn intermediate(&self, name: &str) -> Self {
        Self(CertifiedIssuer::signed_by(authority_of(name), key(), &self.0).unwrap())
    }

    fn issue(&self, parameters: &CertificateParams) -> Identity {
        let key = key();
        Identity { chain: vec![parameters.signed_by(&key, &self.0).unwrap().der().clone()], key }
    }

    /// A list that revokes the certificates with these serial numbers.
    fn revoke(&self, serials: &[u64]) -> CertificateRevocationListDer<'static> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2024, 2, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().into()
    }
}

impl Identity {
    fn followed_by(mut self, issuer: &Authority) -> Self {
        self.chain.push(issuer.certificate());
        self
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

/// A clock that shows the middle of this year.
#[derive(Debug)]
struct Clock(AtomicU64);

impl Clock {
    fn at(year: u64) -> Arc<Self> {
        let clock = Self(AtomicU64::new(0));
        clock.set(year);
        Arc::new(clock)
    }

    fn set(&self, year: u64) {
        let days = (year - 1970) * 1461 / 4 + 180;
        self.0.store(days * 24 * 60 * 60, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

fn trusting(authorities: &[&Authority]) -> ClientAuthorities {
    trusting_but(authorities, Vec::new())
}

fn trusting_but(
    authorities: &[&Authority],
    lists: Vec<CertificateRevocationListDer<'static>>,
) -> ClientAuthorities {
    let certificates = authorities.iter().map(|authority| authority.certificate()).collect();
    ClientAuthorities::new(certificates, lists).unwrap().with_clock(Clock::at(2026))
}

fn identity(judge: &ClientAuthorities, shown: &Identity) -> Result<String, String> {
    judge.judge(&shown.chain).map(|proven| proven.identity.unwrap())
}

/// Why it is not accepted.
fn refused(judge: &ClientAuthorities, shown: &Identity) -> String {
    judge.judge(&shown.chain).unwrap_err()
}

// ---- whose a certificate is

#[test]
fn a_certificate_of_the_authority_is_accepted_under_its_name() {
    let ca = Authority::new("ca");
    let proven = trusting(&[&ca]).judge(&ca.issue(&client(&["alice"])).chain).unwrap();
    assert_eq!(proven, Proven::new("alice", snocat_driver::core::auth::Grant::to("alice")));
    let unlimited = client_but(&["alice"], |parameters| parameters.extended_key_usages.clear());
    assert_eq!(identity(&trusting(&[&ca]), &ca.issue(&unlimited)), Ok("alice".to_owned()));
}

#[test]
fn a_certificate_of_another_authority_is_not() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let alice = other.issue(&client(&["alice"]));
    let why = "no authority that is accepted here has issued the certificate (alice)";
    assert_eq!(refused(&trusting(&[&ca]), &alice), why);
    assert_eq!(identity(&trusting(&[&ca, &other]), &alice), Ok("alice".to_owned()));
    // One that has the name of the right one, which anybody can take.
    let namesake = Authority::new("ca");
    assert_eq!(refused(&trusting(&[&ca]), &namesake.issue(&client(&["alice"]))), why);
    // One that brings its issuer along.
    let alice = namesake.issue(&client(&["alice"])).followed_by(&namesake);
    assert_eq!(refused(&trusting(&[&ca]), &alice), why);
}

#[test]
fn a_certificate_counts_while_it_is_valid() {
    let ca = Authority::new("ca");
    let clock = Clock::at(2026);
    let judge = trusting(&[&ca]).with_clock(clock.clone());
    let alice = ca.issue(&client(&["alice"]));
    assert!(judge.judge(&alice.chain).is_ok());
    clock.set(2041);
    assert_eq!(refused(&judge, &alice), "the certificate has expired (alice)");
    clock.set(2019);
    assert_eq!(refused(&judge, &alice), "the certificate is not valid yet (alice)");
    clock.set(2039);
    assert!(judge.judge(&alice.chain).is_ok());
}

#[test]
fn a_certificate_for_servers_or_of_an_authority_is_none_for_clients() {
    let ca = Authority::new("ca");
    let judge = trusting(&[&ca]);
    let server = client_but(&["alice"], |parameters| {
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(refused(&judge, &ca.issue(&server)), "the certificate is not one for clients (alice)");
    let both = client_but(&["alice"], |parameters| {
        parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    });
    assert_eq!(identity(&judge, &ca.issue(&both)), Ok("alice".to_owned()));
    let authority = client_but(&["alice"], |parameters| {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let why = "the certificate is that of an authority, not of a client (alice)";
    assert_eq!(refused(&judge, &ca.issue(&authority)), why);
}

#[test]
fn an_intermediate_has_to_be_shown() {
    let ca = Authority::new("ca");
    let office = ca.intermediate("office");
    let judge = trusting(&[&ca]);
    let alice = office.issue(&client(&["alice"]));
    let why = "no authority that is accepted here has issued the certificate (alice)";
    assert_eq!(refused(&judge, &alice), why);
    assert_eq!(identity(&judge, &alice.followed_by(&office)), Ok("alice".to_owned()));
    // Nobody becomes an authority by having a certificate.
    let alice = CertifiedIssuer::signed_by(client(&["alice"]), key(), &ca.0).unwrap();
    let mallory = Authority(alice);
    let shown = mallory.issue(&client(&["root"])).followed_by(&mallory);
    assert!(refused(&judge, &shown).ends_with(" (root)"));
}

#[test]
fn a_certificate_may_be_its_own_authority() {
    let key = key();
    let own = client(&["alice"]).self_signed(&key).unwrap().der().clone();
    let judge = ClientAuthorities::new(vec![own.clone()], Vec::new()).unwrap();
    assert_eq!(identity(&judge, &Identity { chain: vec![own], key }), Ok("alice".to_owned()));
}

#[test]
fn a_certificate_that_is_no_authority_vouches_for_no_other() {
    let own = CertifiedIssuer::self_signed(client(&["alice"]), key()).unwrap();
    let certificate = own.der().clone();
    let judge = ClientAuthorities::new(vec![certificate], Vec::new()).unwrap().with_clock(Clock::at(2026));
    let issued = Authority(own).issue(&client(&["root"]));
    assert_eq!(
        refused(&judge, &issued),
        "no authority that is accepted here has issued the certificate (root)"
    );
    // Issued by an authority that is not given, it stands for itself; in its time, and as a client.
    let bob = Authority::new("ca").issue(&client(&["bob"]));
    let judge =
        |year| ClientAuthorities::new(bob.chain.clone(), Vec::new()).unwrap().with_clock(Clock::at(year));
    assert_eq!(identity(&judge(2026), &bob), Ok("bob".to_owned()));
    assert_eq!(refused(&judge(2045), &bob), "the certificate has expired (bob)");
}

#[test]
fn what_a_list_revokes_is_not_accepted() {
    let ca = Authority::new("ca");
    let (alice, bob) = (ca.issue(&numbered("alice", 1)), ca.issue(&numbered("bob", 2)));
    let judge = trusting_but(&[&ca], vec![ca.revoke(&[1])]);
    assert_eq!(refused(&judge, &alice), "the certificate was revoked (alice)");
    assert_eq!(identity(&judge, &bob), Ok("bob".to_owned()), "although the list is old");
    // Nor if it stands beside its authority.
    let both = vec![alice.chain[0].clone(), ca.certificate()];
    let judge = ClientAuthorities::new(both, vec![ca.revoke(&[1])]).unwrap().with_clock(Clock::at(2026));
    assert_eq!(refused(&judge, &alice), "the certificate was revoked (alice)");
    // Whatever the client sends besides, and whether or not the authority is there.
    let office = ca.intermediate("office");
    let carol = office.issue(&numbered("carol", 3));
    let lists = || vec![ca.revoke(&[]), office.revoke(&[3])];
    for listed in [vec![carol.chain[0].clone(), ca.certificate()], vec![carol.chain[0].clone()]] {
        let judge = ClientAuthorities::new(listed, lists()).unwrap().with_clock(Clock::at(2026));
        assert_eq!(refused(&judge, &carol), "the certificate was revoked (carol)");
    }
    let namesake = Authority::new("ca");
    let judge = trusting_but(&[&ca], vec![namesake.revoke(&[1])]);
    assert!(judge.judge(&alice.chain).is_err() && judge.judge(&bob.chain).is_err(), "a list that is forged");
}

#[test]
fn a_newer_list_behind_an_older_one_is_not_overlooked() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let lists = |lists: Vec<_>| ClientAuthorities::new(vec![ca.certificate()], lists).map(drop);
    assert!(matches!(lists(vec![ca.revoke(&[]), ca.revoke(&[1])]), Err(TlsError::TwoLists)));
    lists(vec![ca.revoke(&[1]), other.revoke(&[1])]).unwrap();
    let broken = || CertificateRevocationListDer::from(vec![0]);
    assert!(matches!(lists(vec![broken(), broken()]), Err(TlsError::RevocationList(_))));
    let listed = ca.issue(&client(&["alice"])).chain;
    assert!(matches!(ClientAuthorities::new(listed, vec![broken()]), Err(TlsError::RevocationList(_))));
}

#[test]
fn with_lists_there_is_one_of_each_issuer() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let office = ca.intermediate("office");
    let why = "no revocation list speaks of the certificate or of an issuer of it (alice)";
    let alice = other.issue(&client(&["alice"]));
    assert_eq!(refused(&trusting_but(&[&ca, &other], vec![ca.revoke(&[])]), &alice), why);
    let alice = office.issue(&client(&["alice"])).followed_by(&office);
    assert_eq!(refused(&trusting_but(&[&ca], vec![office.revoke(&[])]), &alice), why);
    let judge = trusting_but(&[&ca], vec![office.revoke(&[]), ca.revoke(&[])]);
    assert_eq!(identity(&judge, &alice), Ok("alice".to_owned()));
}

#[test]
fn the_identity_is_the_first_name_of_a_host_or_else_the_first_uri() {
    let ca = Authority::new("ca");
    let judge = trusting(&[&ca]);
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
    let mail = || SanType::Rfc822Name("alice@example.org".try_into().unwrap());
    let address = || SanType::IpAddress([192, 0, 2, 1].into());
    let named = |names: Vec<SanType>| {
        let parameters = client_but(&[], |parameters| parameters.subject_alt_names = names);
        identity(&judge, &ca.issue(&parameters))
    };
    for (names, expected) in [
        (vec![dns("a.example"), dns("b.example")], "a.example"),
        (vec![uri("spiffe://x/y"), mail(), address(), dns("a.example")], "a.example"),
        (vec![dns("*.example.org"), dns("b.example")], "b.example"),
        (vec![dns("*.example.org"), uri("spiffe://example/Web")], "spiffe://example/Web"),
        (vec![uri("root"), uri("a b:c"), uri("urn:x")], "urn:x"),
        (vec![dns("ALICE.Example")], "alice.example"),
        (vec![dns("alice.")], "alice"),
        (vec![dns("a_b"), dns("c")], "a_b"),
    ] {
        assert_eq!(named(names.clone()).as_deref(), Ok(expected), "{names:?}");
    }
    let none = Err("the certificate carries no name".to_owned());
    let long = format!("urn:{}", "x".repeat(252));
    for names in [
        vec![],
        vec![dns("*.example.org")],
        vec![dns("*"), dns("*.example")],
        vec![dns("")],
        vec![dns("a b"), dns("a\nb"), dns("a/b"), dns("a..b")],
        vec![mail(), address()],
        vec![uri("root"), uri(""), uri(":"), uri("1:2"), uri("a:\u{7}"), uri(&long)],
    ] {
        assert_eq!(named(names.clone()), none, "{names:?}");
    }
    // The subject says nothing.
    let mut subject = client(&[]);
    subject.distinguished_name.push(DnType::CommonName, "alice");
    assert_eq!(identity(&judge, &ca.issue(&subject)), none);
}

#[test]
fn what_is_no_certificate_is_not_accepted() {
    let ca = Authority::new("ca");
    let judge = trusting(&[&ca]);
    assert_eq!(judge.judge(&[]).unwrap_err(), "there is no certificate");
    let alice = ca.issue(&client(&["alice"]));
    for length in 0..alice.chain[0].len() {
        let cut = CertificateDer::from(&alice.chain[0][..length]);
        assert_eq!(judge.judge(&[cut]).unwrap_err(), "the certificate cannot be read");
    }
    for place in 0..alice.chain[0].len() * 8 {
        let mut bytes = alice.chain[0].to_vec();
        bytes[place / 8] ^= 1 << (place % 8);
        let reason = judge.judge(&[CertificateDer::from(bytes)]).expect_err("a changed bit");
        assert!(reason.chars().all(|character| !character.is_control()), "{reason:?}");
    }
    let garbage = [alice.chain, vec![CertificateDer::from(vec![7; 100])]].concat();
    assert!(judge.judge(&garbage).is_ok(), "what is not needed does no harm");
}

#[test]
fn what_is_not_to_be_trusted_is_told() {
    let none = ClientAuthorities::new(Vec::new(), Vec::new());
    assert!(matches!(none, Err(TlsError::NoAuthority)));
    let broken = ClientAuthorities::new(vec![CertificateDer::from(vec![7; 9])], Vec::new());
    assert!(matches!(broken, Err(TlsError::Authority(_))));
    let list = CertificateRevocationListDer::from(vec![7; 9]);
    let broken = ClientAuthorities::new(vec![Authority::new("ca").certificate()], vec![list]);
    assert!(matches!(broken, Err(TlsError::RevocationList(_))));
}

// ---- who gets in

/// A server, and how it asks.
struct Place {
    server: TunnelServer<SimRuntime>,
    tls: ServerTls,
    runtime: SimRuntime,
}

/// A server that takes the certificates of this judge, and a token.
fn place(world: &World, judge: Arc<dyn CertificateJudge>) -> Place {
    let identity = own(&["localhost"]);
    let tls = ServerTls::new(identity.chain.clone(), identity.key(), None).unwrap();
    tls.ask_for_certificates(true);
    let token = TokenKeys::new(vec![TokenKey::of("laptop", TokenSecret::new(SECRET.to_vec()).unwrap())]);
    let methods: Vec<Arc<dyn Authenticator>> =
        vec![Arc::new(ClientCertificates::new(judge)), Arc::new(token)];
    let config = ServerConfig::new(tls.clone(), ListeningConfig { methods });
    let at = SocketAddr::from((SERVER, 4433));
    let server = TunnelServer::bind(world.sim.host(SERVER), at, &config).unwrap();
    Place { server, tls, runtime: world.sim.host(CLIENT) }
}

/// A certificate that signs itself.
fn own(names: &[&str]) -> Identity {
    let key = key();
    let parameters = client_but(names, |parameters| parameters.extended_key_usages.clear());
    Identity { chain: vec![parameters.self_signed(&key).unwrap().der().clone()], key }
}

fn certificate() -> Arc<dyn Credential> {
    Arc::new(ClientCertificate)
}

fn token() -> Arc<dyn Credential> {
    Arc::new(TokenSecret::new(SECRET.to_vec()).unwrap())
}

fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, certificate).as_ref().try_into().unwrap()
}

impl Place {
    /// Connects with these methods, and with a certificate if there is one. The server has a new one each time.
    async fn connect(
        &self,
        shown: Option<&Identity>,
        methods: &[Arc<dyn Credential>],
    ) -> Result<Connected<SimRuntime>, ConnectError> {
        let server = own(&["localhost"]);
        self.tls.replace(server.chain.clone(), server.key()).unwrap();
        let tls = ClientTls::new(Trust::Pinned(fingerprint(&server.chain[0])), None).unwrap();
        if let Some(shown) = shown {
            tls.show(shown.chain.clone(), shown.key()).unwrap();
        }
        let config = ClientConfig::new(tls, ConnectingConfig { methods: methods.to_vec(), name: None });
        let to = Destination { host: SERVER.to_string(), port: 4433, server_name: "localhost".to_owned() };
        connect(&self.runtime, &to, &config).await
    }

    /// What the peer says to who is turned away.
    async fn turned_away(&self, shown: Option<&Identity>) -> (Code, String) {
        match self.connect(shown, &[certificate()]).await.map(drop) {
            Err(ConnectError::Closed(reason)) if reason.by == ClosedBy::Peer => (reason.code, reason.text),
            other => panic!("{other:?}"),
        }
    }

    async fn end(self) {
        self.server.close(Code::STOPPING, "server stopped").await;
    }
}

fn calm(seed: u64) -> Machines {
    Machines { whims: false, ..Machines::drawn(seed) }
}

#[test]
fn a_certificate_makes_a_tunnel_of_its_name() {
    each_seed(10, |seed| {
        simulate(seed, Machines::drawn(seed), async |world: World| {
            let ca = Authority::new("ca");
            let office = ca.intermediate("office");
            let place = place(&world, Arc::new(trusting(&[&ca])));
            let alice = office.issue(&client(&["alice"])).followed_by(&office);
            let connected = place.connect(Some(&alice), &[certificate()]).await.unwrap();
            assert_eq!(connected.tunnel.name(), "alice");
            let outcome = place.server.tunnels().get("alice").unwrap().outcome().clone();
            assert_eq!((outcome.method.as_str(), outcome.identity()), ("tls-client-cert", Some("alice")));
            drop(connected);
            place.end().await;
        });
    });
}

/// Nor does an intermediate: all of it travels with the end of the handshake.
#[test]
fn a_certificate_costs_no_round_trip() {
    let delay = Duration::from_millis(20);
    let machines = Machines { link: LinkConfig::delay(delay), udp_buffer: 1_000_000, ..calm(5) };
    simulate(5, machines, async |world: World| {
        let ca = Authority::new("ca");
        let office = ca.intermediate("office");
        let place = place(&world, Arc::new(trusting(&[&ca])));
        let alice = office.issue(&client(&["alice"])).followed_by(&office);
        for (shown, method) in [(None, token()), (Some(&alice), certificate())] {
            let begin = place.runtime.now();
            let _connected = place.connect(shown, &[method]).await.unwrap();
            let took = place.runtime.now() - begin;
            assert!(took < 4 * delay + Duration::from_millis(1), "{took:?}");
        }
        place.end().await;
    });
}

#[test]
fn the_longest_chain_gets_through_in_whatever_order_its_pieces_arrive() {
    each_seed(10, |seed| {
        let mut machines = Machines::drawn(seed);
        machines.link.loss = Loss::bursts(Chance::per_mille(20), Chance::per_mille(200));
        machines.link.reorder = Chance::per_mille(300);
        simulate(seed, machines, async |world: World| {
            let ca = Authority::new("ca");
            let place = place(&world, Arc::new(trusting(&[&ca])));
            let mut alice = ca.issue(&client(&["alice"]));
            let rest = 12 * 1024 - alice.chain[0].len();
            alice.chain.push(CertificateDer::from(vec![7; rest]));
            assert_eq!(place.connect(Some(&alice), &[certificate()]).await.unwrap().tunnel.name(), "alice");
            place.end().await;
        });
    });
}

#[test]
fn all_who_are_turned_away_are_told_the_same() {
    simulate(1, calm(1), async |world: World| {
        let (ca, other) = (Authority::new("ca"), Authority::new("other"));
        let revoked = numbered("alice", 1);
        let expired = client_but(&["alice"], |parameters| parameters.not_after = date_time_ymd(2021, 1, 1));
        let place = place(&world, Arc::new(trusting_but(&[&ca], vec![ca.revoke(&[1])])));
        let nobody = place.turned_away(None).await;
        assert_eq!(nobody.0, Code::AUTH_REFUSED);
        let alice = client(&["alice"]);
        let nameless = client(&[]);
        for shown in [
            other.issue(&alice),
            ca.issue(&revoked),
            ca.issue(&expired),
            ca.issue(&nameless),
            ca.issue(&client(&["*.example.org"])),
        ] {
            assert_eq!(place.turned_away(Some(&shown)).await, nobody);
        }
        place.tls.ask_for_certificates(false);
        assert_eq!(place.turned_away(Some(&ca.issue(&alice))).await, nobody, "it was not asked");
        place.end().await;
    });
}

/// TLS lets it in with whatever it shows.
#[test]
fn who_has_a_token_gets_in_with_it_whatever_certificate_it_shows() {
    simulate(2, calm(2), async |world: World| {
        let (ca, other) = (Authority::new("ca"), Authority::new("other"));
        let place = place(&world, Arc::new(trusting(&[&ca])));
        let foreign = other.issue(&client(&["alice"]));
        for shown in [None, Some(&foreign)] {
            let connected = place.connect(shown, &[token()]).await.unwrap();
            assert!(connected.tunnel.name().starts_with("laptop"), "{}", connected.tunnel.name());
        }
        place.end().await;
    });
}

#[test]
fn what_was_accepted_stands_until_it_expires_or_is_revoked() {
    simulate(3, calm(3), async |world: World| {
        let ca = Authority::new("ca");
        let clock = Clock::at(2026);
        let judge = Arc::new(trusting(&[&ca]).with_clock(clock.clone()));
        let place = place(&world, judge.clone());
        let alice = ca.issue(&numbered("alice", 1));
        let _connected = place.connect(Some(&alice), &[certificate()]).await.unwrap();
        let proven = place.server.tunnels().get("alice").unwrap().outcome().proven.clone().unwrap();

        let before = ClientCertificates::new(judge);
        assert!(before.stands(&proven));
        clock.set(2041);
        assert!(!before.stands(&proven));
        clock.set(2026);
        assert!(before.stands(&proven));
        let stands = |judge: ClientAuthorities| ClientCertificates::new(Arc::new(judge)).stands(&proven);
        let other = Authority::new("other");
        assert!(stands(trusting(&[&other, &ca])), "another list of authorities that has the same one");
        assert!(!stands(trusting(&[&other])));
        assert!(stands(trusting_but(&[&ca], vec![ca.revoke(&[2])])));
        assert!(!stands(trusting_but(&[&ca], vec![ca.revoke(&[1])])));
        place.end().await;
    });
}

/// Thinks better of it between its yes and the tunnel's being there, and has the server look through its tunnels.
#[derive(Default)]
struct Fickle {
    asked: AtomicU64,
    place: OnceLock<Weak<Place>>,
}

impl fmt::Debug for Fickle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fickle")
    }
}

impl CertificateJudge for Fickle {
    fn judge(&self, _: &[CertificateDer<'_>]) -> Result<Proven, String> {
        match self.asked.fetch_add(1, Ordering::Relaxed) {
            0 => {}
            1 => self.place.get().and_then(Weak::upgrade).unwrap().server.review(),
            _ => return Err("not any more".to_owned()),
        }
        Ok(Proven::new("alice", Grant::to("alice")))
    }
}

#[test]
fn a_review_does_not_overlook_who_is_just_coming_in() {
    simulate(6, calm(6), async |world: World| {
        let judge = Arc::new(Fickle::default());
        let place = Arc::new(place(&world, judge.clone()));
        judge.place.set(Arc::downgrade(&place)).unwrap();
        let alice = Authority::new("ca").issue(&client(&["alice"]));
        let code = match place.connect(Some(&alice), &[certificate()]).await {
            Ok(connected) => connected.tunnel.closed().await.code,
            Err(ConnectError::Closed(reason)) => reason.code,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(code, Code::WITHDRAWN);
        place.server.close(Code::STOPPING, "server stopped").await;
    });
}

#[test]
fn a_new_certificate_of_the_server_leaves_its_tunnels_alone() {
    simulate(4, calm(4), async |world: World| {
        let ca = Authority::new("ca");
        let place = place(&world, Arc::new(trusting(&[&ca])));
        let alice = place.connect(Some(&ca.issue(&client(&["alice"]))), &[certificate()]).await.unwrap();
        let bob = place.connect(Some(&ca.issue(&client(&["bob"]))), &[certificate()]).await.unwrap();
        place.runtime.sleep_until(place.runtime.now() + Duration::from_secs(60)).await;
        assert_eq!(place.server.tunnels().len(), 2);
        for connected in [alice, bob] {
            connected.tunnel.close(Code::STOPPING, "client stopped");
            assert_eq!(connected.tunnel.closed().await.by, ClosedBy::Local);
        }
        place.end().await;
    });
}

// ---- another protocol

/// TLS says it itself, before there is a tunnel. Of none at all it would not, were it not for QUIC.
#[test]
fn who_does_not_offer_our_protocol_is_told_and_leaves_nothing() {
    const NO_APPLICATION_PROTOCOL: u8 = 120;
    for offered in [&[][..], &[&b"h3"[..]], &[b"ms-snocat-1", b"h3"]] {
        let mut duo = Duo::new(Limits::default(), Limits::default());
        duo.tls.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
        duo.connect(false);
        let end = duo.wait(CONNECTING, |event| matches!(event, Event::Closed(_)));
        let Event::Closed(reason) = end else { unreachable!() };
        assert_eq!(duo.elapsed(), 2 * DELAY, "there is nothing to wait for");
        assert_eq!(reason.by, ClosedBy::PeerHandshake(Some(NO_APPLICATION_PROTOCOL)));
        assert!(reason.to_string().starts_with("the peer rejected the handshake: "), "{reason}");
        assert!(!duo.had(LISTENING, |_| true), "nobody was there");
        assert_eq!(duo.nodes[LISTENING].len(), 0);
        assert_eq!(duo.nodes[LISTENING].endpoint().connections(), 0);
        // One that speaks it gets in afterwards.
        duo.tls.alpn_protocols = vec![ALPN.to_vec()];
        duo.establish();
    }
}
