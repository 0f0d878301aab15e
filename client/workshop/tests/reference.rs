//! The origin network (100-128-64-1) reaches what a Keras run of it reaches, within the standard error of the test set.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::cast_precision_loss, reason = "tests")]

use std::path::PathBuf;

use adyton_model::dense::Activation;
use adyton_workshop::{
    Columns, Dataset, Impute, Method, Options, Preparation, Split, Table, Targets, evaluate, train,
};

fn shared() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find(|path| path.join("Cargo.lock").exists())?
        .to_owned();
    let folder = root.parent()?.join("shared/models/mlp");
    folder.exists().then_some(folder)
}

fn options(seed: u64) -> Options {
    Options {
        hidden: vec![128, 64],
        activation: Activation::Relu,
        epochs: 30,
        batch_size: 32,
        learning_rate: 0.001,
        method: Method::Adam,
        l1: 0.0,
        l2: 1e-4,
        dropout: 0.0,
        noise: 0.0,
        patience: None,
        seed,
    }
}

fn accuracy(name: &str, seed: u64) -> Option<(f64, usize)> {
    let Some(folder) = shared() else {
        eprintln!("skipped: ../shared/models/mlp is missing");
        return None;
    };
    let columns = Columns { label: Some("label"), split: Some("split"), ..Columns::default() };
    let table = Table::read(&folder.join(format!("{name}.csv")), &columns).unwrap();
    let targets = Targets::of(&table, None).unwrap();
    let split = Split { shares: [1.0, 0.0, 0.0], seed };
    let preparation = Preparation { impute: Impute::Mean, standardize: false };
    let dataset = Dataset::new(&table, &targets, &split, &preparation).unwrap();
    let trained = train(&dataset, &targets, &table.features, &options(seed), &mut |_, _| ()).unwrap();
    let metrics = evaluate(&trained.model, &table.only("test")).unwrap();
    Some((metrics.accuracy.unwrap(), metrics.rows))
}

fn reaches(name: &str, reference: f64) {
    for seed in [1, 2, 3] {
        let Some((accuracy, rows)) = accuracy(name, seed) else { return };
        let error = (reference * (1.0 - reference) / rows as f64).sqrt();
        eprintln!("{name} seed {seed}: {accuracy:.4}, reference {reference:.4}, standard error {error:.4}");
        assert!(
            accuracy >= reference - error,
            "{name} seed {seed}: {accuracy} is below {reference} - {error}"
        );
    }
}

#[test]
fn the_synthetic_reference_is_reached() {
    reaches("synthetic", 0.826);
}

#[test]
fn the_digits_reference_is_reached() {
    reaches("digits_odd_even", 0.983_333);
}
