//! One engine on a data folder of its own, and who works for it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::Http;
use crate::process::{Owned, bytes_in, first_line};
use crate::{Plan, Result};

/// An engine, and what is known of it.
pub struct Stage {
    pub folder: TempDir,
    pub engine: Owned,
    program: PathBuf,
    http_port: u16,
    grpc_port: u16,
    /// Resident memory before the first request, MB.
    pub idle: f64,
    /// From its start until it answered.
    pub ready_after: Duration,
}

/// A tenant of the engine: its namespace, and the key to it.
pub struct Project {
    pub id: String,
    pub key: String,
}

/// An engine's data, not open.
pub fn folder() -> Result<TempDir> {
    Ok(tempfile::tempdir()?)
}

impl Stage {
    pub async fn set(plan: &Plan) -> Result<Self> {
        Self::over(plan, folder()?).await
    }

    /// On data that is there already.
    pub async fn over(plan: &Plan, folder: TempDir) -> Result<Self> {
        let ports = [
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
        ];
        let [http_port, grpc_port] = [ports[0].local_addr()?.port(), ports[1].local_addr()?.port()];
        drop(ports);
        let began = Instant::now();
        let engine = start(&plan.engine, folder.path(), http_port, grpc_port).await?;
        let ready_after = began.elapsed();
        let idle = engine.resident()?;
        Ok(Self {
            folder,
            engine,
            program: plan.engine.clone(),
            http_port,
            grpc_port,
            idle,
            ready_after,
        })
    }

    pub fn http(&self) -> String {
        format!("127.0.0.1:{}", self.http_port)
    }

    pub fn grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc_port)
    }

    /// Kills the engine and starts it again at once.
    pub async fn crash(&mut self) -> Result<()> {
        self.engine.kill()?;
        self.engine = start(
            &self.program,
            self.folder.path(),
            self.http_port,
            self.grpc_port,
        )
        .await?;
        Ok(())
    }

    /// Ends the engine in order; the bytes that it leaves on disk.
    pub async fn end(&mut self) -> Result<u64> {
        self.engine.stop().await?;
        bytes_in(self.folder.path())
    }

    /// A project of its own.
    pub async fn project(&self) -> Result<Project> {
        let mut http = Http::connect(&self.http()).await?;
        let project = http
            .post("/register/project", None, &json!({"name": "load"}))
            .await?;
        Ok(Project {
            id: text(&project, "id")?,
            key: text(&project, "apiKey")?,
        })
    }

    /// Registers a service that takes and gives `{"text": ...}`, and takes another text beside it.
    pub async fn service(&self, key: &str, name: &str) -> Result<String> {
        let letters = json!({"type": "string"});
        let input = json!({
            "type": "object",
            "properties": {"text": letters, "other": letters},
            "required": ["text"],
        });
        let output = json!({
            "type": "object",
            "properties": {"text": letters},
            "required": ["text"],
        });
        let service = json!({
            "name": name,
            "description": format!("Gives back a text, as {name}"),
            "schema": {"input": input, "output": output},
            "revertible": false,
            "version": 0,
        });
        let mut http = Http::connect(&self.http()).await?;
        let service = http.post("/register/service", Some(key), &service).await?;
        text(&service, "id")
    }
}

fn text(value: &Value, name: &str) -> Result<String> {
    let text = value[name].as_str().map(str::to_owned);
    text.ok_or_else(|| format!("{name} is missing in {value}").into())
}

async fn start(program: &Path, folder: &Path, http: u16, grpc: u16) -> Result<Owned> {
    let mut command = Command::new(program);
    command
        .arg("dev")
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args(["--http-addr", &format!("127.0.0.1:{http}")])
        .args(["--grpc-addr", &format!("127.0.0.1:{grpc}")])
        .env("ORCHESTRION_LOG_LEVEL", "warn")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut engine = Owned::spawn(command)?;
    let output = engine.output().ok_or("the engine has no output")?;
    // It announces itself once its listeners answer.
    first_line(output).await?;
    Ok(engine)
}
