//! One engine process: started on free ports and a data folder of its own, stopped as a test wants it.
//!
//! Its log is kept in a file and shown when the test fails.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::settings::Settings;
use crate::wait::{until, until_some};

const LOG_LINES_SHOWN: usize = 80;

/// A running engine, or one between two runs.
pub struct Engine {
    folder: TempDir,
    http_port: u16,
    grpc_port: u16,
    mode: &'static str,
    env: Vec<(String, String)>,
    process: Option<Child>,
    /// Speaks to it.
    pub http: reqwest::Client,
}

/// How an engine is to be started.
pub struct Launch {
    mode: &'static str,
    settings: Settings,
    env: Vec<(String, String)>,
}

impl Launch {
    /// `orchestrion dev` with scaled settings.
    pub fn dev() -> Self {
        Self {
            mode: "dev",
            settings: Settings::quick(),
            env: Vec::new(),
        }
    }

    /// `orchestrion dev` with its real constants of time.
    pub fn unscaled() -> Self {
        Self {
            settings: Settings::none(),
            ..Self::dev()
        }
    }

    /// `orchestrion server` with scaled settings.
    pub fn server() -> Self {
        Self {
            mode: "server",
            ..Self::dev()
        }
    }

    /// Changes one setting of the settings file.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings = self.settings.set(key, value);
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Starts it and waits until it answers.
    pub async fn start(self) -> Engine {
        let mut engine = self.prepare();
        engine.restart().await;
        engine
    }

    /// Chooses ports and writes the settings; nothing runs yet.
    pub fn prepare(self) -> Engine {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("settings.toml"), self.settings.to_toml()).unwrap();
        let (http_port, grpc_port) = free_ports();
        Engine {
            folder,
            http_port,
            grpc_port,
            mode: self.mode,
            env: self.env,
            process: None,
            http: http_client(),
        }
    }
}

impl Engine {
    /// `orchestrion dev` with scaled settings, answering.
    pub async fn start() -> Self {
        Launch::dev().start().await
    }

    /// Where its HTTP API is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// Where its gRPC API is.
    pub fn grpc_address(&self) -> String {
        format!("127.0.0.1:{}", self.grpc_port)
    }

    /// A folder that lives as long as this engine's data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// From its next start on it has these in its environment, and nothing of what it was launched with.
    pub fn set_env(&mut self, env: Vec<(&'static str, String)>) {
        let named = env
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        self.env = named.collect();
    }

    /// Starts it on the same data and ports, without waiting for it.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the engine already runs");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        self.process = Some(
            self.command(self.http_port, self.grpc_port)
                .stderr(log)
                .spawn()
                .unwrap(),
        );
    }

    /// The command that starts this engine, for a second one on the same data.
    pub fn command(&self, http_port: u16, grpc_port: u16) -> Command {
        let mut command = Command::new(engine_binary());
        command
            .arg(self.mode)
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--http-addr")
            .arg(format!("127.0.0.1:{http_port}"))
            .arg("--grpc-addr")
            .arg(format!("127.0.0.1:{grpc_port}"))
            .arg("--config")
            .arg(self.folder().join("settings.toml"))
            .current_dir(self.folder())
            .env("HOME", self.folder())
            .env_remove("PORT")
            .env("NO_PROXY", "127.0.0.1")
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Starts it on the same data and ports and waits until it answers.
    pub async fn restart(&mut self) {
        self.spawn();
        let (http, url) = (self.http.clone(), format!("{}/health", self.url()));
        until("the engine to answer /health", || {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none(),
                "the engine ended while starting: {ended:?}"
            );
            let request = http.get(&url).send();
            async move {
                request
                    .await
                    .is_ok_and(|answer| answer.status().is_success())
                    .then_some(())
            }
        })
        .await;
    }

    /// Of the process that runs now.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the engine runs").id()
    }

    /// kill -9, and gone when this returns.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the engine runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// kill -9 and a start on the same data.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        self.restart().await;
    }

    /// Asks it to stop, as a service manager does.
    pub fn send_sigterm(&self) {
        self.signal("-TERM");
    }

    /// Sends it a signal, by its name.
    pub fn signal(&self, name: &str) {
        let id = self.pid();
        // Not every machine has the program `kill`; every shell has the word.
        let sent = Command::new("sh")
            .arg("-c")
            .arg(format!("kill {name} {id}"))
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(&mut self) -> ExitStatus {
        self.send_sigterm();
        self.ended().await
    }

    /// Waits until the process has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the engine runs");
        until_some("the engine process to end", || process.try_wait().unwrap()).await
    }

    /// What it has logged, of all its runs.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Any route, unauthenticated; status and body (null if there is none).
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        read(self.http.post(format!("{}{path}", self.url())).json(body)).await
    }

    fn log_path(&self) -> PathBuf {
        self.folder().join("engine.log")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!(
                "--- the engine's log, last {} lines ---\n{}",
                lines.len() - from,
                lines[from..].join("\n")
            );
        }
    }
}

/// A client that asks this machine only: no proxy, no certificates.
fn http_client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap()
}

/// Sends a request: status and body, null where there is no JSON.
pub async fn read(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("the engine answers");
    let status = answer.status().as_u16();
    let body = answer.bytes().await.expect("the whole body arrives");
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// Two ports that were free a moment ago.
pub fn free_ports() -> (u16, u16) {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (one, other) = (free(), free());
    (
        one.local_addr().unwrap().port(),
        other.local_addr().unwrap().port(),
    )
}

/// The engine under test: `ORCHESTRION_BIN`, or the one that Cargo built beside this test.
pub fn engine_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("ORCHESTRION_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let built = test
        .ancestors()
        .skip(1)
        .map(|folder| folder.join("orchestrion"))
        .find(|path| path.is_file());
    built.expect("no engine to test: run `cargo build -p orchestrion`, or set ORCHESTRION_BIN")
}
