// What limit.py measures: multiply-adds from registers alone, and additions from memory.
#include <stddef.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define REGISTER_BYTES 64
#define SUMS 24  // of 32 registers
#elif defined(__AVX__)
#define REGISTER_BYTES 32
#define SUMS 12  // of 16
#elif defined(__aarch64__)
#define REGISTER_BYTES 16
#define SUMS 24
#else
#define REGISTER_BYTES 16
#define SUMS 12
#endif

typedef REAL real;
typedef real Part __attribute__((vector_size(REGISTER_BYTES)));
typedef real V __attribute__((vector_size(LANES * sizeof(real))));
static const int PARTS = sizeof(V) / sizeof(Part);
static_assert(sizeof(V) % sizeof(Part) == 0, "LANES");

#define KERNEL(name, Arguments) \
    extern "C" void name(const Arguments *a, int job, [[maybe_unused]] V *scratch)

struct MultiplyAdd {
    double *operations;  // [jobs] receives how many there were: a multiply-add is two
    real *result;        // [jobs] receives a number, so that the compiler leaves nothing out
    int rounds;
};

KERNEL(multiply_add, MultiplyAdd) {
    Part sum[SUMS], factor = Part{} + (real)0.999, addend = Part{} + (real)job;
    for (int k = 0; k < SUMS; k++) sum[k] = addend + (real)k;
    for (int i = 0; i < a->rounds; i++) {
        _Pragma("GCC unroll 24")
        for (int k = 0; k < SUMS; k++) sum[k] = sum[k] * factor + addend;
    }
    for (int k = 1; k < SUMS; k++) sum[0] += sum[k];
    a->operations[job] = 2. * a->rounds * SUMS * REGISTER_BYTES / sizeof(real);
    a->result[job] = sum[0][0];
}

struct Add {
    const V *x;     // [size]
    const V *y;     // [size]
    V *z;           // [size] receives x + y
    int size;       // in vectors
    int streaming;  // whether z is written past the caches, if the CPU can do that
    int jobs;       // that share the vectors
};

static inline void stream(Part *to, Part value) {
#if defined(__AVX512F__)
    _mm512_stream_ps((float *)to, (__m512)value);
#elif defined(__AVX__)
    _mm256_stream_ps((float *)to, (__m256)value);
#elif defined(__x86_64__)
    _mm_stream_ps((float *)to, (__m128)value);
#else
    *to = value;
#endif
}

KERNEL(add, Add) {
    ptrdiff_t first = (ptrdiff_t)a->size * job / a->jobs * PARTS;
    ptrdiff_t last = (ptrdiff_t)a->size * (job + 1) / a->jobs * PARTS;
    const Part *x = (const Part *)a->x, *y = (const Part *)a->y;
    Part *z = (Part *)a->z;
    if (a->streaming)
        for (ptrdiff_t i = first; i < last; i++) stream(z + i, x[i] + y[i]);
    else
        for (ptrdiff_t i = first; i < last; i++) z[i] = x[i] + y[i];
#if defined(__x86_64__)
    _mm_sfence();
#endif
}
