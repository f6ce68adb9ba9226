//! Signals that end a run: it finishes its step, writes a checkpoint, and prints how to resume.

use super::failure::{Failure, Result};
use super::output::{message, quoted};
use crate::Error;
use crate::train::Ending;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The number of the signal, SIGINT (Ctrl-C) or SIGTERM, once one arrives; 0 until then. A second signal ends the process
/// at once. Before this call the first one does, which is right as long as there is nothing to save.
///
/// # Errors
/// Returns [`Error::Io`] if the system does not allow signals to be caught.
pub fn on_signals() -> crate::Result<Arc<AtomicUsize>> {
    let (stop, again) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds `again` unset, and sets it.
        let status = 128 + signal;
        flag::register_conditional_shutdown(signal, status, Arc::clone(&again))
            .and_then(|_| flag::register(signal, Arc::clone(&again)))
            .and_then(|_| flag::register_usize(signal, Arc::clone(&stop), signal as usize))
            .map_err(Error::io("catch", Path::new("signals")))?;
    }
    Ok(stop)
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
