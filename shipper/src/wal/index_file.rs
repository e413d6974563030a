//! A database's `-shm` that somebody cuts short (`cp` over a live one, a truncation): SQLite has it mapped, and the next
//! access to a page that is gone is SIGBUS, which ends the process, and with it the shipping of every other database.
//!
//! *Invariant*: no fault in a mapped `-shm` ends the process. The size is asked before every step ([`IndexFile`]); where the
//! file is cut in the middle of one, the signal's handler puts an empty page in the place of the one that is gone, and
//! notes it for this thread ([`was_cut_short`]): nothing read meanwhile counts, and the database is attached anew. To
//! SQLite an empty page is an index to be made anew from the WAL, under its locks. A fault anywhere else ends the process
//! as before.
//!
//! Does not promise anything to the application, whose own process has the same fault.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};

thread_local! {
    /// Without a destructor, and there from the start: the handler may set it.
    static CUT_SHORT: Cell<bool> = const { Cell::new(false) };
}

/// The index was cut short under us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} was cut short under the processes that use it")]
pub struct CutShort {
    path: String,
}

/// The index of one database, and how much of it was there.
#[derive(Debug)]
pub struct IndexFile {
    path: PathBuf,
    bytes: u64,
}

impl IndexFile {
    /// The index of `database`.
    #[must_use]
    pub fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-shm");
        Self { path: path.into(), bytes: 0 }
    }

    /// To be asked before the index is used: SQLite never makes it shorter while anybody has it open. What happened to it
    /// earlier on this thread is another's.
    ///
    /// # Errors
    /// It is shorter than it was.
    pub fn begin(&mut self) -> Result<(), CutShort> {
        CUT_SHORT.set(false);
        // Whether it is there, and the same file, is asked elsewhere.
        let Ok(file) = std::fs::metadata(&self.path) else { return Ok(()) };
        if file.len() < self.bytes {
            return Err(self.cut_short());
        }
        self.bytes = file.len();
        Ok(())
    }

    /// To be asked after the index was used, on the same thread.
    ///
    /// # Errors
    /// A part of it was gone, and nothing that was read counts.
    pub fn check(&self) -> Result<(), CutShort> {
        if was_cut_short() { Err(self.cut_short()) } else { Ok(()) }
    }

    fn cut_short(&self) -> CutShort {
        CutShort { path: self.path.display().to_string() }
    }
}

/// Whether a part of an index was gone when this thread came to it.
#[must_use]
pub fn was_cut_short() -> bool {
    CUT_SHORT.get()
}

/// Contains such faults from now on, in the whole process.
///
/// # Errors
/// The system's.
#[allow(unsafe_code)]
pub fn contain_faults() -> std::io::Result<()> {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_fault;
    // SAFETY: all zeros are a valid `sigaction` (no flags, an empty mask); the handler has the signature that SA_SIGINFO
    // asks for, lives as long as the program, and calls only what a handler may call. It runs on the thread's own stack,
    // which is not what has overflowed.
    let code = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut())
    };
    if code == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Puts an empty page where one of an index is gone; any other fault happens again, and ends the process.
#[allow(unsafe_code)]
extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the system gives a valid `info` with SIGBUS. Everything called is async-signal-safe (sysconf, mmap and
    // sigaction are plain system calls here), nothing allocates or takes a lock, and `errno` is left as it was. The page
    // that is replaced is a shared mapping of an index that has no file behind it any more, so that nobody loses anything.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let address = (*info).si_addr() as usize;
        let size = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096);
        let page = (address & !(size - 1)) as *mut c_void;
        let contained = is_in_an_index(address)
            && libc::mmap(
                page,
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            ) != libc::MAP_FAILED;
        if contained {
            CUT_SHORT.set(true);
        } else {
            libc::signal(signal, libc::SIG_DFL);
        }
        *errno = before;
    }
}

/// Whether an address lies in a file that is mapped and whose name ends as an index's does.
#[allow(unsafe_code)]
fn is_in_an_index(address: usize) -> bool {
    let mut maps = Maps::looking_for(address);
    let mut buffer = [0_u8; 1024];
    // SAFETY: the path ends in NUL; no more is read than the buffer holds, and what was read is initialised.
    unsafe {
        let file = libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return false;
        }
        loop {
            let read = libc::read(file, buffer.as_mut_ptr().cast(), buffer.len());
            let Ok(read @ 1..) = usize::try_from(read) else { break };
            buffer.iter().take(read).for_each(|byte| maps.take(*byte));
        }
        libc::close(file);
    }
    maps.found
}

/// Reads `/proc/self/maps` byte by byte, with neither allocation nor a bound on a line.
#[derive(Debug)]
struct Maps {
    address: usize,
    begin: usize,
    end: usize,
    field: u8,
    /// The last bytes of the line.
    tail: [u8; 14],
    found: bool,
}

impl Maps {
    const fn looking_for(address: usize) -> Self {
        Self { address, begin: 0, end: 0, field: 0, tail: [0; 14], found: false }
    }

    fn take(&mut self, byte: u8) {
        if byte == b'\n' {
            let index = self.tail.ends_with(b"-shm") || self.tail.ends_with(b"-shm (deleted)");
            self.found |= index && (self.begin..self.end).contains(&self.address);
            let found = self.found;
            *self = Self { found, ..Self::looking_for(self.address) };
            return;
        }
        self.tail.rotate_left(1);
        self.tail[13] = byte;
        let digit = (byte as char).to_digit(16).map_or(0, |digit| digit as usize);
        match (self.field, byte) {
            (0, b'-') => self.field = 1,
            (0, _) => self.begin = self.begin << 4 | digit,
            (1, b' ') => self.field = 2,
            (1, _) => self.end = self.end << 4 | digit,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_mapped_index_is_one() {
        let maps = "55d0-55e0 r-xp 00000000 08:01 17 /usr/bin/shipper\n\
                    7f00-7f80 rw-s 00000000 08:01 42 /srv/a db/app.db-shm\n\
                    7f80-7f90 rw-s 00000000 08:01 43 /srv/old.db-shm (deleted)\n\
                    7f90-7fa0 rw-s 00000000 08:01 44 /srv/app.db-shm.bak\n\
                    7fa0-7fb0 rw-p 00000000 00:00 0 \n";
        let is_index = |address| {
            let mut reader = Maps::looking_for(address);
            maps.bytes().for_each(|byte| reader.take(byte));
            reader.found
        };
        for address in [0x7f00, 0x7f7f, 0x7f80, 0x7f8f] {
            assert!(is_index(address), "{address:x}");
        }
        for address in [0, 0x55d0, 0x7eff, 0x7f90, 0x7fa0, 0x7fb0, usize::MAX] {
            assert!(!is_index(address), "{address:x}");
        }
    }

    #[test]
    #[allow(unsafe_code)]
    fn a_fault_in_an_index_is_contained_and_told_to_the_thread_that_had_it() {
        contain_faults().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("app.db");
        let path = directory.path().join("app.db-shm");
        std::fs::write(&path, [7; 32768]).unwrap();
        let mut index = IndexFile::of(&database);
        index.begin().unwrap();
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        // SAFETY: a fresh mapping of an open file, read only within its length.
        let first = unsafe {
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
            libc::mmap(std::ptr::null_mut(), 32768, rights, libc::MAP_SHARED, fd, 0)
        };
        assert_ne!(first, libc::MAP_FAILED);
        let read = |at: usize| unsafe { first.cast::<u8>().add(at).read_volatile() };
        assert_eq!(read(20_000), 7);
        index.check().unwrap();
        file.set_len(0).unwrap();
        assert_eq!(read(20_000), 0, "an empty page in its place");
        assert!(index.check().unwrap_err().to_string().contains("app.db-shm was cut short"));
        assert!(!std::thread::spawn(was_cut_short).join().unwrap(), "it is this thread's");
        assert!(index.begin().is_err(), "its size tells, too");
        index.check().unwrap();
    }
}
