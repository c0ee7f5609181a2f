//! Whether every expression of a manifest compiles and every `learn`, `forecast` and `anomaly` table can be served: the part
//! of a pipeline file's check that needs this crate.

use dunlin_protocol::id::Name;
use dunlin_protocol::pipeline::error::ManifestError;
use dunlin_protocol::pipeline::manifest::{Manifest, Operator};
use thiserror::Error;

use crate::anomaly::Anomaly;
use crate::expression::{BadExpression, Expression};
use crate::forecast::Forecast;
use crate::learn::Learn;

/// A stage whose expression or table is wrong. Nothing was deployed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}; {hint}")]
pub struct ManifestProblem {
    pub stage: Name,
    /// The way to it: `stage`, its name, `filter`, `learn`, `forecast`, `anomaly`, or `map` and the field.
    pub path: Vec<String>,
    pub reason: String,
    pub hint: String,
}

impl ManifestProblem {
    /// The same as an error of the file that the manifest was read from.
    pub fn in_file(self, text: &str, file: &str) -> ManifestError {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        Manifest::error_at(text, file, &path, self.reason, self.hint)
    }
}

/// Compiles every expression and sets up every model; the first that is wrong, in the order of the stages' names.
pub fn check(manifest: &Manifest) -> Result<(), ManifestProblem> {
    for (name, stage) in &manifest.stages {
        match &stage.operator {
            Operator::Filter(text) => {
                compile(name, "filter", None, text, Expression::check_filter)?;
            }
            Operator::Map(fields) => {
                let value = |(field, text): &(String, String)| {
                    compile(name, "map", Some(field), text, Expression::check_value)
                };
                fields.iter().try_for_each(value)?;
            }
            Operator::Learn(spec) => {
                Learn::new(spec).map(drop).map_err(|why| table(name, "learn", &why))?;
            }
            Operator::Forecast(spec) => {
                Forecast::new(spec).map(drop).map_err(|why| table(name, "forecast", &why))?;
            }
            Operator::Anomaly(spec) => {
                Anomaly::new(spec).map(drop).map_err(|why| table(name, "anomaly", &why))?;
            }
            Operator::Wasm(_) => {}
        }
    }
    Ok(())
}

/// What is wrong with a stage's table, as its operator says: reason, colon, hint.
fn table(stage: &Name, kind: &str, why: &str) -> ManifestProblem {
    let (reason, hint) = why.split_once(": ").unwrap_or((why, "correct the table"));
    let path = ["stage", stage.as_str(), kind].map(str::to_owned).to_vec();
    let reason = format!("{kind} of stage '{stage}': {reason}");
    ManifestProblem { stage: stage.clone(), path, reason, hint: hint.to_owned() }
}

fn compile(
    stage: &Name,
    kind: &str,
    field: Option<&str>,
    text: &str,
    fits: impl Fn(&Expression) -> Result<(), BadExpression>,
) -> Result<(), ManifestProblem> {
    Expression::compile(text).and_then(|expression| fits(&expression)).map_err(|bad| {
        let path = ["stage", stage.as_str(), kind].into_iter().chain(field).map(str::to_owned).collect();
        let reason = match field {
            None => format!("{kind} of stage '{stage}': {}", bad.reason),
            Some(field) => format!("field '{field}' in {kind} of stage '{stage}': {}", bad.reason),
        };
        ManifestProblem { stage: stage.clone(), path, reason, hint: bad.hint }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name = 'p'\n[source.s]\n[stage.f]\nfrom = ['s']\nfilter = 'event.v > 1'\n\
        [stage.m]\nfrom = ['f']\nmap = { a = 'event.a', b = 'evnt.b' }\n";

    #[test]
    fn a_wrong_expression_is_found_where_it_stands() {
        let manifest = Manifest::from_toml(TEXT, "p.toml").unwrap();
        let problem = check(&manifest).unwrap_err();
        assert_eq!(problem.stage.as_str(), "m");
        assert_eq!(
            problem.in_file(TEXT, "p.toml").to_string(),
            "p.toml:8:28: field 'b' in map of stage 'm': there is no variable 'evnt', only event, \
             the payload; did you mean 'event'?"
        );
        let right = TEXT.replace("evnt", "event");
        assert_eq!(check(&Manifest::from_toml(&right, "p.toml").unwrap()), Ok(()));
    }
    #[test]
    fn an_unknown_model_is_found_too() {
        let text =
            "name = 'p'\n[source.s]\n[stage.l]\nfrom = ['s']\nlearn = { label = 'v', models = ['rsl'] }\n";
        let problem = check(&Manifest::from_toml(text, "p.toml").unwrap()).unwrap_err();
        let error = problem.in_file(text, "p.toml").to_string();
        assert_eq!(error, "p.toml:5:1: learn of stage 'l': there is no model 'rsl'; did you mean 'rls'?");
    }

    #[test]
    fn the_examples_are_right() {
        for text in [
            include_str!("../../../examples/pipelines/fare-watch.toml"),
            include_str!("../../../examples/pipelines/host-watch.toml"),
            include_str!("../../../examples/pipelines/transformer-load.toml"),
            include_str!("../../../examples/pipelines/flight-delay.toml"),
        ] {
            let manifest = Manifest::from_toml(text, "example.toml").unwrap();
            assert_eq!(check(&manifest), Ok(()));
            assert_eq!(Manifest::from_json(&manifest.to_json()), Ok(manifest));
        }
    }
}
