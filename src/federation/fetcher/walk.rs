//! Following edges among events that another server has answered with.

use std::collections::{HashMap, HashSet};

use ruma::OwnedEventId;

/// Those of the events that are reached from some of them over edges, each after those that its edges lead to.
///
/// Edges that lead elsewhere are not followed, and each event is come to once: so a walk has no more steps than the
/// events have edges, whatever those say.
pub(crate) fn walk<T>(
    from: &[OwnedEventId],
    mut events: HashMap<OwnedEventId, T>,
    edges: impl Fn(&T) -> &[OwnedEventId],
) -> Vec<T> {
    let mut sorted = Vec::with_capacity(events.len());
    let mut seen: HashSet<OwnedEventId> = HashSet::with_capacity(events.len());
    // Each with whether what it leads to has its place.
    let mut todo: Vec<(OwnedEventId, bool)> = from.iter().rev().map(|id| (id.clone(), false)).collect();
    while let Some((id, is_next)) = todo.pop() {
        if is_next {
            sorted.extend(events.remove(&id));
            continue;
        }
        let Some(event) = events.get(&id) else { continue };
        if !seen.insert(id.clone()) {
            continue;
        }
        todo.push((id, true));
        let further = edges(event).iter().rev().filter(|id| events.contains_key(*id) && !seen.contains(*id));
        todo.extend(further.map(|id| (id.clone(), false)));
    }
    sorted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> OwnedEventId {
        OwnedEventId::try_from(format!("$event{number}")).unwrap()
    }

    #[test]
    fn an_endless_walk_ends() {
        // No real events follow each other in a circle, since identifiers are hashes; answers are not believed in that.
        let events = HashMap::from([(id(1), (1, vec![id(2)])), (id(2), (2, vec![id(1), id(2), id(9)]))]);
        let sorted = walk(&[id(1), id(1), id(7)], events, |(_, edges)| edges);
        assert_eq!(sorted.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn what_is_not_reached_is_left_out() {
        let events = HashMap::from([(id(1), vec![]), (id(2), vec![id(1)]), (id(3), vec![id(2)])]);
        assert_eq!(walk(&[id(2)], events, |edges| edges).len(), 2);
    }

    proptest! {
        #[test]
        fn each_comes_after_what_it_leads_to(graph in prop::collection::vec(prop::collection::vec(0_usize..40, 0..4), 1..40)) {
            // Edges lead downwards.
            let edges = |from: usize, to: &[usize]| to.iter().filter(|to| **to < from).map(|to| id(*to)).collect::<Vec<_>>();
            let events: HashMap<_, _> =
                graph.iter().enumerate().map(|(number, to)| (id(number), (number, edges(number, to)))).collect();
            let from: Vec<_> = (0..graph.len()).rev().map(id).collect();
            let sorted = walk(&from, events.clone(), |(_, edges)| edges);
            prop_assert_eq!(sorted.len(), events.len());
            for (at, (_, edges)) in sorted.iter().enumerate() {
                for edge in edges {
                    prop_assert!(sorted[..at].iter().any(|(number, _)| id(*number) == *edge));
                }
            }
        }
    }
}
