//! JSON (RFC 8259) as far as Intel's documents use it, and strict: a key that occurs twice, a byte after the value, a
//! fraction or a number with a leading zero is an error, since two readers could understand it differently.
//!
//! Every value keeps the exact bytes it was read from, because Intel signs a document as it was served: nothing here is
//! ever written out again. No memory is taken for what the bytes do not back.

use std::borrow::Cow;

/// How deeply arrays and objects may nest; Intel's documents need seven levels.
const MAX_DEPTH: usize = 16;
/// Members of one object: Intel's have fewer than twenty, and each is compared with all before it.
const MAX_MEMBERS: usize = 256;

/// A value and the bytes it stands in.
#[derive(Clone, Debug)]
pub(crate) struct Json<'a> {
    /// The bytes of the value, without white space around it.
    pub(crate) raw: &'a [u8],
    pub(crate) value: Value<'a>,
}

#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
    Array(Vec<Json<'a>>),
    Text(Cow<'a, str>),
    /// Whole and not negative; others are not part of any document read here.
    Number(u64),
    Bool,
    Null,
}

/// Why bytes are not such JSON, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(crate) struct JsonError {
    what: &'static str,
    at: usize,
}

impl<'a> Json<'a> {
    /// Reads exactly one value; white space may stand around it. The caller caps the length.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let text = core::str::from_utf8(bytes)
            .map_err(|error| JsonError { what: "not UTF-8", at: error.valid_up_to() })?;
        let mut parser = Parser { text, at: 0 };
        parser.space();
        let value = parser.value(0)?;
        parser.space();
        if parser.at == text.len() { Ok(value) } else { Err(parser.wrong("something follows the value")) }
    }

    /// The member `name` of an object.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn wrong(&self, what: &'static str) -> JsonError {
        JsonError { what, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Json<'a>, JsonError> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("nested too deeply"));
        }
        let start = self.at;
        let value = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Value::Text(self.string()?),
            Some(b'0'..=b'9') => Value::Number(self.number()?),
            Some(b't') => self.word("true", Value::Bool)?,
            Some(b'f') => self.word("false", Value::Bool)?,
            Some(b'n') => self.word("null", Value::Null)?,
            _ => return Err(self.wrong("no value")),
        };
        Ok(Json { raw: self.text.as_bytes().get(start..self.at).unwrap_or_default(), value })
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, JsonError> {
        if !self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return Err(self.wrong("no value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        let mut members: Vec<(Cow<'a, str>, Json<'a>)> = Vec::new();
        self.at += 1;
        self.space();
        if self.eat(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            let key = self.string()?;
            if members.iter().any(|(other, _)| *other == key) {
                return Err(self.wrong("a key occurs twice"));
            }
            if members.len() == MAX_MEMBERS {
                return Err(self.wrong("too many members"));
            }
            self.space();
            if !self.eat(b':') {
                return Err(self.wrong("no colon after a key"));
            }
            self.space();
            let value = self.value(depth + 1)?;
            members.push((key, value));
            self.space();
            if self.eat(b'}') {
                return Ok(Value::Object(members));
            }
            if !self.eat(b',') {
                return Err(self.wrong("no comma between members"));
            }
            self.space();
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        let mut items = Vec::new();
        self.at += 1;
        self.space();
        if self.eat(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if self.eat(b']') {
                return Ok(Value::Array(items));
            }
            if !self.eat(b',') {
                return Err(self.wrong("no comma between items"));
            }
            self.space();
        }
    }

    fn number(&mut self) -> Result<u64, JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return Err(self.wrong("a number is not whole"));
        }
        let digits = self.text.get(start..self.at).unwrap_or_default();
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(self.wrong("a number begins with zero"));
        }
        digits.parse().map_err(|_| self.wrong("a number is too large"))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if !self.eat(b'"') {
            return Err(self.wrong("no string"));
        }
        let start = self.at;
        let mut owned: Option<String> = None;
        loop {
            let run = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            let plain = self.text.get(run..self.at).unwrap_or_default();
            if let Some(owned) = &mut owned {
                owned.push_str(plain);
            }
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(owned.map_or(Cow::Borrowed(plain), Cow::Owned));
                }
                Some(b'\\') => {
                    let before = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    let escaped = self.escape()?;
                    owned.get_or_insert_with(|| before.to_owned()).push(escaped);
                }
                Some(_) => return Err(self.wrong("a control character inside a string")),
                None => return Err(self.wrong("a string does not end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let byte = self.peek().ok_or_else(|| self.wrong("a string does not end"))?;
        self.at += 1;
        Ok(match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
                // Not by `from_str_radix` alone: it would take a sign.
                if digits.len() != 4 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return Err(self.wrong("an escape without four hexadecimal digits"));
                }
                self.at += 4;
                let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
                // Pairs that stand for one character do not occur in these documents.
                code.ok_or_else(|| self.wrong("an escape that is no character"))?
            }
            _ => return Err(self.wrong("an unknown escape")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(text: &str) -> &'static str {
        Json::parse(text.as_bytes()).unwrap_err().what
    }

    #[test]
    fn values_keep_their_exact_bytes() {
        let text = r#" {"a": {"b" : [1, 2],"c":"d\/\u0041\n"}, "e":null} "#;
        let json = Json::parse(text.as_bytes()).unwrap();
        assert_eq!(json.get("a").unwrap().raw, br#"{"b" : [1, 2],"c":"d\/\u0041\n"}"#);
        let Value::Text(text) = &json.get("a").unwrap().get("c").unwrap().value else { panic!("text") };
        assert_eq!(text, "d/A\n");
        assert!(json.get("f").is_none());
        let escapes = Json::parse(br#""\"\\\/\b\f\n\r\t\u00e9""#).unwrap();
        let Value::Text(text) = &escapes.value else { panic!("text") };
        assert_eq!(text, "\"\\/\u{8}\u{c}\n\r\t\u{e9}");
        for word in ["true", "false", "null"] {
            assert_eq!(Json::parse(word.as_bytes()).unwrap().raw, word.as_bytes());
            assert_eq!(refusal(&word[1..]), "no value");
        }
    }

    #[test]
    fn what_two_readers_could_understand_differently_is_refused() {
        assert_eq!(refusal(r#"{"a":1,"b":2,"a":1}"#), "a key occurs twice");
        assert_eq!(refusal(r#"{"a":1,"\u0061":1}"#), "a key occurs twice");
        assert_eq!(refusal("{} {}"), "something follows the value");
        assert_eq!(refusal("01"), "a number begins with zero");
        assert_eq!(refusal("1.0"), "a number is not whole");
        assert_eq!(refusal("-1"), "no value");
        assert_eq!(refusal("18446744073709551616"), "a number is too large");
        assert_eq!(refusal("[1,]"), "no value");
        assert_eq!(refusal(r#"{"a":1,}"#), "no string");
        assert_eq!(refusal("\"\n\""), "a control character inside a string");
        assert_eq!(refusal(r#""\u+041""#), "an escape without four hexadecimal digits");
        assert_eq!(refusal(r#""\ud800""#), "an escape that is no character");
        assert_eq!(refusal(&"[".repeat(40)), "nested too deeply");
        let objects = |depth: usize| "{\"a\":".repeat(depth) + "{}" + &"}".repeat(depth);
        assert!(Json::parse(objects(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(refusal(&objects(MAX_DEPTH + 1)), "nested too deeply");
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Json::parse(nested(MAX_DEPTH + 1).as_bytes()).is_ok(), "the outermost value has depth 0");
        assert_eq!(refusal(&nested(MAX_DEPTH + 2)), "nested too deeply");
        let members: Vec<String> = (0..=MAX_MEMBERS).map(|number| format!("\"{number}\":0")).collect();
        assert!(Json::parse(format!("{{{}}}", members[1..].join(",")).as_bytes()).is_ok());
        assert_eq!(refusal(&format!("{{{}}}", members.join(","))), "too many members");
        assert_eq!(Json::parse(b"\"\xff\"").unwrap_err().what, "not UTF-8");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_another_reader_agrees(text in r#"[\[\]{}:," \\tfnu0-9a-e.-]{0,40}"#) {
            if Json::parse(text.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
            }
        }
    }
}
