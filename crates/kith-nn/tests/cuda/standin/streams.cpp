// Streams and events. Work stays in its stream's queue until something waits for it, so that memory which the host overwrites too early is
// overwritten when the work reads it. Calls and work run one at a time. A stream must not write memory that another stream reads or writes,
// unless it has waited for that stream.

#include "driver.h"

#include <algorithm>

namespace standin {

// Beyond these bounds, queued work runs although nothing waits for it.
static const size_t MOST_QUEUED = 20000, MOST_FREED_BYTES = size_t(2) << 30;

static std::vector<shared_ptr<Stream>> all_streams() {
    std::vector<shared_ptr<Stream>> all = {state().legacy};
    for (auto &[_, stream] : state().streams) all.push_back(stream);
    return all;
}

void not_waited_for(const Reach &reach, uint64_t number) {
    for (auto &stream : all_streams())
        for (const Work &work : stream->queue)
            for (const Reach &other : work.reaches)
                if (work.number < number && (reach.writes || other.writes) && meet(reach, other))
                    die("a race: %s comes before %s, which was queued earlier on %s and not waited for; both use %s", current, work.name.c_str(),
                        stream->name.c_str(), describe(std::max(reach.at, other.at)).c_str());
}

void run(const Work &work) {
    const char *before = current;
    current = work.name.c_str();
    if (state().tracing) say("  runs %s", current);
    check_when_run(work);
    for (const Reach &reach : work.reaches) not_waited_for(reach, work.number);
    work.run();
    current = before;
}

static void step(Stream &stream) {
    Work work = std::move(stream.queue.front());
    stream.queue.pop_front();
    run(work);
    ++stream.done;
}

static void run_until(Stream &stream, uint64_t done) {
    while (stream.done < done && !stream.queue.empty()) step(stream);
}

void run_all(Stream &stream) { run_until(stream, stream.submitted); }

void run_everything() {
    for (auto &stream : all_streams()) run_all(*stream);
}

shared_ptr<Stream> find(CUstream handle) {
    return handle && handle != CU_STREAM_LEGACY ? find(state().streams, handle, "stream") : state().legacy;
}

static CUresult record(const Call &call, Stream &stream, Work work) {
    Capture &capture = *stream.capture;
    if (capture.broken) return call.fails(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture was broken before");
    check_when_captured(work);
    if (&stream != capture.origin) capture.unjoined.insert(&stream);
    capture.graph->works.push_back(std::move(work));
    if (capture.graph->works.size() != state().breaks_at) return CUDA_SUCCESS;
    return broken(call, capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "as STANDIN_BREAK_CAPTURE asks");
}

CUresult push(const Call &call, CUstream handle, Work work) {
    State &s = state();
    shared_ptr<Stream> stream = find(handle);
    bool captures = (bool)stream->capture;
    if (s.counting) ++s.counts[(captures ? "captured: " : "queued: ") + work.name];
    if (s.tracing) say("%s %s on %s", captures ? "captures" : "queues", work.name.c_str(), stream->name.c_str());
    if (captures) return record(call, *stream, std::move(work));
    for (auto &capture : s.captures)
        if (stream == s.legacy && capture->origin->blocking)
            return broken(call, *capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "work on the default stream while a blocking stream captures");
    check_when_queued(work);
    work.number = ++s.queued;
    stream->queue.push_back(std::move(work));
    ++stream->submitted;
    if (stream->queue.size() > MOST_QUEUED || s.freed_bytes > MOST_FREED_BYTES) run_everything();
    return CUDA_SUCCESS;
}

CUresult enqueue(CUstream stream, Work work) {
    std::string name = work.name;
    Call call("library calls");
    call.name = name.c_str();
    return push(call, stream, std::move(work));
}

}  // namespace standin

using namespace standin;

extern "C" {

CUresult cuStreamCreateWithPriority(CUstream *handle, unsigned flags, int) {
    CALL_IN_CONTEXT;
    static int number = 0;
    auto stream = std::make_shared<Stream>(Stream{"stream " + std::to_string(++number), !(flags & CU_STREAM_NON_BLOCKING)});
    *handle = (CUstream)keep(state().streams, stream);
    return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *handle, unsigned flags) { return cuStreamCreateWithPriority(handle, flags, 0); }

CUresult cuStreamDestroy(CUstream handle) {
    CALL;
    shared_ptr<Stream> stream = find(handle);
    TRY(must_not_capture(call, *stream));
    run_all(*stream);
    state().streams.erase(stream.get());
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream handle) {
    CALL_IN_CONTEXT;
    shared_ptr<Stream> stream = find(handle);
    TRY(must_not_capture(call, *stream));
    TRY(forbidden(call));
    run_all(*stream);
    return CUDA_SUCCESS;
}

// Each query of an event lets some more work run.
CUresult cuStreamQuery(CUstream handle) {
    CALL_IN_CONTEXT;
    shared_ptr<Stream> stream = find(handle);
    TRY(must_not_capture(call, *stream));
    TRY(forbidden(call));
    if (stream->queue.empty()) return CUDA_SUCCESS;
    step(*stream);
    return CUDA_ERROR_NOT_READY;
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned) {
    CALL_IN_CONTEXT;
    shared_ptr<Stream> stream = find(handle);
    shared_ptr<Event> event = find(state().events, event_handle, "event");
    if (event->capture && event->capture->ended)
        return call.fails(CUDA_ERROR_CAPTURED_EVENT, "the event was last recorded in a capture that has ended");
    if (stream->capture && event->capture) {
        Capture &capture = *stream->capture;
        if (event->capture != stream->capture)
            return broken(call, capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "an event of another capture");
        if (stream.get() == capture.origin) capture.unjoined.erase(event->captured_on);
        return CUDA_SUCCESS;
    }
    if (event->capture) {
        // The stream joins the capture.
        stream->capture = event->capture;
        stream->capture->others.insert(stream.get());
        stream->capture->unjoined.insert(stream.get());
        return CUDA_SUCCESS;
    }
    if (!event->stream) return CUDA_SUCCESS;
    if (stream->capture)
        return broken(call, *stream->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "a capturing stream waits for an event recorded outside");
    if (event->stream == stream) return CUDA_SUCCESS;
    return push(call, handle, {"wait for an event", {}, [other = event->stream, after = event->after] { run_until(*other, after); }});
}

CUresult cuEventCreate(CUevent *handle, unsigned) {
    CALL_IN_CONTEXT;
    *handle = (CUevent)keep(state().events, std::make_shared<Event>());
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent handle) {
    CALL;
    state().events.erase(find(state().events, handle, "event").get());
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent handle, CUstream stream_handle) {
    CALL_IN_CONTEXT;
    shared_ptr<Event> event = find(state().events, handle, "event");
    shared_ptr<Stream> stream = find(stream_handle);
    if (stream->capture) {
        if (stream->capture->broken) return call.fails(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture was broken before");
        event->capture = stream->capture, event->captured_on = stream.get();
        return CUDA_SUCCESS;
    }
    TRY(push(call, stream_handle, {"event", {}, [] {}}));
    event->capture = nullptr, event->stream = stream, event->after = stream->submitted;
    return CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent handle) {
    CALL_IN_CONTEXT;
    shared_ptr<Event> event = find(state().events, handle, "event");
    if (event->capture) {
        event->capture->broken = true;
        return call.fails(CUDA_ERROR_CAPTURED_EVENT, "the event was last recorded in a capture");
    }
    TRY(forbidden(call));
    if (event->stream) run_until(*event->stream, event->after);
    return CUDA_SUCCESS;
}

}  // extern "C"
