//! Which task comes after which: what a task refers to, directly or through others, has run before it.

use std::collections::{HashMap, VecDeque};

use crate::plan::Plan;

const WORD_BITS: usize = u64::BITS as usize;

/// The order that a plan's references make.
pub(super) struct Graph {
    /// The tasks that refer to each, in plan order.
    next: Vec<Vec<usize>>,
    /// For each task a bit for every one before it.
    before: Vec<Vec<u64>>,
}

impl Graph {
    pub(super) fn of(plan: &Plan) -> Self {
        let count = plan.tasks.len();
        let places: HashMap<&str, usize> = plan
            .tasks
            .iter()
            .enumerate()
            .map(|(at, task)| (task.id.as_str(), at))
            .collect();
        let mut next = vec![Vec::new(); count];
        let mut open = vec![0_usize; count];
        for (at, task) in plan.tasks.iter().enumerate() {
            for other in task
                .depends_on
                .iter()
                .filter_map(|id| places.get(id.as_str()))
            {
                next[*other].push(at);
                open[at] += 1;
            }
        }
        let mut before = vec![vec![0_u64; count.div_ceil(WORD_BITS)]; count];
        let mut ready: VecDeque<usize> = (0..count).filter(|&task| open[task] == 0).collect();
        while let Some(task) = ready.pop_front() {
            for &later in &next[task] {
                let (mine, theirs) = two(&mut before, task, later);
                for (word, more) in theirs.iter_mut().zip(mine.iter()) {
                    *word |= more;
                }
                theirs[task / WORD_BITS] |= 1 << (task % WORD_BITS);
                open[later] -= 1;
                if open[later] == 0 {
                    ready.push_back(later);
                }
            }
        }
        Self { next, before }
    }

    /// Whether the one has always completed when the other starts.
    pub(super) fn is_before(&self, one: usize, other: usize) -> bool {
        self.before[other][one / WORD_BITS] >> (one % WORD_BITS) & 1 == 1
    }

    /// A shortest way from a task to a later one of these, both ends included.
    pub(super) fn way(&self, from: usize, to: impl Fn(usize) -> bool) -> Option<Vec<usize>> {
        let mut came_from: Vec<Option<usize>> = vec![None; self.next.len()];
        let mut open = VecDeque::from([from]);
        while let Some(task) = open.pop_front() {
            for &later in &self.next[task] {
                if later == from || came_from[later].is_some() {
                    continue;
                }
                came_from[later] = Some(task);
                if to(later) {
                    let mut way = vec![later];
                    let mut at = later;
                    while let Some(earlier) = came_from[at] {
                        way.push(earlier);
                        at = earlier;
                    }
                    way.reverse();
                    return Some(way);
                }
                open.push_back(later);
            }
        }
        None
    }
}

/// Two different rows.
fn two(rows: &mut [Vec<u64>], one: usize, other: usize) -> (&[u64], &mut [u64]) {
    if one < other {
        let (left, right) = rows.split_at_mut(other);
        (&left[one], &mut right[0])
    } else {
        let (left, right) = rows.split_at_mut(one);
        (&right[0], &mut left[other])
    }
}
