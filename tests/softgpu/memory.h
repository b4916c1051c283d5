// Memory of the devices. Every allocation ends at a page that can never be accessed and begins after a filled gap; fresh
// memory is NaN. A device's memory can be accessed only while one of its operations runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace softgpu {

constexpr int MAX_DEVICES = 8;

// Memory of `bytes` on `device`; 0 where there is not so much left.
uintptr_t allocate(int device, size_t bytes);

// False where there is no such allocation.
bool release(int device, uintptr_t address);

// Whether [address, address + bytes) lies in one allocation; of which device.
bool is_allocated(uintptr_t address, size_t bytes, int* device);

// The allocation that holds `address`; false where there is none.
bool find_allocation(uintptr_t address, uintptr_t* start, size_t* bytes);

// Free and whole memory of a device.
size_t free_bytes(int device);
size_t total_bytes();

// Page-locked host memory: copies from and to it happen when their turn comes, not when they are queued.
void* allocate_pinned(size_t bytes);
bool release_pinned(void* address);
bool is_pinned(const void* address);

// Counts the queued copies that use pinned memory: until they are done it cannot be released. Nothing for other memory.
void count_copies(const void* address, int change);

// A rank of this process has been told of, and has launched its next exchange. While one of two ranks here has launched
// an exchange and the other has not, allocating and freeing is misuse: it may wait for the device, which waits for the
// other rank's launch.
void count_rank(int rank);
void count_exchange(int rank);
void forget_ranks();
void check_exchanges(const char* call);

// From now on the calling thread's operations reach the memory of these devices (a bit each) and of no other.
void set_access(unsigned devices);

// What has been written beside the allocations of `device`; empty if nothing was.
std::string find_overrun(int device);

// Catches illegal accesses of kernels on the calling thread; they end the kernel.
void catch_faults();

}  // namespace softgpu
