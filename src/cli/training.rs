//! `kith training`: what training does on a running server; pauses, resumes and steers it.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{answer, client::Client, server_args::ServerArgs};

const STATUS: [answer::Column; 8] = [
    ("state", "/state"),
    ("waiting for", "/waiting_for"),
    ("step", "/step"),
    ("learning rate", "/learning_rate"),
    ("rate set by a caller", "/set_learning_rate"),
    ("live checkpoint", "/checkpoint/live"),
    ("held", "/checkpoint/held"),
    ("last error", "/last_error"),
];
const METRICS: [answer::Column; 4] = [
    ("step", "/step"),
    ("loss", "/loss"),
    ("acceptance", "/acceptance_rate"),
    ("at", "/at"),
];

#[derive(Args, Debug)]
pub(crate) struct TrainingArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print the server's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// What training does now (the default)
    Status,
    /// Pause it; a pause survives restarts
    Pause,
    /// Let it go on, with another learning rate if one is given
    Resume {
        #[arg(long, value_name = "RATE|schedule", allow_negative_numbers = true, value_parser = rate)]
        learning_rate: Option<Value>,
    },
    /// The series of its figures
    Metrics {
        /// From this step on
        #[arg(long, value_name = "STEP", default_value_t = 0)]
        since: u64,
    },
}

/// Parses a number, or the name of the rate of the settings. JSON has no others than finite numbers.
fn rate(text: &str) -> Result<Value, String> {
    if text == "schedule" {
        return Ok(text.into());
    }
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    let number = number.map(Value::from);
    number.ok_or_else(|| "it must be a number such as 0.0001, or \"schedule\"".to_owned())
}

pub(crate) fn run(args: &TrainingArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server);
    let (answer, columns) = match args.action.as_ref().unwrap_or(&Action::Status) {
        Action::Status => (client.get("/v1/training")?, &STATUS[..]),
        Action::Pause => (
            client.patch("/v1/training", &json!({"state": "paused"}))?,
            &STATUS[..],
        ),
        Action::Resume { learning_rate } => {
            let mut document = json!({"state": "running"});
            if let Some(rate) = learning_rate {
                document["learning_rate"] = json!(rate);
            }
            (client.patch("/v1/training", &document)?, &STATUS[..])
        }
        Action::Metrics { since } => (
            client.get(&format!("/v1/training/metrics?since={since}"))?,
            &METRICS[..],
        ),
    };
    answer::print(&answer, columns, args.json);
    if !args.json {
        print!("{}", alarms(&answer));
    }
    Ok(())
}

/// What is wrong with learning, each with what to do; empty if nothing is.
fn alarms(answer: &Value) -> String {
    let raised = answer["alarms"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |alarm: &Value, field: &str| answer::cell(alarm.get(field));
    let lines = raised.iter().map(|alarm| {
        let [name, since] = ["alarm", "since_step"].map(|field| text(alarm, field));
        let [message, remedy] = ["message", "remedy"].map(|field| text(alarm, field));
        format!("\nalarm: {name}, since step {since}\n  {message}\n  What to do: {remedy}\n")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alarm_is_told_with_its_remedy_and_without_control_characters() {
        let alarm = json!({
            "alarm": "collapse", "since_step": 40, "message": "No\u{1b} use.", "remedy": "Lower the rate.",
        });
        assert_eq!(
            alarms(&json!({"alarms": [alarm]})),
            "\nalarm: collapse, since step 40\n  No  use.\n  What to do: Lower the rate.\n"
        );
        assert_eq!(alarms(&json!({"alarms": []})), "");
        // The series of figures has none.
        assert_eq!(alarms(&json!({"data": []})), "");
    }
}
