// What the parts of the driver share: its state, under one lock that each call holds, and functions for each other. cuDNN and cuBLAS include
// standin.h instead.
#pragma once

#include "standin.h"

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

namespace standin __attribute__((visibility("hidden"))) {

using std::shared_ptr;

const size_t PAGE = 4096;

struct Stream;

struct Graph {
    std::vector<Work> works;
    std::vector<CUdeviceptr> arrays;
    int executables = 0;
};

struct Executable {
    shared_ptr<Graph> graph;
    bool frees;
};

// An array of device memory.
struct Block {
    size_t bytes;
    Graph *graph = nullptr;  // it is graph memory
    bool alive = false;      // in the order in which work runs
    bool freed = false;      // a free is queued
    bool freed_in_graph = false, launched = false;
};

struct Capture {
    CUstreamCaptureMode mode;
    std::thread::id thread;
    Stream *origin;
    bool broken = false, ended = false;
    shared_ptr<Graph> graph = std::make_shared<Graph>();
    std::set<Stream *> unjoined;  // streams with work that the origin has not waited for
    std::set<Stream *> others;
};

struct Stream {
    std::string name;
    bool blocking = false;
    std::deque<Work> queue;
    uint64_t submitted = 0, done = 0;
    shared_ptr<Capture> capture;
};

struct Event {
    shared_ptr<Stream> stream;  // null: never recorded
    uint64_t after = 0;
    shared_ptr<Capture> capture;
    Stream *captured_on = nullptr;
};

struct Module {
    const std::vector<Kernel> *kernels;
    bool loaded = true;
};

struct Function {
    shared_ptr<Module> module;
    const Kernel *kernel;
};

template <class T> using Handles = std::map<T *, shared_ptr<T>>;

struct GraphMemory {
    size_t used = 0, most_used = 0, reserved = 0, most_reserved = 0;
};

struct State {
    std::recursive_mutex lock;
    char *arena = nullptr;
    CUdeviceptr next = 0;
    std::map<CUdeviceptr, Block> blocks;
    size_t total = 0, used = 0, most_used = 0, freed_bytes = 0;
    GraphMemory graph_memory;
    std::map<char *, size_t> pinned;
    shared_ptr<Stream> legacy = std::make_shared<Stream>(Stream{"the default stream", true});
    Handles<Stream> streams;
    Handles<Event> events;
    Handles<Graph> graphs;
    Handles<Executable> executables;
    Handles<Module> modules;
    std::deque<Function> functions;
    std::vector<shared_ptr<Capture>> captures;
    std::map<std::string, long> counts;
    uint64_t queued = 0;
    size_t breaks_at;
    bool counting, tracing, fails_captures;
};

State &state();
extern thread_local CUcontext thread_context;
extern const char *current;  // the name of the work that runs

// Holds the lock for a call.
struct Call {
    std::lock_guard<std::recursive_mutex> guard;
    const char *name;
    explicit Call(const char *name) : guard(state().lock), name(name) {
        if (state().counting) ++state().counts[name];
    }
    // Prints the reason and returns the error.
    CUresult fails(CUresult error, const char *why) const;
};

#define CALL Call call(__func__)
#define CALL_IN_CONTEXT \
    CALL;               \
    if (!thread_context) return call.fails(CUDA_ERROR_INVALID_CONTEXT, "no context is current in this thread")
#define TRY(what) \
    if (CUresult error = (what)) return error

// The object of a handle. The program stops if there is none, or no longer.
template <class T>
shared_ptr<T> find(const Handles<T> &all, const void *handle, const char *what) {
    auto found = all.find((T *)handle);
    if (found == all.end()) die("%s %p does not exist (any more)", what, handle);
    return found->second;
}

// Stores an object and returns its handle.
template <class T>
T *keep(Handles<T> &all, shared_ptr<T> made) {
    all[made.get()] = made;
    return made.get();
}

// ---- memory.cpp ----

void open_memory();
// The array at or before `at`, or null.
std::pair<const CUdeviceptr, Block> *block_at(CUdeviceptr at);
std::string describe(CUdeviceptr at);
// An array begins or ceases to exist, in the order in which work runs. `number` is that of the work that frees it.
void make_alive(CUdeviceptr start);
void make_dead(CUdeviceptr start, uint64_t number = 0);
// Stop the program if work uses memory that does not exist: the first two when it is queued or captured, in the order of calls; the third
// when it runs, in the order of work.
void check_when_queued(const Work &work);
void check_when_captured(const Work &work);
void check_when_run(const Work &work);
// The pinned region that holds all of a range, or null.
char *pinned_region(const void *at, size_t bytes);

// ---- streams.cpp ----

shared_ptr<Stream> find(CUstream handle);
// Queues work, or records it if the stream captures.
CUresult push(const Call &call, CUstream handle, Work work);
void run(const Work &work);
void run_all(Stream &stream);
void run_everything();
// Stops the program if another stream still has work from before `number` whose use of memory conflicts with `reach`.
void not_waited_for(const Reach &reach, uint64_t number);

// ---- graphs.cpp ----

CUresult broken(const Call &call, Capture &capture, CUresult error, const char *why);
// The error of a call that is forbidden while any stream captures, or success.
CUresult forbidden(const Call &call);
// The error of a call that is forbidden on a stream that captures, or success.
CUresult must_not_capture(const Call &call, Stream &stream);

}  // namespace standin
