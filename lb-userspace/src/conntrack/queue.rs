//! Who is next, of connections that wait to be closed. Pure.
//!
//! Classes come in order of urgency, and within a class services take turns, a connection each; so a service's few wait
//! for as many of each other's, never for all of them. A quarter of each batch is for the classes that are less urgent,
//! in turn, so that those come to their end as well.

use std::collections::{HashMap, VecDeque};

use lb_common::abi::ServiceId;

/// One part in so many of a batch is for what is less urgent.
const RESERVE: usize = 4;

/// What waits. `T`: a connection.
#[derive(Debug)]
pub struct Queue<T> {
    classes: Vec<Class<T>>,
    /// The class whose turn it is among those that are less urgent.
    next: usize,
}

/// Connections of one class.
#[derive(Debug)]
struct Class<T> {
    waiting: HashMap<ServiceId, VecDeque<T>>,
    /// Services that have any waiting, in turn.
    turn: VecDeque<ServiceId>,
}

impl<T> Class<T> {
    fn push(&mut self, service: ServiceId, item: T) {
        let waiting = self.waiting.entry(service).or_default();
        if waiting.is_empty() {
            self.turn.push_back(service);
        }
        waiting.push_back(item);
    }

    fn pop(&mut self) -> Option<T> {
        let service = self.turn.pop_front()?;
        let waiting = self.waiting.get_mut(&service)?;
        let item = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&service);
        } else {
            self.turn.push_back(service);
        }
        item
    }

    fn is_empty(&self) -> bool {
        self.turn.is_empty()
    }
}

impl<T> Queue<T> {
    /// Of so many classes, the most urgent first.
    pub fn new(classes: usize) -> Self {
        let class = || Class { waiting: HashMap::new(), turn: VecDeque::new() };
        Self { classes: (0..classes).map(|_| class()).collect(), next: 0 }
    }

    /// One more waits. A class that there isn't is the least urgent.
    pub fn push(&mut self, class: usize, service: ServiceId, item: T) {
        let last = self.classes.len().saturating_sub(1);
        if let Some(class) = self.classes.get_mut(class.min(last)) {
            class.push(service, item);
        }
    }

    /// Takes back all of a class.
    pub fn clear(&mut self, class: usize) {
        if let Some(class) = self.classes.get_mut(class) {
            class.waiting.clear();
            class.turn.clear();
        }
    }

    /// Does nobody wait?
    pub fn is_empty(&self) -> bool {
        self.classes.iter().all(Class::is_empty)
    }

    /// The next `count`, or all if there are fewer.
    pub fn take(&mut self, count: usize) -> Vec<T> {
        let mut taken = Vec::with_capacity(count.min(1024));
        let Some(first) = self.classes.iter().position(|class| !class.is_empty()) else { return taken };
        let others = self.classes[first + 1..].iter().any(|class| !class.is_empty());
        let reserve = if others { (count / RESERVE).max(usize::from(count > 1)) } else { 0 };
        self.fill(&mut taken, first, count - reserve);
        while taken.len() < count
            && let Some(item) = self.pop_after(first)
        {
            taken.push(item);
        }
        self.fill(&mut taken, first, count);
        taken
    }

    /// Takes from a class until there are so many.
    fn fill(&mut self, taken: &mut Vec<T>, class: usize, count: usize) {
        while taken.len() < count
            && let Some(item) = self.classes[class].pop()
        {
            taken.push(item);
        }
    }

    /// One of the classes after `first`, in turn.
    fn pop_after(&mut self, first: usize) -> Option<T> {
        let after = first + 1..self.classes.len();
        for _ in after.clone() {
            if !after.contains(&self.next) {
                self.next = after.start;
            }
            let item = self.classes[self.next].pop();
            self.next += 1;
            if item.is_some() {
                return item;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_few_do_not_wait_for_the_many_of_another_service() {
        let mut queue = Queue::new(3);
        (0..100_000).for_each(|i| queue.push(0, 1, (1, i)));
        (0..500).for_each(|i| queue.push(0, 2, (2, i)));
        let taken = queue.take(1_000);
        assert_eq!(taken.iter().filter(|(service, _)| *service == 2).count(), 500);
    }

    #[test]
    fn the_urgent_come_first_and_the_others_are_not_forgotten() {
        let mut queue = Queue::new(3);
        for class in 0..3 {
            (0..1_000).for_each(|i| queue.push(class, 7, (class, i)));
        }
        let taken = queue.take(400);
        let of = |wanted| taken.iter().filter(|(class, _)| *class == wanted).count();
        assert_eq!([of(0), of(1), of(2)], [300, 50, 50]);
        queue.clear(0);
        assert!(queue.take(400).iter().all(|(class, _)| *class > 0));
    }

    proptest! {
        #[test]
        fn each_is_taken_once_and_in_order_within_its_service(
            pushes in prop::collection::vec((0usize..4, 0u32..5), 0..300),
            counts in prop::collection::vec(1usize..40, 1..8),
        ) {
            let mut queue = Queue::new(4);
            for (i, (class, service)) in pushes.iter().enumerate() {
                queue.push(*class, *service, (*class, *service, i));
            }
            let mut all = Vec::new();
            for count in counts.iter().cycle() {
                let waited = pushes.len() - all.len();
                let taken = queue.take(*count);
                prop_assert_eq!(taken.len(), waited.min(*count));
                all.extend(taken);
                if queue.is_empty() {
                    break;
                }
            }
            let distinct: BTreeSet<usize> = all.iter().map(|(_, _, i)| *i).collect();
            prop_assert_eq!((distinct.len(), all.len()), (pushes.len(), pushes.len()));
            for class in 0..4 {
                for service in 0..5 {
                    let order: Vec<usize> = all.iter().filter(|t| (t.0, t.1) == (class, service)).map(|t| t.2).collect();
                    prop_assert!(order.is_sorted());
                }
            }
        }

        #[test]
        fn nobody_waits_for_more_than_as_many_of_each_other_service(
            crowds in prop::collection::vec(1usize..400, 1..6),
            mine in 1usize..50,
        ) {
            let mut queue = Queue::new(2);
            for (i, crowd) in crowds.iter().enumerate() {
                (0..*crowd).for_each(|_| queue.push(0, 1 + i as u32, false));
            }
            (0..mine).for_each(|_| queue.push(0, 0, true));
            let taken = queue.take(mine * (crowds.len() + 1));
            prop_assert_eq!(taken.iter().filter(|own| **own).count(), mine);
        }
    }
}
