//! Panics that the simulation wants are silent; the others say where they happened.

use std::any::Any;
use std::cell::Cell;
use std::panic;
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, panics of this thread print nothing.
pub struct Quiet(());

/// Kills of the simulated process print nothing from here on.
pub fn of_kills() -> Quiet {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() || !info.payload().is::<super::disk::Killed>() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    Quiet(())
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.set(false);
    }
}

/// What a panic said.
pub fn text(cause: &(dyn Any + Send)) -> String {
    let said = cause.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| cause.downcast_ref::<&str>().copied());
    format!("the engine panicked: {}", said.unwrap_or("no text"))
}
