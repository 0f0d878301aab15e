//! TCB versions and products.
//!
//! A TCB version is a vector, not a number: it is compared component by component, since a higher microcode does
//! not make up for an older bootloader. Where a component sits in the 64-bit word depends on the product.

use core::fmt;
use core::str::FromStr;

use crate::verdict::{Finding, Reason};

/// An EPYC generation with its own root key, certificate names and TCB layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Product {
    /// Third generation.
    Milan,
    /// Fourth generation, with Bergamo and Siena.
    Genoa,
    /// Fifth generation.
    Turin,
}

impl Product {
    /// The name in certificates and KDS addresses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Milan, Self::Genoa, Self::Turin].into_iter().find(|product| product.as_str() == name)
    }

    /// Length in bytes of the HWID, the part of CHIP_ID that is not zero padding.
    pub(crate) const fn hwid_len_bytes(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }

    /// The product with this CPUID combined family and model.
    pub(crate) const fn from_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            // 0xA0..0xAF are Bergamo and Siena, which carry Genoa certificates.
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x1f) => Some(Self::Turin),
            _ => None,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// TCB_VERSION: the security version numbers of the firmware components.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcbVersion {
    /// Firmware of the micro-controller, Turin on.
    pub fmc: Option<u8>,
    /// PSP bootloader.
    pub bootloader: u8,
    /// PSP operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Lowest microcode patch level of all cores.
    pub microcode: u8,
}

impl TcbVersion {
    /// Reads the 64-bit word of a report in the product's layout (56860, TCB_VERSION tables).
    pub(crate) fn from_word(word: [u8; 8], product: Product) -> Result<Self, Finding> {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = word;
        let (tcb, reserved) = match product {
            Product::Milan | Product::Genoa => (
                Self { fmc: None, bootloader: b0, tee: b1, snp: b6, microcode: b7 },
                [b2, b3, b4, b5].as_slice() != [0; 4],
            ),
            Product::Turin => (
                Self { fmc: Some(b0), bootloader: b1, tee: b2, snp: b3, microcode: b7 },
                [b4, b5, b6].as_slice() != [0; 3],
            ),
        };
        if reserved {
            return Err(Finding::new(Reason::Reserved, "reserved bytes of a TCB version are not zero"));
        }
        Ok(tcb)
    }

    /// The 64-bit word of a report in the layout that `fmc` implies.
    #[must_use]
    pub const fn to_word(self) -> [u8; 8] {
        match self.fmc {
            None => [self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode],
            Some(fmc) => [fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode],
        }
    }

    /// True if every component is at least that of `floor`.
    #[must_use]
    pub fn at_least(&self, floor: &Self) -> bool {
        self.fmc >= floor.fmc
            && self.bootloader >= floor.bootloader
            && self.tee >= floor.tee
            && self.snp >= floor.snp
            && self.microcode >= floor.microcode
    }
}

impl fmt::Display for TcbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc={fmc},")?;
        }
        write!(f, "bl={},tee={},snp={},ucode={}", self.bootloader, self.tee, self.snp, self.microcode)
    }
}

/// A minimum for some components; a component that is not named is not compared.
///
/// Text form: `snp=24,ucode=0xdb`, components `fmc`, `bl`, `tee`, `snp`, `ucode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcbFloor {
    /// Minimum of [`TcbVersion::fmc`]; a TCB without this component is below it.
    pub fmc: Option<u8>,
    /// Minimum of [`TcbVersion::bootloader`].
    pub bootloader: Option<u8>,
    /// Minimum of [`TcbVersion::tee`].
    pub tee: Option<u8>,
    /// Minimum of [`TcbVersion::snp`].
    pub snp: Option<u8>,
    /// Minimum of [`TcbVersion::microcode`].
    pub microcode: Option<u8>,
}

impl TcbFloor {
    /// True if every named component is met.
    #[must_use]
    pub fn is_met_by(&self, tcb: &TcbVersion) -> bool {
        let fmc_met = self.fmc.is_none() || tcb.fmc >= self.fmc;
        fmc_met
            && self.bootloader <= Some(tcb.bootloader)
            && self.tee <= Some(tcb.tee)
            && self.snp <= Some(tcb.snp)
            && self.microcode <= Some(tcb.microcode)
    }
}

impl From<TcbVersion> for TcbFloor {
    fn from(tcb: TcbVersion) -> Self {
        Self {
            fmc: tcb.fmc,
            bootloader: Some(tcb.bootloader),
            tee: Some(tcb.tee),
            snp: Some(tcb.snp),
            microcode: Some(tcb.microcode),
        }
    }
}

impl fmt::Display for TcbFloor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            ("fmc", self.fmc),
            ("bl", self.bootloader),
            ("tee", self.tee),
            ("snp", self.snp),
            ("ucode", self.microcode),
        ];
        let mut separator = "";
        for (name, value) in named {
            if let Some(value) = value {
                write!(f, "{separator}{name}={value}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

/// The text was not a list of TCB minima.
#[derive(Debug, thiserror::Error)]
#[error("not a TCB minimum: write it like `snp=24,ucode=0xdb` with components fmc, bl, tee, snp, ucode")]
#[non_exhaustive]
pub struct TcbFloorSyntax;

impl FromStr for TcbFloor {
    type Err = TcbFloorSyntax;

    fn from_str(text: &str) -> Result<Self, TcbFloorSyntax> {
        let mut floor = Self::default();
        for item in text.split(',') {
            let (name, value) = item.split_once('=').ok_or(TcbFloorSyntax)?;
            // `snp>=24` says the same and is what people write.
            let name = name.trim().trim_end_matches('>').trim_end();
            let value = parse_u8(value.trim()).ok_or(TcbFloorSyntax)?;
            let component = match name {
                "fmc" => &mut floor.fmc,
                "bl" | "bootloader" => &mut floor.bootloader,
                "tee" => &mut floor.tee,
                "snp" => &mut floor.snp,
                "ucode" | "microcode" => &mut floor.microcode,
                _ => return Err(TcbFloorSyntax),
            };
            if component.replace(value).is_some() {
                return Err(TcbFloorSyntax);
            }
        }
        Ok(floor)
    }
}

fn parse_u8(text: &str) -> Option<u8> {
    match text.strip_prefix("0x") {
        Some(hex) => u8::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILAN: TcbVersion = TcbVersion { fmc: None, bootloader: 4, tee: 0, snp: 24, microcode: 219 };

    #[test]
    fn words_round_trip_in_both_layouts() {
        let turin = TcbVersion { fmc: Some(1), ..MILAN };
        assert_eq!(TcbVersion::from_word(MILAN.to_word(), Product::Milan).unwrap(), MILAN);
        assert_eq!(TcbVersion::from_word(turin.to_word(), Product::Turin).unwrap(), turin);
        assert!(TcbVersion::from_word([0, 0, 1, 0, 0, 0, 0, 0], Product::Genoa).is_err());
        assert!(TcbVersion::from_word([0, 0, 0, 0, 0, 0, 1, 0], Product::Turin).is_err());
    }

    #[test]
    fn comparison_is_by_component() {
        let newer_microcode_older_snp = TcbVersion { snp: 23, microcode: 255, ..MILAN };
        assert!(!newer_microcode_older_snp.at_least(&MILAN));
        assert!(!MILAN.at_least(&newer_microcode_older_snp));
        assert!(MILAN.at_least(&MILAN));
    }

    #[test]
    fn every_component_has_a_name_and_a_minimum_of_its_own() {
        let turin = TcbVersion { fmc: Some(1), bootloader: 2, tee: 3, snp: 4, microcode: 5 };
        assert_eq!(turin.to_string(), "fmc=1,bl=2,tee=3,snp=4,ucode=5");
        assert_eq!(TcbVersion { fmc: None, ..turin }.to_string(), "bl=2,tee=3,snp=4,ucode=5");
        let all = TcbFloor::from(turin);
        assert_eq!(turin.to_string().parse::<TcbFloor>().unwrap(), all);
        assert_eq!("fmc=1,bootloader=2,tee=3,snp=4,microcode=5".parse::<TcbFloor>().unwrap(), all);
        assert!(all.is_met_by(&turin));
        for below in [
            TcbVersion { fmc: Some(0), ..turin },
            TcbVersion { fmc: None, ..turin },
            TcbVersion { bootloader: 1, ..turin },
            TcbVersion { tee: 2, ..turin },
            TcbVersion { snp: 3, ..turin },
            TcbVersion { microcode: 4, ..turin },
        ] {
            assert!(!all.is_met_by(&below) && !below.at_least(&turin), "{below}");
            assert!(TcbFloor::default().is_met_by(&below), "nothing is named");
        }
    }

    #[test]
    fn floor_text() {
        let floor: TcbFloor = "snp>=0x18, ucode=219".parse().unwrap();
        assert_eq!(floor.to_string(), "snp=24,ucode=219");
        assert!(floor.is_met_by(&MILAN));
        assert!(!floor.is_met_by(&TcbVersion { snp: 23, ..MILAN }));
        assert!(!TcbFloor { fmc: Some(0), ..floor }.is_met_by(&MILAN));
        for wrong in ["", "snp", "snp=", "snp=256", "snp=1,snp=2", "tdx=1"] {
            assert!(wrong.parse::<TcbFloor>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bergamo_is_genoa() {
        assert_eq!(Product::from_cpuid(0x19, 0xa0), Some(Product::Genoa));
        assert_eq!(Product::from_cpuid(0x19, 0x01), Some(Product::Milan));
        assert_eq!(Product::from_cpuid(0x1a, 0x02), Some(Product::Turin));
        assert_eq!(Product::from_cpuid(0x19, 0x20), None);
        assert_eq!(Product::from_cpuid(0, 0), None);
    }
}
