//! A recording relay: what somebody on the wire, or the host itself, gets to see.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Forwards connections to a target and keeps every byte.
pub struct Tap {
    /// Where to connect.
    pub port: u16,
    recorded: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Listens on `port` and forwards to `target`.
    ///
    /// # Panics
    /// If the port is taken.
    #[must_use]
    pub fn start(port: u16, target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let record = recorded.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let pairs = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
                for (from, to) in pairs {
                    let (Ok(from), Ok(to)) = (from, to) else { continue };
                    let record = record.clone();
                    thread::spawn(move || pump(from, to, &record));
                }
            }
        });
        Self { port, recorded }
    }

    /// Every byte so far, both directions.
    #[must_use]
    pub fn recorded(&self) -> Vec<u8> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, record: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 16 << 10];
    while let Ok(len) = from.read(&mut buffer) {
        if len == 0 || to.write_all(&buffer[..len]).is_err() {
            break;
        }
        record.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..len]);
    }
    let _ = to.shutdown(Shutdown::Write);
}
