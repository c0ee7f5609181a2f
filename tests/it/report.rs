//! `dunlin report`: what a stage said and what came true, as a file, through whatever node.

use std::fmt::Write;
use std::fs;

use dunlin_tests::{Mesh, dunlin};

use crate::counting::number;

const PIPELINE: &str = r#"
name = "seen"
[source.rows]
key  = "who"
time = "at"
[stage.later]
from  = ["rows"]
key   = "who"
learn = { target = "v", after = "1h", rises_by = 0.01 }
[stage.ahead]
from     = ["rows"]
key      = "who"
forecast = { target = "v", horizon = 3 }
[stage.plain]
from = ["rows"]
map  = { v = "event.v" }
[stage.nothing]
from   = ["rows"]
key    = "who"
learn  = { target = "none", after = "1h" }
[placement.later]
shares = 2
"#;

/// An hour apart, two keys, a day that repeats itself; the last value stands nowhere else.
fn rows(hours: u64) -> String {
    (0..hours).fold(String::new(), |mut rows, hour| {
        for who in ["a & b", "c"] {
            let day = ((hour % 24) as f64 / 24.0 * std::f64::consts::TAU).sin();
            let v = if hour + 1 == hours { 141.4375 } else { 100.0 + 10.0 * day + (hour * 7 % 5) as f64 };
            let at = 1_772_000_000_000 + hour * 3_600_000;
            writeln!(rows, r#"{{"who":"{who}","at":{at},"v":{v}}}"#).unwrap();
        }
        rows
    })
}

#[test]
fn a_report_shows_what_was_said_and_what_came_true() {
    let mesh = Mesh::of(2);
    mesh.deploy(PIPELINE);
    let file = mesh.write("rows.jsonl", &rows(80));
    mesh[0].cli(&["publish", "seen/rows", &file]).ok();
    mesh.wait_until_through("seen", "later", 160);
    mesh.wait_until_through("seen", "ahead", 160);

    let to = mesh.file("later.html").display().to_string();
    let made = mesh[1].cli(&["report", "--json", "seen/later", "--out", &to]).ok().json();
    let settled = mesh[0].tail("seen/later.scores");
    assert_eq!((number(&made["predictions"]), number(&made["settled"])), (160, settled.len() as u64));
    assert!(settled.len() > 100, "{}", settled.len());
    let page = fs::read_to_string(&to).unwrap();
    assert_eq!(number(&made["bytes"]), page.len() as u64);
    let last = settled.iter().find(|event| event["payload"]["truth"] == 141.4375).unwrap();
    assert!(page.contains("141.4375 came true"), "the truth of {last}");
    assert!(page.contains("a &amp; b") && !page.contains("a & b"), "keys are text, not markup");
    for part in [
        "Error over time",
        "Weights of the models",
        "Reliability of the probability",
        "Coverage of the interval",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let errors = settled.iter().map(|event| event["payload"]["absolute_error"].as_f64().unwrap());
    let mae = errors.sum::<f64>() / settled.len() as f64;
    assert!(page.contains(&format!("<b>{}</b>", four(mae))), "the mean absolute error is {mae}");
    // It asks for nothing from elsewhere, and nothing in it runs.
    for word in ["http://", "https://", "<script", "src=", "@import", "url("] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "no figure went wrong");

    // `show` says the same in a line.
    let shown = mesh[1].cli(&["show", "--json", "seen"]).ok().json();
    let of =
        |stage: &str| shown["learned"].as_array().unwrap().iter().filter(|one| one["stage"] == stage).count();
    assert_eq!((of("later"), of("ahead"), of("plain")), (1, 2, 0), "{shown}");
    let later = shown["learned"].as_array().unwrap().iter().find(|one| one["stage"] == "later").unwrap();
    assert_eq!(
        (number(&later["settled"]), &later["ahead"]),
        (settled.len() as u64, &"1 h".into()),
        "{later}"
    );
    assert!((later["mae"].as_f64().unwrap() - mae).abs() < 1e-9, "{later}: {mae}");
    let (address, token) = (mesh[0].listen[0].clone(), mesh[0].token());
    let table = dunlin(&["--node", &address, "--token", &token, "show", "seen"]).ok().stdout;
    assert!(table.contains("ERROR SO FAR") && table.contains('▁'), "{table}");

    // Another node reads the same, and the file is the same.
    let again = mesh.file("again.html").display().to_string();
    mesh[0].cli(&["report", "seen/later", "--out", &again]).ok();
    assert_eq!(fs::read_to_string(&again).unwrap(), page);

    let to = mesh.file("ahead.html").display().to_string();
    mesh[1].cli(&["report", "seen/ahead", "--out", &to]).ok();
    let page = fs::read_to_string(&to).unwrap();
    for part in ["1 step ahead", "3 steps ahead", "Error by horizon", "141.4375"] {
        assert!(page.contains(part), "{part}");
    }
}

/// As the page writes it.
fn four(value: f64) -> String {
    let behind = (3.0 - value.log10().floor()).max(0.0) as usize;
    format!("{value:.behind$}").trim_end_matches('0').trim_end_matches('.').to_string()
}

#[test]
fn what_cannot_be_reported_gets_a_sentence_and_leaves_no_file() {
    let mesh = Mesh::of(1);
    mesh.deploy(PIPELINE);
    let to = mesh.file("x.html").display().to_string();
    let cases: &[(&str, &str, &[&str])] = &[
        ("nowhere/later", &to, &["no pipeline 'nowhere'"]),
        ("seen/late", &to, &["no stage 'late'", "later"]),
        ("seen/plain", &to, &["'plain' of 'seen' does not learn", "forecast"]),
        ("seen/rows", &to, &["'rows' of 'seen' does not learn"]),
        ("seen/nothing", &to, &["has predicted nothing", "try again"]),
        ("seen/later", "/no/such/folder/x.html", &["/no/such/folder/x.html", "cannot be written"]),
    ];
    for (stage, out, words) in cases {
        let output = mesh[0].cli(&["report", stage, "--out", out]);
        assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{output:?}");
        assert_eq!(output.stderr.trim_end().lines().count(), 1, "{output:?}");
        assert!(words.iter().all(|word| output.stderr.contains(word)), "{words:?}: {output:?}");
    }
    assert!(!mesh.file("x.html").exists());
    // A file that is there stays as it was.
    fs::write(mesh.file("x.html"), "mine").unwrap();
    mesh[0].cli(&["report", "seen/nothing", "--out", &to]);
    assert_eq!(fs::read_to_string(mesh.file("x.html")).unwrap(), "mine");
    assert_eq!(mesh[0].cli(&["report"]).code, Some(2));
}
