//! Activation functions by name and parameter. The arithmetic lives in the inference core.

use serde::{Deserialize, Serialize};

/// An activation function; `x` is one unit, softmax looks at the whole row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "name", deny_unknown_fields)]
pub enum Activation {
    /// `x`.
    Linear,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x` above zero, `slope * x` below.
    LeakyRelu {
        /// Slope below zero.
        slope: f32,
    },
    /// `x` above zero, `alpha * (exp(x) - 1)` below.
    Elu {
        /// Limit far below zero, negated.
        alpha: f32,
    },
    /// `scale * elu(x, alpha)` with the fixed constants of self-normalising networks.
    Selu,
    /// `x * (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2`.
    GeluTanh,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * tanh(softplus(x))`.
    Mish,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `min(max(slope * x + offset, 0), 1)`.
    HardSigmoid {
        /// Slope in the middle: 1/6 in Keras 3 and PyTorch, 0.2 by default in ONNX.
        slope: f32,
        /// Value at zero, usually 0.5.
        offset: f32,
    },
    /// Hyperbolic tangent.
    Tanh,
    /// `ln(1 + exp(x))`.
    Softplus,
    /// `x / (1 + |x|)`.
    Softsign,
    /// `exp(x)`.
    Exp,
    /// `exp(x_i) / sum_j exp(x_j)` over the row.
    Softmax,
    /// Logarithm of softmax.
    LogSoftmax,
}

impl Activation {
    /// The function called `name`, as Keras, PyTorch and the command line spell it, with Keras's default parameters.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().replace('-', "_").as_str() {
            "linear" | "identity" | "none" => Self::Linear,
            "relu" => Self::Relu,
            "relu6" => Self::Relu6,
            "leaky_relu" | "leakyrelu" => Self::LeakyRelu { slope: 0.2 },
            "elu" => Self::Elu { alpha: 1.0 },
            "selu" => Self::Selu,
            "gelu" => Self::Gelu,
            "gelu_tanh" | "gelu_new" => Self::GeluTanh,
            "silu" | "swish" => Self::Silu,
            "mish" => Self::Mish,
            "sigmoid" => Self::Sigmoid,
            "hard_sigmoid" => Self::HARD_SIGMOID,
            "tanh" => Self::Tanh,
            "softplus" => Self::Softplus,
            "softsign" => Self::Softsign,
            "exponential" | "exp" => Self::Exp,
            "softmax" => Self::Softmax,
            "log_softmax" => Self::LogSoftmax,
            _ => return None,
        })
    }

    /// `hard_sigmoid` of Keras 3 and PyTorch: `relu6(x + 3) / 6`.
    pub const HARD_SIGMOID: Self = Self::HardSigmoid { slope: 1.0 / 6.0, offset: 0.5 };

    /// Names [`Activation::from_name`] knows, for help texts.
    pub const NAMES: &'static [&'static str] = &[
        "linear",
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "selu",
        "gelu",
        "gelu_tanh",
        "silu",
        "mish",
        "sigmoid",
        "hard_sigmoid",
        "tanh",
        "softplus",
        "softsign",
        "exponential",
        "softmax",
        "log_softmax",
    ];

    /// Whether outputs are never below zero: what a running mean taken behind it must obey.
    #[must_use]
    pub(crate) fn is_nonnegative(self) -> bool {
        matches!(
            self,
            Self::Relu
                | Self::Relu6
                | Self::Sigmoid
                | Self::HardSigmoid { .. }
                | Self::Softplus
                | Self::Exp
                | Self::Softmax
        )
    }

    pub(crate) fn is_finite(self) -> bool {
        match self {
            Self::LeakyRelu { slope } => slope.is_finite(),
            Self::Elu { alpha } => alpha.is_finite(),
            Self::HardSigmoid { slope, offset } => slope.is_finite() && offset.is_finite(),
            _ => true,
        }
    }
}

impl std::fmt::Display for Activation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LeakyRelu { slope } => write!(f, "leaky_relu({slope})"),
            Self::Elu { alpha } => write!(f, "elu({alpha})"),
            Self::HardSigmoid { slope, offset } => write!(f, "hard_sigmoid({slope}, {offset})"),
            Self::Linear => f.write_str("linear"),
            Self::Relu => f.write_str("relu"),
            Self::Relu6 => f.write_str("relu6"),
            Self::Selu => f.write_str("selu"),
            Self::Gelu => f.write_str("gelu"),
            Self::GeluTanh => f.write_str("gelu_tanh"),
            Self::Silu => f.write_str("silu"),
            Self::Mish => f.write_str("mish"),
            Self::Sigmoid => f.write_str("sigmoid"),
            Self::Tanh => f.write_str("tanh"),
            Self::Softplus => f.write_str("softplus"),
            Self::Softsign => f.write_str("softsign"),
            Self::Exp => f.write_str("exp"),
            Self::Softmax => f.write_str("softmax"),
            Self::LogSoftmax => f.write_str("log_softmax"),
        }
    }
}
