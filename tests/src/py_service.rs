//! A process of services: of `tests/services`, in Python on the unmodified `orra-sdk`, or the example of our Rust SDK that does the same.
//!
//! Its folder outlives the process: identity, memory and log are those of the same service after a restart.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::engine::Engine;
use crate::project::Project;
use crate::wait::until_some;

const LOG_LINES_SHOWN: usize = 40;

/// A running process of services, or one between two runs.
pub struct PyService {
    folder: TempDir,
    script: String,
    /// Where the engine's gRPC API is, for services on the Rust SDK.
    grpc: Option<String>,
    arguments: Vec<String>,
    url: String,
    key: String,
    process: Option<Child>,
}

impl PyService {
    /// Starts `tests/services/<script>.py` and waits until its services are registered.
    pub async fn start(project: &Project, script: &str, arguments: &[&str]) -> Self {
        let mut service = Self::prepare(project, script, arguments);
        service.restart().await;
        service
    }

    /// Starts services of `steps.py`: `name`, or `name+revert`.
    pub async fn steps(project: &Project, names: &[&str]) -> Self {
        Self::start(project, "steps", names).await
    }

    /// Starts the same services on the Rust SDK, over its stream.
    pub async fn rust_steps(project: &Project, engine: &Engine, names: &[&str]) -> Self {
        let mut service = Self::prepare(project, "steps", names);
        service.grpc = Some(format!("http://{}", engine.grpc_address()));
        service.restart().await;
        service
    }

    fn prepare(project: &Project, script: &str, arguments: &[&str]) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            script: script.to_owned(),
            grpc: None,
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            url: project.url.clone(),
            key: project.key.clone(),
            process: None,
        }
    }

    /// Starts the process again, with the identity and the memory it had.
    pub async fn restart(&mut self) {
        assert!(self.process.is_none(), "the services already run");
        let services = if self.script == "steps" {
            self.arguments.len()
        } else {
            1
        };
        let before = self.events("registered").len();
        let folder = crate::root().join("tests/services");
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(self.stderr_path())
            .unwrap();
        let mut command = match &self.grpc {
            Some(url) => {
                let mut command = Command::new(example(&self.script));
                command.env("ENGINE_GRPC", url);
                command
            }
            None => {
                let mut command = Command::new(python());
                command
                    .arg("-B")
                    .arg(folder.join(format!("{}.py", self.script)));
                command
            }
        };
        let process = command
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .env("NO_PROXY", "127.0.0.1")
            .env("ENGINE_URL", &self.url)
            .env("ENGINE_KEY", &self.key)
            .env("SERVICE_HOME", self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        self.process = Some(process);
        until_some("the services to register", || {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{} ended: {ended:?}", self.script);
            (self.events("registered").len() >= before + services).then_some(())
        })
        .await;
    }

    /// kill -9, and gone when this returns.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the services run");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Ends it gracefully, and waits until it has ended.
    pub async fn end(&mut self) -> bool {
        let mut process = self.process.take().expect("the services run");
        drop(process.stdin.take());
        until_some("the services to end", || process.try_wait().unwrap())
            .await
            .success()
    }

    /// The id that the engine gave this service.
    pub fn id(&self, name: &str) -> String {
        let registered = self.events("registered");
        let line = registered
            .iter()
            .rfind(|line| line["service"] == name)
            .expect("the service is registered");
        line["id"].as_str().unwrap().to_owned()
    }

    /// What the services logged under this event, in order.
    pub fn events(&self, event: &str) -> Vec<Value> {
        let mut lines = self.log();
        lines.retain(|line| line["event"] == event);
        lines
    }

    /// The ids of what was logged under this event, in order.
    pub fn ids(&self, event: &str) -> Vec<String> {
        self.events(event)
            .iter()
            .map(|line| line["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The lines of several events, each as `event id`, in order.
    pub fn all(&self, events: &[&str]) -> Vec<String> {
        let text =
            |line: &Value, member: &str| line[member].as_str().unwrap_or_default().to_owned();
        let lines = self
            .log()
            .into_iter()
            .map(|line| (text(&line, "event"), text(&line, "id")));
        let lines = lines.filter(|(event, _)| events.contains(&event.as_str()));
        lines.map(|(event, id)| format!("{event} {id}")).collect()
    }

    /// Waits until this event is logged for this id.
    pub async fn logged(&self, event: &str, id: &str) {
        let what = format!("the services to log {event} of {id}");
        until_some(&what, || {
            self.ids(event).iter().any(|seen| seen == id).then_some(())
        })
        .await;
    }

    fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("log.jsonl")).unwrap_or_default();
        // The last line may be half written.
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    fn stderr_path(&self) -> PathBuf {
        self.folder.path().join("stderr.log")
    }
}

impl Drop for PyService {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let stderr = fs::read_to_string(self.stderr_path()).unwrap_or_default();
            let lines: Vec<&str> = stderr.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("--- {}.py ---", self.script);
            self.log().iter().for_each(|line| eprintln!("{line}"));
            eprintln!("{}", lines[from..].join("\n"));
        }
    }
}

/// An example of the Rust SDK: of `ORCHESTRION_EXAMPLES`, or the one that Cargo built beside this test.
fn example(name: &str) -> PathBuf {
    let beside = || {
        let test = std::env::current_exe().unwrap();
        test.ancestors()
            .skip(1)
            .map(|folder| folder.join("examples"))
            .find(|folder| folder.join(name).is_file())
    };
    let folder = std::env::var_os("ORCHESTRION_EXAMPLES")
        .map(PathBuf::from)
        .or_else(beside);
    folder
        .expect("no services on the Rust SDK: run `cargo build -p orchestrion-worker --examples`")
        .join(name)
}

/// The Python that has `orra-sdk`: of `ORCHESTRION_VENV`, or of the place where `make setup` puts it.
pub fn python() -> PathBuf {
    let venv = std::env::var_os("ORCHESTRION_VENV")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache
                .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
            cache.expect("HOME is set").join("orchestrion/venv")
        });
    let python = venv.join("bin/python");
    assert!(
        python.exists(),
        "no Python with orra-sdk at {}: run `make setup`, or set ORCHESTRION_VENV",
        python.display()
    );
    python
}
