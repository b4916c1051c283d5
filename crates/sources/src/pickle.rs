//! Python's pickles, as far as CIFAR's batches need them: a dict of numbers, texts, lists and one NumPy array. Nothing in
//! them is executed: a call is kept as its arguments.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{Error, Result};

/// Bytes of the largest file that is read.
const MAX_BYTES: u64 = 1 << 30;

/// A value; those within it are places in [`Pickle::values`].
enum Value {
    /// `None`, a number with a point: what nobody asks for.
    Other,
    Number(i64),
    /// Bytes, or a text in UTF-8.
    Bytes(Vec<u8>),
    /// A list or a tuple; a dict with keys and values in turn; an object's arguments, and then its state.
    Several(Vec<usize>),
    /// The name of a class or a function.
    Global(String),
}

/// The values of a file. The last one is its dict.
pub struct Pickle {
    values: Vec<Value>,
}

/// What a file is read with.
struct Machine<'a> {
    bytes: &'a [u8],
    values: Vec<Value>,
    stack: Vec<usize>,
    /// The stack's heights at the marks.
    marks: Vec<usize>,
    memo: HashMap<usize, usize>,
    /// How much calls may yet copy: a damaged file must not fill the memory.
    left: usize,
}

impl Pickle {
    /// Reads a file.
    ///
    /// Fails where it is damaged, or has values of other kinds.
    pub fn read(path: &Path) -> Result<Pickle> {
        let length = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
        if length > MAX_BYTES {
            return Err(Error::data(path, format!("{length} bytes are too many for a file of CIFAR")));
        }
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let mut machine = Machine {
            bytes: &bytes,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            left: 2 * bytes.len(),
        };
        let dict = machine.run().ok_or_else(|| {
            let place = bytes.len() - machine.bytes.len();
            Error::data(path, format!("not a pickle as CIFAR's are, or damaged, near byte {place}; fetch it again"))
        })?;
        let mut values = machine.values;
        values.push(Value::Several(match &values[dict] {
            Value::Several(parts) => parts.clone(),
            _ => Vec::new(),
        }));
        Ok(Pickle { values })
    }

    /// The value of the dict under a key.
    fn get(&self, key: &str) -> Option<&Value> {
        let Some(Value::Several(dict)) = self.values.last() else { return None };
        let is = |place: usize| matches!(&self.values[place], Value::Bytes(name) if name == key.as_bytes());
        dict.as_chunks::<2>().0.iter().find(|[name, _]| is(*name)).map(|[_, value]| &self.values[*value])
    }

    /// A list under a key, if all its values are of a kind.
    fn list<'a, T>(&'a self, key: &str, of: impl Fn(&'a Value) -> Option<T>) -> Option<Vec<T>> {
        let Value::Several(places) = self.get(key)? else { return None };
        places.iter().map(|place| of(&self.values[*place])).collect()
    }

    /// A list of numbers under a key.
    pub fn numbers(&self, key: &str) -> Option<Vec<u32>> {
        self.list(key, |value| if let Value::Number(number) = value { (*number).try_into().ok() } else { None })
    }

    /// A list of texts under a key.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.list(key, |value| if let Value::Bytes(bytes) = value { Some(text(bytes)) } else { None })
    }

    /// The bytes of a NumPy array under a key, if its rows lie one after another.
    pub fn array(&self, key: &str) -> Option<&[u8]> {
        let Value::Several(object) = self.get(key)? else { return None };
        let parts = |place: &usize| match &self.values[*place] {
            Value::Several(places) => places.iter().map(|place| &self.values[*place]).collect(),
            _ => Vec::new(),
        };
        // The state is version, shape, type, whether columns lie one after another, bytes. Since protocol 5 the arguments
        // are bytes, type, shape, order.
        let is_of_rows = |shape: &Value| matches!(shape, Value::Several(sizes) if sizes.len() == 2);
        if let [.., shape, _, Value::Number(0), Value::Bytes(bytes)] = &parts(object.last()?)[..] {
            return Some(&**bytes).filter(|_| is_of_rows(shape));
        }
        match &object.iter().map(|place| &self.values[*place]).collect::<Vec<_>>()[..] {
            [Value::Bytes(bytes), _, shape, Value::Bytes(order)] if order == b"C" && is_of_rows(shape) => Some(bytes),
            _ => None,
        }
    }
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    /// A little-endian number of so many bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        self.take(bytes)?
            .iter()
            .rev()
            .try_fold(0usize, |number, &byte| number.checked_mul(256)?.checked_add(byte.into()))
    }

    fn line(&mut self) -> Option<&'a [u8]> {
        let length = self.bytes.iter().position(|&byte| byte == b'\n')?;
        let line = self.take(length)?;
        self.take(1)?;
        Some(line)
    }

    /// A number that is written as a line.
    fn decimal(&mut self) -> Option<()> {
        let number = std::str::from_utf8(self.line()?).ok()?.parse().ok()?;
        self.push(Value::Number(number))
    }

    fn push(&mut self, value: Value) -> Option<()> {
        self.stack.push(self.values.len());
        self.values.push(value);
        Some(())
    }

    /// Bytes whose length is a number of so many bytes.
    fn push_bytes(&mut self, length_bytes: usize) -> Option<()> {
        let length = self.number(length_bytes)?;
        let bytes = self.take(length)?.to_vec();
        self.push(Value::Bytes(bytes))
    }

    /// What is on the stack above the last mark.
    fn above_mark(&mut self) -> Option<Vec<usize>> {
        let mark = self.marks.pop()?;
        (mark <= self.stack.len()).then(|| self.stack.split_off(mark))
    }

    fn tuple(&mut self, count: usize) -> Option<()> {
        let parts = self.stack.split_off(self.stack.len().checked_sub(count)?);
        self.push(Value::Several(parts))
    }

    /// Adds to the list, dict or object on top.
    fn add(&mut self, more: &[usize]) -> Option<()> {
        let Value::Several(parts) = &mut self.values[*self.stack.last()?] else { return None };
        parts.extend(more);
        Some(())
    }

    /// A call of a function that is not called.
    fn call(&mut self) -> Option<()> {
        let (arguments, function) = (self.stack.pop()?, self.stack.pop()?);
        let Value::Several(arguments) = &self.values[arguments] else { return None };
        self.left = self.left.checked_sub(arguments.len())?;
        let arguments = arguments.clone();
        // Bytes in old protocols: a text whose letters are the bytes.
        if let (Value::Global(name), Some(Value::Bytes(text))) =
            (&self.values[function], arguments.first().map(|place| &self.values[*place]))
            && name == "_codecs encode"
        {
            self.left = self.left.checked_sub(text.len())?;
            let letters = std::str::from_utf8(text).ok()?.chars();
            let bytes = letters.map(|letter| u8::try_from(letter).ok()).collect::<Option<_>>()?;
            return self.push(Value::Bytes(bytes));
        }
        self.push(Value::Several(arguments))
    }

    /// Names a class or a function by its module and its own name.
    fn global(&mut self, module: &[u8], name: &[u8]) -> Option<()> {
        self.push(Value::Global(String::from_utf8_lossy(&[module, b" ", name].concat()).into_owned()))
    }

    /// As [`Machine::global`], with names that are values.
    fn stacked_global(&mut self) -> Option<()> {
        let (name, module) = (self.stack.pop()?, self.stack.pop()?);
        let (Value::Bytes(module), Value::Bytes(name)) = (&self.values[module], &self.values[name]) else {
            return None;
        };
        let (module, name) = (module.clone(), name.clone());
        self.global(&module, &name)
    }

    /// Keeps what is on top under a key.
    fn remember(&mut self, key: usize) -> Option<()> {
        self.memo.insert(key, *self.stack.last()?);
        Some(())
    }

    /// Puts on top what was kept.
    fn recall(&mut self, key: usize) -> Option<()> {
        self.stack.push(*self.memo.get(&key)?);
        Some(())
    }

    /// The place of the one value that is left at the end; `None` where something is wrong.
    fn run(&mut self) -> Option<usize> {
        loop {
            let opcode = self.take(1)?[0];
            match opcode {
                b'.' => return self.stack.pop(),
                // The protocol, and how long the next part is.
                0x80 => self.take(1).map(drop)?,
                0x95 => self.take(8).map(drop)?,
                b'N' => self.push(Value::Other)?,
                b'G' => self.take(8).and_then(|_| self.push(Value::Other))?,
                0x88 | 0x89 => self.push(Value::Number(i64::from(opcode == 0x88)))?,
                b'K' => self.number(1).and_then(|number| self.push(Value::Number(number as i64)))?,
                b'M' => self.number(2).and_then(|number| self.push(Value::Number(number as i64)))?,
                b'J' => self.number(4).and_then(|number| self.push(Value::Number(i64::from(number as u32 as i32))))?,
                // Protocol 1 writes what is true or false as a line: `I00`.
                b'I' => self.decimal()?,
                b'U' | b'C' | 0x8c => self.push_bytes(1)?,
                b'T' | b'B' | b'X' => self.push_bytes(4)?,
                0x8d | 0x8e | 0x96 => self.push_bytes(8)?,
                b'(' => self.marks.push(self.stack.len()),
                b'}' | b']' | b')' => self.push(Value::Several(Vec::new()))?,
                b't' | b'l' | b'd' => self.above_mark().and_then(|parts| self.push(Value::Several(parts)))?,
                0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?,
                b'e' | b'u' => self.above_mark().and_then(|parts| self.add(&parts))?,
                // The state of an object follows its arguments.
                b'a' | b'b' => self.stack.pop().and_then(|part| self.add(&[part]))?,
                b's' => {
                    let (value, key) = (self.stack.pop()?, self.stack.pop()?);
                    self.add(&[key, value])?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                0x93 => self.stacked_global()?,
                b'R' | 0x81 => self.call()?,
                b'q' => self.number(1).and_then(|key| self.remember(key))?,
                b'r' => self.number(4).and_then(|key| self.remember(key))?,
                0x94 => self.remember(self.memo.len())?,
                b'h' => self.number(1).and_then(|key| self.recall(key))?,
                b'j' => self.number(4).and_then(|key| self.recall(key))?,
                _ => return None,
            }
        }
    }
}
