//! The report port: what the guest has instead of `/dev/sev-guest`, a Unix stream socket.
//!
//! Request: `u8 version = 1 || report_data (64 bytes)`. Response: `u8 version = 1 || u32be len || report || u32be len
//! || certificate table`. The port signs for one launch only; the guest chooses nothing but REPORT_DATA. A request of
//! another version ends the connection, and so does the guest's end.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixListener;

use std::time::Duration;

use crate::error::SimulatorError;
use crate::processor::{LaunchContext, Simulator};

/// Version of request and response.
pub const PORT_VERSION: u8 = 1;
/// How long a connection of a machine may be silent.
const IDLE: Duration = Duration::from_secs(5);
const REQUEST_LEN_BYTES: usize = 65;

/// Answers requests on `stream` until the guest closes it or sends what is no request.
///
/// # Errors
/// [`SimulatorError::Launch`] if the stream fails, [`SimulatorError::Crypto`] if the system has no randomness.
pub fn serve_port(
    mut stream: impl Read + Write,
    simulator: &Simulator,
    context: &LaunchContext,
) -> Result<(), SimulatorError> {
    loop {
        let mut request = [0; REQUEST_LEN_BYTES];
        match stream.read_exact(&mut request) {
            Ok(()) => {}
            // How a guest ends, cleanly or with an answer unread.
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return Ok(());
            }
            Err(error) => return Err(SimulatorError::launch("read a report request")(error)),
        }
        let [PORT_VERSION, report_data @ ..] = &request else { return Ok(()) };
        let report = simulator.report(context, report_data)?;
        let response = encode_response(&report, simulator.certificate_table());
        stream.write_all(&response).map_err(SimulatorError::launch("answer a report request"))?;
    }
}

/// Answers every connection that arrives at `listener`, one after the other, as [`serve_port`] does.
///
/// # Errors
/// [`SimulatorError::Launch`] if the listener fails; a connection that fails is only the end of that connection.
pub fn serve_ports(
    listener: &UnixListener,
    simulator: &Simulator,
    context: &LaunchContext,
) -> Result<(), SimulatorError> {
    loop {
        let (stream, _) = listener.accept().map_err(SimulatorError::launch("accept a report request"))?;
        // One that sends nothing must not keep the others waiting for ever.
        let limited = stream.set_read_timeout(Some(IDLE)).and_then(|()| stream.set_write_timeout(Some(IDLE)));
        if limited.is_ok() {
            let _ = serve_port(stream, simulator, context);
        }
    }
}

fn encode_response(report: &[u8], certificate_table: &[u8]) -> Vec<u8> {
    let mut response = vec![PORT_VERSION];
    for part in [report, certificate_table] {
        let len = u32::try_from(part.len()).expect("a report and a table are a few KiB");
        response.extend_from_slice(&len.to_be_bytes());
        response.extend_from_slice(part);
    }
    response
}
