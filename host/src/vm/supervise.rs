//! Keeps machines running: each is started, watched, and started again after a pause that doubles.
//!
//! A machine counts as up when its service accepts connections; until then it gets no clients. One that does not answer
//! in time is ended and started again, and so is one that stops answering. The pause begins anew with each machine that
//! came up, so a single fault costs a quarter of a second and a lasting one no more than a start each half minute.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::machine::Machine;
use super::{Platform, SERVICE_PORT, Vm};
use crate::HostError;
use crate::blobs::Content;
use crate::link::{Link, Switch};
use crate::metrics::Metrics;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Between two looks at a machine that is not up yet, and at one that is.
const BOOT_PROBE: Duration = Duration::from_millis(250);
const PROBE: Duration = Duration::from_secs(5);
/// How long a healthy guest takes to accept a connection on a busy host.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// So many looks in a row without an answer end a machine.
const MAX_SILENT: u32 = 3;

/// What all machines of a host share.
pub(crate) struct Site {
    pub(crate) runtime_dir: PathBuf,
    pub(crate) files: Content,
    /// Where the model owner's broker is, `host:port`.
    pub(crate) broker: Option<String>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) switch: Arc<Switch>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) grace: Duration,
}

/// Who takes clients now.
#[derive(Default)]
pub(crate) struct Fleet {
    slots: Vec<RwLock<Option<Arc<dyn Link>>>>,
    next: AtomicUsize,
}

impl Fleet {
    /// Places for `count` machines, none of them up.
    pub(crate) fn new(count: usize) -> Self {
        Self { slots: (0..count).map(|_| RwLock::default()).collect(), next: AtomicUsize::new(0) }
    }

    /// One enclave that something else looks after.
    pub(crate) fn of(link: Arc<dyn Link>) -> Self {
        Self { slots: vec![RwLock::new(Some(link))], next: AtomicUsize::new(0) }
    }

    /// The next in turn of those that are up.
    pub(crate) fn pick(&self) -> Option<Arc<dyn Link>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let slots = self.slots.iter().cycle().skip(first % self.slots.len().max(1)).take(self.slots.len());
        slots.filter_map(|slot| slot.read().unwrap_or_else(PoisonError::into_inner).clone()).next()
    }

    fn set(&self, at: usize, link: Option<Arc<dyn Link>>) {
        if let Some(slot) = self.slots.get(at) {
            *slot.write().unwrap_or_else(PoisonError::into_inner) = link;
        }
    }
}

/// Runs machine number `at` until `stop`.
pub(crate) async fn supervise(vm: &Vm, at: usize, site: &Site, stop: CancellationToken) {
    if vm.platform == Platform::Simulated {
        tracing::warn!("SIMULATED, NOT CONFIDENTIAL: {} runs under a secure processor in software", vm.name);
    }
    let mut pause = FIRST_PAUSE;
    loop {
        let ended = match Machine::start(vm, site).await {
            Ok(machine) => life(machine, vm, at, site, &stop, &mut pause).await,
            Err(error) => Some(error),
        };
        site.fleet.set(at, None);
        let Some(why) = ended else { return };
        tracing::warn!(pause_ms = pause.as_millis(), "{}: {why}; starting it again", vm.name);
        site.metrics.restarts.inc();
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = stop.cancelled() => return,
        }
    }
}

/// What happens first.
enum Turn {
    Ended(String),
    Stop,
    Up,
    Silent,
}

/// One life, to its end; `None` if that was asked for.
async fn life(
    mut machine: Machine,
    vm: &Vm,
    at: usize,
    site: &Site,
    stop: &CancellationToken,
    pause: &mut Duration,
) -> Option<HostError> {
    let failed = |message: String| Some(HostError::Vm { name: vm.name.clone(), message });
    let link = machine.link.clone();
    let limit = Duration::from_secs(vm.boot_limit_s);
    let called = machine.called.clone();
    let booted = timeout(limit, async {
        called.cancelled().await;
        until_answer(&*link).await;
    });
    let turn = tokio::select! {
        why = machine.ended() => Turn::Ended(why),
        () = stop.cancelled() => Turn::Stop,
        booted = booted => if booted.is_ok() { Turn::Up } else { Turn::Silent },
    };
    let turn = match turn {
        Turn::Up => {
            *pause = FIRST_PAUSE;
            tracing::info!("{} is up", vm.name);
            site.fleet.set(at, Some(link.clone()));
            tokio::select! {
                why = machine.ended() => Turn::Ended(why),
                () = stop.cancelled() => Turn::Stop,
                () = until_silent(&*link) => Turn::Silent,
            }
        }
        other => other,
    };
    site.fleet.set(at, None);
    match turn {
        Turn::Ended(why) => failed(format!("it ended ({why})")),
        Turn::Silent => failed("its service does not answer".into()),
        Turn::Stop | Turn::Up => {
            machine.stop(site.grace).await;
            None
        }
    }
}

async fn until_answer(link: &dyn Link) {
    while !answers(link).await {
        sleep(BOOT_PROBE).await;
    }
}

async fn until_silent(link: &dyn Link) {
    let mut silent = 0;
    while silent < MAX_SILENT {
        sleep(PROBE).await;
        silent = if answers(link).await { 0 } else { silent + 1 };
    }
}

/// Whether a machine's service accepts a connection.
async fn answers(link: &dyn Link) -> bool {
    matches!(timeout(ANSWER_LIMIT, link.connect(SERVICE_PORT)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::TcpLink;

    #[test]
    fn clients_go_to_machines_that_are_up_in_turn() {
        let fleet = Fleet::new(3);
        assert!(fleet.pick().is_none(), "none is up");
        let link = |port: u16| -> Arc<dyn Link> { Arc::new(TcpLink(([127, 0, 0, 1], port).into())) };
        let (first, third) = (link(1), link(3));
        fleet.set(0, Some(first.clone()));
        fleet.set(2, Some(third.clone()));
        let picked: Vec<_> = (0..6).filter_map(|_| fleet.pick()).collect();
        assert_eq!(picked.len(), 6);
        assert!(picked.iter().any(|link| Arc::ptr_eq(link, &first)));
        assert!(picked.iter().any(|link| Arc::ptr_eq(link, &third)));
        fleet.set(0, None);
        assert!(fleet.pick().is_some_and(|link| Arc::ptr_eq(&link, &third)));
        assert!(Fleet::default().pick().is_none());
    }
}
