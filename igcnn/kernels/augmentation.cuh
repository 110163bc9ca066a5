// Which image a sample of a batch is and how it is cropped and mirrored: a function of (seed,
// epoch, sample) alone, as on the CPU (philox.py). The images of the whole data set stay in
// device memory. After common.cuh.

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

struct Crop {
    int sample, top, left, flip;  // top and left from −pad to pad

    // Image n of the batch is image order[position + n], counted around the end of `order`.
    // state = (position, seed low, seed high, epoch), in device memory.
    __device__ __forceinline__ Crop(const int *order, const unsigned *state, int n, int count,
                                    int pad, int mirror, int stream) {
        sample = order[(state[0] + unsigned(n)) % unsigned(count)];
        top = left = flip = 0;
        if (pad || mirror) {
            Words words =
                philox({unsigned(sample), state[3], unsigned(stream), 0}, state[1], state[2]);
            top = int(__umulhi(words.a, 2 * pad + 1)) - pad;
            left = int(__umulhi(words.b, 2 * pad + 1)) - pad;
            flip = mirror && int(words.c >> 31);
        }
    }

    // The normalised pixel at (row, column) of colour c; outside lies the mean colour, rounded.
    __device__ __forceinline__ float at(const unsigned char *images, const float *mean,
                                        const float *std, int c, int row, int column, int H,
                                        int W) const {
        row += top;
        column = (flip ? W - 1 - column : column) + left;
        bool inside = row >= 0 && row < H && column >= 0 && column < W;
        float pixel = inside ? float(images[((sample * 3 + c) * H + row) * W + column])
                             : rintf(mean[c]);
        return (pixel - mean[c]) / std[c];
    }
};
