//! The program that is the path: it moves IP packets between two TUN devices, each direction in a thread of its own.
//!
//! It looks at its devices every half a millisecond while there is traffic, and at once after a pause: a packet is taken
//! for as old as it is when it is fetched, and delivered at the first look after its time.

use std::time::Duration;

use crate::Result;
use crate::role::Arguments;

/// The name of the role. Its arguments: how many packets in a million are lost, the names of the two devices. It says
/// "ready" when they are there, moves packets when it is told "go", and answers to every "report" with what has
/// happened since the last one: the packets that have arrived, those of them that were late, the milliseconds of the
/// latest, those that found the queue full, and those that were lost by chance.
pub const ROLE: &str = "path";

/// A packet that comes so much after its time is late: it is a fiftieth of the round trip.
pub const LATE: Duration = Duration::from_millis(1);

#[cfg(not(target_os = "linux"))]
/// The role, which needs TUN devices that can be moved.
pub fn run(_: &Arguments<'_>) -> Result<()> {
    Err("the path needs Linux".into())
}

#[cfg(target_os = "linux")]
pub use self::linux::run;

#[cfg(target_os = "linux")]
mod linux {
    use std::io::ErrorKind;
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::Instant;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use snocat_core::sim::Chance;
    use tun_rs::{DeviceBuilder, SyncDevice};

    use super::{Arguments, Duration, Result};
    use crate::path::link::Link;
    use crate::role::{hear, say};

    /// How long it sleeps at least between two looks.
    const TICK: Duration = Duration::from_micros(500);
    /// Packets that a device keeps until they are fetched: more than any sender has on its way, so that what is lost is
    /// lost in the bottleneck's queue.
    const DEVICE_QUEUE: u32 = 20_000;
    /// So that two runs lose the same packets. The directions have different ones.
    const SEEDS: [u64; 2] = [1, 2];

    /// The role, until the benchmark ends it.
    pub fn run(arguments: &Arguments<'_>) -> Result<()> {
        let loss = Chance::per_million(arguments.get(0)?);
        let [near, far] = [device(arguments.get(1)?)?, device(arguments.get(2)?)?].map(Arc::new);
        say("ready")?;
        hear()?;
        let links = SEEDS.map(|seed| Arc::new(Mutex::new(Link::new(loss, seed, Instant::now()))));
        let ways = [(near.clone(), far.clone()), (far, near)];
        for ((from, to), link) in ways.into_iter().zip(links.clone()) {
            std::thread::spawn(move || {
                if let Err(error) = carry(&from, &to, &link) {
                    eprintln!("the path is broken: {error}");
                    std::process::exit(1);
                }
            });
        }
        while hear()?.is_some() {
            let [up, down] = links.each_ref().map(|link| lock(link).take_counts());
            let latest = up.latest.max(down.latest).as_secs_f64() * 1e3;
            let [passed, late] = [up.passed + down.passed, up.late + down.late];
            let [overflowed, lost] = [up.overflowed + down.overflowed, up.lost + down.lost];
            say(format_args!("{passed} {late} {latest} {overflowed} {lost}"))?;
        }
        Ok(())
    }

    fn device(name: String) -> Result<SyncDevice> {
        let device = DeviceBuilder::new()
            .name(name)
            .mtu(1500)
            .tx_queue_len(DEVICE_QUEUE)
            .enable(false)
            .build_sync()?;
        device.set_nonblocking(true)?;
        Ok(device)
    }

    fn lock(link: &Mutex<Link>) -> std::sync::MutexGuard<'_, Link> {
        link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry(from: &SyncDevice, to: &SyncDevice, link: &Mutex<Link>) -> Result<()> {
        let mut buffer = [0; 2048];
        loop {
            let now = Instant::now();
            let mut link_now = lock(link);
            loop {
                match from.recv(&mut buffer) {
                    Ok(length) => link_now.enter(now, &buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
            while let Some(packet) = link_now.leave(Instant::now()) {
                to.send(&packet)?;
            }
            let next = link_now.next();
            drop(link_now);
            wait(from, next)?;
            std::thread::sleep((now + TICK).saturating_duration_since(Instant::now()));
        }
    }

    /// Waits until there is a packet to fetch, or this time has come.
    fn wait(from: &SyncDevice, until: Option<Instant>) -> Result<()> {
        let time = until.map(|until| until.saturating_duration_since(Instant::now()));
        let time = time.map(Timespec::try_from).transpose()?;
        match poll(&mut [PollFd::new(from, PollFlags::IN)], time.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
