//! Sine and cosine of our own: the same bits on every machine.

/// The first 33 bits of pi / 2: times an integer below 2^20 it is exact.
const HALF_PI_HIGH: f64 = f64::from_bits(0x3ff9_21fb_5440_0000);
/// What is missing to pi / 2.
const HALF_PI_LOW: f64 = 6.077_100_506_506_192e-11;

/// `(sin x, cos x)` with an absolute error below 1e-15 for `|x| < 2^20`.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "quadrants of finite angles; others give NaN anyway")]
pub(super) fn sin_cos(x: f64) -> (f64, f64) {
    let quadrant = (x * std::f64::consts::FRAC_2_PI).round();
    let r = (x - quadrant * HALF_PI_HIGH) - quadrant * HALF_PI_LOW;
    // |r| <= pi / 4: the first terms left out are below 1e-16.
    let (sine, cosine) = (r * series(r * r, 1), series(r * r, 0));
    match (quadrant as i64).rem_euclid(4) {
        0 => (sine, cosine),
        1 => (cosine, -sine),
        2 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}

/// `sum of (-1)^k y^k / (2k + odd)!`.
fn series(y: f64, odd: u32) -> f64 {
    (1..=8).rev().fold(1.0, |sum, k| {
        let n = f64::from(2 * k + odd);
        1.0 - sum * y / (n * (n - 1.0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_to_the_real_ones() {
        for i in 0..200_000 {
            let x = f64::from(i) * 0.713_1 - 3_000.0;
            let (sine, cosine) = sin_cos(x);
            assert!((sine - x.sin()).abs() < 1e-14, "{x}");
            assert!((cosine - x.cos()).abs() < 1e-14, "{x}");
        }
        assert_eq!(sin_cos(0.0), (0.0, 1.0));
    }
}
