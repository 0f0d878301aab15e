//! Intel's signed documents: fields by name, dates, and the exact bytes that are signed.

use crate::tdx::json::{Json, Value};
use crate::time::Time;
use crate::verdict::{Finding, Reason};

/// TCB info is below 10 kB, an enclave identity below 2 kB.
pub(crate) const MAX_DOCUMENT_LEN_BYTES: usize = 128 * 1024;

/// One object of a document, with the names that findings need.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a> {
    json: &'a Json<'a>,
    name: &'static str,
    reason: Reason,
}

impl<'a> Object<'a> {
    /// Calls `read` with the whole document.
    pub(crate) fn parse_with<T>(
        name: &'static str,
        reason: Reason,
        bytes: &[u8],
        read: impl FnOnce(Object<'_>) -> Result<T, Finding>,
    ) -> Result<T, Finding> {
        let json = Json::parse(bytes).map_err(|error| {
            Finding::new(reason, format!("{name}: not the JSON that is read here: {error}"))
        })?;
        read(Object { json: &json, name, reason })
    }

    /// A finding about this document.
    pub(crate) fn refuse(&self, what: &str) -> Finding {
        Finding::new(self.reason, format!("{}: {what}", self.name))
    }

    fn missing(&self, field: &str, kind: &str) -> Finding {
        self.refuse(&format!("{field} is missing or no {kind}"))
    }

    fn inner(&self, json: &'a Json<'a>) -> Self {
        Self { json, ..*self }
    }

    /// True if there is such a member.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.json.get(field).is_some()
    }

    /// A text.
    pub(crate) fn text(&self, field: &str) -> Result<&'a str, Finding> {
        match self.json.get(field).map(|json| &json.value) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(self.missing(field, "text")),
        }
    }

    /// A list of texts; an absent one is empty.
    pub(crate) fn optional_texts(&self, field: &str) -> Result<Vec<&'a str>, Finding> {
        match self.json.get(field).map(|json| &json.value) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| match &item.value {
                    Value::Text(text) => Ok(text.as_ref()),
                    _ => Err(self.missing(field, "list of texts")),
                })
                .collect(),
            Some(_) => Err(self.missing(field, "list of texts")),
        }
    }

    /// A whole number.
    pub(crate) fn number(&self, field: &str) -> Result<u64, Finding> {
        match self.json.get(field).map(|json| &json.value) {
            Some(Value::Number(number)) => Ok(*number),
            _ => Err(self.missing(field, "whole number")),
        }
    }

    /// A number of a smaller type.
    pub(crate) fn number_as<T: TryFrom<u64>>(&self, field: &str) -> Result<T, Finding> {
        T::try_from(self.number(field)?).map_err(|_| self.refuse(&format!("{field} is too large")))
    }

    /// Bytes in hexadecimal of either case.
    pub(crate) fn hex<const N: usize>(&self, field: &str) -> Result<[u8; N], Finding> {
        let bytes = decode_hex(self.text(field)?).and_then(|bytes| <[u8; N]>::try_from(bytes).ok());
        bytes.ok_or_else(|| self.refuse(&format!("{field} is not {N} bytes in hexadecimal")))
    }

    /// A moment.
    pub(crate) fn time(&self, field: &str) -> Result<Time, Finding> {
        self.text(field)?.parse().map_err(|error| self.refuse(&format!("{field}: {error}")))
    }

    /// An object inside.
    pub(crate) fn object(&self, field: &str) -> Result<Self, Finding> {
        match self.json.get(field) {
            Some(json) if matches!(json.value, Value::Object(_)) => Ok(self.inner(json)),
            _ => Err(self.missing(field, "object")),
        }
    }

    /// A list of objects.
    pub(crate) fn list(&self, field: &str) -> Result<Vec<Self>, Finding> {
        match self.json.get(field).map(|json| &json.value) {
            Some(Value::Array(items)) => Ok(items.iter().map(|item| self.inner(item)).collect()),
            _ => Err(self.missing(field, "list")),
        }
    }
}

/// issueDate and nextUpdate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dates {
    pub(crate) issued: Time,
    pub(crate) next_update: Time,
}

impl Dates {
    pub(crate) fn parse(document: &Object<'_>) -> Result<Self, Finding> {
        Ok(Self { issued: document.time("issueDate")?, next_update: document.time("nextUpdate")? })
    }

    /// Refuses a document that is not current at `now`; both ends count as current.
    pub(crate) fn refuse_outside(&self, name: &str, now: Time) -> Result<(), Finding> {
        if now < self.issued {
            let detail = format!("{name}: issued {}, it is {now}", self.issued);
            return Err(Finding::new(Reason::NotYetValid, detail));
        }
        if now > self.next_update {
            let detail = format!("{name}: current until {}, it is {now}", self.next_update);
            return Err(Finding::new(Reason::CollateralExpired, detail));
        }
        Ok(())
    }
}

/// A document as Intel serves it, `{"NAME": {…}, "signature": "…"}`: the exact bytes of the inner object, and R and S.
pub(crate) fn split_served(name: &str, body: &[u8]) -> Option<(Vec<u8>, [u8; 64])> {
    let json = Json::parse(body).ok()?;
    let Value::Object(members) = &json.value else { return None };
    let document = json.get(name)?.raw;
    let Value::Text(signature) = &json.get("signature")?.value else { return None };
    let signature = decode_hex(signature)?.try_into().ok()?;
    (members.len() == 2).then(|| (document.to_vec(), signature))
}

/// Bytes from hexadecimal of either case.
pub(crate) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_what_was_served() {
        let signature = "Ab".repeat(64);
        let body = format!("{{\"tcbInfo\": {{\"b\" :1, \"a\":2}} ,\"signature\":\"{signature}\"}}");
        let (document, split) = split_served("tcbInfo", body.as_bytes()).unwrap();
        assert_eq!(document, br#"{"b" :1, "a":2}"#);
        assert_eq!(split, [0xab; 64]);
        let twice = body.replace("\"signature\"", "\"tcbInfo\":{},\"signature\"");
        assert!(split_served("tcbInfo", twice.as_bytes()).is_none());
        let more = body.replace("\"signature\"", "\"x\":{},\"signature\"");
        assert!(split_served("tcbInfo", more.as_bytes()).is_none());
    }

    #[test]
    fn both_ends_of_the_dates_count() {
        let dates = Dates { issued: Time::from_unix_seconds(5), next_update: Time::from_unix_seconds(7) };
        let at = |now| {
            let outcome = dates.refuse_outside("x", Time::from_unix_seconds(now));
            outcome.err().map(|finding| finding.reason)
        };
        let late = Some(Reason::CollateralExpired);
        assert_eq!([4, 5, 7, 8].map(at), [Some(Reason::NotYetValid), None, None, late]);
    }

    #[test]
    fn a_member_is_of_its_kind() {
        let read = |kind: fn(&Object<'_>) -> bool| {
            let text = br#"{"a":{"b":1},"c":[{}],"d":"0aFF","e":300,"f":["x"]}"#;
            Object::parse_with("x", Reason::TcbInfo, text, |object| Ok(kind(&object))).unwrap()
        };
        assert!(read(|x| x.object("a").is_ok() && x.object("c").is_err() && x.object("z").is_err()));
        assert!(read(|x| x.list("c").is_ok() && x.list("a").is_err() && x.list("z").is_err()));
        assert!(read(|x| x.hex("d").is_ok_and(|hex| hex == [0x0a, 0xff]) && x.hex::<3>("d").is_err()));
        assert!(read(|x| x.number_as::<u16>("e").is_ok() && x.number_as::<u8>("e").is_err()));
        assert!(read(|x| x.optional_texts("f").is_ok_and(|texts| texts == ["x"])));
        assert!(read(|x| x.optional_texts("z").is_ok_and(|texts| texts.is_empty())));
        assert!(read(|x| x.optional_texts("c").is_err() && x.optional_texts("d").is_err()));
    }

    #[test]
    fn hexadecimal_is_whole_bytes_of_digits() {
        assert_eq!(decode_hex("0aFF"), Some(vec![0x0a, 0xff]));
        assert_eq!(decode_hex("0"), None);
        assert_eq!(decode_hex("+1"), None);
    }
}
