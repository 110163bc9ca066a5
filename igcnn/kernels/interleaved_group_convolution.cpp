// The unit of an interleaved group convolution, and its gradients:
//
//     z = Reorder(S) · W2 · Reorder(L) · W1 · x
//
// W1 is the primary convolution, of L groups, and W2 the secondary one, 1×1, of S groups
// (formulas: interleaved_group_convolution.py). With lanes of images a permutation of channels
// is nothing but an address: input j of secondary group s is channel `mixed(s·J + j)` of the
// primary output p, and its output k is channel k·S + s of z.
//
// First the formula as it stands; below it the kernels that are used. They work as those of
// convolution.cpp do, on a band of rows at a time. p lives for one band only: backward computes
// it again, because that is faster than storing and loading it.
#include "convolution.hpp"
#include "matrix.hpp"

// -- the formula -------------------------------------------------------------------------------

struct IgcFormula {
    const V *x;      // [blocks][H][C][W]
    const real *w1;  // [D][C/L][KH][KW]
    const real *w2;  // [D][D/S]
    V *z;            // [blocks][OH][D][OW]
    int C, H, W;     // of x
    int D, OH, OW;   // of z
    int G;           // L, primary groups
    int KH, KW;      // primary kernel
    int SH, SW;      // stride
    int PH, PW;      // padding
    int S;           // secondary groups
};

// Channel of p that Reorder(L) puts at position k.
static inline int mixed(int k, int D, int L) { return k % L * (D / L) + k / L; }

// One job a block. Nothing of igcnn calls it but the tests.
KERNEL(igc_formula, IgcFormula) {
    const V *x = a.x + (Size)job * a.H * a.C * a.W;
    V *z = a.z + (Size)job * a.OH * a.D * a.OW;
    int Cg = a.C / a.G, J = a.D / a.S;
    V *p = scratch;  // [D], one pixel
    for (int i = 0; i < a.OH; i++)
        for (int j = 0; j < a.OW; j++) {
            for (int o = 0; o < a.D; o++) {
                p[o] = V{};
                for (int c = 0; c < Cg; c++)
                    for (int u = 0; u < a.KH; u++)
                        for (int v = 0; v < a.KW; v++) {
                            int row = i * a.SH + u - a.PH, column = j * a.SW + v - a.PW;
                            if (row < 0 || row >= a.H || column < 0 || column >= a.W) continue;
                            int channel = o / (a.D / a.G) * Cg + c;
                            add(p[o], x[((Size)row * a.C + channel) * a.W + column],
                                a.w1[((o * Cg + c) * a.KH + u) * a.KW + v]);
                        }
            }
            for (int s = 0; s < a.S; s++)
                for (int k = 0; k < J; k++) {
                    V sum{};
                    for (int l = 0; l < J; l++)
                        add(sum, p[mixed(s * J + l, a.D, a.G)], a.w2[(s * J + k) * J + l]);
                    z[((Size)i * a.D + k * a.S + s) * a.OW + j] = sum;
                }
        }
}
SCRATCH(igc_formula, IgcFormula) { return a.D; }

// -- weights -----------------------------------------------------------------------------------

struct IgcPack {
    const real *w1;     // [D][C/L][KH][KW]
    const real *w2;     // [D][D/S]
    const real *scale;  // or null: factor for each output channel, [D]
    real *forward1;     // receives w1 as igc_forward reads it; as many numbers
    real *backward1;    // or null: likewise for igc_backward
    real *forward2;     // receives w2 as igc_forward reads it; as many numbers
    real *backward2;    // or null: likewise for igc_backward
    int C, H, W;        // of x
    int D, OH, OW;      // of z
    int G;              // L, primary groups
    int KH, KW;         // primary kernel
    int SH, SW;         // stride
    int PH, PW;         // padding
    int S;              // secondary groups
};

// One job a secondary group; they share the primary ones.
KERNEL(igc_pack, IgcPack) {
    Shape s = shape_of(a);
    for (int g = job; g < s.G; g += a.S) {
        const real *w = a.w1 + (Size)g * s.Dg * s.Cg * s.taps;
        pack_group(s, g, a.forward1, a.backward1, [&](int o, int c, int t) {
            return w[((Size)o * s.Cg + c) * s.taps + t];
        });
    }
    int J = s.D / a.S;
    Size at = (Size)job * J * J;
    auto w = [&](int k, int j) {
        real scale = a.scale ? a.scale[k * a.S + job] : 1;
        return a.w2[at + (Size)k * J + j] * scale;
    };
    pack(a.forward2 + at, J, J, 1, [&](int k, int j, int) { return w(k, j); });
    if (a.backward2) pack(a.backward2 + at, J, J, 1, [&](int j, int k, int) { return w(k, j); });
}

// -- parts of a band ----------------------------------------------------------------------------
//
// Channels of p lie in the order in which the secondary convolution takes them: channel o of
// primary group g comes at place o·L + g.

// The secondary convolution takes so few pixels at a time that their channels stay in the L1 or L2
// cache.
static const int CHUNK = 16 * JOINT;
static const Size CHUNK_ROW = CHUNK | 1;  // odd, so that channels use different sets of the cache
static const int WIDE_GROUP = 48;  // channels, from which the gradient of w2 turns p round
static const Size NONE = 0;  // the only tap

// p, [D][pc], of group g for n output rows.
static inline void primary(const Shape &s, int g, int n, const InputRing &in, const real *w, V *p,
                           Size pc, Ahead &ahead) {
    w += (Size)g * s.Dg * s.Cg * s.taps;
    for (int o = 0, k; o < s.Dg; o += k, w += (Size)k * s.Cg * s.taps) {
        k = tile_channels(s.Dg - o);
        row_product(k, in.group(s, g), in.channel, s.Cg, in.offset, s.taps, w,
                    p + (o * s.G + g) * pc, s.G * pc, s.OW, n, ahead);
    }
}

// gw[o][c] (+)= Σ_n g[o][n] · p[c][n] over the numbers of so many pixels, for J channels of
// either. `turned` is memory for p turned round: [panel][number][channels].
static void mix_gradient(int J, const V *g, Size gc, const V *p, Size pc, int pixels,
                         Register *turned, real *gw, bool more) {
    Panels s = channels_of(J);
    int numbers = pixels * LANES;
    for (int r = 0; r < s.registers; r++) {
        int step = s.size(s.of(r)), channels = smaller(WIDTH, J - r * WIDTH);
        Register *to = turned + (Size)s.start(s.of(r)) * numbers + (r - s.start(s.of(r)));
        for (int n = 0; n < numbers; n += WIDTH) {
            Register v[WIDTH];
            const real *from = (const real *)(p + r * WIDTH * pc) + n;
            UNROLL for (int c = 0; c < WIDTH; c++)
                v[c] = c < channels ? load(from + c * pc * LANES) : Register{};
            transpose(v);
            UNROLL for (int k = 0; k < WIDTH; k++)
                if (n + k < numbers) to[(Size)(n + k) * step] = v[k];
        }
    }
    for (int k = 0; k < s.count; k++)
        for (int n = 0; n < numbers; n += SPAN)
            for (int o = 0, outs; o < J; o += outs) {
                outs = smaller(OUT, J - o);
                int step = s.size(k), first = s.start(k) * WIDTH;
                Register sums[OUT * WIDE];
                correlate_of<OUT, WIDE>(outs, step)(
                    (const real *)(g + o * gc) + n, gc * LANES,
                    turned + (Size)s.start(k) * numbers + (Size)n * step, step,
                    smaller(SPAN, numbers - n), sums, false);
                int count = smaller(step * WIDTH, J - first);
                for (int i = 0; i < outs; i++) {
                    real *to = gw + (Size)(o + i) * J + first;
                    const real *from = (const real *)(sums + i * step);
                    for (int c = 0; c < count; c++) to[c] = more || n ? to[c] + from[c] : from[c];
                }
            }
}

// -- forward -----------------------------------------------------------------------------------

struct IgcForward {
    Input x;           // what is convolved, [blocks][H][C][W]
    const real *w1;    // as igc_pack leaves it in `forward1`
    const real *w2;    // in `forward2`
    V *z;              // [blocks][OH][D][OW]
    double *sums;      // or null: [jobs][2][D] receives mean and Σ (z − mean)² of each job
    const real *bias;  // or null: added to each channel, [D]
    const V *skip;     // or null: added to z
    int relu;          // of what is stored; 0: none, 1: ReLU, 2: ReLU6
    int C, H, W;       // of x
    int D, OH, OW;     // of z
    int G;             // L, primary groups
    int KH, KW;        // primary kernel
    int SH, SW;        // stride
    int PH, PW;        // padding
    int S;             // secondary groups
    int band;          // output rows at a time
    Batch batch;       // the slices are of the output rows
};

struct ForwardMemory {
    V *moments;      // [2][D]
    InputRing in;    // rows of x
    V *p;            // [D][pc]
    V *y;            // a tile of z: [channels][CHUNK_ROW]
    Size pc;         // odd, so that channels use different sets of the cache
    Size used;

    ForwardMemory(const IgcForward &a, V *scratch) {
        Shape s = shape_of(a);
        Memory memory{scratch, 0};
        moments = memory.take(2 * s.D);
        in = InputRing(s, a.band, memory);
        pc = (Size)a.band * s.OW | 1;
        p = memory.take(s.D * pc);
        y = memory.take(MOST_CHANNELS * CHUNK_ROW);
        used = memory.used + JOINT;  // the last register of a row may reach beyond it
    }
};
SCRATCH(igc_forward, IgcForward) { return ForwardMemory(a, 0).used; }

KERNEL(igc_forward, IgcForward) {
    Shape s = shape_of(a);
    ForwardMemory m(a, scratch);
    Output out = output_of(a, m.moments);
    int block = block_of(a.batch, job), done = 0, J = s.D / a.S;
    Rows own = rows_of(a.batch, job, s.OH);
    m.in.begin(s, own.first);
    for (int i = own.first, n; i < own.last; i += n, done += n * s.OW) {
        n = smaller(a.band, own.last - i);
        Ahead ahead;
        fetch_next(ahead, s, a, block, i, n, own.last);
        ahead.spread((Size)n * (s.G * row_tiles(s.Dg, s.OW) + a.S * row_tiles(J, s.OW)));
        m.in.find_taps(s, i, n);
        int end = end_of_input(s, i + n);
        for (int g = 0; g < s.G; g++) {
            m.in.load_group(s, a.x, block, g, end);
            primary(s, g, n, m.in, a.w1, m.p, m.pc, ahead);
        }
        m.in.loaded = end;
        int pixels = n * s.OW;
        for (int g = 0; g < a.S; g++)
            for (int j = 0, count; j < pixels; j += count) {
                count = smaller(CHUNK, pixels - j);
                const real *w = a.w2 + (Size)g * J * J;
                for (int o = 0, k; o < J; o += k, w += (Size)k * J) {
                    k = tile_channels(J - o);
                    row_product(k, m.p + g * J * m.pc + j, m.pc, J, &NONE, 1, w, m.y, CHUNK_ROW,
                                count, 1, ahead);
                    for (int l = 0; l < k; l++)
                        end_pixels(s, out, block, (o + l) * a.S + g, i + j / s.OW, j % s.OW, count,
                                   done + j, m.y + l * CHUNK_ROW);
                }
            }
    }
    leave_moments(s, out, job, images_of(a.batch, block), done);
}

// -- backward ----------------------------------------------------------------------------------

struct IgcBackward {
    Gradient gz;      // gradient of the output, [blocks][OH][D][OW]
    Input x;          // what was convolved, [blocks][H][C][W]
    const real *w1f;  // as igc_pack leaves w1 in `forward1`
    const real *w1;   // in `backward1`
    const real *w2;   // in `backward2`
    V *gx;            // or null: [blocks][H][C][W] receives the gradient of x
    Ending end;       // of gx
    real *gw1;        // or null: [jobs][D][C/L][KH][KW] receives the gradients of w1
    real *gw2;        // or null: [jobs][D][D/S] receives those of w2
    int C, H, W;      // of x
    int D, OH, OW;    // of the output
    int G;            // L, primary groups
    int KH, KW;       // primary kernel
    int SH, SW;       // stride
    int PH, PW;       // padding
    int S;            // secondary groups
    int band;         // output rows at a time
    Batch batch;      // the slices are of the output rows
};

struct BackwardMemory {
    Register *turned;  // p of a secondary group turned round, if the group is wide
    V *sums;         // [3][C], of the ending
    Ring ring;       // of p's gradient
    V *gz;           // [D][pc]
    V *p;            // [D][pc]
    Size pc;         // odd, so that channels use different sets of the cache
    InputRing in;    // rows of x
    V *y;            // a tile of gx
    LaneSums gw1, gw2;
    Size *g_row;     // [band]
    Size used;

    BackwardMemory(const IgcBackward &a, V *scratch) {
        Shape s = shape_of(a);
        Memory memory{scratch, 0};
        int J = s.D / a.S;
        bool wide = J >= WIDE_GROUP;
        Size numbers = wide ? (Size)a.band * s.OW * LANES * channels_of(J).registers : 0;
        turned = (Register *)memory.take(numbers * WIDTH / LANES);
        sums = memory.take(3 * s.C);
        ring = ring_of(s, a.band, memory, true);
        pc = (Size)a.band * s.OW | 1;
        gz = memory.take(s.D * pc);
        p = memory.take(s.D * pc);
        in = InputRing(s, a.band, memory);
        y = memory.take(input_gradient_scratch(s, ring));
        gw1 = LaneSums(s, a.batch, a.band, s.G, (Size)s.Dg * s.Cg * s.taps, memory);
        gw2 = LaneSums(s, a.batch, a.band, a.S, wide ? 0 : (Size)J * J, memory);
        g_row = memory.indices(a.band);
        used = memory.used + JOINT;  // the last register of a row may reach beyond it
    }
};
SCRATCH(igc_backward, IgcBackward) { return BackwardMemory(a, 0).used; }

// The gradient of p, for the rows of a band, into the ring.
static inline void secondary_gradient(const Shape &s, const IgcBackward &a,
                                      const BackwardMemory &m, const Band &band,
                                      Ahead &ahead) {
    const Ring &ring = m.ring;
    int J = s.D / a.S;
    for (int g = 0; g < a.S; g++)
        for (int r = 0; r < band.n; r++)
            for (int i = 0, count; i < s.OW; i += count) {
                count = smaller(CHUNK, s.OW - i);
                const real *w = a.w2 + (Size)g * J * J;
                V *to = ring.d + g * J * ring.channel + ring.row(band.i + r) + i;
                for (int j = 0, k; j < J; j += k, w += (Size)k * J) {
                    k = tile_channels(J - j);
                    row_product(k, m.gz + g * m.pc + r * s.OW + i, a.S * m.pc, J, &NONE, 1, w,
                                to + j * ring.channel, ring.channel, count, 1, ahead);
                }
            }
}

KERNEL(igc_backward, IgcBackward) {
    Shape s = shape_of(a);
    BackwardMemory m(a, scratch);
    const Ring &ring = m.ring;
    int block = block_of(a.batch, job), images = images_of(a.batch, block);
    int S1 = s.Cg * s.taps, J = s.D / a.S;
    real *gw1 = a.gw1 ? a.gw1 + (Size)job * s.D * S1 : 0;
    real *gw2 = a.gw2 ? a.gw2 + (Size)job * s.D * J : 0;
    begin_sums(m.sums, s.C);
    clear_halo(s, ring);
    Range range(s, a.batch, job, a.gx != 0);
    m.in.begin(s, range.own.first);
    if (range.own.first == range.own.last) {
        if (gw1) memset(gw1, 0, (Size)s.D * S1 * sizeof(real));
        if (gw2) memset(gw2, 0, (Size)s.D * J * sizeof(real));
    }
    each_band(s, range, a.band, ring, [&](const Band &band) {
        Ahead ahead;
        fetch_next(ahead, s, a, block, range, band, gw1 || gw2);
        Size tiles = (Size)band.n * a.S * row_tiles(J, s.OW);
        tiles += (Size)band.m * s.G * row_tiles(s.Cg, s.W);
        if (band.own && gw1) tiles += s.G * weight_tile_count(s.Dg, S1);
        if (band.own && gw2) tiles += a.S * weight_tile_count(J, J);
        if (band.own && gw2) tiles += (Size)band.n * s.G * row_tiles(s.Dg, s.OW);
        ahead.spread(tiles);
        for (int r = 0; r < band.n; r++)
            for (int c = 0; c < s.D; c++)
                load(a.gz, c, (((Size)block * s.OH + band.i + r) * s.D + c) * s.OW, s.OW,
                     m.gz + c * m.pc + r * s.OW, images);
        secondary_gradient(s, a, m, band, ahead);
        find_factors(s, ring, band);
        if (band.own) m.in.find_taps(s, band.i, band.n);
        int end = end_of_input(s, band.i + band.n);
        for (int r = 0; r < band.n; r++) m.g_row[r] = ring.row(band.i + r);
        for (int g = 0; g < s.G; g++) {
            if (band.own && (gw1 || gw2))
                m.in.load_group(s, a.x, block, g, end);
            if (band.own && gw2) primary(s, g, band.n, m.in, a.w1f, m.p, m.pc, ahead);
            if (band.own && gw1) {
                Factors f{ring.of(g), ring.next, m.g_row, m.in.group(s, g),
                          m.in.channel, m.in.offset, s.taps, band.n, s.OW};
                Size at = (Size)g * s.Dg * S1;
                V *lanes = m.gw1.of(g);
                weight_gradient(f, s.Dg, S1, {lanes, gw1 + at, band.first}, ahead);
                if (lanes && band.last) totals(lanes, s.Dg * S1, gw1 + at);
            }
            if (band.m)
                input_gradient(s, ring, band, block, g, a.w1, a.end, a.gx, m.y, m.sums, ahead);
        }
        if (band.own) m.in.loaded = end;
        for (int g = 0; g < a.S && band.own && gw2; g++) {
            const V *gz = m.gz + g * m.pc, *p = m.p + g * J * m.pc;
            Size at = (Size)g * J * J;
            if (J >= WIDE_GROUP) {
                mix_gradient(J, gz, a.S * m.pc, p, m.pc, band.n * s.OW, m.turned, gw2 + at,
                             !band.first);
                continue;
            }
            Factors f{gz, a.S * m.pc, &NONE, p, m.pc, &NONE, 1, 1, band.n * s.OW};
            V *lanes = m.gw2.of(g);
            weight_gradient(f, J, J, {lanes, gw2 + at, band.first}, ahead);
            if (lanes && band.last) totals(lanes, J * J, gw2 + at);
        }
    });
    if (a.gx) leave_sums(a.end, job, s.C, m.sums, 0, s.C);
}
