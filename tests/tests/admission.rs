//! Who is let in, and what those are told who are not.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use snocat_driver::core::{ClosedBy, Code};
use snocat_driver::{CertificateProblem, ConnectError};
use snocat_tests::{Failure, Lab, Options, Pairing, Said, Server, Target, pairings};

pairings!(
    a_wrong_secret_is_refused,
    a_server_that_wants_a_token_says_so_to_a_client_without,
    a_server_that_accepts_anybody_takes_a_client_without_a_token,
    an_untrusted_certificate_ends_the_attempt,
    a_certificate_for_another_name_ends_the_attempt,
    a_name_that_is_no_name_ends_the_attempt,
    tunnels_without_a_name_are_given_one_each,
    silence_is_no_answer,
    those_who_are_turned_away_leave_nothing_behind,
);

fn refused(lab: &Lab, server: &Server, options: &Options) -> Failure {
    lab.client(server, Target::new().address, options).err().unwrap()
}

/// How the peer has turned the client away.
fn told(failure: Failure) -> (Code, String) {
    match failure {
        Failure::Connect(ConnectError::Closed(reason)) => {
            assert_eq!(reason.by, ClosedBy::Peer);
            (reason.code, reason.text)
        }
        other => panic!("{other:?}"),
    }
}

fn problem(failure: Failure) -> CertificateProblem {
    match failure {
        Failure::Connect(ConnectError::Certificate { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

fn a_wrong_secret_is_refused(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = lab.server(&Options::default());
    let wrong = Options { secret: vec![7; 32], ..Options::default() };
    assert_eq!(told(refused(&lab, &server, &wrong)).0, Code::AUTH_REFUSED);
}

fn a_server_that_wants_a_token_says_so_to_a_client_without(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = lab.server(&Options::default());
    let (code, text) = told(refused(&lab, &server, &Options { none: true, ..Options::default() }));
    assert_eq!(code, Code::AUTH_NO_METHOD);
    assert!(text.contains("token"), "{text}");
}

fn a_server_that_accepts_anybody_takes_a_client_without_a_token(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let options = Options { none: true, ..Options::default() };
    let server = lab.server(&options);
    lab.client(&server, Target::new().address, &options).unwrap();
}

fn an_untrusted_certificate_ends_the_attempt(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = lab.server(&Options::default());
    let failure = refused(&lab, &server, &Options { trusted: false, ..Options::default() });
    assert_eq!(problem(failure), CertificateProblem::Untrusted);
}

fn a_certificate_for_another_name_ends_the_attempt(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = lab.server(&Options::default());
    let failure = refused(&lab, &server, &Options { server_name: "example.org", ..Options::default() });
    assert_eq!(problem(failure), CertificateProblem::WrongName { names: vec!["localhost".to_owned()] });
}

fn a_name_that_is_no_name_ends_the_attempt(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = lab.server(&Options::default());
    let failure = refused(&lab, &server, &Options { server_name: "not a name", ..Options::default() });
    assert!(matches!(failure, Failure::Connect(ConnectError::Destination(_))), "{failure:?}");
}

fn tunnels_without_a_name_are_given_one_each(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = lab.server(&Options::default());
    let target = Target::new();
    let _clients = [(); 3].map(|()| lab.client(&server, target.address, &Options::default()).unwrap());
    let mut names = [(); 3].map(|()| server.next_up_or_down());
    names.sort_by_key(|said| format!("{said:?}"));
    assert!(names.iter().all(|said| matches!(said, Said::Up(_))), "{names:?}");
    assert!(names[0] != names[1] && names[1] != names[2], "{names:?}");
}

fn silence_is_no_answer(pairing: Pairing) {
    // It takes everything in, and says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let mut options = Options::default();
    options.limits.authentication_time = Duration::from_secs(1);
    let begin = Instant::now();
    let failure = Lab::new(pairing).client_at(address, Target::new().address, &options).err().unwrap();
    let took = begin.elapsed();
    let Failure::Connect(ConnectError::NoAnswer { addresses, unreachable }) = failure else {
        panic!("{failure:?}");
    };
    assert_eq!((addresses, unreachable), (vec![address], false));
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(5), "{took:?}");
}

fn those_who_are_turned_away_leave_nothing_behind(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = lab.server(&Options::default());
    for wrong in [
        Options { secret: vec![7; 32], name: Some("home"), ..Options::default() },
        Options { none: true, name: Some("home"), ..Options::default() },
        Options { trusted: false, name: Some("home"), ..Options::default() },
    ] {
        refused(&lab, &server, &wrong);
    }
    let options = Options { name: Some("home"), ..Options::default() };
    let _client = lab.client(&server, Target::new().address, &options).unwrap();
    assert_eq!(server.next_up_or_down(), Said::Up("home".to_owned()), "nobody was told of the others");
}
