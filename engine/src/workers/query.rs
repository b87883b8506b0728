//! What workers can be searched by, in the query language of listings.

use std::sync::LazyLock;

use orchestrion_history::wire::instant;
use orchestrion_proto::temporal::api::enums::v1::WorkerStatus;
use orchestrion_proto::temporal::api::worker::v1::WorkerHeartbeat;

use crate::visibility::query::Fields;
use crate::visibility::{Attribute, Catalogue, Filter, Query, QueryError, Value, ValueType};

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    use ValueType::{Datetime, Keyword};
    Catalogue::of_other([
        ("WorkerInstanceKey", Keyword),
        ("WorkerIdentity", Keyword),
        ("HostName", Keyword),
        ("TaskQueue", Keyword),
        ("DeploymentName", Keyword),
        ("BuildId", Keyword),
        ("SdkName", Keyword),
        ("SdkVersion", Keyword),
        ("StartTime", Datetime),
        ("HeartbeatTime", Datetime),
        ("Status", Keyword),
    ])
});

/// What a worker must satisfy; `None` is every worker.
pub fn filter(text: &str) -> Result<Option<Filter>, QueryError> {
    Ok(Query::parse(text, &CATALOGUE)?.filter)
}

/// The name of a status in queries.
fn status_name(status: WorkerStatus) -> &'static str {
    match status {
        WorkerStatus::Unspecified => "Unspecified",
        WorkerStatus::Running => "Running",
        WorkerStatus::ShuttingDown => "ShuttingDown",
        WorkerStatus::Shutdown => "Shutdown",
    }
}

impl Fields for WorkerHeartbeat {
    fn value(&self, attribute: &Attribute) -> Option<Value> {
        let deployment = self.deployment_version.as_ref();
        let text = match attribute.name() {
            "WorkerInstanceKey" => &self.worker_instance_key,
            "WorkerIdentity" => &self.worker_identity,
            "HostName" => &self.host_info.as_ref()?.host_name,
            "TaskQueue" => &self.task_queue,
            "DeploymentName" => &deployment?.deployment_name,
            "BuildId" => &deployment?.build_id,
            "SdkName" => &self.sdk_name,
            "SdkVersion" => &self.sdk_version,
            "StartTime" => return Some(Value::Datetime(instant(self.start_time.as_ref()?))),
            "HeartbeatTime" => {
                return Some(Value::Datetime(instant(self.heartbeat_time.as_ref()?)));
            }
            "Status" => return Some(Value::Keyword(status_name(self.status()).to_owned())),
            _ => return None,
        };
        (!text.is_empty()).then(|| Value::Keyword(text.clone()))
    }
}
