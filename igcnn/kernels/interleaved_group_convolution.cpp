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

// Inputs of secondary group s whose channels of p are equally far apart: so many from number j
// on.
static inline int run_of_inputs(int s, int j, int J, int L) {
    return smaller(J - j, L - (s * J + j) % L);
}

KERNEL(igc_pack, IgcPack) {
    Shape s = shape_of(a);
    for (int g = 0; g < s.G; g++) {
        const real *w = a.w1 + (Size)g * s.Dg * s.Cg * s.taps;
        pack_group(s, g, a.forward1, a.backward1, [&](int o, int c, int t) {
            return w[((Size)o * s.Cg + c) * s.taps + t];
        });
    }
    int J = s.D / a.S;
    real *forward = a.forward2, *backward = a.backward2;
    for (int g = 0; g < a.S; g++) {
        auto w = [&](int k, int j) {
            real scale = a.scale ? a.scale[k * a.S + g] : 1;
            return a.w2[((Size)g * J + k) * J + j] * scale;
        };
        forward = pack(forward, J, 1, J, [&](int k, int, int j) { return w(k, j); });
        for (int j = 0, n; backward && j < J; j += n) {
            n = run_of_inputs(g, j, J, s.G);
            backward = pack(backward, n, J, 1, [&](int l, int k, int) { return w(k, j + l); });
        }
    }
}

// -- parts of a band ----------------------------------------------------------------------------

// The secondary convolution takes so few pixels at a time that their channels stay in the L1
// cache.
static const int CHUNK = 16;
static const Size CHUNK_ROW = CHUNK | 1;  // odd, so that channels use different sets of the cache

// p, [D][pc], of group g for n output rows.
static inline void primary(const Shape &s, int g, int n, const InputRing &in, const real *w, V *p,
                           Size pc, Ahead &ahead) {
    w += (Size)g * s.Dg * s.Cg * s.taps;
    for (int o = 0, k; o < s.Dg; o += k, w += (Size)k * s.Cg * s.taps) {
        k = tile_channels(s.Dg - o);
        V *to = p + (g * s.Dg + o) * pc;
        for (int r = 0; r < n; r++)
            row_product(k, in.group(s, g), in.channel, s.Cg,
                        in.offset + (Size)r * s.taps, s.taps, s.SW, w, to + r * s.OW, pc, 1,
                        s.OW, ahead);
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
    int relu;          // whether max(0, z) is stored
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
    V *y;            // a tile of z: [channels][pc]
    Size pc;         // odd, so that channels use different sets of the cache
    Size *input;     // [D]: where the inputs of the secondary groups lie in p
    Size used;

    ForwardMemory(const IgcForward &a, V *scratch) {
        Shape s = shape_of(a);
        Memory memory{scratch, 0};
        moments = memory.take(2 * s.D);
        in = InputRing(s, a.band, memory);
        pc = (Size)a.band * s.OW | 1;
        p = memory.take(s.D * pc);
        y = memory.take(MOST_CHANNELS * CHUNK_ROW);
        input = memory.indices(s.D);
        used = memory.used;
    }
};
SCRATCH(igc_forward, IgcForward) { return ForwardMemory(a, 0).used; }

KERNEL(igc_forward, IgcForward) {
    Shape s = shape_of(a);
    ForwardMemory m(a, scratch);
    Output out = output_of(a, m.moments);
    int block = block_of(a.batch, job), done = 0, J = s.D / a.S;
    Rows own = rows_of(a.batch, job, s.OH);
    for (int k = 0; k < s.D; k++) m.input[k] = mixed(k, s.D, s.G) * m.pc;
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
                    row_product(k, m.p + j, 0, 1, m.input + g * J, J, 1, w, m.y, CHUNK_ROW, 1,
                                count, ahead);
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
    V *sums;         // [3][C], of the ending
    Ring ring;       // of p's gradient
    V *gz;           // [D][pc]
    V *p;            // [D][pc]
    Size pc;         // odd, so that channels use different sets of the cache
    InputRing in;    // rows of x
    V *y;            // a tile of gx
    bool several;    // whether a job may have more than one band
    V *gw1;          // [D][Cg·taps]: for each lane, where a job has several bands
    V *gw2;          // [D][J]: likewise
    Size *input;     // [D]: where the inputs of the secondary groups lie in p
    Size *g_row;     // [band]
    Size used;

    BackwardMemory(const IgcBackward &a, V *scratch) {
        Shape s = shape_of(a);
        Memory memory{scratch, 0};
        sums = memory.take(3 * s.C);
        ring = ring_of(s, a.band, memory);
        pc = (Size)a.band * s.OW | 1;
        gz = memory.take(s.D * pc);
        p = memory.take(s.D * pc);
        in = InputRing(s, a.band, memory);
        y = memory.take(input_gradient_scratch(s, ring));
        several = (s.OH + a.batch.slices - 1) / a.batch.slices > a.band;
        gw1 = memory.take((Size)(several ? s.D : s.Dg) * s.Cg * s.taps);
        gw2 = memory.take((Size)(several ? s.D : s.D / a.S) * (s.D / a.S));
        input = memory.indices(s.D);
        g_row = memory.indices(a.band);
        used = memory.used;
    }
};
SCRATCH(igc_backward, IgcBackward) { return BackwardMemory(a, 0).used; }

// The gradient of p, for the rows of a band, into the ring.
static inline void secondary_gradient(const Shape &s, const IgcBackward &a,
                                      const BackwardMemory &m, const Band &band,
                                      Ahead &ahead) {
    const Ring &ring = m.ring;
    const Size none = 0;
    int J = s.D / a.S;
    Size yc = s.Dg * ring.channel;
    for (int g = 0; g < a.S; g++)
        for (int r = 0; r < band.n; r++)
            for (int i = 0, count; i < s.OW; i += count) {
                count = smaller(CHUNK, s.OW - i);
                const real *w = a.w2 + (Size)g * J * J;
                const V *from = m.gz + g * m.pc + r * s.OW + i;
                for (int j = 0, n; j < J; j += n) {
                    n = run_of_inputs(g, j, J, s.G);
                    V *to = ring.d + mixed(g * J + j, s.D, s.G) * ring.channel
                            + ring.row(band.i + r) + i;
                    for (int l = 0, k; l < n; l += k, w += (Size)k * J) {
                        k = tile_channels(n - l);
                        row_product(k, from, a.S * m.pc, J, &none, 1, 1, w, to + l * yc, yc, 1,
                                    count, ahead);
                    }
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
    const Size none = 0;
    begin_sums(m.sums, s.C);
    clear_halo(s, ring);
    for (int k = 0; k < s.D; k++) m.input[k] = mixed(k, s.D, s.G) * m.pc;
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
                Factors f{ring.d + g * s.Dg * ring.channel, ring.channel, m.g_row,
                          m.in.group(s, g), m.in.channel, m.in.offset, s.taps, s.SW, band.n,
                          s.OW};
                Size at = (Size)g * s.Dg * S1;
                V *sums = m.gw1 + (m.several ? at : 0);
                weight_gradient(f, s.Dg, S1, sums, band.first, ahead);
                if (band.last) totals(sums, s.Dg * S1, gw1 + at);
            }
            if (band.m)
                input_gradient(s, ring, band, block, g, a.w1, a.end, a.gx, m.y, m.sums, ahead);
        }
        if (band.own) m.in.loaded = end;
        for (int g = 0; g < a.S && band.own && gw2; g++) {
            Factors f{m.gz + g * m.pc, a.S * m.pc, &none, m.p, 0, m.input + g * J, J, 1, 1,
                      band.n * s.OW};
            Size at = (Size)g * J * J;
            V *sums = m.gw2 + (m.several ? at : 0);
            weight_gradient(f, J, J, sums, band.first, ahead);
            if (band.last) totals(sums, J * J, gw2 + at);
        }
    });
    if (a.gx) leave_sums(a.end, job, s.C, m.sums, 0, s.C);
}
