// The thread pool under ThreadSanitizer, for `make sanitize`. What the workers
// share is plain memory, so that a job or a barrier that does not order what it
// should is reported as a race, and a barrier that lets one through too early
// gives a wrong sum.
#include "../pool.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

using namespace millrace;

namespace {

void check(bool ok, const char* what, int threads) {
  if (ok) return;
  fprintf(stderr, "%d threads: %s\n", threads, what);
  exit(1);
}

// stages runs jobs of several stages, each of which reads what all workers wrote
// in the stage before.
void stages(Pool& pool) {
  const int n = pool.threads(), rounds = 20;
  std::vector<long> now(n), before(n);
  long jobs = 0;
  for (int job = 0; job < 30; job++) {
    pool.run([&](int worker) {
      for (int round = 0; round < rounds; round++) {
        long sum = 1;
        for (const long v : before) sum += v % 1000;
        now[worker] = sum;
        if (round % 2 == 0) {
          pool.barrier([&] { now.swap(before); });
          continue;
        }
        pool.barrier();
        if (worker == 0) now.swap(before);
        pool.barrier();
      }
    });
    for (const long v : before) check(v == before[0], "workers saw different values", n);
    jobs++;
    // Longer than workers spin: the next job finds them asleep.
    if (job % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  check(jobs == 30, "jobs are missing", n);
}

// shares has workers take numbers until there are none: each is taken once.
void shares(Pool& pool) {
  Shares next;
  std::vector<int> taken(5000);
  for (int round = 1; round <= 10; round++) {
    next.reset();
    pool.run([&](int) {
      for (int64_t i = next.take(); i < int64_t(taken.size()); i = next.take()) taken[i]++;
    });
    for (const int n : taken) check(n == round, "a share was not taken once", pool.threads());
  }
}

// helped shares work out among those who come, between jobs that all take part in: each
// share is taken once, and the caller sees what helpers wrote.
void helped(Pool& pool) {
  const int n = pool.threads();
  for (int job = 0; job < 300; job++) {
    Shares next;
    std::vector<int> taken(job % 40);
    std::vector<char> here(n);
    pool.help([&](int worker) {
      here[worker] = 1;
      for (int64_t i = next.take(); i < int64_t(taken.size()); i = next.take()) taken[i]++;
    });
    for (const int t : taken) check(t == 1, "a share of helpers was not taken once", n);
    check(here[0] == 1, "the caller did not take part", n);
    if (job % 7 == 0) {
      std::vector<int> all(n);
      pool.run([&](int worker) { all[worker]++; });
      for (const int a : all) check(a == 1, "a worker missed a job after it helped", n);
    }
    if (job % 11 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

}  // namespace

int main() {
  check(usable_cpus() >= 1, "no CPU to use", 0);
  for (const int threads : {1, 2, 3, 8}) {
    for (int again = 0; again < 5; again++) Pool idle(threads);  // ends before it had a job
    Pool pool(threads);
    stages(pool);
    shares(pool);
    helped(pool);
    for (int again = 0; again < 20; again++) Pool(threads).help([](int) {});  // ends while workers wake up
    const Mapping memory(1 << 20);
    touch(pool, memory);
    check(memory.data()[memory.bytes() - 1] == 0, "touch changed memory", threads);
  }
}
