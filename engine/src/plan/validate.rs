//! From a draft to a plan, or to every reason why it is none.
//!
//! * Values of the caller always win: a parameter is a constant of its name, whatever the draft has there, and it is never changed.
//!   A caller's text that reads as a number or a boolean may stand where one is asked for (command lines send nothing but text), and
//!   is sent as the text it is.
//! * A reference is refused when no value could ever be right: the schemas of both sides must say so. What a schema leaves open is not
//!   refused, but members it does not name are unknown, unless it says `additionalProperties`.
//! * Literals are checked in full against the schema, and so are constants where they are used.
//!
//! Invariant: the same draft, services and data give the same verdict, with the reasons in the plan's order.

mod sample;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use self::sample::{Sample, Scope, path_of};
use super::draft::{Draft, DraftTask, TaskZeroFault};
use super::reason::Reason;
use super::reference::{
    Located, Reference, Segment, TASK_ZERO, display_path, is_task_zero, references, value_in,
};
use super::schema::{AnyOf, Checker, Place, Schema, TypeSet};
use super::{Parameter, Plan, PlanTask, Service};

/// Characters of a task's id.
pub const TASK_ID_CHARS_MAX: usize = 64;
/// Objections to the values of one task that are told.
const FAULTS_TOLD_MAX: usize = 20;
/// Names that a reason lists.
const LISTED_MAX: usize = 20;

/// The plan, if nothing is wrong with the draft.
pub fn validate(
    draft: &Draft,
    services: &[Service],
    data: &[Parameter],
) -> Result<Plan, Vec<Reason>> {
    let mut reasons = Vec::new();
    let task_zero = constants(draft, data, &mut reasons);
    for fault in &draft.task_zero_faults {
        reasons.push(match fault {
            TaskZeroFault::Repeated => Reason::RepeatedTaskZero,
            TaskZeroFault::HasService(service) => Reason::TaskZeroWithService {
                service: service.clone(),
            },
        });
    }
    if draft.tasks.is_empty() {
        reasons.push(Reason::Empty);
    }
    let mut check = Check::new(draft, services, data, &task_zero, reasons);
    let tasks: Vec<_> = (0..draft.tasks.len())
        .filter_map(|index| check.task(index))
        .collect();
    check.unused(data);
    let Check {
        mut reasons,
        waits_for,
        ..
    } = check;
    let unused = reasons
        .iter()
        .position(|reason| matches!(reason, Reason::UnusedParameter { .. }));
    let cycles = cycles(&draft.tasks, &waits_for);
    let at = unused.unwrap_or(reasons.len());
    reasons.splice(at..at, cycles);
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let parallel_groups = levels(&draft.tasks, &waits_for);
    Ok(Plan {
        task_zero,
        tasks,
        parallel_groups,
    })
}

/// The constants of the draft, with the caller's values in place.
fn constants(draft: &Draft, data: &[Parameter], reasons: &mut Vec<Reason>) -> Map<String, Value> {
    let mut task_zero = draft.task_zero.clone();
    let mut given = HashSet::new();
    for parameter in data {
        if !given.insert(parameter.field.as_str()) {
            reasons.push(Reason::RepeatedParameter {
                field: parameter.field.clone(),
            });
            continue;
        }
        task_zero.insert(parameter.field.clone(), parameter.value.clone());
    }
    for (field, value) in task_zero
        .iter()
        .filter(|(field, _)| !given.contains(field.as_str()))
    {
        let mut constant = Map::new();
        constant.insert(field.clone(), value.clone());
        if let Some(found) = references(&constant, &is_task_zero).into_iter().next() {
            reasons.push(Reason::ReferenceInTaskZero {
                field: field.clone(),
                reference: found.reference.to_string(),
            });
        }
    }
    task_zero
}

struct Check<'a> {
    draft: &'a Draft,
    /// The service of each task, if it is known.
    services: Vec<Result<&'a Service, Reason>>,
    /// The first task of each id, in lower case.
    by_id: HashMap<String, usize>,
    task_zero: &'a Map<String, Value>,
    parameters: HashSet<&'a str>,
    used: HashSet<String>,
    /// For each task the ones it refers to, in plan order.
    waits_for: Vec<Vec<usize>>,
    reasons: Vec<Reason>,
}

impl<'a> Check<'a> {
    fn new(
        draft: &'a Draft,
        services: &'a [Service],
        data: &'a [Parameter],
        task_zero: &'a Map<String, Value>,
        reasons: Vec<Reason>,
    ) -> Self {
        let directory = Directory::new(services);
        let mut by_id = HashMap::new();
        for (index, task) in draft.tasks.iter().enumerate() {
            by_id.entry(task.id.to_ascii_lowercase()).or_insert(index);
        }
        Self {
            services: draft
                .tasks
                .iter()
                .map(|task| directory.service_of(task, draft.services_by_name))
                .collect(),
            draft,
            by_id,
            task_zero,
            parameters: data
                .iter()
                .map(|parameter| parameter.field.as_str())
                .collect(),
            used: HashSet::new(),
            waits_for: vec![Vec::new(); draft.tasks.len()],
            reasons,
        }
    }

    fn is_task(&self, id: &str) -> bool {
        self.position(id).is_some() || is_task_zero(id)
    }

    /// The task of exactly this id.
    fn position(&self, id: &str) -> Option<usize> {
        let index = *self.by_id.get(&id.to_ascii_lowercase())?;
        (self.draft.tasks[index].id == id).then_some(index)
    }

    /// Checks one task; there is one in the plan unless its service is not known.
    fn task(&mut self, index: usize) -> Option<PlanTask> {
        let draft = self.draft;
        let task = &draft.tasks[index];
        self.id(index);
        let service = match &self.services[index] {
            Ok(service) => Some(*service),
            Err(reason) => {
                self.reasons.push(reason.clone());
                None
            }
        };
        let found = references(&task.input, &|id| self.is_task(id));
        self.waits_for[index] = self.dependencies(index, &found);
        self.after(index);
        let mut found = found.iter().peekable();
        for name in task.input.keys() {
            let taken = service.is_none_or(|service| self.input_name(task, name, service));
            let of_input = |found: &&Located| matches!(found.at.first(), Some(Segment::Field(first)) if first == name);
            while let Some(located) = found.next_if(of_input) {
                self.reference(index, located, service.filter(|_| taken));
            }
        }
        let service = service?;
        self.missing(task, service);
        self.values(task, service);
        Some(PlanTask {
            id: task.id.clone(),
            service: service.id.clone(),
            service_name: service.name.clone(),
            revertible: service.revertible,
            input: task.input.clone(),
            depends_on: self.waits_for[index]
                .iter()
                .map(|&other| draft.tasks[other].id.clone())
                .collect(),
        })
    }

    fn id(&mut self, index: usize) {
        let id = &self.draft.tasks[index].id;
        let good = id.starts_with(|first: char| first.is_ascii_alphabetic())
            && id.len() <= TASK_ID_CHARS_MAX
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if !good {
            let task = id.chars().take(TASK_ID_CHARS_MAX).collect();
            self.reasons.push(Reason::BadTaskId {
                task,
                max: TASK_ID_CHARS_MAX,
            });
        } else if self.by_id.get(&id.to_ascii_lowercase()) != Some(&index) {
            self.reasons.push(Reason::RepeatedTask { task: id.clone() });
        }
    }

    /// Every task that a caller names as one that comes before must be another one of the plan.
    fn after(&mut self, index: usize) {
        let task = &self.draft.tasks[index];
        for before in &task.after {
            if self.position(before).is_none_or(|other| other == index) {
                self.reasons.push(Reason::UnknownBefore {
                    task: task.id.clone(),
                    before: before.clone(),
                });
            }
        }
    }

    fn dependencies(&self, index: usize, found: &[Located]) -> Vec<usize> {
        let named = self.draft.tasks[index].after.iter();
        let mut others: Vec<_> = found
            .iter()
            .map(|found| &found.reference.task)
            .chain(named)
            .filter_map(|other| self.position(other))
            .filter(|&other| other != index)
            .collect();
        others.sort_unstable();
        others.dedup();
        others
    }

    /// Whether the service takes an input of this name.
    fn input_name(&mut self, task: &DraftTask, name: &str, service: &Service) -> bool {
        let schema = Schema::root(&service.input_schema);
        if schema.at(&[Segment::Field(name.to_owned())]) != Place::Closed {
            return true;
        }
        self.reasons.push(Reason::UnknownInput {
            task: task.id.clone(),
            input: name.to_owned(),
            takes: property_names(schema),
        });
        false
    }

    /// Checks one reference; `service` is the one that takes it, if that is known and has such an input.
    fn reference(&mut self, index: usize, located: &Located, service: Option<&'a Service>) {
        let (task, at) = (
            self.draft.tasks[index].id.clone(),
            display_path(&located.at, false),
        );
        let reference = located.reference.to_string();
        if is_task_zero(&located.reference.task) {
            match value_in(self.task_zero, &located.reference.path) {
                Some(_) => {
                    if let Some(Segment::Field(field)) = located.reference.path.first() {
                        self.used.insert(field.clone());
                    }
                }
                None => {
                    let has = self.task_zero.keys().take(LISTED_MAX).cloned().collect();
                    self.reasons.push(Reason::UnknownConstant {
                        task,
                        at,
                        reference,
                        has,
                    });
                }
            }
            return;
        }
        let Some(other) = self.position(&located.reference.task) else {
            self.reasons.push(Reason::UnknownTask {
                task,
                at,
                reference,
            });
            return;
        };
        if other == index {
            self.reasons.push(Reason::SelfReference {
                task,
                at,
                reference,
            });
            return;
        }
        let Ok(source) = self.services[other] else {
            return;
        };
        let output = Schema::root(&source.output_schema);
        let given = match output.at(&located.reference.path) {
            Place::Known(schemas) => AnyOf {
                root: &source.output_schema,
                schemas,
            },
            Place::Open => return,
            Place::Closed => {
                let source_task = located.reference.task.clone();
                let returns = property_names(output);
                self.reasons.push(Reason::UnknownField {
                    task,
                    at,
                    reference,
                    source_task,
                    returns,
                });
                return;
            }
        };
        let Some(service) = service else { return };
        let Place::Known(schemas) = Schema::root(&service.input_schema).at(&located.at) else {
            return;
        };
        let wanted = AnyOf {
            root: &service.input_schema,
            schemas,
        };
        let text = json!({"type": "string"});
        let text = AnyOf {
            root: &text,
            schemas: vec![&text],
        };
        if !(if located.whole {
            given.overlaps(&wanted)
        } else {
            text.overlaps(&wanted)
        }) {
            let found = if located.whole {
                given.describe()
            } else {
                "part of a text".to_owned()
            };
            let expected = wanted.describe();
            self.reasons.push(Reason::TypeMismatch {
                task,
                at,
                reference,
                expected,
                found,
            });
        }
    }

    fn missing(&mut self, task: &DraftTask, service: &Service) {
        let schema = Schema::root(&service.input_schema);
        for name in schema.required() {
            if task.input.contains_key(name) {
                continue;
            }
            let expected = match schema.at(&[Segment::Field(name.to_owned())]) {
                Place::Known(schemas) => AnyOf {
                    root: &service.input_schema,
                    schemas,
                }
                .describe(),
                Place::Open | Place::Closed => TypeSet::ALL.to_string(),
            };
            self.reasons.push(Reason::MissingInput {
                task: task.id.clone(),
                input: name.to_owned(),
                expected,
            });
        }
    }

    /// Checks literals and constants against the schema; what other tasks return is not known yet.
    fn values(&mut self, task: &DraftTask, service: &'a Service) {
        let reasons = match service.input_schema.checker() {
            Ok(checker) => self.bad_values(task, service, checker),
            Err(error) => vec![Reason::BadSchema {
                task: task.id.clone(),
                text: error.to_string(),
            }],
        };
        self.reasons.extend(reasons);
    }

    fn bad_values(&self, task: &DraftTask, service: &Service, checker: &Checker) -> Vec<Reason> {
        let is_task = |id: &str| self.is_task(id);
        let scope = Scope {
            task_zero: self.task_zero,
            parameters: &self.parameters,
            is_task: &is_task,
        };
        let schema = Schema::root(&service.input_schema);
        let mut reasons = Vec::new();
        for fault in Sample::new(&task.input, &scope).faults(checker) {
            let at = path_of(&fault.at);
            // An input that the service does not have is told already.
            let is_unnamed = at
                .first()
                .is_some_and(|name| schema.at(std::slice::from_ref(name)) == Place::Closed);
            if !is_unnamed && reasons.len() < FAULTS_TOLD_MAX {
                let at = display_path(&at, false);
                reasons.push(Reason::BadValue {
                    task: task.id.clone(),
                    at,
                    text: fault.text,
                });
            }
        }
        reasons
    }

    fn unused(&mut self, data: &[Parameter]) {
        let mut told = HashSet::new();
        for parameter in data {
            if !self.used.contains(&parameter.field) && told.insert(&parameter.field) {
                let path = vec![Segment::Field(parameter.field.clone())];
                let reference = Reference {
                    task: TASK_ZERO.to_owned(),
                    path,
                }
                .to_string();
                self.reasons.push(Reason::UnusedParameter {
                    field: parameter.field.clone(),
                    reference,
                });
            }
        }
    }
}

fn property_names(schema: Schema<'_>) -> Vec<String> {
    schema
        .properties()
        .into_iter()
        .take(LISTED_MAX)
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The services by what tasks may call them.
struct Directory<'a> {
    by_id: HashMap<String, &'a Service>,
    by_name: HashMap<&'a str, Vec<&'a Service>>,
}

impl<'a> Directory<'a> {
    fn new(services: &'a [Service]) -> Self {
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        for service in services {
            by_name
                .entry(service.name.as_str())
                .or_default()
                .push(service);
        }
        let by_id = services
            .iter()
            .map(|service| (service.id.to_ascii_lowercase(), service))
            .collect();
        Self { by_id, by_name }
    }

    fn service_of(&self, task: &DraftTask, by_name: bool) -> Result<&'a Service, Reason> {
        let (task, Some(service)) = (task.id.clone(), task.service.clone()) else {
            return Err(Reason::NoService {
                task: task.id.clone(),
            });
        };
        if let Some(found) = self.by_id.get(&service.to_ascii_lowercase()) {
            return Ok(found);
        }
        match self
            .by_name
            .get(service.as_str())
            .filter(|_| by_name)
            .map(Vec::as_slice)
        {
            Some([only]) => Ok(only),
            Some(several) => {
                let mut ids: Vec<_> = several.iter().map(|service| service.id.clone()).collect();
                ids.sort_unstable();
                Err(Reason::AmbiguousService { task, service, ids })
            }
            None => Err(Reason::UnknownService { task, service }),
        }
    }
}

/// The level of each task: one more than the highest of those it waits for. `None` for those in or behind a cycle.
fn level_of(waits_for: &[Vec<usize>]) -> Vec<Option<usize>> {
    let mut open: Vec<_> = waits_for.iter().map(Vec::len).collect();
    let mut waiters = vec![Vec::new(); waits_for.len()];
    for (task, others) in waits_for.iter().enumerate() {
        for &other in others {
            waiters[other].push(task);
        }
    }
    let mut level = vec![None; waits_for.len()];
    let mut ready: Vec<_> = (0..waits_for.len())
        .filter(|&task| open[task] == 0)
        .collect();
    let mut depth = 0;
    while !ready.is_empty() {
        let mut next = Vec::new();
        for task in ready {
            level[task] = Some(depth);
            for &waiter in &waiters[task] {
                open[waiter] -= 1;
                if open[waiter] == 0 {
                    next.push(waiter);
                }
            }
        }
        ready = next;
        depth += 1;
    }
    level
}

fn levels(tasks: &[DraftTask], waits_for: &[Vec<usize>]) -> Vec<Vec<String>> {
    let mut groups: Vec<Vec<String>> = Vec::new();
    for (task, level) in level_of(waits_for).into_iter().enumerate() {
        let Some(level) = level else { continue };
        if groups.len() <= level {
            groups.resize(level + 1, Vec::new());
        }
        groups[level].push(tasks[task].id.clone());
    }
    groups
}

/// Every set of tasks that wait for each other, by one cycle of it; tasks that merely wait for one are in none.
fn cycles(tasks: &[DraftTask], waits_for: &[Vec<usize>]) -> Vec<Reason> {
    let level = level_of(waits_for);
    let mut seen = vec![false; tasks.len()];
    let mut told = vec![false; tasks.len()];
    let mut found = Vec::new();
    for start in (0..tasks.len()).filter(|&task| level[task].is_none()) {
        if seen[start] {
            continue;
        }
        // The way from `start` on, each task with the place in its list of what comes after.
        let mut path = vec![(start, 0)];
        while let Some((task, next)) = path.last_mut() {
            seen[*task] = true;
            let Some(&other) = waits_for[*task].get(*next) else {
                path.pop();
                continue;
            };
            *next += 1;
            if let Some(first) = path.iter().position(|(on_path, _)| *on_path == other) {
                let mut cycle: Vec<_> = path[first..].iter().map(|(task, _)| *task).collect();
                if cycle.iter().any(|&task| told[task]) {
                    continue;
                }
                cycle.iter().for_each(|&task| told[task] = true);
                let earliest = cycle
                    .iter()
                    .enumerate()
                    .min_by_key(|(_, task)| **task)
                    .map_or(0, |(at, _)| at);
                cycle.rotate_left(earliest);
                found.push(Reason::Cycle {
                    tasks: cycle
                        .into_iter()
                        .map(|task| tasks[task].id.clone())
                        .collect(),
                });
            } else if !seen[other] && level[other].is_none() {
                path.push((other, 0));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
