// What the parts of the stand-in share: contexts, streams and modules behind the driver's handles.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "executor.h"
#include "handles.h"
#include "softgpu.h"

namespace softgpu {

// A device's one context.
struct Context {
    int device;
    unsigned reachable;  // devices whose memory kernels may use, a bit each
};

// A loaded module.
struct Module {
    int device;
    void* library;
    unsigned char *shared_begin, *shared_end;
    std::map<std::string, const Kernel*> kernels;
};

struct Function {
    std::shared_ptr<Module> module;
    const Kernel* kernel;
};

// The calling thread's context, or null.
Context* current_context();

extern Handles<Stream> stream_handles;

// Whether the stream is one of the current context's and the device is well; else what is wrong.
Result usable(const void* handle, std::shared_ptr<Stream>* stream);

}  // namespace softgpu
