//! The child's side: the argument in, the user's function, the result out.

use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};

use crate::error::{CUT_OFF, TaskPanic};
use crate::handle::travel::{FromParent, Travels, append_wires};
use crate::handle::{Pin, Source};
use crate::process::message::{Said, Setup, Status, Told};
use crate::process::parcel::{INLINE_MAX, Parcel, Unpackable};
use crate::spawn::function::{Frame, Routine};
use crate::spawn::panics::{
    catch_panics_of_this_thread, encode_panic, encode_panic_for_message, guarded,
};
use crate::spawn::worker::{Arrival, Control};
use crate::sys::entry;
use crate::sys::socket::is_end;

/// Calls `fn(A) -> R`.
pub(super) struct Body<A, R>(PhantomData<fn(A) -> R>);

impl<A: Travels, R: Travels> Routine for Body<A, R> {
    type Frame = Stage;
    type Function = fn(A) -> R;
    fn run(function: fn(A) -> R, stage: &mut Stage) {
        let end = guarded(|| {
            let argument = stage.argument()?;
            let result = function(argument);
            Parcel::pack(&result, append_wires).map_err(|why| match why {
                Unpackable::Encode(why) => (Status::BadResult, why),
                Unpackable::NoMemory(error) => (Status::NoMemory, error.to_string()),
            })
        });
        match end {
            Ok(Ok((parcel, pins))) => stage.done(&parcel, pins),
            Ok(Err((status, why))) => stage.failed(status, &why),
            Err(panic) => stage.panicked(panic),
        }
    }
}

/// What the parent says to the thread of the function.
enum Heard {
    Argument(Option<OwnedFd>),
    Held,
}

/// The frame of the routine.
pub(super) struct Stage {
    control: Arc<Control>,
    parent: Arc<FromParent>,
    heard: Receiver<Heard>,
    setup: Setup,
    /// The value of the function went home.
    success: bool,
}

impl Frame for Stage {
    const MAGIC: u64 = 0x6d70_7072_6f63_0001;
}

/// The path of this process, if it is one of ours.
pub(super) static PATH: OnceLock<String> = OnceLock::new();

/// What a child does; the entry function that the parent names.
pub(super) fn serve(arrival: Arrival) {
    let Arrival {
        control,
        bytes,
        descriptors,
    } = arrival;
    control.announce_overflow_of_this_thread(Said::OVERFLOW);
    if let Some(stdin) = descriptors.into_iter().next() {
        let _ = nix::unistd::dup2_stdin(stdin);
    }
    let (sender, heard) = channel();
    let (last, watcher) = (Arc::clone(&control), Arc::clone(&control));
    let parent = FromParent::new(&control, false, move |message| {
        match Told::from_bytes(&message.bytes) {
            Some(Told::Argument) => {
                let _ = sender.send(Heard::Argument(message.descriptors.into_iter().next()));
            }
            Some(Told::Held) => {
                let _ = sender.send(Heard::Held);
            }
            Some(Told::Detach) => {
                watcher.detach();
                watcher.send(&Said::Detached.to_bytes(), &[]);
            }
            None => {}
        }
    });
    catch_panics_of_this_thread(true, move |panic| {
        let panic = encode_panic_for_message(panic.clone());
        last.send(&Said::LastPanic(&panic).to_bytes(), &[]);
    });
    let setup = Setup::from_bytes(&bytes);
    let known = setup.is_some();
    let mut stage = Stage {
        control,
        parent,
        heard,
        setup: setup.unwrap_or_default(),
        success: false,
    };
    let _ = PATH.set(stage.setup.path.clone());
    match stage.setup.function.resolve::<Stage>() {
        _ if !known => stage.failed(Status::Refused, "its setup makes no sense"),
        Ok(function) => function.call(&mut stage),
        Err(why) => stage.failed(Status::Refused, why),
    }
    if !stage.success {
        #[expect(
            clippy::exit,
            reason = "the code of a program that panicked; exit handlers of the program run"
        )]
        std::process::exit(101);
    }
}

impl Stage {
    fn argument<A: Travels>(&mut self) -> Result<A, (Status, String)> {
        let bad = |why: String| (Status::BadArgument, why);
        let inline = std::mem::take(&mut self.setup.inline);
        let file = if self.setup.len == inline.len() as u64 {
            None
        } else {
            match self.heard.recv() {
                Ok(Heard::Argument(file)) => file,
                _ => return Err(bad("the parent did not send it".to_owned())),
            }
        };
        let parcel =
            Parcel::arrived(self.setup.len, &inline, file).map_err(|why| bad(why.to_owned()))?;
        let source = Arc::clone(&self.parent) as Arc<dyn Source>;
        let argument = parcel.unpack(parcel.len(), &source).map_err(bad);
        if self.setup.report {
            self.control.send(&Said::Taken.to_bytes(), &[]);
        }
        argument
    }

    fn done(&mut self, parcel: &Parcel, pins: Vec<Pin>) {
        self.parent.send_ahead(&pins);
        self.say(Status::Value, parcel, !pins.is_empty());
        self.success = true;
        if !pins.is_empty() {
            // until the parent holds them, or has gone
            while !matches!(self.heard.recv(), Ok(Heard::Held) | Err(_)) {}
        }
    }

    fn failed(&self, status: Status, why: &str) {
        let why = &why[..why.floor_char_boundary(INLINE_MAX)];
        self.say(status, &Parcel::Inline(why.into()), false);
    }

    fn panicked(&self, panic: TaskPanic) {
        let parcel = Parcel::of(&encode_panic(&panic))
            .unwrap_or_else(|_| Parcel::Inline(encode_panic_for_message(panic)));
        self.say(Status::Panicked, &parcel, false);
    }

    /// Tells the parent how it ended. If that has gone, nobody wants to know.
    fn say(&self, status: Status, parcel: &Parcel, handles: bool) {
        let said = Said::Done {
            status,
            len: parcel.len() as u64,
            handles,
            inline: parcel.inline(),
        };
        let file: Vec<_> = parcel.file().into_iter().collect();
        if let Err(error) = self.control.try_send(&said.to_bytes(), &file)
            && !is_end(&error)
            && !self.control.is_detached()
        {
            entry::quit(CUT_OFF); // the function has closed what its result would go by
        }
    }
}
