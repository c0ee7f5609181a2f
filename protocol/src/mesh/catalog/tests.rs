use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::mesh::lineage::{Current, revision_digest};
use crate::mesh::samples::{catalog, deployed, name, node, removal};

/// Appends and persists at once; the record's reference.
fn say(catalog: &mut Catalog, entry: CatalogEntry) -> CatalogRef {
    let reference = catalog.next_reference();
    let record = catalog.append(entry).expect("the log is sound");
    catalog.on_persisted(reference.node, record.seq);
    reference
}

fn facts(label: &str) -> CatalogEntry {
    CatalogEntry::Node(NodeFacts {
        labels: BTreeMap::from([("zone".into(), label.into())]),
        ..NodeFacts::default()
    })
}

/// One way: `to` tells its heads, `from` answers, `to` persists. How many records came.
fn heal(from: &mut Catalog, to: &mut Catalog) -> usize {
    let parcels = from.on_heads(to.me, &to.heads());
    let mut count = 0;
    for (node, records) in parcels {
        let fresh = to.on_records(node, records).expect("sound records");
        count += fresh.len();
        if let Some(last) = fresh.last() {
            to.on_persisted(node, last.seq);
        }
    }
    count
}

fn follow(previous: Option<(&Revision, CatalogRef)>, revision: Revision) -> Revision {
    Revision {
        previous: previous.map(|(revision, reference)| revision_digest(revision, reference)),
        height: previous.map_or(0, |(revision, _)| revision.height + 1),
        ..revision
    }
}

#[test]
fn facts_spread_through_a_node_that_only_passes_them_on() {
    let (mut a, mut b, mut c) = (catalog(1), catalog(2), catalog(3));
    say(&mut a, facts("north"));
    say(&mut a, facts("south"));
    assert_eq!(heal(&mut a, &mut b), 2);
    assert_eq!(heal(&mut b, &mut c), 2);
    assert_eq!(c.facts().nodes(), a.facts().nodes());
    assert_eq!(heal(&mut b, &mut c), 0);
}

#[test]
fn nothing_is_folded_or_told_before_it_is_persisted() {
    let (mut a, b) = (catalog(1), catalog(2));
    let record = a.append(facts("north")).unwrap();
    assert!(a.facts().nodes().is_empty());
    assert!(a.behind(&b.heads()).is_empty());
    assert_eq!(a.heads()[&node(1)], Head::default());
    assert!(a.on_persisted(node(1), record.seq));
    assert_eq!(a.behind(&b.heads()).len(), 1);
}

#[test]
fn a_failed_write_leaves_no_trace() {
    let mut a = catalog(1);
    say(&mut a, facts("north"));
    let lost = a.append(facts("south")).unwrap();
    a.on_persist_failed(node(1), lost.seq);
    let again = a.append(facts("east")).unwrap();
    assert_eq!((again.seq, again.previous), (lost.seq, lost.previous));
    a.on_persisted(node(1), again.seq);
    assert_eq!(a.facts().nodes()[&node(1)].labels["zone"], "east");
}

#[test]
fn a_record_under_another_nodes_name_is_refused() {
    let (mut a, mut b) = (catalog(1), catalog(2));
    let record = a.append(facts("north")).unwrap();
    let fault = b.on_records(node(3), vec![record.clone()]).unwrap_err();
    assert_eq!(fault, CatalogFault::Forged { node: node(3), seq: 1 });
    let body = record.body.slice(..record.body.len() - 1);
    let torn = Record::new(record.epoch, record.seq, record.previous, body);
    assert!(matches!(b.on_records(node(1), vec![torn]), Err(CatalogFault::Malformed { .. })));
    assert_eq!(b.heads().len(), 1);
}

#[test]
fn gaps_and_doubles_do_no_harm() {
    let (mut a, mut b) = (catalog(1), catalog(2));
    let records: Vec<Record> = ["north", "south", "east"].map(|label| a.append(facts(label)).unwrap()).into();
    assert_eq!(b.on_records(node(1), records[1..].to_vec()), Ok(vec![]));
    assert_eq!(b.on_records(node(1), records[..2].to_vec()), Ok(records[..2].to_vec()));
    assert_eq!(b.on_records(node(1), records.clone()), Ok(records[2..].to_vec()));
}

#[test]
fn two_signed_logs_are_proved_once_and_the_first_is_kept() {
    let (mut a, mut twin, mut b) = (catalog(1), catalog(1), catalog(2));
    say(&mut a, facts("north"));
    say(&mut twin, facts("south"));
    say(&mut twin, facts("south-east"));
    heal(&mut a, &mut b);
    // The longer one: the twin sees that the head is not its own and sends the proof.
    let mut parcels = twin.on_heads(node(2), &b.heads());
    let (_, records) = parcels.pop().unwrap();
    let fault = b.on_records(node(1), records.clone()).unwrap_err();
    assert!(matches!(fault, CatalogFault::Equivocation { seq: 1, .. }), "{fault}");
    assert_eq!(b.on_records(node(1), records), Ok(vec![]));
    assert_eq!(b.facts().nodes()[&node(1)].labels["zone"], "north");
}

#[test]
fn a_node_adopts_its_own_longer_log_before_it_writes() {
    let (mut a, mut b) = (catalog(1), catalog(2));
    assert!(a.ready_to_write(false, Time(0)), "a lone new node writes at once");
    let first = a.append(facts("north")).unwrap();
    a.on_persisted(node(1), first.seq);
    say(&mut a, facts("south"));
    say(&mut b, facts("west"));
    heal(&mut a, &mut b);
    // The same node again, the last record lost.
    let mut back = catalog(1);
    back.restore(node(1), vec![first]).unwrap();
    back.begin(Time(10_000));
    assert!(!back.ready_to_write(true, Time(10_000)));
    assert!(back.ready_to_write(true, Time(15_000)), "nobody answered");
    back.on_heads(node(2), &b.heads());
    assert!(!back.ready_to_write(true, Time(15_000)));
    heal(&mut b, &mut back);
    assert!(back.ready_to_write(true, Time(10_001)));
    assert_eq!(back.facts().nodes()[&node(1)].labels["zone"], "south");
    assert_eq!(back.next_reference().seq, Seq(3));
}

#[test]
fn an_exchange_is_bounded_and_the_rest_follows() {
    let (mut a, mut b) = (catalog(1), catalog(2));
    let wide = "x".repeat(100 << 10);
    for n in 0..7 {
        say(&mut a, facts(&alloc::format!("{n}{wide}")));
    }
    let mut rounds = Vec::new();
    while b.heads().get(&node(1)) != a.heads().get(&node(1)) {
        rounds.push(heal(&mut a, &mut b));
    }
    assert_eq!(rounds, [2, 2, 2, 1]);
}

#[test]
fn a_damaged_log_is_neither_written_nor_given() {
    let (mut a, b) = (catalog(1), catalog(2));
    say(&mut a, facts("north"));
    a.bar(node(1), "a flipped bit".into(), None);
    assert!(!a.ready_to_write(false, Time::MAX));
    assert!(matches!(a.append(facts("south")), Err(CatalogFault::Barred { .. })));
    assert!(a.behind(&b.heads()).is_empty());
}

#[test]
fn a_removal_leaves_no_pipeline_but_a_tip() {
    let mut a = catalog(1);
    let first = deployed("fares", 1, node(1));
    let at = say(&mut a, CatalogEntry::Revision(first.clone()));
    assert_eq!(a.facts().pipelines()[&name("fares")].reference, at);
    let end = follow(Some((&first, at)), removal("fares"));
    let at = say(&mut a, CatalogEntry::Revision(end.clone()));
    assert!(a.facts().pipelines().is_empty());
    assert_eq!(*a.facts().tip(&name("fares")).unwrap().revision, end);
    let again = follow(Some((&end, at)), deployed("fares", 2, node(1)));
    let at = say(&mut a, CatalogEntry::Revision(again));
    assert_eq!(a.facts().pipelines()[&name("fares")].reference, at);
}

#[test]
fn the_longer_chain_wins_and_the_loser_is_named() {
    let (mut a, mut b) = (catalog(1), catalog(2));
    let base = deployed("fares", 1, node(1));
    let base_at = say(&mut a, CatalogEntry::Revision(base.clone()));
    heal(&mut a, &mut b);
    let lone = follow(Some((&base, base_at)), deployed("fares", 2, node(1)));
    let lone_at = say(&mut a, CatalogEntry::Revision(lone));
    let long = follow(Some((&base, base_at)), deployed("fares", 3, node(2)));
    let long_at = say(&mut b, CatalogEntry::Revision(long.clone()));
    let end = follow(Some((&long, long_at)), deployed("fares", 4, node(2)));
    let end_at = say(&mut b, CatalogEntry::Revision(end));
    heal(&mut a, &mut b);
    heal(&mut b, &mut a);
    for catalog in [&a, &b] {
        let current: &Current = &catalog.facts().pipelines()[&name("fares")];
        assert_eq!(current.reference, end_at);
        assert_eq!(current.superseded.iter().map(|s| s.reference).collect::<Vec<_>>(), [lone_at]);
    }
}

#[test]
fn a_revision_waits_for_the_one_that_it_follows() {
    let (mut a, mut b, mut c) = (catalog(1), catalog(2), catalog(3));
    let base = deployed("fares", 1, node(1));
    let at = say(&mut a, CatalogEntry::Revision(base.clone()));
    say(&mut b, CatalogEntry::Revision(follow(Some((&base, at)), deployed("fares", 2, node(2)))));
    heal(&mut b, &mut c);
    assert!(c.facts().tip(&name("fares")).is_none());
    heal(&mut a, &mut c);
    assert_eq!(c.facts().tip(&name("fares")).unwrap().reference.node, node(2));
}

/// Three nodes' logs with revisions that follow random earlier ones.
fn logs() -> impl Strategy<Value = Vec<(NodeId, Vec<Record>)>> {
    proptest::collection::vec((0u8..3, any::<prop::sample::Index>(), 0u8..5), 1..14).prop_map(|steps| {
        let mut catalogs = [catalog(1), catalog(2), catalog(3)];
        let mut records = [const { Vec::new() }; 3];
        let mut known: Vec<(Revision, CatalogRef)> = Vec::new();
        for (who, previous, what) in steps {
            let catalog = &mut catalogs[usize::from(who)];
            let pick = previous.index(known.len() + 1);
            let revision = if what == 0 { removal("p") } else { deployed("p", what, catalog.me) };
            let revision = follow(known.get(pick).map(|(r, at)| (r, *at)), revision);
            known.push((revision.clone(), catalog.next_reference()));
            records[usize::from(who)].push(catalog.append(CatalogEntry::Revision(revision)).unwrap());
        }
        (1u8..).zip(records).map(|(n, records)| (node(n), records)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever the order in which the logs' records arrive and are persisted, the fold is the same.
    #[test]
    fn the_order_of_arrival_changes_nothing(logs in logs(), turns in proptest::collection::vec(0usize..3, 60)) {
        let mut whole = catalog(9);
        for (node, records) in &logs {
            whole.restore(*node, records.clone()).unwrap();
        }
        let mut mixed = catalog(9);
        let mut taken = [0usize; 3];
        for turn in turns.into_iter().chain([0, 1, 2].repeat(14)) {
            let (node, records) = &logs[turn];
            if let Some(record) = records.get(taken[turn]) {
                taken[turn] += 1;
                mixed.on_records(*node, vec![record.clone()]).unwrap();
                mixed.on_persisted(*node, record.seq);
            }
        }
        prop_assert_eq!(whole.facts().pipelines(), mixed.facts().pipelines());
        prop_assert_eq!(whole.facts().tip(&name("p")), mixed.facts().tip(&name("p")));
    }
}

#[test]
fn rotations_and_those_who_are_vouched_for_add_up_whatever_the_order() {
    let rotation = |before: u32, salt: u8| Rotation { before, salt: [salt; 32] };
    let rotated = |before, salt, members: &[u8]| CatalogEntry::TokensRotated {
        rotation: rotation(before, salt),
        members: members.iter().map(|n| node(*n)).collect(),
    };
    // Two sides of a cut rotate; each has let somebody in.
    let (mut a, mut b, mut c) = (catalog(1), catalog(2), catalog(3));
    say(&mut a, rotated(0, 9, &[1, 2]));
    say(&mut a, CatalogEntry::Admitted { node: node(4) });
    say(&mut b, CatalogEntry::Admitted { node: node(5) });
    say(&mut b, rotated(0, 8, &[1, 2, 3]));
    say(&mut b, rotated(1, 7, &[1, 2, 3]));
    heal(&mut a, &mut c);
    heal(&mut b, &mut c);
    heal(&mut c, &mut a);
    heal(&mut c, &mut b);
    let all = a.facts().roll();
    assert_eq!((all, all), (b.facts().roll(), c.facts().roll()));
    let rotations: Vec<Rotation> = all.rotations.iter().copied().collect();
    assert_eq!(rotations, [rotation(0, 8), rotation(0, 9), rotation(1, 7)]);
    for n in 1..=5 {
        assert_eq!(all.check_member(node(n)), Ok(()), "{n}");
    }
    assert!(all.check_member(node(6)).is_err());
}

/// A catalog that begins with the first `good` records of the author's log on its disk, which had held `held`.
fn wounded(me: u8, author: &Catalog, good: usize, held: Option<u64>) -> Catalog {
    let mut all: Vec<Record> = Vec::new();
    while all.len() < author.heads()[&author.me].seq.0 as usize {
        let head = all.last().map(|last| Head { seq: last.seq, hash: last.hash() }).unwrap_or_default();
        all.extend(author.behind(&BTreeMap::from([(author.me, head)])).pop().unwrap().1);
    }
    let mut catalog = catalog(me);
    let noted = held.map(|seq| all[seq as usize - 1].position());
    catalog.bar(author.me, "a bit is wrong".into(), noted);
    catalog.restore(author.me, all[..good].to_vec()).unwrap();
    catalog
}

#[test]
fn a_damaged_copy_is_mended_once_members_gave_all_that_it_had_held() {
    let mut a = catalog(1);
    let wide = "x".repeat(100 << 10);
    for n in 0..7 {
        say(&mut a, facts(&alloc::format!("{n}{wide}")));
    }
    for me in [1, 2] {
        let mut b = wounded(me, &a, 1, Some(6));
        assert!(b.facts().nodes()[&node(1)].labels["zone"].starts_with('0'), "what is good counts");
        assert!(!b.ready_to_write(true, Time(60_000)) || me == 2);
        assert!(b.behind(&BTreeMap::new()).is_empty(), "nothing is given on");
        let mut rounds = 0;
        while b.heads()[&node(1)].seq < Seq(6) {
            assert!(b.mendable().is_empty() && b.damaged().is_some());
            assert_eq!(heal(&mut a, &mut b), 0, "nothing is persisted piece by piece");
            rounds += 1;
        }
        assert!(rounds > 1);
        let (of, records) = b.mendable().pop().unwrap();
        assert_eq!((of, records.len()), (node(1), 6));
        assert!(b.mendable().is_empty(), "once");
        b.on_unmended(node(1));
        assert_eq!(b.mendable().len(), 1, "the disk did not take it");
        assert!(b.facts().nodes()[&node(1)].labels["zone"].starts_with('0'), "not before it stands");
        b.on_persisted(node(1), Seq(6));
        assert!(b.damaged().is_none() && !b.is_mending(&node(1)));
        assert!(b.facts().nodes()[&node(1)].labels["zone"].starts_with('5'));
        // What was said since comes as ever.
        assert_eq!(heal(&mut a, &mut b), 1);
        assert_eq!(b.heads()[&node(1)], a.heads()[&node(1)]);
    }
}

#[test]
fn a_copy_is_not_mended_by_less_or_by_something_else() {
    let (mut a, mut short, mut other) = (catalog(1), catalog(1), catalog(1));
    for label in ["north", "south", "east"] {
        say(&mut a, facts(label));
    }
    for label in ["north", "south"] {
        say(&mut short, facts(label));
    }
    for label in ["north", "south", "west"] {
        say(&mut other, facts(label));
    }
    let mut b = wounded(2, &a, 1, Some(3));
    heal(&mut short, &mut b);
    assert!(b.mendable().is_empty());
    let (_, records) = other.behind(&b.heads()).pop().unwrap();
    let fault = b.on_records(node(1), records).unwrap_err();
    assert!(matches!(fault, CatalogFault::Equivocation { seq: 3, .. }), "{fault}");
    assert!(b.mendable().is_empty() && b.damaged().is_some());
    heal(&mut a, &mut b);
    assert_eq!(b.mendable().len(), 1);
}

#[test]
fn where_a_copy_ended_that_cannot_tell_its_own_node_says() {
    let mut a = catalog(1);
    for label in ["north", "south", "east"] {
        say(&mut a, facts(label));
    }
    let mut b = wounded(2, &a, 1, None);
    heal(&mut a, &mut b);
    assert!(b.mendable().is_empty(), "a member's word is not enough");
    b.on_heads(node(3), &a.heads());
    heal(&mut a, &mut b);
    assert!(b.mendable().is_empty(), "another member's neither");
    b.on_heads(node(1), &a.heads());
    heal(&mut a, &mut b);
    assert_eq!(b.mendable().len(), 1);
    // Nobody can say it of this node's own.
    let mut me = wounded(1, &a, 1, None);
    me.on_heads(node(2), &a.heads());
    heal(&mut a, &mut me);
    assert!(me.mendable().is_empty());
}
