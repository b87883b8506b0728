//! Search attributes that workflow code asks for: checked when its completion is decided.

use orchestrion_history::machines::SearchAttributeCheck;
use orchestrion_proto::temporal::api::common::v1::SearchAttributes;

use super::attributes::Catalogue;

impl SearchAttributeCheck for Catalogue {
    fn check(&self, given: &SearchAttributes) -> Result<(), String> {
        self.admit(&mut given.clone()).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use orchestrion_proto::temporal::api::common::v1::Payload;

    use super::*;
    use crate::visibility::ValueType;

    #[test]
    fn commands_carry_known_attributes_or_are_refused() {
        let given = |name: &str| SearchAttributes {
            indexed_fields: [(
                name.to_owned(),
                Payload {
                    data: b"3".to_vec(),
                    ..Default::default()
                },
            )]
            .into(),
        };
        let catalogue = Catalogue::new([("Count".to_owned(), ValueType::Int)].into());
        assert_eq!(catalogue.check(&given("Count")), Ok(()));
        let refused = catalogue.check(&given("Other")).unwrap_err();
        assert!(refused.contains("Other"), "{refused}");
    }
}
