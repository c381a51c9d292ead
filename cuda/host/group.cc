#include "group.h"

#include "error.h"

namespace millrace {

void check_count(int devices) {
  int count = 0;
  check(cudaGetDeviceCount(&count), "asking for the GPUs");
  if (count < devices)
    fail(MR_UNSUPPORTED, "%d GPUs are asked for, there are %d (CUDA_VISIBLE_DEVICES may hide some)", devices, count);
}

Group::Group(int first, int devices) : first_(first), places_(size_t(devices)) {
  if (devices < 1 || devices > kMostDevices) fail(MR_UNSUPPORTED, "%d GPUs for a model, expected 1 to %d", devices, kMostDevices);
  for (int d = first; d < first + devices; d++) {
    check(cudaSetDevice(d), "opening a GPU");
    for (int peer = first; peer < first + devices; peer++) {
      if (peer == d) continue;
      int can = 0;
      check(cudaDeviceCanAccessPeer(&can, d, peer), "asking for the GPUs");
      if (can == 0)
        fail(MR_UNSUPPORTED, "GPU %d cannot read the memory of GPU %d (`nvidia-smi topo -p2p r` shows which can); one GPU can hold "
             "a smaller or a quantised model", d, peer);
      const cudaError_t error = cudaDeviceEnablePeerAccess(peer, 0);
      if (error == cudaErrorPeerAccessAlreadyEnabled)
        cudaGetLastError();
      else
        check(error, "opening the memory of another GPU");
    }
  }
  check(cudaSetDevice(first), "opening a GPU");
  abandoned_ = Memory(Memory::host, sizeof(int), "a group of GPUs");
  *abandoned() = 0;
}

void Member::allocate(size_t floats, cudaStream_t stream) {
  Group::Place& place = group_->places_[size_t(device_)];
  const auto lay_out = [&](Arena arena) {
    place.flags = arena.take<uint32_t>(kMostDevices);
    exchanges_ = arena.take<uint32_t>(1);
    ended_ = arena.take<int>(1);
    const size_t zeros = arena.used();
    floats_ = (floats + 63) / 64 * 64;
    place.buffers = arena.take<float>(2 * floats_);
    return std::pair(zeros, arena.used());
  };
  memory_ = Memory(Memory::device, lay_out(Arena(nullptr)).second, "exchanges between GPUs");
  const size_t zeros = lay_out(Arena(memory_.data())).first;
  check(cudaMemsetAsync(memory_.data(), 0, zeros, stream), "preparing exchanges between GPUs");
}

Peers Member::peers() const {
  Peers p{};
  p.devices = group_->devices();
  p.device = device_;
  for (int d = 0; d < p.devices; d++) {
    p.buffers[d] = group_->places_[size_t(d)].buffers;
    p.flags[d] = group_->places_[size_t(d)].flags;
  }
  p.floats = floats_;
  p.exchanges = exchanges_;
  p.ended = ended_;
  p.abandoned = reinterpret_cast<const int*>(group_->abandoned_.data());
  return p;
}

}  // namespace millrace
