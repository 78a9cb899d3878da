//! What a task's store holds beyond its database: changes that Kafka has committed and RocksDB does not have yet.
//!
//! The write-ahead log is off, so a crash costs what is here as it costs a memtable. Kept by hash and not in order, a key
//! that is written again and again costs a fraction of what it costs there (ADR 0031).

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// Each key of a task's stores that was changed, once, with its last value.
#[derive(Debug)]
pub(crate) struct Unwritten {
    /// By store. The order of a table is never observed.
    stores: Vec<HashTable<Entry>>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    key: Box<[u8]>,
    /// `None` deletes.
    value: Option<Vec<u8>>,
}

impl Unwritten {
    /// Of so many stores.
    pub(crate) fn new(stores: usize) -> Self {
        Self {
            stores: std::iter::repeat_with(HashTable::new).take(stores).collect(),
            bytes: 0,
        }
    }

    /// Puts or, with `None`, deletes.
    ///
    /// # Panics
    /// When there is no such store.
    pub(crate) fn change(&mut self, store: usize, key: &[u8], value: Option<&[u8]>) {
        let hash = xxh3_64(key);
        let table = &mut self.stores[store];
        let is_key = |entry: &Entry| entry.hash == hash && *entry.key == *key;
        let length = value.map_or(0, <[u8]>::len);
        if let Some(entry) = table.find_mut(hash, is_key) {
            self.bytes = self.bytes + length - entry.value.as_ref().map_or(0, Vec::len);
            match (&mut entry.value, value) {
                (Some(place), Some(value)) => {
                    place.clear();
                    place.extend_from_slice(value);
                }
                (place, value) => *place = value.map(<[u8]>::to_vec),
            }
            return;
        }
        // The table keeps an eighth of its places free, or more.
        self.bytes += key.len() + length + 2 * size_of::<Entry>();
        let (key, value) = (Box::from(key), value.map(<[u8]>::to_vec));
        table.insert_unique(hash, Entry { hash, key, value }, |entry| entry.hash);
    }

    /// What is to be written under the key, if something is: a value, or that it is deleted.
    pub(crate) fn get(&self, store: usize, key: &[u8]) -> Option<Option<&[u8]>> {
        let hash = xxh3_64(key);
        let is_key = |entry: &Entry| entry.hash == hash && *entry.key == *key;
        let entry = self.stores.get(store)?.find(hash, is_key)?;
        Some(entry.value.as_deref())
    }

    /// Memory in use, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes of a store in the order of keys, which a memtable takes faster.
    pub(crate) fn sorted(&self, store: usize) -> Vec<(&[u8], Option<&[u8]>)> {
        let entries = self.stores.get(store).into_iter().flatten();
        let mut changes: Vec<_> = entries
            .map(|entry| (&*entry.key, entry.value.as_deref()))
            .collect();
        changes.sort_unstable_by_key(|(key, _)| *key);
        changes
    }

    /// Forgets everything; keeps the tables.
    pub(crate) fn clear(&mut self) {
        self.stores.iter_mut().for_each(HashTable::clear);
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_there_once_with_its_last_value() {
        let mut unwritten = Unwritten::new(2);
        for (store, key, value) in [
            (0, "b", Some("1")),
            (0, "a", Some("22")),
            (1, "b", Some("other store")),
            (0, "b", None),
            (0, "c", None),
            (0, "b", Some("333")),
            (0, "a", None),
        ] {
            unwritten.change(store, key.as_bytes(), value.map(str::as_bytes));
        }
        let wanted = [(&b"a"[..], None), (b"b", Some(&b"333"[..])), (b"c", None)];
        assert_eq!(unwritten.sorted(0), wanted);
        assert_eq!(unwritten.get(0, b"a"), Some(None));
        assert_eq!(unwritten.get(0, b"b"), Some(Some(&b"333"[..])));
        assert_eq!(unwritten.get(1, b"b"), Some(Some(&b"other store"[..])));
        assert_eq!(unwritten.get(1, b"a"), None);
        let entries = 4 * 2 * size_of::<Entry>();
        assert_eq!(unwritten.bytes(), entries + 4 + "333other store".len());
        unwritten.clear();
        assert_eq!((unwritten.bytes(), unwritten.get(0, b"b")), (0, None));
    }
}
