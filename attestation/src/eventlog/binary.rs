//! The binary log: a Spec ID event in the old format, then events in the crypto agile format
//! (TCG PC Client Platform Firmware Profile 1.06, 10.2). Integers are little-endian.

use super::event::{EV_NO_ACTION, Event};
use super::{EventLogError, MAX_EVENTS};

const SPEC_ID_SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";
const TPM_ALG_SHA384: u16 = 0x000c;
/// The old format has one SHA-1 digest.
const SHA1_LEN: usize = 20;
/// TCG lists eight digest algorithms.
const MAX_ALGORITHMS: u32 = 16;

pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Event>, EventLogError> {
    let mut reader = Reader { rest: bytes, at: 0 };
    let algorithms = spec_id(&mut reader)?;
    let mut events = Vec::new();
    while !is_filler(reader.rest) {
        if events.len() >= MAX_EVENTS {
            return Err(EventLogError::TooManyEvents);
        }
        events.push(event(&mut reader, &algorithms, events.len().saturating_add(1))?);
    }
    Ok(events)
}

/// What follows the last event: the unused rest of the firmware's buffer, of one value.
fn is_filler(rest: &[u8]) -> bool {
    rest.iter().all(|byte| *byte == 0xff) || rest.iter().all(|byte| *byte == 0)
}

/// Reads the first event and returns the digest algorithms of the log with their lengths.
fn spec_id(reader: &mut Reader<'_>) -> Result<Vec<(u16, usize)>, EventLogError> {
    let wrong = |what| EventLogError::SpecId { what };
    let (_register, event_type) = (reader.u32()?, reader.u32()?);
    reader.take(SHA1_LEN)?;
    let data = reader.sized()?;
    if event_type != EV_NO_ACTION || !data.starts_with(SPEC_ID_SIGNATURE) {
        return Err(wrong("the first event is another"));
    }
    let mut data = Reader { rest: data, at: reader.at.saturating_sub(data.len()) };
    data.take(SPEC_ID_SIGNATURE.len())?;
    let _platform_class = data.u32()?;
    let [minor, major, _errata, _uintn_size] = data.array()?;
    let count = data.u32()?;
    if (major, minor) != (2, 0) {
        return Err(wrong("it is of another version"));
    }
    if count > MAX_ALGORITHMS {
        return Err(wrong("it declares too many algorithms"));
    }
    let mut algorithms: Vec<(u16, usize)> = Vec::new();
    for _ in 0..count {
        let (algorithm, len) = (data.u16()?, usize::from(data.u16()?));
        if algorithms.iter().any(|(known, _)| *known == algorithm) {
            return Err(wrong("it declares an algorithm twice"));
        }
        algorithms.push((algorithm, len));
    }
    let [vendor_len] = data.array()?;
    if data.rest.len() != usize::from(vendor_len) {
        return Err(wrong("its length is not that of its parts"));
    }
    Ok(algorithms)
}

fn event(
    reader: &mut Reader<'_>,
    algorithms: &[(u16, usize)],
    number: usize,
) -> Result<Event, EventLogError> {
    let (register, event_type, count) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let rtmr = rtmr_of_register(register.into());
    let rtmr = rtmr.ok_or(EventLogError::Register { number, register: register.into() })?;
    if count > MAX_ALGORITHMS {
        return Err(EventLogError::Digests { number });
    }
    let mut sha384 = None;
    for _ in 0..count {
        let algorithm = reader.u16()?;
        let declared = algorithms.iter().find(|(id, _)| *id == algorithm);
        let (_, len) = declared.ok_or(EventLogError::Algorithm { number, algorithm })?;
        let digest = reader.take(*len)?;
        if algorithm == TPM_ALG_SHA384 {
            let digest = digest.try_into().map_err(|_| EventLogError::Digests { number })?;
            if sha384.replace(digest).is_some() {
                return Err(EventLogError::Digests { number });
            }
        }
    }
    let digest = sha384.ok_or(EventLogError::Digests { number })?;
    let data = reader.sized()?.to_vec();
    Ok(Event::new(rtmr, event_type, digest, data, None))
}

/// The RTMR of a measurement register, of which 0 is MRTD and 1 is RTMR0; none if there is no such register.
#[allow(clippy::option_option, reason = "no register at all, or one that is no RTMR")]
pub(super) fn rtmr_of_register(register: u64) -> Option<Option<usize>> {
    match register {
        0 => Some(None),
        1..=4 => Some(usize::try_from(register).ok()?.checked_sub(1)),
        _ => None,
    }
}

/// Walks over bytes, never past their end.
struct Reader<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], EventLogError> {
        let missing = EventLogError::Truncated { at: self.at.saturating_add(self.rest.len()) };
        let (head, rest) = self.rest.split_at_checked(len).ok_or(missing)?;
        self.rest = rest;
        self.at = self.at.saturating_add(len);
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EventLogError> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| EventLogError::Truncated { at })
    }

    fn u16(&mut self) -> Result<u16, EventLogError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, EventLogError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A length of 32 bits and as many bytes.
    fn sized(&mut self) -> Result<&'a [u8], EventLogError> {
        let len = self.u32()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::super::EventLog;
    use super::*;
    use proptest::prelude::*;

    fn header(algorithms: &[(u16, u16)]) -> Vec<u8> {
        let mut data = SPEC_ID_SIGNATURE.to_vec();
        data.extend([0, 0, 0, 0, 0, 2, 0, 2]);
        data.extend(u32::try_from(algorithms.len()).unwrap().to_le_bytes());
        algorithms.iter().for_each(|(id, len)| {
            data.extend(id.to_le_bytes());
            data.extend(len.to_le_bytes());
        });
        data.push(0);
        let mut log = [&1u32.to_le_bytes()[..], &EV_NO_ACTION.to_le_bytes(), &[0; SHA1_LEN]].concat();
        log.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        log.extend(data);
        log
    }

    fn entry(register: u32, digests: &[(u16, &[u8])], data: &[u8]) -> Vec<u8> {
        let mut event = [register.to_le_bytes(), 0xd_u32.to_le_bytes()].concat();
        event.extend(u32::try_from(digests.len()).unwrap().to_le_bytes());
        for (algorithm, digest) in digests {
            event.extend(algorithm.to_le_bytes());
            event.extend(*digest);
        }
        event.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        event.extend(data);
        event
    }

    const SHA384: (u16, u16) = (TPM_ALG_SHA384, 48);
    const DIGEST: (u16, &[u8]) = (TPM_ALG_SHA384, &[7; 48]);

    fn error(log: &[Vec<u8>]) -> EventLogError {
        EventLog::parse(&log.concat()).unwrap_err()
    }

    #[test]
    fn registers_and_filler() {
        for filler in [vec![], vec![0xff; 100], vec![0; 3]] {
            let events: Vec<_> = (0..=4).map(|register| entry(register, &[DIGEST], b"x")).collect();
            let log = [header(&[SHA384]), events.concat(), filler].concat();
            let log = EventLog::parse(&log).unwrap();
            let rtmrs: Vec<_> = log.events().iter().map(Event::rtmr).collect();
            assert_eq!(rtmrs, [None, Some(0), Some(1), Some(2), Some(3)]);
            assert_eq!((log.events()[0].digest(), log.events()[0].data()), ([7; 48], &b"x"[..]));
        }
    }

    #[test]
    fn other_digests_are_passed_over() {
        let both = header(&[(0xb, 32), SHA384]);
        let log = [both, entry(1, &[(0xb, &[1; 32]), DIGEST], b"")].concat();
        assert_eq!(EventLog::parse(&log).unwrap().events()[0].digest(), [7; 48]);
    }

    #[test]
    fn what_is_malformed_is_refused_by_name() {
        let head = header(&[SHA384]);
        assert_eq!(
            error(&[head.clone(), entry(5, &[DIGEST], b"")]),
            EventLogError::Register { number: 1, register: 5 }
        );
        let twice = entry(1, &[DIGEST, DIGEST], b"");
        assert_eq!(error(&[head.clone(), twice]), EventLogError::Digests { number: 1 });
        assert_eq!(error(&[head.clone(), entry(1, &[], b"")]), EventLogError::Digests { number: 1 });
        let unknown = entry(1, &[(0xb, &[1; 32]), DIGEST], b"");
        assert_eq!(
            error(&[head.clone(), entry(1, &[DIGEST], b""), unknown]),
            EventLogError::Algorithm { number: 2, algorithm: 0xb }
        );
        let short = header(&[(TPM_ALG_SHA384, 32)]);
        let digest: (u16, &[u8]) = (TPM_ALG_SHA384, &[7; 32]);
        assert_eq!(error(&[short, entry(1, &[digest], b"")]), EventLogError::Digests { number: 1 });
        let mut other = head.clone();
        other[32] = b'X';
        assert!(matches!(error(&[other]), EventLogError::SpecId { .. }));
        let mut cut = [head, entry(1, &[DIGEST], b"xyz")].concat();
        cut.pop();
        assert!(matches!(error(&[cut]), EventLogError::Truncated { .. }));
    }

    #[test]
    fn each_flaw_of_the_spec_id_event_has_its_error() {
        let spec_id = |log: &[u8]| match EventLog::parse(log) {
            Err(EventLogError::SpecId { what }) => what,
            other => panic!("{other:?}"),
        };
        let mut head = header(&[SHA384]);
        head[53] = 1; // major version
        assert_eq!(spec_id(&head), "it is of another version");
        assert_eq!(spec_id(&header(&[SHA384, SHA384])), "it declares an algorithm twice");
        assert_eq!(spec_id(&header(&[SHA384; 17])), "it declares too many algorithms");
        let mut head = header(&[SHA384]);
        let last = head.len() - 1;
        head[last] = 1; // vendor information that is not there
        assert_eq!(spec_id(&head), "its length is not that of its parts");
        let mut head = header(&[SHA384]);
        head[4] = 4; // event type
        assert_eq!(spec_id(&head), "the first event is another");
        assert_eq!(EventLog::parse(&header(&[SHA384])), Err(EventLogError::Empty));
    }

    #[test]
    fn a_log_declares_and_an_event_has_so_many_digests() {
        let of = |declared: u16, has: u16| {
            let algorithms: Vec<(u16, u16)> = (0..declared).map(|at| (SHA384.0 + at, 48)).collect();
            let digests: Vec<(u16, &[u8])> = (0..has).map(|at| (SHA384.0 + at, DIGEST.1)).collect();
            let log = [header(&algorithms), entry(1, &digests, b"")].concat();
            EventLog::parse(&log).map(|log| log.events().len())
        };
        assert_eq!(of(16, 16), Ok(1));
        assert_eq!(of(16, 17), Err(EventLogError::Digests { number: 1 }));
        let what = "it declares too many algorithms";
        assert_eq!(of(17, 1), Err(EventLogError::SpecId { what }));
        assert_eq!(of(16, 0), Err(EventLogError::Digests { number: 1 }));
    }

    #[test]
    fn a_log_is_capped() {
        // The rest of the firmware's buffer is filler.
        let mut full = [header(&[SHA384]), entry(1, &[DIGEST], b"")].concat();
        full.resize(4 << 20, 0xff);
        assert_eq!(EventLog::parse(&full).unwrap().events().len(), 1);
        let long = vec![0; super::super::MAX_LOG_LEN_BYTES + 1];
        assert_eq!(EventLog::parse(&long), Err(EventLogError::TooLong { len: long.len() }));
        let many = [header(&[SHA384]), entry(1, &[DIGEST], b"").repeat(MAX_EVENTS + 1)].concat();
        assert_eq!(EventLog::parse(&many), Err(EventLogError::TooManyEvents));
        let huge = [entry(1, &[DIGEST], b""), u32::MAX.to_le_bytes().to_vec()].concat();
        let at = huge.len() - 8; // the length of the data
        let huge = [header(&[SHA384]), huge[..at].to_vec(), u32::MAX.to_le_bytes().to_vec()].concat();
        assert_eq!(EventLog::parse(&huge), Err(EventLogError::Truncated { at: huge.len() }));
    }

    proptest! {
        #[test]
        fn a_cut_log_is_refused_or_shorter(cut in any::<prop::sample::Index>()) {
            let events = [entry(1, &[DIGEST], b"x"), entry(2, &[DIGEST], b"yz")];
            let whole = [header(&[SHA384]), events.concat()].concat();
            let cut = cut.index(whole.len());
            if let Ok(log) = EventLog::parse(&whole[..cut]) {
                prop_assert_eq!((log.events().len(), cut), (1, whole.len() - events[1].len()));
            }
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..300), after in any::<bool>(),
        ) {
            let head = if after { header(&[SHA384]) } else { Vec::new() };
            if let Ok(log) = EventLog::parse(&[head, bytes].concat()) {
                log.events().iter().for_each(|event| drop(event.to_string()));
            }
        }
    }
}
