//! Intel's extension of a PCK certificate: which platform and which TCB the key was certified for (PCK Certificate and
//! CRL Profile 1.5, section 1.3.5).
//!
//! ```text
//! SEQUENCE of SEQUENCE { OID, value }: PPID .1, TCB .2 (components .2.1 to .2.16, PCESVN .2.17, CPUSVN .2.18),
//! PCE-ID .3, FMSPC .4, SGX type .5, platform instance .6, configuration .7
//! ```
//!
//! Each is there at most once, in exact DER; one that is unknown is an error, as in Intel's own verifier.

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode, Reader as _, SliceReader, Tag, Tagged as _};

use crate::verdict::{Finding, Reason};
use crate::x509::Certificate;

const SGX_EXTENSIONS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1");
const PPID: u32 = 1;
const TCB: u32 = 2;
const PCE_ID: u32 = 3;
const FMSPC: u32 = 4;
const SGX_TYPE: u32 = 5;
const PLATFORM_INSTANCE: u32 = 6;
const CONFIGURATION: u32 = 7;
const PCE_SVN: u32 = 17;
const CPU_SVN: u32 = 18;
/// Most members of the outer and of the inner sequence.
const MAX_MEMBERS: usize = 18;

/// What a PCK certificate says of its platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PckExtensions {
    pub(crate) ppid: [u8; 16],
    /// The sixteen SGX TCB components.
    pub(crate) components: [u8; 16],
    pub(crate) pce_svn: u16,
    pub(crate) pce_id: [u8; 2],
    pub(crate) fmspc: [u8; 6],
}

impl PckExtensions {
    /// Reads the extension of a certificate.
    pub(crate) fn of(certificate: &Certificate) -> Result<Self, Finding> {
        let refuse = |what: &str| Finding::new(Reason::Chain, format!("PCK certificate: {what}"));
        let extension = certificate.extensions().iter().find(|extension| extension.extn_id == SGX_EXTENSIONS);
        let extension = extension.ok_or_else(|| refuse("no SGX extensions"))?;
        Self::parse(extension.extn_value.as_bytes())
            .ok_or_else(|| refuse("the SGX extensions are not as Intel's profile says"))
    }

    fn parse(der: &[u8]) -> Option<Self> {
        let members = members(der, &SGX_EXTENSIONS)?;
        let known = |number: &u32| (PPID..=CONFIGURATION).contains(number);
        if !members.iter().all(|(number, _)| known(number)) {
            return None;
        }
        let (components, pce_svn) = tcb(find(&members, TCB)?)?;
        // Standard, scalable, scalable with integrity.
        let sgx_type = find(&members, SGX_TYPE)?;
        if sgx_type.tag() != Tag::Enumerated || !matches!(sgx_type.value(), [0..=2]) {
            return None;
        }
        if let Some(instance) = find(&members, PLATFORM_INSTANCE) {
            octets::<16>(instance)?;
        }
        if let Some(configuration) = find(&members, CONFIGURATION) {
            let number = SGX_EXTENSIONS.push_arc(CONFIGURATION).ok()?;
            for (_, flag) in sequence(configuration, &number)? {
                flag.decode_as::<bool>().ok()?;
            }
        }
        Some(Self {
            ppid: octets(find(&members, PPID)?)?,
            components,
            pce_svn,
            pce_id: octets(find(&members, PCE_ID)?)?,
            fmspc: octets(find(&members, FMSPC)?)?,
        })
    }
}

/// Components and PCESVN of the TCB member; CPUSVN must be there and adds nothing to them.
fn tcb(value: AnyRef<'_>) -> Option<([u8; 16], u16)> {
    let arc = SGX_EXTENSIONS.push_arc(TCB).ok()?;
    let members = sequence(value, &arc)?;
    if members.len() != 18 {
        return None;
    }
    octets::<16>(find(&members, CPU_SVN)?)?;
    let mut components = [0; 16];
    for (number, component) in (1..).zip(&mut components) {
        *component = unsigned(find(&members, number)?)?.try_into().ok()?;
    }
    Some((components, unsigned(find(&members, PCE_SVN)?)?))
}

type Members<'a> = Vec<(u32, AnyRef<'a>)>;

fn find<'a>(members: &Members<'a>, number: u32) -> Option<AnyRef<'a>> {
    members.iter().find(|(other, _)| *other == number).map(|(_, value)| *value)
}

fn members<'a>(der: &'a [u8], arc: &ObjectIdentifier) -> Option<Members<'a>> {
    sequence(AnyRef::from_der(der).ok()?, arc)
}

/// The members of a SEQUENCE of (OID, value), each under `arc` and no two alike.
fn sequence<'a>(value: AnyRef<'a>, arc: &ObjectIdentifier) -> Option<Members<'a>> {
    if value.tag() != Tag::Sequence {
        return None;
    }
    let mut reader = SliceReader::new(value.value()).ok()?;
    let mut members = Members::new();
    while !reader.is_finished() {
        let member = AnyRef::decode(&mut reader).ok()?;
        if member.tag() != Tag::Sequence || members.len() == MAX_MEMBERS {
            return None;
        }
        let mut inner = SliceReader::new(member.value()).ok()?;
        let oid = ObjectIdentifier::decode(&mut inner).ok()?;
        let value = AnyRef::decode(&mut inner).ok()?;
        let number = oid.arcs().last()?;
        if !inner.is_finished() || oid.parent().as_ref() != Some(arc) || find(&members, number).is_some() {
            return None;
        }
        members.push((number, value));
    }
    Some(members)
}

fn octets<const N: usize>(value: AnyRef<'_>) -> Option<[u8; N]> {
    let octets: &OctetStringRef = value.decode_as().ok()?;
    octets.as_bytes().try_into().ok()
}

/// A DER INTEGER in shortest form that fits.
fn unsigned(value: AnyRef<'_>) -> Option<u16> {
    let number: UintRef<'_> = value.decode_as().ok()?;
    match number.as_bytes() {
        [] => Some(0),
        [low] => Some(u16::from(*low)),
        [high, low] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tag` with these contents.
    fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(contents.len()).unwrap()], contents].concat()
    }

    /// 1.2.840.113741.1.13.1.`number`, and 5.
    fn member(number: u8) -> Vec<u8> {
        let oid = [0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 1, 0x0d, 1, number];
        [tlv(0x06, &oid), vec![2, 1, 5]].concat()
    }

    #[test]
    fn members_are_pairs_below_their_arc_and_no_two_alike() {
        let numbers = |list: &[Vec<u8>]| {
            let der = tlv(0x30, &list.concat());
            let read = members(&der, &SGX_EXTENSIONS)?;
            Some(read.iter().map(|(number, _)| *number).collect::<Vec<_>>())
        };
        let pair = |number| tlv(0x30, &member(number));
        assert_eq!(numbers(&[pair(1), pair(4)]), Some(vec![1, 4]));
        assert_eq!(numbers(&[pair(1), pair(1)]), None, "twice");
        assert_eq!(numbers(&[tlv(0x31, &member(1))]), None, "a SET");
        assert_eq!(numbers(&[tlv(0x30, &[member(1), vec![5, 0]].concat())]), None, "three parts");
        let mut elsewhere = member(1);
        elsewhere[10] = 2; // 1.2.840.113741.1.13.2
        assert_eq!(numbers(&[tlv(0x30, &elsewhere)]), None, "another arc");
        assert_eq!(members(&tlv(0x31, &pair(1)), &SGX_EXTENSIONS), None, "no SEQUENCE");
    }

    #[test]
    fn numbers_are_short_and_not_negative() {
        let number = |contents: &[u8]| unsigned(AnyRef::from_der(&tlv(2, contents)).unwrap());
        assert_eq!([&[0][..], &[127], &[0, 255], &[1, 2]].map(number), [0, 127, 255, 0x102].map(Some));
        assert_eq!([&[255][..], &[0, 1], &[1, 0, 0]].map(number), [None; 3]);
    }
}
