//! From logits to the next token.
//!
//! Order: logit bias; repetition, presence and frequency penalties; then top-k, typical, top-p, min-p, temperature, and
//! a draw; or the largest logit at temperature 0. All arithmetic is ours, and the draw comes from the seed alone, so that
//! a token is a function of (logits, parameters, seed, tokens before).

use std::collections::{HashMap, VecDeque};
use std::fmt;

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

/// A token that may come next.
#[derive(Clone, Copy)]
struct Candidate {
    token: u32,
    logit: f32,
    p: f64,
}

/// Chooses tokens of one sequence. `Debug` tells none of them.
#[derive(Clone)]
pub struct Sampler {
    sampling: Sampling,
    recent: VecDeque<u32>,
    state: u64,
    mu: f64,
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
        Self { recent: VecDeque::new(), state: sampling.seed, mu, sampling }
    }

    /// Tells the penalties about a token that was not chosen here, such as one of the prompt.
    pub fn accept(&mut self, token: u32) {
        if self.sampling.penalty_window == 0 {
            return;
        }
        if self.recent.len() == self.sampling.penalty_window {
            self.recent.pop_front();
        }
        self.recent.push_back(token);
    }

    /// Chooses the next token and remembers it. `logits` hold one number for each token; NaN is never chosen before a
    /// number.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        let token = self.choose(logits);
        self.accept(token);
        token
    }

    fn choose(&mut self, logits: &[f32]) -> u32 {
        let mut logits = logits.to_vec();
        self.penalize(&mut logits);
        if self.sampling.temperature <= 0.0 {
            return largest(&logits);
        }
        let mut all: Vec<Candidate> = (0u32..)
            .zip(&logits)
            .filter(|(_, logit)| !logit.is_nan())
            .map(|(token, logit)| Candidate { token, logit: *logit, p: 0.0 })
            .collect();
        let order = |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token));
        let k = self.sampling.top_k;
        if k > 0 && k < all.len() && self.sampling.mirostat.is_none() {
            all.select_nth_unstable_by(k - 1, order);
            all.truncate(k);
        }
        all.sort_unstable_by(order);
        if all.is_empty() {
            return 0;
        }
        if let Some(mirostat) = self.sampling.mirostat {
            return self.mirostat(all, mirostat);
        }
        typical(&mut all, f64::from(self.sampling.typical_p));
        nucleus(&mut all, f64::from(self.sampling.top_p));
        let least = f64::from(self.sampling.min_p);
        if least > 0.0 {
            softmax(&mut all, 1.0);
            let best = all[0].p;
            all.retain(|candidate| candidate.p >= least * best);
        }
        softmax(&mut all, f64::from(self.sampling.temperature));
        self.draw(&all).token
    }

    fn penalize(&self, logits: &mut [f32]) {
        let s = &self.sampling;
        for (token, bias) in &s.logit_bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        let mut counts: HashMap<u32, f32> = HashMap::new();
        self.recent.iter().for_each(|token| *counts.entry(*token).or_default() += 1.0);
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

    /// One of the candidates by their probabilities, which sum to 1.
    fn draw(&mut self, all: &[Candidate]) -> Candidate {
        let mut left = self.uniform();
        for candidate in all {
            left -= candidate.p;
            if left < 0.0 {
                return *candidate;
            }
        }
        all[0]
    }

    fn mirostat(&mut self, mut all: Vec<Candidate>, mirostat: Mirostat) -> u32 {
        softmax(&mut all, f64::from(self.sampling.temperature));
        let surprise = |p: f64| -ln(p.max(f64::MIN_POSITIVE)) * std::f64::consts::LOG2_E;
        let keep = all.iter().take_while(|candidate| surprise(candidate.p) <= self.mu).count().max(1);
        all.truncate(keep);
        let total: f64 = all.iter().map(|candidate| candidate.p).sum();
        all.iter_mut().for_each(|candidate| candidate.p /= total);
        let chosen = self.draw(&all);
        self.mu -= f64::from(mirostat.eta) * (surprise(chosen.p) - f64::from(mirostat.tau));
        chosen.token
    }
}

/// The first of the largest numbers; 0 if there is none.
fn largest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, logit) in (0u32..).zip(logits) {
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    best.0
}

/// Probabilities at a temperature; candidates are sorted.
fn softmax(all: &mut [Candidate], temperature: f64) {
    let max = f64::from(all[0].logit);
    for candidate in all.iter_mut() {
        // Infinite logits: the difference is 0 for the largest, not NaN.
        let x = f64::from(candidate.logit);
        candidate.p = if x == max { 1.0 } else { exp((x - max) / temperature) };
    }
    let total: f64 = all.iter().map(|candidate| candidate.p).sum();
    all.iter_mut().for_each(|candidate| candidate.p /= total);
}

/// Keeps the likeliest candidates until their probability reaches `p`.
fn nucleus(all: &mut Vec<Candidate>, p: f64) {
    if p >= 1.0 {
        return;
    }
    softmax(all, 1.0);
    let mut total = 0.0;
    let keep = all.iter().take_while(|candidate| {
        let more = total < p;
        total += candidate.p;
        more
    });
    let keep = keep.count().max(1);
    all.truncate(keep);
}

/// Keeps the candidates whose surprise is nearest to the expected one until their probability reaches `p`.
fn typical(all: &mut Vec<Candidate>, p: f64) {
    if p >= 1.0 {
        return;
    }
    softmax(all, 1.0);
    let surprise = |candidate: &Candidate| -ln(candidate.p.max(f64::MIN_POSITIVE));
    let entropy: f64 = all.iter().map(|candidate| candidate.p * surprise(candidate)).sum();
    let mut order: Vec<(f64, Candidate)> =
        all.iter().map(|candidate| ((surprise(candidate) - entropy).abs(), *candidate)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.token.cmp(&b.1.token)));
    let mut total = 0.0;
    let mut kept: Vec<Candidate> = Vec::new();
    for (_, candidate) in order {
        kept.push(candidate);
        total += candidate.p;
        if total >= p {
            break;
        }
    }
    kept.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token)));
    *all = kept;
}

/// Natural logarithms of the probabilities of `token` and of the `n` likeliest tokens. What is no number has none.
#[must_use]
pub fn logprobs(logits: &[f32], token: u32, n: usize) -> (f64, Vec<(u32, f64)>) {
    let numbers = || (0u32..).zip(logits.iter().copied()).filter(|(_, logit)| !logit.is_nan());
    let max = f64::from(numbers().map(|(_, logit)| logit).fold(f32::NEG_INFINITY, f32::max));
    // Infinite logits: the difference is 0 for the largest, not NaN.
    let less = |logit: f32| if f64::from(logit) == max { 0.0 } else { f64::from(logit) - max };
    let total = ln(numbers().map(|(_, logit)| exp(less(logit))).sum());
    let mut order: Vec<(u32, f32)> = numbers().collect();
    let by = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let n = n.min(order.len());
    if n > 0 {
        order.select_nth_unstable_by(n - 1, by);
    }
    order.truncate(n);
    order.sort_by(by);
    let own = logits.get(token as usize).filter(|logit| !logit.is_nan());
    let own = own.map_or(f64::NEG_INFINITY, |logit| less(*logit) - total);
    (own, order.into_iter().map(|(token, logit)| (token, less(logit) - total)).collect())
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [1.0, 3.0, 2.0, 3.0, -1.0, f32::NAN];

    fn drawn(sampling: &Sampling, n: u64) -> Vec<usize> {
        let mut counts = vec![0; LOGITS.len()];
        for seed in 0..n {
            let sampling = Sampling { seed, penalty_window: 0, ..sampling.clone() };
            counts[Sampler::new(sampling).sample(&LOGITS) as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(Sampler::new(Sampling::default()).sample(&LOGITS), 1);
        assert_eq!(Sampler::new(Sampling::default()).sample(&[f32::NAN, -1.0]), 1);
        assert_eq!(Sampler::new(Sampling { temperature: 1.0, ..Sampling::default() }).sample(&[f32::NAN]), 0);
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

    #[test]
    fn penalties_and_bias() {
        let mut sampler = Sampler::new(Sampling { presence_penalty: 1.5, ..Sampling::default() });
        let tokens: Vec<u32> = (0..4).map(|_| sampler.sample(&LOGITS)).collect();
        assert_eq!(tokens, [1, 3, 2, 1]);
        let mut sampler = Sampler::new(Sampling { repetition_penalty: 10.0, ..Sampling::default() });
        assert_eq!([sampler.sample(&LOGITS), sampler.sample(&LOGITS), sampler.sample(&LOGITS)], [1, 3, 2]);
        let mut sampler = Sampler::new(Sampling { frequency_penalty: 0.6, ..Sampling::default() });
        let tokens: Vec<u32> = (0..5).map(|_| sampler.sample(&LOGITS)).collect();
        assert_eq!(tokens, [1, 3, 1, 3, 2]);
        let logit_bias = vec![(4, 100.0), (99, 1.0)];
        assert_eq!(Sampler::new(Sampling { logit_bias, ..Sampling::default() }).sample(&LOGITS), 4);
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
            (0..50).map(|_| sampler.sample(&LOGITS)).collect::<Vec<_>>()
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
            let mut sampler = Sampler::new(sampling);
            seen.iter().for_each(|token| sampler.accept(*token));
            let mut logits = vec![2.0, -2.0, 1.0, 0.5];
            sampler.penalize(&mut logits);
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
        let surprise = match sampler.sample(&logits) {
            0 => 1.5f64.log2(),
            1 => 3f64.log2(),
            other => panic!("{other}"),
        };
        assert!((sampler.mu - (2.0 - 0.5 * (surprise - 1.0))).abs() < 1e-6, "{}", sampler.mu);
        // Below every surprise the likeliest is left, whose surprise is then 0.
        sampler.mu = 0.1;
        assert_eq!(sampler.sample(&logits), 0);
        assert!((sampler.mu - 0.6).abs() < 1e-6);
    }
}
