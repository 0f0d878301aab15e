//! Many requests on one model: continuous batching, chunked prefill, prefix reuse, speculation by lookup.
//!
//! Each [`Engine::step`] computes one batch: the next token of every request that is generating, and at most
//! [`EngineOptions::chunk`] tokens of prompts. A request's tokens are what they would be alone: batches do not change
//! bits, and guessed tokens count only where the model's own choice is the same. Keys and values are reused only within
//! one tenant, so that nobody learns from timing what another asked.

use std::collections::VecDeque;
use std::fmt;

use zeroize::Zeroizing;

use super::{
    Constraint, KvCache, KvKind, Model, ModelError, Sampler, Sampling, Sequence, Step, Wanted, logprobs,
};

/// Limits of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// How keys and values are held.
    pub kv: KvKind,
    /// Positions of all requests together.
    pub positions: usize,
    /// Prompt tokens computed in one step, at most.
    pub chunk: usize,
    /// Requests that run together, at most.
    pub running: usize,
    /// Tokens guessed from the text so far and verified together with the next one; 0: none. Fewer where many requests
    /// run, and none for a while after wrong ones: then verifying costs more than it saves.
    pub guesses: usize,
    /// Ended conversations whose keys and values are kept for their tenant's next request.
    pub kept: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { kv: KvKind::F16, positions: 1 << 14, chunk: 256, running: 16, guesses: 4, kept: 8 }
    }
}

/// What is asked of an engine. `Debug` tells how much that is, never what.
#[derive(Clone)]
pub struct Request {
    /// Whose request it is. Only requests of one tenant share computed prefixes.
    pub tenant: u64,
    /// Tokens of the prompt.
    pub prompt: Zeroizing<Vec<u32>>,
    /// Tokens to generate, at most.
    pub max_tokens: usize,
    /// Tokens that end the answer.
    pub stop_tokens: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// For each token of the answer: its probability and those of so many of the likeliest.
    pub logprobs: Option<usize>,
    /// What the answer has to follow.
    pub constraint: Option<Constraint>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} tokens, {} more at most)", self.prompt.len(), self.max_tokens)
    }
}

impl Request {
    /// Whether of a token's logits only the largest counts.
    fn takes_largest(&self) -> bool {
        self.sampling.takes_largest() && self.logprobs.is_none() && self.constraint.is_none()
    }
}

/// Number of a request within its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u64);

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// A stop token; it is not part of the answer.
    Stop,
    /// `max_tokens`.
    Length,
    /// The end of the context: the conversation has to be shortened to go on. Nothing is ever dropped from its beginning,
    /// which would change what the model was asked.
    Context,
    /// The grammar exceeded its limits in the middle of the answer.
    Grammar,
}

/// How likely tokens were, natural logarithms of the model's own probabilities, before any penalty or truncation. `Debug`
/// tells how many there are, never which.
#[derive(Clone, PartialEq)]
pub struct Logprobs {
    /// Of the token chosen.
    pub chosen: f64,
    /// The likeliest tokens, best first.
    pub top: Vec<(u32, f64)>,
}

impl fmt::Debug for Logprobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Logprobs({} tokens)", self.top.len())
    }
}

/// What a step brought. `Debug` tells of whom a token is, never which.
#[derive(Clone, PartialEq)]
pub enum Event {
    /// The next token of an answer, and how likely it was where the request wants to know.
    Token(RequestId, u32, Option<Logprobs>),
    /// The answer is complete.
    Finished(RequestId, Finish),
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(id, _, logprobs) => write!(f, "Token({id:?}, {logprobs:?})"),
            Self::Finished(id, finish) => write!(f, "Finished({id:?}, {finish:?})"),
        }
    }
}

struct Running {
    id: RequestId,
    request: Request,
    sampler: Sampler,
    sequence: Sequence,
    /// Prompt and answer, in memory for all it may become. The first `sequence.len()` are computed.
    tokens: Zeroizing<Vec<u32>>,
    generated: usize,
    /// Positions it may need in all.
    needs: usize,
    patience: Patience,
}

/// What is to be chosen for one request behind a batch.
struct Turn<'a> {
    /// Of the request.
    index: usize,
    running: &'a mut Running,
    /// Whether tokens behind the first of `inputs` were guessed.
    guessed: bool,
    /// Logits behind each of `inputs`.
    rows: Vec<&'a [f32]>,
    inputs: &'a [u32],
    /// What was chosen.
    events: Vec<Event>,
    finish: Option<Finish>,
}

/// Whether guessing pays for a request: after a wrong guess none is made for a while, twice as long each time.
#[derive(Debug, Default)]
struct Patience {
    wait: usize,
    pause: usize,
}

impl Patience {
    /// How many of `n` tokens to guess now.
    fn allow(&mut self, n: usize) -> usize {
        let waiting = self.wait > 0;
        self.wait = self.wait.saturating_sub(1);
        if waiting { 0 } else { n }
    }

    fn learn(&mut self, right: bool) {
        self.pause = if right { 0 } else { (2 * self.pause).clamp(1, LONGEST_PAUSE) };
        self.wait = self.pause;
    }
}

/// What an engine did since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Batches.
    pub steps: u64,
    /// Tokens computed, wrongly guessed ones included.
    pub computed: u64,
    /// Tokens of prompts that were taken from an earlier request of the same tenant.
    pub reused: u64,
    /// Tokens guessed.
    pub guessed: u64,
    /// Guessed tokens that were right: each saved its request a step.
    pub right: u64,
}

/// Keys and values of an ended conversation.
struct Kept {
    tenant: u64,
    tokens: Zeroizing<Vec<u32>>,
    sequence: Sequence,
}

/// A model with its requests. `Debug` tells how many, never what they are.
pub struct Engine {
    model: Model,
    cache: KvCache,
    options: EngineOptions,
    waiting: VecDeque<(RequestId, Request)>,
    running: Vec<Running>,
    kept: VecDeque<Kept>,
    next: u64,
    counts: Counts,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (waiting, running) = (self.waiting.len(), self.running.len());
        write!(f, "Engine({:?}, {waiting} requests wait, {running} run, {:?})", self.model, self.counts)
    }
}

/// The shortest run of tokens that is looked up, tokens.
const LOOKUP: usize = 3;
/// Tokens of generating requests in one batch, guesses included, up to which more of them cost little: where it was
/// measured, 5 took 1.2 times the time of one, and 8 took 1.3 to 1.4 times.
const GUESS_COLUMNS: usize = 8;
/// Tokens without a guess after many wrong ones.
const LONGEST_PAUSE: usize = 32;

impl Engine {
    /// An engine without requests.
    #[must_use]
    pub fn new(model: Model, options: EngineOptions) -> Self {
        let cache = model.cache(options.kv, options.positions);
        Self {
            model,
            cache,
            options,
            waiting: VecDeque::new(),
            running: Vec::new(),
            kept: VecDeque::new(),
            next: 0,
            counts: Counts::default(),
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Takes a request.
    ///
    /// # Errors
    /// [`ModelError::Token`], [`ModelError::EmptyPrompt`], or [`ModelError::ContextFull`] if the prompt alone leaves no
    /// room for an answer.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, ModelError> {
        let a = self.model.architecture();
        let seq_len = a.seq_len.min(self.options.positions);
        if request.prompt.is_empty() {
            return Err(ModelError::EmptyPrompt);
        }
        if request.prompt.len() >= seq_len {
            return Err(ModelError::ContextFull { len: request.prompt.len() + 1, seq_len });
        }
        if let Some(token) = request.prompt.iter().find(|token| **token as usize >= a.vocab_size) {
            return Err(ModelError::Token { token: *token, vocab_size: a.vocab_size });
        }
        let id = RequestId(self.next);
        self.next += 1;
        self.waiting.push_back((id, request));
        Ok(id)
    }

    /// Ends a request without an event, such as when its client has gone.
    pub fn cancel(&mut self, id: RequestId) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        if let Some(index) = self.running.iter().position(|running| running.id == id) {
            let running = self.running.remove(index);
            self.keep(running);
        }
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Ends a tenant's requests without an event, and forgets everything kept for it.
    pub fn forget(&mut self, tenant: u64) {
        self.waiting.retain(|(_, request)| request.tenant != tenant);
        for running in self.running.extract_if(.., |running| running.request.tenant == tenant) {
            self.cache.release(running.sequence);
        }
        for kept in std::mem::take(&mut self.kept) {
            if kept.tenant == tenant {
                self.cache.release(kept.sequence);
            } else {
                self.kept.push_back(kept);
            }
        }
    }

    /// Computes one batch.
    ///
    /// # Errors
    /// Those of [`Model::forward`], which requests that were taken do not cause.
    pub fn step(&mut self) -> Result<Vec<Event>, ModelError> {
        self.admit();
        let mut budget = self.options.chunk.max(1);
        // Each generating request has a column of its own; what is left of those that cost little is for guesses.
        let generating = self.running.iter().filter(|running| running.pending() == 1).count();
        let mut guesses = GUESS_COLUMNS.saturating_sub(generating);
        let mut planned: Vec<(usize, Vec<u32>, Wanted)> = Vec::new();
        for (index, running) in self.running.iter_mut().enumerate() {
            let done = running.sequence.len();
            let room = running.needs.saturating_sub(running.tokens.len()).min(self.options.guesses);
            let left = &running.tokens[done..];
            if left.len() == 1 {
                let guessed = lookup(&running.tokens, running.patience.allow(room.min(guesses)));
                guesses -= guessed.len();
                self.counts.guessed += guessed.len() as u64;
                let wanted = if guessed.is_empty() { Wanted::Last } else { Wanted::All };
                planned.push((index, [left, &guessed].concat(), wanted));
            } else {
                let count = left.len().min(budget);
                budget -= count;
                if count > 0 {
                    let wanted = if count == left.len() { Wanted::Last } else { Wanted::Nothing };
                    planned.push((index, left[..count].to_vec(), wanted));
                }
            }
        }
        let largest = planned.iter().all(|(index, ..)| self.running[*index].request.takes_largest());
        let mut steps = Vec::new();
        let mut plan = planned.iter().peekable();
        for (index, running) in self.running.iter_mut().enumerate() {
            if let Some((_, tokens, wanted)) = plan.next_if(|(planned, ..)| *planned == index) {
                steps.push(Step { sequence: &mut running.sequence, tokens, wanted: *wanted });
            }
        }
        let logits = match largest {
            true => self.model.forward_largest(&mut self.cache, &mut steps)?,
            false => self.model.forward(&mut self.cache, &mut steps)?,
        };
        self.counts.steps += 1;
        self.counts.computed += planned.iter().map(|(_, tokens, _)| tokens.len() as u64).sum::<u64>();
        let mut rows = logits.chunks_exact(self.model.architecture().vocab_size);
        let mut turns = Vec::new();
        let mut plan = planned.iter().peekable();
        for (index, running) in self.running.iter_mut().enumerate() {
            if let Some((_, tokens, wanted)) = plan.next_if(|(planned, ..)| *planned == index) {
                let count = match wanted {
                    Wanted::Nothing => 0,
                    Wanted::Last => 1,
                    Wanted::All => tokens.len(),
                };
                let guessed = *wanted == Wanted::All;
                let (rows, inputs) = (rows.by_ref().take(count).collect(), &tokens[tokens.len() - count..]);
                turns.push(Turn { index, guessed, running, rows, inputs, events: Vec::new(), finish: None });
            }
        }
        // A draw looks at all logits of a sequence: of many, that is worth more than one thread.
        self.model.pool.chunks_mut(&mut turns, 1, |_, turn| {
            let Turn { running, rows, inputs, events, finish, .. } = &mut turn[0];
            *finish = running.take(rows, inputs, events);
        });
        let mut events = Vec::new();
        let mut ended = Vec::new();
        for turn in turns {
            let Turn { index, guessed, running, rows, events: chosen, finish, .. } = turn;
            if guessed {
                // The first token behind them was not guessed.
                let right = chosen.len().saturating_sub(1);
                running.patience.learn(right > 0);
                self.counts.right += right as u64;
            }
            // What was guessed wrongly is forgotten; the last token is not computed yet.
            let computed = running.tokens.len().saturating_sub(1);
            if !rows.is_empty() {
                self.cache.truncate(&mut running.sequence, computed);
            }
            events.extend(chosen);
            if let Some(finish) = finish {
                events.push(Event::Finished(running.id, finish));
                ended.push(index);
            }
        }
        for index in ended.into_iter().rev() {
            let running = self.running.remove(index);
            self.keep(running);
        }
        Ok(events)
    }

    /// Starts waiting requests while there is room for all they may need.
    fn admit(&mut self) {
        while self.running.len() < self.options.running {
            let Some((_, request)) = self.waiting.front() else { return };
            let seq_len = self.model.architecture().seq_len.min(self.options.positions);
            let needs = request.prompt.len().saturating_add(request.max_tokens).min(seq_len);
            // Whole pages, and one more for each that a guess may touch.
            let pages = |positions: usize| positions.next_multiple_of(16) + 16;
            let used: usize = self.running.iter().map(|running| pages(running.needs)).sum();
            if used + pages(needs) > self.options.positions && !self.running.is_empty() {
                return;
            }
            let Some((id, request)) = self.waiting.pop_front() else { return };
            let (sequence, reused) = self.reuse(&request);
            let room = self.options.positions.saturating_sub(used + pages(needs));
            self.shrink_kept(room);
            let sampler = Sampler::new(request.sampling.clone());
            let mut tokens = Zeroizing::new(Vec::with_capacity(needs));
            tokens.extend_from_slice(&request.prompt);
            debug_assert!(reused < tokens.len());
            self.counts.reused += reused as u64;
            let patience = Patience::default();
            self.running.push(Running {
                id,
                request,
                sampler,
                sequence,
                tokens,
                generated: 0,
                needs,
                patience,
            });
        }
    }

    /// The kept conversation of the same tenant that begins most like the prompt.
    fn reuse(&mut self, request: &Request) -> (Sequence, usize) {
        let common = |kept: &Kept| {
            // The last token is computed anew: its logits are needed.
            let most = kept.sequence.len().min(request.prompt.len() - 1);
            kept.tokens.iter().zip(request.prompt.iter()).take(most).take_while(|(a, b)| a == b).count()
        };
        let best = (0..self.kept.len())
            .filter(|index| self.kept[*index].tenant == request.tenant)
            .max_by_key(|index| common(&self.kept[*index]))
            .filter(|index| common(&self.kept[*index]) > 0);
        let Some(mut kept) = best.and_then(|index| self.kept.remove(index)) else {
            return (Sequence::default(), 0);
        };
        let common = common(&kept);
        self.cache.truncate(&mut kept.sequence, common);
        (kept.sequence, common)
    }

    fn keep(&mut self, running: Running) {
        let Running { request, sequence, tokens, .. } = running;
        self.kept.push_back(Kept { tenant: request.tenant, tokens, sequence });
        while self.kept.len() > self.options.kept {
            if let Some(kept) = self.kept.pop_front() {
                self.cache.release(kept.sequence);
            }
        }
    }

    /// Releases kept conversations, oldest first, until they hold at most `positions`.
    fn shrink_kept(&mut self, positions: usize) {
        let pages = |kept: &Kept| kept.sequence.len().next_multiple_of(16);
        while self.kept.iter().map(pages).sum::<usize>() > positions {
            if let Some(kept) = self.kept.pop_front() {
                self.cache.release(kept.sequence);
            }
        }
    }
}

impl Running {
    /// Tokens that are not computed yet.
    fn pending(&self) -> usize {
        self.tokens.len() - self.sequence.len()
    }

    /// Chooses tokens from the logits behind each of `inputs`, the last computed token and the guesses after it, as long
    /// as the guesses are right. Returns why the answer ended, if it did.
    fn take(&mut self, rows: &[&[f32]], inputs: &[u32], events: &mut Vec<Event>) -> Option<Finish> {
        for (i, row) in rows.iter().enumerate() {
            if self.generated >= self.request.max_tokens {
                return Some(Finish::Length);
            }
            let Some(token) = self.choose(row) else { return Some(Finish::Grammar) };
            if self.request.stop_tokens.contains(&token) {
                return Some(Finish::Stop);
            }
            self.tokens.push(token);
            self.generated += 1;
            let likely = self.request.logprobs.map(|n| {
                let (chosen, top) = logprobs(row, token, n);
                Logprobs { chosen, top }
            });
            events.push(Event::Token(self.id, token, likely));
            if self.generated >= self.request.max_tokens {
                return Some(Finish::Length);
            }
            if self.tokens.len() >= self.needs {
                return Some(Finish::Context);
            }
            if inputs.get(i + 1) != Some(&token) {
                return None;
            }
        }
        None
    }

    /// The next token, one that the grammar allows.
    fn choose(&mut self, row: &[f32]) -> Option<u32> {
        let Some(constraint) = &mut self.request.constraint else {
            return Some(self.sampler.sample(row, &self.tokens));
        };
        let mut row = row.to_vec();
        constraint.allow(&mut row)?;
        let token = self.sampler.sample(&row, &self.tokens);
        constraint.accept(token)?;
        Some(token)
    }
}

/// Up to `n` tokens that followed the last earlier occurrence of the last few tokens.
fn lookup(tokens: &[u32], n: usize) -> Vec<u32> {
    let Some(start) = tokens.len().checked_sub(LOOKUP).filter(|_| n > 0) else { return Vec::new() };
    let last = &tokens[start..];
    let found = tokens[..tokens.len() - 1].windows(LOOKUP).rposition(|window| window == last);
    found.map_or_else(Vec::new, |at| tokens[at + LOOKUP..].iter().copied().take(n).collect())
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn lookup_continues_the_last_occurrence() {
        assert_eq!(lookup(&[1, 2, 3, 4, 5, 1, 2, 3], 2), [4, 5]);
        assert_eq!(lookup(&[1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3], 4), [8, 1, 2, 3]);
        assert_eq!(lookup(&[7, 7, 7, 7], 4), [7]);
        assert_eq!(lookup(&[1, 2, 3, 4], 4), [0; 0]);
        assert_eq!(lookup(&[1, 2], 4), [0; 0]);
        assert_eq!(lookup(&[1, 2, 3, 4, 1, 2, 3], 0), [0; 0]);
    }
}
