//! Several ways to one goal, 250 ms apart (RFC 8305, section 5): the first that gets there wins.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use crate::runtime::Runtime;

/// The Connection Attempt Delay of RFC 8305, section 8.
const DELAY: Duration = Duration::from_millis(250);

/// IPv6 and IPv4 in turn, beginning with what the system put first (RFC 8305, section 4).
pub(crate) fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut mixed: Vec<SocketAddr> =
        first.into_iter().flat_map(|address| [Some(address), second.next()]).flatten().collect();
    mixed.extend(second);
    mixed
}

/// Starts the next attempt when the last is 250 ms old or all have failed. Returns the first success, or what
/// each failed with.
pub(crate) async fn race<R, T, E, F>(runtime: &R, attempts: impl IntoIterator<Item = F>) -> Result<T, Vec<E>>
where
    R: Runtime,
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = attempts.into_iter().peekable();
    let mut running: Vec<Pin<Box<F>>> = Vec::new();
    let mut failures = Vec::new();
    let mut pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
    poll_fn(|context| {
        loop {
            let mut index = 0;
            while let Some(attempt) = running.get_mut(index) {
                match attempt.as_mut().poll(context) {
                    Poll::Ready(Ok(success)) => return Poll::Ready(Ok(success)),
                    Poll::Ready(Err(failure)) => {
                        failures.push(failure);
                        drop(running.remove(index));
                    }
                    Poll::Pending => index += 1,
                }
            }
            let is_due = match &mut pause {
                Some(pause) => pause.as_mut().poll(context).is_ready(),
                None => false,
            };
            if running.is_empty() || is_due {
                pause = None;
                if let Some(attempt) = waiting.next() {
                    running.push(Box::pin(attempt));
                    let next = waiting.peek().map(|_| runtime.now() + DELAY);
                    pause = next.map(|next| Box::pin(runtime.sleep_until(next)) as Pin<Box<_>>);
                    continue;
                }
            }
            return if running.is_empty() {
                Poll::Ready(Err(std::mem::take(&mut failures)))
            } else {
                Poll::Pending
            };
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_beginning_with_the_systems_first() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let v6 = ["[::1]:1", "[::2]:1", "[::3]:1"].map(address);
        let v4 = ["192.0.2.1:1"].map(address);
        let mixed = interleave(v6.iter().chain(&v4).copied().collect());
        assert_eq!(mixed, [v6[0], v4[0], v6[1], v6[2]]);
        assert_eq!(interleave(vec![v4[0], v6[0], v6[1]]), [v4[0], v6[0], v6[1]]);
        assert_eq!(interleave(Vec::new()), []);
    }
}
