//! What a verb prints, for people or as one JSON object, and the exit status.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use adyton_attestation::{Rejected, SIMULATED_NOTICE, Step};
use adyton_broker::BrokerError;
use adyton_channel::http::CallError;
use adyton_client::ClientError;
use serde_json::{Value, json};

/// Our fault or bad usage.
pub(crate) const OWN: u8 = 1;
/// Evidence invalid.
pub(crate) const EVIDENCE: u8 = 10;
/// Refused by policy.
pub(crate) const POLICY: u8 = 20;
/// Network or service unreachable.
pub(crate) const UNREACHABLE: u8 = 30;
/// Integrity: sealed model, receipt.
pub(crate) const INTEGRITY: u8 = 40;

/// What a verb has to say.
pub(crate) struct Printed {
    pub(crate) json: Value,
    pub(crate) text: String,
    pub(crate) code: u8,
}

impl Printed {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { json: json!({ "text": text }), text, code: 0 }
    }

    pub(crate) fn new(json: Value, text: impl Into<String>) -> Self {
        Self { json, text: text.into(), code: 0 }
    }
}

/// Why a verb failed.
pub(crate) struct Failure {
    code: u8,
    message: String,
    steps: Option<Rejected>,
    inputs: Option<Box<Value>>,
}

impl Failure {
    pub(crate) fn own(message: impl Into<String>) -> Self {
        Self::with(OWN, message)
    }

    pub(crate) fn with(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), steps: None, inputs: None }
    }

    /// Adds what the refusal rests on.
    pub(crate) fn with_inputs(mut self, inputs: Value) -> Self {
        self.inputs = Some(Box::new(inputs));
        self
    }
}

impl From<Rejected> for Failure {
    fn from(rejected: Rejected) -> Self {
        let code = if rejected.by_policy() { POLICY } else { EVIDENCE };
        Self { code, message: format!("refused: {}", rejected.reason), steps: Some(rejected), inputs: None }
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        use adyton_attestation::release::ReleaseError;
        match error {
            BrokerError::Release(ReleaseError::Rejected(rejected)) => rejected.into(),
            BrokerError::Collateral(rejected) => rejected.into(),
            BrokerError::Manifest(_) => Self::with(INTEGRITY, error.to_string()),
            _ => Self::own(error.to_string()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match error {
            ClientError::Rejected(rejected) => return rejected.into(),
            ClientError::Own(own) => return own.into(),
            ClientError::Call(CallError::TooLong(_)) | ClientError::Answer(_) | ClientError::Receipt(_) => {
                INTEGRITY
            }
            ClientError::Call(_) => UNREACHABLE,
            ClientError::Status { status, .. } if status >= 500 => UNREACHABLE,
            _ => OWN,
        };
        Self::with(code, error.to_string())
    }
}

/// Where and how to print.
pub(crate) struct Output {
    json: bool,
    json_progress: bool,
}

impl Output {
    pub(crate) fn new(json: bool, json_progress: bool) -> Self {
        Self { json, json_progress }
    }

    /// Whether to draw progress bars.
    pub(crate) fn bars(&self) -> bool {
        !self.json_progress && std::io::stderr().is_terminal()
    }

    /// Whether to report progress as JSON lines.
    pub(crate) fn json_progress(&self) -> bool {
        self.json_progress
    }

    /// Prints part of an answer as it comes; with `--json` it comes at the end.
    pub(crate) fn say(&self, text: &str) {
        if !self.json {
            let mut out = std::io::stdout().lock();
            // A reader that went away is told by the exit status of what it started, not by us.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }

    /// Prints the outcome and gives the exit status.
    pub(crate) fn finish(&self, outcome: Result<Printed, Failure>) -> ExitCode {
        let (code, json, text, errors) = match outcome {
            Ok(printed) => (printed.code, printed.json, printed.text, String::new()),
            Err(failure) => {
                let mut text = String::new();
                let mut json = json!({ "error": failure.message, "exit": failure.code });
                if let (Some(rejected), Some(object)) = (&failure.steps, json.as_object_mut()) {
                    text = steps_text(&rejected.steps);
                    object.insert("verdict".into(), "reject".into());
                    object.insert("reason".into(), rejected.reason.as_str().into());
                    object.insert("steps".into(), steps_json(&rejected.steps));
                    object.extend(failure.inputs.map(|inputs| ("inputs".to_owned(), *inputs)));
                }
                (failure.code, json, text, format!("adyton: {}\n", failure.message))
            }
        };
        let shown = if self.json { format!("{json}\n") } else { text };
        // A reader that went away is no reason to change the exit status.
        let _ = std::io::stdout().write_all(shown.as_bytes());
        let _ = std::io::stderr().write_all(errors.as_bytes());
        ExitCode::from(code)
    }
}

/// The steps of a verdict, one a line.
pub(crate) fn steps_text(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {:<4}  {:<26} {}", step.result.as_str(), step.name, step.detail);
    }
    text
}

/// The steps of a verdict as JSON.
pub(crate) fn steps_json(steps: &[Step]) -> Value {
    steps
        .iter()
        .map(|step| json!({ "name": step.name, "result": step.result.as_str(), "detail": step.detail }))
        .collect()
}

/// The line that stands above everything a simulator is part of.
pub(crate) fn banner(simulated: bool) -> String {
    if simulated { format!("*** {SIMULATED_NOTICE} ***\n") } else { String::new() }
}
