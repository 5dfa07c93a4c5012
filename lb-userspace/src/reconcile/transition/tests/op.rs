//! What may happen to an agent, and go wrong at it.

use proptest::prelude::*;

use crate::{model::ServiceSpec, reconcile::plan::tests::moments};

/// What happens.
#[derive(Clone, Debug)]
pub enum Op {
    /// The file is read: services, some of them spoilt.
    Reload(Vec<(ServiceSpec, u8)>),
    /// The command line adds a service, at one of a few addresses.
    AddService(u8, u8),
    RemoveService(u8),
    AddBackend(u8, u8, u16),
    RemoveBackend(u8, u8),
    Drain(u8, u8),
    Undrain(u8, u8),
    Health(u8, u8, bool),
    /// The node has so many addresses.
    Node(usize),
    Time,
    /// Flows of these backends are over.
    Collect(u32),
    /// The agent dies and another one starts.
    Kill,
}

/// What goes wrong at it.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    None,
    /// The kernel refuses after so many steps.
    Refuses(usize),
    /// And the way back after so many.
    RefusesTwice(usize, usize),
    /// The agent dies after so many.
    Dies(usize),
}

impl Trouble {
    pub fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            4 => Just(Self::None),
            1 => (0usize..30).prop_map(Self::Refuses),
            1 => (0usize..30, 0usize..30).prop_map(|(a, b)| Self::RefusesTwice(a, b)),
            1 => (0usize..30).prop_map(Self::Dies),
        ]
    }
}

pub fn op() -> impl Strategy<Value = Op> {
    let file = moments::state().prop_flat_map(|services| {
        let flaws = prop::collection::vec(0u8..12, services.len());
        flaws.prop_map(move |flaws| services.clone().into_iter().zip(flaws).collect())
    });
    prop_oneof![
        3 => file.prop_map(Op::Reload),
        1 => (0u8..3, 0u8..6).prop_map(|(name, vip)| Op::AddService(name, vip)),
        1 => (5u8..8).prop_map(Op::RemoveService),
        2 => (0u8..8, 0u8..40, 1u16..4).prop_map(|(name, b, weight)| Op::AddBackend(name, b, weight)),
        1 => (0u8..8, 0u8..40).prop_map(|(name, b)| Op::RemoveBackend(name, b)),
        1 => (0u8..8, 0u8..40).prop_map(|(name, b)| Op::Drain(name, b)),
        1 => (0u8..8, 0u8..40).prop_map(|(name, b)| Op::Undrain(name, b)),
        3 => (0u8..8, 0u8..40, any::<bool>()).prop_map(|(name, b, healthy)| Op::Health(name, b, healthy)),
        1 => (0usize..5).prop_map(Op::Node),
        1 => Just(Op::Time),
        1 => any::<u32>().prop_map(Op::Collect),
        1 => Just(Op::Kill),
    ]
}
