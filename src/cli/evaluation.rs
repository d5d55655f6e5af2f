//! How a checkpoint was judged, alone or against another: as a table, or as a JSON document.

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

use super::figure::Figure;
use crate::{checkpoint::Model, types::CheckpointId};
use kith_eval::{
    BootstrapConfig, Classification, ClassificationReport, EvalReport, Evaluation, EvaluationSet,
    Geometry, PairedDifference, Retrieval, Score,
};

/// A checkpoint's answers to the questions.
pub(crate) struct Judged {
    checkpoint: CheckpointId,
    step: u64,
    figures: Figures,
    /// What a comparison is made of: its name in the document, its title, and the answers.
    scores: Vec<(&'static str, &'static str, Score)>,
}

enum Figures {
    Retrieval {
        evaluation: Evaluation,
        sides: [(&'static str, usize); 2],
    },
    Classes {
        classification: Classification,
        neighbours: usize,
    },
}

/// A difference with its name in the document and its title.
pub(crate) type Difference = (&'static str, &'static str, PairedDifference);

impl Judged {
    pub(crate) fn by_retrieval(
        model: &Model,
        set: &EvaluationSet,
        [one, other]: [&'static str; 2],
        report: EvalReport,
    ) -> Self {
        let evaluation = report.evaluation;
        let sides = [(one, set.anchors.len()), (other, set.positives.len())];
        Self {
            checkpoint: model.id,
            step: model.step,
            figures: Figures::Retrieval { evaluation, sides },
            scores: vec![("recall_at_1", "recall@1", report.score)],
        }
    }

    pub(crate) fn by_classes(
        model: &Model,
        neighbours: usize,
        report: ClassificationReport,
    ) -> Self {
        let classification = report.classification;
        Self {
            checkpoint: model.id,
            step: model.step,
            figures: Figures::Classes {
                classification,
                neighbours,
            },
            scores: vec![
                ("neighbour_accuracy", "neighbours", report.neighbour_score),
                ("probe_accuracy", "linear probe", report.probe_score),
            ],
        }
    }

    /// This one's shares less those of `other`.
    pub(crate) fn differences(
        &self,
        other: &Self,
        draws: &BootstrapConfig,
    ) -> anyhow::Result<Vec<Difference>> {
        let scores = self.scores.iter().zip(&other.scores);
        let difference = |((name, title, ours), (_, _, theirs)): (&(_, _, Score), &(_, _, _))| {
            let found = ours.difference(theirs, draws);
            let found = found.context("the checkpoints were asked different questions")?;
            Ok((*name, *title, found))
        };
        scores.map(difference).collect()
    }

    fn fields(&self) -> anyhow::Result<Map<String, Value>> {
        let figures = match &self.figures {
            Figures::Retrieval { evaluation, .. } => serde_json::to_value(evaluation)?,
            Figures::Classes { classification, .. } => serde_json::to_value(classification)?,
        };
        let Value::Object(mut fields) = figures else {
            anyhow::bail!("figures are an object");
        };
        fields.insert("checkpoint".into(), json!(self.checkpoint));
        fields.insert("step".into(), json!(self.step));
        match self.figures {
            Figures::Retrieval { sides, .. } => {
                let [(_, queries), (_, gallery)] = sides;
                fields.insert("queries".into(), json!(queries));
                fields.insert("gallery".into(), json!(gallery));
            }
            Figures::Classes { neighbours, .. } => {
                fields.insert("neighbours".into(), json!(neighbours));
            }
        }
        Ok(fields)
    }

    fn print(&self) {
        println!("checkpoint {} at step {}", self.checkpoint, self.step);
        match &self.figures {
            Figures::Retrieval { evaluation, sides } => print_retrieval(evaluation, *sides),
            Figures::Classes {
                classification,
                neighbours,
            } => print_classes(classification, *neighbours),
        }
    }
}

/// The figures' own fields, with the checkpoint and the sizes; those of the other and the differences below `against`.
pub(crate) fn document(
    judged: &Judged,
    against: Option<(&Judged, Vec<Difference>)>,
) -> anyhow::Result<Value> {
    let mut document = judged.fields()?;
    if let Some((other, differences)) = against {
        let mut fields = other.fields()?;
        let mut named = Map::new();
        for (name, _, difference) in differences {
            named.insert(name.to_owned(), serde_json::to_value(difference)?);
        }
        let before = fields.insert("differences".into(), Value::Object(named));
        ensure!(before.is_none(), "no figure has the name \"differences\"");
        document.insert("against".into(), Value::Object(fields));
    }
    Ok(Value::Object(document))
}

pub(crate) fn print(judged: &Judged, against: Option<(&Judged, Vec<Difference>)>) {
    judged.print();
    let Some((other, differences)) = against else {
        return;
    };
    println!("\nagainst");
    other.print();
    println!("\nthe first less the second");
    for (_, title, difference) in differences {
        let PairedDifference {
            units,
            difference,
            low,
            high,
            p_value,
        } = difference;
        let value = format!("{difference:+.4}");
        let meaning =
            format!("95 % interval {low:+.4} to {high:+.4}; p = {p_value:.3}; {units} units");
        let name = title;
        println!(
            "{}",
            Figure {
                name,
                value,
                meaning
            }
        );
    }
}

fn print_retrieval(evaluation: &Evaluation, [(one, ones), (other, others)]: [(&str, usize); 2]) {
    println!(
        "{} pairs; {ones} images as {one}, {others} as {other}\n",
        evaluation.pairs
    );
    println!(
        "{:22} {:>9} {:>9} {:>9} {:>9}",
        "", "recall@1", "recall@5", "recall@10", "MRR"
    );
    row(&format!("{one} → {other}"), &evaluation.anchor_to_positive);
    row(&format!("{other} → {one}"), &evaluation.positive_to_anchor);
    let Geometry {
        alignment,
        uniformity,
        effective_rank,
        spread,
        mean_cosine,
    } = evaluation.geometry;
    println!();
    for (name, value, meaning) in [
        (
            "alignment",
            alignment,
            "mean squared distance of pairs: 0 is best",
        ),
        ("uniformity", uniformity, "lower is more uniform"),
        ("effective rank", effective_rank, "dimensions in use"),
        ("spread", spread, "1: uniform, 0: collapsed"),
        (
            "mean cosine",
            mean_cosine,
            "of different images: 1 is collapsed",
        ),
    ] {
        println!("{}", Figure::number(name, value, 4, meaning));
    }
}

fn row(name: &str, found: &Retrieval) {
    let Retrieval {
        recall_at_1,
        recall_at_5,
        recall_at_10,
        mrr,
    } = found;
    println!("{name:22} {recall_at_1:>9.4} {recall_at_5:>9.4} {recall_at_10:>9.4} {mrr:>9.4}");
}

fn print_classes(classification: &Classification, neighbours: usize) {
    let Classification {
        train,
        test,
        classes,
        neighbour_accuracy,
        probe_accuracy,
    } = *classification;
    println!("{test} test images told by {train} others of {classes} classes\n");
    for figure in [
        Figure::number(
            "neighbours",
            neighbour_accuracy,
            4,
            format!("right by the votes of the nearest {neighbours}"),
        ),
        Figure::number(
            "linear probe",
            probe_accuracy,
            4,
            "right by logistic regression on the embeddings",
        ),
    ] {
        println!("{figure}");
    }
}
