//! What a guest says on its serial line, as messages of the host: cut, cleaned and counted.
//!
//! The guest is not the host's to trust either. A line cannot move the cursor of an operator's terminal, and no number of
//! lines fills a disk.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest line kept; the rest of it is dropped.
const MAX_LINE_LEN: usize = 512;
/// Lines kept in each window; a boot and a release are some twenty.
const MAX_LINES: u32 = 200;
const WINDOW: Duration = Duration::from_secs(10);

/// Hands each line of `source` to `line` until its end.
pub(crate) async fn follow(mut source: impl AsyncRead + Unpin, mut line: impl FnMut(&str)) {
    let (mut buffer, mut text, mut quota) = ([0; 4096], String::new(), Quota::new());
    while let Ok(len @ 1..) = source.read(&mut buffer).await {
        for byte in buffer.iter().take(len) {
            match byte {
                b'\n' => {
                    flush(&mut text, &mut quota, &mut line);
                }
                b' '..=b'~' if text.len() < MAX_LINE_LEN => text.push(char::from(*byte)),
                _ => (),
            }
        }
    }
    flush(&mut text, &mut quota, &mut line);
}

fn flush(text: &mut String, quota: &mut Quota, line: &mut impl FnMut(&str)) {
    let dropped = quota.turn();
    if dropped > 0 {
        line(&format!("({dropped} lines dropped)"));
    }
    if !text.trim().is_empty() && quota.take() {
        line(text.trim());
    }
    text.clear();
}

struct Quota {
    begun: Instant,
    taken: u32,
    dropped: u32,
}

impl Quota {
    fn new() -> Self {
        Self { begun: Instant::now(), taken: 0, dropped: 0 }
    }

    /// Begins a new window if the old one is over; returns how many lines that one dropped.
    fn turn(&mut self) -> u32 {
        if self.begun.elapsed() < WINDOW {
            return 0;
        }
        std::mem::replace(self, Self::new()).dropped
    }

    fn take(&mut self) -> bool {
        let within = self.taken < MAX_LINES;
        if within {
            self.taken += 1;
        } else {
            self.dropped += 1;
        }
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        follow(bytes, |line| found.push(line.to_owned())).await;
        found
    }

    #[tokio::test]
    async fn control_characters_and_long_lines_do_not_pass() {
        assert_eq!(lines(b"\x1b[2Jready\r\n\n\xff\x07end").await, ["[2Jready", "end"]);
        assert_eq!(lines(&[b'x'; 100_000]).await, ["x".repeat(MAX_LINE_LEN)]);
    }

    #[tokio::test]
    async fn a_flood_is_cut() {
        let flood = "line\n".repeat(10_000);
        assert_eq!(lines(flood.as_bytes()).await.len(), MAX_LINES as usize);
        let mut quota = Quota::new();
        while quota.take() {}
        quota.begun = Instant::now().checked_sub(WINDOW).unwrap();
        assert_eq!(quota.turn(), 1, "and it is said how much");
        assert!(quota.take());
    }
}
