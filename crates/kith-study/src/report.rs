//! Writes the report of a study: points as CSV and JSON, plots, and a summary that ends with the verdict.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use super::{
    Claim, Point, Points, Statistics, StudyConfig, StudyError, experiment::Experiment,
    number::short, plot::Chart,
};

/// Writes the report and returns the path of the summary.
pub(super) fn write(
    config: &StudyConfig,
    experiment: &dyn Experiment,
    points: &Points,
    claims: &[Claim],
) -> Result<PathBuf, StudyError> {
    let put = |name: &str, bytes: &[u8]| {
        let path = config.out.join(name);
        fs::write(&path, bytes).map_err(|error| StudyError::io(&path, error))
    };
    put("points.csv", &table(points, &config.out)?)?;
    let all: Vec<Point> = points.iter().collect();
    let json = serde_json::to_vec_pretty(&all).expect("points are names and numbers");
    put("points.json", &json)?;
    let json = serde_json::to_vec_pretty(claims).expect("claims are texts");
    put("verdict.json", &json)?;
    let mut drawn = Vec::new();
    for chart in experiment.charts() {
        let files = chart.files(points)?;
        if !files.is_empty() {
            drawn.push(chart);
        }
        for (name, bytes) in files {
            put(&name, &bytes)?;
        }
    }
    let text = summary(config, experiment, points, (claims, &drawn));
    put("summary.md", text.as_bytes())?;
    Ok(config.out.join("summary.md"))
}

/// One row for each point: seed, series, position, then a column for each value.
fn table(points: &Points, out: &Path) -> Result<Vec<u8>, StudyError> {
    let names = points.names();
    let mut table = csv::Writer::from_writer(Vec::new());
    let failed = |error: csv::Error| StudyError::io(&out.join("points.csv"), error.into());
    let head = ["seed", "series", "at"].into_iter();
    table
        .write_record(head.chain(names.iter().copied()))
        .map_err(failed)?;
    for point in points.iter() {
        let value = |name: &&str| {
            point
                .values
                .get(*name)
                .map_or(String::new(), f64::to_string)
        };
        let position = [
            point.run.seed.to_string(),
            point.run.series.clone(),
            point.at.to_string(),
        ];
        let row = position.into_iter().chain(names.iter().map(value));
        table.write_record(row).map_err(failed)?;
    }
    table
        .into_inner()
        .map_err(|error| StudyError::io(&out.join("points.csv"), error.into_error()))
}

fn summary(
    config: &StudyConfig,
    experiment: &dyn Experiment,
    points: &Points,
    (claims, drawn): (&[Claim], &[Chart]),
) -> String {
    let mut text = format!("# Study: {}\n\n", config.kind.name());
    let settings = experiment.settings();
    let seeds: Vec<String> = config.seeds.iter().map(ToString::to_string).collect();
    put(
        &mut text,
        format_args!("Seeds {}; settings `{settings}`.\n", seeds.join(", ")),
    );
    put(
        &mut text,
        format_args!("\n## At the end of each run\n\nMean ± standard deviation over the seeds.\n"),
    );
    last_values(&mut text, &experiment.series(), points);
    for chart in drawn {
        put(
            &mut text,
            format_args!("\n![{}]({}.svg)\n", chart.title, chart.file),
        );
    }
    put(
        &mut text,
        format_args!("\n## Claims\n\n| claim | holds | evidence |\n|---|---|---|\n"),
    );
    for claim in claims {
        let holds = if claim.holds { "yes" } else { "**no**" };
        put(
            &mut text,
            format_args!("| {} | {holds} | {} |\n", claim.text, claim.evidence),
        );
    }
    let failed = claims.iter().filter(|claim| !claim.holds).count();
    let verdict = match (experiment.unjudged_reason(), failed) {
        (Some(reason), _) => format!("not judged. {reason}."),
        (None, 0) => "all claims hold.".to_owned(),
        (None, _) => format!("{failed} of {} claims do not hold.", claims.len()),
    };
    put(&mut text, format_args!("\n**Verdict:** {verdict}\n"));
    text
}

fn last_values(text: &mut String, series: &[String], points: &Points) {
    let names: Vec<&str> = points.names().into_iter().collect();
    put(
        text,
        format_args!(
            "\n| series | {} |\n|---|{}\n",
            names.join(" | "),
            "---|".repeat(names.len())
        ),
    );
    for series in series {
        let cells: Vec<String> = names
            .iter()
            .map(|name| cell(points.last(series, name)))
            .collect();
        put(text, format_args!("| {series} | {} |\n", cells.join(" | ")));
    }
}

fn cell(value: Statistics) -> String {
    if value.mean.is_nan() {
        return String::new();
    }
    format!("{} ± {}", short(value.mean), short(value.std_dev))
}

/// Appends `part`; writing to a `String` never fails.
fn put(text: &mut String, part: std::fmt::Arguments<'_>) {
    text.write_fmt(part)
        .expect("writing to a String never fails");
}
