//! The connection between the two processes of a run with one process per GPU. It carries facts (the recipe, scores,
//! the tensors of checkpoints); activations go by NCCL. It also reports at once when the other process has died.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, GpuTrouble, Result};

/// The longest wait for the other process' answer: longer than any checkpoint takes to write.
const ANSWER_DEADLINE: Duration = Duration::from_secs(600);

/// Both processes must be the same program.
const HELLO: &str = concat!("alexnet-split ", env!("CARGO_PKG_VERSION"));

/// This process' place among all, from the environment: the variables of torchrun and of scripts like mpirun, `RANK`,
/// `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`, `LOCAL_RANK`, or those that Slurm's srun sets for each of its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// 0 or 1: also the stream that this process runs.
    pub rank: usize,
    /// Number of the process on its machine, which chooses its GPU.
    pub local_rank: Option<usize>,
    /// The address that process 0 listens on.
    pub address: String,
}

impl World {
    /// The setting in the environment; `None` where this is the only process.
    ///
    /// Fails where it is contradictory or not two processes.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Option<World>> {
        let first = |names: [&str; 2]| names.iter().find_map(|name| Some((name.to_string(), get(name)?)));
        let number = |names: [&str; 2]| {
            first(names).map(|(name, text)| text.trim().parse::<usize>().map_err(|_| wrong(&name, &text))).transpose()
        };
        let (size_name, rank_name) = (["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"], ["RANK", "SLURM_PROCID"]);
        let size = number(size_name)?.unwrap_or(1);
        if size == 1 {
            return Ok(None);
        }
        let name_of = |names| first(names).map(|(name, _)| name).unwrap_or_default();
        if size != 2 {
            let text = format!("{} is {size}: the network has two streams, so start two processes", name_of(size_name));
            return Err(Error::gpu(GpuTrouble::Process, text));
        }
        let rank = number(rank_name)?.ok_or_else(|| missing("RANK (0 or 1)"))?;
        if rank > 1 {
            let text = format!("{} is {rank}; expected 0 or 1, for two processes", name_of(rank_name));
            return Err(Error::gpu(GpuTrouble::Process, text));
        }
        let host = get("MASTER_ADDR").or_else(|| get("SLURM_STEP_NODELIST").map(|list| first_host(&list)));
        let host = host.ok_or_else(|| missing("MASTER_ADDR (the machine of process 0)"))?;
        let port = get("MASTER_PORT").unwrap_or_else(|| "29500".into());
        // torchrun listens on the port itself.
        let taken = get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
        let port: u16 = port.trim().parse().map_err(|_| wrong("MASTER_PORT", &port))?;
        let port = port.wrapping_add(u16::from(taken));
        let local_rank = number(["LOCAL_RANK", "SLURM_LOCALID"])?;
        Ok(Some(World { rank, local_rank, address: format!("{host}:{port}") }))
    }
}

/// The first of Slurm's list of machines: gpu03 of `gpu[03-04,07],login1`.
fn first_host(list: &str) -> String {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    let number = rest.strip_prefix('[').and_then(|numbers| numbers.split([',', '-', ']']).next());
    format!("{name}{}", number.unwrap_or_default())
}

fn wrong(name: &str, found: &str) -> Error {
    Error::gpu(GpuTrouble::Process, format!("environment variable {name} is {found:?}; expected a number"))
}

fn missing(what: &str) -> Error {
    let text =
        format!("WORLD_SIZE is 2 but the environment has no {what}; start both processes with a launcher, or set it");
    Error::gpu(GpuTrouble::Process, text)
}

/// An open connection.
#[derive(Debug)]
pub struct Link {
    rank: usize,
    stream: TcpStream,
}

impl Link {
    /// Connects to the other process: 0 listens, 1 connects, for at most `deadline`.
    pub fn open(world: &World, deadline: Duration) -> Result<Link> {
        let until = Instant::now() + deadline;
        let stream = if world.rank == 0 { listen(&world.address, until) } else { call(&world.address, until) };
        let stream = stream.map_err(|problem| {
            let other = 1 - world.rank;
            let text = format!(
                "process {other} cannot be reached at {}: {problem}; start it with the same MASTER_ADDR and MASTER_PORT",
                world.address
            );
            Error::gpu(GpuTrouble::Process, text)
        })?;
        let mut link = Link { rank: world.rank, stream };
        let set = link.stream.set_nodelay(true).and_then(|()| link.stream.set_read_timeout(Some(ANSWER_DEADLINE)));
        set.map_err(|error| link.ended(error))?;
        let hello: (String, usize) = link.swap(&(HELLO.to_string(), world.rank))?;
        if hello != (HELLO.to_string(), 1 - world.rank) {
            let text =
                format!("process {} is {hello:?}, this one expects {:?}", 1 - world.rank, (HELLO, 1 - world.rank));
            return Err(Error::gpu(GpuTrouble::Process, text));
        }
        Ok(link)
    }

    /// The number of this process.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Both processes give something and get the other's.
    pub fn swap<T: Serialize + DeserializeOwned>(&mut self, ours: &T) -> Result<T> {
        let text = serde_json::to_vec(ours).unwrap_or_default();
        let answer = self.swap_bytes(&text)?;
        serde_json::from_slice(&answer).map_err(|error| self.ended(error))
    }

    /// Sends a value from process 0, which gives `Some`, to the other one, which gives `None`; both return it.
    pub fn broadcast<T: Serialize + DeserializeOwned>(&mut self, ours: Option<T>) -> Result<T> {
        match ours {
            Some(value) => {
                self.send(&serde_json::to_vec(&value).unwrap_or_default())?;
                Ok(value)
            }
            None => {
                let answer = self.receive()?;
                serde_json::from_slice(&answer).map_err(|error| self.ended(error))
            }
        }
    }

    /// As [`Link::swap`], for values to the bit.
    pub fn swap_values(&mut self, ours: &[f32]) -> Result<Vec<f32>> {
        let answer = self.swap_bytes(bytemuck::cast_slice(ours))?;
        Ok(to_values(&answer))
    }

    /// Sends values that the other process waits for.
    pub fn send_values(&mut self, values: &[f32]) -> Result<()> {
        self.send(bytemuck::cast_slice(values))
    }

    /// Waits for values.
    pub fn receive_values(&mut self) -> Result<Vec<f32>> {
        Ok(to_values(&self.receive()?))
    }

    fn swap_bytes(&mut self, ours: &[u8]) -> Result<Vec<u8>> {
        // One after the other: two large messages at once would fill both sockets and block both ends.
        if self.rank == 0 {
            self.send(ours)?;
            self.receive()
        } else {
            let theirs = self.receive()?;
            self.send(ours)?;
            Ok(theirs)
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let sent =
            self.stream.write_all(&(bytes.len() as u64).to_le_bytes()).and_then(|()| self.stream.write_all(bytes));
        sent.map_err(|error| self.ended(error))
    }

    fn receive(&mut self) -> Result<Vec<u8>> {
        let mut length = [0; 8];
        self.stream.read_exact(&mut length).map_err(|error| self.ended(error))?;
        let length = u64::from_le_bytes(length);
        // Grows as bytes come: a wrong length must not take all memory.
        let mut bytes = Vec::new();
        let read =
            Read::by_ref(&mut self.stream).take(length).read_to_end(&mut bytes).map_err(|error| self.ended(error))?;
        if read as u64 == length { Ok(bytes) } else { Err(self.ended("the connection was closed")) }
    }

    fn ended(&self, problem: impl std::fmt::Display) -> Error {
        let (rank, other) = (self.rank, 1 - self.rank);
        let text = format!("process {rank}: process {other} has ended or does not answer ({problem}); see its message");
        Error::gpu(GpuTrouble::Process, text)
    }
}

/// Values sent by a process of the same byte order: all machines with GPUs are little-endian.
fn to_values(bytes: &[u8]) -> Vec<f32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn listen(address: &str, until: Instant) -> Result<TcpStream, String> {
    let port = address.rsplit(':').next().unwrap_or_default();
    // The named address alone, so that 127.0.0.1 is open to this machine alone; a name may stand for another interface.
    let listener = TcpListener::bind(address).or_else(|_| TcpListener::bind(format!("0.0.0.0:{port}")));
    let listener = listener.map_err(|error| format!("port {port}: {error}"))?;
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return stream.set_nonblocking(false).map(|()| stream).map_err(|e| e.to_string()),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error.to_string()),
            Err(_) if Instant::now() > until => return Err("the other process did not connect in time".into()),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn call(address: &str, until: Instant) -> Result<TcpStream, String> {
    loop {
        let found = address.to_socket_addrs().map_err(|error| error.to_string()).and_then(|mut addresses| {
            let address = addresses.next().ok_or("the name has no address")?;
            TcpStream::connect_timeout(&address, Duration::from_secs(5)).map_err(|error| error.to_string())
        });
        match found {
            Ok(stream) => return Ok(stream),
            Err(problem) if Instant::now() > until => return Err(problem),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(variables: &[(&str, &str)]) -> Result<Option<World>> {
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        World::from_environment(get)
    }

    #[test]
    fn launchers_are_understood() {
        assert_eq!(world(&[]).unwrap(), None);
        assert_eq!(world(&[("WORLD_SIZE", "1"), ("RANK", "0")]).unwrap(), None);
        let torchrun = [
            ("WORLD_SIZE", "2"),
            ("RANK", "1"),
            ("LOCAL_RANK", "0"),
            ("MASTER_ADDR", "gpu-7"),
            ("MASTER_PORT", "1234"),
        ];
        let expected = World { rank: 1, local_rank: Some(0), address: "gpu-7:1234".into() };
        assert_eq!(world(&torchrun).unwrap(), Some(expected));
        let elastic = [&torchrun[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
        assert_eq!(world(&elastic).unwrap().unwrap().address, "gpu-7:1235");
        let slurm = [
            ("SLURM_NTASKS", "2"),
            ("SLURM_STEP_NUM_TASKS", "2"),
            ("SLURM_PROCID", "0"),
            ("SLURM_LOCALID", "0"),
            ("SLURM_STEP_NODELIST", "gpu[03-04]"),
        ];
        let expected = World { rank: 0, local_rank: Some(0), address: "gpu03:29500".into() };
        assert_eq!(world(&slurm).unwrap(), Some(expected));
        // A batch script that reserved two tasks but does not start this program by srun.
        assert_eq!(world(&[("SLURM_NTASKS", "2"), ("SLURM_PROCID", "0")]).unwrap(), None);
        assert_eq!(["gpu3", "a-1,b-2", "n[7,9-10],m1"].map(first_host), ["gpu3", "a-1", "n7"]);
        for wrong in [
            &[("WORLD_SIZE", "3")][..],
            &[("WORLD_SIZE", "2")],
            &[("WORLD_SIZE", "2"), ("RANK", "2"), ("MASTER_ADDR", "a")],
            &[("WORLD_SIZE", "2"), ("RANK", "0")],
        ] {
            assert!(matches!(world(wrong), Err(Error::Gpu { trouble: GpuTrouble::Process, .. })), "{wrong:?}");
        }
    }

    fn connected() -> (Link, Link) {
        let address = {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            format!("127.0.0.1:{}", free.local_addr().unwrap().port())
        };
        let open = move |rank| {
            let world = World { rank, local_rank: None, address: address.clone() };
            Link::open(&world, Duration::from_secs(20)).unwrap()
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| open(1));
            (open(0), other.join().unwrap())
        })
    }

    #[test]
    fn values_cross_to_the_bit_and_an_end_is_noticed() {
        let (mut zero, mut one) = connected();
        let large: Vec<f32> = (0..3_000_000).map(|i| i as f32 * 0.1).collect(); // more than a socket holds
        std::thread::scope(|scope| {
            let theirs = scope.spawn(|| {
                let got = one.swap_values(&[f32::NAN, -0.]).unwrap();
                drop(one);
                got
            });
            let got = zero.swap_values(&large).unwrap();
            assert!(got[0].is_nan() && got[1].to_bits() == (-0f32).to_bits());
            assert_eq!(theirs.join().unwrap(), large);
        });
        let error = zero.receive_values().unwrap_err();
        assert!(matches!(error, Error::Gpu { trouble: GpuTrouble::Process, .. }), "{error}");
    }
}
