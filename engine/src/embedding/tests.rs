//! Vectors of words, and a model on loopback that answers well, badly, slowly and not at all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

use super::*;
use crate::seams;

fn like(a: &str, b: &str) -> f64 {
    lexical::vector(a).likeness(&lexical::vector(b)).unwrap()
}

#[test]
fn words_are_compared_by_their_stems() {
    assert!(
        like(
            "Process the refund of an order",
            "process refunds for my orders, please"
        ) > 0.99
    );
    assert!(like("Process the refund of an order", "cancel the order") < 0.5);
    assert!(
        like(
            "Process the refund of order 17",
            "Process the refund of order 4"
        ) > 0.99
    );
    assert!(like("refund the order", "do not refund the order") < 0.9);
    assert!(like("charge then refund", "refund then charge") < 0.99);
    assert_eq!(like("", "refund"), 0.0);
    let other = Vector {
        space: "m".to_owned(),
        values: lexical::vector("refund").values,
    };
    assert_eq!(other.likeness(&lexical::vector("refund")), None);
}

#[test]
fn coverage_counts_what_is_spoken_of() {
    assert_eq!(
        lexical::coverage("check the stock", "Checks the stock of a product"),
        1.0
    );
    assert_eq!(
        lexical::coverage("verify inventory", "Checks the stock"),
        0.5
    );
    assert_eq!(lexical::coverage("send mail", "Charges a card"), 0.0);
    assert_eq!(lexical::coverage("", "anything"), 0.0);
}

#[test]
fn specifics_are_what_must_not_differ() {
    let specifics = |text: &str| lexical::specifics(text).join("|");
    assert_eq!(
        specifics("Ship 2 boxes to Bern, not Basel."),
        "2|Bern,|not|Basel."
    );
    assert_eq!(specifics("Say \"good bye\" to everyone"), "\"good bye\"");
    assert_eq!(specifics("Don't ship. Refund it"), "Don't");
    assert_eq!(specifics("refund the order"), "");
    assert_eq!(specifics("a - b \"open end"), "-|\"open end");
}

type Answers = Arc<Mutex<Vec<(u16, Value, Duration)>>>;

/// A model that gives these answers, the last one for ever, and how often it was asked.
async fn model(answers: Vec<(u16, Value, Duration)>) -> (EmbeddingModel, Arc<Mutex<Vec<Value>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let answers: Answers = Arc::new(Mutex::new(answers));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    let routes = Router::new()
        .route("/v1/embeddings", post(answer))
        .with_state((answers, calls.clone()));
    seams::spawn(async move { axum::serve(listener, routes).await });
    let settings = Settings {
        model: "m-1".to_owned(),
        api_key: Some("sk-embed".to_owned()),
        base_url,
        time_limit: Duration::from_millis(2_000),
    };
    (EmbeddingModel::new(settings).unwrap(), calls)
}

async fn answer(
    State((answers, calls)): State<(Answers, Arc<Mutex<Vec<Value>>>)>,
    headers: HeaderMap,
    body: String,
) -> Response {
    assert_eq!(headers["authorization"], "Bearer sk-embed");
    calls
        .lock()
        .unwrap()
        .push(serde_json::from_str(&body).unwrap());
    let (status, body, wait) = {
        let mut answers = answers.lock().unwrap();
        if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers[0].clone()
        }
    };
    seams::sleep(wait).await;
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

fn vectors(of: &[&[f32]]) -> Value {
    let data: Vec<_> = of
        .iter()
        .enumerate()
        .map(|(index, values)| json!({"index": index, "embedding": values}))
        .collect();
    json!({"data": data, "model": "m-1"})
}

#[tokio::test]
async fn a_model_places_texts_and_what_it_placed_is_remembered() {
    let (model, calls) = model(vec![
        (200, vectors(&[&[3.0, 4.0], &[0.0, 2.0]]), Duration::ZERO),
        (200, vectors(&[&[1.0, 0.0]]), Duration::ZERO),
    ])
    .await;
    let embedder = Embedder::new(Some(model));
    let first = embedder.embed(&["a", "b", "a"]).await;
    assert_eq!(first.outage, None);
    assert_eq!(first.vectors[0].values, [0.6, 0.8]);
    assert_eq!(first.vectors[0], first.vectors[2]);
    assert_eq!(first.vectors[1].space, "m-1");
    let second = embedder.embed(&["c", "b"]).await;
    assert_eq!(second.vectors[1], first.vectors[1]);
    let calls = calls.lock().unwrap();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[1], json!({"input": ["c"], "model": "m-1"}));
}

#[tokio::test]
async fn a_model_of_another_size_is_asked_for_everything_again() {
    let (model, calls) = model(vec![
        (200, vectors(&[&[1.0, 0.0]]), Duration::ZERO),
        (200, vectors(&[&[1.0, 0.0, 0.0]]), Duration::ZERO),
        (
            200,
            vectors(&[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0]]),
            Duration::ZERO,
        ),
    ])
    .await;
    let embedder = Embedder::new(Some(model));
    embedder.embed(&["a"]).await;
    let both = embedder.embed(&["a", "b"]).await;
    assert_eq!((both.outage, both.vectors[1].values.len()), (None, 3));
    assert_eq!(calls.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_model_that_misbehaves_is_replaced_by_words_and_the_reason_is_told() {
    let slow = Duration::from_secs(60);
    for (status, body, wait, said) in [
        (
            200,
            vectors(&[&[1.0]]),
            slow,
            "did not answer within 2000 ms",
        ),
        (
            401,
            json!({"error": "sk-embed is wrong"}),
            Duration::ZERO,
            "answers 401",
        ),
        (500, json!(null), Duration::ZERO, "answers 500"),
        (200, json!("x"), Duration::ZERO, "it has no data"),
        (
            200,
            vectors(&[&[1.0], &[1.0]]),
            Duration::ZERO,
            "2 vectors for 1 texts",
        ),
        (200, vectors(&[&[]]), Duration::ZERO, "not one of numbers"),
        (
            200,
            vectors(&[&[0.0, 0.0]]),
            Duration::ZERO,
            "not one of numbers",
        ),
        (
            200,
            json!({"data": [{"index": 0, "embedding": ["a"]}]}),
            Duration::ZERO,
            "not one of numbers",
        ),
        (
            200,
            json!({"data": [{"index": 7, "embedding": [1]}]}),
            Duration::ZERO,
            "its indexes are not",
        ),
    ] {
        let (model, _) = model(vec![(status, body.clone(), wait)]).await;
        let embedded = Embedder::new(Some(model)).embed(&["refund"]).await;
        let outage = embedded.outage.unwrap();
        assert!(
            outage.contains(said) && !outage.contains("sk-embed"),
            "{body}: {outage}"
        );
        assert_eq!(embedded.vectors, [lexical::vector("refund")]);
    }
    let (mixed, _) = model(vec![(200, vectors(&[&[1.0], &[1.0, 0.0]]), Duration::ZERO)]).await;
    let outage = Embedder::new(Some(mixed))
        .embed(&["a", "b"])
        .await
        .outage
        .unwrap();
    assert!(outage.contains("different sizes"), "{outage}");
}

#[test]
fn settings_that_cannot_be_used_are_refused_at_the_start() {
    let new = |base_url: &str, key: &str| {
        EmbeddingModel::new(Settings {
            model: "m".to_owned(),
            api_key: Some(key.to_owned()),
            base_url: base_url.to_owned(),
            time_limit: Duration::from_secs(1),
        })
    };
    assert!(new("http://127.0.0.1/v1", "k").is_ok());
    for (url, key) in [
        ("nowhere", "k"),
        ("ftp://x", "k"),
        ("http://me:pw@x", "k"),
        ("http://x", "a\nb"),
    ] {
        let error = new(url, key).unwrap_err().to_string();
        assert!(error.starts_with("embeddings."), "{error}");
    }
    assert!(!format!("{:?}", new("http://x", "secret-key").unwrap()).contains("secret-key"));
}
