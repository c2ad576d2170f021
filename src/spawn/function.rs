//! A function as two checked offsets into the program's image.
//!
//! For every pair of routine and types the compiler lays a [`Descriptor`] into the program's constants. A [`Reference`] is the offset of
//! a descriptor, the offset of the function itself, and a hash of the routine's type name. The receiving process, which runs the same
//! file (see `hello`), accepts it only if the descriptor lies aligned in its data, carries the magic of the expected frame and the
//! hashed name, and the function lies in its text.
//!
//! WHY NOT a zero-sized `F: Fn` made from nothing in the worker: a closure that captures a zero-sized proof of initialisation has size
//! zero too, and would run in a process where nothing was initialised. Only what coerces to a `fn` pointer provably captures nothing.

use std::any::type_name;
use std::cell::Cell;
use std::marker::PhantomData;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::image::{FNV_START, Image, fnv};

/// Plain function pointers of the shapes a routine may take.
///
/// # Safety
///
/// 1. The type is a function pointer: as large as `usize`, and `address` is its value.
pub(crate) unsafe trait FnPointer: Copy + 'static {
    fn address(self) -> usize;

    /// # Safety
    ///
    /// 1. `address` came from [`FnPointer::address`] of this very type, in this build of the program, moved by the image's base.
    unsafe fn from_address(address: usize) -> Self {
        // SAFETY: implementors are function pointers (1 of the trait), and the value is one of this type (1 above).
        unsafe { std::mem::transmute_copy::<usize, Self>(&address) }
    }
}

// SAFETY: a function pointer.
unsafe impl<A: 'static, R: 'static> FnPointer for fn(A) -> R {
    fn address(self) -> usize {
        self as usize
    }
}

// SAFETY: a function pointer.
unsafe impl<C: 'static, A: 'static, R: 'static> FnPointer for fn(&C, A) -> R {
    fn address(self) -> usize {
        self as usize
    }
}

// SAFETY: a function pointer.
unsafe impl<S: 'static, A: 'static, R: 'static> FnPointer for fn(&mut S, A) -> R {
    fn address(self) -> usize {
        self as usize
    }
}

// SAFETY: a function pointer.
unsafe impl<C: 'static, T: 'static, R: 'static> FnPointer for fn(&C, usize, &mut [T]) -> R {
    fn address(self) -> usize {
        self as usize
    }
}

// SAFETY: a function pointer.
unsafe impl<S: 'static, T: 'static, R: 'static> FnPointer for fn(&mut S, usize, &mut [T]) -> R {
    fn address(self) -> usize {
        self as usize
    }
}

/// A function of a slice. WHY NOT bare: the compiler cannot tell it from `fn(A) -> R`.
#[repr(transparent)]
pub(crate) struct SliceFn<T, R>(pub(crate) fn(&mut [T]) -> R);

impl<T, R> Clone for SliceFn<T, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, R> Copy for SliceFn<T, R> {}

// SAFETY: nothing but a function pointer, by `repr(transparent)`.
unsafe impl<T: 'static, R: 'static> FnPointer for SliceFn<T, R> {
    fn address(self) -> usize {
        self.0 as usize
    }
}

/// What routines of one family work on: input, output, state.
pub(crate) trait Frame: 'static {
    /// Differs between families, so that no descriptor of another is ever called with this frame.
    const MAGIC: u64;
}

/// Code that decodes, calls the user's function and encodes: one type for each way to call and each set of types.
pub(crate) trait Routine: 'static {
    type Frame: Frame;
    type Function: FnPointer;
    fn run(function: Self::Function, frame: &mut Self::Frame);
}

/// One constant for each [`Routine`].
#[repr(C)]
struct Descriptor<F: Frame> {
    /// First, so that it can be read before anything else is believed.
    magic: u64,
    name: fn() -> &'static str,
    call: unsafe fn(usize, &mut F),
}

struct Constant<R>(PhantomData<R>);

impl<R: Routine> Constant<R> {
    const DESCRIPTOR: &'static Descriptor<R::Frame> = &Descriptor {
        magic: R::Frame::MAGIC,
        name: type_name::<R>,
        call: call::<R>,
    };
}

/// # Safety
///
/// 1. `address` is that of an `R::Function`, as [`FnPointer::from_address`] demands.
unsafe fn call<R: Routine>(address: usize, frame: &mut R::Frame) {
    // SAFETY: 1 above.
    let function = unsafe { R::Function::from_address(address) };
    R::run(function, frame);
}

/// A function and the routine that calls it, in a form that holds in every process of this program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    pub(crate) descriptor: u32,
    pub(crate) function: u32,
    pub(crate) name: u64,
}

impl Reference {
    /// The reference of `function`, to be called by routine `R`.
    pub(crate) fn of<R: Routine>(function: R::Function) -> Result<Self> {
        thread_local! {
            // descriptor, function, reference: a program calls the same function many times in a row
            static LAST: Cell<(usize, usize, Option<Reference>)> = const { Cell::new((0, 0, None)) };
        }
        let descriptor = std::ptr::from_ref(Constant::<R>::DESCRIPTOR).addr();
        let address = function.address();
        if let (d, f, Some(reference)) = LAST.get()
            && (d, f) == (descriptor, address)
        {
            return Ok(reference);
        }
        let image = Image::own();
        let refused = |where_: &str| {
            let name = type_name::<R::Function>();
            let message = format!(
                "cannot send {name} at {address:#x} to a worker: {where_}; only functions of the program itself can be sent"
            );
            Error::new(ErrorKind::FunctionNotInProgram, message)
        };
        if !image.is_text(address) || !image.is_data(descriptor, size_of::<Descriptor<R::Frame>>())
        {
            return Err(refused(
                "it lies in a shared library or was made at run time",
            ));
        }
        let far = |_| refused("the program is larger than 4 GiB");
        let reference = Reference {
            descriptor: u32::try_from(descriptor.wrapping_sub(image.base)).map_err(far)?,
            function: u32::try_from(address.wrapping_sub(image.base)).map_err(far)?,
            name: fnv(FNV_START, type_name::<R>().as_bytes()),
        };
        LAST.set((descriptor, address, Some(reference)));
        Ok(reference)
    }

    /// Finds the function in this process. The text of the error says what did not fit.
    pub(crate) fn resolve<F: Frame>(self) -> Result<Resolved<F>, &'static str> {
        let image = Image::own();
        let descriptor = image.base.wrapping_add(self.descriptor as usize);
        let function = image.base.wrapping_add(self.function as usize);
        if !descriptor.is_multiple_of(align_of::<Descriptor<F>>()) {
            return Err("its descriptor is misaligned");
        }
        if !image.is_data(descriptor, size_of::<Descriptor<F>>()) {
            return Err("its descriptor lies outside the program's data");
        }
        if !image.is_text(function) {
            return Err("it lies outside the program's text");
        }
        let descriptor = descriptor as *const Descriptor<F>;
        // SAFETY: aligned and inside mapped data of the program (both checked); the magic comes first, and any bytes are a valid u64.
        let magic = unsafe { descriptor.cast::<u64>().read_volatile() };
        if magic != F::MAGIC {
            return Err("its descriptor has the wrong magic");
        }
        // SAFETY: aligned and inside the program's own data (both checked above), which stays as long as the process; only a `Descriptor<F>`
        // carries this magic there.
        let descriptor = unsafe { &*descriptor };
        if fnv(FNV_START, (descriptor.name)().as_bytes()) != self.name {
            return Err("it has another type than its descriptor");
        }
        Ok(Resolved {
            descriptor,
            function,
        })
    }

    /// As two words, for a slot.
    pub(crate) fn to_words(self) -> [u64; 2] {
        [
            u64::from(self.descriptor) << 32 | u64::from(self.function),
            self.name,
        ]
    }

    pub(crate) fn from_words([offsets, name]: [u64; 2]) -> Self {
        Self {
            descriptor: (offsets >> 32) as u32,
            function: offsets as u32,
            name,
        }
    }
}

/// A function that was found and checked.
pub(crate) struct Resolved<F: Frame> {
    descriptor: &'static Descriptor<F>,
    function: usize,
}

impl<F: Frame> Resolved<F> {
    pub(crate) fn call(&self, frame: &mut F) {
        // SAFETY: descriptor and function were paired by the compiler in `Reference::of` of the same build (hello compares builds), and
        // the reference reached us through the control socket or a slot that the parent wrote. Whoever may write this program's shared
        // memory on purpose may choose what this worker runs; the parent resolves no reference at all.
        unsafe { (self.descriptor.call)(self.function, frame) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sum(u64);
    impl Frame for Sum {
        const MAGIC: u64 = 0x7375_6d00_0000_0001;
    }
    struct Other;
    impl Frame for Other {
        const MAGIC: u64 = 0x6f74_6865_7200_0002;
    }
    struct Add;
    impl Routine for Add {
        type Frame = Sum;
        type Function = fn(u64) -> u64;
        fn run(function: fn(u64) -> u64, frame: &mut Sum) {
            frame.0 = function(frame.0);
        }
    }

    fn reference() -> Reference {
        Reference::of::<Add>(|x| x + 1).unwrap()
    }

    fn refusal<F: Frame>(reference: Reference) -> &'static str {
        reference
            .resolve::<F>()
            .err()
            .expect("this reference must be refused")
    }

    #[test]
    fn a_reference_leads_back_to_its_function() {
        let mut sum = Sum(41);
        Reference::from_words(reference().to_words())
            .resolve::<Sum>()
            .unwrap()
            .call(&mut sum);
        assert_eq!(sum.0, 42);
    }

    #[test]
    fn wrong_references_are_refused_before_anything_is_called() {
        let good = reference();
        assert!(
            refusal::<Sum>(Reference {
                descriptor: good.descriptor + 1,
                ..good
            })
            .contains("misaligned")
        );
        assert!(
            refusal::<Sum>(Reference {
                descriptor: 0xffff_fff0,
                ..good
            })
            .contains("outside the program's data")
        );
        assert!(
            refusal::<Sum>(Reference {
                function: good.descriptor,
                ..good
            })
            .contains("outside the program's text")
        );
        assert!(
            refusal::<Sum>(Reference {
                name: good.name ^ 1,
                ..good
            })
            .contains("another type")
        );
        assert!(refusal::<Other>(good).contains("magic"));
    }

    #[test]
    fn a_function_of_a_shared_library_is_refused() {
        struct CFunction;
        impl Routine for CFunction {
            type Frame = Sum;
            type Function = fn(u64) -> u64;
            fn run(_: fn(u64) -> u64, _: &mut Sum) {}
        }
        // the address of a libc function stands for what dlsym returns; it is never called
        let foreign = crate::sys::image::foreign_function();
        // SAFETY: only its address is looked at.
        let foreign = unsafe { <fn(u64) -> u64>::from_address(foreign) };
        let error = Reference::of::<CFunction>(foreign).expect_err("libc is not this program");
        assert_eq!(error.kind(), ErrorKind::FunctionNotInProgram);
    }
}
