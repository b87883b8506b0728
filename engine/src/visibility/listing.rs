//! Pages and counts of runs, newest first, merged over the shards.
//!
//! ```text
//!  what the filter fixes      is read from
//!  RunId                      the run's head, one read a shard
//!  WorkflowId                 the line of that id, in its one shard
//!  ExecutionStatus            the lines of those statuses
//!  WorkflowType               the lines of those types
//!  nothing of these           the whole listing
//! ```
//!
//! With AND the least of these is read, with OR all of them. Bounds on StartTime that every run must satisfy cut each stretch short. The
//! filter is then asked of each row: a line only says where to look.
//!
//! A page ends when it is full, or when so many rows were looked at that the caller should be answered; its token says behind which run
//! the next one goes on, so runs that start meanwhile never move a page.
//!
//! Invariant: every range read is of the namespace asked for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use orchestrion_history::ids::{Namespace, RunId, ShardId, Timestamp, WorkflowId};
use orchestrion_history::store::{Key, KeyRange, LineOf, Store, StoreError, StoreErrorKind};
use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::enums::v1::WorkflowExecutionStatus;
use orchestrion_proto::v1::{RunHead, Visibility};

use super::attributes::{Attribute, Field, Value};
use super::query::{Fields, Filter, Op, Query, Test, status_name, status_of_name};
use crate::registry::ids::digest;

/// Rows of a page at most, and when nothing is asked.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Rows looked at for one page.
const ROWS_READ_MAX: usize = 50_000;
/// Rows read at once from one stretch.
const SCAN_ROWS: usize = 256;
/// Stretches that are merged; a filter that names more is answered from the whole listing.
const LEAVES_MAX: usize = 64;

const TOKEN_VERSION: u8 = 1;

/// A page.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Listed {
    /// Newest first.
    pub rows: Vec<Visibility>,
    /// Asks for the next page; empty behind the last one.
    pub next: Vec<u8>,
}

/// How many runs there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counted {
    /// All of them.
    pub total: u64,
    /// By status, as the wires number it, if that was asked for. A status without any is absent.
    pub by_status: BTreeMap<i32, u64>,
}

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ListError {
    /// Not a token of this query.
    #[error(
        "next_page_token is not one of this query in this namespace: leave it out to begin anew"
    )]
    Token,
    /// Asked for with a list.
    #[error("GROUP BY counts runs, it does not list them: leave it out, or count")]
    Grouped,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where a run stands in a listing: newest first, then by run id.
type Position = (Reverse<Timestamp>, RunId);

/// The index of all runs.
#[derive(Clone, Copy)]
pub struct Index<'a> {
    /// What holds it.
    pub store: &'a dyn Store,
    /// Its shards.
    pub shards: u16,
}

impl Index<'_> {
    /// One page of a namespace's runs. `text` is the query as it was given: tokens are bound to it.
    pub fn list(
        &self,
        namespace: &Namespace,
        text: &str,
        query: &Query,
        rows_max: usize,
        token: &[u8],
    ) -> Result<Listed, ListError> {
        if query.by_status {
            return Err(ListError::Grouped);
        }
        let binding = binding(namespace, text);
        let behind = read_token(token, binding)?;
        let rows_max = match rows_max {
            0 => PAGE_ROWS_MAX,
            given => given.min(PAGE_ROWS_MAX),
        };
        let mut merge = Merge::over(
            *self,
            namespace,
            query.filter.as_ref(),
            behind,
            rows_max + 1,
        )?;
        let mut page = Listed::default();
        for looked_at in 0.. {
            let before = merge.last;
            let Some(row) = merge.next()? else {
                return Ok(page);
            };
            let fits = query
                .filter
                .as_ref()
                .is_none_or(|filter| filter.holds(&row));
            let full = page.rows.len() == rows_max && fits;
            if (full || looked_at >= ROWS_READ_MAX)
                && let Some(last) = before
            {
                page.next = token_of(last, binding);
                return Ok(page);
            }
            if fits {
                page.rows.push(row);
            }
        }
        Ok(page)
    }

    /// How many of a namespace's runs satisfy a query.
    pub fn count(&self, namespace: &Namespace, query: &Query) -> Result<Counted, StoreError> {
        let mut counted = Counted::default();
        if query.filter.as_ref().is_none_or(asks_status_only) {
            self.count_lines(namespace, query, &mut counted)?;
        } else {
            let filter = query.filter.as_ref();
            let mut merge = Merge::over(*self, namespace, filter, None, SCAN_ROWS)?;
            while let Some(row) = merge.next()? {
                if filter.is_none_or(|filter| filter.holds(&row)) {
                    counted.total += 1;
                    *counted.by_status.entry(row.status).or_default() += 1;
                }
            }
        }
        if !query.by_status {
            counted.by_status.clear();
        }
        Ok(counted)
    }

    /// Counts keys alone: the status lines hold every run once.
    fn count_lines(
        &self,
        namespace: &Namespace,
        query: &Query,
        counted: &mut Counted,
    ) -> Result<(), StoreError> {
        for number in 1..=WorkflowExecutionStatus::Paused as u8 {
            let status = i32::from(number);
            let fits = |filter: &Filter| filter.holds(&OnlyStatus(status));
            if !query.filter.as_ref().is_none_or(fits) {
                continue;
            }
            let mut found = 0;
            for shard in (0..self.shards).map(ShardId) {
                let mut range = KeyRange::line(shard, namespace, &LineOf::Status(number));
                loop {
                    let page = self.store.scan(&range, 4 * SCAN_ROWS, false)?;
                    found += page.entries.len() as u64;
                    match page.entries.last() {
                        Some((last, _)) if page.more => range = range.after(last),
                        _ => break,
                    }
                }
            }
            if found > 0 {
                counted.total += found;
                counted.by_status.insert(status, found);
            }
        }
        Ok(())
    }

    /// Every run of a namespace, newest first, whatever becomes of them meanwhile.
    pub fn newest(
        &self,
        namespace: &Namespace,
        rows_max: usize,
    ) -> Result<Vec<Visibility>, StoreError> {
        let mut merge = Merge::over(*self, namespace, None, None, rows_max)?;
        let mut rows = Vec::new();
        while rows.len() < rows_max
            && let Some(row) = merge.next()?
        {
            rows.push(row);
        }
        Ok(rows)
    }
}

/// A run of which only the status is known.
struct OnlyStatus(i32);

impl Fields for OnlyStatus {
    fn value(&self, _attribute: &Attribute) -> Option<Value> {
        status_name(self.0).map(|name| Value::Keyword(name.to_owned()))
    }
}

fn asks_status_only(filter: &Filter) -> bool {
    match filter {
        Filter::And(parts) | Filter::Or(parts) => parts.iter().all(asks_status_only),
        Filter::Not(part) => asks_status_only(part),
        Filter::Test(attribute, _) => *attribute == Attribute::Field(Field::ExecutionStatus),
    }
}

/// A stretch that holds every run of some kind.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Leaf {
    Run(RunId),
    Line(LineOf),
}

impl Leaf {
    /// How much there probably is to read, least first.
    fn rank(&self) -> u8 {
        const COMPLETED: u8 = WorkflowExecutionStatus::Completed as u8;
        match self {
            Self::Run(_) => 0,
            Self::Line(LineOf::Workflow(_)) => 1,
            Self::Line(LineOf::Type(_)) => 3,
            // Most runs end well; of all other statuses there are few.
            Self::Line(LineOf::Status(COMPLETED)) => 4,
            Self::Line(LineOf::Status(_)) => 2,
        }
    }
}

/// Stretches that hold every run that satisfies the filter; `None` is the whole listing.
fn leaves(filter: &Filter) -> Option<Vec<Leaf>> {
    match filter {
        Filter::And(parts) => parts
            .iter()
            .filter_map(leaves)
            .min_by_key(|leaves| (leaves.iter().map(Leaf::rank).max(), leaves.len())),
        Filter::Or(parts) => {
            let mut all = Vec::new();
            for part in parts {
                for leaf in leaves(part)? {
                    if !all.contains(&leaf) {
                        all.push(leaf);
                    }
                }
                if all.len() > LEAVES_MAX {
                    return None;
                }
            }
            Some(all)
        }
        Filter::Not(_) => None,
        Filter::Test(Attribute::Field(field), test) => {
            let wanted = match test {
                Test::Compare(Op::Equal, value) => std::slice::from_ref(value),
                Test::In(values) if values.len() <= LEAVES_MAX => values,
                _ => return None,
            };
            let mut all = Vec::new();
            for value in wanted {
                let Value::Keyword(text) = value else {
                    return None;
                };
                let leaf = match field {
                    // What no run can be called finds none.
                    Field::RunId => RunId::parse(text).map(Leaf::Run),
                    Field::WorkflowId => WorkflowId::parse(text)
                        .ok()
                        .map(|id| Leaf::Line(LineOf::Workflow(id))),
                    Field::WorkflowType => Some(Leaf::Line(LineOf::Type(text.clone()))),
                    Field::ExecutionStatus => {
                        let number = status_of_name(text).and_then(|it| u8::try_from(it).ok());
                        Some(Leaf::Line(LineOf::Status(number?)))
                    }
                    _ => return None,
                };
                all.extend(leaf.filter(|leaf| !all.contains(leaf)));
            }
            Some(all)
        }
        Filter::Test(..) => None,
    }
}

/// Oldest and newest start of the runs that can satisfy the filter.
fn window(filter: Option<&Filter>) -> (Option<Timestamp>, Option<Timestamp>) {
    let parts: &[Filter] = match filter {
        Some(Filter::And(parts)) => parts,
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let (mut oldest, mut newest) = (None, None);
    let from = |bound: &mut Option<i64>, at: i64| *bound = Some(bound.map_or(at, |b| b.max(at)));
    let until = |bound: &mut Option<i64>, at: i64| *bound = Some(bound.map_or(at, |b| b.min(at)));
    for part in parts {
        let Filter::Test(Attribute::Field(Field::StartTime), test) = part else {
            continue;
        };
        match test {
            Test::Compare(op, Value::Datetime(at)) => match op {
                Op::Equal => {
                    from(&mut oldest, *at);
                    until(&mut newest, *at);
                }
                Op::Greater | Op::GreaterOrEqual => from(&mut oldest, *at),
                Op::Less | Op::LessOrEqual => until(&mut newest, *at),
                Op::NotEqual => {}
            },
            Test::Between(Value::Datetime(low), Value::Datetime(high)) => {
                from(&mut oldest, *low);
                until(&mut newest, *high);
            }
            _ => {}
        }
    }
    (oldest.map(Timestamp), newest.map(Timestamp))
}

/// One stretch, read ahead.
struct Stretch {
    shard: ShardId,
    rest: Option<KeyRange>,
    ahead: VecDeque<(Position, Option<Visibility>)>,
}

/// All stretches as one, newest first, each run once.
struct Merge<'a> {
    index: Index<'a>,
    namespace: Namespace,
    scan_rows: usize,
    stretches: Vec<Stretch>,
    /// The first of each stretch that is not exhausted.
    heads: BinaryHeap<Reverse<(Position, usize)>>,
    /// The run given last.
    last: Option<Position>,
}

impl<'a> Merge<'a> {
    fn over(
        index: Index<'a>,
        namespace: &Namespace,
        filter: Option<&Filter>,
        behind: Option<Position>,
        rows: usize,
    ) -> Result<Self, StoreError> {
        let (oldest, newest) = window(filter);
        let from = behind.map(|(Reverse(started), run_id)| (started, run_id));
        let mut merge = Self {
            index,
            namespace: namespace.clone(),
            scan_rows: rows.clamp(16, SCAN_ROWS),
            stretches: Vec::new(),
            heads: BinaryHeap::new(),
            last: None,
        };
        let every = || (0..index.shards).map(ShardId);
        match filter.and_then(leaves) {
            None => {
                for shard in every() {
                    let range = KeyRange::visibility(shard, namespace);
                    merge.add(shard, range.started_between(oldest, newest, from));
                }
            }
            Some(leaves) => {
                for leaf in leaves {
                    match leaf {
                        Leaf::Run(run_id) => merge.add_run(run_id)?,
                        Leaf::Line(of) => {
                            let shards: Vec<ShardId> = match &of {
                                LineOf::Workflow(id) => {
                                    vec![ShardId::of(namespace, id, index.shards)]
                                }
                                _ => every().collect(),
                            };
                            for shard in shards {
                                let range = KeyRange::line(shard, namespace, &of);
                                merge.add(shard, range.started_between(oldest, newest, from));
                            }
                        }
                    }
                }
            }
        }
        for stretch in &mut merge.stretches {
            let goes_on = |position: &Position| behind.is_none_or(|behind| *position > behind);
            stretch.ahead.retain(|(position, _)| goes_on(position));
        }
        for number in 0..merge.stretches.len() {
            merge.raise(number)?;
        }
        Ok(merge)
    }

    fn add(&mut self, shard: ShardId, range: KeyRange) {
        self.stretches.push(Stretch {
            shard,
            rest: Some(range),
            ahead: VecDeque::new(),
        });
    }

    fn add_run(&mut self, run_id: RunId) -> Result<(), StoreError> {
        for shard in (0..self.index.shards).map(ShardId) {
            let key = Key::RunHead {
                shard,
                namespace: self.namespace.clone(),
                run_id,
            };
            let Some(bytes) = self.index.store.get(&key)? else {
                continue;
            };
            let head = RunHead::decode(bytes).map_err(|e| damaged(&key, &e))?;
            let position = (Reverse(Timestamp(head.started_at)), run_id);
            self.stretches.push(Stretch {
                shard,
                rest: None,
                ahead: [(position, None)].into(),
            });
        }
        Ok(())
    }

    /// Reads on in a stretch whose rows are used up, and puts its first one among the heads.
    fn raise(&mut self, number: usize) -> Result<(), StoreError> {
        let stretch = &mut self.stretches[number];
        if stretch.ahead.is_empty()
            && let Some(range) = stretch.rest.take()
            && !range.is_empty()
        {
            let page = self.index.store.scan(&range, self.scan_rows, false)?;
            if let Some((last, _)) = page.entries.last()
                && page.more
            {
                stretch.rest = Some(range.after(last));
            }
            for (key, value) in page.entries {
                let (started, run_id, row) = match &key {
                    Key::Visibility {
                        started, run_id, ..
                    } => {
                        let row = Visibility::decode(value).map_err(|e| damaged(&key, &e))?;
                        (*started, *run_id, Some(row))
                    }
                    Key::Line {
                        started, run_id, ..
                    } => (*started, *run_id, None),
                    _ => continue,
                };
                stretch.ahead.push_back(((Reverse(started), run_id), row));
            }
        }
        if let Some((position, _)) = stretch.ahead.front() {
            self.heads.push(Reverse((*position, number)));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Visibility>, StoreError> {
        while let Some(Reverse((position, number))) = self.heads.pop() {
            let stretch = &mut self.stretches[number];
            let shard = stretch.shard;
            let row = stretch.ahead.pop_front().and_then(|(_, row)| row);
            self.raise(number)?;
            if self.last == Some(position) {
                continue; // Another stretch gave this run.
            }
            self.last = Some(position);
            let row = match row {
                Some(row) => Some(row),
                None => self.row(shard, position)?,
            };
            // A run whose row is gone has left since its line was read.
            if row.is_some() {
                return Ok(row);
            }
        }
        Ok(None)
    }

    fn row(&self, shard: ShardId, position: Position) -> Result<Option<Visibility>, StoreError> {
        let (Reverse(started), run_id) = position;
        let key = Key::Visibility {
            shard,
            namespace: self.namespace.clone(),
            started,
            run_id,
        };
        let Some(bytes) = self.index.store.get(&key)? else {
            return Ok(None);
        };
        Ok(Some(
            Visibility::decode(bytes).map_err(|e| damaged(&key, &e))?,
        ))
    }
}

fn damaged(key: &Key, error: &dyn std::fmt::Display) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Corrupt,
        operation: "list",
        key: Some(key.to_string()),
        message: format!(
            "the value does not decode: {error}; restore the data folder from a backup"
        ),
    }
}

/// What binds a token to its namespace and query.
fn binding(namespace: &Namespace, text: &str) -> [u8; 8] {
    let parts = [namespace.as_str().as_bytes(), text.as_bytes()];
    let mut binding = [0u8; 8];
    binding.copy_from_slice(&digest("list", &parts)[..8]);
    binding
}

/// `version: u8 | binding: [8] | started: i64 | run id: [16]`, big endian.
fn token_of(last: Position, binding: [u8; 8]) -> Vec<u8> {
    let (Reverse(started), run_id) = last;
    let mut token = Vec::with_capacity(33);
    token.push(TOKEN_VERSION);
    token.extend_from_slice(&binding);
    token.extend_from_slice(&started.0.to_be_bytes());
    token.extend_from_slice(&run_id.0);
    token
}

fn read_token(token: &[u8], wanted: [u8; 8]) -> Result<Option<Position>, ListError> {
    if token.is_empty() {
        return Ok(None);
    }
    let fields = || {
        let (version, rest) = token.split_first()?;
        let (binding, rest) = rest.split_first_chunk::<8>()?;
        let (started, rest) = rest.split_first_chunk::<8>()?;
        let run_id = <[u8; 16]>::try_from(rest).ok()?;
        let started = Timestamp(i64::from_be_bytes(*started));
        (*version == TOKEN_VERSION && *binding == wanted)
            .then_some((Reverse(started), RunId(run_id)))
    };
    fields().map(Some).ok_or(ListError::Token)
}

#[cfg(test)]
mod tests;
