//! A structure from names, shapes and values alone.
//!
//! Order of dense layers: the only chain of fitting shapes that also agrees with what names say. Batch normalisation:
//! the only layer it fits. Before or after the activation: running means behind a function that is never negative
//! cannot be negative, so one negative mean proves "before" and many means without one prove "after"; a dense layer
//! without bias is followed by normalisation directly. Where two networks remain, the caller must say more.

use std::cmp::Ordering;

use super::groups::{DenseGroup, Groups, NormGroup};
use super::{BatchNormPlacement, Overrides, Structure, StructureLayer, names};
use crate::dense::tensors::Tensors;
use crate::dense::{Activation, DenseError};

/// Most steps of the search for an order; names or shapes that need more tell nothing.
const MAX_STEPS: usize = 100_000;
/// So many positive means without a negative one prove that no mean can be negative (chance 1 in 256 otherwise).
const MIN_MEANS: usize = 8;

pub(super) fn structure(
    tensors: &mut Tensors<'_>,
    groups: &Groups,
    overrides: &Overrides,
) -> Result<Structure, DenseError> {
    let dense: Vec<(&str, &DenseGroup)> =
        groups.dense.iter().map(|(name, group)| (name.as_str(), group)).collect();
    let chain = order(&dense)?;
    let norms = place(&chain, groups)?;
    let hidden = overrides.activation.unwrap_or(Activation::Relu);
    let placement = match overrides.batch_norm {
        Some(placement) => placement,
        // An input normalisation has no activation to stand before or after.
        None if norms.iter().skip(1).all(Option::is_none) => BatchNormPlacement::Before,
        None => placement(tensors, &chain, &norms, hidden)?,
    };
    let mut layers = Vec::new();
    let mut norms = norms.into_iter();
    push_norm(&mut layers, norms.next().flatten(), overrides);
    for (index, ((name, group), norm)) in chain.iter().zip(norms).enumerate() {
        layers.push(StructureLayer::Dense { name: (*name).to_owned() });
        let function = if index + 1 < chain.len() {
            hidden
        } else {
            let default = if group.outputs == 1 { Activation::Sigmoid } else { Activation::Softmax };
            overrides.output.unwrap_or(default)
        };
        if placement == BatchNormPlacement::Before {
            push_norm(&mut layers, norm, overrides);
            layers.push(StructureLayer::Activation { function });
        } else {
            layers.push(StructureLayer::Activation { function });
            push_norm(&mut layers, norm, overrides);
        }
    }
    Ok(Structure { layers })
}

fn push_norm(layers: &mut Vec<StructureLayer>, norm: Option<(&str, &NormGroup)>, overrides: &Overrides) {
    if let Some((name, group)) = norm {
        let default = if group.torch { 1e-5 } else { 1e-3 };
        let epsilon = overrides.epsilon.unwrap_or(default);
        layers.push(StructureLayer::BatchNorm { name: name.to_owned(), epsilon });
    }
}

/// The one chain of all dense layers whose shapes fit, by names and shapes, else by shapes alone.
fn order<'g>(dense: &[(&'g str, &'g DenseGroup)]) -> Result<Vec<(&'g str, &'g DenseGroup)>, DenseError> {
    if dense.is_empty() {
        return Err(DenseError::Empty);
    }
    for by_name in [true, false] {
        let mut search = Search { dense, by_name, steps: 0, found: Vec::new() };
        search.extend(&mut Vec::new());
        if let [only] = search.found.as_slice()
            && search.steps <= MAX_STEPS
        {
            return Ok(only.iter().filter_map(|index| dense.get(*index).copied()).collect());
        }
        if !search.found.is_empty() || search.steps > MAX_STEPS {
            break;
        }
    }
    let shapes: Vec<String> = dense
        .iter()
        .take(8)
        .map(|(name, group)| format!("{name} {}x{}", group.inputs, group.outputs))
        .collect();
    Err(DenseError::Ambiguous {
        what: format!("the order of the dense layers ({})", shapes.join(", ")),
        or: "",
    })
}

/// Depth-first search for chains; stops at the second one.
struct Search<'s> {
    dense: &'s [(&'s str, &'s DenseGroup)],
    by_name: bool,
    steps: usize,
    found: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn extend(&mut self, chain: &mut Vec<usize>) {
        self.steps += 1;
        if self.found.len() > 1 || self.steps > MAX_STEPS {
            return;
        }
        if chain.len() == self.dense.len() {
            self.found.push(chain.clone());
            return;
        }
        let width = chain.last().and_then(|last| self.dense.get(*last)).map(|(_, group)| group.outputs);
        for (next, (name, group)) in self.dense.iter().enumerate() {
            let fits = width.is_none_or(|width| width == group.inputs);
            if !fits || chain.contains(&next) || (self.by_name && self.comes_later(chain, next, name)) {
                continue;
            }
            chain.push(next);
            self.extend(chain);
            chain.pop();
        }
    }

    /// Whether a layer not yet in the chain has a name that comes before `name`.
    fn comes_later(&self, chain: &[usize], next: usize, name: &str) -> bool {
        self.dense.iter().enumerate().any(|(other, (other_name, _))| {
            other != next && !chain.contains(&other) && names::order(other_name, name) == Some(Ordering::Less)
        })
    }
}

type Slot<'g> = Option<(&'g str, &'g NormGroup)>;

/// Normalisations by position: slot 0 is the input, slot `i` belongs to the `i`-th dense layer.
fn place<'g>(chain: &[(&str, &DenseGroup)], groups: &'g Groups) -> Result<Vec<Slot<'g>>, DenseError> {
    let mut norms: Vec<(&str, &NormGroup)> =
        groups.norm.iter().map(|(name, group)| (name.as_str(), group)).collect();
    norms.sort_by(|(a, _), (b, _)| names::order(a, b).unwrap_or_else(|| a.cmp(b)));
    let widths: Vec<usize> =
        chain.iter().take(1).map(|(_, g)| g.inputs).chain(chain.iter().map(|(_, g)| g.outputs)).collect();
    let unordered = norms.iter().enumerate().any(|(index, (a, group_a))| {
        norms
            .iter()
            .skip(index + 1)
            .any(|(b, group_b)| group_a.width == group_b.width && names::order(a, b).is_none())
    });
    let fits = |slots: &[usize]| {
        slots.iter().zip(&norms).all(|(slot, (_, group))| widths.get(*slot) == Some(&group.width))
    };
    // The usual network normalises every hidden layer and nothing else.
    let usual: Vec<usize> = (1..chain.len()).collect();
    let slots = if usual.len() == norms.len() && fits(&usual) {
        Some(usual)
    } else {
        only_assignment(&widths, &norms.iter().map(|(_, group)| group.width).collect::<Vec<_>>())
    };
    let Some(slots) = slots.filter(|_| !unordered) else {
        let what = format!("which layers the {} batch normalisations belong to", norms.len());
        return Err(DenseError::Ambiguous { what, or: "" });
    };
    let mut placed = vec![None; widths.len()];
    for (slot, norm) in slots.iter().zip(norms) {
        if let Some(place) = placed.get_mut(*slot) {
            *place = Some(norm);
        }
    }
    Ok(placed)
}

/// The only way to give each of `wanted` a slot of its width, in order; found from both ends: the earliest and the
/// latest assignment are the same if and only if there is one.
fn only_assignment(widths: &[usize], wanted: &[usize]) -> Option<Vec<usize>> {
    let mut earliest = Vec::new();
    let mut slots = widths.iter().enumerate();
    for want in wanted {
        earliest.push(slots.find(|(_, width)| *width == want)?.0);
    }
    let mut latest = Vec::new();
    let mut slots = widths.iter().enumerate().rev();
    for want in wanted.iter().rev() {
        latest.push(slots.find(|(_, width)| *width == want)?.0);
    }
    latest.reverse();
    (earliest == latest).then_some(earliest)
}

/// Before or after the activation, as the running means and missing biases prove it for every normalised layer.
fn placement(
    tensors: &mut Tensors<'_>,
    chain: &[(&str, &DenseGroup)],
    norms: &[Slot<'_>],
    hidden: Activation,
) -> Result<BatchNormPlacement, DenseError> {
    let (mut before, mut after) = (false, false);
    for ((_, dense), norm) in chain.iter().zip(norms.iter().skip(1)) {
        let Some((_, group)) = norm else { continue };
        let mean = tensors.take(&group.mean)?.values;
        let negative = mean.iter().any(|mean| *mean < 0.0);
        let positive = mean.iter().filter(|mean| **mean > 0.0).count();
        before |= dense.bias.is_none() || (hidden.is_nonnegative() && negative);
        after |= dense.bias.is_some() && hidden.is_nonnegative() && !negative && positive >= MIN_MEANS;
    }
    match (before, after) {
        (true, false) => Ok(BatchNormPlacement::Before),
        (false, true) => Ok(BatchNormPlacement::After),
        _ => Err(DenseError::Ambiguous {
            what: "whether batch normalisation stands before or after the activation".to_owned(),
            or: " or `--batch-norm before|after`",
        }),
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;

    fn group(inputs: usize, outputs: usize) -> DenseGroup {
        DenseGroup { kernel: String::new(), bias: None, inputs, outputs, transposed: false }
    }

    fn ordered(layers: &[(&str, usize, usize)]) -> Option<Vec<String>> {
        let groups: Vec<DenseGroup> = layers.iter().map(|(_, i, o)| group(*i, *o)).collect();
        let dense: Vec<_> = layers.iter().zip(&groups).map(|((name, ..), group)| (*name, group)).collect();
        Some(order(&dense).ok()?.into_iter().map(|(name, _)| name.to_owned()).collect())
    }

    #[test]
    fn order_by_shape_where_names_are_silent() {
        assert_eq!(ordered(&[("c", 8, 4), ("a", 4, 2), ("b", 16, 8)]).unwrap(), ["b", "c", "a"]);
        // Names contradict the only chain there is: shapes win.
        assert_eq!(ordered(&[("dense", 8, 4), ("dense_1", 16, 8)]).unwrap(), ["dense_1", "dense"]);
    }

    #[test]
    fn order_by_number_where_shapes_are_equal() {
        let names: Vec<String> = (0..12).map(|index| format!("dense_{index}")).collect();
        let layers: Vec<_> = names.iter().rev().map(|name| (name.as_str(), 8, 8)).collect();
        assert_eq!(ordered(&layers).unwrap(), names);
    }

    #[test]
    fn equal_shapes_with_silent_names_are_refused() {
        assert_eq!(ordered(&[("left", 8, 8), ("right", 8, 8)]), None);
        let names: Vec<String> = (b'a'..b'm').map(|c| char::from(c).to_string()).collect();
        assert_eq!(ordered(&names.iter().map(|name| (name.as_str(), 8, 8)).collect::<Vec<_>>()), None);
    }

    #[test]
    fn normalisations_go_where_they_fit() {
        assert_eq!(only_assignment(&[20, 24, 16, 10], &[24, 16]), Some(vec![1, 2]));
        assert_eq!(only_assignment(&[20, 24, 24, 10], &[24]), None);
        assert_eq!(only_assignment(&[20, 24, 16, 10], &[16, 24]), None);
    }
}
