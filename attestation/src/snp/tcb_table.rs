//! The lowest TCB the default policies take, for each CPU.
//!
//! Microcode numbers of different steppings are not comparable, so a row is chosen by the signed family, model
//! and stepping, and a CPU without a row is refused. Rows are data: compare them with the vendor's bulletins at
//! every release, and raise [`REVISION`] with them. A fix that moves no version number cannot be seen in a report.

use crate::snp::tcb::{Product, TcbVersion};

/// Date of the rows.
pub const REVISION: &str = "2026-11-24";

/// What the rows rest on.
pub const SOURCES: [&str; 4] = [
    "SPEC.md section 10",
    "AMD-SB-3019 (microcode signature verification)",
    "AMD-SB-3015 (DRAM aliasing, fixed where ALIAS_CHECK_COMPLETE is set)",
    "arXiv 2605.12990 (Milan root seed extraction: any TCB can be forged, so no row makes Milan acceptable)",
];

/// The minimum for one CPU.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TcbRow {
    /// CPUID combined family, model and stepping.
    pub cpuid: [u8; 3],
    /// What people call the CPU.
    pub name: &'static str,
    /// Lowest acceptable TCB.
    pub floor: TcbVersion,
    /// Bits that both mitigation vectors must have; none where the bulletins name none.
    pub mitigations: u64,
}

/// All rows.
pub const ROWS: [TcbRow; 5] = [
    TcbRow {
        cpuid: [0x19, 0x01, 0x01],
        name: "Milan B1",
        floor: TcbVersion { fmc: None, bootloader: 4, tee: 0, snp: 29, microcode: 222 },
        mitigations: 0b1_0110,
    },
    TcbRow {
        cpuid: [0x19, 0x01, 0x02],
        name: "Milan-X B2",
        floor: TcbVersion { fmc: None, bootloader: 4, tee: 0, snp: 29, microcode: 71 },
        mitigations: 0b1_0110,
    },
    TcbRow {
        cpuid: [0x19, 0x11, 0x01],
        name: "Genoa B1",
        floor: TcbVersion { fmc: None, bootloader: 10, tee: 0, snp: 27, microcode: 86 },
        mitigations: 0b0111,
    },
    TcbRow {
        cpuid: [0x19, 0x11, 0x02],
        name: "Genoa-X B2",
        floor: TcbVersion { fmc: None, bootloader: 10, tee: 0, snp: 27, microcode: 81 },
        mitigations: 0b0111,
    },
    TcbRow {
        cpuid: [0x1a, 0x02, 0x01],
        name: "Turin C1",
        floor: TcbVersion { fmc: Some(1), bootloader: 1, tee: 1, snp: 4, microcode: 81 },
        mitigations: 0,
    },
];

/// The row of a CPU.
#[must_use]
pub fn row(cpuid: [u8; 3]) -> Option<&'static TcbRow> {
    ROWS.iter().find(|row| row.cpuid == cpuid)
}

/// Products the default policies take: Milan's keys can be extracted, whatever its firmware.
pub const ACCEPTED_PRODUCTS: [Product; 2] = [Product::Genoa, Product::Turin];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unique_and_of_known_products() {
        for (index, row) in ROWS.iter().enumerate() {
            let [family, model, _] = row.cpuid;
            let product = Product::from_cpuid(family, model).unwrap();
            assert_eq!(row.floor.fmc.is_some(), product == Product::Turin, "{}", row.name);
            assert!(ROWS.iter().skip(index + 1).all(|other| other.cpuid != row.cpuid));
        }
        assert!(row([0x19, 0x11, 0x00]).is_none());
    }
}
