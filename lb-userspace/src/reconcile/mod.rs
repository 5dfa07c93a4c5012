//! Desired − actual = plan. Planning is pure: a plan can be printed, compared and tested without a kernel.

pub mod actual;
pub mod plan;
pub mod step;

pub use actual::{Actual, ActualService};
pub use plan::{PlanError, Scope, collect, plan};
pub use step::{Plan, Step};
