//! The next revision of a pipeline: what stays where it is, and what is placed anew.
//!
//! A deploy places only logs that are not yet born. An unchanged unit keeps its logs, wherever they
//! are; a changed one is a new log, beside the old one when it can be, so that what the old one
//! remembers is handed over on one node.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use super::catalog::{Deployed, NodeFacts, Revision};
use super::lineage::Current;
use super::placement::{place, satisfies};
use crate::id::{Digest, NodeId};
use crate::pipeline::change::same;
use crate::pipeline::manifest::{Manifest, PlacementRule};
use crate::pipeline::plan::{Home, Plan, Unit};
use crate::wire::codec;

/// What a deploy comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The very same content stands already.
    Unchanged(Digest),
    /// To be appended to the catalog log of the node that took the deploy.
    Revision(Revision),
}

/// The digest that users see: of the parsed manifest with its module digests.
pub fn content_digest(manifest: &Manifest) -> Digest {
    Digest::of(&codec::encode(manifest))
}

/// The revision that follows `tip` (the pipeline's end of chain, a removal too) with `old` the plan of
/// what runs. `candidates` are the members that may be given work, `me` takes the deploy. Whether the
/// change is one that a living stage allows was asked before. The error is a sentence for the user.
pub fn next_revision(
    manifest: Manifest,
    plan: &Plan,
    tip: Option<&Current>,
    old: Option<&Plan>,
    candidates: &BTreeMap<NodeId, NodeFacts>,
    me: NodeId,
) -> Result<Next, String> {
    let digest = content_digest(&manifest);
    let standing = tip.and_then(|tip| Some((tip, tip.deployed()?, old?)));
    if tip.and_then(Current::deployed).is_some_and(|deployed| deployed.digest == digest) {
        return Ok(Next::Unchanged(digest));
    }
    let mut placement = BTreeMap::new();
    let mut births = BTreeMap::new();
    for unit in &plan.units {
        let rule = manifest.placement.get(&unit.id.name);
        let before = standing.and_then(|(tip, deployed, old)| Some((tip, deployed, old.unit(&unit.id)?)));
        let homes = before.and_then(|(_, deployed, _)| deployed.placement.get(&unit.id));
        let kept = homes.filter(|homes| fits(homes, rule, candidates) && same_shares(unit, rule, homes));
        if homes.is_some() && kept.is_none() {
            return Err(format!(
                "'{0}' is alive and stays where it is, and [placement.{0}] now asks for other nodes or shares; \
                 leave them as they are, give '{0}' another name, or remove the pipeline first",
                unit.id.name
            ));
        }
        if let Some((tip, _, old_unit)) = before
            && same(old_unit, unit)
        {
            births.insert(unit.id.clone(), tip.birth(&unit.id));
        }
        let nodes = match kept {
            Some(homes) => homes.clone(),
            None => place(&manifest.name, unit, rule, candidates, me)?,
        };
        if !nodes.is_empty() {
            placement.insert(unit.id.clone(), nodes);
        }
    }
    let pipeline = manifest.name.clone();
    let content = Deployed { manifest, digest, placement, births, taken_by: me };
    Ok(Next::Revision(follow(tip, pipeline, Some(content))))
}

/// The revision that ends the pipeline.
pub fn removal(tip: &Current) -> Revision {
    follow(Some(tip), tip.revision.pipeline.clone(), None)
}

fn follow(tip: Option<&Current>, pipeline: crate::id::Name, content: Option<Deployed>) -> Revision {
    Revision {
        pipeline,
        previous: tip.map(|tip| tip.digest),
        height: tip.map_or(0, |tip| tip.revision.height.saturating_add(1)),
        content,
    }
}

/// A node that is away keeps what it has: its logs wait for it.
fn fits(homes: &[NodeId], rule: Option<&PlacementRule>, candidates: &BTreeMap<NodeId, NodeFacts>) -> bool {
    homes.iter().all(|node| candidates.get(node).is_none_or(|facts| satisfies(facts, rule)))
}

fn same_shares(unit: &Unit, rule: Option<&PlacementRule>, homes: &[NodeId]) -> bool {
    match &unit.home {
        Home::Shares(shares) => {
            let asked = shares.or(rule.and_then(|rule| rule.shares));
            !homes.is_empty() && asked.is_none_or(|asked| usize::from(asked) == homes.len())
        }
        Home::Single | Home::Entry(_) => homes.len() == 1,
        Home::WithInput => false,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::id::Seq;
    use crate::mesh::catalog::{CatalogEntry, CatalogRef};
    use crate::mesh::samples::{catalog, manifest, name, node, unit};
    use crate::pipeline::plan::{Head, UnitId};

    fn nodes() -> BTreeMap<NodeId, NodeFacts> {
        (1..=3).map(|n| (node(n), NodeFacts::default())).collect()
    }

    fn plan(units: &[Unit]) -> Plan {
        Plan { units: units.to_vec() }
    }

    /// Deploys the plans one after another from nodes 1, 2, 3, …; the contents that stood.
    fn deploys(plans: &[Plan]) -> Vec<Deployed> {
        let mut catalog = catalog(1);
        let mut contents = Vec::new();
        for (at, plan) in plans.iter().enumerate() {
            let mut manifest = manifest("p");
            manifest.retention.bytes = at as u64;
            let tip = catalog.facts().tip(&name("p"));
            let old = at.checked_sub(1).map(|at| &plans[at]);
            let next = next_revision(manifest, plan, tip, old, &nodes(), node(at as u8 + 1)).unwrap();
            let Next::Revision(revision) = next else { panic!("{next:?}") };
            contents.extend(revision.content.clone());
            let record = catalog.append(CatalogEntry::Revision(revision)).unwrap();
            catalog.on_persisted(node(1), record.seq);
        }
        contents
    }

    fn id(unit: &Unit) -> &UnitId {
        &unit.id
    }

    #[test]
    fn an_unchanged_unit_keeps_its_logs_and_a_changed_one_its_nodes() {
        let (kept, old) = (unit("kept", Home::Single), unit("changed", Home::Shares(None)));
        let mut new = old.clone();
        new.chain.head = Head::Pass;
        let added = unit("added", Home::Single);
        let plans = [plan(&[kept.clone(), old]), plan(&[kept.clone(), new.clone(), added.clone()])];
        let contents = deploys(&plans);
        assert_eq!(contents[0].births, BTreeMap::new());
        let first = CatalogRef { node: node(1), seq: Seq(1) };
        assert_eq!(contents[1].births, BTreeMap::from([(id(&kept).clone(), first)]));
        assert_eq!(contents[0].placement[id(&kept)], contents[1].placement[id(&kept)]);
        assert_eq!(contents[0].placement[id(&new)], contents[1].placement[id(&new)]);
        assert_eq!(contents[1].placement[id(&added)].len(), 1);
    }

    #[test]
    fn a_birth_is_kept_through_many_revisions() {
        let stage = unit("stage", Home::Single);
        let contents = deploys(&vec![plan(core::slice::from_ref(&stage)); 4]);
        assert_eq!(contents[3].births[id(&stage)], CatalogRef { node: node(1), seq: Seq(1) });
    }

    #[test]
    fn the_same_content_changes_nothing_until_it_was_removed() {
        let mut catalog = catalog(1);
        let stage = unit("stage", Home::Single);
        let plan = plan(&[stage]);
        let deploy = |catalog: &super::super::catalog::Catalog| {
            let tip = catalog.facts().tip(&name("p"));
            next_revision(manifest("p"), &plan, tip, Some(&plan), &nodes(), node(1)).unwrap()
        };
        for _ in 0..2 {
            let Next::Revision(revision) = deploy(&catalog) else { panic!("it is new") };
            assert_eq!(revision.content.as_ref().unwrap().births, BTreeMap::new());
            let record = catalog.append(CatalogEntry::Revision(revision)).unwrap();
            catalog.on_persisted(node(1), record.seq);
            assert_eq!(deploy(&catalog), Next::Unchanged(content_digest(&manifest("p"))));
            let end = removal(catalog.facts().tip(&name("p")).unwrap());
            let record = catalog.append(CatalogEntry::Revision(end)).unwrap();
            catalog.on_persisted(node(1), record.seq);
        }
        assert_eq!(catalog.facts().tip(&name("p")).unwrap().revision.height, 3);
    }
}
