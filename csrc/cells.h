// Which cell owns a pixel: the one formula that every kernel uses, here and in torch_bgdebias/ops/plain.py.
//
// Squared distances are fl(fl(dy dy) + fl(dx dx)) in float64, compared with a strict "<" in the order of the cells, so
// that ties go to the lowest index; NaN is never smaller. Built without contraction into fused multiply-adds.
//
// Kernels do not evaluate it at every pixel. For one row, the exact d_j - d_i is linear in x. If cell i is the nearest at
// both ends of a run of pixels by more than rounding can make up, it is so in between, and evaluating the formula there
// would give i as well. How much rounding can make up: a computed d differs from the exact one by at most 4.1 u d
// (u = 2^-53: two roundings in the difference and its square, one in the sum), hence d_j - d_i by 4.1 u (d_i + d_j); and d is
// convex along the row, so within a run of width w it is at most 2 d + 2 w^2 of its value at either end. Asked for is
// 2^-44 (d + slack), d of either cell and slack >= 2 w^2, hundreds of times that. Runs that are not certain are evaluated pixel by
// pixel. The same holds for distances computed in float32, whose error is below 2^-20 (d + extent^2), and a margin of
// 2^-18: what is certain there is certain in float64.
#pragma once

#include <cstdint>
#include <limits>

#if defined(__CUDACC__)
#define BGDEBIAS_INLINE __host__ __device__ __forceinline__
#else
#define BGDEBIAS_INLINE inline __attribute__((always_inline))
#endif

namespace bgdebias {

template <typename real>
struct Nearest {
  int64_t cell = 0;
  real best = std::numeric_limits<real>::infinity();
  real second = std::numeric_limits<real>::infinity();

  BGDEBIAS_INLINE void offer(int64_t candidate, real distance) {
    const bool closer = distance < best;
    const real runner_up = closer ? best : distance;
    second = runner_up < second ? runner_up : second;
    cell = closer ? candidate : cell;
    best = closer ? distance : best;
  }

  // Whether no other cell comes within rounding of this one, see above. False where no site is finite.
  BGDEBIAS_INLINE bool certain(real slack) const {
    constexpr real margin = sizeof(real) == 8 ? real(0x1p-44) : real(0x1p-18);
    return second - second * margin > best + slack * margin;
  }
};

BGDEBIAS_INLINE int64_t wrap(int64_t value, int64_t size) {
  const int64_t rest = value % size;
  return rest < 0 ? rest + size : rest;
}

} // namespace bgdebias
