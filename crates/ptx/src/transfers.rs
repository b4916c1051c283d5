//! Instructions that bring data from memory to registers, back, or from global to shared memory.

use super::instructions::{LANES, Longs, Space};
use super::machine::Block;
use super::memory::{SEVERAL, Value, Who};
use super::mma;
use super::parse::Arg;
use super::warp::{ALL, Copy, Mask, Trouble, first, lanes, trouble};

impl Block<'_> {
    fn who(&self, w: usize, lane: usize) -> Who {
        Who { block: self.number, barriers: self.barriers, thread: self.warps[w].first_thread + lane as u32 }
    }

    fn count(&mut self, place: usize, space: Space, addresses: &Longs, mask: Mask, bytes: usize) {
        match space {
            Space::Global => self.tallies[place].global(lanes(mask).map(|lane| addresses[lane]), bytes),
            Space::Shared => {
                let by_lane: [Option<u64>; LANES] =
                    std::array::from_fn(|lane| (mask >> lane & 1 != 0).then_some(addresses[lane]));
                self.tallies[place].shared(&by_lane, bytes);
            }
        }
    }

    pub fn load(
        &mut self,
        w: usize,
        place: usize,
        mask: Mask,
        (space, bytes, count): (Space, usize, usize),
        args: &[Arg],
    ) -> Result<(), Trouble> {
        let addresses = self.warps[w].address(args[count], mask)?;
        self.count(place, space, &addresses, mask, bytes * count);
        let mut values: [Longs; 4] = [[0; LANES]; 4];
        for lane in lanes(mask) {
            let (who, address) = (self.who(w, lane), addresses[lane]);
            let value = match space {
                Space::Global => self.launch.global.load(who, address, bytes * count),
                Space::Shared => self.shared.load(who, address, bytes * count),
            };
            let value = value.or_else(|what| trouble(lane, what))?;
            for (i, values) in values.iter_mut().enumerate().take(count) {
                values[lane] = match bytes {
                    8 => u64::from(value[2 * i]) | u64::from(value[2 * i + 1]) << 32,
                    4 => value[i].into(),
                    _ => value[0].into(),
                };
            }
        }
        (0..count).try_for_each(|i| self.warps[w].set_long(args[i], mask, &values[i]))
    }

    pub fn store(
        &mut self,
        w: usize,
        place: usize,
        mask: Mask,
        (space, bytes, count): (Space, usize, usize),
        args: &[Arg],
    ) -> Result<(), Trouble> {
        let warp = &self.warps[w];
        let addresses = warp.address(args[0], mask)?;
        let mut values: [Value; LANES] = [[0; 4]; LANES];
        for i in 0..count {
            let longs = warp.long(args[1 + i], mask)?;
            for lane in lanes(mask) {
                let long = longs[lane];
                match bytes {
                    8 => values[lane][2 * i..][..2].copy_from_slice(&[long as u32, (long >> 32) as u32]),
                    4 => values[lane][i] = long as u32,
                    _ => values[lane][0] = long as u32 & 0xffff,
                }
            }
        }
        self.count(place, space, &addresses, mask, bytes * count);
        lanes(mask).try_for_each(|lane| {
            let (who, address) = (self.who(w, lane), addresses[lane]);
            let stored = match space {
                Space::Global => self.launch.global.store(who, address, bytes * count, values[lane]),
                Space::Shared => self.shared.store(who, address, bytes * count, values[lane]),
            };
            stored.or_else(|what| trouble(lane, what))
        })
    }

    /// `cp.async [to], [from], bytes, count`: where `count`, if there is one, is 0, zeros come instead.
    pub fn copy_async(&mut self, w: usize, place: usize, mask: Mask, args: &[Arg]) -> Result<(), Trouble> {
        let warp = &self.warps[w];
        let Arg::Number(bytes @ (4 | 8 | 16)) = args[2] else {
            return trouble(first(mask), "copies of 4, 8 or 16 bytes are known");
        };
        let bytes = bytes as usize;
        let (to, from) = (warp.address(args[0], mask)?, warp.address(args[1], mask)?);
        let counts = warp.word(args.get(3).copied().unwrap_or(args[2]), mask)?;
        if let Some(lane) = lanes(mask).find(|&lane| counts[lane] != 0 && counts[lane] as usize != bytes) {
            return trouble(lane, format!("{} of {bytes} bytes: only all or none are known", counts[lane]));
        }
        let reads = lanes(mask).filter(|&lane| counts[lane] != 0).fold(0, |mask, lane| mask | 1 << lane);
        self.count(place, Space::Shared, &to, mask, bytes);
        self.count(place, Space::Global, &from, reads, bytes);
        for lane in lanes(mask) {
            let who = self.who(w, lane);
            let read = || self.launch.global.load(who, from[lane], bytes);
            let value = if counts[lane] == 0 { Ok([0; 4]) } else { read() };
            let value = value.or_else(|what| trouble(lane, what))?;
            self.shared.begin_copy(who, to[lane], bytes).or_else(|what| trouble(lane, what))?;
            let group = self.warps[w].groups[lane];
            self.warps[w].copies.push(Copy { lane, group, to: to[lane], bytes, value });
        }
        Ok(())
    }

    pub fn wait(&mut self, w: usize, mask: Mask, left: Option<usize>) {
        let warp = &mut self.warps[w];
        let groups = warp.groups;
        let done = |copy: &mut Copy| {
            let closed = left.is_none_or(|left| copy.group + left < groups[copy.lane]);
            mask >> copy.lane & 1 != 0 && closed
        };
        let done: Vec<Copy> = warp.copies.extract_if(.., done).collect();
        for copy in done {
            self.shared.end_copy(self.who(w, copy.lane), copy.to, copy.bytes, copy.value);
        }
    }

    /// Lanes 8 i to 8 i + 7 name the rows of matrix i, 16 bytes each.
    pub fn load_matrix(
        &mut self,
        w: usize,
        place: usize,
        count: usize,
        transposed: bool,
        args: &[Arg],
    ) -> Result<(), Trouble> {
        let addresses = self.warps[w].address(args[count], ALL)?;
        let named = if count == 4 { ALL } else { (1 << (8 * count)) - 1 };
        self.count(place, Space::Shared, &addresses, named, 16);
        for (matrix, &to) in args[..count].iter().enumerate() {
            let mut rows = [[0; 4]; 8];
            for (row, words) in rows.iter_mut().enumerate() {
                let lane = 8 * matrix + row;
                // Four lanes get parts of the row, in the name of nobody: even what the lane wrote needs a barrier.
                let who = Who { thread: SEVERAL, ..self.who(w, lane) };
                let read = self.shared.load(who, addresses[lane], 16);
                *words = read.or_else(|what| trouble(lane, what))?;
            }
            self.warps[w].set_word(to, ALL, &mma::fragment(&rows, transposed))?;
        }
        Ok(())
    }
}
