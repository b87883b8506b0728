//! Owners of services: they describe them anew, and have plans forgotten that were made before.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrion::acts::Actor;
use orchestrion::seams;

use super::life::registration;
use super::shared::{Tenant, World};

/// How long they wait for an answer.
const PATIENCE: Duration = Duration::from_secs(40);

/// Looks after a tenant's services until nobody asks for anything any more.
pub async fn own(world: World, tenant: Tenant) {
    let namespace = &tenant.namespace;
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        world.pause(40_000).await;
        if !world.asking.get() {
            return;
        }
        let Some(door) = world.door() else { continue };
        if world.roll(3) == 0 {
            let asked_at = world.now();
            let cleared = door.plans.clear(namespace, &Actor::ENGINE);
            let said = seams::timeout(PATIENCE, cleared).await;
            world.say(|| format!("the plans of {namespace} are to be forgotten: {said:?}"));
            if let Some(Ok(_)) = said {
                let told_at = world.now();
                let mut ledger = world.ledger.borrow_mut();
                (ledger.forgotten).push((namespace.clone(), asked_at, told_at));
            }
            continue;
        }
        let (id, name) = world.dice.borrow_mut().pick(&tenant.services).clone();
        let version = versions.entry(id.clone()).or_default();
        *version += 1;
        let anew = registration(Some(id.clone()), &name, *version);
        let registered = door
            .registrar
            .register_service(namespace, anew, &Actor::ENGINE);
        let said = seams::timeout(PATIENCE, registered).await;
        let done = matches!(said, Some(Ok(_)));
        world.say(|| format!("{id} is described as version {version}: {done}"));
        if done {
            let now = world.now();
            let mut ledger = world.ledger.borrow_mut();
            let told = ledger.described.entry((namespace.clone(), id)).or_default();
            told.push((*version, now));
        }
    }
}
