// What the environment asks of the software device, faults to inject among it:
//
//   SOFTGPU_DEVICES=2          how many there are
//   SOFTGPU_MEMORY_MB=4096     of each
//   SOFTGPU_CAPABILITY=90      compute capability times ten
//   SOFTGPU_PEER=1             whether they reach each other's memory
//   SOFTGPU_SEED=1             of the schedule: which stream goes first, the order of blocks and threads, delays
//   SOFTGPU_FAULT=LIST         faults, separated by commas:
//     oom:N                    the N-th allocation of the process fails
//     launch:KERNEL:N          the N-th launch of KERNEL fails
//     compile                  every kernel fails to compile
//     skip-wait                no stream waits for an event, or (skip-wait:N) not at the N-th time
//     nccl-hang:RANK:N         RANK's N-th exchange and all after it never end
//     nccl-error:RANK:N        RANK's N-th exchange fails
//     die:RANK:N               the process ends when RANK's N-th exchange begins
//     stall:RANK:N             the call that queues RANK's N-th exchange never returns
//     fails-first:RANK         RANK's exchanges are queued only when its device has failed, or 0.3 s later
//     slow-abort               a call that ends a communicator takes half a second
//   SOFTGPU_PLANT=FILE\nN\nOLD\nNEW   in FILE of the kernels' sources the N-th OLD is compiled as NEW
#pragma once

#include <string>

namespace softgpu {

// A number from the environment.
int setting(const char* name, int otherwise);

// Whether a fault such as ("launch", "conv_forward") is due. Counts the calls: due at the N-th.
bool fault_is_due(const std::string& kind, const std::string& what);

// A line on standard error.
void report(const char* format, ...) __attribute__((format(printf, 1, 2)));

// The next random number below `bound`; the sequence depends on the seed alone.
unsigned random_below(unsigned bound);

}  // namespace softgpu
