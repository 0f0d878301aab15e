//! From logits to the next token.
//!
//! Order: logit bias; repetition, presence and frequency penalties; then top-k, typical, top-p, min-p, temperature, and
//! a draw; or the largest logit at temperature 0. All arithmetic is ours, and the draw comes from the seed alone, so that
//! a token is a function of (logits, parameters, seed, tokens before).
//!
//! Nothing is sorted: a vocabulary has over a hundred thousand tokens. What is left out of a set becomes minus infinity, and
//! where a set ends is found by halving.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;

use crate::arch::{Elementwise, Lines, Path, wipe};
use crate::dense::math::{exp, ln};

/// How tokens are chosen. The default is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0: always the largest logit.
    pub temperature: f32,
    /// Only the `top_k` largest; 0: all.
    pub top_k: usize,
    /// Only the smallest set of this probability; 1: all.
    pub top_p: f32,
    /// Only tokens at least this likely relative to the likeliest; 0: all.
    pub min_p: f32,
    /// Locally typical sampling (arXiv 2202.00666) with this probability; 1: all.
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of tokens that occurred; 1: none.
    pub repetition_penalty: f32,
    /// Subtracted once from tokens that occurred.
    pub presence_penalty: f32,
    /// Subtracted for each occurrence.
    pub frequency_penalty: f32,
    /// Tokens looked back at by the penalties.
    pub penalty_window: usize,
    /// Added to single logits.
    pub logit_bias: Vec<(u32, f32)>,
    /// Mirostat 2 (arXiv 2007.14966) in place of all truncation.
    pub mirostat: Option<Mirostat>,
    /// Seed of the draws.
    pub seed: u64,
}

/// Aims at a surprise of `tau` bits, learning at rate `eta`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the paper's names")]
pub struct Mirostat {
    pub tau: f32,
    pub eta: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_window: 64,
            logit_bias: Vec::new(),
            mirostat: None,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Whether it is the token with the largest logit of all, as the model gives them.
    pub(super) fn takes_largest(&self) -> bool {
        let penalties =
            self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0;
        self.temperature <= 0.0 && !penalties && self.logit_bias.is_empty()
    }
}

/// Weights that are summed together; a draw looks for its part first.
const PART: usize = 512;

/// What one token is chosen in.
#[derive(Default)]
struct Room {
    logits: Lines<f32>,
    weights: Lines<f32>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room::default());
}

/// Chooses tokens of one sequence. `Debug` tells nothing of them: mirostat's state comes from how likely they were.
#[derive(Clone)]
pub struct Sampler {
    sampling: Sampling,
    state: u64,
    mu: f64,
    f: Elementwise,
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sampler")
    }
}

impl Sampler {
    /// A sampler before its first token.
    #[must_use]
    pub fn new(sampling: Sampling) -> Self {
        let mu = sampling.mirostat.map_or(0.0, |mirostat| 2.0 * f64::from(mirostat.tau));
        // Every path gives the same numbers.
        let f = Elementwise::new(Path::best());
        Self { state: sampling.seed, mu, f, sampling }
    }

    /// Chooses the next token. `logits` hold one number for each token, `before` the tokens before it, for the penalties; NaN
    /// is never chosen before a number.
    pub fn sample(&mut self, logits: &[f32], before: &[u32]) -> u32 {
        if self.sampling.takes_largest() {
            return number(first(logits, self.f.largest_of(logits)));
        }
        ROOM.with_borrow_mut(|room| {
            let Room { logits: x, weights: w } = room;
            x.resize(logits.len());
            for (x, logit) in x.iter_mut().zip(logits) {
                *x = if logit.is_nan() { f32::NEG_INFINITY } else { *logit };
            }
            self.penalize(x, before);
            let max = self.f.largest_of(x);
            if max == f32::NEG_INFINITY {
                return number(logits.iter().position(|logit| !logit.is_nan()).unwrap_or(0));
            }
            if self.sampling.temperature <= 0.0 || max == f32::INFINITY {
                return number(first(x, max));
            }
            let ids = self.truncate(x, w);
            let chosen = self.draw(w);
            if let Some(mirostat) = self.sampling.mirostat {
                let total: f64 = self.parts(w).sum();
                let surprise = surprise(f64::from(w[chosen]) / total);
                self.mu -= f64::from(mirostat.eta) * (surprise - f64::from(mirostat.tau));
            }
            ids.map_or(number(chosen), |ids| ids[chosen])
        })
    }

    /// Leaves the weights of the tokens that may be drawn in `w`, and 0 for all others; returns which tokens they are of
    /// where they are not all.
    fn truncate(&self, x: &mut Lines<f32>, w: &mut Lines<f32>) -> Option<Vec<u32>> {
        let (s, f) = (&self.sampling, self.f);
        let ids = (1..x.len()).contains(&s.top_k) && s.mirostat.is_none();
        let ids = ids.then(|| top(x, s.top_k));
        if let Some(ids) = &ids {
            for (place, id) in ids.iter().enumerate() {
                x[place] = x[*id as usize];
            }
            x.resize(ids.len());
        }
        w.resize(x.len());
        if s.mirostat.is_some() {
            f.weigh(x, f.largest_of(x), s.temperature, w);
            let least = self.parts(w).sum::<f64>() * exp(-self.mu * std::f64::consts::LN_2);
            let likeliest = first(w, 1.0);
            w.iter_mut().filter(|w| f64::from(**w) < least).for_each(|w| *w = 0.0);
            w[likeliest] = 1.0;
            return ids;
        }
        if s.typical_p < 1.0 {
            self.typical(x, w, f64::from(s.typical_p));
        }
        if s.top_p < 1.0 {
            self.nucleus(x, w, f64::from(s.top_p));
        }
        let max = f.largest_of(x);
        if s.min_p > 0.0 {
            f.weigh(x, max, 1.0, w);
            x.iter_mut()
                .zip(w.iter())
                .filter(|(_, w)| **w < s.min_p)
                .for_each(|(x, _)| *x = f32::NEG_INFINITY);
        }
        f.weigh(x, max, s.temperature, w);
        ids
    }

    /// The sums of the parts of `w`.
    fn parts<'w>(&self, w: &'w [f32]) -> impl Iterator<Item = f64> + use<'w> {
        let f = self.f;
        w.chunks(PART).map(move |part| f64::from(f.total_of(part)))
    }

    /// Keeps the likeliest tokens until their probability reaches `p`.
    fn nucleus(&self, x: &mut [f32], w: &mut [f32], p: f64) {
        self.f.weigh(x, self.f.largest_of(x), 1.0, w);
        let total: f64 = self.parts(w).sum();
        // All below together lack what is left out.
        #[expect(clippy::cast_precision_loss, reason = "a vocabulary is below 2^52")]
        let least = (1.0 - p) * total / w.len().max(1) as f64;
        let mut kept = Vec::new();
        for (index, (x, w)) in x.iter_mut().zip(w.iter()).enumerate() {
            if f64::from(*w) < least {
                *x = f32::NEG_INFINITY;
            } else {
                kept.push((-f64::from(*x), number(index)));
            }
        }
        keep_until(x, w, kept, p * total);
    }

    /// Keeps the tokens whose surprise is nearest to the expected one until their probability reaches `p`.
    fn typical(&self, x: &mut [f32], w: &mut [f32], p: f64) {
        let max = self.f.largest_of(x);
        self.f.weigh(x, max, 1.0, w);
        let total: f64 = self.parts(w).sum();
        // Surprises without the logarithm of the total, which all have.
        let possible = || x.iter().zip(w.iter()).zip(0u32..).filter(|((x, _), _)| **x != f32::NEG_INFINITY);
        let surprise = |x: f32| f64::from(max) - f64::from(x);
        let entropy = possible().map(|((x, w), _)| f64::from(*w) * surprise(*x)).sum::<f64>() / total;
        let keys = possible().map(|((x, _), token)| ((surprise(*x) - entropy).abs(), token)).collect();
        keep_until(x, w, keys, p * total);
    }

    fn penalize(&self, logits: &mut [f32], before: &[u32]) {
        let s = &self.sampling;
        for (token, bias) in &s.logit_bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        let mut counts: HashMap<u32, f32> = HashMap::new();
        let recent = &before[before.len().saturating_sub(s.penalty_window)..];
        recent.iter().for_each(|token| *counts.entry(*token).or_default() += 1.0);
        for (token, count) in counts {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            if *logit > 0.0 {
                *logit /= s.repetition_penalty;
            } else {
                *logit *= s.repetition_penalty;
            }
            *logit -= s.presence_penalty + s.frequency_penalty * count;
        }
    }

    /// Uniform in [0, 1): splitmix64.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits")]
        let bits = (z >> 11) as f64;
        bits / 9_007_199_254_740_992.0
    }

    /// One of the tokens by their weights.
    fn draw(&mut self, w: &[f32]) -> usize {
        let total: f64 = self.parts(w).sum();
        let mut left = self.uniform() * total;
        let mut start = 0;
        for part in self.parts(w) {
            if left < part {
                break;
            }
            left -= part;
            start += PART;
        }
        let part = w.get(start..).unwrap_or_default();
        let mut last = None;
        for (index, weight) in part.iter().take(PART).enumerate().filter(|(_, weight)| **weight > 0.0) {
            last = Some(start + index);
            left -= f64::from(*weight);
            if left < 0.0 {
                break;
            }
        }
        // Rounding may leave a little behind the last one.
        last.or_else(|| w.iter().rposition(|weight| *weight > 0.0)).unwrap_or(0)
    }
}

/// A place in the vocabulary as its token.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(0)
}

/// Where the first of the largest numbers is; 0 if there is none.
fn first(x: &[f32], max: f32) -> usize {
    const FEW: usize = 64;
    // Whole pieces are compared at once.
    let piece = x.chunks(FEW).position(|piece| piece.iter().fold(false, |any, x| any | (*x == max)));
    let Some(piece) = piece else { return 0 };
    x[piece * FEW..].iter().position(|x| *x == max).map_or(0, |index| piece * FEW + index)
}

/// In bits.
fn surprise(p: f64) -> f64 {
    -ln(p.max(f64::MIN_POSITIVE)) * std::f64::consts::LOG2_E
}

/// The `k` tokens with the largest logits, of equal ones the first, in order of the vocabulary.
fn top(x: &[f32], k: usize) -> Vec<u32> {
    const FEW: usize = 64;
    if k == 0 {
        return Vec::new();
    }
    let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    let most = (2 * k).max(1024);
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(most + FEW);
    // What is not above it has `k` better ones before it.
    let mut bar = f32::NEG_INFINITY;
    for (piece, start) in x.chunks(FEW).zip((0..).step_by(FEW)) {
        if piece.iter().fold(false, |any, x| any | (*x > bar)) {
            best.extend(piece.iter().copied().zip(start..).filter(|(x, _)| *x > bar));
        }
        if best.len() >= most {
            best.select_nth_unstable_by(k - 1, order);
            best.truncate(k);
            bar = best[k - 1].0;
        }
    }
    if best.len() > k {
        best.select_nth_unstable_by(k - 1, order);
        best.truncate(k);
    }
    let mut ids: Vec<u32> = best.iter().map(|(_, token)| *token).collect();
    wipe(&mut best);
    ids.sort_unstable();
    ids
}

/// Keeps the tokens with the smallest keys, of equal ones the first, until their weights reach `target`; at least one.
fn keep_until(x: &mut [f32], w: &[f32], mut keys: Vec<(f64, u32)>, target: f64) {
    let order = |a: &(f64, u32), b: &(f64, u32)| -> Ordering { a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)) };
    let (mut low, mut high, mut sum) = (0, keys.len(), 0.0);
    while low < high {
        let middle = usize::midpoint(low, high);
        keys[low..high].select_nth_unstable_by(middle - low, order);
        let more: f64 = keys[low..=middle].iter().map(|(_, token)| f64::from(w[*token as usize])).sum();
        if sum + more >= target {
            high = middle;
        } else {
            sum += more;
            low = middle + 1;
        }
    }
    for (_, token) in keys.iter().skip(low + 1) {
        x[*token as usize] = f32::NEG_INFINITY;
    }
    wipe(&mut keys);
}

/// Natural logarithms of the probabilities of `token` and of the `n` likeliest tokens. What is no number has none.
#[must_use]
pub fn logprobs(logits: &[f32], token: u32, n: usize) -> (f64, Vec<(u32, f64)>) {
    // Every path gives the same numbers.
    let f = Elementwise::new(Path::best());
    let max = f.largest_of(logits);
    // Infinite logits: the difference is 0 for the largest, not NaN.
    let less = |logit: f32| if logit == max { 0.0 } else { f64::from(logit) - f64::from(max) };
    let total = ln(f.exp_total(logits, max));
    let mut order: Vec<(u32, f32)> =
        top(logits, n).into_iter().map(|token| (token, logits[token as usize])).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let own = logits.get(token as usize).filter(|logit| !logit.is_nan());
    let own = own.map_or(f64::NEG_INFINITY, |logit| less(*logit) - total);
    (own, order.into_iter().map(|(token, logit)| (token, less(logit) - total)).collect())
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOGITS: [f32; 6] = [1.0, 3.0, 2.0, 3.0, -1.0, f32::NAN];

    fn drawn(sampling: &Sampling, n: u64) -> Vec<usize> {
        let mut counts = vec![0; LOGITS.len()];
        for seed in 0..n {
            let sampling = Sampling { seed, penalty_window: 0, ..sampling.clone() };
            counts[Sampler::new(sampling).sample(&LOGITS, &[]) as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(Sampler::new(Sampling::default()).sample(&LOGITS, &[]), 1);
        assert_eq!(Sampler::new(Sampling::default()).sample(&[f32::NAN, -1.0], &[]), 1);
        assert_eq!(
            Sampler::new(Sampling { temperature: 1.0, ..Sampling::default() }).sample(&[f32::NAN], &[]),
            0
        );
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let counts = drawn(&Sampling { temperature: 1.0, ..Sampling::default() }, 40_000);
        let weights: Vec<f64> =
            LOGITS.iter().map(|x| if x.is_nan() { 0.0 } else { f64::from(*x).exp() }).collect();
        let total: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            let (got, want) = (*count as f64 / 40_000.0, weight / total);
            assert!((got - want).abs() < 0.012, "{counts:?}");
        }
    }

    #[test]
    fn truncations_leave_what_they_say() {
        let base = Sampling { temperature: 1.0, ..Sampling::default() };
        let support = |sampling: &Sampling| -> Vec<usize> {
            let counts = drawn(sampling, 4000);
            (0..counts.len()).filter(|i| counts[*i] > 0).collect()
        };
        assert_eq!(support(&Sampling { top_k: 1, ..base.clone() }), [1]);
        assert_eq!(support(&Sampling { top_k: 3, ..base.clone() }), [1, 2, 3]);
        // Probabilities: 0.40, 0.40, 0.15, 0.05, 0.007.
        assert_eq!(support(&Sampling { top_p: 0.5, ..base.clone() }), [1, 3]);
        assert_eq!(support(&Sampling { top_p: 0.01, ..base.clone() }), [1]);
        assert_eq!(support(&Sampling { min_p: 0.3, ..base.clone() }), [1, 2, 3]);
        // Entropy 1.2: the two likeliest (surprise 0.9) are nearest, then the third (1.9).
        assert_eq!(support(&Sampling { typical_p: 0.7, ..base.clone() }), [1, 3]);
        assert_eq!(support(&Sampling { typical_p: 0.9, ..base.clone() }), [1, 2, 3]);
        let mirostat = Some(Mirostat { tau: 0.1, eta: 0.1 });
        assert_eq!(support(&Sampling { mirostat, ..base }), [1]);
    }

    /// The tokens that may be drawn, by sorting; and whether a set ends so near to its probability that rounding decides.
    fn plainly(logits: &[f32], s: &Sampling) -> (Vec<u32>, bool) {
        let mut all: Vec<(u32, f64)> = (0u32..).zip(logits).map(|(i, x)| (i, f64::from(*x))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if s.top_k > 0 {
            all.truncate(s.top_k);
        }
        let mut near = false;
        let mut until = |all: &mut Vec<(u32, f64)>, p: f64, total: f64| {
            let mut sum = 0.0;
            let kept = all.iter().take_while(|(_, x)| {
                near |= (sum / total - p).abs() < 1e-4;
                let more = sum < p * total;
                sum += x.exp();
                more
            });
            let kept = kept.count().max(1);
            all.truncate(kept);
        };
        let total = |all: &[(u32, f64)]| all.iter().map(|(_, x)| x.exp()).sum::<f64>();
        if s.typical_p < 1.0 {
            let sum = total(&all);
            let surprise = |x: f64| sum.ln() - x;
            let expected: f64 = all.iter().map(|(_, x)| x.exp() / sum * surprise(*x)).sum();
            let far = |x: f64| (surprise(x) - expected).abs();
            all.sort_by(|a, b| far(a.1).total_cmp(&far(b.1)).then(a.0.cmp(&b.0)));
            until(&mut all, f64::from(s.typical_p), sum);
            all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        }
        if s.top_p < 1.0 {
            let sum = total(&all);
            until(&mut all, f64::from(s.top_p), sum);
        }
        let best = all[0].1.exp();
        all.retain(|(_, x)| x.exp() >= f64::from(s.min_p) * best * (1.0 - 1e-6));
        let mut tokens: Vec<u32> = all.into_iter().map(|(token, _)| token).collect();
        tokens.sort_unstable();
        (tokens, near)
    }

    proptest! {
        /// The sets that halving finds are those that sorting finds, ties included.
        #[test]
        fn sets_are_those_of_sorting(
            // Few values, so that many are equal.
            logits in prop::collection::vec((-40i8..40).prop_map(|x| f32::from(x) / 7.0), 1..1500),
            top_k in prop_oneof![Just(0usize), 1..40usize, 40..2000usize],
            (top_p, typical_p) in (prop_oneof![Just(1.0f32), 0.0..1.0f32], prop_oneof![Just(1.0f32), 0.05..1.0f32]),
            min_p in prop_oneof![Just(0.0f32), 0.001..1.0f32],
        ) {
            let sampling = Sampling { temperature: 1.0, top_k, top_p, typical_p, min_p, ..Sampling::default() };
            let (want, near) = plainly(&logits, &sampling);
            let (mut x, mut w) = (Lines::default(), Lines::default());
            x.resize(logits.len());
            x.copy_from_slice(&logits);
            let ids = Sampler::new(sampling).truncate(&mut x, &mut w);
            let got = (0u32..).zip(w.iter()).filter(|(_, w)| **w > 0.0);
            let got: Vec<u32> = got.map(|(i, _)| ids.as_ref().map_or(i, |ids| ids[i as usize])).collect();
            prop_assert!(near || got == want, "{:?} {:?}", got, want);
        }
    }

    /// As many tokens as real vocabularies have, and nearly all of the weight in the last of them.
    #[test]
    fn draws_from_a_large_vocabulary() {
        let mut logits = vec![-30.0f32; 150_001];
        logits[150_000] = 1.0;
        logits[70_000] = 0.0;
        let mut sampler = Sampler::new(Sampling { temperature: 1.0, seed: 3, ..Sampling::default() });
        let drawn: Vec<u32> = (0..2000).map(|_| sampler.sample(&logits, &[])).collect();
        let share = drawn.iter().filter(|token| **token == 150_000).count() as f64 / 2000.0;
        assert!((share - 0.731).abs() < 0.04, "{share}");
        assert!(drawn.iter().all(|token| matches!(token, 70_000 | 150_000)));
    }

    #[test]
    fn what_is_no_number_is_not_drawn() {
        let hot = Sampling { temperature: 5.0, ..Sampling::default() };
        let only = |logits: &[f32]| Sampler::new(hot.clone()).sample(logits, &[]);
        assert_eq!(only(&[f32::NAN, f32::NEG_INFINITY]), 1);
        assert_eq!(only(&[1.0, f32::INFINITY, f32::INFINITY]), 1);
        assert_eq!(only(&[f32::NEG_INFINITY, -3.0, f32::NAN]), 1);
        assert_eq!(only(&[]), 0);
        // So cold that every other weight is 0.
        let cold = Sampling { temperature: 1e-30, ..Sampling::default() };
        assert_eq!(Sampler::new(cold).sample(&LOGITS[..3], &[]), 1);
    }

    #[test]
    fn penalties_and_bias() {
        let chosen = |sampling: Sampling, n: usize| {
            let (mut sampler, mut tokens) = (Sampler::new(sampling), Vec::new());
            for _ in 0..n {
                tokens.push(sampler.sample(&LOGITS, &tokens));
            }
            tokens
        };
        let base = Sampling::default();
        assert_eq!(chosen(Sampling { presence_penalty: 1.5, ..base.clone() }, 4), [1, 3, 2, 1]);
        assert_eq!(chosen(Sampling { repetition_penalty: 10.0, ..base.clone() }, 3), [1, 3, 2]);
        assert_eq!(chosen(Sampling { frequency_penalty: 0.6, ..base }, 5), [1, 3, 1, 3, 2]);
        let logit_bias = vec![(4, 100.0), (99, 1.0)];
        assert_eq!(Sampler::new(Sampling { logit_bias, ..Sampling::default() }).sample(&LOGITS, &[]), 4);
    }

    #[test]
    fn whatever_changes_a_choice_needs_all_logits() {
        let base = Sampling::default();
        assert!(Sampling { penalty_window: 3, seed: 9, top_k: 5, ..base.clone() }.takes_largest());
        for other in [
            Sampling { temperature: 0.1, ..base.clone() },
            Sampling { repetition_penalty: 1.1, ..base.clone() },
            Sampling { presence_penalty: -0.1, ..base.clone() },
            Sampling { frequency_penalty: 0.1, ..base.clone() },
            Sampling { logit_bias: vec![(0, 0.0)], ..base },
        ] {
            assert!(!other.takes_largest(), "{other:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let sampling = Sampling { temperature: 2.0, seed: 7, ..Sampling::default() };
        let run = || {
            let mut sampler = Sampler::new(sampling.clone());
            (0..50).map(|_| sampler.sample(&LOGITS, &[])).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn logarithms_of_probabilities() {
        let (own, top) = logprobs(&LOGITS[..5], 2, 2);
        let total: f64 = LOGITS[..5].iter().map(|x| f64::from(*x).exp()).sum();
        assert!((own - (2.0 - total.ln())).abs() < 1e-9);
        assert_eq!(top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 3]);
        // Probabilities 1/2, 1/4, 1/4 by hand; NaN takes no part.
        let logits = [0.0, f32::NAN, std::f32::consts::LN_2, 0.0];
        let (own, top) = logprobs(&logits, 0, 9);
        let near = |x: f64, p: f64| (x - p.ln()).abs() < 1e-6;
        assert!(near(own, 0.25) && near(top[0].1, 0.5) && near(top[2].1, 0.25));
        assert_eq!(top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [2, 0, 3]);
        assert_eq!(logprobs(&logits, 1, 0), (f64::NEG_INFINITY, vec![]));
        assert_eq!(logprobs(&[f32::INFINITY, 1.0], 0, 1), (0.0, vec![(0, 0.0)]));
    }

    /// Logits after penalties, by hand.
    #[test]
    fn penalties_by_hand() {
        let penalized = |sampling: Sampling, seen: &[u32]| {
            let mut logits = vec![2.0, -2.0, 1.0, 0.5];
            Sampler::new(sampling).penalize(&mut logits, seen);
            logits
        };
        let base = Sampling::default();
        // Positive logits are divided, negative ones multiplied, whatever the number of occurrences.
        let repetition = Sampling { repetition_penalty: 2.0, ..base.clone() };
        assert_eq!(penalized(repetition, &[0, 0, 1]), [1.0, -4.0, 1.0, 0.5]);
        let presence = Sampling { presence_penalty: 0.5, ..base.clone() };
        assert_eq!(penalized(presence, &[0, 0, 1]), [1.5, -2.5, 1.0, 0.5]);
        let frequency = Sampling { frequency_penalty: 0.5, ..base.clone() };
        assert_eq!(penalized(frequency, &[0, 0, 1]), [1.0, -2.5, 1.0, 0.5]);
        // Only the last two tokens count.
        let window = Sampling { frequency_penalty: 0.5, penalty_window: 2, ..base.clone() };
        assert_eq!(penalized(window, &[0, 0, 1]), [1.5, -2.5, 1.0, 0.5]);
        let logit_bias = vec![(3, 1.5), (0, f32::NEG_INFINITY), (9, 1.0)];
        assert_eq!(penalized(Sampling { logit_bias, ..base }, &[]), [f32::NEG_INFINITY, -2.0, 1.0, 2.0]);
    }

    /// Probabilities 8/15, 4/15, 2/15, 1/15: surprises 0.907, 1.907, 2.907 and 3.907 bits.
    #[test]
    fn mirostat_by_hand() {
        let logits: Vec<f32> = [8f32, 4.0, 2.0, 1.0].iter().map(|x| x.ln()).collect();
        let mirostat = Some(Mirostat { tau: 1.0, eta: 0.5 });
        let mut sampler = Sampler::new(Sampling { temperature: 1.0, mirostat, ..Sampling::default() });
        // At first twice tau: the first two tokens are left, with 2/3 and 1/3.
        assert_eq!(sampler.mu, 2.0);
        let surprise = match sampler.sample(&logits, &[]) {
            0 => 1.5f64.log2(),
            1 => 3f64.log2(),
            other => panic!("{other}"),
        };
        assert!((sampler.mu - (2.0 - 0.5 * (surprise - 1.0))).abs() < 1e-6, "{}", sampler.mu);
        // Below every surprise the likeliest is left, whose surprise is then 0.
        sampler.mu = 0.1;
        assert_eq!(sampler.sample(&logits, &[]), 0);
        assert!((sampler.mu - 0.6).abs() < 1e-6);
    }
}
