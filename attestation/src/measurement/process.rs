//! The launch measurement of a simulated guest, computable by anybody from the files of a release.
//!
//! It has the shape of an SNP launch digest (56860 1.58, section 8.17): a chain of SHA-384 over PAGE_INFO records,
//! one for each 4 KiB page in load order. First comes a header page with the lengths and counts, since pages are
//! padded with zeros and two inputs must never share their pages; then the program, the arguments and the launch
//! document, each at its own guest-physical base so that bytes of one cannot stand for bytes of another.

use super::chain::LaunchDigest;
use crate::commit::push_lp;

/// What the header page begins with.
const HEADER_LABEL: &[u8] = b"adyton/v1/simulated-launch";

const HEADER_GPA: u64 = 0;
const PROGRAM_GPA: u64 = 1 << 40;
const ARGUMENTS_GPA: u64 = 2 << 40;
const DOCUMENT_GPA: u64 = 3 << 40;

/// The measurement of `program` (the bytes of the file) started with `argv` (without a program name) and the
/// launch document `document`.
#[must_use]
pub fn measure_process<A: AsRef<[u8]>>(program: &[u8], document: &[u8], argv: &[A]) -> [u8; 48] {
    let mut arguments = Vec::new();
    argv.iter().for_each(|argument| push_lp(&mut arguments, argument.as_ref()));
    let mut header = Vec::new();
    push_lp(&mut header, HEADER_LABEL);
    for len in [program.len(), argv.len(), arguments.len(), document.len()] {
        header.extend_from_slice(&(len as u64).to_be_bytes());
    }
    let regions: [(&[u8], u64); 4] = [
        (&header, HEADER_GPA),
        (program, PROGRAM_GPA),
        (&arguments, ARGUMENTS_GPA),
        (document, DOCUMENT_GPA),
    ];
    let mut launch_digest = LaunchDigest::default();
    for (bytes, base) in regions {
        launch_digest.add_bytes(base, bytes);
    }
    launch_digest.value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NO_ARGUMENTS: [&[u8]; 0] = [];

    #[test]
    fn golden_values() {
        assert_eq!(
            hex::encode(measure_process(b"program", b"document", &[b"one", b"two"])),
            "1fff0489a3361e24c244921f39f580cd4e0b6105137212debfe5989f421c4f5a3f2981268aec7110c310229af642260f"
        );
        assert_eq!(
            hex::encode(measure_process(&[7; 5000], &[], &NO_ARGUMENTS)),
            "fece0bc3c6de4707cd17054f3bd4fb9acc085036c51cc0d54110c2c2a683298ffa10ae30afed16790824a083d6e1269f"
        );
    }

    #[test]
    fn padding_and_boundaries_are_measured() {
        let base = measure_process(b"ab", b"c", &["d"]);
        assert_ne!(base, measure_process(b"ab\0", b"c", &["d"]), "a trailing zero");
        assert_ne!(base, measure_process(b"a", b"bc", &["d"]), "a byte moved to the document");
        assert_ne!(base, measure_process(b"ab", b"c", &["d", ""]), "an empty argument");
        assert_ne!(base, measure_process(b"ab", b"cd", &NO_ARGUMENTS), "an argument moved to the document");
    }

    proptest! {
        #[test]
        fn one_changed_byte_of_the_program_changes_it(
            mut program in prop::collection::vec(any::<u8>(), 1..9000), at in any::<prop::sample::Index>(),
        ) {
            let before = measure_process(&program, b"document", &NO_ARGUMENTS);
            let at = at.index(program.len());
            program[at] ^= 1;
            prop_assert_ne!(before, measure_process(&program, b"document", &NO_ARGUMENTS));
        }
    }
}
