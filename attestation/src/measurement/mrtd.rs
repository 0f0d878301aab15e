//! MRTD: SHA-384 over one record for each page added and for each 256 bytes measured.
//!
//! Intel TDX Module 1.5 ABI: TDH.MEM.PAGE.ADD hashes `MEM.PAGE.ADD`, zeros to 16 bytes, the guest-physical address and
//! zeros to 128 bytes; TDH.MR.EXTEND hashes `MR.EXTEND` in the same form, and the 256 bytes at that address. The order
//! is the hypervisor's: it adds the sections in the order of the metadata, but not all add and measure alike.

use ring::digest::{Context, SHA384};

use super::chain::PAGE_LEN_BYTES;
use super::tdvf::Section;

const RECORD_LEN_BYTES: usize = 128;
const CHUNK_LEN_BYTES: usize = 256;

/// In which order a hypervisor adds and measures the pages of a section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageOrder {
    /// Each page is added and then measured, before the next: Linux 6.16 and later, and QEMU 9 and 10 on it.
    #[default]
    Interleaved,
    /// All pages of a section are added, then all are measured: earlier series of patches, with QEMU 8.
    TwoPass,
}

impl PageOrder {
    /// By its name on the command line: `interleaved` or `two-pass`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "interleaved" => Some(Self::Interleaved),
            "two-pass" => Some(Self::TwoPass),
            _ => None,
        }
    }
}

/// What one section did.
pub(super) struct Extended {
    /// SHA-384 over its records alone.
    pub(super) input: [u8; 48],
    /// MRTD after it.
    pub(super) digest: [u8; 48],
}

/// Two hashes that get the same bytes.
struct Hashes {
    section: Context,
    all: Context,
}

impl Hashes {
    fn update(&mut self, bytes: &[u8]) {
        self.section.update(bytes);
        self.all.update(bytes);
    }
}

/// Each section in turn; MRTD after the last is that of the TD.
pub(super) fn mrtd(sections: &[Section<'_>], order: PageOrder) -> Vec<Extended> {
    let mut hash = Hashes { section: Context::new(&SHA384), all: Context::new(&SHA384) };
    let mut after = Vec::with_capacity(sections.len());
    for section in sections {
        let pages = || (section.gpa..).step_by(PAGE_LEN_BYTES).zip(0..section.pages);
        match order {
            PageOrder::Interleaved => pages().for_each(|(gpa, page)| {
                add(&mut hash, section, gpa);
                extend(&mut hash, section, gpa, page);
            }),
            PageOrder::TwoPass => {
                pages().for_each(|(gpa, _)| add(&mut hash, section, gpa));
                pages().for_each(|(gpa, page)| extend(&mut hash, section, gpa, page));
            }
        }
        let section = core::mem::replace(&mut hash.section, Context::new(&SHA384));
        after.push(Extended { input: finish(section), digest: finish(hash.all.clone()) });
    }
    after
}

fn finish(hash: Context) -> [u8; 48] {
    let mut digest = [0; 48];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}

fn add(hash: &mut Hashes, section: &Section<'_>, gpa: u64) {
    if section.added {
        hash.update(&record(b"MEM.PAGE.ADD", gpa));
    }
}

fn extend(hash: &mut Hashes, section: &Section<'_>, gpa: u64, page: u64) {
    if !section.extended {
        return;
    }
    let data = usize::try_from(page).ok().and_then(|page| section.data.chunks(PAGE_LEN_BYTES).nth(page));
    let chunks = data.unwrap_or_default().chunks(CHUNK_LEN_BYTES);
    for (gpa, chunk) in (gpa..).step_by(CHUNK_LEN_BYTES).zip(chunks) {
        hash.update(&record(b"MR.EXTEND", gpa));
        hash.update(chunk);
    }
}

fn record(name: &[u8], gpa: u64) -> [u8; RECORD_LEN_BYTES] {
    let mut record = [0; RECORD_LEN_BYTES];
    record[..name.len()].copy_from_slice(name);
    record[16..24].copy_from_slice(&gpa.to_le_bytes());
    record
}

#[cfg(test)]
mod tests {
    use super::super::tdvf::{sections, tests::SECTIONS, tests::image};
    use super::*;

    /// Values of a program in another language, written from the specification for these tests.
    #[test]
    fn golden_values() {
        let image = image(&SECTIONS);
        let sections = sections(&image).unwrap();
        let last = |order| hex::encode(mrtd(&sections, order).last().unwrap().digest);
        assert_eq!(
            last(PageOrder::Interleaved),
            "433ebcaa2cae9f7709a6308c337cdf7b9655acafdd10b4c66526de19ece1944207ec9bfdbd335345175ebb499bb7000f"
        );
        assert_eq!(
            last(PageOrder::TwoPass),
            "7ca230dea2066158a48539c6a8d615bbcc309b09f5243f98c32c810fac0ee45a2cf3c57cce48d22f6828fb9604009ad2"
        );
    }

    #[test]
    fn every_part_is_measured_and_what_is_not_is_known() {
        let base = image(&SECTIONS);
        let of =
            |image: &[u8]| mrtd(&sections(image).unwrap(), PageOrder::Interleaved).last().unwrap().digest;
        let mut code = base.clone();
        code[0x1010] ^= 1;
        assert_ne!(of(&code), of(&base), "code");
        let mut variables = base.clone();
        variables[0x10] ^= 1;
        assert_eq!(of(&variables), of(&base), "variables are measured into RTMR0, not into MRTD");
        let with = |at: usize, change: fn(&mut super::super::tdvf::tests::Raw)| {
            let mut raw = SECTIONS;
            change(&mut raw[at]);
            let image = image(&raw);
            // Only what the sections say differs, not the bytes of the metadata, which are measured too.
            let sections: Vec<Section<'_>> = sections(&image)
                .unwrap()
                .into_iter()
                .map(|s| Section { data: &[], extended: false, ..s })
                .collect();
            mrtd(&sections, PageOrder::Interleaved).last().unwrap().digest
        };
        let unchanged = with(0, |_| {});
        assert_ne!(with(5, |raw| raw.2 = 0x70_0000), unchanged, "address");
        assert_ne!(with(5, |raw| raw.3 = 0x5000), unchanged, "size");
        assert_ne!(with(5, |raw| raw.5 = 2), unchanged, "not added");
        assert_eq!(with(5, |raw| raw.4 = 4), unchanged, "the type is not measured");
    }
}
