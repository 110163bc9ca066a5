// What CUDA C gives to a kernel, on a CPU. The compiler is told to read this first (build.py).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__ __attribute__((noinline))
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
// one block runs at a time, so a block's memory can be static; the section says where it is
#define __shared__ static __attribute__((section("shared")))
#define DYNAMIC_SHARED(type, name) type *name = (type *)emulator_dynamic_shared()

template <typename T, int alignment> struct alignas(alignment) Vector2 {
    T x, y;
};
template <typename T, int alignment> struct alignas(alignment) Vector4 {
    T x, y, z, w;
};
using float2 = Vector2<float, 8>;
using float4 = Vector4<float, 16>;
using double2 = Vector2<double, 16>;
using int2 = Vector2<int, 8>;
using uint2 = Vector2<unsigned, 8>;
using uint4 = Vector4<unsigned, 16>;

struct EmulatorIndex {
    unsigned x, y, z;
};
struct EmulatorPlace {
    EmulatorIndex thread, block, block_size, grid_size;
};

enum EmulatorCollective { SYNC_WARP, SHUFFLE, BALLOT };
enum EmulatorAtomic { ATOMIC_ADD, ATOMIC_INC, ATOMIC_MAX };

extern "C" {
extern EmulatorPlace emulator_place;
void *emulator_dynamic_shared();
void emulator_block_barrier(int line);
void emulator_fence();
unsigned emulator_atomic(EmulatorAtomic kind, unsigned *address, unsigned operand);
uint64_t emulator_collective(EmulatorCollective kind, unsigned mask, uint64_t value, int lane,
                             int line);
}

#define threadIdx emulator_place.thread
#define blockIdx emulator_place.block
#define blockDim emulator_place.block_size
#define gridDim emulator_place.grid_size
#define warpSize 32

// The default argument is the line of the call.
inline void __syncthreads(int line = __builtin_LINE()) { emulator_block_barrier(line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    emulator_collective(SYNC_WARP, mask, 0, 0, line);
}
inline void __threadfence() { emulator_fence(); }

template <typename T>
inline T emulator_shuffle(unsigned mask, T value, int lane, int line) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = emulator_collective(SHUFFLE, mask, bits, lane, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}
inline int emulator_lane() {
    const EmulatorPlace &p = emulator_place;
    unsigned rank = p.thread.x + p.block_size.x * (p.thread.y + p.block_size.y * p.thread.z);
    return rank % 32;
}
// A lane beyond the segment of `width` lanes gives the thread its own value.
template <typename T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32,
                     int line = __builtin_LINE()) {
    int own = emulator_lane();
    return emulator_shuffle(mask, value, (own & ~(width - 1)) | (source & (width - 1)), line);
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                         int line = __builtin_LINE()) {
    int own = emulator_lane(), source = own ^ bits;
    return emulator_shuffle(mask, value, (source & ~(width - 1)) > own ? own : source, line);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32,
                          int line = __builtin_LINE()) {
    int own = emulator_lane(), source = own + int(distance);
    bool inside = (own & (width - 1)) + int(distance) < width;
    return emulator_shuffle(mask, value, inside ? source : own, line);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32,
                        int line = __builtin_LINE()) {
    int own = emulator_lane(), source = own - int(distance);
    bool inside = (own & (width - 1)) >= int(distance);
    return emulator_shuffle(mask, value, inside ? source : own, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return unsigned(emulator_collective(BALLOT, mask, predicate != 0, 0, line));
}

// Only atomics on whole numbers: sums of floats would depend on the order of the threads.
inline unsigned atomicAdd(unsigned *address, unsigned operand) {
    return emulator_atomic(ATOMIC_ADD, address, operand);
}
inline unsigned atomicInc(unsigned *address, unsigned limit) {
    return emulator_atomic(ATOMIC_INC, address, limit);
}
inline unsigned atomicMax(unsigned *address, unsigned operand) {
    return emulator_atomic(ATOMIC_MAX, address, operand);
}

template <typename T> inline T __ldg(const T *address) { return *address; }
template <typename T> inline T __ldcg(const T *address) { return *address; }
template <typename T> inline T __ldcs(const T *address) { return *address; }
template <typename T> inline void __stcg(T *address, T value) { *address = value; }
template <typename T> inline void __stcs(T *address, T value) { *address = value; }

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
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
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
template <typename T> inline T min(T a, T b) { return b < a ? b : a; }
template <typename T> inline T max(T a, T b) { return a < b ? b : a; }
inline float fmax(float a, float b) { return fmaxf(a, b); }
using std::isnan;
