//! Signals.
//!
//! A run finishes its step, writes a checkpoint, and prints how to resume. Before there is a run to save, and in every
//! other command, a signal ends the program as usual, but no temporary file is left.
//!
//! A handler may do next to nothing, so it only sets a flag, and a thread of its own does the rest.

use super::failure::{Failure, Result};
use super::output::{message, quoted};
use crate::Error;
use crate::files::remove_temporaries;
use crate::train::Ending;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// Longest time between a signal and what it does, too short to be noticed.
const PATIENCE: Duration = Duration::from_millis(20);

/// The number of the signal that asks the run to stop, 0 until one arrives. None as long as there is nothing to save.
static ASKED: OnceLock<AtomicUsize> = OnceLock::new();

/// Catches signals from now on.
///
/// # Errors
/// Returns [`Error::Io`] if the system does not allow signals to be caught.
pub fn catch() -> crate::Result<()> {
    start().map_err(Error::io("catch", Path::new("signals")))
}

fn start() -> io::Result<()> {
    // A write beyond a limit on the size of files (`ulimit -f`) then fails as on a full disk, and does not kill.
    #[cfg(unix)]
    flag::register(signal_hook::consts::SIGXFSZ, Arc::default())?;
    let mut caught = Vec::new();
    for signal in ending() {
        let arrived = Arc::new(AtomicBool::new(false));
        flag::register(signal, Arc::clone(&arrived))?;
        caught.push((signal, arrived));
    }
    let watch = move || loop {
        for (signal, arrived) in &caught {
            if arrived.swap(false, Ordering::Relaxed) {
                answer(*signal);
            }
        }
        thread::sleep(PATIENCE);
    };
    let name = "signals".to_owned();
    thread::Builder::new().name(name).spawn(watch).map(drop)
}

/// The signals that end the program.
fn ending() -> Vec<i32> {
    let signals = vec![SIGINT, SIGTERM];
    #[cfg(unix)]
    let signals = {
        use signal_hook::consts::{SIGHUP, SIGXCPU};
        let closed = Some(SIGHUP).filter(|signal| !ignored(*signal));
        // SIGXCPU is the limit on processor time (`ulimit -t`).
        signals.into_iter().chain([SIGXCPU]).chain(closed).collect()
    };
    signals
}

/// Whether the process was started with this signal ignored. `nohup` starts programs so: a closed terminal must not end
/// them.
#[cfg(unix)]
fn ignored(signal: i32) -> bool {
    use std::io::IsTerminal;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = |line: &str| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok();
    match status.lines().find_map(mask) {
        Some(mask) => mask >> (signal - 1) & 1 == 1,
        // Other systems do not say, but `nohup` also takes the terminal away from both outputs.
        None => !io::stdout().is_terminal() && !io::stderr().is_terminal(),
    }
}

/// Asks the run to stop, or ends the program.
fn answer(signal: i32) {
    if let Some(asked) = ASKED.get() {
        let (number, relaxed) = (signal as usize, Ordering::Relaxed);
        let first = asked.compare_exchange(0, number, relaxed, relaxed).is_ok();
        // Only a user repeats a signal to end the program at once. A closed terminal sends its own twice, once from the
        // shell and once from the system, and the limit on processor time sends one every second.
        if first || ![SIGINT, SIGTERM].contains(&signal) {
            return;
        }
    }
    let _until_the_end = remove_temporaries();
    if ASKED.get().is_none() {
        // So that the shell sees which signal it was.
        let _ = low_level::emulate_default_handler(signal);
    }
    low_level::exit(128 + signal);
}

/// The number of the signal that asks a run to stop, 0 until then. From this call on, the first signal asks, and a
/// second SIGINT (Ctrl-C) or SIGTERM ends the process at once. Before it the first one does, which is right as long as
/// there is nothing to save.
pub fn asks() -> &'static AtomicUsize {
    ASKED.get_or_init(AtomicUsize::default)
}

/// Prints how to resume a run that a signal ended.
///
/// # Errors
/// Returns [`Failure::Stopped`] unless the run is done.
pub fn ended(ending: Ending, dir: &Path, stop: &AtomicUsize) -> Result {
    let Ending::Stopped(step) = ending else {
        return Ok(());
    };
    message(&format!(
        "stopped after step {step}, with a checkpoint; go on with: foretoken train --resume {}",
        quoted(dir)
    ));
    Err(Failure::Stopped(stop.load(Ordering::Relaxed) as u8))
}
