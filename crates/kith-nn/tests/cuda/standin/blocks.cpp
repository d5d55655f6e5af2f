// Threads of a block that wait at barriers. Each has a stack, and the switch between stacks is written in assembly for x86-64.
//
// The threads run one at a time, in ascending and descending order by turns. A missing barrier is more likely to show that way. Races that
// need two threads at once are not found.

#include "blocks.h"

#include <sys/mman.h>

asm(R"(
    .text
    .type standin_switch, @function
standin_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size standin_switch, .-standin_switch
)");
// Saves the position of this stack in `*from`, and continues at the position that `to` has saved.
extern "C" void standin_switch(void **from, void *to);

namespace standin {

Dim threadIdx, blockIdx, blockDim, gridDim;

namespace {

struct Fiber {
    void *stack;
    Dim index;
    bool ended;
} fibers[1024];
// Stacks start at different cache lines.
const size_t STACK = 65536 + 17 * 64;
void *scheduler;
unsigned threads, running, live;
unsigned direction;  // 1, or -1 as an unsigned number
bool plain = false;
void (*body)(const void *);
const void *body_argument;

// Switches to the next thread that has not ended, counted from `i` in the direction of this pass. If there is none, switches to the scheduler.
void go_on(void **from, unsigned i) {
    while (i < threads && fibers[i].ended) i += direction;
    if (i >= threads) return standin_switch(from, scheduler);
    running = i;
    threadIdx = fibers[i].index;
    standin_switch(from, fibers[i].stack);
}

void begin() {
    body(body_argument);
    fibers[running].ended = true;
    --live;
    go_on(&fibers[running].stack, running + direction);
}

void start(unsigned i) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    static char *stacks = (char *)mmap(nullptr, 1024 * STACK + 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
    void **top = (void **)(stacks + (i + 1) * STACK);
    top[-2] = (void *)begin;
    fibers[i].stack = top - 2 - 6;
    fibers[i].ended = false;
}

// Runs each thread, from `first` up or down, to its next barrier or to its end. At least one must not have ended.
void pass(unsigned first, bool up) {
    direction = up ? 1 : -1u;
    go_on(&scheduler, first);
}

}  // namespace

void __syncthreads() {
    if (plain) die("a thread waits for its block at a barrier that the block's first thread did not come to");
    go_on(&fibers[running].stack, running + direction);
}

void plain_threads(bool are) { plain = are; }

bool block_of_waiting(void (*thread)(const void *), const void *argument) {
    body = thread, body_argument = argument;
    static Dim shape{0, 0, 0};
    if (shape.x != blockDim.x || shape.y != blockDim.y || shape.z != blockDim.z) {
        shape = blockDim;
        threads = shape.x * shape.y * shape.z;
        for (unsigned i = 0; i < threads; ++i) fibers[i].index = {i % shape.x, i / shape.x % shape.y, i / shape.x / shape.y};
    }
    for (unsigned i = 1; i < threads; ++i) fibers[i].ended = true;
    live = threads;
    start(0);
    pass(0, true);
    if (fibers[0].ended) return false;
    for (unsigned i = 1; i < threads; ++i) start(i);
    if (threads > 1) pass(1, true);
    // All threads that have not ended are at a barrier. A sum by halves that lacks a barrier is still right in descending order, so the direction
    // alternates from block to block too.
    static bool down_first = false, said = false;
    down_first = !down_first;
    for (bool up = !down_first; live; up = !up) {
        if (live < threads && !said)
            said = true, say("a barrier of a block that some of its threads have left: undefined in CUDA, they are taken as waiting");
        pass(up ? 0 : threads - 1, up);
    }
    return true;
}

}  // namespace standin
