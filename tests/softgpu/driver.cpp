// libcuda: contexts, streams, events, memory and copies. Launches are in modules.cpp. Stricter than the real one: a
// wrong use is an error and a line on standard error; the legacy default stream is refused.
#include <cstdio>
#include <cstring>
#include <vector>

#include "device.h"
#include "faults.h"
#include "memory.h"

using namespace softgpu;

namespace softgpu {

Handles<Stream> stream_handles;

namespace {

Handles<Event> event_handles;
Context contexts[MAX_DEVICES];
thread_local Context* current = nullptr;

int device_count() { return std::min(setting("SOFTGPU_DEVICES", 2), MAX_DEVICES); }

// Says what was done wrong.
Result misuse(Result error, const char* what) {
    report("misuse: %s", what);
    return error;
}

// The device that must be well for a call that names none.
Result context_error() {
    return current ? device_error(current->device) : misuse(INVALID_CONTEXT, "the thread has no current context");
}

bool on_current_device(uintptr_t address, size_t bytes) {
    int device;
    return is_allocated(address, bytes, &device) && device == current->device;
}

unsigned bit(int device) { return 1u << device; }

// Queues a copy on a stream whose device may reach the memory of `devices`.
void enqueue_copy(const std::shared_ptr<Stream>& stream, const char* name, void* to, const void* from, size_t bytes,
                  unsigned devices) {
    count_copies(to, 1);
    count_copies(from, 1);
    enqueue(stream, {name, [=] {
                         set_access(devices);
                         memcpy(to, from, bytes);
                         set_access(0);
                         count_copies(to, -1);
                         count_copies(from, -1);
                         return true;
                     }});
}

}  // namespace

Context* current_context() { return current; }

Result usable(const void* handle, std::shared_ptr<Stream>* stream) {
    if (Result error = context_error()) {
        return error;
    }
    *stream = stream_handles.find(handle);
    if (!*stream) {
        return misuse(INVALID_HANDLE, handle ? "a stream that does not exist" : "the legacy default stream");
    }
    if ((*stream)->device != current->device) {
        return misuse(INVALID_HANDLE, "a stream of another device than the current one");
    }
    return SUCCESS;
}

}  // namespace softgpu

extern "C" {

Result cuInit(unsigned) { return device_count() > 0 ? SUCCESS : NO_DEVICE; }

Result cuDriverGetVersion(int* version) {
    const char* text = getenv("SOFTGPU_DRIVER");  // 12040 for one of CUDA 12.4
    *version = text ? atoi(text) : 13000;
    return SUCCESS;
}

Result cuDeviceGetCount(int* count) {
    *count = device_count();
    return SUCCESS;
}

Result cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < device_count() ? SUCCESS : INVALID_DEVICE;
}

Result cuDeviceGetName(char* name, int length, int) {
    snprintf(name, static_cast<size_t>(length), "software device");
    return SUCCESS;
}

Result cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = total_bytes();
    return SUCCESS;
}

Result cuDeviceGetAttribute(int* value, int attribute, int) {
    const int capability = setting("SOFTGPU_CAPABILITY", 90);
    switch (attribute) {
        case 75: *value = capability / 10; break;
        case 76: *value = capability % 10; break;
        case 16: *value = 1; break;  // multiprocessors
        default: *value = 0;
    }
    return SUCCESS;
}

Result cuDeviceCanAccessPeer(int* can, int, int) {
    *can = setting("SOFTGPU_PEER", 1);
    return SUCCESS;
}

Result cuDevicePrimaryCtxRetain(Context** context, int device) {
    contexts[device].device = device;
    contexts[device].reachable |= bit(device);
    *context = &contexts[device];
    return SUCCESS;
}

Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }

Result cuCtxSetCurrent(Context* context) {
    current = context;
    return SUCCESS;
}

Result cuCtxGetCurrent(Context** context) {
    *context = current;
    return SUCCESS;
}

Result cuCtxEnablePeerAccess(Context* peer, unsigned) {
    if (Result error = context_error()) {
        return error;
    }
    if (!setting("SOFTGPU_PEER", 1)) {
        return PEER_ACCESS_UNSUPPORTED;
    }
    const bool already = current->reachable & bit(peer->device);
    current->reachable |= bit(peer->device);
    return already ? PEER_ACCESS_ALREADY_ENABLED : SUCCESS;
}

Result cuCtxSynchronize() {
    if (Result error = context_error()) {
        return error;
    }
    drain_device(current->device);
    return context_error();
}

Result cuStreamCreate(Stream** stream, unsigned) {
    if (Result error = context_error()) {
        return error;
    }
    *stream = stream_handles.add(std::make_shared<Stream>(current->device));
    return SUCCESS;
}

// As of today's GPUs.
Result cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return SUCCESS;
}

Result cuStreamCreateWithPriority(Stream** stream, unsigned flags, int priority) {
    return priority > 0 || priority < -5 ? misuse(INVALID_VALUE, "wants a priority beyond the range")
                                         : cuStreamCreate(stream, flags);
}

Result cuStreamDestroy_v2(Stream* stream) {
    return stream_handles.remove(stream) ? SUCCESS : misuse(INVALID_HANDLE, "destroys a stream that does not exist");
}

Result cuStreamSynchronize(Stream* handle) {
    std::shared_ptr<Stream> stream;
    if (Result error = usable(handle, &stream)) {
        return error;
    }
    drain(stream);
    return context_error();
}

Result cuEventCreate(Event** event, unsigned flags) {
    if (Result error = context_error()) {
        return error;
    }
    const bool timed = !(flags & 2);
    *event = event_handles.add(std::make_shared<Event>(Event{current->device, timed, nullptr}));
    return SUCCESS;
}

Result cuEventDestroy_v2(Event* event) {
    return event_handles.remove(event) ? SUCCESS : misuse(INVALID_HANDLE, "destroys an event that does not exist");
}

Result cuEventRecord(Event* handle, Stream* stream_handle) {
    std::shared_ptr<Stream> stream;
    if (Result error = usable(stream_handle, &stream)) {
        return error;
    }
    auto event = event_handles.find(handle);
    if (!event || event->device != stream->device) {
        return misuse(INVALID_HANDLE, "records an event that does not exist on this device");
    }
    record(stream, *event);
    return SUCCESS;
}

// Events of other devices may be waited for.
Result cuStreamWaitEvent(Stream* stream_handle, Event* handle, unsigned) {
    std::shared_ptr<Stream> stream;
    if (Result error = usable(stream_handle, &stream)) {
        return error;
    }
    auto event = event_handles.find(handle);
    if (!event) {
        return misuse(INVALID_HANDLE, "waits for an event that does not exist");
    }
    if (!fault_is_due("skip-wait", "")) {
        wait_for(stream, *event);
    }
    return SUCCESS;
}

Result cuEventQuery(Event* handle) {
    auto event = event_handles.find(handle);
    if (!event) {
        return misuse(INVALID_HANDLE, "asks for an event that does not exist");
    }
    if (Result error = device_error(event->device)) {
        return error;
    }
    return !event->newest || event->newest->done ? SUCCESS : NOT_READY;
}

Result cuEventSynchronize(Event* handle) {
    Result result;
    while ((result = cuEventQuery(handle)) == NOT_READY) {
        std::shared_ptr<Stream> none;
        timespec pause = {0, 20'000};
        nanosleep(&pause, nullptr);
    }
    return result;
}

Result cuEventElapsedTime(float* ms, Event* from, Event* to) {
    auto first = event_handles.find(from), second = event_handles.find(to);
    if (!first || !second || !first->newest || !second->newest || !first->timed || !second->timed) {
        return misuse(INVALID_HANDLE, "the time between events that were not recorded or keep no time");
    }
    if (!first->newest->done || !second->newest->done) {
        return NOT_READY;
    }
    *ms = static_cast<float>(second->newest->ms - first->newest->ms);
    return SUCCESS;
}

Result cuMemAlloc_v2(uintptr_t* address, size_t bytes) {
    if (Result error = context_error()) {
        return error;
    }
    if (bytes == 0) {
        return misuse(INVALID_VALUE, "an allocation of no bytes");
    }
    *address = fault_is_due("oom", "") ? 0 : allocate(current->device, bytes);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

// Waits for the device, as the real one does in effect: for ever, where that waits for a peer that this thread keeps
// from starting.
Result cuMemFree_v2(uintptr_t address) {
    if (Result error = context_error()) {
        return error;
    }
    check_exchanges("frees memory");
    drain_device(current->device);
    return release(current->device, address) ? SUCCESS : misuse(INVALID_VALUE, "frees what is not allocated here");
}

Result cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    if (Result error = context_error()) {
        return error;
    }
    *address = allocate_pinned(bytes);
    return SUCCESS;
}

Result cuMemFreeHost(void* address) {
    return release_pinned(address) ? SUCCESS : misuse(INVALID_VALUE, "frees host memory that is not pinned, or that a queued copy uses");
}

Result cuMemGetInfo_v2(size_t* free, size_t* total) {
    if (Result error = context_error()) {
        return error;
    }
    *free = free_bytes(current->device);
    *total = total_bytes();
    return SUCCESS;
}

Result cuMemsetD8Async(uintptr_t address, unsigned char value, size_t bytes, Stream* handle) {
    std::shared_ptr<Stream> stream;
    if (Result error = usable(handle, &stream)) {
        return error;
    }
    if (!on_current_device(address, bytes)) {
        return misuse(INVALID_VALUE, "sets memory beyond an allocation of this device");
    }
    const unsigned devices = bit(current->device);
    enqueue(stream, {"memset", [=] {
                         set_access(devices);
                         memset(reinterpret_cast<void*>(address), value, bytes);
                         set_access(0);
                         return true;
                     }});
    return SUCCESS;
}

Result cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t bytes, Stream* handle) {
    std::shared_ptr<Stream> stream;
    if (Result error = usable(handle, &stream)) {
        return error;
    }
    if (!on_current_device(to, bytes)) {
        return misuse(INVALID_VALUE, "copies beyond an allocation of this device");
    }
    void* device = reinterpret_cast<void*>(to);
    if (is_pinned(from)) {
        enqueue_copy(stream, "upload", device, from, bytes, bit(current->device));
        return SUCCESS;
    }
    // Pageable memory is read before the call returns.
    auto bytes_now = std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    const unsigned devices = bit(current->device);
    enqueue(stream, {"upload of pageable memory", [=] {
                         set_access(devices);
                         memcpy(device, bytes_now->data(), bytes_now->size());
                         set_access(0);
                         return true;
                     }});
    return SUCCESS;
}

Result cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t bytes, Stream* handle) {
    std::shared_ptr<Stream> stream;
    if (Result error = usable(handle, &stream)) {
        return error;
    }
    if (!on_current_device(from, bytes)) {
        return misuse(INVALID_VALUE, "copies beyond an allocation of this device");
    }
    enqueue_copy(stream, "download", to, reinterpret_cast<const void*>(from), bytes, bit(current->device));
    if (!is_pinned(to)) {
        drain(stream);
    }
    return context_error();
}

Result cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, Stream* handle) {
    std::shared_ptr<Stream> stream;
    if (Result error = usable(handle, &stream)) {
        return error;
    }
    if (!on_current_device(to, bytes) || !on_current_device(from, bytes)) {
        return misuse(INVALID_VALUE, "copies beyond an allocation of this device");
    }
    enqueue_copy(stream, "copy", reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes,
                 bit(current->device));
    return SUCCESS;
}

Result cuMemcpyPeerAsync(uintptr_t to, Context* to_context, uintptr_t from, Context* from_context, size_t bytes,
                         Stream* handle) {
    std::shared_ptr<Stream> stream;
    if (Result error = usable(handle, &stream)) {
        return error;
    }
    int to_device, from_device;
    if (!is_allocated(to, bytes, &to_device) || to_device != to_context->device ||
        !is_allocated(from, bytes, &from_device) || from_device != from_context->device) {
        return misuse(INVALID_VALUE, "copies beyond an allocation of the devices named");
    }
    enqueue_copy(stream, "copy between devices", reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes,
                 bit(to_device) | bit(from_device));
    return SUCCESS;
}

Result cuGetErrorName(Result error, const char** name) {
    switch (error) {
        case SUCCESS: *name = "CUDA_SUCCESS"; break;
        case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
        case INVALID_DEVICE: *name = "CUDA_ERROR_INVALID_DEVICE"; break;
        case INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
        case INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
        case INVALID_HANDLE: *name = "CUDA_ERROR_INVALID_HANDLE"; break;
        case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
        case NOT_READY: *name = "CUDA_ERROR_NOT_READY"; break;
        case ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
        case LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
        default: *name = "CUDA_ERROR_UNKNOWN";
    }
    return SUCCESS;
}

Result cuGetErrorString(Result, const char** text) {
    *text = "on the software device; see the line above that begins with softgpu:";
    return SUCCESS;
}

}  // extern "C"
