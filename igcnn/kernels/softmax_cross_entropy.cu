// Mean cross-entropy of the softmax; formula and shapes: softmax_cross_entropy.py.
#include "common.cuh"

// One warp an image; the lanes share the classes.
extern "C" __global__ void __launch_bounds__(256, 1)
softmax_forward(const stored *__restrict__ logits,  // [N][K]
                const int *__restrict__ labels,     // [N]
                real *__restrict__ probabilities,   // [N][K]
                real *__restrict__ losses,          // [N]
                int N, int K, real smoothing) {
    int n = first_index() / WARP, lane = threadIdx.x % WARP;
    if (n >= N) return;
    const stored *row = logits + n * K;
    real largest = get(row);
    for (int k = lane; k < K; k += WARP) largest = larger(get(row + k), largest);
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        largest = larger(__shfl_xor_sync(ALL_LANES, largest, distance), largest);
    real sum = 0;
    for (int k = lane; k < K; k += WARP) {
        real e = exp(get(row + k) - largest);
        probabilities[n * K + k] = e;
        sum += e;
    }
    sum = warp_sum(sum);
    for (int k = lane; k < K; k += WARP) probabilities[n * K + k] /= sum;
    real mean = 0;  // of the logits
    if (smoothing != 0) {  // the same branch in all lanes
        for (int k = lane; k < K; k += WARP) mean += get(row + k);
        mean = warp_sum(mean) / K;
    }
    if (lane == 0) {
        const real own = get(row + labels[n]);
        losses[n] = log(sum) - (own - largest);
        if (smoothing != 0) losses[n] += smoothing * (own - mean);
    }
}

// The mean of the losses, by one block.
extern "C" __global__ void __launch_bounds__(256, 1)
mean_loss(const real *__restrict__ losses,  // [N]
          real *__restrict__ loss,          // [1]
          int N) {
    __shared__ real scratch[256 / WARP];
    real sum = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) sum += losses[n];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) *loss = sum / N;
}

extern "C" __global__ void __launch_bounds__(256, 1)
softmax_cross_entropy_backward(const real *__restrict__ gloss,          // [1]
                               const real *__restrict__ probabilities,  // [N][K]
                               const int *__restrict__ labels,          // [N]
                               stored *__restrict__ glogits,            // [N][K]
                               int N, int K, real smoothing) {
    const real each = smoothing / K, whole = 1 - smoothing + each;
    for (int i = first_index(); i < N * K; i += index_step()) {
        real target = i % K == labels[i / K] ? whole : each;
        put(glogits + i, (probabilities[i] - target) * (*gloss / N));
    }
}

// results[slot] = mean loss and right answers of a batch; then state goes on to the next batch.
// state = (position in the epoch's order, seed low, seed high, epoch, updates): slot is the last
// modulo `slots`. By one block.
extern "C" __global__ void __launch_bounds__(256, 1)
record_result(const real *__restrict__ losses,  // [N]
              const real *__restrict__ right,   // [N]
              real *__restrict__ results,       // [slots][2]
              unsigned *__restrict__ state,     // [5]
              int N, int slots) {
    __shared__ real scratch[256 / WARP];
    real sum = 0, hits = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) {
        sum += losses[n];
        hits += right[n];
    }
    sum = block_sum(sum, scratch);
    hits = block_sum(hits, scratch);
    if (threadIdx.x == 0) {
        unsigned slot = state[4] % unsigned(slots);
        results[2 * slot] = sum / N;
        results[2 * slot + 1] = hits;
        state[0] += unsigned(N);
        state[4] += 1;
    }
}
