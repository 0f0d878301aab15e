//! Language models: decoder-only transformers of the Llama, Qwen, Gemma and Phi families.
//!
//! What: a GGUF directory or a Hugging Face folder becomes an [`Architecture`], then a [`Model`]; tokens go in, logits come out. Why: this is
//! what clients are served with. Flow: [`Architecture`] says how the layers are wired, [`Model::load`] reads and packs
//! the weights, [`Model::forward`] computes one batch of any sequences against a paged [`KvCache`]. Trust: the
//! file is a stranger's; each shape is compared with the description before it is used, and a file may at worst make
//! numbers that are infinite or NaN. Results are a function of the weights and the sequence's tokens alone, bit for bit.

pub(crate) mod architecture;
pub(crate) mod attention;
mod checkpoint;
mod constraint;
mod engine;
mod error;
mod forward;
pub(crate) mod kv_cache;
pub(crate) mod loader;
mod model;
mod model_file;
mod rope;
mod sampler;
mod stop;
mod trigonometry;

pub use architecture::{Activation, Architecture, Family, RopePairs, RopeScaling};
pub use constraint::{Constraint, Grammar, GrammarError, Grammars, MAX_GRAMMAR_LEN};
pub use engine::{Counts, Engine, EngineOptions, Event, Finish, Logprobs, Request, RequestId};
pub use error::ModelError;
pub use forward::{Step, Wanted};
pub use kv_cache::{KvCache, KvKind, Sequence};
pub use model::{Model, Options, Source};
pub use model_file::with_directory;
pub use sampler::{Mirostat, Sampler, Sampling, logprobs};
pub use stop::StopStrings;
