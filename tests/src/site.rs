//! The folder of one deployment, and what the owner, the operator and a client write into it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use adyton_model::dense::{Activation, Dense, DenseModel, Kernel, Layer};

use crate::process::{Outcome, Running, program};

/// Features of the test model.
pub const FEATURES: usize = 8;
/// The model's version: a string that is part of every answer.
pub const CANARY_VERSION: &str = "canary-answer-6c1f0e93";

/// A port nobody listens on at the moment.
///
/// Below the range from which the system gives ports to outgoing connections, and spread by process, so that tests side
/// by side do not take each other's.
///
/// # Panics
/// If the machine has none.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id().wrapping_mul(97);
    for _ in 0..2000 {
        let step = begin.wrapping_add(u32::from(NEXT.fetch_add(1, Ordering::Relaxed)));
        let port = 12_000 + u16::try_from(step % 20_000).expect("below 20000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 12000 and 32000");
}

/// The weights of the test model: numbers that are found nowhere by chance.
#[must_use]
pub fn canary_weights() -> Vec<f32> {
    (0..2 * FEATURES)
        .map(|at| f32::from_bits(0x3e5a_c37d ^ (u32::try_from(at).expect("small") * 0x0001_9e37)))
        .collect()
}

/// A deployment.
pub struct Site {
    /// Its folder.
    pub folder: tempfile::TempDir,
    /// Where clients connect.
    pub client_port: u16,
    /// Where the enclave listens.
    pub enclave_port: u16,
    /// Where the host relays to: the enclave, or a tap before it.
    pub relay_target: u16,
    /// Where the host hands out files.
    pub files_port: u16,
    /// Where the broker listens.
    pub broker_port: u16,
}

impl Site {
    /// Makes keys, a sealed model, a simulator and all configuration; `direction` is `pull` or `push`.
    ///
    /// # Panics
    /// If any of it fails.
    #[must_use]
    pub fn new(direction: &str) -> Self {
        let enclave_port = free_port();
        let site = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            client_port: free_port(),
            enclave_port,
            relay_target: enclave_port,
            files_port: free_port(),
            broker_port: free_port(),
        };
        fs::write(site.path("model.safetensors"), model_bytes()).expect("the model is written");
        site.succeed(&["key", "new", "--owner", "owner"]);
        site.seal("model.safetensors");
        let setup = Outcome::of("adyton-simulator", &["setup", "--dir", "simulator"], site.folder.path());
        assert_eq!(setup.code, 0, "{setup:?}");
        site.write_document(direction, "");
        site.write_host();
        site.write_trust("");
        site.write_broker();
        site
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The address of the service.
    #[must_use]
    pub fn url(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// Runs `adyton` in the folder.
    #[must_use]
    pub fn adyton(&self, arguments: &[&str]) -> Outcome {
        Outcome::of("adyton", arguments, self.folder.path())
    }

    /// Runs `adyton`, which must succeed.
    ///
    /// # Panics
    /// If it does not.
    pub fn succeed(&self, arguments: &[&str]) -> Outcome {
        let outcome = self.adyton(arguments);
        assert_eq!(outcome.code, 0, "adyton {arguments:?}: {outcome:?}");
        outcome
    }

    /// Seals a model as the next version.
    pub fn seal(&self, model: &str) {
        self.succeed(&[
            "model",
            "seal",
            model,
            "--owner",
            "owner",
            "--name",
            "canary",
            "--model-version",
            CANARY_VERSION,
            "--policy-id",
            "canary-v1",
            "--out",
            "sealed",
        ]);
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("the file is there").trim().to_owned()
    }

    /// Writes the launch document, with more lines at its end.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_document(&self, direction: &str, more: &str) {
        let (owner, spki) = (self.read("owner/owner.pub"), self.read("owner/broker-tls.spki"));
        let broker = match direction {
            "pull" => format!("broker = '127.0.0.1:{}'\nbroker_spki = '{spki}'\n", self.broker_port),
            _ => String::new(),
        };
        let document = format!(
            "version = 1\nservice_id = 'canary'\nowner_root = '{owner}'\nlisten = '127.0.0.1:{}'\nfiles = '127.0.0.1:{}'\n\
             [release]\ndirection = '{direction}'\n{broker}{more}",
            self.enclave_port, self.files_port
        );
        fs::write(self.path("launch.toml"), document).expect("the document is written");
    }

    /// Writes the host's configuration.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_host(&self) {
        let (simulator, enclave) = (program("adyton-simulator"), self.enclave_program());
        let config = format!(
            "listen = '127.0.0.1:{}'\nenclave = '127.0.0.1:{}'\nfiles_listen = '127.0.0.1:{}'\nsealed_dir = 'sealed'\ngrace_s = 2\n\
             [launch]\nsimulator = '{}'\nsimulator_dir = 'simulator'\nprogram = '{}'\ndocument = 'launch.toml'\n",
            self.client_port,
            self.relay_target,
            self.files_port,
            simulator.display(),
            enclave.display()
        );
        fs::write(self.path("host.toml"), config).expect("the configuration is written");
    }

    /// The enclave program that is launched: a copy in the folder if there is one, otherwise this build's.
    fn enclave_program(&self) -> PathBuf {
        let copy = self.path("adyton-enclave");
        if copy.exists() { copy } else { program("adyton-enclave") }
    }

    /// The `[evidence]` table that accepts this build's enclave with the launch document as it is now.
    fn evidence(&self, more: &str) -> String {
        let enclave = program("adyton-enclave");
        let enclave = enclave.to_str().expect("a plain path");
        let measured =
            self.succeed(&["measure", "process", "--program", enclave, "--document", "launch.toml"]).stdout;
        format!("[evidence]\n{measured}dangerous_simulator_root = 'simulator/root.der'\n{more}")
    }

    /// Writes the client's trust file, with more lines in its `[evidence]` table.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_trust(&self, more: &str) {
        self.write_trust_with(&self.evidence(more));
    }

    fn write_trust_with(&self, evidence: &str) {
        let owner = self.read("owner/owner.pub");
        let trust = format!("owner_key = '{owner}'\nmanifests = 'any'\n{evidence}");
        fs::write(self.path("trust.toml"), trust).expect("the trust file is written");
    }

    /// Makes client and broker judge by this `[evidence]` table.
    ///
    /// # Panics
    /// If a file cannot be written.
    pub fn write_rules(&self, evidence: &str) {
        self.write_trust_with(evidence);
        self.write_broker_with(evidence);
    }

    /// Writes the broker's configuration.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_broker(&self) {
        self.write_broker_with(&self.evidence(""));
    }

    fn write_broker_with(&self, evidence: &str) {
        let config = format!(
            "listen = '127.0.0.1:{}'\nowner_dir = 'owner'\ndatabase = 'broker.sqlite'\nmanifest = 'sealed/manifest.cose'\n\
             policy_id = 'canary-v1'\n{evidence}",
            self.broker_port
        );
        fs::write(self.path("broker.toml"), config).expect("the configuration is written");
    }

    /// Starts the broker.
    #[must_use]
    pub fn start_broker(&self) -> Running {
        Running::start(
            "adyton",
            &["broker", "serve", "--config", "broker.toml"],
            self.folder.path(),
            "broker.log",
        )
    }

    /// Starts the host, which launches the enclave.
    #[must_use]
    pub fn start_host(&self) -> Running {
        Running::start("adyton-host", &["serve", "--config", "host.toml"], self.folder.path(), "host.log")
    }

    /// Verifies until the service is accepted.
    ///
    /// # Panics
    /// If it is not within half a minute.
    pub fn wait_until_accepted(&self) {
        let last = self.wait_for(|outcome| outcome.code == 0);
        assert_eq!(last.code, 0, "never accepted: {last:?}");
    }

    /// Verifies again and again until `done` says so, or half a minute is over; returns the last outcome.
    pub fn wait_for(&self, done: impl Fn(&Outcome) -> bool) -> Outcome {
        let begun = Instant::now();
        loop {
            let outcome = self.adyton(&["verify", &self.url(), "--json"]);
            if done(&outcome) || begun.elapsed() > Duration::from_secs(30) {
                return outcome;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a program's messages hold `text`.
    ///
    /// # Panics
    /// If they do not within half a minute.
    pub fn wait_for_message(&self, program: &Running, text: &str) {
        let begun = Instant::now();
        while !program.messages().contains(text) {
            assert!(begun.elapsed() < Duration::from_secs(30), "no {text:?} in:\n{}", program.messages());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Writes a CSV of `rows` rows, whose first cell is `first`.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_rows(&self, name: &str, first: &str, rows: usize) {
        let header: Vec<String> = (0..FEATURES).map(|at| format!("f{at}")).collect();
        let mut text = header.join(",") + "\n";
        for row in 0..rows {
            let cells = (1..FEATURES).map(|at| format!("{}", (row + at) % 7));
            text += &std::iter::once(first.to_owned()).chain(cells).collect::<Vec<_>>().join(",");
            text.push('\n');
        }
        fs::write(self.path(name), text).expect("the rows are written");
    }

    /// The one sealed file of the newest version.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn sealed_file(&self) -> PathBuf {
        let newest =
            |path: &Path| fs::metadata(path).and_then(|data| data.modified()).expect("it has a time");
        let files = fs::read_dir(self.path("sealed")).expect("the folder is there");
        let sealed = files.map(|entry| entry.expect("an entry").path());
        sealed
            .filter(|path| path.extension().is_some_and(|end| end == "sealed"))
            .max_by_key(|path| newest(path))
            .expect("a sealed file")
    }
}

fn model_bytes() -> Vec<u8> {
    let dense =
        Dense { inputs: FEATURES, outputs: 2, kernel: Kernel::F32(canary_weights()), bias: vec![0.25, -0.5] };
    let layers = vec![Layer::Dense(dense), Layer::Activation(Activation::Softmax)];
    let model = DenseModel::new(FEATURES, layers).expect("the layers fit");
    model.to_safetensors().expect("a model encodes")
}
