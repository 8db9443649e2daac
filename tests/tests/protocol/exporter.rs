//! The exporter as `docs/Protocol.md` writes it out: with its vectors, and with what rustls makes of a handshake.

use std::sync::{Arc, Mutex};

use ring::digest::{SHA256, SHA384, digest};
use ring::hmac::{self, HMAC_SHA256, HMAC_SHA384, Key};
use snocat_core::auth::EXPORTER_LABEL;
use snocat_driver::rustls::crypto::ring::{cipher_suite, default_provider};
use snocat_driver::rustls::{
    ClientConfig, ClientConnection, KeyLog, RootCertStore, ServerConfig, ServerConnection,
    SupportedCipherSuite,
};
use snocat_tests::{Lab, Pairing, Runtime};

const TEXT: &str = include_str!("../../../docs/Protocol.md");

/// HKDF-Expand-Label (RFC 8446, section 7.1), for a length of one block at most.
fn expand_label(secret: &Key, label: &[u8], context: &[u8], length: u8) -> Vec<u8> {
    let label = [b"tls13 ", label].concat();
    let lengths = [label.len(), context.len()].map(|length| u8::try_from(length).unwrap());
    let info = [&[0, length, lengths[0]], &label[..], &[lengths[1]], context, &[1]].concat();
    hmac::sign(secret, &info).as_ref()[..length.into()].to_vec()
}

/// The binding of this context.
fn binding(secret: &[u8], context: &[u8]) -> Vec<u8> {
    let (hash, mac) = if secret.len() == 32 { (&SHA256, HMAC_SHA256) } else { (&SHA384, HMAC_SHA384) };
    let length = u8::try_from(secret.len()).unwrap();
    let nothing = digest(hash, b"");
    let derived = expand_label(&Key::new(mac, secret), EXPORTER_LABEL, nothing.as_ref(), length);
    expand_label(&Key::new(mac, &derived), b"exporter", digest(hash, context).as_ref(), 32)
}

/// The bytes of the block `hex NAME`.
fn block(name: &str) -> Vec<u8> {
    let (_, text) = TEXT.split_once(&format!("```hex {name}\n")).unwrap();
    let digits: Vec<u8> = text.split_once("```").unwrap().0.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn the_vectors_of_the_text() {
    for hash in ["sha256", "sha384"] {
        let made = binding(&block(&format!("exporter-{hash}-secret")), &block("token-proof-context"));
        assert_eq!(made, block(&format!("exporter-{hash}-binding")), "{hash}");
    }
}

#[derive(Debug, Default)]
struct ExporterSecret(Mutex<Vec<u8>>);

impl KeyLog for ExporterSecret {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == "EXPORTER_SECRET" {
            *self.0.lock().unwrap() = secret.to_vec();
        }
    }
}

#[test]
fn what_rustls_exports() {
    for suite in [cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384] {
        let (client, log) = handshake(suite);
        let context = [7; 32];
        let exported = client.export_keying_material([0; 32], EXPORTER_LABEL, Some(&context)).unwrap();
        assert_eq!(exported.to_vec(), binding(&log.0.lock().unwrap(), &context), "{suite:?}");
    }
}

fn handshake(suite: SupportedCipherSuite) -> (ClientConnection, Arc<ExporterSecret>) {
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let provider = Arc::new(provider);
    let (certificate, key) = Lab::new(Pairing { server: Runtime::Tokio, client: Runtime::Tokio }).identity();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let server = server.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
    let log = Arc::new(ExporterSecret::default());
    client.key_log = log.clone();
    let mut client = ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut flight = Vec::new();
        client.write_tls(&mut flight).unwrap();
        server.read_tls(&mut &flight[..]).unwrap();
        server.process_new_packets().unwrap();
        flight.clear();
        server.write_tls(&mut flight).unwrap();
        client.read_tls(&mut &flight[..]).unwrap();
        client.process_new_packets().unwrap();
    }
    (client, log)
}
