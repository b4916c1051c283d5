//! From PTX's text to kernels: registers, parameters and shared memory get their places, and every line its meaning.
//!
//! PTX is an assembly language without a fixed number of registers: `%r7` is a word of 32 bits, `%rd7` of 64, `%f7` a
//! float, `%p7` a truth value. `@%p7` before an instruction lets only the threads run it for which `%p7` holds.

use std::collections::HashMap;
use std::sync::Arc;

use super::instructions::{self, Op};

/// An `.entry` of the text.
#[derive(Clone)]
pub struct Kernel {
    pub name: String,
    /// Bytes of each parameter, and where it lies in the block of all of them.
    pub parameters: Vec<Parameter>,
    /// Of `.shared` memory, for a block.
    pub shared_bytes: usize,
    /// How many registers of each class there are.
    pub registers: Registers,
    pub code: Vec<Arc<Instruction>>,
    names: Arc<Names>,
}

impl Kernel {
    /// The same with another instruction in one place; with none where the text is empty. To plant mistakes.
    pub fn edited(&self, place: usize, text: &str) -> Result<Kernel, String> {
        let mut kernel = self.clone();
        kernel.code[place] = Arc::new(self.names.instruction(self.code[place].line, text)?);
        Ok(kernel)
    }
}

/// What the names in a kernel's text stand for.
#[derive(Default)]
struct Names {
    arguments: HashMap<String, Arg>,
    /// Indices into the code.
    labels: HashMap<String, usize>,
}

#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    pub offset: usize,
    pub bytes: usize,
}

/// Words hold integers of up to 32 bits and f32, longs those of 64 bits.
#[derive(Clone, Copy, Default, Debug)]
pub struct Registers {
    pub words: usize,
    pub longs: usize,
    pub predicates: usize,
}

#[derive(Clone)]
pub struct Instruction {
    /// Line in the PTX, from 1.
    pub line: usize,
    /// As it stands there.
    pub text: String,
    /// `ld.global.nc.f32`
    pub opcode: String,
    /// The predicate that a thread needs to run it, and whether it must be false.
    pub guard: Option<(usize, bool)>,
    pub op: Op,
    /// What follows the opcode; lists in braces are flattened.
    pub args: Vec<Arg>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    Word(usize),
    Long(usize),
    Predicate {
        index: usize,
        negated: bool,
    },
    /// A number's bits, or the address of a variable in shared memory.
    Number(u64),
    Special(Special),
    /// `[%rd1+8]`; without a register, of a parameter or a variable.
    Address {
        base: Option<Base>,
        offset: i64,
    },
    /// Where a branch goes: an index into the code.
    Target(usize),
    /// `_`: a result that is not wanted.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Base {
    Word(usize),
    Long(usize),
}

/// What a thread knows of itself; the number is the axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Special {
    Thread(usize),
    Block(usize),
    BlockSize(usize),
    GridSize(usize),
    Lane,
}

/// All kernels of a text; the error names the line.
pub fn parse(text: &str) -> Result<Vec<Kernel>, String> {
    let mut kernels = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((_, line)) = lines.next() {
        let line = strip(line);
        if let Some((_, rest)) = line.split_once(".entry ") {
            let name = rest.trim_end_matches('(').trim();
            kernels.push(Body::read(name, &mut lines)?.finish()?);
        } else if line.contains(".func") {
            return Err(format!("{line:?}: functions that are not inlined are unknown here"));
        }
        // Constants, debugging sections and versions are of no use here.
    }
    Ok(kernels)
}

/// Without the comment.
fn strip(line: &str) -> &str {
    line.split("//").next().unwrap_or_default().trim()
}

/// A kernel on its way.
#[derive(Default)]
struct Body {
    name: String,
    parameters: Vec<Parameter>,
    parameter_bytes: usize,
    shared_bytes: usize,
    registers: Registers,
    names: Names,
    /// Line and text of each instruction, to be read when all labels are known.
    statements: Vec<(usize, String)>,
}

impl Body {
    /// Reads up to the brace that ends the kernel.
    fn read<'a>(name: &str, lines: &mut impl Iterator<Item = (usize, &'a str)>) -> Result<Body, String> {
        let mut body = Body { name: name.into(), ..Body::default() };
        let mut depth = 0;
        for (index, line) in lines {
            let line = strip(line);
            for part in line.split(';').map(str::trim) {
                match part {
                    "" | ")" => {}
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ if part.starts_with('.') => {
                        body.directive(part).map_err(|problem| format!("line {}: {problem}", index + 1))?;
                    }
                    _ if part.ends_with(':') => {
                        body.names.labels.insert(part.trim_end_matches(':').into(), body.statements.len());
                    }
                    _ => body.statements.push((index + 1, part.into())),
                }
            }
            if line == "}" && depth == 0 {
                return Ok(body);
            }
        }
        Err(format!("kernel {name} does not end"))
    }

    fn directive(&mut self, text: &str) -> Result<(), String> {
        let words: Vec<&str> = text.trim_end_matches(',').split_whitespace().collect();
        let number = |text: &str| text.parse::<usize>().map_err(|_| format!("{text:?} is not a number"));
        let place = |end: usize, align: usize| end.next_multiple_of(align);
        match words[..] {
            [".loc" | ".pragma" | ".file" | ".maxntid" | ".minnctapersm" | ".maxnreg", ..] => {}
            [".param", kind, name] => {
                let bytes = bits(kind)? / 8;
                self.parameter(name, bytes, bytes);
            }
            [".param", ".align", align, ".b8", array] | [".shared", ".align", align, ".b8", array] => {
                let (name, bytes) = array.trim_end_matches(']').split_once('[').ok_or("an array without a size")?;
                let (align, bytes) = (number(align)?, number(bytes)?);
                if words[0] == ".param" {
                    self.parameter(name, bytes, align);
                } else {
                    let start = place(self.shared_bytes, align);
                    self.names.arguments.insert(name.into(), Arg::Number(start as u64));
                    self.shared_bytes = start + bytes;
                }
            }
            [".reg", kind, register] => {
                let (prefix, count) = register.trim_end_matches('>').split_once('<').ok_or("one register alone")?;
                let (count, bits) = (number(count)?, if kind == ".pred" { 1 } else { bits(kind)? });
                let class = match bits {
                    1 => &mut self.registers.predicates,
                    64 => &mut self.registers.longs,
                    _ => &mut self.registers.words,
                };
                for i in 0..count {
                    let index = *class + i;
                    let arg = match bits {
                        1 => Arg::Predicate { index, negated: false },
                        64 => Arg::Long(index),
                        _ => Arg::Word(index),
                    };
                    self.names.arguments.insert(format!("{prefix}{i}"), arg);
                }
                *class += count;
            }
            _ => return Err(format!("unknown directive {text:?}")),
        }
        Ok(())
    }

    fn parameter(&mut self, name: &str, bytes: usize, align: usize) {
        let offset = self.parameter_bytes.next_multiple_of(align);
        self.names.arguments.insert(name.into(), Arg::Address { base: None, offset: offset as i64 });
        self.parameters.push(Parameter { offset, bytes });
        self.parameter_bytes = offset + bytes;
    }

    fn finish(mut self) -> Result<Kernel, String> {
        let statements = std::mem::take(&mut self.statements);
        let read = |(line, text): &(usize, String)| {
            self.names
                .instruction(*line, text)
                .map(Arc::new)
                .map_err(|problem| format!("kernel {}, line {line}, {text:?}: {problem}", self.name))
        };
        let code = statements.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let Body { name, parameters, shared_bytes, registers, names, .. } = self;
        Ok(Kernel { name, parameters, shared_bytes, registers, code, names: Arc::new(names) })
    }
}

impl Names {
    fn instruction(&self, line: usize, text: &str) -> Result<Instruction, String> {
        let (guard, rest) = match text.strip_prefix('@') {
            Some(rest) => {
                let (predicate, rest) = rest.split_once(char::is_whitespace).ok_or("a guard alone")?;
                match self.arg(predicate)? {
                    Arg::Predicate { index, negated } => (Some((index, negated)), rest.trim()),
                    other => return Err(format!("{other:?} guards")),
                }
            }
            None => (None, text),
        };
        let (opcode, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let mut args = Vec::new();
        let parts = split(rest);
        for part in &parts {
            match part.strip_prefix('{') {
                Some(list) => {
                    for part in split(list.trim_end_matches('}')) {
                        args.push(self.arg(part)?);
                    }
                }
                // shfl.sync's second result.
                None if part.contains('|') => {
                    for part in part.split('|') {
                        args.push(self.arg(part)?);
                    }
                }
                None => args.push(self.arg(part)?),
            }
        }
        let lists = [0, 1].map(|i| parts.get(i).is_some_and(|part: &&str| part.starts_with('{')));
        let op = instructions::decode(opcode, lists, &args)?;
        Ok(Instruction { line, text: text.into(), opcode: opcode.into(), guard, op, args })
    }

    fn arg(&self, text: &str) -> Result<Arg, String> {
        let text = text.trim();
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.trim_end_matches(']');
            let (base, offset) = inner.split_once('+').unwrap_or((inner, "0"));
            let offset: i64 = offset.parse().map_err(|_| format!("offset {offset:?}"))?;
            return Ok(match self.arg(base)? {
                Arg::Word(index) => Arg::Address { base: Some(Base::Word(index)), offset },
                Arg::Long(index) => Arg::Address { base: Some(Base::Long(index)), offset },
                Arg::Address { base, offset: start } => Arg::Address { base, offset: start + offset },
                Arg::Number(start) => Arg::Address { base: None, offset: start as i64 + offset },
                other => return Err(format!("{other:?} as an address")),
            });
        }
        if let Some(rest) = text.strip_prefix('!') {
            return match self.arg(rest)? {
                Arg::Predicate { index, negated } => Ok(Arg::Predicate { index, negated: !negated }),
                other => Err(format!("not {other:?}")),
            };
        }
        if let Some(&arg) = self.arguments.get(text) {
            return Ok(arg);
        }
        if let Some(&target) = self.labels.get(text) {
            return Ok(Arg::Target(target));
        }
        special(text).or_else(|| number(text)).ok_or_else(|| format!("unknown name {text:?}"))
    }
}

/// At the commas that are in no brackets or braces.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = text.split(|c| {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// 32 of `.u32`.
fn bits(kind: &str) -> Result<usize, String> {
    let digits = kind.trim_start_matches('.').trim_start_matches(['b', 'u', 's', 'f']);
    digits.parse().ok().filter(|bits| [8, 16, 32, 64].contains(bits)).ok_or_else(|| format!("unknown type {kind:?}"))
}

fn special(text: &str) -> Option<Arg> {
    let (name, axis) = text.split_once('.').unwrap_or((text, "x"));
    let axis = ["x", "y", "z"].iter().position(|&known| known == axis)?;
    Some(Arg::Special(match name {
        "%tid" => Special::Thread(axis),
        "%ctaid" => Special::Block(axis),
        "%ntid" => Special::BlockSize(axis),
        "%nctaid" => Special::GridSize(axis),
        "%laneid" => Special::Lane,
        _ => return (text == "_").then_some(Arg::Nothing),
    }))
}

/// `42`, `-1`, `0x7f`, and `0f3F800000`, the bits of a float.
fn number(text: &str) -> Option<Arg> {
    let hexadecimal = text.strip_prefix("0f").or_else(|| text.strip_prefix("0x"));
    let value = match hexadecimal {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => text.parse::<i64>().map(|v| v as u64).or_else(|_| text.parse()).ok()?,
    };
    Some(Arg::Number(value))
}
