//! No log goes before the catalog says so: what this node has ever been told, damaged since or not,
//! must have ended the log's pipeline or its unit.

use dunlin_protocol::id::{LogId, NodeId};
use dunlin_protocol::mesh::assignment::{Assignment, Fate};
use dunlin_protocol::mesh::catalog::{Catalog, LogName};
use dunlin_protocol::pipeline::plan::Plan;

use crate::history::History;

/// A node removes a log.
pub fn check(history: &History, node: usize, log: LogId) -> Result<(), String> {
    let Some(past) = history.past((node, log)) else { return Ok(()) };
    if let LogName::Catalog(_) = past.name {
        return Err(format!("n{node} removes catalog log {log}"));
    }
    let mut catalog = Catalog::new(NodeId([0; 32]), (&[0; 32]).into());
    for ((of, _), past) in history.logs() {
        if let (true, LogName::Catalog(owner)) = (*of == node, &past.name) {
            let told = past.records.iter().take_while(|record| record.seq <= past.told());
            let known = catalog.on_records(*owner, told.cloned().collect());
            known.map_err(|fault| format!("n{node}'s disk holds a catalog log that is refused: {fault}"))?;
            catalog.on_persisted(*owner, past.told());
        }
    }
    let mut assignment = Assignment::default();
    assignment.refresh(catalog.facts(), |manifest| Some(Plan::of(manifest)));
    match assignment.fate(&past.name, catalog.facts()) {
        Fate::Removed => Ok(()),
        other => {
            Err(format!("n{node} removes log {log}, which is {other:?} by the facts: nobody removed it"))
        }
    }
}
