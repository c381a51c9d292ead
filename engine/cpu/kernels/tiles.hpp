// AMX's registers, eight of up to 16 rows of 64 bytes, on the processor and in C++ for tests: a
// machine without AMX tests all but the instructions themselves. Each has, as static functions,
//
//   configure(shapes)                 sets the shapes of the registers, and all to zeros
//   release()                         ends that: a thread that leaves them in use costs the
//                                     system 8 KiB of state at each switch, and the core power
//   zero<R>()                         sets register R to zeros
//   load<R>(p, stride), store<R>(p, stride)
//                                     a register from, or to, rows that are stride bytes apart
//   dot<C, A, B>()                    C[m][n] += A[m][k] * B[k][n] for all k, each the sum of four
//                                     products: the bytes of A have a sign, those of B do not

namespace millrace {
namespace MR_ISA {

constexpr int kTileRegisters = 8, kRegisterRows = 16, kRegisterBytes = 64;

// The shapes of the registers, as LDTILECFG reads them.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void set(int r, int n, int bytes) {
    rows[r] = uint8_t(n);
    row_bytes[r] = uint16_t(bytes);
  }
};
static_assert(sizeof(TileShapes) == 64);

#if defined(__x86_64__)
// In assembly, as GCC 12's intrinsics take no template parameters for registers, and do not say
// that they read memory.
struct ProcessorTiles {
  MR_INLINE void configure(const TileShapes& shapes) { asm volatile("ldtilecfg %0" : : "m"(shapes)); }
  MR_INLINE void release() { asm volatile("tilerelease"); }
  template <int R>
  MR_INLINE void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(R));
  }
  template <int R>
  MR_INLINE void load(const void* p, size_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(R), "r"(p), "r"(stride) : "memory");
  }
  template <int R>
  MR_INLINE void store(void* p, size_t stride) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(R), "r"(p), "r"(stride) : "memory");
  }
  template <int C, int A, int B>
  MR_INLINE void dot() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
};
#endif

// What Intel's manual says of the same instructions. What the processor refuses ends the process.
struct EmulatedTiles {
  struct Register {
    int rows, row_bytes;
    uint8_t row[kRegisterRows][kRegisterBytes];
  };
  struct State {
    bool configured;
    Register registers[kTileRegisters];
  };
  static State& state() {
    static thread_local State s;
    return s;
  }
  static void check(bool valid) {
    if (!valid) __builtin_trap();
  }
  static Register& at(int r) {
    check(state().configured && state().registers[r].rows != 0);
    return state().registers[r];
  }

  static void configure(const TileShapes& shapes) {
    check(shapes.palette == 1 && shapes.start_row == 0);
    for (const uint8_t b : shapes.reserved) check(b == 0);
    state() = {};
    state().configured = true;
    for (int r = 0; r < 16; r++) {
      const int rows = shapes.rows[r], bytes = shapes.row_bytes[r];
      check(rows <= kRegisterRows && bytes <= kRegisterBytes && (rows == 0) == (bytes == 0));
      if (r >= kTileRegisters) {
        check(rows == 0);
        continue;
      }
      state().registers[r].rows = rows;
      state().registers[r].row_bytes = bytes;
    }
  }
  static void release() { state() = {}; }
  template <int R>
  static void zero() {
    Register& r = at(R);
    r = {r.rows, r.row_bytes, {}};
  }
  template <int R>
  static void load(const void* p, size_t stride) {
    zero<R>();
    Register& r = at(R);
    for (int m = 0; m < r.rows; m++) __builtin_memcpy(r.row[m], static_cast<const char*>(p) + m * stride, r.row_bytes);
  }
  template <int R>
  static void store(void* p, size_t stride) {
    const Register& r = at(R);
    for (int m = 0; m < r.rows; m++) __builtin_memcpy(static_cast<char*>(p) + m * stride, r.row[m], r.row_bytes);
  }
  template <int C, int A, int B>
  static void dot() {
    static_assert(C != A && C != B && A != B);
    Register& c = at(C);
    const Register &a = at(A), &b = at(B);
    check(c.rows == a.rows && c.row_bytes == b.row_bytes && a.row_bytes == 4 * b.rows && c.row_bytes % 4 == 0);
    for (int m = 0; m < c.rows; m++) {
      uint32_t sums[kRegisterBytes / 4];  // without sign: they wrap around
      __builtin_memcpy(sums, c.row[m], sizeof sums);
      for (int k = 0; k < b.rows; k++)
        for (int n = 0; n < c.row_bytes / 4; n++)
          for (int i = 0; i < 4; i++)
            sums[n] += uint32_t(int32_t(int8_t(a.row[m][4 * k + i])) * int32_t(b.row[k][4 * n + i]));
      __builtin_memcpy(c.row[m], sums, sizeof sums);
    }
  }
};

}  // namespace MR_ISA
}  // namespace millrace
