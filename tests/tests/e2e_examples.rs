//! The Python examples: each is run as its first lines say, with the commands that stand there, on the published `orra-sdk`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

use orchestrion_tests::cli::{Cli, Said};
use orchestrion_tests::engine::{Engine, free_ports, read};
use orchestrion_tests::example::{Example, folder};
use orchestrion_tests::project::Project;
use serde_json::{Value, json};

/// What `verify run --follow` ends with.
const COMPLETED: i32 = 0;
const ABORTED: i32 = 5;

/// An engine, and a person with a project on it.
struct Place {
    engine: Engine,
    cli: Cli,
    project: Project,
}

impl Place {
    async fn new() -> Self {
        let engine = Engine::start().await;
        let cli = Cli::with_project(&engine).await;
        let project = cli.project(&engine);
        Self {
            engine,
            cli,
            project,
        }
    }

    /// Runs the commands of an example's first lines, with `<id>` as the orchestration before; how each ended.
    async fn follow(&self, example: &Example) -> Vec<Said> {
        let (mut ended, mut id) = (Vec::new(), String::new());
        for command in example.commands() {
            let said = self.cli.shell(&command.replace("<id>", &id)).await;
            if let Some(created) = said.out.split_whitespace().find(|w| w.starts_with("o_")) {
                created.clone_into(&mut id);
            }
            ended.push(said);
        }
        ended
    }
}

fn codes(said: &[Said]) -> Vec<i32> {
    said.iter().map(|said| said.code).collect()
}

fn shows(said: &Said, words: &[&str]) {
    for word in words {
        assert!(said.out.contains(word), "no {word:?} in {said:#?}");
    }
}

/// An example is either run below, or not there.
#[test]
fn no_example_is_left_out() {
    let there: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".py").map(str::to_owned))
        .collect();
    let here = include_str!("e2e_examples.rs");
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    for name in &there {
        assert!(
            here.contains(&format!("&place.project, \"{name}\"")),
            "{name}.py is run by no test"
        );
        assert!(
            readme.contains(&format!("{name}.py")),
            "the README of the examples does not name {name}.py"
        );
    }
    assert!(there.len() >= 8, "{there:?}");
}

#[tokio::test]
async fn a_service_counts_words() {
    let place = Place::new().await;
    let example = Example::start(&place.project, "service", &["word-counter"]).await;
    let said = place.follow(&example).await;
    assert_eq!(codes(&said), [COMPLETED], "{said:#?}");
    shows(&said[0], &["word-counter", r#""words": 6"#]);
}

#[tokio::test]
async fn an_agent_sorts_messages() {
    let place = Place::new().await;
    let example = Example::start(&place.project, "agent", &["triage-agent"]).await;
    let listed = place.project.get("/services").await;
    assert_eq!(listed[0]["kind"], "agent", "{listed}");
    let said = place.follow(&example).await;
    assert_eq!(codes(&said), [COMPLETED], "{said:#?}");
    shows(&said[0], &[r#""desk": "billing""#, r#""urgent": true"#]);
}

#[tokio::test]
async fn a_long_task_says_how_far_it_is() {
    let place = Place::new().await;
    let example = Example::start(&place.project, "progress", &["thumbnails"]).await;
    let said = place.follow(&example).await;
    assert_eq!(codes(&said), [COMPLETED, COMPLETED], "{said:#?}");
    shows(&said[0], &[r#""made": 4"#]);
    shows(
        &said[1],
        &["holidays-1.jpg", "holidays-2.jpg", "holidays-4.jpg"],
    );
}

#[tokio::test]
async fn an_abort_ends_it_and_says_why() {
    let place = Place::new().await;
    let example = Example::start(&place.project, "abort", &["tables"]).await;
    let said = place.follow(&example).await;
    assert_eq!(codes(&said), [COMPLETED, ABORTED], "{said:#?}");
    shows(&said[0], &["T20-4"]);
    shows(
        &said[1],
        &["no table is large enough", r#""otherHours":[18]"#],
    );
}

#[tokio::test]
async fn what_was_done_is_undone_with_its_reason() {
    let place = Place::new().await;
    let example = Example::start(&place.project, "revert", &["hall", "box-office"]).await;
    let said = place.follow(&example).await;
    assert_eq!(codes(&said), [ABORTED, COMPLETED], "{said:#?}");
    shows(&said[1], &["the card was declined", "hall"]);
    let printed = example.said();
    assert!(
        printed.contains(
            "released: Hamlet-2, because it was aborted: {'reason': 'the card was declined'}"
        ),
        "{printed}"
    );

    let premiere = example.commands()[0].replace("Hamlet", "Premiere");
    assert_eq!(place.cli.shell(&premiere).await.code, ABORTED);
    let listed = place.cli.ok(&["ps", "--json"]).await.json();
    let id = listed["aborted"][0]["id"].as_str().unwrap();
    let inspected = place.cli.ok(&["inspect", id, "--json"]).await.json();
    assert!(
        inspected.to_string().contains("printed programmes"),
        "what is left to do stands in the record: {inspected:#}"
    );
}

#[tokio::test]
async fn a_restarted_process_is_the_same_service() {
    let place = Place::new().await;
    let mut example = Example::start(&place.project, "persistence", &["dictionary"]).await;
    example.kill().await;
    example.restart().await;
    let printed = example.said();
    let ids: Vec<&str> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("dictionary is ")?.split(',').next())
        .collect();
    assert_eq!(ids.len(), 2, "{printed}");
    assert_eq!(ids[0], ids[1], "{printed}");
    let said = place.follow(&example).await;
    assert_eq!(codes(&said), [COMPLETED], "{said:#?}");
    shows(&said[0], &["a machine that plays"]);
}

#[tokio::test]
async fn a_fastapi_application_is_a_service_too() {
    let place = Place::new().await;
    let port = free_ports().0.to_string();
    let env = [("PORT", port.as_str())];
    let services = ["shipping-quotes"];
    let example = Example::start_with(&place.project, "fastapi_service", &services, &env).await;
    let said = place.follow(&example).await;
    assert_eq!(codes(&said), [COMPLETED], "{said:#?}");
    shows(&said[0], &[r#""price": 6.75"#]);
    let unknown = example.commands()[0].replace("country:FR", "country:XX");
    let said = place.cli.shell(&unknown).await;
    assert_eq!(said.code, ABORTED, "{said:#?}");

    let ask = |country: &str| {
        let parcel = json!({"weightKg": 3, "country": country});
        let url = format!("http://127.0.0.1:{port}/quotes");
        read(place.engine.http.post(url).json(&parcel))
    };
    assert_eq!(
        ask("FR").await,
        (200, json!({"price": 6.75, "currency": "EUR"}))
    );
    assert_eq!(ask("XX").await.0, 404);
}

#[tokio::test]
async fn an_inventory_loses_nothing_and_reserves_nothing_twice() {
    let place = Place::new().await;
    let mut example = Example::start(&place.project, "inventory", &["inventory"]).await;
    let said = place.follow(&example).await;
    assert_eq!(codes(&said), [COMPLETED, ABORTED], "{said:#?}");
    shows(&said[0], &["R-A-1-lamp", r#""left": 8"#]);
    shows(&said[1], &["out of stock", r#""available":8"#]);

    // A process that is killed comes back with its ledger; the same order again reserves nothing again.
    example.kill().await;
    example.restart().await;
    let again = place.cli.shell(&example.commands()[0]).await;
    assert_eq!(again.code, COMPLETED);
    shows(&again, &[r#""left": 8"#]);

    // A later step that aborts puts it back on the shelf.
    let shop = Example::start(&place.project, "abort", &["tables"]).await;
    let services = place.project.get("/services").await;
    let id = |name: &str| {
        let mut all = services.as_array().unwrap().iter();
        let found = all.find(|service| service["name"] == name).unwrap();
        found["id"].as_str().unwrap().to_owned()
    };
    let plan = orchestrion_tests::plan::Plan::new()
        .task(
            "task1",
            &id("inventory"),
            json!({"orderId": "A-3", "productId": "desk", "quantity": 2}),
        )
        .task(
            "task2",
            &id("tables"),
            json!({"guests": 99, "hour": "$task1.left"}),
        );
    let action = orchestrion_tests::project::Action::planned(Value::from(plan));
    place.project.submit(&action).await.aborts().await;
    let printed = example.said();
    assert!(
        printed.contains("reserved R-A-3-desk, 0 left")
            && printed.contains("put back R-A-3-desk (aborted)"),
        "{printed}"
    );
    drop(shop);
}
