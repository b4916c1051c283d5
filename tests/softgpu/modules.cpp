// libcuda: modules and launches. A "cubin" of this device is a shared object that nvrtc.cpp has made; PTX is for the
// interpreter, where there is one.
#include <cstring>
#include <vector>

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "faults.h"
#include "fibers.h"
#include "interpreter.h"
#include "memory.h"

using namespace softgpu;

namespace {

constexpr unsigned char NOT_A_NUMBER = 0xff;

Handles<Module> module_handles;
Handles<Function> function_handles;

// Modules find the device's functions (barriers and so on) among the process's symbols, where this library is not if it
// was loaded privately.
void publish_own_symbols() {
    static const bool once = [] {
        Dl_info info;
        return dladdr(reinterpret_cast<void*>(&publish_own_symbols), &info) &&
               dlopen(info.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
    }();
    (void)once;
}

// Loads a shared object from memory.
void* load(const void* image, size_t bytes) {
    const int file = memfd_create("softgpu module", 0);
    const bool written = write(file, image, bytes) == static_cast<ssize_t>(bytes);
    const std::string path = "/proc/self/fd/" + std::to_string(file);
    void* library = written ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (!library) {
        report("a module does not load: %s", dlerror());
    }
    // The file stays open: with its number used again, the loader would take the next module for this one.
    return library;
}

// A launch with its arguments as they were when it was queued.
struct Launch {
    std::shared_ptr<Function> function;
    uint3 grid, block;
    std::vector<std::vector<char>> values;
    unsigned reachable;

    void run() {
        std::vector<void*> pointers;
        for (auto& value : values) {
            pointers.push_back(value.data());
        }
        const Module& module = *function->module;
        const Kernel& kernel = *function->kernel;
        const auto poison = [&] {
            if (module.shared_begin) {
                memset(module.shared_begin, NOT_A_NUMBER, static_cast<size_t>(module.shared_end - module.shared_begin));
            }
        };
        set_access(reachable);
        std::string problem;
        if (kernel.run) {
            problem = run_grid(grid, block, [&] { kernel.run(pointers.data()); }, poison);
        } else if (const char* text = interpreter()->launch(&kernel, &grid, &block, pointers.data())) {
            problem = text;
        }
        const bool diverged = problem.compare(0, 9, "divergent") == 0;
        if (problem.empty()) {
            problem = find_overrun(module.device);
        }
        set_access(0);
        if (!problem.empty()) {
            const Result error = diverged ? LAUNCH_FAILED : ILLEGAL_ADDRESS;
            fail_device(module.device, error, std::string("kernel ") + kernel.name + ": " + problem);
        }
    }
};

}  // namespace

extern "C" {

Result cuDriverGetVersion(int* version);

Result cuModuleLoadData(Module** handle, const void* image) {
    const Context* context = current_context();
    if (!context) {
        return INVALID_CONTEXT;
    }
    if (memcmp(image, "//", 2) == 0 && interpreter()) {
        auto module = std::make_shared<Module>(Module{context->device, nullptr, nullptr, nullptr, {}});
        const Kernel* kernel = interpreter()->load(static_cast<const char*>(image));
        for (; kernel && kernel->name; ++kernel) {
            module->kernels[kernel->name] = kernel;
        }
        *handle = module_handles.add(module);
        return kernel ? SUCCESS : INVALID_IMAGE;
    }
    // Size and NVRTC's version stand in front: nvrtc.cpp puts them there.
    size_t header[2];
    if (memcmp(image, "softgpu:", 8) != 0) {
        report("misuse: loads a module that was not compiled for this device");
        return INVALID_IMAGE;
    }
    memcpy(header, static_cast<const char*>(image) + 8, sizeof header);
    int driver;
    cuDriverGetVersion(&driver);
    if (static_cast<int>(header[1]) > driver / 1000) {
        report("misuse: loads code of a CUDA newer than the driver's");
        return INVALID_IMAGE;
    }
    publish_own_symbols();
    void* library = load(static_cast<const char*>(image) + 24, header[0]);
    if (!library) {
        return INVALID_IMAGE;
    }
    auto module = std::make_shared<Module>();
    module->device = context->device;
    module->library = library;
    auto bounds = reinterpret_cast<void (*)(unsigned char**, unsigned char**)>(dlsym(library, "softgpu_shared_bounds"));
    bounds(&module->shared_begin, &module->shared_end);
    for (auto kernel = static_cast<const Kernel*>(dlsym(library, "softgpu_kernels")); kernel->name; ++kernel) {
        module->kernels[kernel->name] = kernel;
    }
    *handle = module_handles.add(module);
    return SUCCESS;
}

// The library stays loaded: launches may still be queued.
Result cuModuleUnload(Module* module) { return module_handles.remove(module) ? SUCCESS : INVALID_HANDLE; }

Result cuModuleGetFunction(Function** handle, Module* module_handle, const char* name) {
    auto module = module_handles.find(module_handle);
    if (!module) {
        return INVALID_HANDLE;
    }
    auto found = module->kernels.find(name);
    if (found == module->kernels.end()) {
        return NOT_FOUND;
    }
    *handle = function_handles.add(std::make_shared<Function>(Function{module, found->second}));
    return SUCCESS;
}

Result cuLaunchKernel(Function* handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned dynamic_bytes, Stream* stream_handle, void** arguments,
                      void**) {
    std::shared_ptr<Stream> stream;
    if (Result error = usable(stream_handle, &stream)) {
        return error;
    }
    auto function = function_handles.find(handle);
    if (!function || function->module->device != stream->device) {
        report("misuse: launches a function that does not exist on this device");
        return INVALID_HANDLE;
    }
    const Kernel& kernel = *function->kernel;
    const size_t threads = size_t{block_x} * block_y * block_z;
    const bool sizes = grid_x && grid_x < 1u << 31 && grid_y && grid_y < 65536 && grid_z && grid_z < 65536 && threads &&
                       threads <= 1024 && block_z <= 64;
    if (!sizes || dynamic_bytes) {
        report("misuse: kernel %s with grid (%u,%u,%u), block (%u,%u,%u), %u dynamic bytes", kernel.name, grid_x, grid_y,
               grid_z, block_x, block_y, block_z, dynamic_bytes);
        return INVALID_VALUE;
    }
    if (fault_is_due("launch", kernel.name)) {
        return LAUNCH_FAILED;
    }
    auto launch = std::make_shared<Launch>();
    launch->function = function;
    launch->grid = {grid_x, grid_y, grid_z};
    launch->block = {block_x, block_y, block_z};
    launch->reachable = current_context()->reachable;
    for (size_t i = 0; i < kernel.argument_count; ++i) {
        const char* value = static_cast<const char*>(arguments[i]);
        launch->values.emplace_back(value, value + kernel.argument_bytes[i]);
    }
    enqueue(stream, {kernel.name, [launch] {
                         launch->run();
                         return true;
                     }});
    return SUCCESS;
}

}  // extern "C"
