//! Why a draft is not a plan. Each reason says what is wrong, where, and what to do; the planner gets them for its next attempt.

use super::rules::Class;

/// Reasons that a text about them tells in full.
const TOLD_MAX: usize = 40;

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A parameter of the submission is there twice.
    #[error("the parameter `{field}` is given twice: give each field of `data` once")]
    RepeatedParameter {
        /// Its name.
        field: String,
    },
    /// There is more than one `task0`.
    #[error("`task0` is there more than once: put all constants into one")]
    RepeatedTaskZero,
    /// `task0` names a service.
    #[error(
        "`task0` names the service `{service}`: it holds constants and is not run, leave its service out"
    )]
    TaskZeroWithService {
        /// The service.
        service: String,
    },
    /// A constant is written as a reference.
    #[error(
        "the constant `{field}` of `task0` holds `{reference}`: constants are values, use the reference in the task that needs it"
    )]
    ReferenceInTaskZero {
        /// The constant.
        field: String,
        /// The reference.
        reference: String,
    },
    /// There is nothing to run.
    #[error(
        "the plan has no task that a service runs: add at least one, or answer with a task `final` and the reason as its `error`"
    )]
    Empty,
    /// An id is not one.
    #[error(
        "`{task}` is no task id: start with a letter, then letters, digits, `_` and `-`, at most {max} characters"
    )]
    BadTaskId {
        /// As it is written, shortened.
        task: String,
        /// The longest.
        max: usize,
    },
    /// Two tasks have one id.
    #[error(
        "two tasks have the id `{task}`: give each its own (upper and lower case are the same)"
    )]
    RepeatedTask {
        /// The second one.
        task: String,
    },
    /// A task without a service.
    #[error("`{task}` names no service: put the id of the service that runs it into `service`")]
    NoService {
        /// The task.
        task: String,
    },
    /// A service that is not registered.
    #[error(
        "`{task}` names the service `{service}`, which is not registered: use the id or the name of one that is"
    )]
    UnknownService {
        /// The task.
        task: String,
        /// What it names.
        service: String,
    },
    /// A name that several services have.
    #[error("`{task}` names the service `{service}`, and {} have that name: use one of their ids, {}", .ids.len(), .ids.join(", "))]
    AmbiguousService {
        /// The task.
        task: String,
        /// The name.
        service: String,
        /// The services of that name.
        ids: Vec<String>,
    },
    /// A service whose schema does not compile.
    #[error("the input schema of the service of `{task}` cannot be used: {text}")]
    BadSchema {
        /// The task.
        task: String,
        /// What the compiler says.
        text: String,
    },
    /// An input that the service does not take.
    #[error("`{task}` has the input `{input}`, which its service does not take; it takes {}", listed(.takes))]
    UnknownInput {
        /// The task.
        task: String,
        /// The input.
        input: String,
        /// What there is.
        takes: Vec<String>,
    },
    /// An input that the service needs.
    #[error("`{task}` lacks the input `{input}` ({expected}), which its service requires")]
    MissingInput {
        /// The task.
        task: String,
        /// The input.
        input: String,
        /// Its type.
        expected: String,
    },
    /// A reference to a task that is not in the plan.
    #[error(
        "input `{at}` of `{task}` refers to `{reference}`, and there is no such task: refer to one of the plan, or write `${reference}` for plain text"
    )]
    UnknownTask {
        /// The task.
        task: String,
        /// The place in its input.
        at: String,
        /// As it is written.
        reference: String,
    },
    /// A task that is to come after one that is not in the plan, or after itself.
    #[error(
        "`{task}` is to come after `{before}`, and there is no such other task: name one of the plan"
    )]
    UnknownBefore {
        /// The task.
        task: String,
        /// What it names.
        before: String,
    },
    /// A reference of a task to itself.
    #[error(
        "input `{at}` of `{task}` refers to its own output, `{reference}`: refer to a task that runs before it"
    )]
    SelfReference {
        /// The task.
        task: String,
        /// The place in its input.
        at: String,
        /// As it is written.
        reference: String,
    },
    /// A reference to a constant that is not there.
    #[error("input `{at}` of `{task}` refers to `{reference}`, and `task0` has no such constant; it has {}", listed(.has))]
    UnknownConstant {
        /// The task.
        task: String,
        /// The place in its input.
        at: String,
        /// As it is written.
        reference: String,
        /// What there is.
        has: Vec<String>,
    },
    /// A reference to something that the task does not return.
    #[error("input `{at}` of `{task}` refers to `{reference}`, which the service of `{source_task}` does not return; it returns {}", listed(.returns))]
    UnknownField {
        /// The task.
        task: String,
        /// The place in its input.
        at: String,
        /// As it is written.
        reference: String,
        /// The task that is referred to.
        source_task: String,
        /// What there is.
        returns: Vec<String>,
    },
    /// A reference whose value cannot be of the right type.
    #[error("input `{at}` of `{task}` must be {expected}, and `{reference}` is {found}")]
    TypeMismatch {
        /// The task.
        task: String,
        /// The place in its input.
        at: String,
        /// As it is written.
        reference: String,
        /// What the service takes.
        expected: String,
        /// What the reference gives.
        found: String,
    },
    /// A value that the schema refuses.
    #[error("input `{at}` of `{task}` is not what its service takes: {text}")]
    BadValue {
        /// The task.
        task: String,
        /// The place in its input.
        at: String,
        /// What the schema says.
        text: String,
    },
    /// Tasks that wait for each other.
    #[error("the tasks wait for each other in a cycle: {} -> {}; remove one of these references", .tasks.join(" -> "), .tasks.first().map_or("", String::as_str))]
    Cycle {
        /// Each refers to the next one, and the last to the first.
        tasks: Vec<String>,
    },
    /// A parameter of the submission that the plan ignores.
    #[error("the parameter `{field}` is not used by any task: use `{reference}` where it belongs")]
    UnusedParameter {
        /// Its name.
        field: String,
        /// How it is referred to.
        reference: String,
    },
    /// A rule of the project's that the plan breaks.
    #[error("the rule {rule:?} of {authority} is broken: {text}")]
    RuleBroken {
        /// What the rule is about.
        class: Class,
        /// As it was written.
        rule: String,
        /// Whose rule it is.
        authority: String,
        /// The tasks of a smallest counterexample.
        tasks: Vec<String>,
        /// What of the plan breaks it.
        text: String,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

/// All reasons in one text, one on each line.
pub fn describe(reasons: &[Reason]) -> String {
    let mut lines: Vec<_> = reasons
        .iter()
        .take(TOLD_MAX)
        .map(Reason::to_string)
        .collect();
    if reasons.len() > TOLD_MAX {
        lines.push(format!("and {} more", reasons.len() - TOLD_MAX));
    }
    lines.join("\n")
}
