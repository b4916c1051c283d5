// libnccl for two ranks, in one process or two. They meet on a Unix socket named by the unique id; what is sent crosses
// it when both ranks' operations have had their turn. Stricter than the real one: what is given is read as late as
// allowed, what is taken is NaN until it has come, and every exchange is compared with the other rank's: other sizes or
// another order is an error on both.
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "device.h"
#include "faults.h"
#include "memory.h"

using namespace softgpu;

namespace {

// NCCL's result codes.
enum NcclResult { OK = 0, CUDA_ERROR = 1, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6, IN_PROGRESS = 7 };

constexpr int BYTE = 1;  // ncclUint8
constexpr int BLOCKING_FIELD = 16;  // bytes before it in ncclConfig_t
constexpr auto MEETING_TIME = std::chrono::seconds(120);

struct UniqueId {
    char bytes[128];
};

// One direction of a group.
struct Part {
    uintptr_t address = 0;
    size_t bytes = 0;
    bool present = false;
};

struct Comm {
    int rank = 0, device = 0;
    std::atomic<int> state = IN_PROGRESS;
    std::atomic<int> socket = -1;
    std::atomic<bool> aborted = false;
    uint64_t exchanges = 0;  // executed

    ~Comm() {
        if (socket >= 0) {
            close(socket);
        }
    }
};

// What a rank says before it sends.
struct Header {
    uint64_t number, sent_bytes, taken_bytes;
};

Handles<Comm> comms;

// Calls of ncclCommAbort under way.
std::atomic<int> aborts = 0;

struct Count {
    std::atomic<int>& calls;
    explicit Count(std::atomic<int>& calls) : calls(calls) { ++calls; }
    ~Count() { --calls; }
};

// As libraries clean up when a process ends: the real one's memory is gone then, and a call under way may crash on it.
__attribute__((destructor)) void clean_up() {
    if (aborts > 0) {
        report("misuse: NCCL is unloaded while a communicator is being ended");
    }
}

// Sends and receives between ncclGroupStart and ncclGroupEnd.
struct Group {
    std::shared_ptr<Comm> comm;
    std::shared_ptr<Stream> stream;
    Part give, take;
};
thread_local Group group;
thread_local int group_depth = 0;

void fail(Comm& comm, NcclResult error, const std::string& why) {
    report("NCCL rank %d: %s", comm.rank, why.c_str());
    comm.state = error;
}

// One exchange as an operation of a stream: goes as far as the socket allows at each call.
class Transfer {
  public:
    Transfer(const Group& group, bool hangs) : comm(group.comm), give(group.give), take(group.take), hangs(hangs) {}

    bool advance() {
        if (comm->aborted || (comm->state != OK && comm->state != IN_PROGRESS)) {
            return true;
        }
        if (hangs) {
            return false;
        }
        if (!started) {
            start();
        }
        receive();
        if (!ended && their_header_bytes == sizeof their_header && !compared) {
            compare();
        }
        send();
        if (!ended && compared && sent == outgoing.size() && received == incoming.size()) {
            finish();
        }
        return ended;
    }

  private:
    std::shared_ptr<Comm> comm;
    Part give, take;
    bool hangs, started = false, compared = false, ended = false;
    Header their_header = {};
    size_t their_header_bytes = 0, sent = 0, received = 0;
    std::vector<char> outgoing, incoming;

    void on_device(const Part& part, auto action) {
        set_access(1u << comm->device);
        action(reinterpret_cast<char*>(part.address), part.bytes);
        set_access(0);
    }

    void start() {
        started = true;
        if (fault_is_due("die", std::to_string(comm->rank))) {
            report("NCCL rank %d: dies", comm->rank);
            _exit(66);
        }
        if (take.present) {
            on_device(take, [](char* memory, size_t bytes) { memset(memory, 0xff, bytes); });
        }
        const Header header = {comm->exchanges++, give.bytes, take.bytes};
        outgoing.assign(reinterpret_cast<const char*>(&header), reinterpret_cast<const char*>(&header + 1));
    }

    // Both ranks are here: now what is given must be ready.
    void compare() {
        compared = true;
        const Header& theirs = their_header;
        if (theirs.number != comm->exchanges - 1 || theirs.sent_bytes != take.bytes || theirs.taken_bytes != give.bytes) {
            fail(*comm, INVALID_USAGE, "gives " + std::to_string(give.bytes) + " and takes " + std::to_string(take.bytes) +
                                           " bytes, the other rank gives " + std::to_string(theirs.sent_bytes) +
                                           " and takes " + std::to_string(theirs.taken_bytes));
            ended = true;
            return;
        }
        incoming.resize(take.bytes);
        if (give.present) {
            on_device(give, [this](char* memory, size_t bytes) { outgoing.insert(outgoing.end(), memory, memory + bytes); });
        }
    }

    void receive() {
        char* header = reinterpret_cast<char*>(&their_header) + their_header_bytes;
        pump(header, sizeof their_header - their_header_bytes, &their_header_bytes);
        if (compared) {
            pump(incoming.data() + received, incoming.size() - received, &received);
        }
    }

    void pump(char* to, size_t bytes, size_t* count) {
        while (bytes > 0 && !ended) {
            const ssize_t got = recv(comm->socket, to, bytes, MSG_DONTWAIT);
            if (got > 0) {
                to += got;
                bytes -= static_cast<size_t>(got);
                *count += static_cast<size_t>(got);
            } else if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
                return;
            } else {
                fail(*comm, REMOTE_ERROR, "the other rank has gone");
                ended = true;
            }
        }
    }

    void send() {
        while (!ended && sent < outgoing.size()) {
            const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
            const ssize_t put = ::send(comm->socket, outgoing.data() + sent, outgoing.size() - sent, flags);
            if (put > 0) {
                sent += static_cast<size_t>(put);
            } else if (errno == EAGAIN || errno == EINTR) {
                return;
            } else {
                fail(*comm, REMOTE_ERROR, "the other rank has gone");
                ended = true;
            }
        }
    }

    void finish() {
        if (take.present) {
            on_device(take, [this](char* memory, size_t bytes) { memcpy(memory, incoming.data(), bytes); });
        }
        ended = true;
    }
};

// An address that no file stands for.
sockaddr_un meeting_point(const UniqueId& id, socklen_t* length) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path + 1, id.bytes, 32);
    *length = offsetof(sockaddr_un, sun_path) + 33;
    return address;
}

// Meets the other rank; runs in a thread of its own.
void meet(std::shared_ptr<Comm> comm, UniqueId id) {
    socklen_t length;
    const sockaddr_un address = meeting_point(id, &length);
    const sockaddr* point = reinterpret_cast<const sockaddr*>(&address);
    const auto until = std::chrono::steady_clock::now() + MEETING_TIME;
    const int own = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int joined = -1;
    bool listening = false;
    while (joined < 0 && !comm->aborted && std::chrono::steady_clock::now() < until) {
        if (comm->rank == 1) {
            joined = connect(own, point, length) == 0 ? own : -1;
        } else {
            listening = listening || (bind(own, point, length) == 0 && listen(own, 1) == 0);
            pollfd ready = {own, POLLIN, 0};
            joined = listening && poll(&ready, 1, 0) == 1 ? accept4(own, nullptr, nullptr, SOCK_CLOEXEC) : -1;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    if (joined != own) {
        close(own);
    }
    comm->socket = joined;
    if (joined < 0) {
        fail(*comm, SYSTEM_ERROR, "the other rank did not come");
    } else {
        comm->state = OK;
    }
}

NcclResult add_part(Part Group::*part, uintptr_t address, size_t count, int type, Comm* handle, void* stream_handle) {
    auto comm = comms.find(handle);
    std::shared_ptr<Stream> stream;
    if (!comm || group_depth == 0 || type != BYTE) {
        report("misuse: NCCL send or receive outside a group, of another type, or on no communicator");
        return INVALID_USAGE;
    }
    if (fault_is_due("fails-first", std::to_string(comm->rank))) {
        for (int tries = 0; tries < 30 && device_error(comm->device) == SUCCESS; ++tries) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    }
    if (usable(stream_handle, &stream) != SUCCESS) {
        return CUDA_ERROR;
    }
    int device;
    if (!is_allocated(address, count, &device) || device != comm->device || stream->device != device) {
        report("misuse: NCCL rank %d with memory or a stream that is not its device's", comm->rank);
        return INVALID_ARGUMENT;
    }
    group.comm = comm;
    group.stream = stream;
    group.*part = {address, count, true};
    return OK;
}

}  // namespace

extern "C" {

NcclResult ncclGetVersion(int* version) {
    *version = 23203;
    return OK;
}

NcclResult ncclGetUniqueId(UniqueId* id) {
    memset(id, 0, sizeof *id);
    static std::atomic<int> count = 0;
    const auto now = static_cast<long long>(std::chrono::steady_clock::now().time_since_epoch().count());
    snprintf(id->bytes, 32, "softgpu-%d-%d-%llx", getpid(), count++, now);
    return OK;
}

NcclResult ncclCommInitRankConfig(Comm** handle, int count, UniqueId id, int rank, const char* config) {
    const Context* context = current_context();
    int blocking;
    memcpy(&blocking, config + BLOCKING_FIELD, sizeof blocking);
    if (!context || count != 2 || rank < 0 || rank > 1 || blocking != 0) {
        report("misuse: NCCL wants a current context, two ranks and blocking = 0");
        return INVALID_USAGE;
    }
    auto comm = std::make_shared<Comm>();
    comm->rank = rank;
    comm->device = context->device;
    count_rank(rank);
    *handle = comms.add(comm);
    std::thread(meet, comm, id).detach();
    return IN_PROGRESS;
}

NcclResult ncclCommGetAsyncError(Comm* handle, NcclResult* state) {
    auto comm = comms.find(handle);
    if (!comm) {
        report("misuse: NCCL communicator that does not exist");
        return INVALID_ARGUMENT;
    }
    *state = static_cast<NcclResult>(comm->state.load());
    return OK;
}

NcclResult ncclCommAbort(Comm* handle) {
    const Count count(aborts);
    if (fault_is_due("slow-abort", "")) {
        std::this_thread::sleep_for(std::chrono::milliseconds(500));
    }
    auto comm = comms.find(handle);
    forget_ranks();
    if (!comm || !comms.remove(handle)) {
        return INVALID_ARGUMENT;
    }
    comm->aborted = true;
    if (comm->socket >= 0) {
        shutdown(comm->socket, SHUT_RDWR);
    }
    return OK;
}

NcclResult ncclGroupStart() {
    if (group_depth++ == 0) {
        group = {};
    }
    return OK;
}

// Queues the group a little later from another thread, as a non-blocking communicator may: whoever does not ask whether
// it is done before recording an event records it too early.
NcclResult ncclGroupEnd() {
    if (group_depth == 0) {
        return INVALID_USAGE;
    }
    if (--group_depth > 0 || !group.comm) {
        return OK;
    }
    auto comm = group.comm;
    const std::string rank = std::to_string(comm->rank);
    if (fault_is_due("stall", rank)) {
        report("NCCL rank %d: stalls", comm->rank);
        for (;;) {
            pause();
        }
    }
    if (fault_is_due("nccl-error", rank)) {
        fail(*comm, SYSTEM_ERROR, "told to fail");
        shutdown(comm->socket, SHUT_RDWR);
        return IN_PROGRESS;
    }
    count_exchange(comm->rank);
    auto transfer = std::make_shared<Transfer>(group, fault_is_due("nccl-hang", rank));
    comm->state = IN_PROGRESS;
    std::thread([comm, transfer, stream = group.stream] {
        std::this_thread::sleep_for(std::chrono::microseconds(random_below(300)));
        enqueue(stream, {"NCCL exchange", [transfer] { return transfer->advance(); }});
        int expected = IN_PROGRESS;
        comm->state.compare_exchange_strong(expected, OK);
    }).detach();
    group = {};
    return IN_PROGRESS;
}

NcclResult ncclSend(uintptr_t address, size_t count, int type, int, Comm* comm, void* stream) {
    return add_part(&Group::give, address, count, type, comm, stream);
}

NcclResult ncclRecv(uintptr_t address, size_t count, int type, int, Comm* comm, void* stream) {
    return add_part(&Group::take, address, count, type, comm, stream);
}

const char* ncclGetErrorString(NcclResult error) {
    switch (error) {
        case OK: return "no error";
        case SYSTEM_ERROR: return "unhandled system error";
        case INVALID_USAGE: return "invalid usage";
        case REMOTE_ERROR: return "remote process exited or there was a network error";
        default: return "NCCL error";
    }
}

const char* ncclGetLastError(Comm*) { return "on the software device; see the line above that begins with softgpu:"; }

}  // extern "C"
