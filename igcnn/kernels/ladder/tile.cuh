// What rungs 2 and 3 have in common: what a block holds in shared memory, and how it loads it.
//
// A block takes a tile, ROWS × COLUMNS pixels of one image in all C channels. A 3×3 convolution
// also needs the pixels around the tile, a halo of one pixel.
#include "../common.cuh"

const int C = L * M;
const int HEIGHT = ROWS + 2, WIDTH = COLUMNS + 2;  // with the halo
const int PIXELS = ROWS * COLUMNS;                 // without

// Numbers from one channel of a tile without halo to the next. Shared memory has 32 banks,
// neighbouring numbers lie in neighbouring ones, and a bank serves one address at a time. With
// PIXELS, a multiple of 32, one pixel of all channels would lie in one bank, and the threads of a
// warp that read it would wait for each other. One number more puts them into different banks.
const int PLANE = PIXELS + 1;

struct Weights {
    real w1[C][M][9];  // [l·M + m][c][tap]
    real w2[M][L][L];  // [m][o][l]
};

struct ForwardTile {
    Weights weights;
    real x[C][HEIGHT][WIDTH];
    real p[C][PLANE];
};

struct InputTile {
    Weights weights;
    real gz[C][HEIGHT][WIDTH];
    real gp[C][HEIGHT][WIDTH];  // gx takes gp at nine pixels, so gp has a halo, too
};

struct WeightTile {
    Weights weights;
    real x[C][HEIGHT][WIDTH];
    real gz[C][PLANE];
    real p[C][PLANE];
    real gp[C][PLANE];
};

// Where a tile lies: in image n, its first pixel at (top, left).
struct Place {
    int n, top, left;
};

__device__ int tiles_of(int N, int H, int W) {
    return N * ((H + ROWS - 1) / ROWS) * ((W + COLUMNS - 1) / COLUMNS);
}

__device__ Place place_of(int tile, int H, int W) {
    const int down = (H + ROWS - 1) / ROWS, across = (W + COLUMNS - 1) / COLUMNS;
    return {tile / across / down, tile / across % down * ROWS, tile % across * COLUMNS};
}

// Copies `count` numbers; the threads of the block take turns, neighbours have neighbours.
__device__ void load(real *to, const real *from, int count) {
    for (int k = threadIdx.x; k < count; k += THREADS) to[k] = from[k];
}

__device__ void load_weights(Weights &to, const real *w1, const real *w2) {
    load(to.w1[0][0], w1, C * M * 9);
    load(to.w2[0][0], w2, C * L);
}

// Copies a tile with EDGE pixels of halo to shared memory, `plane` numbers from one channel to the
// next; zeros where it hangs over the image. Every number is loaded once, by whichever thread comes
// to it: who needs it does not matter here.
template <int EDGE>
__device__ void load_tile(real *to, int plane, const stored *image, Place at, int H, int W) {
    const int height = ROWS + 2 * EDGE, width = COLUMNS + 2 * EDGE;
    for (int k = threadIdx.x; k < C * height * width; k += THREADS) {
        const int c = k / (height * width), i = k / width % height, j = k % width;
        const int row = at.top + i - EDGE, column = at.left + j - EDGE;
        const bool inside = row >= 0 && row < H && column >= 0 && column < W;
        to[c * plane + i * width + j] =
            inside ? get(image + ((at.n * C + c) * H + row) * W + column) : real(0);
    }
}
