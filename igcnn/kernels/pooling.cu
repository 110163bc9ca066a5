// Pooling; formulas and shapes: pooling.py. Backward gathers, a thread for each pixel of x, so
// that no two threads write one number.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256, 1)
max_pool_forward(const stored *__restrict__ x,  // [planes][H][W]
                 stored *__restrict__ y,        // [planes][OH][OW]
                 int *__restrict__ argmax,      // [planes][OH][OW]
                 int planes, int H, int W, int OH, int OW, int KH, int KW, int stride_y,
                 int stride_x, int pad_y, int pad_x) {
    for (int k = first_index(); k < planes * OH * OW; k += index_step()) {
        int plane = k / OW / OH, top = k / OW % OH * stride_y - pad_y;
        int left = k % OW * stride_x - pad_x, winner = -1;
        real best = 0;
        for (int a = 0; a < KH; a++)
            for (int b = 0; b < KW; b++) {
                int i = top + a, j = left + b;
                if (i < 0 || i >= H || j < 0 || j >= W) continue;
                real value = get(x + (plane * H + i) * W + j);
                // a NaN wins against any number, and stays
                bool wins = value > best || (isnan(value) && !isnan(best));
                if (winner < 0 || wins) best = value, winner = a * KW + b;
            }
        put(y + k, best);
        argmax[k] = winner;
    }
}

extern "C" __global__ void __launch_bounds__(256, 1)
max_pool_backward(const stored *__restrict__ gy,   // [planes][OH][OW]
                  const int *__restrict__ argmax,  // [planes][OH][OW]
                  stored *__restrict__ gx,         // [planes][H][W]
                  int planes, int H, int W, int OH, int OW, int KH, int KW, int stride_y,
                  int stride_x, int pad_y, int pad_x) {
    for (int k = first_index(); k < planes * H * W; k += index_step()) {
        int plane = k / W / H, i = k / W % H + pad_y, j = k % W + pad_x;
        real sum = 0;
        for (int a = i % stride_y; a < KH && a <= i; a += stride_y)
            for (int b = j % stride_x; b < KW && b <= j; b += stride_x) {
                int oi = (i - a) / stride_y, oj = (j - b) / stride_x;
                if (oi >= OH || oj >= OW) continue;
                int window = (plane * OH + oi) * OW + oj;
                if (argmax[window] == a * KW + b) sum += get(gy + window);
            }
        put(gx + k, sum);
    }
}

// The pixels of a window that lie in the image, and what their sum is divided by.
struct Window {
    int top, bottom, left, right, terms;
    __device__ __forceinline__ Window(int i, int j, int H, int W, int KH, int KW, int stride_y,
                                      int stride_x, int pad_y, int pad_x, int count_include_pad) {
        const int row = i * stride_y - pad_y, column = j * stride_x - pad_x;
        top = max(row, 0), bottom = min(row + KH, H);
        left = max(column, 0), right = min(column + KW, W);
        terms = count_include_pad ? KH * KW : (bottom - top) * (right - left);
    }
};

extern "C" __global__ void __launch_bounds__(256, 1)
average_pool_forward(const stored *__restrict__ x,  // [planes][H][W]
                     stored *__restrict__ y,        // [planes][OH][OW]
                     int planes, int H, int W, int OH, int OW, int KH, int KW, int stride_y,
                     int stride_x, int pad_y, int pad_x, int count_include_pad) {
    for (int k = first_index(); k < planes * OH * OW; k += index_step()) {
        int plane = k / OW / OH;
        const Window of(k / OW % OH, k % OW, H, W, KH, KW, stride_y, stride_x, pad_y, pad_x,
                        count_include_pad);
        real sum = 0;
        for (int i = of.top; i < of.bottom; i++)
            for (int j = of.left; j < of.right; j++) sum += get(x + (plane * H + i) * W + j);
        put(y + k, sum / of.terms);
    }
}

extern "C" __global__ void __launch_bounds__(256, 1)
average_pool_backward(const stored *__restrict__ gy,  // [planes][OH][OW]
                      stored *__restrict__ gx,        // [planes][H][W]
                      int planes, int H, int W, int OH, int OW, int KH, int KW, int stride_y,
                      int stride_x, int pad_y, int pad_x, int count_include_pad) {
    for (int k = first_index(); k < planes * H * W; k += index_step()) {
        int plane = k / W / H, i = k / W % H + pad_y, j = k % W + pad_x;
        real sum = 0;
        for (int a = i % stride_y; a < KH && a <= i; a += stride_y)
            for (int b = j % stride_x; b < KW && b <= j; b += stride_x) {
                int oi = (i - a) / stride_y, oj = (j - b) / stride_x;
                if (oi >= OH || oj >= OW) continue;
                const Window of(oi, oj, H, W, KH, KW, stride_y, stride_x, pad_y, pad_x,
                                count_include_pad);
                sum += get(gy + (plane * OH + oi) * OW + oj) / of.terms;
            }
        put(gx + k, sum);
    }
}

// One warp a plane.
extern "C" __global__ void __launch_bounds__(256, 1)
global_average_pool_forward(const stored *__restrict__ x,  // [planes][pixels]
                            stored *__restrict__ y,        // [planes]
                            int planes, int pixels) {
    int plane = first_index() / WARP, lane = threadIdx.x % WARP;
    if (plane >= planes) return;
    real sum = 0;
    for (int i = lane; i < pixels; i += WARP) sum += get(x + plane * pixels + i);
    sum = warp_sum(sum);
    if (lane == 0) put(y + plane, sum / pixels);
}

extern "C" __global__ void __launch_bounds__(256, 1)
global_average_pool_backward(const stored *__restrict__ gy,  // [planes]
                             stored *__restrict__ gx,        // [planes][pixels]
                             int planes, int pixels) {
    for (int i = first_index(); i < planes * pixels; i += index_step())
        put(gx + i, get(gy + i / pixels) / pixels);
}
