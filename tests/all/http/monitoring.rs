//! The queries in `docs/monitoring/` find their series, and its page lists them all.

use std::collections::BTreeSet;

use kith::telemetry::series;
use promql_parser::{
    label::MatchOp,
    parser::{self, AggregateExpr, Expr, LabelModifier, VectorSelector},
    util::{ExprVisitor, walk_expr},
};
use serde_json::Value;

use super::metrics::{Output, used};

/// Labels that Prometheus adds.
const ADDED: [&str; 2] = ["instance", "job"];

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_and_the_alerts_finds_its_series() {
    let served = used().await;
    let output = Output::of(&served).await;
    let (dashboard, alerts) = (dashboard_queries(), alert_queries());
    assert!(dashboard.len() > 50 && alerts.len() > 10);
    for query in dashboard.iter().chain(&alerts) {
        check_query(query, &output);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_on_monitoring_lists_every_series_and_no_other() {
    let page = document("docs/monitoring.md");
    let words = page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let named: BTreeSet<&str> = words.filter(|word| word.starts_with("kith_")).collect();
    let known: BTreeSet<&str> = series::ALL.iter().map(|series| series.name).collect();
    assert_eq!(named, known);
    let served = used().await;
    let text = served.get("/metrics").await.text();
    for name in known {
        assert!(
            text.contains(&format!("# TYPE {name} ")),
            "{name} is never given"
        );
        assert!(
            text.contains(&format!("# HELP {name} ")),
            "{name} is not explained"
        );
    }
}

/// The panels of the dashboard that show something, rows and what they fold left out.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().unwrap().iter();
    let folded = |panel: &Value| panel["type"] == "row" && panel["collapsed"] == true;
    let inner = all.clone().filter(|panel| folded(panel));
    let inner = inner.flat_map(|row| row["panels"].as_array().unwrap());
    let shown = all.chain(inner).filter(|panel| panel["type"] != "row");
    shown.collect()
}

/// Whether two panels share a place of the grid of 24 columns.
fn overlap(a: &Value, b: &Value) -> bool {
    let apart = |from: &str, size: &str| {
        let (start, length) = (
            |panel: &Value| panel["gridPos"][from].as_u64().unwrap(),
            |panel: &Value| panel["gridPos"][size].as_u64().unwrap(),
        );
        start(a) + length(a) <= start(b) || start(b) + length(b) <= start(a)
    };
    !apart("x", "w") && !apart("y", "h")
}

/// Units of Grafana that the dashboard may use; Grafana shows any other text as it is.
const UNITS: [&str; 6] = ["short", "s", "bytes", "percentunit", "reqps", "sci"];

#[test]
fn the_dashboard_is_one_that_grafana_can_import() {
    let dashboard: Value =
        serde_json::from_str(&document("docs/monitoring/dashboard.json")).unwrap();
    assert!(dashboard["title"].is_string() && dashboard["uid"].as_str().unwrap().len() <= 40);
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let source = variables
        .iter()
        .find(|variable| variable["name"] == "datasource")
        .unwrap();
    assert_eq!(
        (&source["type"], &source["query"]),
        (&"datasource".into(), &"prometheus".into())
    );
    let panels = panels(&dashboard);
    let mut ids = BTreeSet::new();
    for (at, panel) in panels.iter().enumerate() {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is taken"
        );
        let place = &panel["gridPos"];
        assert!(
            place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24,
            "{title}"
        );
        for other in &panels[at + 1..] {
            assert!(!overlap(panel, other), "{title} lies on {}", other["title"]);
        }
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
        assert!(
            unit.is_some_and(|unit| UNITS.contains(&unit)),
            "{title}: {unit:?}"
        );
        let mut letters = BTreeSet::new();
        for target in panel["targets"].as_array().unwrap() {
            for holder in [*panel, target] {
                assert_eq!(holder["datasource"]["uid"], "${datasource}", "{title}");
                assert_eq!(holder["datasource"]["type"], "prometheus", "{title}");
            }
            assert!(letters.insert(target["refId"].as_str().unwrap()), "{title}");
            assert!(
                target["expr"].as_str().unwrap().contains("$instance"),
                "{title}"
            );
        }
        assert!(!letters.is_empty(), "{title} shows nothing");
    }
}

fn document(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

fn dashboard_queries() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                Value::String(query) if name == "expr" => found.push(query.clone()),
                _ => collect(value, found),
            }),
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(
        &serde_json::from_str(&document("docs/monitoring/dashboard.json")).unwrap(),
        &mut found,
    );
    // Grafana puts these in.
    let filled = found.iter().map(|query| {
        query
            .replace("$__rate_interval", "5m")
            .replace("$instance", ".*")
    });
    filled.collect()
}

fn alert_queries() -> Vec<String> {
    let rules = document("docs/monitoring/alerts.yml");
    let queries = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    let queries: Vec<String> = queries.map(str::to_owned).collect();
    assert_eq!(
        queries.len(),
        rules.matches("- alert: ").count(),
        "a rule without a query on its line"
    );
    queries
}

/// The selectors of a query, and the labels by which it groups.
#[derive(Default)]
struct Parts {
    selectors: Vec<VectorSelector>,
    groups: Vec<String>,
}

impl ExprVisitor for Parts {
    type Error = String;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, String> {
        match expr {
            Expr::VectorSelector(selector) => self.selectors.push(selector.clone()),
            Expr::MatrixSelector(selector) => self.selectors.push(selector.vs.clone()),
            Expr::Aggregate(AggregateExpr {
                modifier: Some(LabelModifier::Include(labels)),
                ..
            }) => {
                self.groups.extend(labels.labels.iter().cloned());
            }
            _ => {}
        }
        Ok(true)
    }
}

fn check_query(query: &str, output: &Output) {
    let parsed = parser::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let mut parts = Parts::default();
    walk_expr(&mut parts, &parsed).unwrap();
    assert!(!parts.selectors.is_empty(), "{query}");
    for selector in &parts.selectors {
        let name = selector.name.as_deref().unwrap();
        // Prometheus' own.
        if name == "up" {
            continue;
        }
        let labels = output
            .labels
            .get(name)
            .unwrap_or_else(|| panic!("{query}: no series {name}"));
        let matchers = selector.matchers.matchers.iter();
        for matcher in matchers.filter(|matcher| !ADDED.contains(&matcher.name.as_str())) {
            let values = labels.get(&matcher.name);
            let values = values.unwrap_or_else(|| panic!("{query}: no label {}", matcher.name));
            let equal = matches!(matcher.op, MatchOp::Equal);
            assert!(
                !equal || values.contains(&matcher.value),
                "{query}: {} is never {}",
                matcher.name,
                matcher.value
            );
        }
        for label in &parts.groups {
            let known = labels.contains_key(label) || ADDED.contains(&label.as_str());
            assert!(known, "{query}: {name} has no label {label}");
        }
    }
}
