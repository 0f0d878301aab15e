//! The chain of PAGE_INFO records an SNP launch digest is made of (56860 1.58, section 8.17.2).

use ring::digest::{SHA384, digest};

pub(super) const PAGE_LEN_BYTES: usize = 4096;
/// LENGTH field of PAGE_INFO: the size of the record itself.
const PAGE_INFO_LEN_BYTES: usize = 0x70;
/// CONTENTS of every page whose bytes the processor makes or clears itself.
const NO_CONTENTS: [u8; 48] = [0; 48];

/// PAGE_TYPE, 1 byte at 0x62 of PAGE_INFO; 56860 1.58, section 8.17.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum PageType {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Unmeasured = 4,
    Secrets = 5,
    Cpuid = 6,
}

/// A launch digest under way; it begins with zeros.
pub(super) struct LaunchDigest([u8; 48]);

impl Default for LaunchDigest {
    fn default() -> Self {
        Self([0; 48])
    }
}

impl LaunchDigest {
    pub(super) const fn value(&self) -> [u8; 48] {
        self.0
    }

    /// Normal pages that hold `bytes` from `base` on; a short last page is padded with zeros.
    pub(super) fn add_bytes(&mut self, base: u64, bytes: &[u8]) {
        for (page, gpa) in bytes.chunks(PAGE_LEN_BYTES).zip((base..).step_by(PAGE_LEN_BYTES)) {
            let mut padded = [0; PAGE_LEN_BYTES];
            padded[..page.len()].copy_from_slice(page);
            self.add_page(PageType::Normal, gpa, &padded);
        }
    }

    /// One page whose bytes are measured.
    pub(super) fn add_page(&mut self, page_type: PageType, gpa: u64, page: &[u8; PAGE_LEN_BYTES]) {
        let mut contents = NO_CONTENTS;
        contents.copy_from_slice(digest(&SHA384, page).as_ref());
        self.extend(page_type, gpa, &contents);
    }

    /// `pages` pages from `base` on of which only type and place are measured.
    pub(super) fn add_without_contents(&mut self, page_type: PageType, base: u64, pages: usize) {
        for gpa in (base..).step_by(PAGE_LEN_BYTES).take(pages) {
            self.extend(page_type, gpa, &NO_CONTENTS);
        }
    }

    /// SHA-384 of PAGE_INFO. IMI_PAGE and the permissions of VMPL 1 to 3 are zero: no launch here uses them.
    fn extend(&mut self, page_type: PageType, gpa: u64, contents: &[u8; 48]) {
        let mut info = [0; PAGE_INFO_LEN_BYTES];
        info[..0x30].copy_from_slice(&self.0); // DIGEST_CUR
        info[0x30..0x60].copy_from_slice(contents); // CONTENTS
        info[0x60] = 0x70; // LENGTH, 16 bits little-endian
        info[0x62] = page_type as u8;
        info[0x68..].copy_from_slice(&gpa.to_le_bytes());
        self.0.copy_from_slice(digest(&SHA384, &info).as_ref());
    }
}
