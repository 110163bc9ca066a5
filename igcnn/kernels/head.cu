// The end of a network; formulas and shapes: head.py.
//
// | kernel  | a block has | a thread computes                                                   |
// |---------|-------------|---------------------------------------------------------------------|
// | head_v1 | 256 images  | an image: the same bytes, but few threads have work, one number     |
// |         |             | after another, and neighbours read far apart                        |
// | head_v2 | an image    | its share of a mean, of a logit, of the softmax; numbers of gy      |
// Shipped: v2; v1 is the readable reference.
//
// v2 compiled for sm_90. Limits as in interleaved_group_convolution.cu: 4.3 TB/s, 55 % of
// 67 TFLOP/s. For 64 images of 8×8, C = 192, K = 10.
//
// | kernel                 | registers | shared KB |  MB  | GFLOP | µs memory | µs arithmetic |
// |---|---|---|---|---|---|---|
// | head_v2                |        48 |       0.8 |  6.3 |  0.00 |       1.5 |           0.0 |
#include "common.cuh"

// The end of a network: mean of each channel, classifier, softmax, loss, and back to the gradient
// of its input. y: (N, C, pixels); kept for the weights' gradient: pooled, (N, C), and glogits,
// (N, K). right[n]: whether the label has the largest logit. smoothing: ε of label smoothing.
extern "C" __global__ void __launch_bounds__(256, 1)
head_v1(const stored *__restrict__ y,    // [N][C][pixels]
        const real *__restrict__ w,      // [K][C]
        const real *__restrict__ b,      // [K]
        const int *__restrict__ labels,  // [N]
        real *__restrict__ pooled,       // [N][C]
        real *__restrict__ glogits,      // [N][K]
        real *__restrict__ losses,       // [N]
        real *__restrict__ right,        // [N]
        stored *__restrict__ gy,         // [N][C][pixels]
        int N, int C, int K, int pixels, real smoothing) {
    const real each = smoothing / K, whole = 1 - smoothing + each;
    for (int n = first_index(); n < N; n += index_step()) {
        real *means = pooled + n * C, *logits = glogits + n * K;
        for (int c = 0; c < C; c++) {
            real sum = 0;
            for (int i = 0; i < pixels; i++) sum += get(y + (n * C + c) * pixels + i);
            means[c] = sum / pixels;
        }
        for (int k = 0; k < K; k++) {
            real sum = b[k];
            for (int c = 0; c < C; c++) sum += means[c] * w[k * C + c];
            logits[k] = sum;
        }
        const int label = labels[n];
        const real own = logits[label];
        real largest = logits[0], sum = 0, ahead = 0, mean = 0;
        for (int k = 1; k < K; k++) largest = larger(logits[k], largest);
        for (int k = 0; k < K; k++) {
            const real z = logits[k];
            sum += exp(z - largest);
            mean += z / K;
            ahead += !(z <= own) || (z == own && k < label) ? real(1) : real(0);
        }
        losses[n] = log(sum) - (own - largest);
        if (smoothing != 0) losses[n] += smoothing * (own - mean);
        right[n] = ahead == 0 ? real(1) : real(0);
        for (int k = 0; k < K; k++)
            logits[k] = (exp(logits[k] - largest) / sum - (k == label ? whole : each)) / N;
        for (int c = 0; c < C; c++) {
            real g = 0;
            for (int k = 0; k < K; k++) g += logits[k] * w[k * C + c];
            for (int i = 0; i < pixels; i++) put(gy + (n * C + c) * pixels + i, g / pixels);
        }
    }
}

const int LANES = 8;  // that share a channel

// The same, an image a block; warps take four channels at a time.
extern "C" __global__ void __launch_bounds__(512, 1)
head_v2(const stored *__restrict__ y,    // [N][C][pixels]
        const real *__restrict__ w,      // [K][C]
        const real *__restrict__ b,      // [K]
        const int *__restrict__ labels,  // [N]
        real *__restrict__ pooled,       // [N][C]
        real *__restrict__ glogits,      // [N][K]
        real *__restrict__ losses,       // [N]
        real *__restrict__ right,        // [N]
        stored *__restrict__ gy,         // [N][C][pixels]
        int N, int C, int K, int pixels, real smoothing) {
    DYNAMIC_SHARED(real, memory);
    real *means = memory, *logits = memory + C;  // C and K numbers
    const int n = blockIdx.x, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int warps = blockDim.x / WARP, channel = threadIdx.x / LANES;
    const int sub = threadIdx.x % LANES;
    const int width = pixels % 4 ? 1 : 4;  // numbers of a load
    for (int first = 0; first < C; first += blockDim.x / LANES) {
        const int c = first + channel;
        const stored *plane = y + (n * C + c) * pixels;
        real sum = 0;
        if (c < C && width == 4) {
#pragma unroll 2
            for (int i = 4 * sub; i < pixels; i += 4 * LANES) {
                const Quad four = quad_at(plane + i);
                sum += four.x + four.y + (four.z + four.w);
            }
        } else if (c < C)
            for (int i = sub; i < pixels; i += LANES) sum += get(plane + i);
        for (int distance = LANES / 2; distance > 0; distance /= 2)
            sum += __shfl_xor_sync(ALL_LANES, sum, distance);
        if (c < C && sub == 0) {
            means[c] = sum / pixels;
            pooled[n * C + c] = sum / pixels;
        }
    }
    __syncthreads();
    for (int k = warp; k < K; k += warps) {
        real sum = 0;
        for (int c = lane; c < C; c += WARP) sum += means[c] * w[k * C + c];
        sum = warp_sum(sum) + b[k];
        if (lane == 0) logits[k] = sum;
    }
    __syncthreads();
    if (warp == 0) {
        real largest = logits[0];
        for (int k = lane; k < K; k += WARP) largest = larger(logits[k], largest);
        for (int distance = WARP / 2; distance > 0; distance /= 2)
            largest = larger(__shfl_xor_sync(ALL_LANES, largest, distance), largest);
        const int label = labels[n];
        const real own = logits[label];
        const real each = smoothing / K, whole = 1 - smoothing + each;
        real sum = 0, ahead = 0, mean = 0;
        for (int k = lane; k < K; k += WARP) {
            real z = logits[k];
            sum += exp(z - largest);
            if (smoothing != 0) mean += z;
            ahead += !(z <= own) || (z == own && k < label) ? real(1) : real(0);
        }
        sum = warp_sum(sum);
        ahead = warp_sum(ahead);
        if (smoothing != 0) mean = warp_sum(mean) / K;  // the same branch in all lanes
        __syncwarp();
        for (int k = lane; k < K; k += WARP) {
            real z = logits[k];
            logits[k] = (exp(z - largest) / sum - (k == label ? whole : each)) / N;
            glogits[n * K + k] = logits[k];
        }
        if (lane == 0) {
            losses[n] = log(sum) - (own - largest);
            if (smoothing != 0) losses[n] += smoothing * (own - mean);
            right[n] = ahead == 0 ? real(1) : real(0);
        }
    }
    __syncthreads();
    for (int c = threadIdx.x; c < C; c += blockDim.x) {  // the means are not needed any more
        real sum = 0;
#pragma unroll 5
        for (int k = 0; k < K; k++) sum += logits[k] * w[k * C + c];
        means[c] = sum / pixels;
    }
    __syncthreads();
    stored *gradients = gy + n * C * pixels;
    if (width == 4) {
        for (int k = threadIdx.x; k < C * (pixels / 4); k += blockDim.x) {
            const real g = means[k / (pixels / 4)];
            put_quad(gradients + 4 * k, Quad{g, g, g, g});
        }
    } else
        for (int k = threadIdx.x; k < C * pixels; k += blockDim.x)
            put(gradients + k, means[k / pixels]);
}
