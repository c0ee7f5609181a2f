//! Every bound of the core in one table, with what happens when it is reached.

use crate::time::Span;

/// A wire frame, encoded. Beyond: the frame is refused before allocation and the link dropped.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// One event's weight. Beyond: refused at the edge with a sentence.
pub const EVENT_BYTES_MAX: usize = 4 << 20;
/// An event's key. Beyond: refused at the edge with a sentence; a function that emits one fails.
pub const KEY_BYTES_MAX: usize = 1024;
/// One publish request's events, by weight. Beyond: refused; the client sends smaller requests.
pub const PUBLISH_BYTES_MAX: usize = 4 << 20;
pub const PUBLISH_EVENTS_MAX: usize = 16_384;
/// A batch handed to a function: it closes at the first of the two.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
pub const BATCH_EVENTS_MAX: usize = 4096;
/// What one commit may emit and change. Beyond: a call that gives more alone fails and is retried in
/// halves; one that has no room beside others waits for the next commit.
pub const COMMIT_BYTES_MAX: usize = 6 << 20;
/// What one record may hand over of waiting events, dead letters and producers when a log follows
/// another. Beyond: the old log stays at work, and `show` says what stands in the way.
pub const INHERIT_BYTES_MAX: usize = 7 << 20;
/// A reader's credit window per edge: the writer sends at most this plus one batch.
pub const EDGE_CREDIT_BYTES: u64 = 1 << 20;
/// Recent records kept in memory per log for readers that keep up. Older ones are read from disk.
pub const LOG_CACHE_BYTES: usize = 2 << 20;
/// What a log keeps beyond that for a reader that is a little late, and what all logs of a node do. Beyond:
/// it reads from disk.
pub const LOG_CACHE_LATE_BYTES: usize = 16 << 20;
pub const CACHES_LATE_BYTES: usize = 32 << 20;
/// Bytes of one log on their way to disk. Beyond: publishers are answered Busy, actors wait.
pub const UNPERSISTED_BYTES_MAX: usize = 8 << 20;
/// One read from a log's segments.
pub const READ_BYTES_MAX: usize = 1 << 20;
/// A segment is closed at this size.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// A snapshot is taken after this much log since the last one.
pub const SNAPSHOT_EVERY_BYTES: u64 = 32 << 20;
/// Producers remembered per source log. Beyond: new producers are refused.
pub const PRODUCERS_MAX: usize = 10_000;
/// Manifest text, stages, and streams a stage may read. Beyond: the manifest is refused.
pub const MANIFEST_BYTES_MAX: usize = 256 << 10;
pub const STAGES_MAX: usize = 256;
pub const SHARES_MAX: u16 = 64;
/// Ways by which streams reach their readers in one pipeline, fused stages unrolled. Beyond: refused.
pub const EDGES_MAX: usize = 4096;
/// An expression's text. Beyond: the manifest is refused.
pub const EXPRESSION_BYTES_MAX: usize = 1024;
/// A module's bytes. Beyond: refused.
pub const MODULE_BYTES_MAX: usize = 64 << 20;
/// Attempts that a failing event gets before it becomes a dead letter.
pub const ATTEMPTS_MAX: u32 = 5;
/// Parked events per actor. Beyond: it takes no new events until fewer wait, and no letter is replayed.
pub const PARKED_MAX: usize = 10_000;
/// Dead letters per actor, and their bytes. Beyond: it takes no new events until some are replayed or
/// dropped; it says so in `show` and counts it (`dead_letters_full`).
pub const DEAD_LETTERS_MAX: usize = 10_000;
pub const DEAD_LETTER_BYTES_MAX: u64 = 64 << 20;
/// Dead letters that one answer carries, by weight, at least one. Beyond: left out; narrow the question.
pub const LETTERS_ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Client requests and taps open at once on a node. Beyond: Busy.
pub const REQUESTS_MAX: usize = 4096;
pub const TAPS_MAX: usize = 1024;
/// What a hub keeps of a log for taps that are slower than its quickest one. Beyond: they read by hubs of
/// their own until they have caught up.
pub const TAP_WINDOW_BYTES: u64 = 32 << 20;
/// So many whole windows are kept by all hubs of a node together. Beyond: each keeps less.
pub const HUBS_WINDOWS: u64 = 2;
/// Hubs of a node that read from one writer's node and are not the first of their log. Beyond: taps that
/// lag take turns, each at least as long as `HUB_TURN`.
pub const HUBS_BEHIND_MAX: usize = 12;
pub const HUB_TURN: Span = Span(2_000);
/// Nodes that tap one log's stream from which on it goes by gossip.
pub const GOSSIP_FROM_NODES: usize = 6;
/// Topics that one node broadcasts in, and topics that it is in for others. Beyond: streams go directly.
pub const TOPICS_MAX: usize = 32;
/// A batch for gossip, by weight. Beyond: its stream goes directly for a while.
pub const BROADCAST_BYTES_MAX: u64 = 1 << 20;
/// Batches of one topic that came before what they follow on, by weight. Beyond: the oldest are let go of
/// and pulled from the log.
pub const BROADCAST_EARLY_BYTES: u64 = 512 << 10;
/// One topic's batches are this far apart at least, so that signatures are few.
pub const BROADCAST_EVERY: Span = Span(5);
/// Members of a mesh in this version.
pub const NODES_MAX: usize = 1024;
/// One node's catalog log, in memory and on disk. Beyond: its appends are refused.
pub const CATALOG_LOG_BYTES_MAX: usize = 32 << 20;
/// Catalog records sent in one exchange. Beyond: they follow in the next one.
pub const CATALOG_SEND_BYTES_MAX: usize = 256 << 10;
/// One SWIM datagram, made and taken. Beyond: news waits for the next one; a longer one is refused.
pub const SWIM_BYTES_MAX: usize = 16 << 10;
/// SWIM's timers in flight. Beyond: a suspect's deadline is not set; the next failed probe sets it.
pub const SWIM_TIMERS_MAX: usize = 4 * NODES_MAX;
/// Subscriptions that one peer may hold on this node. Beyond: refused and counted.
pub const SUBSCRIPTIONS_PER_PEER_MAX: usize = 65_536;

/// First wait before a failed call or a refusing sink is tried again; doubles up to the last.
pub const RETRY_FIRST: Span = Span(200);
pub const RETRY_LAST: Span = Span(30_000);
/// A question to another node that has no answer by then fails with a sentence.
pub const ASK_DEADLINE: Span = Span(5_000);
/// How often an edge repeats its credit while something is outstanding, and catalogs compare heads.
pub const EDGE_REPEAT: Span = Span(1_000);
pub const CATALOG_REPEAT: Span = Span(2_000);
/// How long a node that came back waits for a peer to tell what it holds of the node's own catalog
/// log. Beyond: it writes without having heard one.
pub const CATALOG_ADOPT_WAIT: Span = Span(5_000);
/// A source without events for this long logs an idle mark.
pub const SOURCE_IDLE: Span = Span(10_000);
