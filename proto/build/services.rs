//! The traits of Temporal's services, over the messages of `temporalio-protos`.
//!
//! Responses that carry a history are our own copies (package `orchestrion.wire`), in which the field `history` is declared as bytes
//! of the same number: stored events are served as they are. The services are patched to answer with the copies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

use crate::{Result, out_dir, temporal_descriptors};

const SERVED: [&str; 3] = [
    "temporal.api.workflowservice.v1",
    "temporal.api.operatorservice.v1",
    "grpc.health.v1",
];
const SOURCE: &str = ".temporal.api.workflowservice.v1.";
const COPIES: &str = "orchestrion.wire";
const COPIED: [&str; 4] = [
    "GetWorkflowExecutionHistoryResponse",
    "PollWorkflowTaskQueueResponse",
    "RespondWorkflowTaskCompletedResponse",
    "StartWorkflowExecutionResponse",
];
const EXTERN: [(&str, &str); 6] = [
    (".temporal.api", "::temporalio_protos::temporal::api"),
    (".grpc.health", "::temporalio_protos::grpc::health"),
    (".google.protobuf.Timestamp", "::prost_wkt_types::Timestamp"),
    (".google.protobuf.Duration", "::prost_wkt_types::Duration"),
    // Reached by nothing that is generated.
    (".coresdk", "::temporalio_protos::coresdk"),
    (".google.rpc", "::temporalio_protos::google::rpc"),
];

pub fn generate(worker: &FileDescriptorSet) -> Result<()> {
    let temporal = FileDescriptorSet::decode(temporal_descriptors()?.as_slice())?;
    reflection(&temporal, worker)?;

    let mut files = temporal;
    files.file.retain(|file| {
        let package = file.package();
        package.starts_with("temporal.api") && !package.starts_with("temporal.api.cloud")
            || package.starts_with("grpc.")
            || package == "google.protobuf"
    });
    for file in &mut files.file {
        if !SERVED.contains(&file.package()) {
            file.service.clear();
        }
    }
    let copies = copies(&files)?;
    let mut with_copies = files.clone();
    for file in &mut with_copies.file {
        file.service.clear();
    }
    with_copies.file.push(copies);
    let mut config = prost_build::Config::new();
    config.out_dir(out_dir("wire")?).bytes(["."]);
    for (proto, rust) in EXTERN {
        config.extern_path(proto, rust);
    }
    config.compile_fds(with_copies)?;

    for file in &mut files.file {
        for method in file
            .service
            .iter_mut()
            .flat_map(|service| &mut service.method)
        {
            if let Some(copy) = method.output_type.as_deref().and_then(copy_of) {
                method.output_type = Some(copy);
            }
        }
    }
    let mut builder = tonic_prost_build::configure()
        .build_server(true)
        .build_client(false)
        .build_transport(false)
        .generate_default_stubs(true)
        .out_dir(out_dir("services")?)
        .extern_path(format!(".{COPIES}"), "crate::wire");
    for (proto, rust) in EXTERN {
        builder = builder.extern_path(proto, rust);
    }
    builder.compile_fds(files)?;
    Ok(())
}

/// The path of our copy, for the path of a type that has one.
fn copy_of(path: &str) -> Option<String> {
    let name = path.strip_prefix(SOURCE)?;
    let message = name.split('.').next()?;
    COPIED
        .contains(&message)
        .then(|| format!(".{COPIES}.{name}"))
}

fn copies(files: &FileDescriptorSet) -> Result<FileDescriptorProto> {
    let source = files
        .file
        .iter()
        .find(|file| {
            file.message_type
                .iter()
                .any(|message| message.name() == COPIED[0])
        })
        .ok_or("temporalio-protos has no GetWorkflowExecutionHistoryResponse any more")?;
    let mut messages = Vec::new();
    for name in COPIED {
        let mut message = source
            .message_type
            .iter()
            .find(|message| message.name() == name)
            .ok_or_else(|| format!("temporalio-protos has no {name} any more"))?
            .clone();
        repoint(&mut message);
        messages.push(message);
    }
    let histories = messages
        .iter()
        .flat_map(|message| &message.field)
        .filter(|field| field.name() == "history" && field.r#type() == Type::Bytes);
    if histories.count() != 2 {
        return Err(
            "the responses that carry a history are not the ones this build knows: look at COPIED"
                .into(),
        );
    }
    Ok(FileDescriptorProto {
        name: Some("orchestrion/wire.proto".to_owned()),
        package: Some(COPIES.to_owned()),
        dependency: source.dependency.clone(),
        syntax: source.syntax.clone(),
        message_type: messages,
        ..Default::default()
    })
}

fn repoint(message: &mut DescriptorProto) {
    for field in &mut message.field {
        let Some(path) = field.type_name.clone() else {
            continue;
        };
        if path == ".temporal.api.history.v1.History" {
            field.set_type(Type::Bytes);
            field.type_name = None;
            // An empty history is another thing than none.
            field.proto3_optional = Some(true);
        } else if let Some(copy) = copy_of(&path) {
            field.type_name = Some(copy);
        }
    }
    message.nested_type.iter_mut().for_each(repoint);
}

/// What server reflection shows: the services as their clients know them, and all they refer to, without comments.
fn reflection(temporal: &FileDescriptorSet, worker: &FileDescriptorSet) -> Result<()> {
    let all: BTreeMap<&str, &FileDescriptorProto> = temporal
        .file
        .iter()
        .chain(&worker.file)
        .map(|file| (file.name(), file))
        .collect();
    let mut wanted: Vec<&str> = all
        .values()
        .filter(|file| {
            !file.service.is_empty()
                && (SERVED.contains(&file.package()) || file.package() == "orchestrion.v1")
        })
        .map(|file| file.name())
        .collect();
    let mut shown = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if shown.insert(name)
            && let Some(file) = all.get(name)
        {
            wanted.extend(file.dependency.iter().map(String::as_str));
        }
    }
    let set = FileDescriptorSet {
        file: shown
            .into_iter()
            .filter_map(|name| all.get(name))
            .map(|file| FileDescriptorProto {
                source_code_info: None,
                ..(*file).clone()
            })
            .collect(),
    };
    fs::write(
        out_dir("services")?.join("reflection.bin"),
        set.encode_to_vec(),
    )?;
    Ok(())
}
