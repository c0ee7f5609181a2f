//! All that a report shows, gathered event by event in bounded memory.

use std::collections::BTreeMap;

use dunlin_protocol::id::EventId;
use dunlin_protocol::time::Time;

use super::bins::{Bins, Join};
use super::path::Path;
use super::said::{Running, Said, Step, Target};
use super::sample::{Sample, hash};

/// Keys whose series are followed; of these the busiest are drawn.
const PATHS_MAX: usize = 16;
/// Keys whose drifts are followed, and what says of itself how it runs.
const FOLLOWED_MAX: usize = 2048;
/// Pairs of prediction and outcome that are drawn one by one.
const PAIRS_MAX: usize = 700;
/// Bins of probability, for reliability and for the AUC.
pub const CHANCES: usize = 1000;
/// The interval as it was given is `WIDTH` such parts of its half wide; truths are counted by how many
/// parts they lay away, up to `WIDTHS`.
pub const WIDTH: usize = 20;
pub const WIDTHS: usize = 3 * WIDTH;

/// Everything of one stage.
#[derive(Debug)]
pub struct Gathered {
    pub predictions: u64,
    pub settled: u64,
    /// Events that are no predictions.
    pub unreadable: u64,
    pub first: Option<Time>,
    pub last: Option<Time>,
    pub interval: Option<f64>,
    pub keys: Sample<()>,
    pub weights: Bins<Weights>,
    pub targets: BTreeMap<String, OfTarget>,
}

/// Sums of the weights of so many predictions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    pub n: u64,
    pub sums: BTreeMap<String, f64>,
}

impl Join for Weights {
    fn join(&mut self, other: Weights) {
        self.n += other.n;
        for (name, sum) in other.sums {
            *self.sums.entry(name).or_default() += sum;
        }
    }
}

/// Sums over settled predictions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Errors {
    pub n: u64,
    pub absolute: f64,
    pub absolute_last_value: f64,
    pub squared: f64,
    pub inside: u64,
}

impl Join for Errors {
    fn join(&mut self, other: Errors) {
        self.n += other.n;
        self.absolute += other.absolute;
        self.absolute_last_value += other.absolute_last_value;
        self.squared += other.squared;
        self.inside += other.inside;
    }
}

impl Errors {
    fn of(step: &Step, truth: f64, last_value: f64) -> Errors {
        let error = truth - step.value;
        Errors {
            n: 1,
            absolute: error.abs(),
            absolute_last_value: (truth - last_value).abs(),
            squared: error * error,
            inside: u64::from(step.low <= truth && truth <= step.high),
        }
    }

    pub fn mae(&self) -> f64 {
        self.absolute / self.n.max(1) as f64
    }

    pub fn mae_last_value(&self) -> f64 {
        self.absolute_last_value / self.n.max(1) as f64
    }

    pub fn rmse(&self) -> f64 {
        (self.squared / self.n.max(1) as f64).sqrt()
    }

    pub fn inside(&self) -> f64 {
        self.inside as f64 / self.n.max(1) as f64
    }

    /// The part of the naive line's error that is gone.
    pub fn gain(&self) -> Option<f64> {
        let last = self.mae_last_value();
        (last > 0.0).then(|| 1.0 - self.mae() / last)
    }
}

/// One target of the stage.
#[derive(Debug)]
pub struct OfTarget {
    /// By horizon.
    pub horizons: Vec<Errors>,
    /// How horizons are called: how far ahead each is.
    pub spans: Vec<Option<u64>>,
    /// The horizons that are drawn over time: first, middle, last.
    pub chosen: Vec<usize>,
    pub over_time: Vec<Bins<Errors>>,
    /// How many truths of the first horizon lay so many parts of half an interval away.
    pub widths: [u64; WIDTHS],
    pub chances: Chances,
    /// Drift marks, and the marks so far of keys.
    pub drifts: Bins<Marks>,
    marked: Sample<u64>,
    pub paths: Sample<Path>,
    /// Said and come true, at the first horizon.
    pub pairs: Sample<(f64, f64)>,
    /// What shares (`learn`) or keys (`forecast`) say of themselves.
    running: Sample<Running>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Marks(pub u64);

impl Join for Marks {
    fn join(&mut self, other: Marks) {
        self.0 += other.0;
    }
}

impl Default for Gathered {
    fn default() -> Self {
        Gathered {
            predictions: 0,
            settled: 0,
            unreadable: 0,
            first: None,
            last: None,
            interval: None,
            keys: Sample::new(FOLLOWED_MAX),
            weights: Bins::default(),
            targets: BTreeMap::new(),
        }
    }
}

impl Gathered {
    /// Takes an event of `STAGE.scores` in. All of these come first.
    pub fn settled(&mut self, id: EventId, payload: &[u8]) {
        let Some((said, settled_at)) =
            Said::of(payload).and_then(|said| said.settled_at.map(|at| (said, at)))
        else {
            self.unreadable += 1;
            return;
        };
        self.settled += 1;
        self.seen(settled_at);
        self.seen(said.at);
        self.interval = said.interval.or(self.interval);
        let key = hash(said.key.as_bytes());
        self.keys.place(key, || ());
        for target in &said.targets {
            let of = self.target(target, said.at);
            of.settled(id, key, &said, settled_at, target);
        }
    }

    /// Takes an event of `STAGE` in.
    pub fn predicted(&mut self, payload: &[u8]) {
        let Some(said) = Said::of(payload) else {
            self.unreadable += 1;
            return;
        };
        self.predictions += 1;
        self.seen(said.at);
        let key = hash(said.key.as_bytes());
        self.keys.place(key, || ());
        for target in &said.targets {
            let of = self.target(target, said.at);
            if let Some(path) = of.paths.place(key, || Path::new(&said.key)) {
                path.waits(said.at, target);
            }
        }
        self.weights.add(said.at, Weights { n: 1, sums: said.weights });
    }

    fn seen(&mut self, at: Time) {
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }

    fn target(&mut self, target: &Target, at: Time) -> &mut OfTarget {
        self.targets.entry(target.name.clone()).or_insert_with(|| OfTarget::new(target, at))
    }
}

impl OfTarget {
    fn new(target: &Target, at: Time) -> OfTarget {
        let horizons = target.steps.len();
        let mut chosen = vec![0, horizons / 2, horizons - 1];
        // Half of what there is: of 48 the 24th.
        if let Some(middle) = chosen.get_mut(1) {
            *middle = middle.saturating_sub(1);
        }
        chosen.dedup();
        OfTarget {
            horizons: vec![Errors::default(); horizons],
            spans: target.steps.iter().map(|step| step.due.map(|due| due.since(at).0)).collect(),
            over_time: vec![Bins::default(); chosen.len()],
            chosen,
            widths: [0; WIDTHS],
            chances: Chances::default(),
            drifts: Bins::default(),
            marked: Sample::new(FOLLOWED_MAX),
            paths: Sample::new(PATHS_MAX),
            pairs: Sample::new(PAIRS_MAX),
            running: Sample::new(FOLLOWED_MAX),
        }
    }

    fn settled(&mut self, id: EventId, key: u64, said: &Said, settled_at: Time, target: &Target) {
        let scored =
            target.steps.iter().map(|step| step.truth.map(|t| Errors::of(step, t, target.last_value)));
        let scored: Vec<Option<Errors>> = scored.collect();
        for (sum, errors) in self.horizons.iter_mut().zip(&scored) {
            errors.iter().for_each(|errors| sum.join(*errors));
        }
        for (horizon, bins) in self.chosen.iter().zip(&mut self.over_time) {
            if let Some(Some(errors)) = scored.get(*horizon) {
                bins.add(settled_at, *errors);
            }
        }
        if let Some(step) = target.steps.first()
            && let Some(truth) = step.truth
        {
            let half = (step.high - step.low) / 2.0;
            let away = (truth - f64::midpoint(step.low, step.high)).abs();
            // What lies on the bound lies inside.
            let parts = if half > 0.0 { (away / half * WIDTH as f64).ceil() as usize } else { WIDTHS };
            let parts = if away == 0.0 { 0 } else { parts.saturating_sub(1) };
            if let Some(count) = self.widths.get_mut(parts) {
                *count += 1;
            }
            if let Some(pair) = self.pairs.place(hash(id.to_string().as_bytes()), || (step.value, truth)) {
                *pair = (step.value, truth);
            }
        }
        if let (Some(p), Some(happened)) = (target.probability, target.happened) {
            self.chances.add(p, happened);
        }
        // `learn` says of the share how it does, `forecast` of the key.
        let of = if target.name.is_empty() { hash(&id.log.0) } else { key };
        if let Some(marked) = self.marked.place(of, || target.drifts)
            && target.drifts > *marked
        {
            self.drifts.add(settled_at, Marks(target.drifts - *marked));
            *marked = target.drifts;
        }
        if let Some(running) = target.running
            && let Some(known) = self.running.place(of, || running)
            && running.n >= known.n
        {
            *known = running;
        }
        if let Some(path) = self.paths.place(key, || Path::new(&said.key)) {
            path.settled(settled_at, target);
        }
    }

    /// What the stage says of itself over all that it ever settled; none when not all of it is known.
    pub fn running(&self) -> Option<Running> {
        let mut all = Running { n: 0, unscored: 0, mae: 0.0, mae_last_value: 0.0 };
        for one in self.running.iter() {
            all.n += one.n;
            all.unscored += one.unscored;
            all.mae += one.mae * one.n as f64;
            all.mae_last_value += one.mae_last_value * one.n as f64;
        }
        let n = all.n.max(1) as f64;
        (self.running.is_whole() && all.n > 0).then_some(Running {
            mae: all.mae / n,
            mae_last_value: all.mae_last_value / n,
            ..all
        })
    }

    /// The keys with the most settled predictions, of those that are followed.
    pub fn busiest(&self, most: usize) -> Vec<&Path> {
        let mut paths: Vec<&Path> = self.paths.iter().collect();
        paths.sort_by(|one, other| other.n.cmp(&one.n).then_with(|| one.key.cmp(&other.key)));
        paths.truncate(most);
        paths
    }

    /// For each multiple of the interval the part of truths that lay within it.
    pub fn covered(&self) -> Vec<(f64, f64)> {
        let n = self.horizons.first().map_or(0, |errors| errors.n).max(1) as f64;
        let mut sum = 0;
        let mut curve = vec![(0.0, 0.0)];
        for (index, count) in self.widths.iter().enumerate() {
            sum += count;
            curve.push(((index + 1) as f64 / WIDTH as f64, sum as f64 / n));
        }
        curve
    }
}

/// Probabilities that were said, and what happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Chances {
    said: Vec<f64>,
    happened: Vec<u64>,
    not: Vec<u64>,
    log_loss: f64,
}

/// Of those within a stretch of probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    pub n: u64,
    /// What was said, on average.
    pub said: f64,
    pub happened: f64,
}

impl Default for Chances {
    fn default() -> Self {
        Chances { said: vec![0.0; CHANCES], happened: vec![0; CHANCES], not: vec![0; CHANCES], log_loss: 0.0 }
    }
}

impl Chances {
    fn add(&mut self, p: f64, happened: bool) {
        let bin = ((p * CHANCES as f64) as usize).min(CHANCES - 1);
        let counts = if happened { &mut self.happened } else { &mut self.not };
        if let (Some(said), Some(count)) = (self.said.get_mut(bin), counts.get_mut(bin)) {
            *said += p;
            *count += 1;
        }
        let sure = if happened { p } else { 1.0 - p };
        self.log_loss -= sure.clamp(1e-6, 1.0).ln();
    }

    pub fn n(&self) -> u64 {
        self.happened.iter().chain(&self.not).sum()
    }

    pub fn share(&self) -> f64 {
        self.happened.iter().sum::<u64>() as f64 / self.n().max(1) as f64
    }

    pub fn log_loss(&self) -> f64 {
        self.log_loss / self.n().max(1) as f64
    }

    /// None when all or none happened.
    pub fn auc(&self) -> Option<f64> {
        let (all, none): (u64, u64) = (self.happened.iter().sum(), self.not.iter().sum());
        let (mut below, mut ordered) = (0.0, 0.0);
        for (happened, not) in self.happened.iter().zip(&self.not) {
            ordered += *happened as f64 * (below + *not as f64 / 2.0);
            below += *not as f64;
        }
        (all > 0 && none > 0).then(|| ordered / (all as f64 * none as f64))
    }

    /// In so many stretches; those that are empty are left out.
    pub fn groups(&self, count: usize) -> Vec<Group> {
        let each = CHANCES / count;
        let sums = self.said.chunks(each).zip(self.happened.chunks(each)).zip(self.not.chunks(each));
        let group = |((said, happened), not): ((&[f64], &[u64]), &[u64])| {
            let yes: u64 = happened.iter().sum();
            let n = yes + not.iter().sum::<u64>();
            let of = n.max(1) as f64;
            Group { n, said: said.iter().sum::<f64>() / of, happened: yes as f64 / of }
        };
        sums.map(group).filter(|group| group.n > 0).collect()
    }
}
