// A block of CUDA threads on one CPU thread: every thread is a fiber that runs until a barrier or its end.
#pragma once

#include <functional>
#include <string>

#include "softgpu.h"

namespace softgpu {

// Runs all blocks of a launch in a shuffled order, the threads of each in another. `body` is what a thread does;
// `before_block` prepares shared memory. Returns what went wrong, empty if nothing did: a barrier that some threads do
// not reach, or an illegal access, which must be told by `kernel_fault`.
std::string run_grid(uint3 grid, uint3 block, const std::function<void()>& body, const std::function<void()>& before_block);

// Whether a kernel is running on this thread.
bool in_kernel();

// "block (1,0,0) thread (3,0,0)"
std::string where();

// Leaves the running kernel; for the handler of illegal accesses.
[[noreturn]] void kernel_fault(const std::string& problem);

}  // namespace softgpu
