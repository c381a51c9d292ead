// The C ABI: millrace.h's table, with exceptions turned into statuses.
#include <new>
#include <string>

#include "context.h"
#include "error.h"

struct mr_context : millrace::Context {
  using Context::Context;
};

namespace millrace {
namespace {

std::string open_error;  // of the last failed open or probe

// guard runs fn and puts what it throws into error.
template <class Fn>
mr_status guard(std::string& error, Fn fn) {
  try {
    fn();
    return MR_OK;
  } catch (const Error& e) {
    error = e.what();
    return e.status();
  } catch (const std::bad_alloc&) {
    error = "out of memory";
    return MR_NO_MEMORY;
  } catch (const std::exception& e) {
    error = e.what();
    return MR_FAILED;
  }
}

mr_status probe(mr_caps* caps) {
  return guard(open_error, [&] { fill_caps(caps, find_device()); });
}

mr_status open(const mr_limits* limits, mr_context** ctx) {
  return guard(open_error, [&] {
    const struct {
      const char* name;
      int32_t value, most;
    } checks[] = {{"max_tokens", limits->max_tokens, 1 << 20},
                  {"max_rows", limits->max_rows, 1 << 20},
                  {"max_slots", limits->max_slots, 1 << 16},
                  {"max_pages_per_slot", limits->max_pages_per_slot, 1 << 20},
                  {"max_count_deltas", limits->max_count_deltas, 1 << 28},
                  {"max_bias_deltas", limits->max_bias_deltas, 1 << 28}};
    for (const auto& c : checks)
      if (c.value <= 0 || c.value > c.most) fail(MR_INVALID, "limit %s is %d, want 1 to %d", c.name, c.value, c.most);
    *ctx = new mr_context(*limits);
  });
}

const char* error(mr_context* ctx) { return ctx == nullptr ? open_error.c_str() : ctx->error.c_str(); }

mr_status caps(mr_context* ctx, mr_caps* caps) {
  return guard(ctx->error, [&] { ctx->caps(caps); });
}
mr_status tensor_new(mr_context* ctx, const char* name, mr_format format, int32_t rank, const int64_t* shape,
                     int32_t* handle) {
  return guard(ctx->error, [&] { *handle = ctx->tensor_new(name, format, rank, shape); });
}
mr_status tensor_write(mr_context* ctx, int32_t handle, int64_t first, int64_t rows, const void* src, int64_t bytes) {
  return guard(ctx->error, [&] { ctx->tensor_write(handle, first, rows, src, bytes); });
}
mr_status tensor_adopt(mr_context* ctx, int32_t, const void*, int64_t) {
  return guard(ctx->error, [] { fail(MR_UNSUPPORTED, "tensors in a layout of their own"); });
}
mr_status plan_check(mr_context* ctx, const mr_plan* plan) {
  return guard(ctx->error, [&] { check_plan(*plan); });
}
mr_status model(mr_context* ctx, const mr_plan* plan, mr_model_info* info) {
  return guard(ctx->error, [&] { ctx->set_model(*plan, info); });
}
mr_status cache_init(mr_context* ctx, int32_t pages, int32_t states) {
  return guard(ctx->error, [&] { ctx->cache_init(pages, states); });
}
mr_status warm_up(mr_context* ctx) {
  return guard(ctx->error, [&] { ctx->warm_up(); });
}
mr_status host_alloc(mr_context* ctx, int64_t bytes, void** memory) {
  return guard(ctx->error, [&] { *memory = ctx->host_alloc(bytes); });
}
mr_status host_free(mr_context* ctx, void* memory) {
  return guard(ctx->error, [&] { ctx->host_free(memory); });
}
mr_status adapter_load(mr_context* ctx, int32_t id, int32_t rank, int32_t n, const mr_adapter_target* targets) {
  return guard(ctx->error, [&] { ctx->adapter_load(id, rank, n, targets); });
}
mr_status adapter_drop(mr_context* ctx, int32_t id) {
  return guard(ctx->error, [&] { ctx->adapter_drop(id); });
}
mr_status page_read(mr_context* ctx, int32_t page, void* dst, int64_t bytes) {
  return guard(ctx->error, [&] { ctx->page_read(page, dst, bytes); });
}
mr_status page_write(mr_context* ctx, int32_t page, const void* src, int64_t bytes) {
  return guard(ctx->error, [&] { ctx->page_write(page, src, bytes); });
}
mr_status state_read(mr_context* ctx, int32_t state, void* dst, int64_t bytes) {
  return guard(ctx->error, [&] { ctx->state_read(state, dst, bytes); });
}
mr_status state_write(mr_context* ctx, int32_t state, const void* src, int64_t bytes) {
  return guard(ctx->error, [&] { ctx->state_write(state, src, bytes); });
}
mr_batch* batch(mr_context* ctx, int32_t i) { return ctx->batch(i); }
mr_status forward(mr_context* ctx, int32_t i) {
  return guard(ctx->error, [&] { ctx->forward(i); });
}
mr_status sample(mr_context* ctx, int32_t i) {
  return guard(ctx->error, [&] { ctx->sample(i); });
}
mr_status wait(mr_context* ctx, int32_t i) {
  return guard(ctx->error, [&] { ctx->wait(i); });
}
mr_status stats(mr_context* ctx, mr_stats* stats) {
  ctx->stats(stats);
  return MR_OK;
}
void close(mr_context* ctx) { delete ctx; }

}  // namespace
}  // namespace millrace

// Bytes of the GPU that are free, and that it has; 0 if it does not say.
extern "C" __attribute__((visibility("default"))) void mr_cuda_memory(int64_t* free, int64_t* total) {
  size_t left = 0, all = 0;
  if (cudaMemGetInfo(&left, &all) != cudaSuccess) cudaGetLastError();
  *free = int64_t(left);
  *total = int64_t(all);
}

extern "C" __attribute__((visibility("default"))) const mr_backend mr_backend_v5 = {
    MR_ABI_VERSION,        millrace::probe,        millrace::open,         millrace::error,       millrace::caps,
    millrace::plan_check,  millrace::tensor_new,   millrace::tensor_write, millrace::tensor_adopt, millrace::model,
    millrace::cache_init,  millrace::warm_up,      millrace::host_alloc,   millrace::host_free,   millrace::adapter_load,
    millrace::adapter_drop, millrace::page_read,   millrace::page_write,   millrace::state_read,  millrace::state_write,
    millrace::batch,       millrace::forward,      millrace::sample,       millrace::wait,        millrace::stats,
    millrace::close};
