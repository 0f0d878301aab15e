//! Bringing documents here: from the store while they are good, else from a mirror, else from the vendor.
//!
//! AMD's key service answers about one request for a chip's certificate in ten seconds and address, and 429 after that.
//! So those requests are paced over all programs that share a store, a refusal is waited out as long as the service
//! asks, and everything else backs off by doubling, all within one deadline.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use adyton_attestation::Time;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::item::{Place, pem_certificates};
use crate::store::MAX_BODY_LEN;
use crate::{EndorsementError, Entry, Folder, Item, Need, Store};

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Where documents come from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// AMD's key distribution service, without a trailing slash.
    pub kds: String,
    /// Intel's provisioning certification service.
    pub pcs: String,
    /// Where Intel's root revocation list lies.
    pub certificates: String,
    /// A place that serves the entries of somebody's store, such as a host; asked before the vendor.
    pub mirror: Option<String>,
    /// Ask nobody: only what is kept is used.
    pub offline: bool,
    /// Least time between two requests for a chip's certificate.
    pub pace: Duration,
    /// How long one document is tried for, all waits included.
    pub patience: Duration,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            kds: "https://kdsintf.amd.com".into(),
            pcs: "https://api.trustedservices.intel.com".into(),
            certificates: "https://certificates.trustedservices.intel.com".into(),
            mirror: None,
            offline: false,
            pace: Duration::from_secs(10),
            patience: Duration::from_secs(120),
        }
    }
}

/// Fetches what evidence needs.
pub struct Fetcher {
    store: Store,
    sources: Sources,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// Documents for one piece of evidence. Nobody has verified them yet.
#[derive(Debug)]
#[must_use = "documents are kept only after evidence was verified with them"]
pub struct Fetched {
    documents: Vec<(Item, Entry)>,
}

/// Why one request brought nothing.
enum Refused {
    /// Worth another try, not before this long.
    Later(Duration, String),
    /// Another try would bring the same.
    Final(String),
}

impl Fetcher {
    /// A fetcher over a store. The system's certificate authorities are trusted for the connection; the documents
    /// themselves are signed and do not rest on it.
    ///
    /// # Errors
    /// [`EndorsementError::Unavailable`] if the system has no certificate authorities.
    pub fn new(store: Store, sources: Sources) -> Result<Self, EndorsementError> {
        let unavailable = |error: std::io::Error| EndorsementError::Unavailable {
            item: "the system's list of certificate authorities".into(),
            reason: error.to_string(),
        };
        // A local mirror over plain HTTP needs no authorities, but there is no telling what will be asked.
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(unavailable)?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self { store, sources, client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// Every document that `need` names, each good at `now`.
    ///
    /// # Errors
    /// [`EndorsementError`] for the first one that is not to be had; nothing is kept then.
    pub async fn fetch(&self, need: &Need, now: Time) -> Result<Fetched, EndorsementError> {
        let mut documents = Vec::new();
        for item in need.items() {
            let entry = self.get(&item, now).await?;
            documents.push((item, entry));
        }
        Ok(Fetched { documents })
    }

    /// Keeps documents that evidence was verified with.
    ///
    /// # Errors
    /// [`EndorsementError::File`].
    pub fn keep(&self, fetched: &Fetched) -> Result<(), EndorsementError> {
        fetched.documents.iter().try_for_each(|(item, entry)| self.store.put(item, entry))
    }

    async fn get(&self, item: &Item, now: Time) -> Result<Entry, EndorsementError> {
        let held = self.store.get(item);
        if let Some(entry) = held.as_ref().filter(|entry| is_good(item, entry, now)) {
            return Ok(entry.clone());
        }
        let fetched = if self.sources.offline {
            Err("no source is asked".to_owned())
        } else {
            self.ask(item, now).await
        };
        let reason = match fetched {
            Ok(entry) if held.as_ref().is_some_and(|held| item.edition(held) > item.edition(&entry)) => {
                "what the source has is older than what is kept".to_owned()
            }
            Ok(entry) if is_good(item, &entry, now) => return Ok(entry),
            Ok(_) => "what the source has ran out as well".to_owned(),
            Err(reason) => reason,
        };
        let name = item.name();
        match held.and_then(|entry| item.expires(&entry)) {
            Some(expired) => Err(EndorsementError::Expired { item: name, expired, reason }),
            None => Err(EndorsementError::Unavailable { item: name, reason }),
        }
    }

    /// The mirror first, then the vendor.
    async fn ask(&self, item: &Item, now: Time) -> Result<Entry, String> {
        let mut said = Vec::new();
        if let Some(mirror) = &self.sources.mirror {
            let address = format!("{}/{}", mirror.trim_end_matches('/'), item.name());
            let answer = self.request(&address).await;
            let entry = answer.map_err(Refused::into_reason).and_then(|(_, body)| Entry::decode(item, &body));
            match entry {
                // A mirror may lag behind; the vendor is then asked.
                Ok(entry) if is_good(item, &entry, now) && entry.fetched <= now => return Ok(entry),
                Ok(_) => said.push("mirror: what it has ran out".to_owned()),
                Err(reason) => said.push(format!("mirror: {reason}")),
            }
        }
        match self.ask_vendor(item, now).await {
            Ok(entry) => Ok(entry),
            Err(reason) => {
                said.push(format!("vendor: {reason}"));
                Err(said.join("; "))
            }
        }
    }

    async fn ask_vendor(&self, item: &Item, now: Time) -> Result<Entry, String> {
        let (base, path) = match item.place() {
            Place::Kds(path) => (&self.sources.kds, path),
            Place::Pcs(path) => (&self.sources.pcs, path),
            Place::Certificates(path) => (&self.sources.certificates, path),
        };
        let address = format!("{}{path}", base.trim_end_matches('/'));
        let deadline = Instant::now() + self.sources.patience;
        let mut wait = FIRST_WAIT;
        loop {
            if item.is_paced() {
                self.keep_pace(deadline).await?;
            }
            let refused = match self.request(&address).await {
                Ok((headers, body)) => {
                    let issuer_chain = issuer_chain(item, &headers)?;
                    let entry = Entry { fetched: now, issuer_chain, body };
                    item.refuse_other(&entry)?;
                    return Ok(entry);
                }
                Err(refused) => refused,
            };
            let (least, reason) = match refused {
                Refused::Later(least, reason) => (least, reason),
                Refused::Final(reason) => return Err(reason),
            };
            let pause = wait.max(least).min(LONGEST_WAIT);
            if Instant::now() + pause > deadline {
                return Err(format!("{reason} (given up after {} s)", self.sources.patience.as_secs()));
            }
            tracing::info!(item = item.name(), reason, pause_s = pause.as_secs_f32(), "trying again");
            sleep(pause).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Waits until a chip's certificate may be asked for again by this machine.
    async fn keep_pace(&self, deadline: Instant) -> Result<(), String> {
        let mark = self.store.pace_mark();
        let asked = std::fs::metadata(&mark).and_then(|mark| mark.modified()).ok();
        let since = asked.and_then(|asked| SystemTime::now().duration_since(asked).ok());
        if let Some(left) = since.and_then(|since| self.sources.pace.checked_sub(since)) {
            if Instant::now() + left > deadline {
                return Err("the key service was asked too recently".into());
            }
            sleep(left).await;
        }
        // Without the mark the service may answer 429, which is waited out as well.
        let _ = std::fs::write(&mark, b"");
        Ok(())
    }

    /// One GET. Redirects are not followed: the documents lie where they lie.
    async fn request(&self, address: &str) -> Result<(HeaderMap, Vec<u8>), Refused> {
        let uri: Uri = address.parse().map_err(|_| Refused::Final(format!("{address:?} is no address")))?;
        let request = Request::get(uri).header("accept", "*/*").body(Empty::new());
        let request = request.map_err(|error| Refused::Final(error.to_string()))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                Refused::Later(Duration::ZERO, format!("{error}{}", cause.unwrap_or_default()))
            })?;
            let (head, body) = answer.into_parts();
            match head.status {
                StatusCode::OK => (),
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    return Err(Refused::Later(
                        retry_after(&head.headers),
                        format!("status {}", head.status),
                    ));
                }
                status if status.is_server_error() => {
                    return Err(Refused::Later(Duration::ZERO, format!("status {status}")));
                }
                status => return Err(Refused::Final(format!("status {status}"))),
            }
            let body = Limited::new(body, MAX_BODY_LEN + (128 << 10)).collect().await;
            let body = body.map_err(|error| Refused::Later(Duration::ZERO, error.to_string()))?;
            Ok((head.headers, body.to_bytes().to_vec()))
        };
        let limit = REQUEST_TIMEOUT.min(self.sources.patience);
        match timeout(limit, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(Refused::Later(Duration::ZERO, format!("no answer within {} s", limit.as_secs_f32())))
            }
        }
    }
}

impl Refused {
    fn into_reason(self) -> String {
        match self {
            Self::Later(_, reason) | Self::Final(reason) => reason,
        }
    }
}

fn is_good(item: &Item, entry: &Entry, now: Time) -> bool {
    item.expires(entry).is_none_or(|expires| now < expires)
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// Intel sends the issuer chain percent-encoded in a header.
fn issuer_chain(item: &Item, headers: &HeaderMap) -> Result<String, String> {
    let Some(name) = item.chain_header() else { return Ok(String::new()) };
    let encoded = headers.get(name).ok_or_else(|| format!("header {name} is missing"))?;
    let mut decoded = Vec::new();
    let mut bytes = encoded.as_bytes().iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let digits = [bytes.next(), bytes.next()].map(|digit| digit.copied().unwrap_or_default());
        let byte = hex::decode(digits).map_err(|_| format!("header {name} is not percent-encoded"))?;
        decoded.extend(byte);
    }
    String::from_utf8(decoded).map_err(|_| format!("header {name} is not text"))
}

impl Fetched {
    /// The documents under the plain names that `adyton evidence verify` reads.
    ///
    /// # Errors
    /// [`EndorsementError::Wrong`] if a document falls apart differently than its form promised.
    pub fn folder(&self) -> Result<Folder, EndorsementError> {
        let mut files = BTreeMap::new();
        let mut collateral = serde_json::Map::new();
        for (item, entry) in &self.documents {
            let wrong = |what: &str| EndorsementError::Wrong { item: item.name(), what: what.to_owned() };
            let mut member = |name: &str, value: String| collateral.insert(name.to_owned(), json!(value));
            match item {
                Item::Vcek { .. } => {
                    files.insert("vcek.der".to_owned(), entry.body.clone());
                }
                Item::SnpChain { provider, .. } => {
                    let chain = pem_certificates(&entry.body).ok_or_else(|| wrong("not PEM"))?;
                    let [intermediate, root] =
                        <[Vec<u8>; 2]>::try_from(chain).map_err(|_| wrong("not two certificates"))?;
                    let name = if *provider { "asvk.der" } else { "ask.der" };
                    files.insert(name.to_owned(), intermediate);
                    files.insert("ark.der".to_owned(), root);
                }
                Item::SnpCrl { .. } => {
                    files.insert("ark.crl.der".to_owned(), entry.body.clone());
                }
                Item::RootCrl => {
                    member("root_ca_crl", hex::encode(&entry.body));
                }
                Item::PckCrl { .. } => {
                    member("pck_crl", hex::encode(&entry.body));
                    member("pck_crl_issuer_chain", entry.issuer_chain.clone());
                }
                Item::TcbInfo { .. } => {
                    let (exact, signature) =
                        signed(&entry.body, "tcbInfo").ok_or_else(|| wrong("not signed JSON"))?;
                    member("tcb_info", exact);
                    member("tcb_info_signature", signature);
                    member("tcb_info_issuer_chain", entry.issuer_chain.clone());
                }
                Item::QeIdentity => {
                    let (exact, signature) =
                        signed(&entry.body, "enclaveIdentity").ok_or_else(|| wrong("not signed JSON"))?;
                    member("qe_identity", exact);
                    member("qe_identity_signature", signature);
                    member("qe_identity_issuer_chain", entry.issuer_chain.clone());
                }
            }
        }
        if !collateral.is_empty() {
            let text = serde_json::to_vec_pretty(&Value::Object(collateral));
            files.insert("collateral.json".to_owned(), text.expect("text members always encode"));
        }
        Ok(Folder(files))
    }
}

/// The signed member of one of Intel's documents in its exact bytes, and the signature in hexadecimal.
fn signed(body: &[u8], member: &str) -> Option<(String, String)> {
    let document: BTreeMap<String, Box<serde_json::value::RawValue>> = serde_json::from_slice(body).ok()?;
    let signature: String = serde_json::from_str(document.get("signature")?.get()).ok()?;
    Some((document.get(member)?.get().to_owned(), signature))
}
