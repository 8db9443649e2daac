//! The corpora of the fuzz targets, replayed on stable: what was found once stays found.

use std::fs;
use std::path::Path;

use snocat_tests::fuzzing;

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "there is a corpus");
}

#[test]
fn wire() {
    replay("wire", fuzzing::wire);
}

#[test]
fn open() {
    replay("open", fuzzing::open);
}

#[test]
fn auth() {
    replay("auth", fuzzing::auth);
}

#[test]
fn pipe() {
    replay("pipe", fuzzing::pipe);
}

#[test]
fn tunnel() {
    replay("tunnel", fuzzing::tunnel);
}

#[test]
fn scenario() {
    replay("scenario", fuzzing::scenario);
}
