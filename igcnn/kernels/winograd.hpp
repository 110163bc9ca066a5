// 3×3 convolutions of stride 1 and padding 1 with a quarter of the multiplications.
//
// Winograd's algorithm F(m×m, 3×3), after Lavin & Gray, "Fast Algorithms for Convolutional Neural
// Networks", 2016, arXiv 1509.09308. In one dimension m outputs from m + 2 inputs and 3 weights
// are coefficients of a product of polynomials. A polynomial of degree m + 1 is known by its
// values at m + 2 points, and values are multiplied point by point: m + 2 products instead of
// 3·m. Taking values, and going back from them to coefficients, are fixed linear maps:
//
//     y = Aᵀ [(G w) ∘ (Bᵀ d)]          in two dimensions   Y = Aᵀ [(G W Gᵀ) ∘ (Bᵀ D B)] A
//
// with d inputs, w weights, ∘ the product of equal places. Here m = 4: a tile of 4×4 outputs
// takes 6×6 inputs and 36 products a pair of channels, not 144. The maps are applied to a channel
// once, and the sum over channels is taken between them, so they cost little in wide layers.
//
// The points are 0, ±3/4, ±3/2, ∞: binary fractions, and four times as accurate as the usual
// 0, ±1, ±2, ∞. Functions are named after what they map: of_input is Bᵀ, of_weight G, to_output
// Aᵀ; gradients take the transposed maps, of_gradient A and to_weight Gᵀ.
//
// Each of the 36 places becomes a *plane*, a matrix: a row for each channel, and in it the numbers
// of all tiles and images one after another. So a plane of the output is one product of matrices,
// and its registers are full however few the lanes. Channels are loaded and saved one at a time,
// through the caller's functions.
#pragma once
#include "matrix.hpp"

static const int TILE = 4;               // outputs on a side of a tile
static const int EDGE = TILE + 2;        // inputs
static const int PLANES = EDGE * EDGE;
static const int TAPS = 9;

static const int GROUP = 64;  // channels of the output that are saved together
static const int DEPTH = 64;  // channels of the input that one pass over a group sums
static const int BLOCK = 32;  // channels of either, where weights are transformed on the way
#define UNROLL_ALL _Pragma("GCC unroll 36")

// -- memory ------------------------------------------------------------------------------------

// Deals out scratch, by whole cache lines; without memory it only counts.
struct Lines {
    static const int LINE = 64;
    char *base;
    Size used;

    explicit Lines(V *scratch) : base((char *)scratch), used(0) {}
    template <class T> T *take(Size n) {
        char *p = base ? base + used : 0;
        used += (n * (Size)sizeof(T) + LINE - 1) / LINE * LINE;
        return (T *)p;
    }
    Size vectors() const { return (used + (Size)sizeof(V) - 1) / (Size)sizeof(V); }
};

// -- the maps in one dimension -----------------------------------------------------------------
//
// Sums of two products are avoided: which of them an fma takes in would be up to the compiler, and
// so would the bits. As b = 2·a, factors that are left are small and exact.

static constexpr real a1 = 0.75, b1 = 1.5;  // the points ±a1, ±b1, and their powers
static constexpr real a2 = a1 * a1, b2 = b1 * b1, a3 = a2 * a1;
// What divides the values of the weights: the products of the differences of the points.
static constexpr double f0 = 1.0 / (a2 * b2);
static constexpr double fa = 0.5 / (a2 * (a2 - b2)), fb = 0.5 / (b2 * (b2 - a2));

static inline void of_input(const Part *d, Part *t) {
    Part u = d[4] - b2 * d[2], v = d[3] - b2 * d[1];
    Part p = d[4] - a2 * d[2], q = d[3] - a2 * d[1];
    t[0] = a2 * b2 * d[0] + (d[4] - (a2 + b2) * d[2]);
    t[1] = u + a1 * v, t[2] = u - a1 * v;
    t[3] = p + b1 * q, t[4] = p - b1 * q;
    t[5] = a2 * b2 * d[1] + (d[5] - (a2 + b2) * d[3]);
}

static inline void to_output(const Part *t, Part *y) {
    Part u = t[1] + t[2], v = t[1] - t[2], p = t[3] + t[4], q = t[3] - t[4];
    y[0] = t[0] + u + p;
    y[1] = a1 * (v + (real)2 * q);
    y[2] = a2 * (u + (real)4 * p);
    y[3] = a3 * (v + (real)8 * q) + t[5];
}

static inline void of_gradient(const Part *g, Part *t) {
    Part u = g[0] + a2 * g[2], v = g[1] + a2 * g[3];
    Part p = g[0] + b2 * g[2], q = g[1] + b2 * g[3];
    t[0] = g[0], t[5] = g[3];
    t[1] = u + a1 * v, t[2] = u - a1 * v;
    t[3] = p + b1 * q, t[4] = p - b1 * q;
}

template <class T> static inline void of_weight(const T *w, T *t) {
    T p = w[0] + (double)a2 * w[2], q = w[0] + (double)b2 * w[2];
    t[0] = f0 * w[0], t[5] = w[2];
    t[1] = fa * (p + (double)a1 * w[1]), t[2] = fa * (p - (double)a1 * w[1]);
    t[3] = fb * (q + (double)b1 * w[1]), t[4] = fb * (q - (double)b1 * w[1]);
}

// Here f0 = −3/2·fa and fb = −1/4·fa.
static inline void to_weight(const Register *t, Register *w) {
    Register u = t[1] + t[2], v = t[1] - t[2], p = t[3] + t[4], q = t[3] - t[4];
    w[0] = (real)fa * (u - (real)0.25 * p - (real)1.5 * t[0]);
    w[1] = (real)(fa * a1) * (v - (real)0.5 * q);
    w[2] = (real)(fa * a2) * (u - p) + t[5];
}

// -- weights -----------------------------------------------------------------------------------

// The weights of a convolution of C channels: w[o·out + c·in + tap], times scale[o] or 1.
struct Weights {
    const real *w;
    Size out, in;
    const real *scale;  // or null
    bool turned;        // the taps from the last to the first

    Weights part(int o, int c) const {
        return {w + o * out + c * in, out, in, scale ? scale + o : 0, turned};
    }
};
static inline Weights forward_weights(const real *w, const real *scale, int C) {
    return {w, (Size)C * TAPS, TAPS, scale, false};
}
// The gradient of the input is the convolution with inputs and outputs exchanged, taps turned.
static inline Weights backward_weights(const real *w, int C) {
    return {w, TAPS, (Size)C * TAPS, 0, true};
}

// Map the weights of D outputs to [group of outputs][plane][pass over c][tile of outputs][c][o],
// which convolve reads from end to end; PLANES·C·D numbers. Only outputs first ≤ o < last
// (multiples of OUT, or D), so that jobs can share the work. In double: rounded once.
static void pack(const Weights &from, int C, int D, int first, int last, real *to) {
    const int RUN = 16;  // planes lie powers of two apart: write some cache lines at a time
    typedef double Outs __attribute__((vector_size(OUT * sizeof(double))));
    typedef real Reals __attribute__((vector_size(OUT * sizeof(real))));
    real runs[PLANES][RUN * OUT];
    for (int o0 = first, n; o0 < last; o0 += n) {
        n = smaller(OUT, last - o0);
        int g0 = o0 / GROUP * GROUP, group = smaller(GROUP, D - g0);
        Reals scale = Reals{} + 1;
        if (from.scale) memcpy(&scale, from.scale + o0, n * sizeof(real));
        for (int c0 = 0, run; c0 < C; c0 += run) {
            int pass = c0 / DEPTH * DEPTH, depth = smaller(DEPTH, C - pass);
            run = smaller(RUN, pass + depth - c0);
            for (int c = 0; c < run; c++) {
                real each[TAPS][OUT] = {};
                for (int o = 0; o < n; o++) {
                    const real *w = from.w + (o0 + o) * from.out + (c0 + c) * from.in;
                    UNROLL_ALL for (int t = 0; t < TAPS; t++) each[t][o] = w[t];
                }
                Outs f[3][3], half[3][EDGE], u[EDGE][EDGE];  // f[column][row]
                UNROLL_ALL for (int t = 0; t < TAPS; t++) {
                    Reals v;
                    memcpy(&v, each[from.turned ? TAPS - 1 - t : t], sizeof v);
                    f[t % 3][t / 3] = __builtin_convertvector(v * scale, Outs);
                }
                UNROLL_ALL for (int s = 0; s < 3; s++) of_weight(f[s], half[s]);
                UNROLL_ALL for (int i = 0; i < EDGE; i++) {
                    Outs row[3] = {half[0][i], half[1][i], half[2][i]};
                    of_weight(row, u[i]);
                }
                UNROLL_ALL for (int e = 0; e < PLANES; e++) {
                    Reals v = __builtin_convertvector(u[e / EDGE][e % EDGE], Reals);
                    memcpy(runs[e] + c * n, &v, n == OUT ? sizeof v : n * sizeof(real));
                }
            }
            real *at = to + (Size)PLANES * C * g0 + (Size)pass * group + (Size)(o0 - g0) * depth;
            for (int e = 0; e < PLANES; e++)
                memcpy(at + (Size)e * C * group + (c0 - pass) * n, runs[e],
                       sizeof(real) * run * n);
        }
    }
}

// -- the product of a plane --------------------------------------------------------------------

// y[o][p] (+)= Σ_c w[c][o] · x[c][p] for O channels and P registers.
template <int O, int P>
static void product(const real *w, const Register *x, int step, int C, Register *y, bool more) {
    Register sum[O][P];
    UNROLL for (int o = 0; o < O; o++)
        UNROLL for (int p = 0; p < P; p++) sum[o][p] = Register{};
    for (int c = 0; c < C; c++, x += step, w += O) {
        Register v[P];
        UNROLL for (int p = 0; p < P; p++) v[p] = x[p];
        UNROLL for (int o = 0; o < O; o++)
            UNROLL for (int p = 0; p < P; p++) sum[o][p] += v[p] * w[o];
    }
    UNROLL for (int o = 0; o < O; o++)
        UNROLL for (int p = 0; p < P; p++)
            y[o * step + p] = more ? y[o * step + p] + sum[o][p] : sum[o][p];
}
typedef void Product(const real *, const Register *, int, int, Register *, bool);
template <int O, int P> static Product *product_of(int o, int p) {
    if constexpr (O > 1)
        if (o < O) return product_of<O - 1, P>(o, p);
    if constexpr (P > 1)
        if (p < P) return product_of<O, P - 1>(o, p);
    return product<O, P>;
}

// Channels c … c + depth of the C of x, into `outs` channels of y; u as packed.
static inline void multiply(const real *u, const Register *x, int C, int c, int depth, int outs,
                            const Panels &s, Register *y, bool more) {
    for (int k = 0; k < s.count; k++) {
        int step = s.size(k);
        const Register *from = x + (Size)s.start(k) * C + (Size)c * step;
        Register *to = y + (Size)s.start(k) * outs;
        for (int o = 0; o < outs; o += OUT)
            product_of<OUT, WIDE>(smaller(OUT, outs - o), step)(
                u + (Size)o * depth, from, step, depth, to + (Size)o * step, more);
    }
}

// -- tiles -------------------------------------------------------------------------------------

// The tiles of so many rows and columns of the output.
struct Tiles {
    int across, parts, registers;
    int line;    // pixels of a row of a channel in memory
    int pixels;  // of a channel in memory

    Tiles(int rows, int columns) {
        int down = (rows + TILE - 1) / TILE;
        across = (columns + TILE - 1) / TILE, parts = down * across * PARTS;
        registers = (parts + JOINT - 1) / JOINT;
        line = across * TILE + 2, pixels = (down * TILE + 2) * line;
    }
};

// Where the Parts of the tiles begin in a channel, one after another; what follows the last tile
// repeats the first.
struct Walk {
    const Tiles &tiles;
    int left, column, part;
    Size row;

    explicit Walk(const Tiles &t) : tiles(t), left(t.parts), column(0), part(0), row(0) {}
    Size next() {
        Size at = left > 0 ? row + column * (TILE * PARTS) + part : 0;
        left--;
        if (++part == PARTS) {
            part = 0;
            if (++column == tiles.across) column = 0, row += TILE * tiles.line * PARTS;
        }
        return at;
    }
};

// Take the tile at `a` to its planes: store(plane, number).
template <class Store>
static inline void tile_of_input(const Part *a, Size line, Store store) {
    Part half[EDGE][EDGE];
    UNROLL for (int q = 0; q < EDGE; q++) {
        Part d[EDGE], t[EDGE];
        UNROLL for (int r = 0; r < EDGE; r++) d[r] = a[(r * line + q) * PARTS];
        of_input(d, t);
        UNROLL for (int r = 0; r < EDGE; r++) half[r][q] = t[r];
    }
    UNROLL for (int r = 0; r < EDGE; r++) {
        Part t[EDGE];
        of_input(half[r], t);
        UNROLL for (int q = 0; q < EDGE; q++) store(r * EDGE + q, t[q]);
    }
}

template <class Store>
static inline void tile_of_gradient(const Part *a, Size line, Store store) {
    Part half[EDGE][TILE];
    UNROLL for (int q = 0; q < TILE; q++) {
        Part d[TILE], t[EDGE];
        UNROLL for (int r = 0; r < TILE; r++) d[r] = a[(r * line + q) * PARTS];
        of_gradient(d, t);
        UNROLL for (int r = 0; r < EDGE; r++) half[r][q] = t[r];
    }
    UNROLL for (int r = 0; r < EDGE; r++) {
        Part t[EDGE];
        of_gradient(half[r], t);
        UNROLL for (int q = 0; q < EDGE; q++) store(r * EDGE + q, t[q]);
    }
}

// Take a tile back from its planes.
static inline void tile_of_output(const Part *m, Size plane, Part *y, Size line) {
    Part half[TILE][EDGE];
    UNROLL for (int q = 0; q < EDGE; q++) {
        Part d[EDGE], t[TILE];
        UNROLL for (int r = 0; r < EDGE; r++) d[r] = m[(r * EDGE + q) * plane];
        to_output(d, t);
        UNROLL for (int r = 0; r < TILE; r++) half[r][q] = t[r];
    }
    UNROLL for (int r = 0; r < TILE; r++) {
        Part t[TILE];
        to_output(half[r], t);
        UNROLL for (int q = 0; q < TILE; q++) y[(r * line + q) * PARTS] = t[q];
    }
}

// Planes of C channels, each loaded by load(c, to, line): rows + 2 rows of columns + 2 pixels.
template <class Load>
static void planes(int C, const Tiles &tiles, Register *x, V *channel, Load load) {
    Panels s(tiles.registers);
    Size plane = odd((Size)C * s.registers) * JOINT;
    const Part *a = (const Part *)channel;
    clear(channel, tiles.pixels);  // what tiles have beyond the image
    for (int c = 0; c < C; c++) {
        load(c, channel, tiles.line);
        Walk walk(tiles);
        for (int k = 0; k < s.count; k++) {
            Part *to = (Part *)(x + (Size)s.start(k) * C + (Size)c * s.size(k));
            for (int u = 0; u < s.size(k) * JOINT; u++, to++)
                tile_of_input(a + walk.next(), tiles.line,
                              [&](int e, Part v) { to[e * plane] = v; });
        }
    }
}

// … and back: save(o, from, line) for each of `outs` channels of planes m: rows of pixels.
template <class Save>
static void pixels(const Register *m, int first, int outs, const Tiles &tiles, V *channel,
                   Save save) {
    Panels s(tiles.registers);
    Size plane = odd((Size)outs * s.registers) * JOINT;
    Part *y = (Part *)channel;
    for (int o = 0; o < outs; o++) {
        Walk walk(tiles);
        for (int k = 0; k < s.count; k++) {
            const Part *from = (const Part *)(m + (Size)s.start(k) * outs + (Size)o * s.size(k));
            int u = s.start(k) * JOINT, end = smaller(u + s.size(k) * JOINT, tiles.parts);
            for (; u < end; u++, from++) tile_of_output(from, plane, y + walk.next(), tiles.line);
        }
        save(first + o, channel, tiles.line);
    }
}

// -- convolution -------------------------------------------------------------------------------

// Memory for a convolution of C channels to groups of at most `outs`, of so many rows.
struct Planes {
    Register *x, *y;  // of the input; of a group of outputs
    V *channel;       // one at a time
    real *block;      // weights that are transformed on the way

    Planes(Lines &memory, int C, int outs, int rows, int columns, bool raw) {
        Tiles t(rows, columns);
        x = memory.take<Register>(PLANES * odd((Size)C * t.registers));
        y = memory.take<Register>(PLANES * odd((Size)outs * t.registers));
        channel = memory.take<V>(t.pixels);
        block = memory.take<real>(raw ? PLANES * BLOCK * BLOCK : 0);
    }
};
static inline int most_outputs(int D, bool raw) { return smaller(D, raw ? BLOCK : GROUP); }

// Outputs first ≤ o < last (multiples of OUT, or D) of D, from C channels and packed weights.
// load(c, to, line) writes rows + 2 rows of columns + 2 pixels of channel c, its padding included;
// save(o, from, line) takes rows rows of columns pixels of channel o; rows are `line` pixels
// apart.
template <class Load, class Save>
static void convolve(const real *w, int C, int D, int first, int last, int rows, int columns,
                     const Planes &memory, Load load, Save save) {
    Tiles tiles(rows, columns);
    Panels s(tiles.registers);
    Size xplane = odd((Size)C * s.registers);
    planes(C, tiles, memory.x, memory.channel, load);
    for (int o = first, outs; o < last; o += outs) {
        int g0 = o / GROUP * GROUP, group = smaller(GROUP, D - g0);
        outs = smaller(last, g0 + group) - o;
        Size plane = odd((Size)outs * s.registers);
        for (int e = 0; e < PLANES; e++)
            for (int c = 0, depth; c < C; c += depth) {
                depth = smaller(DEPTH, C - c);
                const real *u = w + (Size)PLANES * C * g0 + ((Size)e * C + c) * group
                                + (Size)(o - g0) * depth;
                multiply(u, memory.x + e * xplane, C, c, depth, outs, s, memory.y + e * plane,
                         c > 0);
            }
        pixels(memory.y, o, outs, tiles, memory.channel, save);
    }
}

// The same from weights as they are, which are transformed a block at a time: for wide layers of
// few pixels, whose transformed weights, four times as many, would go to memory and back.
template <class Load, class Save>
static void convolve_raw(const Weights &w, int C, int first, int last, int rows, int columns,
                         const Planes &memory, Load load, Save save) {
    Tiles tiles(rows, columns);
    Panels s(tiles.registers);
    Size xplane = odd((Size)C * s.registers);
    planes(C, tiles, memory.x, memory.channel, load);
    for (int o = first, outs; o < last; o += outs) {
        outs = smaller(BLOCK, last - o);
        Size plane = odd((Size)outs * s.registers);
        for (int c = 0, depth; c < C; c += depth) {
            depth = smaller(BLOCK, C - c);
            pack(w.part(o, c), depth, outs, 0, outs, memory.block);
            for (int e = 0; e < PLANES; e++)
                multiply(memory.block + (Size)e * depth * outs, memory.x + e * xplane, C, c, depth,
                         outs, s, memory.y + e * plane, c > 0);
        }
        pixels(memory.y, o, outs, tiles, memory.channel, save);
    }
}

// -- gradient of the weights -------------------------------------------------------------------
//
// The product of a plane sums over numbers here, so the input's planes are turned round: the
// channels lie side by side, in registers.

// Memory for the gradient of the weights from C channels to `outs`, of so many rows; sums of
// `summed` of them at once.
struct WeightPlanes {
    Register *x, *g;  // of the input: [panel of channels][number][channels]; [outs][number]
    Register *sums;   // [panel of channels][summed][channels]
    V *channels;      // WIDTH at a time
    Size room;        // from one to the next

    WeightPlanes(Lines &memory, int C, int outs, int summed, int rows, int columns) {
        Tiles t(rows, columns);
        int registers = channels_of(C).registers;
        x = memory.take<Register>(PLANES * odd((Size)t.registers * WIDTH * registers));
        g = memory.take<Register>(PLANES * odd((Size)outs * t.registers));
        sums = memory.take<Register>(PLANES * odd((Size)summed * registers));
        room = odd(t.pixels);
        channels = memory.take<V>(room * WIDTH);
    }
};

// Planes of C channels of the input, loaded as convolve does.
template <class Load>
static void planes_of_input(int C, int rows, int columns, const WeightPlanes &memory, Load load) {
    Tiles tiles(rows, columns);
    Panels s = channels_of(C);
    int numbers = tiles.registers * WIDTH;
    Size plane = odd((Size)numbers * s.registers), room = memory.room;
    Register each[PLANES][WIDTH + 1];
    clear(memory.channels, room * WIDTH);
    for (int r = 0; r < s.registers; r++) {
        int k = s.of(r), step = s.size(k), channels = smaller(WIDTH, C - r * WIDTH);
        Register *to = memory.x + (Size)s.start(k) * numbers + (r - s.start(k));
        for (int c = 0; c < channels; c++)
            load(r * WIDTH + c, memory.channels + c * room, tiles.line);
        Walk walk(tiles);
        for (int q = 0; q < tiles.registers; q++) {
            Size at[JOINT];
            for (int u = 0; u < JOINT; u++) at[u] = walk.next();
            int parts = smaller(JOINT, tiles.parts - q * JOINT);
            if (channels < WIDTH || parts < JOINT) memset((void *)each, 0, sizeof each);
            for (int c = 0; c < channels; c++)
                for (int u = 0; u < parts; u++)
                    tile_of_input((const Part *)(memory.channels + c * room) + at[u], tiles.line,
                                  [&](int e, Part v) { ((Part *)&each[e][c])[u] = v; });
            for (int e = 0; e < PLANES; e++) {
                Register v[WIDTH], *row = to + e * plane + (Size)q * WIDTH * step;
                UNROLL for (int c = 0; c < WIDTH; c++) v[c] = each[e][c];
                transpose(v);
                UNROLL for (int c = 0; c < WIDTH; c++) row[c * step] = v[c];
            }
        }
    }
}

// Planes of D channels of the gradient of the output, each loaded by load(o, to, line): rows rows
// of columns pixels.
template <class Load>
static void planes_of_gradient(int D, int rows, int columns, const WeightPlanes &memory,
                               Load load) {
    Tiles tiles(rows, columns);
    Size plane = odd((Size)D * tiles.registers) * JOINT;
    clear(memory.channels, tiles.pixels);
    for (int o = 0; o < D; o++) {
        Part *to = (Part *)(memory.g + (Size)o * tiles.registers);
        load(o, memory.channels, tiles.line);
        Walk walk(tiles);
        for (int u = 0; u < tiles.parts; u++)
            tile_of_gradient((const Part *)memory.channels + walk.next(), tiles.line,
                             [&](int e, Part v) { to[e * plane + u] = v; });
        for (int u = tiles.parts; u < tiles.registers * JOINT; u++)
            for (int e = 0; e < PLANES; e++) to[e * plane + u] = Part{};
    }
}

// Products of the planes of C channels of the input and of channels first … first + outs of the D
// of the gradient, into the sums or, if `more`, added to them.
static void add_products(const WeightPlanes &memory, int C, int D, int first, int outs, int rows,
                         int columns, bool more) {
    int numbers = Tiles(rows, columns).registers * WIDTH;
    Panels s = channels_of(C);
    Size xplane = odd((Size)numbers * s.registers), gplane = odd((Size)D * numbers / WIDTH);
    Size plane = odd((Size)outs * s.registers);
    for (int e = 0; e < PLANES; e++)
        for (int k = 0; k < s.count; k++)
            for (int o = 0; o < outs; o += OUT) {
                int step = s.size(k);
                Correlate *f = correlate_of<OUT, WIDE>(smaller(OUT, outs - o), step);
                const real *g = (const real *)(memory.g + e * gplane) + (Size)(first + o) * numbers;
                const Register *x = memory.x + e * xplane + (Size)s.start(k) * numbers;
                Register *to = memory.sums + e * plane + (Size)s.start(k) * outs + (Size)o * step;
                for (int n = 0; n < numbers; n += SPAN)
                    f(g + n, numbers, x + (Size)n * step, step, smaller(SPAN, numbers - n), to,
                      more || n);
            }
}

// gw[o][c][tap] from the sums of `outs` outputs.
static void leave_weights(const WeightPlanes &memory, int C, int outs, real *gw) {
    Panels s = channels_of(C);
    Size plane = odd((Size)outs * s.registers);
    for (int o = 0; o < outs; o++)
        for (int r = 0; r < s.registers; r++) {
            int k = s.of(r), channels = smaller(WIDTH, C - r * WIDTH);
            const Register *from = memory.sums + (Size)s.start(k) * outs + (Size)o * s.size(k)
                                   + (r - s.start(k));
            Register half[3][EDGE], each[TAPS];
            UNROLL for (int q = 0; q < EDGE; q++) {
                Register t[EDGE], v[3];
                UNROLL for (int i = 0; i < EDGE; i++) t[i] = from[(i * EDGE + q) * plane];
                to_weight(t, v);
                UNROLL for (int i = 0; i < 3; i++) half[i][q] = v[i];
            }
            UNROLL for (int i = 0; i < 3; i++) to_weight(half[i], each + 3 * i);
            real *to = gw + ((Size)o * C + r * WIDTH) * TAPS;
            for (int c = 0; c < channels; c++)
                for (int t = 0; t < TAPS; t++) to[c * TAPS + t] = ((const real *)&each[t])[c];
        }
}
