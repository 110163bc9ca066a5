// What convolution.cpp and interleaved_group_convolution.cpp share.
//
// Two register tiles compute everything: sums of number · vector (a convolution, its gradient
// with respect to the input, the secondary convolution) and sums of vector · vector (gradients
// of weights). Groups, strides, permutations and halos only change addresses.
#pragma once
#include "common.hpp"

// Numbers that a tile keeps in registers, each a Part.
#if defined(__AVX512F__) || defined(__aarch64__)
static const int TILE_SUMS = 24;
#else
static const int TILE_SUMS = 12;
#endif

// Channels of a tile, where so many are left. Packed weights depend on it.
static inline int tile_channels(int left) { return left % 6 == 0 ? 6 : left >= 4 ? 4 : left; }
static const int MOST_CHANNELS = 6;  // of a tile

// -- number · vector ---------------------------------------------------------------------------

// y[o, j] = Σ_{c, t} w[c, t, o] · x[c, j·step + offset[t]] for O channels and P pixels, one Part
// of each V. Channels of x are `xc` apart, those of y `yc`, and pixels of y `ystep`.
template <int O, int P, int STEP>
static void product(const Part *x, Size xc, int C, const Size *offset, int taps, int step,
                    const real *w, Part *y, Size yc, int ystep) {
    if (STEP) step = STEP;
    Part sum[O][P];
    UNROLL for (int o = 0; o < O; o++)
        UNROLL for (int p = 0; p < P; p++) sum[o][p] = Part{};
    for (int c = 0; c < C; c++, x += xc * PARTS)
        for (int t = 0; t < taps; t++, w += O) {
            const Part *from = x + offset[t] * PARTS;
            Part v[P];
            UNROLL for (int p = 0; p < P; p++) v[p] = from[p * step * PARTS];
            UNROLL for (int o = 0; o < O; o++)
                UNROLL for (int p = 0; p < P; p++) sum[o][p] += v[p] * w[o];
        }
    UNROLL for (int o = 0; o < O; o++)
        UNROLL for (int p = 0; p < P; p++) y[(o * yc + p * ystep) * PARTS] = sum[o][p];
}

// Pixels of a tile of O channels, at most.
template <int O> struct Pixels {
    static const int most = TILE_SUMS / O < 12 ? TILE_SUMS / O : 12;
};

template <int O, int STEP>
static void row_of(const V *x, Size xc, int C, const Size *offset, int taps, int step,
                   const real *w, V *y, Size yc, int ystep, int pixels) {
    const int most = Pixels<O>::most;
    int tiles = (pixels + most - 1) / most;
    for (int k = 0; k < tiles; k++) {
        int first = pixels * k / tiles, count = pixels * (k + 1) / tiles - first;
        for (int h = 0; h < PARTS; h++) {
            const Part *from = x[first * step].part + h;
            Part *to = y[first * ystep].part + h;
#define CASE(P)                                                                             \
    case P:                                                                                 \
        product<O, P <= most ? P : 1, STEP>(from, xc, C, offset, taps, step, w, to, yc, ystep); \
        break;
            switch (count) {
                CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
                CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
            }
#undef CASE
        }
    }
}

// A row of so many pixels, for n channels: a tile of packed weights.
static void row_product(int n, const V *x, Size xc, int C, const Size *offset, int taps, int step,
                        const real *w, V *y, Size yc, int ystep, int pixels) {
#define CASE(O)                                                                            \
    case O:                                                                                \
        if (step == 1)                                                                     \
            row_of<O, 1>(x, xc, C, offset, taps, step, w, y, yc, ystep, pixels);           \
        else                                                                               \
            row_of<O, 0>(x, xc, C, offset, taps, step, w, y, yc, ystep, pixels);           \
        break;
    switch (n) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(6) }
#undef CASE
}

// -- vector · vector ---------------------------------------------------------------------------

// Where the factors of a weight's gradient lie.
struct Factors {
    const V *g;          // gradient of the outputs: channels `gc` apart, rows at g_row
    Size gc;
    const Size *g_row;
    const V *x;          // inputs: one stream for each weight of a channel, rows at x_row
    const Size *stream;
    const Size *x_row;
    int step;            // between pixels of x
    int rows;
    int pixels;
};

// sum[o·S + s] = Σ g[o, i, j] · x[stream s, i, j·step] over rows and pixels, from channel `o0`
// and stream `s0` on.
template <int O, int S>
static void weight_tile(const Factors &f, int o0, int s0, V *result) {
    for (int h = 0; h < PARTS; h++) {
        Part sum[O][S];
        UNROLL for (int o = 0; o < O; o++)
            UNROLL for (int s = 0; s < S; s++) sum[o][s] = Part{};
        const Size gc = f.gc;
        const int step = f.step, pixels = f.pixels;
        for (int r = 0; r < f.rows; r++) {
            const V *x[S];
            UNROLL for (int s = 0; s < S; s++) x[s] = f.x + f.stream[s0 + s] + f.x_row[r];
            const V *g = f.g + o0 * gc + f.g_row[r];
            for (int j = 0; j < pixels; j++) {
                Part v[O];
                UNROLL for (int o = 0; o < O; o++) v[o] = g[o * gc + j].part[h];
                UNROLL for (int s = 0; s < S; s++) {
                    Part u = x[s][j * step].part[h];
                    UNROLL for (int o = 0; o < O; o++) sum[o][s] += v[o] * u;
                }
            }
        }
        UNROLL for (int o = 0; o < O; o++)
            UNROLL for (int s = 0; s < S; s++) result[o * S + s].part[h] = sum[o][s];
    }
}

// Streams of a tile of O channels, at most.
template <int O> struct Streams {
    static const int most = TILE_SUMS / O < 9 ? TILE_SUMS / O : 9;
};

template <int O> static int weight_tiles(const Factors &f, int o0, int s0, int left, V *result) {
    const int most = Streams<O>::most;
    int n = left / ((left + most - 1) / most);
#define CASE(S) case S: weight_tile<O, S <= most ? S : 1>(f, o0, s0, result); break;
    switch (n) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9)
    }
#undef CASE
    return n;
}

// Add the gradient of the weights of O channels and S streams to sums[O][S], or, if `last`,
// write totals over the lanes to gw[O][S].
static void weight_gradient(const Factors &f, int O, int S, V *sums, real *gw, bool first,
                            bool last) {
    V tile[TILE_SUMS];
    for (int o = 0, n; o < O; o += n) {
        n = tile_channels(O - o);
        for (int s = 0, m; s < S; s += m) {
            switch (n) {
                case 1: m = weight_tiles<1>(f, o, s, S - s, tile); break;
                case 2: m = weight_tiles<2>(f, o, s, S - s, tile); break;
                case 3: m = weight_tiles<3>(f, o, s, S - s, tile); break;
                case 4: m = weight_tiles<4>(f, o, s, S - s, tile); break;
                default: m = weight_tiles<6>(f, o, s, S - s, tile);
            }
            for (int k = 0; k < n; k++)
                for (int l = 0; l < m; l++) {
                    Size at = (Size)(o + k) * S + s + l;
                    V sum = tile[k * m + l];
                    if (!first) sum += sums[at];
                    if (last) gw[at] = total(sum);
                    else sums[at] = sum;
                }
        }
    }
}

// -- geometry ----------------------------------------------------------------------------------

struct Shape {
    int C, H, W, D, OH, OW, G, KH, KW, SH, SW, PH, PW;
    int Cg, Dg, taps;  // channels of a group, and weights between two of them
    int width;         // of a row of x with its padding
};

template <class Arguments> static inline Shape shape_of(const Arguments &a) {
    return {a.C,  a.H,  a.W,  a.D,       a.OH,      a.OW,        a.G,           a.KH, a.KW,
            a.SH, a.SW, a.PH, a.PW, a.C / a.G, a.D / a.G, a.KH * a.KW, a.W + 2 * a.PW};
}

// The taps a = first, first + stride, … of a kernel that reach row (or column) q of the input,
// which has number `phase` among the remainders.
struct Phase {
    int first, count;
    int before;  // taps of smaller remainders

    Phase(int q, int K, int stride, int padding) : first(0), count(0), before(0) {
        for (int u = 0; u <= q % stride; u++) {
            before += count;
            first = (u + padding) % stride;
            count = first < K ? (K - first + stride - 1) / stride : 0;
        }
    }
};

// Index among the packed taps of a phase of rows and one of columns.
static inline int phase_taps(const Phase &rows, const Phase &columns, int KW) {
    return rows.before * KW + rows.count * columns.before;
}

// -- packing -----------------------------------------------------------------------------------

// Write w(o, c, t) as tiles of channels, [c][t][o] within a tile; return the end.
template <class Weight> static inline real *pack(real *to, int O, int C, int T, Weight w) {
    for (int o = 0, n; o < O; o += n) {
        n = tile_channels(O - o);
        for (int c = 0; c < C; c++)
            for (int t = 0; t < T; t++)
                for (int k = 0; k < n; k++) *to++ = w(o + k, c, t);
    }
    return to;
}

// Pack group g of a convolution for forward and for the gradient of the input; w(o, c, t) is a
// weight of the group.
template <class Weight>
static inline void pack_group(const Shape &s, int g, real *forward, real *backward, Weight w) {
    Size at = (Size)g * s.Dg * s.Cg * s.taps;
    pack(forward + at, s.Dg, s.Cg, s.taps, w);
    if (!backward) return;
    real *to = backward + at;
    for (int u = 0; u < s.SH; u++)
        for (int v = 0; v < s.SW; v++) {
            Phase rows(u, s.KH, s.SH, s.PH), columns(v, s.KW, s.SW, s.PW);
            to = pack(to, s.Cg, s.Dg, rows.count * columns.count, [&](int c, int o, int t) {
                int a = rows.first + t / columns.count * s.SH;
                int b = columns.first + t % columns.count * s.SW;
                return w(o, c, a * s.KW + b);
            });
        }
}

// -- memory of a thread ------------------------------------------------------------------------

// Deals out scratch; without memory it only counts.
struct Memory {
    V *base;
    Size used;

    V *take(Size n) {
        V *p = base ? base + used : 0;
        used += n;
        return p;
    }
    Size *indices(Size n) { return (Size *)take((n * sizeof(Size) + sizeof(V) - 1) / sizeof(V)); }
};

// -- forward -----------------------------------------------------------------------------------

// Rows first … first + rows of channels c … c + channels, with their padding:
// [channel][row][width].
static inline void load_rows(const Shape &s, const Input &x, int block, int c, int channels,
                             int first, int rows, V *to) {
    for (int k = 0; k < channels; k++)
        for (int r = first; r < first + rows; r++, to += s.width) {
            if (r < 0 || r >= s.H) {
                clear(to, s.width);
                continue;
            }
            clear(to, s.PW);
            load(x, c + k, (((Size)block * s.H + r) * s.C + c + k) * s.W, s.W, to + s.PW);
            clear(to + s.PW + s.W, s.PW);
        }
}

// How a convolution ends: bias, residual, ReLU, and the moments of a job. A moment is kept for
// each lane, over the pixels so far: first their mean, then Σ (z − mean)².
struct Output {
    V *z;
    const real *bias;
    const V *skip;
    int relu;
    double *sums;
    V *moments;  // [2][D]
};
template <class Arguments> static inline Output output_of(const Arguments &a, V *moments) {
    return {a.z, a.bias, a.skip, a.relu, a.sums, moments};
}

// End n rows of channel c of the block, y[n][OW]; `done` pixels have been there before.
static inline void end_rows(const Shape &s, const Output &out, int block, int c, int i, int n,
                            int done, V *y) {
    Size at = (((Size)block * s.OH + i) * s.D + c) * s.OW, row = (Size)s.D * s.OW;
    int pixels = n * s.OW;
    if (out.bias || out.skip || out.relu) {
        real bias = out.bias ? out.bias[c] : 0;
        for (int r = 0; r < n; r++)
            for (int j = 0; j < s.OW; j++) {
                V t = y[r * s.OW + j] + bias;
                if (out.skip) t += out.skip[at + r * row + j];
                y[r * s.OW + j] = out.relu ? relu(t) : t;
            }
    }
    for (int r = 0; r < n; r++) copy(out.z + at + r * row, y + r * s.OW, s.OW);
    if (!out.sums) return;
    V mean{}, square{};
    for (int j = 0; j < pixels; j++) mean += y[j];
    mean = mean * (1 / (real)pixels);
    for (int j = 0; j < pixels; j++) {
        V d = y[j] - mean;
        add(square, d, d);
    }
    // merged with the pixels before (Chan, Golub and LeVeque)
    V &all = out.moments[c], &squares = out.moments[s.D + c];
    if (done) {
        V d = mean - all;
        real share = (real)pixels / (done + pixels);
        add(all, d, share);
        add(square, d * d, share * done);
        squares += square;
    } else {
        all = mean;
        squares = square;
    }
}

// Leave the moments of a job: mean and Σ (z − mean)² over its pixels and images.
static inline void leave_moments(const Shape &s, const Output &out, int job, int images,
                                 int pixels) {
    if (!out.sums) return;
    double *to = out.sums + (Size)job * 2 * s.D;
    for (int c = 0; c < s.D; c++) {
        double mean = 0, square = 0;
        for (int i = 0; i < images && pixels; i++) mean += lane(out.moments[c], i);
        mean /= images;
        for (int i = 0; i < images && pixels; i++) {
            double d = lane(out.moments[c], i) - mean;
            square += lane(out.moments[s.D + c], i) + d * d * pixels;
        }
        to[c] = mean;
        to[s.D + c] = square;
    }
}

// -- backward ----------------------------------------------------------------------------------

// How a job goes through its rows: output rows [i, i + n) come next, and after them rows
// [q, q + m) of the input's gradient can be computed. `own`: whether the output rows are the
// job's own, and not only needed for the input's gradient.
struct Band {
    int i, n;
    bool own, first, last;  // of the own bands
    int q, m;
};

// Rows of the output's gradient are kept in a ring: [channel][slots + 1][width], with columns of
// zeros at both ends; the last slot is a row of zeros.
struct Ring {
    V *d;
    int slots, width, left;
    Size channel;  // from one channel to the next
    int most;      // rows of the input's gradient in one band
    Size *offset;  // [most][SW][taps of a phase]: where the taps of a row find their factors
    int stride;    // from one phase to the next

    Size row(int i) const { return (Size)(i % slots) * width + left; }
};

static inline Ring ring_of(const Shape &s, int band, Memory &memory) {
    Ring r;
    r.slots = band + (s.KH - 1) / s.SH;
    // the columns that taps reach: from (PW − KW + 1) / SW to (W − 1 + PW) / SW
    r.left = larger(0, (s.KW - 1 - s.PW + s.SW - 1) / s.SW);
    r.width = r.left + larger(s.OW, (s.W - 1 + s.PW) / s.SW + 1);
    r.channel = (Size)(r.slots + 1) * r.width;
    r.d = memory.take(s.D * r.channel);
    r.most = (band + 1) * s.SH;
    r.stride = ((s.KH - 1) / s.SH + 1) * ((s.KW - 1) / s.SW + 1);
    r.offset = memory.indices((Size)r.most * s.SW * r.stride);
    return r;
}

static inline void clear_halo(const Shape &s, const Ring &ring) {
    for (int c = 0; c < s.D; c++) {
        V *row = ring.d + c * ring.channel;
        for (int r = 0; r < ring.slots; r++, row += ring.width) {
            clear(row, ring.left);
            clear(row + ring.left + s.OW, ring.width - ring.left - s.OW);
        }
        clear(row, ring.width);
    }
}

// The rows of the output whose gradient a job needs, and the rows of the input that it writes.
struct Range {
    Rows own, needed, input;

    Range(const Shape &s, const Batch &batch, int job, bool gx) {
        own = rows_of(batch, job, s.OH);
        needed = own;
        input = {smaller(own.first * s.SH, s.H), smaller(own.last * s.SH, s.H)};
        if (own.last == s.OH && own.first < own.last) input.last = s.H;
        if (!gx) input.last = input.first;
        if (input.first >= input.last) return;
        // row q has taps in rows (q + PH − KH + 1) / SH, rounded up, to (q + PH) / SH
        int first = larger(0, input.first + s.PH - s.KH + s.SH) / s.SH;
        needed.first = smaller(own.first, first);
        needed.last = larger(own.last, smaller(s.OH, (input.last - 1 + s.PH) / s.SH + 1));
    }
};

// Execute step(Band) for the bands of a job in their order.
template <class Step>
static inline void each_band(const Shape &s, const Range &range, int band, const Ring &ring,
                             Step step) {
    Rows own = range.own;
    int i = range.needed.first, q = range.input.first;
    while (i < range.needed.last || q < range.input.last) {
        int end = i < own.first ? own.first : i < own.last ? own.last : range.needed.last;
        int n = smaller(band, end - i);
        // the taps of row q reach down to output row (q + PH) / SH
        int ready = i + n == range.needed.last ? range.input.last : (i + n) * s.SH - s.PH;
        int m = larger(0, smaller(smaller(ready, range.input.last) - q, ring.most));
        bool is_own = n && i >= own.first && i < own.last;
        step(Band{i, n, is_own, i == own.first, i + n == own.last, q, m});
        i += n;
        q += m;
    }
}

// gx[q, v + SW·j] = Σ w[a, b] · d[(q + PH − a) / SH, j + (v + PW − b) / SW]: note where the rows
// of a band find their factors.
static inline void find_factors(const Shape &s, const Ring &ring, const Band &band) {
    for (int q = band.q; q < band.q + band.m; q++)
        for (int v = 0; v < s.SW; v++) {
            Phase rows(q, s.KH, s.SH, s.PH), columns(v, s.KW, s.SW, s.PW);
            Size *to = ring.offset + ((Size)(q - band.q) * s.SW + v) * ring.stride;
            for (int k = 0; k < rows.count; k++) {
                int i = (q + s.PH - rows.first - k * s.SH) / s.SH;
                bool inside = q + s.PH >= rows.first + k * s.SH && i < s.OH;
                Size row = (Size)(inside ? i % ring.slots : ring.slots) * ring.width + ring.left;
                for (int l = 0; l < columns.count; l++)
                    *to++ = row + (v + s.PW - columns.first - l * s.SW) / s.SW;
            }
        }
}

// The gradient of the input of group g, for the rows of a band. `y` is memory for a tile.
static inline void input_gradient(const Shape &s, const Ring &ring, const Band &band, int block,
                                  int g, const real *w, const Ending &end, V *gx, V *y, V *sums) {
    w += (Size)g * s.Dg * s.Cg * s.taps;
    Size yc = (Size)ring.most * s.W + 1;  // odd, so that channels use different sets of the cache
    for (int c = 0, n; c < s.Cg; c += n) {
        n = tile_channels(s.Cg - c);
        for (int q = 0; q < band.m; q++)
            for (int v = 0; v < s.SW && v < s.W; v++) {
                Phase rows(band.q + q, s.KH, s.SH, s.PH), columns(v, s.KW, s.SW, s.PW);
                int taps = rows.count * columns.count;
                int pixels = (s.W - v + s.SW - 1) / s.SW;
                const real *tile = w + (Size)s.Dg * s.Cg * phase_taps(rows, columns, s.KW)
                                   + (Size)c * s.Dg * taps;
                row_product(n, ring.d + g * s.Dg * ring.channel, ring.channel, s.Dg,
                            ring.offset + ((Size)q * s.SW + v) * ring.stride, taps, 1, tile,
                            y + q * s.W + v, yc, s.SW, pixels);
            }
        for (int q = 0; q < band.m; q++)
            for (int k = 0; k < n; k++) {
                int channel = g * s.Cg + c + k;
                Size at = (((Size)block * s.H + band.q + q) * s.C + channel) * s.W;
                finish(end, channel, s.C, at, s.W, y + k * yc + q * s.W, gx, sums);
            }
    }
}
static inline Size input_gradient_scratch(const Shape &s, const Ring &ring) {
    return smaller(MOST_CHANNELS, s.Cg) * ((Size)ring.most * s.W + 1);
}
