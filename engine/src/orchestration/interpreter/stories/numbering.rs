//! Timers of runs whose rules number them.

use serde_json::json;

use crate::orchestration::Submission;
use crate::orchestration::interpreter::world::{World, done, plan, submission, task};
use crate::orchestration::submission::Rules;
use orchestrion_proto::temporal::api::enums::v1::TimeoutType;

#[test]
fn timers_have_numbers_from_one() {
    let tasks = [task("task1", &[]), task("task2", &[])];
    let mut world = World::start(&Submission {
        rules: Rules::NEWEST,
        ..submission(Some(plan(&tasks)))
    });
    world.turn();
    world.timed_out("task2", TimeoutType::StartToClose).turn();
    world.timed_out("task1", TimeoutType::StartToClose).turn();
    world.late_result("task2", done(2)).turn();
    world
        .completed("revert:task2", json!({"status": "completed"}))
        .turn();
    world.fired("2").turn();
    world.reads(
        r#"
        "#,
    );
}
