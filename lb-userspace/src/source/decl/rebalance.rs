//! Which connections are moved, as written.

use lb_cluster::rebalance::Budget;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::time::{Time, optional};
use crate::model::{ModelError, RebalanceSpec};

/// Which connections are moved so that backends that were added get their share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RebalanceDecl {
    /// Most that are moved in a minute, over all nodes: `1%/min`, a part of all the service's connections.
    pub budget: String,
    /// How long they have been silent in both directions; default `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Time>,
    /// Begins when the fullest backend has more than so many times the mean, by weight; default 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
}

impl RebalanceDecl {
    /// As a service has it.
    ///
    /// # Errors
    /// Something of it is out of range.
    pub fn spec(&self) -> Result<RebalanceSpec, ModelError> {
        let budget = self.budget.parse::<Budget>().map_err(|_| ModelError::NotKnown {
            what: "rebalance.budget",
            text: self.budget.clone(),
            known: "a part of all connections a minute, 0.001%/min to 100%/min, as 1%/min",
        })?;
        let above = match self.above {
            None => RebalanceSpec::ABOVE,
            Some(above) if (1.0..=100.0).contains(&above) => (above * 100.0).round() as u32,
            Some(above) => {
                let known = "1 to 100, as 1.2";
                return Err(ModelError::NotKnown { what: "rebalance.above", text: above.to_string(), known });
            }
        };
        let idle = optional(&self.idle, "rebalance.idle")?.unwrap_or(RebalanceSpec::IDLE);
        Ok(RebalanceSpec { budget, idle, above })
    }
}

/// As declared, with all that it has.
impl From<&RebalanceSpec> for RebalanceDecl {
    fn from(spec: &RebalanceSpec) -> Self {
        let RebalanceSpec { budget, idle, above } = spec;
        Self {
            budget: budget.to_string(),
            idle: Some((*idle).into()),
            above: Some(f64::from(*above) / 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_rebalancing_is_named() {
        let decl = |budget: &str, above| RebalanceDecl { budget: budget.into(), idle: None, above };
        let refused = |decl: RebalanceDecl| decl.spec().expect_err("it isn't good").to_string();
        assert!(refused(decl("1%/h", None)).contains("rebalance.budget \"1%/h\""));
        for above in [0.9, 101.0, f64::NAN] {
            assert!(refused(decl("1%/min", Some(above))).contains("rebalance.above"), "{above}");
        }
        let spec = decl("1%/min", None).spec().expect("good");
        assert_eq!((spec.idle, spec.above), (RebalanceSpec::IDLE, 120));
    }
}
