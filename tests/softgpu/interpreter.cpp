#include "interpreter.h"

#include <atomic>

#include "memory.h"

namespace {

std::atomic<const softgpu::Interpreter*> given{nullptr};

}  // namespace

const softgpu::Interpreter* softgpu::interpreter() { return given; }

extern "C" {

// From now on modules in PTX are loaded; the interpreter must live as long as the process.
void softgpu_interpret(const softgpu::Interpreter* interpreter) { given = interpreter; }

// The allocation that holds `address`, on any device; false where there is none.
bool softgpu_allocation(uintptr_t address, uintptr_t* start, size_t* bytes) {
    return softgpu::find_allocation(address, start, bytes);
}

}  // extern "C"
