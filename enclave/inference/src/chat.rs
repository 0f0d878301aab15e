//! Chat templates: a conversation becomes the text that the model was trained to continue.
//!
//! Templates are Jinja programs out of the model file, so they are a stranger's: they see the conversation and nothing
//! else, and their steps and output are bounded (not what they hold in variables meanwhile: a template that doubles a
//! text over and over takes memory until then). What a client wrote is inserted as text; whether control tokens inside
//! it count is decided when tokenising, piece by piece, see [`ChatTemplate::render`].

use std::fmt;
use std::io;

use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;

/// One turn of a conversation. `Debug` tells how long it is, never what was said.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} bytes)", self.content.len())
    }
}

/// Why a conversation could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template itself, or it refused the conversation.
    #[error("chat template: {0}")]
    Template(#[from] Error),
    /// The template is longer than any model's.
    #[error("the chat template has {0} bytes, more than any model's")]
    TooLong(usize),
    /// An expression or a chain of branches longer than any model's: the compiler follows them step by step on the stack.
    #[error("the chat template has an expression or a chain of branches longer than any model's")]
    Chain,
    /// It writes far more than the conversation holds.
    #[error("the chat template writes over {0} bytes for this conversation; it is broken or hostile")]
    Output(usize),
}

/// Longest template, bytes.
const MAX_TEMPLATE: usize = 1 << 18;
/// Longest expression, bytes that are neither text nor space.
const MAX_EXPRESSION: usize = 2048;
/// Most `elif` branches.
const MAX_BRANCHES: usize = 512;
/// Instructions a template may run.
const FUEL: u64 = 10_000_000;
/// A template may write each message this often,
const OUTPUT_TIMES: usize = 4;
/// and this much of its own, bytes.
const OUTPUT_PLUS: usize = 1 << 20;

/// Text up to a length.
struct Bounded {
    text: Vec<u8>,
    max: usize,
    over: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.max - self.text.len() {
            self.over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a template may ask for beside the messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChatContext<'a> {
    /// Text of the token at the beginning of a sequence.
    pub bos_token: &'a str,
    /// Text of the token at its end.
    pub eos_token: &'a str,
    /// Whether the text ends where the assistant begins to speak.
    pub add_generation_prompt: bool,
    /// Today, for templates that say it; the caller's, since there is no clock here.
    pub today: &'a str,
}

/// A compiled template. `Debug` does not tell it: it may be its owner's.
pub struct ChatTemplate {
    environment: Environment<'static>,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChatTemplate")
    }
}

impl ChatTemplate {
    /// Compiles the template of a model file (`tokenizer.chat_template`).
    ///
    /// # Errors
    /// [`ChatError`] for templates that are too long or no Jinja.
    pub fn new(source: &str) -> Result<Self, ChatError> {
        if source.len() > MAX_TEMPLATE {
            return Err(ChatError::TooLong(source.len()));
        }
        if longest_expression(source) > MAX_EXPRESSION || source.matches("elif").count() > MAX_BRANCHES {
            return Err(ChatError::Chain);
        }
        let mut environment = Environment::new();
        // As the models' own code renders them.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_keep_trailing_newline(false);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(64);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        // To minijinja none is an empty list; to the Jinja of the models' own code it is no list.
        environment.add_test("iterable", |value: &Value| {
            !value.is_none() && !value.is_undefined() && value.try_iter().is_ok()
        });
        environment.add_template_owned("chat", source.to_owned())?;
        Ok(Self { environment })
    }

    /// Writes a conversation.
    ///
    /// A client's text may contain the text of control tokens. To tokenise it as mere text, render with each content
    /// replaced by a mark, encode the pieces between the marks with `parse_special` and the contents without.
    ///
    /// # Errors
    /// [`ChatError::Template`] where the template refuses, fails or does not end; [`ChatError::Output`].
    pub fn render(&self, messages: &[Message], chat: ChatContext<'_>) -> Result<String, ChatError> {
        let today = chat.today.to_owned();
        let strftime_now = Value::from_function(move |_: String| today.clone());
        let len: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
        let max = len.saturating_mul(OUTPUT_TIMES).saturating_add(OUTPUT_PLUS);
        let mut out = Bounded { text: Vec::new(), max, over: false };
        let context = context! {
            messages,
            bos_token => chat.bos_token,
            eos_token => chat.eos_token,
            add_generation_prompt => chat.add_generation_prompt,
            strftime_now,
            // There are none here, and the models' own code says so: templates tell "none" from "undefined".
            tools => (),
            documents => (),
        };
        let rendered = self.environment.get_template("chat")?.render_captured_to(context, &mut out).map(drop);
        match rendered {
            Err(_) if out.over => Err(ChatError::Output(max)),
            Err(error) => Err(error.into()),
            // Only whole texts are written.
            Ok(()) => Ok(String::from_utf8_lossy(&out.text).into_owned()),
        }
    }
}

/// Bytes of the longest tag or expression, without quoted texts and spaces.
fn longest_expression(source: &str) -> usize {
    let (mut longest, mut rest) = (0, source.as_bytes());
    while let Some(at) = rest.windows(2).position(|pair| matches!(pair, b"{{" | b"{%" | b"{#")) {
        let comment = rest[at + 1] == b'#';
        rest = &rest[at + 2..];
        if comment {
            let end = rest.windows(2).position(|pair| pair == b"#}").unwrap_or(rest.len());
            rest = &rest[end..];
            continue;
        }
        let (mut len, mut open, mut quote, mut index) = (0, 0i32, None, 0);
        while let Some(byte) = rest.get(index) {
            let ends = matches!(rest.get(index..index + 2), Some(b"}}" | b"%}"));
            match (quote, byte) {
                (Some(_), b'\\') => index += 1,
                (Some(mark), _) => quote = Some(mark).filter(|mark| mark != byte),
                (None, b'\'' | b'"') => quote = Some(*byte),
                (None, _) if ends && open <= 0 => break,
                (None, _) => {
                    // Braces of maps inside do not end a tag.
                    open += i32::from(matches!(byte, b'(' | b'[' | b'{'));
                    open -= i32::from(matches!(byte, b')' | b']' | b'}'));
                    len += usize::from(!byte.is_ascii_whitespace());
                }
            }
            index += 1;
        }
        longest = longest.max(len);
        rest = &rest[index.min(rest.len())..];
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(turns: &[(&str, &str)]) -> Vec<Message> {
        turns
            .iter()
            .map(|(role, content)| Message { role: (*role).into(), content: (*content).into() })
            .collect()
    }

    #[test]
    fn turns_in_the_form_of_chatml() {
        let source = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
            {{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}\
            {{'<|im_start|>' + message['role'] + '\n' + message['content'].strip() + '<|im_end|>' + '\n'}}{% endfor %}\
            {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        let template = ChatTemplate::new(source).unwrap();
        let chat = ChatContext { add_generation_prompt: true, ..ChatContext::default() };
        let text =
            template.render(&messages(&[("user", " Hi "), ("assistant", "{{ 1 + 1 }}")]), chat).unwrap();
        let want = "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
            <|im_start|>assistant\n{{ 1 + 1 }}<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(text, want);
    }

    #[test]
    fn lengths_of_expressions() {
        let lengths = [
            "",
            "text",
            "{{ a }}{% if bc %}",
            "{{ 'long \\' text' ~ \"'\" }}",
            "{# {{ abc #}{{",
            "{{ {'a': {}}}}",
        ];
        assert_eq!(lengths.map(longest_expression), [0, 0, 4, 1, 0, 5]);
    }

    #[test]
    fn templates_may_refuse_and_must_end() {
        let refuse = ChatTemplate::new("{{ raise_exception('only users') }}").unwrap();
        let error = refuse.render(&[], ChatContext::default()).unwrap_err();
        assert!(error.to_string().contains("only users"), "{error}");
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        assert!(ChatTemplate::new(endless).unwrap().render(&[], ChatContext::default()).is_err());
        assert!(ChatTemplate::new("{% for %}").is_err());
        assert!(matches!(ChatTemplate::new(&"x".repeat(1 << 19)), Err(ChatError::TooLong(_))));
        let today = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}").unwrap();
        let chat = ChatContext { today: "24 Nov 2026", ..ChatContext::default() };
        assert_eq!(today.render(&[], chat).unwrap(), "24 Nov 2026");
        let tools = ChatTemplate::new(
            "{% if tools is not none or (tools is iterable and tools | length > 0) %}tools{% endif %}",
        )
        .unwrap();
        assert_eq!(tools.render(&[], chat).unwrap(), "");
    }
}
