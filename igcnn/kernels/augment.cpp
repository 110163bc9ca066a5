// From stored bytes to the network's input: pad, crop, mirror, normalize; formula: augment.py.
//
//     x = (pixel − mean) / std
//
// x is [blocks][H][3][W]. Which image a sample is and how it is cropped and mirrored is a function
// of (seed, epoch, sample) alone, with the bits of philox.py. A pixel has 256 values, so the
// normalized ones are computed once a job and looked up, and are in float as those of the loader.
#include <math.h>
#include <stdint.h>

#include "common.hpp"

struct Words {
    uint32_t a, b, c, d;
};

// Philox4x32-10 of a counter and a key.
static inline Words philox(Words x, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; round++) {
        const uint64_t product0 = (uint64_t)0xD2511F53 * x.a;
        const uint64_t product1 = (uint64_t)0xCD9E8D57 * x.c;
        x = {(uint32_t)(product1 >> 32) ^ x.b ^ key0, (uint32_t)product1,
             (uint32_t)(product0 >> 32) ^ x.d ^ key1, (uint32_t)product0};
        key0 += 0x9E3779B9;
        key1 += 0xBB67AE85;
    }
    return x;
}

// A whole number from 0 to limit − 1.
static inline int below(uint32_t word, int limit) {
    return (int)((uint64_t)word * (uint32_t)limit >> 32);
}

struct Augment {
    const unsigned char *images;  // [count][3][H][W]
    const int *labels;            // [count]
    const int *order;             // [count]: samples in the order of the epoch
    const unsigned *state;        // position in the order, seed low, seed high, epoch
    const float *mean;            // [3], 0 to 255
    const float *std;             // [3], likewise
    V *x;                         // [blocks][H][3][W], 0 in lanes without image
    int *batch_labels;            // [N]
    int N, count, H, W;
    int pad;                      // pixels added on each side before the crop
    int mirror;                   // whether half of the images are mirrored
    int stream;                   // third word of the counter
    Batch batch;
};

struct Crop {
    const unsigned char *image;
    int top, left, flip;  // top and left from −pad to pad
};

KERNEL(augment, Augment) {
    const int block = block_of(a.batch, job), images = images_of(a.batch, block);
    const Rows rows = rows_of(a.batch, job, a.H);
    const Size plane = (Size)a.H * a.W;
    Crop crops[LANES];
    for (int i = 0; i < images; i++) {
        const unsigned n = block * LANES + i;
        // counted around the end of the order
        const int sample = a.order[(a.state[0] + n) % (unsigned)a.count];
        if (job % a.batch.slices == 0) a.batch_labels[n] = a.labels[sample];
        Crop &crop = crops[i];
        crop = {a.images + sample * 3 * plane, 0, 0, 0};
        if (a.pad || a.mirror) {
            const Words words = philox({(uint32_t)sample, a.state[3], (uint32_t)a.stream, 0},
                                       a.state[1], a.state[2]);
            crop.top = below(words.a, 2 * a.pad + 1) - a.pad;
            crop.left = below(words.b, 2 * a.pad + 1) - a.pad;
            crop.flip = a.mirror && words.c >> 31;
        }
    }
    real values[3][256], fills[3];
    for (int c = 0; c < 3; c++) {
        const float mean = a.mean[c], std = a.std[c];
        for (int p = 0; p < 256; p++) values[c][p] = ((float)p - mean) / std;
        fills[c] = (rintf(mean) - mean) / std;  // outside lies the mean colour, rounded
    }
    for (int r = rows.first; r < rows.last; r++)
        for (int c = 0; c < 3; c++) {
            V *x = a.x + (((Size)block * a.H + r) * 3 + c) * a.W;
            if (images < LANES) clear(x, a.W);
            for (int i = 0; i < images; i++) {
                const Crop &crop = crops[i];
                const int row = r + crop.top;
                const bool inside = row >= 0 && row < a.H;
                const unsigned char *from = crop.image + c * plane + (inside ? row * a.W : 0);
                real *to = (real *)x + i;
                for (int j = 0; j < a.W; j++, to += LANES) {
                    const int column = (crop.flip ? a.W - 1 - j : j) + crop.left;
                    *to = inside && column >= 0 && column < a.W ? values[c][from[column]]
                                                                : fills[c];
                }
            }
        }
}
