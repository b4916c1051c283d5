//! What a launch costs, counted: instructions, pieces of global memory, turns of shared memory. Nothing here is a time.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use super::instructions::LANES;
use super::parse::Kernel;

/// Bytes of global memory that come at once.
const SECTOR: u64 = 32;
/// Shared memory lies in so many banks, neighbouring words in neighbouring ones; a bank gives one word at a time.
const BANKS: usize = 32;

/// Of one launch, or several of one kernel.
#[derive(Clone, Debug)]
pub struct Counts {
    pub kernel: String,
    /// One for each instruction of the kernel, in its order.
    pub lines: Vec<Line>,
}

#[derive(Clone, Debug)]
pub struct Line {
    /// Line in the PTX.
    pub line: usize,
    pub opcode: String,
    pub tally: Tally,
}

/// Of one instruction. All are numbers a warp, not a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// How often a warp ran it.
    pub executed: u64,
    /// How often it asked for global memory, the sectors of 32 bytes that it touched, and the fewest that hold as many
    /// bytes.
    pub global_requests: u64,
    pub sectors: u64,
    pub ideal_sectors: u64,
    /// How often it asked for shared memory, the turns that the banks took, and the turns if no two lanes had met in a
    /// bank. A turn serves 128 bytes: all lanes with 4 bytes each, 16 lanes with 8, 8 lanes with 16.
    pub shared_requests: u64,
    pub wavefronts: u64,
    pub ideal_wavefronts: u64,
}

impl Counts {
    pub fn new(kernel: &Kernel) -> Counts {
        let lines = kernel.code.iter().map(|code| {
            let (line, opcode) = (code.line, code.opcode.clone());
            Line { line, opcode, tally: Tally::default() }
        });
        Counts { kernel: kernel.name.clone(), lines: lines.collect() }
    }

    /// Of all instructions whose opcode begins with `opcode`; of all with "".
    pub fn total(&self, opcode: &str) -> Tally {
        let mut total = Tally::default();
        self.lines.iter().filter(|line| line.opcode.starts_with(opcode)).for_each(|line| total += line.tally);
        total
    }

    pub fn by_opcode(&self) -> BTreeMap<&str, u64> {
        let mut counts = BTreeMap::new();
        for line in self.lines.iter().filter(|line| line.tally.executed > 0) {
            *counts.entry(&line.opcode[..]).or_default() += line.tally.executed;
        }
        counts
    }
}

impl AddAssign<&Counts> for Counts {
    fn add_assign(&mut self, other: &Counts) {
        self.lines.iter_mut().zip(&other.lines).for_each(|(line, other)| line.tally += other.tally);
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.executed += other.executed;
        self.global_requests += other.global_requests;
        self.sectors += other.sectors;
        self.ideal_sectors += other.ideal_sectors;
        self.shared_requests += other.shared_requests;
        self.wavefronts += other.wavefronts;
        self.ideal_wavefronts += other.ideal_wavefronts;
    }
}

impl Tally {
    /// A warp's request: every active lane's address, and the bytes of each lane.
    pub fn global(&mut self, addresses: impl Iterator<Item = u64>, bytes: usize) {
        let mut found = [0; LANES];
        let count = collect(&mut found, addresses);
        let found = distinct(&mut found[..count]);
        if found.is_empty() {
            return;
        }
        self.global_requests += 1;
        self.ideal_sectors += (found.len() as u64 * bytes as u64).div_ceil(SECTOR);
        let mut last = None;
        for &address in found {
            for sector in address / SECTOR..=(address + bytes as u64 - 1) / SECTOR {
                self.sectors += u64::from(last < Some(sector));
                last = last.max(Some(sector));
            }
        }
    }

    /// Addresses by lane; `None` for lanes that take no part.
    pub fn shared(&mut self, addresses: &[Option<u64>], bytes: usize) {
        self.shared_requests += 1;
        let lanes = (LANES * 4 / bytes.max(4)).min(LANES);
        for turn in addresses.chunks(lanes).filter(|turn| turn.iter().any(Option::is_some)) {
            let mut found = [0; LANES];
            let words =
                turn.iter().flatten().flat_map(|address| (0..bytes.div_ceil(4) as u64).map(move |i| address / 4 + i));
            let count = collect(&mut found, words);
            let mut banks = [0u64; BANKS];
            distinct(&mut found[..count]).iter().for_each(|&word| banks[word as usize % BANKS] += 1);
            self.wavefronts += banks.iter().max().copied().unwrap_or(0);
            self.ideal_wavefronts += 1;
        }
    }
}

fn collect(to: &mut [u64; LANES], values: impl Iterator<Item = u64>) -> usize {
    to.iter_mut().zip(values).map(|(place, value)| *place = value).count()
}

/// The different ones, sorted, at the front.
fn distinct(values: &mut [u64]) -> &[u64] {
    values.sort_unstable();
    let mut kept = 0;
    for i in 0..values.len() {
        if i == 0 || values[i] != values[kept - 1] {
            values[kept] = values[i];
            kept += 1;
        }
    }
    &values[..kept]
}
