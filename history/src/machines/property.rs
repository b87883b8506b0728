//! What workflow code says of itself: memo, search attributes, markers.
//!
//! ```text
//!  --PropertiesModified | SearchAttributesUpserted--> fields set, or removed by an empty payload
//!  --MarkerRecorded-->                                history only
//! ```

use std::collections::{BTreeMap, HashMap};

use orchestrion_proto::temporal::api::command::v1::{
    ModifyWorkflowPropertiesCommandAttributes, RecordMarkerCommandAttributes,
    UpsertWorkflowSearchAttributesCommandAttributes,
};
use orchestrion_proto::temporal::api::common::v1::Payload;
use orchestrion_proto::temporal::api::enums::v1::{EventType, WorkflowTaskFailedCause};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    MarkerRecordedEventAttributes, UpsertWorkflowSearchAttributesEventAttributes,
    WorkflowPropertiesModifiedEventAttributes,
};

use super::workflow_task::BadCommand;
use super::{Context, search_attributes_fit};
use crate::draft::Draft;
use crate::state::{CarriedPayload, MutableState};

pub(super) fn modify(
    draft: &mut Draft<'_>,
    command: &ModifyWorkflowPropertiesCommandAttributes,
    completed: i64,
) -> Result<(), BadCommand> {
    if command.upserted_memo.is_none() {
        return Err(BadCommand {
            cause: WorkflowTaskFailedCause::BadModifyWorkflowPropertiesAttributes,
            message: "modify workflow properties: the memo is missing".to_owned(),
        });
    }
    draft.event(
        EventType::WorkflowPropertiesModified,
        Attributes::WorkflowPropertiesModifiedEventAttributes(
            WorkflowPropertiesModifiedEventAttributes {
                workflow_task_completed_event_id: completed,
                upserted_memo: command.upserted_memo.clone(),
            },
        ),
    );
    Ok(())
}

pub(super) fn upsert_search_attributes(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    command: &UpsertWorkflowSearchAttributesCommandAttributes,
    completed: i64,
) -> Result<(), BadCommand> {
    if command
        .search_attributes
        .as_ref()
        .is_none_or(|given| given.indexed_fields.is_empty())
    {
        return Err(BadCommand {
            cause: WorkflowTaskFailedCause::BadSearchAttributes,
            message: "upsert search attributes: none are given".to_owned(),
        });
    }
    search_attributes_fit(context, command.search_attributes.as_ref())?;
    draft.event(
        EventType::UpsertWorkflowSearchAttributes,
        Attributes::UpsertWorkflowSearchAttributesEventAttributes(
            UpsertWorkflowSearchAttributesEventAttributes {
                workflow_task_completed_event_id: completed,
                search_attributes: command.search_attributes.clone(),
            },
        ),
    );
    Ok(())
}

pub(super) fn record_marker(
    draft: &mut Draft<'_>,
    command: &RecordMarkerCommandAttributes,
    completed: i64,
) -> Result<(), BadCommand> {
    if command.marker_name.is_empty() {
        return Err(BadCommand {
            cause: WorkflowTaskFailedCause::BadRecordMarkerAttributes,
            message: "record marker: its name is empty".to_owned(),
        });
    }
    draft.event(
        EventType::MarkerRecorded,
        Attributes::MarkerRecordedEventAttributes(MarkerRecordedEventAttributes {
            marker_name: command.marker_name.clone(),
            details: command.details.clone(),
            workflow_task_completed_event_id: completed,
            header: command.header.clone(),
            failure: command.failure.clone(),
        }),
    );
    Ok(())
}

pub(super) fn apply(state: &mut MutableState, attributes: &Attributes) -> Result<(), String> {
    match attributes {
        Attributes::WorkflowPropertiesModifiedEventAttributes(modified) => {
            if let Some(memo) = &modified.upserted_memo {
                upsert(&mut state.memo, &memo.fields);
            }
            Ok(())
        }
        Attributes::UpsertWorkflowSearchAttributesEventAttributes(upserted) => {
            if let Some(attributes) = &upserted.search_attributes {
                upsert(&mut state.search_attributes, &attributes.indexed_fields);
            }
            Ok(())
        }
        Attributes::MarkerRecordedEventAttributes(_) => Ok(()),
        _ => Err("it is no record of a property".to_owned()),
    }
}

/// Sets fields; a payload without data, or of JSON null, removes one.
pub(super) fn upsert(
    fields: &mut BTreeMap<String, CarriedPayload>,
    changes: &HashMap<String, Payload>,
) {
    for (name, payload) in changes {
        if payload.data.is_empty() || payload.data == b"null" {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), CarriedPayload::new(Some(payload)));
        }
    }
}
