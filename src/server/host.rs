//! What the host has to offer, checked before anything is opened.
//!
//! Each check refuses with one sentence: what is missing, and what to do about it. `hardware/`
//! explains the reasons; its page and these sentences change together.
#![expect(
    unsafe_code,
    reason = "resource limits and memory locks have no safe wrapper in std"
)]

use crate::stdx::to_u64;
use std::io;

/// Why this host cannot run the server.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The processor has no AES instructions.
    #[error(
        "the processor has no AES instructions, which every checksum uses: choose a machine with \
         AES-NI (x86-64) or the ARMv8 cryptography extension; in a virtual machine pass the \
         host's CPU model through"
    )]
    Aes,
    /// The kernel was built without io_uring, or is too old for it.
    #[error("the kernel has no io_uring: run Linux 5.11 or later (6.1 recommended)")]
    IoUringMissing,
    /// The administrator has switched io_uring off.
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled = {setting}): set it to 0 with \
         `sysctl -w kernel.io_uring_disabled=0`, and in /etc/sysctl.d to keep it"
    )]
    IoUringDisabled {
        /// The value of the setting.
        setting: String,
    },
    /// Something in between refuses the system call.
    #[error(
        "io_uring is denied to this process: allow io_uring_setup, io_uring_enter and \
         io_uring_register in the seccomp profile of the container or the unit"
    )]
    IoUringDenied,
    /// The kernel's io_uring lacks something.
    #[error("the kernel's io_uring lacks {what}: run Linux 5.11 or later (6.1 recommended)")]
    IoUringOld {
        /// What it lacks.
        what: &'static str,
    },
    /// Setting up a ring failed in another way.
    #[error("a ring of io_uring cannot be set up: {0}")]
    IoUring(io::Error),
    /// The limit of locked memory is too low.
    #[error(
        "the limit of locked memory is {limit} bytes, the server needs {needed}: set \
         `LimitMEMLOCK=infinity` in the unit, `--ulimit memlock=-1` for a container, or raise \
         memlock in /etc/security/limits.conf"
    )]
    Memlock {
        /// The limit, after raising it as far as it goes.
        limit: u64,
        /// What the server needs.
        needed: u64,
    },
}

/// Checks the processor, io_uring and the limit of locked memory, and raises that limit as far as
/// it goes.
///
/// # Errors
/// The first check that fails.
pub fn check(network_cores: usize) -> Result<(), HostError> {
    check_aes()?;
    check_memlock(network_cores)?;
    check_io_uring()
}

/// The checksum runs at a twentieth of its speed without these, which nobody should find out in
/// production.
fn check_aes() -> Result<(), HostError> {
    #[cfg(target_arch = "x86_64")]
    let present = is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let present = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let present = false;
    if present { Ok(()) } else { Err(HostError::Aes) }
}

fn check_io_uring() -> Result<(), HostError> {
    let ring = io_uring::IoUring::new(4).map_err(|error| {
        let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        io_uring_error(error, setting.ok())
    })?;
    if !ring.params().is_feature_ext_arg() {
        let what = "waiting with a timeout (IORING_FEAT_EXT_ARG)";
        return Err(HostError::IoUringOld { what });
    }
    let mut probe = io_uring::Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(HostError::IoUring)?;
    let operations = [
        ("reads", io_uring::opcode::Read::CODE),
        ("writes", io_uring::opcode::Write::CODE),
    ];
    for (what, code) in operations {
        if !probe.is_supported(code) {
            return Err(HostError::IoUringOld { what });
        }
    }
    Ok(())
}

/// What a failed set-up means, given `kernel.io_uring_disabled`.
fn io_uring_error(error: io::Error, setting: Option<String>) -> HostError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => HostError::IoUringMissing,
        Some(libc::EPERM | libc::EACCES) => match setting.as_deref().map(str::trim) {
            Some("0") | None => HostError::IoUringDenied,
            Some(setting) => HostError::IoUringDisabled {
                setting: setting.into(),
            },
        },
        _ => HostError::IoUring(error),
    }
}

/// glommio refuses to start below this.
const MEMLOCK_BASE: u64 = 512 * 1024;
/// What each executor pins: one buffer, registered with its three rings.
const MEMLOCK_PER_CORE: u64 = 256 * 1024;

fn check_memlock(network_cores: usize) -> Result<(), HostError> {
    let needed = MEMLOCK_BASE + MEMLOCK_PER_CORE * to_u64(network_cores);
    let limit = memlock_raise().map_err(HostError::IoUring)?;
    if limit < needed {
        Err(HostError::Memlock { limit, needed })
    } else {
        Ok(())
    }
}

/// Raises the limit of locked memory as far as this process may, and returns it.
fn memlock_raise() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid rlimit to write to.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let infinite = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    let hard = libc::rlimit {
        rlim_cur: limit.rlim_max,
        rlim_max: limit.rlim_max,
    };
    for wanted in [infinite, hard] {
        // SAFETY: `wanted` is a valid rlimit to read from.
        if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const wanted) } == 0 {
            return Ok(wanted.rlim_cur);
        }
    }
    Ok(limit.rlim_cur)
}

/// Keeps the memory of the process, present and future, out of swap. Tried only when the limit of
/// locked memory is infinite: under a finite one, an allocation that passes it would fail later.
///
/// Returns whether the memory is locked now; without swap it need not be.
pub fn lock_memory() -> bool {
    if !memlock_raise().is_ok_and(|limit| limit == libc::RLIM_INFINITY) {
        return false;
    }
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: locks pages, changes no memory.
    unsafe { libc::mlockall(flags) == 0 }
}

/// Whether the host swaps.
#[must_use]
pub fn has_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1)
}

/// The processors that this process may run on.
#[must_use]
pub fn cpus_allowed() -> Vec<usize> {
    // SAFETY: a cpu_set_t is a bit mask, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` has the size that is passed.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return Vec::new();
    }
    (0..size_of::<libc::cpu_set_t>() * 8)
        // SAFETY: the index is below the number of bits in the set.
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{HostError, check, cpus_allowed, io_uring_error};
    use std::io;

    #[test]
    fn this_host_passes() {
        check(1).unwrap();
        assert!(!cpus_allowed().is_empty());
    }

    #[test]
    fn a_refused_ring_names_its_reason() {
        let refused = |errno: i32, setting: Option<&str>| {
            io_uring_error(io::Error::from_raw_os_error(errno), setting.map(Into::into))
        };
        assert!(matches!(
            refused(libc::ENOSYS, None),
            HostError::IoUringMissing
        ));
        assert!(matches!(
            refused(libc::EPERM, Some("0\n")),
            HostError::IoUringDenied
        ));
        assert!(matches!(
            refused(libc::EPERM, None),
            HostError::IoUringDenied
        ));
        assert!(matches!(refused(libc::ENOMEM, None), HostError::IoUring(_)));
        let text = refused(libc::EPERM, Some("2\n")).to_string();
        assert!(text.contains("kernel.io_uring_disabled = 2"), "{text}");
        let text = HostError::Memlock {
            limit: 65536,
            needed: 786_432,
        }
        .to_string();
        assert!(
            text.contains("65536") && text.contains("LimitMEMLOCK=infinity"),
            "{text}"
        );
    }
}
