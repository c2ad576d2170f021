//! Handles on their way: within this process, and over a socket to another one that is this test in another role.

use std::collections::HashSet;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use crate::handle::{
    Pin, SegmentId, Source, Wire, decoding, descriptor_of, encoding, failure, forget, hold, on_drop,
};
use crate::{Array, Error, ErrorKind, FrozenArray, Result, Value};

/// These tests count cells of one process, so they go one by one.
static ALONE: Mutex<()> = Mutex::new(());

/// Says no.
struct Nobody;

impl Source for Nobody {
    fn descriptor(&self, id: SegmentId) -> Result<OwnedFd> {
        Err(Error::new(ErrorKind::Gone, format!("nobody has {id:?}")))
    }
}

fn duplicate(id: SegmentId) -> OwnedFd {
    let segment = descriptor_of(id).unwrap();
    segment.as_fd().try_clone_to_owned().unwrap()
}

fn nobody() -> Arc<dyn Source> {
    Arc::new(Nobody)
}

fn write<T: Serialize>(value: &T) -> (Vec<u8>, Vec<Pin>) {
    let (bytes, pins) = encoding(|| postcard::to_allocvec(value));
    (bytes.unwrap(), pins)
}

fn read<T: for<'de> Deserialize<'de>>(source: &Arc<dyn Source>, bytes: &[u8]) -> Result<T> {
    decoding(source, || postcard::from_bytes(bytes)).map_err(|error| {
        failure().unwrap_or_else(|| Error::new(ErrorKind::Decode, error.to_string()))
    })
}

#[test]
fn a_handle_travels_only_within_the_scopes() {
    let value = Value::new(1u64).unwrap();
    let error = postcard::to_allocvec(&value).unwrap_err();
    assert_eq!(error, postcard::Error::SerdeSerCustom);
    let (bytes, pins) = write(&value);
    assert_eq!(pins.len(), 1);
    assert!(postcard::from_bytes::<Value<u64>>(&bytes).is_err());
    let same: Value<u64> = read(&nobody(), &bytes).unwrap();
    same.set(5).unwrap();
    assert_eq!(value.get().unwrap(), 5);
}

type All = (Value<u32>, Value<[u64; 1000]>, Array<f64>, FrozenArray<u8>);

#[test]
fn every_kind_of_handle_arrives_as_what_it_was() {
    let (small, large) = (Value::new(3u32).unwrap(), Value::new([7u64; 1000]).unwrap());
    let array = Array::from_slice(&[1.5f64, 2.5]).unwrap();
    let frozen = Array::from_slice(&[9u8; 5000]).unwrap().freeze().unwrap();
    let (bytes, pins) = write(&(&small, &large, &array, &frozen));
    assert_eq!(pins.len(), 4);
    let all: All = read(&nobody(), &bytes).unwrap();
    all.0.set(4).unwrap();
    all.1.lock().unwrap()[999] = 1;
    all.2.set(0, 0.5).unwrap();
    assert_eq!(small.get().unwrap(), 4);
    assert_eq!(large.get().unwrap()[999], 1);
    assert_eq!(array.to_vec().unwrap(), [0.5, 2.5]);
    assert_eq!(all.3[..], [9; 5000]);
    for pin in &pins {
        let again = hold(Wire::from_bytes(pin.wire().to_bytes()), &Nobody).unwrap();
        assert_eq!(again.segment().unwrap().id(), pin.segment().unwrap().id());
        assert!(descriptor_of(pin.wire().segment()).is_some());
    }
}

#[test]
fn a_wrong_type_or_a_wild_handle_is_an_error() {
    let value = Value::new(1u64).unwrap();
    let (bytes, pins) = write(&value);
    let error = read::<Value<f64>>(&nobody(), &bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch);
    let error = read::<Array<u64>>(&nobody(), &bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch);
    let array = Array::from_slice(&[1u64]).unwrap();
    let (bytes, _pins) = write(&array);
    let error = read::<FrozenArray<u64>>(&nobody(), &bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadSegment, "not frozen: {error}");
    let good = pins[0].wire().to_bytes();
    for (at, lie, kind) in [
        (0, !good[0], ErrorKind::Gone),
        (16, 9, ErrorKind::BadSegment),
        (22, 0xff, ErrorKind::BadSegment),
        (24, !good[24], ErrorKind::Gone),
    ] {
        let mut bytes = good;
        bytes[at] = lie;
        let error = hold(Wire::from_bytes(bytes), &Nobody).unwrap_err();
        assert_eq!(error.kind(), kind, "{at}: {error}");
    }
}

#[test]
fn a_handle_that_nobody_kept_is_gone_even_if_its_cell_is_used_again() {
    let _alone = ALONE.lock();
    let value = Value::new([1u64; 30]).unwrap();
    let (bytes, pins) = write(&value);
    drop((value, pins));
    let others: Vec<_> = (0..2000)
        .map(|n: u64| Value::new([n; 30]).unwrap())
        .collect();
    let error = read::<Value<[u64; 30]>>(&nobody(), &bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gone, "{error}");
    drop(others);
}

#[test]
fn a_pin_alone_keeps_a_value() {
    let _alone = ALONE.lock();
    let value = Value::new([1u64; 30]).unwrap();
    let (bytes, pins) = write(&value);
    drop(value);
    let others: Vec<_> = (0..2000)
        .map(|n: u64| Value::new([n; 30]).unwrap())
        .collect();
    let value: Value<[u64; 30]> = read(&nobody(), &bytes).unwrap();
    assert_eq!(value.get().unwrap(), [1; 30]);
    drop((others, pins));
}

static DROPPED: Mutex<Vec<SegmentId>> = Mutex::new(Vec::new());

#[test]
fn the_hook_hears_of_segments_that_were_ours() {
    on_drop(|id| DROPPED.lock().unwrap().push(id));
    let value = Value::new([1u64; 1000]).unwrap();
    let (bytes, pins) = write(&value);
    let id = pins[0].wire().segment();
    drop((value, pins));
    assert!(DROPPED.lock().unwrap().contains(&id));
    assert!(descriptor_of(id).is_none());
    let error = read::<Value<[u64; 1000]>>(&nobody(), &bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gone);
}

/// Has descriptors at hand, and keeps what it maps or not.
struct Shelf(Vec<(SegmentId, OwnedFd)>, bool);

impl Source for Shelf {
    fn descriptor(&self, id: SegmentId) -> Result<OwnedFd> {
        let (_, fd) = self.0.iter().find(|(there, _)| *there == id).unwrap();
        Ok(fd.try_clone().unwrap())
    }

    fn keeps_mapped(&self) -> bool {
        self.1
    }
}

#[test]
fn what_arrived_stays_mapped_until_it_is_forgotten() {
    for keeps in [true, false] {
        let array = Array::from_slice(&[5u64; 2000]).unwrap();
        let (bytes, pins) = write(&array);
        let id = pins[0].wire().segment();
        let shelf = Shelf(vec![(id, duplicate(id))], keeps);
        let source: Arc<dyn Source> = Arc::new(shelf);
        drop((array, pins));
        assert!(descriptor_of(id).is_none());
        let arrived: Array<u64> = read(&source, &bytes).unwrap();
        assert_eq!(arrived.to_vec().unwrap(), [5; 2000]);
        assert!(descriptor_of(id).is_some());
        drop(arrived);
        assert_eq!(descriptor_of(id).is_some(), keeps);
        forget(id);
        assert!(descriptor_of(id).is_none());
    }
}

#[test]
fn a_descriptor_of_something_else_is_not_mapped() {
    let array = Array::from_slice(&[5u64; 2000]).unwrap();
    let other = Array::from_slice(&[6u64; 2000]).unwrap();
    let (bytes, pins) = write(&array);
    let (id, its) = (
        pins[0].wire().segment(),
        write(&other).1[0].wire().segment(),
    );
    let wrong = [
        OwnedFd::from(std::fs::File::open("/dev/null").unwrap()),
        OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap()),
        duplicate(its),
    ];
    drop((array, pins));
    for fd in wrong {
        let source: Arc<dyn Source> = Arc::new(Shelf(vec![(id, fd)], false));
        let error = read::<Array<u64>>(&source, &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadSegment, "{error}");
    }
}

/// The other side of the socket answers.
struct Socket(Mutex<UnixStream>);

impl Source for Socket {
    fn descriptor(&self, id: SegmentId) -> Result<OwnedFd> {
        let mut socket = self.0.lock().unwrap();
        socket
            .write_all(&[b"?"[..].to_vec(), id.to_bytes().to_vec()].concat())
            .unwrap();
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let got = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .unwrap();
        let Some(ControlMessageOwned::ScmRights(fds)) = got.cmsgs().unwrap().next() else {
            return Err(Error::new(ErrorKind::Gone, "it has it no more"));
        };
        #[expect(unsafe_code, reason = "the kernel has just given it to us")]
        // SAFETY: a descriptor that only we know.
        let fd = unsafe { OwnedFd::from_raw_fd(fds[0]) };
        Ok(fd)
    }
}

/// What both processes share in these tests.
type Things = (Value<u64>, Value<[u64; 1000]>, FrozenArray<u8>);

const ROLE: &str = "MULTIPROC_TEST_ROLE";

/// The child's side: attach, answer to commands of one byte.
fn child() {
    // the harness talks on stdout; the socket is descriptor 0
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let source: Arc<dyn Source> = Arc::new(Socket(Mutex::new(socket.try_clone().unwrap())));
    let mut things: Vec<Things> = Vec::new();
    loop {
        let mut command = [0];
        if socket.read(&mut command).unwrap_or(0) == 0 {
            return;
        }
        match command[0] {
            b'a' => {
                let mut len = [0];
                socket.read_exact(&mut len).unwrap();
                let mut bytes = vec![0; len[0].into()];
                socket.read_exact(&mut bytes).unwrap();
                let these: Things = read(&source, &bytes).unwrap();
                assert_eq!(these.2[..], [9; 5000]);
                these.0.update(|n| *n += 1).unwrap();
                these.1.update(|n| n[1] += 1).unwrap();
                things.push(these);
            }
            b'n' => things
                .iter()
                .for_each(|these| these.0.update(|n| *n += 1).unwrap()),
            b'd' => things.clear(),
            _ => return,
        }
        socket.write_all(b"!").unwrap();
    }
}

struct Peer {
    socket: UnixStream,
    child: Child,
}

impl Peer {
    fn new(test: &str) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, "peer")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { socket, child }
    }

    fn tell(&mut self, command: &[u8]) {
        self.socket.write_all(command).unwrap();
        loop {
            let mut byte = [0];
            self.socket.read_exact(&mut byte).unwrap();
            if byte[0] == b'!' {
                return;
            }
            let mut id = [0; 16];
            self.socket.read_exact(&mut id).unwrap();
            let fd = duplicate(SegmentId::from_bytes(id));
            let fds = [fd.as_raw_fd()];
            sendmsg::<()>(
                self.socket.as_raw_fd(),
                &[IoSlice::new(b"f")],
                &[ControlMessage::ScmRights(&fds)],
                MsgFlags::empty(),
                None,
            )
            .unwrap();
        }
    }

    /// Returns when it has attached.
    fn give(&mut self, things: &Things) {
        let (bytes, pins) = write(things);
        let mut command = vec![b'a', u8::try_from(bytes.len()).unwrap()];
        command.extend(bytes);
        self.tell(&command);
        drop(pins);
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn things(n: u64) -> Things {
    (
        Value::new(n).unwrap(),
        Value::new([n; 1000]).unwrap(),
        Array::from_slice(&[9u8; 5000]).unwrap().freeze().unwrap(),
    )
}

fn cell_of(value: &Value<u64>) -> (SegmentId, [u8; 4]) {
    let wire = write(value).1[0].wire();
    (wire.segment(), wire.to_bytes()[20..24].try_into().unwrap())
}

#[test]
fn another_process_shares_what_it_is_given_and_its_cells_are_not_handed_out() {
    if std::env::var(ROLE).is_ok() {
        return child();
    }
    let _alone = ALONE.lock();
    let test =
        "handle_tests::another_process_shares_what_it_is_given_and_its_cells_are_not_handed_out";
    let mut peer = Peer::new(test);
    let mut mine: Vec<Things> = (0..20).map(things).collect();
    for these in &mine {
        peer.give(these);
    }
    for (n, these) in (0..).zip(&mine) {
        assert_eq!(these.0.get().unwrap(), n + 1);
        assert_eq!(these.1.get().unwrap()[1], n + 1);
    }
    // the peer alone holds ten of them now
    let cells: HashSet<_> = mine[..10].iter().map(|these| cell_of(&these.0)).collect();
    mine.drain(..10);
    for _ in 0..3 {
        let others: Vec<_> = (0..3000).map(|n: u64| Value::new(n).unwrap()).collect();
        assert!(others.iter().all(|other| !cells.contains(&cell_of(other))));
        peer.tell(b"n");
        assert!(
            (0..)
                .zip(&others)
                .all(|(n, other)| other.get().unwrap() == n)
        );
    }
    assert_eq!(mine[0].0.get().unwrap(), 10 + 1 + 3);
    // what it drops comes back, and so does what it held when it was killed
    peer.tell(b"d");
    assert!(come_back(&cells));
    let these = things(1);
    peer.give(&these);
    let cells = HashSet::from([cell_of(&these.0)]);
    drop(these);
    peer.kill();
    assert!(come_back(&cells));
}

/// Whether all of these cells are handed out again within a bounded number of new values.
fn come_back(cells: &HashSet<(SegmentId, [u8; 4])>) -> bool {
    let mut left = cells.clone();
    let mut kept = Vec::new();
    for n in 0..100_000 {
        let value = Value::new(n).unwrap();
        left.remove(&cell_of(&value));
        kept.push(value);
        if left.is_empty() {
            return true;
        }
    }
    false
}

#[test]
fn peers_killed_at_any_moment_hold_nothing_for_ever() {
    if std::env::var(ROLE).is_ok() {
        return child();
    }
    let _alone = ALONE.lock();
    let test = "handle_tests::peers_killed_at_any_moment_hold_nothing_for_ever";
    for round in 0..10 {
        let mut peer = Peer::new(test);
        let (bytes, pins) = write(&things(round));
        let mut command = vec![b'a', u8::try_from(bytes.len()).unwrap()];
        command.extend(bytes);
        peer.socket.write_all(&command).unwrap();
        if round % 2 == 0 {
            let mut asked = [0];
            let _ = peer.socket.read(&mut asked);
        }
        peer.kill();
        drop(pins);
    }
    let values: Vec<_> = (0..5000).map(|n: u64| Value::new(n).unwrap()).collect();
    assert!(
        (0..)
            .zip(&values)
            .all(|(n, value)| value.get().unwrap() == n)
    );
}
