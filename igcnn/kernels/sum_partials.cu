// What blocks have left of gradients, added up; formula: sum_partials.py.
//
// A row of `table`: where the parts of a gradient begin in `partials` and the gradient in `sums`,
// how many numbers it has, and how many parts there are of each. The warps of a block share the
// parts of 32·VEC numbers; how they do depends on the number of parts alone.
// grid: blocks that the longest row needs × rows.
// variants: VEC=1,4
// VEC: numbers side by side that a thread adds up; it divides those of every gradient.
#include "common.cuh"

struct Several {
    real values[VEC];
};

__device__ __forceinline__ Several several_at(const real *p) {
    Several several;
    if constexpr (VEC == 4) {
        const Quad quad = quad_at(p);
        several.values[0] = quad.x;
        several.values[1] = quad.y;
        several.values[2] = quad.z;
        several.values[3] = quad.w;
    } else {
        several.values[0] = *p;
    }
    return several;
}

extern "C" __global__ void __launch_bounds__(256, 1)
sum_partials(const real *__restrict__ partials,  // [...]
             real *__restrict__ sums,            // [...]
             const int *__restrict__ table       // [gridDim.y][4]
) {
    __shared__ Several scratch[256 / WARP][WARP];
    const int warps = 256 / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int *row = table + 4 * blockIdx.y;
    const int from = row[0], to = row[1], count = row[2], S = row[3];
    const int k = (blockIdx.x * WARP + lane) * VEC;
    if (blockIdx.x * WARP * VEC >= count) return;
    Several total = {};
    if (k < count) {
#pragma unroll 8
        for (int s = warp; s < S; s += warps) {
            const Several part = several_at(partials + from + s * count + k);
#pragma unroll
            for (int j = 0; j < VEC; j++) total.values[j] += part.values[j];
        }
    }
    scratch[warp][lane] = total;
    __syncthreads();
    if (warp || k >= count) return;
    for (int w = 1; w < warps; w++)
#pragma unroll
        for (int j = 0; j < VEC; j++) total.values[j] += scratch[w][lane].values[j];
#pragma unroll
    for (int j = 0; j < VEC; j++) sums[to + k + j] = total.values[j];
}
