//! Queries against an oracle that knows nothing of tokens, trees or types; and any text at all.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::visibility::attributes::{Attribute, Value, ValueType};

fn catalogue() -> Catalogue {
    let custom = [
        ("k", ValueType::Keyword),
        ("odd name", ValueType::Keyword),
        ("l", ValueType::KeywordList),
        ("t", ValueType::Text),
        ("i", ValueType::Int),
        ("d", ValueType::Double),
        ("b", ValueType::Bool),
        ("at", ValueType::Datetime),
    ];
    Catalogue::new(custom.map(|(name, kind)| (name.to_owned(), kind)).into())
}

/// A run, by attribute.
#[derive(Debug, Clone, Default)]
struct Run(BTreeMap<&'static str, Value>);

impl Fields for Run {
    fn value(&self, attribute: &Attribute) -> Option<Value> {
        self.0.get(attribute.name()).cloned()
    }
}

/// What the oracle holds of a run: numbers for everything that is ordered, texts for the rest.
#[derive(Debug, Clone)]
enum Cond {
    And(Box<Cond>, Box<Cond>),
    Or(Box<Cond>, Box<Cond>),
    Not(Box<Cond>),
    /// Of a keyword.
    Text(&'static str, &'static str, Vec<String>),
    /// Of a number, an instant, a flag: attribute, test, values.
    Number(&'static str, &'static str, Vec<i64>),
    Null(&'static str, bool),
}

const WORDS: [&str; 5] = ["a", "ab", "b", "it's \"so\" \\n", ""];
const EPOCH: i64 = 1_700_000_000;

fn written_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn written_number(name: &str, number: i64) -> String {
    match name {
        "b" => (number > 0).to_string(),
        "at" => {
            let at = jiff::Timestamp::from_second(EPOCH + number).unwrap();
            format!("\"{at}\"")
        }
        "d" => format!("{:?}", number as f64 + 0.5),
        _ => number.to_string(),
    }
}

fn value_of(name: &str, number: i64) -> Value {
    match name {
        "b" => Value::Bool(number > 0),
        "at" => Value::Datetime((EPOCH + number) * 1_000_000_000),
        "d" => Value::Double(number as f64 + 0.5),
        _ => Value::Int(number),
    }
}

fn written_name(name: &str) -> String {
    if name.contains(' ') {
        format!("`{name}`")
    } else {
        name.to_owned()
    }
}

impl Cond {
    fn written(&self) -> String {
        let test = |name: &str, test: &str, values: Vec<String>| {
            let name = written_name(name);
            match test {
                "IN" | "NOT IN" => format!("{name} {test} ({})", values.join(" ,")),
                "BETWEEN" | "NOT between" => {
                    format!("{name} {test} {} and {}", values[0], values[1])
                }
                _ => format!("{name} {test} {}", values[0]),
            }
        };
        match self {
            Self::And(a, b) => format!("({} AND {})", a.written(), b.written()),
            Self::Or(a, b) => format!("({} or {})", a.written(), b.written()),
            Self::Not(a) => format!("NOT ({})", a.written()),
            Self::Text(name, how, texts) => test(
                name,
                how,
                texts.iter().map(|text| written_text(text)).collect(),
            ),
            Self::Number(name, how, numbers) => {
                let written = numbers.iter().map(|n| written_number(name, *n));
                test(name, how, written.collect())
            }
            Self::Null(name, true) => format!("{} IS NULL", written_name(name)),
            Self::Null(name, false) => format!("{} is not null", written_name(name)),
        }
    }

    /// 0 false, 1 unknown, 2 true: AND is the least, OR the greatest, NOT counts from the other end.
    fn truth(&self, run: &Facts) -> u8 {
        let known = |is: bool| if is { 2 } else { 0 };
        match self {
            Self::And(a, b) => a.truth(run).min(b.truth(run)),
            Self::Or(a, b) => a.truth(run).max(b.truth(run)),
            Self::Not(a) => 2 - a.truth(run),
            Self::Null(name, wanted) => {
                let there = run.texts.contains_key(name) || run.numbers.contains_key(name);
                known(there != *wanted)
            }
            Self::Text(name, how, wanted) => {
                let Some(texts) = run.texts.get(name) else {
                    return 1;
                };
                let first = &wanted[0];
                let one_of = |wanted: &[String]| texts.iter().any(|text| wanted.contains(text));
                known(match *how {
                    "=" => one_of(&wanted[..1]),
                    "!=" => !one_of(&wanted[..1]),
                    "IN" => one_of(wanted),
                    "NOT IN" => !one_of(wanted),
                    "<" => texts[0] < *first,
                    ">=" => texts[0] >= *first,
                    "BETWEEN" => texts[0] >= *first && texts[0] <= wanted[1],
                    "STARTS_WITH" => texts[0].starts_with(first.as_str()),
                    _ => !texts[0].starts_with(first.as_str()),
                })
            }
            Self::Number(name, how, wanted) => {
                let Some(number) = run.numbers.get(name) else {
                    return 1;
                };
                let number = *number;
                let first = wanted[0];
                known(match *how {
                    "=" => number == first,
                    "<>" => number != first,
                    "<" => number < first,
                    "<=" => number <= first,
                    ">" => number > first,
                    ">=" => number >= first,
                    "IN" => wanted.contains(&number),
                    "NOT IN" => !wanted.contains(&number),
                    "BETWEEN" => number >= first && number <= wanted[1],
                    _ => number < first || number > wanted[1],
                })
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Facts {
    texts: BTreeMap<&'static str, Vec<String>>,
    numbers: BTreeMap<&'static str, i64>,
}

impl Facts {
    fn run(&self) -> Run {
        let mut run = Run::default();
        for (name, texts) in &self.texts {
            let value = if *name == "l" {
                Value::KeywordList(texts.clone())
            } else {
                Value::Keyword(texts[0].clone())
            };
            run.0.insert(name, value);
        }
        for (name, number) in &self.numbers {
            run.0.insert(name, value_of(name, *number));
        }
        run
    }
}

fn word() -> impl Strategy<Value = String> {
    proptest::sample::select(&WORDS[..]).prop_map(str::to_owned)
}

fn text_cond() -> impl Strategy<Value = Cond> {
    let ordered = [
        "=",
        "!=",
        "IN",
        "NOT IN",
        "<",
        ">=",
        "BETWEEN",
        "STARTS_WITH",
        "NOT STARTS_WITH",
    ];
    let keyword = (
        proptest::sample::select(vec!["k", "odd name"]),
        proptest::sample::select(ordered.to_vec()),
        proptest::collection::vec(word(), 2..4),
    )
        .prop_map(|(name, how, words)| Cond::Text(name, how, words));
    let list = (
        proptest::sample::select(vec!["=", "!=", "IN", "NOT IN"]),
        proptest::collection::vec(word(), 1..4),
    )
        .prop_map(|(how, words)| Cond::Text("l", how, words));
    prop_oneof![keyword, list]
}

fn number_cond() -> impl Strategy<Value = Cond> {
    let ordered = [
        "=",
        "<>",
        "<",
        "<=",
        ">",
        ">=",
        "IN",
        "NOT IN",
        "BETWEEN",
        "NOT between",
    ];
    let number = (
        proptest::sample::select(vec!["i", "d", "at"]),
        proptest::sample::select(ordered.to_vec()),
        proptest::collection::vec(-3i64..4, 2..4),
    )
        .prop_map(|(name, how, numbers)| Cond::Number(name, how, numbers));
    let flag = (proptest::sample::select(vec!["=", "<>", "IN"]), 0i64..2)
        .prop_map(|(how, number)| Cond::Number("b", how, vec![number]));
    prop_oneof![number, flag]
}

fn cond() -> impl Strategy<Value = Cond> {
    let names = vec!["k", "odd name", "l", "i", "d", "at", "b"];
    let null = (proptest::sample::select(names), any::<bool>())
        .prop_map(|(name, is)| Cond::Null(name, is));
    let leaf = prop_oneof![3 => text_cond(), 3 => number_cond(), 1 => null];
    leaf.prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Cond::And(Box::new(a), Box::new(b))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Cond::Or(Box::new(a), Box::new(b))),
            inner.prop_map(|a| Cond::Not(Box::new(a))),
        ]
    })
}

fn facts() -> impl Strategy<Value = Facts> {
    let texts = (
        proptest::option::of(word()),
        proptest::option::of(word()),
        proptest::option::of(proptest::collection::vec(word(), 1..3)),
    );
    let numbers = (
        proptest::option::of(-3i64..4),
        proptest::option::of(-3i64..4),
        proptest::option::of(-3i64..4),
        proptest::option::of(0i64..2),
    );
    (texts, numbers).prop_map(|((k, odd, l), (i, d, at, b))| {
        let mut facts = Facts::default();
        let texts = [
            ("k", k.map(|k| vec![k])),
            ("odd name", odd.map(|o| vec![o])),
            ("l", l),
        ];
        for (name, value) in texts {
            facts.texts.extend(value.map(|value| (name, value)));
        }
        for (name, value) in [("i", i), ("d", d), ("at", at), ("b", b)] {
            facts.numbers.extend(value.map(|value| (name, value)));
        }
        facts
    })
}

/// Words, signs and scraps of the language in any order.
fn soup() -> impl Strategy<Value = String> {
    let scraps = vec![
        "k",
        "i",
        "WorkflowId",
        "ExecutionStatus",
        "StartTime",
        "=",
        "!=",
        "<",
        ">=",
        "(",
        ")",
        ",",
        "AND",
        "OR",
        "NOT",
        "IN",
        "BETWEEN",
        "STARTS_WITH",
        "IS",
        "NULL",
        "GROUP",
        "ORDER",
        "BY",
        "DESC",
        "'a'",
        "\"b\"",
        "`k`",
        "1",
        "-2.5",
        "true",
        "'",
        "`",
        "\\",
        "é",
        "\u{0}",
        "'2026-01-01T00:00:00Z'",
        "'Running'",
    ];
    proptest::collection::vec(proptest::sample::select(scraps), 0..16).prop_map(|s| s.join(" "))
}

proptest! {
    #[test]
    fn a_query_holds_where_the_oracle_says(cond in cond(), facts in facts()) {
        let text = cond.written();
        let query = Query::parse(&text, &catalogue()).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        let holds = query.filter.unwrap().holds(&facts.run());
        prop_assert_eq!(holds, cond.truth(&facts) == 2, "{} on {:?}", text, facts);
    }

    #[test]
    fn no_text_panics_and_each_error_points_into_it(text in prop_oneof![any::<String>(), soup()]) {
        if let Err(error) = Query::parse(&text, &catalogue()) {
            prop_assert!(error.at >= 1 && error.at <= text.chars().count() + 1, "{}", error);
        }
    }
}

fn refused(text: &str) -> QueryError {
    Query::parse(text, &catalogue()).expect_err(text)
}

#[test]
fn errors_name_the_place_and_what_is_accepted() {
    let cases = [
        ("Foo = 1", 1, "Foo is not defined"),
        ("workflowid = 'a'", 1, "did you mean WorkflowId"),
        ("WorkflowId = 'a' AND i = 'x'", 26, "a whole number"),
        ("WorkflowId = 'a", 14, "not closed"),
        ("WorkflowId = 'a' k", 18, "expected AND, OR"),
        ("ExecutionStatus = 'Runing'", 19, "Running, Completed"),
        ("ExecutionStatus < 'Running'", 17, "no order"),
        ("StartTime > 'yesterday'", 13, "RFC 3339"),
        ("t STARTS_WITH 'a'", 3, "no beginning"),
        ("t IN ('a')", 3, "no IN"),
        ("b > true", 3, "no order"),
        ("k = NULL", 5, "IS NULL"),
        ("k =", 4, "expected a value"),
        ("(k = 'a'", 9, "expected )"),
        ("k ~ 'a'", 3, "has no meaning"),
        ("k = 'a' ORDER BY k", 18, "ORDER BY StartTime DESC"),
        ("GROUP BY WorkflowType", 10, "ExecutionStatus only"),
        ("i = 99999999999999999999x", 5, "is no number"),
        ("é = 1", 1, "not defined"),
        ("'é' = 1", 1, "expected the name"),
    ];
    for (text, at, says) in cases {
        let error = refused(text);
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.message.contains(says), "{text}: {error}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let deep = format!("{}k = 'a'{}", "(".repeat(100_000 / 2), ")".repeat(10));
    assert!(refused(&deep).message.contains("parentheses"));
    let nots = format!("{} k = 'a'", "NOT ".repeat(5_000));
    assert!(refused(&nots).message.contains("NOTs"));
    let long = format!("k = '{}'", "a".repeat(QUERY_BYTES_MAX));
    assert!(refused(&long).message.contains("bytes"));
    let wide = vec!["k = 'a'"; 5_000].join(" OR ");
    assert!(Query::parse(&wide, &catalogue()).is_ok());
}

#[test]
fn words_of_a_text_match_in_any_case() {
    let run = Run([("t", Value::Text("The quick-brown FOX".to_owned()))].into());
    let holds = |text: &str| {
        Query::parse(text, &catalogue())
            .unwrap()
            .filter
            .unwrap()
            .holds(&run)
    };
    assert!(holds("t = 'fox'"));
    assert!(holds("t = 'lazy Brown'"));
    assert!(!holds("t = 'fo'"));
    assert!(holds("t != 'dog'"));
    assert!(!holds("t != 'quick'"));
}

#[test]
fn the_parts_behind_the_condition_are_read() {
    let parse = |text: &str| Query::parse(text, &catalogue()).unwrap();
    assert_eq!(parse("  "), Query::default());
    assert!(parse("GROUP BY ExecutionStatus").by_status);
    let query = parse("ExecutionStatus=\"running\" group by ExecutionStatus");
    assert!(query.by_status && query.filter.is_some());
    assert!(parse("k = 'a' ORDER BY StartTime DESC").filter.is_some());
}
