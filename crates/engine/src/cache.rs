//! What a store holds under the keys that were read or written last, so that it need not be asked again. Only its task
//! writes a store, and every write comes by here when it is committed.

use hashbrown::HashTable;

/// The cache of one store, in two generations: a key that is used goes to the young one; when that has half of the memory,
/// it becomes the old one, and what was in that is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    young: HashTable<Entry>,
    old: HashTable<Entry>,
    /// Of the young generation.
    bytes: usize,
    /// Of both.
    limit: usize,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    key: Box<[u8]>,
    /// `None`: the store has no such key.
    value: Option<Box<[u8]>>,
}

impl Entry {
    fn bytes(&self) -> usize {
        // The table keeps an eighth of its places free, or more.
        self.key.len() + self.value.as_ref().map_or(0, |value| value.len()) + 2 * size_of::<Self>()
    }
}

impl Cache {
    /// At most so many bytes from now on; none: nothing is kept.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        *self = Self {
            limit,
            ..Self::default()
        };
    }

    /// What the store holds under the key, where that is known: a value, or that there is none.
    #[inline]
    pub(crate) fn get(&mut self, hash: u64, key: &[u8]) -> Option<Option<&[u8]>> {
        if self.limit == 0 {
            return None;
        }
        let is_key = |entry: &Entry| entry.hash == hash && *entry.key == *key;
        if self.young.find(hash, is_key).is_none() {
            let (entry, _) = self.old.find_entry(hash, is_key).ok()?.remove();
            self.insert(entry);
        }
        self.young.find(hash, is_key).map(|entry| entry.value.as_deref())
    }

    /// Notes what the store holds under the key now.
    #[inline]
    pub(crate) fn put(&mut self, hash: u64, key: &[u8], value: Option<&[u8]>) {
        if self.limit == 0 {
            return;
        }
        let is_key = |entry: &Entry| entry.hash == hash && *entry.key == *key;
        if let Some(entry) = self.young.find_mut(hash, is_key) {
            match (&mut entry.value, value) {
                (Some(place), Some(value)) if place.len() == value.len() => place.copy_from_slice(value),
                (place, value) => {
                    self.bytes -= place.as_ref().map_or(0, |place| place.len());
                    self.bytes += value.map_or(0, <[u8]>::len);
                    *place = value.map(Box::from);
                }
            }
            return;
        }
        if let Ok(entry) = self.old.find_entry(hash, is_key) {
            entry.remove();
        }
        let (key, value) = (Box::from(key), value.map(Box::from));
        self.insert(Entry { hash, key, value });
    }

    /// Forgets the key.
    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) {
        let is_key = |entry: &Entry| entry.hash == hash && *entry.key == *key;
        if let Ok(entry) = self.young.find_entry(hash, is_key) {
            self.bytes -= entry.remove().0.bytes();
        }
        if let Ok(entry) = self.old.find_entry(hash, is_key) {
            entry.remove();
        }
    }

    fn insert(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        if self.bytes > self.limit / 2 {
            self.old = std::mem::take(&mut self.young);
            self.bytes = entry.bytes();
        }
        self.young.insert_unique(entry.hash, entry, |entry| entry.hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Read(u8),
        Write(u8, Option<Vec<u8>>),
        Forget(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20));
        let step = prop_oneof![
            (0..40u8).prop_map(Step::Read),
            (0..40u8, value).prop_map(|(key, value)| Step::Write(key, value)),
            (0..40u8).prop_map(Step::Forget),
        ];
        proptest::collection::vec(step, 0..300)
    }

    proptest! {
        /// Whatever is forgotten, what is known is right; and no more is kept than may be.
        #[test]
        fn what_it_knows_is_what_the_store_holds(steps in steps(), limit in 0..6_000usize, hashes in 1..60u64) {
            let mut store = BTreeMap::new();
            let mut cache = Cache::default();
            cache.set_limit(limit);
            for step in steps {
                match step {
                    Step::Read(key) => {
                        let hash = u64::from(key) % hashes;
                        let held = store.get(&key).map(Vec::as_slice);
                        match cache.get(hash, &[key]) {
                            Some(known) => prop_assert_eq!(known, held),
                            None => cache.put(hash, &[key], held),
                        }
                    }
                    Step::Forget(key) => {
                        let hash = u64::from(key) % hashes;
                        cache.remove(hash, &[key]);
                        prop_assert_eq!(cache.get(hash, &[key]), None);
                    }
                    Step::Write(key, value) => {
                        cache.put(u64::from(key) % hashes, &[key], value.as_deref());
                        match value {
                            Some(value) => store.insert(key, value),
                            None => store.remove(&key),
                        };
                    }
                }
                let bytes = |table: &HashTable<Entry>| table.iter().map(Entry::bytes).sum::<usize>();
                prop_assert_eq!(bytes(&cache.young), cache.bytes);
                // One entry may be larger than all that may be kept, a value may grow in its place.
                prop_assert!(bytes(&cache.young) + bytes(&cache.old) <= limit.max(1) + 2_000);
                prop_assert!(limit > 0 || cache.young.is_empty());
            }
        }
    }

    #[test]
    fn keys_in_use_stay_when_others_go() {
        let mut cache = Cache::default();
        cache.set_limit(4_000);
        for round in 0..100u64 {
            cache.put(round, &round.to_be_bytes(), Some(b"value"));
            cache.get(0, &0u64.to_be_bytes());
        }
        assert_eq!(cache.get(0, &0u64.to_be_bytes()), Some(Some(&b"value"[..])));
        assert_eq!(cache.get(1, &1u64.to_be_bytes()), None);
    }
}
