//! `adyton measure diff`: what differs between two measurements, step by step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use adyton_broker::read_capped;
use clap::Args;
use serde_json::{Map, Value, json};

use super::{Failure, Printed};

/// A measurement of sixty-four sections is far below.
const MAX_LEN: u64 = 4 << 20;
/// As of `diff`: the same, different, trouble.
const DIFFERENT: u8 = 1;
const TROUBLE: u8 = 2;
/// What measurements are called in what `measure` prints.
const VALUES: [&str; 6] = ["measurement", "mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"];

#[derive(Args)]
#[command(after_help = "Example:\n  adyton measure tdx --firmware old.fd --explain --json > old.json\n  \
                  adyton measure tdx --firmware new.fd --explain --json > new.json\n  \
                  adyton measure diff old.json new.json\n\n\
                  Exit status as of diff(1): 0 the same, 1 different, 2 trouble (such as files that are not comparable).")]
pub(crate) struct DiffArgs {
    /// What `adyton measure snp|tdx|process --json` printed, with --explain to compare steps.
    a: PathBuf,
    /// Another.
    b: PathBuf,
}

/// One step: what it adds alone.
#[derive(Clone, PartialEq, Eq)]
struct Entry {
    /// Register and name, with a number if they come more than once.
    key: String,
    input: String,
}

pub(crate) fn run(args: &DiffArgs) -> Result<Printed, Failure> {
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let kind = |object: &Map<String, Value>| VALUES.map(|name| object.contains_key(name));
    if kind(&a) != kind(&b) || !kind(&a).contains(&true) {
        return Err(Failure::with(TROUBLE, "these are not two measurements of the same kind"));
    }
    let mut rows = Vec::new();
    for name in VALUES.iter().filter(|name| a.get(**name) != b.get(**name)) {
        rows.push(row(name, "value", a.get(*name), b.get(*name)));
    }
    match (steps(&a)?, steps(&b)?) {
        (Some(a), Some(b)) => rows.extend(step_rows(&a, &b)),
        (None, None) => {}
        _ => return Err(Failure::with(TROUBLE, "only one of them has steps: print both with --explain")),
    }
    let different = !rows.is_empty();
    let text = if different { rows.iter().map(line).collect() } else { "the same\n".to_owned() };
    let mut printed = Printed::new(json!({ "different": different, "differences": rows }), text);
    printed.code = if different { DIFFERENT } else { 0 };
    Ok(printed)
}

fn read(path: &Path) -> Result<Map<String, Value>, Failure> {
    let trouble = |what: String| Failure::with(TROUBLE, format!("{}: {what}", path.display()));
    let bytes = read_capped(path, MAX_LEN).map_err(|error| trouble(error.to_string()))?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(trouble("not what adyton measure --json prints".into())),
        Err(error) => Err(trouble(error.to_string())),
    }
}

/// The steps, if the measurement was printed with them.
fn steps(measurement: &Map<String, Value>) -> Result<Option<Vec<Entry>>, Failure> {
    let Some(steps) = measurement.get("steps") else { return Ok(None) };
    let trouble = || Failure::with(TROUBLE, "a step is not as adyton measure --explain --json prints it");
    let mut seen = BTreeMap::new();
    let entry = |step: &Value| {
        let text = |name: &str| step.get(name).and_then(Value::as_str);
        let register = text("register").map_or(String::new(), |register| format!("{register}: "));
        let (name, input) = text("name").zip(text("input"))?;
        let key = format!("{register}{name}");
        let count = seen.entry(key.clone()).and_modify(|count| *count += 1).or_insert(1_u32);
        let key = if *count > 1 { format!("{key} ({count})") } else { key };
        // Where it lies and how much it is count as much as what it holds.
        let place =
            ["gpa", "pages"].map(|name| step.get(name).map_or(String::new(), |value| format!(" {value}")));
        Some(Entry { key, input: format!("{input}{}", place.concat()) })
    };
    steps
        .as_array()
        .ok_or_else(trouble)?
        .iter()
        .map(entry)
        .collect::<Option<_>>()
        .map(Some)
        .ok_or_else(trouble)
}

/// Changed, removed and added steps, and whether those that both have come in another order.
fn step_rows(a: &[Entry], b: &[Entry]) -> Vec<Value> {
    let find = |steps: &[Entry], key: &str| steps.iter().find(|step| step.key == key).cloned();
    let mut rows = Vec::new();
    for step in a {
        match find(b, &step.key) {
            None => rows.push(row(&step.key, "removed", Some(&json!(step.input)), None)),
            Some(other) if other.input != step.input => {
                rows.push(row(&step.key, "changed", Some(&json!(step.input)), Some(&json!(other.input))));
            }
            Some(_) => {}
        }
    }
    let added = b.iter().filter(|step| find(a, &step.key).is_none());
    rows.extend(added.map(|step| row(&step.key, "added", None, Some(&json!(step.input)))));
    let common = |steps: &[Entry], others: &[Entry]| -> Vec<String> {
        steps.iter().map(|step| step.key.clone()).filter(|key| find(others, key).is_some()).collect()
    };
    let (order_a, order_b) = (common(a, b), common(b, a));
    if order_a != order_b {
        rows.push(row("order of the steps", "moved", Some(&json!(order_a)), Some(&json!(order_b))));
    }
    rows
}

fn row(what: &str, change: &str, a: Option<&Value>, b: Option<&Value>) -> Value {
    json!({ "what": what, "change": change, "a": a, "b": b })
}

fn line(row: &Value) -> String {
    let text = |name: &str| match row.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        _ => "-".to_owned(),
    };
    format!("{:<8} {}\n  a: {}\n  b: {}\n", text("change"), text("what"), text("a"), text("b"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(steps: &[(&str, &str)]) -> Vec<Entry> {
        steps.iter().map(|(key, input)| Entry { key: (*key).into(), input: (*input).into() }).collect()
    }

    #[test]
    fn each_kind_of_difference() {
        let base = entries(&[("x", "1"), ("y", "2"), ("z", "3")]);
        let kinds = |other: &[(&str, &str)]| -> Vec<String> {
            let rows = step_rows(&base, &entries(other));
            rows.iter().map(|row| format!("{} {}", row["change"], row["what"]).replace('"', "")).collect()
        };
        assert!(kinds(&[("x", "1"), ("y", "2"), ("z", "3")]).is_empty());
        assert_eq!(kinds(&[("x", "1"), ("y", "9"), ("z", "3")]), ["changed y"]);
        assert_eq!(kinds(&[("x", "1"), ("z", "3")]), ["removed y"]);
        assert_eq!(kinds(&[("x", "1"), ("w", "0"), ("y", "2"), ("z", "3")]), ["added w"]);
        assert_eq!(kinds(&[("y", "2"), ("x", "1"), ("z", "3")]), ["moved order of the steps"]);
    }

    #[test]
    fn steps_of_one_name_are_numbered() {
        let step = |input: &str| json!({ "register": "RTMR1", "name": "action", "input": input });
        let measurement = json!({ "steps": [step("1"), step("2")] });
        let keys: Vec<_> = match steps(measurement.as_object().unwrap()) {
            Ok(Some(steps)) => steps.into_iter().map(|step| step.key).collect(),
            _ => panic!("no steps"),
        };
        assert_eq!(keys, ["RTMR1: action", "RTMR1: action (2)"]);
        for wrong in [json!({ "steps": 1 }), json!({ "steps": [{ "name": "x" }] })] {
            assert!(steps(wrong.as_object().unwrap()).is_err());
        }
    }
}
