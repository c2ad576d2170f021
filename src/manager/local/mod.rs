//! The engine of one machine: a store for data, and the crate's own queue and locks, under names that belong to the store.
//!
//! A change is a transaction of the store: who is killed in it has changed nothing, or all, and what was committed stays. Waiters for items of a list
//! sleep on the store's bell, which who pushes rings after the commit.
#![forbid(unsafe_code)]

mod keys;
mod read;
mod write;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use self::keys::Meta;
use self::read::Snapshot;
use self::write::Changes;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::stores;
use crate::manager::engine::Init;
use crate::manager::object::{Kind, Object, described};
use crate::manager::ops::{End, Found, Reads, Writes};
use crate::segment;
use crate::store::{Place, Reader, Store};
use crate::sys::clock::Wait;

pub(crate) struct Local {
    store: Arc<Store>,
}

/// What a store says of an object: kind, types, name.
type About = (Kind, String, Option<String>);

fn about_to_bytes(kind: Kind, of: &str, name: Option<&str>) -> Vec<u8> {
    [kind.word(), of, name.unwrap_or("")]
        .join("\n")
        .into_bytes()
}

fn about_from_bytes(object: &dyn fmt::Display, bytes: &[u8]) -> Result<About> {
    let parse = || {
        let mut parts = std::str::from_utf8(bytes).ok()?.split('\n');
        let kind = Kind::from_word(parts.next()?)?;
        let (of, name) = (parts.next()?, parts.next()?);
        Some((
            kind,
            of.to_owned(),
            (!name.is_empty()).then(|| name.to_owned()),
        ))
    };
    parse().ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupted,
            format!("cannot open {object}: its store does not say what it is"),
        )
    })
}

impl Local {
    pub(crate) fn temporary() -> Result<Arc<Self>> {
        stores::temporary().map(Self::over)
    }

    pub(crate) fn at(path: &Path) -> Result<Arc<Self>> {
        stores::at(path).map(Self::over)
    }

    pub(crate) fn attach(place: &Place) -> Result<Arc<Self>> {
        stores::attach(place).map(Self::over)
    }

    fn over(store: Arc<Store>) -> Arc<Self> {
        Arc::new(Self { store })
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(crate) fn place(&self) -> Place {
        self.store.place()
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.store, &other.store)
    }

    pub(crate) fn read<R>(&self, read: impl FnOnce(&mut dyn Reads) -> Result<R>) -> Result<R> {
        self.store.read(|reader| read(&mut Snapshot(reader)))
    }

    pub(crate) fn write<R>(
        &self,
        mut change: impl FnMut(&mut dyn Writes) -> Result<R>,
    ) -> Result<R> {
        let (result, pushed) = self.store.write(|to| {
            let mut changes = Changes {
                to,
                pushed: Vec::new(),
            };
            let result = change(&mut changes)?;
            Ok((result, changes.pushed))
        })?;
        for list in pushed {
            self.store.ring(list);
        }
        Ok(result)
    }

    /// A batch is one transaction, as any change. A lock cannot be lost here: its holder would have to be dead.
    pub(crate) fn batch<R>(
        &self,
        _under: Option<(&Object, u64)>,
        change: impl FnMut(&mut dyn Writes) -> Result<R>,
    ) -> Result<R> {
        self.write(change)
    }

    pub(crate) fn list_pop_wait(
        &self,
        object: &Object,
        end: End,
        wait: Wait,
        found: Found<'_>,
    ) -> Result<bool> {
        loop {
            let seen = self.store.epoch(object.id);
            let is_empty = self.read(|ops| Ok(ops.list_len(object)? == 0))?;
            if !is_empty && self.write(|ops| ops.list_pop(object, end, found))? {
                return Ok(true);
            }
            if !self.store.wait(object.id, seen, wait)? {
                return Ok(false);
            }
        }
    }

    pub(crate) fn open_or_create(
        &self,
        kind: Kind,
        of: &str,
        name: Option<&str>,
        init: Init<'_>,
    ) -> Result<Object> {
        if let Some(name) = name
            && let Some(object) = self.store.read(|store| find(store, kind, of, name))?
        {
            return Ok(object);
        }
        self.store.write(|to| {
            if let Some(name) = name
                && let Some(object) = find(to, kind, of, name)?
            {
                return Ok(object);
            }
            let next = to.get(keys::NEXT)?;
            let next = next.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
            let id = next.unwrap_or(1);
            to.put(keys::NEXT, &(id + 1).to_le_bytes())?;
            to.put(&keys::about(id), &about_to_bytes(kind, of, name))?;
            if let Some(name) = name {
                to.put(&keys::name(name), &id.to_le_bytes())?;
            }
            let object = object(kind, id, name);
            let mut changes = Changes {
                to,
                pushed: Vec::new(),
            };
            changes.put_meta(&object, Meta::EMPTY)?;
            match init {
                Init::Empty => {}
                Init::Field(bytes) => {
                    changes.put(&object, b"", bytes, None)?;
                }
                Init::Bytes(bytes) => changes.make_parts(&object, bytes)?,
            }
            Ok(object)
        })
    }

    pub(crate) fn delete(&self, object: &Object) -> Result<bool> {
        let was = self.store.write(|to| {
            if !to.delete(&keys::about(object.id))? {
                return Ok(false);
            }
            to.delete(&keys::meta(object.id))?;
            to.delete_prefix(&keys::inside(object.id))?;
            if let Some(name) = &object.name {
                to.delete(&keys::name(name))?;
            }
            Ok(true)
        })?;
        if !object.kind.is_data() {
            segment::sweep::remove_all(&self.segment_name(object))?;
        }
        Ok(was)
    }

    pub(crate) fn names(&self) -> Result<Vec<(String, Kind)>> {
        self.store.read(|store| {
            let mut names = Vec::new();
            for entry in store.prefix(b"t")? {
                if let (kind, _, Some(name)) = about_from_bytes(self, entry?.1)? {
                    names.push((name, kind));
                }
            }
            Ok(names)
        })
    }

    /// As [`segment_name`](Self::segment_name); `Gone` if the object was deleted: what is made under the name of one that was is nobody else's.
    pub(crate) fn segment_of(&self, object: &Object) -> Result<String> {
        self.read(|ops| ops.count(object))?;
        Ok(self.segment_name(object))
    }

    /// The name of the segments in which a lock or queue lies: all of them begin with this.
    fn segment_name(&self, object: &Object) -> String {
        format!("{}{:x}.", stores::segments_of(&self.store.id()), object.id)
    }
}

fn object(kind: Kind, id: u64, name: Option<&str>) -> Object {
    Object {
        kind,
        id,
        name: name.map(Into::into),
    }
}

/// The object of that name, if there is one; it must be of that kind and type.
fn find(store: &Reader<'_>, kind: Kind, of: &str, name: &str) -> Result<Option<Object>> {
    let Some(id) = store.get(&keys::name(name))? else {
        return Ok(None);
    };
    let wanted = object(kind, 0, Some(name));
    let id = id.try_into().map(u64::from_le_bytes);
    let id = id.map_err(|_| keys::corrupted(&wanted, "its number"))?;
    let about = store.get(&keys::about(id))?;
    let about = about.ok_or_else(|| keys::corrupted(&wanted, "what it is"))?;
    let (found, found_of, _) = about_from_bytes(&wanted, about)?;
    if (found, found_of.as_str()) != (kind, of) {
        return Err(Error::type_mismatch(
            &format!("\"{name}\""),
            described(kind, of),
            described(found, &found_of),
        ));
    }
    Ok(Some(object(kind, id, Some(name))))
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the manager at {}", self.store.place().path().display())
    }
}
