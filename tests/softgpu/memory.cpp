#include "memory.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include <sys/mman.h>
#include <unistd.h>

#include "faults.h"
#include "fibers.h"

namespace softgpu {
namespace {

constexpr size_t PAGE = 4096;
constexpr size_t HUGE_PAGE = size_t{2} << 20;
constexpr size_t ARENA_BYTES = size_t{64} << 30;  // of addresses: they are not used twice
constexpr size_t ALIGNMENT = 16;                  // hardware gives 256; a kernel must not count on more than it reads at once
constexpr unsigned char FRESH = 0xff;             // NaN
constexpr unsigned char GAP = 0xfe;               // NaN too

struct Allocation {
    size_t bytes;
    uintptr_t pages;  // its first page
    size_t page_bytes;
};

struct Arena {
    uintptr_t base = 0, next = 0;
    size_t used = 0;
    std::map<uintptr_t, Allocation> live;
    bool accessible = false;
};

std::mutex& mutex = *new std::mutex;
Arena* const arenas = new Arena[MAX_DEVICES];  // never destroyed: kernels may still run when main ends
struct Pinned {
    size_t bytes;
    int copies;  // queued ones that read or write it
};
std::map<uintptr_t, Pinned>& pinned = *new std::map<uintptr_t, Pinned>;

std::map<uintptr_t, Pinned>::iterator find_pinned(const void* address) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    auto next = pinned.upper_bound(at);
    return next != pinned.begin() && at < std::prev(next)->first + std::prev(next)->second.bytes ? std::prev(next)
                                                                                                 : pinned.end();
}

size_t round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

int protection(const Arena& arena) { return arena.accessible ? PROT_READ | PROT_WRITE : PROT_NONE; }

// A file without bytes: what it is mapped to can never be accessed, whatever the protection says. So guards stay guards
// when a whole arena is made accessible by one call.
int empty_file() {
    static const int file = memfd_create("softgpu guard", 0);
    return file;
}

void* map(uintptr_t at, size_t bytes, bool usable) {
    const int fixed = at ? MAP_FIXED : 0;
    void* place = reinterpret_cast<void*>(at);
    return usable ? mmap(place, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0)
                  : mmap(place, bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE | fixed, empty_file(), 0);
}

Arena& arena_of(int device) {
    Arena& arena = arenas[device];
    if (!arena.base) {
        void* base = map(0, ARENA_BYTES, false);
        if (base == MAP_FAILED) {
            report("no addresses for device %d: %s", device, strerror(errno));
            abort();
        }
        arena.base = arena.next = reinterpret_cast<uintptr_t>(base);
    }
    return arena;
}

// What lies at an address, for messages. Takes no lock: the handler of a fault must not wait.
std::string describe(uintptr_t address) {
    char text[200];
    for (int device = 0; device < MAX_DEVICES; ++device) {
        const Arena& arena = arenas[device];
        if (!arena.base || address < arena.base || address >= arena.base + ARENA_BYTES) {
            continue;
        }
        auto next = arena.live.upper_bound(address);
        if (next != arena.live.begin()) {
            const auto& [start, found] = *std::prev(next);
            const uintptr_t end = start + found.bytes;
            if (address < end) {
                snprintf(text, sizeof text, "memory of device %d, which this kernel's device may not reach", device);
                return text;
            }
            if (address < end + PAGE) {
                snprintf(text, sizeof text, "%zu bytes after the end of an allocation of %zu bytes on device %d",
                         address - end, found.bytes, device);
                return text;
            }
        }
        snprintf(text, sizeof text, "no allocation, or a freed one, on device %d", device);
        return text;
    }
    return "not device memory";
}

void on_fault(int signal, siginfo_t* info, void*) {
    if (!in_kernel()) {
        // Host code that uses a device's address, or a crash of its own: as without the software device.
        report("host code: illegal access at %p: %s", info->si_addr,
               describe(reinterpret_cast<uintptr_t>(info->si_addr)).c_str());
        std::signal(signal, SIG_DFL);
        return;
    }
    kernel_fault("illegal access by " + where() + ": " + describe(reinterpret_cast<uintptr_t>(info->si_addr)));
}

bool holds(uintptr_t from, uintptr_t to, unsigned char value) {
    for (uintptr_t at = from; at < to; ++at) {
        if (*reinterpret_cast<const volatile unsigned char*>(at) != value) {
            return false;
        }
    }
    return true;
}

}  // namespace

// Exchanges launched by each rank of this process; -1 where it has no such rank.
std::atomic<long> exchanges[2] = {-1, -1};

void count_rank(int rank) { exchanges[rank] = 0; }

void count_exchange(int rank) { ++exchanges[rank]; }

void forget_ranks() { exchanges[0] = exchanges[1] = -1; }

// Reports a call that must not come now.
void check_exchanges(const char* call) {
    const long first = exchanges[0], second = exchanges[1];
    if (first >= 0 && second >= 0 && first != second) {
        report("misuse: %s while rank %d waits in an exchange for rank %d of the same process", call, first < second,
               first > second);
    }
}

size_t total_bytes() { return static_cast<size_t>(setting("SOFTGPU_MEMORY_MB", 4096)) << 20; }

size_t free_bytes(int device) {
    std::lock_guard lock(mutex);
    return total_bytes() - arenas[device].used;
}

uintptr_t allocate(int device, size_t bytes) {
    check_exchanges("allocates memory");
    std::lock_guard lock(mutex);
    Arena& arena = arena_of(device);
    const size_t rounded = round_up(bytes, ALIGNMENT);
    // Of pages that are huge where the machine has them: `set_access` takes a time for each page.
    const size_t page = rounded < HUGE_PAGE ? PAGE : HUGE_PAGE;
    const size_t pages = round_up(rounded, page);
    const uintptr_t first = round_up(arena.next, page);
    if (arena.used + bytes > total_bytes() || first + pages + PAGE > arena.base + ARENA_BYTES) {
        return 0;
    }
    if (map(first, pages, true) == MAP_FAILED) {
        return 0;
    }
    void* const memory = reinterpret_cast<void*>(first);
    if (page == HUGE_PAGE) {
        madvise(memory, pages, MADV_HUGEPAGE);
    }
    const uintptr_t address = first + pages - rounded;
    memset(memory, GAP, pages);
    memset(reinterpret_cast<void*>(address), FRESH, bytes);
    mprotect(memory, pages, protection(arena));
    arena.live[address] = {bytes, first, pages};
    arena.used += bytes;
    arena.next = first + pages + PAGE;
    return address;
}

bool release(int device, uintptr_t address) {
    std::lock_guard lock(mutex);
    Arena& arena = arena_of(device);
    auto found = arena.live.find(address);
    if (found == arena.live.end()) {
        return false;
    }
    arena.used -= found->second.bytes;
    map(found->second.pages, found->second.page_bytes, false);
    arena.live.erase(found);
    return true;
}

bool is_allocated(uintptr_t address, size_t bytes, int* device) {
    std::lock_guard lock(mutex);
    for (*device = 0; *device < MAX_DEVICES; ++*device) {
        const Arena& arena = arenas[*device];
        auto next = arena.live.upper_bound(address);
        if (next != arena.live.begin()) {
            const auto& [start, found] = *std::prev(next);
            if (address + bytes <= start + found.bytes) {
                return true;
            }
        }
    }
    return false;
}

bool find_allocation(uintptr_t address, uintptr_t* start, size_t* bytes) {
    std::lock_guard lock(mutex);
    for (int device = 0; device < MAX_DEVICES; ++device) {
        const Arena& arena = arenas[device];
        auto next = arena.live.upper_bound(address);
        if (next != arena.live.begin() && address < std::prev(next)->first + std::prev(next)->second.bytes) {
            *start = std::prev(next)->first;
            *bytes = std::prev(next)->second.bytes;
            return true;
        }
    }
    return false;
}

void* allocate_pinned(size_t bytes) {
    check_exchanges("allocates page-locked memory");
    void* address = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    std::lock_guard lock(mutex);
    pinned[reinterpret_cast<uintptr_t>(address)] = {bytes, 0};
    memset(address, FRESH, bytes);
    return address;
}

bool release_pinned(void* address) {
    check_exchanges("frees page-locked memory");
    std::lock_guard lock(mutex);
    auto found = pinned.find(reinterpret_cast<uintptr_t>(address));
    if (found == pinned.end() || found->second.copies > 0) {
        return false;
    }
    pinned.erase(found);
    free(address);
    return true;
}

bool is_pinned(const void* address) {
    std::lock_guard lock(mutex);
    return find_pinned(address) != pinned.end();
}

void count_copies(const void* address, int change) {
    std::lock_guard lock(mutex);
    auto found = find_pinned(address);
    if (found != pinned.end()) {
        found->second.copies += change;
    }
}

void set_access(unsigned devices) {
    std::lock_guard lock(mutex);
    for (int device = 0; device < MAX_DEVICES; ++device) {
        Arena& arena = arenas[device];
        const bool wanted = devices >> device & 1;
        if (arena.accessible != wanted) {
            arena.accessible = wanted;
            if (arena.next != arena.base) {
                mprotect(reinterpret_cast<void*>(arena.base), arena.next - arena.base, protection(arena));
            }
        }
    }
}

std::string find_overrun(int device) {
    std::lock_guard lock(mutex);
    const Arena& arena = arenas[device];
    for (const auto& [start, found] : arena.live) {
        const uintptr_t end = start + found.bytes, page_end = found.pages + found.page_bytes;
        const uintptr_t gap = std::max(found.pages, start - std::min(start - found.pages, uintptr_t{64}));
        if (!holds(gap, start, GAP) || !holds(end, page_end, GAP)) {
            const char* side = holds(gap, start, GAP) ? "after" : "before";
            char text[200];
            snprintf(text, sizeof text, "illegal store right %s an allocation of %zu bytes on device %d", side, found.bytes,
                     device);
            return text;
        }
    }
    return "";
}

void catch_faults() {
    // A stack of its own: the kernel's may be what overflows.
    static char stack[64 << 10];
    stack_t alternate = {};
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    sigaltstack(&alternate, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
}

}  // namespace softgpu
