// Channel-wise 3×3 convolution of stride 1 and padding 1, and its gradients (formulas:
// convolution.py; channelwise.py says when these kernels are used).
//
//     z[c, i, j] = Σ_{a, b} w[c, a, b] · x[c, i + a − 1, j + b − 1]
//
// Nothing is shared between channels, and with nine products a pixel memory decides. So a job
// takes one channel after another from the first row to the last: each row is read once, three
// stay in the L1 cache, and those that follow are fetched meanwhile. The slices of a block are of
// its channels.
#include "convolution.hpp"

static const int TAPS = 9;
static const int ROWS = 3;  // that the taps of a pixel reach

// Three rows of one channel between columns of zeros, and a row of zeros: [ROWS + 1][line].
struct RowRing {
    V *x;
    Size line;
    int H;

    RowRing() {}
    RowRing(int H, int W, Memory &memory) : line(W + 2), H(H) {
        x = memory.take((ROWS + 1) * line);
    }
    void clear_halo() const { clear(x, (ROWS + 1) * line); }
    Size slot(int i) const { return (i < 0 || i >= H ? ROWS : i % ROWS) * line; }
    V *row(int i) const { return x + slot(i) + 1; }
    const V *start(int i) const { return x + slot(i); }
};

// Where a job is in a tensor [blocks][H][C][W].
struct Place {
    int C, H, W, block;

    Size row(int c, int i) const { return (((Size)block * H + i) * C + c) * W; }
};

// Rows that will be read soon, fetched pixel by pixel while others are computed.
struct Soon {
    const Place &at;
    const V *rows[8];
    int count;

    explicit Soon(const Place &at) : at(at), rows{}, count(0) {}

    // Row i + AHEAD of channel c, or a row of the channel `next`, which comes after it.
    void add(const V *tensor, int c, int next, int i) {
        const int AHEAD = 2;
        i += AHEAD;
        if (i >= at.H) c = next, i -= at.H;
        if (tensor && c >= 0 && i < at.H) rows[count++] = tensor + at.row(c, i);
    }
    void fetch(int j) const {
        for (int k = 0; k < count; k++)
            for (Size b = 0; b < (Size)sizeof(V); b += Ahead::LINE)
                __builtin_prefetch((const char *)(rows[k] + j) + b);
    }
};

static const int PIXELS = REGISTERS / 4 / PARTS;  // computed together

template <int N>
static inline void convolve(const V *const (&rows)[ROWS], const real (&w)[TAPS], int j, V *y) {
    V sum[N] = {};
    UNROLL for (int t = 0; t < TAPS; t++)
        UNROLL for (int k = 0; k < N; k++) add(sum[k], rows[t / 3][j + k + t % 3], w[t]);
    UNROLL for (int k = 0; k < N; k++) y[j + k] = sum[k];
}

// y[j] = Σ_{a, b} w[a, b] · rows[a][j + b] for W pixels.
static void convolve_row(const V *const (&rows)[ROWS], const real (&w)[TAPS], int W, V *y,
                         const Soon &soon) {
    int j = 0;
    for (; j + PIXELS <= W; j += PIXELS) {
        for (int k = 0; k < PIXELS; k++) soon.fetch(j + k);
        convolve<PIXELS>(rows, w, j, y);
    }
    for (; j < W; j++) {
        soon.fetch(j);
        convolve<1>(rows, w, j, y);
    }
}

// -- forward -----------------------------------------------------------------------------------

struct ChannelwiseForward {
    Input x;           // what is convolved, [blocks][H][C][W]
    const real *w;     // [C][3][3]
    V *z;              // [blocks][H][C][W]
    double *sums;      // or null: [blocks][2][C] receives mean and Σ (z − mean)² of each block
    const real *bias;  // or null: added to each channel, [C]
    const V *skip;     // or null: added to z
    int relu;          // of what is stored; 0: none, 1: ReLU, 2: ReLU6
    int C, H, W;
    int x_branches;    // input channel c is channel Reorder(x_branches)(c) of x
    int y_branches;    // likewise of z
    Batch batch;       // the slices are of the channels
};

struct ChannelwiseForwardMemory {
    V *y;  // a row of z
    RowRing in;
    Size used;

    ChannelwiseForwardMemory(const ChannelwiseForward &a, V *scratch) {
        Memory memory{scratch, 0};
        y = memory.take(a.W);
        in = RowRing(a.H, a.W, memory);
        used = memory.used;
    }
};
SCRATCH(channelwise_forward, ChannelwiseForward) { return ChannelwiseForwardMemory(a, 0).used; }

// Mean and Σ (z − mean)² of the rows so far, for each lane. A row is summed about the mean of those
// before it and then joined to them: sums about one pixel or row lose digits where it is unlike
// the others, as the first row is beside a border of zeros.
struct Moments {
    V mean, square;

    void begin(const V *row, int W) {
        mean = square = V{};
        for (int j = 0; j < W; j++) mean += row[j];
        mean = mean * (1 / (real)W);
    }
    // Join row i, with Σ d and Σ d² of d = z − mean.
    void join(int i, int W, V sum, V sum_of_squares) {
        V step = sum * (1 / (real)((i + 1) * W));
        square += sum_of_squares - sum * step;
        mean += step;
    }
};

// Bias, residual and ReLU of a row; store it.
static inline void end_row(const ChannelwiseForward &a, int c, int i, Size at, V *row,
                           Moments &moments) {
    if (a.bias || a.skip || a.relu) {
        real bias = a.bias ? a.bias[c] : 0;
        each_register(a.W, [&](int l, auto v) {
            v = load(row, l, v) + bias;
            if (a.skip) v += load(a.skip + at, l, v);
            store(row, l, activated(v, a.relu));
        });
    }
    V mean = moments.mean, sum{}, square{};
    for (int j = 0; j < a.W; j++) {
        store(a.z + at + j, row[j]);
        V d = row[j] - mean;
        sum += d;
        add(square, d, d);
    }
    moments.join(i, a.W, sum, square);
}

// Leave mean and Σ (z − mean)² of a channel of a block.
static inline void leave_moments(const ChannelwiseForward &a, int c, int block,
                                 const Moments &moments) {
    int images = images_of(a.batch, block), pixels = a.H * a.W;
    double means[LANES] = {}, squares[LANES] = {};
    for (int l = 0; l < images; l++) {
        means[l] = lane(moments.mean, l);
        squares[l] = lane(moments.square, l);
    }
    double mean = total(means) / images;
    for (int l = 0; l < images; l++) squares[l] += (means[l] - mean) * (means[l] - mean) * pixels;
    double *to = a.sums + (Size)block * 2 * a.C;
    to[c] = mean;
    to[a.C + c] = total(squares);
}

KERNEL(channelwise_forward, ChannelwiseForward) {
    ChannelwiseForwardMemory m(a, scratch);
    Place at{a.C, a.H, a.W, block_of(a.batch, job)};
    Rows own = rows_of(a.batch, job, a.C);
    m.in.clear_halo();
    for (int c = own.first; c < own.last; c++) {
        int from = reorder(c, a.C, a.x_branches), to = reorder(c, a.C, a.y_branches);
        int next = c + 1 < own.last ? reorder(c + 1, a.C, a.x_branches) : -1;
        Moments moments;
        real w[TAPS];
        memcpy(w, a.w + c * TAPS, sizeof w);
        load(a.x, from, at.row(from, 0), a.W, m.in.row(0));
        for (int i = 0; i < a.H; i++) {
            if (i + 1 < a.H) load(a.x, from, at.row(from, i + 1), a.W, m.in.row(i + 1));
            Soon soon(at);
            soon.add(a.x.x, from, next, i);
            convolve_row({m.in.start(i - 1), m.in.start(i), m.in.start(i + 1)}, w, a.W, m.y, soon);
            if (!i) moments.begin(m.y, a.W);
            end_row(a, to, i, at.row(to, i), m.y, moments);
        }
        if (a.sums) leave_moments(a, to, at.block, moments);
    }
}

// -- backward ----------------------------------------------------------------------------------

struct ChannelwiseBackward {
    Gradient gz;    // gradient of z, [blocks][H][C][W]
    Input x;        // what was convolved, [blocks][H][C][W]
    const real *w;  // [C][3][3]
    V *gx;          // or null: [blocks][H][C][W] receives the gradient of x
    Ending end;     // of gx; its sums are [blocks][2][C]
    real *gw;       // or null: [blocks][C][3][3] receives the gradients of the weights
    int C, H, W;
    int x_branches;  // as in ChannelwiseForward
    int y_branches;
    Batch batch;     // the slices are of the channels
};

struct ChannelwiseBackwardMemory {
    V *sums;    // [3][C], of the ending
    V *y;       // a row of gx
    V *lanes;   // [9], of the gradient of the weights
    RowRing gz, in;
    Size used;

    ChannelwiseBackwardMemory(const ChannelwiseBackward &a, V *scratch) {
        Memory memory{scratch, 0};
        sums = memory.take(3 * a.C);
        y = memory.take(a.W);
        lanes = memory.take(TAPS);
        gz = RowRing(a.H, a.W, memory);
        in = RowRing(a.H, a.W, memory);
        used = memory.used;
    }
};
SCRATCH(channelwise_backward, ChannelwiseBackward) {
    return ChannelwiseBackwardMemory(a, 0).used;
}

KERNEL(channelwise_backward, ChannelwiseBackward) {
    ChannelwiseBackwardMemory m(a, scratch);
    Place at{a.C, a.H, a.W, block_of(a.batch, job)};
    Rows own = rows_of(a.batch, job, a.C);
    const Ending &e = a.end;
    int images = images_of(a.batch, at.block);
    Ahead none;
    m.gz.clear_halo();
    m.in.clear_halo();
    begin_sums(m.sums, a.C);
    for (int c = own.first; c < own.last; c++) {
        int from = reorder(c, a.C, a.x_branches), to = reorder(c, a.C, a.y_branches);
        int next = c + 1 < own.last ? reorder(c + 1, a.C, a.x_branches) : -1;
        int next_to = c + 1 < own.last ? reorder(c + 1, a.C, a.y_branches) : -1;
        real turned[TAPS];  // the weights, by half a turn
        for (int t = 0; t < TAPS; t++) turned[t] = a.w[c * TAPS + TAPS - 1 - t];
        if (a.gw) load(a.x, from, at.row(from, 0), a.W, m.in.row(0));
        // with each row of gz the row of gx above it can be computed
        for (int i = 0; i <= a.H; i++) {
            Size offset[TAPS], own_row = m.gz.slot(i) + 1;
            if (i < a.H) load(a.gz, to, at.row(to, i), a.W, m.gz.row(i), images);
            if (a.gw && i < a.H) {
                if (i + 1 < a.H) load(a.x, from, at.row(from, i + 1), a.W, m.in.row(i + 1));
                for (int t = 0; t < TAPS; t++) offset[t] = m.in.slot(i + t / 3 - 1) + t % 3;
                Factors f{m.gz.x, 0, &own_row, m.in.x, 0, offset, TAPS, 1, a.W};
                weight_gradient(f, 1, TAPS, {m.lanes, 0, i == 0}, none);
            }
            if (!a.gx || !i) continue;
            int q = i - 1;
            Soon soon(at);
            soon.add(a.gz.g, to, next_to, i);
            if (a.gz.kind) soon.add(a.gz.z, to, next_to, i);
            if (a.gw) soon.add(a.x.x, from, next, i);
            soon.add(e.other, from, next, q);
            if (e.relu && e.value.x != a.x.x) soon.add(e.value.x, from, next, q);
            for (int k = 0; k < e.norms; k++)
                if (e.norm[k].z != a.x.x) soon.add(e.norm[k].z, from, next, q);
            convolve_row({m.gz.start(q - 1), m.gz.start(q), m.gz.start(q + 1)}, turned, a.W, m.y,
                         soon);
            finish(e, from, a.C, at.row(from, q), a.W, m.y, a.gx, m.sums);
        }
        if (a.gw) totals(m.lanes, TAPS, a.gw + ((Size)at.block * a.C + c) * TAPS);
        if (a.gx) leave_sums(e, at.block, a.C, m.sums, from, from + 1);
    }
}
