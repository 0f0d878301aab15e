//! A look at vendor documents without believing them: for those who fetch and keep what others verify.

use der::{Decode as _, Encode as _};
use x509_cert::crl::CertificateList;

use crate::evidence::{Body, Evidence};
use crate::pem::certificates;
use crate::snp::report::SigningKey;
use crate::snp::tcb::{Product, TcbVersion};
use crate::tdx::pck::PckExtensions;
use crate::time::Time;
use crate::x509::{COMMON_NAME, Certificate, attribute, moment};

/// Longest list that is looked at.
const MAX_CRL_LEN_BYTES: usize = 1 << 20;

/// thisUpdate and nextUpdate of a revocation list in DER; `None` if it is none. Nothing is verified.
#[must_use]
pub fn crl_window(der: &[u8]) -> Option<(Time, Time)> {
    if der.len() > MAX_CRL_LEN_BYTES {
        return None;
    }
    let list: CertificateList = CertificateList::from_der(der).ok()?;
    let this = moment(list.tbs_cert_list.this_update);
    // A list that names no end is not good for anything later than itself.
    Some((this, list.tbs_cert_list.next_update.map_or(this, moment)))
}

/// True if the bytes are one certificate in DER. Nothing is verified.
#[must_use]
pub fn is_certificate(der: &[u8]) -> bool {
    x509_cert::Certificate::from_der(der)
        .is_ok_and(|certificate| certificate.to_der().is_ok_and(|again| again == der))
}

/// What a report says of the key that signed it: enough to ask the vendor for its certificate. Nothing is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpSigner {
    /// The kind of key.
    pub key: SigningKey,
    /// The CPU generation.
    pub product: Product,
    /// The part of CHIP_ID that is not padding; `None` if the host masked it.
    pub hwid: Option<Vec<u8>>,
    /// REPORTED_TCB, which selects the certificate.
    pub reported: TcbVersion,
}

impl Evidence {
    /// Who signed, by the report's own words. A version 2 report does not name its `product`; then it must be given.
    #[must_use]
    pub fn snp_signer(&self, product: Option<Product>) -> Option<SnpSigner> {
        let Body::Snp { report, .. } = &self.body else { return None };
        let named = report.cpuid().and_then(|[family, model, _]| Product::from_cpuid(family, model));
        let product = named.or(product)?;
        let chip_id = report.chip_id();
        let hwid = chip_id.get(..product.hwid_len_bytes()).map(<[u8]>::to_vec);
        Some(SnpSigner {
            key: report.signing_key(),
            product,
            hwid: hwid.filter(|_| chip_id != [0; 64]),
            reported: report.reported_tcb(product).ok()?,
        })
    }

    /// Which platform a quote's certificate is for: FMSPC, and the name of the authority that issued it.
    /// Nothing is verified.
    #[must_use]
    pub fn tdx_signer(&self) -> Option<([u8; 6], String)> {
        let Body::Tdx { quote, .. } = &self.body else { return None };
        let chain = certificates(quote.pck_chain())?;
        let certificate = Certificate::parse("PCK certificate", chain.first()?).ok()?;
        let issuer = attribute(certificate.issuer(), COMMON_NAME)?;
        Some((PckExtensions::of(&certificate).ok()?.fmspc, issuer))
    }
}
