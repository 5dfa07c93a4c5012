//! How rebalancing of a service stands, for those who look.

use std::{collections::BTreeMap, time::Duration};

use lb_cluster::rebalance::estimate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    everywhere::Question,
    rebalance::{Known, Stand, Totals},
};
use crate::{agent::handle::Handle, api::error::ApiError};

/// How long others may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer than this isn't said.
const LONG: Duration = Duration::from_secs(365 * 86_400);

/// How rebalancing of a service stands, and what it would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RebalanceView {
    /// The service.
    pub service: String,
    /// Most connections that are moved, over all nodes: `1%/min`.
    pub budget: String,
    /// How long they are silent before.
    pub idle_seconds: f64,
    /// From when on.
    pub above: f64,
    /// Who hands the budget out; `null`: this node, since no counts are shared.
    pub owner: Option<String>,
    /// `even`, `waiting` (below `above`), `quiet` (for a minute after a change), `moving`, `futile` (it didn't help);
    /// `null`: the owner doesn't say.
    pub state: Option<String>,
    /// `quiet`, `futile`: for how many seconds yet.
    pub seconds: Option<f64>,
    /// `moving`: connections moved since it began.
    pub moved: Option<u64>,
    /// The fullest backend over the mean, by weight, of all nodes together.
    pub imbalance: f64,
    /// Connections that would be moved now, by backend.
    pub would_move: BTreeMap<String, u64>,
    /// How long that would take at this budget, seconds; `null`: more than a year, or there is nothing to move.
    pub takes_seconds: Option<f64>,
}

impl Handle {
    /// How it stands, and what it would do. `begin`: it begins now, although the fullest isn't above what is set.
    ///
    /// # Errors
    /// There is no such service, it isn't rebalanced, or what other nodes have isn't known.
    pub async fn rebalance(&self, service: &str, begin: bool) -> Result<RebalanceView, ApiError> {
        let shared = &self.shared;
        let declared = shared.read().desired.services().get(service).map(|spec| spec.rebalance);
        match declared {
            None => return Err(Self::no_service(service)),
            Some(None) => {
                return Err(ApiError::Conflict(format!(
                    "service \"{service}\" isn't rebalanced; flowpin service set {service} --rebalance 1%/min"
                )));
            }
            Some(Some(_)) => {}
        }
        let view = shared.cluster_view().await.ok();
        let known = Known::of(shared, view.as_ref(), service).ok_or_else(|| {
            ApiError::Conflict(format!(
                "service \"{service}\": what other nodes have isn't known now; see flowpin cluster"
            ))
        })?;
        let totals: Totals = known.pool.iter().map(|backend| (backend.key, backend.open)).collect();
        let stand: Option<Stand> = match &known.owner {
            None => shared.stand(service, &totals, begin),
            Some(owner) => {
                let question = Question::Stand { service: service.into(), totals, begin };
                self.ask_node(owner, &question, PATIENCE).await.flatten()
            }
        };
        if begin && stand.is_none() {
            return Err(ApiError::Conflict(format!(
                "service \"{service}\": its owner {} doesn't answer, or doesn't rebalance it; nothing has begun",
                known.owner.as_deref().unwrap_or("is this node, which")
            )));
        }
        let idle = self.idle_everywhere(service).await;
        let estimate = estimate(&known.spec.settings(), &idle, &known.pool);
        let takes = Some(estimate.takes).filter(|takes| estimate.connections != 0 && *takes < LONG);
        let would_move = estimate.moves.iter().map(|it| (known.name(it.backend).into(), it.connections));
        Ok(RebalanceView {
            service: service.into(),
            budget: known.spec.budget.to_string(),
            idle_seconds: known.spec.idle.as_secs_f64(),
            above: known.spec.settings().above(),
            imbalance: estimate.ratio,
            would_move: would_move.collect(),
            takes_seconds: takes.map(|takes| takes.as_secs_f64()),
            owner: known.owner.or(view.map(|view| view.node)),
            seconds: stand.as_ref().and_then(|stand| stand.seconds),
            moved: stand.as_ref().and_then(|stand| stand.moved),
            state: stand.map(|stand| stand.state),
        })
    }

    /// Connections of all nodes that could be moved; of those that answer.
    async fn idle_everywhere(&self, service: &str) -> Totals {
        let mut all: BTreeMap<_, u64> = self.idle_here(service).await.into_iter().collect();
        for totals in self.ask_all::<Totals>(&Question::Idle { service: service.into() }, PATIENCE).await {
            for (backend, idle) in totals {
                *all.entry(backend).or_default() += idle;
            }
        }
        all.into_iter().collect()
    }
}
