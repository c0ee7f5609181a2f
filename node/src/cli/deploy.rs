//! `dunlin deploy`: a pipeline file becomes a running pipeline.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use dunlin_operators::check;
use dunlin_protocol::id::{Digest, LogId, Name, NodeId};
use dunlin_protocol::limits::{MANIFEST_BYTES_MAX, MODULE_BYTES_MAX};
use dunlin_protocol::pipeline::manifest::{Connector, Manifest, Module, Operator, WasmSpec};
use dunlin_protocol::rpc::{
    ActorStatus, Fault, FaultKind, Liveness, PipelineState, Request, Response, Shown,
};
use indicatif::ProgressBar;

use super::client::{Client, Failure, ask_patiently};
use super::inspect::wrong_answer;
use super::output::{Output, progress};
use crate::api::json::DeployedJson;

/// A pipeline that does not run by then is deployed but not well.
const RUNNING_DEADLINE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A node hears every two seconds what its sources meet: one that has read nothing and complains of
/// nothing by then has an empty file.
const FILE_DEADLINE: Duration = Duration::from_secs(3);
/// Every component and core module begins so.
const WASM_MAGIC: &[u8] = b"\0asm";

pub fn deploy(client: &dyn Client, file: &Path, out: &Output) -> anyhow::Result<()> {
    let (text, manifest) = read(file)?;
    let base = file.parent().unwrap_or(Path::new(""));
    let bar = progress(None, manifest.name.as_str());
    bar.enable_steady_tick(LOOK_AGAIN);
    let outcome = send(client, manifest, &PipelineFile { text: &text, name: file, base }, &bar);
    bar.finish_and_clear();
    let deployed = outcome?;
    if out.json {
        return out.object(&deployed);
    }
    out.line(&format!(
        "{} runs, revision {}, {} actors{}",
        deployed.pipeline,
        deployed.revision,
        deployed.actors,
        if deployed.changed { "" } else { " (nothing changed)" }
    ))
}

/// Where a manifest came from: what its paths are relative to, and where its errors point.
#[derive(Debug, Clone, Copy)]
pub struct PipelineFile<'a> {
    pub text: &'a str,
    pub name: &'a Path,
    pub base: &'a Path,
}

/// Reads and checks a pipeline file. Nothing is asked of any node.
fn read(file: &Path) -> anyhow::Result<(String, Manifest)> {
    let name = file.display().to_string();
    let length =
        fs::metadata(file).with_context(|| format!("{name} cannot be read: name a pipeline file"))?.len();
    if length > MANIFEST_BYTES_MAX as u64 {
        bail!("{name} has {length} bytes, more than the {MANIFEST_BYTES_MAX} of a pipeline file: is it one?");
    }
    let text = fs::read_to_string(file).with_context(|| format!("{name} cannot be read as text"))?;
    let json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let manifest = match json {
        true => Manifest::from_json(&text).map_err(|error| named(error, &name))?,
        false => Manifest::from_toml(&text, &name)?,
    };
    check::check(&manifest).map_err(|error| error.in_file(&text, &name))?;
    Ok((text, manifest))
}

/// Uploads what the manifest names, deploys it, and waits until it runs. What it is at stands in
/// the caller's bar.
pub fn send(
    client: &dyn Client,
    mut manifest: Manifest,
    file: &PipelineFile,
    bar: &ProgressBar,
) -> anyhow::Result<DeployedJson> {
    let modules = read_modules(&manifest, file)?;
    for (stage, module) in modules {
        bar.set_message(format!("uploading the module of stage '{stage}'"));
        let digest = Digest::of(&module);
        if !client.has_module(digest)? {
            client.put_module(&module).map_err(|failure| refused(&failure, &manifest, &stage, file))?;
        }
        name_module(&mut manifest, &stage, digest);
    }
    let files = resolve_sources(&mut manifest, file)?;
    bar.set_message("placing");
    let deployed = match ask_patiently(client, Request::Deploy { manifest })? {
        Response::Deployed { pipeline, revision, changed, actors } => {
            DeployedJson { pipeline, revision, changed, actors }
        }
        other => return Err(wrong_answer(&other)),
    };
    let mut actors = deployed.actors;
    wait_until_running(client, &deployed, &files, |shown| {
        let logs: BTreeSet<LogId> =
            shown.stages.iter().flat_map(|stage| &stage.actors).map(|actor| actor.actor).collect();
        // Some were not begun when the deploy was taken.
        actors = logs.len() as u32;
        bar.set_message(format!("waiting until it runs, {actors} actors so far"));
    })?;
    Ok(DeployedJson { actors, ..deployed })
}

/// All modules that the manifest names by path, before anything is sent: a missing one changes
/// nothing anywhere.
fn read_modules(manifest: &Manifest, file: &PipelineFile) -> anyhow::Result<Vec<(Name, Vec<u8>)>> {
    let mut modules = Vec::new();
    for (stage, spec) in &manifest.stages {
        let Operator::Wasm(wasm) = &spec.operator else { continue };
        let Module::Path(path) = &wasm.module else { continue };
        let wrong = |reason: String, hint: &str| {
            let at = ["stage", stage.as_str(), "wasm"];
            Manifest::error_at(file.text, &file.name.display().to_string(), &at, reason, hint)
        };
        let full = file.base.join(path);
        let bytes = fs::read(&full).map_err(|error| {
            wrong(
                format!("the module {} cannot be read ({error})", full.display()),
                "build the function, or correct the path (it is relative to the pipeline file)",
            )
        })?;
        if bytes.len() > MODULE_BYTES_MAX {
            let reason = format!("the module has {} bytes, more than {MODULE_BYTES_MAX}", bytes.len());
            return Err(wrong(reason, "build it in release mode and strip it").into());
        }
        if !bytes.starts_with(WASM_MAGIC) {
            return Err(wrong(
                format!("{} is no WebAssembly", full.display()),
                "name the .wasm file that the build made (for Rust: cargo build --target wasm32-wasip2)",
            )
            .into());
        }
        modules.push((stage.clone(), bytes));
    }
    Ok(modules)
}

/// What the node says of a module, with the place in the file that named it.
fn refused(failure: &Failure, manifest: &Manifest, stage: &Name, file: &PipelineFile) -> anyhow::Error {
    let Failure::Refused(Fault { kind: FaultKind::Invalid, detail }) = failure else {
        return anyhow::anyhow!("the module of stage '{stage}' could not be uploaded: {failure}");
    };
    let path = match manifest.stages.get(stage).map(|stage| &stage.operator) {
        Some(Operator::Wasm(WasmSpec { module: Module::Path(path), .. })) => path.as_str(),
        _ => "its module",
    };
    let at = ["stage", stage.as_str(), "wasm"];
    let reason = format!("{path} was refused: {detail}");
    let hint = "nothing was deployed; build the function anew and deploy again";
    Manifest::error_at(file.text, &file.name.display().to_string(), &at, reason, hint).into()
}

fn name_module(manifest: &mut Manifest, stage: &Name, digest: Digest) {
    if let Some(stage) = manifest.stages.get_mut(stage)
        && let Operator::Wasm(wasm) = &mut stage.operator
    {
        wasm.module = Module::Digest(digest);
    }
}

/// A source's file is read by the node that takes the deploy, whose working directory is another.
/// Returned are the sources that read files.
fn resolve_sources(manifest: &mut Manifest, file: &PipelineFile) -> anyhow::Result<Vec<Name>> {
    let mut files = Vec::new();
    for (name, source) in &mut manifest.sources {
        if let Connector::File { path, .. } = &mut source.connector {
            let absolute: PathBuf = std::path::absolute(file.base.join(&*path))
                .with_context(|| format!("the source file '{path}' has no absolute path: check the path"))?;
            *path = absolute.to_string_lossy().into_owned();
            files.push(name.clone());
        }
    }
    Ok(files)
}

fn wait_until_running(
    client: &dyn Client,
    deployed: &DeployedJson,
    files: &[Name],
    mut seen: impl FnMut(&Shown),
) -> anyhow::Result<()> {
    let (mut begun, mut moved) = (0, Instant::now());
    let mut runs_since = None;
    let mut trouble = None;
    // Thousands of actors take their time: it is not over as long as more of them begin.
    while moved.elapsed() < RUNNING_DEADLINE {
        let asked = Instant::now();
        match client.ask(Request::Show { pipeline: deployed.pipeline.clone() }) {
            Ok(Response::Shown(shown)) => {
                if shown.revision != deployed.revision {
                    bail!(
                        "another deploy of '{}' took the place of this one (revision {}): look with 'dunlin show {}' \
                         and deploy again if yours should run",
                        deployed.pipeline,
                        shown.revision,
                        deployed.pipeline
                    );
                }
                seen(&shown);
                if let Some((source, trouble)) = file_in_trouble(&shown, files) {
                    bail!("'{}' is deployed, but its source '{source}' waits: {trouble}", deployed.pipeline);
                }
                if shown.state == PipelineState::Running {
                    let since = *runs_since.get_or_insert_with(Instant::now);
                    if !deployed.changed || files_are_read(&shown, files) || since.elapsed() >= FILE_DEADLINE
                    {
                        return Ok(());
                    }
                } else if !deployed.changed && has_begun(&shown) {
                    return Ok(());
                }
                if only_the_absent_wait(client, &shown)? {
                    return Ok(());
                }
                let actors = shown.stages.iter().flat_map(|stage| &stage.actors);
                let running = actors.filter(|actor| actor.epoch > 0 && actor.trouble.is_none()).count();
                if running > begun {
                    (begun, moved) = (running, Instant::now());
                }
                trouble = shown.stages.iter().find_map(|stage| {
                    let trouble = stage.actors.iter().find_map(|actor| actor.trouble.as_ref())?;
                    Some(format!("stage '{}': {trouble}", stage.stage))
                });
            }
            Ok(other) => return Err(wrong_answer(&other)),
            Err(failure) => trouble = Some(failure.to_string()),
        }
        // What is long to tell is asked for less often.
        sleep(LOOK_AGAIN.max(4 * asked.elapsed()));
    }
    bail!(
        "'{}' is deployed but does not run after {} s ({}): look with 'dunlin show {}' and 'dunlin nodes'",
        deployed.pipeline,
        RUNNING_DEADLINE.as_secs(),
        trouble.unwrap_or_else(|| "some of its actors have not begun".to_string()),
        deployed.pipeline
    )
}

/// What was deployed before is not waited for again: a sink that is stuck by now is no news of this deploy.
fn has_begun(shown: &Shown) -> bool {
    shown.stages.iter().flat_map(|stage| &stage.actors).all(|actor| actor.epoch > 0)
}

/// The first of these sources that cannot read its file, and why.
fn file_in_trouble<'a>(shown: &'a Shown, files: &'a [Name]) -> Option<(&'a Name, &'a str)> {
    actors_of(shown, files).find_map(|(source, actor)| {
        let trouble = actor.trouble.as_deref().filter(|_| actor.epoch > 0 && !is_read(actor))?;
        Some((source, trouble))
    })
}

fn files_are_read(shown: &Shown, files: &[Name]) -> bool {
    // A log that takes a file's lines is begun after the deploy: until then there is nothing to see.
    files.iter().all(|file| actors_of(shown, std::slice::from_ref(file)).any(|(_, source)| is_read(source)))
}

fn is_read(source: &ActorStatus) -> bool {
    source.events_in + source.rejected > 0
}

fn actors_of<'a>(shown: &'a Shown, of: &'a [Name]) -> impl Iterator<Item = (&'a Name, &'a ActorStatus)> {
    let stages = of
        .iter()
        .filter_map(|name| Some((name, shown.stages.iter().find(|stage| stage.stage == name.as_str())?)));
    stages.flat_map(|(name, stage)| stage.actors.iter().map(move |actor| (name, actor)))
}

/// Whether everything runs but for what stands on nodes that are away: those take it when they are back,
/// and hold nothing up.
fn only_the_absent_wait(client: &dyn Client, shown: &Shown) -> anyhow::Result<bool> {
    let Response::Nodes(nodes) = client.ask(Request::Nodes)? else { return Ok(false) };
    let away = |node: &NodeId| nodes.iter().any(|one| one.node == *node && one.state != Liveness::Alive);
    let mut waiting = shown
        .stages
        .iter()
        .flat_map(|stage| &stage.actors)
        .filter(|actor| actor.epoch == 0 || actor.trouble.is_some())
        .peekable();
    Ok(waiting.peek().is_some() && waiting.all(|actor| away(&actor.node)))
}

fn named(
    mut error: dunlin_protocol::pipeline::error::ManifestError,
    name: &str,
) -> dunlin_protocol::pipeline::error::ManifestError {
    error.file = name.to_string();
    error
}
