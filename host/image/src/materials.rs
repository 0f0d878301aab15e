//! The software bill of materials, in CycloneDX 1.5 JSON: the kernel, the standard library, and every crate of the program.
//!
//! The crates are those that cargo resolves for the guest's target without development or build-only dependencies; names,
//! versions and checksums come from the lock file, so the list is the same wherever the image is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::ImageError;

/// Name of the file.
pub const FILE: &str = "materials.cdx.json";

/// Name of the file that pins the toolchain, beside the lock file.
pub const TOOLCHAIN: &str = "rust-toolchain.toml";

/// What `cargo metadata` says, as far as it is read.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// Checksums in `Cargo.lock`.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// A component that is not a crate.
pub struct Other {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// CycloneDX's word for what it is.
    pub kind: &'static str,
    /// SHA-256 of what it came as, if it came as one file.
    pub sha256: Option<String>,
    /// SPDX expression.
    pub license: &'static str,
}

/// The standard library that the toolchain of `rust-toolchain.toml` links, and the C library that it brings for musl.
///
/// # Errors
/// [`ImageError::Malformed`] if the file does not name a version.
pub fn standard_library(toolchain: &str) -> Result<Other, ImageError> {
    #[derive(Deserialize)]
    struct File {
        toolchain: Toolchain,
    }
    #[derive(Deserialize)]
    struct Toolchain {
        channel: String,
    }
    let wrong = |message: String| ImageError::Malformed { path: TOOLCHAIN.into(), message };
    let file: File = toml::from_str(toolchain).map_err(|error| wrong(error.to_string()))?;
    let version = file.toolchain.channel;
    if !version.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(wrong(format!("{version} is no version")));
    }
    let (name, license) = ("rust-std with musl".to_owned(), "(MIT OR Apache-2.0) AND MIT");
    Ok(Other { name, version, kind: "library", sha256: None, license })
}

/// The bill for `program`, from what cargo says and the lock file.
///
/// # Errors
/// [`ImageError::Malformed`] if cargo's answer does not have the form it documents, or lacks the program.
pub fn bill(program: &str, metadata: &[u8], lock: &str, others: &[Other]) -> Result<String, ImageError> {
    let wrong =
        |message: String| ImageError::Malformed { path: Path::new("cargo metadata").to_owned(), message };
    let metadata: Metadata = serde_json::from_slice(metadata).map_err(|error| wrong(error.to_string()))?;
    let lock: Lock = toml::from_str(lock).map_err(|error| wrong(error.to_string()))?;
    let checksums: BTreeMap<(&str, &str), &str> = lock
        .package
        .iter()
        .filter_map(|locked| {
            Some(((locked.name.as_str(), locked.version.as_str()), locked.checksum.as_deref()?))
        })
        .collect();
    let packages: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let root = metadata.packages.iter().find(|package| package.name == program && package.source.is_none());
    let root = root.ok_or_else(|| wrong(format!("there is no package {program}")))?;
    let mut components: BTreeMap<(&str, &str), Value> = BTreeMap::new();
    for id in reached(&metadata.resolve, &root.id) {
        let package = packages.get(id).ok_or_else(|| wrong(format!("{id} is not among the packages")))?;
        let key = (package.name.as_str(), package.version.as_str());
        components.insert(key, component(package, checksums.get(&key).copied()));
    }
    let others = others.iter().map(|other| {
        let mut component = json!({
            "type": other.kind, "name": other.name, "version": other.version,
            "licenses": [{ "expression": other.license }],
        });
        if let Some(sha256) = &other.sha256 {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
        }
        component
    });
    let components: Vec<Value> = others.chain(components.into_values()).collect();
    let bill = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": { "component": { "type": "firmware", "name": "adyton-guest", "version": root.version } },
        "components": components,
    });
    let text = serde_json::to_string_pretty(&bill).map_err(|error| wrong(error.to_string()))?;
    Ok(text + "\n")
}

fn component(package: &Package, checksum: Option<&str>) -> Value {
    let Package { name, version, license, source, .. } = package;
    let mut component = json!({ "type": "library", "name": name, "version": version });
    if source.is_some() {
        component["purl"] = json!(format!("pkg:cargo/{name}@{version}"));
    }
    if let Some(license) = license {
        // Older crates separate alternatives by a slash.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    if let Some(checksum) = checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

/// What `root` links, itself included.
fn reached<'a>(resolve: &'a Resolve, root: &'a str) -> BTreeSet<&'a str> {
    let nodes: BTreeMap<&str, &Node> = resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut found = BTreeSet::new();
    let mut todo = vec![root];
    while let Some(id) = todo.pop() {
        if !found.insert(id) {
            continue;
        }
        let normal = |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
        let dependencies = nodes.get(id).map_or(&[][..], |node| &node.deps);
        todo.extend(dependencies.iter().filter(normal).map(|dependency| dependency.pkg.as_str()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{
        "packages": [
            {"id": "p", "name": "program", "version": "1.0.0", "license": "MIT", "source": null},
            {"id": "l", "name": "linked", "version": "2.0.0", "license": "MIT/Apache-2.0", "source": "registry"},
            {"id": "d", "name": "development", "version": "3.0.0", "license": null, "source": "registry"}
        ],
        "resolve": {"nodes": [
            {"id": "p", "deps": [
                {"pkg": "l", "dep_kinds": [{"kind": null}]}, {"pkg": "d", "dep_kinds": [{"kind": "dev"}]}
            ]},
            {"id": "l", "deps": []}, {"id": "d", "deps": []}
        ]}
    }"#;
    const LOCK: &str = "[[package]]\nname = 'linked'\nversion = '2.0.0'\nchecksum = 'abcd'\n";

    fn kernel() -> Other {
        let (name, version) = ("linux".into(), "6.12".into());
        Other { name, version, kind: "operating-system", sha256: Some("12".into()), license: "GPL-2.0-only" }
    }

    #[test]
    fn what_is_linked_is_listed_with_its_checksum() {
        let library = standard_library("[toolchain]\nchannel = '1.95.0'\n").unwrap();
        let text = bill("program", METADATA.as_bytes(), LOCK, &[kernel(), library]).unwrap();
        let bill: Value = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> =
            bill["components"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["linux", "rust-std with musl", "linked", "program"], "and nothing of development");
        let [kernel, library, linked] = [0, 1, 2].map(|at| &bill["components"][at]);
        assert_eq!((&kernel["version"], &kernel["hashes"][0]["content"]), (&json!("6.12"), &json!("12")));
        assert_eq!((&library["version"], library.get("hashes")), (&json!("1.95.0"), None));
        assert_eq!(linked["hashes"][0]["content"], "abcd");
        assert_eq!(linked["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(linked["purl"], "pkg:cargo/linked@2.0.0");
    }

    #[test]
    fn a_toolchain_that_is_not_pinned_is_an_error() {
        assert!(standard_library("[toolchain]\nchannel = 'stable'\n").is_err());
        assert!(standard_library("channel = '1.95.0'\n").is_err());
    }

    #[test]
    fn a_missing_program_is_an_error() {
        assert!(bill("other", METADATA.as_bytes(), LOCK, &[]).is_err());
        assert!(bill("program", b"{}", LOCK, &[]).is_err());
    }
}
