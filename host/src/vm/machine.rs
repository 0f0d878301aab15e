//! One life of one machine: its programs, its sockets, and what the host serves to it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixListener};
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::command::{CONTROL_SOCKET, DEVICE_SOCKET, GUEST_SOCKET, device, machine};
use super::image::Image;
use super::supervise::Site;
use super::{
    BROKER_PORT, DOCUMENT_PORT, FILES_PORT, REPORT_PORT, STOP_PORT, Vm, Vsock, child, console, events,
    firmware,
};
use crate::HostError;
use crate::blobs;
use crate::link::{Accept, KernelVsock, Link, Stream, UserVsock};

const MAX_DOCUMENT_LEN: u64 = 64 << 10;
/// How long the user-space device may take to make its socket.
const DEVICE_LIMIT: Duration = Duration::from_secs(10);
/// How long a guest may take to read its document.
const DOCUMENT_LIMIT: Duration = Duration::from_secs(10);
/// How long after its end an emulator's last words may arrive.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);
/// One end of a forwarded connection may be silent for so long.
const FORWARD_LIMIT: Duration = Duration::from_secs(120);

/// A started machine. Dropping it ends it.
pub(crate) struct Machine {
    emulator: Child,
    device: Option<Child>,
    pub(crate) link: Arc<dyn Link>,
    /// Over once the guest has called for its document. Before that nobody calls the guest: one that has no driver yet
    /// does not refuse, and some devices in user space then never carry anything.
    pub(crate) called: CancellationToken,
    /// Why it ended, once it has.
    why: JoinHandle<Option<&'static str>>,
    /// Ends what is served to it.
    over: CancellationToken,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

impl Machine {
    /// Starts the programs of `vm` and what the host serves to it.
    pub(crate) async fn start(vm: &Vm, site: &Site) -> Result<Self, HostError> {
        let failed = |program: &Path| {
            let program = program.to_owned();
            move |source| HostError::Launch { program, source }
        };
        let image = Image::read(&vm.image)?;
        image.verify_for(vm)?;
        firmware::verify(&vm.firmware, vm.platform)?;
        let document = read_document(&vm.document).map_err(failed(&vm.document))?;
        let runtime = site.runtime_dir.join(&vm.name);
        prepare(&runtime).map_err(failed(&runtime))?;
        let (over, called) = (CancellationToken::new(), CancellationToken::new());
        let guard = over.clone().drop_guard();

        let device = match device(vm, &runtime) {
            Some(line) => {
                let mut child = child::start(&line).map_err(failed(Path::new(&line[0])))?;
                follow(&mut child, vm, "vsock");
                wait_for(&runtime.join(DEVICE_SOCKET)).await.map_err(failed(Path::new(&line[0])))?;
                Some(child)
            }
            None => None,
        };
        let link: Arc<dyn Link> = match vm.vsock {
            Vsock::User(_) => Arc::new(UserVsock(runtime.join(GUEST_SOCKET))),
            Vsock::Kernel => Arc::new(KernelVsock { switch: site.switch.clone(), cid: vm.cid }),
        };
        let serving = |port| link.listen(port).map_err(failed(&runtime));
        tokio::spawn(until(
            over.clone(),
            hand_out(serving(DOCUMENT_PORT)?, document.clone(), called.clone()),
        ));
        let files = blobs::run(serving(FILES_PORT)?, site.files.clone(), site.metrics.clone(), over.clone());
        tokio::spawn(files);
        if let Some(broker) = site.broker.clone() {
            tokio::spawn(until(over.clone(), forward(serving(BROKER_PORT)?, broker)));
        }

        let control = UnixListener::bind(runtime.join(CONTROL_SOCKET)).map_err(failed(&runtime))?;
        let listening = over.clone();
        let why =
            tokio::spawn(async move { listening.run_until_cancelled(events::end(control)).await.flatten() });
        let line = machine(vm, &image, &document, &runtime);
        let mut emulator = child::start(&line).map_err(failed(Path::new(&line[0])))?;
        follow(&mut emulator, vm, "console");
        let _ = guard.disarm();
        Ok(Self { emulator, device, link, called, why, over })
    }

    /// Waits until one of its programs ends, and says which and how.
    pub(crate) async fn ended(&mut self) -> String {
        let device = async {
            match &mut self.device {
                Some(device) => device.wait().await,
                None => std::future::pending().await,
            }
        };
        let (name, status) = tokio::select! {
            status = self.emulator.wait() => ("machine", status),
            status = device => ("vsock device", status),
        };
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let why =
            if name == "machine" { timeout(LAST_WORDS_LIMIT, &mut self.why).await } else { Ok(Ok(None)) };
        match why {
            Ok(Ok(Some(why))) => format!("{name}: {status}, {why}"),
            _ => format!("{name}: {status}"),
        }
    }

    /// Asks the guest to stop, and ends it after `grace`.
    pub(crate) async fn stop(mut self, grace: Duration) {
        let asked = timeout(grace, self.link.connect(STOP_PORT)).await;
        if matches!(asked, Ok(Ok(_))) && timeout(grace, self.emulator.wait()).await.is_ok() {
            return;
        }
        // Both are also killed when dropped; this waits for it.
        let _ = self.emulator.kill().await;
    }
}

fn read_document(path: &Path) -> io::Result<Vec<u8>> {
    if std::fs::metadata(path)?.len() > MAX_DOCUMENT_LEN {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a launch document has at most 64 KiB"));
    }
    std::fs::read(path)
}

/// Makes the runtime folder, and clears the sockets that a killed host left there.
fn prepare(runtime: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(runtime)?;
    let ports =
        [DOCUMENT_PORT, FILES_PORT, BROKER_PORT, REPORT_PORT].map(|port| format!("{GUEST_SOCKET}_{port}"));
    for name in
        [DEVICE_SOCKET, GUEST_SOCKET, CONTROL_SOCKET].into_iter().chain(ports.iter().map(String::as_str))
    {
        match std::fs::remove_file(runtime.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
    }
    Ok(())
}

async fn wait_for(socket: &Path) -> io::Result<()> {
    let there = async {
        while !socket.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEVICE_LIMIT, there).await.map_err(|_| io::ErrorKind::TimedOut.into())
}

/// Turns a program's output into messages. What the guest says is quoted as it came; it is nobody's word but its own.
fn follow(child: &mut Child, vm: &Vm, what: &'static str) {
    if let Some(output) = child.stdout.take() {
        let name = vm.name.clone();
        tokio::spawn(console::follow(output, move |line| tracing::info!("{name} {what}: {line}")));
    }
    if let Some(output) = child.stderr.take() {
        let name = vm.name.clone();
        tokio::spawn(console::follow(output, move |line| {
            // One for each feature of the wanted processor that emulation lacks.
            if line.contains("TCG doesn't support requested feature") {
                tracing::debug!("{name}: {line}");
            } else {
                tracing::info!("{name}: {line}");
            }
        }));
    }
}

async fn until(over: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => (),
        () = over.cancelled() => (),
    }
}

/// Hands the same bytes to every caller, and ends `called` with the first.
async fn hand_out(listener: Box<dyn Accept>, document: Vec<u8>, called: CancellationToken) {
    let document: Arc<[u8]> = document.into();
    while let Some(mut stream) = accepted(&*listener).await {
        called.cancel();
        let document = document.clone();
        tokio::spawn(async move {
            let sent = async {
                stream.write_all(&document).await?;
                stream.shutdown().await
            };
            // A caller that goes away asks again.
            let _ = timeout(DOCUMENT_LIMIT, sent).await;
        });
    }
}

/// Carries every call to the broker and back.
async fn forward(listener: Box<dyn Accept>, broker: String) {
    while let Some(mut guest) = accepted(&*listener).await {
        let broker = broker.clone();
        tokio::spawn(async move {
            let carried = async {
                let mut server = match TcpStream::connect(&broker).await {
                    Ok(server) => server,
                    Err(error) => return tracing::warn!(%error, %broker, "the broker cannot be reached"),
                };
                let _ = server.set_nodelay(true);
                // Either end may simply go away; whether that was right, the guest and the broker know.
                let _ = tokio::io::copy_bidirectional(&mut guest, &mut server).await;
            };
            if timeout(FORWARD_LIMIT, carried).await.is_err() {
                tracing::warn!(%broker, "a call to the broker took too long");
            }
        });
    }
}

async fn accepted(listener: &dyn Accept) -> Option<Stream> {
    loop {
        match listener.accept().await {
            Ok(stream) => return Some(stream),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return None,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of a guest");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
