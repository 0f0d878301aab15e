//! Receipt files: a saved session and its answers, to be judged again by anyone, offline, years later.

use std::path::Path;

use adyton_attestation::Time;
use adyton_attestation::commit::hash;
use adyton_attestation::session::{Asking, Connection, Session, Trust};
use adyton_broker::{read_capped, write_whole};
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ClientError;

const FORMAT: &str = "adyton-receipt-v1";
const MAX_LEN: u64 = 512 << 20;

/// The messages and values from which a session can be verified again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedSession {
    #[serde(with = "base64_bytes")]
    hello: Vec<u8>,
    #[serde(with = "base64_bytes")]
    answer: Vec<u8>,
    #[serde(with = "base64_bytes")]
    exporter: Vec<u8>,
    #[serde(with = "base64_bytes")]
    tls_spki: Vec<u8>,
    verified_at: u64,
}

/// One request, its answer and the receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// HTTP method.
    pub method: String,
    /// HTTP path.
    pub path: String,
    /// Request body.
    #[serde(with = "base64_bytes")]
    pub request: Vec<u8>,
    /// Answer body.
    #[serde(with = "base64_bytes")]
    pub response: Vec<u8>,
    /// Signed receipt.
    #[serde(with = "base64_bytes")]
    pub receipt: Vec<u8>,
}

/// A session and its answers in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptFile {
    format: String,
    session: SavedSession,
    exchanges: Vec<Exchange>,
}

impl SavedSession {
    pub(crate) fn new(hello: Vec<u8>, answer: Vec<u8>, connection: Connection, now: Time) -> Self {
        Self {
            hello,
            answer,
            exporter: connection.exporter.to_vec(),
            tls_spki: connection.tls_spki.to_vec(),
            verified_at: now.as_unix_seconds(),
        }
    }

    /// When the session was verified first.
    #[must_use]
    pub fn verified_at(&self) -> Time {
        Time::from_unix_seconds(self.verified_at)
    }

    /// Judges the session again. `trust` is taken at the time of the first verification, or at any other.
    ///
    /// # Errors
    /// [`ClientError::Rejected`], or [`ClientError::Answer`] if the file is damaged.
    pub fn verify(&self, trust: &Trust<'_>) -> Result<Session, ClientError> {
        let damaged = || ClientError::Answer("the saved session is damaged");
        let connection = Connection {
            exporter: self.exporter.as_slice().try_into().map_err(|_| damaged())?,
            tls_spki: self.tls_spki.as_slice().try_into().map_err(|_| damaged())?,
        };
        let asking = Asking::resume(&self.hello).map_err(|_| damaged())?;
        Ok(asking.verify(&self.answer, &connection, trust)?)
    }
}

impl ReceiptFile {
    /// Joins a session with its answers, in the order they were given.
    #[must_use]
    pub fn new(session: SavedSession, exchanges: Vec<Exchange>) -> Self {
        Self { format: FORMAT.to_owned(), session, exchanges }
    }

    /// Reads a receipt file.
    ///
    /// # Errors
    /// [`ClientError::ReceiptFile`] or [`ClientError::Own`].
    pub fn read(path: &Path) -> Result<Self, ClientError> {
        let bytes = read_capped(path, MAX_LEN)?;
        let wrong = |message: String| ClientError::ReceiptFile { path: path.to_owned(), message };
        let file: Self = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if file.format == FORMAT { Ok(file) } else { Err(wrong(format!("its format is {:?}", file.format))) }
    }

    /// Writes it as a whole or not at all.
    ///
    /// # Errors
    /// [`ClientError::Own`].
    pub fn write(&self, path: &Path) -> Result<(), ClientError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|_| ClientError::Answer("unwritable receipt"))?;
        Ok(write_whole(path, &bytes)?)
    }

    /// The saved session.
    #[must_use]
    pub fn session(&self) -> &SavedSession {
        &self.session
    }

    /// The answers.
    #[must_use]
    pub fn exchanges(&self) -> &[Exchange] {
        &self.exchanges
    }

    /// Judges the session again, then every receipt and the chain they form.
    ///
    /// Returns the session and, for each answer, what came of its receipt. After one that does not hold the others are
    /// not judged: their place in the chain is unknown.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] for the session.
    pub fn verify(&self, trust: &Trust<'_>) -> Result<(Session, Vec<ReceiptVerdict>), ClientError> {
        let session = self.session.verify(trust)?;
        let mut previous = Some([0; 32]);
        let mut verdicts = Vec::with_capacity(self.exchanges.len());
        for (sequence, exchange) in (0..).zip(&self.exchanges) {
            let verdict = match previous {
                None => ReceiptVerdict::NotJudged,
                Some(digest) => match exchange.verify(&session, sequence, &digest) {
                    Ok(()) => ReceiptVerdict::Holds,
                    Err(why) => ReceiptVerdict::Refused(why),
                },
            };
            previous = (verdict == ReceiptVerdict::Holds).then(|| hash(&exchange.receipt));
            verdicts.push(verdict);
        }
        Ok((session, verdicts))
    }
}

/// What came of one receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptVerdict {
    /// Signed by the attested receipt key, for this request, answer and place in the chain.
    Holds,
    /// Not so, with the first thing that is wrong.
    Refused(&'static str),
    /// An earlier one does not hold.
    NotJudged,
}

mod base64_bytes {
    use base64::Engine as _;

    use super::{BASE64, Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        BASE64.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
