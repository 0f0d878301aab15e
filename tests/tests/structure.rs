//! Who may link what, and where unsafe code may stand. The dependency graph is read from cargo; each rule has its reason.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Normal dependencies of each package, by name.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// What one crate may not reach, by whatever way.
struct Rule {
    of: &'static str,
    /// Whether all of [`NETWORK`] is forbidden too.
    offline: bool,
    never: &'static [&'static str],
    why: &'static str,
}

const NETWORK: [&str; 6] = ["tokio", "hyper", "rustls", "h2", "mio", "socket2"];

const RULES: &[Rule] = &[
    Rule {
        of: "adyton-attestation",
        offline: true,
        never: &["adyton-*", "tracing", "sev", "rusqlite"],
        why: "bytes in, verdict out: no I/O, no clock, no other crate of ours",
    },
    Rule {
        of: "adyton-inference",
        offline: true,
        never: &["tracing", "adyton-attestation", "adyton-vault", "ring"],
        why: "slices in, numbers out: it sees plaintext, so it has no way to send or log it",
    },
    Rule {
        of: "adyton-model",
        offline: true,
        never: &["tracing", "adyton-*", "ring"],
        why: "bytes to tensors, nothing else",
    },
    Rule {
        of: "adyton-vault",
        offline: true,
        never: &["adyton-*", "tracing"],
        why: "it holds keys: no network, no log, and it does not know which TEE it runs on",
    },
    Rule {
        of: "adyton-attester",
        offline: true,
        never: &["adyton-vault", "adyton-inference", "adyton-channel", "tracing"],
        why: "the only device I/O; it holds no key and speaks to nobody else",
    },
    Rule {
        of: "adyton-enclave",
        offline: false,
        never: &[
            "adyton-simulator",
            "adyton-broker",
            "adyton-client",
            "adyton-workshop",
            "adyton-host",
            "aws-lc-rs",
            "aws-lc-sys",
            "openssl-sys",
            "rusqlite",
        ],
        why: "what is measured holds no simulator and nothing of the owner's or the host's",
    },
    Rule {
        of: "adyton-language",
        offline: true,
        never: &["adyton-vault", "adyton-attester", "adyton-channel", "tracing"],
        why: "it sees prompts and answers, so it has no way to send or log them, and it holds no key",
    },
    Rule {
        of: "adyton-host",
        offline: false,
        never: &["adyton-*", "rustls", "ring", "serde_json", "serde_cbor_2", "hpke"],
        why: "it must not be able to hold a session key or to parse a prompt",
    },
    Rule {
        of: "adyton-image",
        offline: true,
        never: &["adyton-*", "tracing", "ring"],
        why: "it puts files together; it knows nothing of what they do",
    },
    Rule {
        of: "adyton-client",
        offline: false,
        never: &[
            "adyton-attester",
            "adyton-enclave",
            "adyton-host",
            "adyton-simulator",
            "aws-lc-rs",
            "aws-lc-sys",
            "openssl-sys",
        ],
        why: "clients never link the simulator, nor what runs inside",
    },
    Rule {
        of: "adyton-broker",
        offline: false,
        never: &[
            "adyton-inference",
            "adyton-attester",
            "adyton-enclave",
            "adyton-host",
            "adyton-simulator",
            "adyton-workshop",
        ],
        why: "the broker releases keys; it runs no model and makes no evidence",
    },
    Rule {
        of: "adyton-endorsements",
        offline: false,
        never: &["adyton-enclave", "adyton-attester", "adyton-simulator", "aws-lc-rs", "openssl-sys"],
        why: "it brings documents that others verify",
    },
    Rule {
        of: "adyton-workshop",
        offline: true,
        never: &["adyton-attestation", "adyton-vault", "adyton-channel"],
        why: "the bench is offline",
    },
    Rule {
        of: "adyton-channel",
        offline: false,
        never: &[
            "adyton-vault",
            "adyton-inference",
            "adyton-attester",
            "adyton-simulator",
            "aws-lc-rs",
            "openssl-sys",
        ],
        why: "TLS for both ends, and nothing of either",
    },
    Rule {
        of: "adyton-simulator",
        offline: true,
        never: &["adyton-vault", "adyton-attester", "adyton-enclave", "adyton-client", "adyton-host"],
        why: "it stands for a processor, which knows nothing of what it runs",
    },
];

/// The one package without a rule: it joins everything, and nothing links it.
const TESTS: &str = "adyton-tests";

impl Rule {
    fn forbidden(&self) -> impl Iterator<Item = &'static str> {
        let network = if self.offline { &NETWORK[..] } else { &[] };
        self.never.iter().chain(network).copied()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn graph() -> Graph {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeMap<String, String> =
        packages.iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
    let mut graph = Graph::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let of = &names[node["id"].as_str().unwrap()];
        for dependency in node["deps"].as_array().unwrap() {
            let normal =
                dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
            if normal {
                let on = names[dependency["pkg"].as_str().unwrap()].clone();
                graph.entry(of.clone()).or_default().insert(on);
            }
        }
        graph.entry(of.clone()).or_default();
    }
    graph
}

/// Every package that `of` reaches, with the way to it.
fn reached(graph: &Graph, of: &str) -> BTreeMap<String, String> {
    let mut ways = BTreeMap::new();
    let mut todo = vec![(of.to_owned(), of.to_owned())];
    while let Some((name, way)) = todo.pop() {
        for next in graph.get(&name).into_iter().flatten() {
            if !ways.contains_key(next) {
                let way = format!("{way} -> {next}");
                ways.insert(next.clone(), way.clone());
                todo.push((next.clone(), way));
            }
        }
    }
    ways
}

/// The forbidden edges of a graph, in words.
fn violations(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for rule in RULES {
        assert!(graph.contains_key(rule.of), "{} is not in the workspace", rule.of);
        for (name, way) in reached(graph, rule.of) {
            let forbidden = rule.forbidden().any(|never| match never.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == never,
            });
            if forbidden {
                found.push(format!("{way}: {} ({})", rule.of, rule.why));
            }
        }
    }
    found
}

#[test]
fn no_forbidden_edge() {
    let found = violations(&graph());
    assert!(found.is_empty(), "forbidden edges:\n  {}", found.join("\n  "));
}

#[test]
fn each_rule_can_fail() {
    let genuine = graph();
    for rule in RULES {
        for never in rule.forbidden() {
            let mut graph = genuine.clone();
            let name = never.replace('*', "something");
            graph.get_mut(rule.of).unwrap().insert("a-crate-between".into());
            graph.insert("a-crate-between".into(), BTreeSet::from([name.clone()]));
            let found = violations(&graph);
            assert!(found.iter().any(|found| found.contains(&name)), "{} -> {name} goes unnoticed", rule.of);
        }
    }
}

#[test]
fn every_package_has_a_rule_and_only_tests_link_the_simulator() {
    let graph = graph();
    for name in graph.keys().filter(|name| name.starts_with("adyton-") && *name != TESTS) {
        assert!(RULES.iter().any(|rule| rule.of == name), "{name} has no rule");
        assert!(!reached(&graph, name).contains_key(TESTS), "{name} links {TESTS}");
        assert!(!reached(&graph, name).contains_key("adyton-simulator"), "{name} links the simulator");
    }
}

/// The files of the repository: what git lists, or what lies here where there is no git.
fn sources() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard"])
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success() && !output.stdout.is_empty());
    let files: Vec<PathBuf> = match listed {
        Some(output) => {
            let names = String::from_utf8(output.stdout).unwrap();
            names.lines().map(|line| root().join(line)).filter(|path| path.is_file()).collect()
        }
        None => files_below(&root()),
    };
    assert!(files.len() > 100, "the files of the repository are listed");
    files
}

/// Every file below `folder`, but for builds and what tools keep for themselves.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let (kind, name) = (entry.file_type().unwrap(), entry.file_name());
        if ["target", ".git"].iter().any(|skipped| name == *skipped) {
            continue;
        }
        if kind.is_file() {
            files.push(entry.path());
        } else if kind.is_dir() {
            files.extend(files_below(&entry.path()));
        }
    }
    files
}

#[test]
fn without_git_the_same_sources_are_found() {
    let rust = |files: Vec<PathBuf>| -> BTreeSet<PathBuf> {
        files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs")).collect()
    };
    assert!(rust(files_below(&root())).is_superset(&rust(sources())));
}

#[test]
fn unsafe_code_stays_behind_its_fence() {
    let fence = ["enclave/inference/src/arch/", "enclave/attester/src/"];
    for path in sources().iter().filter(|path| path.extension().is_some_and(|end| end == "rs")) {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(path).unwrap();
        let inside = fence.iter().any(|fence| name.starts_with(fence));
        let crate_root =
            name.ends_with("src/lib.rs") || name.ends_with("src/main.rs") || name.contains("src/bin/");
        let fenced_crate = name.starts_with("enclave/inference/") || name.starts_with("enclave/attester/");
        if crate_root && !fenced_crate {
            assert!(text.contains("#![forbid(unsafe_code)]"), "{name} does not forbid unsafe code");
        }
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let uses = |what: [&str; 2]| code.contains(&what.join(" "));
            let (block, implements) = (uses(["unsafe", "{"]), uses(["unsafe", "impl"]));
            let declares = ["fn", "extern", "trait"].iter().any(|what| uses(["unsafe", what]));
            if block || implements || declares {
                assert!(inside, "{name}:{}: unsafe code outside its fence", at + 1);
            }
            if block || implements {
                let above = lines[at.saturating_sub(8)..at].join("\n");
                assert!(above.contains("SAFETY:"), "{name}:{}: no SAFETY comment", at + 1);
            }
        }
    }
}

#[test]
fn the_repository_speaks_of_itself_alone() {
    let machine_paths = ["work", "root", "home", "tmp"].map(|folder| format!("/{folder}/"));
    for path in sources() {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if name == "Cargo.lock" || path.extension().is_some_and(|end| end == "csv" || end == "json") {
            continue;
        }
        for forbidden in &machine_paths {
            assert!(!text.contains(forbidden), "{name} holds a path of one machine: {forbidden}");
        }
        for unfinished in [concat!("to", "do!("), concat!("unimpl", "emented!(")] {
            assert!(!text.contains(unfinished), "{name} holds {unfinished}");
        }
        for line in text.lines().filter(|line| line.trim_start().starts_with(concat!("#[ign", "ore"))) {
            assert!(line.contains('='), "{name}: a test is ignored without a reason");
        }
    }
}

#[test]
fn every_claim_names_a_test_that_exists() {
    let mut tests = BTreeSet::new();
    for path in sources().iter().filter(|path| path.extension().is_some_and(|end| end == "rs")) {
        let text = fs::read_to_string(path).unwrap();
        let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
        tests.extend(names.map(str::to_owned));
    }
    for (page, least) in [("SECURITY.md", 20), ("THREAT-MODEL.md", 12)] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let named: Vec<&str> =
            text.split('`').skip(1).step_by(2).filter(|span| span.contains("::")).collect();
        assert!(named.len() >= least, "{page} names only {} tests", named.len());
        for span in named {
            let test = span.rsplit("::").next().unwrap();
            assert!(tests.contains(test), "{page} names {span}, and there is no such test");
        }
    }
}
