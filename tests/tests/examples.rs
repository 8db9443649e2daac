//! The examples of the adapters do what they say.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use snocat_driver::core::auth::TokenSecret;
use snocat_driver::{ClientTls, Destination, ServerTls, Trust};
use snocat_smol::Smol;
use snocat_tests::{
    Lab, PATIENCE, Pairing, Runtime, Target, connect, pairings, verify_pattern, write_pattern,
};
use snocat_tokio::Tokio;

#[expect(dead_code, reason = "the tests call `run`, not `main`")]
#[path = "../../snocat-smol/examples/client.rs"]
mod smol_client;
#[expect(dead_code, reason = "the tests call `run`, not `main`")]
#[path = "../../snocat-smol/examples/password.rs"]
mod smol_password;
#[expect(dead_code, reason = "the tests call `run`, not `main`")]
#[path = "../../snocat-smol/examples/server.rs"]
mod smol_server;
#[expect(dead_code, reason = "the tests call `run`, not `main`")]
#[path = "../../snocat-tokio/examples/client.rs"]
mod tokio_client;
#[expect(dead_code, reason = "the tests call `run`, not `main`")]
#[path = "../../snocat-tokio/examples/password.rs"]
mod tokio_password;
#[expect(dead_code, reason = "the tests call `run`, not `main`")]
#[path = "../../snocat-tokio/examples/server.rs"]
mod tokio_server;

pairings!(a_server_and_a_client_of_the_examples_forward_a_service);

/// As `snocat token` makes one.
fn secret() -> TokenSecret {
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".parse().unwrap()
}

fn a_server_and_a_client_of_the_examples_forward_a_service(pairing: Pairing) {
    let target = Target::echo();
    let lab = Lab::new(pairing);
    let (certificate, key) = lab.identity();
    let server_tls = ServerTls::new(vec![certificate.clone()], key, None).unwrap();
    let client_tls = ClientTls::new(Trust::Authorities(vec![certificate]), None).unwrap();

    let (ready, quic) = channel();
    std::thread::spawn(move || serve(pairing.server, server_tls, ready));
    let quic: SocketAddr = quic.recv_timeout(PATIENCE).unwrap();
    let to =
        Destination { host: quic.ip().to_string(), port: quic.port(), server_name: "localhost".to_owned() };
    let (ready, visitors) = channel();
    std::thread::spawn(move || offer(pairing.client, &to, client_tls, target.address, ready));
    let visitors: Vec<SocketAddr> = visitors.recv_timeout(PATIENCE).unwrap();

    let mut visitor = connect(visitors[0]);
    write_pattern(&mut visitor, 10_000).unwrap();
    visitor.flush().unwrap();
    visitor.shutdown(Shutdown::Write).unwrap();
    assert_eq!(verify_pattern(&mut visitor), 10_000);
}

/// What became of an attempt to get in with this name and password.
fn logged_in(runtime: Runtime, name: &str, password: &str) -> Result<String, String> {
    let lab = Lab::new(Pairing { server: runtime, client: runtime });
    let (certificate, key) = lab.identity();
    let server = ServerTls::new(vec![certificate.clone()], key, None).unwrap();
    let client = ClientTls::new(Trust::Authorities(vec![certificate]), None).unwrap();
    let (name, password) = (name.to_owned(), password.to_owned());
    let result = match runtime {
        Runtime::Tokio => tokio().block_on(async {
            let user = tokio_password::User { name, password };
            tokio_password::run(Tokio::current().unwrap(), server, client, user).await
        }),
        Runtime::Smol => {
            let executor = Arc::new(async_executor::Executor::new());
            let user = smol_password::User { name, password };
            let run = smol_password::run(Smol::new(executor.clone()), server, client, user);
            async_io::block_on(executor.run(run))
        }
    };
    result.map_err(|error| error.to_string())
}

#[test]
fn the_password_of_the_example_gets_in_and_no_other() {
    for runtime in [Runtime::Tokio, Runtime::Smol] {
        let log_in = |name, password| logged_in(runtime, name, password);
        assert_eq!(log_in("alice", "correct horse battery staple").as_deref(), Ok("alice"));
        let wrong = log_in("alice", "a guess").unwrap_err();
        assert!(wrong.contains("credentials were not accepted"), "{wrong}");
        assert_eq!(log_in("bob", "correct horse battery staple").unwrap_err(), wrong);
    }
}

/// Until the end of the process: the examples have no other.
fn serve(runtime: Runtime, tls: ServerTls, ready: Sender<SocketAddr>) {
    let ready = move |quic| ready.send(quic).unwrap();
    match runtime {
        Runtime::Tokio => tokio()
            .block_on(async { tokio_server::run(Tokio::current().unwrap(), tls, secret(), ready).await })
            .unwrap(),
        Runtime::Smol => {
            let executor = Arc::new(async_executor::Executor::new());
            let server = smol_server::run(Smol::new(executor.clone()), tls, secret(), ready);
            async_io::block_on(executor.run(server)).unwrap();
        }
    }
}

fn offer(
    runtime: Runtime,
    to: &Destination,
    tls: ClientTls,
    target: SocketAddr,
    ready: Sender<Vec<SocketAddr>>,
) {
    let ready = move |visitors: &[SocketAddr]| ready.send(visitors.to_vec()).unwrap();
    let end = match runtime {
        Runtime::Tokio => tokio().block_on(async {
            tokio_client::run(Tokio::current().unwrap(), to, tls, secret(), target, ready).await
        }),
        Runtime::Smol => {
            let executor = Arc::new(async_executor::Executor::new());
            let client = smol_client::run(Smol::new(executor.clone()), to, tls, secret(), target, ready);
            async_io::block_on(executor.run(client))
        }
    };
    panic!("the client has ended: {end:?}");
}

fn tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
