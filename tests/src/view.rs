//! Reading an inspection: `GET /orchestrations/inspections/{id}`.

use serde_json::Value;

const STATUSES_AT_THE_END: [&str; 5] = [
    "completed",
    "failed",
    "aborted",
    "not_actionable",
    "cancelled",
];
const TASK_STATUSES_UNDER_WAY: [&str; 1] = ["processing"];
const COMPENSATIONS_AT_THE_END: [&str; 5] =
    ["completed", "partial", "failed", "expired", "unknown"];

/// One inspection.
#[derive(Debug, Clone)]
pub struct View(pub Value);

/// One task of it.
#[derive(Debug, Clone, Copy)]
pub struct TaskView<'a>(pub &'a Value);

impl View {
    /// Of the orchestration.
    pub fn status(&self) -> &str {
        self.0["status"]
            .as_str()
            .expect("an inspection has a status")
    }

    /// Whether the outcome is known; what was done may still be being undone.
    pub fn has_ended(&self) -> bool {
        STATUSES_AT_THE_END.contains(&self.status())
    }

    /// Whether no task runs and nothing is left to undo.
    pub fn is_settled(&self) -> bool {
        let undoing = self.status() == "failed" || self.status() == "aborted";
        self.tasks()
            .iter()
            .all(|task| !task.is_under_way() && (!undoing || task.is_undone()))
    }

    /// Its only result.
    pub fn result(&self) -> &Value {
        let results = self.0["results"]
            .as_array()
            .unwrap_or_else(|| panic!("no results: {self:#?}"));
        assert_eq!(results.len(), 1, "{self:#?}");
        &results[0]
    }

    /// Its error's text: of a task's failure, or of a failed planning.
    pub fn error(&self) -> &str {
        let error = &self.0["error"];
        error
            .as_str()
            .or_else(|| error["error"].as_str())
            .unwrap_or_else(|| panic!("no error: {self:#?}"))
    }

    /// Every task.
    pub fn tasks(&self) -> Vec<TaskView<'_>> {
        self.0["tasks"]
            .as_array()
            .map(|tasks| tasks.iter().map(TaskView).collect())
            .unwrap_or_default()
    }

    /// The task with this id.
    pub fn task(&self, id: &str) -> TaskView<'_> {
        self.find_task(id)
            .unwrap_or_else(|| panic!("no {id}: {self:#?}"))
    }

    /// The task with this id, if the plan is known.
    pub fn find_task(&self, id: &str) -> Option<TaskView<'_>> {
        self.tasks().into_iter().find(|task| task.0["id"] == id)
    }

    /// Whether the task has this status now.
    pub fn task_is(&self, id: &str, status: &str) -> bool {
        self.find_task(id)
            .is_some_and(|task| task.status() == status)
    }
}

impl<'a> TaskView<'a> {
    /// Of the task.
    pub fn status(&self) -> &'a str {
        self.0["status"].as_str().expect("a task has a status")
    }

    /// What it answered.
    pub fn output(&self) -> &'a Value {
        &self.0["output"]
    }

    /// Its statuses so far, one per event.
    pub fn history(&self) -> Vec<&'a str> {
        let events = self.0["statusHistory"].as_array();
        events
            .map(|events| {
                events
                    .iter()
                    .filter_map(|event| event["status"].as_str())
                    .collect()
            })
            .unwrap_or_default()
    }

    /// How often its history shows this status.
    pub fn times(&self, status: &str) -> usize {
        self.history()
            .iter()
            .filter(|seen| **seen == status)
            .count()
    }

    /// The updates it pushed, in order.
    pub fn updates(&self) -> Vec<&'a Value> {
        let updates = self.0["interimResults"].as_array();
        updates
            .map(|updates| updates.iter().map(|update| &update["data"]).collect())
            .unwrap_or_default()
    }

    /// How far its being undone has come, if it is.
    pub fn compensation(&self) -> Option<&'a str> {
        self.0["compensation"]["status"].as_str()
    }

    fn is_under_way(&self) -> bool {
        TASK_STATUSES_UNDER_WAY.contains(&self.status())
    }

    fn is_undone(&self) -> bool {
        let to_undo = self.0["isRevertible"] == true && self.status() == "completed";
        !to_undo
            || self
                .compensation()
                .is_some_and(|status| COMPENSATIONS_AT_THE_END.contains(&status))
    }
}
