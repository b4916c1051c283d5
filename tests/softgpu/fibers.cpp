#include "fibers.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <numeric>
#include <vector>

#include <sys/mman.h>

#include "faults.h"

#if !defined(__x86_64__)
#error "the switch between fibers is written for x86-64"
#endif

// void softgpu_switch(void** save, void* load): saves the callee's registers and the stack pointer, and takes others.
asm(R"(
.text
.globl softgpu_switch
.type softgpu_switch,@function
softgpu_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size softgpu_switch,.-softgpu_switch
)");
extern "C" void softgpu_switch(void** save, void* load);

namespace softgpu {

uint3 thread_index, block_index, block_size, grid_size;

namespace {

constexpr size_t STACK_BYTES = 64 << 10;
constexpr unsigned WARP = 32;
constexpr unsigned MAX_THREADS = 1024;

enum class State { READY, AT_BARRIER, AT_WARP, DONE };

struct Fiber {
    void* stack_pointer;
    State state;
    unsigned exchanges;  // warp exchanges so far: their parity chooses the slots
};

struct Warp {
    alignas(16) unsigned char slots[2][WARP][SLOT_BYTES];
};

struct Machine {
    std::vector<Fiber> fibers = std::vector<Fiber>(MAX_THREADS);
    std::vector<Warp> warps = std::vector<Warp>(MAX_THREADS / WARP);
    char* stacks = nullptr;
    void* scheduler = nullptr;
    unsigned count = 0, running = 0;
    const std::function<void()>* body = nullptr;
    sigjmp_buf escape;
    std::string problem;
    bool active = false;
};

// Initial-exec: every exchange between lanes looks at it.
[[gnu::tls_model("initial-exec")]] thread_local Machine* machine = nullptr;

void become(unsigned thread) {
    machine->running = thread;
    thread_index = {thread % block_size.x, thread / block_size.x % block_size.y, thread / (block_size.x * block_size.y)};
}

// Stops the running fiber; the scheduler goes on.
void pause(State state) {
    Fiber& fiber = machine->fibers[machine->running];
    fiber.state = state;
    softgpu_switch(&fiber.stack_pointer, machine->scheduler);
}

void fiber_main() {
    (*machine->body)();
    pause(State::DONE);
    __builtin_unreachable();
}

void make_ready(unsigned thread) {
    // Stacks begin at different places in a page, so that they do not all fall on the same cache lines.
    void** top = reinterpret_cast<void**>(machine->stacks + (thread + 1) * STACK_BYTES - 64 - thread % 56 * 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(fiber_main);
    for (int saved = 0; saved < 6; ++saved) {
        *--top = nullptr;
    }
    machine->fibers[thread] = {top, State::READY, 0};
}

std::vector<unsigned> shuffled(unsigned count) {
    std::vector<unsigned> order(count);
    std::iota(order.begin(), order.end(), 0u);
    for (unsigned i = count; i > 1; --i) {
        std::swap(order[i - 1], order[random_below(i)]);
    }
    return order;
}

bool all_are(State state, const std::vector<unsigned>& threads) {
    return std::all_of(threads.begin(), threads.end(), [&](unsigned thread) { return machine->fibers[thread].state == state; });
}

// Runs these threads until each waits or ends.
void run(const std::vector<unsigned>& threads) {
    for (unsigned thread : threads) {
        machine->fibers[thread].state = State::READY;
        become(thread);
        softgpu_switch(&machine->scheduler, machine->fibers[thread].stack_pointer);
    }
}

// Some wait, nobody can go on: names one who waits and one whom it waits for.
std::string divergence() {
    unsigned waiting = 0, other = 0;
    for (unsigned thread = 0; thread < machine->count; ++thread) {
        const State state = machine->fibers[thread].state;
        waiting = state == State::AT_BARRIER || state == State::AT_WARP ? thread : waiting;
    }
    for (unsigned thread = 0; thread < machine->count; ++thread) {
        other = machine->fibers[thread].state != machine->fibers[waiting].state ? thread : other;
    }
    const bool barrier = machine->fibers[waiting].state == State::AT_BARRIER;
    const bool ended = machine->fibers[other].state == State::DONE;
    become(waiting);
    std::string text = "divergent " + std::string(barrier ? "__syncthreads" : "warp collective") + ": " + where() + " waits";
    become(other);
    return text + ", " + where() + (ended ? " has ended" : " waits elsewhere");
}

// Warps and their lanes run in another order in every block. A warp runs as far as it can before the next one goes on, so
// that a barrier that is missing is missed.
void run_block() {
    for (unsigned thread = 0; thread < machine->count; ++thread) {
        make_ready(thread);
    }
    const std::vector<unsigned> order = shuffled(machine->count);
    std::vector<std::vector<unsigned>> warps((machine->count + WARP - 1) / WARP);
    for (unsigned thread : order) {
        warps[thread / WARP].push_back(thread);
    }
    std::rotate(warps.begin(), warps.begin() + order[0] % warps.size(), warps.end());
    run(order);
    while (!all_are(State::DONE, order)) {
        const auto ready = [](const std::vector<unsigned>& warp) { return all_are(State::AT_WARP, warp); };
        const auto warp = std::find_if(warps.begin(), warps.end(), ready);
        if (warp != warps.end()) {
            run(*warp);
        } else if (all_are(State::AT_BARRIER, order)) {
            run(order);
        } else {
            kernel_fault(divergence());
        }
    }
}

}  // namespace

void sync_threads() { pause(State::AT_BARRIER); }

unsigned lane() { return machine->running % WARP; }

const unsigned char* warp_exchange(const void* mine, size_t size) {
    const unsigned thread = machine->running;
    // The lanes that are ahead write to the other slots.
    auto& slots = machine->warps[thread / WARP].slots[machine->fibers[thread].exchanges++ % 2];
    memcpy(slots[thread % WARP], mine, size);
    pause(State::AT_WARP);
    return slots[0];
}

bool in_kernel() { return machine && machine->active; }

std::string where() {
    char text[100];
    snprintf(text, sizeof text, "block (%u,%u,%u) thread (%u,%u,%u)", block_index.x, block_index.y, block_index.z,
             thread_index.x, thread_index.y, thread_index.z);
    return text;
}

void misaligned_vector(const void* address) {
    char text[100];
    snprintf(text, sizeof text, "misaligned vector at %p by %s", address, where().c_str());
    kernel_fault(text);
}

void kernel_fault(const std::string& problem) {
    machine->problem = problem;
    siglongjmp(machine->escape, 1);
}

std::string run_grid(uint3 grid, uint3 block, const std::function<void()>& body,
                     const std::function<void()>& before_block) {
    static Machine& only = *new Machine;  // the executor's, which outlives main
    machine = &only;
    if (!machine->stacks) {
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* memory = mmap(nullptr, MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (memory == MAP_FAILED) {
            return "no memory for the threads' stacks";
        }
        machine->stacks = static_cast<char*>(memory);
    }
    grid_size = grid;
    block_size = block;
    machine->count = block.x * block.y * block.z;
    machine->body = &body;
    machine->problem.clear();
    machine->active = true;
    if (sigsetjmp(machine->escape, 1) == 0) {
        for (unsigned at : shuffled(grid.x * grid.y * grid.z)) {
            block_index = {at % grid.x, at / grid.x % grid.y, at / (grid.x * grid.y)};
            before_block();
            run_block();
        }
    }
    machine->active = false;
    return machine->problem;
}

}  // namespace softgpu
