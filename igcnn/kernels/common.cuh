// What the kernels share. REAL is the type of the arithmetic (float or double), STORED that of
// activations in memory (the same, or bfloat16); launch.py sets both from the arrays.

typedef REAL real;

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

const int WARP = 32;
const unsigned ALL_LANES = 0xffffffffu;

// The upper half of a float.
struct bfloat16 {
    unsigned short bits;
};

typedef STORED stored;

__device__ __forceinline__ real get(const real *p) { return *p; }
__device__ __forceinline__ real get(const bfloat16 *p) {
    return __uint_as_float(unsigned(p->bits) << 16);
}
__device__ __forceinline__ void put(real *p, real value) { *p = value; }
// Rounds to the nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ void put(bfloat16 *p, real value) {
    unsigned bits = __float_as_uint(float(value));
    bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    unsigned rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    p->bits = (unsigned short)(is_nan ? 0x7fc0u : rounded >> 16);
}

// The value as memory would give it back.
__device__ __forceinline__ real as_stored(real value) {
    stored memory;
    put(&memory, value);
    return get(&memory);
}

// Four numbers side by side, loaded and stored at once.
struct alignas(16) Quad {
    real x, y, z, w;
};
__device__ __forceinline__ Quad quad_at(const real *p) { return *(const Quad *)p; }
__device__ __forceinline__ void put_quad(real *p, Quad v) { *(Quad *)p = v; }
__device__ __forceinline__ Quad quad_at(const bfloat16 *p) {
    const uint2 bits = *(const uint2 *)p;
    return Quad{__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),
                __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000u)};
}
__device__ __forceinline__ void put_quad(bfloat16 *p, Quad v) {
    bfloat16 halves[4];
    put(halves, v.x);
    put(halves + 1, v.y);
    put(halves + 2, v.z);
    put(halves + 3, v.w);
    *(uint2 *)p = uint2{halves[0].bits | unsigned(halves[1].bits) << 16,
                        halves[2].bits | unsigned(halves[3].bits) << 16};
}

// max(x, 0) that keeps NaN.
__device__ __forceinline__ real rectified(real x) { return x < real(0) ? real(0) : x; }
__device__ __forceinline__ real rectified6(real x) {
    return x > real(6) ? real(6) : rectified(x);
}

// What an argument `relu` says: 0: nothing, 1: ReLU, 2: ReLU6.
__device__ __forceinline__ real activated(real x, int relu) {
    return relu == 0 ? x : relu == 1 ? rectified(x) : rectified6(x);
}
// Whether its gradient passes where y comes out.
__device__ __forceinline__ bool passes(real y, int relu) {
    return relu == 0 || (y > real(0) && (relu == 1 || y < real(6)));
}

// The larger of two; NaN counts as largest.
__device__ __forceinline__ real larger(real a, real b) { return a > b || isnan(a) ? a : b; }

// Reorder(b): the place in x of channel c of the permuted x, for C channels.
__device__ __forceinline__ int reorder(int c, int C, int branches) {
    return c % branches * (C / branches) + c / branches;
}

// The first index of this thread in a loop over all elements, and its step.
__device__ __forceinline__ int first_index() { return int(blockIdx.x * blockDim.x + threadIdx.x); }
__device__ __forceinline__ int index_step() { return int(gridDim.x * blockDim.x); }

// The sum over a warp, the same in every lane: a fixed tree.
__device__ __forceinline__ real warp_sum(real value) {
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}

// The sum over a block of whole warps, the same in every thread, in a fixed order. `scratch`
// holds one number a warp; the block passes a barrier before and after it is used.
__device__ __forceinline__ real block_sum(real value, real *scratch) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    value = warp_sum(value);
    __syncthreads();
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    real sum = 0;
    for (int w = 0; w < warps; w++) sum += scratch[w];
    return sum;
}

// The images of slice s of S, from first to end.
__device__ __forceinline__ void slice_of(int s, int S, int N, int &first, int &end) {
    first = int((long long)N * s / S);
    end = int((long long)N * (s + 1) / S);
}

// How many numbers, their mean, and Σ (number − mean)². No digits are lost to a large mean or to a
// number far from the others, as they are to Σ number² (Chan, Golub, LeVeque 1979).
template <typename T> struct Moments {
    T count, mean, squares;
    __device__ __forceinline__ void merge(const Moments &other) {
        if (other.count == 0) return;
        const T d = other.mean - mean, total = count + other.count, share = other.count / total;
        mean += d * share;
        squares += other.squares + d * d * count * share;
        count = total;
    }
    // Those of a warp, in its first lane: a fixed tree.
    __device__ __forceinline__ void merge_warp() {
        for (int distance = WARP / 2; distance > 0; distance /= 2) {
            const Moments other = {__shfl_down_sync(ALL_LANES, count, distance),
                                   __shfl_down_sync(ALL_LANES, mean, distance),
                                   __shfl_down_sync(ALL_LANES, squares, distance)};
            merge(other);
        }
    }
};

// What a block finds of a channel, for another kernel to merge.
__device__ __forceinline__ void put_moments(real *p, const Moments<real> &of) {
    p[0] = of.count;
    p[1] = of.mean;
    p[2] = of.squares;
}
template <typename T> __device__ __forceinline__ Moments<T> moments_at(const real *p) {
    return Moments<T>{T(p[0]), T(p[1]), T(p[2])};
}
