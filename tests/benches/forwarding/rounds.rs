//! In which order everything is measured: in rounds. In each, every measure is taken on one system after the other,
//! so that a machine that is busy for a while hits all of them alike; and each round begins with another system.

use std::time::Duration;

use crate::keeper::Keeper;
use crate::measure::Measure;
use crate::memory;
use crate::options::Options;
use crate::place::{Place, Where};
use crate::results::{Report, Results};
use crate::system::{Running, Setup, System, age};
use crate::{Result, path, ten_thousand, traffic};

/// Measures all that is wanted.
pub fn run(options: &Options) -> Result<Report> {
    let keeper = Keeper::start()?;
    let report = measure_all(options, keeper.clone());
    keeper.finish();
    report
}

fn measure_all(options: &Options, keeper: Keeper) -> Result<Report> {
    let mut skipped = Vec::new();
    let places = usable(options, &keeper, &mut skipped)?;
    let setup = Setup::new(keeper, options.congestion.clone())?;
    let mut machine = machine(&setup)?;
    let load = |when: &str| Ok::<_, std::io::Error>(format!("load average {when}: {}", load_average()?));
    machine.push(load("before")?);
    if options.short {
        skipped.push(
            "neighbours and paths that are not asked for, packets of idle tunnels: not in the short mode"
                .to_owned(),
        );
    } else if !places.contains(&Where::Wire) {
        skipped.push("packets of idle tunnels: they are counted on the wire".to_owned());
    }
    let mut results = Results::default();
    for round in 0..options.rounds() {
        for place in places.iter().filter(|place| !place.is_path()) {
            one_round(round, *place, options, &setup, &mut results)?;
        }
        idle(round, &places, options, &setup, &mut results)?;
    }
    for round in 0..options.path_rounds() {
        for place in places.iter().filter(|place| place.is_path()) {
            path::round(round, *place, options, &setup, &mut results)?;
        }
    }
    machine.push(load("after")?);
    let (rounds, path_rounds) = (options.rounds(), options.path_rounds());
    Ok(Report { machine, rounds, path_rounds, short: options.short, skipped, results })
}

/// The wanted places that this machine allows.
fn usable(options: &Options, keeper: &Keeper, skipped: &mut Vec<String>) -> Result<Vec<Where>> {
    let wanted = options.places();
    let mut places = Vec::new();
    for place in &wanted {
        match Place::new(*place, keeper) {
            Ok(_) => places.push(*place),
            Err(error) if wanted.len() == 1 => return Err(error),
            Err(error) => {
                skipped
                    .push(format!("the {}, which needs root and network namespaces: {error}", place.name()));
            }
        }
    }
    Ok(places)
}

fn one_round(
    round: usize,
    kind: Where,
    options: &Options,
    setup: &Setup,
    results: &mut Results,
) -> Result<()> {
    let wants = |system: System, measure: Measure| {
        measure.is_traffic() && measure.suits(system) && options.wants(system, measure)
    };
    let mut systems: Vec<_> = System::ALL
        .into_iter()
        .filter(|system| Measure::ALL.into_iter().any(|measure| wants(*system, measure)))
        .collect();
    if systems.is_empty() {
        return Ok(());
    }
    let first = round % systems.len();
    systems.rotate_left(first);
    let place = Place::new(kind, &setup.keeper)?;
    let mut running = Vec::new();
    for system in systems {
        let mut started = Running::start(system, &place, setup)
            .map_err(|error| format!("{} on {}: {error}", system.name(), kind.name()))?;
        traffic::warm_up(&mut started, &place, setup).map_err(|error| {
            format!("{}, warming up: {error}\n{}", system.name(), started.deaths().join("\n"))
        })?;
        running.push(started);
    }
    for measure in Measure::ALL {
        let mut wanted = running.iter_mut().filter(|running| wants(running.system, measure)).peekable();
        if wanted.peek().is_some() {
            progress(round, options, kind.name(), measure);
        }
        for running in wanted {
            let figures = traffic::measure(running, measure, options, &place, setup)?;
            results.add(kind, running.system, figures);
        }
    }
    Ok(())
}

fn idle(
    round: usize,
    places: &[Where],
    options: &Options,
    setup: &Setup,
    results: &mut Results,
) -> Result<()> {
    let wanted = |measure: Measure| -> Vec<System> {
        let wants = |system: &System| measure.suits(*system) && options.wants(*system, measure);
        System::ALL.into_iter().filter(wants).collect()
    };
    // Memory does not depend on the machine's mood: one round is enough for every day.
    if options.short && round > 0 {
        return Ok(());
    }
    let systems = wanted(Measure::Memory);
    if !systems.is_empty() && places.contains(&Where::Loopback) {
        progress(round, options, "loopback", Measure::Memory);
        for (system, figures) in memory::connections(&systems, setup)? {
            results.add(Where::Loopback, system, figures);
        }
    }
    let kind = [Where::Wire, Where::Loopback].into_iter().find(|kind| places.contains(kind));
    let Some(kind) = kind else { return Ok(()) };
    let systems = wanted(Measure::Tunnels);
    if !systems.is_empty() {
        progress(round, options, kind.name(), Measure::Tunnels);
        // What a tunnel sends is a matter of timers: it is counted once.
        let packets = round == 0 && !options.short;
        for (system, figures) in memory::tunnels(&systems, kind, packets, setup)? {
            results.add(kind, system, figures);
        }
    }
    let systems = wanted(Measure::TenThousand);
    if !systems.is_empty() && round == 0 {
        progress(round, options, kind.name(), Measure::TenThousand);
        for (system, figures) in ten_thousand::measure(&systems, kind, options, setup)? {
            results.add(kind, system, figures);
        }
    }
    Ok(())
}

fn progress(round: usize, options: &Options, place: &str, measure: Measure) {
    eprintln!("round {} of {}, {place}: {}", round + 1, options.rounds(), measure.name());
}

/// The machine and the binaries, in words.
fn machine(setup: &Setup) -> Result<Vec<String>> {
    let processors = std::thread::available_parallelism()?;
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("of an unknown model", |(_, model)| model);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut lines = vec![format!("{processors} × {model}, Linux {}", kernel.trim())];
    for system in System::OURS {
        let binary = setup.binary(system)?;
        lines.push(format!("{}, built {} ago", binary.display(), in_words(age(&binary)?)));
    }
    Ok(lines)
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

fn load_average() -> std::io::Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}
