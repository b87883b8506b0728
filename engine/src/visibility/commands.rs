//! Search attributes that workflow code asks for: checked before a completion is decided.

use orchestrion_proto::temporal::api::command::v1::Command;
use orchestrion_proto::temporal::api::command::v1::command::Attributes;

use super::attributes::{AttributeError, Catalogue};

impl Catalogue {
    /// Checks the search attributes of commands, and notes their types as [`Catalogue::admit`] does. The first one that is wrong fails the
    /// workflow task with `BAD_SEARCH_ATTRIBUTES`.
    pub fn admit_commands(&self, commands: &mut [Command]) -> Result<(), AttributeError> {
        for command in commands {
            let given = match &mut command.attributes {
                Some(Attributes::UpsertWorkflowSearchAttributesCommandAttributes(it)) => {
                    &mut it.search_attributes
                }
                Some(Attributes::StartChildWorkflowExecutionCommandAttributes(it)) => {
                    &mut it.search_attributes
                }
                Some(Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(it)) => {
                    &mut it.search_attributes
                }
                _ => continue,
            };
            if let Some(given) = given {
                self.admit(given)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use orchestrion_proto::temporal::api::command::v1::UpsertWorkflowSearchAttributesCommandAttributes as Upsert;
    use orchestrion_proto::temporal::api::common::v1::{Payload, SearchAttributes};

    use super::*;
    use crate::visibility::ValueType;

    #[test]
    fn commands_carry_known_attributes_or_are_refused() {
        let upsert = |name: &str| Command {
            attributes: Some(Attributes::UpsertWorkflowSearchAttributesCommandAttributes(
                Upsert {
                    search_attributes: Some(SearchAttributes {
                        indexed_fields: [(
                            name.to_owned(),
                            Payload {
                                data: b"3".to_vec(),
                                ..Default::default()
                            },
                        )]
                        .into(),
                    }),
                },
            )),
            ..Default::default()
        };
        let catalogue = Catalogue::new([("Count".to_owned(), ValueType::Int)].into());
        let mut good = [Command::default(), upsert("Count")];
        catalogue.admit_commands(&mut good).unwrap();
        assert!(format!("{good:?}").contains("type"), "{good:?}");
        let refused = catalogue.admit_commands(&mut [upsert("Count"), upsert("Other")]);
        assert_eq!(refused, Err(AttributeError::Unknown("Other".to_owned())));
    }
}
