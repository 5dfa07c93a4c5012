//! Curves over a size, as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::measure::{Series, range};

/// Pixels.
const SIZE: (u32, u32) = (900, 520);

/// One curve for each contender: medians, with the range of the rounds as a bar.
///
/// # Errors
/// The file can't be written.
pub fn curves(all: &[&Series], file: &Path) -> Result<()> {
    draw(all, file).map_err(|e| anyhow!("{e}"))
}

fn draw(all: &[&Series], file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let first = all.first().ok_or("nothing to plot")?;
    let sizes = || all.iter().map(|s| s.size());
    let (low, high) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max));
    let top = all.iter().map(|s| range(&s.rounds).1).fold(0.0, f64::max);
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{}, {}", first.experiment, first.unit), ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d((low * 0.9..high * 1.1).log_scale(), 0.0..top * 1.05)?;
    let label = first.at.as_ref().map_or("", |(name, _)| name.as_str());
    chart.configure_mesh().x_desc(label).y_desc(first.unit.as_str()).light_line_style(WHITE).draw()?;
    let mut names: Vec<&str> = Vec::new();
    for series in all {
        if !names.contains(&series.contender.as_str()) {
            names.push(&series.contender);
        }
    }
    for (number, name) in names.into_iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        let mut points: Vec<(f64, f64)> =
            all.iter().filter(|s| s.contender == name).map(|s| (s.size(), s.median())).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
        for series in all.iter().filter(|s| s.contender == name) {
            let (low, high) = range(&series.rounds);
            let bar = [(series.size(), low), (series.size(), high)];
            chart.draw_series([PathElement::new(bar, color.stroke_width(1))])?;
        }
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}
