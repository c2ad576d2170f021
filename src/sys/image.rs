//! The program's own image in memory: where its text and data lie, and what names its build.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// The main program as it is loaded here. Shared libraries are not part of it.
#[derive(Debug)]
pub(crate) struct Image {
    /// Where file address 0 came to lie.
    pub(crate) base: usize,
    text: Vec<Range<usize>>,
    data: Vec<Range<usize>>,
    headers: Vec<u8>,
    /// The linker's build id; empty if it wrote none.
    pub(crate) build_id: Vec<u8>,
}

impl Image {
    /// The image of this process's main program; read once.
    pub(crate) fn own() -> &'static Image {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        IMAGE.get_or_init(read)
    }

    /// Whether `address` lies in executable memory of the program.
    pub(crate) fn is_text(&self, address: usize) -> bool {
        self.text.iter().any(|range| range.contains(&address))
    }

    /// Whether `len` bytes at `address` lie in its data, which includes its constants.
    pub(crate) fn is_data(&self, address: usize, len: usize) -> bool {
        let end = address.checked_add(len);
        self.data
            .iter()
            .any(|range| range.contains(&address) && end.is_some_and(|end| end <= range.end))
    }

    /// A number that two processes share if they run the same build: FNV-1a over program headers and build id.
    pub(crate) fn fingerprint(&self) -> u64 {
        fnv(fnv(FNV_START, &self.headers), &self.build_id)
    }

    /// Whether `/proc/self/exe` is the file this image was loaded from. It is not when the dynamic loader, an emulator or valgrind was
    /// started with the program as its argument.
    pub(crate) fn is_proc_self_exe(&self) -> io::Result<bool> {
        let file = File::open("/proc/self/exe")?;
        let mut elf = [0_u8; 64];
        file.read_exact_at(&mut elf, 0)?;
        let at = |range: Range<usize>| elf[range].try_into().map(u64::from_le_bytes);
        let Ok(offset) = at(32..40) else {
            return Ok(false);
        };
        let mut headers = vec![0_u8; self.headers.len()];
        match file.read_exact_at(&mut headers, offset) {
            Ok(()) => Ok(headers == self.headers),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

pub(crate) const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits: names things, protects nothing.
pub(crate) fn fnv(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Base address of the main program, without allocating: for use before `main`.
pub(crate) fn base() -> usize {
    extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, out: *mut libc::c_void) -> c_int {
        // SAFETY: the loader passes a live entry.
        let base = unsafe { (*info).dlpi_addr };
        // SAFETY: `out` is the `&mut usize` given below, used by nobody else meanwhile.
        unsafe { *out.cast::<usize>() = base as usize };
        1
    }
    let mut base = 0_usize;
    // SAFETY: the callback fits the signature and gets the pointer it expects.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut base).cast()) };
    base
}

/// Whether `address` lies in the main program rather than in a shared library. Does not allocate.
pub(crate) fn is_in_main_program(address: usize) -> bool {
    struct Query {
        address: usize,
        found: bool,
    }
    extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, out: *mut libc::c_void) -> c_int {
        // SAFETY: the loader passes a live entry.
        let info = unsafe { &*info };
        // SAFETY: `out` is the `&mut Query` given below.
        let query = unsafe { &mut *out.cast::<Query>() };
        // SAFETY: the entry names this many headers, which stay mapped.
        let headers =
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        for header in headers {
            let start = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
            let inside = query.address.wrapping_sub(start) < header.p_memsz as usize;
            query.found |= header.p_type == libc::PT_LOAD && inside;
        }
        1
    }
    let mut query = Query {
        address,
        found: false,
    };
    // SAFETY: the callback fits the signature and gets the pointer it expects.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut query).cast()) };
    query.found
}

fn read() -> Image {
    extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, out: *mut libc::c_void) -> c_int {
        // SAFETY: the loader passes a live entry.
        let info = unsafe { &*info };
        // SAFETY: the entry names this many headers, which stay mapped as long as the program runs.
        let headers =
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        // SAFETY: program headers are plain integers without padding.
        let bytes = unsafe {
            std::slice::from_raw_parts(info.dlpi_phdr.cast::<u8>(), size_of_val(headers))
        };
        let base = info.dlpi_addr as usize;
        let mut image = Image {
            base,
            text: Vec::new(),
            data: Vec::new(),
            headers: bytes.to_vec(),
            build_id: Vec::new(),
        };
        for header in headers {
            let start = base.wrapping_add(header.p_vaddr as usize);
            let range = start..start.wrapping_add(header.p_memsz as usize);
            match header.p_type {
                libc::PT_LOAD if header.p_flags & libc::PF_X != 0 => image.text.push(range),
                libc::PT_LOAD => image.data.push(range),
                libc::PT_NOTE => {
                    // SAFETY: the segment is mapped, and notes are only read.
                    let notes = unsafe {
                        std::slice::from_raw_parts(start as *const u8, header.p_memsz as usize)
                    };
                    image.build_id.extend(build_id(notes).unwrap_or_default());
                }
                _ => {}
            }
        }
        // SAFETY: `out` is the `&mut Option<Image>` given below.
        unsafe { *out.cast::<Option<Image>>() = Some(image) };
        1
    }
    let mut image: Option<Image> = None;
    // SAFETY: the callback fits the signature and gets the pointer it expects.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut image).cast()) };
    image.expect("the loader always lists the main program first")
}

/// The descriptor of the `NT_GNU_BUILD_ID` note among `notes`.
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    let word =
        |at: usize, notes: &[u8]| Some(u32::from_le_bytes(notes.get(at..at + 4)?.try_into().ok()?));
    loop {
        let (name, len, kind) = (word(0, notes)?, word(4, notes)?, word(8, notes)?);
        let start = 12 + (name as usize).next_multiple_of(4);
        if kind == NT_GNU_BUILD_ID && notes.get(12..16) == Some(b"GNU\0") {
            return notes.get(start..start + len as usize);
        }
        notes = notes.get(start + (len as usize).next_multiple_of(4)..)?;
    }
}

/// Whether the kernel runs this program with more rights than its user has: set-user-id, file capabilities.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: reads one number that the kernel passed at start.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The address of a function that is not part of the program where it is linked dynamically.
#[cfg(test)]
pub(crate) fn foreign_function() -> usize {
    // SAFETY: looks a name up.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"getenv".as_ptr()) as usize }
}
