//! `kith bench`: every kind of cell on a tiny encoder, the cells of a plan, and what the command prints.

use std::{process::Command, time::Duration};

use kith::{
    bench::{Bench, Cell, Figure, Kind, Plan, Report, Setup},
    config::Settings,
};
use kith_nn::{Device, EncoderConfig};
use serde_json::Value;

const TINY: EncoderConfig = EncoderConfig {
    width: 8,
    side: 32,
    dim: 16,
    towers: 1,
};

fn setup() -> Setup {
    let settings = Settings::from_layers(None, [], &[]).unwrap();
    Setup {
        encoder: TINY,
        device: Device::cpu(),
        optimizer: settings.optimizer,
        learning: settings.learning,
        limits: settings.limits,
        augment: settings.augment,
    }
}

fn plan(kinds: &[Kind], sides: &[usize], batches: &[usize], threads: &[usize]) -> Plan {
    Plan {
        kinds: kinds.to_vec(),
        sides: sides.to_vec(),
        batches: batches.to_vec(),
        threads: threads.to_vec(),
    }
}

#[test]
fn every_kind_of_cell_gives_its_row() {
    let mut bench = Bench::new(setup());
    let cells = plan(&[], &[32], &[2], &[1]).cells(&setup()).unwrap();
    let measure = |cell: Cell| {
        let figure = bench.run(&cell, Duration::ZERO).unwrap();
        assert!(
            figure.seconds > 0.0 && figure.best_seconds <= figure.seconds,
            "{cell:?}"
        );
        (cell, figure)
    };
    let measured: Vec<(Cell, Figure)> = cells.into_iter().map(measure).collect();
    let report = Report::new(&measured);
    assert_eq!((report.forward.len(), report.train.len()), (1, 1));
    assert_eq!(
        (report.walk.len(), report.decode.len(), report.peak.len()),
        (1, 5, 1)
    );
    // Eleven shapes of the backbone and three of the head, there and back.
    assert_eq!(report.layers.len(), 28);
    assert!(
        report
            .layers
            .iter()
            .all(|row| row.share_of_peak > Some(0.0))
    );
    // Twenty convolutions, the fully connected layer and the three parts of the projection.
    let forward = report.layers.iter().step_by(2);
    assert_eq!(forward.map(|row| row.times).sum::<usize>(), 24);
}

#[test]
fn a_plan_has_each_cell_once() {
    let count = |kind, sides: &[usize]| {
        plan(&[kind], sides, &[1, 2], &[1, 2])
            .cells(&setup())
            .unwrap()
            .len()
    };
    let counts = Kind::ALL.map(|kind| count(kind, &[32, 64]));
    // Walks know no side, decoding neither batch nor threads; layers have two peaks, and 28 cells for each of eight choices.
    assert_eq!(counts, [8, 8, 2 + 8 * 28, 4, 10]);
    assert!(
        plan(&[Kind::Decode], &[33], &[], &[])
            .cells(&setup())
            .is_err()
    );
}

#[test]
fn the_command_prints_rates_and_the_memory_of_training_as_json() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kith"));
    command.args([
        "bench",
        "--json",
        "--only=forward,train",
        "--side=32",
        "--batch=1,2",
    ]);
    command.args(["--threads=1", "--seconds=0", "--rounds=2"]);
    command.args(["--set=encoder.width=8", "--set=encoder.dim=16"]);
    let done = command.output().unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let document: Value = serde_json::from_slice(&done.stdout).unwrap();
    let rows = |name: &str| document[name].as_array().unwrap().clone();
    assert_eq!((rows("forward").len(), rows("train").len()), (2, 2));
    for (row, batch) in rows("forward").iter().zip([1, 2]) {
        assert_eq!(
            (&row["side"], &row["batch"], &row["threads"]),
            (&32.into(), &batch.into(), &1.into())
        );
        assert!(row["images_per_second"].as_f64() > Some(0.0), "{row}");
    }
    for (row, pairs) in rows("train").iter().zip([1, 2]) {
        assert_eq!(row["pairs"], pairs);
        assert!(row["images_per_second"].as_f64() > Some(0.0), "{row}");
        // Weights, gradients and two moments of 180,000 values each are 2.9 MB; what the forward cells freed and the process kept
        // is not counted again. Nothing of other tests is, which run in another process.
        let peak = row["peak_bytes"].as_u64();
        let known = cfg!(target_os = "linux");
        assert!(
            !known || (1_000_000..200_000_000).contains(&peak.unwrap_or(0)),
            "{row}"
        );
    }
}
