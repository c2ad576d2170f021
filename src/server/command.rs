//! Requests as they go over the wire, encoded once while they are put together.

use std::fmt;

/// Room for `*`, a count and its line end before the first part.
const HEAD: usize = 24;

/// One command and its arguments.
#[derive(Clone)]
pub(crate) struct Command {
    /// [`HEAD`] bytes of room, then each part with its length.
    bytes: Vec<u8>,
    parts: usize,
    label: &'static str,
    /// Bytes of its longest part.
    longest: usize,
    /// Where the first key lies.
    key: Option<(usize, usize)>,
}

impl Command {
    pub(crate) fn new(name: &'static str) -> Self {
        Self::labelled(name).arg(name)
    }

    /// Nothing yet, to be called `label` in messages.
    pub(super) fn labelled(label: &'static str) -> Self {
        let mut bytes = Vec::with_capacity(192);
        bytes.resize(HEAD, 0);
        Self {
            bytes,
            parts: 0,
            label,
            longest: 0,
            key: None,
        }
    }

    /// One more argument. The first one by this name is what messages say the command was on.
    pub(crate) fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        let key = key.as_ref();
        self.push(key);
        let end = self.bytes.len() - 2;
        self.key.get_or_insert((end - key.len(), end));
        self
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.push(arg.as_ref());
        self
    }

    pub(crate) fn int(mut self, number: i64) -> Self {
        let mut digits = [0; 21];
        self.push(decimal(number < 0, number.unsigned_abs(), &mut digits));
        self
    }

    pub(crate) fn count(mut self, number: usize) -> Self {
        let mut digits = [0; 21];
        self.push(decimal(false, number as u64, &mut digits));
        self
    }

    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        for arg in args {
            self.push(arg.as_ref());
        }
        self
    }

    fn push(&mut self, part: &[u8]) {
        self.parts += 1;
        self.longest = self.longest.max(part.len());
        self.bytes.reserve(part.len() + 16);
        line(&mut self.bytes, b'$', part.len());
        self.bytes.extend_from_slice(part);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// What is to be sent.
    pub(super) fn wire(&mut self) -> &[u8] {
        let start = self.head();
        &self.bytes[start..]
    }

    /// Writes the count before the parts; returns where it begins.
    fn head(&mut self) -> usize {
        let mut head = Vec::with_capacity(HEAD);
        line(&mut head, b'*', self.parts);
        let start = HEAD - head.len();
        self.bytes[start..HEAD].copy_from_slice(&head);
        start
    }

    /// The same with other parts in place of its first two.
    pub(super) fn with_first_two(
        &self,
        first: &'static str,
        second: &str,
        old: [usize; 2],
    ) -> Self {
        let mut command = Self::labelled(self.label).arg(first).arg(second);
        let skipped: usize = old.iter().map(|length| part_length(*length)).sum();
        command.parts = self.parts;
        command.longest = self.longest;
        command
            .bytes
            .extend_from_slice(&self.bytes[HEAD + skipped..]);
        command
    }

    /// Bytes of its longest argument.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - HEAD
    }
}

/// How many bytes a part of `length` bytes takes.
fn part_length(length: usize) -> usize {
    let digits = length.checked_ilog10().unwrap_or(0) as usize + 1;
    1 + digits + 2 + length + 2
}

fn line(bytes: &mut Vec<u8>, mark: u8, number: usize) {
    let mut digits = [0; 21];
    bytes.push(mark);
    bytes.extend_from_slice(decimal(false, number as u64, &mut digits));
    bytes.extend_from_slice(b"\r\n");
}

/// The decimal digits of a number, written to the end of `room`.
fn decimal(negative: bool, mut left: u64, room: &mut [u8; 21]) -> &[u8] {
    let mut at = room.len();
    loop {
        at -= 1;
        room[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if negative {
        at -= 1;
        room[at] = b'-';
    }
    &room[at..]
}

/// The name of the command, or of the script, and the first key: never a value, and never a password.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label)?;
        match self.key {
            Some((start, end)) => {
                write!(f, " {}", String::from_utf8_lossy(&self.bytes[start..end]))
            }
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_encoded_as_the_client_crate_encodes_it() {
        let long = vec![b'x'; 1234];
        for number in [0, 7, -1, 10, i64::MAX, i64::MIN] {
            let mut ours = Command::new("HSET")
                .key("mp1:{m.a}:d")
                .arg("")
                .arg(&long)
                .int(number);
            let theirs = redis::cmd("HSET")
                .arg("mp1:{m.a}:d")
                .arg("")
                .arg(&long)
                .arg(number)
                .get_packed_command();
            assert_eq!(ours.wire(), theirs);
            assert_eq!(ours.to_string(), "HSET mp1:{m.a}:d");
        }
        let many = vec!["a"; 123_456];
        let theirs = redis::cmd("DEL").arg(&many).get_packed_command();
        assert_eq!(Command::new("DEL").args(&many).wire(), theirs);
    }

    #[test]
    fn the_first_two_parts_can_be_exchanged() {
        let sha = "0123456789012345678901234567890123456789";
        let old = Command::new("EVALSHA").arg(sha).int(1).key("k").arg("v");
        let mut new = old.with_first_two("EVAL", "return 1", [7, 40]);
        let mut theirs = redis::cmd("EVAL");
        theirs.arg("return 1").arg(1).arg("k").arg("v");
        assert_eq!(new.wire(), theirs.get_packed_command());
    }
}
