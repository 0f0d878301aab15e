//! Starts the enclave and keeps it running.
//!
//! A stopped enclave is started again after a pause that doubles from a quarter of a second; five ends within a minute
//! are a fault that an operator has to look at, and end the host.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::{HostError, Launch};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const MAX_FAILURES: u32 = 5;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Runs the enclave until `stop` turns true.
pub(crate) async fn supervise(
    launch: &Launch,
    grace: Duration,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), HostError> {
    tracing::warn!(
        "SIMULATED, NOT CONFIDENTIAL: the enclave runs as a process under the software secure processor"
    );
    let mut failures = Failures { first: Instant::now(), count: 0 };
    loop {
        let mut child = start(launch)?;
        let status = tokio::select! {
            status = child.wait() => status?,
            () = stop.cancelled() => return end(child, grace).await,
        };
        let pause = failures.next(status)?;
        tracing::warn!(%status, pause_ms = pause.as_millis(), "the enclave ended; starting it again");
        metrics.restarts.inc();
        tokio::select! {
            () = tokio::time::sleep(pause) => (),
            () = stop.cancelled() => return Ok(()),
        }
    }
}

fn start(launch: &Launch) -> Result<Child, HostError> {
    Command::new(&launch.simulator)
        .arg("launch")
        .arg("--dir")
        .arg(&launch.simulator_dir)
        .arg("--program")
        .arg(&launch.program)
        .arg("--document")
        .arg(&launch.document)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| HostError::Launch { program: launch.simulator.clone(), source })
}

/// Asks the launcher to stop, which passes it on; ends it after `grace`.
async fn end(mut child: Child, grace: Duration) -> Result<(), HostError> {
    if let Some(pid) =
        child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
    {
        // The process may have ended in this instant; `wait` below sees that.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

struct Failures {
    first: Instant,
    count: u32,
}

impl Failures {
    /// The pause before the next start.
    fn next(&mut self, status: ExitStatus) -> Result<Duration, HostError> {
        if self.first.elapsed() > FAILURE_WINDOW {
            *self = Self { first: Instant::now(), count: 0 };
        }
        self.count += 1;
        if self.count >= MAX_FAILURES {
            return Err(HostError::CrashLoop { times: self.count, status: status.to_string() });
        }
        Ok(FIRST_PAUSE * (1 << (self.count - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn launch(folder: &Path, script: &str) -> Launch {
        use std::os::unix::fs::PermissionsExt as _;
        let simulator = folder.join("launcher");
        std::fs::write(&simulator, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&simulator, std::fs::Permissions::from_mode(0o755)).unwrap();
        Launch { simulator, simulator_dir: folder.into(), program: folder.into(), document: folder.into() }
    }

    #[tokio::test]
    async fn an_enclave_that_keeps_ending_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let launch = launch(folder.path(), "exit 3");
        let stopped = CancellationToken::new();
        let metrics = Arc::new(Metrics::new());
        let error = supervise(&launch, FIRST_PAUSE, metrics.clone(), stopped).await.unwrap_err();
        assert!(matches!(error, HostError::CrashLoop { times: MAX_FAILURES, .. }), "{error}");
        assert_eq!(metrics.restarts.get(), u64::from(MAX_FAILURES) - 1);
    }

    #[tokio::test]
    async fn stopping_ends_the_enclave_even_if_it_ignores_the_request() {
        let folder = tempfile::tempdir().unwrap();
        let launch = launch(folder.path(), "trap '' TERM; exec sleep 60");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task =
            tokio::spawn(
                async move { supervise(&launch, FIRST_PAUSE, Arc::new(Metrics::new()), stopped).await },
            );
        tokio::time::sleep(FIRST_PAUSE).await;
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), task).await.expect("ends in time").unwrap().unwrap();
    }
}
