//! The claims set in JSON (names) and in deterministic CBOR (numbers): one content, two spellings.

use core::fmt;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::vector::{COMPONENTS, Tier, TrustVector};
use super::{AttestationResult, MAX_RESULT_LEN_BYTES, PROFILE, ResultError, ResultStep};
use crate::time::Time;
use crate::wire::{self, Name};

const MAX_NONCE_LEN_BYTES: usize = 64;
const MIN_NONCE_LEN_BYTES: usize = 8;

/// JSON form; claims that are not known are passed over, as JWT has it.
#[derive(Serialize, Deserialize)]
struct JsonResult {
    eat_profile: String,
    iat: u64,
    ear_verifier_id: JsonVerifier,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eat_nonce: Option<String>,
    submods: BTreeMap<String, JsonAppraisal>,
}

#[derive(Serialize, Deserialize)]
struct JsonVerifier {
    developer: String,
    build: String,
}

#[derive(Serialize, Deserialize)]
struct JsonAppraisal {
    ear_status: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ear_trustworthiness_vector: BTreeMap<String, u8>,
    ear_appraisal_policy_ids: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ear_attester_claims: BTreeMap<String, String>,
    ear_verifier_claims: JsonVerifierClaims,
}

#[derive(Serialize, Deserialize)]
struct JsonVerifierClaims {
    adyton_reason: String,
    adyton_steps: Vec<JsonStep>,
}

#[derive(Serialize, Deserialize)]
struct JsonStep {
    name: String,
    result: String,
    detail: String,
}

/// A map key, in the order of its encoding: numbers before text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(u16),
    Text(Name),
}

/// What a CBOR claims set is made of. Keys are numbers on the draft's levels and text where names are free.
enum Node {
    Number(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Node>),
    Map(BTreeMap<Key, Node>),
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u16(*number),
            Self::Text(text) => text.serialize(serializer),
        }
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(list) => list.serialize(serializer),
            Self::Map(map) => map.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number below 65536 or a text")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Key, E> {
                u16::try_from(number).map(Key::Number).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Key, E> {
                Ok(Key::Text(Name(text.to_owned())))
            }
        }
        deserializer.deserialize_any(KeyVisitor)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;
        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a text, bytes, a list or a map")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Node, E> {
                Ok(Node::Number(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Node, E> {
                Ok(Node::Bytes(bytes.to_vec()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(node) = seq.next_element()? {
                    list.push(node);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, node)) = access.next_entry()? {
                    map.insert(key, node);
                }
                Ok(Node::Map(map))
            }
        }
        deserializer.deserialize_any(NodeVisitor)
    }
}

/// Numbers of the claims (RFC 9711, draft-ietf-rats-ear-04).
mod number {
    pub(super) const IAT: u16 = 6;
    pub(super) const NONCE: u16 = 10;
    pub(super) const PROFILE: u16 = 265;
    pub(super) const SUBMODS: u16 = 266;
    pub(super) const STATUS: u16 = 1000;
    pub(super) const VECTOR: u16 = 1001;
    pub(super) const POLICY_IDS: u16 = 1003;
    pub(super) const VERIFIER_ID: u16 = 1004;
    pub(super) const ATTESTER_CLAIMS: u16 = 1005;
    pub(super) const VERIFIER_CLAIMS: u16 = 1006;
    /// In the verifier's identity.
    pub(super) const DEVELOPER: u16 = 0;
    pub(super) const BUILD: u16 = 1;
}

impl AttestationResult {
    /// The JSON claims set. Unsigned: it proves nothing to anybody else.
    #[must_use]
    pub fn to_json(&self) -> String {
        let step = |step: &ResultStep| {
            let ResultStep { name, result, detail } = step.clone();
            JsonStep { name, result, detail }
        };
        let appraisal = JsonAppraisal {
            ear_status: self.status.as_str().to_owned(),
            ear_trustworthiness_vector: self
                .vector
                .iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            ear_appraisal_policy_ids: vec![self.policy.clone()],
            ear_attester_claims: self.attester_claims.clone(),
            ear_verifier_claims: JsonVerifierClaims {
                adyton_reason: self.reason.clone(),
                adyton_steps: self.steps.iter().map(step).collect(),
            },
        };
        let (developer, build) = self.verifier.clone();
        let result = JsonResult {
            eat_profile: PROFILE.to_owned(),
            iat: self.issued_at.as_unix_seconds(),
            ear_verifier_id: JsonVerifier { developer, build },
            eat_nonce: self.nonce.as_ref().map(|nonce| URL_SAFE_NO_PAD.encode(nonce)),
            submods: BTreeMap::from([(self.submodule.clone(), appraisal)]),
        };
        serde_json::to_string(&result).expect("text, numbers and maps with text keys always encode")
    }

    /// Reads a JSON claims set. That it parses says nothing about who wrote it.
    ///
    /// # Errors
    /// [`ResultError`]: too long, not of this form, or of another profile.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ResultError> {
        if bytes.len() > MAX_RESULT_LEN_BYTES {
            return Err(ResultError::TooLong(bytes.len()));
        }
        let result: JsonResult =
            serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        refuse_other_profile(&result.eat_profile)?;
        let (submodule, appraisal) = only(result.submods, "appraisal")?;
        let nonce = result.eat_nonce.map(|nonce| URL_SAFE_NO_PAD.decode(nonce)).transpose();
        let step = |step: JsonStep| {
            let JsonStep { name, result, detail } = step;
            ResultStep { name, result, detail }
        };
        let claims = appraisal.ear_verifier_claims;
        Ok(Self {
            issued_at: Time::from_unix_seconds(result.iat),
            verifier: (result.ear_verifier_id.developer, result.ear_verifier_id.build),
            nonce: checked_nonce(nonce.map_err(|_| malformed("eat_nonce is not base64url"))?)?,
            submodule,
            status: tier(|tier| tier.as_str() == appraisal.ear_status)?,
            vector: vector(appraisal.ear_trustworthiness_vector.into_iter().map(|(name, value)| {
                (COMPONENTS.iter().position(|component| *component == name), u64::from(value))
            }))?,
            policy: only_policy(appraisal.ear_appraisal_policy_ids)?,
            attester_claims: appraisal.ear_attester_claims,
            reason: claims.adyton_reason,
            steps: claims.adyton_steps.into_iter().map(step).collect(),
        })
    }

    /// The claims set in deterministic CBOR. Unsigned: it proves nothing to anybody else.
    #[must_use]
    pub fn to_cbor(&self) -> Vec<u8> {
        let text = |text: &str| Node::Text(text.to_owned());
        let step = |step: &ResultStep| {
            let parts = [("name", &step.name), ("result", &step.result), ("detail", &step.detail)];
            Node::names(parts.map(|(name, part)| (name, text(part))))
        };
        let mut appraisal = vec![
            (number::STATUS, Node::Number(self.status.code().into())),
            (number::POLICY_IDS, Node::List(vec![text(&self.policy)])),
            (
                number::VERIFIER_CLAIMS,
                Node::names([
                    ("adyton_reason", text(&self.reason)),
                    ("adyton_steps", Node::List(self.steps.iter().map(step).collect())),
                ]),
            ),
        ];
        let vector: Vec<_> = (0..)
            .zip(self.vector.0)
            .filter_map(|(key, value)| Some((key, Node::Number(value?.into()))))
            .collect();
        if !vector.is_empty() {
            appraisal.push((number::VECTOR, Node::claims(vector)));
        }
        if !self.attester_claims.is_empty() {
            let claims = self.attester_claims.iter().map(|(name, value)| (name.as_str(), text(value)));
            appraisal.push((number::ATTESTER_CLAIMS, Node::names(claims)));
        }
        let (developer, build) = &self.verifier;
        let mut result = vec![
            (number::PROFILE, text(PROFILE)),
            (number::IAT, Node::Number(self.issued_at.as_unix_seconds())),
            (
                number::VERIFIER_ID,
                Node::claims([(number::DEVELOPER, text(developer)), (number::BUILD, text(build))]),
            ),
            (number::SUBMODS, Node::names([(self.submodule.as_str(), Node::claims(appraisal))])),
        ];
        result.extend(self.nonce.iter().map(|nonce| (number::NONCE, Node::Bytes(nonce.clone()))));
        wire::encode(&Node::claims(result))
    }

    /// Reads a CBOR claims set in the one form that [`to_cbor`](Self::to_cbor) writes.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, ResultError> {
        let result: Node =
            wire::decode(bytes, MAX_RESULT_LEN_BYTES).map_err(|error| malformed(error.to_string()))?;
        let mut result = result.map()?;
        refuse_other_profile(&result.claim(number::PROFILE)?.text()?)?;
        let mut verifier = result.claim(number::VERIFIER_ID)?.map()?;
        let (submodule, appraisal) = only(result.claim(number::SUBMODS)?.map()?.into_names()?, "appraisal")?;
        let mut appraisal = appraisal.map()?;
        let status = appraisal.claim(number::STATUS)?.number()?;
        let parts = appraisal.optional(number::VECTOR).map_or(Ok(Map::default()), Node::map)?;
        let parts = parts
            .0
            .into_iter()
            .map(|(key, value)| match key {
                Key::Number(index) => Ok((Some(usize::from(index)), value.number()?)),
                Key::Text(_) => Err(malformed("the trustworthiness vector has a name for a number")),
            })
            .collect::<Result<Vec<_>, ResultError>>()?;
        let attester_claims =
            appraisal.optional(number::ATTESTER_CLAIMS).map_or(Ok(Map::default()), Node::map)?;
        let policies = appraisal.claim(number::POLICY_IDS)?.list()?;
        let mut claims = appraisal.claim(number::VERIFIER_CLAIMS)?.map()?.into_names()?;
        let mut named =
            |name: &str| claims.remove(name).ok_or_else(|| malformed(format!("{name} is missing")));
        let reason = named("adyton_reason")?.text()?;
        let steps = named("adyton_steps")?.list()?.into_iter().map(step).collect::<Result<_, _>>()?;
        let nonce = result.optional(number::NONCE).map(Node::bytes).transpose()?;
        Ok(Self {
            issued_at: Time::from_unix_seconds(result.claim(number::IAT)?.number()?),
            verifier: (verifier.claim(number::DEVELOPER)?.text()?, verifier.claim(number::BUILD)?.text()?),
            nonce: checked_nonce(nonce)?,
            submodule,
            status: tier(|tier| u64::from(tier.code()) == status)?,
            vector: vector(parts.into_iter())?,
            policy: only_policy(policies.into_iter().map(Node::text).collect::<Result<_, _>>()?)?,
            attester_claims: attester_claims
                .into_names()?
                .into_iter()
                .map(|(name, value)| Ok((name, value.text()?)))
                .collect::<Result<_, ResultError>>()?,
            reason,
            steps,
        })
    }
}

/// A map that was read; each claim is taken out once.
#[derive(Default)]
struct Map(BTreeMap<Key, Node>);

impl Map {
    fn optional(&mut self, number: u16) -> Option<Node> {
        self.0.remove(&Key::Number(number))
    }

    fn claim(&mut self, number: u16) -> Result<Node, ResultError> {
        self.optional(number).ok_or_else(|| malformed(format!("claim {number} is missing")))
    }

    fn into_names(self) -> Result<BTreeMap<String, Node>, ResultError> {
        let name = |(key, node)| match key {
            Key::Text(Name(name)) => Ok((name, node)),
            Key::Number(number) => Err(malformed(format!("number {number} where a name belongs"))),
        };
        self.0.into_iter().map(name).collect()
    }
}

impl Node {
    fn claims(claims: impl IntoIterator<Item = (u16, Self)>) -> Self {
        Self::Map(claims.into_iter().map(|(number, node)| (Key::Number(number), node)).collect())
    }

    fn names<'a>(names: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Map(names.into_iter().map(|(name, node)| (Key::Text(Name(name.to_owned())), node)).collect())
    }

    fn text(self) -> Result<String, ResultError> {
        if let Self::Text(text) = self { Ok(text) } else { Err(malformed("a text is something else")) }
    }

    fn number(self) -> Result<u64, ResultError> {
        if let Self::Number(number) = self {
            Ok(number)
        } else {
            Err(malformed("a number is something else"))
        }
    }

    fn bytes(self) -> Result<Vec<u8>, ResultError> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(malformed("bytes are something else")) }
    }

    fn list(self) -> Result<Vec<Self>, ResultError> {
        if let Self::List(list) = self { Ok(list) } else { Err(malformed("a list is something else")) }
    }

    fn map(self) -> Result<Map, ResultError> {
        if let Self::Map(map) = self { Ok(Map(map)) } else { Err(malformed("a map is something else")) }
    }
}

fn step(node: Node) -> Result<ResultStep, ResultError> {
    let mut parts = node.map()?.into_names()?;
    let mut part =
        |name: &str| parts.remove(name).ok_or_else(|| malformed(format!("a step has no {name}")))?.text();
    Ok(ResultStep { name: part("name")?, result: part("result")?, detail: part("detail")? })
}

fn malformed(message: impl Into<String>) -> ResultError {
    ResultError::Malformed(message.into())
}

fn refuse_other_profile(profile: &str) -> Result<(), ResultError> {
    if profile == PROFILE { Ok(()) } else { Err(ResultError::Profile(format!("profile {profile:?}"))) }
}

fn only<T>(map: BTreeMap<String, T>, what: &str) -> Result<(String, T), ResultError> {
    let count = map.len();
    let mut entries = map.into_iter();
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry),
        _ => Err(ResultError::Profile(format!("{count} of {what} where one is read"))),
    }
}

fn only_policy(ids: Vec<String>) -> Result<String, ResultError> {
    let [id] = <[String; 1]>::try_from(ids)
        .map_err(|ids| ResultError::Profile(format!("{} policies where one is read", ids.len())))?;
    Ok(id)
}

fn checked_nonce(nonce: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, ResultError> {
    match nonce {
        Some(nonce) if !(MIN_NONCE_LEN_BYTES..=MAX_NONCE_LEN_BYTES).contains(&nonce.len()) => {
            Err(malformed(format!("a nonce of {} bytes", nonce.len())))
        }
        nonce => Ok(nonce),
    }
}

fn tier(matches: impl Fn(&Tier) -> bool) -> Result<Tier, ResultError> {
    Tier::all().into_iter().find(matches).ok_or_else(|| malformed("the status is none of the four"))
}

fn vector(parts: impl Iterator<Item = (Option<usize>, u64)>) -> Result<TrustVector, ResultError> {
    let mut vector = TrustVector::default();
    for (index, value) in parts {
        let slot = index.and_then(|index| vector.0.get_mut(index));
        let value = u8::try_from(value).ok().filter(|value| *value <= 127);
        match (slot, value) {
            (Some(slot), Some(value)) => *slot = Some(value),
            _ => return Err(malformed("the trustworthiness vector has a component or value that is none")),
        }
    }
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sample, step};
    use super::*;
    use crate::verdict::{Reason, StepResult};

    fn samples() -> Vec<AttestationResult> {
        let steps = [
            step("signature", StepResult::Pass),
            step("vmpl", StepResult::Fail(Reason::Vmpl)),
            step("chip-allowlist", StepResult::Skip),
        ];
        let mut bare = sample(None, &[]);
        (bare.nonce, bare.attester_claims) = (None, BTreeMap::new());
        vec![sample(Some(Reason::Vmpl), &steps), sample(None, &steps[..1]), bare]
    }

    #[test]
    fn both_forms_carry_everything() {
        for result in samples() {
            assert_eq!(AttestationResult::from_json(result.to_json().as_bytes()), Ok(result.clone()));
            assert_eq!(AttestationResult::from_cbor(&result.to_cbor()), Ok(result.clone()));
        }
    }

    #[test]
    fn other_profiles_and_broken_forms_are_named() {
        let json = samples()[0].to_json();
        let refused = |from: &str, to: &str| {
            assert!(json.contains(from), "{from}");
            AttestationResult::from_json(json.replace(from, to).as_bytes()).unwrap_err()
        };
        assert!(matches!(refused("rats/ear#04", "rats/ear#03"), ResultError::Profile(_)));
        for (from, to) in [
            ("\"contraindicated\"", "\"splendid\""),
            ("\"hardware\"", "\"software\""),
            ("\"configuration\":96", "\"configuration\":200"),
            ("\"iat\":", "\"iat\":-"),
            ("BwcH", "Bw=="),
            ("adyton_reason", "adyton_raison"),
        ] {
            assert!(matches!(refused(from, to), ResultError::Malformed(_)), "{from}");
        }
        assert!(matches!(refused("\"standard\"", "\"standard\",\"vendor\""), ResultError::Profile(_)));
        let long = vec![b' '; MAX_RESULT_LEN_BYTES + 1];
        assert_eq!(AttestationResult::from_json(&long), Err(ResultError::TooLong(long.len())));
    }

    #[test]
    fn no_cut_or_changed_cbor_is_read_as_the_same() {
        let result = samples().remove(0);
        let bytes = result.to_cbor();
        for end in 0..bytes.len() {
            assert!(AttestationResult::from_cbor(&bytes[..end]).is_err(), "{end}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_ne!(AttestationResult::from_cbor(&changed), Ok(result.clone()), "{at}");
        }
    }
}
