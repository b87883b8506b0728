//! Journal records as JSON, without loss: what the API shows, what an export holds, and what a replay reads back.
//!
//! ```text
//!  {"event": {…}} | {"note": {…}}     the JSON mapping of protobuf (base64 of its bytes, where it has none), with payloads readable:
//!  {"json": value}                    a `json/plain` payload whose text is just how we would write that value
//!  {"metadata":{…},"data":"base64"}   any other payload
//! ```
//!
//! Invariant: `from_json(to_json(record)) == record`, for every record.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use orchestrion_history::record::Record;
use orchestrion_proto::JOURNAL_DESCRIPTORS;
use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::v1::{Note, note};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, SerializeOptions,
};
use serde_json::{Map, Value, json};

const EVENT: &str = "temporal.api.history.v1.HistoryEvent";
const NOTE: &str = "orchestrion.v1.Note";
const PAYLOAD: &str = "temporal.api.common.v1.Payload";
/// The metadata of a payload of JSON, as the mapping writes it.
const JSON_PLAIN: &str = "json/plain";

struct Types {
    event: MessageDescriptor,
    note: MessageDescriptor,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(JOURNAL_DESCRIPTORS)
        .expect("the descriptors were written by the build of this very program");
    let named = |name: &str| {
        pool.get_message_by_name(name)
            .expect("the descriptors hold the journal's messages")
    };
    Types {
        event: named(EVENT),
        note: named(NOTE),
    }
});

/// A text that is not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no journal record: {0}")]
pub struct NoRecord(String);

/// A record as JSON.
pub fn to_json(record: &Record) -> Value {
    let (name, descriptor, bytes) = match record {
        Record::Event(event) => ("event", &TYPES.event, event.encode_to_vec()),
        Record::Note(note) => ("note", &TYPES.note, note.encode_to_vec()),
    };
    let options = SerializeOptions::new().stringify_64_bit_integers(true);
    let value = DynamicMessage::decode(descriptor.clone(), &bytes[..])
        .ok()
        .and_then(|message| {
            message
                .serialize_with_options(serde_json::value::Serializer, &options)
                .ok()
        });
    match value {
        Some(mut value) => {
            walk(&mut value, descriptor, &open_payload);
            json!({ name: value })
        }
        // An instant that no calendar has, and the like.
        None => json!({ name: BASE64.encode(bytes) }),
    }
}

/// The record that a JSON of [`to_json`] was.
pub fn from_json(value: &Value) -> Result<Record, NoRecord> {
    let wrong = |why: &str| NoRecord(why.to_owned());
    let members = value.as_object().filter(|members| members.len() == 1);
    let (name, body) = members
        .and_then(|members| members.iter().next())
        .ok_or_else(|| wrong("it must be an object with the one member `event` or `note`"))?;
    let descriptor = match name.as_str() {
        "event" => &TYPES.event,
        "note" => &TYPES.note,
        _ => return Err(wrong("it must have the member `event` or `note`")),
    };
    let bytes = match body {
        Value::String(text) => BASE64
            .decode(text)
            .map_err(|error| NoRecord(error.to_string()))?,
        body => {
            let mut body = body.clone();
            walk(&mut body, descriptor, &close_payload);
            let options = DeserializeOptions::new().deny_unknown_fields(true);
            DynamicMessage::deserialize_with_options(descriptor.clone(), body, &options)
                .map_err(|error| NoRecord(error.to_string()))?
                .encode_to_vec()
        }
    };
    let told = |error: orchestrion_proto::prost::DecodeError| NoRecord(error.to_string());
    Ok(match name.as_str() {
        "event" => Record::Event(Box::new(HistoryEvent::decode(&bytes[..]).map_err(told)?)),
        _ => Record::Note(Box::new(Note::decode(&bytes[..]).map_err(told)?)),
    })
}

/// A history as Temporal's command line writes it and its SDKs read it: events alone, payloads in base64.
pub fn temporal_history(records: &[Record]) -> Result<Value, NoRecord> {
    let options = SerializeOptions::new().stringify_64_bit_integers(true);
    let events = records.iter().filter_map(Record::event).map(|event| {
        let told = |error: String| NoRecord(format!("event {}: {error}", event.event_id));
        let bytes = event.encode_to_vec();
        DynamicMessage::decode(TYPES.event.clone(), &bytes[..])
            .map_err(|error| told(error.to_string()))?
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| told(error.to_string()))
    });
    let events: Vec<Value> = events.collect::<Result<_, _>>()?;
    Ok(json!({ "events": events }))
}

/// Goes through a message's JSON by its descriptor and changes every payload in it. What a payload holds is not looked into.
fn walk(value: &mut Value, descriptor: &MessageDescriptor, change: &dyn Fn(&mut Value)) {
    if descriptor.full_name() == PAYLOAD {
        return change(value);
    }
    let Value::Object(members) = value else {
        return;
    };
    for (name, member) in members {
        let Some(field) = descriptor.get_field_by_json_name(name) else {
            continue;
        };
        let Kind::Message(kind) = field.kind() else {
            continue;
        };
        if kind.is_map_entry() {
            if let (Kind::Message(kind), Value::Object(entries)) =
                (kind.map_entry_value_field().kind(), member)
            {
                entries
                    .values_mut()
                    .for_each(|entry| walk(entry, &kind, change));
            }
        } else if let Value::Array(items) = member {
            items.iter_mut().for_each(|item| walk(item, &kind, change));
        } else {
            walk(member, &kind, change);
        }
    }
}

/// Shows the JSON in a payload, if it can be written back just as it is.
fn open_payload(payload: &mut Value) {
    let Value::Object(members) = payload else {
        return;
    };
    let text = |value: &Value| BASE64.decode(value.as_str()?).ok();
    let metadata = members.get("metadata").and_then(Value::as_object);
    let plain = metadata.is_some_and(|metadata| {
        metadata.len() == 1
            && metadata.get("encoding").and_then(text).as_deref() == Some(JSON_PLAIN.as_bytes())
    });
    if !plain || members.len() != 2 {
        return;
    }
    let Some(data) = members.get("data").and_then(text) else {
        return;
    };
    if let Ok(value) = serde_json::from_slice::<Value>(&data)
        && value.to_string().as_bytes() == data
    {
        *payload = json!({ "json": value });
    }
}

fn close_payload(payload: &mut Value) {
    let Value::Object(members) = payload else {
        return;
    };
    if let (1, Some(value)) = (members.len(), members.get("json")) {
        let mut closed = Map::new();
        closed.insert(
            "metadata".to_owned(),
            json!({"encoding": BASE64.encode(JSON_PLAIN)}),
        );
        closed.insert("data".to_owned(), BASE64.encode(value.to_string()).into());
        *payload = Value::Object(closed);
    }
}

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The id the workflow gave the activity: a step's id, or `revert:` and a step's id.
    pub id: String,
    /// Its type: the name of a service.
    pub kind: String,
}

/// The activities of a run by the events that scheduled them, gathered record by record.
#[derive(Debug, Default)]
pub struct Names(HashMap<i64, About>);

impl Names {
    /// Takes in the next record, and tells which activity it is about.
    pub fn about(&mut self, record: &Record) -> Option<About> {
        if let Record::Event(event) = record
            && let Some(Attributes::ActivityTaskScheduledEventAttributes(a)) = &event.attributes
        {
            let kind = a.activity_type.as_ref().map_or("", |kind| &kind.name);
            let about = About {
                id: a.activity_id.clone(),
                kind: kind.to_owned(),
            };
            self.0.insert(event.event_id, about);
            return self.0.get(&event.event_id).cloned();
        }
        self.0.get(&scheduled_event_id(record)?).cloned()
    }
}

fn scheduled_event_id(record: &Record) -> Option<i64> {
    match record {
        Record::Event(event) => of_event(event),
        Record::Note(note) => match note.kind.as_ref()? {
            note::Kind::ActivityAttemptStarted(n) => Some(n.scheduled_event_id),
            note::Kind::ActivityAttemptFailed(n) => Some(n.scheduled_event_id),
            note::Kind::ActivityAttemptReturned(n) => Some(n.scheduled_event_id),
            note::Kind::ActivityHeartbeat(n) => Some(n.scheduled_event_id),
            note::Kind::ActivityProgress(n) => Some(n.scheduled_event_id),
            note::Kind::ActivityWaiting(n) => Some(n.scheduled_event_id),
            note::Kind::ActivityPaused(n) => Some(n.scheduled_event_id),
            note::Kind::ActivityUnpaused(n) => Some(n.scheduled_event_id),
            note::Kind::ActivityReset(n) => Some(n.scheduled_event_id),
            note::Kind::ActivityOptionsUpdated(n) => Some(n.scheduled_event_id),
            note::Kind::EventBuffered(n) => of_event(n.event.as_ref()?),
            _ => None,
        },
    }
}

fn of_event(event: &HistoryEvent) -> Option<i64> {
    use Attributes as A;
    match event.attributes.as_ref()? {
        A::ActivityTaskStartedEventAttributes(a) => Some(a.scheduled_event_id),
        A::ActivityTaskCompletedEventAttributes(a) => Some(a.scheduled_event_id),
        A::ActivityTaskFailedEventAttributes(a) => Some(a.scheduled_event_id),
        A::ActivityTaskTimedOutEventAttributes(a) => Some(a.scheduled_event_id),
        A::ActivityTaskCancelRequestedEventAttributes(a) => Some(a.scheduled_event_id),
        A::ActivityTaskCanceledEventAttributes(a) => Some(a.scheduled_event_id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use orchestrion_proto::prost_wkt_types::{Duration, Timestamp};
    use orchestrion_proto::temporal::api::common::v1::{ActivityType, Header, Payload, Payloads};
    use orchestrion_proto::temporal::api::enums::v1::EventType;
    use orchestrion_proto::temporal::api::history::v1::{
        ActivityTaskCompletedEventAttributes, ActivityTaskScheduledEventAttributes,
    };
    use orchestrion_proto::v1::ActivityProgress;
    use proptest::prelude::*;

    use super::*;
    use crate::orchestration::submission::raw_json_payload;

    fn scheduled(payload: Payload) -> Record {
        let attributes = ActivityTaskScheduledEventAttributes {
            activity_id: "task1".into(),
            activity_type: Some(ActivityType {
                name: "payment".into(),
            }),
            header: Some(Header {
                fields: HashMap::from([("json".to_owned(), payload.clone())]),
            }),
            input: Some(Payloads {
                payloads: vec![payload],
            }),
            start_to_close_timeout: Some(Duration {
                seconds: 30,
                nanos: 5_000_000,
            }),
            ..Default::default()
        };
        Record::Event(Box::new(HistoryEvent {
            event_id: 5,
            event_type: EventType::ActivityTaskScheduled.into(),
            event_time: Some(Timestamp {
                seconds: 1_700_000_000,
                nanos: 7,
            }),
            attributes: Some(Attributes::ActivityTaskScheduledEventAttributes(attributes)),
            ..Default::default()
        }))
    }

    #[test]
    fn payloads_of_json_are_readable() {
        let record = scheduled(raw_json_payload(br#"{"b":1.5,"a":[null]}"#.to_vec()));
        let shown = to_json(&record);
        let attributes = &shown["event"]["activityTaskScheduledEventAttributes"];
        assert_eq!(
            attributes["input"]["payloads"],
            json!([{"json": {"b": 1.5, "a": [null]}}])
        );
        assert_eq!(
            attributes["header"]["fields"]["json"],
            json!({"json": {"b": 1.5, "a": [null]}})
        );
        assert_eq!(attributes["startToCloseTimeout"], "30.005s");
        assert_eq!(from_json(&shown), Ok(record));
    }

    #[test]
    fn text_that_we_would_write_otherwise_keeps_its_bytes() {
        for text in [
            &br#"{"b" : 1}"#[..],
            b"1e2",
            b"\"\\u00e9\"",
            b"not json",
            b"\xff\xfe",
            b"",
        ] {
            let record = scheduled(raw_json_payload(text.to_vec()));
            let shown = to_json(&record).to_string();
            let read = from_json(&serde_json::from_str(&shown).unwrap());
            assert_eq!(read, Ok(record), "{shown}");
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for wrong in [
            json!(null),
            json!({}),
            json!({"event": {}, "note": {}}),
            json!({"other": {}}),
            json!({"note": {"surprise": 1}}),
            json!({"event": {"eventId": "five"}}),
        ] {
            assert!(from_json(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn records_are_named_by_the_step_they_are_about() {
        let mut names = Names::default();
        names.about(&scheduled(Payload::default()));
        let completed = Record::Event(Box::new(HistoryEvent {
            event_id: 9,
            attributes: Some(Attributes::ActivityTaskCompletedEventAttributes(
                ActivityTaskCompletedEventAttributes {
                    scheduled_event_id: 5,
                    ..Default::default()
                },
            )),
            ..Default::default()
        }));
        let about = names.about(&completed).unwrap();
        assert_eq!(
            (about.id.as_str(), about.kind.as_str()),
            ("task1", "payment")
        );
    }

    proptest! {
        #[test]
        fn any_payload_comes_back(data: Vec<u8>, encoding in "[a-z/]{0,10}", at: i64, attempt: i32) {
            let update = Payload {
                metadata: HashMap::from([("encoding".to_owned(), encoding.into_bytes())]),
                data,
                ..Default::default()
            };
            let progress = ActivityProgress { scheduled_event_id: 5, attempt, update: Some(update) };
            let record = Record::Note(Box::new(Note { at, kind: Some(note::Kind::ActivityProgress(progress)) }));
            prop_assert_eq!(from_json(&to_json(&record)), Ok(record));
        }
    }
}
