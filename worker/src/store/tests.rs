use super::*;
use engine::Store as _;
use protocol::{ChangelogPosition, DEFAULT_MEMORY_BYTES};

mod suite;

fn label(application: &str) -> Label {
    let stores = BTreeMap::from([("s".to_owned(), "f".to_owned())]);
    Label::new(application, "cluster", &"t-0".parse().unwrap(), stores)
}

fn open(path: &Path, application: &str) -> Result<TaskDb, StoreError> {
    TaskDb::open(
        path,
        &label(application),
        vec!["s".to_owned()],
        &StoreMemory::new(&MemoryBudget::of(DEFAULT_MEMORY_BYTES, 1).unwrap()),
    )
}

/// Opens a directory with these stores, each with a fingerprint.
fn open_stores(path: &Path, stores: &[(&str, &str)]) -> Result<TaskDb, StoreError> {
    let owned = stores
        .iter()
        .map(|(name, fingerprint)| ((*name).to_owned(), (*fingerprint).to_owned()));
    let label = Label::new("a", "cluster", &"t-0".parse().unwrap(), owned.collect());
    let names = stores.iter().map(|(name, _)| (*name).to_owned());
    let memory = StoreMemory::new(&MemoryBudget::of(DEFAULT_MEMORY_BYTES, 1).unwrap());
    TaskDb::open(path, &label, names.collect(), &memory)
}

fn positions(offset: i64) -> StorePositions {
    let position = ChangelogPosition {
        topic_id: "id".into(),
        offset,
    };
    StorePositions {
        task: None,
        changelogs: BTreeMap::from([("s".into(), position)]),
        as_of_ms: 1,
    }
}

#[test]
fn data_and_positions_come_back_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    {
        let mut db = open(&path, "a").unwrap();
        db.apply([(0, &b"k"[..], Some(&b"v"[..]))], positions(7)).unwrap();
        db.flush(FlushWait::UntilDone).unwrap();
    }
    let db = open(&path, "a").unwrap();
    assert_eq!(db.positions(), positions(7));
    let mut value = Vec::new();
    assert!(db.reader(0, 100).get(b"k", &mut value).unwrap());
    assert_eq!(value, b"v");
    assert!(!db.reader(0, 100).get(b"absent", &mut value).unwrap());
}

fn value(db: &TaskDb, key: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    let found = db.reader(0, 100).get(key, &mut value).unwrap();
    found.then_some(value)
}

/// What a process that is killed now leaves behind.
fn killed(path: &Path, into: &Path) -> TaskDb {
    fs::create_dir_all(into.join("db")).unwrap();
    fs::copy(path.join("store.json"), into.join("store.json")).unwrap();
    for entry in fs::read_dir(path.join("db")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), into.join("db").join(entry.file_name())).unwrap();
    }
    open(into, "a").unwrap()
}

#[test]
fn what_waits_is_read_and_is_lost_with_its_positions_by_a_kill_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    let (key, other) = (&b"k"[..], &b"other"[..]);
    let mut db = open(&path, "a").unwrap();
    db.set_unwritten_bytes(1_000);
    db.apply([(0, key, Some(&b"1"[..]))], positions(1)).unwrap();
    db.flush(FlushWait::UntilDone).unwrap();
    db.apply([(0, key, Some(&b"2"[..])), (0, other, None)], positions(2))
        .unwrap();
    // Positions alone do not overtake the changes before them.
    db.apply([], positions(3)).unwrap();
    db.opened.db.flush().unwrap();
    assert_eq!((value(&db, key), value(&db, other)), (Some(b"2".to_vec()), None));
    {
        let left = killed(&path, &dir.path().join("killed"));
        assert_eq!(left.positions(), positions(1));
        assert_eq!(value(&left, key), Some(b"1".to_vec()));
    }
    drop(db);
    let mut db = open(&path, "a").unwrap();
    assert_eq!(db.positions(), positions(3));
    assert_eq!(value(&db, key), Some(b"2".to_vec()));
    db.set_unwritten_bytes(1_000);
    db.apply([(0, key, Some(&[7; 2_000][..]))], positions(4)).unwrap();
    assert_eq!(lock(&db.opened.applied).unwritten.bytes(), 0, "too much to wait");
    assert_eq!(value(&db, key), Some(vec![7; 2_000]));
}

/// Flushes make files, compactions remove them: what the cache holds of those must not stay.
#[test]
fn the_cache_does_not_fill_with_blocks_of_files_that_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let memory = StoreMemory::new(&MemoryBudget::of(DEFAULT_MEMORY_BYTES, 1).unwrap());
    let stores = vec!["s".to_owned()];
    let mut db = TaskDb::open(&dir.path().join("t-0"), &label("a"), stores, &memory).unwrap();
    let mut used = Vec::new();
    for round in 0..400_i64 {
        let value = [u8::try_from(round % 256).unwrap(); 100];
        let keys: Vec<_> = (0..50_u32).map(u32::to_be_bytes).collect();
        let changes = keys.iter().map(|key| (0, &key[..], Some(&value[..])));
        db.apply(changes, positions(round)).unwrap();
        db.flush(FlushWait::UntilDone).unwrap();
        assert_eq!(self::value(&db, &keys[0]), Some(value.to_vec()));
        used.push(memory.cache.get_usage());
    }
    let most = |used: &[usize]| used.iter().max().copied().unwrap();
    let (early, late) = (most(&used[50..100]), most(&used[350..]));
    assert!(late <= early + early / 10, "{early} bytes grew to {late}");
}

/// What is said of a directory with this label, and whether nothing was changed in it.
fn refused(found: &Label) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    fs::create_dir(&path).unwrap();
    write_atomically(&path.join("store.json"), found).unwrap();
    let before = fs::read(path.join("store.json")).unwrap();
    let error = open(&path, "a").err().unwrap().to_string();
    assert_eq!(fs::read(path.join("store.json")).unwrap(), before);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "only the label");
    let about = format!("store directory {} ", path.display());
    let advice = "; nothing was changed: choose another state directory, or move this one away";
    let reason = error
        .strip_prefix(&about)
        .and_then(|rest| rest.strip_suffix(advice));
    reason.unwrap_or(&error).to_owned()
}

#[test]
fn a_directory_of_another_layout_is_refused() {
    let found = Label {
        format: FORMAT + 1,
        ..label("a")
    };
    assert_eq!(refused(&found), "has layout version 2, this worker knows 1");
}

#[test]
fn a_directory_of_another_application_is_refused() {
    assert_eq!(refused(&label("b")), "belongs to application `b`, not `a`");
}

#[test]
fn a_directory_of_another_cluster_is_refused() {
    let found = Label {
        cluster_id: "other".to_owned(),
        ..label("a")
    };
    assert_eq!(refused(&found), "belongs to Kafka cluster other, not cluster");
}

#[test]
fn a_directory_of_another_task_is_refused() {
    for other in ["t-1", "u-0"] {
        let found = Label {
            task: other.parse().unwrap(),
            ..label("a")
        };
        assert_eq!(refused(&found), format!("belongs to task {other}, not t-0"));
    }
}

#[test]
fn a_directory_whose_store_is_kept_in_another_way_is_refused() {
    let found = Label {
        stores: BTreeMap::from([("s".to_owned(), "g".to_owned())]),
        ..label("a")
    };
    let wanted = "has store `s` as another version of the topology keeps it";
    assert_eq!(refused(&found), wanted);
}

#[test]
fn a_directory_that_does_not_say_what_it_is_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    drop(open(&path, "a").unwrap());
    let mut said = Vec::new();
    fs::write(path.join("store.json"), "{").unwrap();
    said.push(open(&path, "a").err().unwrap().to_string());
    fs::remove_file(path.join("store.json")).unwrap();
    said.push(open(&path, "a").err().unwrap().to_string());
    let wanted = [
        "has an unreadable store.json (",
        "has a database but no store.json;",
    ];
    for (said, wanted) in said.iter().zip(wanted) {
        assert!(said.contains(wanted), "{said}");
    }
}

/// A store with so much on disk that its data blocks fill the first half of its file, which `damage` gets.
fn damaged(path: &Path, damage: impl FnOnce(&mut Vec<u8>)) {
    {
        let mut db = open(path, "a").unwrap();
        let keys: Vec<_> = (0..20_000_u32).map(u32::to_be_bytes).collect();
        let changes = keys.iter().map(|key| (0, &key[..], Some(&[7; 20][..])));
        db.apply(changes, positions(7)).unwrap();
        db.flush(FlushWait::UntilDone).unwrap();
    }
    let files = fs::read_dir(path.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let largest = files
        .filter(|file| file.extension().is_some_and(|extension| extension == "sst"))
        .max_by_key(|file| fs::metadata(file).unwrap().len());
    let largest = largest.unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    damage(&mut bytes);
    fs::write(&largest, bytes).unwrap();
}

#[test]
fn damage_that_a_read_finds_is_known_at_the_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    damaged(&path, |bytes| {
        let half = bytes.len() / 2;
        bytes[..half].fill(0xAA);
    });
    {
        let db = open(&path, "a").unwrap();
        let mut value = Vec::new();
        assert!(db.reader(0, 100).get(&0_u32.to_be_bytes(), &mut value).is_err());
        let unread = db.unread();
        assert!(matches!(unread, Some(StoreError::Damaged { .. })), "{unread:?}");
    }
    let error = open(&path, "a").err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn a_file_that_is_too_short_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    damaged(&path, |bytes| bytes.truncate(bytes.len() / 2));
    let error = open(&path, "a").err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn a_store_that_is_damaged_again_within_a_day_is_not_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    let damage = || {
        drop(open(&path, "a").unwrap());
        fs::write(path.join(DAMAGED), "why").unwrap();
    };
    damage();
    let first = set_aside(&path, 1_000).unwrap();
    // For another reason, meanwhile.
    drop(open(&path, "a").unwrap());
    let old = set_aside(&path, 2_000).unwrap();
    damage();
    let error = set_aside(&path, CHANCE_MS).err().unwrap();
    assert!(
        matches!(&error, StoreError::DamagedAgain { aside, .. } if *aside == first),
        "{error}"
    );
    let second = set_aside(&path, CHANCE_MS + 1_000).unwrap();
    assert!(
        second.exists() && !first.exists() && !old.exists(),
        "the last one is kept"
    );
}

#[test]
fn stores_come_and_go_with_topologies() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    let both = || {
        let mut both = positions(7);
        let of_t = both.changelogs["s"].clone();
        both.changelogs.insert("t".into(), of_t);
        both
    };
    let key = &b"k"[..];
    let of_store = |db: &TaskDb, store| {
        let mut value = Vec::new();
        let found = db.reader(store, 100).get(key, &mut value).unwrap();
        found.then_some(value)
    };
    {
        let mut db = open_stores(&path, &[("s", "f")]).unwrap();
        db.apply([(0, key, Some(&b"1"[..]))], positions(7)).unwrap();
        db.flush(FlushWait::UntilDone).unwrap();
    }
    // One that is new begins empty and without a position.
    {
        let mut db = open_stores(&path, &[("s", "f"), ("t", "f")]).unwrap();
        assert_eq!(db.positions(), positions(7));
        assert_eq!((of_store(&db, 0), of_store(&db, 1)), (Some(b"1".to_vec()), None));
        db.apply([(1, key, Some(&b"2"[..]))], both()).unwrap();
        db.flush(FlushWait::UntilDone).unwrap();
    }
    // One that is away is forgotten.
    {
        let db = open_stores(&path, &[("s", "f")]).unwrap();
        assert_eq!(db.positions(), positions(7));
        assert_eq!(of_store(&db, 0), Some(b"1".to_vec()));
    }
    {
        let db = open_stores(&path, &[("s", "f"), ("t", "other")]).unwrap();
        assert_eq!(db.positions(), positions(7));
        assert_eq!((of_store(&db, 0), of_store(&db, 1)), (Some(b"1".to_vec()), None));
    }
    let changed = open_stores(&path, &[("s", "other")]).map(drop);
    assert!(matches!(changed, Err(StoreError::Foreign { .. })), "{changed:?}");
}

/// A crash when a store was forgotten and not yet dropped.
#[test]
fn what_has_no_position_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    let key = &b"k"[..];
    {
        let mut db = open_stores(&path, &[("s", "f"), ("t", "f")]).unwrap();
        db.apply(
            [(0, key, Some(&b"1"[..])), (1, key, Some(&b"2"[..]))],
            positions(7),
        )
        .unwrap();
        db.flush(FlushWait::UntilDone).unwrap();
    }
    let db = open_stores(&path, &[("s", "f"), ("t", "f")]).unwrap();
    let mut value = Vec::new();
    assert!(db.reader(0, 100).get(key, &mut value).unwrap());
    assert!(!db.reader(1, 100).get(key, &mut value).unwrap());
}
