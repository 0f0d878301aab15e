//! `host.toml`: where to listen, what to relay to, what to hand out. Unknown keys are errors.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::HostError;
use crate::vm::Vm;

/// The whole configuration. Relative paths are relative to the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where the enclave listens, if it is a process; virtual machines are called by their vsock.
    pub enclave: Option<SocketAddr>,
    /// Where sealed files and certificates are handed out.
    pub files_listen: SocketAddr,
    /// Folder with `manifest.cose` and the sealed files.
    pub sealed_dir: PathBuf,
    /// Folder with vendor certificates and revocation lists, if any.
    pub certificates_dir: Option<PathBuf>,
    /// Where metrics are served; nowhere if unset.
    pub metrics_listen: Option<SocketAddr>,
    /// Connections relayed at once; more wait in the accept queue.
    #[serde(default = "defaults::max_connections")]
    pub max_connections: usize,
    /// Connections relayed at once for one peer address; more are closed.
    #[serde(default = "defaults::max_connections_per_peer")]
    pub max_connections_per_peer: usize,
    /// Seconds without a byte in either direction after which a connection is closed.
    #[serde(default = "defaults::idle_timeout_s")]
    pub idle_timeout_s: u64,
    /// Seconds that open connections get to finish when the host stops.
    #[serde(default = "defaults::grace_s")]
    pub grace_s: u64,
    /// How to launch the enclave as a process; unset means that something else does, or that it is a virtual machine.
    pub launch: Option<Launch>,
    /// The virtual machines, side by side; clients go to those that are up, in turn.
    #[serde(default)]
    pub vm: Vec<Vm>,
    /// Where the model owner's broker is (`host:port`), for guests, which have no network.
    pub broker: Option<String>,
    /// Folder for the sockets of virtual machines.
    #[serde(default = "defaults::runtime_dir")]
    pub runtime_dir: PathBuf,
}

/// An enclave run as a process under the software secure processor: for development, not confidential.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The `adyton-simulator` program.
    pub simulator: PathBuf,
    /// Its folder, made with `adyton-simulator setup`.
    pub simulator_dir: PathBuf,
    /// The `adyton-enclave` program.
    pub program: PathBuf,
    /// The launch document.
    pub document: PathBuf,
}

mod defaults {
    use std::path::PathBuf;

    pub(super) fn runtime_dir() -> PathBuf {
        "run".into()
    }
    pub(super) fn max_connections() -> usize {
        1024
    }
    pub(super) fn max_connections_per_peer() -> usize {
        256
    }
    pub(super) fn idle_timeout_s() -> u64 {
        600
    }
    pub(super) fn grace_s() -> u64 {
        10
    }
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// [`HostError`]: unreadable, unknown key, wrong type, zero limit, or a path that does not exist.
    pub fn read(path: &Path) -> Result<Self, HostError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| HostError::ReadConfig { path: path.to_owned(), source })?;
        let wrong = |message: String| HostError::Config { path: path.to_owned(), message };
        let mut config: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if config.max_connections == 0 || config.max_connections_per_peer == 0 || config.idle_timeout_s == 0 {
            return Err(wrong(
                "a limit of 0 would refuse every connection; leave the key out for the default".into(),
            ));
        }
        config.verify_machines().map_err(wrong)?;
        config.resolve(path.parent().unwrap_or(Path::new(".")));
        config.vm.iter().try_for_each(Vm::verify)?;
        config.check_paths()?;
        Ok(config)
    }

    /// One enclave, or some machines; and no two of these alike.
    fn verify_machines(&self) -> Result<(), String> {
        if self.enclave.is_some() != self.vm.is_empty() {
            return Err("give `enclave` for a process, or one or more [[vm]], and not both".into());
        }
        if self.launch.is_some() && !self.vm.is_empty() {
            return Err("[launch] is for a process; a [[vm]] is launched by itself".into());
        }
        for (at, vm) in self.vm.iter().enumerate() {
            let twin = self.vm.iter().take(at).find(|other| other.name == vm.name || other.cid == vm.cid);
            if let Some(twin) = twin {
                return Err(format!("{} and {} need names and cids of their own", twin.name, vm.name));
            }
        }
        Ok(())
    }

    fn resolve(&mut self, base: &Path) {
        self.runtime_dir = base.join(&self.runtime_dir);
        self.vm.iter_mut().for_each(|vm| vm.resolve(base));
        self.sealed_dir = base.join(&self.sealed_dir);
        self.certificates_dir = self.certificates_dir.as_ref().map(|path| base.join(path));
        if let Some(launch) = &mut self.launch {
            for path in
                [&mut launch.simulator, &mut launch.simulator_dir, &mut launch.program, &mut launch.document]
            {
                *path = base.join(&*path);
            }
        }
    }

    fn check_paths(&self) -> Result<(), HostError> {
        let mut wanted = vec![("sealed_dir", &self.sealed_dir)];
        wanted.extend(self.certificates_dir.iter().map(|path| ("certificates_dir", path)));
        if let Some(launch) = &self.launch {
            wanted.push(("launch.simulator", &launch.simulator));
            wanted.push(("launch.simulator_dir", &launch.simulator_dir));
            wanted.push(("launch.program", &launch.program));
            wanted.push(("launch.document", &launch.document));
        }
        wanted.extend(self.vm.iter().flat_map(Vm::paths));
        match wanted.into_iter().find(|(_, path)| !path.exists()) {
            Some((purpose, path)) => Err(HostError::Missing { purpose, path: path.clone() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, HostError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sealed")).unwrap();
        let path = folder.path().join("host.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    const MINIMAL: &str = "listen = '127.0.0.1:1'\nenclave = '127.0.0.1:2'\nfiles_listen = '127.0.0.1:3'\nsealed_dir = 'sealed'\n";

    #[test]
    fn the_minimum_is_enough_and_paths_follow_the_file() {
        let config = read(MINIMAL).unwrap();
        assert_eq!(config.max_connections, 1024);
        assert!(config.sealed_dir.is_absolute() || config.sealed_dir.starts_with("."));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = read(&format!("{MINIMAL}listne = 1\n")).unwrap_err();
        assert!(error.to_string().contains("listne"), "{error}");
    }

    #[test]
    fn processes_and_machines_do_not_mix() {
        let machine = format!("[[vm]]\n{}", crate::vm::config::tests::SIMULATED);
        let without = MINIMAL.replace("enclave = '127.0.0.1:2'\n", "");
        let wrong = |text: &str| read(text).unwrap_err().to_string();
        assert!(wrong(&without).contains("[[vm]]"));
        assert!(wrong(&format!("{MINIMAL}{machine}")).contains("not both"));
        assert!(wrong(&format!("{without}{machine}{machine}")).contains("their own"));
        let missing = read(&format!("{without}{machine}")).unwrap_err();
        assert!(matches!(missing, HostError::Missing { purpose: "vm.image", .. }), "{missing}");
    }

    #[test]
    fn a_missing_folder_and_a_zero_limit_are_named() {
        let error = read(&MINIMAL.replace("'sealed'", "'elsewhere'")).unwrap_err();
        assert!(matches!(&error, HostError::Missing { purpose: "sealed_dir", .. }), "{error}");
        assert!(matches!(read(&format!("{MINIMAL}max_connections = 0\n")), Err(HostError::Config { .. })));
        assert!(matches!(Config::read(Path::new("nowhere/host.toml")), Err(HostError::ReadConfig { .. })));
    }
}
