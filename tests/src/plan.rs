//! A plan that a submission carries itself.

use serde_json::{Map, Value, json};

/// Tasks in the making.
#[derive(Debug, Clone)]
pub struct Plan {
    constants: Map<String, Value>,
    tasks: Vec<Value>,
}

impl Plan {
    /// No constants, no tasks.
    pub fn new() -> Self {
        Self {
            constants: Map::new(),
            tasks: Vec::new(),
        }
    }

    /// Adds a constant: `$task0.<name>`.
    #[must_use]
    pub fn constant(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.constants.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a task.
    #[must_use]
    pub fn task(mut self, id: &str, service_id: &str, input: Value) -> Self {
        self.tasks
            .push(json!({"id": id, "service": service_id, "input": input}));
        self
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Plan> for Value {
    fn from(plan: Plan) -> Self {
        let constants = json!({"id": "task0", "input": plan.constants});
        let tasks: Vec<Value> = std::iter::once(constants).chain(plan.tasks).collect();
        json!({"tasks": tasks})
    }
}
