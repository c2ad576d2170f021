//! Memory that other programs made: here files that a test writes.

use multiproc::{Array, ErrorKind, Pool, RawArray, Value};
use proptest::prelude::*;

use crate::help::Name;

/// Memory of some foreign program; gone with its name.
struct Foreign(Name);

impl Foreign {
    fn new(bytes: &[u8]) -> Self {
        let name = Name::new();
        std::fs::write(name.path(), bytes).unwrap();
        Self(name)
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.0.path()).unwrap()
    }

    fn resize(&self, len: u64) {
        let file = std::fs::File::options().write(true).open(self.0.path());
        file.unwrap().set_len(len).unwrap();
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if self.0.exists() {
            self.0.remove();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_raw_array_does_what_a_slice_of_the_file_does(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        offset in 0..40_usize,
        steps in prop::collection::vec((0..80_usize, 0..20_usize, any::<u32>()), 0..12),
    ) {
        let foreign = Foreign::new(&bytes);
        let offset = offset * 4;
        let mut oracle = bytes.clone();
        let array = RawArray::<u32>::open_part(&foreign.0, offset, bytes.len().saturating_sub(offset) / 4);
        if offset > bytes.len() {
            prop_assert_eq!(array.unwrap_err().kind(), ErrorKind::OutOfBounds);
            return Ok(());
        }
        let array = array.unwrap();
        for (start, count, value) in steps {
            let items = vec![value; count];
            if start + count <= array.len() {
                array.write(start, &items).unwrap();
                prop_assert_eq!(array.read(start..start + count).unwrap(), items);
                let at = offset + start * 4;
                oracle[at..at + count * 4].chunks_mut(4).for_each(|item| item.copy_from_slice(&value.to_le_bytes()));
            } else {
                prop_assert_eq!(array.write(start, &items).unwrap_err().kind(), ErrorKind::OutOfBounds);
                prop_assert_eq!(array.read(start..start + count).unwrap_err().kind(), ErrorKind::OutOfBounds);
            }
        }
        prop_assert_eq!(foreign.bytes(), oracle.clone());
        let end = offset + array.len() * 4;
        let items: Vec<u32> = oracle[offset..end].chunks(4).map(|item| u32::from_le_bytes(item.try_into().unwrap())).collect();
        prop_assert_eq!(array.to_vec().unwrap(), items);
    }
}

#[test]
fn what_cannot_be_opened_is_said() {
    let foreign = Foreign::new(&[0; 100]);
    let name = &*foreign.0;
    let kind = |result: Result<usize, multiproc::Error>| result.unwrap_err().kind();
    let len = |array: RawArray<u64>| array.len();
    assert_eq!(RawArray::<u64>::open(name).unwrap().len(), 12);
    assert_eq!(RawArray::<[u8; 3]>::open(name).unwrap().len(), 33);
    assert!(RawArray::<[u8; 101]>::open(name).unwrap().is_empty());
    assert_eq!(RawArray::<u64>::open_part(name, 16, 10).unwrap().len(), 10);
    assert_eq!(
        kind(RawArray::open_part(name, 16, 11).map(len)),
        ErrorKind::OutOfBounds
    );
    assert_eq!(
        kind(RawArray::open_part(name, 104, 0).map(len)),
        ErrorKind::OutOfBounds
    );
    assert_eq!(
        kind(RawArray::open_part(name, usize::MAX - 7, usize::MAX).map(len)),
        ErrorKind::OutOfBounds
    );
    assert_eq!(
        kind(RawArray::open_part(name, 4, 1).map(len)),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        RawArray::<()>::open(name).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    for wrong in ["", "a/b", "/psm", "a\0b", &"n".repeat(256)] {
        assert_eq!(
            kind(RawArray::open(wrong).map(len)),
            ErrorKind::InvalidInput,
            "{wrong:?}"
        );
    }
    for (wrong, expected) in [
        ("mp-nobody-has-this", ErrorKind::NotFound),
        (".", ErrorKind::BadSegment),
        ("..", ErrorKind::BadSegment),
    ] {
        assert_eq!(kind(RawArray::open(wrong).map(len)), expected, "{wrong:?}");
    }
}

/// It would write over the lock.
#[test]
fn a_segment_of_this_crate_is_not_opened_raw() {
    let name = Name::new();
    let _array = Array::<u64>::create(&name, 100).unwrap();
    for error in [
        RawArray::<u64>::open(&name).unwrap_err(),
        RawArray::<u64>::open_part(&name, 256, 100).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::BadSegment, "{error}");
        assert!(error.to_string().contains("open it as"), "{error}");
    }
}

/// Mapped memory that is cut short ends who touches it.
#[test]
fn a_file_that_is_cut_short_is_an_error() {
    let foreign = Foreign::new(&vec![1; 100_000]);
    let array = RawArray::<u16>::open(&foreign.0).unwrap();
    foreign.resize(50_001);
    assert_eq!(array.len(), 50_000);
    assert_eq!(array.get(24_999).unwrap(), 0x101);
    for error in [
        array.get(25_000).unwrap_err(),
        array.to_vec().map(drop).unwrap_err(),
        array.set(25_000, 5).unwrap_err(),
        array.as_ptr().map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Gone, "{error}");
    }
    assert_eq!(foreign.bytes().len(), 50_001, "it was made to grow");
    foreign.resize(0);
    assert_eq!(array.get(0).unwrap_err().kind(), ErrorKind::Gone);
}

#[test]
fn holes_read_as_zeros_and_get_their_memory_when_written() {
    let foreign = Foreign::new(&[]);
    foreign.resize(1 << 20);
    let array = RawArray::<f64>::open(&foreign.0).unwrap();
    assert_eq!(array.len(), 1 << 17);
    assert_eq!(array.get(70_000).unwrap(), 0.0);
    array.set(70_000, 2.5).unwrap();
    assert_eq!(array.read(69_999..=70_000).unwrap(), [0.0, 2.5]);
    assert!(!array.as_ptr().unwrap().is_null());
    assert_eq!(array.as_ptr().unwrap(), array.clone().as_ptr().unwrap());
}

#[test]
fn a_name_that_is_gone_leaves_the_memory_to_who_has_it() {
    let foreign = Foreign::new(&[7; 16]);
    let array = RawArray::<u8>::open(&foreign.0).unwrap();
    foreign.0.remove();
    assert_eq!(array.to_vec().unwrap(), [7; 16]);
    // nor is it anybody's to take over while it is there
    let zeros = Foreign::new(&[0; 4096]);
    let array = RawArray::<u8>::open(&zeros.0).unwrap();
    let error = Value::create(&zeros.0, 1_u8).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    array.set(0, 1).unwrap();
    assert_eq!(zeros.bytes()[0], 1);
}

#[test]
fn a_raw_array_travels_by_its_name() {
    let pool = Pool::with_workers(1).unwrap();
    let foreign = Foreign::new(&[0; 64]);
    let array = RawArray::<u32>::open_part(&foreign.0, 8, 10).unwrap();
    let set = |array: RawArray<u32>| {
        array.set(9, 42).unwrap();
        array
    };
    let back = pool.apply(set, array.clone()).unwrap();
    assert_eq!((back.len(), back.get(9).unwrap()), (10, 42));
    assert_eq!(foreign.bytes()[44], 42);
    foreign.0.remove();
    assert!(pool.apply(set, array.clone()).is_err());
    std::fs::write(foreign.0.path(), [0; 64]).unwrap();
    let error = pool.apply(set, array).unwrap_err();
    assert!(error.to_string().contains("another file"), "{error}");
}
