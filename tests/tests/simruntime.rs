//! The simulated runtime itself: it must see what it is there for.

use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use snocat_driver::Runtime;
use snocat_tests::simruntime::{CLIENT, Machines, Simulation};

const LIMIT: Duration = Duration::from_secs(1);

fn calm() -> Simulation {
    Simulation::new(1, Machines { whims: false, ..Machines::drawn(1) })
}

async fn a_stuck_task() {
    pending::<()>().await;
}

#[test]
#[should_panic(expected = "a_stuck_task")]
fn a_task_that_nobody_wakes_is_named() {
    let sim = calm();
    sim.host(CLIENT).spawn(a_stuck_task());
    sim.run(LIMIT, async {});
    sim.finish(LIMIT);
}

#[test]
#[should_panic(expected = "a timer that fires at 5s")]
fn what_a_task_waits_for_is_told() {
    let sim = calm();
    let host = sim.host(CLIENT);
    sim.run(LIMIT, host.sleep_until(host.now() + Duration::from_secs(5)));
}

#[test]
#[should_panic(expected = "while time stands still")]
fn a_task_that_spins_is_noticed() {
    let spin = poll_fn(|context| {
        context.waker().wake_by_ref();
        Poll::<()>::Pending
    });
    calm().run(LIMIT, spin);
}

#[test]
#[should_panic(expected = "nothing will ever happen")]
fn nobody_is_polled_who_was_not_woken() {
    let mut polls = 0;
    let second = poll_fn(|_| {
        polls += 1;
        if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
    });
    calm().run(LIMIT, second);
}

#[test]
#[should_panic(expected = "TCP listener 10.0.0.2")]
fn a_socket_that_is_left_is_named() {
    let sim = calm();
    let _left = sim.host(CLIENT).listen(SocketAddr::from((CLIENT, 80))).unwrap();
    sim.finish(LIMIT);
}
