//! The filter, on a thread of its own, with a refusal in place of the end of the program.

use std::io;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::thread;

use seccompiler::apply_filter;

use super::*;

/// Runs `work` on a thread that has the filter, and nobody else.
fn confined<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let inside = move || {
        set_no_new_privs(true).unwrap();
        let refusal = u32::try_from(libc::EPERM).unwrap();
        apply_filter(&missing().unwrap()).unwrap();
        apply_filter(&filter(SeccompAction::Errno(refusal)).unwrap()).unwrap();
        work()
    };
    thread::spawn(inside).join().unwrap()
}

fn denied<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::EPERM))
}

#[test]
fn what_a_service_does_is_allowed() {
    confined(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _signals = signal();
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            tokio::task::spawn_blocking(|| vec![1u8; 8 << 20].len()).await.unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("report")).unwrap();
        std::fs::write(folder.path().join("report/inblob"), [7; 64]).unwrap();
        assert_eq!(std::fs::read(folder.path().join("report/inblob")).unwrap(), [7; 64]);
        let mut random = [0; 32];
        getrandom::fill(&mut random).unwrap();
    });
}

fn signal() -> tokio::signal::unix::Signal {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child()).unwrap()
}

/// The filter as it is installed in a machine, in a program of its own: this test, started again.
#[test]
fn a_forbidden_call_ends_the_program_without_a_core_file() {
    const AGAIN: &str = "ADYTON_TEST_CONFINED";
    if std::env::var_os(AGAIN).is_some() {
        // Locking all memory takes a privilege that whoever runs tests may not have; it is the last of the limits.
        let _ = limits();
        set_no_new_privs(true).unwrap();
        system_calls().unwrap();
        let _ = std::fs::rename("/nowhere", "/elsewhere");
        std::process::exit(0);
    }
    let name = thread::current().name().unwrap().to_owned();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(AGAIN, "1")
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{output:?}");
    assert!(!output.status.core_dumped(), "{output:?}");
}

#[test]
fn no_other_program_is_started() {
    assert!(denied(&confined(|| Command::new("/bin/true").status())));
}

#[test]
fn no_socket_but_vsock_is_opened() {
    assert!(denied(&confined(|| TcpStream::connect("127.0.0.1:1"))));
    assert!(denied(&confined(|| UdpSocket::bind("127.0.0.1:0"))));
    assert!(denied(&confined(|| UnixListener::bind("/nowhere"))));
    assert!(!denied(&confined(UnixStream::pair)), "signals arrive within the program by a pair");
}

#[test]
fn no_memory_becomes_code() {
    // By way of a file mapping: the only call of the standard library's kind that asks for executable memory is the
    // loader's, so the rule itself is looked at.
    let rules = conditions::all().unwrap();
    let conditional = [
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_clone,
        libc::SYS_socket,
        libc::SYS_ioctl,
        libc::SYS_arch_prctl,
    ];
    for call in conditional {
        assert!(
            rules.contains_key(&call) && !CALLS.contains(&call),
            "{call} would be allowed with any argument"
        );
    }
}

#[test]
fn the_calls_that_make_a_system_are_not_there() {
    for call in [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_mount,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
        libc::SYS_bpf,
        libc::SYS_io_uring_setup,
        libc::SYS_memfd_create,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_swapon,
        libc::SYS_setuid,
        libc::SYS_seccomp,
    ] {
        assert!(!CALLS.contains(&call), "{call}");
    }
    assert!(MISSING.contains(&libc::SYS_clone3), "its flags cannot be looked at");
}

/// `cargo test -p adyton-enclave --release -- --ignored --nocapture cost_of_the_filter`
#[test]
#[ignore = "a measurement: prints what the filter adds to a system call"]
fn cost_of_the_filter() {
    const CALLS: u32 = 1_000_000;
    let each = || {
        let begun = std::time::Instant::now();
        for _ in 0..CALLS {
            // As cheap as a call can be: it fails at the descriptor.
            let _ = rustix::fs::seek(std::io::stdin(), rustix::fs::SeekFrom::Current(0));
        }
        begun.elapsed() / CALLS
    };
    let (free, filtered) = (thread::spawn(each).join().unwrap(), confined(each));
    println!("a system call takes {free:?}, with the filter {filtered:?}");
}
