//! For the demonstration: an enclave whose TLS key was copied, and a relay that ends TLS with the copy.
//!
//! `adyton-relay-attack DOCUMENT PROGRAM SIMULATOR ENCLAVE_PORT PORT` runs both until it is killed.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use adyton_tests::{relay, run_enclave};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [document, program, simulator, enclave_port, port] = arguments.as_slice() else {
        return ExitCode::from(1);
    };
    let (Ok(enclave_port), Ok(port)) = (enclave_port.parse(), port.parse()) else { return ExitCode::from(1) };
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return ExitCode::from(1) };
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let stolen = run_enclave(Path::new(document), Path::new(program), Path::new(simulator), &stop);
        relay(port, &stolen, enclave_port).await;
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}
