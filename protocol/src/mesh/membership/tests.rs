use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::time::Time;

/// Nodes on one clock; datagrams take 5 ms unless the link is cut.
struct World {
    now: Time,
    nodes: Vec<Option<Membership>>,
    queue: BTreeMap<(Time, u64), Happening>,
    count: u64,
    cut: BTreeSet<(usize, usize)>,
    log: Vec<(Time, usize, NodeId, Liveness)>,
}

enum Happening {
    Datagram { from: usize, to: usize, bytes: Bytes },
    Timer { at: usize, number: u64, generation: u64 },
}

fn id(n: usize) -> NodeId {
    NodeId([n as u8; 32])
}

impl World {
    fn of(count: usize) -> World {
        let mut world = World {
            now: Time(1_000_000),
            nodes: Vec::new(),
            queue: BTreeMap::new(),
            count: 0,
            cut: BTreeSet::new(),
            log: Vec::new(),
        };
        for n in 0..count {
            world.nodes.push(Some(Membership::new(id(n), world.now.0, n as u64)));
        }
        for n in 1..count {
            world.act(n, |node, effects| node.on_connected(id(0), effects));
        }
        world
    }

    fn generation(&self, at: usize) -> u64 {
        self.nodes[at].as_ref().map_or(0, |node| node.foca.identity().generation / RENEWALS)
    }

    fn act(&mut self, at: usize, act: impl FnOnce(&mut Membership, &mut MeshEffects)) {
        let Some(node) = self.nodes[at].as_mut() else { return };
        let mut effects = MeshEffects::default();
        act(node, &mut effects);
        let generation = self.generation(at);
        for (to, bytes) in effects.sends {
            let to = usize::from(to.0[0]);
            self.put(Span(5), Happening::Datagram { from: at, to, bytes });
        }
        for (number, after) in effects.timers {
            self.put(after, Happening::Timer { at, number, generation });
        }
        let now = self.now;
        self.log.extend(effects.changed.into_iter().map(|(node, state)| (now, at, node, state)));
    }

    fn put(&mut self, after: Span, happening: Happening) {
        self.count += 1;
        self.queue.insert((self.now.after(after), self.count), happening);
    }

    fn run(&mut self, seconds: u64) {
        self.run_for(Span::seconds(seconds));
    }

    fn run_for(&mut self, span: Span) {
        let end = self.now.after(span);
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((now, _), happening) = entry.remove_entry();
            self.now = now;
            match happening {
                Happening::Datagram { from, to, bytes } => {
                    if !self.cut.contains(&(from.min(to), from.max(to))) {
                        self.act(to, |node, effects| node.on_swim(id(from), &bytes, effects).unwrap());
                    }
                }
                Happening::Timer { at, number, generation } => {
                    if self.generation(at) == generation {
                        self.act(at, |node, effects| node.on_timer(number, effects));
                    }
                }
            }
        }
        self.now = end;
    }

    /// As each node that runs sees the others: `a`live, `s`uspect, `g`one, `-` itself; `.` does not run.
    fn views(&self) -> Vec<String> {
        let view = |me: usize, node: &Membership| {
            let letter = |n: usize| match node.liveness(&id(n)) {
                _ if n == me => '-',
                Liveness::Alive => 'a',
                Liveness::Suspect => 's',
                Liveness::Gone => 'g',
            };
            (0..self.nodes.len()).map(letter).collect()
        };
        let views = self.nodes.iter().enumerate();
        views.map(|(me, node)| node.as_ref().map_or(".".into(), |node| view(me, node))).collect()
    }
}

#[track_caller]
fn check(world: &World, expect: &[&str]) {
    assert_eq!(world.views(), expect);
}

#[test]
fn who_knows_one_member_soon_knows_all() {
    let mut world = World::of(4);
    world.run(3);
    check(&world, &["-aaa", "a-aa", "aa-a", "aaa-"]);
}

#[test]
fn a_dead_node_is_suspected_then_gone() {
    let mut world = World::of(3);
    world.run(3);
    world.nodes[2] = None;
    world.run(12);
    check(&world, &["-ag", "a-g", "."]);
    let of_two: Vec<Liveness> =
        world.log.iter().filter(|(_, at, node, _)| *at == 0 && *node == id(2)).map(|(.., l)| *l).collect();
    assert_eq!(of_two, [Liveness::Alive, Liveness::Suspect, Liveness::Gone]);
}

#[test]
fn a_node_that_leaves_is_gone_at_once() {
    let mut world = World::of(3);
    world.run(3);
    world.act(2, |node, effects| node.leave(effects));
    world.nodes[2] = None;
    world.run(1);
    check(&world, &["-ag", "a-g", "."]);
}

#[test]
fn a_restarted_node_is_alive_again() {
    let mut world = World::of(3);
    world.run(3);
    world.nodes[2] = None;
    world.run(12);
    world.nodes[2] = Some(Membership::new(id(2), world.now.0, 9));
    world.act(2, |node, effects| node.on_connected(id(0), effects));
    world.run(3);
    check(&world, &["-aa", "a-a", "aa-"]);
}

#[test]
fn a_healed_partition_is_whole_again_by_itself() {
    for count in [2usize, 3, 5] {
        let mut world = World::of(count);
        world.run(3);
        let cut = count / 2;
        world.cut = (0..cut).flat_map(|a| (cut..count).map(move |b| (a, b))).collect();
        world.run(20);
        let across = |world: &World| world.nodes[0].as_ref().unwrap().liveness(&id(count - 1));
        assert_eq!(across(&world), Liveness::Gone);
        world.cut.clear();
        // The transport has a connection again.
        world.act(0, |node, effects| node.on_connected(id(count - 1), effects));
        world.run(15);
        for view in world.views() {
            assert!(view.chars().all(|letter| letter == 'a' || letter == '-'), "{:?}", world.views());
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut world = World::of(5);
        world.run(3);
        world.nodes[4] = None;
        world.run(10);
        (world.log, world.count)
    };
    assert_eq!(run(), run());
}

#[test]
fn nobody_speaks_for_another() {
    let mut a = Membership::new(id(1), 1, 1);
    let mut b = Membership::new(id(2), 1, 2);
    let mut effects = MeshEffects::default();
    a.on_connected(id(2), &mut effects);
    let (_, datagram) = effects.sends.pop().unwrap();
    let mut effects = MeshEffects::default();
    let fault = b.on_swim(id(3), &datagram, &mut effects);
    assert_eq!(fault, Err(SwimFault::WrongSender { claimed: id(1) }));
    assert_eq!(effects, MeshEffects::default());
}

#[test]
fn a_datagram_cannot_grow_the_mesh_beyond_its_bound() {
    let mut node = Membership::new(id(0), 1, 1);
    let life = |n: u16| {
        let mut id = [1; 32];
        id[..2].copy_from_slice(&n.to_le_bytes());
        Life { node: NodeId(id), generation: 1 }
    };
    let mut tell = |from: u16, about: core::ops::Range<u16>| {
        let header = Header {
            src: life(from),
            src_incarnation: 0,
            dst: node.foca.identity().clone(),
            message: foca::Message::Gossip,
        };
        let mut datagram = Vec::new();
        put(&header, &mut datagram).unwrap();
        datagram.put_u16(about.len() as u16);
        about.for_each(|n| put(&Member::alive(life(n)), &mut datagram).unwrap());
        node.on_swim(life(from).node, &datagram, &mut MeshEffects::default())
    };
    for start in (0..1000).step_by(100) {
        assert_eq!(tell(0, start..start + 100), Ok(()));
    }
    assert_eq!(tell(0, 1000..1100), Err(SwimFault::TooMany));
    assert_eq!(tell(0, 1000..1020), Ok(()));
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
        let mut a = Membership::new(id(1), 1, 1);
        let mut effects = MeshEffects::default();
        let _ = a.on_swim(id(2), &bytes, &mut effects);
        let mut b = Membership::new(id(2), 1, 2);
        b.on_connected(id(1), &mut effects);
        let (_, datagram) = effects.sends.pop().unwrap();
        let mut broken = datagram.to_vec();
        broken.truncate(cut);
        broken.extend(vec![0; bytes.len()]);
        let _ = a.on_swim(id(2), &broken, &mut effects);
    }
}

#[test]
fn members_that_took_each_other_for_gone_find_back() {
    let mut world = World::of(2);
    world.run(3);
    world.cut.insert((0, 1));
    world.run(30);
    check(&world, &["-g", "g-"]);
    world.cut.clear();
    for _ in 0..10 {
        for n in 0..2 {
            let other = [id(1 - n)];
            world.act(n, |node, effects| node.repeat(other.iter(), effects));
        }
        world.run(1);
    }
    check(&world, &["-a", "a-"]);
}

/// Each tells the other at the same time that it is down, and both renew.
#[test]
fn two_nodes_that_renew_at_once_go_on_probing() {
    for tenths in 10..90 {
        let mut world = World::of(3);
        world.run(3);
        world.cut.insert((0, 1));
        world.nodes[2] = None;
        world.run_for(Span(tenths * 100));
        world.cut.clear();
        for _ in 0..30 {
            for (me, other) in [(0, id(1)), (1, id(0))] {
                world.act(me, |node, effects| node.repeat([other].iter(), effects));
            }
            world.run(1);
        }
        check(&world, &["-ag", "a-g", "."]);
        world.cut.insert((0, 1));
        world.run(30);
        check(&world, &["-gg", "g-g", "."]);
    }
}

#[test]
fn a_clock_behind_that_of_the_start_before_does_no_harm() {
    let mut world = World::of(3);
    world.run(3);
    world.nodes[2] = Some(Membership::new(id(2), world.now.0 - 900_000, 7));
    world.act(2, |node, effects| node.on_connected(id(0), effects));
    for _ in 0..10 {
        let others = [id(0), id(1)];
        world.act(2, |node, effects| node.repeat(others.iter(), effects));
        world.run(1);
    }
    check(&world, &["-aa", "a-a", "aa-"]);
}
