//! What the tests of the parsers share.

use std::net::SocketAddr;

use quickcheck::{Arbitrary, Gen};

use super::{DecodeError, Prefixed};
use crate::code::{Code, Refusal};
use crate::route::RouteAddress;

/// Cuts `bytes` into pieces of the given lengths, over and over; nothing but zeros means one piece.
pub(crate) fn pieces<'a>(bytes: &'a [u8], lengths: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let lengths: &[u8] = if lengths.iter().all(|length| *length == 0) { &[u8::MAX] } else { lengths };
    let mut rest = bytes;
    lengths.iter().cycle().map_while(move |length| {
        let (piece, tail) = rest.split_at(rest.len().min(usize::from(*length)));
        let over = rest.is_empty();
        rest = tail;
        (!over).then_some(piece)
    })
}

/// Feeds a stream to a decoder of one block as a driver would: never more than it wants.
/// Gives what came out (`None`: more needed) and how many bytes were read.
pub(crate) fn feed<T, E>(
    bytes: &[u8],
    lengths: &[u8],
    mut push: impl FnMut(Option<&[u8]>) -> (usize, Option<Result<T, E>>),
) -> (Option<Result<T, E>>, usize) {
    let mut used = 0;
    for mut piece in pieces(bytes, lengths) {
        while !piece.is_empty() {
            let (wants, _) = push(None);
            assert!(wants >= 1, "an unfinished decoder wants something");
            let (now, later) = piece.split_at(wants.min(piece.len()));
            used += now.len();
            piece = later;
            if let (wants, Some(result)) = push(Some(now)) {
                assert_eq!(wants, 0, "a finished decoder wants nothing");
                return (Some(result), used);
            }
        }
    }
    (None, used)
}

/// [`feed`] for a plain block.
pub(crate) fn feed_block(
    max: usize,
    bytes: &[u8],
    lengths: &[u8],
) -> (Option<Result<Vec<u8>, DecodeError>>, usize) {
    let mut decoder = Prefixed::new(max);
    feed(bytes, lengths, |piece| {
        let result = piece.and_then(|piece| decoder.push(piece).transpose());
        (decoder.wants(), result)
    })
}

impl Arbitrary for Code {
    fn arbitrary(g: &mut Gen) -> Self {
        let known: Vec<_> = Self::TABLE.iter().map(|(code, ..)| *code).collect();
        if bool::arbitrary(g) { Self::new(u64::arbitrary(g)) } else { *g.choose(&known).unwrap() }
    }
}

impl Arbitrary for Refusal {
    fn arbitrary(g: &mut Gen) -> Self {
        // A refusal with the code `none` does not survive: it is not one.
        let code = Some(Code::arbitrary(g)).filter(|code| *code != Code::NONE).unwrap_or(Code::BUSY);
        Self::new(code, String::arbitrary(g))
    }
}

impl Arbitrary for RouteAddress {
    fn arbitrary(g: &mut Gen) -> Self {
        let forms = ["tcp", "ip4", "ip6", "dns", "dns4", "dns6", "127.0.0.1", "::1", "a.b", "80", "/", "\\"];
        let mut segment = || match bool::arbitrary(g) {
            true => (*g.choose(&forms).unwrap()).to_owned(),
            false => Some(String::arbitrary(g)).filter(|text| !text.is_empty()).unwrap_or_else(|| "x".into()),
        };
        let segments: Vec<_> = (0..4).map(|_| segment()).collect();
        let count = usize::arbitrary(g) % segments.len() + 1;
        // A segment may be too long for the rest to fit: then fewer of them.
        (1..=count)
            .rev()
            .find_map(|count| Self::new(&segments[..count]).ok())
            .unwrap_or_else(|| "/x".parse().unwrap())
    }
}

/// A socket address that survives its text form, in which an IPv6 flow label does not stand.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    address.to_string().parse().unwrap()
}
