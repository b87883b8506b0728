//! What is found and what is not, over a real engine on the memory store.

use orchestrion_history::store::MemoryStore;
use serde_json::{Value, json};

use super::*;
use crate::embedding::lexical;
use crate::engine::{Engine, EngineOptions, NoSurroundings};
use crate::plan::draft::{Parsed, parse_submission};
use crate::plan::{Parameter, Plan, Service, validate};
use crate::seams::{ManualClock, SeededChance, SystemChance};

struct Stage {
    store: Arc<MemoryStore>,
    engine: Engine,
    clock: Arc<ManualClock>,
    cache: PlanCache,
}

fn namespace() -> Namespace {
    Namespace::parse("p_1").unwrap()
}

fn stage(settings: CacheSettings) -> Stage {
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(ManualClock::at(orchestrion_history::ids::Timestamp(1_000)));
    let engine = Engine::start(
        store.clone(),
        clock.clone(),
        Box::new(SystemChance),
        Box::new(NoSurroundings),
        EngineOptions::default(),
    )
    .unwrap();
    let cache = load(&store, &engine, &clock, settings);
    Stage {
        store,
        engine,
        clock,
        cache,
    }
}

fn load(
    store: &MemoryStore,
    engine: &Engine,
    clock: &Arc<ManualClock>,
    settings: CacheSettings,
) -> PlanCache {
    let chance: Arc<dyn Chance> = Arc::new(SeededChance::new(7));
    let acts = Acts::new(clock.clone(), chance.clone());
    PlanCache::load(
        store,
        [namespace()],
        settings,
        engine.handle(),
        (clock.clone(), chance),
        acts,
    )
    .unwrap()
}

fn services() -> Vec<Service> {
    let schema =
        json!({"type": "object", "properties": {"m": {"type": "string"}, "n": {"type": "string"}}});
    vec![Service {
        id: "s_echo".into(),
        name: "echo".into(),
        description: "Echoes".into(),
        input_schema: schema.clone().into(),
        output_schema: schema,
        revertible: false,
    }]
}

fn data(values: &[(&str, Value)]) -> Vec<Parameter> {
    let parameter = |(field, value): &(&str, Value)| Parameter {
        field: (*field).to_owned(),
        value: value.clone(),
    };
    values.iter().map(parameter).collect()
}

fn plan(constants: Value, input: Value, data: &[Parameter]) -> Plan {
    let draft = json!([{"id": "task0", "input": constants}, {"id": "task1", "service": "s_echo", "input": input}]);
    let Parsed::Draft(draft) = parse_submission(&draft).unwrap() else {
        panic!("a draft")
    };
    validate(&draft, &services(), data).unwrap()
}

fn key(action: &str, data: &[Parameter]) -> Key {
    Key::new(
        lexical::vector(action),
        action,
        data,
        &services(),
        String::new(),
    )
}

fn cost() -> Cost {
    Cost {
        model: "m".into(),
        prompt_tokens: 100,
        completion_tokens: 20,
        tries: 1,
        ..Cost::default()
    }
}

impl Stage {
    async fn keep(&self, action: &str, data: &[Parameter]) {
        let plan = plan(
            json!({}),
            json!({"m": format!("$task0.{}", data[0].field)}),
            data,
        );
        let template = Template::of(&plan, data).unwrap();
        self.cache
            .keep(&namespace(), action, key(action, data), template, cost())
            .await
            .unwrap();
    }

    fn finds(&self, action: &str, data: &[Parameter]) -> bool {
        self.cache.find(&namespace(), &key(action, data)).is_some()
    }
}

#[tokio::test]
async fn a_plan_serves_other_values_of_the_same_fields() {
    let stage = stage(CacheSettings::default());
    let alice = data(&[("name", json!("Alice"))]);
    stage.keep("Greet the customer", &alice).await;
    let bob = data(&[("name", json!("Bob"))]);
    let (entry, score) = stage
        .cache
        .find(&namespace(), &key("Please greet the customer", &bob))
        .unwrap();
    assert!(score > 0.99, "{score}");
    let plan = validate(&entry.template.draft(), &services(), &bob).unwrap();
    assert_eq!(Value::Object(plan.task_zero), json!({"name": "Bob"}));
    assert_eq!(
        Value::Object(plan.tasks[0].input.clone()),
        json!({"m": "$task0.name"})
    );
    let text = serde_json::to_string(&entry.template).unwrap();
    assert!(!text.contains("Alice"), "{text}");

    assert!(
        !stage.finds("Greet the customer", &data(&[("nick", json!("Bob"))])),
        "another field"
    );
    assert!(
        !stage.finds("Greet the customer", &data(&[("name", json!(5))])),
        "another kind"
    );
    assert!(
        !stage.finds("Do not greet the customer", &bob),
        "a negation"
    );
    assert!(!stage.finds("Greet 2 customers", &bob), "a number");
    assert!(!stage.finds("The customer: greet", &bob), "another order");
    let foreign = Namespace::parse("p_2").unwrap();
    assert!(
        stage
            .cache
            .find(&foreign, &key("Greet the customer", &bob))
            .is_none(),
        "another project"
    );
    stage.engine.stop();
}

#[tokio::test]
async fn a_change_of_services_or_groundings_finds_nothing_old() {
    let stage = stage(CacheSettings::default());
    let alice = data(&[("name", json!("Alice"))]);
    stage.keep("Greet the customer", &alice).await;
    let action = "Greet the customer";
    let changes: [fn(&mut Service); 4] = [
        |s| s.description = "Echoes loudly".into(),
        |s| s.input_schema["properties"]["x"] = json!({"type": "string"}),
        |s| s.revertible = true,
        |s| s.output_schema = json!({"type": "object"}),
    ];
    for change in changes {
        let mut services = services();
        change(&mut services[0]);
        let key = Key::new(
            lexical::vector(action),
            action,
            &alice,
            &services,
            String::new(),
        );
        assert!(stage.cache.find(&namespace(), &key).is_none());
    }
    let grounded = Key::new(
        lexical::vector(action),
        action,
        &alice,
        &services(),
        "d".into(),
    );
    assert!(stage.cache.find(&namespace(), &grounded).is_none());
    assert!(stage.finds(action, &alice));
    // What is kept next lets go what can never serve again.
    let template = stage.cache.list(&namespace())[0].template.clone();
    stage
        .cache
        .keep(&namespace(), action, grounded, template, cost())
        .await
        .unwrap();
    assert_eq!(stage.cache.list(&namespace()).len(), 1);
    stage.engine.stop();
}

#[test]
fn a_plan_that_holds_a_callers_value_is_no_template() {
    let of = |constants: Value, input: Value, values: &[(&str, Value)]| {
        let data = data(values);
        Template::of(&plan(constants, input, &data), &data).is_some()
    };
    let name = [("name", json!("Alice"))];
    assert!(of(
        json!({}),
        json!({"m": "$task0.name", "n": "hello"}),
        &name
    ));
    assert!(of(
        json!({"greeting": "hello"}),
        json!({"m": "$task0.name", "n": "$task0.greeting"}),
        &name
    ));
    assert!(!of(
        json!({}),
        json!({"m": "$task0.name", "n": "Alice"}),
        &name
    ));
    assert!(!of(
        json!({}),
        json!({"m": "$task0.name", "n": "Dear alice,"}),
        &name
    ));
    assert!(!of(
        json!({"copy": "Alice"}),
        json!({"m": "$task0.name", "n": "$task0.copy"}),
        &name
    ));
    // The field's name inside a reference is not its value.
    assert!(of(
        json!({}),
        json!({"m": "to $task0.name"}),
        &[("name", json!("name"))]
    ));
    let two = [("name", json!("Al")), ("copies", json!(2))];
    let input = |n: &str| json!({"m": "$task0.name $task0.copies", "n": n});
    assert!(of(json!({}), input("also all 20"), &two));
    assert!(!of(json!({}), input("copies: 2"), &two));
    let nested = [("order", json!({"lines": [{"sku": "LAMP-7"}]}))];
    assert!(!of(
        json!({}),
        json!({"m": "$task0.order.lines[0].sku", "n": "the LAMP-7"}),
        &nested
    ));
}

#[tokio::test]
async fn what_was_kept_survives_and_what_was_cleared_does_not_come_back() {
    let stage = stage(CacheSettings::default());
    let alice = data(&[("name", json!("Alice"))]);
    stage.keep("Greet the customer", &alice).await;
    stage.clock.advance(Duration::from_secs(1));
    stage.keep("Send the customer away", &alice).await;
    let again = load(
        &stage.store,
        &stage.engine,
        &stage.clock,
        CacheSettings::default(),
    );
    let (before, after) = (stage.cache.list(&namespace()), again.list(&namespace()));
    assert_eq!(after.len(), 2);
    for (a, b) in before.iter().zip(&after) {
        assert_eq!(
            (&a.id, &a.key, &a.template, &a.cost),
            (&b.id, &b.key, &b.template, &b.cost)
        );
    }
    assert_eq!(again.clear(&namespace(), &Actor::ENGINE).await.unwrap(), 2);
    assert!(again.list(&namespace()).is_empty());
    let third = load(
        &stage.store,
        &stage.engine,
        &stage.clock,
        CacheSettings::default(),
    );
    assert!(third.list(&namespace()).is_empty());
    stage.engine.stop();
}

#[tokio::test]
async fn size_age_threshold_and_off_are_obeyed() {
    let alice = data(&[("name", json!("Alice"))]);
    let small = stage(CacheSettings {
        size: 2,
        age: Duration::from_secs(60),
        ..CacheSettings::default()
    });
    for action in ["greet", "greet", "wave", "smile"] {
        small.keep(action, &alice).await;
        small.clock.advance(Duration::from_secs(1));
    }
    let actions: Vec<_> = small
        .cache
        .list(&namespace())
        .iter()
        .map(|e| e.action.clone())
        .collect();
    assert_eq!(
        actions,
        ["wave", "smile"],
        "the oldest left, a repeat took one place"
    );
    assert!(small.finds("smile", &alice));
    small.clock.advance(Duration::from_secs(60));
    assert!(!small.finds("smile", &alice));
    small.keep("nod", &alice).await;
    assert_eq!(
        small.cache.list(&namespace()).len(),
        1,
        "the old ones left with the next"
    );
    small.engine.stop();

    let off = stage(CacheSettings {
        off: true,
        ..CacheSettings::default()
    });
    off.keep("greet", &alice).await;
    assert!(off.cache.list(&namespace()).is_empty() && !off.finds("greet", &alice));
    off.engine.stop();
}
