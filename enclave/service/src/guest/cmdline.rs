//! What the kernel may have been told: a short list of words, and nothing that it passes on to its first program.
//!
//! The command line is measured, so another one already makes another enclave. This list is for whoever reads only one
//! of the two, and for platforms on which the command line lands in a register of its own.

use std::ffi::OsString;

/// Each word with its reason.
const ALLOWED: [(&str, &str); 6] = [
    ("quiet", "no kernel message on a console"),
    ("panic=-1", "a stop is at once; the kernel is built that way too"),
    ("random.trust_cpu=off", "the processor's numbers are mixed in, but are not enough by themselves"),
    ("random.trust_bootloader=off", "the host's numbers are mixed in, but count for nothing"),
    ("no_timer_check", "emulated machines fail this check at random; it decides nothing here"),
    ("initrd=initrd", "OVMF adds it where it hands over the initramfs"),
];

/// Compares what the kernel was told and what it passed on with what is allowed.
///
/// # Errors
/// A sentence that names the first thing which is not.
pub(super) fn allowed(
    told: &str,
    arguments: impl Iterator<Item = String>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(), String> {
    let unknown = |word: &&str| !ALLOWED.iter().any(|(known, _)| known == word);
    if let Some(word) = told.split_whitespace().find(unknown) {
        return Err(format!("the kernel's command line has the word {word:?}, which is not allowed"));
    }
    if let Some(argument) = arguments.into_iter().next() {
        return Err(format!("the first program was given the argument {argument:?}, and takes none"));
    }
    // What the kernel itself sets: `envp_init` in Linux `init/main.c`.
    let own = |name: &OsString, value: &OsString| {
        (name == "HOME" && value == "/") || (name == "TERM" && value == "linux")
    };
    match environment.into_iter().find(|(name, value)| !own(name, value)) {
        Some((name, _)) => Err(format!("the environment has {name:?}, which is not allowed")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn told(line: &str) -> Result<(), String> {
        allowed(line, [].into_iter(), environment(&[("HOME", "/"), ("TERM", "linux")]).into_iter())
    }

    #[test]
    fn the_images_own_lines_are_allowed() {
        assert_eq!(told("quiet random.trust_cpu=off random.trust_bootloader=off initrd=initrd\n"), Ok(()));
        assert_eq!(told(""), Ok(()));
    }

    #[test]
    fn a_word_that_is_not_listed_is_named() {
        for word in
            ["console=ttyS0", "init=/bin/sh", "rdinit=/x", "lockdown=none", "random.trust_cpu=on", "--"]
        {
            assert!(told(&format!("quiet {word}")).unwrap_err().contains(word), "{word}");
        }
    }

    #[test]
    fn arguments_and_environment_are_the_kernels_own() {
        let none = || environment(&[]).into_iter();
        assert!(allowed("", ["single".to_owned()].into_iter(), none()).unwrap_err().contains("single"));
        for pair in [("LD_PRELOAD", "/x"), ("RUST_LOG", "trace"), ("HOME", "/root"), ("TERM", "dumb")] {
            let refused = allowed("", [].into_iter(), environment(&[pair]).into_iter()).unwrap_err();
            assert!(refused.contains(pair.0), "{refused}");
        }
    }
}
