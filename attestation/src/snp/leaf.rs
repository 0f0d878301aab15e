//! AMD's extensions of a VCEK or VLEK: which chip and which TCB the key was derived for (57230, Table 8).
//!
//! Every value is compared with its exact DER encoding. A lenient reader of these few bytes is how a certificate
//! of one TCB passes for another.

use der::asn1::ObjectIdentifier;

use crate::snp::report::SigningKey;
use crate::snp::tcb::{Product, TcbVersion};
use crate::verdict::{Finding, Reason};
use crate::x509::Certificate;

const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
const BL_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
const TEE_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
const SNP_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
const UCODE_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
const FMC_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
const HWID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
const CSP_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");

/// spl4 to spl7 stand for reserved bytes of the TCB word, so they are zero where they occur.
const RESERVED_SPL: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.4"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.5"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.6"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.7"),
];

/// The VCEK or VLEK with its AMD extensions.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) certificate: Certificate,
    pub(crate) kind: SigningKey,
}

impl Leaf {
    /// How findings call it.
    pub(crate) fn role(&self) -> &'static str {
        match self.kind {
            SigningKey::Vlek => "VLEK",
            _ => "VCEK",
        }
    }

    /// The product of the productName extension, `Milan-B0` or `Genoa`: a stepping may follow.
    pub(crate) fn product(&self) -> Result<Product, Finding> {
        let refuse = |what: String| Finding::new(Reason::Product, format!("{}: {what}", self.role()));
        let name = self.value(PRODUCT_NAME).and_then(ia5_string);
        let name = name.ok_or_else(|| refuse("no readable productName extension".into()))?;
        product_named(name).ok_or_else(|| refuse(format!("productName {name:?} is malformed or unknown")))
    }

    /// Refuses unless the certificate was made for exactly `reported`, component by component.
    pub(crate) fn refuse_other_tcb(&self, reported: &TcbVersion) -> Result<(), Finding> {
        let components = [
            ("blSPL", BL_SPL, Some(reported.bootloader)),
            ("teeSPL", TEE_SPL, Some(reported.tee)),
            ("snpSPL", SNP_SPL, Some(reported.snp)),
            ("ucodeSPL", UCODE_SPL, Some(reported.microcode)),
            ("fmcSPL", FMC_SPL, reported.fmc),
        ];
        for (name, oid, reported) in components {
            let certified = self.value(oid);
            let encoded = reported.map(der_u8);
            if certified != encoded.as_ref().map(DerU8::as_bytes) {
                let certified = certified.map_or("absent".into(), hex_string);
                let reported = reported.map_or("absent".into(), |spl| spl.to_string());
                let detail =
                    format!("{}: {name} is DER {certified}, REPORTED_TCB says {reported}", self.role());
                return Err(Finding::new(Reason::TcbBinding, detail));
            }
        }
        let zero = der_u8(0);
        if RESERVED_SPL.iter().any(|oid| self.value(*oid).is_some_and(|value| value != zero.as_bytes())) {
            let detail = format!("{}: a reserved SPL is not zero", self.role());
            return Err(Finding::new(Reason::TcbBinding, detail));
        }
        Ok(())
    }

    /// Refuses unless a VCEK names exactly this chip and a VLEK a provider. Returns what was found, for people.
    pub(crate) fn refuse_other_chip(&self, chip_id: &[u8; 64], product: Product) -> Result<String, Finding> {
        let refuse = |what: String| Err(Finding::new(Reason::Hwid, format!("{}: {what}", self.role())));
        if self.kind == SigningKey::Vlek {
            let Some(csp) = self.value(CSP_ID).and_then(ia5_string).filter(|csp| !csp.is_empty()) else {
                return refuse("no readable CSP_ID extension".into());
            };
            if self.value(HWID).is_some() {
                return refuse("names a chip, which a provider's key cannot".into());
            }
            return Ok(format!("provider {csp:?}; a VLEK names no chip"));
        }
        if self.value(CSP_ID).is_some() {
            return refuse("names a provider, which a chip's key cannot".into());
        }
        if chip_id.iter().all(|byte| *byte == 0) {
            return refuse("CHIP_ID is masked, so the certificate cannot be matched to the chip".into());
        }
        let (id, padding) = chip_id.split_at(product.hwid_len_bytes());
        if padding.iter().any(|byte| *byte != 0) {
            return refuse(format!("CHIP_ID is longer than a {product} chip's"));
        }
        match self.value(HWID) {
            None => refuse("no hwID extension".into()),
            Some(hwid) if hwid != id => refuse("hwID is not the CHIP_ID of the report".into()),
            Some(_) => Ok(format!("hwID equals the {} bytes of CHIP_ID", id.len())),
        }
    }

    fn value(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        let extension = self.certificate.extensions().iter().find(|ext| ext.extn_id == oid)?;
        Some(extension.extn_value.as_bytes())
    }
}

/// The DER INTEGER of one SPL: three bytes, or four where the top bit would read as a sign.
struct DerU8([u8; 4], usize);

impl DerU8 {
    fn as_bytes(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

fn der_u8(value: u8) -> DerU8 {
    if value < 0x80 { DerU8([0x02, 1, value, 0], 3) } else { DerU8([0x02, 2, 0, value], 4) }
}

/// The text of a DER IA5String of at most 127 bytes.
fn ia5_string(der: &[u8]) -> Option<&str> {
    let [0x16, len, text @ ..] = der else { return None };
    if *len >= 0x80 || usize::from(*len) != text.len() || !text.iter().all(|b| (0x20..0x7f).contains(b)) {
        return None;
    }
    core::str::from_utf8(text).ok()
}

/// The product of a productName: the family alone, or with a stepping after it.
fn product_named(name: &str) -> Option<Product> {
    match name.split_once('-') {
        None => Product::from_name(name),
        Some((family, stepping)) => is_stepping(stepping).then(|| Product::from_name(family))?,
    }
}

/// A stepping is a letter and a digit, `B0`.
fn is_stepping(text: &str) -> bool {
    matches!(text.as_bytes(), [letter, digit] if letter.is_ascii_uppercase() && digit.is_ascii_digit())
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex_string(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spl_encoding_is_exact() {
        assert_eq!(der_u8(0x7f).as_bytes(), [2, 1, 0x7f]);
        assert_eq!(der_u8(0x80).as_bytes(), [2, 2, 0, 0x80]);
        assert_eq!(der_u8(0xff).as_bytes(), [2, 2, 0, 0xff]);
    }

    #[test]
    fn ia5_string_is_exact() {
        assert_eq!(ia5_string(&[0x16, 5, b'G', b'e', b'n', b'o', b'a']), Some("Genoa"));
        for wrong in [&[0x16][..], &[0x16, 1], &[0x16, 1, b'G', 0], &[0x0c, 1, b'G'], &[0x16, 1, 0]] {
            assert_eq!(ia5_string(wrong), None);
        }
        let long = [&[0x16, 127][..], &[b'a'; 127]].concat();
        assert_eq!(ia5_string(&long).map(str::len), Some(127), "the longest, of providers' names too");
        let longer = [&[0x16, 0x81, 128][..], &[b'a'; 128]].concat();
        assert_eq!(ia5_string(&longer), None);
        assert!(is_stepping("B0") && !is_stepping("B") && !is_stepping("b0") && !is_stepping("B10"));
    }

    #[test]
    fn a_product_name_is_a_family_and_perhaps_a_stepping() {
        for (name, product) in [
            ("Milan-B0", Some(Product::Milan)),
            ("Genoa", Some(Product::Genoa)),
            ("Turin-C1", Some(Product::Turin)),
            ("Turin-", None),
            ("Turin-B0-B0", None),
            ("Turin-b0", None),
            ("Venice-B0", None),
            ("Venice", None),
            ("", None),
        ] {
            assert_eq!(product_named(name), product, "{name}");
        }
    }
}
