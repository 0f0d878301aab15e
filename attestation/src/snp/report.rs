//! ATTESTATION_REPORT: 1184 bytes at fixed offsets (56860 1.58, Table 23).
//!
//! Parsing believes nothing. It fixes what the bytes mean (length, version, signature algorithm) and refuses
//! what no firmware writes outside the signed area, where anybody could change it: a second spelling of the same
//! report would get past replay caches. Reserved fields *inside* the signed area are looked at after the
//! signature ([`Report::refuse_reserved`]), so that a flipped bit there is called a wrong signature, and a signed
//! one firmware that this verifier does not understand.

use crate::snp::tcb::{Product, TcbVersion};
use crate::verdict::{Finding, Reason};

/// Length of a report.
pub const REPORT_LEN_BYTES: usize = 0x4a0;
/// Length of the part that the signature covers.
pub(crate) const SIGNED_LEN_BYTES: usize = 0x2a0;

// A signature component is 72 bytes little-endian, of which a P-384 value fills 48.
const COMPONENT_LEN: usize = 72;
const SCALAR_LEN: usize = 48;
const R_OFFSET: usize = SIGNED_LEN_BYTES;
const S_OFFSET: usize = R_OFFSET + COMPONENT_LEN;
const TAIL_OFFSET: usize = S_OFFSET + COMPONENT_LEN;
const _: () = assert!(REPORT_LEN_BYTES == 1184 && TAIL_OFFSET + 368 == REPORT_LEN_BYTES);

/// SIGNATURE_ALGO 1: ECDSA P-384 with SHA-384 (56860, Chapter 10).
const ECDSA_P384_SHA384: u32 = 1;

/// Which key signed the report: SIGNING_KEY, bits 4:2 of the word at 0x048.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SigningKey {
    /// Versioned chip endorsement key: one for each chip and TCB.
    Vcek,
    /// Versioned loaded endorsement key: shared by the machines of a cloud provider.
    Vlek,
    /// No key, or an encoding the specification reserves.
    Other(u8),
}

/// Guest policy, 64 bits at 0x008 (56860, Table 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPolicy(u64);

impl GuestPolicy {
    pub(crate) const SMT: u32 = 16;
    pub(crate) const MIGRATE_MA: u32 = 18;
    pub(crate) const DEBUG: u32 = 19;
    pub(crate) const SINGLE_SOCKET: u32 = 20;
    pub(crate) const CXL: u32 = 21;
    pub(crate) const MEM_AES_256_XTS: u32 = 22;
    pub(crate) const RAPL_DIS: u32 = 23;
    pub(crate) const CIPHERTEXT_HIDING: u32 = 24;
    pub(crate) const PAGE_SWAP_DISABLE: u32 = 25;
    const MUST_BE_ONE: u64 = 1 << 17;
    const RESERVED: u64 = !((1 << 26) - 1);

    /// The 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// True if bit `index` is set; false for an index of 64 or more.
    #[must_use]
    pub const fn bit(self, index: u32) -> bool {
        index < 64 && self.0 >> index & 1 == 1
    }

    /// Lowest firmware interface version the guest runs on, (major, minor).
    #[must_use]
    pub const fn abi(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }
}

/// PLATFORM_INFO, 64 bits at 0x040 (56860, Table 24).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformInfo(u64);

impl PlatformInfo {
    pub(crate) const SMT_EN: u32 = 0;
    pub(crate) const TSME_EN: u32 = 1;
    pub(crate) const ECC_EN: u32 = 2;
    pub(crate) const RAPL_DIS: u32 = 3;
    pub(crate) const CIPHERTEXT_HIDING_DRAM_EN: u32 = 4;
    pub(crate) const ALIAS_CHECK_COMPLETE: u32 = 5;
    pub(crate) const IOMMU_WRITE_SAFE: u32 = 6;
    pub(crate) const TIO_EN: u32 = 7;
    const KNOWN: u64 = 0xff;

    /// The 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// True if bit `index` is set; false for an index of 64 or more.
    #[must_use]
    pub const fn bit(self, index: u32) -> bool {
        index < 64 && self.0 >> index & 1 == 1
    }

    /// The bits this verifier has no name for.
    #[must_use]
    pub const fn unknown_bits(self) -> u64 {
        self.0 & !Self::KNOWN
    }
}

/// A well-formed report. Nobody believes it yet.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    bytes: Box<[u8; REPORT_LEN_BYTES]>,
}

impl Report {
    /// Reads a report that came from anywhere.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Finding> {
        let bytes: [u8; REPORT_LEN_BYTES] = bytes.try_into().map_err(|_| {
            let (got, want) = (bytes.len(), REPORT_LEN_BYTES);
            Finding::new(Reason::Size, format!("report is {got} bytes, must be exactly {want}"))
        })?;
        let report = Self { bytes: Box::new(bytes) };
        if !(2..=5).contains(&report.version()) {
            let detail = format!("report version {} is unknown; 2 to 5 are known", report.version());
            return Err(Finding::new(Reason::Version, detail));
        }
        if report.signature_algo() != ECDSA_P384_SHA384 {
            let detail = format!("SIGNATURE_ALGO is {}, must be 1", report.signature_algo());
            return Err(Finding::new(Reason::Algorithm, detail));
        }
        report.refuse_unsigned_slack()?;
        Ok(report)
    }

    /// The unsigned area: padding above R and S, and the tail of the signature structure.
    fn refuse_unsigned_slack(&self) -> Result<(), Finding> {
        for (name, offset) in [("R", R_OFFSET), ("S", S_OFFSET)] {
            if !self.is_zero(offset + SCALAR_LEN, COMPONENT_LEN - SCALAR_LEN) {
                let detail = format!("padding above {name} of the signature is not zero");
                return Err(Finding::new(Reason::SignatureEncoding, detail));
            }
        }
        if !self.is_zero(TAIL_OFFSET, REPORT_LEN_BYTES - TAIL_OFFSET) {
            let detail = "reserved bytes after the signature components are not zero";
            return Err(Finding::new(Reason::Reserved, detail));
        }
        Ok(())
    }

    /// Refuses reserved fields of the signed area that are not as the specification says.
    pub(crate) fn refuse_reserved(&self) -> Result<(), Finding> {
        let refuse = |what: &str| Err(Finding::new(Reason::Reserved, what));
        let policy = self.policy().bits();
        if policy & GuestPolicy::MUST_BE_ONE == 0 || policy & GuestPolicy::RESERVED != 0 {
            return refuse("guest policy: bit 17 must be one and bits 63:26 zero");
        }
        if self.u32_at(0x048) >> 5 != 0 || !self.is_zero(0x04c, 4) {
            return refuse("reserved bits at 0x048..0x050 are not zero");
        }
        // Version 2 has no CPUID fields; their place is reserved there.
        let cpuid_end = if self.version() == 2 { 0x188 } else { 0x18b };
        if !self.is_zero(cpuid_end, 0x1a0 - cpuid_end) {
            return refuse("reserved bytes before CHIP_ID are not zero");
        }
        if !self.is_zero(0x1eb, 1) || !self.is_zero(0x1ef, 1) {
            return refuse("reserved bytes of the firmware versions are not zero");
        }
        // Version 5 brought the two mitigation vectors.
        let vectors_end = if self.version() >= 5 { 0x208 } else { 0x1f8 };
        if !self.is_zero(vectors_end, SIGNED_LEN_BYTES - vectors_end) {
            return refuse("reserved bytes before the signature are not zero");
        }
        Ok(())
    }

    /// The bytes as they came.
    pub(crate) fn bytes(&self) -> &[u8; REPORT_LEN_BYTES] {
        &self.bytes
    }

    /// The bytes the signature covers: 0x000..0x2A0.
    pub(crate) fn signed_bytes(&self) -> &[u8; SIGNED_LEN_BYTES] {
        self.field(0)
    }

    /// R and S, each 48 bytes big-endian, as IEEE P1363 writes them.
    pub(crate) fn signature_p1363(&self) -> [u8; 2 * SCALAR_LEN] {
        let mut signature = [0; 2 * SCALAR_LEN];
        let (r, s) = signature.split_at_mut(SCALAR_LEN);
        for (big_endian, offset) in [(r, R_OFFSET), (s, S_OFFSET)] {
            big_endian.copy_from_slice(self.field::<SCALAR_LEN>(offset));
            big_endian.reverse();
        }
        signature
    }

    /// VERSION, 4 bytes at 0x000.
    pub(crate) fn version(&self) -> u32 {
        self.u32_at(0x000)
    }

    /// GUEST_SVN, 4 bytes at 0x004.
    pub(crate) fn guest_svn(&self) -> u32 {
        self.u32_at(0x004)
    }

    /// POLICY, 8 bytes at 0x008.
    pub(crate) fn policy(&self) -> GuestPolicy {
        GuestPolicy(self.u64_at(0x008))
    }

    /// FAMILY_ID, 16 bytes at 0x010.
    pub(crate) fn family_id(&self) -> [u8; 16] {
        *self.field(0x010)
    }

    /// IMAGE_ID, 16 bytes at 0x020.
    pub(crate) fn image_id(&self) -> [u8; 16] {
        *self.field(0x020)
    }

    /// VMPL, 4 bytes at 0x030; 0xFFFFFFFF for a report the host asked for.
    pub(crate) fn vmpl(&self) -> u32 {
        self.u32_at(0x030)
    }

    /// SIGNATURE_ALGO, 4 bytes at 0x034.
    fn signature_algo(&self) -> u32 {
        self.u32_at(0x034)
    }

    /// CURRENT_TCB, 8 bytes at 0x038.
    pub(crate) fn current_tcb(&self, product: Product) -> Result<TcbVersion, Finding> {
        TcbVersion::from_word(*self.field(0x038), product)
    }

    /// PLATFORM_INFO, 8 bytes at 0x040.
    pub(crate) fn platform_info(&self) -> PlatformInfo {
        PlatformInfo(self.u64_at(0x040))
    }

    /// AUTHOR_KEY_EN, bit 0 of the word at 0x048.
    pub(crate) fn author_key_en(&self) -> bool {
        self.u32_at(0x048) & 1 == 1
    }

    /// MASK_CHIP_KEY, bit 1 of the word at 0x048.
    pub(crate) fn mask_chip_key(&self) -> bool {
        self.u32_at(0x048) & 2 == 2
    }

    /// SIGNING_KEY, bits 4:2 of the word at 0x048.
    pub(crate) fn signing_key(&self) -> SigningKey {
        match self.bytes[0x048] >> 2 & 7 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            other => SigningKey::Other(other),
        }
    }

    /// REPORT_DATA, 64 bytes at 0x050.
    pub(crate) fn report_data(&self) -> [u8; 64] {
        *self.field(0x050)
    }

    /// MEASUREMENT, 48 bytes at 0x090.
    pub(crate) fn measurement(&self) -> [u8; 48] {
        *self.field(0x090)
    }

    /// HOST_DATA, 32 bytes at 0x0C0.
    pub(crate) fn host_data(&self) -> [u8; 32] {
        *self.field(0x0c0)
    }

    /// ID_KEY_DIGEST, 48 bytes at 0x0E0.
    pub(crate) fn id_key_digest(&self) -> [u8; 48] {
        *self.field(0x0e0)
    }

    /// AUTHOR_KEY_DIGEST, 48 bytes at 0x110.
    pub(crate) fn author_key_digest(&self) -> [u8; 48] {
        *self.field(0x110)
    }

    /// REPORT_ID, 32 bytes at 0x140.
    pub(crate) fn report_id(&self) -> [u8; 32] {
        *self.field(0x140)
    }

    /// REPORTED_TCB, 8 bytes at 0x180: the one the certificate is made for.
    pub(crate) fn reported_tcb(&self, product: Product) -> Result<TcbVersion, Finding> {
        TcbVersion::from_word(*self.field(0x180), product)
    }

    /// CPUID family, model and stepping, bytes 0x188 to 0x18A, from version 3.
    pub(crate) fn cpuid(&self) -> Option<[u8; 3]> {
        (self.version() >= 3).then(|| *self.field(0x188))
    }

    /// CHIP_ID, 64 bytes at 0x1A0; zero if masked.
    pub(crate) fn chip_id(&self) -> [u8; 64] {
        *self.field(0x1a0)
    }

    /// COMMITTED_TCB, 8 bytes at 0x1E0.
    pub(crate) fn committed_tcb(&self, product: Product) -> Result<TcbVersion, Finding> {
        TcbVersion::from_word(*self.field(0x1e0), product)
    }

    /// CURRENT firmware version (major, minor, build), bytes 0x1EA, 0x1E9, 0x1E8.
    pub(crate) fn current_version(&self) -> (u8, u8, u8) {
        let [build, minor, major] = *self.field(0x1e8);
        (major, minor, build)
    }

    /// COMMITTED firmware version (major, minor, build), bytes 0x1EE, 0x1ED, 0x1EC.
    pub(crate) fn committed_version(&self) -> (u8, u8, u8) {
        let [build, minor, major] = *self.field(0x1ec);
        (major, minor, build)
    }

    /// LAUNCH_TCB, 8 bytes at 0x1F0.
    pub(crate) fn launch_tcb(&self, product: Product) -> Result<TcbVersion, Finding> {
        TcbVersion::from_word(*self.field(0x1f0), product)
    }

    /// LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR, 8 bytes each at 0x1F8 and 0x200, from version 5.
    pub(crate) fn mitigation_vectors(&self) -> Option<(u64, u64)> {
        (self.version() >= 5).then(|| (self.u64_at(0x1f8), self.u64_at(0x200)))
    }

    fn u32_at(&self, offset: usize) -> u32 {
        u32::from_le_bytes(*self.field(offset))
    }

    fn u64_at(&self, offset: usize) -> u64 {
        u64::from_le_bytes(*self.field(offset))
    }

    fn is_zero(&self, offset: usize, len: usize) -> bool {
        self.bytes.iter().skip(offset).take(len).all(|byte| *byte == 0)
    }

    /// The `N` bytes at `offset`. Offsets are literals of this file, within the fixed length.
    fn field<const N: usize>(&self, offset: usize) -> &[u8; N] {
        self.bytes[offset..].first_chunk().expect("field offsets of this file lie inside the 1184 bytes")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A well-formed report with nothing in it.
    pub(crate) fn blank(version: u8) -> Vec<u8> {
        let mut bytes = vec![0; REPORT_LEN_BYTES];
        bytes[0] = version;
        bytes[0x034] = 1;
        bytes[0x00a] = 2; // policy bit 17
        bytes
    }

    fn reason(bytes: &[u8]) -> Reason {
        match Report::parse(bytes) {
            Err(finding) => finding.reason,
            Ok(report) => report.refuse_reserved().unwrap_err().reason,
        }
    }

    #[test]
    fn accepts_versions_2_to_5_only() {
        for version in 2..=5 {
            Report::parse(&blank(version)).unwrap().refuse_reserved().unwrap();
        }
        for version in [0, 1, 6, 255] {
            assert_eq!(reason(&blank(version)), Reason::Version);
        }
    }

    #[test]
    fn length_is_exact() {
        let mut bytes = blank(3);
        assert_eq!(reason(&bytes[..1183]), Reason::Size);
        bytes.push(0);
        assert_eq!(reason(&bytes), Reason::Size);
    }

    #[test]
    fn every_reserved_byte_must_be_zero() {
        let always = [0x04b, 0x04c, 0x04f, 0x18b, 0x19f, 0x1eb, 0x1ef, 0x208, 0x29f];
        for version in 2..=5 {
            for offset in always {
                let mut bytes = blank(version);
                bytes[offset] = 1;
                assert_eq!(reason(&bytes), Reason::Reserved, "v{version} {offset:#x}");
            }
        }
        for (version, offset) in [(2, 0x188), (2, 0x1f8), (4, 0x1f8), (3, 0x207), (5, 0x208)] {
            let mut bytes = blank(version);
            bytes[offset] = 0x80;
            assert_eq!(reason(&bytes), Reason::Reserved, "v{version} {offset:#x}");
        }
    }

    #[test]
    fn guest_policy_reserved_bits() {
        let mut bytes = blank(3);
        bytes[0x00a] = 0;
        assert_eq!(reason(&bytes), Reason::Reserved);
        let mut bytes = blank(3);
        bytes[0x00b] = 4; // bit 26
        assert_eq!(reason(&bytes), Reason::Reserved);
    }

    #[test]
    fn bits_are_numbered_from_0_to_63() {
        let mut bytes = blank(3);
        (bytes[0x008], bytes[0x00f], bytes[0x040], bytes[0x047]) = (1, 0x80, 1, 0x80);
        let report = Report::parse(&bytes).unwrap();
        let (policy, info) = (report.policy(), report.platform_info());
        for (bit, set) in [(0, true), (1, false), (62, false), (63, true), (64, false), (u32::MAX, false)] {
            assert_eq!((policy.bit(bit), info.bit(bit)), (set, set), "{bit}");
        }
        assert_eq!(info.unknown_bits(), 1 << 63);
    }

    #[test]
    fn unsigned_slack_is_refused() {
        for offset in [0x2a0 + 48, 0x2a0 + 71, 0x2e8 + 48, 0x2e8 + 71] {
            let mut bytes = blank(3);
            bytes[offset] = 1;
            assert_eq!(reason(&bytes), Reason::SignatureEncoding, "{offset:#x}");
        }
        for offset in [0x330, 0x49f] {
            let mut bytes = blank(3);
            bytes[offset] = 1;
            assert_eq!(reason(&bytes), Reason::Reserved, "{offset:#x}");
        }
        let mut bytes = blank(3);
        bytes[0x034] = 0;
        assert_eq!(reason(&bytes), Reason::Algorithm);
    }

    #[test]
    fn signature_is_reversed_by_component() {
        let mut bytes = blank(3);
        bytes[0x2a0] = 7;
        bytes[0x2e8] = 9;
        let signature = Report::parse(&bytes).unwrap().signature_p1363();
        assert_eq!((signature[47], signature[95]), (7, 9));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
            let _ = Report::parse(&bytes);
        }

        #[test]
        fn any_signed_area_is_parsed_or_refused(
            area in proptest::collection::vec(any::<u8>(), SIGNED_LEN_BYTES), version in 2u8..6,
        ) {
            let mut bytes = blank(version);
            bytes[1..SIGNED_LEN_BYTES].copy_from_slice(&area[1..]);
            bytes[1..4].fill(0);
            bytes[0x034..0x038].copy_from_slice(&[1, 0, 0, 0]);
            let report = Report::parse(&bytes).unwrap();
            let _ = report.refuse_reserved();
            prop_assert_eq!(&report.measurement()[..], &bytes[0x090..0x0c0]);
        }
    }
}
