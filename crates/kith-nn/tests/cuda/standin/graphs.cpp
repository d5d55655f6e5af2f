// Capture and graphs: a capturing stream records its work, calls that a capture forbids fail, and a launch runs what was recorded. The work of a
// graph runs in the order of its capture. Calls that build, inspect or update a graph are not implemented.

#include "driver.h"

namespace standin {

CUresult broken(const Call &call, Capture &capture, CUresult error, const char *why) {
    capture.broken = true;
    return call.fails(error, why);
}

CUresult must_not_capture(const Call &call, Stream &stream) {
    if (!stream.capture) return CUDA_SUCCESS;
    return broken(call, *stream.capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream captures");
}

CUresult forbidden(const Call &call) {
    for (auto &capture : state().captures) {
        bool own = capture->thread == std::this_thread::get_id();
        if (own ? capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED : capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL)
            return broken(call, *capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "not allowed while a stream captures");
    }
    return CUDA_SUCCESS;
}

CUresult forbidden_in_capture(const char *name) {
    Call call(name);
    return forbidden(call);
}

}  // namespace standin

using namespace standin;

extern "C" {

CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
    CALL_IN_CONTEXT;
    shared_ptr<Stream> stream = find(handle);
    if (stream == state().legacy) return call.fails(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the default stream does not capture");
    if (stream->capture) return call.fails(CUDA_ERROR_ILLEGAL_STATE, "the stream captures already");
    stream->capture = std::make_shared<Capture>(Capture{mode, std::this_thread::get_id(), stream.get()});
    state().captures.push_back(stream->capture);
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph) {
    CALL_IN_CONTEXT;
    *graph = nullptr;
    shared_ptr<Stream> stream = find(handle);
    shared_ptr<Capture> capture = stream->capture;
    if (!capture) return call.fails(CUDA_ERROR_ILLEGAL_STATE, "the stream does not capture");
    if (capture->origin != stream.get())
        return broken(call, *capture, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "the capture began on another stream");
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != std::this_thread::get_id())
        return broken(call, *capture, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "the capture began in another thread");
    capture->ended = true;
    stream->capture = nullptr;
    for (Stream *other : capture->others) other->capture = nullptr;
    std::erase(state().captures, capture);
    if (state().fails_captures) return call.fails(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "as STANDIN_FAIL_CAPTURE asks");
    if (capture->broken) return call.fails(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture was broken before");
    if (!capture->unjoined.empty()) return call.fails(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "not all streams have been waited for");
    *graph = (CUgraph)keep(state().graphs, capture->graph);
    return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
    CALL_IN_CONTEXT;
    Capture *capture = find(handle)->capture.get();
    *status = !capture          ? CU_STREAM_CAPTURE_STATUS_NONE
              : capture->broken ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *handle, CUgraph graph_handle, unsigned long long flags) {
    CALL_IN_CONTEXT;
    shared_ptr<Graph> graph = find(state().graphs, graph_handle, "graph");
    if (flags & ~0xfull || flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH) return call.fails(CUDA_ERROR_INVALID_VALUE, "flags");
    if (!graph->arrays.empty() && graph->executables > 0)
        return call.fails(CUDA_ERROR_NOT_SUPPORTED, "a second executable of a graph that allocates");
    ++graph->executables;
    bool frees = flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    *handle = (CUgraphExec)keep(state().executables, std::make_shared<Executable>(Executable{graph, frees}));
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream) {
    CALL_IN_CONTEXT;
    State &s = state();
    shared_ptr<Executable> executable = find(s.executables, handle, "executable graph");
    shared_ptr<Graph> graph = executable->graph;
    if (auto capture = find(stream)->capture)
        return broken(call, *capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "graphs within graphs are not implemented");
    for (CUdeviceptr at : graph->arrays)
        if (s.blocks.at(at).launched) {
            if (!executable->frees) return call.fails(CUDA_ERROR_INVALID_VALUE, "what the graph allocated in its last launch is not freed");
            TRY(push(call, stream, {"automatic free", {}, [=] { make_dead(at); }}));
        }
    for (CUdeviceptr at : graph->arrays) s.blocks.at(at).launched = !s.blocks.at(at).freed_in_graph;
    Work work{"graph", {}, [=, &s] {
                  for (const Work &part : graph->works) {
                      if (s.counting) ++s.counts["in graphs: " + part.name];
                      run(part);
                  }
              }};
    // All memory that the graph uses, except what it allocates itself.
    for (const Work &part : graph->works)
        for (const Reach &reach : part.reaches)
            if (auto *found = block_at(reach.at); !found || found->second.graph != graph.get()) work.reaches.push_back(reach);
    return push(call, stream, std::move(work));
}

CUresult cuGraphExecDestroy(CUgraphExec handle) {
    CALL;
    shared_ptr<Executable> executable = find(state().executables, handle, "executable graph");
    --executable->graph->executables;
    state().executables.erase(executable.get());
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph handle) {
    CALL;
    state().graphs.erase(find(state().graphs, handle, "graph").get());
    return CUDA_SUCCESS;
}

}  // extern "C"
