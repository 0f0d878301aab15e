//! Why a machine ended, in the emulator's words: it exits with success whether the guest turned itself off or its kernel
//! stopped for want of memory.
//!
//! It says which by its control protocol (QMP), and calls the host for that: there is nothing here that others could call.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;

/// Far above any event; a longer line is read in parts, none of which is one.
const MAX_LINE_LEN: u64 = 64 << 10;
/// Of the reasons in QEMU's `qapi/run-state.json`, those that a machine of ours can have.
const REASONS: [(&str, &str); 4] = [
    ("guest-shutdown", "the guest turned itself off"),
    ("guest-reset", "the guest's kernel stopped"),
    ("guest-panic", "the guest's kernel stopped"),
    ("host-signal", "the emulator was asked to end"),
];

/// Listens to one machine until it ends; says why it did, if the emulator knew.
pub(crate) async fn end(listener: UnixListener) -> Option<&'static str> {
    let (stream, _) = listener.accept().await.ok()?;
    let (reader, mut writer) = stream.into_split();
    // Before this it tells nothing, and it is the only order it ever gets.
    writer.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await.ok()?;
    let (mut reader, mut ended) = (BufReader::new(reader), None);
    loop {
        let mut line = String::new();
        match (&mut reader).take(MAX_LINE_LEN).read_line(&mut line).await {
            Ok(1..) => ended = reason(&line).or(ended),
            _ => return ended,
        }
    }
}

/// The host links no reader of JSON, so that it cannot parse a prompt; these words are looked for as the emulator writes them.
fn reason(line: &str) -> Option<&'static str> {
    let line: String = line.split_whitespace().collect();
    if !line.contains(r#""event":"SHUTDOWN""#) {
        return None;
    }
    let known = REASONS.iter().find(|(name, _)| line.contains(&format!(r#""reason":"{name}""#)));
    Some(known.map_or("for a reason that is not known here", |(_, meaning)| meaning))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixStream;

    /// Plays an emulator that says `lines` and ends.
    async fn said(lines: &str) -> Option<&'static str> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let end = tokio::spawn(end(UnixListener::bind(&path).unwrap()));
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(lines.as_bytes()).await.unwrap();
        let mut order = [0; 31];
        stream.read_exact(&mut order).await.unwrap();
        assert_eq!(&order, b"{\"execute\":\"qmp_capabilities\"}\n");
        drop(stream);
        end.await.unwrap()
    }

    #[tokio::test]
    async fn a_stopped_kernel_and_a_machine_turned_off_are_told_apart() {
        let greeting = "{\"QMP\": {\"version\": {}}}\r\n{\"return\": {}}\r\n";
        let event = |reason: &str| {
            format!(
                "{greeting}{{\"event\": \"SHUTDOWN\", \"data\": {{\"guest\": true, \"reason\": \"{reason}\"}}}}\r\n"
            )
        };
        assert_eq!(said(&event("guest-reset")).await, Some("the guest's kernel stopped"));
        assert_eq!(said(&event("guest-shutdown")).await, Some("the guest turned itself off"));
        assert_eq!(said(&event("snapshot-load")).await, Some("for a reason that is not known here"));
        assert_eq!(said(greeting).await, None, "one that was killed says nothing");
        assert_eq!(said(&"x".repeat(200_000)).await, None);
    }
}
