//! Answers that follow a grammar: a JSON schema, a regular expression, or a context-free grammar in Lark's notation.
//!
//! What: before each token, the tokens after which the grammar can still be fulfilled; all others get the logit minus
//! infinity. Why: a program that reads the answer wants no prose. Flow: [`Grammars`] knows the tokens' bytes and compiles
//! a grammar into a [`Constraint`], which one request carries. Trust: grammars are strangers'. Their size, the states of
//! their automata and the work for each token are bounded, and what exceeds a bound is an error, of compiling or of the
//! answer, not a wait.

use std::fmt;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

use crate::tokenizer::{TokenKind, Tokenizer};

/// Longest grammar, bytes.
pub const MAX_GRAMMAR_LEN: usize = 64 << 10;
/// States of a grammar's automata: one or two kilobytes each, as the crate says.
const MAX_LEXER_STATES: usize = 20_000;
/// Symbols of a grammar's rules.
const MAX_GRAMMAR_SIZE: usize = 100_000;

/// A logit that no penalty makes infinite.
const LEAST: f32 = -1e30;

/// What an answer shall be.
#[derive(Debug, Clone, Copy)]
pub enum Grammar<'text> {
    /// A JSON value that fulfils a schema.
    JsonSchema(&'text str),
    /// A text that a regular expression matches as a whole.
    Regex(&'text str),
    /// A text of the language of a grammar, Lark's notation, from the rule `start`.
    Lark(&'text str),
}

/// Why a grammar cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// Longer than [`MAX_GRAMMAR_LEN`].
    #[error("a grammar of {0} bytes, over the limit of {MAX_GRAMMAR_LEN}")]
    TooLong(usize),
    /// It is malformed, uses what is not supported, contradicts itself, or is too large. Cites the grammar.
    #[error("the grammar is refused: {0}")]
    Refused(String),
    /// The vocabulary has no token that ends an answer.
    #[error("the model has no token that ends an answer, so no grammar can be fulfilled")]
    Endless,
}

/// Compiles grammars for one vocabulary.
pub struct Grammars {
    factory: ParserFactory,
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grammars")
    }
}

impl Grammars {
    /// Sorts the tokens of a vocabulary, which takes a moment for a large one.
    ///
    /// # Errors
    /// [`GrammarError::Endless`]; [`GrammarError::Refused`] for vocabularies that cannot be sorted.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, GrammarError> {
        let vocabulary = tokenizer.vocabulary();
        let ends = vocabulary.end_of_turn();
        let (first, len) = (*ends.first().ok_or(GrammarError::Endless)?, vocabulary.len());
        let len = u32::try_from(len).map_err(|_| GrammarError::Refused("too many tokens".into()))?;
        let words: Vec<Vec<u8>> = (0..len)
            .map(|token| match vocabulary.kind(token) {
                TokenKind::Normal | TokenKind::UserDefined | TokenKind::Byte => {
                    tokenizer.token_bytes(token, false)
                }
                // Meant, not written: no grammar of bytes reaches them.
                TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => Vec::new(),
            })
            .collect();
        let trie = TokTrie::from(&TokRxInfo::new(len, first), &words).with_eos_tokens(ends);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| GrammarError::Refused(error.to_string()))?;
        // Its log would hold what clients wrote.
        factory.quiet();
        let limits = factory.limits_mut();
        limits.max_lexer_states = MAX_LEXER_STATES;
        limits.max_grammar_size = MAX_GRAMMAR_SIZE;
        limits.verbose_errors = false;
        Ok(Self { factory })
    }

    /// Compiles a grammar.
    ///
    /// # Errors
    /// [`GrammarError::TooLong`] and [`GrammarError::Refused`].
    pub fn compile(&self, grammar: Grammar<'_>) -> Result<Constraint, GrammarError> {
        let (tag, text) = match grammar {
            Grammar::JsonSchema(text) => ("json_schema", text),
            Grammar::Regex(text) => ("regex", text),
            Grammar::Lark(text) => ("lark", text),
        };
        if text.len() > MAX_GRAMMAR_LEN {
            return Err(GrammarError::TooLong(text.len()));
        }
        let refused = |error: &dyn fmt::Display| GrammarError::Refused(error.to_string());
        let grammar = TopLevelGrammar::from_tagged_str(tag, text).map_err(|error| refused(&error))?;
        // A matcher catches the panics of the parser, from the first step on.
        let mut matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(error) => Err(refused(&error)),
            None if matcher.compute_mask_or_eos().is_err() => {
                Err(refused(&matcher.get_error().unwrap_or_default()))
            }
            None => Ok(Constraint(Box::new(matcher))),
        }
    }
}

/// A grammar and how far an answer has come in it.
pub struct Constraint(Box<Matcher>);

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Constraint")
    }
}

impl Clone for Constraint {
    fn clone(&self) -> Self {
        Self(Box::new(self.0.deep_clone()))
    }
}

impl Constraint {
    /// Leaves logits only to tokens that may come next, and at least one. `None` if the grammar exceeds its limits here.
    #[must_use]
    pub fn allow(&mut self, logits: &mut [f32]) -> Option<()> {
        let allowed = self.0.compute_mask_or_eos().ok()?;
        let mut any = false;
        for (token, logit) in logits.iter_mut().enumerate() {
            if token < allowed.len() && allowed.get(token) {
                any = true;
                // Also what is infinitely unlikely or no number may be the only token left.
                *logit = if *logit > LEAST { *logit } else { LEAST };
            } else {
                *logit = f32::NEG_INFINITY;
            }
        }
        any.then_some(())
    }

    /// Goes on by a token that was allowed. `None` if it was not.
    #[must_use]
    pub fn accept(&mut self, token: u32) -> Option<()> {
        if self.0.is_stopped() {
            // Only the end is left, and the parser has reached it already.
            let ends = self.0.compute_mask_or_eos().ok()?;
            return ((token as usize) < ends.len() && ends.get(token as usize)).then_some(());
        }
        self.0.consume_token(token).ok()
    }
}
