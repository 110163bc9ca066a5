// What the compiled CPU kernels share: vectors, arguments, how a row is loaded and ended.
//
// Images lie side by side: a vector V holds one pixel of LANES images, and an activation is
// [blocks][H][C][W] of V. Most kernels are then sums of number · vector and need no shuffles,
// whatever their windows, strides, groups and permutations. Lanes beyond the last image hold
// finite garbage, which must not enter a sum.
//
// Compiled with -DREAL=float or double and -DLANES=4, 8 or 16. Sums are added in an order that
// does not depend on the number of threads; nor on the registers of the CPU, unless a register
// holds several pixels.
#pragma once
#include <stddef.h>
#include <string.h>

#ifndef REAL
#define REAL float
#endif
#ifndef LANES
#define LANES 16
#endif

typedef REAL real;
typedef ptrdiff_t Size;  // of a whole tensor, where an int could overflow

// -- vectors -----------------------------------------------------------------------------------

#if defined(__AVX512F__)
#define REGISTER_BYTES 64
#elif defined(__AVX__)
#define REGISTER_BYTES 32
#else
#define REGISTER_BYTES 16
#endif

// A V is one or more Parts, each of which fills a register.
static const int PART_BYTES =
    REGISTER_BYTES < LANES * (int)sizeof(real) ? REGISTER_BYTES : LANES * (int)sizeof(real);
static const int PARTS = LANES * (int)sizeof(real) / PART_BYTES;
typedef real Part __attribute__((vector_size(PART_BYTES)));

struct V {
    Part part[PARTS];
};

// What computes most takes whole registers from a row of pixels: parts of one, or JOINT of them.
typedef real Register __attribute__((vector_size(REGISTER_BYTES)));
static const int WIDTH = REGISTER_BYTES / (int)sizeof(real);  // numbers of a Register
static const int JOINT = REGISTER_BYTES / PART_BYTES;         // Parts of a Register

// Keeps a Part in a register; compilers like to load an operand again for each of its uses.
#if defined(__x86_64__)
#define KEEP(part) __asm__("" : "+v"(part))
#elif defined(__aarch64__)
#define KEEP(part) __asm__("" : "+w"(part))
#else
#define KEEP(part)
#endif

#define EACH_PART for (int i_ = 0; i_ < PARTS; i_++)
#define UNROLL _Pragma("GCC unroll 16")

static inline V operator+(V a, const V &b) { EACH_PART a.part[i_] += b.part[i_]; return a; }
static inline V operator-(V a, const V &b) { EACH_PART a.part[i_] -= b.part[i_]; return a; }
static inline V operator*(V a, const V &b) { EACH_PART a.part[i_] *= b.part[i_]; return a; }
static inline V operator/(V a, const V &b) { EACH_PART a.part[i_] /= b.part[i_]; return a; }
static inline V operator+(V a, real b) { EACH_PART a.part[i_] += b; return a; }
static inline V operator-(V a, real b) { EACH_PART a.part[i_] -= b; return a; }
static inline V operator*(V a, real b) { EACH_PART a.part[i_] *= b; return a; }
static inline V &operator+=(V &a, const V &b) { return a = a + b; }

// a += b·c
static inline void add(V &a, const V &b, real c) { EACH_PART a.part[i_] += b.part[i_] * c; }
static inline void add(V &a, const V &b, const V &c) {
    EACH_PART a.part[i_] += b.part[i_] * c.part[i_];
}

// ReLU; written this way round a NaN stays one, and reaches the loss.
template <class T> static inline T relu(T a) { return a < 0 ? T{} : a; }
template <class T> static inline T relu6(T a) { return a < 0 ? T{} : a > 6 ? T{} + 6 : a; }
static inline V relu(V a) {
    EACH_PART a.part[i_] = relu(a.part[i_]);
    return a;
}
static inline V relu6(V a) {
    EACH_PART a.part[i_] = relu6(a.part[i_]);
    return a;
}

// What a kernel's argument `relu` says: 0: nothing, 1: ReLU, 2: ReLU6.
template <class T> static inline T activated(T a, int kind) {
    return kind == 0 ? a : kind == 1 ? relu(a) : relu6(a);
}

// a where the activation has slope 1, seen from its input or its output, y; 0 elsewhere.
template <int RELU> static inline V where_active(const V &y, V a) {
    EACH_PART a.part[i_] = y.part[i_] > 0 ? a.part[i_] : Part{};
    if (RELU == 2) EACH_PART a.part[i_] = y.part[i_] < 6 ? a.part[i_] : Part{};
    return a;
}

static inline V largest(V a, const V &b) {
    EACH_PART a.part[i_] = a.part[i_] > b.part[i_] ? a.part[i_] : b.part[i_];
    return a;
}

static inline V fill(real a) {
    V v;
    EACH_PART v.part[i_] = Part{} + a;
    return v;
}

static inline real lane(const V &a, int i) { return ((const real *)&a)[i]; }

// 1 in lanes that hold one of so many images, 0 elsewhere.
static inline V lanes_mask(int images) {
    real m[LANES];
    for (int i = 0; i < LANES; i++) m[i] = i < images;
    V v;
    memcpy((void *)&v, m, sizeof v);
    return v;
}

// Sum over the lanes, halves on halves.
template <class T> static inline T total(const T (&lanes)[LANES]) {
    T t[LANES];
    memcpy(t, lanes, sizeof t);
    for (int w = LANES / 2; w; w /= 2)
        for (int i = 0; i < w; i++) t[i] += t[i + w];
    return t[0];
}
static inline real total(const V &a) {
    real t[LANES];
    memcpy(t, (const void *)&a, sizeof t);
    return total(t);
}

// The sums of v[0] … v[n - 1] over their lanes, of many vectors at once.
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLES
#endif
#endif
#ifdef SHUFFLES
static const int PART_LANES = LANES / PARTS;
template <int... I> struct Indices {};
template <int N, int... I> struct CountTo : CountTo<N - 1, N - 1, I...> {};
template <int... I> struct CountTo<0, I...> { typedef Indices<I...> All; };

// Two Parts consist of segments of W lanes; add the halves of each: first those of a, then of b.
template <int W, int... I>
static inline Part add_halves(const Part &a, const Part &b, Indices<I...>) {
    return __builtin_shufflevector(a, b, (I / (W / 2) * W + I % (W / 2))...)
           + __builtin_shufflevector(a, b, (I / (W / 2) * W + I % (W / 2) + W / 2)...);
}

// A Part of segments of W lanes, one for each of the next vectors, whose sums are those wanted.
template <int W> struct Segments {
    static inline Part of(const V *v) {
        Part a = Segments<2 * W>::of(v), b = Segments<2 * W>::of(v + PART_LANES / W / 2);
        return add_halves<2 * W>(a, b, typename CountTo<PART_LANES>::All());
    }
};
template <> struct Segments<PART_LANES> {
    static inline Part of(const V *v) {
        V a = *v;
        for (int w = PARTS / 2; w; w /= 2)
            for (int i = 0; i < w; i++) a.part[i] += a.part[i + w];
        return a.part[0];
    }
};
#endif

static inline void totals(const V *v, Size n, real *to) {
    Size k = 0;
#ifdef SHUFFLES
    for (; k + PART_LANES <= n; k += PART_LANES) {
        Part sums = Segments<1>::of(v + k);
        memcpy(to + k, &sums, sizeof sums);
    }
    if (k < n) {
        V rest[PART_LANES] = {};
        memcpy((void *)rest, (const void *)(v + k), (n - k) * sizeof(V));
        Part sums = Segments<1>::of(rest);
        memcpy(to + k, &sums, (n - k) * sizeof(real));
        k = n;
    }
#endif
    for (; k < n; k++) to[k] = total(v[k]);
}

// Store what is next read by another kernel, past the cache: the tensor is larger than that, and
// a plain store would read the memory first. Only whole cache lines gain from it.
template <bool LINES> struct Store {
    static inline void to(V *p, const V &v) { *p = v; }
};
#if defined(__x86_64__)
template <> struct Store<true> {
    static inline void to(V *p, const V &v) {
        typedef float Register __attribute__((vector_size(REGISTER_BYTES)));
        EACH_PART {
            Register r;
            memcpy(&r, &v.part[i_], sizeof r);
#if defined(__clang__)
            __builtin_nontemporal_store(r, (Register *)&p->part[i_]);
#elif REGISTER_BYTES == 64
            __builtin_ia32_movntps512((float *)&p->part[i_], r);
#elif REGISTER_BYTES == 32
            __builtin_ia32_movntps256((float *)&p->part[i_], r);
#else
            __builtin_ia32_movntps((float *)&p->part[i_], r);
#endif
        }
    }
};
#define STORES_ARE_DONE() __builtin_ia32_sfence()
#else
#define STORES_ARE_DONE()
#endif
static inline void store(V *p, const V &v) { Store<sizeof(V) % 64 == 0>::to(p, v); }

// Call f(i, T{}) for the numbers of n pixels, of which those from i on fill a T: a Register as
// long as there are so many, then a Part.
template <class F> static inline void each_register(int n, F f) {
    int i = 0;
    for (; i + WIDTH <= n * LANES; i += WIDTH) f(i, Register{});
    for (; JOINT > 1 && i < n * LANES; i += LANES) f(i, Part{});
}
template <class T> static inline T load(const V *x, int i, T v) {
    memcpy(&v, (const real *)x + i, sizeof v);
    return v;
}
template <class T> static inline void store(V *x, int i, T v) {
    memcpy((real *)x + i, &v, sizeof v);
}

// The channel that Reorder(branches) puts at place c, of C.
static inline int reorder(int c, int C, int branches) {
    return c % branches * (C / branches) + c / branches;
}

static inline int smaller(int a, int b) { return a < b ? a : b; }
static inline int larger(int a, int b) { return a > b ? a : b; }
static inline void clear(V *to, Size n) { memset((void *)to, 0, n * sizeof(V)); }
static inline void copy(V *to, const V *from, Size n) {
    memcpy((void *)to, (const void *)from, n * sizeof(V));
}

// -- arguments ---------------------------------------------------------------------------------
//
// A kernel takes one struct; Python reads the fields from here and checks what it passes.
// `or null` at the beginning of a comment allows None.

// Define a kernel: `a` are its arguments, `job` the part of the work to do, `scratch` memory of
// the thread.
#define KERNEL(name, Arguments)                                             \
    static void name##_job(const Arguments &a, int job, V *scratch);        \
    extern "C" void name(const Arguments *a, int job, V *scratch) {         \
        name##_job(*a, job, scratch);                                       \
        STORES_ARE_DONE();                                                  \
    }                                                                       \
    static void name##_job([[maybe_unused]] const Arguments &a,             \
                           [[maybe_unused]] int job, [[maybe_unused]] V *scratch)

// Define how many V of scratch the kernel needs: from its arguments, of which only the numbers
// may be read.
#define SCRATCH(name, Arguments)                                            \
    static Size name##_scratch_of(const Arguments &a);                      \
    extern "C" Size name##_scratch(const Arguments *a) { return name##_scratch_of(*a); } \
    static Size name##_scratch_of([[maybe_unused]] const Arguments &a)

struct Batch {
    int blocks;  // of LANES images
    int slices;  // of the rows of each block; a job is one slice of one block
    int last;    // images in the last block
};

// A tensor [blocks][H][C][W] that is read, possibly normalised on the way.
struct Input {
    int kind;           // 0: x   1: ReLU(scale·x + shift)   2: scale·x + shift   3: ReLU6(…)
    const V *x;
    const real *scale;  // or null: kind 0 needs none; else [C]
    const real *shift;  // or null: likewise
};

// The gradient of a tensor. Kind 1 is the gradient of a batch norm's input.
struct Gradient {
    int kind;           // 0: g   1: scale·g + slope·z + shift, 0 in lanes without image
    const V *g;
    const V *z;         // or null: kind 0 needs none
    const real *scale;  // or null: likewise; else [C]
    const real *slope;  // or null
    const real *shift;  // or null
};

// What a batch norm needs to know about the gradient of its output.
struct Sums {
    const V *z;        // or null: input of the batch norm
    const real *mean;  // or null: its mean, [C]
    double *sums;      // or null: [jobs][2][C] receives Σ g and Σ g·(z − mean)
};

// What is still to be done to a gradient before it is stored.
struct Ending {
    const V *other;  // or null: what others have added to it already; may be the target itself
    int relu;        // masked by `value`. 0: no, 1: as ReLU does, 2: as ReLU6 does
    Input value;     // kind 0: the stored value; 1, 3: it is computed again
    int norms;       // how many batch norms take sums of it
    Sums norm[2];
};

// -- jobs --------------------------------------------------------------------------------------

struct Rows {
    int first, last;
};

// Rows of a job, of R rows that are cut into slices.
static inline Rows rows_of(const Batch &batch, int job, int R) {
    Size k = job % batch.slices;
    return {(int)(R * k / batch.slices), (int)(R * (k + 1) / batch.slices)};
}
static inline int block_of(const Batch &batch, int job) { return job / batch.slices; }
static inline int images_of(const Batch &batch, int block) {
    return block + 1 < batch.blocks ? LANES : batch.last;
}

// -- rows --------------------------------------------------------------------------------------
//
// `at` is the index of the first of n pixels of channel c: ((block·H + row)·C + c)·W + column.

static inline void load(const Input &in, int c, Size at, int n, V *to) {
    const V *x = in.x + at;
    if (in.kind == 0) return copy(to, x, n);
    real scale = in.scale[c], shift = in.shift[c];
    if (in.kind == 1)
        each_register(n, [&](int i, auto v) {
            store(to, i, relu(load(x, i, v) * scale + shift));
        });
    else if (in.kind == 2)
        each_register(n, [&](int i, auto v) { store(to, i, load(x, i, v) * scale + shift); });
    else
        each_register(n, [&](int i, auto v) {
            store(to, i, relu6(load(x, i, v) * scale + shift));
        });
}

// The same for a gradient, in a block of so many images.
static inline void load(const Gradient &in, int c, Size at, int n, V *to, int images) {
    const V *g = in.g + at;
    if (in.kind == 0) {
        for (int j = 0; j < n; j++) to[j] = g[j];
        return;
    }
    const V *z = in.z + at;
    real scale = in.scale[c], slope = in.slope[c], shift = in.shift[c];
    for (int j = 0; j < n; j++) {
        V t = g[j] * scale + shift;
        add(t, z[j], slope);
        to[j] = t;
    }
    if (images == LANES) return;
    V mask = lanes_mask(images);
    for (int j = 0; j < n; j++) to[j] = to[j] * mask;
}

// Sums of a job for the batch norms of an Ending: [3][C] of V in scratch. They are Σ g and, for
// each norm, Σ g·(z − mean).
static inline void begin_sums(V *sums, int C) { clear(sums, 3 * C); }

template <bool OTHER, int RELU, int NORMS>
static inline void end_row(const Ending &end, int c, int C, Size at, int n, const V *from, V *gx,
                           V *sums) {
    const V *other = OTHER ? end.other + at : from;
    const V *y = RELU ? end.value.x + at : from;
    const V *z0 = NORMS > 0 ? end.norm[0].z + at : from;
    const V *z1 = NORMS > 1 ? end.norm[1].z + at : from;
    real scale = 1, shift = 0;
    if (RELU && end.value.kind) scale = end.value.scale[c], shift = end.value.shift[c];
    real mean0 = NORMS > 0 ? end.norm[0].mean[c] : 0;
    real mean1 = NORMS > 1 ? end.norm[1].mean[c] : 0;
    V sum{}, product0{}, product1{};
    for (int j = 0; j < n; j++) {
        V g = from[j];
        if (OTHER) g += other[j];
        if (RELU) g = where_active<RELU>(y[j] * scale + shift, g);
        store(gx + at + j, g);
        if (NORMS > 0) sum += g, add(product0, g, z0[j] - mean0);
        if (NORMS > 1) add(product1, g, z1[j] - mean1);
    }
    if (NORMS > 0) sums[c] += sum, sums[C + c] += product0;
    if (NORMS > 1) sums[2 * C + c] += product1;
}

template <bool OTHER, int RELU>
static inline void end_row(const Ending &end, int c, int C, Size at, int n, const V *from, V *gx,
                           V *sums) {
    switch (end.norms) {
        case 0: return end_row<OTHER, RELU, 0>(end, c, C, at, n, from, gx, sums);
        case 1: return end_row<OTHER, RELU, 1>(end, c, C, at, n, from, gx, sums);
        default: return end_row<OTHER, RELU, 2>(end, c, C, at, n, from, gx, sums);
    }
}
template <bool OTHER>
static inline void end_row(const Ending &end, int c, int C, Size at, int n, const V *from, V *gx,
                           V *sums) {
    switch (end.relu) {
        case 0: return end_row<OTHER, 0>(end, c, C, at, n, from, gx, sums);
        case 1: return end_row<OTHER, 1>(end, c, C, at, n, from, gx, sums);
        default: return end_row<OTHER, 2>(end, c, C, at, n, from, gx, sums);
    }
}

// End n pixels of a gradient, `from`, and store them at gx + at.
static inline void finish(const Ending &end, int c, int C, Size at, int n, const V *from, V *gx,
                          V *sums) {
    if (end.other) return end_row<true>(end, c, C, at, n, from, gx, sums);
    return end_row<false>(end, c, C, at, n, from, gx, sums);
}

// Leave the sums of a job, for channels [first, last).
static inline void leave_sums(const Ending &end, int job, int C, const V *sums, int first,
                              int last) {
    for (int k = 0; k < end.norms; k++) {
        double *to = end.norm[k].sums + (Size)job * 2 * C;
        for (int c = first; c < last; c++) {
            to[c] = total(sums[c]);
            to[C + c] = total(sums[(k + 1) * C + c]);
        }
    }
}
