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
    const real *scale;  // or null: factor for each output channel, [D]
    real *forward;      // receives the weights as convolution_forward reads them; as many
    real *backward;     // or null: likewise for convolution_backward
    int C, H, W;        // of x
    int D, OH, OW;      // of z
    int G;              // groups
    int KH, KW;         // kernel
    int SH, SW;         // stride
    int PH, PW;         // padding
};

// One job a group.
KERNEL(convolution_pack, ConvolutionPack) {
    Shape s = shape_of(a);
    const real *w = a.w + (Size)job * s.Dg * s.Cg * s.taps;
    pack_group(s, job, a.forward, a.backward, [&](int o, int c, int t) {
        real scale = a.scale ? a.scale[job * s.Dg + o] : 1;
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
    int relu;          // whether max(0, z) is stored
    int C, H, W;       // of x
    int D, OH, OW;     // of z
    int G;             // groups
    int KH, KW;        // kernel
    int SH, SW;        // stride
    int PH, PW;        // padding
    int band;          // output rows at a time
    Batch batch;       // the slices are of the output rows
};

struct ForwardMemory {
    V *moments;      // [2][D]
    V *x;            // [Cg][rows][width]
    V *y;            // a tile of z: [channels][yc]
    Size yc;         // odd, so that channels use different sets of the cache
    Size *offset;    // [taps]
    Size used;

    ForwardMemory(const ConvolutionForward &a, V *scratch) {
        Shape s = shape_of(a);
        Memory memory{scratch, 0};
        moments = memory.take(2 * s.D);
        x = memory.take((Size)s.Cg * ((a.band - 1) * s.SH + s.KH) * s.width);
        yc = (Size)a.band * s.OW | 1;
        y = memory.take(smaller(MOST_CHANNELS, s.Dg) * yc);
        offset = memory.indices(s.taps);
        used = memory.used;
    }
};
SCRATCH(convolution_forward, ConvolutionForward) { return ForwardMemory(a, 0).used; }

KERNEL(convolution_forward, ConvolutionForward) {
    Shape s = shape_of(a);
    ForwardMemory m(a, scratch);
    Output out = output_of(a, m.moments);
    int block = block_of(a.batch, job), done = 0;
    Rows own = rows_of(a.batch, job, s.OH);
    for (int t = 0; t < s.taps; t++) m.offset[t] = t / s.KW * s.width + t % s.KW;
    for (int i = own.first, n; i < own.last; i += n, done += n * s.OW) {
        n = smaller(a.band, own.last - i);
        int rows = (n - 1) * s.SH + s.KH;
        for (int g = 0; g < s.G; g++) {
            load_rows(s, a.x, block, g * s.Cg, s.Cg, i * s.SH - s.PH, rows, m.x);
            const real *w = a.w + (Size)g * s.Dg * s.Cg * s.taps;
            for (int o = 0, k; o < s.Dg; o += k, w += (Size)k * s.Cg * s.taps) {
                k = tile_channels(s.Dg - o);
                for (int r = 0; r < n; r++)
                    row_product(k, m.x + (Size)r * s.SH * s.width, (Size)rows * s.width, s.Cg,
                                m.offset, s.taps, s.SW, w, m.y + r * s.OW, m.yc, 1, s.OW);
                for (int l = 0; l < k; l++)
                    end_rows(s, out, block, g * s.Dg + o + l, i, n, done, m.y + l * m.yc);
            }
        }
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
    Batch batch;    // the slices are of the output rows
};

struct BackwardMemory {
    V *sums;       // [3][C], of the ending
    Ring ring;
    V *x;          // [Cg][rows][width]
    V *y;          // a tile of gx
    V *gw;         // [D][Cg·taps]: for each lane, where a job has several bands
    Size *stream;  // [Cg·taps]
    Size *g_row;   // [band]
    Size *x_row;   // [band]
    Size used;

    BackwardMemory(const ConvolutionBackward &a, V *scratch) {
        Shape s = shape_of(a);
        Memory memory{scratch, 0};
        sums = memory.take(3 * s.C);
        ring = ring_of(s, a.band, memory);
        x = memory.take((Size)s.Cg * ((a.band - 1) * s.SH + s.KH) * s.width);
        y = memory.take(input_gradient_scratch(s, ring));
        bool several = (s.OH + a.batch.slices - 1) / a.batch.slices > a.band;
        gw = memory.take(several ? (Size)s.D * s.Cg * s.taps : 0);
        stream = memory.indices((Size)s.Cg * s.taps);
        g_row = memory.indices(a.band);
        x_row = memory.indices(a.band);
        used = memory.used;
    }
};
SCRATCH(convolution_backward, ConvolutionBackward) { return BackwardMemory(a, 0).used; }

KERNEL(convolution_backward, ConvolutionBackward) {
    Shape s = shape_of(a);
    BackwardMemory m(a, scratch);
    const Ring &ring = m.ring;
    int block = block_of(a.batch, job), images = images_of(a.batch, block);
    int S = s.Cg * s.taps;
    real *gw = a.gw ? a.gw + (Size)job * s.D * S : 0;
    begin_sums(m.sums, s.C);
    clear_halo(s, ring);
    Range range(s, a.batch, job, a.gx != 0);
    if (gw && range.own.first == range.own.last) memset(gw, 0, s.D * S * sizeof(real));
    each_band(s, range, a.band, ring, [&](const Band &band) {
        for (int i = band.i; i < band.i + band.n; i++)
            for (int c = 0; c < s.D; c++)
                load(a.gz, c, (((Size)block * s.OH + i) * s.D + c) * s.OW, s.OW,
                     ring.d + c * ring.channel + ring.row(i), images);
        find_factors(s, ring, band);
        int rows = (band.n - 1) * s.SH + s.KH;
        for (int c = 0; c < s.Cg; c++)
            for (int t = 0; t < s.taps; t++)
                m.stream[c * s.taps + t] = ((Size)c * rows + t / s.KW) * s.width + t % s.KW;
        for (int r = 0; r < band.n; r++) {
            m.g_row[r] = ring.row(band.i + r);
            m.x_row[r] = (Size)r * s.SH * s.width;
        }
        for (int g = 0; g < s.G; g++) {
            if (gw && band.own) {
                load_rows(s, a.x, block, g * s.Cg, s.Cg, band.i * s.SH - s.PH, rows, m.x);
                Factors f{ring.d + g * s.Dg * ring.channel, ring.channel, m.g_row, m.x, m.stream,
                          m.x_row, s.SW, band.n, s.OW};
                Size at = (Size)g * s.Dg * S;
                weight_gradient(f, s.Dg, S, m.gw + at, gw + at, band.first, band.last);
            }
            if (band.m) input_gradient(s, ring, band, block, g, a.w, a.end, a.gx, m.y, m.sums);
        }
    });
    if (a.gx) leave_sums(a.end, job, s.C, m.sums, 0, s.C);
}
