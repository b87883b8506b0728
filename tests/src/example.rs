//! An example of `worker-sdk/python/examples`, run as its own first lines say, and the commands that stand there.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::project::Project;
use crate::py_service::python;
use crate::wait::until;

/// A running example, or one between two runs. Its folder is its working directory, and outlives the process.
pub struct Example {
    folder: TempDir,
    script: PathBuf,
    project: Project,
    services: Vec<String>,
    env: Vec<(String, String)>,
    process: Option<Child>,
}

impl Example {
    /// Starts `<name>.py` and waits until its services are connected.
    pub async fn start(project: &Project, name: &str, services: &[&str]) -> Self {
        Self::start_with(project, name, services, &[]).await
    }

    /// The same with environment variables.
    pub async fn start_with(
        project: &Project,
        name: &str,
        services: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let mut example = Self {
            folder: tempfile::tempdir().unwrap(),
            script: folder().join(format!("{name}.py")),
            project: project.clone(),
            services: services.iter().map(|&name| name.to_owned()).collect(),
            env: env
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            process: None,
        };
        example.restart().await;
        example
    }

    /// Starts it again in the same folder, and waits until its services are connected.
    pub async fn restart(&mut self) {
        assert!(self.process.is_none(), "the example already runs");
        let file = |name| {
            File::options()
                .create(true)
                .append(true)
                .open(self.folder.path().join(name))
                .unwrap()
        };
        let process = Command::new(python())
            .arg("-B")
            .arg(&self.script)
            .current_dir(self.folder.path())
            .env("NO_PROXY", "127.0.0.1")
            .env("ENGINE_URL", &self.project.url)
            .env("ENGINE_KEY", &self.project.key)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap();
        self.process = Some(process);
        until("the example's services to connect", || {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{} ended: {ended:?}",
                self.script.display()
            );
            self.are_connected()
        })
        .await;
    }

    fn are_connected(&self) -> impl Future<Output = Option<()>> + use<> {
        let (project, services) = (self.project.clone(), self.services.clone());
        async move {
            let listed = project.get("/services").await;
            let connected = |name: &String| {
                listed.as_array().is_some_and(|listed| {
                    listed
                        .iter()
                        .any(|service| service["name"] == **name && service["healthy"] == true)
                })
            };
            services.iter().all(connected).then_some(())
        }
    }

    /// kill -9, and gone when this returns and the engine knows.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("the example runs");
        process.kill().unwrap();
        process.wait().unwrap();
        until("the engine to see it go", || {
            let connected = self.are_connected();
            async move { connected.await.is_none().then_some(()) }
        })
        .await;
    }

    /// What it printed, of all its runs.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("out")).unwrap_or_default()
    }

    /// The `orchestrion` commands of its first lines, as a shell takes them.
    pub fn commands(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.script).unwrap();
        let first_lines = text.split("\"\"\"").nth(1).expect("it opens with its text");
        // Within Python's quotes a backslash is written twice.
        let joined = first_lines.replace("\\\\\n", " ");
        let lines = joined.lines().map(str::trim);
        lines
            .filter(|line| line.starts_with("orchestrion "))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let err = fs::read_to_string(self.folder.path().join("err")).unwrap_or_default();
            eprintln!("--- {} ---\n{}{err}", self.script.display(), self.said());
        }
    }
}

/// Where the examples are.
pub fn folder() -> PathBuf {
    crate::root().join("worker-sdk/python/examples")
}
