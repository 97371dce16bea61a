// The CPU kernel, free of torch but for its header-only half types. Rows are independent: `composite_rows` does a range of
// them (of batch * height), whoever calls it spreads the range over threads.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "../cells.h"
#include "../voronoi_composite.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define BGDEBIAS_AVX2 1
#endif

namespace bgdebias::cpu {

struct Run {
  int64_t end; // first column after the run
  int64_t cell;
};

// The sites of one image, and of one row of it.
struct Sites {
  std::vector<double> y, x, dyy, weight;
  std::vector<int64_t> image, offset_y, offset_x;

  explicit Sites(int64_t cells)
      : y(cells), x(cells), dyy(cells), weight(cells), image(cells), offset_y(cells), offset_x(cells) {}
};

BGDEBIAS_INLINE void load_sites(Sites& sites, const CompositeArguments& a, int64_t b) {
  for (int64_t k = 0; k < a.cells; ++k) {
    const double y = a.sites[(b * a.cells + k) * 2], x = a.sites[(b * a.cells + k) * 2 + 1];
    const bool finite = std::isfinite(y) && std::isfinite(x);
    sites.y[k] = finite ? y : std::numeric_limits<double>::infinity(); // distance infinity: owns no pixel
    sites.x[k] = finite ? x : std::numeric_limits<double>::infinity();
    sites.image[k] = a.index[b * a.cells + k];
    sites.offset_y[k] = wrap(a.offset[(b * a.cells + k) * 2], a.bank_height);
    sites.offset_x[k] = wrap(a.offset[(b * a.cells + k) * 2 + 1], a.bank_width);
  }
}

BGDEBIAS_INLINE Nearest<double> nearest_at(const Sites& sites, int64_t cells, int64_t column) {
  Nearest<double> nearest;
  const double centre = static_cast<double>(column) + 0.5;
  const double* x = sites.x.data();
  const double* dyy = sites.dyy.data();
  for (int64_t k = 0; k < cells; ++k) {
    const double dx = centre - x[k];
    nearest.offer(k, dyy[k] + dx * dx);
  }
  return nearest;
}

// Last column at which `cell` is expected to be the nearest, never before `column`: a guess, to be verified.
BGDEBIAS_INLINE int64_t expected_end(const Sites& sites, int64_t cells, int64_t cell, int64_t column, int64_t width) {
  const double x = sites.x[cell], weight = sites.weight[cell];
  double crossing = static_cast<double>(width);
  for (int64_t k = 0; k < cells; ++k) {
    const double ahead = sites.x[k] - x;
    const double at = (sites.weight[k] - weight) / (2.0 * ahead);
    crossing = ahead > 0.0 && at < crossing ? at : crossing; // NaN compares false
  }
  const double last = crossing - 0.5;
  if (!(last > static_cast<double>(column))) {
    return column;
  }
  return std::min(width - 1, static_cast<int64_t>(last));
}

// The runs of one row, left to right.
BGDEBIAS_INLINE void row_runs(Sites& sites, int64_t cells, int64_t row, int64_t width, std::vector<Run>& runs) {
  const double centre = static_cast<double>(row) + 0.5;
  for (int64_t k = 0; k < cells; ++k) {
    const double dy = centre - sites.y[k];
    sites.dyy[k] = dy * dy;
    sites.weight[k] = sites.dyy[k] + sites.x[k] * sites.x[k];
  }
  const double slack = 2.0 * static_cast<double>(width) * static_cast<double>(width);
  runs.clear();
  for (int64_t column = 0; column < width;) {
    const Nearest<double> here = nearest_at(sites, cells, column);
    int64_t last = column;
    if (cells == 1) {
      last = width - 1;
    } else if (here.certain(slack)) {
      const int64_t end = expected_end(sites, cells, here.cell, column, width);
      for (int64_t guess = end; guess > column && guess > end - 3; --guess) {
        const Nearest<double> there = nearest_at(sites, cells, guess);
        if (there.cell == here.cell && there.certain(slack)) {
          last = guess;
          break;
        }
      }
    }
    if (!runs.empty() && runs.back().cell == here.cell) {
      runs.back().end = last + 1;
    } else {
      runs.push_back({last + 1, here.cell});
    }
    column = last + 1;
  }
}

// Fixed separate roundings, in the order of the plain torch kernel.
template <typename real, typename image_t, typename bank_t, bool normalise>
BGDEBIAS_INLINE void blend(
    image_t* __restrict out,
    const image_t* __restrict foreground,
    const image_t* __restrict mask,
    const bank_t* __restrict bank,
    int64_t bank_step,
    int64_t count,
    real mean,
    real std) {
  const auto one = [&](int64_t i, bank_t raw) __attribute__((always_inline)) {
    real pixel = static_cast<real>(raw);
    if constexpr (std::is_same_v<bank_t, uint8_t>) {
      pixel = pixel / real(255);
    }
    if constexpr (normalise) {
      pixel = (pixel - mean) / std;
    }
    const real alpha = static_cast<real>(mask[i]);
    const real kept = alpha * static_cast<real>(foreground[i]);
    const real filled = (real(1) - alpha) * pixel;
    out[i] = static_cast<image_t>(kept + filled);
  };
  if (bank_step == 1) {
    for (int64_t i = 0; i < count; ++i) {
      one(i, bank[i]);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      one(i, bank[i * bank_step]);
    }
  }
}

template <typename real, typename image_t, typename bank_t, bool normalise>
BGDEBIAS_INLINE void composite_row(
    const CompositeArguments& a, const Sites& sites, const std::vector<Run>& runs, int64_t b, int64_t row, int64_t channel) {
  const auto* foreground = static_cast<const image_t*>(a.foreground) + b * a.foreground_stride[0] +
      channel * a.foreground_stride[1] + row * a.foreground_stride[2];
  const auto* mask = static_cast<const image_t*>(a.mask) + b * a.mask_stride[0] + row * a.mask_stride[1];
  auto* out = static_cast<image_t*>(a.out) + ((b * a.channels + channel) * a.height + row) * a.width;
  const real mean = normalise ? static_cast<const real*>(a.mean)[channel] : real(0);
  const real std = normalise ? static_cast<const real*>(a.std)[channel] : real(1);
  int64_t column = 0;
  for (const Run& run : runs) {
    const int64_t bank_row = (row % a.bank_height + sites.offset_y[run.cell]) % a.bank_height;
    const auto* bank = static_cast<const bank_t*>(a.bank) + sites.image[run.cell] * a.bank_stride[0] +
        channel * a.bank_stride[1] + bank_row * a.bank_stride[2];
    int64_t bank_column = (column % a.bank_width + sites.offset_x[run.cell]) % a.bank_width;
    while (column < run.end) { // once, and once more for every wrap
      const int64_t count = std::min(run.end - column, a.bank_width - bank_column);
      blend<real, image_t, bank_t, normalise>(
          out + column, foreground + column, mask + column, bank + bank_column * a.bank_stride[3], a.bank_stride[3], count,
          mean, std);
      column += count;
      bank_column = 0;
    }
  }
}

template <typename image_t, typename bank_t, bool normalise>
BGDEBIAS_INLINE void composite_rows_inline(const CompositeArguments& a, int64_t begin, int64_t end) {
  using real = std::conditional_t<std::is_same_v<image_t, double>, double, float>;
  Sites sites(a.cells);
  std::vector<Run> runs;
  int64_t loaded = -1;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t b = i / a.height, row = i % a.height;
    if (b != loaded) {
      load_sites(sites, a, b);
      loaded = b;
    }
    row_runs(sites, a.cells, row, a.width, runs);
    for (int64_t channel = 0; channel < a.channels; ++channel) {
      composite_row<real, image_t, bank_t, normalise>(a, sites, runs, b, row, channel);
    }
  }
}

using RowsKernel = void (*)(const CompositeArguments&, int64_t, int64_t);

template <typename image_t, typename bank_t, bool normalise>
void composite_rows_baseline(const CompositeArguments& a, int64_t begin, int64_t end) {
  composite_rows_inline<image_t, bank_t, normalise>(a, begin, end);
}

#if defined(BGDEBIAS_AVX2)
// The same code for wider registers, chosen at run time, so that a library built here runs on older machines. No "fma".
template <typename image_t, typename bank_t, bool normalise>
__attribute__((target("avx2"))) void composite_rows_avx2(const CompositeArguments& a, int64_t begin, int64_t end) {
  composite_rows_inline<image_t, bank_t, normalise>(a, begin, end);
}
#endif

template <typename image_t, typename bank_t>
RowsKernel kernel_for_machine(bool normalise) {
#if defined(BGDEBIAS_AVX2)
  if (__builtin_cpu_supports("avx2")) {
    return normalise ? composite_rows_avx2<image_t, bank_t, true> : composite_rows_avx2<image_t, bank_t, false>;
  }
#endif
  return normalise ? composite_rows_baseline<image_t, bank_t, true> : composite_rows_baseline<image_t, bank_t, false>;
}

template <typename image_t>
RowsKernel kernel_for_bank(Dtype bank, bool normalise) {
  switch (bank) {
    case Dtype::uint8:
      return kernel_for_machine<image_t, uint8_t>(normalise);
    case Dtype::float16:
      return kernel_for_machine<image_t, torch::headeronly::Half>(normalise);
    case Dtype::bfloat16:
      return kernel_for_machine<image_t, torch::headeronly::BFloat16>(normalise);
    case Dtype::float32:
      return kernel_for_machine<image_t, float>(normalise);
    case Dtype::float64:
      return kernel_for_machine<image_t, double>(normalise);
  }
  return nullptr;
}

inline RowsKernel rows_kernel(const CompositeArguments& a) {
  const bool normalise = a.mean != nullptr;
  switch (a.dtype) {
    case Dtype::float16:
      return kernel_for_bank<torch::headeronly::Half>(a.bank_dtype, normalise);
    case Dtype::bfloat16:
      return kernel_for_bank<torch::headeronly::BFloat16>(a.bank_dtype, normalise);
    case Dtype::float32:
      return kernel_for_bank<float>(a.bank_dtype, normalise);
    case Dtype::float64:
      return kernel_for_bank<double>(a.bank_dtype, normalise);
    case Dtype::uint8:
      break;
  }
  return nullptr;
}

} // namespace bgdebias::cpu
