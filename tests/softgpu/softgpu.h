// What kernels see when the software device compiles them: CUDA's language and the few built-ins that the project uses.
// One executor thread runs all kernels of the process, so indices are plain globals and `__shared__` is static memory.
// It goes to a section of its own, which is filled with NaN before every block; therefore it may stand only directly in
// the body of an `extern "C" __global__` function.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static __attribute__((section("softgpu_shared")))

struct uint3 {
    unsigned x, y, z;
};
namespace softgpu {

// Ends the kernel: a vector was read or written at an address that is not a multiple of its size.
[[noreturn]] void misaligned_vector(const void* address);

template <size_t SIZE>
void check_alignment(const void* address) {
    // The compiler takes alignment for granted; it must not know where this number comes from.
    uintptr_t at = reinterpret_cast<uintptr_t>(address);
    asm("" : "+r"(at));
    if (at % SIZE) {
        misaligned_vector(address);
    }
}

// Two or four words that hardware moves at once; unlike the processor of this machine it insists on their alignment.
template <class Word>
struct alignas(8) Vector2 {
    Word x, y;

    Vector2() = default;
    Vector2(Word x, Word y) : x(x), y(y) {}
    Vector2(const Vector2& from) { *this = from; }
    Vector2& operator=(const Vector2& from) {
        check_alignment<8>(this);
        check_alignment<8>(&from);
        memcpy(static_cast<void*>(this), &from, sizeof from);
        return *this;
    }
};
template <class Word>
struct alignas(16) Vector4 {
    Word x, y, z, w;

    Vector4() = default;
    Vector4(Word x, Word y, Word z, Word w) : x(x), y(y), z(z), w(w) {}
    Vector4(const Vector4& from) { *this = from; }
    Vector4& operator=(const Vector4& from) {
        check_alignment<16>(this);
        check_alignment<16>(&from);
        memcpy(static_cast<void*>(this), &from, sizeof from);
        return *this;
    }
};

}  // namespace softgpu

using uint2 = softgpu::Vector2<unsigned>;
using uint4 = softgpu::Vector4<unsigned>;
using float4 = softgpu::Vector4<float>;

namespace softgpu {

extern uint3 thread_index, block_index, block_size, grid_size;

// Waits for all threads of the block.
void sync_threads();

// Lane of the running thread in its warp.
unsigned lane();

// Gives `size` bytes to the other lanes of the warp and waits for theirs: lane i's are at the result + i * SLOT_BYTES,
// until the caller's next but one exchange.
constexpr size_t SLOT_BYTES = 64;
const unsigned char* warp_exchange(const void* mine, size_t size);

template <class T>
struct WarpView {
    const unsigned char* slots;
    T operator[](unsigned lane) const {
        T value;
        memcpy(&value, slots + lane * SLOT_BYTES, sizeof(T));
        return value;
    }
};

// Every lane's value, by lane. All 32 lanes of the warp must call it.
template <class T>
WarpView<T> warp_share(const T& mine) {
    static_assert(sizeof(T) <= SLOT_BYTES);
    return {warp_exchange(&mine, sizeof(T))};
}

// A kernel as a loaded module lists it. `run` is one thread of a launch; it takes cuLaunchKernel's array of pointers to
// arguments, whose sizes are `argument_bytes`. Null where the interpreter runs it.
struct Kernel {
    const char* name;
    void (*run)(void** arguments);
    const size_t* argument_bytes;
    size_t argument_count;
};

template <auto Function>
struct Entry;

// Hidden: else the loader would give modules that have kernels of one name each other's.
template <class... Arguments, void (*Function)(Arguments...)>
struct __attribute__((visibility("hidden"))) Entry<Function> {
    static constexpr size_t argument_bytes[] = {sizeof(Arguments)...};

    static void run(void** arguments) { run(arguments, std::index_sequence_for<Arguments...>{}); }

    template <size_t... I>
    static void run(void** arguments, std::index_sequence<I...>) {
        Function(*static_cast<Arguments*>(arguments[I])...);
    }

    static constexpr Kernel kernel(const char* name) { return {name, run, argument_bytes, sizeof...(Arguments)}; }
};

}  // namespace softgpu

#define threadIdx (softgpu::thread_index)
#define blockIdx (softgpu::block_index)
#define blockDim (softgpu::block_size)
#define gridDim (softgpu::grid_size)

inline void __syncthreads() { softgpu::sync_threads(); }
inline void __syncwarp() { softgpu::warp_share(0); }
// The value of the lane whose number differs by the bits of `lanes`; the whole warp calls it.
template <class T>
T __shfl_xor_sync(unsigned, T value, int lanes) {
    return softgpu::warp_share(value)[softgpu::lane() ^ lanes];
}

inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline float __fmul_rn(float a, float b) {
    volatile float product = a;
    product = product * b;
    return product;
}
// A sum that the compiler must not merge with a product.
inline float __fadd_rn(float a, float b) {
    volatile float sum = a;
    sum = sum + b;
    return sum;
}
using std::isnan;
template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}
