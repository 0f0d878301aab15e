//! Strings that end an answer.

use std::fmt;

/// Watches text as it comes. What may be the beginning of a stop string is held back until it is clear. `Debug`
/// tells no text.
#[derive(Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl fmt::Debug for StopStrings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StopStrings({} strings)", self.stops.len())
    }
}

impl StopStrings {
    /// Empty strings are left out.
    #[must_use]
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new(), stopped: false }
    }

    /// Adds text; returns what is certain to belong to the answer.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = found {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        // The longest end of the text that begins a stop string.
        let keep = self.stops.iter().map(|stop| {
            (1..stop.len().min(self.held.len() + 1))
                .rev()
                .find(|len| stop.is_char_boundary(*len) && self.held.ends_with(&stop[..*len]))
                .unwrap_or(0)
        });
        let rest = self.held.split_off(self.held.len() - keep.max().unwrap_or(0));
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop string was met.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// What was held back, at the end of the answer.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::StopStrings;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut stop = StopStrings::new(stops.iter().map(|stop| (*stop).to_owned()));
        let mut out: String = pieces.iter().map(|piece| stop.push(piece)).collect();
        out.push_str(&stop.finish());
        (out, stop.stopped())
    }

    #[test]
    fn stops_wherever_the_pieces_break() {
        assert_eq!(run(&["END"], &["one E", "N", "D two"]), ("one ".to_owned(), true));
        assert_eq!(run(&["END"], &["one E", "N", "E"]), ("one ENE".to_owned(), false));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".to_owned(), true));
        assert_eq!(run(&["é!", "\n\n"], &["caf", "é", "?\n", "\nx"]), ("café?".to_owned(), true));
        assert_eq!(run(&["", "xyz"], &["", "x", "y"]), ("xy".to_owned(), false));
        assert_eq!(run(&[], &["all", " of it"]), ("all of it".to_owned(), false));
    }
}
