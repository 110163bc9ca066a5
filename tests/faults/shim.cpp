// Preloaded into a process, it counts the system calls on files of one folder, and lets the n-th
// of them fail, be cut short, or kill the process. Without arming it does nothing.
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

namespace {
constexpr int FILES = 4096, CALLS = 4096;
enum { SHORT = -1, KILL_BEFORE = -2, KILL_AFTER = -3 };  // other kinds are values of errno

char folder[4096];
long chosen = -1, seen = 0;
int kind = 0;
bool ours[FILES];
const char* names[CALLS];

bool is_ours(const char* path) {
    const size_t length = strlen(folder);
    return length && !strncmp(path, folder, length);
}

bool is_ours(int file) { return file >= 0 && file < FILES && ours[file]; }

template <class F>
F real(const char* name, F) {
    return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

// Counts a call; returns whether it is the chosen one.
bool counts(const char* name) {
    if (seen < CALLS) names[seen] = name;
    return seen++ == chosen;
}

template <class R, class Call>
R faulty(const char* name, bool mine, Call call) {
    if (!mine || !counts(name)) return call();
    if (kind == KILL_BEFORE) kill(getpid(), SIGKILL);
    if (kind > 0) {
        errno = kind;
        return -1;
    }
    const R result = call();
    if (kind == KILL_AFTER) kill(getpid(), SIGKILL);
    return result;
}

size_t cut(bool mine, size_t size) {
    return mine && seen == chosen && kind == SHORT && size > 1 ? size / 2 : size;
}

template <class Open>
int opened(const char* path, Open call) {
    const bool mine = is_ours(path);
    const int file = faulty<int>("open", mine, call);
    if (file >= 0 && file < FILES) ours[file] = mine;
    return file;
}
}  // namespace

extern "C" {
void fault_arm(const char* path, long number, int what) {
    strncpy(folder, path, sizeof folder - 1);
    chosen = number;
    kind = what;
    seen = 0;
}

long fault_seen() { return seen; }

const char* fault_name(long number) { return names[number]; }

#define MODE                  \
    va_list rest;             \
    va_start(rest, flags);    \
    const mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
    va_end(rest)

int open(const char* path, int flags, ...) {
    MODE;
    return opened(path, [=] { return real("open", &open)(path, flags, mode); });
}

int open64(const char* path, int flags, ...) {
    MODE;
    return opened(path, [=] { return real("open64", &open)(path, flags, mode); });
}

int close(int file) {
    if (is_ours(file)) ours[file] = false;
    return real("close", &close)(file);
}

ssize_t write(int file, const void* data, size_t size) {
    const bool mine = is_ours(file);
    const size_t some = cut(mine, size);
    return faulty<ssize_t>("write", mine,
                           [=] { return real("write", &write)(file, data, some); });
}

ssize_t pwrite64(int file, const void* data, size_t size, off64_t place) {
    const bool mine = is_ours(file);
    const size_t some = cut(mine, size);
    return faulty<ssize_t>("pwrite", mine,
                           [=] { return real("pwrite64", &pwrite64)(file, data, some, place); });
}

ssize_t read(int file, void* data, size_t size) {
    const bool mine = is_ours(file);
    const size_t some = cut(mine, size);
    return faulty<ssize_t>("read", mine, [=] { return real("read", &read)(file, data, some); });
}

ssize_t pread64(int file, void* data, size_t size, off64_t place) {
    const bool mine = is_ours(file);
    const size_t some = cut(mine, size);
    return faulty<ssize_t>("pread", mine,
                           [=] { return real("pread64", &pread64)(file, data, some, place); });
}

int fsync(int file) {
    return faulty<int>("fsync", is_ours(file), [=] { return real("fsync", &fsync)(file); });
}

int ftruncate64(int file, off64_t size) {
    return faulty<int>("ftruncate", is_ours(file),
                       [=] { return real("ftruncate64", &ftruncate64)(file, size); });
}

int truncate64(const char* path, off64_t size) {
    return faulty<int>("truncate", is_ours(path),
                       [=] { return real("truncate64", &truncate64)(path, size); });
}

int rename(const char* path, const char* target) {
    return faulty<int>("rename", is_ours(path),
                       [=] { return real("rename", &rename)(path, target); });
}

int link(const char* path, const char* target) {
    return faulty<int>("link", is_ours(path), [=] { return real("link", &link)(path, target); });
}

int linkat(int from, const char* path, int to, const char* target, int flags) {
    return faulty<int>("link", is_ours(path), [=] {
        return real("linkat", &linkat)(from, path, to, target, flags);
    });
}

int unlink(const char* path) {
    return faulty<int>("unlink", is_ours(path),
                       [=] { return real("unlink", &unlink)(path); });
}

int mkdir(const char* path, mode_t mode) {
    return faulty<int>("mkdir", is_ours(path), [=] { return real("mkdir", &mkdir)(path, mode); });
}
}
