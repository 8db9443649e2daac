//! Verdicts on certificate chains, kept for as long as nothing but time can change them: a review looks at each tunnel
//! every few seconds, and the signatures of a chain take up to a millisecond to check.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use ring::digest::{Context, SHA256};
use rustls::pki_types::CertificateDer;
use snocat_core::auth::Proven;

use super::validity::Validity;
use crate::sync::lock;

/// Chains that are remembered: more than a server has tunnels, at a few hundred bytes each. A client with a certificate
/// can show many chains, by different certificates behind its own.
const MOST: usize = 16_384;

/// What is accepted, by the digest of the chain.
#[derive(Default)]
pub(super) struct Verdicts(Mutex<BTreeMap<[u8; 32], Verdict>>);

struct Verdict {
    /// When it was passed. At earlier times, after a clock was set back, it is another question.
    from: u64,
    /// All certificates of the chain are valid until then.
    until: u64,
    proven: Proven,
}

impl Verdicts {
    /// The verdict that was passed on the chain, if it still holds at `now`, in seconds since 1970.
    pub(super) fn get(&self, chain: &[CertificateDer<'_>], now: u64) -> Option<Proven> {
        let verdicts = lock(&self.0);
        let verdict = verdicts.get(&digest(chain))?;
        (verdict.from..=verdict.until).contains(&now).then(|| verdict.proven.clone())
    }

    /// Remembers that the chain was accepted at `now`.
    pub(super) fn put(&self, chain: &[CertificateDer<'_>], now: u64, proven: &Proven) {
        // Of all certificates, though some of them may not have been needed.
        let ends = chain.iter().map(|certificate| Some(Validity::of(certificate)?.not_after));
        let Some(Ok(until)) = ends.min().flatten().map(|end| end.duration_since(UNIX_EPOCH)) else { return };
        let until = until.as_secs();
        let verdict = Verdict { from: now, until, proven: proven.clone() };
        let digest = digest(chain);
        let mut verdicts = lock(&self.0);
        if verdicts.len() >= MOST && !verdicts.contains_key(&digest) {
            verdicts.clear();
        }
        verdicts.insert(digest, verdict);
    }
}

fn digest(chain: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for certificate in chain {
        context.update(&certificate.len().to_be_bytes());
        context.update(certificate);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use snocat_core::auth::Grant;

    fn chain(years: &[i32]) -> Vec<CertificateDer<'static>> {
        let certificate = |year: &i32| {
            let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
            parameters.not_before = date_time_ymd(1970, 1, 1);
            parameters.not_after = date_time_ymd(*year, 1, 1);
            parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        years.iter().map(certificate).collect()
    }

    fn alice() -> Proven {
        Proven::new("alice", Grant::to("alice"))
    }

    #[test]
    fn a_verdict_holds_from_when_it_was_passed_until_the_first_certificate_expires() {
        const YEAR: u64 = 365 * 86_400;
        let verdicts = Verdicts::default();
        let (one, other) = (chain(&[1980, 1972]), chain(&[1980]));
        verdicts.put(&one, YEAR, &alice());
        for (now, known) in [(YEAR - 1, false), (YEAR, true), (2 * YEAR, true), (2 * YEAR + 1, false)] {
            assert_eq!(verdicts.get(&one, now).is_some(), known, "{now}");
        }
        assert_eq!(verdicts.get(&other, YEAR), None);
        assert_eq!(verdicts.get(&one[..1], YEAR), None);
        // When nobody can tell until when.
        let unreadable = [CertificateDer::from(vec![0; 9])];
        verdicts.put(&unreadable, YEAR, &alice());
        assert_eq!(verdicts.get(&unreadable, YEAR), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let verdicts = Verdicts::default();
        // A client's certificate with others behind it, in ever other orders.
        let others = chain(&[1981, 1982, 1983]);
        let own = chain(&[1980]);
        for number in 0..MOST + 10 {
            let digits = (0..9).map(|digit| &others[number / 3_usize.pow(digit) % 3]);
            let shown: Vec<_> = own.iter().chain(digits).cloned().collect();
            verdicts.put(&shown, 1, &alice());
            assert!(verdicts.get(&shown, 1).is_some());
            assert!(lock(&verdicts.0).len() <= MOST);
        }
    }
}
