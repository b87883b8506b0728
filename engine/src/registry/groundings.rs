//! Groundings: applied, replaced by another version, removed.

use std::sync::Arc;

use orchestrion_history::ids::Namespace;

use super::records::Record;
use super::registrar::{Registrar, RegistryError, limit};
use crate::acts::{Act, Actor, What};
use crate::grounding::{GROUNDINGS_PER_PROJECT_MAX, Grounding, Spec};

impl Registrar {
    /// Puts a grounding in force: a new one, or another version of one that is.
    pub async fn apply_grounding(
        &self,
        namespace: &Namespace,
        spec: Spec,
        actor: &Actor,
    ) -> Result<Arc<Grounding>, RegistryError> {
        let turn = self.take_turn().await;
        let known = self.registry.groundings(namespace);
        let before = known.iter().find(|known| known.spec.name == spec.name);
        if before.is_some_and(|before| before.spec.version == spec.version) {
            return Err(RegistryError::SameVersion {
                project: namespace.to_string(),
                name: spec.name,
                version: spec.version,
            });
        }
        if before.is_none() {
            limit("groundings", known.len(), GROUNDINGS_PER_PROJECT_MAX)?;
        }
        let revision = before.map_or(1, |before| before.revision + 1);
        let grounding = Arc::new(Grounding::new(spec, self.clock.now(), revision)?);
        let act = Act::new(What::GroundingApplied, grounding.spec.name.clone())
            .with("version", grounding.spec.version.clone())
            .with("digest", grounding.digest.clone())
            .with("replaces", before.map(|before| before.spec.version.clone()));
        let record = Record::Grounding {
            namespace: namespace.clone(),
            grounding: grounding.clone(),
        };
        self.commit(turn, namespace, vec![record], actor, vec![act])
            .await?;
        Ok(grounding)
    }

    /// Takes groundings out of force: the one of this name, or all of them. How many there were.
    pub async fn remove_groundings(
        &self,
        namespace: &Namespace,
        name: Option<&str>,
        actor: &Actor,
    ) -> Result<usize, RegistryError> {
        let turn = self.take_turn().await;
        let mut gone = self.registry.groundings(namespace);
        gone.retain(|known| name.is_none_or(|name| known.spec.name == name));
        if gone.is_empty() {
            return Ok(0);
        }
        let records = gone.iter().map(|grounding| Record::GroundingRemoved {
            namespace: namespace.clone(),
            name: grounding.spec.name.clone(),
        });
        let acts = gone.iter().map(|grounding| {
            Act::new(What::GroundingRemoved, grounding.spec.name.clone())
                .with("version", grounding.spec.version.clone())
                .with("digest", grounding.digest.clone())
        });
        let (records, acts) = (records.collect(), acts.collect());
        self.commit(turn, namespace, records, actor, acts).await?;
        Ok(gone.len())
    }
}
