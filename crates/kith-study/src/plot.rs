//! Curves over seeds as SVG and PNG: the mean as a line, the range of the seeds as a band. Must never know: what is drawn.
//!
//! The font is part of the program: text looks the same on a machine without any.

use std::{collections::BTreeMap, sync::Once};

use plotters::{
    coord::{Shift, cartesian::Cartesian2d},
    prelude::*,
    style::{FontStyle, register_font},
};

use super::{
    Points, StudyError,
    axis::{Axis, tick},
    points::Spread,
};
use kith_pixels::DecodedImage;

const SIZE: (u32, u32) = (960, 600);
const FONT: &str = "sans-serif";
/// A subset of DejaVu Sans; its licence lies beside it.
static FONT_FILE: &[u8] = include_bytes!("font/DejaVuSans.ttf");
/// Of Okabe & Ito (2008): told apart by colour-blind readers too.
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

/// One picture.
#[derive(Clone, Debug, Default)]
pub(super) struct Chart {
    /// File name without an extension.
    pub(super) file: String,
    pub(super) title: String,
    /// Name of the value.
    pub(super) value: String,
    pub(super) y_label: String,
    /// Name of a value that takes the place of the point's own place on the abscissa.
    pub(super) x_value: Option<String>,
    pub(super) x_label: String,
    pub(super) log_x: bool,
    pub(super) log_y: bool,
    pub(super) series: Vec<String>,
    /// Heights of dashed lines, such as bounds.
    pub(super) bounds: Vec<f64>,
}

/// One series as it is drawn.
struct Curve {
    name: String,
    colour: RGBColor,
    /// Abscissa, and the value over the seeds.
    points: Vec<(f64, Spread)>,
}

type Drawn<D> = Result<(), DrawingAreaErrorKind<<D as DrawingBackend>::ErrorType>>;

impl Chart {
    /// (file name, content) of the SVG and the PNG; none if there is nothing to draw.
    pub(super) fn files(&self, points: &Points) -> Result<Vec<(String, Vec<u8>)>, StudyError> {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| {
            // A font that does not parse makes every picture fail, which the tests of this file would show.
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
        let png = kith_pixels::png(&DecodedImage { width, height, rgb });
        Ok(vec![
            (format!("{}.svg", self.file), svg.into_bytes()),
            (format!("{}.png", self.file), png),
        ])
    }

    fn curves(&self, points: &Points) -> Vec<Curve> {
        let drawable = |value: f64, log: bool| value.is_finite() && (!log || value > 0.0);
        let curve = |(place, series): (usize, &String)| {
            let abscissae = self.x_value.as_ref().map(|name| points.curve(series, name));
            let points: Vec<(f64, Spread)> = points
                .curve(series, &self.value)
                .iter()
                .map(|(at, values)| (abscissa(abscissae.as_ref(), *at), Spread::of(values)))
                .filter(|(x, y)| drawable(*x, self.log_x) && drawable(y.least, self.log_y))
                .filter(|(_, y)| y.most.is_finite())
                .collect();
            (!points.is_empty()).then(|| Curve {
                name: series.clone(),
                colour: COLOURS[place % COLOURS.len()],
                points,
            })
        };
        self.series.iter().enumerate().filter_map(curve).collect()
    }

    fn draw<D: DrawingBackend>(&self, area: DrawingArea<D, Shift>, curves: &[Curve]) -> Drawn<D> {
        area.fill(&WHITE)?;
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let x = Axis::around(points().map(|(x, _)| *x), self.log_x);
        let heights = points().flat_map(|(_, y)| [y.least, y.most]);
        let y = Axis::around(heights.chain(self.bounds.iter().copied()), self.log_y);
        let corner = emptiest(points().map(|(at, of)| (x.share(*at), y.share(of.mean))));
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
        let upper = points.iter().map(|(x, y)| (*x, y.most));
        let lower = points.iter().rev().map(|(x, y)| (*x, y.least));
        let band: Vec<(f64, f64)> = upper.chain(lower).collect();
        chart.draw_series([Polygon::new(band, colour.mix(0.18))])?;
        let line = || points.iter().map(|(x, y)| (*x, y.mean));
        let marks = line().map(|place| Circle::new(place, 3, colour.filled()));
        chart.draw_series(marks)?;
        let (line, colour) = (LineSeries::new(line(), colour.stroke_width(2)), *colour);
        chart
            .draw_series(line)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(3)));
        Ok(())
    }
}

/// The corner that the fewest places lie near; places in shares of the two axes.
fn emptiest(places: impl Iterator<Item = (f64, f64)>) -> SeriesLabelPosition {
    let mut near = [0; 4];
    for (x, y) in places {
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

/// The mean over the seeds of what takes the place's place.
fn abscissa(values: Option<&BTreeMap<u64, Vec<f64>>>, at: u64) -> f64 {
    match values {
        Some(values) => Spread::of(values.get(&at).map_or(&[][..], |values| values)).mean,
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
            let picture = kith_pixels::decode(png, &limits).unwrap();
            assert_eq!((picture.width, picture.height), SIZE);
            // The caption is written: there is dark in the uppermost strip, and only text is there.
            let strip = &picture.rgb[..3 * SIZE.0 as usize * 40];
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
