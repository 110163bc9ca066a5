// Pooling; formulas and shapes: pooling.py. Backward gathers, a thread for each pixel of x, so
// that no two threads write one number.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256, 1)
max_pool_forward(const stored *__restrict__ x, stored *__restrict__ y, int *__restrict__ argmax,
                 int planes, int H, int W, int OH, int OW, int K, int stride, int padding) {
    for (int k = first_index(); k < planes * OH * OW; k += index_step()) {
        int plane = k / OW / OH, top = k / OW % OH * stride - padding;
        int left = k % OW * stride - padding, winner = -1;
        real best = 0;
        for (int a = 0; a < K; a++)
            for (int b = 0; b < K; b++) {
                int i = top + a, j = left + b;
                if (i < 0 || i >= H || j < 0 || j >= W) continue;
                real value = get(x + (plane * H + i) * W + j);
                // a NaN wins against any number, and stays
                bool wins = value > best || (isnan(value) && !isnan(best));
                if (winner < 0 || wins) best = value, winner = a * K + b;
            }
        put(y + k, best);
        argmax[k] = winner;
    }
}

extern "C" __global__ void __launch_bounds__(256, 1)
max_pool_backward(const stored *__restrict__ gy, const int *__restrict__ argmax,
                  stored *__restrict__ gx, int planes, int H, int W, int OH, int OW, int K,
                  int stride, int padding) {
    for (int k = first_index(); k < planes * H * W; k += index_step()) {
        int plane = k / W / H, i = k / W % H + padding, j = k % W + padding;
        real sum = 0;
        for (int a = i % stride; a < K && a <= i; a += stride)
            for (int b = j % stride; b < K && b <= j; b += stride) {
                int oi = (i - a) / stride, oj = (j - b) / stride;
                if (oi >= OH || oj >= OW) continue;
                int window = (plane * OH + oi) * OW + oj;
                if (argmax[window] == a * K + b) sum += get(gy + window);
            }
        put(gx + k, sum);
    }
}

extern "C" __global__ void __launch_bounds__(256, 1)
average_pool_forward(const stored *__restrict__ x, stored *__restrict__ y, int planes, int H,
                     int W, int OH, int OW, int K, int stride, int padding) {
    for (int k = first_index(); k < planes * OH * OW; k += index_step()) {
        int plane = k / OW / OH, top = k / OW % OH * stride - padding;
        int left = k % OW * stride - padding;
        real sum = 0;
        for (int i = max(top, 0); i < min(top + K, H); i++)
            for (int j = max(left, 0); j < min(left + K, W); j++)
                sum += get(x + (plane * H + i) * W + j);
        put(y + k, sum / (K * K));
    }
}

extern "C" __global__ void __launch_bounds__(256, 1)
average_pool_backward(const stored *__restrict__ gy, stored *__restrict__ gx, int planes, int H,
                      int W, int OH, int OW, int K, int stride, int padding) {
    for (int k = first_index(); k < planes * H * W; k += index_step()) {
        int plane = k / W / H, i = k / W % H + padding, j = k % W + padding;
        real sum = 0;
        for (int a = i % stride; a < K && a <= i; a += stride)
            for (int b = j % stride; b < K && b <= j; b += stride) {
                int oi = (i - a) / stride, oj = (j - b) / stride;
                if (oi < OH && oj < OW) sum += get(gy + (plane * OH + oi) * OW + oj);
            }
        put(gx + k, sum / (K * K));
    }
}

// One warp a plane.
extern "C" __global__ void __launch_bounds__(256, 1)
global_average_pool_forward(const stored *__restrict__ x, stored *__restrict__ y, int planes,
                            int pixels) {
    int plane = first_index() / WARP, lane = threadIdx.x % WARP;
    if (plane >= planes) return;
    real sum = 0;
    for (int i = lane; i < pixels; i += WARP) sum += get(x + plane * pixels + i);
    sum = warp_sum(sum);
    if (lane == 0) put(y + plane, sum / pixels);
}

extern "C" __global__ void __launch_bounds__(256, 1)
global_average_pool_backward(const stored *__restrict__ gy, stored *__restrict__ gx, int planes,
                             int pixels) {
    for (int i = first_index(); i < planes * pixels; i += index_step())
        put(gx + i, get(gy + i / pixels) / pixels);
}
