//! Stream contexts on GPUs, joined by an exchange that has passed its self-test.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Precision;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::device::{self, Gpu, GpuInfo};
use crate::backend::cuda::kernels::Kernels;
use crate::backend::cuda::watch::Watch;
use crate::engine::link::{Link, World};
use crate::engine::pair::StreamContext;
use crate::error::{Error, GpuTrouble, Result};
use crate::exchange::Exchange;
use crate::exchange::copies;
use crate::exchange::nccl::{self, NcclExchange};
use crate::exchange::self_test::{SelfTest, Trial};
use crate::text::counted;

/// The transport between two GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// [`Transport::Copy`] where the GPUs reach each other's memory, else [`Transport::Nccl`].
    Auto,
    /// NCCL, which finds the best way there is.
    Nccl,
    /// Copies from GPU to GPU within one process.
    Copy,
}

/// Settings for the use of GPUs.
#[derive(Clone, Copy, Debug)]
pub struct GpuOptions {
    /// Of the matrix products.
    pub precision: Precision,
    /// Between two GPUs.
    pub transport: Transport,
    /// The longest that one exchange may take.
    pub exchange_timeout: Duration,
}

/// Stream contexts on GPUs and their description for the user.
pub struct GpuContexts {
    /// One for each stream of this process.
    pub contexts: Vec<StreamContext<CudaBackend>>,
    /// "2 GPUs: NVIDIA H200; NCCL 2.27.3, 180 GB/s each way, 12 us at least".
    pub about: String,
}

/// The transport that is meant between two GPUs of one process.
pub fn between(transport: Transport, gpu: usize, other: usize) -> Transport {
    let reach = || device::can_access_peer(gpu, other) && device::can_access_peer(other, gpu);
    match transport {
        Transport::Auto if reach() => Transport::Copy,
        Transport::Auto => Transport::Nccl,
        chosen => chosen,
    }
}

type Ends = Vec<Option<Box<dyn Exchange<CudaBackend>>>>;

/// The contexts of all streams in this process on the first `gpus` (1 or 2) of the machine.
///
/// Fails where a GPU or a library is missing, or the exchange does not work.
pub fn contexts(gpus: usize, streams: usize, options: &GpuOptions) -> Result<GpuContexts> {
    let found = device::list()?.len();
    if found < gpus {
        return Err(too_few(gpus, found));
    }
    // Missing libraries first: they take no time to find.
    let two = gpus == 2 && streams == 2;
    let transport = if two { between(options.transport, 0, 1) } else { Transport::Copy };
    if transport == Transport::Nccl {
        nccl::version()?;
    }
    let mut opened = vec![Gpu::open(0)?];
    if two {
        opened.push(Gpu::open(1)?);
    }
    let kernels = opened.iter().map(|gpu| Ok(Arc::new(Kernels::load(gpu, options.precision)?)));
    let kernels: Vec<Arc<Kernels>> = kernels.collect::<Result<_>>()?;
    let gpu_of = |stream: usize| &opened[stream % opened.len()];
    let watches: Vec<_> = (0..streams).map(|stream| Watch::new(stream, options.exchange_timeout)).collect();
    let (ends, transport): (Ends, String) = match (streams, transport) {
        (1, _) => (vec![None], String::new()),
        (_, Transport::Nccl) => {
            let id = nccl::unique_id()?;
            let begin =
                |stream: usize| NcclExchange::begin(gpu_of(stream), &id, &watches[stream], Some(&watches[1 - stream]));
            let (first, second) = (begin(0)?, begin(1)?);
            (vec![Some(Box::new(first.join()?)), Some(Box::new(second.join()?))], nccl_name()?)
        }
        _ => {
            let [first, second] = copies::connect([gpu_of(0), gpu_of(1)], [&watches[0], &watches[1]])?;
            (vec![Some(Box::new(first)), Some(Box::new(second))], "device copies".into())
        }
    };
    let mut contexts = Vec::new();
    for (stream, exchange) in ends.into_iter().enumerate() {
        let kernels = kernels[stream % kernels.len()].clone();
        let backend = CudaBackend::new(gpu_of(stream).clone(), kernels, watches[stream].clone())?;
        contexts.push(StreamContext { stream, backend, exchange, threads: 1 });
    }
    let tests = test_all(&mut contexts)?;
    let infos: Vec<&GpuInfo> = opened.iter().map(Gpu::info).collect();
    Ok(GpuContexts { contexts, about: about(&infos, streams, options, &transport, &tests) })
}

/// The context of this process's stream; the other stream runs in another process, reached over `link`.
pub fn process_context(world: &World, link: &mut Link, options: &GpuOptions) -> Result<GpuContexts> {
    if options.transport == Transport::Copy {
        let text = "--exchange copy works within one process; two processes need NCCL";
        return Err(Error::gpu(GpuTrouble::Process, text));
    }
    let found = device::list()?.len();
    if found == 0 {
        return Err(too_few(1, 0));
    }
    nccl::version()?;
    // A launcher may show each process its own GPU alone, as number 0.
    let gpu = Gpu::open(world.local_rank.unwrap_or(world.rank) % found)?;
    let kernels = Arc::new(Kernels::load(&gpu, options.precision)?);
    let watch = Watch::new(world.rank, options.exchange_timeout);
    // Both tell each other that they are ready: a process that has failed by now is noticed here, not by a deadline.
    let ours = if world.rank == 0 { nccl::unique_id()?.to_vec() } else { Vec::new() };
    let (others, theirs): (String, Vec<u8>) = link.swap(&(gpu.info().name.clone(), ours.clone()))?;
    let Ok(id) = (if world.rank == 0 { ours } else { theirs }).try_into() else {
        return Err(watch.failed(
            "joining the other rank",
            "its NCCL identifier has another length; use the same NCCL for both processes",
        ));
    };
    let exchange = NcclExchange::begin(&gpu, &id, &watch, None)?.join()?;
    let backend = CudaBackend::new(gpu.clone(), kernels, watch)?;
    let mut contexts =
        vec![StreamContext { stream: world.rank, backend, exchange: Some(Box::new(exchange)), threads: 1 }];
    let tests = test_all(&mut contexts)?;
    let mut about = about(&[gpu.info()], 2, options, &nccl_name()?, &tests);
    about += &format!("; process {} of 2, the other has {others}", world.rank);
    Ok(GpuContexts { contexts, about })
}

fn nccl_name() -> Result<String> {
    Ok(format!("NCCL {}", nccl::show(nccl::version()?)))
}

/// For whoever asks whether there are enough.
pub fn need(wanted: usize, found: usize) -> Result<String> {
    if found >= wanted { Ok(found.to_string()) } else { Err(too_few(wanted, found)) }
}

fn too_few(wanted: usize, found: usize) -> Error {
    let advice = match found {
        0 => "the driver shows no GPU; use --gpus 0 to run both streams on the CPU",
        _ => "use --gpus 1 to run both streams on one GPU, or --gpus 0 for the CPU",
    };
    let text = format!("{} asked for, {found} found: {advice}", counted(wanted, "GPU[s]"));
    Error::gpu(GpuTrouble::TooFewGpus, text)
}

/// Runs the self-test at all ends in this process at once; nothing where there is only one stream.
fn test_all(contexts: &mut [StreamContext<CudaBackend>]) -> Result<Vec<SelfTest>> {
    let ends = contexts.iter_mut().filter(|context| context.exchange.is_some());
    let trials = ends.map(|context| Ok((Trial::new(&context.backend, context.stream)?, context)));
    let mut trials: Vec<(Trial<CudaBackend>, &mut StreamContext<CudaBackend>)> = trials.collect::<Result<_>>()?;
    let run = |(trial, context): &mut (Trial<CudaBackend>, &mut StreamContext<CudaBackend>)| {
        let StreamContext { backend, exchange: Some(exchange), .. } = &mut **context else { return Ok(()) };
        trial.swap(backend, &mut **exchange).inspect_err(|_| exchange.close())
    };
    let mut failed = Vec::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = trials.iter_mut().map(|end| scope.spawn(|| run(end))).collect();
        for result in running.into_iter().map(|thread| thread.join()) {
            failed.extend(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).err());
        }
    });
    Error::cause(failed).map_or(Ok(()), Err)?;
    let mut failed = Vec::new();
    let tested = trials
        .iter()
        .filter_map(|(trial, context)| trial.check(&context.backend).map_err(|error| failed.push(error)).ok());
    let tested = tested.collect();
    Error::cause(failed).map_or(Ok(tested), Err)
}

fn about(gpus: &[&GpuInfo], streams: usize, options: &GpuOptions, transport: &str, tests: &[SelfTest]) -> String {
    let names: Vec<String> = gpus.iter().map(|gpu| gpu.to_string()).collect();
    let mut text = names.join(" and ");
    text += match (streams, gpus.len()) {
        (1, _) => ", one stream",
        (_, 1) if transport == "device copies" => ", both streams",
        _ => ", one stream each",
    };
    text += match options.precision {
        Precision::Fp32 => ", fp32",
        Precision::Tf32 => ", tf32 tensor cores (fp32 weights and sums)",
        Precision::Bf16 => ", bf16 tensor cores (fp32 weights and sums)",
    };
    if let Some(test) = tests.first() {
        text += &format!("; exchange by {transport}: {test}");
    }
    text
}
