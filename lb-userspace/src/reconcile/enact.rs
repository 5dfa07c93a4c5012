//! A transition comes into force whole, or not at all: if the kernel refuses a step of its plan, what was done is undone.

use std::{fmt::Display, time::Instant};

use super::{Actual, Known, Plan, Scope, Transition, plan};

/// Where plans are applied: the kernel, with a mirror of what it holds.
pub trait Ground {
    /// What the kernel says no with.
    type Error: Display;
    /// The mirror.
    fn look<R>(&self, see: impl FnOnce(&Actual) -> R) -> R;
    /// Takes the steps, in order; the mirror has those that were taken even if a later one is refused.
    ///
    /// # Errors
    /// A step was refused.
    fn apply(&mut self, plan: Plan) -> Result<(), Self::Error>;
}

/// A transition didn't come into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub error: String,
    /// Why what was done couldn't be undone; `None`: all is as before.
    pub halfway: Option<String>,
}

/// Applies a plan, and lets `accept` have the last word. Says what is known then.
///
/// # Errors
/// The kernel refused a step, or `accept` said no. Then the way back has been taken, as far as the kernel let it.
pub fn enact<G: Ground>(
    ground: &mut G,
    old: &Known,
    transition: Transition,
    accept: impl FnOnce(&mut G) -> Result<(), String>,
    now: Instant,
) -> Result<Known, Failure> {
    let Transition { next, plan } = transition;
    let applied = match plan.steps.is_empty() {
        true => Ok(()),
        false => ground.apply(plan).map_err(|e| e.to_string()),
    };
    match applied.and_then(|()| accept(ground)) {
        Ok(()) => Ok(next),
        Err(error) => Err(Failure { error, halfway: converge(ground, old, now).err() }),
    }
}

/// Leads from whatever is there to what is known.
///
/// # Errors
/// Why not.
pub fn converge<G: Ground>(ground: &mut G, known: &Known, now: Instant) -> Result<(), String> {
    let way = ground.look(|actual| plan(known.goal(now), actual, Scope::All));
    let way = way.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    match way.steps.is_empty() {
        true => Ok(()),
        false => ground.apply(way).map_err(|e| e.to_string()),
    }
}
