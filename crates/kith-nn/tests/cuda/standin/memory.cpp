// Device memory and pinned memory: addresses, pages, lifetimes, and checks of what work uses.
//
// Device memory is one range of addresses, none of which is used twice. Freed arrays have no pages, and neither has the space between arrays. An
// address that is an argument of work is checked when the work runs. Any other access to missing memory raises a fault.
//
// An array exists from the moment when its stream runs its allocation. It must not be freed before the work that other streams have queued on
// it. Memory of a graph exists in a launch from its allocation to its free. Fresh memory holds NaN.

#include "driver.h"

#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace standin {

static const size_t ARENA = size_t(1) << 44, MOST_REMEMBERED = 400000;
static struct sigaction others_fault;

static void on_fault(int signal, siginfo_t *info, void *) {
    char *at = (char *)info->si_addr;
    if (at >= state().arena && at < state().arena + ARENA)
        die("%s touches %s", current ? current : "the host", describe((CUdeviceptr)at).c_str());
    if (current) die("%s touches %p, which is no device memory", current, (void *)at);
    // The fault is not in device memory: it is raised again.
    sigaction(signal, &others_fault, nullptr);
}

void open_memory() {
    State &s = state();
    if (s.arena) return;
    s.arena = (char *)mmap(nullptr, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s.arena == MAP_FAILED) die("no range of addresses");
    s.next = (CUdeviceptr)s.arena + PAGE;
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &others_fault);
    sigaction(SIGBUS, &action, nullptr);
}

std::pair<const CUdeviceptr, Block> *block_at(CUdeviceptr at) {
    auto after = state().blocks.upper_bound(at);
    return after == state().blocks.begin() ? nullptr : &*std::prev(after);
}

std::string describe(CUdeviceptr at) {
    char text[200];
    auto *found = block_at(at);
    if (!found || at >= found->first + found->second.bytes + PAGE) {
        snprintf(text, sizeof text, "0x%llx, which is in no array", at);
        return text;
    }
    auto &[start, block] = *found;
    const char *how = block.alive   ? "alive"
                      : block.graph ? "graph memory that is not allocated now"
                      : block.freed ? "freed"
                                    : "not allocated yet in its stream";
    snprintf(text, sizeof text, "0x%llx: byte %llu of an array of %zu bytes at 0x%llx, %s", at, at - start, block.bytes, start, how);
    return text;
}

// Gives an array pages that are filled with NaN, or takes them away. An array ends at most 256 bytes before the end of its last page.
static void set_pages(CUdeviceptr start, size_t bytes, bool there) {
    CUdeviceptr first = start / PAGE * PAGE;
    size_t length = (start + bytes + PAGE - 1) / PAGE * PAGE - first;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
    void *got = mmap((void *)first, length, there ? PROT_READ | PROT_WRITE : PROT_NONE, flags, -1, 0);
    if (got == MAP_FAILED) die("no pages for %zu bytes", bytes);
    if (there) memset(got, 0xff, length);
}

static CUdeviceptr reserve(size_t bytes, Graph *graph) {
    State &s = state();
    size_t rounded = (bytes + 255) / 256 * 256, length = (rounded + PAGE - 1) / PAGE * PAGE;
    CUdeviceptr start = s.next + length - rounded;
    s.next += length + PAGE;
    if (s.next > (CUdeviceptr)s.arena + ARENA) die("all addresses have been used");
    // The oldest freed arrays are forgotten.
    for (auto oldest = s.blocks.begin(); s.blocks.size() > MOST_REMEMBERED && oldest != s.blocks.end();)
        oldest = oldest->second.alive || !oldest->second.freed ? std::next(oldest) : s.blocks.erase(oldest);
    s.blocks[start] = {bytes, graph};
    return start;
}

void make_alive(CUdeviceptr start) {
    Block &block = state().blocks.at(start);
    if (block.alive) die("graph memory 0x%llx is allocated while it is", start);
    set_pages(start, block.bytes, true);
    block.alive = true;
    if (!block.graph) return;
    GraphMemory &memory = state().graph_memory;
    memory.used += block.bytes;
    memory.most_used = std::max(memory.most_used, memory.used);
    memory.reserved = std::max(memory.reserved, memory.used);
    memory.most_reserved = std::max(memory.most_reserved, memory.reserved);
}

void make_dead(CUdeviceptr start, uint64_t number) {
    Block &block = state().blocks.at(start);
    if (!block.alive) die("%s frees %s", current, describe(start).c_str());
    if (!block.graph) not_waited_for({start, block.bytes, true}, number);
    set_pages(start, block.bytes, false);
    block.alive = false;
    size_t &counted = block.graph ? state().graph_memory.used : state().freed_bytes;
    counted -= std::min(counted, block.bytes);
}

// `there(block)` says why the array of a reach does not exist. It is null if the array exists.
template <class There>
static void check(const Work &work, There there) {
    for (const Reach &reach : work.reaches) {
        if (reach.bytes == 0) continue;
        auto *found = block_at(reach.at);
        if (!found || reach.at + reach.bytes > found->first + found->second.bytes)
            die("%s reaches for %zu bytes at %s", work.name.c_str(), reach.bytes, describe(reach.at).c_str());
        if (const char *why = there(found->second)) die("%s reaches for %s%s", work.name.c_str(), describe(reach.at).c_str(), why);
    }
}

void check_when_queued(const Work &work) {
    check(work, [](const Block &block) {
        return block.freed                      ? ": it was freed before"
               : block.graph && !block.launched ? ": its graph was not launched, or it was freed before"
                                                : nullptr;
    });
}

void check_when_run(const Work &work) {
    check(work, [](const Block &block) { return block.alive ? nullptr : ""; });
}

void check_when_captured(const Work &work) {
    check(work, [](const Block &block) { return block.freed || block.freed_in_graph ? ": it was freed before" : nullptr; });
}

char *pinned_region(const void *at, size_t bytes) {
    auto after = state().pinned.upper_bound((char *)at);
    if (after == state().pinned.begin()) return nullptr;
    auto [start, length] = *std::prev(after);
    return (char *)at + bytes <= start + length ? start : nullptr;
}

// Creates an array in the order of calls. It is alive once make_alive has run.
static CUresult allocate(const Call &call, CUdeviceptr *at, size_t bytes) {
    State &s = state();
    if (bytes == 0) return call.fails(CUDA_ERROR_INVALID_VALUE, "an array of 0 bytes");
    if (s.used + bytes > s.total) return call.fails(CUDA_ERROR_OUT_OF_MEMORY, "no memory left");
    *at = reserve(bytes, nullptr);
    s.used += bytes;
    s.most_used = std::max(s.most_used, s.used);
    return CUDA_SUCCESS;
}

// Marks an array as freed, in the order of calls. False if there is no such array.
static bool release(CUdeviceptr at) {
    auto found = state().blocks.find(at);
    if (found == state().blocks.end() || found->second.freed) return false;
    Block &block = found->second;
    if (block.graph) {
        if (!block.launched || block.freed_in_graph) return false;
        block.launched = false;
        return true;
    }
    block.freed = true;
    state().used -= block.bytes;
    state().freed_bytes += block.bytes;
    return true;
}

static CUresult free_in_capture(const Call &call, Capture &capture, CUdeviceptr at, CUstream handle) {
    if (capture.broken) return call.fails(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture was broken before");
    auto found = state().blocks.find(at);
    if (found == state().blocks.end() || found->second.graph != capture.graph.get() || found->second.freed_in_graph)
        return broken(call, capture, CUDA_ERROR_INVALID_VALUE, "a capturing stream frees an array that is not of its graph");
    TRY(push(call, handle, {"graph free", {{at, 1, true}}, [=] { make_dead(at); }}));
    found->second.freed_in_graph = true;
    return CUDA_SUCCESS;
}

}  // namespace standin

using namespace standin;

static const CUmemoryPool POOL = (CUmemoryPool)0xb001;

extern "C" {

CUresult cuMemAlloc(CUdeviceptr *at, size_t bytes) {
    CALL_IN_CONTEXT;
    TRY(forbidden(call));
    TRY(allocate(call, at, bytes));
    make_alive(*at);
    return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr at) {
    CALL_IN_CONTEXT;
    if (!at) return CUDA_SUCCESS;
    TRY(forbidden(call));
    run_everything();
    if (!release(at)) return call.fails(CUDA_ERROR_INVALID_VALUE, "no such array");
    make_dead(at);
    return CUDA_SUCCESS;
}

CUresult cuMemAllocAsync(CUdeviceptr *at, size_t bytes, CUstream handle) {
    CALL_IN_CONTEXT;
    Capture *capture = find(handle)->capture.get();
    if (!capture) {
        TRY(allocate(call, at, bytes));
        return push(call, handle, {"allocation", {}, [start = *at] { make_alive(start); }});
    }
    if (bytes == 0) return broken(call, *capture, CUDA_ERROR_INVALID_VALUE, "an array of 0 bytes");
    if (capture->broken) return call.fails(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture was broken before");
    *at = reserve(bytes, capture->graph.get());
    capture->graph->arrays.push_back(*at);
    return push(call, handle, {"graph allocation", {}, [start = *at] { make_alive(start); }});
}

CUresult cuMemFreeAsync(CUdeviceptr at, CUstream handle) {
    CALL;
    // The real driver may check only the stream here. Its documentation does not say.
    if (!thread_context) return call.fails(CUDA_ERROR_INVALID_CONTEXT, "the thread has no current context");
    if (!at) return CUDA_SUCCESS;
    if (Capture *capture = find(handle)->capture.get()) return free_in_capture(call, *capture, at, handle);
    if (!release(at)) {
        say("cuMemFreeAsync of %s", describe(at).c_str());
        return call.fails(CUDA_ERROR_INVALID_VALUE, "no array that can be freed here");
    }
    return push(call, handle, {"free", {}, [=, number = state().queued + 1] { make_dead(at, number); }});
}

CUresult cuMemHostAlloc(void **at, size_t bytes, unsigned) {
    CALL_IN_CONTEXT;
    TRY(forbidden(call));
    if (bytes == 0) return call.fails(CUDA_ERROR_INVALID_VALUE, "0 bytes");
    *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*at == MAP_FAILED) return call.fails(CUDA_ERROR_OUT_OF_MEMORY, "no memory left");
    memset(*at, 0xff, bytes);
    state().pinned[(char *)*at] = bytes;
    return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void *at) {
    CALL;
    TRY(forbidden(call));
    auto found = state().pinned.find((char *)at);
    if (found == state().pinned.end()) return call.fails(CUDA_ERROR_INVALID_VALUE, "not pinned memory");
    run_everything();
    munmap(at, found->second);
    state().pinned.erase(found);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice) {
    CALL;
    *pool = POOL;
    return CUDA_SUCCESS;
}

// A pool gives no memory back, so the most that was used is what it reserves.
CUresult cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute attribute, void *value) {
    CALL;
    switch (attribute) {
        case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: *(cuuint64_t *)value = state().used; break;
        case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
        case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: *(cuuint64_t *)value = state().most_used; break;
        default: die("attribute %d of a pool is not known", (int)attribute);
    }
    return CUDA_SUCCESS;
}

CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute attribute, void *) {
    CALL;
    if (attribute != CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) die("attribute %d of a pool cannot be set", (int)attribute);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetGraphMemAttribute(CUdevice, CUgraphMem_attribute attribute, void *value) {
    CALL;
    const GraphMemory &memory = state().graph_memory;
    switch (attribute) {
        case CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT: *(cuuint64_t *)value = memory.used; break;
        case CU_GRAPH_MEM_ATTR_USED_MEM_HIGH: *(cuuint64_t *)value = memory.most_used; break;
        case CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT: *(cuuint64_t *)value = memory.reserved; break;
        case CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH: *(cuuint64_t *)value = memory.most_reserved; break;
        default: die("attribute %d of graph memory is not known", (int)attribute);
    }
    return CUDA_SUCCESS;
}

CUresult cuDeviceGraphMemTrim(CUdevice) {
    CALL;
    state().graph_memory.reserved = state().graph_memory.used;
    return CUDA_SUCCESS;
}

}  // extern "C"
