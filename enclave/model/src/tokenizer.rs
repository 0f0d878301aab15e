//! `tokenizer.json` as Hugging Face folders hold it: vocabulary, normalisation, splitting, and what stands around texts.
//!
//! What: the file as plain data, for vocabularies of BPE, unigram and WordPiece. Why: models in safetensors come with it
//! and with nothing else. Flow: the file's bytes go in; tokens by id and an ordered list of steps come out. Trust: nothing
//! is believed; ids are below a cap and below a small multiple of what the file names, and steps nobody here knows are
//! errors, since leaving one out would give other tokens.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Most tokens taken; the largest vocabularies have some 260 000.
pub const MAX_TOKENS: usize = 1 << 20;
/// Most steps of normalisation or splitting.
const MAX_STEPS: usize = 64;

/// Why a `tokenizer.json` was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerFileError {
    /// Not the JSON that was expected, or a step of a kind nobody here knows.
    #[error("tokenizer.json: {0}")]
    Json(#[from] serde_json::Error),
    /// Ids that stand twice, are too high or name nothing; too many steps.
    #[error("tokenizer.json: {0}")]
    Inconsistent(String),
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRole {
    /// Found by the model.
    Normal,
    /// Added, and looked for in every text.
    Added,
    /// Added and special: part of the conversation's form, not of texts.
    Special,
}

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub struct FileToken {
    /// Its text.
    pub text: String,
    /// What it is.
    pub role: TokenRole,
    /// Takes the whitespace before it.
    pub strips_left: bool,
    /// Takes the whitespace after it.
    pub strips_right: bool,
}

/// The algorithm that makes tokens of words.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenModel {
    /// Pairs are merged in order of the list.
    Bpe {
        /// Pairs, best first.
        merges: Vec<(String, String)>,
        /// Unknown letters become their bytes.
        byte_fallback: bool,
        /// Words that are tokens are taken whole.
        ignore_merges: bool,
        /// The unknown token's text.
        unknown: Option<String>,
    },
    /// The likeliest cut into tokens.
    Unigram {
        /// Logarithms of probabilities by id.
        scores: Vec<f64>,
        /// The unknown token.
        unknown: Option<u32>,
        /// Unknown letters become their bytes.
        byte_fallback: bool,
    },
    /// The longest known pieces from the left.
    WordPiece {
        /// The unknown token's text.
        unknown: String,
    },
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub enum Pattern {
    /// This very text.
    String(String),
    /// A regular expression.
    Regex(String),
}

/// One step of normalisation. The names are the file's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type")]
#[expect(missing_docs, reason = "the file's own names")]
pub enum Normalizer {
    Sequence {
        normalizers: Vec<Normalizer>,
    },
    Precompiled {
        precompiled_charsmap: Option<String>,
    },
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(rename = "NFD")]
    Nfd,
    #[serde(rename = "NFKC")]
    Nfkc,
    #[serde(rename = "NFKD")]
    Nfkd,
    Lowercase,
    StripAccents,
    Strip {
        strip_left: bool,
        strip_right: bool,
    },
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    BertNormalizer {
        #[serde(default = "yes")]
        clean_text: bool,
        #[serde(default = "yes")]
        handle_chinese_chars: bool,
        /// Where absent, as `lowercase`.
        strip_accents: Option<bool>,
        #[serde(default = "yes")]
        lowercase: bool,
    },
}

/// What becomes of the matches of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the file's own names")]
pub enum Behavior {
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// When a text gets a space in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the file's own names")]
pub enum PrependScheme {
    #[default]
    Always,
    First,
    Never,
}

/// One step of splitting. The names are the file's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type")]
#[expect(missing_docs, reason = "the file's own names")]
pub enum PreTokenizer {
    Sequence {
        pretokenizers: Vec<PreTokenizer>,
    },
    WhitespaceSplit,
    Metaspace {
        replacement: char,
        #[serde(default)]
        prepend_scheme: PrependScheme,
        /// Of older files, instead of the scheme.
        add_prefix_space: Option<bool>,
        split: Option<bool>,
    },
    Split {
        pattern: Pattern,
        behavior: Behavior,
        #[serde(default)]
        invert: bool,
    },
    Digits {
        #[serde(default)]
        individual_digits: bool,
    },
    ByteLevel {
        #[serde(default)]
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    BertPreTokenizer,
}

fn yes() -> bool {
    true
}

/// Part of what a text or a pair of texts becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A token and its segment.
    Token(u32, u32),
    /// The first text and its segment.
    First(u32),
    /// The second text and its segment.
    Second(u32),
}

/// A whole `tokenizer.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizerFile {
    /// Tokens by id; `None` where the file names nothing.
    pub tokens: Vec<Option<FileToken>>,
    /// The algorithm.
    pub model: TokenModel,
    /// Steps on the text, in order.
    pub normalizers: Vec<Normalizer>,
    /// Steps that cut it, in order.
    pub pre_tokenizers: Vec<PreTokenizer>,
    /// What a text becomes.
    pub single: Vec<Part>,
    /// What a pair of texts becomes.
    pub pair: Vec<Part>,
}

#[derive(Deserialize)]
struct FileJson {
    model: ModelJson,
    #[serde(default)]
    normalizer: Option<Normalizer>,
    #[serde(default)]
    pre_tokenizer: Option<PreTokenizer>,
    #[serde(default)]
    post_processor: Option<PostJson>,
    #[serde(default)]
    added_tokens: Vec<AddedJson>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum ModelJson {
    #[serde(rename = "BPE")]
    Bpe {
        vocab: BTreeMap<String, u32>,
        merges: Vec<MergeJson>,
        #[serde(default)]
        byte_fallback: bool,
        #[serde(default)]
        ignore_merges: bool,
        #[serde(default)]
        unk_token: Option<String>,
        continuing_subword_prefix: Option<String>,
        end_of_word_suffix: Option<String>,
    },
    Unigram {
        vocab: Vec<(String, f64)>,
        unk_id: Option<u32>,
        #[serde(default)]
        byte_fallback: bool,
    },
    WordPiece {
        vocab: BTreeMap<String, u32>,
        #[serde(default)]
        unk_token: String,
        continuing_subword_prefix: Option<String>,
        max_input_chars_per_word: Option<u64>,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MergeJson {
    Joined(String),
    Pair(String, String),
}

#[derive(Deserialize)]
struct AddedJson {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PostJson {
    Sequence {
        processors: Vec<PostJson>,
    },
    ByteLevel {},
    TemplateProcessing {
        single: Vec<PieceJson>,
        pair: Vec<PieceJson>,
        special_tokens: BTreeMap<String, SpecialJson>,
    },
    BertProcessing {
        sep: (String, u32),
        cls: (String, u32),
    },
    RobertaProcessing {
        sep: (String, u32),
        cls: (String, u32),
    },
}

#[derive(Deserialize)]
enum PieceJson {
    Sequence {
        id: SequenceJson,
        #[serde(default)]
        type_id: u32,
    },
    SpecialToken {
        id: String,
        #[serde(default)]
        type_id: u32,
    },
}

#[derive(Deserialize)]
enum SequenceJson {
    A,
    B,
}

#[derive(Deserialize)]
struct SpecialJson {
    ids: Vec<u32>,
}

fn inconsistent(what: impl Into<String>) -> TokenizerFileError {
    TokenizerFileError::Inconsistent(what.into())
}

impl TokenizerFile {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerFileError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerFileError> {
        let json: FileJson = serde_json::from_slice(bytes)?;
        let mut tokens = Vec::new();
        let model = match json.model {
            ModelJson::Bpe {
                vocab,
                merges,
                byte_fallback,
                ignore_merges,
                unk_token,
                continuing_subword_prefix,
                end_of_word_suffix,
            } => {
                let marks = [continuing_subword_prefix, end_of_word_suffix];
                if marks.into_iter().flatten().any(|mark| !mark.is_empty()) {
                    return Err(inconsistent("BPE is read without marks at the ends of words"));
                }
                place(&mut tokens, vocab, json.added_tokens.len())?;
                let pair = |merge: MergeJson| match merge {
                    MergeJson::Pair(a, b) => Ok((a, b)),
                    MergeJson::Joined(text) => text
                        .split_once(' ')
                        .map(|(a, b)| (a.to_owned(), b.to_owned()))
                        .ok_or_else(|| inconsistent("a merge without two symbols")),
                };
                let merges = merges.into_iter().map(pair).collect::<Result<_, _>>()?;
                TokenModel::Bpe { merges, byte_fallback, ignore_merges, unknown: unk_token }
            }
            ModelJson::Unigram { vocab, unk_id, byte_fallback } => {
                if vocab.len() > MAX_TOKENS {
                    return Err(inconsistent("more tokens than any model has"));
                }
                if unk_id.is_some_and(|id| id as usize >= vocab.len()) {
                    return Err(inconsistent("the unknown token is not in the vocabulary"));
                }
                let mut scores = Vec::with_capacity(vocab.len());
                for (text, score) in vocab {
                    if !score.is_finite() {
                        return Err(inconsistent("a score that is no number"));
                    }
                    scores.push(score);
                    tokens.push(Some(normal(text)));
                }
                TokenModel::Unigram { scores, unknown: unk_id, byte_fallback }
            }
            ModelJson::WordPiece {
                vocab,
                unk_token,
                continuing_subword_prefix,
                max_input_chars_per_word,
            } => {
                let usual = continuing_subword_prefix.is_none_or(|prefix| prefix == "##")
                    && max_input_chars_per_word.is_none_or(|most| most == 100);
                if !usual {
                    return Err(inconsistent(
                        "WordPiece is read with the prefix ## and words of 100 characters",
                    ));
                }
                place(&mut tokens, vocab, json.added_tokens.len())?;
                TokenModel::WordPiece { unknown: unk_token }
            }
        };
        add(&mut tokens, json.added_tokens)?;
        if tokens.is_empty() {
            return Err(inconsistent("no tokens"));
        }
        let (single, pair) = parts(json.post_processor)?;
        let file = Self {
            model,
            normalizers: flat(json.normalizer, |step| match step {
                Normalizer::Sequence { normalizers } => Err(normalizers),
                other => Ok(other),
            })?,
            pre_tokenizers: flat(json.pre_tokenizer, |step| match step {
                PreTokenizer::Sequence { pretokenizers } => Err(pretokenizers),
                other => Ok(other),
            })?,
            single,
            pair,
            tokens,
        };
        let known = |part: &Part| match part {
            Part::Token(id, _) => file.tokens.get(*id as usize).is_some_and(Option::is_some),
            Part::First(_) | Part::Second(_) => true,
        };
        if !file.single.iter().chain(&file.pair).all(known) {
            return Err(inconsistent("a token put around texts is not in the vocabulary"));
        }
        Ok(file)
    }
}

fn normal(text: String) -> FileToken {
    FileToken { text, role: TokenRole::Normal, strips_left: false, strips_right: false }
}

/// The tokens of a vocabulary at their ids.
fn place(
    tokens: &mut Vec<Option<FileToken>>,
    vocab: BTreeMap<String, u32>,
    added: usize,
) -> Result<(), TokenizerFileError> {
    // Files leave a few ids out, not most.
    let most = vocab.len().saturating_mul(2).saturating_add(added).saturating_add(1024).min(MAX_TOKENS);
    for (text, id) in vocab {
        let index = id as usize;
        if index >= most {
            return Err(inconsistent(format!("token id {id} is too high")));
        }
        if index >= tokens.len() {
            tokens.resize(index + 1, None);
        }
        match tokens.get_mut(index) {
            Some(place @ None) => *place = Some(normal(text)),
            _ => return Err(inconsistent(format!("token id {id} stands twice"))),
        }
    }
    Ok(())
}

fn add(tokens: &mut Vec<Option<FileToken>>, added: Vec<AddedJson>) -> Result<(), TokenizerFileError> {
    let most =
        tokens.len().saturating_mul(2).saturating_add(added.len()).saturating_add(1024).min(MAX_TOKENS);
    for token in added {
        if token.single_word {
            return Err(inconsistent(format!("token id {} counts as a whole word only", token.id)));
        }
        let index = token.id as usize;
        if index >= most {
            return Err(inconsistent(format!("token id {} is too high", token.id)));
        }
        if index >= tokens.len() {
            tokens.resize(index + 1, None);
        }
        let Some(place) = tokens.get_mut(index) else { continue };
        if place.as_ref().is_some_and(|known| known.text != token.content) {
            return Err(inconsistent(format!("token id {} has two texts", token.id)));
        }
        let role = if token.special { TokenRole::Special } else { TokenRole::Added };
        *place = Some(FileToken {
            text: token.content,
            role,
            strips_left: token.lstrip,
            strips_right: token.rstrip,
        });
    }
    Ok(())
}

/// Steps without their nesting. `open` gives a step back, or the steps within it.
fn flat<T>(root: Option<T>, open: impl Fn(T) -> Result<T, Vec<T>>) -> Result<Vec<T>, TokenizerFileError> {
    let mut out = Vec::new();
    let mut left: Vec<T> = root.into_iter().collect();
    while let Some(step) = left.pop() {
        match open(step) {
            Ok(step) => out.push(step),
            Err(inner) => left.extend(inner.into_iter().rev()),
        }
        if out.len() + left.len() > MAX_STEPS {
            return Err(inconsistent("more steps than any tokenizer has"));
        }
    }
    Ok(out)
}

fn parts(post: Option<PostJson>) -> Result<(Vec<Part>, Vec<Part>), TokenizerFileError> {
    let (cls, sep, doubled) = match post {
        None | Some(PostJson::ByteLevel {}) => {
            return Ok((vec![Part::First(0)], vec![Part::First(0), Part::Second(1)]));
        }
        Some(PostJson::Sequence { processors }) => {
            // Byte-level ones only change offsets, which are not kept.
            let mut rest = processors.into_iter().filter(|post| !matches!(post, PostJson::ByteLevel {}));
            let first = rest.next();
            if rest.next().is_some() || matches!(first, Some(PostJson::Sequence { .. })) {
                return Err(inconsistent("only one template is put around texts"));
            }
            return parts(first);
        }
        Some(PostJson::TemplateProcessing { single, pair, special_tokens }) => {
            if single.len().max(pair.len()) > MAX_STEPS {
                return Err(inconsistent("a template longer than any model's"));
            }
            let read = |pieces: Vec<PieceJson>| -> Result<Vec<Part>, TokenizerFileError> {
                let mut out = Vec::new();
                for piece in pieces {
                    match piece {
                        PieceJson::Sequence { id: SequenceJson::A, type_id } => {
                            out.push(Part::First(type_id));
                        }
                        PieceJson::Sequence { id: SequenceJson::B, type_id } => {
                            out.push(Part::Second(type_id));
                        }
                        PieceJson::SpecialToken { id, type_id } => {
                            let token = special_tokens.get(&id);
                            let ids = token.map(|token| token.ids.as_slice());
                            let ids = ids.filter(|ids| ids.len() <= MAX_STEPS);
                            let ids = ids.ok_or_else(|| inconsistent("a template names no token"))?;
                            out.extend(ids.iter().map(|id| Part::Token(*id, type_id)));
                        }
                    }
                }
                Ok(out)
            };
            return Ok((read(single)?, read(pair)?));
        }
        Some(PostJson::BertProcessing { sep, cls }) => (cls.1, sep.1, false),
        Some(PostJson::RobertaProcessing { sep, cls }) => (cls.1, sep.1, true),
    };
    let single = vec![Part::Token(cls, 0), Part::First(0), Part::Token(sep, 0)];
    let mut pair = single.clone();
    // RoBERTa has no segments and puts two separators in the middle.
    let second = u32::from(!doubled);
    if doubled {
        pair.push(Part::Token(sep, 0));
    }
    pair.extend([Part::Second(second), Part::Token(sep, second)]);
    Ok((single, pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<TokenizerFile, TokenizerFileError> {
        TokenizerFile::from_json(json.as_bytes())
    }

    #[test]
    fn a_file_in_order() {
        let file = read(
            r###"{"added_tokens":[{"id":3,"content":"<s>","special":true},{"id":4,"content":"<tool>","rstrip":true}],
            "normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"String":" "},"content":"_"}]},
            "pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"a+"},"behavior":"Isolated","invert":false},
                {"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]},
            "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
                "pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],
                "special_tokens":{"<s>":{"id":"<s>","ids":[3],"tokens":["<s>"]}}},
            "model":{"type":"BPE","unk_token":null,"ignore_merges":true,"vocab":{"a":0,"b":1,"ab":2},"merges":["a b",["ab","b"]]}}"###,
        )
        .unwrap();
        let texts: Vec<&str> =
            file.tokens.iter().map(|token| token.as_ref().unwrap().text.as_str()).collect();
        assert_eq!(texts, ["a", "b", "ab", "<s>", "<tool>"]);
        assert_eq!(file.tokens[3].as_ref().unwrap().role, TokenRole::Special);
        assert!(file.tokens[4].as_ref().unwrap().strips_right);
        assert_eq!((file.normalizers.len(), file.pre_tokenizers.len()), (2, 2));
        assert_eq!(file.single, [Part::Token(3, 0), Part::First(0)]);
        assert_eq!(file.pair, [Part::First(0), Part::Second(1)]);
        let merges = vec![("a".into(), "b".into()), ("ab".into(), "b".into())];
        let want = TokenModel::Bpe { merges, byte_fallback: false, ignore_merges: true, unknown: None };
        assert_eq!(file.model, want);
    }

    #[test]
    fn attacks() {
        let bpe = |vocab: &str, rest: &str| {
            read(&format!(r#"{{"model":{{"type":"BPE","vocab":{vocab},"merges":[]}}{rest}}}"#))
        };
        assert!(bpe(r#"{"a":0}"#, "").is_ok());
        for vocab in ["{}", r#"{"a":0,"b":0}"#, r#"{"a":4294967295}"#, r#"{"a":1100000}"#, r#"{"a":-1}"#] {
            assert!(bpe(vocab, "").is_err(), "{vocab}");
        }
        for rest in [
            r#","added_tokens":[{"id":0,"content":"b"}]"#,
            r#","added_tokens":[{"id":900000,"content":"b"}]"#,
            r#","added_tokens":[{"id":1,"content":"b","single_word":true}]"#,
            r#","normalizer":{"type":"Shuffle"}"#,
            r#","pre_tokenizer":{"type":"Metaspace"}"#,
            r#","post_processor":{"type":"BertProcessing","sep":["s",9],"cls":["c",0]}"#,
            r#","post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}],"pair":[],"special_tokens":{}}"#,
        ] {
            assert!(bpe(r#"{"a":0}"#, rest).is_err(), "{rest}");
        }
        let many = vec![r#"{"type":"NFC"}"#; 65].join(",");
        let rest = format!(r#","normalizer":{{"type":"Sequence","normalizers":[{many}]}}"#);
        assert!(matches!(bpe(r#"{"a":0}"#, &rest), Err(TokenizerFileError::Inconsistent(_))));
        let deep = format!(
            "{}{{\"type\":\"NFC\"}}{}",
            r#"{"type":"Sequence","normalizers":["#.repeat(10_000),
            "]}".repeat(10_000)
        );
        assert!(matches!(
            bpe(r#"{"a":0}"#, &format!(r#","normalizer":{deep}"#)),
            Err(TokenizerFileError::Json(_))
        ));
        // Steps of the models themselves that are not computed.
        for model in [
            r#"{"type":"BPE","vocab":{"a":0},"merges":[],"end_of_word_suffix":"</w>"}"#,
            r#"{"type":"WordPiece","vocab":{"a":0},"continuing_subword_prefix":"@@"}"#,
            r#"{"type":"WordPiece","vocab":{"a":0},"max_input_chars_per_word":200}"#,
        ] {
            assert!(read(&format!(r#"{{"model":{model}}}"#)).is_err(), "{model}");
        }
        let unigram = |rest: &str| read(&format!(r#"{{"model":{{"type":"Unigram","vocab":{rest}}}}}"#));
        assert!(unigram(r#"[["a",-1.0]],"unk_id":0"#).is_ok());
        assert!(unigram(r#"[["a",-1.0]],"unk_id":1"#).is_err());
        assert!(unigram(r#"[["a",1e999]],"unk_id":0"#).is_err());
        assert!(unigram(r#"[["a"]],"unk_id":0"#).is_err());
    }
}
