//! Where events go in a room that were fetched after what follows them. Arithmetic only.
//!
//! Whatever stands at a multiple of [`Order::SPACE`] owns the places below it down to the next multiple: nobody else's
//! event can stand there, of whatever room. Events that are fetched later go there, closely before the event that follows
//! them, so that no order ever has to change. What was before everything that is known of a room needs no such place: it
//! goes to multiples of its own below zero, which never end.

use crate::ground::position::{EventKey, Order};

/// The least distance between two events that were fetched. Between them the state may change twice without an event:
/// just after the one and just before the other.
const LEAST: i64 = 4;
/// How far apart events are put where there is room: what is found to have been between them still has a place then.
const WIDE: i64 = 64;
/// Into how many steps a free stretch is divided; no step is wider than [`WIDE`]. Times [`WIDE`] that is 2^20 places, one
/// whole block.
const RESERVE: i64 = 1 << 14;

/// The lowest place of the block in which events can go that are followed by the one at `before`; that place itself is
/// not theirs.
pub(super) fn floor_of_block(before: Order) -> Order {
    Order(before.before().0.div_euclid(Order::SPACE) * Order::SPACE)
}

/// Places for `count` events, ascending, before `before` and after `after`. `taken` are the places between them at which
/// events stand, descending. The highest stretch is taken that is long enough; none if there is none.
pub(super) fn between(after: Order, before: Order, taken: &[Order], count: usize) -> Option<Vec<Order>> {
    let count = i64::try_from(count).ok()?;
    let lower = taken.iter().copied().chain([after]);
    let mut stretches = std::iter::once(before).chain(taken.iter().copied()).zip(lower);
    let (top, space) = stretches.find_map(|(top, bottom)| {
        let space = top.0.checked_sub(bottom.0)?;
        (space / LEAST > count).then_some((top, space))
    })?;
    // Wide only where the stretch is long, and never more than fits.
    let step = (space / RESERVE).clamp(LEAST, WIDE).min(space / (count + 1));
    Some((1..=count).rev().map(|steps| Order(top.0 - steps * step)).collect())
}

/// Places for events below everything that is known of their room, ascending. `highest` is the highest of their keys,
/// which nothing has had before.
pub(super) fn below_everything(highest: EventKey, count: usize) -> Vec<Order> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    (0..count).rev().map(|steps| Order((highest.0 - steps).saturating_mul(Order::SPACE))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ground::position::Position;

    #[test]
    fn a_block_ends_at_the_event_of_somebody_else() {
        let event = Order::at(Position(7));
        assert_eq!(floor_of_block(event), Order::at(Position(6)));
        assert_eq!(floor_of_block(Order(event.0 - 5)), Order::at(Position(6)));
        assert_eq!(floor_of_block(Order(-Order::SPACE)), Order(-2 * Order::SPACE));
    }

    #[test]
    fn history_goes_on_below_without_an_end() {
        assert_eq!(below_everything(EventKey(-1), 2), [Order(-2 * Order::SPACE), Order(-Order::SPACE)]);
        assert_eq!(below_everything(EventKey(-3), 1), [Order(-3 * Order::SPACE)]);
    }

    #[test]
    fn a_gap_takes_tens_of_thousands_of_events_chunk_by_chunk() {
        let before = Order::at(Position(1));
        let after = floor_of_block(before);
        let (mut lowest, mut count) = (before, 0);
        while let Some(places) = between(after, lowest, &[], 100) {
            lowest = places[0];
            count += places.len();
        }
        assert!(count > 50_000, "{count}");
    }

    proptest! {
        /// Whatever is put where, nothing meets, everything keeps its distance, and only a full block refuses.
        #[test]
        fn places_are_free_and_in_order(chunks in prop::collection::vec((0_usize..200, 1_usize..30), 1..60)) {
            let (top, bottom) = (Order::at(Position(1)), floor_of_block(Order::at(Position(1))));
            let mut taken: Vec<Order> = Vec::new();
            for (at, count) in chunks {
                // What follows the chunk: the top, or something that is there already.
                let before = taken.get(at).copied().unwrap_or(top);
                let below: Vec<Order> = taken.iter().copied().filter(|place| *place < before).collect();
                let places = between(bottom, before, &below, count).expect("the block is nearly empty");
                prop_assert_eq!(places.len(), count);
                prop_assert!(places.windows(2).all(|pair| pair[0].0 + LEAST <= pair[1].0));
                prop_assert!(places[0].0 >= bottom.0 + LEAST && places[count - 1].0 + LEAST <= before.0);
                taken.extend(places);
                taken.sort_unstable_by(|a, b| b.cmp(a));
                prop_assert!(taken.windows(2).all(|pair| pair[1].0 + LEAST <= pair[0].0));
            }
        }
    }
}
