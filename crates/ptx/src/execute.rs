//! Runs one instruction for a warp: reads its arguments, computes, writes its result.

use super::instructions::{Factors, Join, LANES, Op, Words};
use super::machine::Block;
use super::mma;
use super::parse::{Arg, Instruction};
use super::warp::{ALL, Mask, Trouble, Warp, first, lanes, trouble};

impl Block<'_> {
    /// Runs an instruction that neither branches nor waits for the block, by the lanes of `mask`.
    pub fn execute(&mut self, w: usize, place: usize, instruction: &Instruction, mask: Mask) -> Result<(), Trouble> {
        let args = &instruction.args[..];
        let warp = &mut self.warps[w];
        match &instruction.op {
            Op::Words(_) | Op::Longs(_) | Op::Compare(..) | Op::Predicates(_) => {
                compute(warp, &instruction.op, args, mask)
            }
            Op::Select | Op::Pack | Op::Unpack => compute(warp, &instruction.op, args, mask),
            Op::Nothing => Ok(()),
            Op::LoadParameter { bytes } => {
                let at = warp.address(args[1], mask)?[0] as usize;
                let mut number = [0; 8];
                let Some(found) = self.launch.parameters.get(at..at + bytes) else {
                    return trouble(first(mask), format!("byte {at} is beyond the parameters"));
                };
                number[..*bytes].copy_from_slice(found);
                warp.set_long(args[0], mask, &[u64::from_le_bytes(number); LANES])
            }
            Op::Load { space, bytes, count } => self.load(w, place, mask, (*space, *bytes, *count), args),
            Op::Store { space, bytes, count } => self.store(w, place, mask, (*space, *bytes, *count), args),
            Op::CopyAsync => self.copy_async(w, place, mask, args),
            Op::Commit => {
                lanes(mask).for_each(|lane| warp.groups[lane] += 1);
                Ok(())
            }
            Op::Wait(left) => {
                self.wait(w, mask, *left);
                Ok(())
            }
            Op::Mma(_) | Op::LoadMatrix { .. } | Op::Shuffle { .. } | Op::WarpBarrier if mask != ALL => {
                trouble(first(!mask), "all lanes of the warp must run this together; this one does not")
            }
            Op::WarpBarrier => Ok(()),
            Op::Mma(factors) => mma(warp, *factors, args),
            Op::LoadMatrix { count, transposed } => self.load_matrix(w, place, *count, *transposed, args),
            Op::Shuffle { source, clamp } => shuffle(warp, *source, *clamp, args),
            Op::Branch | Op::Return | Op::Barrier => trouble(first(mask), "a branch to no label"),
        }
    }
}

/// Instructions that change registers alone.
fn compute(warp: &mut Warp, op: &Op, args: &[Arg], mask: Mask) -> Result<(), Trouble> {
    match op {
        Op::Words(compute) => {
            let mut scratch = [[0; LANES]; 4];
            let result = compute(inputs(args, &mut scratch, |arg, scratch| warp.borrow_word(arg, mask, scratch))?);
            warp.set_word(args[0], mask, &result)
        }
        Op::Longs(compute) => {
            let mut scratch = [[0; LANES]; 4];
            let result = compute(inputs(args, &mut scratch, |arg, scratch| warp.borrow_long(arg, mask, scratch))?);
            warp.set_long(args[0], mask, &result)
        }
        Op::Compare(compute, join) => {
            let mut scratch = [[0; LANES]; 4];
            let read = |arg, scratch| warp.borrow_long(arg, mask, scratch);
            let mut result = compute(inputs(&args[..3], &mut scratch, read)?);
            if let Join::With(join) = join {
                result = join(result, warp.predicate(args[3], mask)?);
            }
            warp.set_predicate(args[0], mask, result)
        }
        Op::Predicates(compute) => {
            let second = args.get(2).map_or(Ok(0), |&arg| warp.predicate(arg, mask))?;
            let result = compute(warp.predicate(args[1], mask)?, second);
            warp.set_predicate(args[0], mask, result)
        }
        Op::Select => {
            let chosen = warp.predicate(args[3], mask)?;
            let (yes, no) = (warp.long(args[1], mask & chosen)?, warp.long(args[2], mask & !chosen)?);
            let result = std::array::from_fn(|lane| if chosen >> lane & 1 != 0 { yes[lane] } else { no[lane] });
            warp.set_long(args[0], mask, &result)
        }
        Op::Pack => {
            let (low, high) = (warp.word(args[1], mask)?, warp.word(args[2], mask)?);
            let result: Words = std::array::from_fn(|lane| low[lane] & 0xffff | high[lane] << 16);
            warp.set_word(args[0], mask, &result)
        }
        Op::Unpack => {
            let whole = warp.word(args[2], mask)?;
            warp.set_word(args[0], mask, &whole.map(|word| word & 0xffff))?;
            warp.set_word(args[1], mask, &whole.map(|word| word >> 16))
        }
        _ => unreachable!("no computation"),
    }
}

/// The arguments after the result, filled up with zeros.
fn inputs<'a, T>(
    args: &[Arg],
    scratch: &'a mut [T; 4],
    read: impl Fn(Arg, &'a mut T) -> Result<&'a T, Trouble>,
) -> Result<[&'a T; 4], Trouble> {
    let arg = |i: usize| args.get(i).copied().unwrap_or(Arg::Number(0));
    let [a, b, c, d] = scratch;
    Ok([read(arg(1), a)?, read(arg(2), b)?, read(arg(3), c)?, read(arg(4), d)?])
}

fn mma(warp: &mut Warp, factors: Factors, args: &[Arg]) -> Result<(), Trouble> {
    let read = |i: usize| warp.word(args[i], ALL);
    let a = [read(4)?, read(5)?, read(6)?, read(7)?];
    let (b, c) = ([read(8)?, read(9)?], [read(10)?, read(11)?, read(12)?, read(13)?]);
    let d = mma::multiply(factors, a, b, c);
    (0..4).try_for_each(|i| warp.set_word(args[i], ALL, &d[i]))
}

/// `shfl d|p, a, b, clamp, members`: p says whether the lane asked for is one of the warp; without it the own value stays.
fn shuffle(warp: &mut Warp, source: fn(u32, u32) -> u32, clamp: u32, args: &[Arg]) -> Result<(), Trouble> {
    let &[to, there, from, by, limit, members] = args else {
        return trouble(0, "a shuffle with a predicate and a mask is known");
    };
    let (limit, members) = (warp.word(limit, ALL)?, warp.word(members, ALL)?);
    if limit.iter().any(|&limit| limit != clamp) || members.iter().any(|&members| members != ALL) {
        return trouble(
            0,
            format!("of clamp {} and members {:#x} not the whole warp takes part", limit[0], members[0]),
        );
    }
    let (from, by) = (warp.word(from, ALL)?, warp.word(by, ALL)?);
    let lane_of = |lane: usize| Some(source(lane as u32, by[lane]) as usize).filter(|&lane| lane < LANES);
    let valid = lanes(ALL).filter(|&lane| lane_of(lane).is_some()).fold(0, |mask, lane| mask | 1 << lane);
    let result: Words = std::array::from_fn(|lane| from[lane_of(lane).unwrap_or(lane)]);
    warp.set_predicate(there, ALL, valid)?;
    warp.set_word(to, ALL, &result)
}
