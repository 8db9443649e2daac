//! The method `tls-client-cert`.

use super::*;

fn certificate() -> Arc<dyn Credential> {
    Arc::new(ClientCertificate)
}

/// What comes of this chain in the handshake, where `alice` is known.
fn showing(certificates: Vec<CertificateDer<'static>>) -> Run {
    let there = Tls { certificates, ..Tls::of(1) };
    let listening = listening_to([self::certificates(&["alice"])]);
    Lab { there, ..Lab::default() }.run(connecting([certificate()]), listening)
}

#[test]
fn the_certificate_of_the_handshake_counts_in_one_round_trip() {
    let exchange = showing(shown("alice"));
    let (c, l) = ("connecting", "listening");
    assert_eq!(
        exchange.kinds(),
        [(c, Frame::OFFER), (c, Frame::PROOF), (l, Frame::SELECT), (l, Frame::OUTCOME)]
    );
    assert_eq!(exchange.connecting.as_ref().unwrap().method, "tls-client-cert");
    assert_eq!(exchange.identity(), Some("alice"));
}

#[test]
fn no_certificate_a_strangers_and_another_exchange_differ_only_in_the_log() {
    let none = showing(Vec::new());
    assert_eq!(denied(&none.listening), Some("no certificate was shown in the handshake"));
    let stranger = showing(shown("mallory"));
    assert_eq!(denied(&stranger.listening), Some("the certificate is of nobody"));
    // The certificate of an authority that is shown as one's own, or alice's behind another.
    let reversed = showing(shown("alice").into_iter().rev().collect());
    assert_eq!(denied(&reversed.listening), Some("the certificate is of nobody"));
    let other = "the two sides do not mean the same exchange";
    let mut exchanges = vec![none, stranger, reversed];
    for proof in [&[][..], &[7; 31], &[7; 32], &[7; 33]] {
        let exchange = run_tampered(
            connecting([certificate()]),
            listening_to([certificates(&["alice"])]),
            |_, frame| {
                if frame.kind == Frame::PROOF {
                    *frame = self::frame(Frame::PROOF, proof);
                }
            },
        );
        assert_eq!(denied(&exchange.listening), Some(other));
        exchanges.push(exchange);
    }
    for exchange in exchanges {
        assert_eq!(refusals(exchange.listening), Err(uniform()));
    }
}

#[test]
fn the_evidence_is_the_chain_and_is_judged_again() {
    let proven = showing(shown("alice")).claim.unwrap().proven;
    let stands = |known, proven: &Proven| {
        ListeningConfig { methods: vec![certificates(known)] }.stands("tls-client-cert", proven)
    };
    assert!(stands(&["alice"], &proven) && stands(&["bob", "alice"], &proven));
    assert!(!stands(&["bob"], &proven), "it is not known any more");
    // Evidence that is none: cut off in the middle of a length and of a certificate, or not there at all.
    for evidence in [&proven.evidence[..3], &[0x40], &[]] {
        assert!(!stands(&["alice"], &Proven { evidence: evidence.to_vec(), ..proven.clone() }));
    }
    assert!(!stands(&["alice"], &Proven { identity: Some("bob".into()), ..proven }));
}
