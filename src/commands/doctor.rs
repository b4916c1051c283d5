//! `doctor`: the instructions of the CPU, what this machine has for training on GPUs, and how to get what is missing.

use crate::backend::cuda::{compiler, device};
use crate::engine::devices;
use crate::error::{Error, Result};
use crate::exchange::nccl;
use crate::run::host::Host;
use alexnet_split_cpu::simd;
use serde_json::json;

use super::device_flags;
use crate::cli::DoctorArgs;

/// One check: its name, and what was found or what is wrong.
struct Finding {
    what: String,
    found: Result<String>,
    /// Whether training on GPUs works without it.
    optional: bool,
}

pub fn doctor(args: &DoctorArgs) -> Result<()> {
    let mut findings = Vec::new();
    let mut look = |what: &str, optional: bool, found: Result<String>| {
        let what = what.to_owned();
        findings.push(Finding { what, found, optional });
    };
    look("CPU", false, cpu());
    let version = device::driver_version().map(|version| format!("supports CUDA {}", device::show(version)));
    look("driver", false, version.map_err(Error::from));
    let gpus = device::list();
    match &gpus {
        Ok(gpus) if gpus.is_empty() => look("GPUs", false, devices::need(1, 0)),
        Ok(gpus) => gpus.iter().for_each(|gpu| {
            let (name, target) = (format!("GPU {}", gpu.ordinal), gpu.target);
            let capability = format!("compute capability {}.{}", target.major, target.minor);
            let gib = gpu.total_bytes as f64 / f64::from(1 << 30);
            let text = format!("{}, {capability}, {} multiprocessors, {gib:.1} GiB", gpu.name, gpu.processors);
            look(&name, false, device::Gpu::open(gpu.ordinal).map(|_| text).map_err(Error::from));
        }),
        Err(_) => {} // the driver's line says why
    }
    let count = gpus.as_ref().map_or(0, Vec::len);
    let version = compiler::version_for_driver().map(|(major, minor)| format!("{major}.{minor}"));
    look("NVRTC", false, version.map_err(Error::from));
    look("NCCL", true, nccl::version().map(nccl::show));
    if count >= 2 {
        let peers = device::can_access_peer(0, 1) && device::can_access_peer(1, 0);
        let text = if peers {
            "GPUs 0 and 1 reach each other's memory"
        } else {
            "none between GPUs 0 and 1: NCCL goes through the host, which is slower"
        };
        look("peer access", true, Ok(text.into()));
    }
    let options = device_flags::gpu_options(&args.device, None);
    let wanted = args.device.gpus.map_or(2, usize::from);
    for gpus in 1..=count.min(wanted) {
        let about = devices::contexts(gpus, 2, &options).map(|found| found.about);
        look(&format!("--gpus {gpus}"), gpus == 2 && args.device.gpus.is_none(), about);
    }
    if gpus.is_ok() && count < wanted {
        look(&format!("--gpus {wanted}"), args.device.gpus.is_none(), devices::need(wanted, count));
    }
    report(args, findings)
}

/// The processor, and the instructions that are used of it.
fn cpu() -> Result<String> {
    if let Some(problem) = simd::problem() {
        return Err(Error::Device(problem));
    }
    let host = Host::this();
    let name = if host.cpu.is_empty() { "a processor" } else { &host.cpu };
    let unused = simd::unused().map_or(String::new(), |text| format!("; {text}"));
    Ok(format!("{name}, {} threads, instructions: {}{unused}", host.cores, simd::describe()))
}

fn report(args: &DoctorArgs, findings: Vec<Finding>) -> Result<()> {
    for Finding { what, found, optional } in &findings {
        let (state, text) = match found {
            Ok(text) => ("ok", text.clone()),
            Err(error) => (if *optional { "without" } else { "MISSING" }, error.to_string()),
        };
        if args.json {
            outln!("{}", json!({"what": what, "state": state.to_lowercase(), "text": text}));
        } else {
            outln!("{what:<12} {state:<8} {text}");
        }
    }
    let first: Option<Error> =
        findings.into_iter().filter(|finding| !finding.optional).find_map(|finding| finding.found.err());
    match first {
        None => Ok(()),
        Some(error) => Err(error),
    }
}
