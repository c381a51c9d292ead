// Devices that share a model.
#ifndef MILLRACE_CUDA_GROUP_H
#define MILLRACE_CUDA_GROUP_H

#include <memory>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace millrace {

// Group is what several devices of this process know of each other. Each has a context of
// its own; their plans are the shards of one (plan.Shard), and meet in MR_OP_ALL_REDUCE.
class Group {
 public:
  // Devices from the one called first on, which are there. Checks that each can read the
  // memory of the others.
  Group(int first, int devices);

  int first() const { return first_; }
  int devices() const { return int(places_.size()); }
  // abandon ends all waiting for other devices, for good: one of them has failed.
  void abandon() { *abandoned() = 1; }

 private:
  friend class Member;
  struct Place {
    float* buffers = nullptr;
    uint32_t* flags = nullptr;
  };
  volatile int* abandoned() const { return reinterpret_cast<volatile int*>(abandoned_.data()); }

  int first_;
  std::vector<Place> places_;  // by device, counted from the first
  Memory abandoned_;
};

// check_count says it if there are fewer devices.
void check_count(int devices);

// Member is a device's place in a group; device counts from the group's first.
class Member {
 public:
  Member(std::shared_ptr<Group> group, int device) : group_(std::move(group)), device_(device) {}

  int devices() const { return group_->devices(); }
  int first_token(int vocab) const { return shard_first(vocab, device_, group_->devices()); }

  // allocate makes room for exchanges of so many floats. All devices do so before the first
  // exchange.
  void allocate(size_t floats, cudaStream_t stream);
  Peers peers() const;

 private:
  std::shared_ptr<Group> group_;
  int device_;
  size_t floats_ = 0;
  Memory memory_;
  uint32_t* exchanges_ = nullptr;
  int* ended_ = nullptr;
};

}  // namespace millrace
#endif
