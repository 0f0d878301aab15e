//! The TD report inside a quote: 584 bytes in its first form, 648 in that of TDX 1.5 (TDX DCAP Quoting Library API,
//! A.3.2 and A.4.3).

use crate::verdict::{Finding, Reason};

/// Length of the first form.
pub(crate) const TD10_LEN_BYTES: usize = 584;
/// Length with TEE_TCB_SVN_2 and MRSERVICETD.
pub(crate) const TD15_LEN_BYTES: usize = TD10_LEN_BYTES + 64;

/// TDATTRIBUTES, 64 bits at 120 (TDX Module ABI 348551-008, Table 3.23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdAttributes(u64);

impl TdAttributes {
    pub(crate) const SERVTD_EXT: u32 = 17;
    pub(crate) const SEPT_VE_DISABLE: u32 = 28;
    pub(crate) const MIGRATABLE: u32 = 29;
    /// The low byte, TUD: debugging and profiling. A TD with any of it set is open to the host.
    const UNDER_DEBUG: u64 = 0xff;
    /// Bits that must be zero outside of the low byte: 8..=15, 23..=26, 32..=61.
    const RESERVED: u64 = 0xff00 | 0x0780_0000 | 0x3fff_ffff_0000_0000;

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

    /// True if the host may debug or profile the TD.
    #[must_use]
    pub const fn under_debug(self) -> bool {
        self.0 & Self::UNDER_DEBUG != 0
    }

    /// The bits that must be zero and are not.
    #[must_use]
    pub const fn reserved_bits(self) -> u64 {
        self.0 & Self::RESERVED
    }
}

/// A TD report's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TdReport<'a> {
    bytes: &'a [u8],
}

impl<'a> TdReport<'a> {
    /// `bytes` are of one of the two lengths: the quote's parser cut them out.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let field = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        field.copied().unwrap_or([0; N])
    }

    /// TEE_TCB_SVN, 16 bytes at 0: the TCB the TD was launched on.
    pub(crate) fn tee_tcb_svn(&self) -> [u8; 16] {
        self.field(0)
    }

    /// MRSEAM, 48 bytes at 16: the TDX module.
    pub(crate) fn mr_seam(&self) -> [u8; 48] {
        self.field(16)
    }

    /// MRSIGNERSEAM, 48 bytes at 64: its signer, zero for Intel.
    pub(crate) fn mr_signer_seam(&self) -> [u8; 48] {
        self.field(64)
    }

    /// SEAMATTRIBUTES, 8 bytes at 112.
    pub(crate) fn seam_attributes(&self) -> [u8; 8] {
        self.field(112)
    }

    /// TDATTRIBUTES, 8 bytes at 120.
    pub(crate) fn attributes(&self) -> TdAttributes {
        TdAttributes(u64::from_le_bytes(self.field(120)))
    }

    /// XFAM, 8 bytes at 128.
    pub(crate) fn xfam(&self) -> u64 {
        u64::from_le_bytes(self.field(128))
    }

    /// MRTD, 48 bytes at 136: what was launched.
    pub(crate) fn mr_td(&self) -> [u8; 48] {
        self.field(136)
    }

    /// MRCONFIGID, 48 bytes at 184.
    pub(crate) fn mr_config_id(&self) -> [u8; 48] {
        self.field(184)
    }

    /// MROWNER, 48 bytes at 232.
    pub(crate) fn mr_owner(&self) -> [u8; 48] {
        self.field(232)
    }

    /// MROWNERCONFIG, 48 bytes at 280.
    pub(crate) fn mr_owner_config(&self) -> [u8; 48] {
        self.field(280)
    }

    /// RTMR0 to RTMR3, 48 bytes each from 328: what was measured after launch.
    pub(crate) fn rtmrs(&self) -> [[u8; 48]; 4] {
        [328, 376, 424, 472].map(|at| self.field(at))
    }

    /// REPORTDATA, 64 bytes at 520.
    pub(crate) fn report_data(&self) -> [u8; 64] {
        self.field(520)
    }

    /// TEE_TCB_SVN_2, 16 bytes at 584: the TCB that runs now, in the form of TDX 1.5.
    pub(crate) fn tee_tcb_svn_2(&self) -> Option<[u8; 16]> {
        (self.bytes.len() == TD15_LEN_BYTES).then(|| self.field(584))
    }

    /// MRSERVICETD, 48 bytes at 600, in the form of TDX 1.5: service TDs bound to this one.
    pub(crate) fn mr_service_td(&self) -> Option<[u8; 48]> {
        (self.bytes.len() == TD15_LEN_BYTES).then(|| self.field(600))
    }

    /// Refuses a debugged or profiled TD that also has bits set which no module writes.
    pub(crate) fn refuse_contradictions(&self) -> Result<(), Finding> {
        // XFAM: x87 and SSE are in every TD (TDX Module ABI, XFAM).
        if self.xfam() & 3 != 3 {
            return Err(Finding::new(Reason::Reserved, "XFAM lacks x87 or SSE, which every TD has"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_attribute_bits_are_those_of_the_specification() {
        let reserved: Vec<u32> = (0..64).filter(|bit| TdAttributes(1 << bit).reserved_bits() != 0).collect();
        let named: Vec<u32> = (8..=15).chain(23..=26).chain(32..=61).collect();
        assert_eq!(reserved, named);
        let under_debug: Vec<u32> = (0..64).filter(|bit| TdAttributes(1 << bit).under_debug()).collect();
        assert_eq!(under_debug, (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn bits_are_numbered_from_0_to_63() {
        let attributes = TdAttributes(1 | 1 << 28 | 1 << 63);
        for (bit, set) in [(0, true), (1, false), (28, true), (63, true), (64, false), (u32::MAX, false)] {
            assert_eq!(attributes.bit(bit), set, "{bit}");
        }
    }
}
