//! What tensor names tell: the layer they belong to, their role in it, and which of two layers comes first.

use std::cmp::Ordering;

/// What a tensor is for, from the last part of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// `[inputs, outputs]`.
    Kernel,
    /// PyTorch: `[outputs, inputs]` in a dense layer, `[width]` (gamma) in a normalisation.
    Weight,
    /// Bias of a dense layer, or beta of PyTorch's normalisation.
    Bias,
    Gamma,
    Beta,
    Mean,
    Variance,
    /// Variable number `n` of a Keras layer file (`layer/vars/n`).
    Var(usize),
    /// Counters and random state: no part of the function.
    Ignored,
}

const ROLES: &[(&str, Role)] = &[
    ("kernel", Role::Kernel),
    ("weights", Role::Kernel),
    ("weight", Role::Weight),
    ("bias", Role::Bias),
    ("gamma", Role::Gamma),
    ("beta", Role::Beta),
    ("moving_mean", Role::Mean),
    ("running_mean", Role::Mean),
    ("mean", Role::Mean),
    ("moving_variance", Role::Variance),
    ("moving_var", Role::Variance),
    ("running_var", Role::Variance),
    ("variance", Role::Variance),
    ("num_batches_tracked", Role::Ignored),
    ("seed_generator_state", Role::Ignored),
    ("count", Role::Ignored),
];

/// Splits `hidden1/kernel:0` into the layer `hidden1` and the role of the tensor; `None` for a name that tells nothing.
pub(super) fn split(name: &str) -> Option<(&str, Role)> {
    let name = name.rsplit_once(':').map_or(name, |(head, tail)| if tail == "0" { head } else { name });
    if let Some((head, index)) = name.rsplit_once(['.', '/'])
        && let Some((layer, "vars")) = head.rsplit_once(['.', '/'])
    {
        return Some((layer, Role::Var(index.parse().ok()?)));
    }
    ROLES.iter().find_map(|(suffix, role)| {
        let head = name.strip_suffix(suffix)?;
        match head.chars().last() {
            None => Some(("", *role)),
            Some('.' | '/') => Some((&head[..head.len() - 1], *role)),
            // `hidden_kernel`, but not `moving_mean` read as the mean of `moving`.
            Some('_') if !matches!(head, "moving_" | "running_") && !head.ends_with(['.', '/']) => {
                let layer = &head[..head.len() - 1];
                (!layer.ends_with("moving") && !layer.ends_with("running")).then_some((layer, *role))
            }
            Some(_) => None,
        }
    })
}

/// The last part of a path-like layer name.
pub(super) fn last_part(layer: &str) -> &str {
    layer.rsplit(['.', '/']).next().unwrap_or(layer)
}

/// Which of two layers comes first, where their names say so.
///
/// Names with equal words and different numbers compare by number (`dense` < `dense_1` < `dense_10`); a word such as
/// `output` puts a layer last. Anything else is silence, not alphabetical order.
pub(super) fn order(a: &str, b: &str) -> Option<Ordering> {
    let ((words_a, numbers_a), (words_b, numbers_b)) = (tokens(a), tokens(b));
    if words_a == words_b {
        return Some(numbers_a.cmp(&numbers_b)).filter(|order| order.is_ne());
    }
    match (is_output(&words_a), is_output(&words_b)) {
        (true, false) => Some(Ordering::Greater),
        (false, true) => Some(Ordering::Less),
        _ => None,
    }
}

fn is_output(words: &[String]) -> bool {
    words.last().is_some_and(|word| {
        matches!(
            word.as_str(),
            "output"
                | "outputs"
                | "out"
                | "logit"
                | "logits"
                | "probability"
                | "probabilities"
                | "probs"
                | "prediction"
                | "predictions"
                | "classifier"
                | "head"
                | "softmax"
                | "sigmoid"
                | "final"
                | "last"
        )
    })
}

/// Words and numbers of a name, separators dropped: `fc_12.a` gives `[fc, a]` and `[12]`.
fn tokens(name: &str) -> (Vec<String>, Vec<u64>) {
    let (mut words, mut numbers) = (Vec::new(), Vec::new());
    for part in name.split(|c: char| !c.is_ascii_alphanumeric()) {
        let mut rest = part;
        while let Some(first) = rest.chars().next() {
            let digits = first.is_ascii_digit();
            let len = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
            let (token, tail) = rest.split_at(len);
            if digits {
                numbers.push(token.parse().unwrap_or(u64::MAX));
            } else {
                words.push(token.to_ascii_lowercase());
            }
            rest = tail;
        }
    }
    (words, numbers)
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_split_into_layer_and_role() {
        for (name, layer, role) in [
            ("hidden1.kernel", "hidden1", Role::Kernel),
            ("sequential/dense_2/bias:0", "sequential/dense_2", Role::Bias),
            ("batch_normalization.moving_variance", "batch_normalization", Role::Variance),
            ("bn_moving_mean", "bn", Role::Mean),
            ("net.0.weight", "net.0", Role::Weight),
            ("layers/dense/vars/1", "layers/dense", Role::Var(1)),
            ("dropout.seed_generator_state", "dropout", Role::Ignored),
            ("kernel", "", Role::Kernel),
        ] {
            assert_eq!(split(name), Some((layer, role)), "{name}");
        }
        assert_eq!(split("embedding.table"), None);
        assert_eq!(split("xkernel"), None);
    }

    #[test]
    fn names_order_by_number_and_output_word() {
        assert_eq!(order("dense", "dense_1"), Some(Ordering::Less));
        assert_eq!(order("dense_10", "dense_9"), Some(Ordering::Greater));
        assert_eq!(order("net.0", "net.3"), Some(Ordering::Less));
        assert_eq!(order("hidden1", "probability"), Some(Ordering::Less));
        assert_eq!(order("alpha", "beta"), None);
        assert_eq!(order("dense", "dense"), None);
    }
}
