//! The certificate table beside an extended report: GUID, offset, length, then the data (56421, 4.1.8.1).
//!
//! The host writes it, so it is a hint where to find certificates and never a reason to trust one. Entries with
//! a GUID unknown here are passed over: providers add their own.

use crate::verdict::{Finding, Reason};

/// The kernel hands over at most 16 KiB; four times that leaves room for providers' own entries.
pub(crate) const MAX_TABLE_LEN_BYTES: usize = 64 * 1024;
const ENTRY_LEN_BYTES: usize = 24;

// GUIDs as sixteen bytes in the order they are printed.
const VCEK: u128 = 0x63da758d_e664_4564_adc5_f4b93be8accd;
const VLEK: u128 = 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1;
const ASK: u128 = 0x4ab7b379_bbac_4fe4_a02f_05aef327c782;
const ARK: u128 = 0xc0b406a4_a803_4952_9743_3fb6014cd0ae;
const CRL: u128 = 0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea;

/// The entries this verifier knows, each DER, none believed. An ASVK travels under the GUID of the ASK.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CertificateTable<'a> {
    pub(crate) vcek: Option<&'a [u8]>,
    pub(crate) vlek: Option<&'a [u8]>,
    pub(crate) ask: Option<&'a [u8]>,
    pub(crate) ark: Option<&'a [u8]>,
    pub(crate) crl: Option<&'a [u8]>,
}

impl<'a> CertificateTable<'a> {
    /// Reads a table; an empty one has no bytes at all.
    pub(crate) fn parse(table: &'a [u8]) -> Result<Self, Finding> {
        let refuse = |what: &str| Finding::new(Reason::Encoding, format!("certificate table: {what}"));
        let mut found = Self::default();
        if table.is_empty() {
            return Ok(found);
        }
        if table.len() > MAX_TABLE_LEN_BYTES {
            return Err(refuse("longer than 64 KiB"));
        }
        let (entries, _) = table.as_chunks::<ENTRY_LEN_BYTES>();
        for entry in entries {
            let (guid, offset, len) = split_entry(entry);
            if guid == 0 && offset == 0 && len == 0 {
                return Ok(found);
            }
            let end = offset.checked_add(len).ok_or_else(|| refuse("entry overflows"))?;
            let data = table.get(offset..end).ok_or_else(|| refuse("entry lies outside the table"))?;
            let slot = match guid {
                VCEK => &mut found.vcek,
                VLEK => &mut found.vlek,
                ASK => &mut found.ask,
                ARK => &mut found.ark,
                CRL => &mut found.crl,
                _ => continue,
            };
            if slot.replace(data).is_some() {
                return Err(refuse("an entry occurs twice"));
            }
        }
        Err(refuse("no terminating entry"))
    }

    /// Writes a table of the entries that are there.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let slots = [(ARK, self.ark), (ASK, self.ask), (VCEK, self.vcek), (VLEK, self.vlek), (CRL, self.crl)];
        let present: Vec<(u128, &[u8])> =
            slots.into_iter().filter_map(|(guid, data)| data.map(|data| (guid, data))).collect();
        let mut table = Vec::new();
        let mut offset = (present.len() + 1) * ENTRY_LEN_BYTES;
        for (guid, data) in &present {
            table.extend_from_slice(&guid.to_be_bytes());
            for number in [offset, data.len()] {
                let number = u32::try_from(number).expect("certificates are a few KiB");
                table.extend_from_slice(&number.to_le_bytes());
            }
            offset += data.len();
        }
        table.extend_from_slice(&[0; ENTRY_LEN_BYTES]);
        present.iter().for_each(|(_, data)| table.extend_from_slice(data));
        table
    }
}

/// GUID, offset and length of one entry; offset and length are 32 bits little-endian.
fn split_entry(entry: &[u8; ENTRY_LEN_BYTES]) -> (u128, usize, usize) {
    let (guid, rest) = entry.split_first_chunk::<16>().expect("an entry is 24 bytes");
    let (offset, rest) = rest.split_first_chunk::<4>().expect("8 bytes follow the GUID");
    let (len, _) = rest.split_first_chunk::<4>().expect("4 bytes follow the offset");
    let number = |bytes: [u8; 4]| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
    (u128::from_be_bytes(*guid), number(*offset), number(*len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let (vcek, ask) = ([1u8; 40], [2u8; 50]);
        CertificateTable { vcek: Some(&vcek), ask: Some(&ask), ..Default::default() }.encode()
    }

    #[test]
    fn round_trip() {
        let table = sample();
        let found = CertificateTable::parse(&table).unwrap();
        assert_eq!(found.vcek, Some(&[1u8; 40][..]));
        assert_eq!(found.ask, Some(&[2u8; 50][..]));
        assert!(found.ark.is_none() && found.vlek.is_none() && found.crl.is_none());
        assert!(CertificateTable::parse(&[]).unwrap().vcek.is_none());
    }

    /// As the GHCB specification prints the GUIDs (56421, 4.1.8.1).
    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let data: Vec<Vec<u8>> = (1..6).map(|at: u8| vec![at; usize::from(at) * 3]).collect();
        let guids = [
            "c0b406a4a803495297433fb6014cd0ae", // ARK
            "4ab7b379bbac4fe4a02f05aef327c782", // ASK
            "63da758de6644564adc5f4b93be8accd", // VCEK
            "a8074bc2a25a483eaae639c045a0b8a1", // VLEK
            "92f81bc358114d3d97ffd19f88dc67ea", // CRL
        ];
        let mut table = Vec::new();
        let mut offset = 6 * 24;
        for (guid, data) in guids.iter().zip(&data) {
            table.extend(hex::decode(guid).unwrap());
            table.extend(u32::try_from(offset).unwrap().to_le_bytes());
            table.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            offset += data.len();
        }
        table.extend([0; 24]);
        table.extend(data.concat());
        let found = CertificateTable::parse(&table).unwrap();
        let slots = [found.ark, found.ask, found.vcek, found.vlek, found.crl];
        assert_eq!(slots.map(Option::unwrap), *data);
        assert_eq!(found.encode(), table);
    }

    #[test]
    fn only_an_entry_of_zeros_ends_the_table() {
        let entry = |guid: u8, offset: u8, len: u8| {
            let mut entry = [0; ENTRY_LEN_BYTES];
            (entry[15], entry[16], entry[20]) = (guid, offset, len);
            entry
        };
        for passed_over in [entry(1, 0, 0), entry(0, 1, 0), entry(0, 0, 1)] {
            let table = [passed_over, entry(0, 0, 0)].concat();
            assert!(CertificateTable::parse(&table).is_ok());
            assert!(CertificateTable::parse(&passed_over).is_err(), "{passed_over:?} is no end");
        }
        let mut longest = sample();
        longest.resize(MAX_TABLE_LEN_BYTES, 7);
        assert!(CertificateTable::parse(&longest).is_ok());
    }

    #[test]
    fn malformed_tables_are_refused() {
        let table = sample();
        assert!(CertificateTable::parse(&table[..table.len() - 1]).is_err(), "data cut off");
        assert!(CertificateTable::parse(&table[..48]).is_err(), "no terminator");
        let mut twice = table.clone();
        let first = twice[..16].to_vec();
        twice[24..40].copy_from_slice(&first);
        assert!(CertificateTable::parse(&twice).is_err(), "entry twice");
        let mut outside = table.clone();
        outside[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(CertificateTable::parse(&outside).is_err(), "offset outside");
        assert!(CertificateTable::parse(&vec![0; MAX_TABLE_LEN_BYTES + 1]).is_err(), "too long");
    }

    #[test]
    fn unknown_entries_are_passed_over() {
        let mut table = sample();
        table[0] ^= 0xff;
        let found = CertificateTable::parse(&table).unwrap();
        assert!(found.ask.is_none() && found.vcek.is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = CertificateTable::parse(&bytes);
        }
    }
}
