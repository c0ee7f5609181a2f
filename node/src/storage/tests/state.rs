//! Keyed state: brought up from its log, copied, removed.

use super::*;

fn values(store: &StateStore, log: LogId) -> BTreeMap<Bytes, Bytes> {
    store.dump(log).unwrap().map(Result::unwrap).filter(|(key, _)| key.starts_with(b"k")).collect()
}

#[test]
fn state_is_brought_up_from_behind_and_rebuilt_when_it_is_ahead() {
    let mut node = Node::new();
    node.persist(10, 10, Durability::Disk);
    let reader = node.reader();
    let store = StateStore::open(node.folder.path()).unwrap();
    let fifth = node.records[4].position();
    store.bring_up(node.log, fifth, &reader).unwrap();
    assert_eq!(store.applied(node.log).unwrap(), Some(fifth));
    assert_eq!(store.get(node.log, b"k1").unwrap().unwrap(), "5");
    store.bring_up(node.log, node.head, &reader).unwrap();
    assert_eq!(store.get(node.log, b"k1").unwrap().unwrap(), "9");
    assert_eq!(store.scan(node.log, b"k", 2).unwrap().len(), 2);
    assert_eq!(store.range(node.log, b"k2", 9).unwrap().len(), 3);
    let right = values(&store, node.log);

    let ahead = Position { seq: Seq(99), ..node.head };
    let wrong = Change { key: Bytes::from_static(b"k9"), value: Some(Bytes::new()) };
    store.apply(node.log, ahead, std::slice::from_ref(&wrong)).unwrap();
    store.bring_up(node.log, node.head, &reader).unwrap();
    assert_eq!(values(&store, node.log), right, "ahead");

    let elsewhere = Position { hash: dunlin_protocol::id::Hash([9; 16]), ..fifth };
    store.apply(node.log, elsewhere, &[wrong]).unwrap();
    store.bring_up(node.log, node.head, &reader).unwrap();
    assert_eq!(values(&store, node.log), right, "another history");
}

#[test]
fn lost_state_comes_back_from_snapshot_and_log() {
    let mut node = Node::new();
    node.persist(4, 6_000_000, Durability::Disk);
    let store = StateStore::open(node.folder.path()).unwrap();
    store.bring_up(node.log, node.head, &node.reader()).unwrap();
    let (log, at) = (node.log, node.head);
    let writer = node.storage().snapshot_writer();
    writer.write(log, at, b"fold", &mut store.dump(log).unwrap()).unwrap();
    node.storage().truncate(log, at.seq.next());
    node.persist(3, 10, Durability::Disk);
    let right = {
        store.bring_up(log, node.head, &node.reader()).unwrap();
        values(&store, log)
    };
    drop(store);
    fs::remove_dir_all(node.folder.path().join("state")).unwrap();
    fs::create_dir(node.folder.path().join("state")).unwrap();
    fs::write(node.folder.path().join("state").join("version"), b"rubbish").unwrap();
    let store = StateStore::open(node.folder.path()).unwrap();
    assert_eq!(store.applied(log).unwrap(), None);
    store.bring_up(log, node.head, &node.reader()).unwrap();
    assert_eq!(values(&store, log), right);
}

/// Closes the node's log and begins another, which inherits; that one is the node's log from here on.
fn follow(node: &mut Node, n: u8) {
    let (from, name) = (node.log, name(n));
    let close = Record::after(node.head, Epoch(1), &Body::Close { successor: name.id() });
    let closed_at = close.position();
    let inherit = Inherit { from, closed_at, fold: Bytes::new(), revision: Default::default() };
    let inherit = Record::after(Position::START, Epoch(1), &Body::Inherit(inherit));
    assert_eq!(node.storage().persist(from, vec![close], Durability::Disk), None);
    node.storage().create_log(name.id(), &name);
    (node.log, node.head, node.records) = (name.id(), inherit.position(), vec![inherit.clone()]);
    assert_eq!(node.storage().persist(name.id(), vec![inherit], Durability::Disk), None);
    node.wait_for(|input| matches!(input, Input::Persisted { log, .. } if *log == name.id()));
}

#[test]
fn a_log_that_follows_another_begins_with_a_copy_of_its_state() {
    let mut node = Node::new();
    node.persist(10, 10, Durability::Disk);
    let store = StateStore::open(node.folder.path()).unwrap();
    let first = node.log;
    store.bring_up(first, node.head, &node.reader()).unwrap();
    let right = values(&store, first);
    follow(&mut node, 2);
    store.bring_up(node.log, node.head, &node.reader()).unwrap();
    assert_eq!(values(&store, node.log), right);
    assert_eq!(store.applied(first).unwrap(), None, "one copy is enough");
    node.persist(1, 10, Durability::Disk);
    store.bring_up(node.log, node.head, &node.reader()).unwrap();
    let right = values(&store, node.log);
    assert_eq!(right.get(&b"k2"[..]).unwrap(), "2");

    // The next but one; the one between is never hosted, and all state is lost.
    follow(&mut node, 3);
    follow(&mut node, 4);
    drop(store);
    fs::remove_dir_all(node.folder.path().join("state")).unwrap();
    let store = StateStore::open(node.folder.path()).unwrap();
    store.bring_up(node.log, node.head, &node.reader()).unwrap();
    assert_eq!(values(&store, node.log), right);
}

#[test]
fn logs_do_not_see_each_others_state() {
    let folder = tempfile::tempdir().unwrap();
    let store = StateStore::open(folder.path()).unwrap();
    let change = Change { key: Bytes::from_static(b"k"), value: Some(Bytes::from_static(b"v")) };
    let (one, two) = (LogId([1; 16]), LogId([2; 16]));
    store.apply(one, Position::START, std::slice::from_ref(&change)).unwrap();
    store.apply(two, Position::START, &[change]).unwrap();
    store.clear(one).unwrap();
    assert!(values(&store, one).is_empty() && store.applied(one).unwrap().is_none());
    assert_eq!(values(&store, two).len(), 1);
}

/// A KiB for each of so many entries, which does not compress.
fn fill(store: &StateStore, log: LogId, entries: u32) {
    let mut noise = blake3::Hasher::new().update(&log.0).finalize_xof();
    for n in 0..entries {
        let mut value = vec![0; 1024];
        noise.fill(&mut value);
        let change = Change { key: format!("k{n}").into(), value: Some(value.into()) };
        store.apply(log, Position { seq: Seq(u64::from(n) + 1), ..Position::START }, &[change]).unwrap();
    }
}

#[test]
fn what_a_removed_log_held_leaves_the_disk_and_its_neighbour_stays() {
    const MIB: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let tables = folder.path().join("state").join("keyspaces");
    let store = StateStore::open(folder.path()).unwrap();
    let (one, two) = (LogId([1; 16]), LogId([2; 16]));
    fill(&store, one, 40 << 10);
    fill(&store, two, 1 << 10);
    let right = values(&store, two);
    // Tables are written behind the journal, while more comes.
    let (began, mut full, mut seq) = (Instant::now(), 0, 40u64 << 10);
    while full <= 20 * MIB {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{full} bytes in tables: too few to show anything"
        );
        seq += 1;
        let change = Change { key: "more".into(), value: Some("x".into()) };
        store.apply(one, Position { seq: Seq(seq), ..Position::START }, &[change]).unwrap();
        thread::sleep(Duration::from_millis(10));
        full = files::bytes_below(&tables);
    }
    store.remove(one).unwrap();
    assert!(values(&store, one).is_empty() && store.applied(one).unwrap().is_none());
    // A table that was being written when it went is deleted once it is there.
    let (removed, mut left) = (Instant::now(), files::bytes_below(&tables));
    while left >= 3 * MIB {
        assert!(removed.elapsed() < Duration::from_secs(60), "{left} of {full} bytes are left");
        thread::sleep(Duration::from_millis(10));
        left = files::bytes_below(&tables);
    }
    assert_eq!(values(&store, two), right);
    drop(store);
    let store = StateStore::open(folder.path()).unwrap();
    assert!(values(&store, one).is_empty());
    assert_eq!(values(&store, two), right);
}

#[test]
fn state_without_a_log_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = StateStore::open(folder.path()).unwrap();
    let logs = [1, 2, 3, 255].map(|n| LogId([n; 16]));
    assert!(store.strays(&logs.into()).unwrap().is_empty());
    logs.iter().for_each(|log| fill(&store, *log, 3));
    assert!(store.strays(&logs.into()).unwrap().is_empty());
    assert_eq!(store.strays(&[logs[1]].into()).unwrap(), [logs[0], logs[2], logs[3]]);
}
