//! The streams of the stage in, the file out.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use dunlin_protocol::id::Name;
use dunlin_protocol::limits::EDGE_CREDIT_BYTES;
use dunlin_protocol::pipeline::manifest::StreamName;
use dunlin_protocol::rpc::{Fault, FaultKind, Request, Response, Tail, TailFrom};
use serde::Serialize;

use super::gathered::Gathered;
use super::page::page;
use crate::cli::arguments::ReportArguments;
use crate::cli::client::{Client, Failure, TailEvents};
use crate::cli::inspect::wrong_answer;
use crate::cli::output::{Output, bytes_text, progress};

/// Events between two looks at the progress.
const PROGRESS_EVERY: u64 = 4096;

#[derive(Debug, Serialize)]
struct Made {
    report: String,
    predictions: u64,
    settled: u64,
    bytes: u64,
}

/// Makes the report of a learning stage. An error leaves the file as it was.
pub fn report(client: &dyn Client, arguments: &ReportArguments, out: &Output) -> anyhow::Result<()> {
    let ReportArguments { stage, out: path } = arguments;
    learns(client, &stage.pipeline, &stage.name)?;
    // Before all the reading: whoever cannot write need not read.
    let mut file = Paper::open(path)?;
    let gathered = gather(client, &stage.pipeline, &stage.name)?;
    let name = format!("{}/{}", stage.pipeline, stage.name);
    if gathered.predictions == 0 && gathered.settled == 0 {
        anyhow::bail!(
            "'{name}' has predicted nothing that is kept, so there is nothing to report: give it events and try again"
        );
    }
    let text = page(&name, &gathered);
    file.write(&text)?;
    let made = Made {
        report: path.display().to_string(),
        predictions: gathered.predictions,
        settled: gathered.settled,
        bytes: text.len() as u64,
    };
    match out.json {
        true => out.object(&made),
        false => out.line(&format!(
            "{}: {} predictions, {} settled, {}",
            made.report,
            made.predictions,
            made.settled,
            bytes_text(made.bytes)
        )),
    }
}

/// Whether there is such a stage, and it learns.
fn learns(client: &dyn Client, pipeline: &Name, stage: &Name) -> anyhow::Result<()> {
    let shown = match client.ask(Request::Show { pipeline: pipeline.clone() })? {
        Response::Shown(shown) => shown,
        other => return Err(wrong_answer(&other)),
    };
    let names = shown.stages.iter().map(|other| other.stage.as_str());
    anyhow::ensure!(
        names.clone().any(|name| name == stage.as_str()),
        "pipeline '{pipeline}' has no stage '{stage}'; it has {}",
        names.collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

fn gather(client: &dyn Client, pipeline: &Name, stage: &Name) -> anyhow::Result<Gathered> {
    let mut gathered = Gathered::default();
    let bar = progress(None, "reading");
    let scores: Name = "scores".parse()?;
    let mut read = 0u64;
    for side in [Some(scores), None] {
        let settled = side.is_some();
        let stream = StreamName { base: stage.clone(), side };
        let no_scores = |failure: Failure| match failure {
            Failure::Refused(Fault { kind: FaultKind::Unknown, .. }) if settled => anyhow::anyhow!(
                "'{stage}' of '{pipeline}' does not learn, so there is nothing to report: name a stage with `learn` or \
                 `forecast`"
            ),
            failure => failure.into(),
        };
        for event in tail(client, pipeline, stream).map_err(no_scores)? {
            let event = event.map_err(no_scores)?.placed;
            match settled {
                true => gathered.settled(event.id, &event.event.payload),
                false => gathered.predicted(&event.event.payload),
            }
            read += 1;
            if read.is_multiple_of(PROGRESS_EVERY) {
                bar.set_message(format!("{read} events"));
                bar.tick();
            }
        }
    }
    bar.finish_and_clear();
    Ok(gathered)
}

/// What is kept of a stream, to its present head.
fn tail(client: &dyn Client, pipeline: &Name, stream: StreamName) -> Result<TailEvents, Failure> {
    let request = Tail {
        pipeline: pipeline.clone(),
        stream,
        from: TailFrom::Start,
        limit: None,
        follow: false,
        credit: EDGE_CREDIT_BYTES,
    };
    client.tail(request)
}

/// The file to be, which is removed again if nothing comes of it.
#[derive(Debug)]
struct Paper<'a> {
    path: &'a Path,
    file: File,
    remove: bool,
}

impl Paper<'_> {
    fn open(path: &Path) -> anyhow::Result<Paper<'_>> {
        let remove = !path.exists();
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).open(path).with_context(|| {
                format!(
                    "the report cannot be written to '{}': name a file in a folder that is there, with --out",
                    path.display()
                )
            })?;
        Ok(Paper { path, file, remove })
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        let whole = |file: &mut File| {
            // What is no plain file has no length to be set.
            if file.metadata()?.len() > 0 {
                file.set_len(0)?;
            }
            file.write_all(text.as_bytes())
        };
        whole(&mut self.file)
            .with_context(|| format!("the report could not be written to '{}'", self.path.display()))?;
        self.remove = false;
        Ok(())
    }
}

impl Drop for Paper<'_> {
    fn drop(&mut self) {
        if self.remove {
            // It is empty; whoever removes it first is right.
            let _ = fs::remove_file(self.path);
        }
    }
}
