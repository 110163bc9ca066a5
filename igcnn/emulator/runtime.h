// What the scheduler (runtime.cpp) and the checks (check.cpp) know of each other.
#pragma once

#include "device.h"

#include <csetjmp>
#include <ucontext.h>
#include <vector>

enum class State { ready, at_barrier, in_collective, done };

// One CUDA thread: a stack of its own, and where it waits.
struct Fiber {
    ucontext_t born;
    jmp_buf resume;
    char *stack = nullptr;
    bool started = false;
    State state = State::done;
    EmulatorIndex index;
    int rank;  // within the block
    int line;      // of the barrier or collective
    uintptr_t pc;  // likewise
    EmulatorCollective kind;
    unsigned mask;
    uint64_t value;
    int source;
    uint64_t result;
    unsigned fences;  // __threadfence calls so far in this block
};

constexpr size_t STACK_BYTES = 128 << 10;

// An array that a kernel was given.
struct Range {
    char *begin, *end;
    int granule;      // bytes that are watched as one
    int initialised;  // whether it may be read before it is written
    int writable;
};

extern std::vector<Fiber> fibers;
extern Fiber *running;
extern int block_rank;

// Breaks the launch off. `what` is what is wrong, `pc` the place in the kernel.
[[noreturn]] void emulator_fail(const char *what, uintptr_t pc);

// In a library without check mode these do nothing.
extern "C" {
void check_begin_launch(const Range *ranges, int count, int threads, Range dynamic_shared);
void check_begin_block();
void check_barrier();
void check_warp(int warp, unsigned mask);
void check_atomic(void *address);
void check_end_launch();
}
