// Runs the threads of a CUDA kernel as fibers: one block after another, and within a block each
// thread until it waits, for the others of its block or of its warp. Nothing runs at once, so a
// result depends on nothing but the kernel.

#include "runtime.h"

#include <algorithm>
#include <cstdio>
#include <sys/mman.h>

EmulatorPlace emulator_place;
std::vector<Fiber> fibers;
Fiber *running;
int block_rank;

namespace {

using Kernel = void (*)(void **arguments);

Kernel kernel;
void **kernel_arguments;
jmp_buf scheduler;
std::vector<char> dynamic_shared;
bool strict;  // refuse what hardware may let pass

char message[512];
uintptr_t message_pc;

void fiber_main() {
    for (;;) {
        kernel(kernel_arguments);
        running->state = State::done;
        if (!_setjmp(running->resume)) _longjmp(scheduler, 1);
    }
}

// Lets a fiber run until it waits or is done.
void resume(Fiber &fiber) {
    running = &fiber;
    emulator_place.thread = fiber.index;
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.resume, 1);
    fiber.started = true;
    getcontext(&fiber.born);
    fiber.born.uc_stack.ss_sp = fiber.stack;
    fiber.born.uc_stack.ss_size = STACK_BYTES;
    fiber.born.uc_link = nullptr;
    makecontext(&fiber.born, fiber_main, 0);
    setcontext(&fiber.born);
}

void wait(State state) {
    running->state = state;
    if (!_setjmp(running->resume)) _longjmp(scheduler, 1);
}

// Completes a collective of a warp if all who take part are there; returns whether one was.
bool complete_collective(Fiber *warp, int lanes) {
    for (int first = 0; first < lanes; first++) {
        Fiber &leader = warp[first];
        if (leader.state != State::in_collective) continue;
        unsigned mask = leader.mask, present = 0;
        bool all = true;
        for (int lane = 0; lane < lanes; lane++) {
            if (!(mask >> lane & 1)) continue;
            Fiber &other = warp[lane];
            bool here = other.state == State::in_collective && other.mask == mask;
            if (here && (other.kind != leader.kind || (strict && other.line != leader.line)))
                emulator_fail("lanes of a warp meet in different collectives", other.pc);
            if (here) present |= 1u << lane;
            else if (other.state != State::done) all = false;
            else if (strict)
                emulator_fail("a lane that has ended is named in a mask", leader.pc);
        }
        if (!all) continue;
        unsigned ballot = 0;
        for (int lane = 0; lane < lanes; lane++)
            if (present >> lane & 1) ballot |= unsigned(warp[lane].value != 0) << lane;
        for (int lane = 0; lane < lanes; lane++) {
            if (!(present >> lane & 1)) continue;
            Fiber &fiber = warp[lane];
            if (fiber.kind == BALLOT) fiber.result = ballot;
            if (fiber.kind != SHUFFLE) continue;
            bool valid = fiber.source >= 0 && fiber.source < 32 && present >> fiber.source & 1;
            if (!valid && strict)
                emulator_fail("a shuffle reads from a lane that takes no part", fiber.pc);
            fiber.result = valid ? warp[fiber.source].value : fiber.value;
        }
        for (int lane = 0; lane < lanes; lane++)
            if (present >> lane & 1) warp[lane].state = State::ready;
        check_warp(int(warp - fibers.data()) / 32, present);
        return true;
    }
    return false;
}

// Runs a warp until each thread is done or waits for something that is not yet complete.
void run_warp(Fiber *warp, int lanes, bool backwards) {
    do {
        for (int i = 0; i < lanes; i++) {
            Fiber &fiber = warp[backwards ? lanes - 1 - i : i];
            if (fiber.state == State::ready) resume(fiber);
        }
    } while (complete_collective(warp, lanes));
}

void run_block(int threads, bool backwards) {
    check_begin_block();
    for (Fiber &fiber : fibers) {
        fiber.state = State::ready;
        fiber.fences = 0;
    }
    const int warps = (threads + 31) / 32;
    for (;;) {
        for (int i = 0; i < warps; i++) {
            int warp = backwards ? warps - 1 - i : i;
            run_warp(&fibers[32 * warp], std::min(32, threads - 32 * warp), backwards);
        }
        int done = 0, line = 0;
        uintptr_t pc = 0;
        for (Fiber &fiber : fibers) {
            if (fiber.state == State::in_collective)
                emulator_fail("lanes of a warp wait for each other in vain", fiber.pc);
            if (fiber.state == State::done) done++;
            else if (line && line != fiber.line && strict)
                emulator_fail("threads of a block meet at different barriers", fiber.pc);
            else line = fiber.line, pc = fiber.pc;
        }
        if (done == threads) return;
        if (done && strict)
            emulator_fail("a barrier that some threads of the block do not reach", pc);
        check_barrier();
        for (Fiber &fiber : fibers)
            if (fiber.state == State::at_barrier) fiber.state = State::ready;
    }
}

void make_fibers(int threads) {
    for (size_t i = threads; i < fibers.size(); i++) munmap(fibers[i].stack, STACK_BYTES);
    size_t before = fibers.size();
    fibers.resize(threads);
    for (size_t i = before; i < fibers.size(); i++) {
        void *stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) {
            fibers.resize(i);
            emulator_fail("no memory for the stacks of the threads", 0);
        }
        fibers[i].stack = static_cast<char *>(stack);
    }
    const EmulatorIndex size = emulator_place.block_size;
    for (int rank = 0; rank < threads; rank++) {
        fibers[rank].rank = rank;
        fibers[rank].index = {rank % size.x, rank / size.x % size.y, rank / (size.x * size.y)};
    }
}

jmp_buf failure;

}  // namespace

void emulator_fail(const char *what, uintptr_t pc) {
    snprintf(message, sizeof message, "%s", what);
    message_pc = pc;
    _longjmp(failure, 1);
}

extern "C" {

void *emulator_dynamic_shared() {
    // aligned as on the device
    return reinterpret_cast<void *>((uintptr_t(dynamic_shared.data()) + 127) & ~uintptr_t(127));
}

void emulator_block_barrier(int line) {
    running->line = line;
    running->pc = uintptr_t(__builtin_return_address(0));
    wait(State::at_barrier);
}

void emulator_fence() { running->fences++; }

unsigned emulator_atomic(EmulatorAtomic kind, unsigned *address, unsigned operand) {
    check_atomic(address);
    unsigned before = *address;
    if (kind == ATOMIC_ADD) *address = before + operand;
    else if (kind == ATOMIC_INC) *address = before >= operand ? 0 : before + 1;
    else *address = std::max(before, operand);
    return before;
}

uint64_t emulator_collective(EmulatorCollective kind, unsigned mask, uint64_t value, int lane,
                             int line) {
    running->pc = uintptr_t(__builtin_return_address(0));
    if (!(mask >> running->rank % 32 & 1))
        emulator_fail("a thread is not in the mask of its own collective", running->pc);
    running->kind = kind;
    running->mask = mask;
    running->value = value;
    running->source = lane;
    running->line = line;
    wait(State::in_collective);
    return running->result;
}

// Executes a kernel. Returns 0, or 1 after a failure, which the emulator_message functions tell.
int emulator_launch(Kernel function, void **arguments, const unsigned *grid,
                    const unsigned *block, size_t shared_bytes, const Range *ranges, int count,
                    int is_strict, int backwards) {
    kernel = function;
    kernel_arguments = arguments;
    strict = is_strict;
    emulator_place.grid_size = {grid[0], grid[1], grid[2]};
    emulator_place.block_size = {block[0], block[1], block[2]};
    dynamic_shared.resize(shared_bytes + 256);
    const int threads = block[0] * block[1] * block[2];
    const int blocks = grid[0] * grid[1] * grid[2];
    if (_setjmp(failure)) {
        for (Fiber &fiber : fibers) fiber.started = false;  // their stacks are in mid-kernel
        check_end_launch();
        return 1;
    }
    make_fibers(threads);
    char *dynamic = static_cast<char *>(emulator_dynamic_shared());
    check_begin_launch(ranges, count, threads, {dynamic, dynamic + shared_bytes, 2, 0, 1});
    for (int i = 0; i < blocks; i++) {
        block_rank = backwards ? blocks - 1 - i : i;
        unsigned rank = block_rank;
        emulator_place.block = {rank % grid[0], rank / grid[0] % grid[1],
                                rank / (grid[0] * grid[1])};
        run_block(threads, backwards);
    }
    check_end_launch();
    return 0;
}

const char *emulator_message() { return message; }
uintptr_t emulator_message_pc() { return message_pc; }
void emulator_message_place(unsigned *place) {
    memcpy(place, &emulator_place.block, sizeof emulator_place.block);
    memcpy(place + 3, &emulator_place.thread, sizeof emulator_place.thread);
}
}
