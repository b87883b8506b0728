//! Receivers of webhooks: they accept, refuse, are slow, or accept and lose the answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use orchestrion::outbox::Receivers;
use orchestrion::seams;

use super::dice::Dice;

/// Every receiver there is.
#[derive(Clone)]
pub struct SimReceivers {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    dice: Dice,
    faults: bool,
    arrived: Vec<(String, String, String)>,
}

impl SimReceivers {
    /// Receivers with dice of their own.
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            dice: Dice::new(seed),
            faults: true,
            arrived: Vec::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on everything is accepted.
    pub fn behave(&self) {
        self.inner().faults = false;
    }

    /// What arrived since the last look: URL, event id, body.
    pub fn look(&self) -> Vec<(String, String, String)> {
        std::mem::take(&mut self.inner().arrived)
    }
}

impl Receivers for SimReceivers {
    fn post(
        &self,
        url: &str,
        event_id: &str,
        body: &str,
    ) -> BoxFuture<'static, Result<u16, String>> {
        let mut inner = self.inner();
        let wait = Duration::from_millis(1 + inner.dice.roll(300));
        let kind = if inner.faults { inner.dice.roll(8) } else { 99 };
        let delivery = (url.to_owned(), event_id.to_owned(), body.to_owned());
        let this = self.clone();
        Box::pin(async move {
            seams::sleep(wait).await;
            match kind {
                0 => return Ok(503),
                1 => return Err("no connection".to_owned()),
                _ => {}
            }
            this.inner().arrived.push(delivery);
            if kind == 2 {
                return Err("the connection broke".to_owned());
            }
            Ok(200)
        })
    }
}
