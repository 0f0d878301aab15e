//! The processor's own generator: one instruction each, and nothing else.

/// Times an instruction is tried: Intel's and AMD's manuals say that ten failures in a row mean a broken generator.
#[cfg(target_arch = "x86_64")]
const TRIES: u32 = 10;

/// A word of `RDRAND`, or `None` if the processor has none or gives up.
pub(super) fn rdrand() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("rdrand") {
        // SAFETY: the processor has the instruction, asked in the line above; it touches only the word lent to it.
        let step = |word: &mut u64| unsafe { std::arch::x86_64::_rdrand64_step(word) };
        return tried(step);
    }
    None
}

/// Whether there is `RDSEED`.
pub(super) fn has_rdseed() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("rdseed");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// A word of `RDSEED`, or `None` if the processor has none or gives up.
pub(super) fn rdseed() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    if has_rdseed() {
        // SAFETY: the processor has the instruction, asked in the line above; it touches only the word lent to it.
        let step = |word: &mut u64| unsafe { std::arch::x86_64::_rdseed64_step(word) };
        // It runs dry sooner than RDRAND, which draws from it.
        return (0..100).find_map(|_| {
            std::hint::spin_loop();
            tried(step)
        });
    }
    None
}

#[cfg(target_arch = "x86_64")]
fn tried(step: impl Fn(&mut u64) -> i32) -> Option<u64> {
    (0..TRIES).find_map(|_| {
        let mut word = 0;
        (step(&mut word) == 1).then_some(word)
    })
}
