//! Which node gets which share: rendezvous hashing (Thaler and Ravishankar, 1998,
//! <https://www.eecs.umich.edu/techreports/cse/96/CSE-TR-316-96.pdf>) with a bound on each node's part.
//!
//! Every (share, node) pair has a weight; a share goes to the heaviest node that is not full. Decided
//! once, by the node that takes the deploy; the outcome stands in the revision and nobody repeats it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::catalog::NodeFacts;
use crate::id::{Digest, Name, NodeId};
use crate::limits::SHARES_MAX;
use crate::pipeline::manifest::{Connector, Outlet, PlacementRule};
use crate::pipeline::plan::{Head, Home, Unit, UnitId};
use crate::wire::codec;

/// Shares of a keyed stage that says nothing: this many, or one per node when there are fewer.
const SHARES_DEFAULT: usize = 8;

/// The node of each share of a unit, in share order; empty for units that live where events enter or
/// where their input is. The error is a sentence for the user.
pub fn place(
    pipeline: &Name,
    unit: &Unit,
    rule: Option<&PlacementRule>,
    candidates: &BTreeMap<NodeId, NodeFacts>,
    taken_by: NodeId,
) -> Result<Vec<NodeId>, String> {
    let (shares, at_taker) = match &unit.home {
        Home::WithInput => return Ok(Vec::new()),
        Home::Entry(source) => match source.connector {
            Connector::File { .. } => (Some(1), true),
            Connector::Publish | Connector::Host { .. } => return Ok(Vec::new()),
        },
        Home::Single => (Some(1), touches_the_takers_disk(&unit.chain.head)),
        Home::Shares(shares) => (shares.or(rule.and_then(|rule| rule.shares)), false),
    };
    let fit = fit_for(&unit.id, rule, candidates)?;
    if at_taker && fit.contains(&taken_by) {
        return Ok(vec![taken_by]);
    }
    let shares = shares.map_or(fit.len().min(SHARES_DEFAULT), usize::from);
    Ok(spread(pipeline, unit, shares.clamp(1, usize::from(SHARES_MAX)), &fit))
}

/// Whether a node carries all labels that the rule asks for.
pub fn satisfies(facts: &NodeFacts, rule: Option<&PlacementRule>) -> bool {
    rule.is_none_or(|rule| rule.labels.iter().all(|(key, value)| facts.labels.get(key) == Some(value)))
}

/// No node gets more than its even part, rounded up.
fn spread(pipeline: &Name, unit: &Unit, shares: usize, nodes: &[NodeId]) -> Vec<NodeId> {
    let even = shares.div_ceil(nodes.len().max(1));
    let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut placed = Vec::with_capacity(shares);
    for index in 0..shares {
        let free = nodes.iter().filter(|node| load.get(node).is_none_or(|load| *load < even));
        let Some(node) = free.min_by_key(|node| Reverse(weight(pipeline, unit, index, **node))) else {
            break;
        };
        *load.entry(*node).or_default() += 1;
        placed.push(*node);
    }
    placed
}

fn weight(pipeline: &Name, unit: &Unit, share: usize, node: NodeId) -> Digest {
    Digest::of(&codec::encode(&("dunlin place 1", pipeline, &unit.id, share as u64, node)))
}

/// The node among these to which a share goes when all have room for it.
pub(super) fn heaviest(
    pipeline: &Name,
    unit: &UnitId,
    share: u16,
    nodes: impl Iterator<Item = NodeId>,
) -> Option<NodeId> {
    let weight = |node: NodeId| Digest::of(&codec::encode(&("dunlin heir 1", pipeline, unit, share, node)));
    nodes.max_by_key(|node| weight(*node))
}

/// The nodes among these that may be given this unit's work. The error is a sentence for the user.
pub fn fit_for(
    unit: &UnitId,
    rule: Option<&PlacementRule>,
    candidates: &BTreeMap<NodeId, NodeFacts>,
) -> Result<Vec<NodeId>, String> {
    let fit: Vec<NodeId> =
        candidates.iter().filter(|(_, facts)| satisfies(facts, rule)).map(|(node, _)| *node).collect();
    if fit.is_empty() { Err(nobody(&unit.name, rule)) } else { Ok(fit) }
}

/// Whoever deploys a file sink or looks at a screen expects it on the node that was asked.
fn touches_the_takers_disk(head: &Head) -> bool {
    match head {
        Head::Sink { outlet: Outlet::File { .. } | Outlet::Stdout, .. } => true,
        Head::Sink { outlet: Outlet::Http { .. }, .. }
        | Head::None
        | Head::Pass
        | Head::Wasm { .. }
        | Head::Learn { .. }
        | Head::Forecast { .. }
        | Head::Anomaly { .. } => false,
    }
}

fn nobody(stage: &Name, rule: Option<&PlacementRule>) -> String {
    let labels: Vec<String> =
        rule.iter().flat_map(|rule| &rule.labels).map(|(key, value)| format!("{key} = {value}")).collect();
    if labels.is_empty() {
        return format!("no node is alive that could take '{stage}'; start a node and deploy again");
    }
    format!(
        "no node that is alive carries the labels {} that [placement.{stage}] asks for; start one with --label, or \
         change the labels",
        labels.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mesh::samples::{name, unit};

    fn nodes(count: u8) -> BTreeMap<NodeId, NodeFacts> {
        (0..count).map(|n| (NodeId([n; 32]), NodeFacts::default())).collect()
    }

    fn placed(home: Home, candidates: &BTreeMap<NodeId, NodeFacts>) -> Vec<NodeId> {
        place(&name("p"), &unit("stage", home), None, candidates, NodeId([0; 32])).unwrap()
    }

    #[test]
    fn without_a_word_there_are_eight_shares_or_one_per_node() {
        assert_eq!(placed(Home::Shares(None), &nodes(3)).len(), 3);
        assert_eq!(placed(Home::Shares(None), &nodes(20)).len(), 8);
        assert_eq!(placed(Home::Shares(Some(5)), &nodes(3)).len(), 5);
        assert_eq!(placed(Home::Single, &nodes(3)).len(), 1);
        assert_eq!(placed(Home::WithInput, &nodes(3)), []);
    }

    #[test]
    fn labels_are_obeyed_or_named() {
        let mut candidates = nodes(5);
        let rule = PlacementRule {
            labels: BTreeMap::from([("zone".into(), "edge".into())]),
            ..PlacementRule::default()
        };
        let stage = unit("outlook", Home::Shares(Some(4)));
        let taker = NodeId([0; 32]);
        let why = place(&name("p"), &stage, Some(&rule), &candidates, taker).unwrap_err();
        assert!(why.contains("zone = edge") && why.contains("[placement.outlook]"), "{why}");
        candidates.get_mut(&NodeId([3; 32])).unwrap().labels = rule.labels.clone();
        let home = place(&name("p"), &stage, Some(&rule), &candidates, taker).unwrap();
        assert_eq!(home, vec![NodeId([3; 32]); 4]);
    }

    #[test]
    fn a_file_sink_lives_on_the_node_that_took_the_deploy() {
        let mut sink = unit("archive", Home::Single);
        sink.chain.head =
            Head::Sink { sink: name("archive"), outlet: Outlet::File { path: "out.jsonl".into() } };
        for n in 0..5 {
            let taker = NodeId([n; 32]);
            assert_eq!(place(&name("p"), &sink, None, &nodes(5), taker), Ok(vec![taker]));
        }
    }

    proptest! {
        /// When a node goes, a share of another node moves only because of the balance bound: it was not
        /// at its heaviest node before, or is not now.
        #[test]
        fn only_the_bound_moves_a_share_whose_node_stays(shares in 1u16..64, count in 2u8..20, gone in 0u8..20) {
            let all = nodes(count);
            let mut left = all.clone();
            left.remove(&NodeId([gone % count; 32]));
            let before = placed(Home::Shares(Some(shares)), &all);
            let after = placed(Home::Shares(Some(shares)), &left);
            let stage = unit("stage", Home::Single);
            let heaviest = |share: usize, of: &BTreeMap<NodeId, NodeFacts>| {
                of.keys().copied().max_by_key(|node| weight(&name("p"), &stage, share, *node)).unwrap()
            };
            for (share, (old, new)) in before.iter().zip(&after).enumerate() {
                let free = heaviest(share, &all) == *old && heaviest(share, &left) == *new;
                prop_assert!(old == new || !left.contains_key(old) || !free);
            }
            for (placed, nodes) in [(&before, &all), (&after, &left)] {
                let even = usize::from(shares).div_ceil(nodes.len());
                for node in nodes.keys() {
                    prop_assert!(placed.iter().filter(|home| *home == node).count() <= even);
                }
            }
        }
    }
}
