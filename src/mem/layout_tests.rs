//! The header byte by byte: a change here is a change of format.

use super::*;

fn golden() -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, b"mpsegmt\0");
    put(8, &[1, 0, 0, 0, 2, 0, 0, 0]);
    put(16, &0x23ab_fea8_abef_21e7_u64.to_le_bytes());
    put(24, b"<f8");
    put(40, &[8, 0, 0, 0, 0, 0, 0, 0, 8]);
    put(56, &[3, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    put(72, &[24, 1]);
    put(80, &[7; 16]);
    put(96, &[0x39, 0x30, 0, 0, 0, 0, 0, 0, 0x15, 0xcd, 0x5b, 0x07]);
    put(112, &[2, 0, 0, 0, 1, 0, 0, 0xf0]);
    put(128 + 56, &[1]);
    bytes
}

fn written() -> [u8; HEADER_LEN] {
    let header = header_of_zeros();
    header.set_id(SegmentId([7; 16]));
    header.announce(Creator {
        pid: 12345,
        started: 123_456_789,
        space: 0xf000_0001,
    });
    let shape = Shape::of::<f64>(Kind::Array, 3, 1).unwrap();
    header.describe(&shape, shape.total().unwrap());
    header.publish();
    copy(&header)
}

fn header_of_zeros() -> Header {
    let zero = || AtomicU64::new(0);
    let half = || AtomicU32::new(0);
    Header {
        magic: zero(),
        format: half(),
        kind: half(),
        hash: zero(),
        tag: [zero(), zero()],
        size: zero(),
        align: zero(),
        count: zero(),
        data_at: zero(),
        total: zero(),
        id: [zero(), zero()],
        creator_pid: zero(),
        creator_started: zero(),
        state: half(),
        space: half(),
        unused: [half(), half()],
        lock: LockArea {
            lock: std::array::from_fn(|_| zero()),
            code: half(),
            flags: Flags(half()),
        },
        front: zero(),
        spare: std::array::from_fn(|_| zero()),
    }
}

fn copy(header: &Header) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    // SAFETY: a header is 256 bytes of atomics without padding, alive by reference, and nobody else writes it.
    unsafe {
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(header).cast(),
            bytes.as_mut_ptr(),
            HEADER_LEN,
        );
    }
    bytes
}

#[test]
fn the_header_of_an_array_of_three_f64_is_these_bytes() {
    assert_eq!(written(), golden());
}

#[test]
fn what_was_written_reads_back() {
    let contents = Parsed::new(golden()).contents("it", 4096).unwrap();
    assert_eq!(contents.shape, Shape::of::<f64>(Kind::Array, 3, 1).unwrap());
    assert_eq!((contents.data_at, contents.total), (256, 280));
    assert_eq!(contents.shape.to_string(), "an array of 3 f64 (<f8)");
}

#[test]
fn no_lie_in_a_header_gets_through() {
    type Lie = (usize, u64);
    let lies: [Lie; 9] = [
        (40, 0),
        (40, u64::MAX),
        (48, 3),
        (48, 8192),
        (56, u64::MAX / 4),
        (64, 8),
        (64, u64::MAX),
        (72, 281),
        (72, 100),
    ];
    for (at, lie) in lies {
        let mut bytes = golden();
        bytes[at..at + 8].copy_from_slice(&lie.to_le_bytes());
        let error = Parsed::new(bytes).contents("it", 280).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadSegment, "{at} {lie}: {error}");
    }
}

#[test]
fn types_are_named_as_numpy_names_them() {
    let names = [
        Fingerprint::of::<f64>(),
        Fingerprint::of::<i32>(),
        Fingerprint::of::<u8>(),
        Fingerprint::of::<usize>(),
        Fingerprint::of::<[f32; 4]>(),
    ]
    .map(|fingerprint| fingerprint.to_string());
    assert_eq!(
        names,
        [
            "f64 (<f8)",
            "i32 (<i4)",
            "u8 (|u1)",
            "u64 (<u8)",
            "a type of 16 bytes"
        ]
    );
    assert_ne!(Fingerprint::of::<[f32; 4]>(), Fingerprint::of::<[u64; 2]>());
    assert_ne!(Fingerprint::of::<i64>(), Fingerprint::of::<u64>());
}

#[test]
fn stages_are_told_apart() {
    let header = header_of_zeros();
    assert_eq!(Parsed::new(copy(&header)).stage(), Stage::Unborn);
    let creator = Creator {
        pid: 1,
        started: 2,
        space: 0,
    };
    header.announce(creator);
    assert_eq!(Parsed::new(copy(&header)).stage(), Stage::Born(creator));
    assert_eq!(Parsed::new([b'x'; HEADER_LEN]).stage(), Stage::Foreign);
}

/// Found on a busy machine: an opener copied the first bytes of a header, stood still while the creator finished, and copied the rest. The
/// state said READY, and before it lay zeros: the segment was refused as one of somebody else.
#[test]
fn a_copy_that_the_creator_overtook_is_made_again() {
    let unborn = copy(&header_of_zeros());
    let header = header_of_zeros();
    let creator = Creator {
        pid: 1,
        started: 2,
        space: 3,
    };
    header.announce(creator);
    let (born, ready) = (copy(&header), written());
    let torn = |early: [u8; HEADER_LEN], late: [u8; HEADER_LEN], at: usize| {
        let mut bytes = late;
        bytes[..at].copy_from_slice(&early[..at]);
        bytes
    };
    for at in 0..HEADER_LEN {
        let mut copies = [torn(unborn, ready, at), ready, ready].into_iter();
        let found = Parsed::read(|| Ok(copies.next())).unwrap().unwrap();
        assert!(
            matches!(found.stage(), Stage::Ready | Stage::Unborn),
            "{at}: {:?}",
            found.stage()
        );
        let mut copies = [torn(unborn, born, at), torn(born, ready, at), ready, ready].into_iter();
        let stage = Parsed::read(|| Ok(copies.next())).unwrap().unwrap().stage();
        assert!(
            matches!(stage, Stage::Ready | Stage::Unborn) || stage == Stage::Born(creator),
            "{at}: {stage:?}"
        );
    }
}

#[test]
fn a_file_whose_state_changes_all_the_time_is_copied_a_few_times_only() {
    let mut bytes = written();
    let mut copies = 0;
    Parsed::read(|| {
        copies += 1;
        bytes[112] = copies;
        Ok(Some(bytes))
    })
    .unwrap();
    assert!(copies < 10);
}

/// The constants beside what they stand for.
#[test]
fn a_type_is_named_by_its_letter_and_its_size() {
    fn check<T: 'static>(letter: &str) {
        let text = match (letter, size_of::<T>()) {
            ("", size) => format!("V{size}"),
            (letter, 1) => format!("|{letter}1"),
            (letter, size) => format!("<{letter}{size}"),
        };
        let mut tag = [0; 16];
        let len = text.len().min(16);
        tag[..len].copy_from_slice(&text.as_bytes()[..len]);
        let (size, align) = (size_of::<T>() as u64, align_of::<T>() as u64);
        let bytes = tag.into_iter().chain(size.to_le_bytes());
        let hash = bytes
            .chain(align.to_le_bytes())
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        assert_eq!(Fingerprint::of::<T>(), Fingerprint { hash, tag }, "{text}");
    }
    check::<bool>("b");
    check::<u8>("u");
    check::<i8>("i");
    check::<u16>("u");
    check::<i32>("i");
    check::<u64>("u");
    check::<isize>("i");
    check::<f32>("f");
    check::<f64>("f");
    check::<()>("");
    check::<u128>("");
    check::<[u16; 5]>("");
    check::<[u8; 1_000]>("");
    check::<[u8; 123_456_789_012_345]>("");
}
