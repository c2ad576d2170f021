//! Messages that are written and read where they lie.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use bytemuck::Pod;

use super::Queue;
use super::core::Core;
use super::traffic::{Held, OnDeath};
use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::mem::shape::Fingerprint;
use crate::ring::blocks::BLOCK_ALIGN;
use crate::ring::messages::Draft;
use crate::sys::clock::Wait;

/// Slices without a copy: the sender fills a block in shared memory, the receiver reads it there.
///
/// A `Queue<Vec<P>>` of numbers takes both ways: what was put by [`put`](Queue::put) can be received in place, and what was sent can be got
/// as a `Vec`. Of other [`Pod`] types, what was [loaned](Self::loan) is for [`recv`](Self::recv), and what was put for [`get`](Queue::get).
///
/// ```
/// use multiproc::Queue;
///
/// # fn main() -> multiproc::Result<()> {
/// let frames = Queue::<Vec<u8>>::new(4)?;
/// let mut frame = frames.loan(1 << 20)?; // memory of the queue itself
/// frame[0] = 7;
/// frame.send()?; // passes its place
/// let frame = frames.recv()?;
/// assert_eq!((frame.len(), frame[0]), (1 << 20, 7)); // read where it was written
/// # Ok(())
/// # }
/// ```
impl<P: Pod> Queue<Vec<P>> {
    /// A block for `len` items, to be filled and [sent](Loan::send). What is in it is what an earlier message left, so all of it should be
    /// written. Waits for a place as [`put`](Queue::put) does. Costs no system call where there is a free block of that size; else memory is
    /// made.
    ///
    /// A loan takes its bytes of the queue, and one of the places for what is in hand; one for what waits it gets when it is sent. Dropped, it
    /// gives them back. A process that dies with one leaves nothing.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if so many never fit, or if `P` has no size or asks for more than 64-byte alignment; `Closed`, `OutOfMemory`,
    /// `Forked`.
    pub fn loan(&self, len: usize) -> Result<Loan<'_, P>> {
        self.loan_within(len, Wait::Forever)
    }

    /// As [`loan`](Self::loan), if there is a place now.
    ///
    /// # Errors
    ///
    /// `WouldBlock`, or those of [`loan`](Self::loan).
    pub fn try_loan(&self, len: usize) -> Result<Loan<'_, P>> {
        self.loan_within(len, Wait::No)
    }

    /// As [`loan`](Self::loan), waiting no longer than that.
    ///
    /// # Errors
    ///
    /// `Timeout`, or those of [`loan`](Self::loan).
    pub fn loan_timeout(&self, len: usize, timeout: Duration) -> Result<Loan<'_, P>> {
        self.loan_within(len, Wait::lasting(timeout))
    }

    fn loan_within(&self, len: usize, wait: Wait) -> Result<Loan<'_, P>> {
        let bytes = bytes_of::<P>(&self.core, len)?;
        let draft = self.core.lend(bytes, wait)?;
        Ok(Loan {
            core: &self.core,
            draft: Some(draft),
            len,
            items: PhantomData,
        })
    }

    /// Waits for the next message, and gives access to it where it lies. It is gone, and its place free, when what is returned is dropped.
    ///
    /// A process that dies before has lost it: see [`lost`](Queue::lost).
    ///
    /// # Errors
    ///
    /// `Decode` if it holds no slice of `P`; else those of [`get`](Queue::get).
    pub fn recv(&self) -> Result<Received<'_, P>> {
        self.recv_within(Wait::Forever)
            .and_then(|received| received.ok_or_else(|| nothing(&self.core)))
    }

    /// As [`recv`](Self::recv), `None` if no message waits.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<Received<'_, P>>> {
        self.recv_within(Wait::No)
    }

    /// As [`recv`](Self::recv), waiting no longer than that.
    ///
    /// # Errors
    ///
    /// `Timeout`, or those of [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Received<'_, P>> {
        self.recv_within(Wait::lasting(timeout))
            .and_then(|received| received.ok_or_else(|| nothing(&self.core)))
    }

    fn recv_within(&self, wait: Wait) -> Result<Option<Received<'_, P>>> {
        let Some(held) = self.core.take(wait)? else {
            return Ok(None);
        };
        // it may be in hand for long
        self.core.let_go(false);
        held.hand_out(OnDeath::Lost);
        let received = Received::new(held)?;
        received.held.count();
        Ok(Some(received))
    }
}

/// What a call that waited has got all the same.
pub(super) fn nothing(core: &Core) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("cannot get from {core}: it was empty"),
    )
}

fn bytes_of<P>(core: &Core, len: usize) -> Result<usize> {
    let refused = |why: String| {
        let what = std::any::type_name::<P>();
        Error::new(
            ErrorKind::InvalidInput,
            format!("cannot loan {len} {what} from {core}: {why}"),
        )
    };
    let (size, align) = (size_of::<P>(), align_of::<P>());
    if size == 0 || align > BLOCK_ALIGN {
        return Err(refused(format!(
            "it has {size} bytes aligned to {align}; items have at least one byte and are aligned to at most {BLOCK_ALIGN}"
        )));
    }
    size.checked_mul(len)
        .ok_or_else(|| refused("that is larger than the address space".to_owned()))
}

/// What the items of a slice are, for whoever receives it.
fn tag<P: 'static>() -> u64 {
    Fingerprint::of::<P>().hash
}

/// A slice in shared memory that this process alone can see: derefs to `[P]`. See [`Queue::loan`].
#[must_use = "what is loaned is given back when it is dropped; send() passes it on"]
pub struct Loan<'a, P> {
    core: &'a Core,
    /// Until it is sent.
    draft: Option<Draft<'a>>,
    len: usize,
    items: PhantomData<P>,
}

impl<P: Pod> Loan<'_, P> {
    /// Puts it into the queue, without a copy. Waits if the queue has filled up meanwhile.
    ///
    /// # Errors
    ///
    /// `Closed`, and what was loaned is given back.
    pub fn send(mut self) -> Result<()> {
        let bytes = self.len * size_of::<P>();
        match self.draft.take() {
            Some(draft) => self.core.send(draft, bytes, tag::<P>(), Wait::Forever),
            None => Ok(()),
        }
    }
}

impl<P: Pod> Deref for Loan<'_, P> {
    type Target = [P];

    fn deref(&self) -> &[P] {
        self.draft
            .as_ref()
            .map_or(&[], |draft| draft.items(self.len))
    }
}

impl<P: Pod> DerefMut for Loan<'_, P> {
    fn deref_mut(&mut self) -> &mut [P] {
        self.draft
            .as_mut()
            .map_or(&mut [], |draft| draft.items_mut(self.len))
    }
}

impl<P> Drop for Loan<'_, P> {
    fn drop(&mut self) {
        if let Some(draft) = self.draft.take() {
            // a copy by fork is the parent's to give back
            if self.core.is_inherited() {
                draft.forget();
                return;
            }
            let had_block = draft.has_block();
            drop(draft);
            self.core.let_go(had_block);
        }
    }
}

impl<P: Pod + fmt::Debug> fmt::Debug for Loan<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A message where it lies in shared memory: derefs to `[P]`. Its place is free when this is dropped. See [`Queue::recv`].
///
/// `&[P]` is given on the understanding that other processes keep to the rules, as with the guard of an [`Array`](crate::Array): who can
/// write the queue's memory is trusted not to change a message that was sent. Where that cannot be trusted, [`get`](Queue::get) copies.
pub struct Received<'a, P> {
    held: Held<'a>,
    /// Of what lay in no block.
    copied: Option<Vec<P>>,
}

impl<'a, P: Pod> Received<'a, P> {
    fn new(held: Held<'a>) -> Result<Self> {
        let core = held.core();
        let refused = |why: &str| {
            let what = std::any::type_name::<P>();
            Error::new(
                ErrorKind::Decode,
                format!("cannot receive {what}s from {core}: {why}; the message is dropped"),
            )
        };
        let message = held.message().ok_or_else(|| nothing(core))?;
        let (form, len) = (message.form(), message.len());
        match form.items {
            Some(found) if found == tag::<P>() => {}
            Some(_) => return Err(refused("items of another type were sent")),
            None if codec::number_size::<P>().is_none() || form.handles => {
                return Err(refused("a value was put, and no slice sent; use get()"));
            }
            None => {}
        }
        if !len.is_multiple_of(size_of::<P>().max(1)) {
            return Err(refused(&format!("its {len} bytes are no whole number")));
        }
        let copied = if message.is_in_block() {
            None
        } else {
            let mut items = vec![P::zeroed(); len / size_of::<P>().max(1)];
            let copy = message.copy_to(bytemuck::cast_slice_mut(&mut items));
            copy.map_err(|error| core.unread(error))?;
            Some(items)
        };
        Ok(Self { held, copied })
    }

    /// How often it was delivered before, to processes that died at it.
    pub fn redelivered(&self) -> u8 {
        self.held.redelivered()
    }
}

impl<P: Pod> Deref for Received<'_, P> {
    type Target = [P];

    fn deref(&self) -> &[P] {
        match (&self.copied, self.held.message()) {
            (Some(items), _) => items,
            (None, Some(message)) => message.items(),
            (None, None) => &[],
        }
    }
}

impl<P: Pod + fmt::Debug> fmt::Debug for Received<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
