//! A learning curve as an SVG picture: losses of training and validation over the epochs.

use std::fmt::Write as _;

use crate::Epoch;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 48.0;

/// Draws the epochs; the kept one is marked.
#[allow(clippy::cast_precision_loss, reason = "epoch numbers are small")]
pub(crate) fn svg(epochs: &[Epoch], best_epoch: usize) -> String {
    let losses = epochs.iter().flat_map(|epoch| [Some(epoch.train_loss), epoch.validation_loss]).flatten();
    let top = losses.fold(0.0, f64::max).max(1e-9) * 1.05;
    let x = |epoch: usize| MARGIN + (WIDTH - 2.0 * MARGIN) * epoch as f64 / (epochs.len().max(2) - 1) as f64;
    let y = |loss: f64| HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * loss / top;
    let line = |values: Vec<Option<f64>>, colour: &str| {
        let points = values
            .iter()
            .enumerate()
            .filter_map(|(at, loss)| loss.map(|loss| format!("{:.1},{:.1}", x(at), y(loss))));
        let points = points.collect::<Vec<_>>().join(" ");
        format!("<polyline fill='none' stroke='{colour}' stroke-width='2' points='{points}'/>\n")
    };
    let mut picture = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' font-family='sans-serif' font-size='12'>\n\
         <rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>\n"
    );
    // Writing to a string cannot fail.
    for step in 0..=4 {
        let loss = top * f64::from(step) / 4.0;
        let _ = writeln!(
            picture,
            "<path d='M{MARGIN} {0:.1}H{1}' stroke='#ddd'/><text x='{2}' y='{0:.1}' text-anchor='end'>{loss:.3}</text>",
            y(loss),
            WIDTH - MARGIN,
            MARGIN - 6.0
        );
    }
    let kept = x(best_epoch.saturating_sub(1));
    let _ = writeln!(
        picture,
        "<path d='M{kept:.1} {MARGIN}V{}' stroke='#999' stroke-dasharray='4 4'/>",
        HEIGHT - MARGIN
    );
    picture += &line(epochs.iter().map(|epoch| Some(epoch.train_loss)).collect(), "#1f77b4");
    picture += &line(epochs.iter().map(|epoch| epoch.validation_loss).collect(), "#d62728");
    let legend = [("training loss", "#1f77b4"), ("validation loss", "#d62728")];
    for (at, (name, colour)) in legend.iter().enumerate() {
        let _ = writeln!(
            picture,
            "<text x='{}' y='{}' fill='{colour}'>{name}</text>",
            WIDTH - 160.0,
            24 + 16 * at
        );
    }
    let _ = writeln!(
        picture,
        "<text x='{}' y='{}' text-anchor='middle'>{} epochs, kept: {best_epoch}</text>",
        WIDTH / 2.0,
        HEIGHT - 14.0,
        epochs.len()
    );
    picture + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_is_a_point_within_the_picture() {
        let epoch = |loss| Epoch {
            train_loss: loss,
            train_accuracy: None,
            validation_loss: Some(loss * 2.0),
            validation_accuracy: None,
        };
        let picture = svg(&[epoch(1.0), epoch(0.5), epoch(0.25)], 3);
        assert_eq!(picture.matches("<polyline").count(), 2);
        let points = picture.split("points='").nth(1).unwrap().split('\'').next().unwrap();
        assert_eq!(points.split(' ').count(), 3);
        assert!(!picture.contains("NaN") && picture.ends_with("</svg>\n"));
        assert!(svg(&[epoch(1.0)], 1).contains("1 epochs"));
    }
}
