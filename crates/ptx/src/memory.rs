//! Global and shared memory that say what is wrong with an access: outside of every buffer, not aligned, of bytes that
//! nobody has written, or a race: two threads at one place, one of them writing, with no barrier between.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Who accesses: the thread, and how many barriers its block has passed.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    pub block: u32,
    pub barriers: u32,
    pub thread: u32,
}

/// Stands for a thread where several read in one name.
pub const SEVERAL: u32 = THREAD as u32;

/// Up to 16 bytes, as words.
pub type Value = [u32; 4];

/// What stands in memory that the software device has just given out (tests/softgpu/memory.cpp): a NaN that no
/// operation gives.
const FRESH: u32 = u32::MAX;

/// The buffers that a launch may use.
pub struct Global {
    buffers: Vec<Buffer>,
}

/// Memory of the device at `address`, which lies here at `data`.
pub struct Buffer {
    pub address: u64,
    pub bytes: usize,
    pub data: *mut u8,
    races: OnceLock<Races>,
}

// SAFETY: bytes are read and written by atomic operations alone.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// # Safety
    /// `data` must be `bytes` bytes that live as long and that nobody else uses.
    pub unsafe fn new(address: u64, bytes: usize, data: *mut u8) -> Buffer {
        Buffer { address, bytes, data, races: OnceLock::new() }
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        assert!(at < self.bytes);
        // SAFETY: within the buffer.
        unsafe { AtomicU8::from_ptr(self.data.add(at)) }
    }
}

impl Global {
    pub fn new(mut buffers: Vec<Buffer>) -> Global {
        buffers.sort_by_key(|buffer| buffer.address);
        Global { buffers }
    }

    /// The buffer, and the place in it.
    fn find(&self, address: u64, bytes: usize) -> Result<(&Buffer, usize), String> {
        if !address.is_multiple_of(bytes as u64) {
            return Err(format!("{bytes} bytes of global memory at {address:#x}, which is not a multiple of {bytes}"));
        }
        let before = self.buffers.partition_point(|buffer| buffer.address <= address);
        let Some(buffer) = before.checked_sub(1).map(|index| &self.buffers[index]) else {
            return Err(format!("global address {address:#x} is in no buffer of this launch"));
        };
        let at = (address - buffer.address) as usize;
        if at + bytes > buffer.bytes {
            let beyond = at as i64 + bytes as i64 - buffer.bytes as i64;
            return Err(format!(
                "global address {address:#x} is {beyond} bytes beyond a buffer of {} bytes",
                buffer.bytes
            ));
        }
        Ok((buffer, at))
    }

    pub fn load(&self, who: Who, address: u64, bytes: usize) -> Result<Value, String> {
        let (buffer, at) = self.find(address, bytes)?;
        buffer.races().read(who, at, bytes).map_err(|problem| format!("global address {address:#x}: {problem}"))?;
        let mut value = [0; 4];
        for i in 0..bytes {
            value[i / 4] |= u32::from(buffer.byte(at + i).load(Ordering::Relaxed)) << (i % 4 * 8);
        }
        if bytes >= 4 && value[..bytes / 4].contains(&FRESH) {
            return Err(format!("global address {address:#x} is read before it is written"));
        }
        Ok(value)
    }

    pub fn store(&self, who: Who, address: u64, bytes: usize, value: Value) -> Result<(), String> {
        let (buffer, at) = self.find(address, bytes)?;
        buffer.races().write(who, at, bytes).map_err(|problem| format!("global address {address:#x}: {problem}"))?;
        for i in 0..bytes {
            buffer.byte(at + i).store((value[i / 4] >> (i % 4 * 8)) as u8, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Buffer {
    fn races(&self) -> &Races {
        self.races.get_or_init(|| Races::new(self.bytes))
    }
}

/// Shared memory of one block.
pub struct Shared {
    words: Vec<u32>,
    races: Races,
    bytes: usize,
}

impl Shared {
    pub fn new(bytes: usize) -> Shared {
        Shared { words: vec![0; bytes.div_ceil(4)], races: Races::new(bytes), bytes }
    }

    /// As for a new block: nothing is written.
    pub fn clear(&mut self) {
        self.races.clear();
    }

    fn check(&self, address: u64, bytes: usize) -> Result<usize, String> {
        if !address.is_multiple_of(bytes as u64) {
            return Err(format!("{bytes} bytes of shared memory at {address}, which is not a multiple of {bytes}"));
        }
        match usize::try_from(address) {
            Ok(at) if at.checked_add(bytes).is_some_and(|end| end <= self.bytes) => Ok(at),
            _ => Err(format!("shared address {address} is beyond the block's {} bytes", self.bytes)),
        }
    }

    pub fn load(&self, who: Who, address: u64, bytes: usize) -> Result<Value, String> {
        let at = self.check(address, bytes)?;
        let problem = |problem| format!("shared address {address}: {problem}");
        self.races.read(who, at, bytes).map_err(problem)?;
        if !self.races.is_written(at, bytes) {
            return Err(format!("shared address {address} is read before it is written"));
        }
        Ok(match bytes {
            1 | 2 => [self.words[at / 4] >> (at % 4 * 8) & ((1 << (bytes * 8)) - 1), 0, 0, 0],
            _ => std::array::from_fn(|i| if 4 * i < bytes { self.words[at / 4 + i] } else { 0 }),
        })
    }

    pub fn store(&mut self, who: Who, address: u64, bytes: usize, value: Value) -> Result<(), String> {
        let at = self.check(address, bytes)?;
        self.races.write(who, at, bytes).map_err(|problem| format!("shared address {address}: {problem}"))?;
        self.put(at, bytes, value);
        Ok(())
    }

    fn put(&mut self, at: usize, bytes: usize, value: Value) {
        if bytes == 2 {
            let (word, shift) = (&mut self.words[at / 4], at % 4 * 8);
            *word = *word & !(0xffff << shift) | value[0] << shift;
        } else {
            self.words[at / 4..][..bytes / 4].copy_from_slice(&value[..bytes / 4]);
        }
    }

    /// A copy begins: from now on nobody may touch these bytes.
    pub fn begin_copy(&mut self, who: Who, address: u64, bytes: usize) -> Result<(), String> {
        let at = self.check(address, bytes)?;
        self.races.write(who, at, bytes).map_err(|problem| format!("shared address {address}: {problem}"))?;
        self.races.mark(at, bytes, tag(who) | IN_FLIGHT);
        Ok(())
    }

    /// The copy is there, for the thread that has waited; for others after the next barrier.
    pub fn end_copy(&mut self, who: Who, address: u64, bytes: usize, value: Value) {
        self.races.mark(address as usize, bytes, tag(who));
        self.put(address as usize, bytes, value);
    }
}

/// Who wrote and read last, for every two bytes.
struct Races {
    pages: Vec<OnceLock<Box<Page>>>,
}

/// Made when they are needed: most of a large buffer is not touched by a launch.
type Page = [Cell; CELLS];
const CELLS: usize = 4096;

/// The newest write and read of two bytes, as tags.
#[derive(Default)]
struct Cell {
    write: AtomicU64,
    read: AtomicU64,
}

/// A tag: 1 + block in the upper 24 bits, then 24 bits of barriers, then the thread; 0 is nobody.
const THREAD: u64 = 0x7fff;
const BARRIERS: u64 = 0xff_ffff << 16;
const BLOCK: u64 = 0xff_ffff << 40;
/// An asynchronous copy is writing.
const IN_FLIGHT: u64 = 0x8000;

fn tag(who: Who) -> u64 {
    u64::from(who.block + 1) << 40 | u64::from(who.barriers) << 16 | u64::from(who.thread)
}

/// Whether no barrier lies between the two, and they are not one thread.
fn conflict(old: u64, new: u64) -> bool {
    old != 0 && ((old ^ new) & BLOCK != 0 || ((old ^ new) & BARRIERS == 0 && (old ^ new) & THREAD != 0))
}

/// Both readers in one tag: threads or blocks that differ are "several", which conflicts with everybody.
fn join(old: u64, new: u64) -> u64 {
    match old ^ new {
        _ if old == 0 => new,
        _ if old & BLOCK == BLOCK => old,
        differ if differ & BLOCK != 0 => new | BLOCK,
        differ if differ & BARRIERS == 0 && differ & THREAD != 0 => new | THREAD,
        _ => new,
    }
}

fn name(tag: u64, me: u64) -> String {
    if (tag ^ me) & BLOCK != 0 {
        return if tag & BLOCK == BLOCK {
            "several blocks".into()
        } else {
            format!("block {} of the grid", (tag >> 40) - 1)
        };
    }
    if tag & THREAD == THREAD { "several threads".into() } else { format!("thread {} of the block", tag & THREAD) }
}

impl Races {
    fn new(bytes: usize) -> Races {
        Races { pages: (0..bytes.div_ceil(2 * CELLS)).map(|_| OnceLock::new()).collect() }
    }

    fn clear(&mut self) {
        for cell in self.pages.iter_mut().filter_map(OnceLock::get_mut).flat_map(|page| page.iter_mut()) {
            *cell = Cell::default();
        }
    }

    fn cells(&self, at: usize, bytes: usize) -> impl Iterator<Item = &Cell> {
        let page =
            |number: usize| self.pages[number].get_or_init(|| Box::new(std::array::from_fn(|_| Cell::default())));
        (at / 2..(at + bytes).div_ceil(2)).map(move |cell| &page(cell / CELLS)[cell % CELLS])
    }

    // Blocks run at once: each first says that it is there, then looks for others, so one of two sees the other.
    fn read(&self, who: Who, at: usize, bytes: usize) -> Result<(), String> {
        let me = tag(who);
        for Cell { write: writes, read: reads } in self.cells(at, bytes) {
            let old = reads.load(Ordering::SeqCst);
            if join(old, me) != old {
                let _ = reads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(join(old, me)));
            }
            let write = writes.load(Ordering::SeqCst);
            if write & IN_FLIGHT != 0 {
                return Err(format!(
                    "read while an asynchronous copy of {} may still write there",
                    name(write & !IN_FLIGHT, me)
                ));
            }
            if conflict(write, me) {
                return Err(format!("race: read here, written by {} with no barrier between", name(write, me)));
            }
        }
        Ok(())
    }

    fn write(&self, who: Who, at: usize, bytes: usize) -> Result<(), String> {
        let me = tag(who);
        for Cell { write: writes, read: reads } in self.cells(at, bytes) {
            let write = writes.swap(me, Ordering::SeqCst);
            if write & IN_FLIGHT != 0 {
                return Err(format!(
                    "written while an asynchronous copy of {} may still write there",
                    name(write & !IN_FLIGHT, me)
                ));
            }
            let read = reads.load(Ordering::SeqCst);
            for (tag, done) in [(write, "written"), (read, "read")] {
                if conflict(tag, me) {
                    return Err(format!("race: written here, {done} by {} with no barrier between", name(tag, me)));
                }
            }
        }
        Ok(())
    }

    fn mark(&self, at: usize, bytes: usize, tag: u64) {
        self.cells(at, bytes).for_each(|cell| cell.write.store(tag, Ordering::Relaxed));
    }

    fn is_written(&self, at: usize, bytes: usize) -> bool {
        self.cells(at, bytes).all(|cell| cell.write.load(Ordering::Relaxed) != 0)
    }
}
