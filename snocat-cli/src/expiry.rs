//! Warnings that the server's certificate expires, or is not valid: clients would be the first to notice.

use std::fmt;
use std::time::{Duration, SystemTime};

use snocat_driver::{Runtime, ServerTls, Validity};

use crate::output;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate is worth a warning when so much of its time is left, or a third if that is less: some are made for days.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How a certificate stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Standing {
    Valid,
    NotYet,
    /// It expires in so long.
    Expires(Duration),
    Expired,
}

impl Standing {
    fn of(Validity { not_before, not_after }: Validity, now: SystemTime) -> Self {
        let Ok(left) = not_after.duration_since(now) else { return Self::Expired };
        let whole = not_after.duration_since(not_before).unwrap_or_default();
        if now < not_before {
            Self::NotYet
        } else if left < SOON.min(whole / 3) {
            Self::Expires(left)
        } else {
            Self::Valid
        }
    }

    fn warn(self) {
        if self != Self::Valid {
            output::warning(format_args!("the certificate of this server {self}"));
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("is valid"),
            Self::NotYet => f.write_str("is not valid yet: clients refuse it; check this machine's clock"),
            Self::Expires(left) => {
                let [days, hours, minutes] = [DAY, HOUR, MINUTE].map(|unit| left.as_secs() / unit.as_secs());
                let (number, unit) = match (days, hours) {
                    (0, 0) => (minutes.max(1), "minute"),
                    (0, _) => (hours, "hour"),
                    _ => (days, "day"),
                };
                let ending = if number == 1 { "" } else { "s" };
                write!(
                    f,
                    "expires in {number} {unit}{ending}: renew it, and give clients that hold a copy the new one"
                )
            }
            Self::Expired => {
                f.write_str("has expired: clients refuse it; renew it (`snocat cert PATH --force`)")
            }
        }
    }
}

fn standing(tls: &ServerTls) -> Standing {
    tls.validity().map_or(Standing::Valid, |validity| Standing::of(validity, SystemTime::now()))
}

/// Warns if the certificate does not stand well now.
pub fn warn(tls: &ServerTls) {
    standing(tls).warn();
}

/// Warns as time goes by: when the certificate gets near its end and when it gets there, and once a day from then on.
pub async fn watch<R: Runtime>(runtime: &R, tls: &ServerTls) {
    let kind = |standing| std::mem::discriminant(&standing);
    let (mut told, mut hours) = (kind(standing(tls)), 0);
    loop {
        runtime.sleep_until(runtime.now() + HOUR).await;
        hours += 1;
        let now = standing(tls);
        if kind(now) != told || hours == 24 {
            now.warn();
            (told, hours) = (kind(now), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_certificate_is_worth_a_warning_in_its_last_fortnight_or_third() {
        let day = |day: u32| UNIX_EPOCH + DAY * day;
        let standing = |first, last, now| {
            Standing::of(Validity { not_before: day(first), not_after: day(last) }, day(now))
        };
        assert_eq!(standing(10, 375, 9), Standing::NotYet);
        assert_eq!(standing(10, 375, 361), Standing::Valid);
        assert_eq!(standing(10, 375, 362), Standing::Expires(DAY * 13));
        assert_eq!(standing(10, 375, 376), Standing::Expired);
        // One of six days.
        assert_eq!(standing(10, 16, 14), Standing::Valid);
        assert_eq!(standing(10, 16, 15), Standing::Expires(DAY));
        for (left, text) in [
            (13 * DAY, "in 13 days"),
            (25 * HOUR, "in 1 day:"),
            (HOUR, "in 1 hour:"),
            (HOUR - SECOND, "in 59 minutes:"),
            (SECOND, "in 1 minute:"),
        ] {
            assert!(Standing::Expires(left).to_string().contains(text), "{text}");
        }
    }
}
