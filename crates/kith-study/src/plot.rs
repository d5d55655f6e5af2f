//! Plots curves as SVG and PNG: the mean over the seeds as a line, their range as a band.
//!
//! The font is part of the program, so that text looks the same on a machine without any.

use std::{collections::BTreeMap, sync::Once};

use plotters::{
    coord::{Shift, cartesian::Cartesian2d},
    prelude::*,
    style::{FontStyle, register_font},
};

use super::{Points, Statistics, StudyError, axis::Axis, number::tick};
use kith_pixels::DecodedImage;

const SIZE: (u32, u32) = (960, 600);
const FONT: &str = "sans-serif";
/// A subset of DejaVu Sans; its licence lies beside it.
static FONT_FILE: &[u8] = include_bytes!("font/DejaVuSans.ttf");
/// The palette of Okabe & Ito (2008), which colour-blind readers can tell apart.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(120, 120, 120),
];

/// One plot.
#[derive(Clone, Debug, Default)]
pub(super) struct Chart {
    /// File name without its extension.
    pub(super) file: String,
    pub(super) title: String,
    /// Name of the plotted value.
    pub(super) value: String,
    pub(super) y_label: String,
    /// Name of the value on the x axis; `None`: the point's position.
    pub(super) x_value: Option<String>,
    pub(super) x_label: String,
    pub(super) log_x: bool,
    pub(super) log_y: bool,
    pub(super) series: Vec<String>,
    /// Values of horizontal dashed lines, such as bounds.
    pub(super) bounds: Vec<f64>,
}

/// One series.
struct Curve {
    name: String,
    colour: RGBColor,
    /// x, and the statistics of the value over the seeds.
    points: Vec<(f64, Statistics)>,
}

type Drawn<D> = Result<(), DrawingAreaErrorKind<<D as DrawingBackend>::ErrorType>>;

impl Chart {
    /// Name and content of the SVG and the PNG file; empty if no series has a point.
    ///
    /// # Errors
    /// [`StudyError::Plot`] if a plot cannot be drawn.
    pub(super) fn files(&self, points: &Points) -> Result<Vec<(String, Vec<u8>)>, StudyError> {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| {
            // A font that cannot be parsed makes every plot fail, which the tests below would show.
            drop(register_font(FONT, FontStyle::Normal, FONT_FILE));
        });
        let curves = self.curves(points);
        if curves.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |error: String| StudyError::Plot(self.file.clone(), error);
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        self.draw(area, &curves)
            .map_err(|error| failed(error.to_string()))?;
        let (width, height) = SIZE;
        let mut rgb = vec![0; 3 * (width * height) as usize];
        let area = BitMapBackend::with_buffer(&mut rgb, SIZE).into_drawing_area();
        self.draw(area, &curves)
            .map_err(|error| failed(error.to_string()))?;
        let png = kith_pixels::encode_png(&DecodedImage::opaque(width, height, rgb));
        Ok(vec![
            (format!("{}.svg", self.file), svg.into_bytes()),
            (format!("{}.png", self.file), png),
        ])
    }

    fn curves(&self, points: &Points) -> Vec<Curve> {
        let drawable = |value: f64, log: bool| value.is_finite() && (!log || value > 0.0);
        let curve = |(index, series): (usize, &String)| {
            let x_values = self.x_value.as_ref().map(|name| points.curve(series, name));
            let points: Vec<(f64, Statistics)> = points
                .curve(series, &self.value)
                .iter()
                .map(|(at, values)| (x_of(x_values.as_ref(), *at), Statistics::new(values)))
                .filter(|(x, y)| drawable(*x, self.log_x) && drawable(y.min, self.log_y))
                .filter(|(_, y)| y.max.is_finite())
                .collect();
            (!points.is_empty()).then(|| Curve {
                name: series.clone(),
                colour: COLOURS[index % COLOURS.len()],
                points,
            })
        };
        self.series.iter().enumerate().filter_map(curve).collect()
    }

    fn draw<D: DrawingBackend>(&self, area: DrawingArea<D, Shift>, curves: &[Curve]) -> Drawn<D> {
        area.fill(&WHITE)?;
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let x = Axis::new(points().map(|(x, _)| *x), self.log_x);
        let heights = points().flat_map(|(_, y)| [y.min, y.max]);
        let y = Axis::new(heights.chain(self.bounds.iter().copied()), self.log_y);
        let corner = emptiest(points().map(|(at, of)| (x.fraction(*at), y.fraction(of.mean))));
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, (FONT, 22))
            .margin(14)
            .x_label_area_size(48)
            .y_label_area_size(78)
            .build_cartesian_2d(x, y)?;
        let x = chart.x_range();
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_desc(&self.x_label)
            .y_desc(&self.y_label)
            .label_style((FONT, 15))
            .axis_desc_style((FONT, 17))
            .x_label_formatter(&tick)
            .y_label_formatter(&tick)
            .draw()?;
        for bound in &self.bounds {
            let ends = [(x.start, *bound), (x.end, *bound)];
            chart.draw_series(DashedLineSeries::new(ends, 6, 4, BLACK.mix(0.5).into()))?;
        }
        curves.iter().try_for_each(|curve| curve.draw(&mut chart))?;
        chart
            .configure_series_labels()
            .position(corner)
            .label_font((FONT, 14))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()
    }
}

type Context<'a, D> = ChartContext<'a, D, Cartesian2d<Axis, Axis>>;

impl Curve {
    fn draw<D: DrawingBackend>(&self, chart: &mut Context<'_, D>) -> Drawn<D> {
        let Self {
            name,
            colour,
            points,
        } = self;
        let upper = points.iter().map(|(x, y)| (*x, y.max));
        let lower = points.iter().rev().map(|(x, y)| (*x, y.min));
        let band: Vec<(f64, f64)> = upper.chain(lower).collect();
        chart.draw_series([Polygon::new(band, colour.mix(0.18))])?;
        let line = || points.iter().map(|(x, y)| (*x, y.mean));
        let marks = line().map(|point| Circle::new(point, 3, colour.filled()));
        chart.draw_series(marks)?;
        let (line, colour) = (LineSeries::new(line(), colour.stroke_width(2)), *colour);
        chart
            .draw_series(line)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(3)));
        Ok(())
    }
}

/// The corner with the fewest points near it. Points are given as fractions of the two axes.
fn emptiest(points: impl Iterator<Item = (f64, f64)>) -> SeriesLabelPosition {
    let mut near = [0; 4];
    for (x, y) in points {
        near[2 * usize::from(x < 0.5) + usize::from(y < 0.5)] += 1;
    }
    let corners = [
        SeriesLabelPosition::UpperRight,
        SeriesLabelPosition::LowerRight,
        SeriesLabelPosition::UpperLeft,
        SeriesLabelPosition::LowerLeft,
    ];
    let least = near.iter().min();
    let (corner, _) = corners
        .into_iter()
        .zip(&near)
        .find(|(_, count)| Some(*count) == least)
        .unwrap_or((SeriesLabelPosition::UpperRight, &0));
    corner
}

/// The x of the point at position `at`: the mean of `values` over the seeds, or the position.
fn x_of(values: Option<&BTreeMap<u64, Vec<f64>>>, at: u64) -> f64 {
    match values {
        Some(values) => Statistics::new(values.get(&at).map_or(&[][..], |values| values)).mean,
        None => at as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Point, Run};

    fn points() -> Points {
        let mut points = Points::default();
        for (seed, series) in [(1, "walk"), (2, "walk"), (1, "subset")] {
            for at in [1, 10, 100] {
                let value = 1.0 / (at as f64 + seed as f64);
                points.insert(Point {
                    run: Run {
                        seed,
                        series: series.to_owned(),
                    },
                    at,
                    values: [("error".to_owned(), value)].into(),
                });
            }
        }
        points
    }

    fn chart(log: bool, series: &[&str]) -> Chart {
        Chart {
            file: "error".to_owned(),
            title: "‖g − ∇L‖² over β".to_owned(),
            value: "error".to_owned(),
            y_label: "error".to_owned(),
            x_label: "steps".to_owned(),
            log_x: log,
            log_y: log,
            series: series.iter().map(ToString::to_string).collect(),
            bounds: vec![0.05],
            ..Chart::default()
        }
    }

    #[test]
    fn a_chart_is_an_svg_and_a_png_with_its_series_and_its_text() {
        for log in [false, true] {
            let files = chart(log, &["walk", "subset", "absent"])
                .files(&points())
                .unwrap();
            let [(svg_name, svg), (png_name, png)] = &files[..] else {
                panic!("two files, not {}", files.len());
            };
            assert_eq!((&svg_name[..], &png_name[..]), ("error.svg", "error.png"));
            let svg = std::str::from_utf8(svg).unwrap();
            for text in ["walk", "subset", "‖g − ∇L‖² over β", "steps"] {
                assert!(svg.contains(text), "{text}");
            }
            assert!(!svg.contains("absent"));
            let limits = kith_pixels::Limits {
                max_bytes: 1 << 20,
                max_pixels: 1 << 20,
                decode_memory_mb: 1024,
            };
            let image = kith_pixels::decode(png, &limits).unwrap();
            assert_eq!((image.width, image.height), SIZE);
            // The caption is drawn: the top strip holds nothing else, and it has dark pixels.
            let strip = &image.rgb[..3 * SIZE.0 as usize * 40];
            assert!(strip.iter().filter(|value| **value < 100).count() > 300);
        }
    }

    #[test]
    fn nothing_measured_is_nothing_drawn() {
        assert!(
            chart(true, &["absent"])
                .files(&points())
                .unwrap()
                .is_empty()
        );
    }
}
