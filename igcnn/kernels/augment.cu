// From stored bytes to the network's input; formula and shapes: augment.py. The images of the
// whole data set stay in device memory. Which are taken, and how each is cropped and mirrored,
// follows from (seed, epoch, sample) alone, as on the CPU: philox.py.
#include "common.cuh"

struct Words {
    unsigned a, b, c, d;
};

// Philox4x32-10 of counter (a, b, c, d) and key (k0, k1).
__device__ __forceinline__ Words philox(Words x, unsigned k0, unsigned k1) {
    for (int round = 0; round < 10; round++) {
        unsigned low0 = 0xD2511F53u * x.a, high0 = __umulhi(0xD2511F53u, x.a);
        unsigned low1 = 0xCD9E8D57u * x.c, high1 = __umulhi(0xCD9E8D57u, x.c);
        x = {high1 ^ x.b ^ k0, low1, high0 ^ x.d ^ k1, low0};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return x;
}

// x[n] from image order[position[0] + n], counted around the end of `order`. state = (position,
// seed low, seed high, epoch), in device memory; limits = pad; images: (count, 3, H, W).
extern "C" __global__ void __launch_bounds__(256, 1)
augment(const unsigned char *__restrict__ images, const int *__restrict__ all_labels,
        const int *__restrict__ order, const unsigned *__restrict__ state,
        const float *__restrict__ mean, const float *__restrict__ std,
        stored *__restrict__ x, int *__restrict__ labels, int N, int count, int H, int W, int pad,
        int mirror, int stream) {
    int n = blockIdx.x;
    int sample = order[(state[0] + unsigned(n)) % unsigned(count)];
    int top = pad, left = pad, flip = 0;
    if (pad || mirror) {
        Words words = philox({unsigned(sample), state[3], unsigned(stream), 0}, state[1], state[2]);
        top = int(__umulhi(words.a, 2 * pad + 1));
        left = int(__umulhi(words.b, 2 * pad + 1));
        flip = mirror && int(words.c >> 31);
    }
    if (threadIdx.x == 0) labels[n] = all_labels[sample];
    for (int i = threadIdx.x; i < 3 * H * W; i += blockDim.x) {
        int c = i / W / H, row = i / W % H + top - pad, column = i % W;
        column = (flip ? W - 1 - column : column) + left - pad;
        bool inside = row >= 0 && row < H && column >= 0 && column < W;
        // outside lies the mean colour, rounded
        float pixel = inside ? float(images[((sample * 3 + c) * H + row) * W + column])
                             : rintf(mean[c]);
        put(x + n * 3 * H * W + i, (pixel - mean[c]) / std[c]);
    }
}
