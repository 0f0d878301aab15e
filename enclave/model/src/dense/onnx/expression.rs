//! Expressions of the row that flows through the network, and the activation functions exporters take apart.
//!
//! GELU, SiLU and Mish leave some exporters as products of simpler functions. An expression keeps such products until a
//! layer needs the value; [`Expressions::gate`] then recognises them by their algebra, not by the order of the nodes.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

use std::rc::Rc;

use super::constant::Constant;
use crate::dense::Activation;

/// Index into [`Expressions`].
pub(super) type Id = usize;

/// Deepest nesting that is looked into when a product is recognised; GELU needs five.
const MAX_DEPTH: usize = 8;
/// Exporters write constants as f32.
const TOLERANCE: f64 = 1e-5;

/// One value that depends on the input.
#[derive(Debug, Clone)]
pub(super) enum Expression {
    /// What the layers made so far put out; the number of the layer stack tells it from earlier rows.
    Row(usize),
    /// `of * scale + shift`.
    Affine { of: Id, scale: Rc<Constant>, shift: Rc<Constant> },
    /// An activation function.
    Function { of: Id, function: Activation },
    /// Error function, only as a part of GELU.
    Erf(Id),
    /// `1 - erf`, only as a part of GELU.
    Erfc(Id),
    /// Only as a part of other functions.
    Product(Id, Id),
    /// Only as a part of other functions.
    Sum(Id, Id),
}

/// All expressions of a graph.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    list: Vec<Expression>,
}

/// A product that is an activation function: `factor * function(of)`.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) of: Id,
    pub(super) function: Activation,
    /// A scalar, or one value for each unit: optimisers move the factor of a batch normalisation inside.
    pub(super) factor: Constant,
}

impl Expressions {
    pub(super) fn add(&mut self, expression: Expression) -> Id {
        self.list.push(expression);
        self.list.len() - 1
    }

    pub(super) fn get(&self, id: Id) -> Option<&Expression> {
        self.list.get(id)
    }

    /// Recognises `a * b` as an activation function.
    pub(super) fn gate(&self, a: Id, b: Id) -> Option<Gate> {
        for (x, gate) in [(a, b), (b, a)] {
            for (factor_x, x) in self.unscaled(x) {
                for (factor_gate, gate) in self.unscaled(gate) {
                    if let Some((function, factor)) = self.gate_of(x, gate) {
                        let factor = factor_x.zip(&factor_gate, |a, b| a * b)?.map(|c| c * factor);
                        return Some(Gate { of: x, function, factor });
                    }
                }
            }
        }
        None
    }

    /// `id` as `factor * rest` in every way that peels constant factors off.
    fn unscaled(&self, id: Id) -> Vec<(Constant, Id)> {
        let (mut factor, mut id) = (Constant::scalar(1.0), id);
        let mut ways = vec![(factor.clone(), id)];
        while let Some(Expression::Affine { of, scale, shift }) = self.get(id) {
            let product = factor.zip(scale, |a, b| a * b).filter(|_| shift.as_scalar() == Some(0.0));
            let Some(product) = product.filter(|_| ways.len() < MAX_DEPTH) else { break };
            (factor, id) = (product, *of);
            ways.push((factor.clone(), id));
        }
        ways
    }

    /// `x * gate` as a function of `x` with a factor.
    fn gate_of(&self, x: Id, gate: Id) -> Option<(Activation, f64)> {
        match self.get(gate)? {
            Expression::Function { of, function: Activation::Sigmoid } if *of == x => {
                Some((Activation::Silu, 1.0))
            }
            Expression::Function { of, function: Activation::Tanh } => match self.get(*of)? {
                Expression::Function { of, function: Activation::Softplus } if *of == x => {
                    Some((Activation::Mish, 1.0))
                }
                _ => None,
            },
            Expression::Erfc(of) => close(&self.polynomial(*of, x, 0)?, &[0.0, -FRAC_1_SQRT_2, 0.0, 0.0])
                .then_some((Activation::Gelu, 2.0)),
            // c * erf(..) + c, where c is mostly 1.
            Expression::Affine { of, scale, shift } => {
                let (scale, shift) = (scale.as_scalar()?, shift.as_scalar()?);
                if (scale - shift).abs() > TOLERANCE * scale.abs() {
                    return None;
                }
                let sqrt_2_over_pi = FRAC_2_PI.sqrt();
                let tanh = [0.0, sqrt_2_over_pi, 0.0, sqrt_2_over_pi * 0.044_715];
                match self.get(*of)? {
                    Expression::Erf(of)
                        if close(&self.polynomial(*of, x, 0)?, &[0.0, FRAC_1_SQRT_2, 0.0, 0.0]) =>
                    {
                        Some((Activation::Gelu, 2.0 * scale))
                    }
                    Expression::Function { of, function: Activation::Tanh }
                        if close(&self.polynomial(*of, x, 0)?, &tanh) =>
                    {
                        Some((Activation::GeluTanh, 2.0 * scale))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Coefficients of `id` as a polynomial of degree at most three in `x`.
    fn polynomial(&self, id: Id, x: Id, depth: usize) -> Option<[f64; 4]> {
        if id == x {
            return Some([0.0, 1.0, 0.0, 0.0]);
        }
        if depth > MAX_DEPTH {
            return None;
        }
        match self.get(id)? {
            Expression::Affine { of, scale, shift } => {
                let mut result =
                    self.polynomial(*of, x, depth + 1)?.map(|c| c * scale.as_scalar().unwrap_or(f64::NAN));
                if let Some(constant) = result.first_mut() {
                    *constant += shift.as_scalar()?;
                }
                Some(result)
            }
            Expression::Sum(a, b) => {
                let (a, b) = (self.polynomial(*a, x, depth + 1)?, self.polynomial(*b, x, depth + 1)?);
                Some(std::array::from_fn(|i| a.get(i).unwrap_or(&0.0) + b.get(i).unwrap_or(&0.0)))
            }
            Expression::Product(a, b) => {
                let (a, b) = (self.polynomial(*a, x, depth + 1)?, self.polynomial(*b, x, depth + 1)?);
                multiply(&a, &b)
            }
            _ => None,
        }
    }
}

/// The product of two polynomials, if its degree stays within three.
fn multiply(a: &[f64; 4], b: &[f64; 4]) -> Option<[f64; 4]> {
    let mut product = [0.0; 4];
    for (i, a) in a.iter().enumerate() {
        for (j, b) in b.iter().enumerate() {
            match product.get_mut(i + j) {
                Some(sum) => *sum += a * b,
                None if a * b == 0.0 => {}
                None => return None,
            }
        }
    }
    Some(product)
}

fn close(got: &[f64; 4], want: &[f64; 4]) -> bool {
    got.iter().zip(want).all(|(got, want)| (got - want).abs() <= TOLERANCE)
}
