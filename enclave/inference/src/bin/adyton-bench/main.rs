//! Speed, logits and tokens of models from the command line; JSON on stdout.
//!
//! This program is for measuring and comparing. It reads model files as they are and is no part of the enclave.
#![allow(clippy::disallowed_methods, reason = "a program: it reads files and the clock")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its answer is printed")]

mod arrive;
mod embed;
mod file;
mod folder;
mod limits;
mod logits;
mod speed;

use std::path::PathBuf;
use std::process::ExitCode;

use adyton_inference::arch::Path;
use adyton_inference::lm::{KvKind, Options};
use clap::{Args, Parser, Subcommand};

type AnyError = Box<dyn std::error::Error>;

/// Measures the inference core.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

/// Which model and how to run it.
#[derive(Args, Clone)]
struct Run {
    /// GGUF file, or Hugging Face folder with config.json, tokenizer.json and safetensors.
    #[arg(short, long)]
    model: PathBuf,
    #[command(flatten)]
    machine: Machine,
    /// Keys and values: f16, f32 or q8.
    #[arg(long)]
    kv: Option<KvKind>,
    /// Of models with other rotations for long texts than for short ones (Phi-3), those for long texts.
    #[arg(long)]
    long_context: bool,
}

impl Run {
    fn options(&self) -> Result<Options, AnyError> {
        Ok(Options { long_context: self.long_context, ..self.machine.options()? })
    }
}

/// What of the machine is used.
#[derive(Args, Clone)]
struct Machine {
    /// Threads that compute.
    #[arg(short, long, default_value_t = 2)]
    threads: usize,
    /// Kernel path: scalar, avx2, avx512-vnni, amx-int8; the fastest of this CPU where absent.
    #[arg(long)]
    kernels: Option<String>,
}

#[derive(Subcommand)]
enum Verb {
    /// Prompt processing and generation, tokens a second.
    Speed {
        #[command(flatten)]
        run: Run,
        /// Tokens of a prompt; 0 leaves the test out.
        #[arg(short = 'p', default_value_t = 512)]
        n_prompt: usize,
        /// Tokens generated for each sequence; 0 leaves the test out.
        #[arg(short = 'n', default_value_t = 128)]
        n_gen: usize,
        /// Sequences that generate together.
        #[arg(short = 's', default_value_t = 1)]
        n_sequences: usize,
        /// Repetitions.
        #[arg(short = 'r', default_value_t = 5)]
        repetitions: usize,
        /// Of each token only what its largest logit needs, as where the likeliest token is always taken.
        #[arg(long)]
        greedy: bool,
    },
    /// How long requests that arrive together wait for their first tokens.
    Arrive {
        #[command(flatten)]
        run: Run,
        /// Tokens of each prompt.
        #[arg(short = 'p', default_value_t = 64)]
        n_prompt: usize,
        /// Tokens generated for each.
        #[arg(short = 'n', default_value_t = 16)]
        n_gen: usize,
        /// Requests.
        #[arg(short = 's', default_value_t = 16)]
        n_sequences: usize,
        /// Repetitions.
        #[arg(short = 'r', default_value_t = 3)]
        repetitions: usize,
    },
    /// Logits of the last token, and a greedy continuation.
    Logits {
        #[command(flatten)]
        run: Run,
        /// Token ids of the prompt.
        #[arg(long, value_delimiter = ',', required = true)]
        tokens: Vec<u32>,
        /// Tokens to continue with.
        #[arg(long, default_value_t = 0)]
        greedy: usize,
    },
    /// Token ids of a text file.
    Tokenize {
        /// GGUF file, or folder with tokenizer.json.
        #[arg(short, long)]
        model: PathBuf,
        /// The text, UTF-8.
        #[arg(long)]
        text_file: PathBuf,
        /// Add the tokens around a text, and turn the text of control tokens into these tokens.
        #[arg(long)]
        special: bool,
    },
    /// Vectors of texts.
    Embed {
        #[command(flatten)]
        run: Run,
        /// JSON array of texts.
        #[arg(long)]
        json_file: PathBuf,
        /// Answer with the time of so many repetitions instead of vectors.
        #[arg(short = 'r', default_value_t = 0)]
        repetitions: usize,
    },
    /// Read bandwidth, f32 and int8 peaks of this machine.
    Limits {
        #[command(flatten)]
        machine: Machine,
        /// Repetitions.
        #[arg(short = 'r', default_value_t = 5)]
        repetitions: usize,
    },
}

impl Machine {
    fn path(&self) -> Result<Path, AnyError> {
        let Some(name) = &self.kernels else { return Ok(Path::best()) };
        let path = Path::available().into_iter().find(|path| path.to_string() == *name);
        path.ok_or_else(|| format!("this CPU has no kernel path `{name}`").into())
    }

    fn options(&self) -> Result<Options, AnyError> {
        Ok(Options { path: self.path()?, ..Options::new(self.threads) })
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Speed { run, n_prompt, n_gen, n_sequences, repetitions, greedy } => {
            speed::speed(&run, (n_prompt, n_gen, n_sequences.max(1)), repetitions.max(1), greedy)
        }
        Verb::Arrive { run, n_prompt, n_gen, n_sequences, repetitions } => {
            arrive::arrive(&run, n_prompt.max(1), n_gen.max(1), n_sequences.max(1), repetitions.max(1))
        }
        Verb::Logits { run, tokens, greedy } => logits::logits(&run, &tokens, greedy),
        Verb::Tokenize { model, text_file, special } => logits::tokenize(&model, &text_file, special),
        Verb::Embed { run, json_file, repetitions } => embed::embed(&run, &json_file, repetitions),
        Verb::Limits { machine, repetitions } => limits::limits(&machine, repetitions.max(1)),
    };
    match result {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("adyton-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
