// Products of matrices in panels: what winograd.hpp and wide interleaved units share.
//
// The gradient of weights sums over numbers, which lie side by side in a register. So one factor
// is turned round: its channels are in registers then, and no register has to be added up.
#pragma once
#include "common.hpp"

// A tile of a product: OUT rows × WIDE registers are summed in registers.
#if defined(__AVX512F__) || defined(__aarch64__)
static const int OUT = 8, WIDE = 3;
#else
static const int OUT = 4, WIDE = 3;
#endif
static const int SPAN = 256;  // numbers that are summed up at once: long sums round more

static inline Size odd(Size lines) { return lines | 1; }  // begin in different sets of the cache

// The registers of a row, cut in panels of at most WIDE, as equal as can be. A matrix in panels is
// [panel][row][register of the panel].
struct Panels {
    int registers, count, width, wider;

    explicit Panels(int n) : registers(n), count((n + WIDE - 1) / WIDE) {
        width = n / count, wider = n % count;
    }
    int start(int k) const { return k * width + smaller(k, wider); }
    int size(int k) const { return width + (k < wider); }
    int of(int r) const {
        return r < wider * (width + 1) ? r / (width + 1) : (r - wider) / width;
    }
};
static inline Panels channels_of(int C) { return Panels((C + WIDTH - 1) / WIDTH); }

// -- turning round -----------------------------------------------------------------------------

template <int n, int... i> struct Counted : Counted<n - 1, n - 1, i...> {};
template <int... i> struct Counted<0, i...> {};

// Exchange the places of a with bit S and those of b without it.
template <int S, int... i>
static inline void exchange(Register &a, Register &b, Counted<0, i...>) {
#if defined(__clang__)
    Register low = __builtin_shufflevector(a, b, (i & S ? i - S + WIDTH : i)...);
    b = __builtin_shufflevector(a, b, (i & S ? i + WIDTH : i + S)...);
#else
    typedef decltype(a < b) Index;
    Register low = __builtin_shuffle(a, b, Index{(i & S ? i - S + WIDTH : i)...});
    b = __builtin_shuffle(a, b, Index{(i & S ? i + WIDTH : i + S)...});
#endif
    a = low;
}
// Rows and columns of WIDTH registers change places.
template <int S = WIDTH / 2> static inline void transpose(Register *v) {
    UNROLL for (int i = 0; i < WIDTH; i++)
        if (!(i & S)) exchange<S>(v[i], v[i + S], Counted<WIDTH>());
    if constexpr (S > 1) transpose<S / 2>(v);
}

// -- sums over numbers -------------------------------------------------------------------------

// sums[o][p] (+)= Σ_n g[o][n] · x[n][p] for O channels of the output, P registers of the input's.
template <int O, int P>
static void correlate(const real *g, Size gstep, const Register *x, int step, int count,
                      Register *sums, bool more) {
    Register sum[O][P];
    UNROLL for (int o = 0; o < O; o++)
        UNROLL for (int p = 0; p < P; p++) sum[o][p] = Register{};
    for (int n = 0; n < count; n++, x += step, g++) {
        Register v[P];
        UNROLL for (int p = 0; p < P; p++) v[p] = x[p];
        UNROLL for (int o = 0; o < O; o++)
            UNROLL for (int p = 0; p < P; p++) sum[o][p] += v[p] * g[o * gstep];
    }
    UNROLL for (int o = 0; o < O; o++)
        UNROLL for (int p = 0; p < P; p++)
            sums[o * step + p] = more ? sums[o * step + p] + sum[o][p] : sum[o][p];
}
typedef void Correlate(const real *, Size, const Register *, int, int, Register *, bool);
template <int O, int P> static Correlate *correlate_of(int o, int p) {
    if constexpr (O > 1)
        if (o < O) return correlate_of<O - 1, P>(o, p);
    if constexpr (P > 1)
        if (p < P) return correlate_of<O, P - 1>(o, p);
    return correlate<O, P>;
}
