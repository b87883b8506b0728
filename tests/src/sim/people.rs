//! People who look after what could not be undone: they have it tried again, or decide about it.

use std::time::Duration;

use orchestrion::acts::Actor;
use orchestrion::compensations::Decision;
use orchestrion::seams;
use orchestrion_history::ids::Namespace;

use super::shared::World;

/// How long they wait for an answer.
const PATIENCE: Duration = Duration::from_secs(40);

/// Looks after a tenant's records until nobody asks for anything any more.
pub async fn look_after(world: World, namespace: Namespace) {
    while world.asking.get() {
        world.pause(6_000).await;
        let Some(door) = world.door() else { continue };
        let Ok(records) = door.compensations.list(&namespace) else {
            continue;
        };
        if records.is_empty() {
            continue;
        }
        let record = world.dice.borrow_mut().pick(&records).clone();
        if world.roll(8) == 0 {
            let decision = match world.roll(2) {
                0 => Decision::Resolved,
                _ => Decision::Ignored,
            };
            let reason = "looked at".to_owned();
            let decided = (door.compensations).decide(
                &namespace,
                &record.id,
                decision,
                reason,
                &Actor::ENGINE,
            );
            let said = seams::timeout(PATIENCE, decided).await;
            let done = matches!(said, Some(Ok(_)));
            world.say(|| format!("{} is decided as {decision:?}: {done}", record.id));
            continue;
        }
        let asked = (door.compensations).retry(&namespace, &record.id, &Actor::ENGINE);
        let said = seams::timeout(PATIENCE, asked).await;
        world.say(|| format!("{} is to be undone again: {said:?}", record.id));
        if let Some(Ok(record)) = said
            && let Some(retry) = record.retries.last()
        {
            let mut ledger = world.ledger.borrow_mut();
            (ledger.retries).insert((
                namespace.clone(),
                record.id.clone(),
                retry.workflow_id.clone(),
            ));
        }
    }
}
