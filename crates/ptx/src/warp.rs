//! The registers and places in the code of a warp: 32 threads that run one instruction together. Where a branch parts
//! them, those that are behind go on first, so they meet again where the ways join.

use std::array;

use super::instructions::{LANES, Longs, Words};
use super::memory::Value;
use super::parse::{Arg, Base, Kernel, Special};

/// A set of lanes, a bit each.
pub type Mask = u32;
pub const ALL: Mask = Mask::MAX;

/// What is wrong, and with which lane.
pub struct Trouble {
    pub lane: usize,
    pub what: String,
}

pub fn trouble<T>(lane: usize, what: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble { lane, what: what.into() })
}

/// The lanes of a mask.
pub fn lanes(mask: Mask) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 != 0)
}

/// The lowest lane of a mask that has one.
pub fn first(mask: Mask) -> usize {
    mask.trailing_zeros() as usize
}

/// A copy from global to shared memory that nobody has waited for yet.
pub struct Copy {
    pub lane: usize,
    /// Number of the group, counted for each lane.
    pub group: usize,
    pub to: u64,
    pub bytes: usize,
    pub value: Value,
}

/// Registers, and the lanes that have written each.
struct File<T> {
    values: Vec<T>,
    written: Vec<Mask>,
}

pub struct Warp {
    pub first_thread: u32,
    pub block_size: [u32; 3],
    pub grid_size: [u32; 3],
    pub block: [u32; 3],
    words: File<Words>,
    longs: File<Longs>,
    predicates: File<Mask>,
    pub alive: Mask,
    /// The next instruction of each lane.
    places: [u32; LANES],
    /// The one of all living lanes, where it is the same.
    together: Option<u32>,
    /// The barrier where the warp waits.
    pub waits_at: Option<usize>,
    pub copies: Vec<Copy>,
    /// Groups of copies that each lane has closed.
    pub groups: [usize; LANES],
}

impl Warp {
    pub fn new(kernel: &Kernel, first_thread: u32, block_size: [u32; 3], grid_size: [u32; 3]) -> Warp {
        let registers = kernel.registers;
        Warp {
            first_thread,
            block_size,
            grid_size,
            block: [0; 3],
            words: File { values: vec![[0; LANES]; registers.words], written: vec![0; registers.words] },
            longs: File { values: vec![[0; LANES]; registers.longs], written: vec![0; registers.longs] },
            predicates: File { values: vec![0; registers.predicates], written: vec![0; registers.predicates] },
            alive: 0,
            places: [0; LANES],
            together: Some(0),
            waits_at: None,
            copies: Vec::new(),
            groups: [0; LANES],
        }
    }

    /// As at the begin of a block.
    pub fn start(&mut self, block: [u32; 3]) {
        let threads = self.block_size.iter().product::<u32>() - self.first_thread;
        self.block = block;
        self.alive = if threads >= LANES as u32 { ALL } else { (1 << threads) - 1 };
        self.words.written.fill(0);
        self.longs.written.fill(0);
        self.predicates.written.fill(0);
        (self.places, self.together, self.waits_at) = ([0; LANES], Some(0), None);
        self.copies.clear();
        self.groups = [0; LANES];
    }

    /// The next instruction and the lanes that run it; `None` where all have ended.
    pub fn next(&self) -> Option<(usize, Mask)> {
        if self.alive == 0 {
            return None;
        }
        if let Some(place) = self.together {
            return Some((place as usize, self.alive));
        }
        let place = lanes(self.alive).map(|lane| self.places[lane]).min()?;
        let here = (0..LANES).fold(0, |mask, lane| mask | Mask::from(self.places[lane] == place) << lane);
        Some((place as usize, here & self.alive))
    }

    /// The lanes of `mask` have run the instruction at `place`; those of `taken` go to `target`, the others on.
    pub fn step(&mut self, place: usize, mask: Mask, taken: Mask, target: usize) {
        let (next, target) = (place as u32 + 1, target as u32);
        if self.together.is_some() && (taken == 0 || taken == self.alive) {
            self.together = Some(if taken == 0 { next } else { target });
            return;
        }
        if let Some(place) = self.together {
            self.places = [place; LANES];
        }
        for lane in lanes(mask) {
            self.places[lane] = if taken >> lane & 1 != 0 { target } else { next };
        }
        let place = self.places[first(self.alive) % LANES];
        self.together = lanes(self.alive).all(|lane| self.places[lane] == place).then_some(place);
    }

    fn special(&self, special: Special) -> Words {
        let [x, y, _] = self.block_size;
        array::from_fn(|lane| {
            let thread = self.first_thread + lane as u32;
            match special {
                Special::Thread(axis) => [thread % x, thread / x % y, thread / x / y][axis],
                Special::Block(axis) => self.block[axis],
                Special::BlockSize(axis) => self.block_size[axis],
                Special::GridSize(axis) => self.grid_size[axis],
                Special::Lane => lane as u32,
            }
        })
    }

    /// An argument of 32 bits: the register itself, or the number in `scratch`. A register must have been written by all
    /// lanes of `mask`.
    pub fn borrow_word<'a>(&'a self, arg: Arg, mask: Mask, scratch: &'a mut Words) -> Result<&'a Words, Trouble> {
        match arg {
            Arg::Word(index) => {
                check(self.words.written[index], mask)?;
                return Ok(&self.words.values[index]);
            }
            Arg::Number(number) => *scratch = [number as u32; LANES],
            Arg::Special(special) => *scratch = self.special(special),
            _ => return trouble(first(mask), format!("{arg:?} is not of 32 bits")),
        }
        Ok(scratch)
    }

    /// An argument of 64 bits, or a shorter one with zeros in front, likewise.
    pub fn borrow_long<'a>(&'a self, arg: Arg, mask: Mask, scratch: &'a mut Longs) -> Result<&'a Longs, Trouble> {
        match arg {
            Arg::Long(index) => {
                check(self.longs.written[index], mask)?;
                return Ok(&self.longs.values[index]);
            }
            Arg::Number(number) => *scratch = [number; LANES],
            _ => *scratch = self.word(arg, mask)?.map(u64::from),
        }
        Ok(scratch)
    }

    /// A copy of an argument of 32 bits.
    pub fn word(&self, arg: Arg, mask: Mask) -> Result<Words, Trouble> {
        self.borrow_word(arg, mask, &mut [0; LANES]).copied()
    }

    /// A copy of an argument of 64 bits.
    pub fn long(&self, arg: Arg, mask: Mask) -> Result<Longs, Trouble> {
        self.borrow_long(arg, mask, &mut [0; LANES]).copied()
    }

    /// Where a predicate holds.
    pub fn predicate(&self, arg: Arg, mask: Mask) -> Result<Mask, Trouble> {
        match arg {
            Arg::Predicate { index, negated } => {
                check(self.predicates.written[index], mask)?;
                Ok(self.predicates.values[index] ^ if negated { ALL } else { 0 })
            }
            Arg::Number(number) => Ok(if number == 0 { 0 } else { ALL }),
            _ => trouble(first(mask), format!("{arg:?} is not a predicate")),
        }
    }

    /// Every lane's address.
    pub fn address(&self, arg: Arg, mask: Mask) -> Result<Longs, Trouble> {
        let Arg::Address { base, offset } = arg else {
            return trouble(first(mask), format!("{arg:?} is not an address"));
        };
        let start = match base {
            None => [0; LANES],
            Some(Base::Word(index)) => self.long(Arg::Word(index), mask)?,
            Some(Base::Long(index)) => self.long(Arg::Long(index), mask)?,
        };
        Ok(start.map(|start| start.wrapping_add(offset as u64)))
    }

    /// Writes a register of 32 bits, or of 64, where zeros fill the upper half.
    pub fn set_word(&mut self, arg: Arg, mask: Mask, values: &Words) -> Result<(), Trouble> {
        match arg {
            Arg::Word(index) => self.words.set(index, mask, values),
            Arg::Long(_) => return self.set_long(arg, mask, &values.map(u64::from)),
            Arg::Nothing => {}
            _ => return trouble(first(mask), format!("{arg:?} cannot be written")),
        }
        Ok(())
    }

    /// Writes a register of 64 bits, or the lower half to one of 32.
    pub fn set_long(&mut self, arg: Arg, mask: Mask, values: &Longs) -> Result<(), Trouble> {
        match arg {
            Arg::Long(index) => self.longs.set(index, mask, values),
            _ => return self.set_word(arg, mask, &values.map(|value| value as u32)),
        }
        Ok(())
    }

    pub fn set_predicate(&mut self, arg: Arg, mask: Mask, value: Mask) -> Result<(), Trouble> {
        let Arg::Predicate { index, negated: false } = arg else {
            return trouble(first(mask), format!("{arg:?} cannot be written"));
        };
        let old = &mut self.predicates.values[index];
        *old = *old & !mask | value & mask;
        self.predicates.written[index] |= mask;
        Ok(())
    }
}

fn check(written: Mask, mask: Mask) -> Result<(), Trouble> {
    match mask & !written {
        0 => Ok(()),
        missing => trouble(first(missing), "a register is read before it is written"),
    }
}

impl<T: std::marker::Copy> File<[T; LANES]> {
    fn set(&mut self, index: usize, mask: Mask, values: &[T; LANES]) {
        let register = &mut self.values[index];
        if mask == ALL {
            *register = *values;
        } else {
            lanes(mask).for_each(|lane| register[lane] = values[lane]);
        }
        self.written[index] |= mask;
    }
}
