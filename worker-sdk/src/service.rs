//! A service: a name, a description, two types, and what it does.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrion_proto::worker as wire;
use orchestrion_proto::worker::from_worker::Message;
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::task::{Failure, RevertContext, Reverted, Task, Undo};

/// Attempts a service takes at once, if it does not say otherwise.
const WINDOW_DEFAULT: u32 = 8;

type Ending = Pin<Box<dyn Future<Output = Message> + Send>>;
type Execute = Arc<dyn Fn(Task, Bytes) -> Ending + Send + Sync>;
type Revert = Arc<dyn Fn(Task, Bytes, Bytes) -> Ending + Send + Sync>;

/// A service or agent that takes `Input` and gives `Output`.
pub struct Service<Input, Output> {
    registered: Erased,
    types: PhantomData<fn(Input) -> Output>,
}

/// A service without its types.
#[derive(Clone)]
pub(crate) struct Erased {
    pub(crate) open: wire::Open,
    pub(crate) execute: Execute,
    pub(crate) revert: Option<Revert>,
    /// 0 is the engine's default.
    pub(crate) undo_within_ms: u64,
}

/// What a revert is given: as orra's SDKs keep it.
#[derive(Deserialize)]
struct Kept<Input, Output> {
    #[serde(rename = "originalTask")]
    input: Input,
    #[serde(rename = "taskResult")]
    output: Output,
}

impl<Input, Output> Service<Input, Output>
where
    Input: DeserializeOwned + JsonSchema + Send + 'static,
    Output: Serialize + JsonSchema + Send + 'static,
{
    /// A service that runs `handler` for each of its tasks.
    ///
    /// The name has 3 to 63 lower-case letters, digits, `-` and `.`; within a project it says which service this is, in all processes that
    /// serve it. Planners choose services by their descriptions, and fill in their inputs by the documentation of the types' fields. Both
    /// types are structs: their schemas must be of type object.
    pub fn new<Handler, Running>(
        name: impl Into<String>,
        description: impl Into<String>,
        handler: Handler,
    ) -> Self
    where
        Handler: Fn(Task, Input) -> Running + Send + Sync + 'static,
        Running: Future<Output = Result<Output, Failure>> + Send + 'static,
    {
        let execute = move |task: Task, input: Bytes| -> Ending {
            let running = match serde_json::from_slice(&input) {
                Ok(input) => handler(task, input),
                Err(error) => {
                    let text = format!("the input is not what this service takes: {error}");
                    return Box::pin(async { Failure::permanent(text).into_message() });
                }
            };
            Box::pin(async move {
                match running.await {
                    Ok(output) => completed(&output),
                    Err(failure) => failure.into_message(),
                }
            })
        };
        let schema = |schema: schemars::Schema| Bytes::from(schema.to_value().to_string());
        Self {
            registered: Erased {
                open: wire::Open {
                    name: name.into(),
                    description: description.into(),
                    input_schema: schema(schema_for!(Input)),
                    output_schema: schema(schema_for!(Output)),
                    kind: wire::WorkerKind::Service.into(),
                    window: WINDOW_DEFAULT,
                    sdk: concat!("orchestrion-worker/", env!("CARGO_PKG_VERSION")).to_owned(),
                    ..Default::default()
                },
                execute: Arc::new(execute),
                revert: None,
                undo_within_ms: 0,
            },
            types: PhantomData,
        }
    }

    /// Makes the service's tasks revertible: `handler` undoes one, given its input and its output.
    ///
    /// It may be asked for a task that it has undone already, and should then say [`Reverted::Completed`] again. An error is tried again.
    #[must_use]
    pub fn revert<Handler, Running>(mut self, handler: Handler) -> Self
    where
        Handler: Fn(Undo, Input, Output) -> Running + Send + Sync + 'static,
        Running: Future<Output = Result<Reverted, Failure>> + Send + 'static,
        Output: DeserializeOwned,
    {
        let revert = move |task: Task, kept: Bytes, context: Bytes| -> Ending {
            let read = serde_json::from_slice::<Kept<Input, Output>>(&kept);
            let context = serde_json::from_slice::<RevertContext>(&context);
            let running = match (read, context) {
                (Ok(kept), Ok(context)) => handler(Undo { task, context }, kept.input, kept.output),
                (Err(error), _) | (_, Err(error)) => {
                    let text =
                        format!("what is to be undone is not what this service did: {error}");
                    return Box::pin(async { Failure::permanent(text).into_message() });
                }
            };
            Box::pin(async move {
                match running.await {
                    Ok(reverted) => reverted.into_message(),
                    Err(failure) => failure.into_message(),
                }
            })
        };
        self.registered.open.revertible = true;
        self.registered.revert = Some(Arc::new(revert));
        self
    }
}

impl<Input, Output> Service<Input, Output> {
    /// Registers it as an agent. Planners make no difference; people may.
    #[must_use]
    pub fn agent(mut self) -> Self {
        self.registered.open.kind = wire::WorkerKind::Agent.into();
        self
    }

    /// How many attempts it takes at once; 8 if it does not say. Handlers run concurrently.
    #[must_use]
    pub fn window(mut self, attempts: u32) -> Self {
        self.registered.open.window = attempts.max(1);
        self
    }

    /// How long after its completion a task can be undone; as long as the engine says if the service does not.
    #[must_use]
    pub fn undo_within(mut self, time: Duration) -> Self {
        self.registered.undo_within_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        self
    }

    /// Is the service that registered under this id before, by whatever wire, rather than the one of its name.
    #[must_use]
    pub fn id(mut self, service_id: impl Into<String>) -> Self {
        self.registered.open.service_id = service_id.into();
        self
    }

    pub(crate) fn erased(self) -> Erased {
        self.registered
    }
}

fn completed<Output: Serialize>(output: &Output) -> Message {
    match serde_json::to_vec(output) {
        Ok(result) => Message::Completed(wire::Completed {
            attempt: None,
            result: result.into(),
            compensation: None,
        }),
        Err(error) => Failure::permanent(format!("the result is no JSON: {error}")).into_message(),
    }
}

/// What a revert of this task will be given, byte for byte.
pub(crate) fn kept(input: &Bytes, result: &Bytes) -> Bytes {
    let parts: [&[u8]; 5] = [
        br#"{"originalTask":"#,
        input,
        br#","taskResult":"#,
        result,
        b"}",
    ];
    parts.concat().into()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::task::About;

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Question {
        /// What is asked.
        text: String,
        #[serde(default)]
        times: Option<u32>,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Answer {
        said: String,
    }

    fn echo() -> Service<Question, Answer> {
        Service::new(
            "echo",
            "Says it again",
            |task: Task, question: Question| async move {
                if question.text.is_empty() {
                    return Err(task.abort("nothing to say"));
                }
                Ok(Answer {
                    said: question.text,
                })
            },
        )
    }

    fn task() -> Task {
        Task {
            key: "k".into(),
            about: Arc::new(About {
                id: "task1".into(),
                execution_id: "e_1".into(),
                attempt: 1,
                timeout: None,
                heartbeat_every: None,
                heartbeat_details: Bytes::new(),
            }),
            reports: mpsc::unbounded_channel().0,
            canceled: watch::channel(false).1,
        }
    }

    #[test]
    fn schemas_come_from_the_types_with_their_documentation() {
        let open = echo().erased().open;
        let input: Value = serde_json::from_slice(&open.input_schema).unwrap();
        assert_eq!(input["type"], "object");
        assert_eq!(input["properties"]["text"]["description"], "What is asked.");
        assert_eq!(input["required"], serde_json::json!(["text"]));
        assert!(!open.revertible);
    }

    #[tokio::test]
    async fn handlers_are_typed_and_their_ends_are_messages() {
        let execute = echo().erased().execute;
        let Message::Completed(done) = execute(task(), r#"{"text":"hi"}"#.into()).await else {
            panic!("not completed")
        };
        assert_eq!(&done.result[..], br#"{"said":"hi"}"#);
        let Message::Aborted(aborted) = execute(task(), r#"{"text":""}"#.into()).await else {
            panic!("not aborted")
        };
        assert_eq!(&aborted.payload[..], br#""nothing to say""#);
        let Message::Failed(failed) = execute(task(), "{}".into()).await else {
            panic!("not failed")
        };
        assert!(
            failed.permanent && failed.error.contains("text"),
            "{failed:?}"
        );
    }

    #[tokio::test]
    async fn a_revert_sees_the_input_and_the_output() {
        let service = echo().revert(
            |undo: Undo, question: Question, answer: Answer| async move {
                assert_eq!(undo.context.orchestration_id, "o_1");
                if question.text == answer.said {
                    Ok(Reverted::Completed)
                } else {
                    Err(Failure::new("not mine"))
                }
            },
        );
        let service = service.erased();
        assert!(service.open.revertible);
        let revert = service.revert.unwrap();
        let context = Bytes::from(r#"{"orchestrationId":"o_1","reason":"failed"}"#);
        let both = kept(&r#"{"text":"hi"}"#.into(), &r#"{"said":"hi"}"#.into());
        let Message::Reverted(undone) = revert(task(), both, context.clone()).await else {
            panic!("not reverted")
        };
        assert_eq!(undone.status(), wire::RevertStatus::Completed);
        let other = kept(&r#"{"text":"hi"}"#.into(), &r#"{"said":"ho"}"#.into());
        assert!(
            matches!(revert(task(), other, context.clone()).await, Message::Failed(failed) if !failed.permanent)
        );
        assert!(
            matches!(revert(task(), "{}".into(), context).await, Message::Failed(failed) if failed.permanent)
        );
    }
}
