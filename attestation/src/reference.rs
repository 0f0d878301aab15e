//! Reference values: what a release measures when it is launched, signed by whoever releases it (SPEC, section 17).
//!
//! A relying party takes its expected measurements from here instead of copying digests by hand: it names the key it
//! believes and the least counter it takes, so that an old release with known holes does not come back. Each launch lists
//! the files that were measured, by hash, so that an auditor can compute it again.

use ring::signature::Ed25519KeyPair;

use crate::commit::Digest;
use crate::cose::{self, PublicKey, SignedError};
use crate::evidence::Platform;
use crate::time::Time;
use crate::wire::{self, Bytes, WireError};

const LABEL: &str = "adyton/v1/sig/reference";
const MAX_LAUNCHES: usize = 256;
const MAX_INPUTS: usize = 32;
const MAX_NAME_LEN: usize = 128;

/// Why reference values are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Malformed, over a limit, or not signed by the expected key.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// Their time is over.
    #[error("the reference values of release {release} ran out at {not_after}; get those of a newer release")]
    Expired {
        /// The release.
        release: String,
        /// When.
        not_after: Time,
    },
    /// Older than the relying party takes.
    #[error("the reference values have counter {counter}, at least {floor} is wanted")]
    Rollback {
        /// Of these.
        counter: u64,
        /// The least that is taken.
        floor: u64,
    },
}

impl From<WireError> for ReferenceError {
    fn from(error: WireError) -> Self {
        Self::Signed(SignedError::Malformed(error))
    }
}

/// One way to launch the release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// For people, such as `EPYC-Genoa, 4 vCPUs`.
    pub name: String,
    /// Where it is launched.
    pub platform: Platform,
    /// MEASUREMENT or MRTD.
    pub measurement: [u8; 48],
    /// RTMR0 to RTMR2 of a TD; none elsewhere.
    pub rtmrs: Option<[[u8; 48]; 3]>,
    /// What was measured: names and SHA-256.
    pub inputs: Vec<(String, Digest)>,
}

/// The reference values of one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceValues {
    /// The release, such as `0.2.0`.
    pub release: String,
    /// Grows with each release.
    pub counter: u64,
    /// Not to be used from then on.
    pub not_after: Time,
    /// Every way to launch it.
    pub launches: Vec<Launch>,
}

type LaunchWire = (String, u8, Bytes<48>, Vec<Bytes<48>>, Vec<(String, Bytes<32>)>);
type Wire = (u8, String, u64, u64, Vec<LaunchWire>);

impl ReferenceValues {
    /// Signs under the releaser's key.
    ///
    /// # Errors
    /// [`ReferenceError::Signed`] if they are over a limit that a reader enforces.
    pub fn sign(&self, key: &Ed25519KeyPair) -> Result<Vec<u8>, ReferenceError> {
        let launch = |launch: &Launch| -> LaunchWire {
            (
                launch.name.clone(),
                launch.platform.code(),
                Bytes(launch.measurement),
                launch.rtmrs.iter().flatten().map(|rtmr| Bytes(*rtmr)).collect(),
                launch.inputs.iter().map(|(name, digest)| (name.clone(), Bytes(*digest))).collect(),
            )
        };
        let wire: Wire = (
            1,
            self.release.clone(),
            self.counter,
            self.not_after.as_unix_seconds(),
            self.launches.iter().map(launch).collect(),
        );
        let payload = wire::encode(&wire);
        Self::decode(&payload)?;
        Ok(cose::sign(key, LABEL, &payload))
    }

    /// Verifies that `key` signed `bytes`, that they hold at `now` and are not below `floor`.
    ///
    /// # Errors
    /// [`ReferenceError`].
    pub fn verify(key: &PublicKey, bytes: &[u8], floor: u64, now: Time) -> Result<Self, ReferenceError> {
        let values = Self::decode(&cose::verify(key, LABEL, bytes)?)?;
        if values.counter < floor {
            return Err(ReferenceError::Rollback { counter: values.counter, floor });
        }
        if now >= values.not_after {
            return Err(ReferenceError::Expired { release: values.release, not_after: values.not_after });
        }
        Ok(values)
    }

    fn decode(payload: &[u8]) -> Result<Self, ReferenceError> {
        let (version, release, counter, not_after, launches): Wire = wire::decode(payload, cose::MAX_LEN)?;
        let wrong = || ReferenceError::from(WireError::WrongShape);
        if version != 1 || release.is_empty() || release.len() > MAX_NAME_LEN || launches.len() > MAX_LAUNCHES
        {
            return Err(wrong());
        }
        let launches = launches.into_iter().map(|launch| read_launch(launch).ok_or_else(wrong));
        Ok(Self {
            release,
            counter,
            not_after: Time::from_unix_seconds(not_after),
            launches: launches.collect::<Result<_, _>>()?,
        })
    }

    /// The measurements of launches on a platform whose measurement says all: MEASUREMENT of SEV-SNP, or a simulator's.
    #[must_use]
    pub fn measurements(&self, platform: Platform) -> Vec<[u8; 48]> {
        let alone =
            self.launches.iter().filter(|launch| launch.platform == platform && launch.rtmrs.is_none());
        alone.map(|launch| launch.measurement).collect()
    }

    /// MRTD and RTMR0 to RTMR2 of every TD of the release.
    #[must_use]
    pub fn td_launches(&self) -> Vec<[[u8; 48]; 4]> {
        let whole = |launch: &Launch| {
            let [rtmr0, rtmr1, rtmr2] = launch.rtmrs?;
            Some([launch.measurement, rtmr0, rtmr1, rtmr2])
        };
        self.launches.iter().filter_map(whole).collect()
    }
}

fn read_launch((name, platform, measurement, rtmrs, inputs): LaunchWire) -> Option<Launch> {
    let platform = Platform::from_code(platform)?;
    let rtmrs: Vec<[u8; 48]> = rtmrs.into_iter().map(|rtmr| rtmr.0).collect();
    let rtmrs = match platform {
        Platform::Tdx => Some(rtmrs.try_into().ok()?),
        _ if rtmrs.is_empty() => None,
        _ => return None,
    };
    let names = inputs.iter().map(|(name, _)| name).chain([&name]);
    if inputs.len() > MAX_INPUTS || names.into_iter().any(|name| name.is_empty() || name.len() > MAX_NAME_LEN)
    {
        return None;
    }
    let inputs = inputs.into_iter().map(|(name, digest)| (name, digest.0)).collect();
    Some(Launch { name, platform, measurement: measurement.0, rtmrs, inputs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::KeyPair as _;

    fn key(seed: u8) -> (Ed25519KeyPair, PublicKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        (pair, public)
    }

    fn values() -> ReferenceValues {
        let launch = |name: &str, platform, rtmrs| Launch {
            name: name.into(),
            platform,
            measurement: [platform as u8; 48],
            rtmrs,
            inputs: vec![("kernel".into(), [3; 32])],
        };
        ReferenceValues {
            release: "0.2.0".into(),
            counter: 7,
            not_after: Time::from_unix_seconds(1000),
            launches: vec![
                launch("EPYC-Genoa, 4 vCPUs", Platform::SevSnp, None),
                launch("TD, 4 vCPUs", Platform::Tdx, Some([[1; 48], [2; 48], [3; 48]])),
            ],
        }
    }

    #[test]
    fn values_are_believed_under_their_key_in_their_time_and_not_below_the_floor() {
        let (pair, public) = key(1);
        let signed = values().sign(&pair).unwrap();
        let at = |floor, now| ReferenceValues::verify(&public, &signed, floor, Time::from_unix_seconds(now));
        let read = at(7, 999).unwrap();
        assert_eq!(read, values());
        assert_eq!(read.measurements(Platform::SevSnp), [[Platform::SevSnp as u8; 48]]);
        assert_eq!(read.td_launches(), [[[Platform::Tdx as u8; 48], [1; 48], [2; 48], [3; 48]]]);
        assert!(
            [Platform::Tdx, Platform::Simulated].iter().all(|other| read.measurements(*other).is_empty())
        );
        assert!(matches!(at(7, 1000), Err(ReferenceError::Expired { .. })));
        assert_eq!(at(8, 999), Err(ReferenceError::Rollback { counter: 7, floor: 8 }));
        let other = ReferenceValues::verify(&key(2).1, &signed, 0, Time::from_unix_seconds(0));
        assert_eq!(other, Err(ReferenceError::Signed(SignedError::Signature)));
        let as_manifest = cose::verify(&public, "adyton/v1/sig/manifest", &signed);
        assert_eq!(as_manifest, Err(SignedError::Signature), "the purpose is signed too");
    }

    #[test]
    fn values_at_every_limit_are_signed_and_read() {
        let (pair, public) = key(1);
        let mut values = values();
        values.release = "r".repeat(MAX_NAME_LEN);
        values.launches[0].name = "x".repeat(MAX_NAME_LEN);
        values.launches[0].inputs = vec![("a".repeat(MAX_NAME_LEN), [0; 32]); MAX_INPUTS];
        values.launches.resize(MAX_LAUNCHES, values.launches[1].clone());
        let signed = values.sign(&pair).unwrap();
        assert_eq!(ReferenceValues::verify(&public, &signed, 0, Time::from_unix_seconds(0)).unwrap(), values);
    }

    #[test]
    fn what_no_reader_takes_is_not_signed() {
        let (pair, _) = key(1);
        let refused = |change: &dyn Fn(&mut ReferenceValues)| {
            let mut values = values();
            change(&mut values);
            assert!(values.sign(&pair).is_err());
        };
        refused(&|values| values.release.clear());
        refused(&|values| values.release = "x".repeat(MAX_NAME_LEN + 1));
        refused(&|values| values.launches[0].name.clear());
        refused(&|values| values.launches[0].name = "x".repeat(MAX_NAME_LEN + 1));
        refused(&|values| values.launches[1].rtmrs = None);
        refused(&|values| values.launches[0].rtmrs = Some([[0; 48]; 3]));
        refused(&|values| values.launches = vec![values.launches[0].clone(); MAX_LAUNCHES + 1]);
        refused(&|values| values.launches[0].inputs = vec![("a".into(), [0; 32]); MAX_INPUTS + 1]);
    }
}
