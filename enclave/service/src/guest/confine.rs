//! What the program takes from itself: core files, other memory than real one, privileges, and system calls it never
//! makes.
//!
//! The guest has one program and no secrets from itself, so this is the second line: it limits what a flaw in a parser
//! is worth to whoever found it. There is nothing to start, nothing to trace, no file to change and no network to open.

use std::collections::BTreeMap;
use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

/// What stays of root's privileges: to end the machine, and to lock memory.
const KEPT: CapabilitySet = CapabilitySet::SYS_BOOT.union(CapabilitySet::IPC_LOCK);

/// Every system call of the program after its start, by what needs it.
const CALLS: &[i64] = &[
    // memory
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mlock,
    libc::SYS_munlock,
    // threads, and waiting; see MISSING for the first
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tkill,
    libc::SYS_prctl,
    libc::SYS_wait4,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    // randomness
    libc::SYS_getrandom,
    // the console, reports in configfs, what the kernel tells about itself
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_stat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rmdir,
    libc::SYS_unlinkat,
    // sockets; which kinds, see SOCKETS
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    // the end
    libc::SYS_reboot,
];

/// Calls answered as by an older kernel: their arguments lie in memory, where no filter can see them, and whoever makes
/// them knows another way (`clone`, of which threads alone are allowed).
const MISSING: &[i64] = &[libc::SYS_clone3];

/// No core file, no limit on locked memory, and all memory locked as it comes to be used.
pub(super) fn limits() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None })?;
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?;
    Ok(())
}

/// Gives up root's privileges but [`KEPT`], and the way to any others.
pub(super) fn privileges() -> io::Result<()> {
    set_no_new_privs(true)?;
    let sets = CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    Ok(())
}

/// From here on a system call that is not in [`CALLS`] ends the program, and with it the machine.
pub(super) fn system_calls() -> io::Result<()> {
    for filter in [missing()?, filter(SeccompAction::KillProcess)?] {
        apply_filter_all_threads(&filter).map_err(io::Error::other)?;
    }
    Ok(())
}

fn missing() -> io::Result<BpfProgram> {
    let rules = MISSING.iter().map(|call| (*call, Vec::new())).collect();
    let unknown = SeccompAction::Errno(u32::try_from(libc::ENOSYS).map_err(io::Error::other)?);
    compile(rules, SeccompAction::Allow, unknown)
}

fn filter(otherwise: SeccompAction) -> io::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, _> = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    rules.extend(conditions::all().map_err(io::Error::other)?);
    compile(rules, otherwise, SeccompAction::Allow)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> io::Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, otherwise, listed, arch);
    filter.and_then(BpfProgram::try_from).map_err(io::Error::other)
}

/// Calls that are allowed with some arguments only.
mod conditions {
    use std::collections::BTreeMap;

    use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

    /// Threads only: a new process would need its own memory (`CLONE_VM` unset) to be of use.
    const CLONE_THREAD: u64 = libc::CLONE_THREAD as u64;
    /// Memory that is written and executed at once is how foreign code begins.
    const PROT_EXEC: u64 = libc::PROT_EXEC as u64;

    /// Linux `arch/x86/include/uapi/asm/prctl.h`: asks for registers that are off until a process wants them.
    const ARCH_REQ_XCOMP_PERM: i32 = 0x1023;

    // Linux `include/uapi/asm-generic/ioctls.h`; C libraries disagree about the type.
    const FIONBIO: u64 = 0x5421;
    const TCGETS: u64 = 0x5401;

    pub(super) fn all() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
        let value = |at, value: i32| {
            let value = u64::try_from(value).unwrap_or(u64::MAX);
            SeccompCondition::new(at, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
        };
        let bits = |at, mask: u64, wanted: u64| {
            SeccompCondition::new(at, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), wanted)
        };
        let request = |code: u64| {
            let condition = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, code)?;
            SeccompRule::new(vec![condition])
        };
        let rule = |condition| Ok(vec![SeccompRule::new(vec![condition?])?]);
        Ok(BTreeMap::from([
            // the way to the host, and nothing else
            (libc::SYS_socket, rule(value(0, libc::AF_VSOCK))?),
            // signals within the program
            (libc::SYS_socketpair, rule(value(0, libc::AF_UNIX))?),
            // whether a socket waits, and whether the console is one
            (libc::SYS_ioctl, vec![request(FIONBIO)?, request(TCGETS)?]),
            // the tiles that multiply matrices
            (libc::SYS_arch_prctl, rule(value(0, ARCH_REQ_XCOMP_PERM))?),
            (libc::SYS_clone, rule(bits(0, CLONE_THREAD, CLONE_THREAD))?),
            (libc::SYS_mmap, rule(bits(2, PROT_EXEC, 0))?),
            (libc::SYS_mprotect, rule(bits(2, PROT_EXEC, 0))?),
        ]))
    }
}

#[cfg(test)]
mod tests;
