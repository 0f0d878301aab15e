//! Chat templates: a conversation becomes the text that the model was trained to continue.
//!
//! Templates are Jinja programs out of the model file, so they are a stranger's: they see the conversation and nothing
//! else, and their work and output are bounded. What a client wrote is inserted as text; whether control tokens inside it
//! count is decided when tokenising, piece by piece, see [`ChatTemplate::render`].

use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What was said.
    pub content: String,
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
}

/// Longest template, bytes.
const MAX_TEMPLATE: usize = 1 << 18;
/// Instructions a template may run.
const FUEL: u64 = 10_000_000;

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

/// A compiled template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
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
        environment.add_template_owned("chat", source.to_owned())?;
        Ok(Self { environment })
    }

    /// Writes a conversation.
    ///
    /// A client's text may contain the text of control tokens. To tokenise it as mere text, render with each content
    /// replaced by a mark, encode the pieces between the marks with `parse_special` and the contents without.
    ///
    /// # Errors
    /// [`ChatError::Template`] where the template refuses, fails or does not end.
    pub fn render(&self, messages: &[Message], chat: ChatContext<'_>) -> Result<String, ChatError> {
        let today = chat.today.to_owned();
        let strftime_now = Value::from_function(move |_: String| today.clone());
        let text = self.environment.get_template("chat")?.render(context! {
            messages,
            bos_token => chat.bos_token,
            eos_token => chat.eos_token,
            add_generation_prompt => chat.add_generation_prompt,
            strftime_now,
        })?;
        Ok(text)
    }
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
    }
}
