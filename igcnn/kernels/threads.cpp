// Executes a list of launches with a pool of threads.
//
// A launch is a kernel and a number of jobs. Thread r executes the jobs r, r + threads, …: equal
// launches find the data of a job in the cache of the same core. A common queue of jobs was
// up to two times slower while the data fits the caches, and not faster beside a busy process.
// A launch that does not wait for the one before goes on with the next thread. The pool sleeps
// between calls. Within a call, threads that wait for others spin for a while before they sleep.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct Launch {
    void (*kernel)(const void *arguments, int job, void *scratch);
    const void *arguments;
    int jobs;
    int wait;  // whether the next launch begins only when all jobs of this one have ended
};

struct Call {
    const Launch *launches;
    int count;
    int threads;
    char *scratch;
    size_t stride;
    double *seconds;
};

static const int PAUSES = 32;         // at the barrier, before the core is offered to others
static const int ROUNDS = 200;        // of pauses, before the thread sleeps
static const size_t STACK = 4 << 20;  // some systems give a thread 128 KiB

static pthread_mutex_t calls = PTHREAD_MUTEX_INITIALIZER;  // one call at a time
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;   // guards what follows
static pthread_cond_t begun = PTHREAD_COND_INITIALIZER;
static pthread_cond_t passed = PTHREAD_COND_INITIALIZER;
static Call call;
static unsigned generation;  // number of calls so far
static int workers;          // threads in the pool, without the caller

// the barrier
static int arrived;
static int sleepers;
static unsigned phase;

static inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void barrier(int threads) {
    unsigned before = __atomic_load_n(&phase, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) == threads) {
        __atomic_store_n(&arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&phase, before + 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&sleepers, __ATOMIC_SEQ_CST)) {
            pthread_mutex_lock(&lock);
            pthread_cond_broadcast(&passed);
            pthread_mutex_unlock(&lock);
        }
        return;
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < PAUSES; i++) {
            if (__atomic_load_n(&phase, __ATOMIC_ACQUIRE) != before) return;
            relax();
        }
        sched_yield();  // the thread that is waited for may have no core
    }
    pthread_mutex_lock(&lock);
    __atomic_add_fetch(&sleepers, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&phase, __ATOMIC_SEQ_CST) == before) pthread_cond_wait(&passed, &lock);
    __atomic_sub_fetch(&sleepers, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&lock);
}

static double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void work(const Call &c, int rank) {
    void *scratch = c.scratch + rank * c.stride;
    double begin = c.seconds && rank == 0 ? now() : 0;
    int first = 0;  // the thread that has job 0
    for (int k = 0; k < c.count; k++) {
        const Launch &launch = c.launches[k];
        int job = (rank - first + c.threads) % c.threads;
        for (; job < launch.jobs; job += c.threads) launch.kernel(launch.arguments, job, scratch);
        if (launch.wait || c.seconds || k == c.count - 1) {
            if (c.threads > 1) barrier(c.threads);
            first = 0;
        } else {
            first = (first + launch.jobs) % c.threads;
        }
        if (c.seconds && rank == 0) {
            double end = now();
            c.seconds[k] = end - begin;
            begin = end;
        }
    }
}

static void *worker(void *rank_) {
    int rank = (int)(intptr_t)rank_;
    unsigned seen = 0;  // a new thread takes part in the call that it was made for
    for (;;) {
        pthread_mutex_lock(&lock);
        while (generation == seen) pthread_cond_wait(&begun, &lock);
        seen = generation;
        Call c = call;
        pthread_mutex_unlock(&lock);
        if (rank < c.threads) work(c, rank);
    }
    return 0;
}

// Start the threads that a call misses; the lock is held. They leave signals to Python.
static void grow(int wanted) {
    sigset_t signals, old;
    sigfillset(&signals);
    sigdelset(&signals, SIGSEGV);
    sigdelset(&signals, SIGBUS);
    sigdelset(&signals, SIGFPE);
    sigdelset(&signals, SIGILL);
    pthread_sigmask(SIG_SETMASK, &signals, &old);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (workers < wanted) {
        pthread_t thread;
        void *rank = (void *)(intptr_t)(workers + 1);
        if (pthread_create(&thread, &attributes, worker, rank)) break;
        workers++;
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &old, 0);
}

static void before_fork() {
    pthread_mutex_lock(&calls);
    pthread_mutex_lock(&lock);
}

static void after_fork_in_parent() {
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&calls);
}

// The child has the memory of the pool, but none of its threads.
static void after_fork_in_child() {
    calls = PTHREAD_MUTEX_INITIALIZER;
    lock = PTHREAD_MUTEX_INITIALIZER;
    begun = PTHREAD_COND_INITIALIZER;
    passed = PTHREAD_COND_INITIALIZER;
    generation = phase = 0;
    workers = arrived = sleepers = 0;
}

// Execute launches in their order. Thread r has scratch + r * stride. If `seconds` is given, it
// receives the time of each launch, and every launch waits for the one before.
extern "C" void run(
    const Launch *launches, int count, int threads, void *scratch, size_t stride, double *seconds
) {
    static int registered;
    pthread_mutex_lock(&calls);
    if (!registered) {
        pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
        registered = 1;
    }
    pthread_mutex_lock(&lock);
    grow(threads - 1);
    if (threads > workers + 1) threads = workers + 1;  // the system gives no more
    Call c = {launches, count, threads, (char *)scratch, stride, seconds};
    if (threads > 1) {
        call = c;
        if (++generation == 0) generation = 1;
        pthread_cond_broadcast(&begun);
    }
    pthread_mutex_unlock(&lock);
    work(c, 0);
    pthread_mutex_unlock(&calls);
}
