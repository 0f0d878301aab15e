//! What the machine can do at best.

use std::time::Instant;

use adyton_inference::arch::Pool;
use adyton_inference::arch::limits::{READ_BYTES, Reader, f32_peak, int8_peak};
use serde_json::{Value, json};

use crate::{AnyError, Machine};

/// The best of several runs, in 10^9 a second.
#[expect(clippy::cast_precision_loss, reason = "operation counts")]
fn best(repetitions: usize, mut run: impl FnMut() -> usize) -> f64 {
    let rates = (0..=repetitions).map(|_| {
        let start = Instant::now();
        run() as f64 / start.elapsed().as_secs_f64() / 1e9
    });
    rates.fold(0.0, f64::max)
}

pub(crate) fn limits(machine: &Machine, repetitions: usize) -> Result<Value, AnyError> {
    let (path, pool) = (machine.path()?, Pool::new(machine.threads));
    let reader = Reader::default();
    let mut pass = 0;
    let read = best(repetitions * 16, || {
        pass += 1;
        reader.pass(pass, path, &pool);
        READ_BYTES
    });
    let f32 = best(repetitions * 4, || f32_peak(path, &pool));
    let int8 = best(repetitions * 4, || int8_peak(path, &pool));
    Ok(json!({
        "n_threads": machine.threads,
        "kernels": path.to_string(),
        "read_gb_s": read,
        "f32_gflop_s": f32,
        "int8_gop_s": int8,
    }))
}
