//! Services in the order of their names, in pieces that copies share: a change of one among 10,000 copies the piece that it is in.

use std::{ops::Index, sync::Arc};

use crate::model::ServiceSpec;

/// The most services of a piece; a fuller one becomes two.
const PIECE: usize = 128;

/// Services by name.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// None of them is empty.
    pieces: Vec<Arc<Vec<Arc<ServiceSpec>>>>,
    len: usize,
}

impl Services {
    /// How many.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// None?
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The piece that has a name, or would have it; the first, if there is none.
    fn piece(&self, name: &str) -> usize {
        self.pieces.partition_point(|piece| piece[0].name.as_str() <= name).saturating_sub(1)
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<ServiceSpec>> {
        let piece = self.pieces.get(self.piece(name))?;
        let place = piece.binary_search_by(|spec| spec.name.as_str().cmp(name)).ok()?;
        Some(&piece[place])
    }

    /// Is there one of this name?
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All, in the order of their names.
    pub fn values(&self) -> impl Iterator<Item = &Arc<ServiceSpec>> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }

    /// Their names, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values().map(|spec| spec.name.as_str())
    }

    /// Takes one in, in the place of the one that has its name, which is returned.
    pub(super) fn insert(&mut self, service: Arc<ServiceSpec>) -> Option<Arc<ServiceSpec>> {
        let at = self.piece(&service.name);
        let Some(piece) = self.pieces.get_mut(at) else {
            self.pieces.push(Arc::new(vec![service]));
            self.len += 1;
            return None;
        };
        let piece = Arc::make_mut(piece);
        let place = match piece.binary_search_by(|spec| spec.name.cmp(&service.name)) {
            Ok(place) => return Some(std::mem::replace(&mut piece[place], service)),
            Err(place) => place,
        };
        piece.insert(place, service);
        self.len += 1;
        if piece.len() > PIECE {
            let second = piece.split_off(PIECE / 2);
            self.pieces.insert(at + 1, Arc::new(second));
        }
        None
    }

    /// Takes the one of this name out.
    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<ServiceSpec>> {
        let at = self.piece(name);
        let piece = self.pieces.get_mut(at)?;
        let place = piece.binary_search_by(|spec| spec.name.as_str().cmp(name)).ok()?;
        let piece = Arc::make_mut(piece);
        let service = piece.remove(place);
        if piece.is_empty() {
            self.pieces.remove(at);
        }
        self.len -= 1;
        Some(service)
    }
}

/// However they lie in pieces.
impl PartialEq for Services {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.values().eq(other.values())
    }
}

impl Eq for Services {}

impl Index<&str> for Services {
    type Output = Arc<ServiceSpec>;

    fn index(&self, name: &str) -> &Self::Output {
        self.get(name).unwrap_or_else(|| panic!("no service \"{name}\""))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Origin;

    /// With a mark, so that two of one name differ.
    fn named(name: u16, mark: u16) -> Arc<ServiceSpec> {
        let mut spec = ServiceSpec::new(&format!("s{name}"), Vec::new(), Origin::File);
        spec.slow_start = Some(std::time::Duration::from_secs(mark.into()));
        Arc::new(spec)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn as_an_ordered_map(changes in prop::collection::vec((0..600_u16, prop::bool::weighted(0.7)), 1..2_000)) {
            let (mut services, mut model) = (Services::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (i, (name, add)) in changes.into_iter().enumerate() {
                if i % 500 == 0 {
                    copies.push((services.clone(), model.clone()));
                }
                if add {
                    let spec = named(name, i as u16);
                    prop_assert_eq!(services.insert(spec.clone()), model.insert(spec.name.clone(), spec));
                } else {
                    let name = format!("s{name}");
                    prop_assert_eq!(services.remove(&name), model.remove(&name));
                }
            }
            copies.push((services, model));
            for (services, model) in copies {
                prop_assert_eq!(services.len(), model.len());
                prop_assert_eq!(services.is_empty(), model.is_empty());
                prop_assert!(services.values().eq(model.values()));
                prop_assert!(services.keys().eq(model.keys()));
                prop_assert!(services.pieces.iter().all(|piece| (1..=PIECE).contains(&piece.len())));
                for name in 0..600 {
                    let name = format!("s{name}");
                    prop_assert_eq!(services.get(&name), model.get(&name));
                }
                let mut again = Services::default();
                model.into_values().rev().for_each(|spec| drop(again.insert(spec)));
                prop_assert_eq!(services, again);
            }
        }
    }
}
