//! Specs that are refused, and actions that are found.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::embedding::Embedder;
use crate::plan::{Parameter, Service};
use orchestrion_history::ids::Timestamp;

fn case(action: &str, params: &[(&str, &str)], capabilities: &[&str]) -> UseCase {
    UseCase {
        action: action.to_owned(),
        params: params
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
        capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
        intent: "as it says".to_owned(),
    }
}

fn spec() -> Spec {
    Spec {
        name: "refunds".to_owned(),
        domain: "e-commerce".to_owned(),
        version: "1.0".to_owned(),
        use_cases: vec![
            case(
                "Process a refund for order {orderId}",
                &[("orderId", "ORD123")],
                &["refund an order"],
            ),
            case(
                "Close the support ticket {ticket}",
                &[("ticket", "T-1"), ("orderId", "O")],
                &["close tickets"],
            ),
        ],
        constraints: vec!["be kind".to_owned(), "rule: check before refund".to_owned()],
    }
}

fn asked(action: &str) -> Asked<'_> {
    Asked { action, data: &[] }
}

fn grounding(spec: Spec) -> Arc<Grounding> {
    Arc::new(Grounding::new(spec, Timestamp::ZERO, 1).unwrap())
}

fn service(name: &str, description: &str) -> Service {
    Service {
        id: format!("s_{name}"),
        name: name.to_owned(),
        description: description.to_owned(),
        input_schema: json!({"type": "object", "properties": {"orderId": {"type": "string"}}})
            .into(),
        output_schema: json!({"type": "object"}),
        revertible: false,
    }
}

#[test]
fn what_is_wrong_with_a_spec_is_told_with_its_member() {
    let fault = |change: fn(&mut Spec)| {
        let mut spec = spec();
        change(&mut spec);
        let fault = Grounding::new(spec, Timestamp::ZERO, 1).unwrap_err();
        (fault.param, fault.message)
    };
    type Check = (fn(&mut Spec), &'static str, &'static str);
    let checks: [Check; 14] = [
        (|s| s.name = "ab".into(), "name", "3 to 63"),
        (|s| s.name = "-abc".into(), "name", "3 to 63"),
        (|s| s.domain = "E-Commerce".into(), "domain", "lower-case"),
        (|s| s.version = " ".into(), "version", "such as 1.0"),
        (|s| s.use_cases.clear(), "use-cases", "0 use cases"),
        (
            |s| s.use_cases[1].action = " ".into(),
            "use-cases",
            "use case 2: its action is empty",
        ),
        (
            |s| s.use_cases[0].intent = String::new(),
            "use-cases",
            "its intent is empty",
        ),
        (
            |s| s.use_cases[0].capabilities.clear(),
            "use-cases",
            "0 capabilities",
        ),
        (
            |s| s.use_cases[0].capabilities.push(" ".into()),
            "use-cases",
            "capability is empty",
        ),
        (
            |s| s.use_cases[0].params = BTreeMap::new(),
            "use-cases",
            "has {orderId}, and params has no \"orderId\"",
        ),
        (
            |s| s.constraints.push("  ".into()),
            "constraints",
            "constraint 3 is empty",
        ),
        (
            |s| s.constraints.push("rule: hop before".into()),
            "constraints",
            "\"hop before\" is not understood",
        ),
        (
            |s| s.constraints = vec!["x".into(); 201],
            "constraints",
            "at most 200",
        ),
        (
            |s| s.use_cases[0].action = "x".repeat(5_000),
            "use-cases",
            "more than 4096 bytes",
        ),
    ];
    for (change, param, said) in checks {
        let (found, message) = fault(change);
        assert!(
            found == param && message.contains(said),
            "{found}: {message}"
        );
    }
}

#[test]
fn a_use_case_reads_bare_and_as_an_example() {
    let case = case("Ship {what} to {where", &[("what", "a lamp")], &["x"]);
    assert_eq!(case.bare_action(), "Ship  to where");
    assert_eq!(case.example(), "Ship a lamp to {where");
    let spaced = super::tests::case("Ship { what }, {what}", &[("what", "{what}")], &["x"]);
    assert_eq!(
        spaced.example(),
        "Ship {what}, {what}",
        "values are not read"
    );
}

#[test]
fn the_digest_is_that_of_the_whole_text() {
    let first = grounding(spec());
    let mut other = spec();
    other.constraints.swap(0, 1);
    let other = grounding(other);
    assert_ne!(first.digest, other.digest);
    assert_eq!(first.rules.rules[0].text, "check before refund");
    assert_eq!(first.rules.told, ["be kind"]);
    let both = Grounding::digest_of_all([&*first, &*other]);
    assert_eq!(both, Grounding::digest_of_all([&*other, &*first]));
    assert_eq!(Grounding::digest_of_all([]), "");
}

#[tokio::test]
async fn an_action_is_found_by_its_words() {
    let matcher = Matcher::default();
    let groundings = [grounding(spec())];
    let services = [
        service("refunds", "Refunds orders"),
        service("mail", "Sends mails"),
    ];
    let hit = matcher
        .find(
            &groundings,
            asked("Please process the refund for order ORD9"),
            &services,
        )
        .await
        .unwrap();
    assert_eq!((hit.case, hit.compared_by.as_str()), (0, "lexical-1"));
    assert_eq!(hit.ruling.offers[0].services, ["s_refunds"]);
    assert_eq!(hit.missing_capability(), None);
    let foreign: Vec<_> = hit
        .ruling
        .foreign_parameters
        .iter()
        .map(|f| f.name.as_str())
        .collect();
    assert_eq!(foreign, ["ticket"], "orderId is a parameter of both");
    let applied = hit.applied();
    assert_eq!(applied.enforced, ["check before refund"]);
    assert_eq!(applied.not_enforced, ["be kind"]);
    assert_eq!(
        serde_json::from_value::<Applied>(serde_json::to_value(&applied).unwrap()).unwrap(),
        applied
    );

    let hit = matcher
        .find(&groundings, asked("close support ticket T-7"), &services)
        .await
        .unwrap();
    assert_eq!(
        (hit.case, hit.missing_capability()),
        (1, Some("close tickets"))
    );

    let refused = matcher
        .find(&groundings, asked("Delete every order"), &services)
        .await
        .unwrap_err();
    assert!(matches!(refused, NoHit::NoMatch { .. }), "{refused}");
    assert!(
        refused
            .to_string()
            .contains("Process a refund for order {orderId}"),
        "{refused}"
    );
}

#[tokio::test]
async fn values_that_are_written_out_do_not_hide_the_use_case() {
    let mut spec = spec();
    spec.use_cases = vec![case(
        "Tell {customer} that the order is late",
        &[("customer", "Ada Lovelace of London")],
        &["mail"],
    )];
    let example = spec.use_cases[0].example();
    let groundings = [grounding(spec)];
    let matcher = Matcher::default();
    let sent = |field: &str, value: &str| Parameter {
        field: field.to_owned(),
        value: value.into(),
    };
    let found = async |action: &str, data: &[Parameter]| {
        let asked = Asked { action, data };
        matcher.find(&groundings, asked, &[]).await
    };
    let hit = found(&example, &[sent("customer", "Ada Lovelace of London")]).await;
    assert_eq!(hit.unwrap().score, 1.0, "its own example");
    let long = "Tell the nice people of Grace Hopper and Sons that the order is late";
    let name = "the nice people of Grace Hopper and Sons";
    assert!(found(long, &[sent("customer", name)]).await.is_ok());
    // Only values of the use cases' parameters are left out: anything else that is said counts.
    assert!(found(long, &[sent("anybody", name)]).await.is_err());
    assert!(found(long, &[]).await.is_err());
    let more = "Tell Ada that the order is late and burn the warehouse down with everything in it";
    assert!(found(more, &[sent("customer", "Ada")]).await.is_err());
    // A value that is one of the use case's own words takes nothing away.
    let own = "Tell order that the order is late";
    assert!(found(own, &[sent("customer", "order")]).await.is_ok());
}

#[tokio::test]
async fn likeness_is_never_told_as_less_than_none() {
    let groundings = [grounding(spec())];
    for words in [
        "Hold seats for the show",
        "Sell a ticket",
        "Paint it",
        "x",
        "",
    ] {
        match Matcher::default()
            .find(&groundings, asked(words), &[])
            .await
        {
            Err(NoHit::NoMatch { score, .. }) => assert!(score >= 0.0, "{words}: {score}"),
            other => panic!("{words}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_outage_lets_in_what_words_allow_and_refuses_nothing_for_good() {
    let nowhere = crate::embedding::EmbeddingModel::new(crate::embedding::Settings {
        model: "m".to_owned(),
        api_key: None,
        base_url: "http://127.0.0.1:9".to_owned(),
        time_limit: std::time::Duration::from_secs(5),
    });
    let matcher = Matcher::new(
        Arc::new(Embedder::new(Some(nowhere.unwrap()))),
        Thresholds::default(),
    );
    let groundings = [grounding(spec())];
    let hit = matcher
        .find(&groundings, asked("Process a refund for order 1"), &[])
        .await
        .unwrap();
    assert_eq!(hit.compared_by, "lexical-1");
    let refused = matcher
        .find(&groundings, asked("Give me my money back"), &[])
        .await
        .unwrap_err();
    assert!(matches!(refused, NoHit::Unavailable(_)), "{refused}");
}
