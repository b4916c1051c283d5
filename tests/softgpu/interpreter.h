// Kernels that the test program runs itself, from the PTX that NVIDIA's compiler makes of them: see tests/ptx.
#pragma once

#include "softgpu.h"

namespace softgpu {

struct Interpreter {
    // The kernels of a module in PTX, ended by one without a name; null where the text is not understood.
    const Kernel* (*load)(const char* ptx);
    // Runs a launch of one of them. Returns what went wrong, null if nothing did; the text lives until the next call.
    const char* (*launch)(const Kernel* kernel, const uint3* grid, const uint3* block, void** arguments);
};

// What the test program has given to softgpu_interpret; null without.
const Interpreter* interpreter();

}  // namespace softgpu
