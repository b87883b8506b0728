//! Who runs workflow code and activities: this program's own thin worker, or one on Temporal's Rust SDK as it is published.

use std::process::{Command, Stdio};

use crate::process::{Owned, first_line};
use crate::stage::Stage;
use crate::temporal::QUEUE;
use crate::{Plan, Result};

/// A worker over the Temporal API.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Staff {
    /// `load temporal-worker`.
    Thin,
    /// `tests/temporal/rust`, its program `worker` (`setup/temporal-rust.sh --release`), with the SDK's own settings.
    Sdk,
}

/// What a workflow does.
#[derive(Clone, Copy)]
pub enum Work {
    /// One activity.
    One,
    /// One that may take two seconds.
    Brief,
    /// Ten, one after the other.
    Ten,
    /// A hundred at once.
    Hundred,
    /// A timer of 30 s.
    Sleep,
    /// One of 100 s.
    LongSleep,
}

/// A workflow type, and what its result is made of.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub result: ResultShape,
}

/// A result, of the text that the workflow was given.
#[derive(Clone, Copy)]
pub enum ResultShape {
    Text,
    /// The text so many times.
    Texts(usize),
    /// The text, and by how many microseconds its timer was late.
    TextAndLateness,
}

impl Staff {
    pub async fn start(self, plan: &Plan, stage: &Stage, work: Work) -> Result<Owned> {
        let Self::Sdk = self else {
            let seconds = match work {
                Work::Brief => "2",
                _ => "30",
            };
            let url = stage.grpc();
            return Owned::role(&["temporal-worker", &url, "--activity-seconds", seconds]);
        };
        let program = plan.sdk_worker.as_ref().ok_or(
            "the worker on Temporal's SDK is not there: build it with `setup/temporal-rust.sh --release`, name it with --sdk-worker",
        )?;
        let url = stage.grpc();
        let mut command = Command::new(program);
        command
            .args(["--address", url.trim_start_matches("http://")])
            .args(["--queue", QUEUE])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut worker = Owned::spawn(command)?;
        let output = worker.output().ok_or("the worker has no output")?;
        first_line(output).await?;
        Ok(worker)
    }

    /// The type that does it.
    pub fn kind(self, work: Work) -> Kind {
        use ResultShape::{Text, TextAndLateness, Texts};
        let (thin, sdk, result) = match work {
            Work::One => ("sequence-1", "OneActivity", Text),
            Work::Brief => ("sequence-1", "OneBriefActivity", Text),
            Work::Ten => ("sequence-10", "TenActivities", Text),
            Work::Hundred => ("parallel-100", "HundredActivities", Texts(100)),
            Work::Sleep => ("sleep-30", "Sleeps", TextAndLateness),
            Work::LongSleep => ("sleep-100", "SleepsLong", TextAndLateness),
        };
        let name = match self {
            Self::Thin => thin,
            Self::Sdk => sdk,
        };
        Kind { name, result }
    }
}
