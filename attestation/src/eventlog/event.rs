//! One event of a log.

use core::fmt;

use ring::digest::{SHA384, digest};

use super::DIGEST_LEN_BYTES;
use super::describe::{describe, variable_value};

// Event types: TCG PC Client Platform Firmware Profile 1.06, table 27.
pub(super) const EV_NO_ACTION: u32 = 0x3;
pub(super) const EV_SEPARATOR: u32 = 0x4;
pub(super) const EV_EVENT_TAG: u32 = 0x6;
pub(super) const EV_PLATFORM_CONFIG_FLAGS: u32 = 0xa;
pub(super) const EV_IPL: u32 = 0xd;
pub(super) const EV_EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
pub(super) const EV_EFI_VARIABLE_BOOT: u32 = 0x8000_0002;
pub(super) const EV_EFI_BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
pub(super) const EV_EFI_RUNTIME_SERVICES_DRIVER: u32 = 0x8000_0005;
pub(super) const EV_EFI_GPT_EVENT: u32 = 0x8000_0006;
pub(super) const EV_EFI_ACTION: u32 = 0x8000_0007;
pub(super) const EV_EFI_PLATFORM_FIRMWARE_BLOB2: u32 = 0x8000_000a;
pub(super) const EV_EFI_HANDOFF_TABLES2: u32 = 0x8000_000b;
pub(super) const EV_EFI_VARIABLE_BOOT2: u32 = 0x8000_000c;
pub(super) const EV_EFI_VARIABLE_AUTHORITY: u32 = 0x8000_00e0;
/// What dstack measures into RTMR3 at run time; no TCG type.
pub(super) const RUNTIME_EVENT: u32 = 0x0800_0001;

const NAMES: [(u32, &str); 38] = [
    (0x0, "EV_PREBOOT_CERT"),
    (0x1, "EV_POST_CODE"),
    (EV_NO_ACTION, "EV_NO_ACTION"),
    (EV_SEPARATOR, "EV_SEPARATOR"),
    (0x5, "EV_ACTION"),
    (EV_EVENT_TAG, "EV_EVENT_TAG"),
    (0x7, "EV_S_CRTM_CONTENTS"),
    (0x8, "EV_S_CRTM_VERSION"),
    (0x9, "EV_CPU_MICROCODE"),
    (EV_PLATFORM_CONFIG_FLAGS, "EV_PLATFORM_CONFIG_FLAGS"),
    (0xb, "EV_TABLE_OF_DEVICES"),
    (0xc, "EV_COMPACT_HASH"),
    (EV_IPL, "EV_IPL"),
    (0xe, "EV_IPL_PARTITION_DATA"),
    (0xf, "EV_NONHOST_CODE"),
    (0x10, "EV_NONHOST_CONFIG"),
    (0x11, "EV_NONHOST_INFO"),
    (0x12, "EV_OMIT_BOOT_DEVICE_EVENTS"),
    (0x13, "EV_POST_CODE2"),
    (EV_EFI_VARIABLE_DRIVER_CONFIG, "EV_EFI_VARIABLE_DRIVER_CONFIG"),
    (EV_EFI_VARIABLE_BOOT, "EV_EFI_VARIABLE_BOOT"),
    (EV_EFI_BOOT_SERVICES_APPLICATION, "EV_EFI_BOOT_SERVICES_APPLICATION"),
    (0x8000_0004, "EV_EFI_BOOT_SERVICES_DRIVER"),
    (EV_EFI_RUNTIME_SERVICES_DRIVER, "EV_EFI_RUNTIME_SERVICES_DRIVER"),
    (EV_EFI_GPT_EVENT, "EV_EFI_GPT_EVENT"),
    (EV_EFI_ACTION, "EV_EFI_ACTION"),
    (0x8000_0008, "EV_EFI_PLATFORM_FIRMWARE_BLOB"),
    (0x8000_0009, "EV_EFI_HANDOFF_TABLES"),
    (EV_EFI_PLATFORM_FIRMWARE_BLOB2, "EV_EFI_PLATFORM_FIRMWARE_BLOB2"),
    (EV_EFI_HANDOFF_TABLES2, "EV_EFI_HANDOFF_TABLES2"),
    (EV_EFI_VARIABLE_BOOT2, "EV_EFI_VARIABLE_BOOT2"),
    (0x8000_000d, "EV_EFI_GPT_EVENT2"),
    (0x8000_0010, "EV_EFI_HCRTM_EVENT"),
    (EV_EFI_VARIABLE_AUTHORITY, "EV_EFI_VARIABLE_AUTHORITY"),
    (0x8000_00e1, "EV_EFI_SPDM_FIRMWARE_BLOB"),
    (0x8000_00e2, "EV_EFI_SPDM_FIRMWARE_CONFIG"),
    (0x8000_00e3, "EV_EFI_SPDM_DEVICE_POLICY"),
    (RUNTIME_EVENT, "runtime event"),
];

/// The event type of a name.
pub(super) fn type_of_name(name: &str) -> Option<u32> {
    NAMES.iter().find(|(_, known)| *known == name).map(|(event_type, _)| *event_type)
}

/// How the data beside a digest relates to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataState {
    /// The digest is over this data, so a log proven by its registers proves the data too.
    Matches,
    /// The digest is over something that the log does not hold (a program, a table) or was left out.
    DigestOnly,
    /// The digest should be over this data and is not: somebody changed one of them.
    Differs,
}

impl DataState {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Matches => "data matches digest",
            Self::DigestOnly => "digest only",
            Self::Differs => "DATA DOES NOT MATCH DIGEST",
        }
    }
}

/// One event: a digest that was extended into a register, and what the log says of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// 0 to 3; none for MRTD.
    rtmr: Option<usize>,
    event_type: u32,
    digest: [u8; DIGEST_LEN_BYTES],
    data: Vec<u8>,
    /// Logs in JSON name their events.
    name: Option<String>,
}

impl Event {
    pub(super) const fn new(
        rtmr: Option<usize>,
        event_type: u32,
        digest: [u8; DIGEST_LEN_BYTES],
        data: Vec<u8>,
        name: Option<String>,
    ) -> Self {
        Self { rtmr, event_type, digest, data, name }
    }

    /// Number of the RTMR that it was extended into, 0 to 3; none for an event of MRTD.
    #[must_use]
    pub const fn rtmr(&self) -> Option<usize> {
        self.rtmr
    }

    /// The register by name.
    #[must_use]
    pub fn register_name(&self) -> &'static str {
        let names = ["RTMR0", "RTMR1", "RTMR2", "RTMR3"];
        self.rtmr.and_then(|index| names.get(index).copied()).unwrap_or("MRTD")
    }

    /// TCG event type.
    #[must_use]
    pub const fn event_type(&self) -> u32 {
        self.event_type
    }

    /// The event type by name; `unknown` for one without a name here.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        let found = NAMES.iter().find(|(event_type, _)| *event_type == self.event_type);
        found.map_or("unknown", |(_, name)| name)
    }

    /// The SHA-384 digest that was extended.
    #[must_use]
    pub const fn digest(&self) -> [u8; DIGEST_LEN_BYTES] {
        self.digest
    }

    /// What the log keeps beside the digest.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The name that a JSON log gives it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// False for an event that informs only and was not extended.
    #[must_use]
    pub const fn is_extended(&self) -> bool {
        self.event_type != EV_NO_ACTION
    }

    /// Whether the digest is over the data (and name) given.
    #[must_use]
    pub fn data_state(&self) -> DataState {
        let matches = match self.event_type {
            RUNTIME_EVENT => self.runtime_data_matches(),
            EV_EFI_VARIABLE_BOOT | EV_EFI_VARIABLE_BOOT2 => self.is_over(&self.data) || self.is_over_value(),
            EV_IPL => self.is_over(&self.data) || self.is_over_text(),
            _ => self.is_over(&self.data),
        };
        match self.event_type {
            _ if matches => DataState::Matches,
            // The profile leaves these no choice; boot variables, text of loaders and separators it does.
            RUNTIME_EVENT | EV_EFI_VARIABLE_DRIVER_CONFIG | EV_EFI_ACTION | EV_EFI_GPT_EVENT
                if self.event_type == RUNTIME_EVENT || !self.data.is_empty() =>
            {
                DataState::Differs
            }
            _ => DataState::DigestOnly,
        }
    }

    fn is_over(&self, bytes: &[u8]) -> bool {
        sha384(bytes) == self.digest
    }

    fn runtime_data_matches(&self) -> bool {
        let name = self.name().unwrap_or_default();
        [RuntimeForm::Binary, RuntimeForm::Json]
            .iter()
            .any(|form| self.is_over(&form.preimage(name, &self.data)))
    }

    /// Firmware measures boot variables without their names (profile 1.06, 10.4.1).
    fn is_over_value(&self) -> bool {
        variable_value(&self.data).is_some_and(|value| self.is_over(value))
    }

    /// GRUB logs `kind: text` with a zero byte and measures the text; others log text alone.
    fn is_over_text(&self) -> bool {
        let text = self.data.strip_suffix(&[0]).unwrap_or(&self.data);
        let after =
            text.windows(2).position(|pair| pair == b": ").and_then(|at| text.get(at.checked_add(2)?..));
        self.is_over(text) || after.is_some_and(|text| self.is_over(text))
    }

    /// What the data says, in one line for people; escaped, since it may come from anybody.
    #[must_use]
    pub fn description(&self) -> String {
        describe(self.event_type, &self.data, self.name())
    }
}

/// `RTMR1 EV_EFI_ACTION 77a0dab2…: "Calling EFI Application from Boot Option"`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.register_name(), self.type_name())?;
        write!(f, "{}: {}", crate::hex_string(&self.digest), self.description())
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the digest of a dstack runtime event is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuntimeForm {
    /// Version 1: `type as 32 bits little-endian || ":" || name || ":" || payload`.
    Binary,
    /// Version 2: canonical JSON (RFC 8785) of name, payload in hexadecimal, and type.
    Json,
}

impl RuntimeForm {
    pub(super) fn preimage(self, name: &str, payload: &[u8]) -> Vec<u8> {
        match self {
            Self::Binary => {
                [&RUNTIME_EVENT.to_le_bytes(), b":".as_slice(), name.as_bytes(), b":", payload].concat()
            }
            // RFC 8785 escapes text as serde_json does, and these keys are in its order.
            Self::Json => {
                let name = serde_json::Value::from(name).to_string();
                let payload = crate::hex_string(payload);
                format!(r#"{{"name":{name},"payload":"{payload}","type":{RUNTIME_EVENT}}}"#).into_bytes()
            }
        }
    }
}

pub(crate) fn sha384(bytes: &[u8]) -> [u8; DIGEST_LEN_BYTES] {
    let mut hash = [0; DIGEST_LEN_BYTES];
    hash.copy_from_slice(digest(&SHA384, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event_type: u32, over: &[u8], data: &[u8]) -> Event {
        Event::new(Some(1), event_type, sha384(over), data.to_vec(), None)
    }

    #[test]
    fn data_matches_where_the_digest_is_over_it() {
        let state = |event_type, over: &[u8], data: &[u8]| event(event_type, over, data).data_state();
        assert_eq!(state(EV_EFI_ACTION, b"abc", b"abc"), DataState::Matches);
        assert_eq!(state(EV_EFI_ACTION, b"abc", b"abd"), DataState::Differs);
        assert_eq!(state(EV_EFI_ACTION, b"abc", b""), DataState::DigestOnly, "left out");
        assert_eq!(state(EV_EFI_GPT_EVENT, b"abc", b"abd"), DataState::Differs);
        assert_eq!(state(EV_EFI_VARIABLE_DRIVER_CONFIG, b"abc", b"abd"), DataState::Differs);
        assert_eq!(state(EV_PLATFORM_CONFIG_FLAGS, b"tables", b"ACPI DATA"), DataState::DigestOnly);
        assert_eq!(state(EV_IPL, b"set x=1", b"grub_cmd: set x=1\0"), DataState::Matches);
        assert_eq!(state(EV_IPL, b"set x=1", b"set x=1\0"), DataState::Matches);
        assert_eq!(state(EV_IPL, b"the file", b"/grub.cfg\0"), DataState::DigestOnly);
    }

    #[test]
    fn a_boot_variable_is_measured_with_or_without_its_name() {
        let data = [&[7; 16][..], &1u64.to_le_bytes(), &2u64.to_le_bytes(), b"B\0", b"xy"].concat();
        assert_eq!(event(EV_EFI_VARIABLE_BOOT, b"xy", &data).data_state(), DataState::Matches);
        assert_eq!(event(EV_EFI_VARIABLE_BOOT, &data, &data).data_state(), DataState::Matches);
        assert_eq!(event(EV_EFI_VARIABLE_BOOT, b"xz", &data).data_state(), DataState::DigestOnly);
        assert_eq!(event(EV_EFI_VARIABLE_DRIVER_CONFIG, b"xy", &data).data_state(), DataState::Differs);
    }

    #[test]
    fn a_runtime_event_is_bound_to_name_and_payload() {
        for form in [RuntimeForm::Binary, RuntimeForm::Json] {
            let state = |name: &str, payload: &[u8]| {
                let digest = sha384(&form.preimage("app-id", b"x"));
                Event::new(Some(3), RUNTIME_EVENT, digest, payload.to_vec(), Some(name.into())).data_state()
            };
            assert_eq!(state("app-id", b"x"), DataState::Matches);
            assert_eq!(state("app-ie", b"x"), DataState::Differs);
            assert_eq!(state("app-id", b"y"), DataState::Differs);
            assert_eq!(state("app-id", b""), DataState::Differs);
        }
        let json = RuntimeForm::Json.preimage("a\"b", &[0xab]);
        assert_eq!(json, br#"{"name":"a\"b","payload":"ab","type":134217729}"#);
    }

    #[test]
    fn an_event_in_one_line() {
        let event = Event::new(Some(1), EV_EFI_ACTION, [0xab; 48], b"Exit\x1b[2J".to_vec(), None);
        let text = event.to_string();
        assert!(text.starts_with("RTMR1 EV_EFI_ACTION abab"), "{text}");
        assert!(text.ends_with(r#": "Exit\u{1b}[2J""#), "{text}");
        assert_eq!(format!("{event:?}"), text);
        let words = [DataState::Matches, DataState::DigestOnly, DataState::Differs].map(DataState::as_str);
        assert_eq!(words, ["data matches digest", "digest only", "DATA DOES NOT MATCH DIGEST"]);
        assert_eq!(Event::new(None, 0x99, [0; 48], vec![], None).type_name(), "unknown");
        assert!(NAMES.iter().all(|(event_type, name)| type_of_name(name) == Some(*event_type)));
    }
}
