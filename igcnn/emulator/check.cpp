// Check mode: every access of a kernel to memory, against what the CUDA model allows.
//
// The kernel is compiled with -fsanitize=thread,alignment,bounds,…, which makes it call a
// function before each access; the functions are these, not the sanitizers' own. Two accesses to
// one place, one of them a write, by two threads of a block are a race unless a barrier of the
// block, or of the warp for threads of one warp, lies between them; by two blocks of one launch,
// unless the writer fenced and then did an atomic, and the reader's block did an atomic since.
// A partial mask counts as a barrier of the whole warp.
//
// On the way the bytes that are moved are counted, and one thread can be followed step by step.

#include "runtime.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>

#ifndef EMULATOR_CHECK

extern "C" {
void check_begin_launch(const Range *, int, int, Range) {}
void check_begin_block() {}
void check_barrier() {}
void check_warp(int, unsigned) {}
void check_atomic(void *) {}
void check_end_launch() {}
}

#else

extern "C" char __start_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_shared[] __attribute__((weak, visibility("hidden")));

namespace {

// What happened to one granule of memory. Epochs count barriers of the block; 0 is never.
struct Cell {
    int write_block, write_thread;
    unsigned write_epoch, write_warp_epoch, write_fences;
    int read_block, read_warp, read_thread;
    unsigned read_epoch, read_warp_epoch;
    bool initialised, many_warps, many_lanes, atomic;
    int atomic_block;
};

struct Watched {
    Range range;
    std::vector<Cell> cells;
    bool global;
};

// What a block had fenced, thread by thread, when it last did an atomic.
struct Published {
    bool any = false;
    std::vector<unsigned> fences;
};

std::vector<Watched> watched;
std::vector<Published> published;
// An access of the followed thread, or a barrier that it passed; _Step in library.py.
struct Step {
    uintptr_t pc;
    int array;  // position among the arrays of the arguments, or one of these
    int bytes;
    int64_t offset;
    int write;
    unsigned char value[16];
};
constexpr int SHARED = -1, BARRIER = -2;

// Bytes that all threads moved.
struct Traffic {
    int64_t global_read, global_written, shared_read, shared_written;
};

std::vector<Step> steps;
const char *unsettled = nullptr;  // where the last step writes: its value comes after the access
int followed_block = -1, followed_thread = -1;
Traffic traffic;

std::vector<unsigned> warp_epochs;
unsigned epoch;
bool active = false;
char sentence[256];

void watch(const Range &range, bool global) {
    if (range.begin >= range.end) return;
    size_t granules = (range.end - range.begin + range.granule - 1) / range.granule;
    watched.push_back({range, std::vector<Cell>(granules), global});
    for (Cell &cell : watched.back().cells) cell.initialised = range.initialised;
}

[[noreturn]] void fail(const char *what, const Watched *place, const char *address,
                       uintptr_t pc, int other = -1) {
    int number = place ? int(place - watched.data()) : -1;
    long element = place ? (address - place->range.begin) / place->range.granule : 0;
    bool argument = place && place->global;
    if (argument)
        snprintf(sentence, sizeof sentence, "%s: array %d, element %ld", what, number, element);
    else
        snprintf(sentence, sizeof sentence, "%s%s", what, place ? ": shared memory" : "");
    if (other >= 0) {
        size_t length = strlen(sentence);
        snprintf(sentence + length, sizeof sentence - length, ", with thread %d", other);
    }
    emulator_fail(sentence, pc);
}

bool is_private(const char *address) {
    const char *place = reinterpret_cast<const char *>(&emulator_place);
    return (address >= running->stack && address < running->stack + STACK_BYTES) ||
           (address >= place && address < place + sizeof emulator_place);
}

// Whether block `reader` may rely on what `cell`'s writer wrote.
bool is_published(const Cell &cell) {
    const Published &from = published[cell.write_block];
    return from.any && from.fences[cell.write_thread] > cell.write_fences &&
           published[block_rank].any;
}

void touch_write(Watched &place, Cell &cell, const char *address, uintptr_t pc) {
    const int thread = running->rank, warp = thread / 32;
    if (cell.write_epoch && cell.write_block != block_rank && place.global)
        fail("two blocks write one element", &place, address, pc);
    if (cell.read_epoch && cell.read_block != block_rank && place.global)
        fail("a block writes what another reads", &place, address, pc);
    if (cell.atomic && cell.atomic_block != block_rank && place.global)
        fail("a block writes where another does an atomic", &place, address, pc);
    if (cell.write_epoch == epoch && cell.write_thread != thread &&
        !(cell.write_thread / 32 == warp && cell.write_warp_epoch != warp_epochs[warp]))
        fail("race: two threads write", &place, address, pc, cell.write_thread);
    if (cell.read_epoch == epoch && cell.read_block == block_rank) {
        bool other_warp = cell.many_warps || cell.read_warp != warp;
        bool other_lane = cell.read_warp_epoch == warp_epochs[warp] &&
                          (cell.many_lanes || cell.read_thread != thread);
        if (other_warp || other_lane)
            fail("race: a thread writes what another reads", &place, address, pc,
                 cell.read_thread);
    }
    cell.write_block = block_rank;
    cell.write_thread = thread;
    cell.write_epoch = epoch;
    cell.write_warp_epoch = warp_epochs[warp];
    cell.write_fences = running->fences;
    cell.initialised = true;
}

void touch_read(Watched &place, Cell &cell, const char *address, uintptr_t pc) {
    const int thread = running->rank, warp = thread / 32;
    if (!cell.initialised) fail("read before it is written", &place, address, pc);
    if (cell.write_epoch && cell.write_block != block_rank && place.global &&
        !is_published(cell))
        fail("a block reads what another writes, without fence and atomic", &place, address, pc);
    if (cell.write_epoch == epoch && cell.write_block == block_rank &&
        cell.write_thread != thread &&
        !(cell.write_thread / 32 == warp && cell.write_warp_epoch != warp_epochs[warp]))
        fail("race: a thread reads what another writes", &place, address, pc, cell.write_thread);
    if (cell.read_epoch != epoch || cell.read_block != block_rank) {
        cell.read_epoch = epoch;
        cell.read_block = block_rank;
        cell.read_warp = warp;
        cell.many_warps = false;
        cell.read_warp_epoch = 0;
    } else if (cell.read_warp != warp) {
        cell.many_warps = true;
    }
    if (cell.read_warp_epoch != warp_epochs[warp]) {
        cell.read_warp_epoch = warp_epochs[warp];
        cell.many_lanes = false;
    } else if (cell.read_thread != thread) {
        cell.many_lanes = true;
    }
    cell.read_thread = thread;
}

void settle() {
    if (unsettled) memcpy(steps.back().value, unsettled, std::min(steps.back().bytes, 16));
    unsettled = nullptr;
}

void follow(const Watched &place, const char *address, size_t bytes, bool write, uintptr_t pc) {
    int64_t &moved = place.global ? (write ? traffic.global_written : traffic.global_read)
                                  : (write ? traffic.shared_written : traffic.shared_read);
    moved += bytes;
    if (block_rank != followed_block || running->rank != followed_thread) return;
    settle();
    const int array = place.global ? int(&place - watched.data()) : SHARED;
    steps.push_back({pc, array, int(bytes), address - place.range.begin, write, {}});
    unsettled = address;
    if (!write) settle();
}

void touch(void *pointer, size_t bytes, bool write, uintptr_t pc) {
    char *address = static_cast<char *>(pointer);
    if (!active || is_private(address)) return;
    static size_t last = 0;
    Watched *found = nullptr;
    for (size_t i = 0; i < watched.size() && !found; i++) {
        Watched &candidate = watched[(last + i) % watched.size()];
        if (address >= candidate.range.begin && address < candidate.range.end) {
            found = &candidate;
            last = (last + i) % watched.size();
        }
    }
    if (!found || address + bytes > found->range.end)
        fail("access out of bounds", found, address, pc);
    if (write && !found->range.writable) fail("write to a constant array", found, address, pc);
    size_t first = (address - found->range.begin) / found->range.granule;
    size_t end = (address + bytes - found->range.begin + found->range.granule - 1) /
                 found->range.granule;
    for (size_t i = first; i < end; i++) {
        if (write) touch_write(*found, found->cells[i], address, pc);
        else touch_read(*found, found->cells[i], address, pc);
    }
    follow(*found, address, bytes, write, pc);
}

}  // namespace

extern "C" {

void check_begin_launch(const Range *ranges, int count, int threads, Range dynamic_shared) {
    watched.clear();
    watched.reserve(count + 2);
    for (int i = 0; i < count; i++) watch(ranges[i], true);
    watch(dynamic_shared, false);
    if (__start_shared) watch({__start_shared, __stop_shared, 2, 0, 1}, false);
    published.assign(emulator_place.grid_size.x * emulator_place.grid_size.y *
                         emulator_place.grid_size.z, {});
    warp_epochs.assign((threads + 31) / 32, 1);
    epoch = 1;
    active = true;
    steps.clear();
    unsettled = nullptr;
    traffic = {};
}

void check_begin_block() {
    settle();
    epoch++;
    for (Watched &place : watched) {
        if (place.global) continue;
        std::fill(place.cells.begin(), place.cells.end(), Cell{});
        memset(place.range.begin, 0xff, place.range.end - place.range.begin);  // NaN
    }
}

void check_barrier() {
    epoch++;
    if (block_rank != followed_block) return;
    settle();
    steps.push_back({fibers[followed_thread].pc, BARRIER, 0, 0, 0, {}});
}

void check_warp(int warp, unsigned) { warp_epochs[warp]++; }

void check_atomic(void *pointer) {
    char *address = static_cast<char *>(pointer);
    Published &own = published[block_rank];
    own.any = true;
    own.fences.resize(fibers.size());
    for (size_t i = 0; i < fibers.size(); i++) own.fences[i] = fibers[i].fences;
    for (Watched &place : watched) {
        if (address < place.range.begin || address >= place.range.end) continue;
        Cell &cell = place.cells[(address - place.range.begin) / place.range.granule];
        if (!cell.initialised) fail("atomic on what nobody wrote", &place, address, 0);
        cell.atomic = true;
        cell.atomic_block = block_rank;
        return;
    }
    fail("atomic out of bounds", nullptr, address, 0);
}

void check_end_launch() {
    settle();
    active = false;
}

// Says which thread is followed in the next launches; -1 for none.
void emulator_follow(int block, int thread) {
    followed_block = block;
    followed_thread = thread;
}

// What it did in the last launch, and what all threads moved.
size_t emulator_steps(const Step **first, Traffic *moved) {
    *first = steps.data();
    *moved = traffic;
    return steps.size();
}

// The thread sanitizer's interface.
#define PC uintptr_t(__builtin_return_address(0))
#define ACCESS(bytes)                                                                            \
    void __tsan_read##bytes(void *p) { touch(p, bytes, false, PC); }                             \
    void __tsan_write##bytes(void *p) { touch(p, bytes, true, PC); }                             \
    void __tsan_unaligned_read##bytes(void *p) { touch(p, bytes, false, PC); }                   \
    void __tsan_unaligned_write##bytes(void *p) { touch(p, bytes, true, PC); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void *p, size_t bytes) { touch(p, bytes, false, PC); }
void __tsan_write_range(void *p, size_t bytes) { touch(p, bytes, true, PC); }
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}

// The interface of the sanitizer for undefined behaviour.
#define UNDEFINED(name, what)                                                                    \
    void __ubsan_handle_##name(void *, uintptr_t, uintptr_t) {                                   \
        if (active) emulator_fail(what, PC);                                                     \
    }
UNDEFINED(out_of_bounds, "index beyond the bounds of its array")
UNDEFINED(type_mismatch_v1, "misaligned access")
UNDEFINED(add_overflow, "overflow of a signed addition")
UNDEFINED(sub_overflow, "overflow of a signed subtraction")
UNDEFINED(mul_overflow, "overflow of a signed multiplication")
UNDEFINED(negate_overflow, "overflow of a negation")
UNDEFINED(divrem_overflow, "division by zero, or overflow of a division")
UNDEFINED(shift_out_of_bounds, "shift beyond the width of its type")
}

#endif
