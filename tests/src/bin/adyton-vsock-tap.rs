//! The vsock device of a machine with a recorder before and behind it: every byte that crosses the boundary, both ways.
//!
//! Takes the arguments of `vhost-device-vsock` and starts it (the program named by `ADYTON_VHOST_DEVICE_VSOCK`) with its
//! sockets elsewhere; what goes through is written to `crossed.bin` beside them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test tool: a failed step is a failed test")]

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

/// Ports of the host that a guest calls.
const PORTS: [u32; 4] = [7001, 7002, 7003, 7004];

type Record = Arc<Mutex<File>>;

fn main() {
    let machine = std::env::args().nth(2).expect("--vm guest-cid=,socket=,uds-path=");
    let (rest, outer) = machine.split_once(",uds-path=").expect("a path");
    let inner = format!("{outer}.inner");
    let program = std::env::var("ADYTON_VHOST_DEVICE_VSOCK").expect("the device");
    for path in [inner.clone(), outer.to_owned()] {
        let _ = std::fs::remove_file(path);
    }
    let folder = std::path::Path::new(outer).parent().expect("a folder");
    let record = OpenOptions::new().create(true).append(true).open(folder.join("crossed.bin")).unwrap();
    let record = Arc::new(Mutex::new(record));
    // What the host calls in the guest, and what the guest calls on the host.
    let mut ways = vec![(outer.to_owned(), inner.clone())];
    ways.extend(PORTS.map(|port| (format!("{inner}_{port}"), format!("{outer}_{port}"))));
    for (from, to) in ways {
        let _ = std::fs::remove_file(&from);
        let (listener, record) = (UnixListener::bind(&from).unwrap(), record.clone());
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let Ok(called) = UnixStream::connect(&to) else { continue };
                for (a, b) in [(&caller, &called), (&called, &caller)] {
                    let (a, b) = (a.try_clone().unwrap(), b.try_clone().unwrap());
                    let record = record.clone();
                    thread::spawn(move || pump(a, b, &record));
                }
            }
        });
    }
    // The device ends with this process, however that ends.
    let host = std::env::current_exe().unwrap().with_file_name("adyton-host");
    let machine = format!("{rest},uds-path={inner}");
    let own = std::process::id().to_string();
    let status = Command::new(host).args(["tied", &own, &program, "--vm", &machine]).status().unwrap();
    std::process::exit(status.code().unwrap_or(1));
}

fn pump(mut from: UnixStream, mut to: UnixStream, record: &Record) {
    let mut buffer = [0; 16 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        record.lock().unwrap().write_all(&buffer[..len]).unwrap();
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
