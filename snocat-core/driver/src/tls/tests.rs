//! Handshakes in memory, without datagrams: what TLS lets in, and what it shows.

use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{Side, TransportError};
use rcgen::{CertificateParams, IsCa, KeyPair, SanType};
use ring::digest::{SHA256, digest};
use rustls::pki_types::PrivatePkcs8KeyDer;
use snocat_core::quic::crypto::Session;
use snocat_core::quic::crypto::rustls::HandshakeData;

use super::*;

/// A certificate chain and its key.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Identity {
    /// A certificate for `localhost` that signs itself.
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut parameters);
        let certificate = parameters.self_signed(&key).unwrap();
        Self { chain: vec![certificate.der().clone()], key }
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    fn fingerprint(&self) -> [u8; 32] {
        digest(&SHA256, &self.chain[0]).as_ref().try_into().unwrap()
    }

    fn server(&self) -> ServerTls {
        ServerTls::new(self.chain.clone(), self.key(), None).unwrap()
    }

    /// A client that trusts it.
    fn client(&self) -> ClientTls {
        ClientTls::new(Trust::Authorities(self.chain.clone()), None).unwrap()
    }
}

/// The sessions of one handshake.
struct Handshake {
    attempt: TlsAttempt,
    client: Box<dyn Session>,
    server: Box<dyn Session>,
}

/// Who ended a handshake, with the TLS alert.
type Failed = (Side, u64);

impl Handshake {
    fn begin(client: &ClientTls, server: &ServerTls) -> Self {
        let parameters = TransportParameters::read(Side::Client, &mut &[][..]).unwrap();
        let attempt = client.attempt().unwrap();
        let client = attempt.crypto.clone().start_session(1, "localhost", &parameters).unwrap();
        Self { attempt, client, server: server.crypto.clone().start_session(1, &parameters) }
    }

    fn complete(mut self) -> Result<Self, Failed> {
        let failed = |side, error: TransportError| (side, u64::from(error.code) - 0x100);
        let (mut from, mut to, mut side) = (&mut self.client, &mut self.server, Side::Server);
        while from.is_handshaking() || to.is_handshaking() {
            // What stands before a change of keys is read before what stands behind it.
            loop {
                let mut flight = Vec::new();
                let more = from.write_handshake(&mut flight).is_some();
                to.read_handshake(&flight).map_err(|error| failed(side, error))?;
                if !more {
                    break;
                }
            }
            (from, to, side) = (to, from, !side);
        }
        Ok(self)
    }

    /// What a side has seen of the other's certificates.
    fn seen(session: &dyn Session) -> Vec<CertificateDer<'static>> {
        session.peer_identity().map_or_else(Vec::new, |seen| *seen.downcast().unwrap())
    }

    fn seen_by_server(&self) -> Vec<CertificateDer<'static>> {
        Self::seen(self.server.as_ref())
    }

    fn seen_by_client(&self) -> Vec<CertificateDer<'static>> {
        Self::seen(self.client.as_ref())
    }
}

/// What the client finds wrong with the server's certificate.
fn problem(client: &ClientTls, server: &ServerTls) -> Option<CertificateProblem> {
    let begun = Handshake::begin(client, server);
    let attempt = begun.attempt.clone();
    assert!(begun.complete().is_err());
    attempt.problem()
}

fn handshake(client: &ClientTls, server: &ServerTls) -> Result<Handshake, Failed> {
    Handshake::begin(client, server).complete()
}

const ACCESS_DENIED: u64 = 49;
const DECRYPT_ERROR: u64 = 51;

#[test]
fn a_server_that_does_not_ask_sees_no_certificate() {
    let (server, alice) = (Identity::new(), Identity::new());
    let client = server.client();
    client.show(alice.chain.clone(), alice.key()).unwrap();
    let done = handshake(&client, &server.server()).unwrap();
    assert_eq!(done.seen_by_server(), []);
    let data = done.server.handshake_data().unwrap().downcast::<HandshakeData>().unwrap();
    assert_eq!(data.protocol.as_deref(), Some(snocat_core::ALPN));
}

#[test]
fn who_is_asked_may_show_a_certificate_and_need_not() {
    let (identity, alice) = (Identity::new(), Identity::new());
    let (server, client) = (identity.server(), identity.client());
    server.ask_for_certificates(true);
    assert_eq!(handshake(&client, &server).unwrap().seen_by_server(), []);
    client.show(alice.chain.clone(), alice.key()).unwrap();
    assert_eq!(handshake(&client, &server).unwrap().seen_by_server(), alice.chain);
    server.ask_for_certificates(false);
    assert_eq!(handshake(&client, &server).unwrap().seen_by_server(), []);
}

/// Whose it is, and whether it is valid, is not for TLS to say: its alerts would tell one from another.
#[test]
fn tls_takes_every_certificate_whose_key_is_there() {
    let identity = Identity::new();
    let (server, client) = (identity.server(), identity.client());
    server.ask_for_certificates(true);
    let long_ago = |parameters: &mut CertificateParams| {
        parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2001, 1, 1);
    };
    let authority = |parameters: &mut CertificateParams| {
        parameters.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    };
    let nameless = |parameters: &mut CertificateParams| parameters.subject_alt_names.clear();
    for shown in [Identity::with(long_ago), Identity::with(authority), Identity::with(nameless)] {
        client.show(shown.chain.clone(), shown.key()).unwrap();
        assert_eq!(handshake(&client, &server).unwrap().seen_by_server(), shown.chain);
    }
    let ecdsa = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&ecdsa).unwrap();
    let key = PrivatePkcs8KeyDer::from(ecdsa.serialize_der());
    client.show(vec![certificate.der().clone()], key.into()).unwrap();
    assert_eq!(handshake(&client, &server).unwrap().seen_by_server(), [certificate.der().clone()]);
}

#[test]
fn who_does_not_hold_the_key_ends_in_tls() {
    let (identity, alice, mallory) = (Identity::new(), Identity::new(), Identity::new());
    let (server, client) = (identity.server(), identity.client());
    server.ask_for_certificates(true);
    let mismatched = client.show(alice.chain.clone(), mallory.key());
    assert!(matches!(mismatched, Err(TlsError::Identity(rustls::Error::InconsistentKeys(_)))));
    let mine = certified(mallory.chain.clone(), mallory.key()).unwrap();
    client.shown.replace(CertifiedKey::new(alice.chain.clone(), mine.key));
    assert_eq!(handshake(&client, &server).err(), Some((Side::Server, DECRYPT_ERROR)));
}

#[test]
fn a_chain_that_is_too_long_ends_in_tls() {
    let (identity, alice) = (Identity::new(), Identity::new());
    let (server, client) = (identity.server(), identity.client());
    server.ask_for_certificates(true);
    let many = |count| std::iter::repeat_n(alice.chain[0].clone(), count).collect::<Vec<_>>();
    client.show(many(MAX_CHAIN), alice.key()).unwrap();
    assert_eq!(handshake(&client, &server).unwrap().seen_by_server().len(), MAX_CHAIN);

    let own = || alice.chain[0].clone();
    let big = |bytes: usize| vec![own(), CertificateDer::from(vec![7; bytes - own().len()])];
    client.show(big(MAX_CHAIN_BYTES), alice.key()).unwrap();
    assert!(handshake(&client, &server).is_ok());
    for long in [many(MAX_CHAIN + 1), big(MAX_CHAIN_BYTES + 1)] {
        let said = client.show(long.clone(), alice.key());
        assert!(matches!(said, Err(TlsError::LongChain { .. })), "{said:?}");
        client.shown.replace(certified(long, alice.key()).unwrap());
        assert_eq!(handshake(&client, &server).err(), Some((Side::Server, ACCESS_DENIED)));
    }
}

#[test]
fn a_certificate_that_is_none_ends_in_tls() {
    let (identity, alice) = (Identity::new(), Identity::new());
    let (server, client) = (identity.server(), identity.client());
    server.ask_for_certificates(true);
    let mine = certified(alice.chain.clone(), alice.key()).unwrap();
    client.shown.replace(CertifiedKey::new(vec![CertificateDer::from(vec![0x30; 100])], mine.key));
    assert!(matches!(handshake(&client, &server).err(), Some((Side::Server, _))));
}

#[test]
fn a_pin_accepts_one_certificate_whatever_else_is_wrong_with_it() {
    let expired = Identity::with(|parameters| {
        parameters.subject_alt_names.clear();
        parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2001, 1, 1);
        parameters.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    for server in [Identity::new(), expired] {
        let client = ClientTls::new(Trust::Pinned(server.fingerprint()), None).unwrap();
        let done = handshake(&client, &server.server()).unwrap();
        assert_eq!(done.seen_by_client(), server.chain);
        assert_eq!(done.attempt.problem(), None);
    }
}

#[test]
fn a_pin_accepts_no_other_certificate_and_tells_which_it_was() {
    let (right, other) = (Identity::new(), Identity::new());
    let client = ClientTls::new(Trust::Pinned(right.fingerprint()), None).unwrap();
    assert_eq!(handshake(&client, &other.server()).err(), Some((Side::Client, ACCESS_DENIED)));
    let shown = other.fingerprint();
    assert_eq!(problem(&client, &other.server()), Some(CertificateProblem::NotPinned { fingerprint: shown }));
    // Nor does it help to add the right one to the chain.
    let both = ServerTls::new([other.chain.clone(), right.chain].concat(), other.key(), None).unwrap();
    assert_eq!(handshake(&client, &both).err(), Some((Side::Client, ACCESS_DENIED)));
}

/// A certificate is public: whoever wants to be taken for its server must have the key.
#[test]
fn a_pin_does_not_do_without_the_key() {
    let (right, thief) = (Identity::new(), Identity::new());
    let server = thief.server();
    let mine = certified(thief.chain.clone(), thief.key()).unwrap();
    server.shown.replace(CertifiedKey::new(right.chain.clone(), mine.key));
    for trust in [Trust::Pinned(right.fingerprint()), Trust::Authorities(right.chain.clone())] {
        let client = ClientTls::new(trust, None).unwrap();
        assert_eq!(handshake(&client, &server).err(), Some((Side::Client, DECRYPT_ERROR)));
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_told() {
    let authority = Identity::with(|parameters| {
        parameters.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let (server, client) = (authority.server(), authority.client());
    assert_eq!(problem(&client, &server), Some(CertificateProblem::IsAuthority));
    let expired = Identity::with(|parameters| parameters.not_after = rcgen::date_time_ymd(2001, 1, 1));
    let client = expired.client();
    assert_eq!(problem(&client, &expired.server()), Some(CertificateProblem::Expired));
    let elsewhere = Identity::with(|parameters| {
        let names = ["example.org", "*.example.org"].map(|name| SanType::DnsName(name.try_into().unwrap()));
        let address = SanType::IpAddress(std::net::IpAddr::from([192, 0, 2, 1]));
        parameters.subject_alt_names = [&names[..], &[address]].concat();
    });
    let names = ["example.org", "*.example.org", "192.0.2.1"].map(str::to_owned).to_vec();
    let wrong = CertificateProblem::WrongName { names };
    assert_eq!(problem(&elsewhere.client(), &elsewhere.server()), Some(wrong));
}

/// Of a key that the holder of `issuer` has made, and signed with its own.
fn signed_with_the_key_of(issuer: &Identity) -> Identity {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let issuer = rcgen::Issuer::from_params(&parameters, &issuer.key);
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    Identity { chain: vec![certificate.der().clone()], key }
}

#[test]
fn what_a_trusted_servers_key_has_signed_is_not_trusted() {
    let server = Identity::new();
    let client = server.client();
    assert!(handshake(&client, &server.server()).is_ok());
    let mut other = signed_with_the_key_of(&server);
    assert!(handshake(&client, &other.server()).is_err());
    other.chain.extend(server.chain);
    assert!(handshake(&client, &other.server()).is_err(), "with the trusted one behind it");
}

#[test]
fn a_new_certificate_is_shown_from_the_next_handshake_on() {
    let (old, new) = (Identity::new(), Identity::new());
    let server = old.server();
    let pinned = |identity: &Identity| ClientTls::new(Trust::Pinned(identity.fingerprint()), None).unwrap();
    let before = handshake(&pinned(&old), &server).unwrap();
    let begun = Handshake::begin(&pinned(&new), &server);

    let foreign = server.replace(new.chain.clone(), old.key());
    assert!(matches!(foreign, Err(TlsError::Identity(_))));
    assert!(matches!(server.replace(Vec::new(), old.key()), Err(TlsError::Identity(_))));
    assert!(handshake(&pinned(&old), &server).is_ok(), "it has changed nothing");

    let long = [new.chain.clone(), old.chain.clone()].concat();
    let running = server.clone();
    running.replace(long.clone(), new.key()).unwrap();
    assert_eq!(server.chain_bytes(), long.iter().map(|certificate| certificate.len()).sum::<usize>());
    assert_eq!(handshake(&pinned(&new), &server).unwrap().seen_by_client(), long);
    assert!(handshake(&pinned(&old), &server).is_err());
    assert_eq!(begun.complete().unwrap().seen_by_client(), long);
    assert_eq!(before.seen_by_client(), old.chain);
}

#[test]
fn nothing_secret_is_in_what_debug_shows() {
    let identity = Identity::new();
    let (server, client) = (identity.server(), identity.client());
    client.show(identity.chain.clone(), identity.key()).unwrap();
    let shown = format!("{server:?} {client:?} {:?}", server.shown);
    assert_eq!(
        shown,
        "ServerTls { shown: Shown { certificates: 1, .. }, clients: KeyHolders { asked: false, .. }, .. } \
         ClientTls { shown: Shown { certificates: 1, .. }, .. } Shown { certificates: 1, .. }"
    );
}

#[test]
fn while_a_whole_chain_is_valid() {
    let years = |first, last| {
        Identity::with(|parameters| {
            parameters.not_before = rcgen::date_time_ymd(first, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(last, 1, 1);
            parameters.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        })
    };
    let days = |days: u64| std::time::UNIX_EPOCH + std::time::Duration::from_secs(days * 24 * 60 * 60);
    let (own, issuer) = (years(2000, 2010), years(2001, 2002));
    let both = [own.chain.clone(), issuer.chain].concat();
    let shown = |chain| ServerTls::new(chain, own.key(), None).unwrap().validity().unwrap();
    let validity = |from, to| Validity { not_before: days(from), not_after: days(to) };
    assert_eq!(shown(own.chain.clone()), validity(10_957, 14_610));
    assert_eq!(shown(both), validity(11_323, 11_688));
    assert_eq!(Validity::of(&CertificateDer::from(vec![0x30; 100])), None);
}
