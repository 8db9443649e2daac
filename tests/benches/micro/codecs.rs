//! What stands at the start of tunnels and streams: bytes to values and back, and the proof of a token.

use std::net::SocketAddr;

use bytes::Bytes;
use divan::{Bencher, black_box};
use snocat_driver::core::auth::{
    Connecting, ConnectingConfig, ConnectingStep, Listening, ListeningConfig, ListeningStep, TokenKey,
    TokenKeys, TokenSecret,
};
use snocat_driver::core::open::{Answer, AnswerDecoder, Header, HeaderDecoder, MAX_HEADER};
use snocat_driver::core::route::RouteAddress;
use snocat_driver::core::wire::{Bind, Control, Frame, FrameDecoder, Reader, put_varint};
use snocat_tests::SECRET;

/// One of each length.
const NUMBERS: [u64; 4] = [37, 15_293, 494_878_333, 151_288_809_941_952_652];

#[divan::bench]
fn varints_encode(bencher: Bencher) {
    let mut out = Vec::with_capacity(32);
    bencher.bench_local(|| {
        out.clear();
        for number in black_box(NUMBERS) {
            put_varint(&mut out, number);
        }
        black_box(&out);
    });
}

#[divan::bench]
fn varints_decode(bencher: Bencher) {
    let mut bytes = Vec::new();
    NUMBERS.into_iter().for_each(|number| put_varint(&mut bytes, number));
    bencher.bench(|| {
        let mut reader = Reader::new(black_box(&bytes));
        NUMBERS.map(|_| reader.varint().unwrap())
    });
}

fn bind() -> Control {
    Control::Bind(Bind { id: 7, port: 8080, address: address() })
}

fn address() -> RouteAddress {
    RouteAddress::tcp("service.internal", 8080).unwrap()
}

#[divan::bench]
fn control_encode(bencher: Bencher) {
    let control = bind();
    bencher.bench(|| black_box(&control).encode());
}

#[divan::bench]
fn control_decode(bencher: Bencher) {
    let bytes = bind().encode();
    let mut decoder = FrameDecoder::new(Frame::MAX_PAYLOAD);
    bencher.bench_local(|| {
        decoder.push(black_box(&bytes));
        Control::decode(&decoder.next().unwrap().unwrap()).unwrap()
    });
}

fn header() -> Header {
    let visitor = SocketAddr::from(([198, 51, 100, 7], 40_000));
    Header { visitor: Some(visitor), ..Header::forward(address()) }
}

#[divan::bench]
fn header_encode(bencher: Bencher) {
    let header = header();
    bencher.bench(|| black_box(&header).encode());
}

/// In one piece, as it arrives nearly always.
#[divan::bench]
fn header_decode(bencher: Bencher) {
    let bytes = header().encode();
    bencher.bench(|| {
        let mut decoder = HeaderDecoder::new(MAX_HEADER);
        let mut rest = black_box(&bytes[..]);
        loop {
            let (piece, behind) = rest.split_at(decoder.wants().min(rest.len()));
            rest = behind;
            if let Some(header) = decoder.push(piece).unwrap() {
                return header;
            }
        }
    });
}

#[divan::bench]
fn answer_encode() -> Vec<u8> {
    black_box(Answer::Accepted).encode()
}

#[divan::bench]
fn answer_decode(bencher: Bencher) {
    let bytes = Answer::Accepted.encode();
    bencher.bench(|| {
        let mut decoder = AnswerDecoder::new();
        let mut rest = black_box(&bytes[..]);
        loop {
            let (piece, behind) = rest.split_at(decoder.wants().min(rest.len()));
            rest = behind;
            if let Some(answer) = decoder.push(piece).unwrap() {
                return answer;
            }
        }
    });
}

/// The whole exchange of the method `token`, both sides, without the TLS around it.
#[divan::bench]
fn token_exchange(bencher: Bencher) {
    let secret = || TokenSecret::new(SECRET.to_vec()).unwrap();
    let connecting = ConnectingConfig::only(secret());
    let listening = ListeningConfig::only(TokenKeys::new(vec![TokenKey::nameless(secret())]));
    // What both sides take out of one TLS session.
    let session = |context: &[u8; 32]| Some(*context);
    bencher.bench(|| {
        let (mut client, mut server) = (Connecting::new(&connecting), Listening::new(&listening));
        let mut step = client.start(&session).unwrap();
        while let ConnectingStep::Send(flight) = step {
            let mut answer = Vec::new();
            for frame in frames(&flight) {
                match server.handle(&frame, &session).unwrap() {
                    ListeningStep::Send(bytes) => answer.extend(bytes),
                    ListeningStep::Decide { send, .. } => {
                        let name = "client".parse().unwrap();
                        let (outcome, _) = server.accept(name, Default::default(), &session).unwrap();
                        answer.extend(send.into_iter().chain(outcome));
                    }
                    other => panic!("{other:?}"),
                }
            }
            step = ConnectingStep::Send(Vec::new());
            for frame in frames(&answer) {
                step = client.handle(&frame, &session).unwrap();
            }
        }
        step
    });
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = FrameDecoder::new(Frame::MAX_PAYLOAD);
    decoder.push(&Bytes::copy_from_slice(bytes));
    std::iter::from_fn(|| decoder.next().unwrap()).collect()
}
