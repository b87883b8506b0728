//! The tests: what a user of the SDK expects to see.

pub mod activities;
pub mod chains;
pub mod control;
pub mod crashes;

use crate::harness::{Stage, Test};

/// Names beside their tests.
macro_rules! named {
    ($stage:expr, $($test:ident)*) => {
        vec![$((stringify!($test), Box::pin($test($stage)) as $crate::harness::Test<'_>)),*]
    };
}
pub(crate) use named;

/// All that may run at once.
pub fn all(stage: &Stage) -> Vec<(&'static str, Test<'_>)> {
    let mut tests = activities::tests(stage);
    tests.extend(control::tests(stage));
    tests.extend(chains::tests(stage));
    tests
}
