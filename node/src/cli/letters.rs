//! `dead-letters`: what a pipeline could not take; shown, replayed, dropped.

use dunlin_protocol::id::{LetterId, Name, NodeId};
use dunlin_protocol::rpc::{DeadLetterStatus, LetterMove, LettersMoved, Request, Response};

use super::arguments::{DeadLettersAction, DeadLettersArguments};
use super::client::{Client, ask_patiently};
use super::inspect::wrong_answer;
use super::output::Output;
use super::{Said, WrongUsage};
use crate::api::json::{DeadLetterJson, LettersMovedJson};

pub fn dead_letters(
    client: &dyn Client,
    arguments: DeadLettersArguments,
    out: &Output,
) -> anyhow::Result<()> {
    let DeadLettersArguments { pipeline, action, id, limit } = arguments;
    match (action, id) {
        (DeadLettersAction::Replay, letter) => moved(client, pipeline, letter, LetterMove::Replay, out),
        (DeadLettersAction::Drop, letter) => moved(client, pipeline, letter, LetterMove::Drop, out),
        (DeadLettersAction::List, None) => list(client, pipeline, limit, out),
        (DeadLettersAction::Show, Some(id)) => show(client, pipeline, id, out),
        (DeadLettersAction::List, Some(_)) => {
            Err(WrongUsage("list takes no id: use 'show ID' to see one".into()).into())
        }
        (DeadLettersAction::Show, None) => {
            let why = "show needs an id: 'dunlin dead-letters PIPELINE list' prints them";
            Err(WrongUsage(why.into()).into())
        }
    }
}

fn letters(
    client: &dyn Client,
    pipeline: Name,
    letter: Option<LetterId>,
    limit: u32,
) -> anyhow::Result<(Vec<DeadLetterStatus>, Vec<NodeId>)> {
    match client.ask(Request::DeadLetters { pipeline, letter, limit })? {
        Response::DeadLetters { letters, missed } => Ok((letters, missed)),
        other => Err(wrong_answer(&other)),
    }
}

/// Exit code 1 when some nodes' letters are missing, after printing those of the others.
fn list(client: &dyn Client, pipeline: Name, limit: u32, out: &Output) -> anyhow::Result<()> {
    let (letters, missed) = letters(client, pipeline, None, limit)?;
    let mut letters = letters.iter().map(DeadLetterJson::from);
    if out.json {
        letters.try_for_each(|letter| out.object(&letter))?;
    } else {
        let row = |letter: DeadLetterJson| {
            vec![letter.id, letter.stage, letter.attempts.to_string(), letter.event.key, letter.reason]
        };
        out.table(&["ID", "STAGE", "ATTEMPTS", "KEY", "REASON"], letters.map(row).collect())?;
    }
    for node in &missed {
        not_reached(node, "it did not answer, or the disk there is damaged (see 'dunlin show')");
    }
    if missed.is_empty() { Ok(()) } else { Err(Said.into()) }
}

fn show(client: &dyn Client, pipeline: Name, id: LetterId, out: &Output) -> anyhow::Result<()> {
    let (letters, missed) = letters(client, pipeline, Some(id), 1)?;
    match (letters.first(), missed.first()) {
        (Some(letter), _) => out.object(&DeadLetterJson::from(letter)),
        (None, Some(node)) => Err(anyhow::anyhow!(
            "no node that answered has dead letter {id}, and node {node} may have it, which does not answer or has a damaged disk (see 'dunlin show'): ask again when it is back"
        )),
        (None, None) => Err(anyhow::anyhow!(
            "there is no dead letter {id}: 'dunlin dead-letters PIPELINE list' prints those there are"
        )),
    }
}

fn not_reached(node: &NodeId, why: &str) {
    eprintln!("dunlin: the dead letters on node {node} were not reached: {why}; ask again when it is back");
}

/// Exit code 1 when some letters could not be reached or moved, after saying what was done.
fn moved(
    client: &dyn Client,
    pipeline: Name,
    letter: Option<LetterId>,
    does: LetterMove,
    out: &Output,
) -> anyhow::Result<()> {
    let request = Request::MoveLetters { pipeline: pipeline.clone(), letter, does };
    let done = match ask_patiently(client, request)? {
        Response::LettersMoved(done) => done,
        other => return Err(wrong_answer(&other)),
    };
    match out.json {
        true => out.object(&LettersMovedJson::new(pipeline, does, &done))?,
        false => {
            let verb = match does {
                LetterMove::Replay => "replayed",
                LetterMove::Drop => "dropped",
            };
            let letters = if done.moved == 1 { "letter" } else { "letters" };
            out.line(&format!("{verb} {} dead {letters} of {pipeline}", done.moved))?;
        }
    }
    let LettersMoved { left, missed, .. } = &done;
    for (node, why) in missed {
        not_reached(node, why);
    }
    if *left > 0 {
        eprintln!(
            "dunlin: {left} letters stay, because as many events as may wait for another try: ask again when fewer wait"
        );
    }
    if missed.is_empty() && *left == 0 { Ok(()) } else { Err(Said.into()) }
}
