//! What the process that makes the checks may do: read one file, for a while.
//!
//! The limits are the kernel's, set by the process on itself before it looks at anything that is not ours. What a system refuses
//! to set (a container, a Lambda) is left out: no verdict depends on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{UnshareFlags, set_no_new_privs, unshare_unsafe};
use rustix::time::{ClockId, clock_gettime};

/// Everything mapped: the program, SQLite's heap, a stack.
const ADDRESS_SPACE_BYTES: u64 = 1 << 30;
const OPEN_FILES: u64 = 16;
/// How long SQLite may compute between two looks at the clock ([`alive`]), seconds of CPU: it looks every few thousand instructions,
/// so that only a single operation which it cannot interrupt takes so long.
pub(super) const OPERATION_CPU_SECONDS: u64 = 30;

/// Up to when this process may compute, seconds of its CPU time; 0: it is not confined.
static CPU_ALLOWED: AtomicU64 = AtomicU64::new(0);

/// Confines this process.
pub(super) fn confine() {
    let limits = [
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::As, ADDRESS_SPACE_BYTES),
        (Resource::Nofile, OPEN_FILES),
    ];
    for (resource, most) in limits {
        let _ = setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    }
    let _ = set_no_new_privs(true);
    leave_network();
    // The drill's process may be killed, too. Set last: a change of credentials would take it back.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    allow_cpu(cpu_seconds());
}

/// Gives up the network: as root by a network namespace of its own, else by one in a user namespace.
#[allow(unsafe_code)]
fn leave_network() {
    let unshare = |flags| {
        // SAFETY: neither flag changes what memory or files this process has; it has one thread.
        unsafe { unshare_unsafe(flags) }
    };
    let left = unshare(UnshareFlags::NEWNET);
    // In a user namespace, root would lose its right to read another user's directories.
    if left.is_err() && !rustix::process::geteuid().is_root() {
        let _ = unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET);
    }
}

/// Says that SQLite looked at the clock: where this process is confined, it may go on for a while.
pub(crate) fn alive() {
    let allowed = CPU_ALLOWED.load(Ordering::Relaxed);
    if allowed == 0 {
        return;
    }
    let used = cpu_seconds();
    // A change a second is enough.
    if used + OPERATION_CPU_SECONDS > allowed {
        allow_cpu(used);
    }
}

/// At the limit the kernel ends the process with SIGXCPU.
fn allow_cpu(used: u64) {
    let allowed = used + OPERATION_CPU_SECONDS;
    let maximum = getrlimit(Resource::Cpu).maximum;
    let _ = setrlimit(Resource::Cpu, Rlimit { current: Some(allowed), maximum });
    CPU_ALLOWED.store(allowed, Ordering::Relaxed);
}

fn cpu_seconds() -> u64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(used).map_or(0, |used| used.as_secs())
}
