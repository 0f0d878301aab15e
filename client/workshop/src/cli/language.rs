//! `adyton model quantize` and `inspect` for language models.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use adyton_model::quant::TensorType;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{QuantizeArgs, Report, Ui};
use crate::files::write_with;
use crate::{Contents, Precision, WorkshopError, contents, requantize};

pub(super) fn quantize(args: &QuantizeArgs, ui: &Ui) -> Result<Report, WorkshopError> {
    if args.data.data.is_some() {
        return Err(WorkshopError::Option(
            "--data compares dense networks; compare language models with adyton-bench".to_owned(),
        ));
    }
    let before = contents(&args.model)?;
    let mut work = Work::new(ui, "quantize");
    write_with(&args.out, |out| {
        let mut out = BufWriter::with_capacity(1 << 20, out);
        requantize(&args.model, args.to.unwrap_or(Precision::Q4KM), &mut out, &mut |done, total| {
            work.tell(done, total);
        })?;
        Ok(out.flush()?)
    })?;
    work.end();
    let after = contents(&args.out)?;
    let size = |contents: &Contents| contents.types.values().map(|(_, bytes)| bytes).sum::<u64>();
    let (was, bytes) = (size(&before), size(&after));
    let text = format!(
        "{}{was} bytes of weights before, {bytes} after, in {}\n",
        types_text(&after),
        args.out.display()
    );
    let json =
        json!({ "out": args.out, "bytes_before": was, "bytes": bytes, "model": contents_json(&after) });
    Ok(Report { json, text })
}

fn types_text(contents: &Contents) -> String {
    let line = |(kind, (count, bytes)): (&TensorType, &(u64, u64))| {
        format!("  {count} tensors {kind:?}, {bytes} bytes\n")
    };
    contents.types.iter().map(line).collect()
}

fn contents_json(contents: &Contents) -> Value {
    let types: serde_json::Map<String, Value> = contents
        .types
        .iter()
        .map(|(kind, (count, bytes))| (format!("{kind:?}"), json!({ "tensors": count, "bytes": bytes })))
        .collect();
    json!({
        "architecture": contents.architecture, "name": contents.name, "parameters": contents.parameters,
        "types": types, "context": contents.context, "tokens": contents.tokens,
        "chat_template": contents.chat_template, "refused": contents.refused,
    })
}

pub(super) fn inspect(path: &Path) -> Result<Report, WorkshopError> {
    let contents = contents(path)?;
    let count = |count: Option<u64>| count.map_or("unknown".to_owned(), |count| count.to_string());
    let runs = match &contents.refused {
        None => "it is computed here".to_owned(),
        Some(why) => format!("it is not computed here: {why}"),
    };
    let text = format!(
        "{}language model `{}`{}, {} parameters, context {} tokens, vocabulary {} tokens, {} chat template; {runs}\n",
        types_text(&contents),
        contents.architecture,
        contents.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default(),
        contents.parameters,
        count(contents.context),
        count(contents.tokens),
        if contents.chat_template { "with a" } else { "no" },
    );
    Ok(Report { json: contents_json(&contents), text })
}

/// A bar of bytes, JSON lines, or nothing.
struct Work {
    bar: ProgressBar,
    lines: bool,
    task: &'static str,
}

impl Work {
    fn new(ui: &Ui, task: &'static str) -> Self {
        let bar = if ui.progress { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{bytes}/{total_bytes} {bar:30} {eta}") {
            bar.set_style(style);
        }
        Self { bar, lines: ui.json_progress, task }
    }

    fn tell(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        if self.lines {
            let line = json!({ "task": self.task, "completed": done, "total": total });
            // A reader that went away does not stop the work.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
