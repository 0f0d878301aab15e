//! Programs of this build, run to their end or in the background.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The path of a program of this build.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/PROFILE/deps/TEST
    let folder = test.ancestors().nth(2).expect("a test lies in target/PROFILE/deps");
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace --bins` first", path.display());
    path
}

/// The children of a process, whatever they are now and whichever of its threads started them.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// How a program ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs a program to its end.
    ///
    /// # Panics
    /// If it cannot be started or is ended by a signal.
    #[must_use]
    pub fn of(name: &str, arguments: &[&str], folder: &Path) -> Self {
        let output = Command::new(program(name))
            .args(arguments)
            .current_dir(folder)
            .env_remove("ADYTON_JSON")
            .stdin(Stdio::null())
            .output()
            .expect("the program starts");
        Self {
            code: output.status.code().expect("the program ends by itself"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The one JSON object on standard output.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// A program in the background; killed when dropped.
pub struct Running {
    child: Child,
    /// Where its messages go.
    pub log: PathBuf,
}

impl Running {
    /// Starts a program whose messages go to `log`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(name: &str, arguments: &[&str], folder: &Path, log: &str) -> Self {
        let log = folder.join(log);
        let file = File::create(&log).expect("the log can be made");
        let child = Command::new(program(name))
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("the program starts");
        Self { child, log }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    #[must_use]
    pub fn messages(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to stop and waits for that; returns its exit status.
    ///
    /// # Panics
    /// If it does not end.
    pub fn stop(mut self) -> Option<i32> {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        self.child.wait().expect("it can be waited for").code()
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.wait().expect("it can be waited for").code()
    }
}

impl Running {
    /// Kills it and waits until it is gone, so that its addresses are free again.
    pub fn kill(&mut self) {
        // It may have ended; both calls then have nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
