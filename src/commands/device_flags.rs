//! The devices that a command runs its network on, as its flags say, and the stream contexts on them.

use std::time::Duration;

use crate::backend::cuda::{compiler, device, libraries};
use crate::backend::{Precision, cpu};
use crate::engine::devices::{self, GpuOptions, Transport};
use crate::error::Result;
use crate::exchange::nccl;
use crate::text::counted;
use alexnet_split_cpu::simd;

use crate::cli::{BackendArg, DeviceArgs, PrecisionArg, TransportArg};

/// The fastest that learns as fp32 does (tests/gpus.rs): half the tensor cores' time of tf32.
const DEFAULT_PRECISION: Precision = Precision::Bf16;

/// The devices that a command uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Devices {
    /// This machine's CPU, and the reason where the user did not ask for it.
    Cpu { threads: usize, precision: Precision, is_reference: bool, why: String },
    /// This number of GPUs.
    Gpus(usize),
}

/// The devices that the flags ask for; without `--gpus` the best of this machine. `precision` as in [`gpu_options`].
pub fn choose(args: &DeviceArgs, precision: Option<Precision>, streams: usize) -> Devices {
    let is_reference = args.backend == BackendArg::Reference;
    let cpu = |why| {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = args.threads.map_or_else(all, usize::from);
        Devices::Cpu { threads, precision: asked(args).or(precision).unwrap_or(Precision::Fp32), is_reference, why }
    };
    if is_reference {
        return cpu(", operations of the reference".into());
    }
    match args.gpus {
        Some(0) => cpu(String::new()),
        Some(gpus) => Devices::Gpus(gpus.into()),
        None => match best_gpus(args, streams) {
            Ok(0) => cpu(" (no GPU found)".into()),
            Ok(gpus) => Devices::Gpus(gpus),
            // A missing driver is the ordinary case on a laptop; the user should know of anything else.
            Err(_) if libraries::driver().is_err() => cpu(" (no GPU found)".into()),
            Err(error) => cpu(format!(" ({error})")),
        },
    }
}

/// The number of GPUs that can be used.
fn best_gpus(args: &DeviceArgs, streams: usize) -> Result<usize> {
    let usable = device::list()?.iter().take_while(|gpu| gpu.target.major >= compiler::Target::OLDEST.major).count();
    if usable > 0 {
        compiler::version_for_driver()?;
    }
    let reached = || devices::between(transport(args), 0, 1) == Transport::Copy || nccl::version().is_ok();
    let two = usable >= 2 && streams == 2 && reached();
    Ok(if two { 2 } else { usable.min(1) })
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Precision {
        match arg {
            PrecisionArg::Fp32 => Precision::Fp32,
            PrecisionArg::Tf32 => Precision::Tf32,
            PrecisionArg::Bf16 => Precision::Bf16,
        }
    }
}

/// The flag `--precision`.
pub fn asked(args: &DeviceArgs) -> Option<Precision> {
    args.precision.map(Precision::from)
}

fn transport(args: &DeviceArgs) -> Transport {
    match args.exchange {
        TransportArg::Auto => Transport::Auto,
        TransportArg::Nccl => Transport::Nccl,
        TransportArg::Copy => Transport::Copy,
    }
}

/// The settings for GPUs from the flags. Without `--precision` it is `precision`, or else the default.
pub fn gpu_options(args: &DeviceArgs, precision: Option<Precision>) -> GpuOptions {
    GpuOptions {
        precision: asked(args).or(precision).unwrap_or(DEFAULT_PRECISION),
        transport: transport(args),
        exchange_timeout: Duration::from_secs(args.exchange_timeout.into()),
    }
}

/// The description of the CPU for the user.
pub fn about_cpu(threads: usize, streams: usize, precision: Precision, is_reference: bool, why: &str) -> String {
    // The pool of everything outside the streams: reading and scaling images. Only the first call sets it.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    if let Some(text) = simd::unused() {
        tracing::warn!("{text}");
    }
    let streams = if streams == 1 { "one stream" } else { "both streams emulated" };
    let rounded = if precision == Precision::Bf16 { ", bf16" } else { "" };
    // The reference has no vectors of its own.
    let instructions = if is_reference { "plain" } else { cpu::level(precision).name() };
    let threads = counted(threads, "thread[s]");
    format!("CPU, {threads}, {instructions}, {streams}{rounded}{why}")
}

/// Evaluates `$body` with `$contexts` for `$streams` streams on [`Devices`], and `$about`, their description; once for
/// each kind of device, so that the body may be generic.
macro_rules! on_devices {
    ($devices:expr, $options:expr, $streams:expr, |$contexts:ident, $about:ident| $body:expr) => {
        match $devices {
            $crate::commands::device_flags::Devices::Cpu { threads, precision, is_reference, why } => {
                let $about =
                    $crate::commands::device_flags::about_cpu(threads, $streams, precision, is_reference, &why);
                let $contexts = crate::engine::pair::StreamContext::on_cpu($streams, threads, precision, is_reference)?;
                $body
            }
            $crate::commands::device_flags::Devices::Gpus(gpus) => {
                let found = crate::engine::devices::contexts(gpus, $streams, &$options)?;
                let ($contexts, $about) = (found.contexts, found.about);
                $body
            }
        }
    };
}
pub(crate) use on_devices;
