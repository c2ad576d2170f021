//! The rules: each takes sources and returns the places that break it.

use crate::source::{Source, is_word};

/// What lives on which floor: a file may use its own folder and the floors below, nothing above or beside.
const FLOORS: [&[&str]; 7] = [
    &["error", "primitive"],
    &["sys", "codec"],
    &["mem", "spawn"],
    &["segment", "ring", "sync", "store", "server"],
    &["handle"],
    &[
        "value",
        "array",
        "shared",
        "raw",
        "event",
        "semaphore",
        "condvar",
        "barrier",
        "rwlock",
        "reentrant",
        "channel",
        "queue",
        "process",
    ],
    &["pool", "manager", "bench", "docs"],
];

/// Floors whose rooms may say `unsafe`; those above forbid it.
const UNSAFE_FLOORS: std::ops::RangeInclusive<usize> = 1..=3;

/// Steps up or sideways that are allowed: from, to, why.
const DOORS: [(&str, &str, &str); 1] = [(
    "spawn",
    "pool",
    "before main, only the start hook can make an agent of a process",
)];

/// Most lines of a file.
pub(crate) const LINES_MAX: usize = 600;

pub(crate) fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The top-level modules that a file names by `crate::`, or by more `super::` than its folder is deep.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let inside = usize::from(!source.is_room_door());
    for (offset, word) in source.words() {
        let after = &source.code[offset + word.len()..];
        let tail = match word {
            "crate" => after,
            "super"
                if depth_at(&source.code, offset) == 0
                    && !source.code[..offset].ends_with("super::") =>
            {
                let (mut tail, mut supers) = (after, 1);
                while let Some(rest) = tail.strip_prefix("::super") {
                    (tail, supers) = (rest, supers + 1);
                }
                if supers <= inside {
                    continue;
                }
                tail
            }
            _ => continue,
        };
        let Some(tail) = tail.strip_prefix("::") else {
            continue;
        };
        match tail.strip_prefix('{') {
            Some(group) => found.extend(heads_of(group).into_iter().map(|name| (offset, name))),
            None => found.push((offset, tail.chars().take_while(|c| is_word(*c)).collect())),
        }
    }
    found
}

fn depth_at(code: &str, offset: usize) -> usize {
    let opened = code[..offset].matches('{').count();
    opened - code[..offset].matches('}').count().min(opened)
}

/// The first names of a braced group of imports: `a, c` for `a::{b}, c::d}`.
fn heads_of(group: &str) -> Vec<String> {
    let (mut heads, mut head, mut depth) = (Vec::new(), String::new(), 0);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(std::mem::take(&mut head)),
            _ if depth == 0 => head.push(c),
            _ => {}
        }
    }
    heads.push(head);
    let first = |head: &String| {
        head.trim()
            .chars()
            .take_while(|c| is_word(*c))
            .collect::<String>()
    };
    heads
        .iter()
        .map(first)
        .filter(|head| !head.is_empty())
        .collect()
}

pub(crate) fn steps_up_or_sideways(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test_file()) {
        let Some(room) = source.room() else { continue };
        let Some(floor) = source.floor() else {
            broken.push(format!(
                "{}: the room `{room}` stands on no floor",
                source.path
            ));
            continue;
        };
        for (offset, target) in imports(source) {
            let allowed = target == room
                || floor_of(&target).is_some_and(|below| below == 0 || below < floor)
                || DOORS
                    .iter()
                    .any(|(from, to, _)| *from == room && *to == target);
            if !allowed {
                let place = source.line_at(offset);
                broken.push(format!(
                    "{place}: `{room}` on floor {floor} may not use crate::{target}"
                ));
            }
        }
    }
    broken
}

/// Every place of `word` outside the rooms that may say it.
fn words_outside(sources: &[Source], word: &str, rooms: &[&str]) -> Vec<String> {
    let outside = |source: &&Source| source.room().is_none_or(|room| !rooms.contains(&room));
    let places = sources.iter().filter(outside).flat_map(|source| {
        let places = source.places_of(word).into_iter();
        let places = places.filter(|offset| !source.code[..*offset].ends_with("cmp::"));
        places.map(|offset| format!("{}: `{word}` belongs to {rooms:?}", source.line_at(offset)))
    });
    places.collect()
}

pub(crate) fn libc_outside_sys(sources: &[Source]) -> Vec<String> {
    words_outside(sources, "libc", &["sys"])
}

pub(crate) fn orderings_outside_their_rooms(sources: &[Source]) -> Vec<String> {
    words_outside(
        sources,
        "Ordering",
        &["primitive", "mem", "sync", "ring", "store"],
    )
}

pub(crate) fn atomics_outside_primitive(sources: &[Source]) -> Vec<String> {
    words_outside(sources, "atomic", &["primitive"])
}

pub(crate) fn unsafe_on_wrong_floors(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        if source
            .floor()
            .is_some_and(|floor| UNSAFE_FLOORS.contains(&floor))
        {
            continue;
        }
        for offset in source.places_of("unsafe") {
            broken.push(format!(
                "{}: `unsafe` outside floors 1 to 3",
                source.line_at(offset)
            ));
        }
        let above = source
            .floor()
            .is_some_and(|floor| floor > *UNSAFE_FLOORS.end());
        let top = source.is_room_door() && !source.is_test_file();
        if above && top && !source.code.contains("#![forbid(unsafe_code)]") {
            broken.push(format!(
                "{}: #![forbid(unsafe_code)] is missing",
                source.path
            ));
        }
    }
    broken
}

pub(crate) fn long_files(sources: &[Source]) -> Vec<String> {
    let long = sources.iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > LINES_MAX).then(|| format!("{}:{lines}: more than {LINES_MAX} lines", source.path))
    });
    long.collect()
}

pub(crate) fn blanks_at_line_ends(sources: &[Source]) -> Vec<String> {
    lines_where(sources, |line| line.ends_with([' ', '\t', '\r']))
}

pub(crate) fn letters_beyond_ascii(sources: &[Source]) -> Vec<String> {
    lines_where(sources, |line| !line.is_ascii())
}

pub(crate) fn left_open(sources: &[Source]) -> Vec<String> {
    let marks = [
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("FIX", "ME"),
    ];
    lines_where(sources, |line| marks.iter().any(|mark| line.contains(mark)))
}

fn lines_where(sources: &[Source], wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        for (index, line) in source
            .text
            .split('\n')
            .enumerate()
            .filter(|(_, line)| wrong(line))
        {
            broken.push(format!("{}:{}: {line:?}", source.path, index + 1));
        }
    }
    broken
}

pub(crate) fn sleeps(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        let own = |offset: &usize| {
            source.code[..*offset].ends_with(['.']) || source.code[..*offset].ends_with("fn ")
        };
        for offset in source
            .places_of("sleep")
            .into_iter()
            .filter(|offset| !own(offset))
        {
            broken.push(format!(
                "{}: wait for an event instead of an amount of time",
                source.line_at(offset)
            ));
        }
    }
    broken
}

pub(crate) fn results_without_errors_section(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        let lines: Vec<&str> = source.text.lines().collect();
        let mut offset = 0;
        for (index, line) in source.code.split_inclusive('\n').enumerate() {
            let signature = &source.code[offset..];
            offset += line.len();
            let line = line.trim_start();
            let is_function = [
                "pub fn ",
                "pub const fn ",
                "pub unsafe fn ",
                "pub async fn ",
            ];
            if !is_function.iter().any(|start| line.starts_with(start))
                || !returns_result(signature)
            {
                continue;
            }
            let above = lines[..index].iter().rev().map(|line| line.trim_start());
            let documented = above
                .take_while(|line| {
                    line.starts_with("///")
                        || line.starts_with("#[")
                        || line.starts_with(')')
                        || line.starts_with(']')
                })
                .any(|line| line == "/// # Errors");
            if !documented {
                broken.push(format!(
                    "{}:{}: {}",
                    source.path,
                    index + 1,
                    line.trim_end()
                ));
            }
        }
    }
    broken
}

/// Whether the type behind the arrow of this signature is a `Result`.
fn returns_result(signature: &str) -> bool {
    let signature = &signature[..signature.find('{').unwrap_or(signature.len())];
    let (mut depth, mut result) = (0_i32, None);
    let mut previous = ' ';
    for (at, c) in signature.char_indices() {
        match c {
            '(' | '[' | '<' => depth += 1,
            '>' if previous == '-' => {
                result = (depth == 0).then(|| &signature[at + 1..]).or(result);
            }
            ')' | ']' | '>' => depth -= 1,
            _ => {}
        }
        previous = c;
    }
    let head = result
        .unwrap_or_default()
        .split("where")
        .next()
        .unwrap_or_default();
    let head = head.split(['<', '\n']).next().unwrap_or_default().trim();
    matches!(head.rsplit("::").next(), Some("Result" | "LockResult"))
}

pub(crate) fn ignored_without_reason(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        for (offset, _) in source.code.match_indices("#[ignore]") {
            broken.push(format!(
                "{}: say why: #[ignore = \"..\"]",
                source.line_at(offset)
            ));
        }
    }
    broken
}
