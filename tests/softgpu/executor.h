// Streams, events and the one thread that executes what is queued on them, in the worst order that their waits allow.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>

namespace softgpu {

// CUDA's error codes, as far as they are used.
enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    PEER_ACCESS_UNSUPPORTED = 217,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    PEER_ACCESS_ALREADY_ENABLED = 704,
    LAUNCH_FAILED = 719,
    NOT_PERMITTED = 800,
};

// The moment that an event was recorded at; what waits for the event waits for the newest moment of then.
struct Moment {
    std::atomic<bool> done = false;
    double ms = 0;
};

struct Event {
    int device;
    bool timed;
    std::shared_ptr<Moment> newest;  // null before the first record
};

// One thing to do. `advance` is called when its turn comes, again while it returns false (it waits for something).
struct Operation {
    std::string name;
    std::function<bool()> advance;
};

struct Stream {
    explicit Stream(int device) : device(device) {}
    const int device;
    std::deque<Operation> queue;  // guarded by the executor
    unsigned priority = 0;
    bool blocked = false;  // its first operation waited when it was last looked at
};

// Queues an operation. Dropped where the device has failed.
void enqueue(const std::shared_ptr<Stream>& stream, Operation operation);

// Waits until everything queued on the stream, or on all of a device's streams, is done.
void drain(const std::shared_ptr<Stream>& stream);
void drain_device(int device);

// Queues the record of an event; queues a wait for it.
void record(const std::shared_ptr<Stream>& stream, Event& event);
void wait_for(const std::shared_ptr<Stream>& stream, const Event& event);

// An error that stays: everything on the device fails with it from now on.
void fail_device(int device, Result error, const std::string& message);
Result device_error(int device);

// Milliseconds of a steady clock.
double now_ms();

}  // namespace softgpu
