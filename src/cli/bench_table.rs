//! The report of `kith bench` as Markdown tables.

use crate::bench::{DecodeStage, LayerRow, Pass, Report};

pub(crate) fn print(report: &Report) {
    table("embeddings", &forward(report));
    table(
        "training: forward, in-batch loss, backward, update",
        &train(report),
    );
    table("walks: a visit of each anchor", &walk(report));
    table("a 640 × 480 image on one thread", &decode(report));
    for peak in &report.peak {
        let (threads, gflops) = (peak.threads, peak.gflops);
        println!("peak: {gflops:.0} GFLOP/s of multiply-adds on registers, {threads} threads\n");
    }
    table(
        "layers: share of the peak, counted by definition (Winograd's method needs 2.25 to 4 times fewer products)",
        &layers(report),
    );
    totals(report);
}

/// Prints a table whose first row is the header; nothing if there are no other rows.
fn table(title: &str, rows: &[Vec<String>]) {
    let [header, body @ ..] = rows else { return };
    if body.is_empty() {
        return;
    }
    let wide = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..header.len()).filter_map(wide).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, &width)| format!("{cell:>width$}"));
        format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().map(|width| "-".repeat(width - 1) + ":");
    println!("{title}\n\n{}", line(header));
    println!("{}", line(&rule.collect::<Vec<_>>()));
    body.iter().for_each(|row| println!("{}", line(row)));
    println!();
}

fn cells<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

/// `—` for an unknown value.
fn or_dash(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "—".into(), |value| format!("{value:.digits$}"))
}

fn forward(report: &Report) -> Vec<Vec<String>> {
    let mut rows = vec![cells([
        "side",
        "batch",
        "threads",
        "images/s",
        "best",
        "processor ms/image",
    ])];
    rows.extend(report.forward.iter().map(|row| {
        vec![
            row.side.to_string(),
            row.batch.to_string(),
            row.threads.to_string(),
            format!("{:.1}", row.images_per_second),
            format!("{:.1}", row.best_images_per_second),
            or_dash(row.processor_ms_per_image, 2),
        ]
    }));
    rows
}

fn train(report: &Report) -> Vec<Vec<String>> {
    let mut rows = vec![cells([
        "side",
        "pairs",
        "threads",
        "images/s",
        "best",
        "processor ms/image",
        "peak MB",
    ])];
    rows.extend(report.train.iter().map(|row| {
        vec![
            row.side.to_string(),
            row.pairs.to_string(),
            row.threads.to_string(),
            format!("{:.1}", row.images_per_second),
            format!("{:.1}", row.best_images_per_second),
            or_dash(row.processor_ms_per_image, 2),
            or_dash(row.peak_bytes.map(|bytes| bytes as f64 / 1e6), 0),
        ]
    }));
    rows
}

fn walk(report: &Report) -> Vec<Vec<String>> {
    let mut rows = vec![cells(["pairs", "threads", "ms", "best"])];
    rows.extend(report.walk.iter().map(|row| {
        vec![
            row.pairs.to_string(),
            row.threads.to_string(),
            format!("{:.3}", row.ms),
            format!("{:.3}", row.best_ms),
        ]
    }));
    rows
}

fn decode(report: &Report) -> Vec<Vec<String>> {
    let mut rows = vec![cells(["", "ms", "best"])];
    rows.extend(report.decode.iter().map(|row| {
        let part = match row.part {
            DecodeStage::DecodeJpeg => "decode JPEG".into(),
            DecodeStage::DecodePng => "decode PNG".into(),
            DecodeStage::Resize => format!("resize to {}", row.side),
            DecodeStage::Augment => format!("augment to {}", row.side),
            DecodeStage::AugmentCutOut => format!("augment a cut-out to {}", row.side),
        };
        vec![
            part,
            format!("{:.2}", row.ms),
            format!("{:.2}", row.best_ms),
        ]
    }));
    rows
}

/// One row a layer, with its forward and backward pass.
fn layers(report: &Report) -> Vec<Vec<String>> {
    let mut rows = vec![cells([
        "layer",
        "times",
        "side",
        "batch",
        "threads",
        "GFLOP",
        "ms",
        "best",
        "share",
        "backward GFLOP",
        "ms",
        "best",
        "share",
    ])];
    let share = |row: &LayerRow| {
        let percent = row.share_of_peak.map(|share| 100.0 * share);
        or_dash(percent, 0) + " %"
    };
    let figures = |row: &LayerRow| {
        [
            format!("{:.2}", row.gflop),
            format!("{:.2}", row.ms),
            format!("{:.2}", row.best_ms),
            share(row),
        ]
    };
    for pair in report.layers.chunks_exact(2) {
        let row = &pair[0];
        let mut cells = vec![row.layer.clone()];
        cells.extend([row.times, row.side, row.batch, row.threads].map(|n| n.to_string()));
        cells.extend(pair.iter().flat_map(figures));
        rows.push(cells);
    }
    rows
}

/// The sum over all layers, beside the whole network where it was measured at the same size.
fn totals(report: &Report) {
    let mut done = Vec::new();
    for row in &report.layers {
        let key = (row.side, row.batch, row.threads);
        if done.contains(&key) {
            continue;
        }
        done.push(key);
        let sum = |pass| -> f64 {
            let of = report.layers.iter().filter(|other| {
                (other.side, other.batch, other.threads) == key && other.pass == pass
            });
            of.map(|row| row.ms * row.times as f64).sum()
        };
        let (side, batch, threads) = key;
        let (forward, backward) = (sum(Pass::Forward), sum(Pass::Backward));
        print!(
            "all layers, side {side}, batch {batch}, {threads} threads: forward {forward:.1} ms, backward {backward:.1} ms"
        );
        let whole = report.forward.iter();
        let whole = whole.filter(|row| (row.side, row.batch, row.threads) == key);
        for row in whole {
            let ms = 1e3 * batch as f64 / row.images_per_second;
            print!("; the whole network forward {ms:.1} ms");
        }
        println!();
    }
}
