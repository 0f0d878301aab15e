//! Tensors of a safetensors file, grouped by the layer they belong to.

use std::collections::BTreeMap;

use super::names::{self, Role};
use crate::dense::DenseError;
use crate::dense::tensors::Tensors;

/// A dense layer's tensors. Names are those in the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DenseGroup {
    pub(super) kernel: String,
    pub(super) bias: Option<String>,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Stored `[outputs, inputs]`, as PyTorch does.
    pub(super) transposed: bool,
}

/// A normalisation's tensors.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NormGroup {
    pub(super) gamma: Option<String>,
    pub(super) beta: Option<String>,
    pub(super) mean: String,
    pub(super) variance: String,
    pub(super) width: usize,
    /// Named as PyTorch does, whose default epsilon differs.
    pub(super) torch: bool,
}

/// All layers of a file by name.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) dense: BTreeMap<String, DenseGroup>,
    pub(super) norm: BTreeMap<String, NormGroup>,
}

/// One tensor on its way into a group.
struct Member {
    name: String,
    role: Role,
    shape: Vec<usize>,
}

impl Groups {
    /// Sorts every tensor into a layer; counters and random state are set aside.
    pub(super) fn collect(tensors: &mut Tensors<'_>) -> Result<Self, DenseError> {
        let mut members: BTreeMap<String, Vec<Member>> = BTreeMap::new();
        let mut ignored = Vec::new();
        for (name, shape) in tensors.shapes() {
            let hint = "its name ends in no known role such as kernel, weight, bias, gamma";
            match names::split(name) {
                None => return Err(DenseError::UnusedTensor { name: name.to_owned(), hint }),
                Some((_, Role::Ignored)) => ignored.push(name.to_owned()),
                Some((layer, _)) if layer.starts_with("optimizer") => ignored.push(name.to_owned()),
                Some((layer, role)) => members.entry(layer.to_owned()).or_default().push(Member {
                    name: name.to_owned(),
                    role,
                    shape: shape.to_vec(),
                }),
            }
        }
        for name in ignored {
            tensors.ignore(&name);
        }
        let mut groups = Self::default();
        for (layer, members) in members {
            groups.add(layer, number_vars(members))?;
        }
        Ok(groups)
    }

    fn add(&mut self, layer: String, members: Vec<Member>) -> Result<(), DenseError> {
        let find = |role: Role| members.iter().find(|member| member.role == role);
        let name = |member: Option<&Member>| member.map(|member| member.name.clone());
        if let Some(kernel) =
            find(Role::Kernel).or(find(Role::Weight).filter(|weight| weight.shape.len() == 2))
        {
            let [first, second] = *kernel.shape.as_slice() else {
                let want = vec![0, 0];
                return Err(DenseError::Shape {
                    place: kernel.name.clone(),
                    got: kernel.shape.clone(),
                    want,
                });
            };
            let transposed = kernel.role == Role::Weight;
            let (inputs, outputs) = if transposed { (second, first) } else { (first, second) };
            let bias = name(find(Role::Bias));
            let group = DenseGroup { kernel: kernel.name.clone(), bias, inputs, outputs, transposed };
            self.dense.insert(layer, group);
            return Ok(());
        }
        match (find(Role::Mean), find(Role::Variance)) {
            (Some(mean), Some(variance)) => {
                let weight = find(Role::Weight);
                let group = NormGroup {
                    gamma: name(find(Role::Gamma).or(weight)),
                    beta: name(find(Role::Beta).or(find(Role::Bias))),
                    mean: mean.name.clone(),
                    variance: variance.name.clone(),
                    width: mean.shape.iter().product(),
                    torch: mean.name.ends_with("running_mean"),
                };
                self.norm.insert(layer, group);
                Ok(())
            }
            _ => {
                let hint =
                    "a layer with neither kernel nor running mean and variance, perhaps layer normalisation";
                let name = members.into_iter().next().map_or(layer, |member| member.name);
                Err(DenseError::UnusedTensor { name, hint })
            }
        }
    }
}

/// Gives the numbered variables of a Keras weights file their roles: a matrix comes first in a dense layer; four
/// vectors are gamma, beta, mean and variance.
fn number_vars(mut members: Vec<Member>) -> Vec<Member> {
    let dense = members.iter().any(|member| member.role == Role::Var(0) && member.shape.len() == 2);
    let norm = members.len() == 4;
    for member in &mut members {
        member.role = match member.role {
            Role::Var(0) if dense => Role::Kernel,
            Role::Var(1) if dense => Role::Bias,
            Role::Var(0) if norm => Role::Gamma,
            Role::Var(1) if norm => Role::Beta,
            Role::Var(2) if norm => Role::Mean,
            Role::Var(3) if norm => Role::Variance,
            role => role,
        };
    }
    members
}
