//! The files of `docker/` against what they speak of: the Makefile's commands, the binary's flags, settings and health check.
//!
//! No container engine is needed: the lines are read, and those that the container runs are run.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use orchestrion_tests::engine::{engine_binary, free_ports};
use orchestrion_tests::root;
use orchestrion_tests::wait::until_some;
use serde_json::Value;

/// Where the program is in the image.
const PROGRAM: &str = "/usr/local/bin/orchestrion";

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The instructions of the Dockerfile: name and rest, continued lines joined.
struct Dockerfile(Vec<(String, String)>);

impl Dockerfile {
    fn read() -> Self {
        let text = read("docker/Dockerfile");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
        let instructions = joined.lines().filter_map(|line| {
            let (name, rest) = line.trim().split_once(' ')?;
            Some((name.to_owned(), rest.trim().to_owned()))
        });
        Self(instructions.collect())
    }

    /// What stands behind each instruction of this name.
    fn all(&self, name: &str) -> Vec<&str> {
        let found = self.0.iter().filter(|(known, _)| known == name);
        found.map(|(_, rest)| rest.as_str()).collect()
    }

    fn only(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name}: {all:?}");
        all[0]
    }

    /// A command as an array of words.
    fn words(&self, name: &str) -> Vec<String> {
        let text = self.only(name);
        let (_, array) = text
            .split_once('[')
            .expect("a command is an array: there is no shell");
        serde_json::from_str(&format!("[{array}")).unwrap()
    }
}

fn compose() -> Value {
    serde_saphyr::from_str(&read("docker/compose.yaml")).unwrap()
}

/// `${NAME:-default}` without its default.
fn variable(text: &str) -> Option<&str> {
    text.strip_prefix("${")?.split([':', '}']).next()
}

/// The process is gone when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_container_starts_answers_its_health_check_and_stops() {
    let dockerfile = Dockerfile::read();
    assert_eq!(dockerfile.words("ENTRYPOINT"), [PROGRAM]);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (http, grpc) = free_ports();
    let here = |word: &String| {
        word.replace("0.0.0.0:8005", &format!("127.0.0.1:{http}"))
            .replace("127.0.0.1:8005", &format!("127.0.0.1:{http}"))
            .replace("0.0.0.0:7233", &format!("127.0.0.1:{grpc}"))
            .replace("/data", data.to_str().unwrap())
    };
    let health: Vec<String> = dockerfile.words("HEALTHCHECK").iter().map(here).collect();
    assert_eq!(health[0], PROGRAM);
    let check = || -> Output {
        let mut command = Command::new(engine_binary());
        // A container without a home has no configuration.
        command.args(&health[1..]).env_remove("HOME");
        command.output().unwrap()
    };
    let nobody = check();
    assert_eq!(nobody.status.code(), Some(3), "{nobody:?}");

    let mut command = Command::new(engine_binary());
    command
        .args(dockerfile.words("CMD").iter().map(here))
        .current_dir(folder.path())
        .env_remove("HOME")
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // As compose.yaml sets them where docker/.env says nothing but the admin key.
    let service = &compose()["services"]["orchestrion"];
    for (name, value) in service["environment"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        assert_eq!(variable(value), Some(name.as_str()), "{value}");
        let default = value
            .split_once(":-")
            .map(|(_, rest)| rest.trim_end_matches('}'));
        command.env(name, default.unwrap_or("an-admin-key-of-enough-letters"));
    }
    let mut engine = Running(command.spawn().unwrap());
    until_some("the health check to succeed", || {
        assert_eq!(engine.0.try_wait().unwrap(), None, "the engine ended");
        check().status.success().then_some(())
    })
    .await;
    assert!(data.is_dir(), "its data is in the volume");

    assert_eq!(dockerfile.only("STOPSIGNAL"), "SIGTERM");
    let stop = format!("kill -TERM {}", engine.0.id());
    assert!(
        Command::new("sh")
            .args(["-c", &stop])
            .status()
            .unwrap()
            .success()
    );
    let ended = until_some("the engine to stop", || engine.0.try_wait().unwrap()).await;
    assert!(ended.success(), "{ended}");
}

#[test]
fn the_image_is_built_as_make_builds_it() {
    let (dockerfile, makefile) = (Dockerfile::read(), read("Makefile"));
    let runs = dockerfile.all("RUN").join(" && ");
    let targets: Vec<&str> = runs
        .split("&&")
        .filter_map(|run| run.trim().strip_prefix("make "))
        .collect();
    assert_eq!(targets, ["release"]);
    let target = makefile
        .split("\nrelease: ")
        .nth(1)
        .expect("the Makefile has a target release");
    let recipe = target.split("\n\n").next().unwrap();
    assert!(
        recipe.contains("cargo build --release --locked"),
        "{recipe}"
    );
    // What it says at its end is where the Dockerfile takes it from.
    assert!(recipe.contains("$$CARGO_TARGET_DIR/release/orchestrion"));
    let cache = dockerfile
        .only("ENV")
        .strip_prefix("ORCHESTRION_CACHE=")
        .unwrap();
    assert!(
        runs.contains(&format!("{cache}/target/release/orchestrion")),
        "{runs}"
    );
    assert!(read("setup/env.sh").contains("CARGO_TARGET_DIR:-$ORCHESTRION_CACHE/target"));
    // Both prepare the machine by the same command.
    let prepare = "setup/setup.sh --build-only";
    assert!(runs.contains(prepare) && recipe.contains(prepare));
    let refused = Command::new(root().join("setup/setup.sh"))
        .arg("--none")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--build-only"));

    let from = dockerfile.all("FROM");
    let manifest = read("Cargo.toml");
    let rust = manifest
        .split("rust-version = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert_eq!(from[0], format!("rust:{rust}-bookworm AS build"));
    assert!(
        from.len() == 2 && from[1].contains("debian12:nonroot"),
        "what was linked on one Debian runs on the same: {from:?}"
    );
}

#[test]
fn what_the_build_needs_is_copied_and_nothing_else() {
    let dockerfile = Dockerfile::read();
    let ignored = read(".dockerignore");
    let allowed: BTreeSet<&str> = ignored
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    assert!(ignored.lines().any(|line| line == "*"));
    let mut copied = BTreeSet::new();
    for copy in dockerfile.all("COPY") {
        if copy.starts_with("--from=") {
            continue;
        }
        let words: Vec<&str> = copy.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            assert!(root().join(source).exists(), "{source} is not there");
            copied.insert(*source);
        }
    }
    assert_eq!(
        copied, allowed,
        "left is the Dockerfile, right is .dockerignore"
    );
    // A workspace is not built without all its members.
    let manifest = read("Cargo.toml");
    let members = manifest
        .split("members = [")
        .nth(1)
        .unwrap()
        .split(']')
        .next()
        .unwrap();
    for member in members.split(',') {
        let member = member.trim().trim_matches('"');
        // A member may live in the folder of another one.
        let mut folders = Path::new(member).ancestors();
        assert!(
            folders.any(|folder| copied.contains(folder.to_str().unwrap())),
            "the Dockerfile does not copy {member}"
        );
    }
}

#[test]
fn nobody_is_root_and_only_the_volume_is_written() {
    let dockerfile = Dockerfile::read();
    let user = dockerfile.only("USER");
    let id: u32 = user
        .split(':')
        .next()
        .unwrap()
        .parse()
        .expect("a number: it can be checked");
    assert!(id > 0);
    let owned = format!("--chown={user} /out/data /data");
    assert!(
        dockerfile
            .all("COPY")
            .iter()
            .any(|copy| copy.contains(&owned))
    );
    assert_eq!(dockerfile.words("VOLUME"), ["/data"]);
    let command = dockerfile.words("CMD");
    let after = |flag: &str| {
        let at = command.iter().position(|word| word == flag).unwrap();
        command[at + 1].clone()
    };
    assert_eq!(after("--data-dir"), "/data");
    assert_eq!(command[0], "server", "what others reach asks for a key");
    let ports = ["--http-addr", "--grpc-addr"]
        .map(|flag| after(flag).split(':').nth(1).unwrap().to_owned());
    assert_eq!(dockerfile.only("EXPOSE"), ports.join(" "));

    let service = &compose()["services"]["orchestrion"];
    assert_eq!(service["read_only"], true);
    assert_eq!(service["volumes"], serde_json::json!(["data:/data"]));
    assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]));
    let published: Vec<&str> = service["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port.as_str().unwrap())
        .collect();
    let expected: Vec<String> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}:{port}"))
        .collect();
    assert_eq!(published, expected);
    assert!(
        root()
            .join("docker")
            .join(service["build"]["context"].as_str().unwrap())
            .join(service["build"]["dockerfile"].as_str().unwrap())
            .is_file()
    );
}

#[test]
fn compose_and_its_example_name_settings_that_there_are() {
    let known: BTreeSet<String> = orchestrion::config::variables().collect();
    let service = &compose()["services"]["orchestrion"];
    let environment = service["environment"].as_object().unwrap();
    for name in environment.keys() {
        assert!(known.contains(name), "{name} is no setting's variable");
    }
    let example = read("docker/example.env");
    let named: BTreeSet<&str> = example
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    let passed: BTreeSet<&str> = environment.keys().map(String::as_str).collect();
    assert_eq!(named, passed, "left is example.env, right is compose.yaml");
    assert!(
        read(".gitignore")
            .lines()
            .any(|line| line == "/docker/.env")
    );
}
