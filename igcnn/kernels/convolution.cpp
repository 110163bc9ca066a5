// Two-dimensional convolution, dense or grouped, and its gradients (formulas: convolution.py).
//
// First the formula as it stands; below it the kernels that are used. They work on a band of
// rows at a time, so that everything between reading x and writing z stays in the cache:
//
//   forward    for each group: load the rows of x that the band needs, normalised and padded
//              with zeros; multiply by tiles of weights; add bias and residual, take moments,
//              store.
//   backward   load the rows of the output's gradient into a ring, because the rows of gx need
//              rows of several bands. For each group: load the rows of x again; sum up the
//              gradient of the weights; compute the rows of gx that have become possible.
//
// What a job sums up it leaves for itself; sum_partials adds it in the order of the jobs.
#include "convolution.hpp"

// -- the formula -------------------------------------------------------------------------------

struct ConvolutionFormula {
    const V *x;     // [blocks][H][C][W]
    const real *w;  // [D][C/G][KH][KW]
    V *z;           // [blocks][OH][D][OW]
    int C, H, W;    // of x
    int D, OH, OW;  // of z
    int G;          // groups
    int KH, KW;     // kernel
    int SH, SW;     // stride
    int PH, PW;     // padding
};

// One job a block. Nothing of igcnn calls it but the tests.
KERNEL(convolution_formula, ConvolutionFormula) {
    const V *x = a.x + (Size)job * a.H * a.C * a.W;
    V *z = a.z + (Size)job * a.OH * a.D * a.OW;
    int Cg = a.C / a.G;
    for (int i = 0; i < a.OH; i++)
        for (int o = 0; o < a.D; o++)
            for (int j = 0; j < a.OW; j++) {
                V sum{};
                for (int c = 0; c < Cg; c++)
                    for (int u = 0; u < a.KH; u++)
                        for (int v = 0; v < a.KW; v++) {
                            int row = i * a.SH + u - a.PH, column = j * a.SW + v - a.PW;
                            if (row < 0 || row >= a.H || column < 0 || column >= a.W) continue;
                            int channel = o / (a.D / a.G) * Cg + c;
                            add(sum, x[((Size)row * a.C + channel) * a.W + column],
                                a.w[((o * Cg + c) * a.KH + u) * a.KW + v]);
                        }
                z[((Size)i * a.D + o) * a.OW + j] = sum;
            }
}

// -- weights -----------------------------------------------------------------------------------

struct ConvolutionPack {
    const real *w;      // [D][C/G][KH][KW]
    const real *scale;  // or null: factor for each channel of z, [D]
    real *forward;      // receives the weights as convolution_forward reads them; as many
    real *backward;     // or null: likewise for convolution_backward
    int C, H, W;        // of x
    int D, OH, OW;      // of z
    int G;              // groups
    int KH, KW;         // kernel
    int SH, SW;         // stride
    int PH, PW;         // padding
    int x_branches;     // as in ConvolutionForward
    int y_branches;
};

// One job a group.
KERNEL(convolution_pack, ConvolutionPack) {
    Shape s = shape_of(a);
    s.y_branches = a.y_branches;
    const real *w = a.w + (Size)job * s.Dg * s.Cg * s.taps;
    pack_group(s, job, a.forward, a.backward, [&](int o, int c, int t) {
        real scale = a.scale ? a.scale[s.target(job * s.Dg + o)] : 1;
        return w[((Size)o * s.Cg + c) * s.taps + t] * scale;
    });
}

struct SumPartials {
    const real *partial;  // [parts][count]
    real *total;          // [count] receives Σ over the parts, in their order
    int count;            // numbers of a part
    int parts;            // of the sum
    int jobs;             // that share the numbers
};

KERNEL(sum_partials, SumPartials) {
    const int CHUNK = 1024;  // of numbers: stays in the cache
    int last = (int)((Size)a.count * (job + 1) / a.jobs);
    for (int i = (int)((Size)a.count * job / a.jobs), n; i < last; i += n) {
        n = smaller(CHUNK, last - i);
        memcpy(a.total + i, a.partial + i, n * sizeof(real));
        for (int k = 1; k < a.parts; k++) {
            const real *from = a.partial + (Size)k * a.count + i;
            for (int j = 0; j < n; j++) a.total[i + j] += from[j];
        }
    }
}

// -- forward -----------------------------------------------------------------------------------

struct ConvolutionForward {
    Input x;           // what is convolved, [blocks][H][C][W]
    const real *w;     // as convolution_pack leaves it in `forward`
    V *z;              // [blocks][OH][D][OW]
    double *sums;      // or null: [jobs][2][D] receives mean and Σ (z − mean)² of each job
    const real *bias;  // or null: added to each channel, [D]
    const V *skip;     // or null: added to z
    int relu;          // of what is stored; 0: none, 1: ReLU, 2: ReLU6
    int C, H, W;       // of x
    int D, OH, OW;     // of z
    int G;             // groups
    int KH, KW;        // kernel
    int SH, SW;        // stride
    int PH, PW;        // padding
    int band;          // output rows at a time
    int alone;         // 1: memory is for one group, which loads all rows that a band needs
    int x_branches;    // input channel c is channel Reorder(x_branches)(c) of x
    int y_branches;    // likewise of z
    Batch batch;       // the slices are of the output rows
};

struct ForwardMemory {
    V *moments;      // [2][D]
    InputRing in;    // rows of x
    V *y;            // a tile of z: [channels][yc]
    Size yc;         // odd, so that channels use different sets of the cache
    Size used;

    ForwardMemory(const ConvolutionForward &a, V *scratch) {
        Shape s = shape_of(a);
        Memory memory{scratch, 0};
        moments = memory.take(2 * s.D);
        in = InputRing(s, a.band, memory, a.alone);
        yc = (Size)a.band * s.OW | 1;
        y = memory.take(smaller(MOST_CHANNELS, s.Dg) * yc);
        used = memory.used + JOINT;  // the last register of a row may reach beyond it
    }
};
SCRATCH(convolution_forward, ConvolutionForward) { return ForwardMemory(a, 0).used; }

KERNEL(convolution_forward, ConvolutionForward) {
    Shape s = shape_of(a);
    s.x_branches = a.x_branches, s.y_branches = a.y_branches;
    ForwardMemory m(a, scratch);
    Output out = output_of(a, m.moments);
    int block = block_of(a.batch, job), done = 0;
    Rows own = rows_of(a.batch, job, s.OH);
    m.in.begin(s, own.first);
    for (int i = own.first, n; i < own.last; i += n, done += n * s.OW) {
        n = smaller(a.band, own.last - i);
        Ahead ahead;
        if (!a.alone) fetch_next(ahead, s, a, block, i, n, own.last);
        ahead.spread((Size)n * s.G * row_tiles(s.Dg, s.OW));
        m.in.find_taps(s, i, n);
        int end = end_of_input(s, i + n);
        for (int g = 0; g < s.G; g++) {
            m.in.load_group(s, a.x, block, g, end);
            const real *w = a.w + (Size)g * s.Dg * s.Cg * s.taps;
            for (int o = 0, k; o < s.Dg; o += k, w += (Size)k * s.Cg * s.taps) {
                k = tile_channels(s.Dg - o);
                row_product(k, m.in.group(s, g), m.in.channel, s.Cg, m.in.offset, s.taps, w, m.y,
                            m.yc, s.OW, n, ahead);
                for (int l = 0; l < k; l++)
                    end_pixels(s, out, block, s.target(g * s.Dg + o + l), i, 0, n * s.OW, done,
                               m.y + l * m.yc);
            }
        }
        m.in.loaded = end;
    }
    leave_moments(s, out, job, images_of(a.batch, block), done);
}

// -- backward ----------------------------------------------------------------------------------

struct ConvolutionBackward {
    Gradient gz;    // gradient of the output, [blocks][OH][D][OW]
    Input x;        // what was convolved, [blocks][H][C][W]
    const real *w;  // as convolution_pack leaves it in `backward`
    V *gx;          // or null: [blocks][H][C][W] receives the gradient of x
    Ending end;     // of gx
    real *gw;       // or null: [jobs][D][C/G][KH][KW] receives the gradients of the weights
    int C, H, W;    // of x
    int D, OH, OW;  // of the output
    int G;          // groups
    int KH, KW;     // kernel
    int SH, SW;     // stride
    int PH, PW;     // padding
    int band;       // output rows at a time
    int alone;      // as in ConvolutionForward
    int x_branches;  // likewise
    int y_branches;
    Batch batch;    // the slices are of the output rows
};

struct BackwardMemory {
    V *sums;       // [3][C], of the ending
    Ring ring;
    InputRing in;  // rows of x
    V *y;          // a tile of gx
    LaneSums gw;
    Size *g_row;   // [band]: where the rows of the band lie in the ring
    Size used;

    BackwardMemory(const ConvolutionBackward &a, V *scratch) {
        Shape s = shape_of(a);
        Memory memory{scratch, 0};
        sums = memory.take(3 * s.C);
        ring = ring_of(s, a.band, memory, false, a.alone);
        in = InputRing(s, a.band, memory, a.alone);
        y = memory.take(input_gradient_scratch(s, ring));
        gw = LaneSums(s, a.batch, a.band, s.G, (Size)s.Dg * s.Cg * s.taps, memory);
        g_row = memory.indices(a.band);
        used = memory.used + JOINT;  // the last register of a row may reach beyond it
    }
};
SCRATCH(convolution_backward, ConvolutionBackward) { return BackwardMemory(a, 0).used; }

KERNEL(convolution_backward, ConvolutionBackward) {
    Shape s = shape_of(a);
    s.x_branches = a.x_branches, s.y_branches = a.y_branches;
    BackwardMemory m(a, scratch);
    const Ring &ring = m.ring;
    int block = block_of(a.batch, job), images = images_of(a.batch, block);
    int S = s.Cg * s.taps;
    real *gw = a.gw ? a.gw + (Size)job * s.D * S : 0;
    begin_sums(m.sums, s.C);
    clear_halo(s, ring);
    Range range(s, a.batch, job, a.gx != 0);
    if (gw && range.own.first == range.own.last) memset(gw, 0, s.D * S * sizeof(real));
    m.in.begin(s, range.own.first);
    each_band(s, range, a.band, ring, [&](const Band &band) {
        Ahead ahead;
        if (!a.alone) fetch_next(ahead, s, a, block, range, band, gw != 0);
        Size tiles = (Size)band.m * s.G * row_tiles(s.Cg, s.W);
        if (band.own && gw) tiles += s.G * weight_tile_count(s.Dg, S);
        ahead.spread(tiles);
        auto load_rows = [&](int first, int o0, int o1) {
            for (int i = first; i < band.i + band.n; i++)
                for (int o = o0; o < o1; o++) {
                    int c = s.target(o);
                    load(a.gz, c, (((Size)block * s.OH + i) * s.D + c) * s.OW, s.OW,
                         ring.d + (ring.alone ? o - o0 : o) * ring.channel + ring.row(i), images);
                }
        };
        if (!a.alone) load_rows(band.i, 0, s.D);
        find_factors(s, ring, band);
        if (band.own) m.in.find_taps(s, band.i, band.n);
        int end = end_of_input(s, band.i + band.n);
        for (int r = 0; r < band.n; r++) m.g_row[r] = ring.row(band.i + r);
        for (int g = 0; g < s.G; g++) {
            if (a.alone)
                load_rows(larger(range.needed.first, band.i + band.n - ring.slots), g * s.Dg,
                          (g + 1) * s.Dg);
            if (gw && band.own) {
                m.in.load_group(s, a.x, block, g, end);
                Factors f{ring.of(g), ring.next, m.g_row, m.in.group(s, g),
                          m.in.channel, m.in.offset, s.taps, band.n, s.OW};
                Size at = (Size)g * s.Dg * S;
                V *lanes = m.gw.of(g);
                weight_gradient(f, s.Dg, S, {lanes, gw + at, band.first}, ahead);
                if (lanes && band.last) totals(lanes, s.Dg * S, gw + at);
            }
            if (band.m)
                input_gradient(s, ring, band, block, g, a.w, a.end, a.gx, m.y, m.sums, ahead);
        }
        if (band.own) m.in.loaded = end;
    });
    if (a.gx) leave_sums(a.end, job, s.C, m.sums, 0, s.C);
}
