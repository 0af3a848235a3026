//! A persistent map from texts: a copy shares everything with the original until one of them changes, and what differs
//! between two of them is found by looking only at what they do not share.
//!
//! It is a [hash array mapped trie](https://en.wikipedia.org/wiki/Hash_array_mapped_trie): five bits of a key's hash
//! choose the slot on each level. Hashes are keyed anew for each process, since strangers choose the keys.
//!
//! The 64 bits of a hash are used up after 13 levels. Keys that agree in all of them stand in a row at the end of their
//! branch, where they are compared one by one.

use std::{
    hash::{BuildHasher as _, RandomState},
    slice,
    sync::{Arc, LazyLock},
};

/// Bits of the hash that one level consumes.
const BITS: u32 = 5;
/// One for all maps of the process: two that are compared have to agree on where a key is.
static HASHES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A map from texts to values.
#[derive(Clone, Debug)]
pub(super) struct Trie<V> {
    root: Option<Arc<Node<V>>>,
    /// How many keys there are, in all levels.
    len: usize,
}

/// A level of the trie. Slots stand in the order of the bits of `bitmap`, with no gaps, so that a level takes as much
/// memory as it has slots.
#[derive(Clone, Debug)]
struct Node<V> {
    /// Which of the 32 slots there are. Of no use where the hash is used up: keys stand in a row there.
    bitmap: u32,
    slots: Box<[Slot<V>]>,
}

/// What is at a slot: one key, or a level for all the keys whose hashes agree so far.
#[derive(Clone, Debug)]
enum Slot<V> {
    Branch(Arc<Node<V>>),
    Leaf(Arc<Leaf<V>>),
}

/// A key with its value. The hash is kept, because a level that is split needs it again.
#[derive(Clone, Debug)]
struct Leaf<V> {
    hash: u64,
    key: Box<str>,
    value: V,
}

/// What a key has on either side of a comparison.
type Both<'a, V> = (Option<&'a V>, Option<&'a V>);

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self { bitmap: 0, slots: Box::default() }
    }
}

impl<V> Trie<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Looks at one slot on each level: about as many levels as the number of keys has digits to the base 32.
    pub(super) fn get(&self, key: &str) -> Option<&V> {
        let mut node = self.root.as_ref()?;
        let hash = HASHES.hash_one(key);
        let mut shift = 0;
        loop {
            match node.find(hash, shift, key)? {
                Slot::Branch(child) => node = child,
                Slot::Leaf(leaf) => return (*leaf.key == *key).then_some(&leaf.value),
            }
            shift += BITS;
        }
    }

    /// Every key with its value, in no particular order.
    pub(super) fn iter(&self) -> Iter<'_, V> {
        Iter { levels: self.root.iter().map(|root| root.slots.iter()).collect() }
    }

    /// Calls `differs` with each key whose value may differ from that of another map. `differs` is called at most once
    /// for each key, with the value on this side and on the other. Values are compared by where they are in memory: two
    /// equal ones that are not shared count as different, and the caller looks closer.
    pub(super) fn compare<'a>(&'a self, other: &'a Self, differs: &mut impl FnMut(&'a str, Both<'a, V>)) {
        match (&self.root, &other.root) {
            (Some(mine), Some(theirs)) => mine.compare(theirs, 0, differs),
            (mine, theirs) => {
                let mut each = |node: &'a Arc<Node<V>>, is_mine: bool| {
                    for leaf in leaves(&node.slots) {
                        leaf.differs(is_mine, differs);
                    }
                };
                if let Some(node) = mine {
                    each(node, true);
                }
                if let Some(node) = theirs {
                    each(node, false);
                }
            }
        }
    }
}

impl<V: Clone> Trie<V> {
    /// Puts a value at a key and returns what was there. Only the levels on the way to the key are copied, and only
    /// where they are shared.
    pub(super) fn insert(&mut self, key: &str, value: V) -> Option<V> {
        let leaf = Arc::new(Leaf { hash: HASHES.hash_one(key), key: key.into(), value });
        let root = self.root.get_or_insert_default();
        let old = Node::insert(root, 0, leaf);
        self.len += usize::from(old.is_none());
        old.map(|leaf| leaf.value.clone())
    }

    /// Takes a key out and returns what was there. Nothing is copied where the key is not there.
    pub(super) fn remove(&mut self, key: &str) -> Option<V> {
        let old = self.get(key)?.clone();
        if let Some(root) = &mut self.root {
            Node::remove(root, 0, HASHES.hash_one(key), key);
        }
        self.len -= 1;
        Some(old)
    }

    /// Whatever of the way is shared is copied first, so other maps do not see what is changed.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        // Looked up first, or a key that is not there would have the way to it copied.
        self.get(key)?;
        let hash = HASHES.hash_one(key);
        Node::get_mut(self.root.as_mut()?, 0, hash, key)
    }
}

impl<V> Node<V> {
    /// Where the slot for a hash is, and whether it is there. Where hashes are used up, that is the key's place.
    fn place(&self, hash: u64, shift: u32, key: &str) -> (usize, bool) {
        if shift >= u64::BITS {
            let is_it = |slot: &Slot<V>| matches!(slot, Slot::Leaf(leaf) if *leaf.key == *key);
            let place = self.slots.iter().position(is_it);
            return (place.unwrap_or(self.slots.len()), place.is_some());
        }
        let bit = bit(hash, shift);
        let before = self.bitmap & (bit - 1);
        (before.count_ones() as usize, self.bitmap & bit != 0)
    }

    fn find(&self, hash: u64, shift: u32, key: &str) -> Option<&Slot<V>> {
        let (place, is_there) = self.place(hash, shift, key);
        if is_there { self.slots.get(place) } else { None }
    }

    /// Both are levels of one depth, so a slot with one number holds the keys with one part of the hash.
    fn compare<'a>(
        self: &'a Arc<Self>,
        other: &'a Arc<Self>,
        shift: u32,
        differs: &mut impl FnMut(&'a str, Both<'a, V>),
    ) {
        if Arc::ptr_eq(self, other) {
            return;
        }
        if shift >= u64::BITS {
            return compare_leaves(&self.slots, &other.slots, differs);
        }
        let (mut mine, mut theirs) = (self.slots.iter(), other.slots.iter());
        for bit in (0..u32::BITS).map(|bit| 1 << bit).filter(|bit| (self.bitmap | other.bitmap) & bit != 0) {
            let mine = if self.bitmap & bit != 0 { mine.next() } else { None };
            let theirs = if other.bitmap & bit != 0 { theirs.next() } else { None };
            match (mine, theirs) {
                (Some(Slot::Branch(mine)), Some(Slot::Branch(theirs))) => mine.compare(theirs, shift + BITS, differs),
                (mine, theirs) => compare_leaves(
                    mine.map(slice::from_ref).unwrap_or_default(),
                    theirs.map(slice::from_ref).unwrap_or_default(),
                    differs,
                ),
            }
        }
    }
}

impl<V: Clone> Node<V> {
    /// Puts a leaf below a level, whose first `shift` bits of hash are those of the level. `Arc::make_mut` copies a
    /// level only where another map shares it.
    fn insert(node: &mut Arc<Self>, shift: u32, leaf: Arc<Leaf<V>>) -> Option<Arc<Leaf<V>>> {
        let node = Arc::make_mut(node);
        let (place, is_there) = node.place(leaf.hash, shift, &leaf.key);
        let Some(slot) = node.slots.get_mut(place).filter(|_| is_there) else {
            if shift < u64::BITS {
                node.bitmap |= bit(leaf.hash, shift);
            }
            let mut slots = std::mem::take(&mut node.slots).into_vec();
            slots.reserve_exact(1);
            slots.insert(place, Slot::Leaf(leaf));
            node.slots = slots.into_boxed_slice();
            return None;
        };
        match slot {
            Slot::Branch(child) => Self::insert(child, shift + BITS, leaf),
            Slot::Leaf(old) if old.key == leaf.key => Some(std::mem::replace(old, leaf)),
            Slot::Leaf(old) => {
                let mut child = Arc::new(Self::default());
                Self::insert(&mut child, shift + BITS, Arc::clone(old));
                Self::insert(&mut child, shift + BITS, leaf);
                *slot = Slot::Branch(child);
                None
            }
        }
    }

    /// Takes out a key that is there.
    fn remove(node: &mut Arc<Self>, shift: u32, hash: u64, key: &str) {
        let node = Arc::make_mut(node);
        let (place, _) = node.place(hash, shift, key);
        if let Some(Slot::Branch(child)) = node.slots.get_mut(place) {
            Self::remove(child, shift + BITS, hash, key);
            // A single key needs no level of its own.
            if let [Slot::Leaf(last)] = &*child.slots {
                let last = Slot::Leaf(Arc::clone(last));
                if let Some(slot) = node.slots.get_mut(place) {
                    *slot = last;
                }
            }
            return;
        }
        let mut slots = std::mem::take(&mut node.slots).into_vec();
        if place < slots.len() {
            slots.remove(place);
        }
        node.slots = slots.into_boxed_slice();
        if shift < u64::BITS {
            node.bitmap &= !bit(hash, shift);
        }
    }

    fn get_mut<'a>(node: &'a mut Arc<Self>, shift: u32, hash: u64, key: &str) -> Option<&'a mut V> {
        let node = Arc::make_mut(node);
        let (place, is_there) = node.place(hash, shift, key);
        match node.slots.get_mut(place).filter(|_| is_there)? {
            Slot::Branch(child) => Self::get_mut(child, shift + BITS, hash, key),
            Slot::Leaf(leaf) if *leaf.key == *key => Some(&mut Arc::make_mut(leaf).value),
            Slot::Leaf(_) => None,
        }
    }
}

impl<V> Leaf<V> {
    fn differs<'a>(&'a self, is_mine: bool, differs: &mut impl FnMut(&'a str, Both<'a, V>)) {
        let value = Some(&self.value);
        differs(&self.key, if is_mine { (value, None) } else { (None, value) });
    }
}

/// The bit of a level's bitmap that a hash chooses. On the last level only four bits of the hash are left.
fn bit(hash: u64, shift: u32) -> u32 {
    1 << (hash.checked_shr(shift).unwrap_or(0) & 31)
}

/// Compares parts of which at least one has few keys. Each key of one side is looked for among all of the other.
fn compare_leaves<'a, V>(mine: &'a [Slot<V>], theirs: &'a [Slot<V>], differs: &mut impl FnMut(&'a str, Both<'a, V>)) {
    for leaf in leaves(mine) {
        match leaves(theirs).find(|other| other.key == leaf.key) {
            Some(other) if std::ptr::eq(leaf, other) => {}
            Some(other) => differs(&leaf.key, (Some(&leaf.value), Some(&other.value))),
            None => leaf.differs(true, differs),
        }
    }
    for other in leaves(theirs).filter(|other| !leaves(mine).any(|leaf| leaf.key == other.key)) {
        other.differs(false, differs);
    }
}

fn leaves<V>(slots: &[Slot<V>]) -> impl Iterator<Item = &Leaf<V>> {
    Leaves { levels: vec![slots.iter()] }
}

/// The leaves below some slots, depth first. One iterator a level is all that has to be remembered.
struct Leaves<'a, V> {
    levels: Vec<slice::Iter<'a, Slot<V>>>,
}

impl<'a, V> Iterator for Leaves<'a, V> {
    type Item = &'a Leaf<V>;

    fn next(&mut self) -> Option<&'a Leaf<V>> {
        loop {
            match self.levels.last_mut()?.next() {
                None => drop(self.levels.pop()),
                Some(Slot::Branch(child)) => self.levels.push(child.slots.iter()),
                Some(Slot::Leaf(leaf)) => return Some(leaf),
            }
        }
    }
}

/// Goes through a map.
pub(super) struct Iter<'a, V> {
    levels: Vec<slice::Iter<'a, Slot<V>>>,
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (&'a str, &'a V);

    fn next(&mut self) -> Option<(&'a str, &'a V)> {
        let mut leaves = Leaves { levels: std::mem::take(&mut self.levels) };
        let leaf = leaves.next();
        self.levels = leaves.levels;
        leaf.map(|leaf| (&*leaf.key, &leaf.value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<String, u32>;

    fn entries(trie: &Trie<u32>) -> Model {
        trie.iter().map(|(key, value)| (key.to_owned(), *value)).collect()
    }

    /// What has to change in one map to make it the other.
    fn differences(one: &Model, other: &Model) -> BTreeMap<String, (Option<u32>, Option<u32>)> {
        let keys = one.keys().chain(other.keys());
        let both = keys.map(|key| (key.clone(), (one.get(key).copied(), other.get(key).copied())));
        both.filter(|(_, (mine, theirs))| mine != theirs).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_a_map_whose_copies_stay_as_they_were(
            steps in prop::collection::vec((0..200_u32, prop::option::weighted(0.7, 0..1_000_u32), prop::bool::weighted(0.1)), 0..400),
        ) {
            let (mut trie, mut model) = (Trie::default(), Model::new());
            let mut copies = vec![(trie.clone(), model.clone())];
            for (key, value, copy) in steps {
                let key = format!("key{key}");
                match value {
                    Some(value) if copy => {
                        if let Some(held) = trie.get_mut(&key) {
                            *held = value;
                            model.insert(key.clone(), value);
                        }
                    }
                    Some(value) => assert_eq!(trie.insert(&key, value), model.insert(key.clone(), value)),
                    None => assert_eq!(trie.remove(&key), model.remove(&key)),
                }
                assert_eq!((trie.get(&key), trie.len()), (model.get(&key), model.len()));
                if copy {
                    copies.push((trie.clone(), model.clone()));
                }
            }
            for (copy, then) in &copies {
                assert_eq!(&entries(copy), then);
                let mut found = BTreeMap::new();
                copy.compare(&trie, &mut |key: &str, (mine, theirs): Both<'_, u32>| {
                    if mine != theirs {
                        assert!(found.insert(key.to_owned(), (mine.copied(), theirs.copied())).is_none(), "named once");
                    }
                });
                assert_eq!(found, differences(then, &model));
            }
        }
    }

    #[test]
    fn what_is_shared_is_not_looked_at() {
        let mut trie = Trie::default();
        for key in 0..50_000_u32 {
            trie.insert(&key.to_string(), key);
        }
        let mut other = trie.clone();
        other.insert("7", 0);
        other.remove("8");
        other.insert("new", 1);
        let mut looked_at = 0;
        trie.compare(&other, &mut |_, _| looked_at += 1);
        assert!((3..100).contains(&looked_at), "{looked_at} of 50,000");
    }

    #[test]
    fn keys_of_one_hash_stand_in_a_row() {
        let leaf = |key: &str, value| Arc::new(Leaf { hash: 7, key: key.into(), value });
        let mut root = Arc::new(Node::default());
        for (key, value) in [("a", 1), ("b", 2), ("c", 3)] {
            assert!(Node::insert(&mut root, 0, leaf(key, value)).is_none());
        }
        let before = Arc::clone(&root);
        assert_eq!(Node::insert(&mut root, 0, leaf("b", 4)).map(|old| old.value), Some(2));
        Node::remove(&mut root, 0, 7, "a");
        assert_eq!(Node::get_mut(&mut root, 0, 7, "b"), Some(&mut 4));
        assert_eq!(Node::get_mut(&mut root, 0, 7, "a"), None);
        let mut found = BTreeMap::new();
        before.compare(&root, 0, &mut |key, (mine, theirs)| {
            found.insert(key, (mine.copied(), theirs.copied()));
        });
        found.retain(|_, (mine, theirs)| mine != theirs);
        assert_eq!(found, BTreeMap::from([("a", (Some(1), None)), ("b", (Some(2), Some(4)))]));
        Node::remove(&mut root, 0, 7, "b");
        assert!(matches!(&*root.slots, [Slot::Leaf(leaf)] if &*leaf.key == "c"), "one key needs no levels");
    }
}
