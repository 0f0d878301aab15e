//! Gradient descent with momentum, and Adam (Kingma and Ba, 2015).

use ndarray::{Array1, Array2, Zip};

use crate::network::{Dense, Network};

/// How steps are taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// Stochastic gradient descent; `momentum` 0 is plain descent.
    Sgd {
        /// Share of the last step that goes on.
        momentum: f32,
    },
    /// Adam with decay rates 0.9 and 0.999 and epsilon 1e-7, as Keras has them.
    Adam,
}

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-7;

/// A method with its memory of earlier steps.
pub(crate) struct Optimizer {
    method: Method,
    learning_rate: f32,
    steps: i32,
    first: Vec<Dense<f32>>,
    second: Vec<Dense<f32>>,
}

impl Optimizer {
    pub(crate) fn new(method: Method, learning_rate: f32, network: &Network<f32>) -> Self {
        let zeros = || {
            let zero = |layer: &Dense<f32>| Dense {
                kernel: Array2::zeros(layer.kernel.raw_dim()),
                bias: Array1::zeros(layer.bias.raw_dim()),
            };
            network.layers.iter().map(zero).collect::<Vec<_>>()
        };
        let second = if method == Method::Adam { zeros() } else { Vec::new() };
        Self { method, learning_rate, steps: 0, first: zeros(), second }
    }

    /// Takes one step against the gradients.
    pub(crate) fn step(&mut self, network: &mut Network<f32>, gradients: &[Dense<f32>]) {
        self.steps = self.steps.saturating_add(1);
        let rate = self.learning_rate;
        match self.method {
            Method::Sgd { momentum } => {
                for ((layer, gradient), memory) in
                    network.layers.iter_mut().zip(gradients).zip(&mut self.first)
                {
                    let update = |w: &mut f32, g: &f32, v: &mut f32| {
                        *v = momentum * *v - rate * g;
                        *w += *v;
                    };
                    Zip::from(&mut layer.kernel)
                        .and(&gradient.kernel)
                        .and(&mut memory.kernel)
                        .for_each(update);
                    Zip::from(&mut layer.bias).and(&gradient.bias).and(&mut memory.bias).for_each(update);
                }
            }
            Method::Adam => {
                let rate = rate * (1.0 - BETA_2.powi(self.steps)).sqrt() / (1.0 - BETA_1.powi(self.steps));
                let memories = self.first.iter_mut().zip(&mut self.second);
                for ((layer, gradient), (first, second)) in
                    network.layers.iter_mut().zip(gradients).zip(memories)
                {
                    let update = |w: &mut f32, g: &f32, m: &mut f32, v: &mut f32| {
                        *m += (1.0 - BETA_1) * (g - *m);
                        *v += (1.0 - BETA_2) * (g * g - *v);
                        *w -= rate * *m / (v.sqrt() + EPSILON);
                    };
                    Zip::from(&mut layer.kernel)
                        .and(&gradient.kernel)
                        .and(&mut first.kernel)
                        .and(&mut second.kernel)
                        .for_each(update);
                    Zip::from(&mut layer.bias)
                        .and(&gradient.bias)
                        .and(&mut first.bias)
                        .and(&mut second.bias)
                        .for_each(update);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use adyton_model::dense::{Activation, Loss};

    /// One parameter, gradient 2: the first steps follow from the definitions.
    fn steps(method: Method) -> [f32; 2] {
        let mut network = Network::draw(&[1, 1], Activation::Linear, Loss::SquaredError, &mut Random::new(1));
        network.layers[0].kernel.fill(1.0);
        let gradient = [Dense { kernel: Array2::from_elem((1, 1), 2.0), bias: Array1::zeros(1) }];
        let mut optimizer = Optimizer::new(method, 0.1, &network);
        [0, 1].map(|_| {
            optimizer.step(&mut network, &gradient);
            network.layers[0].kernel[[0, 0]]
        })
    }

    #[test]
    fn steps_are_those_of_the_definitions() {
        let close =
            |got: [f32; 2], want: [f32; 2]| got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-5);
        assert!(close(steps(Method::Sgd { momentum: 0.0 }), [0.8, 0.6]));
        assert!(close(steps(Method::Sgd { momentum: 0.5 }), [0.8, 0.5]));
        // With a constant gradient Adam's corrected step is the learning rate itself.
        assert!(close(steps(Method::Adam), [0.9, 0.8]), "{:?}", steps(Method::Adam));
    }
}
