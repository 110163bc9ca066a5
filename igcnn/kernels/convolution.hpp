// What convolution.cpp and interleaved_group_convolution.cpp share.
//
// Two register tiles compute everything: sums of number · vector (a convolution, its gradient
// with respect to the input, the secondary convolution) and sums of vector · vector (gradients
// of weights). Groups, strides, permutations and halos only change addresses.
#pragma once
#include "common.hpp"

#if defined(__AVX512F__) || defined(__aarch64__)
static const int REGISTERS = 32;
#else
static const int REGISTERS = 16;
#endif
static const int TILE_SUMS = REGISTERS * 3 / 4;  // that a tile keeps in registers, each a Part

// Channels of a tile, where so many are left. Packed weights depend on it.
static inline int tile_channels(int left) { return left % 6 == 0 ? 6 : left >= 4 ? 4 : left; }
static const int MOST_CHANNELS = 6;  // of a tile

// -- memory ------------------------------------------------------------------------------------

// Rows that the next band will read, fetched into the cache while this one is computed: a few
// lines with each tile. Without it, loading a row would wait for the memory.
struct Ahead {
    static const int LINE = 64;
    struct Range {
        const char *at, *end;
    };
    Range range[8];
    int ranges, current;
    int rate;  // lines with each tile

    Ahead() : range{}, ranges(0), current(0), rate(0) {}

    // Fetch rows from number `first` on of a tensor whose rows are so many vectors.
    void add(const V *tensor, Size first, int rows, Size vectors) {
        if (rows <= 0) return;
        const char *at = (const char *)(tensor + first * vectors);
        range[ranges++] = {at, at + rows * vectors * (Size)sizeof(V)};
    }
    // There are so many tiles until the rows are read.
    void spread(Size tiles) {
        Size lines = 0;
        for (int k = 0; k < ranges; k++) lines += (range[k].end - range[k].at) / LINE;
        rate = tiles ? (int)((lines + tiles - 1) / tiles) : 0;
    }
    void step() {
        if (current == ranges) return;
        Range &r = range[current];
        for (int k = 0; k < rate && r.at < r.end; k++, r.at += LINE) __builtin_prefetch(r.at);
        if (r.at >= r.end) current++;
    }
};

// -- number · vector ---------------------------------------------------------------------------
//
// A row of pixels is computed register by register. What the last one holds beyond the row may be
// anything; it is not stored.

typedef real Anywhere
    __attribute__((vector_size(REGISTER_BYTES), aligned(sizeof(real)), may_alias));
static inline Register load(const real *x) { return *(const Anywhere *)x; }

// Store the first Parts of a register.
static inline void store(real *y, Register v, int parts) {
    if (JOINT == 1 || parts == JOINT)
        *(Anywhere *)y = v;
    else
        UNROLL for (int k = 0; k < JOINT - 1; k++)
            if (k < parts)
                memcpy(y + k * LANES, (const char *)&v + k * sizeof(Part), sizeof(Part));
}

// y[o, j] = Σ_{c, t} w[c, t, o] · x[c, j + offset[t]] for O channels and the numbers of P
// registers. Channels of x are `xc` numbers apart, those of y `yc`. Of the last register so many
// parts are stored. With ROWS each register is a row, of so many parts.
template <int O, int P, bool ROWS>
static void product(const real *x, Size xc, int C, const Size *offset, int taps, const real *w,
                    real *y, Size yc, int parts) {
    const int row = ROWS ? taps : 0;
    const Size yp = ROWS ? parts * LANES : WIDTH;
    Register sum[O][P];
    UNROLL for (int o = 0; o < O; o++)
        UNROLL for (int p = 0; p < P; p++) sum[o][p] = Register{};
    for (int c = 0; c < C; c++, x += xc)
        for (int t = 0; t < taps; t++, w += O) {
            const real *from[P];
            UNROLL for (int p = 0; p < P; p++)
                from[p] = x + offset[p * row + t] * LANES + (ROWS ? 0 : p * WIDTH);
            if (O * P + P + 1 > REGISTERS) {  // hold the weights, and one pixel at a time
                Register f[O];
                UNROLL for (int o = 0; o < O; o++) {
                    f[o] = Register{} + w[o];
                    KEEP(f[o]);
                }
                UNROLL for (int p = 0; p < P; p++) {
                    Register v = load(from[p]);
                    KEEP(v);
                    UNROLL for (int o = 0; o < O; o++) sum[o][p] += v * f[o];
                }
            } else {  // hold the pixels, and one weight at a time
                Register v[P];
                UNROLL for (int p = 0; p < P; p++) v[p] = load(from[p]);
                UNROLL for (int o = 0; o < O; o++)
                    UNROLL for (int p = 0; p < P; p++) sum[o][p] += v[p] * w[o];
            }
        }
    UNROLL for (int o = 0; o < O; o++)
        UNROLL for (int p = 0; p < P; p++)
            store(y + o * yc + p * yp, sum[o][p], ROWS || p == P - 1 ? parts : JOINT);
}

static inline int registers_of(int pixels) { return (pixels * PARTS + JOINT - 1) / JOINT; }

// Registers of a tile of O channels, at most.
static constexpr int most_registers(int O) { return TILE_SUMS / O < 12 ? TILE_SUMS / O : 12; }

template <int O, bool ROWS>
static void row_of(const real *x, Size xc, int C, const Size *offset, int taps, const real *w,
                   real *y, Size yc, int pixels, int rows, Ahead &ahead) {
    const int most = most_registers(O);
    int registers = ROWS ? rows : registers_of(pixels), tiles = (registers + most - 1) / most;
    for (int k = 0; k < tiles; k++) {
        ahead.step();
        int first = registers * k / tiles, end = registers * (k + 1) / tiles, parts = pixels;
        if (!ROWS) parts = end < registers ? JOINT : pixels * PARTS - (registers - 1) * JOINT;
        const real *from = ROWS ? x : x + first * WIDTH;
        const Size *at = ROWS ? offset + first * taps : offset;
        real *to = y + first * (ROWS ? pixels * LANES : WIDTH);
#define CASE(P)                                                                                \
    case P:                                                                                    \
        product<O, P <= most ? P : 1, ROWS>(from, xc, C, at, taps, w, to, yc, parts);          \
        break;
        switch (end - first) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
            CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
        }
#undef CASE
    }
}

// Rows of so many pixels, for n channels: a tile of packed weights. Row r of x lies where
// offset[r][taps] tells, the rows of y follow each other. `xc` and `yc` are in vectors.
static void row_product(int n, const V *x, Size xc, int C, const Size *offset, int taps,
                        const real *w, V *y, Size yc, int pixels, int rows, Ahead &ahead) {
    const bool SHORT = LANES < 4 && JOINT > 1;  // rows may be shorter than a register
#define ROW(O, ROWS, r)                                                                     \
    row_of<O, ROWS>((const real *)x, xc * LANES, C, offset + r * taps, taps, w,             \
                    (real *)(y + r * pixels), yc * LANES, pixels, rows, ahead)
#define CASE(O)                                                                             \
    case O:                                                                                 \
        if (SHORT && pixels <= JOINT && rows > 1)                                           \
            ROW(O, SHORT, 0);                                                               \
        else                                                                                \
            for (int r = 0; r < rows; r++) ROW(O, false, r);                                \
        break;
    switch (n) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(6) }
#undef CASE
#undef ROW
}

// How many tiles that takes for O channels.
static inline int row_tiles(int O, int pixels) {
    int tiles = 0, registers = registers_of(pixels);
    for (int o = 0, n; o < O; o += n) {
        n = tile_channels(O - o);
        tiles += (registers + most_registers(n) - 1) / most_registers(n);
    }
    return tiles;
}

// -- vector · vector ---------------------------------------------------------------------------

// Where the factors of a weight's gradient lie.
struct Factors {
    const V *g;          // gradient of the outputs: channels `gc` apart, rows at g_row
    Size gc;
    const Size *g_row;
    const V *x;          // inputs: channels `xc` apart
    Size xc;
    const Size *offset;  // [rows][taps]: where the inputs of each tap lie in a channel
    int taps;
    int rows;
    int pixels;
};

// Where the sums go: to vectors, a number for each lane, or added up to numbers right away; added
// to what is there, or the first.
struct WeightSums {
    V *lanes;       // or null: [O][S]
    real *numbers;  // [O][S]
    bool first;
};

// sum[o][s] += g[o] · x[s]
template <int O, int N, class Load>
static inline void add_products(Register (&sum)[O][N], const real *g, Size gc,
                                const real *const (&x)[N], Size at, Load load) {
    Register v[O];
    UNROLL for (int o = 0; o < O; o++) {
        v[o] = load(g + o * gc + at);
        KEEP(v[o]);
    }
    UNROLL for (int s = 0; s < N; s++) {
        Register u = load(x[s] + at);
        KEEP(u);
        UNROLL for (int o = 0; o < O; o++) sum[o][s] += v[o] * u;
    }
}

// Σ g[o, i, j] · x[c, j + offset[i, t]] over rows and pixels, for O output channels from o0 on and
// N weights from s0 on, of S; weight s is (c, t).
template <int O, int N>
static void weight_tile(const Factors &f, int o0, int s0, int S, const WeightSums &to) {
    V tile[O * N];
    for (int h = 0; h < PARTS; h++) {
        Register sum[O][N];
        UNROLL for (int o = 0; o < O; o++)
            UNROLL for (int s = 0; s < N; s++) sum[o][s] = Register{};
        for (int r = 0; r < f.rows; r++) {
            const V *from = f.x + s0 / f.taps * f.xc;
            const real *x[N], *g = (const real *)(f.g + o0 * f.gc + f.g_row[r]) + h * WIDTH;
            const Size *offset = f.offset + (Size)r * f.taps;
            int t = s0 % f.taps;
            UNROLL for (int s = 0; s < N; s++) {
                x[s] = (const real *)(from + offset[t]) + h * WIDTH;
                if (++t == f.taps) t = 0, from += f.xc;
            }
            Size whole = f.pixels / JOINT, gc = f.gc * LANES;
            for (Size j = 0; j < whole; j++)
                add_products(sum, g, gc, x, j * PARTS * WIDTH,
                             [](const real *a) { return load(a); });
            for (Size j = whole * JOINT; JOINT > 1 && j < f.pixels; j++)
                add_products(sum, g, gc, x, j * LANES, [](const real *a) {
                    Register v{};
                    memcpy(&v, a, sizeof(Part));
                    return v;
                });
        }
        UNROLL for (int o = 0; o < O; o++)
            UNROLL for (int s = 0; s < N; s++) {
                Part part[JOINT];
                memcpy(part, &sum[o][s], sizeof part);
                for (int k = 1; k < JOINT; k++) part[0] += part[k];
                tile[o * N + s].part[h] = part[0];
            }
    }
    if (to.lanes) {
        for (int o = 0; o < O; o++)
            for (int s = 0; s < N; s++) {
                V &sum = to.lanes[(Size)(o0 + o) * S + s0 + s];
                sum = to.first ? tile[o * N + s] : sum + tile[o * N + s];
            }
        return;
    }
    real number[O * N];
    totals(tile, O * N, number);
    for (int o = 0; o < O; o++)
        for (int s = 0; s < N; s++) {
            real &sum = to.numbers[(Size)(o0 + o) * S + s0 + s];
            sum = to.first ? number[o * N + s] : sum + number[o * N + s];
        }
}

// The weights s0 … s0 + n − 1 of O channels from o on.
template <int O>
static void weight_tiles(const Factors &f, int o, int s0, int n, int S, const WeightSums &to,
                         Ahead &ahead) {
    const int most = TILE_SUMS / O < 9 ? TILE_SUMS / O : 9;
    int tiles = (n + most - 1) / most;
    for (int k = 0; k < tiles; k++) {
        int first = n * k / tiles, count = n * (k + 1) / tiles - first;
        ahead.step();
#define CASE(N)                                                           \
    case N:                                                               \
        weight_tile<O, N <= most ? N : 1>(f, o, s0 + first, S, to);       \
        break;
        switch (count) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9)
        }
#undef CASE
    }
}

static const int WEIGHT_CHANNELS = TILE_SUMS / 6;  // of a tile: 4 × 6 or 2 × 6 sums
static const Size INPUTS = 1 << 14;  // bytes of the inputs that stay in the L1 cache

// The gradient of the weights of O channels, S weights each.
static void weight_gradient(const Factors &f, int O, int S, const WeightSums &to, Ahead &ahead) {
    Size channels = INPUTS / (f.rows * f.pixels * (Size)sizeof(V));
    int most = (int)(channels * f.taps / 6 * 6);
    most = smaller(S, larger(most, f.taps > 6 ? f.taps : 6));
    for (int s = 0, count; s < S; s += count) {
        count = smaller(most, S - s);
        for (int o = 0, n; o < O; o += n) {
            n = smaller(WEIGHT_CHANNELS, O - o);
            switch (n) {
                case 1: weight_tiles<1>(f, o, s, count, S, to, ahead); break;
                case 2: weight_tiles<2>(f, o, s, count, S, to, ahead); break;
                case 3: weight_tiles<3>(f, o, s, count, S, to, ahead); break;
                default: weight_tiles<4>(f, o, s, count, S, to, ahead);
            }
        }
    }
}

// How many tiles that takes.
static inline int weight_tile_count(int O, int S) {
    return (O * S + TILE_SUMS - 1) / TILE_SUMS;
}

// -- geometry ----------------------------------------------------------------------------------

struct Shape {
    int C, H, W, D, OH, OW, G, KH, KW, SH, SW, PH, PW;
    int Cg, Dg, taps;  // channels of a group, and weights between two of them
    int width;         // of a row of x with its padding
    int x_branches = 1, y_branches = 1;  // of permutations before and after it

    // Which channel of x is channel c of the convolution, and which of z is channel o.
    int source(int c) const { return reorder(c, C, x_branches); }
    int target(int o) const { return reorder(o, D, y_branches); }
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
    Size *indices(Size n) {
        const Size each = sizeof(Size) > sizeof(V) ? sizeof(Size) / sizeof(V) : 1;
        used = (used + each - 1) / each * each;  // a V may need less alignment
        return (Size *)take((n * sizeof(Size) + sizeof(V) - 1) / sizeof(V));
    }
};

// -- forward -----------------------------------------------------------------------------------

// Rows of x, normalised and padded with zeros, in a ring: [channel][slots + 1][line]. The last
// slot is a row of zeros. Each row is loaded once for the job; if one group at a time has the ring
// for itself, once for each band. With a stride the columns of equal remainder lie together, so
// that every tap finds its pixels side by side.
struct InputRing {
    V *x;
    bool alone;    // whether it holds one group at a time, and each band loads all its rows
    V *row;        // room to take a row apart
    int slots;
    int part;      // columns of a remainder
    Size line;     // from one row to the next
    Size channel;  // from one channel to the next
    Size *offset;  // [band][taps]: where the taps of an output row lie in a channel
    int loaded;    // rows before this one have been loaded

    InputRing() {}
    InputRing(const Shape &s, int band, Memory &memory, bool alone = false) : alone(alone) {
        slots = (band - 1) * s.SH + s.KH;
        part = (s.width + s.SW - 1) / s.SW;
        line = (Size)part * s.SW;
        channel = (slots + 1) * line;
        x = memory.take(channels(s) * channel);
        row = memory.take(s.SW > 1 ? s.W : 0);
        offset = memory.indices((Size)band * s.taps);
    }
    // Where a column lies in its row.
    Size column(const Shape &s, int j) const { return (Size)(j % s.SW) * part + j / s.SW; }

    int channels(const Shape &s) const { return alone ? s.Cg : s.C; }

    // Begin with the rows that output row i needs.
    void begin(const Shape &s, int i) {
        loaded = i * s.SH - s.PH;
        for (int c = 0; c < channels(s); c++) {
            V *to = x + c * channel;
            for (int r = 0; r < slots; r++, to += line)
                for (int j = 0; j < s.PW; j++)
                    to[column(s, j)] = to[column(s, s.PW + s.W + j)] = V{};
            clear(to, line);
        }
    }
    // Note where the taps of output rows i … i + n − 1 lie.
    void find_taps(const Shape &s, int i, int n) {
        for (int r = 0; r < n; r++)
            for (int t = 0; t < s.taps; t++) {
                int q = (i + r) * s.SH - s.PH + t / s.KW;
                int slot = q < 0 || q >= s.H ? slots : q % slots;
                offset[(Size)r * s.taps + t] = slot * line + column(s, t % s.KW);
            }
    }
    // Load the rows of group g before row `end`, unless they are there or will not be needed.
    void load_group(const Shape &s, const Input &in, int block, int g, int end) {
        int first = larger(0, alone ? end - slots : larger(loaded, end - slots));
        for (int r = first; r < smaller(end, s.H); r++)
            for (int c = g * s.Cg; c < (g + 1) * s.Cg; c++) {
                V *to = x + (alone ? c % s.Cg : c) * channel + r % slots * line;
                int from = s.source(c);
                load(in, from, (((Size)block * s.H + r) * s.C + from) * s.W, s.W,
                     s.SW > 1 ? row : to + s.PW);
                for (int j = 0; s.SW > 1 && j < s.W; j++) to[column(s, s.PW + j)] = row[j];
            }
    }
    const V *group(const Shape &s, int g) const { return x + (alone ? 0 : g * s.Cg * channel); }
};

// The row of x after the last one that output rows before `i` need.
static inline int end_of_input(const Shape &s, int i) { return (i - 1) * s.SH - s.PH + s.KH; }

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

// End channel c of the pixels from (i, j) on, y[pixels]; `done` pixels have been there before.
static inline void end_pixels(const Shape &s, const Output &out, int block, int c, int i, int j,
                              int pixels, int done, V *y) {
    V sum{};
    for (int k = 0, n; k < pixels; k += n, i++, j = 0) {
        n = smaller(pixels - k, s.OW - j);
        Size at = (((Size)block * s.OH + i) * s.D + c) * s.OW + j;
        V *t = y + k, *z = out.z + at;
        if (out.bias || out.skip || out.relu) {
            real bias = out.bias ? out.bias[c] : 0;
            each_register(n, [&](int l, auto v) {
                v = load(t, l, v) + bias;
                if (out.skip) v += load(out.skip + at, l, v);
                store(t, l, activated(v, out.relu));
            });
        }
        if (JOINT > 1) copy(z, t, n);
        for (int l = 0; l < n && (JOINT == 1 || out.sums); l++) {
            V v = t[l];
            if (JOINT == 1) store(z + l, v);
            sum += v;
        }
    }
    if (!out.sums) return;
    V mean = sum * (1 / (real)pixels), square{};
    for (int k = 0; k < pixels; k++) {
        V d = y[k] - mean;
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
        double means[LANES], squares[LANES];
        for (int i = 0; i < LANES; i++) {
            means[i] = i < images && pixels ? lane(out.moments[c], i) : 0;
            squares[i] = i < images && pixels ? lane(out.moments[s.D + c], i) : 0;
        }
        double mean = total(means) / images;
        for (int i = 0; i < images && pixels; i++) {
            double d = means[i] - mean;
            squares[i] += d * d * pixels;
        }
        to[c] = mean;
        to[s.D + c] = total(squares);
    }
}

// What a forward kernel will read for the band after output rows i … i + n − 1.
template <class Arguments>
static inline void fetch_next(Ahead &ahead, const Shape &s, const Arguments &a, int block, int i,
                              int n, int last) {
    int more = smaller(a.band, last - i - n), end = end_of_input(s, i + n);
    if (more <= 0) return;
    int rows = smaller(more * s.SH, s.H - end);
    ahead.add(a.x.x, (Size)block * s.H + end, rows, (Size)s.C * s.W);
    if (a.skip) ahead.add(a.skip, (Size)block * s.OH + i + n, more, (Size)s.D * s.OW);
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

// Rows of the output's gradient, between columns of zeros, in a ring: [channel][slots + 1][width].
// The last slot is a row of zeros.
struct Ring {
    V *d;
    bool alone;     // whether it holds one group at a time
    int slots, width, left;
    Size channel;  // from one channel to the next
    Size group;    // from one group's first channel to the next one's
    Size next;     // from one channel of a group to the next
    int most;      // rows of the input's gradient in one band
    Size *offset;  // [most][SW][taps of a phase]: where the taps of a row find their factors
    int stride;    // from one phase to the next

    Size row(int i) const { return (Size)(i % slots) * width + left; }
    V *of(int g) const { return d + (alone ? 0 : g * group); }
};

// `mixed`: whether the first channels of all groups come first, then the second ones, …
static inline Ring ring_of(const Shape &s, int band, Memory &memory, bool mixed = false,
                           bool alone = false) {
    Ring r;
    r.alone = alone;
    r.slots = band + (s.KH - 1) / s.SH;
    // the columns that taps reach: from (PW − KW + 1) / SW to (W − 1 + PW) / SW
    r.left = larger(0, (s.KW - 1 - s.PW + s.SW - 1) / s.SW);
    r.width = r.left + larger(s.OW, (s.W - 1 + s.PW) / s.SW + 1);
    r.channel = (Size)(r.slots + 1) * r.width;
    r.d = memory.take((alone ? s.Dg : s.D) * r.channel);
    r.group = r.channel * (mixed ? 1 : s.Dg);
    r.next = r.channel * (mixed ? s.G : 1);
    r.most = (band + 1) * s.SH;
    r.stride = ((s.KH - 1) / s.SH + 1) * ((s.KW - 1) / s.SW + 1);
    r.offset = memory.indices((Size)r.most * s.SW * r.stride);
    return r;
}

static inline void clear_halo(const Shape &s, const Ring &ring) {
    for (int c = 0; c < (ring.alone ? s.Dg : s.D); c++) {
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

// The gradients of weights are summed up for each lane until all bands of a job are through: adding
// lanes up costs less then. Not if the sums would not stay in the L2 cache.
struct LaneSums {
    V *sums;     // or null
    Size group;  // from one group to the next; 0 where a job has one band, and ends group by group

    LaneSums() {}
    LaneSums(const Shape &s, const Batch &batch, int band, int groups, Size weights,
             Memory &memory) {
        bool several = (s.OH + batch.slices - 1) / batch.slices > band;
        Size size = several ? groups * weights : weights;
        sums = size * (Size)sizeof(V) <= 1 << 18 ? memory.take(size) : 0;
        group = several ? weights : 0;
    }
    V *of(int g) const { return sums ? sums + g * group : 0; }
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

// The gradient of the input of group g, for the rows of a band. `y` is memory for a tile. With a
// stride the columns of equal remainder are computed together, and then put in their order.
static inline void input_gradient(const Shape &s, const Ring &ring, const Band &band, int block,
                                  int g, const real *w, const Ending &end, V *gx, V *y, V *sums,
                                  Ahead &ahead) {
    w += (Size)g * s.Dg * s.Cg * s.taps;
    int part = (s.W + s.SW - 1) / s.SW;  // columns of a remainder
    Size line = (Size)part * s.SW;
    Size yc = ring.most * line | 1;  // odd, so that channels use different sets of the cache
    V *row = y + smaller(MOST_CHANNELS, s.Cg) * yc;
    for (int c = 0, n; c < s.Cg; c += n) {
        n = tile_channels(s.Cg - c);
        for (int q = 0; q < band.m; q++)
            for (int v = 0; v < s.SW && v < s.W; v++) {
                Phase rows(band.q + q, s.KH, s.SH, s.PH), columns(v, s.KW, s.SW, s.PW);
                int taps = rows.count * columns.count;
                const real *tile = w + (Size)s.Dg * s.Cg * phase_taps(rows, columns, s.KW)
                                   + (Size)c * s.Dg * taps;
                row_product(n, ring.of(g), ring.next, s.Dg,
                            ring.offset + ((Size)q * s.SW + v) * ring.stride, taps, tile,
                            y + q * line + v * part, yc, (s.W - v + s.SW - 1) / s.SW, 1,
                            ahead);
            }
        for (int q = 0; q < band.m; q++)
            for (int k = 0; k < n; k++) {
                int channel = s.source(g * s.Cg + c + k);
                Size at = (((Size)block * s.H + band.q + q) * s.C + channel) * s.W;
                const V *from = y + k * yc + q * line;
                for (int j = 0; s.SW > 1 && j < s.W; j++)
                    row[j] = from[j % s.SW * part + j / s.SW];
                finish(end, channel, s.C, at, s.W, s.SW > 1 ? row : from, gx, sums);
            }
    }
}
static inline Size input_gradient_scratch(const Shape &s, const Ring &ring) {
    Size line = (s.W + s.SW - 1) / s.SW * s.SW;
    return smaller(MOST_CHANNELS, s.Cg) * (ring.most * line | 1) + (s.SW > 1 ? s.W : 0);
}

// What a backward kernel will read for the band after this one.
template <class Arguments>
static inline void fetch_next(Ahead &ahead, const Shape &s, const Arguments &a, int block,
                              const Range &range, const Band &band, bool weights) {
    int i = band.i + band.n, q = band.q + band.m, end = end_of_input(s, i);
    int more = smaller(a.band, range.needed.last - i);
    if (more <= 0) return;
    Size output = (Size)block * s.OH, input = (Size)block * s.H, row = (Size)s.C * s.W;
    ahead.add(a.gz.g, output + i, more, (Size)s.D * s.OW);
    if (a.gz.kind) ahead.add(a.gz.z, output + i, more, (Size)s.D * s.OW);
    if (weights) ahead.add(a.x.x, input + end, smaller(more * s.SH, s.H - end), row);
    if (!a.gx) return;
    const Ending &e = a.end;
    const V *read[] = {e.other, e.relu ? e.value.x : 0, e.norms > 0 ? e.norm[0].z : 0,
                       e.norms > 1 ? e.norm[1].z : 0};
    for (int k = 0; k < 4; k++) {
        bool seen = !read[k] || read[k] == a.x.x;  // those rows of x are in the cache still
        for (int l = 0; l < k; l++) seen |= read[k] == read[l];
        if (!seen) ahead.add(read[k], input + q, smaller(more * s.SH, range.input.last - q), row);
    }
}
