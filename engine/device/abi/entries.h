// The entries of millrace.h's table for a backend in C++, whose state is a Context with
// a method for each: what it throws becomes a status and a sentence.
#ifndef MILLRACE_ENTRIES_H
#define MILLRACE_ENTRIES_H

#include <new>
#include <string>

#include "error.h"

namespace millrace {

// check_plan throws an Error for a plan that the backend cannot run.
void check_plan(const mr_plan& plan);

// Entries needs of Context a string `error`, the last call's. An mr_context is a Context.
template <class Context>
struct Entries {
  static Context& of(mr_context* ctx) { return *reinterpret_cast<Context*>(ctx); }

  // guard runs fn and puts what it throws into error.
  template <class Fn>
  static mr_status guard(std::string& error, Fn fn) {
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

  static inline std::string open_error;  // of the last failed open or probe

  // open checks the limits that all backends have, and opens what make returns.
  template <class Make>
  static mr_status open(const mr_limits* limits, mr_context** ctx, Make make) {
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
      *ctx = reinterpret_cast<mr_context*>(make());
    });
  }

  static const char* error(mr_context* ctx) { return (ctx == nullptr ? open_error : of(ctx).error).c_str(); }

  static mr_status caps(mr_context* ctx, mr_caps* caps) {
    return guard(of(ctx).error, [&] { of(ctx).caps(caps); });
  }
  static mr_status tensor_new(mr_context* ctx, const char* name, mr_format format, int32_t rank, const int64_t* shape,
                       int32_t* handle) {
    return guard(of(ctx).error, [&] { *handle = of(ctx).tensor_new(name, format, rank, shape); });
  }
  static mr_status tensor_write(mr_context* ctx, int32_t handle, int64_t first, int64_t rows, const void* src, int64_t bytes) {
    return guard(of(ctx).error, [&] { of(ctx).tensor_write(handle, first, rows, src, bytes); });
  }
  static mr_status tensor_adopt(mr_context* ctx, int32_t handle, const void* packed, int64_t bytes) {
    return guard(of(ctx).error, [&] { of(ctx).tensor_adopt(handle, packed, bytes); });
  }
  static mr_status plan_check(mr_context* ctx, const mr_plan* plan) {
    return guard(of(ctx).error, [&] { check_plan(*plan); });
  }
  static mr_status model(mr_context* ctx, const mr_plan* plan, mr_model_info* info) {
    return guard(of(ctx).error, [&] { of(ctx).set_model(*plan, info); });
  }
  static mr_status cache_init(mr_context* ctx, int32_t pages, int32_t states) {
    return guard(of(ctx).error, [&] { of(ctx).cache_init(pages, states); });
  }
  static mr_status warm_up(mr_context* ctx) {
    return guard(of(ctx).error, [&] { of(ctx).warm_up(); });
  }
  static mr_status host_alloc(mr_context* ctx, int64_t bytes, void** memory) {
    return guard(of(ctx).error, [&] { *memory = of(ctx).host_alloc(bytes); });
  }
  static mr_status host_free(mr_context* ctx, void* memory) {
    return guard(of(ctx).error, [&] { of(ctx).host_free(memory); });
  }
  static mr_status adapter_load(mr_context* ctx, int32_t id, int32_t rank, int32_t n, const mr_adapter_target* targets) {
    return guard(of(ctx).error, [&] { of(ctx).adapter_load(id, rank, n, targets); });
  }
  static mr_status adapter_drop(mr_context* ctx, int32_t id) {
    return guard(of(ctx).error, [&] { of(ctx).adapter_drop(id); });
  }
  static mr_status page_read(mr_context* ctx, int32_t page, void* dst, int64_t bytes) {
    return guard(of(ctx).error, [&] { of(ctx).page_read(page, dst, bytes); });
  }
  static mr_status page_write(mr_context* ctx, int32_t page, const void* src, int64_t bytes) {
    return guard(of(ctx).error, [&] { of(ctx).page_write(page, src, bytes); });
  }
  static mr_status state_read(mr_context* ctx, int32_t state, void* dst, int64_t bytes) {
    return guard(of(ctx).error, [&] { of(ctx).state_read(state, dst, bytes); });
  }
  static mr_status state_write(mr_context* ctx, int32_t state, const void* src, int64_t bytes) {
    return guard(of(ctx).error, [&] { of(ctx).state_write(state, src, bytes); });
  }
  static mr_batch* batch(mr_context* ctx, int32_t i) { return of(ctx).batch(i); }
  static mr_status forward(mr_context* ctx, int32_t i) {
    return guard(of(ctx).error, [&] { of(ctx).forward(i); });
  }
  static mr_status sample(mr_context* ctx, int32_t i) {
    return guard(of(ctx).error, [&] { of(ctx).sample(i); });
  }
  static mr_status wait(mr_context* ctx, int32_t i) {
    return guard(of(ctx).error, [&] { of(ctx).wait(i); });
  }
  static mr_status stats(mr_context* ctx, mr_stats* stats) {
    of(ctx).stats(stats);
    return MR_OK;
  }
  static mr_status abandon(mr_context* ctx, int32_t yes) {
    of(ctx).abandon(yes != 0);
    return MR_OK;
  }
  static void close(mr_context* ctx) { delete &of(ctx); }

  // table is all of them, beside how the backend is probed and opened, and abandon if it
  // has that.
  static constexpr mr_backend table(mr_status (*probe)(mr_caps*), mr_status (*open)(const mr_limits*, mr_context**),
                                    mr_status (*abandon)(mr_context*, int32_t) = nullptr) {
    return {MR_ABI_VERSION, probe,        open,      error,      caps,       plan_check,  tensor_new,
            tensor_write,   tensor_adopt, model,     cache_init, warm_up,    host_alloc,  host_free,
            adapter_load,   adapter_drop, page_read, page_write, state_read, state_write, batch,
            forward,        sample,       wait,      stats,      abandon,    close};
  }
};

}  // namespace millrace
#endif
