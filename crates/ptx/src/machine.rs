//! Runs a launch: every block by itself, warp after warp, each up to the next barrier. The order does not matter for
//! what is found: two accesses to one place with no barrier between are a race, whichever came first.

use std::fmt;

use rayon::prelude::*;

use super::counts::{Counts, Tally};
use super::instructions::{LANES, Op};
use super::memory::{Global, Shared};
use super::parse::{Arg, Instruction, Kernel};
use super::warp::{ALL, Mask, Trouble, Warp, first, trouble};

/// A kernel with all that a launch needs.
pub struct Launch<'a> {
    pub kernel: &'a Kernel,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// The arguments, each at its parameter's offset.
    pub parameters: &'a [u8],
    pub global: &'a Global,
    /// Instructions that a warp may run: a mistake must not run for ever.
    pub limit: u64,
}

/// A mistake of a kernel.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kernel: String,
    pub line: usize,
    pub text: String,
    pub block: [u32; 3],
    pub thread: u32,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { kernel, line, text, block, thread, what } = self;
        write!(f, "kernel {kernel}, line {line} of its PTX, `{text}`, block {block:?}, thread {thread}: {what}")
    }
}

impl Launch<'_> {
    /// Runs all blocks; what was counted, or the first mistake.
    pub fn run(&self) -> Result<Counts, Fault> {
        let blocks = self.grid.iter().product::<u32>();
        // One piece a core: registers are made once a piece.
        let piece = blocks.div_ceil(rayon::current_num_threads() as u32).max(1);
        let starts: Vec<u32> = (0..blocks).step_by(piece as usize).collect();
        let run = |start: u32| {
            let mut block = Block::new(self);
            (start..blocks.min(start + piece)).try_for_each(|number| block.run(number))?;
            Ok(block.tallies)
        };
        let none = || vec![Tally::default(); self.kernel.code.len()];
        let tallies = starts.into_par_iter().map(run).try_reduce(none, |mut one, other| {
            one.iter_mut().zip(other).for_each(|(tally, other)| *tally += other);
            Ok(one)
        })?;
        let mut counts = Counts::new(self.kernel);
        counts.lines.iter_mut().zip(tallies).for_each(|(line, tally)| line.tally = tally);
        Ok(counts)
    }
}

/// A block that runs; blocks run one after another in it.
pub struct Block<'a> {
    pub launch: &'a Launch<'a>,
    pub number: u32,
    index: [u32; 3],
    /// How many all threads have passed.
    pub barriers: u32,
    pub shared: Shared,
    pub warps: Vec<Warp>,
    /// Of each instruction, in all blocks that ran here.
    pub tallies: Vec<Tally>,
}

impl<'a> Block<'a> {
    fn new(launch: &'a Launch<'a>) -> Block<'a> {
        let threads = launch.block.iter().product::<u32>();
        let warp = |first| Warp::new(launch.kernel, first, launch.block, launch.grid);
        Block {
            launch,
            number: 0,
            index: [0; 3],
            barriers: 0,
            shared: Shared::new(launch.kernel.shared_bytes),
            warps: (0..threads).step_by(LANES).map(warp).collect(),
            tallies: vec![Tally::default(); launch.kernel.code.len()],
        }
    }

    fn run(&mut self, number: u32) -> Result<(), Fault> {
        let [x, y, _] = self.launch.grid;
        (self.number, self.index, self.barriers) = (number, [number % x, number / x % y, number / x / y], 0);
        self.shared.clear();
        self.warps.iter_mut().for_each(|warp| warp.start(self.index));
        loop {
            for warp in 0..self.warps.len() {
                self.run_warp(warp)?;
            }
            let Some(first) = self.warps.iter().position(|warp| warp.waits_at.is_some()) else { return Ok(()) };
            // All must wait, and at the same barrier.
            if let Some(other) = self.warps.iter().position(|warp| warp.waits_at != self.warps[first].waits_at) {
                let line = |place: usize| self.launch.kernel.code[place].line;
                let does =
                    self.warps[other].waits_at.map_or("has ended".into(), |at| format!("waits at line {}", line(at)));
                let what = format!("not all threads of the block come to this barrier: thread {} {does}", 32 * other);
                return Err(self.fault(first, self.warps[first].waits_at.unwrap_or(0), Trouble { lane: 0, what }));
            }
            self.barriers += 1;
            self.warps.iter_mut().for_each(|warp| warp.waits_at = None);
        }
    }

    fn fault(&self, warp: usize, place: usize, Trouble { lane, what }: Trouble) -> Fault {
        let at = &self.launch.kernel.code[place.min(self.launch.kernel.code.len() - 1)];
        Fault {
            kernel: self.launch.kernel.name.clone(),
            line: at.line,
            text: at.text.clone(),
            block: self.index,
            thread: self.warps[warp].first_thread + lane as u32,
            what,
        }
    }

    /// Up to a barrier or the end.
    fn run_warp(&mut self, warp: usize) -> Result<(), Fault> {
        let kernel = self.launch.kernel;
        let mut steps = 0;
        while let Some((place, here)) = self.warps[warp].next() {
            let Some(instruction) = kernel.code.get(place) else {
                return Err(self.fault(
                    warp,
                    place,
                    Trouble { lane: first(here), what: "the code ends without ret".into() },
                ));
            };
            steps += 1;
            if steps > self.launch.limit {
                return Err(self.fault(
                    warp,
                    place,
                    Trouble { lane: first(here), what: "the loop does not end".into() },
                ));
            }
            self.tallies[place].executed += 1;
            let ran = self.guarded(warp, place, instruction, here);
            ran.map_err(|trouble| self.fault(warp, place, trouble))?;
            if self.warps[warp].waits_at.is_some() {
                return Ok(());
            }
        }
        match self.warps[warp].copies.first() {
            Some(copy) => {
                let what = format!("ends before the asynchronous copy to shared address {} is waited for", copy.to);
                Err(self.fault(warp, kernel.code.len(), Trouble { lane: copy.lane, what }))
            }
            None => Ok(()),
        }
    }

    /// Runs an instruction by those lanes of `here` that its guard lets, and moves all of `here` on.
    fn guarded(&mut self, w: usize, place: usize, instruction: &Instruction, here: Mask) -> Result<(), Trouble> {
        let warp = &mut self.warps[w];
        let mask = match instruction.guard {
            Some((index, negated)) => here & warp.predicate(Arg::Predicate { index, negated }, here)?,
            None => here,
        };
        let mut way = (0, 0);
        match (&instruction.op, &instruction.args[..]) {
            _ if mask == 0 => {}
            (Op::Branch, &[Arg::Target(target)]) => way = (mask, target),
            (Op::Return, _) => warp.alive &= !mask,
            (Op::Barrier, _) if mask != ALL => return trouble(first(mask), "a barrier for a part of the warp"),
            (Op::Barrier, _) => warp.waits_at = Some(place),
            _ => self.execute(w, place, instruction, mask)?,
        }
        self.warps[w].step(place, here, way.0, way.1);
        Ok(())
    }
}
