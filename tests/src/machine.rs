//! A deployment whose enclave is a virtual machine: the same owner, broker, host and clients, and one `[[vm]]`.
//!
//! Needs the test image (`scripts/image --test`), QEMU, OVMF and `vhost-device-vsock`; `scripts/test` brings what it may.
//! Where one is missing, [`Machine::tools`] says so aloud and the test does nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Outcome, Running, program};
use crate::site::Site;

/// Emulation on a busy machine: a boot takes 3 to 60 s.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

/// What a machine is started from.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Folder of the test image.
    pub image: PathBuf,
    /// The vsock device in user space.
    pub vsock: PathBuf,
}

impl Tools {
    /// What is here, or `None` with a line that says what is missing.
    #[must_use]
    #[allow(clippy::print_stderr, reason = "a test that is left out says so")]
    pub fn find() -> Option<Self> {
        let target =
            program("adyton-simulator").ancestors().nth(2).expect("target/PROFILE/program").to_owned();
        let named = |name: &str, or: PathBuf| std::env::var_os(name).map_or(or, PathBuf::from);
        let image = named("ADYTON_TEST_IMAGE", target.join("image/test"));
        let vsock = named("ADYTON_VHOST_DEVICE_VSOCK", target.join("vm-tools/bin/vhost-device-vsock"));
        let qemu = on_path("qemu-system-x86_64");
        let missing = [
            (!image.join("image.toml").exists(), "the test image (scripts/image --test)"),
            (!vsock.exists(), "vhost-device-vsock (scripts/test installs it)"),
            (!qemu, "qemu-system-x86_64"),
            (!Path::new(OVMF).exists(), "OVMF"),
        ];
        match missing.iter().find(|(missing, _)| *missing) {
            Some((_, what)) => {
                eprintln!("skipped: no virtual machine without {what}");
                assert!(std::env::var_os("ADYTON_REQUIRE_VM").is_none(), "{what} is missing and required");
                None
            }
            None => Some(Self { image, vsock }),
        }
    }
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).exists())
}

/// A site with machines.
pub struct Machine {
    /// Owner, broker, host and clients.
    pub site: Site,
    tools: Tools,
}

impl Machine {
    /// A site with one machine, or `None` where there can be none.
    #[must_use]
    pub fn new() -> Option<Self> {
        let tools = Tools::find()?;
        let site = Site::new("pull");
        let firmware = Outcome::of(
            "adyton-simulator",
            &["firmware", "--ovmf", OVMF, "--out", "OVMF.fd"],
            site.folder.path(),
        );
        assert_eq!(firmware.code, 0, "{firmware:?}");
        let machine = Self { site, tools };
        machine.copy_image("image", |_| ());
        machine.write_document("");
        machine.write_host(&["one"], "");
        machine.expect_image("image");
        Some(machine)
    }

    /// Folder of the image for hardware, or `None` with a line where it was not built (`scripts/image`).
    #[must_use]
    #[allow(clippy::print_stderr, reason = "a test that is left out says so")]
    pub fn production_image(&self) -> Option<PathBuf> {
        let image = self.tools.image.with_file_name("production");
        if !image.join("image.toml").exists() {
            eprintln!("skipped: no production image (scripts/image)");
            return None;
        }
        Some(image)
    }

    /// Copies the test image into the site's folder `name`, with a change.
    ///
    /// # Panics
    /// If a file cannot be copied.
    pub fn copy_image(&self, name: &str, change: impl FnOnce(&Path)) {
        let folder = self.site.path(name);
        fs::create_dir_all(&folder).expect("the folder is made");
        for file in ["vmlinuz", "guest.cpio", "image.toml", "materials.cdx.json"] {
            fs::copy(self.tools.image.join(file), folder.join(file)).expect("the image is there");
        }
        change(&folder);
    }

    /// Writes a launch document for a guest, with more lines at its end.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_document(&self, more: &str) {
        let read =
            |name: &str| fs::read_to_string(self.site.path(name)).expect("it is there").trim().to_owned();
        let document = format!(
            "version = 1\nservice_id = 'canary'\nowner_root = '{}'\nlisten = 'vsock:8443'\nfiles = 'vsock:7002'\n\
             [release]\ndirection = 'pull'\nbroker = 'vsock:7003'\nbroker_spki = '{}'\n{more}",
            read("owner/owner.pub"),
            read("owner/broker-tls.spki")
        );
        fs::write(self.site.path("launch.toml"), document).expect("the document is written");
    }

    /// Writes the host's configuration with machines of these names, each with `more` lines.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_host(&self, names: &[&str], more: &str) {
        let site = &self.site;
        let mut config = format!(
            "listen = '127.0.0.1:{}'\nfiles_listen = '127.0.0.1:{}'\nsealed_dir = 'sealed'\ngrace_s = 5\n\
             broker = '127.0.0.1:{}'\n",
            site.client_port, site.files_port, site.broker_port
        );
        for (cid, name) in (4..).zip(names) {
            // A machine of its own image, or of the one they share.
            let image = if site.path(name).join("image.toml").exists() { name } else { "image" };
            config += &format!(
                "[[vm]]\nname = '{name}'\nplatform = 'simulated'\naccelerator = 'tcg'\nimage = '{image}'\nfirmware = 'OVMF.fd'\n\
                 document = 'launch.toml'\nvcpus = 1\nvcpu_type = 'EPYC-Milan'\nmemory_mib = 512\ncid = {cid}\n\
                 simulator = '{}'\nsimulator_dir = 'simulator'\nvsock = {{ user = '{}' }}\n{more}",
                program("adyton-simulator").display(),
                self.tools.vsock.display()
            );
        }
        fs::write(site.path("host.toml"), config).expect("the configuration is written");
    }

    /// Makes the host start its machines with more options of the emulator, as a malicious one would.
    ///
    /// # Panics
    /// If the wrapper cannot be written.
    pub fn add_options(&self, options: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let wrapper = self.site.path("qemu-with-more");
        let folder = self.site.folder.path().display();
        let script = format!("#!/bin/sh\ncd '{folder}'\nexec qemu-system-x86_64 \"$@\" {options}\n");
        fs::write(&wrapper, script).expect("the wrapper is written");
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("it is ours");
        self.write_host(&["one"], &format!("qemu = '{}'\n", wrapper.display()));
    }

    /// Makes the host start its machine with a recorder on its vsock device: `run/one/crossed.bin`.
    ///
    /// # Panics
    /// If a file cannot be written.
    pub fn record_crossings(&self) {
        use std::os::unix::fs::PermissionsExt as _;
        let wrapper = self.site.path("vsock-with-tap");
        let tap = program("adyton-vsock-tap");
        let script = format!(
            "#!/bin/sh\nADYTON_VHOST_DEVICE_VSOCK='{}' exec '{}' \"$@\"\n",
            self.tools.vsock.display(),
            tap.display()
        );
        fs::write(&wrapper, script).expect("the wrapper is written");
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let path = self.site.path("host.toml");
        let config = fs::read_to_string(&path).expect("the configuration is there");
        let device = self.tools.vsock.display().to_string();
        fs::write(path, config.replace(&device, &wrapper.display().to_string())).expect("it is written");
    }

    /// The measurement that is predicted for an image, from its files alone, as lines of an `[evidence]` table.
    #[must_use]
    pub fn predict(&self, image: &str) -> String {
        let description = fs::read_to_string(self.site.path(image).join("image.toml")).expect("it is there");
        let cmdline =
            description.lines().find_map(|line| line.strip_prefix("cmdline = \"")).expect("a command line");
        let (kernel, initrd) = (format!("{image}/vmlinuz"), format!("{image}/guest.cpio"));
        let mut arguments = vec!["measure", "snp", "--firmware", "OVMF.fd", "--kernel", &kernel];
        arguments.extend(["--initrd", &initrd, "--cmdline", cmdline.trim_end_matches('"')]);
        arguments.extend(["--vcpus", "1", "--vcpu-type", "EPYC-Milan", "--document", "launch.toml"]);
        self.site.succeed(&arguments).stdout
    }

    /// Signs the reference values of an image with `scripts/release` and makes client and broker expect whatever they say.
    ///
    /// # Panics
    /// If a step fails.
    pub fn expect_release(&self, image: &str) {
        let site = &self.site;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/release");
        let signed = Command::new(script)
            .args(["--release", "0.1.0", "--counter", "1", "--owner", "owner", "--firmware", "OVMF.fd"])
            .args(["--image", image, "--vcpus", "1,2", "--simulated", "--out", "."])
            .env("ADYTON", program("adyton"))
            .current_dir(site.folder.path())
            .output()
            .expect("the script starts");
        assert!(signed.status.success(), "{signed:?}");
        let predicted = self.predict(image);
        let host_data = predicted.lines().find(|line| line.starts_with("host_data")).expect("it is printed");
        let key = fs::read_to_string(site.path("owner/owner.pub")).expect("the key is there");
        site.write_rules(&format!(
            "[evidence]\nmeasurements = []\n{host_data}\ndangerous_simulator_root = 'simulator/root.der'\n\
             [evidence.reference]\nfile = '0.1.0.reference.cose'\nkey = '{}'\nmin_counter = 1\n",
            key.trim()
        ));
    }

    /// Makes client and broker expect an image with the launch document as it is now.
    pub fn expect_image(&self, image: &str) {
        let measured = self.predict(image);
        self.site
            .write_rules(&format!("[evidence]\n{measured}dangerous_simulator_root = 'simulator/root.der'\n"));
    }

    /// Waits until a message holds `text`, as long as a boot may take.
    ///
    /// # Panics
    /// If none does.
    pub fn wait_for_message(&self, program: &Running, text: &str) {
        let begun = Instant::now();
        while !program.messages().contains(text) {
            assert!(begun.elapsed() < BOOT_LIMIT, "no {text:?} in:\n{}", program.messages());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Verifies until `done`, as long as a boot may take; returns the last outcome.
    pub fn wait_for(&self, done: impl Fn(&Outcome) -> bool) -> Outcome {
        let begun = Instant::now();
        loop {
            let outcome = self.site.adyton(&["verify", &self.site.url(), "--json"]);
            if done(&outcome) || begun.elapsed() > BOOT_LIMIT {
                return outcome;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Verifies until the service is accepted.
    ///
    /// # Panics
    /// If it never is; with what the host said.
    pub fn wait_until_accepted(&self, host: &Running) {
        let last = self.wait_for(|outcome| outcome.code == 0);
        assert_eq!(last.code, 0, "never accepted: {last:?}\n{}", host.messages());
    }
}

/// Changes a file of an image in place, and its hash in the description, so that the launcher takes it.
///
/// # Panics
/// If a file is missing or `change` finds nothing to change.
pub fn change_file(image: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = image.join(name);
    let before = fs::read(&path).expect("the file is there");
    let mut after = before.clone();
    change(&mut after);
    assert_ne!(before, after, "nothing was changed");
    fs::write(&path, &after).expect("it can be written");
    let hash = |bytes: &[u8]| hex::encode(adyton_attestation::commit::hash(bytes));
    change_description(image, &hash(&before), &hash(&after));
}

/// Replaces `from` in an image's description.
///
/// # Panics
/// If it is not there.
pub fn change_description(image: &Path, from: &str, to: &str) {
    let path = image.join("image.toml");
    let text = fs::read_to_string(&path).expect("it is there");
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(&path, text.replace(from, to)).expect("it can be written");
}
