#include "executor.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "faults.h"
#include "memory.h"

namespace softgpu {
namespace {

// Never destroyed: the executor's thread outlives main.
std::mutex& mutex = *new std::mutex;
std::condition_variable& changed = *new std::condition_variable;
auto& streams = *new std::vector<std::shared_ptr<Stream>>;  // those that have work
std::atomic<int> errors[MAX_DEVICES];

// The next stream to work on: the one of highest priority whose first operation is not known to wait. Priorities change
// every few operations, so that each stream is now far ahead of the others, now far behind.
std::shared_ptr<Stream> choose() {
    static unsigned until_change = 0;
    if (until_change-- == 0) {
        until_change = random_below(12);
        for (auto& stream : streams) {
            stream->priority = random_below(1000);
        }
    }
    std::shared_ptr<Stream> best;
    for (auto& stream : streams) {
        if (!stream->blocked && (!best || stream->priority > best->priority)) {
            best = stream;
        }
    }
    return best;
}

void run() {
    catch_faults();
    std::unique_lock lock(mutex);
    for (;;) {
        std::erase_if(streams, [](auto& stream) { return stream->queue.empty(); });
        if (streams.empty()) {
            changed.wait(lock);
            continue;
        }
        std::shared_ptr<Stream> stream = choose();
        if (!stream) {
            // All wait, for other processes perhaps: look again soon.
            changed.wait_for(lock, std::chrono::microseconds(50));
            for (auto& waiting : streams) {
                waiting->blocked = false;
            }
            continue;
        }
        if (random_below(16) == 0) {
            // Gives the host time to queue more to choose from.
            const auto pause = std::chrono::microseconds(random_below(200));
            lock.unlock();
            std::this_thread::sleep_for(pause);
            lock.lock();
        }
        Operation& operation = stream->queue.front();  // a deque keeps it in place while others are added
        lock.unlock();
        const bool done = errors[stream->device] || operation.advance();
        lock.lock();
        stream->blocked = !done;
        if (done) {
            stream->queue.pop_front();
            for (auto& waiting : streams) {
                waiting->blocked = false;
            }
            changed.notify_all();
        }
    }
}

void start() {
    static std::once_flag once;
    std::call_once(once, [] { std::thread(run).detach(); });
}

}  // namespace

void enqueue(const std::shared_ptr<Stream>& stream, Operation operation) {
    start();
    std::lock_guard lock(mutex);
    if (stream->queue.empty()) {
        std::erase(streams, stream);
        streams.push_back(stream);
        stream->priority = random_below(1000);
        stream->blocked = false;
    }
    stream->queue.push_back(std::move(operation));
    changed.notify_all();
}

void drain(const std::shared_ptr<Stream>& stream) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return stream->queue.empty(); });
}

void drain_device(int device) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] {
        for (auto& stream : streams) {
            if (stream->device == device && !stream->queue.empty()) {
                return false;
            }
        }
        return true;
    });
}

void record(const std::shared_ptr<Stream>& stream, Event& event) {
    auto moment = std::make_shared<Moment>();
    event.newest = moment;
    enqueue(stream, {"record event", [moment] {
                         moment->ms = now_ms();
                         moment->done = true;
                         return true;
                     }});
}

void wait_for(const std::shared_ptr<Stream>& stream, const Event& event) {
    // The moment as it is now: a later record does not count. One of a failed device never comes, but then nothing does.
    if (auto moment = event.newest) {
        const int device = event.device;
        enqueue(stream, {"wait for event", [moment, device] { return moment->done || errors[device]; }});
    }
}

void fail_device(int device, Result error, const std::string& message) {
    report("device %d: %s", device, message.c_str());
    int none = SUCCESS;
    errors[device].compare_exchange_strong(none, error);
}

Result device_error(int device) { return static_cast<Result>(errors[device].load()); }

double now_ms() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace softgpu
