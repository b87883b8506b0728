//! Plans: what a planner answers or a caller submits, and what of it is recorded in a run's history.
//!
//! ```text
//!  draft (JSON from a model or a caller) --parse--> Draft --validate(services, data)--> Plan | Vec<Reason>
//!  Plan --rules::check(ruling)--> nothing | Vec<Reason>
//!  Plan --resolve(outputs so far)--> the input of a task that became ready
//! ```
//!
//! Invariant: nothing here reads a clock, a disk or a network; the same draft gives the same verdict.

pub mod draft;
mod reason;
pub mod reference;
pub mod rules;
pub mod schema;
mod validate;

use self::schema::InputSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::reason::{Reason, describe};
pub use self::validate::{TASK_ID_CHARS_MAX, validate};

/// The plan, if nothing is wrong with the draft and it keeps the rules, where there are any.
pub fn validate_under(
    draft: &draft::Draft,
    services: &[Service],
    data: &[Parameter],
    ruling: Option<&rules::Ruling>,
) -> Result<Plan, Vec<Reason>> {
    let plan = validate(draft, services, data)?;
    let broken = ruling.map_or_else(Vec::new, |ruling| rules::check(&plan, data, ruling));
    if broken.is_empty() {
        Ok(plan)
    } else {
        Err(broken)
    }
}

/// A registered service or agent, as planning and validation see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// `s_` and 28 lower-case letters.
    pub id: String,
    /// Not unique within a project.
    pub name: String,
    /// Shown to the planner.
    pub description: String,
    /// JSON Schema of a task's input; type object.
    pub input_schema: InputSchema,
    /// JSON Schema of a task's output; type object.
    pub output_schema: Value,
    /// Whether its tasks can be undone.
    pub revertible: bool,
}

/// One named value a caller sent with an action (`data` on the wire).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// The name.
    pub field: String,
    /// Any JSON.
    pub value: Value,
}

/// A validated plan, as it is recorded: everything the interpreter needs, nothing that can change later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The constants: `task0`'s input. `$task0.x` refers to them.
    pub task_zero: Map<String, Value>,
    /// The tasks that services run, in plan order, without task0.
    pub tasks: Vec<PlanTask>,
    /// Ids by dependency level, computed from the references: advisory, for people.
    pub parallel_groups: Vec<Vec<String>>,
}

/// One task of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanTask {
    /// Unique in the plan.
    pub id: String,
    /// The id of the service that runs it.
    pub service: String,
    /// Its name, and the activity type.
    pub service_name: String,
    /// Whether the service can undo it.
    pub revertible: bool,
    /// Literals and references (`$task1.order.lines[0].sku`, also inside strings, objects and arrays).
    pub input: Map<String, Value>,
    /// Ids of the tasks its references name, without task0, in plan order.
    pub depends_on: Vec<String>,
}
