//! The documents against the product: the commands of the quick start are run, metrics are those of the code, links lead somewhere.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use orchestrion_tests::cli::Cli;
use orchestrion_tests::engine::Engine;
use orchestrion_tests::example::Example;
use orchestrion_tests::root;

/// Every document of the repository.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in ["", "docs", "worker-sdk/python/examples"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 15);
    found
}

/// The lines of the blocks in this language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    let blocks = text.split(&opening).skip(1);
    blocks
        .flat_map(|block| {
            block
                .split("```")
                .next()
                .unwrap()
                .replace("\\\n", " ")
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

#[tokio::test]
async fn the_quick_start_does_what_it_says() {
    let text = fs::read_to_string(root().join("docs/quickstart.md")).unwrap();
    let engine = Engine::start().await;
    let cli = Cli::fresh(&engine);
    // As its own blocks have it: a plan, in a file.
    let plan = blocks(&text, "json").join("\n");
    fs::write(cli.home().join("plan.json"), plan).unwrap();
    let (mut id, mut key, mut service) = (String::new(), String::new(), None);
    let commands = blocks(&text, "sh");
    assert!(commands.len() >= 9, "{commands:?}");
    for command in commands {
        let mut line = command.replace("<id>", &id);
        if line.starts_with("orchestrion projects add") {
            // The reader's engine is at the address that is nobody else's here.
            line += &format!(" --server {}", engine.url());
        }
        line = format!("ENGINE_URL={} ENGINE_KEY={key}; {line}", engine.url());
        let said = cli.shell(&line).await;
        assert_eq!(said.code, 0, "{command}: {said:#?}");
        if let Some(made) = said
            .out
            .split_whitespace()
            .find(|word| word.starts_with("sk-orra"))
        {
            made.clone_into(&mut key);
            let project = cli.project_called(&engine, "my-shop").with_key(&key);
            service = Some(Example::start(&project, "service", &["word-counter"]).await);
        }
        if let Some(created) = said
            .out
            .split_whitespace()
            .find(|word| word.starts_with("o_"))
        {
            created.clone_into(&mut id);
        }
        let expected = match &command {
            command if command.contains("services ls") => "word-counter",
            command if command.contains("to be or not to be") => r#""words": 6"#,
            command if command.contains("--plan") => r#""words": 4"#,
            command if command.contains(" ps") => "Completed",
            command if command.contains("replay") => "equals the stored one",
            command if command.contains("curl") => r#""ACCEPTED""#,
            _ => "",
        };
        assert!(said.out.contains(expected), "{command}: {said:#?}");
    }
    assert!(service.is_some() && id.starts_with("o_"));
}

#[tokio::test]
async fn the_readme_does_what_it_says() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let engine = Engine::start().await;
    let cli = Cli::fresh(&engine);
    let here = |line: &str| line.replace("http://localhost:8005", &engine.url());
    let echo = cli.home().join("echo.py");
    fs::write(&echo, here(&blocks(&text, "python").join("\n"))).unwrap();
    let (mut id, mut key, mut running) = (String::new(), String::new(), Vec::new());
    let commands = blocks(&text, "sh");
    assert!(commands.len() >= 10, "{commands:?}");
    for command in commands.iter().filter(|line| !line.starts_with("make ")) {
        let mut line = here(&command.replace("<id>", &id));
        if command.starts_with("orchestrion projects add") {
            line += &format!(" --server {}", engine.url());
        }
        if command.contains("service.py") {
            // It goes on for as long as somebody lets it.
            assert!(command.ends_with(" &"), "{command}");
            let project = cli.project_called(&engine, "my-shop").with_key(&key);
            running.push(Example::start(&project, "service", &["word-counter"]).await);
            let script = echo.with_extension("");
            running.push(Example::start(&project, script.to_str().unwrap(), &["echo"]).await);
            continue;
        }
        let line = format!("export ENGINE_KEY={key}; {line}; echo \"key=$ENGINE_KEY\"");
        let said = cli.shell(&line).await;
        assert_eq!(said.code, 0, "{command}: {said:#?}");
        let (out, now) = said.out.rsplit_once("key=").unwrap();
        now.trim().clone_into(&mut key);
        if let Some(created) = out.split_whitespace().find(|word| word.starts_with("o_")) {
            created.clone_into(&mut id);
        }
        let expected = match command {
            command if command.contains("verify run") => r#""words": 6"#,
            command if command.contains(" ps") => "Completed",
            command if command.contains("inspect") => "Result",
            command if command.contains("replay") => "equals the stored one",
            command if command.contains("curl") => r#""service_name":"echo""#,
            _ => "",
        };
        assert!(out.contains(expected), "{command}: {said:#?}");
    }
    assert!(running.len() == 2 && key.starts_with("sk-orra-") && id.starts_with("o_"));
}

#[test]
fn every_metric_is_in_the_operators_guide_and_no_other() {
    let mut counted = BTreeSet::new();
    let mut open = vec![root().join("engine/src"), root().join("history/src")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            for kind in ["counter!(", "gauge!(", "histogram!("] {
                for call in text.split(kind).skip(1) {
                    let name = call.trim_start().strip_prefix('"').unwrap_or_default();
                    let name = name.split('"').next().unwrap();
                    assert!(
                        name.starts_with("orchestrion_"),
                        "{}: {name}",
                        path.display()
                    );
                    counted.insert(format!("| `{name}` | {} |", &kind[..kind.len() - 2]));
                }
            }
        }
    }
    let guide = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let told: BTreeSet<String> = guide
        .lines()
        .filter(|line| line.starts_with("| `orchestrion_"))
        .map(|line| line.split(" | ").take(2).collect::<Vec<_>>().join(" | ") + " |")
        .collect();
    assert_eq!(
        told, counted,
        "left is docs/operations.md, right is the code"
    );
    // An alert about a metric that is not there never fires.
    for word in blocks(&guide, "yaml")
        .join(" ")
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
    {
        if word.starts_with("orchestrion_") {
            assert!(
                told.iter().any(|row| row.contains(&format!("`{word}`"))),
                "{word}"
            );
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for (path, text) in documents() {
        let folder = path.parent().unwrap();
        // Within code a bracket is no link.
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let found = if file.is_empty() {
                path.clone()
            } else {
                folder.join(file)
            };
            assert!(found.exists(), "{}: {target} leads nowhere", path.display());
            if !place.is_empty() {
                let text = fs::read_to_string(&found).unwrap();
                let there = text
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| anchor(line) == place);
                assert!(there, "{}: {target} names no heading", path.display());
            }
        }
    }
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The README leads to every document: what nobody finds nobody reads.
#[test]
fn the_readme_names_every_document() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for (path, _) in documents() {
        let name = path
            .strip_prefix(root())
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let folder = path
            .parent()
            .unwrap()
            .strip_prefix(root())
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let named =
            readme.contains(&format!("({name})")) || readme.contains(&format!("({folder})"));
        assert!(
            named || name == "README.md",
            "README.md does not link to {name}"
        );
    }
}
