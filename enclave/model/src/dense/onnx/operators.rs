//! What each operator does to constants and to the row.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::builder::Builder;
use super::constant::Constant;
use super::expression::{Expression, Expressions, Id};
use super::proto::{Attribute, Node};
use crate::dense::{Activation, DenseError, DenseModel};

/// Deepest expression; bounds recursion. Exporters need about ten between two matrices.
const MAX_NESTING: usize = 128;

/// The value of a tensor name.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Known now.
    Constant(Rc<Constant>),
    /// Depends on the input. Rank counts the batch dimension.
    Signal { expression: Id, rank: usize, nesting: usize },
}

/// Runs nodes one after the other.
pub(super) struct Evaluator {
    values: BTreeMap<String, Value>,
    expressions: Expressions,
    builder: Builder,
    opset: i64,
    /// Fixed batch size of the graph's input, or 0.
    batch: i64,
    /// Class names found in a classifier operator.
    pub(super) labels: Option<Vec<String>>,
}

/// Why a node was refused; the caller adds the node's name.
type Refusal = String;

impl Evaluator {
    /// `shape` is the declared shape of the input: batch first, 0 or less for free dimensions.
    pub(super) fn new(
        values: BTreeMap<String, Value>,
        opset: i64,
        input: &str,
        shape: Option<&[i64]>,
    ) -> Self {
        let features: Option<Vec<usize>> = shape.and_then(|shape| shape.get(1..)).map(|dims| {
            dims.iter().filter_map(|dim| usize::try_from(*dim).ok().filter(|dim| *dim > 0)).collect()
        });
        let rank = shape.map_or(2, <[i64]>::len);
        let known = features.filter(|features| !features.is_empty() && features.len() + 1 == rank);
        let width = known.and_then(|dims| crate::dense::tensors::elements(&dims));
        let batch = shape.and_then(|shape| shape.first()).copied().unwrap_or(0);
        let mut new = Self {
            values,
            expressions: Expressions::default(),
            builder: Builder::new(width),
            opset,
            batch,
            labels: None,
        };
        let expression = new.expressions.add(Expression::Row(0));
        new.values.insert(input.to_owned(), Value::Signal { expression, rank, nesting: 0 });
        new
    }

    pub(super) fn run(&mut self, node: &Node) -> Result<(), DenseError> {
        let value = self.evaluate(node).map_err(|why| {
            let name = if node.name.is_empty() {
                node.output.first().cloned().unwrap_or_default()
            } else {
                node.name.clone()
            };
            let operator = match node.domain.as_str() {
                "" | "ai.onnx" => node.op_type.clone(),
                domain => format!("{domain}:{}", node.op_type),
            };
            DenseError::Node { node: name, operator, why }
        })?;
        // LinearClassifier puts its labels first and its scores second.
        let output =
            if node.op_type == "LinearClassifier" { node.output.get(1) } else { node.output.first() };
        if let Some(output) = output {
            self.values.insert(output.clone(), value);
        }
        Ok(())
    }

    /// Turns `output` into layers and the layers into a model.
    pub(super) fn finish(mut self, output: &str) -> Result<DenseModel, DenseError> {
        let Some(Value::Signal { expression, .. }) = self.values.get(output).cloned() else {
            return Err(DenseError::Graph(format!("output `{output}` does not depend on the input")));
        };
        self.lower(expression).map_err(|why| DenseError::Graph(format!("output `{output}`: {why}")))?;
        self.builder.finish()
    }

    fn evaluate(&mut self, node: &Node) -> Result<Value, Refusal> {
        let mut inputs = Vec::with_capacity(node.input.len().min(16));
        for name in &node.input {
            inputs.push(match self.values.get(name) {
                _ if name.is_empty() => None,
                None => return Err(format!("input `{name}` is not computed before it is used")),
                value => value.cloned(),
            });
        }
        let inputs: Vec<Option<&Value>> = inputs.iter().map(Option::as_ref).collect();
        let signals = inputs.iter().flatten().filter(|value| matches!(value, Value::Signal { .. })).count();
        if signals == 0 {
            return self.fold(node, &inputs).map(|constant| Value::Constant(Rc::new(constant)));
        }
        let first = inputs.first().copied().flatten().ok_or("has no first input")?;
        let second = inputs.get(1).copied().flatten();
        match node.op_type.as_str() {
            "Identity" | "Dropout" | "Cast" | "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => {
                self.pass(node, first, &inputs)
            }
            "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" | "Pow" => {
                self.binary(node, first, second.ok_or("has one input, two are needed")?)
            }
            "MatMul" => self.matmul(first, constant(second)?),
            "Gemm" => self.gemm(node, first, &inputs),
            "Concat" => self.concat(&inputs),
            "BatchNormalization" => self.batch_norm(node, first, &inputs),
            "Scaler" => self.scaler(node, first),
            // Probabilities of softmax sum to one already.
            "Normalizer" if string(node, "norm").as_deref() == Some("L1") && self.is_softmax(first) => {
                Ok(first.clone())
            }
            "LinearClassifier" | "LinearRegressor" => self.linear(node, first),
            _ => self.unary(node, first, &inputs),
        }
    }

    /// Operators between constants.
    fn fold(&self, node: &Node, inputs: &[Option<&Value>]) -> Result<Constant, Refusal> {
        if node.op_type == "Constant" {
            return constant_node(node);
        }
        let input = |index: usize| constant(inputs.get(index).copied().flatten());
        let first = input(0)?;
        let zip = |function: fn(f64, f64) -> f64| {
            first.zip(input(1)?, function).ok_or_else(|| "shapes of its constants do not fit".to_owned())
        };
        let fits =
            |result: Option<Constant>| result.ok_or_else(|| "shape of its constant does not fit".to_owned());
        match node.op_type.as_str() {
            "Identity" | "Cast" => Ok(first.clone()),
            "Add" => zip(|a, b| a + b),
            "Sub" => zip(|a, b| a - b),
            "Mul" => zip(|a, b| a * b),
            "Div" => zip(|a, b| a / b),
            "Pow" => zip(f64::powf),
            "Max" => zip(f64::max),
            "Sqrt" => Ok(first.map(f64::sqrt)),
            "Reciprocal" => Ok(first.map(|x| 1.0 / x)),
            "Neg" => Ok(first.map(|x| -x)),
            "Transpose" => match ints(node, "perm") {
                None | Some([1, 0]) => fits(first.transpose()),
                Some(_) => Err("only matrices can be transposed here".to_owned()),
            },
            "Reshape" => fits(first.reshape(&input(1)?.as_ints())),
            "Squeeze" | "Unsqueeze" if first.shape.iter().filter(|dim| **dim != 1).count() <= 1 => {
                let len = i64::try_from(first.values.len()).unwrap_or(-1);
                let shape = if node.op_type == "Squeeze" { vec![len] } else { vec![1, len] };
                fits(first.reshape(&shape))
            }
            _ => {
                Err("operator is not supported on constants; simplify the model (onnxsim) or export it anew"
                    .to_owned())
            }
        }
    }

    /// Operators that do nothing to a row of `[batch, width]`.
    fn pass(&mut self, node: &Node, value: &Value, inputs: &[Option<&Value>]) -> Result<Value, Refusal> {
        let Value::Signal { expression, rank, nesting } = *value else {
            return Err("its data input is a constant".to_owned());
        };
        let with_rank = |rank| Ok(Value::Signal { expression, rank, nesting });
        match node.op_type.as_str() {
            "Dropout" => match inputs.get(2).copied().flatten() {
                None => with_rank(rank),
                Some(Value::Constant(training)) if training.as_scalar() == Some(0.0) => with_rank(rank),
                Some(_) => Err("is in training mode; export the model for inference".to_owned()),
            },
            "Cast" => match int(node, "to") {
                Some(1 | 11) => with_rank(rank),
                _ => Err("only casts to float and double are supported on the data path".to_owned()),
            },
            "Flatten" if matches!(int(node, "axis"), None | Some(1)) => with_rank(2),
            "Flatten" => Err("only axis 1 (one row per sample) is supported".to_owned()),
            "Reshape" => {
                let target = constant(inputs.get(1).copied().flatten())?.as_ints();
                with_rank(self.reshape(&target)?)
            }
            "Squeeze" if self.builder.width == Some(1) && rank == 2 => with_rank(1),
            "Unsqueeze" if rank == 1 => with_rank(2),
            "Identity" => with_rank(rank),
            _ => Err("changes the shape of the data in a way that is not supported".to_owned()),
        }
    }

    /// Rank after a reshape that keeps one row per sample.
    fn reshape(&mut self, target: &[i64]) -> Result<usize, Refusal> {
        let refusal = || format!("reshapes data to {target:?}; only one flat row per sample is supported");
        match (target, self.builder.width) {
            ([-1], Some(1)) => Ok(1),
            ([first, width], _) => {
                let keeps_batch = matches!(first, -1 | 0) || (*first == self.batch && self.batch > 0);
                let flat = match usize::try_from(*width) {
                    Ok(width) if width > 0 => self.builder.learn_width(width),
                    _ => *width == -1 && *first != -1,
                };
                if keeps_batch && flat { Ok(2) } else { Err(refusal()) }
            }
            _ => Err(refusal()),
        }
    }

    fn signal(&mut self, expression: Expression, like: &Value) -> Result<Value, Refusal> {
        let Value::Signal { rank, nesting, .. } = *like else {
            return Err("its data input is a constant".to_owned());
        };
        if nesting >= MAX_NESTING {
            return Err("too many elementwise operators in a row".to_owned());
        }
        let expression = self.expressions.add(expression);
        Ok(Value::Signal { expression, rank, nesting: nesting + 1 })
    }

    fn function(&mut self, function: Activation, of: &Value) -> Result<Value, Refusal> {
        self.signal(Expression::Function { of: id(of)?, function }, of)
    }

    fn affine(&mut self, of: &Value, scale: Rc<Constant>, shift: Rc<Constant>) -> Result<Value, Refusal> {
        self.signal(Expression::Affine { of: id(of)?, scale, shift }, of)
    }

    fn binary(&mut self, node: &Node, a: &Value, b: &Value) -> Result<Value, Refusal> {
        let number = |value| Rc::new(Constant::scalar(value));
        match (node.op_type.as_str(), a, b) {
            ("Add", signal @ Value::Signal { .. }, Value::Constant(c))
            | ("Add", Value::Constant(c), signal @ Value::Signal { .. }) => {
                self.affine(signal, number(1.0), c.clone())
            }
            ("Mul", signal @ Value::Signal { .. }, Value::Constant(c))
            | ("Mul", Value::Constant(c), signal @ Value::Signal { .. }) => {
                self.affine(signal, c.clone(), number(0.0))
            }
            ("Sub", signal, Value::Constant(c)) => self.affine(signal, number(1.0), Rc::new(c.map(|x| -x))),
            ("Sub", Value::Constant(c), signal) => self.affine(signal, number(-1.0), c.clone()),
            ("Div", signal, Value::Constant(c)) => {
                self.affine(signal, Rc::new(c.map(|x| 1.0 / x)), number(0.0))
            }
            ("Max", signal @ Value::Signal { .. }, Value::Constant(c))
            | ("Max", Value::Constant(c), signal @ Value::Signal { .. })
                if c.as_scalar() == Some(0.0) =>
            {
                self.function(Activation::Relu, signal)
            }
            ("Min", signal @ Value::Signal { .. }, Value::Constant(c))
            | ("Min", Value::Constant(c), signal @ Value::Signal { .. })
                if c.as_scalar() == Some(6.0) =>
            {
                match self.expressions.get(id(signal)?).cloned() {
                    Some(Expression::Function { of, function: Activation::Relu }) => {
                        self.signal(Expression::Function { of, function: Activation::Relu6 }, signal)
                    }
                    _ => Err("min(x, 6) is supported only as the upper half of relu6".to_owned()),
                }
            }
            ("Pow", signal, Value::Constant(c)) => {
                let x = id(signal)?;
                let square = self.signal(Expression::Product(x, x), signal)?;
                match c.as_scalar() {
                    Some(2.0) => Ok(square),
                    Some(3.0) => self.signal(Expression::Product(x, id(&square)?), &square),
                    _ => Err("only powers 2 and 3 are supported, as parts of GELU".to_owned()),
                }
            }
            ("Mul", Value::Signal { .. }, Value::Signal { .. }) => {
                self.signal(Expression::Product(id(a)?, id(b)?), deeper(a, b))
            }
            ("Add", Value::Signal { .. }, Value::Signal { .. }) => {
                self.signal(Expression::Sum(id(a)?, id(b)?), deeper(a, b))
            }
            _ => {
                Err("this combination of inputs is not supported; the model is not a chain of layers"
                    .to_owned())
            }
        }
    }

    fn matmul(&mut self, data: &Value, kernel: &Constant) -> Result<Value, Refusal> {
        let [inputs, outputs] = kernel.as_matrix().ok_or("its weights are not a matrix")?;
        self.dense(data, inputs, outputs, &kernel.values)
    }

    /// Closes the expression `data` into layers and appends a matrix product.
    fn dense(
        &mut self,
        data: &Value,
        inputs: usize,
        outputs: usize,
        kernel: &[f64],
    ) -> Result<Value, Refusal> {
        match data {
            Value::Signal { rank: 2, .. } => {}
            _ => return Err("its data input is not [batch, features]; flatten it first".to_owned()),
        }
        if self.builder.width.is_some_and(|width| width != inputs) {
            return Err(format!(
                "its weights take {inputs} values, {:?} arrive",
                self.builder.width.unwrap_or(0)
            ));
        }
        self.builder.learn_width(inputs);
        self.lower(id(data)?)?;
        self.builder.dense(inputs, outputs, kernel.iter().copied());
        let expression = self.expressions.add(Expression::Row(self.builder.row()));
        Ok(Value::Signal { expression, rank: 2, nesting: 0 })
    }

    fn gemm(&mut self, node: &Node, data: &Value, inputs: &[Option<&Value>]) -> Result<Value, Refusal> {
        let kernel = constant(inputs.get(1).copied().flatten())?;
        if int(node, "transA").unwrap_or(0) != 0 {
            return Err("transA is not supported: data is [batch, features]".to_owned());
        }
        let transposed = if int(node, "transB").unwrap_or(0) == 0 { None } else { kernel.transpose() };
        let kernel = transposed.as_ref().unwrap_or(kernel).map(|x| x * float(node, "alpha").unwrap_or(1.0));
        let product = self.matmul(data, &kernel)?;
        match inputs.get(2).copied().flatten() {
            None => Ok(product),
            Some(bias) => {
                let bias = constant(Some(bias))?.map(|x| x * float(node, "beta").unwrap_or(1.0));
                self.affine(&product, Rc::new(Constant::scalar(1.0)), Rc::new(bias))
            }
        }
    }

    fn batch_norm(&mut self, node: &Node, data: &Value, inputs: &[Option<&Value>]) -> Result<Value, Refusal> {
        if int(node, "training_mode").unwrap_or(0) != 0 {
            return Err("is in training mode; export the model for inference".to_owned());
        }
        let input = |index: usize| constant(inputs.get(index).copied().flatten());
        let (gamma, beta, mean, variance) = (input(1)?, input(2)?, input(3)?, input(4)?);
        let epsilon = float(node, "epsilon").unwrap_or(1e-5);
        let misfit = || "its four vectors differ in length".to_owned();
        let scale = gamma.zip(&variance.map(|v| (v + epsilon).sqrt()), |g, v| g / v).ok_or_else(misfit)?;
        let product = mean.zip(&scale, |m, s| m * s).ok_or_else(misfit)?;
        let shift = beta.zip(&product, |b, p| b - p).ok_or_else(misfit)?;
        self.affine(data, Rc::new(scale), Rc::new(shift))
    }

    /// `ai.onnx.ml.Scaler`: `(x - offset) * scale`.
    fn scaler(&mut self, node: &Node, data: &Value) -> Result<Value, Refusal> {
        let (offset, scale) = (floats(node, "offset"), floats(node, "scale"));
        let shift = offset.zip(&scale, |o, s| -o * s).ok_or("offset and scale differ in length")?;
        self.affine(data, Rc::new(scale), Rc::new(shift))
    }

    fn is_softmax(&self, value: &Value) -> bool {
        let expression = id(value).ok().and_then(|id| self.expressions.get(id));
        matches!(expression, Some(Expression::Function { function: Activation::Softmax, .. }))
    }

    /// `ai.onnx.ml.LinearClassifier` and `LinearRegressor`: coefficients `[targets, features]`.
    fn linear(&mut self, node: &Node, data: &Value) -> Result<Value, Refusal> {
        let coefficients = floats(node, "coefficients");
        let intercepts = floats(node, "intercepts");
        let targets = intercepts.values.len();
        let rows = i64::try_from(targets).unwrap_or(-1);
        if targets == 0 {
            return Err("has no intercepts".to_owned());
        }
        let kernel = coefficients.reshape(&[rows, -1]).and_then(|matrix| matrix.transpose());
        let product = self.matmul(data, &kernel.ok_or("coefficients do not fit its intercepts")?)?;
        let scores = self.affine(&product, Rc::new(Constant::scalar(1.0)), Rc::new(intercepts))?;
        self.labels = self.labels.take().or(class_labels(node));
        match string(node, "post_transform").as_deref() {
            None | Some("NONE") => Ok(scores),
            Some("LOGISTIC") => self.function(Activation::Sigmoid, &scores),
            Some("SOFTMAX") => self.function(Activation::Softmax, &scores),
            Some(other) => Err(format!("post_transform {other} is not supported")),
        }
    }

    /// Scaled copies of one value side by side: `[1 - p, p]` of a two-class model is a dense layer from one unit.
    fn concat(&mut self, inputs: &[Option<&Value>]) -> Result<Value, Refusal> {
        let refusal = || "only copies of one single value can be put side by side".to_owned();
        let (mut base, mut scales, mut shifts) = (None, Vec::new(), Vec::new());
        for value in inputs.iter().flatten() {
            let (mut scale, mut shift, mut of) = (1.0, 0.0, id(value)?);
            while let Some(Expression::Affine { of: inner, scale: by, shift: plus }) =
                self.expressions.get(of)
            {
                let (by, plus) = (by.as_scalar().ok_or_else(refusal)?, plus.as_scalar().ok_or_else(refusal)?);
                (scale, shift, of) = (scale * by, shift + scale * plus, *inner);
            }
            if *base.get_or_insert(of) != of || self.builder.width != Some(1) {
                return Err(refusal());
            }
            scales.push(scale);
            shifts.push(shift);
        }
        let data = Value::Signal { expression: base.ok_or_else(refusal)?, rank: 2, nesting: 0 };
        let row = self.dense(&data, 1, scales.len(), &scales)?;
        let shift = Constant { shape: vec![shifts.len()], values: shifts };
        self.affine(&row, Rc::new(Constant::scalar(1.0)), Rc::new(shift))
    }

    fn unary(&mut self, node: &Node, of: &Value, inputs: &[Option<&Value>]) -> Result<Value, Refusal> {
        let number = |name, default: f64| crate::dense::tensors::narrow(float(node, name).unwrap_or(default));
        let function = match node.op_type.as_str() {
            "Relu" => Activation::Relu,
            "Sigmoid" => Activation::Sigmoid,
            "Tanh" => Activation::Tanh,
            "Softplus" => Activation::Softplus,
            "Softsign" => Activation::Softsign,
            "Exp" => Activation::Exp,
            "Mish" => Activation::Mish,
            "LeakyRelu" => Activation::LeakyRelu { slope: number("alpha", 0.01) },
            "Elu" => Activation::Elu { alpha: number("alpha", 1.0) },
            "Selu" if is_default_selu(node) => Activation::Selu,
            "Selu" => return Err("only the standard constants of SELU are supported".to_owned()),
            "HardSigmoid" => {
                Activation::HardSigmoid { slope: number("alpha", 0.2), offset: number("beta", 0.5) }
            }
            "PRelu" => match constant(inputs.get(1).copied().flatten())?.as_scalar() {
                Some(slope) => Activation::LeakyRelu { slope: crate::dense::tensors::narrow(slope) },
                None => return Err("only one slope for all units is supported".to_owned()),
            },
            "Gelu" => match string(node, "approximate").as_deref() {
                None | Some("none") => Activation::Gelu,
                Some("tanh") => Activation::GeluTanh,
                Some(other) => return Err(format!("approximation {other} is not known")),
            },
            "Softmax" | "LogSoftmax" => {
                let axis = int(node, "axis").unwrap_or(if self.opset < 13 { 1 } else { -1 });
                if !matches!((axis, of), (1 | -1, Value::Signal { rank: 2, .. })) {
                    return Err(format!("axis {axis} is not the last one of [batch, units]"));
                }
                if node.op_type == "Softmax" { Activation::Softmax } else { Activation::LogSoftmax }
            }
            "Clip" => clip(node, inputs)?,
            "Neg" => {
                let (minus, zero) = (Constant::scalar(-1.0), Constant::scalar(0.0));
                return self.affine(of, Rc::new(minus), Rc::new(zero));
            }
            "Erf" => return self.signal(Expression::Erf(id(of)?), of),
            "Erfc" => return self.signal(Expression::Erfc(id(of)?), of),
            _ => {
                return Err("operator is not supported in a dense model; see `adyton model convert --help` for the list"
                    .to_owned());
            }
        };
        self.function(function, of)
    }

    /// Appends the layers that compute `expression` from the current row.
    fn lower(&mut self, expression: Id) -> Result<(), Refusal> {
        let branch = || {
            "uses a value from before the last matrix product; branches and residuals are not supported"
                .to_owned()
        };
        match self.expressions.get(expression).cloned().ok_or("internal: unknown expression")? {
            Expression::Row(row) if row == self.builder.row() => Ok(()),
            Expression::Row(_) => Err(branch()),
            Expression::Affine { of, scale, shift } => {
                self.lower(of)?;
                let width = self
                    .builder
                    .width
                    .ok_or("number of features is not known; export with a fixed input width")?;
                let misfit = |what: &str| format!("a {what} does not fit a row of {width}");
                let scale = scale.as_row(width).ok_or_else(|| misfit("factor"))?;
                let shift = shift.as_row(width).ok_or_else(|| misfit("summand"))?;
                self.builder.affine(&scale, &shift);
                Ok(())
            }
            Expression::Function { of, function } => {
                self.lower(of)?;
                self.builder.activation(function);
                Ok(())
            }
            Expression::Product(a, b) => {
                let gate = self
                    .expressions
                    .gate(a, b)
                    .ok_or("multiplies two computed values that form no known function")?;
                self.lower(gate.of)?;
                self.builder.activation(gate.function);
                let width = self
                    .builder
                    .width
                    .ok_or("number of features is not known; export with a fixed input width")?;
                // Factors come from f32 constants; one that rounds to 1 is 1.
                if gate.factor.values.iter().any(|factor| (factor - 1.0).abs() > 1e-6) {
                    let factor = gate.factor.as_row(width).ok_or("a factor does not fit its row")?;
                    self.builder.affine(&factor, &vec![0.0; width]);
                }
                Ok(())
            }
            Expression::Sum(..) => {
                Err("adds two computed values; residual connections are not supported".to_owned())
            }
            Expression::Erf(_) | Expression::Erfc(_) => {
                Err("erf is supported only as a part of GELU".to_owned())
            }
        }
    }
}

fn id(value: &Value) -> Result<Id, Refusal> {
    match value {
        Value::Signal { expression, .. } => Ok(*expression),
        Value::Constant(_) => Err("its data input is a constant".to_owned()),
    }
}

fn deeper<'v>(a: &'v Value, b: &'v Value) -> &'v Value {
    let nesting = |value: &Value| if let Value::Signal { nesting, .. } = value { *nesting } else { 0 };
    if nesting(a) >= nesting(b) { a } else { b }
}

fn constant(value: Option<&Value>) -> Result<&Constant, Refusal> {
    match value {
        Some(Value::Constant(constant)) => Ok(constant),
        Some(Value::Signal { .. }) => Err("a weight depends on the input".to_owned()),
        None => Err("a weight is missing".to_owned()),
    }
}

fn attribute<'n>(node: &'n Node, name: &str) -> Option<&'n Attribute> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

fn int(node: &Node, name: &str) -> Option<i64> {
    attribute(node, name).map(|attribute| attribute.i)
}

fn float(node: &Node, name: &str) -> Option<f64> {
    attribute(node, name).map(|attribute| f64::from(attribute.f))
}

fn ints<'n>(node: &'n Node, name: &str) -> Option<&'n [i64]> {
    attribute(node, name).map(|attribute| attribute.ints.as_slice())
}

fn floats(node: &Node, name: &str) -> Constant {
    let values = attribute(node, name).map(|attribute| attribute.floats.as_slice()).unwrap_or_default();
    Constant { shape: vec![values.len()], values: values.iter().copied().map(f64::from).collect() }
}

fn string(node: &Node, name: &str) -> Option<String> {
    attribute(node, name).map(|attribute| String::from_utf8_lossy(&attribute.s).into_owned())
}

/// Class names of a classifier or `ZipMap`.
pub(super) fn class_labels(node: &Node) -> Option<Vec<String>> {
    let names = ["classlabels_strings", "classlabels_int64s", "classlabels_ints"];
    let attribute = names.into_iter().find_map(|name| attribute(node, name))?;
    let text = attribute.strings.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Some(text.chain(attribute.ints.iter().map(i64::to_string)).collect())
}

#[expect(clippy::cast_precision_loss, reason = "integers here are shapes and axes")]
fn constant_node(node: &Node) -> Result<Constant, Refusal> {
    let row = |values: Vec<f64>| Constant { shape: vec![values.len()], values };
    let attribute = node.attribute.first().ok_or("has no value")?;
    match (attribute.name.as_str(), &attribute.t) {
        ("value", Some(tensor)) => Constant::read(tensor).map_err(|error| error.to_string()),
        ("value_float", _) => Ok(Constant::scalar(f64::from(attribute.f))),
        ("value_int", _) => Ok(Constant::scalar(attribute.i as f64)),
        ("value_floats", _) => Ok(row(attribute.floats.iter().copied().map(f64::from).collect())),
        ("value_ints", _) => Ok(row(attribute.ints.iter().map(|value| *value as f64).collect())),
        _ => Err("holds a value of a type that is not supported".to_owned()),
    }
}

/// `Clip` as relu or relu6; bounds are attributes before opset 11 and inputs since.
fn clip(node: &Node, inputs: &[Option<&Value>]) -> Result<Activation, Refusal> {
    let bound = |name: &str, index: usize| match inputs.get(index).copied().flatten() {
        Some(Value::Constant(constant)) => constant.as_scalar(),
        _ => float(node, name),
    };
    match (bound("min", 1), bound("max", 2)) {
        (Some(0.0), Some(6.0)) => Ok(Activation::Relu6),
        (Some(0.0), None) => Ok(Activation::Relu),
        (Some(0.0), Some(max)) if max >= f64::from(f32::MAX) => Ok(Activation::Relu),
        bounds => Err(format!("bounds {bounds:?} are not those of relu or relu6")),
    }
}

fn is_default_selu(node: &Node) -> bool {
    let close = |name, want: f64| float(node, name).is_none_or(|got| (got - want).abs() < 1e-4);
    close("alpha", 1.673_263_2) && close("gamma", 1.050_701)
}
