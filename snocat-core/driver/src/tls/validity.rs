//! From when until when a certificate is valid.
//!
//! webpki reads these times and keeps them to itself, except in its errors: asked whether the certificate is valid at the
//! beginning and at the end of time, it says from when and until when it is. It looks at that before anything else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

/// From when until when a certificate is valid.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// That of a certificate; `None` if it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let asked = |seconds| {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            certificate.verify_for_usage(&[], &[], &[], at, KeyUsage::server_auth(), None, None).err()
        };
        let not_before = match asked(0) {
            Some(Error::CertNotValidYet { not_before, .. }) => at(not_before)?,
            _ => UNIX_EPOCH,
        };
        match asked(u64::MAX)? {
            Error::CertExpired { not_after, .. } => Some(Self { not_before, not_after: at(not_after)? }),
            _ => None,
        }
    }

    /// While both are valid.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }
}

fn at(time: UnixTime) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()))
}
