//! Logs in JSON.
//!
//! dstack: an array of `{imr, event_type, digest, event, event_payload, version}`, bare, as text, or under the key
//! `event_log` of a larger object. `imr` is the number of the RTMR; digest and payload are hexadecimal. A runtime
//! event may leave its digest out, since it follows from name and payload by the form that `version` names.
//!
//! Trustee: an object with the array `uefi_event_logs` of `{index, type_name, digests, event}`. `index` counts
//! registers as a binary log does; `event` is the data in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::event::{Event, RUNTIME_EVENT, RuntimeForm, sha384, type_of_name};
use super::{DIGEST_LEN_BYTES, EventLogError, MAX_EVENTS, binary::rtmr_of_register};

#[derive(Deserialize)]
struct DstackEvent {
    imr: u64,
    event_type: u32,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    event: String,
    #[serde(default)]
    event_payload: String,
    /// Form of a runtime event's digest, 1 if it is not there.
    version: Option<u32>,
}

/// The array, or text of it.
#[derive(Deserialize)]
#[serde(untagged)]
enum DstackLog {
    Events(Vec<DstackEvent>),
    Text(String),
}

#[derive(Deserialize)]
struct TrusteeEvent {
    index: u64,
    type_name: String,
    digests: Vec<TrusteeDigest>,
    /// Base64 of the data.
    event: String,
}

#[derive(Deserialize)]
struct TrusteeDigest {
    alg: String,
    digest: String,
}

/// An object that holds a log, among other things.
#[derive(Deserialize)]
struct Wrapper {
    event_log: Option<DstackLog>,
    uefi_event_logs: Option<Vec<TrusteeEvent>>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Event>, EventLogError> {
    if bytes.trim_ascii_start().starts_with(b"[") {
        return dstack(&read::<Vec<DstackEvent>>(bytes)?);
    }
    match read(bytes)? {
        Wrapper { event_log: Some(DstackLog::Events(events)), uefi_event_logs: None } => dstack(&events),
        Wrapper { event_log: Some(DstackLog::Text(text)), uefi_event_logs: None } => {
            dstack(&read::<Vec<DstackEvent>>(text.as_bytes())?)
        }
        Wrapper { event_log: None, uefi_event_logs: Some(events) } => trustee(&events),
        _ => Err(malformed("give one of event_log and uefi_event_logs")),
    }
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, EventLogError> {
    serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))
}

fn malformed(what: impl Into<String>) -> EventLogError {
    EventLogError::Json { what: what.into() }
}

fn each<T>(
    events: &[T],
    parse: impl Fn(&T, usize) -> Result<Event, EventLogError>,
) -> Result<Vec<Event>, EventLogError> {
    if events.len() > MAX_EVENTS {
        return Err(EventLogError::TooManyEvents);
    }
    events.iter().zip(1..).map(|(event, number)| parse(event, number)).collect()
}

fn dstack(events: &[DstackEvent]) -> Result<Vec<Event>, EventLogError> {
    each(events, |event, number| {
        let rtmr = usize::try_from(event.imr).ok().filter(|rtmr| *rtmr < 4);
        let rtmr = rtmr.ok_or(EventLogError::Register { number, register: event.imr })?;
        let data = hexadecimal(&event.event_payload)
            .ok_or_else(|| malformed(format!("event {number}: its payload is not hexadecimal")))?;
        let runtime = event.event_type == RUNTIME_EVENT;
        let digest = if runtime && event.digest.is_empty() {
            let form = match event.version {
                None | Some(1) => RuntimeForm::Binary,
                Some(2) => RuntimeForm::Json,
                Some(_) => return Err(malformed(format!("event {number}: its version is unknown"))),
            };
            sha384(&form.preimage(&event.event, &data))
        } else {
            digest(&event.digest, number)?
        };
        let name = (runtime || !event.event.is_empty()).then(|| event.event.clone());
        Ok(Event::new(Some(rtmr), event.event_type, digest, data, name))
    })
}

fn trustee(events: &[TrusteeEvent]) -> Result<Vec<Event>, EventLogError> {
    each(events, |event, number| {
        let rtmr =
            rtmr_of_register(event.index).ok_or(EventLogError::Register { number, register: event.index })?;
        let event_type = type_of_name(&event.type_name)
            .ok_or_else(|| malformed(format!("event {number}: its type is unknown")))?;
        let data = STANDARD
            .decode(&event.event)
            .map_err(|_| malformed(format!("event {number}: its data is not base64")))?;
        let mut sha384 = event.digests.iter().filter(|digest| digest.alg == "SHA-384");
        let (Some(only), None) = (sha384.next(), sha384.next()) else {
            return Err(EventLogError::Digests { number });
        };
        Ok(Event::new(rtmr, event_type, digest(&only.digest, number)?, data, None))
    })
}

fn digest(text: &str, number: usize) -> Result<[u8; DIGEST_LEN_BYTES], EventLogError> {
    hexadecimal(text).and_then(|bytes| bytes.try_into().ok()).ok_or(EventLogError::Digests { number })
}

/// Bytes of an even number of hexadecimal digits; none is no bytes.
fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::{DataState, EventLog};
    use super::*;
    use proptest::prelude::*;

    fn log(digest: &str) -> String {
        format!(
            r#"[{{"imr":3,"event_type":134217729,"digest":"{digest}","event":"app-id","event_payload":"78"}}]"#
        )
    }

    fn trustee_log() -> String {
        let digest = "07".repeat(48);
        format!(
            r#"{{"uefi_event_logs":[{{"index":2,"type_name":"EV_IPL","event":"eA==",
                "digests":[{{"alg":"SHA-384","digest":"{digest}"}}]}}]}}"#
        )
    }

    #[test]
    fn every_wrapping_of_the_array() {
        let bare = log("");
        let text = serde_json::to_string(&bare).unwrap();
        let wrapped = [format!(r#"{{"event_log":{bare}}}"#), format!(r#"{{"event_log":{text},"x":1}}"#)];
        for form in [&[bare][..], &wrapped].concat() {
            let log = EventLog::parse(form.as_bytes()).unwrap();
            let event = &log.events()[0];
            assert_eq!((event.rtmr(), event.name(), event.data()), (Some(3), Some("app-id"), &b"x"[..]));
            assert_eq!(event.digest(), sha384(&RuntimeForm::Binary.preimage("app-id", b"x")));
            assert_eq!(event.data_state(), DataState::Matches);
        }
    }

    #[test]
    fn a_name_is_kept_where_there_is_one() {
        let name = |event: &str, event_type: &str| {
            let digest = "07".repeat(48);
            let log = log(&digest).replace("app-id", event).replace("134217729", event_type);
            EventLog::parse(log.as_bytes()).unwrap().events()[0].name().map(str::to_owned)
        };
        assert_eq!(name("app-id", "13"), Some("app-id".into()));
        assert_eq!(name("", "13"), None, "dstack writes an empty name for events of the firmware");
        assert_eq!(name("", "134217729"), Some(String::new()), "a runtime event is measured with its name");
    }

    #[test]
    fn the_version_says_what_a_left_out_digest_is_over() {
        let with = |version: &str| log("").replace("\"imr\"", &format!("\"version\":{version},\"imr\""));
        let digest = |version| EventLog::parse(with(version).as_bytes()).map(|log| log.events()[0].digest());
        assert_eq!(digest("1"), Ok(sha384(&RuntimeForm::Binary.preimage("app-id", b"x"))));
        assert_eq!(digest("2"), Ok(sha384(&RuntimeForm::Json.preimage("app-id", b"x"))));
        assert!(matches!(digest("3"), Err(EventLogError::Json { .. })));
    }

    #[test]
    fn a_runtime_event_cannot_show_another_payload_unnoticed() {
        let wrong = crate::hex_string(&sha384(&RuntimeForm::Binary.preimage("app-id", b"y")));
        let honest = EventLog::parse(log("").as_bytes()).unwrap();
        let steps = super::super::replay_step(&honest, &honest.replay());
        let proven = steps.iter().find(|step| step.name == "event-data").unwrap();
        assert_eq!(proven.detail, "the data of 1 of 1 events is what was measured");
        let log = EventLog::parse(log(&wrong).as_bytes()).unwrap();
        assert_eq!(log.events()[0].data_state(), DataState::Differs);
        let steps = super::super::replay_step(&log, &log.replay());
        let failed = steps.iter().find(|step| step.result.as_str() == "fail").unwrap();
        assert_eq!(
            (failed.name, failed.result),
            ("event-data", crate::StepResult::Fail(crate::Reason::EventLog))
        );
    }

    #[test]
    fn the_form_of_trustee() {
        let log = EventLog::parse(trustee_log().as_bytes()).unwrap();
        let event = &log.events()[0];
        assert_eq!((event.rtmr(), event.event_type(), event.data()), (Some(1), 0xd, &b"x"[..]));
        let error =
            |from: &str, to: &str| EventLog::parse(trustee_log().replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(error("\"index\":2", "\"index\":5"), EventLogError::Register { number: 1, register: 5 });
        assert_eq!(error("SHA-384", "SHA-256"), EventLogError::Digests { number: 1 });
        assert!(matches!(error("EV_IPL", "EV_IPX"), EventLogError::Json { .. }));
        assert!(matches!(error("eA==", "eA="), EventLogError::Json { .. }));
    }

    #[test]
    fn each_flaw_has_its_error() {
        let error = |from: &str, to: &str| EventLog::parse(log("").replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(error("\"imr\":3", "\"imr\":4"), EventLogError::Register { number: 1, register: 4 });
        assert_eq!(error("134217729", "10"), EventLogError::Digests { number: 1 });
        assert_eq!(error("\"digest\":\"\"", "\"digest\":\"07\""), EventLogError::Digests { number: 1 });
        for (from, to) in [
            ("imr", "imx"),
            ("\"78\"", "\"7\""),
            ("\"78\"", "\"+7\""),
            ("\"78\"", "7"),
            ("134217729", "4294967296"),
            ("\"imr\":3", "\"imr\":3,\"imr\":3"),
            ("}]", "}] x"),
        ] {
            assert!(matches!(error(from, to), EventLogError::Json { .. }), "{from} to {to}");
        }
        for wrong in ["{}", "{\"event_log\":1}", "[1]", "[", "{\"event_log\":\"x\"}"] {
            assert!(matches!(EventLog::parse(wrong.as_bytes()), Err(EventLogError::Json { .. })), "{wrong}");
        }
        assert_eq!(EventLog::parse(b"[]"), Err(EventLogError::Empty));
        let one = r#"{"imr":3,"event_type":134217729},"#;
        let many = |count: usize| {
            let log = format!("[{}]", one.repeat(count).trim_end_matches(','));
            EventLog::parse(log.as_bytes()).map(|log| log.events().len())
        };
        assert_eq!(many(MAX_EVENTS), Ok(MAX_EVENTS));
        assert_eq!(many(MAX_EVENTS + 1), Err(EventLogError::TooManyEvents));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,60}", cut in any::<prop::sample::Index>()) {
            let _ = EventLog::parse(format!("[{text}").as_bytes());
            let good = trustee_log();
            let _ = EventLog::parse(&good.as_bytes()[..cut.index(good.len())]);
        }
    }
}
