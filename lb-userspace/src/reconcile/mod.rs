//! Desired − actual = plan. Planning is pure: a plan can be printed, compared and tested without a kernel.

pub mod actual;
pub mod enact;
pub mod health_state;
pub mod plan;
pub mod settle;
pub mod step;
pub mod transition;

pub use actual::{Actual, ActualService};
pub use enact::{Failure, Ground, converge, enact};
pub use plan::{Exhausted, Goal, Scope, collect, plan};
pub use settle::{Declared, Rejection};
pub use step::{Plan, Step, TableSpec};
pub use transition::{Input, Known, Refused, Transition, transition};
