//! The documents of the two vendors: their addresses, their names in a store, their form and how long each is good.
//!
//! AMD: "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification" (57230). Intel: PCS API v4.

use adyton_attestation::pem::certificates;
use adyton_attestation::{Product, TcbVersion, Time, crl_window, is_certificate};
use serde_json::Value;

use crate::Entry;

/// Collateral may be used this long after it was fetched, and no longer than it says itself.
const COLLATERAL_LIFE_S: u64 = 30 * 24 * 3600;

/// Which of Intel's two authorities certified the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PckCa {
    /// Single-socket.
    Processor,
    /// Multi-socket.
    Platform,
}

impl PckCa {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Processor => "processor",
            Self::Platform => "platform",
        }
    }
}

/// What one piece of evidence needs to be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// An SEV-SNP report signed by a chip's key (VCEK).
    SnpChip {
        /// The CPU generation.
        product: Product,
        /// HWID: 64 bytes, 8 on Turin.
        hwid: Vec<u8>,
        /// REPORTED_TCB, which selects the certificate.
        reported: TcbVersion,
    },
    /// An SEV-SNP report signed by a provider's key (VLEK), whose certificate only the provider hands out.
    SnpProvider {
        /// The CPU generation.
        product: Product,
    },
    /// A TDX quote.
    Tdx {
        /// FMSPC of the PCK certificate.
        fmspc: [u8; 6],
        /// Issuer of the PCK certificate.
        ca: PckCa,
    },
}

impl Need {
    /// The documents, in the order in which they are fetched.
    #[must_use]
    pub fn items(&self) -> Vec<Item> {
        match self {
            Self::SnpChip { product, hwid, reported } => vec![
                Item::SnpChain { product: *product, provider: false },
                Item::SnpCrl { product: *product, provider: false },
                Item::Vcek { product: *product, hwid: hwid.clone(), reported: *reported },
            ],
            Self::SnpProvider { product } => vec![
                Item::SnpChain { product: *product, provider: true },
                Item::SnpCrl { product: *product, provider: true },
            ],
            Self::Tdx { fmspc, ca } => vec![
                Item::RootCrl,
                Item::PckCrl { ca: *ca },
                Item::TcbInfo { fmspc: *fmspc },
                Item::QeIdentity,
            ],
        }
    }
}

/// One document of a vendor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// Certificate of one chip for one TCB, DER. Never changes.
    Vcek {
        /// The CPU generation.
        product: Product,
        /// HWID: 64 bytes, 8 on Turin.
        hwid: Vec<u8>,
        /// REPORTED_TCB.
        reported: TcbVersion,
    },
    /// Intermediate and root, PEM.
    SnpChain {
        /// The CPU generation.
        product: Product,
        /// Of the VLEK instead of the VCEK.
        provider: bool,
    },
    /// AMD's revocation list, DER.
    SnpCrl {
        /// The CPU generation.
        product: Product,
        /// Of the VLEK instead of the VCEK.
        provider: bool,
    },
    /// Revocation list of Intel's root, DER.
    RootCrl,
    /// Revocation list of an intermediate authority of Intel, DER.
    PckCrl {
        /// Which authority.
        ca: PckCa,
    },
    /// TCB levels of one kind of platform, signed JSON.
    TcbInfo {
        /// The kind of platform.
        fmspc: [u8; 6],
    },
    /// Identity of the quoting enclave, signed JSON.
    QeIdentity,
}

/// Where an item lies at its vendor: which vendor, and the path below that vendor's address.
pub(crate) enum Place {
    Kds(String),
    Pcs(String),
    Certificates(String),
}

impl Item {
    /// The name of its entry in a store or mirror: letters, digits, dots and dashes only.
    #[must_use]
    pub fn name(&self) -> String {
        let kind = |provider: &bool| if *provider { "vlek" } else { "vcek" };
        match self {
            Self::Vcek { product, hwid, reported } => {
                let tcb = reported.to_string().replace(['=', ','], "");
                format!("kds-{product}-{}-{tcb}.entry", hex::encode(hwid))
            }
            Self::SnpChain { product, provider } => format!("kds-{product}-{}-chain.entry", kind(provider)),
            Self::SnpCrl { product, provider } => format!("kds-{product}-{}-crl.entry", kind(provider)),
            Self::RootCrl => "pcs-root-crl.entry".into(),
            Self::PckCrl { ca } => format!("pcs-{}-crl.entry", ca.as_str()),
            Self::TcbInfo { fmspc } => format!("pcs-tcb-{}.entry", hex::encode(fmspc)),
            Self::QeIdentity => "pcs-td-qe-identity.entry".into(),
        }
    }

    pub(crate) fn place(&self) -> Place {
        let kind = |provider: &bool| if *provider { "vlek" } else { "vcek" };
        match self {
            Self::Vcek { product, hwid, reported } => {
                let fmc = reported.fmc.map(|fmc| format!("fmcSPL={fmc:02}&")).unwrap_or_default();
                Place::Kds(format!(
                    "/vcek/v1/{product}/{}?{fmc}blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
                    hex::encode(hwid),
                    reported.bootloader,
                    reported.tee,
                    reported.snp,
                    reported.microcode,
                ))
            }
            Self::SnpChain { product, provider } => {
                Place::Kds(format!("/{}/v1/{product}/cert_chain", kind(provider)))
            }
            Self::SnpCrl { product, provider } => Place::Kds(format!("/{}/v1/{product}/crl", kind(provider))),
            Self::RootCrl => Place::Certificates("/IntelSGXRootCA.der".into()),
            Self::PckCrl { ca } => {
                Place::Pcs(format!("/sgx/certification/v4/pckcrl?ca={}&encoding=der", ca.as_str()))
            }
            Self::TcbInfo { fmspc } => {
                Place::Pcs(format!("/tdx/certification/v4/tcb?fmspc={}", hex::encode(fmspc)))
            }
            Self::QeIdentity => Place::Pcs("/tdx/certification/v4/qe/identity".into()),
        }
    }

    /// The response header in which the issuer chain travels, percent-encoded.
    pub(crate) const fn chain_header(&self) -> Option<&'static str> {
        match self {
            Self::PckCrl { .. } => Some("SGX-PCK-CRL-Issuer-Chain"),
            Self::TcbInfo { .. } => Some("TCB-Info-Issuer-Chain"),
            Self::QeIdentity => Some("SGX-Enclave-Identity-Issuer-Chain"),
            _ => None,
        }
    }

    /// True for what AMD hands out once in ten seconds only.
    pub(crate) const fn is_paced(&self) -> bool {
        matches!(self, Self::Vcek { .. })
    }

    /// Looks at the form, believing nothing: is it a document of this kind, and for what was asked?
    pub(crate) fn refuse_other(&self, entry: &Entry) -> Result<(), String> {
        let body = entry.body.as_slice();
        if self.chain_header().is_some() && !entry.issuer_chain.contains("BEGIN CERTIFICATE") {
            return Err("the issuer chain is missing".into());
        }
        match self {
            Self::Vcek { .. } if is_certificate(body) => Ok(()),
            Self::Vcek { .. } => Err("not a certificate".into()),
            Self::SnpChain { .. } => match pem_certificates(body) {
                Some(certificates) if certificates.len() == 2 => Ok(()),
                _ => Err("not two certificates in PEM".into()),
            },
            Self::SnpCrl { .. } | Self::RootCrl | Self::PckCrl { .. } => {
                crl_window(body).map(|_| ()).ok_or_else(|| "not a revocation list".into())
            }
            Self::TcbInfo { fmspc } => {
                let info = signed_member(body, "tcbInfo")?;
                let named = info.get("fmspc").and_then(Value::as_str).unwrap_or_default();
                if named.eq_ignore_ascii_case(&hex::encode(fmspc)) {
                    Ok(())
                } else {
                    Err(format!("it is for FMSPC {named:?}"))
                }
            }
            Self::QeIdentity => {
                let identity = signed_member(body, "enclaveIdentity")?;
                match identity.get("id").and_then(Value::as_str) {
                    Some("TD_QE") => Ok(()),
                    other => Err(format!("it is the identity of {other:?}")),
                }
            }
        }
    }

    /// When the entry must not be used any more; `None` for what never runs out.
    #[must_use]
    pub fn expires(&self, entry: &Entry) -> Option<Time> {
        let fetched_life = entry.fetched.as_unix_seconds().saturating_add(COLLATERAL_LIFE_S);
        let own = match self {
            Self::Vcek { .. } => return None,
            Self::SnpChain { .. } => u64::MAX,
            Self::SnpCrl { .. } | Self::RootCrl | Self::PckCrl { .. } => {
                crl_window(&entry.body).map_or(0, |(_, next)| next.as_unix_seconds())
            }
            Self::TcbInfo { .. } => next_update(&entry.body, "tcbInfo"),
            Self::QeIdentity => next_update(&entry.body, "enclaveIdentity"),
        };
        Some(Time::from_unix_seconds(own.min(fetched_life)))
    }

    /// A number that grows with each edition, so that an older one is not taken for a newer one.
    pub(crate) fn edition(&self, entry: &Entry) -> u64 {
        let number = |member| {
            let info = signed_member(&entry.body, member).ok()?;
            let text = info.get("issueDate")?.as_str()?;
            text.parse::<Time>().ok().map(Time::as_unix_seconds)
        };
        match self {
            Self::Vcek { .. } | Self::SnpChain { .. } => 0,
            Self::SnpCrl { .. } | Self::RootCrl | Self::PckCrl { .. } => {
                crl_window(&entry.body).map_or(0, |(this, _)| this.as_unix_seconds())
            }
            Self::TcbInfo { .. } => number("tcbInfo").unwrap_or(0),
            Self::QeIdentity => number("enclaveIdentity").unwrap_or(0),
        }
    }
}

/// The certificates of a PEM text, as DER, in order.
pub(crate) fn pem_certificates(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    certificates(text).filter(|found| found.iter().all(|der| is_certificate(der)))
}

/// The signed member of one of Intel's JSON documents. Nothing of it is verified.
fn signed_member(body: &[u8], member: &str) -> Result<Value, String> {
    let document: Value = serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
    if document.get("signature").and_then(Value::as_str).is_none() {
        return Err("it has no signature".into());
    }
    document.get(member).cloned().ok_or_else(|| format!("it has no {member}"))
}

fn next_update(body: &[u8], member: &str) -> u64 {
    let next = || signed_member(body, member).ok()?.get("nextUpdate")?.as_str()?.parse::<Time>().ok();
    next().map_or(0, Time::as_unix_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_vendors() {
        let tcb = |fmc| TcbVersion { fmc, bootloader: 4, tee: 0, snp: 24, microcode: 219 };
        let path = |item: &Item| match item.place() {
            Place::Kds(path) | Place::Pcs(path) | Place::Certificates(path) => path,
        };
        let milan = Item::Vcek { product: Product::Milan, hwid: vec![0xab; 64], reported: tcb(None) };
        let hwid = "ab".repeat(64);
        assert_eq!(path(&milan), format!("/vcek/v1/Milan/{hwid}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"));
        let turin = Item::Vcek { product: Product::Turin, hwid: vec![1; 8], reported: tcb(Some(1)) };
        assert!(path(&turin).starts_with("/vcek/v1/Turin/0101010101010101?fmcSPL=01&blSPL=04&"));
        let chain = Item::SnpChain { product: Product::Genoa, provider: true };
        assert_eq!(path(&chain), "/vlek/v1/Genoa/cert_chain");
        let info = Item::TcbInfo { fmspc: [0xb0, 0xc0, 0x6f, 0, 0, 0] };
        assert_eq!(path(&info), "/tdx/certification/v4/tcb?fmspc=b0c06f000000");
    }

    #[test]
    fn names_hold_nothing_that_a_path_could_misread() {
        let tcb = TcbVersion { fmc: Some(1), bootloader: 2, tee: 3, snp: 4, microcode: 5 };
        let items = [
            Item::Vcek { product: Product::Turin, hwid: vec![1; 8], reported: tcb },
            Item::SnpChain { product: Product::Milan, provider: false },
            Item::SnpCrl { product: Product::Milan, provider: true },
            Item::RootCrl,
            Item::PckCrl { ca: PckCa::Platform },
            Item::TcbInfo { fmspc: [7; 6] },
            Item::QeIdentity,
        ];
        let mut names: Vec<String> = items.iter().map(Item::name).collect();
        for name in &names {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
            assert!(name.bytes().all(plain) && !name.starts_with('.'), "{name}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), items.len());
    }
}
