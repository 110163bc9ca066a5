// Fully connected layer; formula and shapes: linear.py. One warp computes one number: its lanes
// share the terms of the sum.
#include "common.cuh"

__device__ __forceinline__ int warp_index() { return first_index() / WARP; }

extern "C" __global__ void __launch_bounds__(256, 1)
linear_forward(const stored *__restrict__ x,  // [N][I]
               const real *__restrict__ w,    // [O][I]
               const real *__restrict__ b,    // or null: [O]
               stored *__restrict__ y,        // [N][O]
               int N, int I, int O, int has_bias) {
    int number = warp_index(), lane = threadIdx.x % WARP;
    if (number >= N * O) return;
    int n = number / O, o = number % O;
    real sum = 0;
    for (int i = lane; i < I; i += WARP) sum += get(x + n * I + i) * w[o * I + i];
    sum = warp_sum(sum);
    if (lane == 0) put(y + number, has_bias ? sum + b[o] : sum);
}

// Neighbouring threads take neighbouring inputs, so w is read in runs.
extern "C" __global__ void __launch_bounds__(256, 1)
linear_backward_input(const stored *__restrict__ gy,  // [N][O]
                      const real *__restrict__ w,     // [O][I]
                      stored *__restrict__ gx,        // [N][I]
                      int N, int I, int O) {
    for (int k = first_index(); k < N * I; k += index_step()) {
        int n = k / I, i = k % I;
        real sum = 0;
        for (int o = 0; o < O; o++) sum += get(gy + n * O + o) * w[o * I + i];
        put(gx + k, sum);
    }
}

extern "C" __global__ void __launch_bounds__(256, 1)
linear_backward_weight(const stored *__restrict__ gy,  // [N][O]
                       const stored *__restrict__ x,   // [N][I]
                       real *__restrict__ gw,          // [O][I]
                       int N, int I, int O) {
    for (int k = first_index(); k < O * I; k += index_step()) {
        int o = k / I, i = k % I;
        real sum = 0;
        for (int n = 0; n < N; n++) sum += get(gy + n * O + o) * get(x + n * I + i);
        gw[k] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(256, 1)
linear_backward_bias(const stored *__restrict__ gy,  // [N][O]
                     real *__restrict__ gb,          // [O]
                     int N, int O) {
    int o = warp_index(), lane = threadIdx.x % WARP;
    if (o >= O) return;
    real sum = 0;
    for (int n = lane; n < N; n += WARP) sum += get(gy + n * O + o);
    sum = warp_sum(sum);
    if (lane == 0) gb[o] = sum;
}
