//! Event logs of a TD on the command line: the account of a log, and its comparison with registers.

use std::path::{Path, PathBuf};

use adyton_attestation::Rejected;
use adyton_attestation::eventlog::{EventLog, MAX_LOG_LEN_BYTES, replay_against};
use adyton_broker::read_capped;
use serde_json::{Value, json};

use super::output::{POLICY, steps_json, steps_text};
use super::{Failure, Printed};

/// Names under which a folder holds an event log.
const LOG_NAMES: [&str; 5] = ["ccel.bin", "event-log.json", "eventlog.json", "CCEL", "event-log.bin"];
/// Name under which it holds the registers to expect.
const EXPECTED: &str = "rtmrs.json";
const MAX_EXPECTED_LEN: u64 = 1 << 20;
const NOTICE: &str = "an event log alone proves nothing: only a quote signs registers";

/// Some of RTMR0 to RTMR3.
pub(crate) type Registers = [Option<[u8; 48]>; 4];

/// The event log at `path`: the file of that name in a folder, or the file itself if it is named so.
pub(crate) fn find(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return LOG_NAMES.iter().map(|name| path.join(name)).find(|path| path.exists());
    }
    let name = path.file_name()?.to_str()?;
    LOG_NAMES.contains(&name).then(|| path.to_owned())
}

/// `N=HEX`, for one register.
pub(crate) fn register(text: &str) -> Result<(usize, [u8; 48]), String> {
    let wrong = || "give a register and its value, such as 0=..., 96 hexadecimal digits".to_owned();
    let (index, value) = text.split_once('=').ok_or_else(wrong)?;
    let index = index.parse().ok().filter(|index| *index < 4).ok_or_else(wrong)?;
    Ok((index, digest(value).ok_or_else(wrong)?))
}

fn digest(text: &str) -> Option<[u8; 48]> {
    let mut digest = [0; 48];
    hex::decode_to_slice(text, &mut digest).ok().map(|()| digest)
}

pub(crate) fn load(path: &Path) -> Result<EventLog, Failure> {
    let bytes = read_capped(path, MAX_LOG_LEN_BYTES as u64)?;
    EventLog::parse(&bytes).map_err(|error| Rejected::from(error).into())
}

/// The account of the log at `path`: every event, and the registers it leads to.
pub(crate) fn show(path: &Path) -> Result<Printed, Failure> {
    let log = load(path)?;
    let text = format!("NOT VERIFIED: what the event log says of the boot\n{}", account(&log));
    Ok(Printed::new(json!({ "verified": false, "event_log": log_json(&log) }), text))
}

/// Compares the log at `path` with `given` registers, or with those that lie beside it, or with none.
pub(crate) fn verify(path: &Path, given: &[(usize, [u8; 48])]) -> Result<Printed, Failure> {
    let expected = expected(path, given)?;
    let log = load(path)?;
    let steps = replay_against(&log, &expected)?;
    let mut json = log_json(&log);
    json["verdict"] = "parse".into();
    json["reason"] = "".into();
    json["notice"] = NOTICE.into();
    json["steps"] = steps_json(&steps);
    let compared =
        if expected.iter().any(Option::is_some) { "REPLAYS" } else { "PARSES, compared with nothing" };
    let text = format!("{}{}{compared}; {NOTICE}\n", account(&log), steps_text(&steps));
    let mut printed = Printed::new(json, text);
    // Nobody is to take a log for verified that was compared with nothing.
    printed.code = if expected.iter().any(Option::is_some) { 0 } else { POLICY };
    Ok(printed)
}

fn expected(path: &Path, given: &[(usize, [u8; 48])]) -> Result<Registers, Failure> {
    let mut expected = Registers::default();
    for (index, value) in given {
        if expected.get_mut(*index).and_then(|slot| slot.replace(*value)).is_some() {
            return Err(Failure::own(format!("RTMR{index} is given twice")));
        }
    }
    if !given.is_empty() {
        return Ok(expected);
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.join(EXPECTED).exists() {
        return Ok(expected);
    }
    let bytes = read_capped(&folder.join(EXPECTED), MAX_EXPECTED_LEN)?;
    let wrong = || {
        Failure::own(format!("{EXPECTED} does not hold registers: {{\"0\": \"96 hexadecimal digits\", …}}"))
    };
    let json: Value = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    let registers = json.as_object().filter(|registers| !registers.is_empty());
    for (index, value) in registers.ok_or_else(wrong)? {
        let slot = index.parse::<usize>().ok().and_then(|index| expected.get_mut(index)).ok_or_else(wrong)?;
        *slot = Some(value.as_str().and_then(digest).ok_or_else(wrong)?);
    }
    Ok(expected)
}

fn account(log: &EventLog) -> String {
    let mut text = String::new();
    for (event, number) in log.events().iter().zip(1..) {
        let (register, kind, state) = (event.register_name(), event.type_name(), event.data_state().as_str());
        let extended = if event.is_extended() { "" } else { ", not extended" };
        text += &format!("  {number:>3} {register} {kind}: {}\n", event.description());
        text += &format!("      {} ({state}{extended})\n", hex::encode(event.digest()));
    }
    for (value, index) in log.replay().iter().zip(0..) {
        text += &format!("  RTMR{index} {}\n", hex::encode(value));
    }
    text
}

fn log_json(log: &EventLog) -> Value {
    let event = |(event, number): (&adyton_attestation::eventlog::Event, usize)| {
        json!({
            "number": number, "register": event.register_name(), "type": event.type_name(),
            "type_id": format!("{:#x}", event.event_type()), "name": event.name(),
            "digest": hex::encode(event.digest()), "extended": event.is_extended(),
            "data": event.data_state().as_str(), "description": event.description(),
        })
    };
    let events: Value = log.events().iter().zip(1..).map(event).collect();
    let registers: serde_json::Map<String, Value> = log
        .replay()
        .iter()
        .zip(0..)
        .map(|(value, index)| (format!("{index}"), hex::encode(value).into()))
        .collect();
    json!({ "event_count": log.events().len(), "rtmr": registers, "events": events })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_given_by_number() {
        let hex = "ab".repeat(48);
        assert_eq!(register(&format!("2={hex}")), Ok((2, [0xab; 48])));
        for wrong in [format!("4={hex}"), hex.clone(), format!("0={}", &hex[2..]), format!("-1={hex}")] {
            assert!(register(&wrong).is_err(), "{wrong}");
        }
    }
}
