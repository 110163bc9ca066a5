// Dense 3×3 convolutions of stride 1 and padding 1 by Winograd's algorithm (winograd.hpp).
//
// Beside the kernels of convolution.cpp, with the same fusions: x is normalised as it is loaded, z
// ends with bias, residual, ReLU and moments, gx as an Ending says. The two gradients are launches
// of their own, because the best jobs differ.
//
// Jobs share the rows of a block, cut at whole tiles; or, where a block has few rows and many
// channels, its output channels: then nothing that is summed over pixels has to be added up, and
// all jobs of a block leave their channels in one part. winograd.py decides which.
#include "winograd.hpp"

// -- jobs --------------------------------------------------------------------------------------

static const int TOGETHER = 8;  // channels that no cut parts; fixed: same bits for any number of threads

// The slice of a job, cut at multiples of `unit`.
static inline Rows slice_of(const Batch &batch, int job, int R, int unit) {
    Rows slice = rows_of(batch, job, (R + unit - 1) / unit);
    return {slice.first * unit, smaller(R, slice.last * unit)};
}

// What a job works on: rows of the image, and channels among those that it writes.
struct Work {
    int block, images, part;  // `part` of what is summed up
    Rows rows, channels;

    Work(const Batch &batch, int job, bool by_channels, int H, int D) {
        block = block_of(batch, job), images = images_of(batch, block);
        part = by_channels ? block : job;
        rows = by_channels ? Rows{0, H} : slice_of(batch, job, H, TILE);
        channels = by_channels ? slice_of(batch, job, D, TOGETHER) : Rows{0, D};
    }
};

// Rows first … first + rows of a channel with one column of zeros on either side, zeros outside
// the image: load(row, to) writes W pixels.
template <class Load>
static inline void load_padded(int H, int W, int first, int rows, V *to, int line, Load load) {
    for (int r = first; r < first + rows; r++, to += line)
        if (r < 0 || r >= H) {
            clear(to, W + 2);
        } else {
            to[0] = to[W + 1] = V{};
            load(r, to + 1);
        }
}

// -- weights -----------------------------------------------------------------------------------

struct WinogradPack {
    const real *w;      // [D][C][3][3]
    const real *scale;  // or null: factor for each output channel, [D]
    real *forward;      // receives the weights as winograd_forward reads them, raw or not
    real *backward;     // or null: likewise for winograd_backward_input, never raw
    int C;              // channels of x
    int D;              // of z
    int raw;            // whether the weights are left as they are: 9·C·D numbers, not 36·C·D
    int jobs;           // that share the outputs
};

KERNEL(winograd_pack, WinogradPack) {
    Batch all{1, a.jobs, 0};
    Rows outputs = slice_of(all, job, a.D, TOGETHER), inputs = slice_of(all, job, a.C, TOGETHER);
    if (!a.raw) {
        pack(forward_weights(a.w, a.scale, a.C), a.C, a.D, outputs.first, outputs.last, a.forward);
        if (a.backward)
            pack(backward_weights(a.w, a.C), a.D, a.C, inputs.first, inputs.last, a.backward);
        return;
    }
    for (int o = outputs.first; o < outputs.last; o++) {
        real scale = a.scale ? a.scale[o] : 1;
        for (Size i = (Size)o * a.C * TAPS; i < (Size)(o + 1) * a.C * TAPS; i++)
            a.forward[i] = a.w[i] * scale;
    }
}

// -- forward -----------------------------------------------------------------------------------

struct WinogradForward {
    Input x;           // what is convolved, [blocks][H][C][W]
    const real *w;     // as winograd_pack leaves it in `forward`
    V *z;              // [blocks][H][D][W]
    double *sums;      // or null: [parts][2][D] receives mean and Σ (z − mean)² of each
    const real *bias;  // or null: added to each channel, [D]
    const V *skip;     // or null: added to z
    int relu;          // of what is stored; 0: none, 1: ReLU, 2: ReLU6
    int C;             // channels of x
    int D;             // of z
    int H, W;          // of both
    int raw;           // whether the weights are as they were
    int band;          // rows at a time, a multiple of 4
    int by_channels;   // whether the slices are of the channels of z
    Batch batch;       // else of the rows
};

struct ForwardMemory {
    V *moments;  // [2][D]: mean and Σ (z − mean)², for each lane, over the pixels so far
    Planes planes;

    ForwardMemory(const WinogradForward &a, Lines &memory)
        : moments(memory.take<V>(2 * a.D)),
          planes(memory, a.C, most_outputs(a.D, a.raw), a.band, a.W, a.raw) {}
};
SCRATCH(winograd_forward, WinogradForward) {
    Lines memory(0);
    ForwardMemory(a, memory);
    return memory.vectors();
}

// End n rows of channel o from row i on; `done` pixels have been there before.
static inline void end_rows(const WinogradForward &a, int block, int o, int i, int n, int done,
                            V *y, int line, V *moments) {
    V sum{};
    for (int r = 0; r < n; r++) {
        Size at = (((Size)block * a.H + i + r) * a.D + o) * a.W;
        V *t = y + (Size)r * line, *z = a.z + at;
        if (a.bias || a.skip || a.relu) {
            real bias = a.bias ? a.bias[o] : 0;
            for (int j = 0; j < a.W; j++) {
                V v = t[j] + bias;
                if (a.skip) v += a.skip[at + j];
                t[j] = activated(v, a.relu);
            }
        }
        for (int j = 0; j < a.W; j++) {
            V v = t[j];
            store(z + j, v);
            sum += v;
        }
    }
    if (!a.sums) return;
    int count = n * a.W;
    V mean = sum * (1 / (real)count), square{};
    for (int r = 0; r < n; r++)
        for (int j = 0; j < a.W; j++) {
            V d = y[(Size)r * line + j] - mean;
            add(square, d, d);
        }
    // merged with the pixels before (Chan, Golub and LeVeque)
    V &all = moments[o], &squares = moments[a.D + o];
    if (done) {
        V d = mean - all;
        real share = (real)count / (done + count);
        add(all, d, share);
        add(square, d * d, share * done);
        squares += square;
    } else {
        all = mean;
        squares = square;
    }
}

// Leave the moments of a job's channels: mean and Σ (z − mean)² over its pixels and images.
static void leave_moments(const WinogradForward &a, const Work &work, const V *moments) {
    double *to = a.sums + (Size)work.part * 2 * a.D;
    int pixels = (work.rows.last - work.rows.first) * a.W;
    for (int o = work.channels.first; o < work.channels.last; o++) {
        double means[LANES] = {}, squares[LANES] = {};
        for (int i = 0; i < work.images; i++) means[i] = lane(moments[o], i);
        double mean = total(means) / work.images;
        for (int i = 0; i < work.images; i++) {
            double d = means[i] - mean;
            squares[i] = lane(moments[a.D + o], i) + d * d * pixels;
        }
        to[o] = mean;
        to[a.D + o] = total(squares);
    }
}

KERNEL(winograd_forward, WinogradForward) {
    Lines memory(scratch);
    ForwardMemory m(a, memory);
    Work work(a.batch, job, a.by_channels, a.H, a.D);
    Rows rows = work.rows, channels = work.channels;
    if (rows.first == rows.last) clear(m.moments, 2 * a.D);
    for (int i = rows.first, n; i < rows.last; i += n) {
        n = smaller(a.band, rows.last - i);
        auto load_channel = [&](int c, V *to, int line) {
            load_padded(a.H, a.W, i - 1, n + 2, to, line, [&](int r, V *row) {
                load(a.x, c, (((Size)work.block * a.H + r) * a.C + c) * a.W, a.W, row);
            });
        };
        auto save = [&](int o, V *from, int line) {
            end_rows(a, work.block, o, i, n, (i - rows.first) * a.W, from, line, m.moments);
        };
        if (a.raw)
            convolve_raw(forward_weights(a.w, 0, a.C), a.C, channels.first, channels.last, n, a.W,
                         m.planes, load_channel, save);
        else
            convolve(a.w, a.C, a.D, channels.first, channels.last, n, a.W, m.planes, load_channel,
                     save);
    }
    if (a.sums) leave_moments(a, work, m.moments);
}

// -- gradient of the input ---------------------------------------------------------------------

struct WinogradBackwardInput {
    Gradient gz;      // gradient of the output, [blocks][H][D][W]
    const real *w;    // as winograd_pack leaves it in `backward`, or in `forward` if raw
    V *gx;            // [blocks][H][C][W] receives the gradient of x
    Ending end;       // of gx; its sums are [parts][2][C]
    int C;            // channels of x
    int D;            // of the output
    int H, W;         // of both
    int raw;          // whether the weights are as they were
    int band;         // rows at a time, a multiple of 4
    int by_channels;  // whether the slices are of the channels of x
    Batch batch;      // else of the rows
};

struct InputMemory {
    V *sums;  // [3][C], of the ending
    Planes planes;

    InputMemory(const WinogradBackwardInput &a, Lines &memory)
        : sums(memory.take<V>(3 * a.C)),
          planes(memory, a.D, most_outputs(a.C, a.raw), a.band, a.W, a.raw) {}
};
SCRATCH(winograd_backward_input, WinogradBackwardInput) {
    Lines memory(0);
    InputMemory(a, memory);
    return memory.vectors();
}

KERNEL(winograd_backward_input, WinogradBackwardInput) {
    Lines memory(scratch);
    InputMemory m(a, memory);
    Work work(a.batch, job, a.by_channels, a.H, a.C);
    Rows rows = work.rows, channels = work.channels;
    begin_sums(m.sums, a.C);
    for (int i = rows.first, n; i < rows.last; i += n) {
        n = smaller(a.band, rows.last - i);
        auto load_channel = [&](int o, V *to, int line) {
            load_padded(a.H, a.W, i - 1, n + 2, to, line, [&](int r, V *row) {
                load(a.gz, o, (((Size)work.block * a.H + r) * a.D + o) * a.W, a.W, row,
                     work.images);
            });
        };
        auto save = [&](int c, const V *from, int line) {
            for (int r = 0; r < n; r++) {
                Size at = (((Size)work.block * a.H + i + r) * a.C + c) * a.W;
                finish(a.end, c, a.C, at, a.W, from + (Size)r * line, a.gx, m.sums);
            }
        };
        if (a.raw)
            convolve_raw(backward_weights(a.w, a.C), a.D, channels.first, channels.last, n, a.W,
                         m.planes, load_channel, save);
        else
            convolve(a.w, a.D, a.C, channels.first, channels.last, n, a.W, m.planes, load_channel,
                     save);
    }
    leave_sums(a.end, work.part, a.C, m.sums, channels.first, channels.last);
}

// -- gradient of the weights -------------------------------------------------------------------

struct WinogradBackwardWeight {
    Gradient gz;      // gradient of the output, [blocks][H][D][W]
    Input x;          // what was convolved, [blocks][H][C][W]
    real *gw;         // [parts][D][C][3][3] receives the gradients of the weights
    int C;            // channels of x
    int D;            // of the output
    int H, W;         // of both
    int band;         // rows at a time, a multiple of 4
    int by_channels;  // whether the slices are of the channels of the output
    Batch batch;      // else of the rows
};

// A job of one band takes the outputs a few at a time, while the planes of x stay in the cache. A
// job of several adds up their products in the planes of all weights, and goes back once.
struct WeightMemory {
    int outs;  // at most, of a job
    bool several;
    WeightPlanes planes;

    static int most(const Batch &batch, int R, int unit) {
        int units = (R + unit - 1) / unit;
        return smaller(R, (units + batch.slices - 1) / batch.slices * unit);
    }
    WeightMemory(const WinogradBackwardWeight &a, Lines &memory)
        : outs(a.by_channels ? most(a.batch, a.D, TOGETHER) : a.D),
          several(a.band < (a.by_channels ? a.H : most(a.batch, a.H, TILE))),
          planes(memory, a.C, outs, several ? outs : smaller(OUT, outs), a.band, a.W) {}
};
SCRATCH(winograd_backward_weight, WinogradBackwardWeight) {
    Lines memory(0);
    WeightMemory(a, memory);
    return memory.vectors();
}

KERNEL(winograd_backward_weight, WinogradBackwardWeight) {
    Lines memory(scratch);
    WeightMemory m(a, memory);
    Work work(a.batch, job, a.by_channels, a.H, a.D);
    Rows rows = work.rows;
    int first = work.channels.first, D = work.channels.last - first;
    real *gw = a.gw + ((Size)work.part * a.D + first) * a.C * TAPS;
    if (rows.first == rows.last) memset(gw, 0, sizeof(real) * D * a.C * TAPS);
    for (int i = rows.first, n; i < rows.last; i += n) {
        n = smaller(a.band, rows.last - i);
        planes_of_input(a.C, n, a.W, m.planes, [&](int c, V *to, int line) {
            load_padded(a.H, a.W, i - 1, n + 2, to, line, [&](int r, V *row) {
                load(a.x, c, (((Size)work.block * a.H + r) * a.C + c) * a.W, a.W, row);
            });
        });
        planes_of_gradient(D, n, a.W, m.planes, [&](int o, V *to, int line) {
            for (int r = 0; r < n; r++)
                load(a.gz, first + o,
                     (((Size)work.block * a.H + i + r) * a.D + first + o) * a.W, a.W,
                     to + (Size)r * line, work.images);
        });
        if (m.several) {
            add_products(m.planes, a.C, D, 0, D, n, a.W, i > rows.first);
            continue;
        }
        for (int o = 0, outs; o < D; o += outs) {
            outs = smaller(OUT, D - o);
            add_products(m.planes, a.C, D, o, outs, n, a.W, false);
            leave_weights(m.planes, a.C, outs, gw + (Size)o * a.C * TAPS);
        }
    }
    if (m.several && rows.first < rows.last) leave_weights(m.planes, a.C, D, gw);
}
