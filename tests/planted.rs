//! The software CUDA device is itself tested: for each kind of mistake that it claims to catch, one is planted and
//! caught.

mod support;

use std::process::{Command, Output};
use std::time::Duration;

use alexnet_split::backend::Backend;
use alexnet_split::backend::Precision;
use alexnet_split::backend::cuda::CudaBackend;
use alexnet_split::backend::cuda::compiler::KernelFile;
use alexnet_split::backend::cuda::device::Gpu;
use alexnet_split::backend::cuda::kernels::{Bf16, Exact, Kernels};
use alexnet_split::backend::cuda::sources;
use alexnet_split::backend::cuda::watch::Watch;
use alexnet_split::exchange::Exchange;
use alexnet_split::exchange::nccl::{self, NcclExchange};
use alexnet_split::net::swap::Pass;
use alexnet_split::net::swap::Swap;
use cudarc::driver::result;
use cudarc::driver::sys::CUresult;
use cudarc::nvrtc::Ptx;
use support::place::{Place, failed, metrics, output_within, succeeded};
use support::softgpu;

/// Reads four words one word beside where four words lie.
const MISALIGNED: &str =
    "uint4 four = *reinterpret_cast<const uint4*>(&tiles.a[half][0][1]); sums.multiply(tiles, half + four.x * 0);";

const PATIENCE: Duration = Duration::from_secs(300);

/// Trains the tiny net for a step on two GPUs.
fn train(place: &Place, out: &str, args: &[&str], settings: &[(&str, &str)]) -> Option<Output> {
    let mut command = place.train_command(&[&["--gpus", "2", "--steps", "1", "--out", out], args].concat());
    let command = softgpu::with_gpus(&mut command, 2)?.envs(settings.iter().copied());
    Some(output_within(command, PATIENCE))
}

/// The same where in `file` the `n`-th `old` is compiled as `new`.
fn train_planted(place: &Place, out: &str, args: &[&str], bug: [&str; 3], n: usize) -> Option<Output> {
    train_planted_with(place, out, args, bug, n, &[])
}

fn train_planted_with(
    place: &Place,
    out: &str,
    args: &[&str],
    [file, old, new]: [&str; 3],
    n: usize,
    settings: &[(&str, &str)],
) -> Option<Output> {
    // What the mistake does not concern need not be compiled again.
    let kernels = place.path(&format!("kernels-{out}"));
    std::fs::create_dir(&kernels).unwrap();
    for entry in std::fs::read_dir(softgpu::cache()?).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        let (stem, _) = name.rsplit_once('-').unwrap();
        let is_this = |source: &&KernelFile| source.name.replace('/', "-").strip_suffix(".cu") == Some(stem);
        let source = [Exact::SOURCES, Bf16::SOURCES].concat().iter().find(is_this).copied().unwrap();
        if source.name != file && !source.text.contains(&format!("#include \"{file}\"")) {
            std::fs::copy(entry.path(), kernels.join(name)).unwrap();
        }
    }
    let bug = format!("{file}\n{n}\n{old}\n{new}");
    let planted = [("SOFTGPU_PLANT", &bug[..]), ("ALEXNET_SPLIT_CACHE", kernels.to_str().unwrap())];
    train(place, out, args, &[&planted[..], settings].concat())
}

/// Whether a run ended otherwise than the healthy one: by an error, or with another loss.
fn differs(place: &Place, out: &str, output: &Output, healthy: &[serde_json::Value]) -> bool {
    let losses = |rows: &[serde_json::Value]| rows.iter().map(|row| row["loss"].clone()).collect::<Vec<_>>();
    !output.status.success() || losses(&metrics(&place.path(out))) != losses(healthy)
}

#[test]
fn every_missing_barrier_gives_another_result_in_tf32() {
    missing_barriers("tf32", Exact::SOURCES, ("gemm.cuh", include_str!("../kernels/gemm.cuh")));
}

#[test]
fn every_missing_barrier_gives_another_result_in_bf16() {
    missing_barriers("bf16", Bf16::SOURCES, ("tile.cuh", include_str!("../kernels/bf16/tile.cuh")));
}

fn missing_barriers(precision: &str, sources: &[KernelFile], header: (&str, &str)) {
    let place = Place::new();
    // Channels enough that a pixel has several threads.
    let args = ["--precision", precision, "--set", "net.conv_channels=[40,12,16,16,12]"];
    let Some(output) = train(&place, "healthy", &args, &[]) else { return };
    succeeded(output);
    let healthy = metrics(&place.path("healthy"));
    let barrier = "__syncthreads();";
    let mut planted = 0;
    for (file, text) in sources.iter().map(|source| (source.name, source.text)).chain([header]) {
        for n in 1..=text.matches(barrier).count() {
            let out = format!("{}-{n}", file.replace(['.', '/'], "-"));
            let output = train_planted(&place, &out, &args, [file, barrier, ""], n).unwrap();
            assert!(differs(&place, &out, &output, &healthy), "barrier {n} of {file} is missing and nobody sees it");
            planted += 1;
        }
    }
    assert!(planted >= 5, "{planted}");
}

#[test]
fn kernels_that_go_astray_are_stopped_with_their_name() {
    let place = Place::new();
    let Some(output) = train(&place, "healthy", &["--precision", "tf32"], &[]) else { return };
    succeeded(output);
    // Name, file, the code to replace, its replacement, and the expected message.
    let bugs = [
        ("a store past the end", ["pointwise.cu", "if (i < elems)", "if (i <= elems)"], "relu_forward"),
        ("a load far outside", ["pool.cu", "corner[r * shape.w + s]", "corner[r * 9999999 + s]"], "max_pool_forward"),
        ("a load before the image", ["conv.cu", "return inside ? x[", "return true ? x["], "conv_"),
        ("a misaligned vector", ["gemm.cuh", "sums.multiply(tiles, half);", MISALIGNED], "misaligned"),
        (
            "a barrier that half of the block reaches",
            ["softmax.cu", "combine(scratch[threadIdx.x], scratch[threadIdx.x + half]);", "0; __syncthreads();"],
            "divergent __syncthreads: block",
        ),
        (
            "a product that one lane leaves out",
            ["gemm.cuh", "mma_tf32(sums[i][j], a[i], b);", "if (threadIdx.x % 32) mma_tf32(sums[i][j], a[i], b);"],
            "divergent warp collective: block",
        ),
    ];
    for (index, (what, bug, part)) in bugs.into_iter().enumerate() {
        let output = train_planted(&place, &index.to_string(), &["--precision", "tf32"], bug, 1).unwrap();
        eprintln!("{what}: {}", String::from_utf8_lossy(&output.stderr));
        failed(output, 17, &["softgpu: device", "kernel ", part]);
    }
}

/// NCCL sees a failed device too, and its rank's end ends the other's exchange: neither is the cause.
#[test]
fn a_gpu_that_failed_is_named_and_not_its_exchange() {
    let place = Place::new();
    let Some(output) = train(&place, "healthy", &["--precision", "tf32", "--exchange", "nccl"], &[]) else { return };
    succeeded(output);
    let bug = ["pointwise.cu", "if (i < elems)", "if (i <= elems)"];
    for first in ["fails-first:0", "fails-first:1", "fails-first:0,fails-first:1"] {
        let out = first.replace([':', ','], "-");
        let fault = [("SOFTGPU_FAULT", first)];
        let output =
            train_planted_with(&place, &out, &["--precision", "tf32", "--exchange", "nccl"], bug, 1, &fault).unwrap();
        failed(output, 17, &["softgpu: device", "relu_forward", "CUDA_ERROR_ILLEGAL_ADDRESS"]);
    }
}

#[test]
fn a_missing_event_wait_gives_another_result() {
    let place = Place::new();
    for transport in ["nccl", "copy"] {
        let args = ["--precision", "fp32", "--exchange", transport];
        let Some(output) = train(&place, transport, &args, &[]) else { return };
        succeeded(output);
        let healthy = metrics(&place.path(transport));
        let caught = |fault: &str, seed: &str| {
            let out = format!("{transport}-{fault}-{seed}").replace(':', "-");
            let output = train(&place, &out, &args, &[("SOFTGPU_FAULT", fault), ("SOFTGPU_SEED", seed)]).unwrap();
            differs(&place, &out, &output, &healthy)
        };
        for seed in ["1", "2", "3"] {
            assert!(caught("skip-wait", seed), "{transport}, seed {seed}: no stream waits and nobody sees it");
        }
    }
}

/// Runs the rest of the test `name` in a separate process, where `body` may break the device, and returns its output.
fn in_own_process(name: &str, body: fn()) -> Option<Output> {
    if std::env::var("PLANTED").is_ok_and(|planted| planted == name) {
        body();
        std::process::exit(0);
    }
    softgpu::folder()?;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env("PLANTED", name);
    let output = output_within(&mut command, PATIENCE);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output)
}

fn error_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn backend_on(ordinal: usize) -> CudaBackend {
    softgpu::gpu();
    let gpu = Gpu::open(ordinal).unwrap();
    let kernels = Kernels::load(&gpu, Precision::Fp32).unwrap();
    CudaBackend::new(gpu, kernels.into(), Watch::new(ordinal, Duration::from_secs(20))).unwrap()
}

#[test]
fn the_other_devices_memory_cannot_be_read() {
    let output = in_own_process("the_other_devices_memory_cannot_be_read", || {
        let (here, there) = (backend_on(0), backend_on(1));
        let (theirs, mut ours) = (there.alloc(100).unwrap(), here.alloc(100).unwrap());
        there.read(&theirs, 100).unwrap();
        here.add(100, &theirs, &mut ours).unwrap(); // queued; its effect is seen later
        let error = here.read(&ours, 100).unwrap_err();
        assert_eq!(error.exit_code(), 17, "{error}");
    });
    let Some(output) = output else { return };
    let text = error_text(&output);
    assert!(text.contains("kernel add: illegal access") && text.contains("may not reach"), "{text}");
}

#[test]
fn mismatched_collectives_fail_on_both_ranks() {
    let Some(_) = softgpu::gpu() else { return };
    let id = nccl::unique_id().unwrap();
    // Rank 0 is at conv3, rank 1 has left it out.
    let begun = [0, 1].map(|rank| {
        let backend = backend_on(rank);
        let exchange = NcclExchange::begin(backend.gpu(), &id, backend.watch(), None).unwrap();
        (backend, exchange, [("conv3", 100), ("fc6", 64)][rank])
    });
    std::thread::scope(|scope| {
        for (backend, exchange, (layer, elems)) in begun {
            scope.spawn(move || {
                let mut exchange = exchange.join().unwrap();
                let swap = Swap { layer: layer.into(), pass: Pass::Forward, step: Some(0), elems, bytes: 4 * elems };
                let (give, mut take) = (backend.alloc(elems).unwrap(), backend.alloc(elems).unwrap());
                let result = exchange.start_swap(&backend, &swap, Some(&give), Some(&mut take));
                let result = result.and_then(|()| exchange.finish_swap(&backend, &swap, Some(&mut take)).map(|_| ()));
                let error = result.and_then(|()| backend.read(&take, elems)).unwrap_err();
                assert_eq!(error.exit_code(), 18, "{error}");
            });
        }
    });
}

/// Allocating and freeing may wait for the device, and that for the other rank's launch, which this thread keeps waiting.
#[test]
fn memory_calls_while_a_rank_waits_for_its_peer_are_named() {
    let output = in_own_process("memory_calls_while_a_rank_waits_for_its_peer_are_named", || {
        let backends = [backend_on(0), backend_on(1)];
        let id = nccl::unique_id().unwrap();
        let begin = |backend: &CudaBackend| NcclExchange::begin(backend.gpu(), &id, backend.watch(), None).unwrap();
        let [zero, one] = [begin(&backends[0]), begin(&backends[1])];
        let mut exchanges = [zero.join().unwrap(), one.join().unwrap()];
        let alloc = |backend: &CudaBackend| backend.alloc(100).unwrap();
        let (give, mut takes) = (backends.each_ref().map(alloc), backends.each_ref().map(alloc));
        let (buffer, pinned) = (backends[1].gpu().alloc(1).unwrap(), backends[1].gpu().alloc_pinned(1).unwrap());
        let swap = Swap { layer: "conv3".into(), pass: Pass::Forward, step: Some(0), elems: 100, bytes: 400 };
        let mut start = |rank: usize| {
            exchanges[rank].start_swap(&backends[rank], &swap, Some(&give[rank]), Some(&mut takes[rank])).unwrap();
        };
        eprintln!("none waits");
        std::mem::forget((backends[1].gpu().alloc(1).unwrap(), backends[1].gpu().alloc_pinned(1).unwrap()));
        start(0);
        eprintln!("rank 0 waits");
        std::mem::forget((backends[1].gpu().alloc(1).unwrap(), backends[1].gpu().alloc_pinned(1).unwrap()));
        drop((buffer, pinned));
        start(1);
        for ((exchange, backend), take) in exchanges.iter_mut().zip(&backends).zip(&mut takes) {
            exchange.finish_swap(backend, &swap, Some(take)).unwrap();
        }
        std::process::exit(0); // what is dropped from here on is not the matter
    });
    let Some(output) = output else { return };
    let text = error_text(&output);
    let (before, after) = text.split_once("rank 0 waits").unwrap();
    assert!(before.contains("none waits") && !before.contains("misuse"), "{text}");
    for call in ["allocates memory", "allocates page-locked memory", "frees memory", "frees page-locked memory"] {
        let misuse = format!("misuse: {call} while rank 0 waits in an exchange for rank 1");
        assert_eq!(after.matches(&misuse).count(), 1, "{call}: {text}");
    }
}

#[test]
fn code_of_a_newer_cuda_than_the_drivers_is_refused() {
    let output = in_own_process("code_of_a_newer_cuda_than_the_drivers_is_refused", || {
        let gpu = softgpu::gpu().unwrap();
        // SAFETY: no other thread of this process reads the environment now.
        let versions = |driver: &str, nvrtc: &str| unsafe {
            std::env::set_var("SOFTGPU_DRIVER", driver);
            std::env::set_var("SOFTGPU_NVRTC", nvrtc);
        };
        versions("13000", "13");
        let pool = *Exact::SOURCES.iter().find(|source| source.name == "pool.cu").unwrap();
        let compile = || sources::program(pool, Precision::Fp32).compile(gpu.info().target, false).unwrap().code;
        let load = |code: &[u8]| gpu.context().load_module(Ptx::from_binary(code.to_vec())).map(|_| ());
        let newer = compile();
        load(&newer).unwrap();
        versions("12080", "12");
        assert_eq!(load(&newer).unwrap_err().0, CUresult::CUDA_ERROR_INVALID_IMAGE);
        let older = compile();
        load(&older).unwrap();
        versions("13000", "13");
        load(&older).unwrap();
    });
    let Some(output) = output else { return };
    let text = error_text(&output);
    assert_eq!(text.matches("loads code of a CUDA newer than the driver's").count(), 1, "{text}");
}

#[test]
fn memory_that_nobody_wrote_is_not_a_number() {
    let Some(gpu) = softgpu::gpu() else { return };
    let backend = backend_on(0);
    let fresh = gpu.alloc(1000).unwrap();
    assert!(backend.read(&fresh, 1000).unwrap().iter().all(|value| value.is_nan()));
}

#[test]
fn wrong_calls_are_refused_and_named() {
    let output = in_own_process("wrong_calls_are_refused_and_named", || {
        let backend = backend_on(0);
        let (queue, context) = (backend.queue(), backend.gpu().context());
        context.bind_to_thread().unwrap();
        let refused = |result: Result<(), result::DriverError>, code| assert_eq!(result.unwrap_err().0, code);
        let values = [0u8; 8];
        // SAFETY: each call is wrong in one way that the software device must notice without touching memory.
        unsafe {
            let address = result::malloc_sync(8).unwrap();
            let upload = |address, stream| result::memcpy_htod_async(address, &values, stream);
            refused(upload(address, std::ptr::null_mut()), CUresult::CUDA_ERROR_INVALID_HANDLE);
            refused(upload(address + 1, queue.cu_stream()), CUresult::CUDA_ERROR_INVALID_VALUE);
            result::free_sync(address).unwrap();
            refused(result::free_sync(address), CUresult::CUDA_ERROR_INVALID_VALUE);
            refused(result::malloc_sync(0).map(|_| ()), CUresult::CUDA_ERROR_INVALID_VALUE);
            // Freed while the device may still read it.
            let pinned = result::malloc_host(64 << 20, 0).unwrap();
            let bytes = std::slice::from_raw_parts(pinned.cast::<u8>(), 64 << 20);
            let address = result::malloc_sync(bytes.len()).unwrap();
            for _ in 0..20 {
                result::memcpy_htod_async(address, bytes, queue.cu_stream()).unwrap();
            }
            refused(result::free_host(pinned), CUresult::CUDA_ERROR_INVALID_VALUE);
            queue.synchronize().unwrap();
            result::free_host(pinned).unwrap();
        }
    });
    let Some(output) = output else { return };
    let text = error_text(&output);
    for part in ["legacy default stream", "beyond an allocation", "not allocated here", "no bytes", "queued copy uses"]
    {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}
