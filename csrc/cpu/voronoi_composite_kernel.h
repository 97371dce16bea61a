// The CPU kernel, free of torch but for its header-only half types. Rows are independent: `composite_rows` does a range of
// them (of batch * height), whoever calls it spreads the range over threads.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstring>
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
  int64_t bank_row = 0; // where its pixels begin in the bank: elements to the row, in the first channel
  int64_t bank_column = 0;
};

using Four = double __attribute__((vector_size(32)));
using FourIndices = int64_t __attribute__((vector_size(32)));

// The sites of one image, and of one row of it, filled up to a multiple of four with sites that are infinitely far away.
struct Sites {
  std::vector<double> y, x, dyy, weight;
  std::vector<int64_t> image, offset_y, offset_x;

  explicit Sites(int64_t cells)
      : y((cells + 3) / 4 * 4, std::numeric_limits<double>::infinity()),
        x(y),
        dyy(y),
        weight(y),
        image(cells),
        offset_y(cells),
        offset_x(cells) {}
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

// Four cells at a time, in four running minima that are merged at the end; ties go to the lowest index there too.
BGDEBIAS_INLINE int64_t nearest_at(const Sites& sites, int64_t column) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const double centre = static_cast<double>(column) + 0.5;
  Four best = {infinity, infinity, infinity, infinity}, x, dyy;
  FourIndices cell = {0, 1, 2, 3}, index = cell;
  for (size_t k = 0; k < sites.x.size(); k += 4) {
    std::memcpy(&x, &sites.x[k], sizeof x);
    std::memcpy(&dyy, &sites.dyy[k], sizeof dyy);
    const Four dx = centre - x, distance = dyy + dx * dx;
    const FourIndices closer = distance < best;
    cell = closer ? index : cell;
    best = closer ? distance : best;
    index += 4;
  }
  int64_t nearest = 0;
  double smallest = infinity;
  for (int lane = 0; lane < 4; ++lane) {
    const bool closer = best[lane] < smallest || (best[lane] == smallest && cell[lane] < nearest);
    nearest = closer ? cell[lane] : nearest;
    smallest = closer ? best[lane] : smallest;
  }
  return nearest;
}

// Last column at which `cell` is expected to be the nearest, never before `column`: a guess, to be verified.
BGDEBIAS_INLINE int64_t expected_end(const Sites& sites, int64_t cell, int64_t column, int64_t width) {
  const double limit = static_cast<double>(width);
  const double x = sites.x[cell], weight = sites.weight[cell];
  Four crossing = {limit, limit, limit, limit}, other_x, other_weight;
  for (size_t k = 0; k < sites.x.size(); k += 4) {
    std::memcpy(&other_x, &sites.x[k], sizeof other_x);
    std::memcpy(&other_weight, &sites.weight[k], sizeof other_weight);
    const Four ahead = other_x - x;
    const Four at = (other_weight - weight) / (2.0 * ahead);
    crossing = ((ahead > 0.0) & (at < crossing)) ? at : crossing; // NaN compares false
  }
  const double last = std::min(std::min(crossing[0], crossing[1]), std::min(crossing[2], crossing[3])) - 0.5;
  if (!(last > static_cast<double>(column))) {
    return column;
  }
  return std::min(width - 1, static_cast<int64_t>(last));
}

// Count, in four lanes, the cells that are not farther from `column` than `cell` by more than rounding can make up: one, the
// cell itself, where it certainly owns the pixel (cells.h), and never none.
BGDEBIAS_INLINE void count_rivals(const Sites& sites, int64_t cell, int64_t column, double slack, FourIndices& rivals) {
  const double centre = static_cast<double>(column) + 0.5;
  const double own_dx = centre - sites.x[cell], own = sites.dyy[cell] + own_dx * own_dx;
  const double limit = own + (own + slack) * 0x1p-43;
  Four x, dyy;
  for (size_t k = 0; k < sites.x.size(); k += 4) {
    std::memcpy(&x, &sites.x[k], sizeof x);
    std::memcpy(&dyy, &sites.dyy[k], sizeof dyy);
    const Four dx = centre - x, distance = dyy + dx * dx;
    rivals += 1 + (distance > limit); // true is -1
  }
}

BGDEBIAS_INLINE int64_t sum(const FourIndices& lanes) {
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

// Most rows are cut by the same cells as the row above, at shifted borders: cheaper to verify than to find. Returns false,
// with `runs` unusable, where that is not so.
BGDEBIAS_INLINE bool runs_like(
    const std::vector<Run>& above, const Sites& sites, int64_t width, double slack, std::vector<Run>& runs) {
  runs.clear();
  int64_t column = 0;
  for (size_t r = 0; r < above.size(); ++r) {
    const int64_t cell = above[r].cell;
    int64_t end = width;
    if (r + 1 < above.size()) {
      const int64_t next = above[r + 1].cell;
      const double border = (sites.weight[next] - sites.weight[cell]) / (2.0 * (sites.x[next] - sites.x[cell])) + 0.5;
      if (!(border > static_cast<double>(column) && border < static_cast<double>(width))) {
        return false;
      }
      end = static_cast<int64_t>(border);
      if (end == column) {
        return false;
      }
    }
    runs.push_back({end, cell});
    column = end;
  }
  // Every end of every run counts its own cell at least: as many as there are ends, and no end has a rival.
  FourIndices rivals = {0, 0, 0, 0};
  column = 0;
  for (const Run& run : runs) {
    count_rivals(sites, run.cell, column, slack, rivals);
    count_rivals(sites, run.cell, run.end - 1, slack, rivals);
    column = run.end;
  }
  return !runs.empty() && sum(rivals) == 2 * static_cast<int64_t>(runs.size());
}

// The runs of one row, left to right; `above` are those of the row above, or empty.
BGDEBIAS_INLINE void row_runs_inline(
    Sites& sites, int64_t cells, int64_t row, int64_t width, const std::vector<Run>& above, std::vector<Run>& runs) {
  const double centre = static_cast<double>(row) + 0.5;
  for (int64_t k = 0; k < cells; ++k) {
    const double dy = centre - sites.y[k];
    sites.dyy[k] = dy * dy;
    sites.weight[k] = sites.dyy[k] + sites.x[k] * sites.x[k];
  }
  if (cells == 1) {
    runs.assign(1, Run{width, 0});
    return;
  }
  const double slack = 2.0 * static_cast<double>(width) * static_cast<double>(width);
  if (runs_like(above, sites, width, slack, runs)) {
    return;
  }
  runs.clear();
  for (int64_t column = 0; column < width;) {
    const int64_t cell = nearest_at(sites, column);
    int64_t last = column;
    const int64_t end = expected_end(sites, cell, column, width);
    for (int64_t guess = end; guess > column && guess > end - 3; --guess) {
      FourIndices rivals = {0, 0, 0, 0};
      count_rivals(sites, cell, column, slack, rivals);
      count_rivals(sites, cell, guess, slack, rivals);
      if (sum(rivals) == 2) {
        last = guess;
        break;
      }
    }
    if (!runs.empty() && runs.back().cell == cell) {
      runs.back().end = last + 1;
    } else {
      runs.push_back({last + 1, cell});
    }
    column = last + 1;
  }
}

// Apart from the kernels, which are compiled for every pair of dtypes, and this once for every instruction set.
using RowRuns = void (*)(Sites&, int64_t, int64_t, int64_t, const std::vector<Run>&, std::vector<Run>&);

inline void row_runs_baseline(
    Sites& sites, int64_t cells, int64_t row, int64_t width, const std::vector<Run>& above, std::vector<Run>& runs) {
  row_runs_inline(sites, cells, row, width, above, runs);
}

#if defined(BGDEBIAS_AVX2)
__attribute__((target("avx2"))) inline void row_runs_avx2(
    Sites& sites, int64_t cells, int64_t row, int64_t width, const std::vector<Run>& above, std::vector<Run>& runs) {
  row_runs_inline(sites, cells, row, width, above, runs);
}
#endif

// Where the pixels of every run begin in the bank: once for all channels, divisions are slow.
BGDEBIAS_INLINE void locate(const CompositeArguments& a, const Sites& sites, int64_t row, std::vector<Run>& runs) {
  const int64_t row_in_bank = row % a.bank_height;
  int64_t column = 0;
  for (Run& run : runs) {
    const int64_t y = row_in_bank + sites.offset_y[run.cell];
    const int64_t x = (column < a.bank_width ? column : column % a.bank_width) + sites.offset_x[run.cell];
    run.bank_row = sites.image[run.cell] * a.bank_stride[0] + (y < a.bank_height ? y : y - a.bank_height) * a.bank_stride[2];
    run.bank_column = x < a.bank_width ? x : x - a.bank_width;
    column = run.end;
  }
}

// Ask for the bank pixels of a row ahead of time. Runs are too short for the hardware to see a stream in them: without this
// every run of every channel waits for memory, and the whole kernel takes twice as long.
template <typename bank_t>
BGDEBIAS_INLINE void prefetch_row(
    const CompositeArguments& a, const std::vector<Run>& runs) {
  constexpr int64_t line = 64;
  int64_t column = 0;
  for (const Run& run : runs) {
    const int64_t first = run.bank_column;
    const int64_t bytes = std::min(run.end - column, a.bank_width - first) * a.bank_stride[3] *
        static_cast<int64_t>(sizeof(bank_t)); // up to the wrap
    for (int64_t channel = 0; channel < a.channels; ++channel) {
      const auto* pixels = reinterpret_cast<const char*>(
          static_cast<const bank_t*>(a.bank) + run.bank_row + channel * a.bank_stride[1] + first * a.bank_stride[3]);
      for (int64_t byte = 0; byte < bytes; byte += line) {
        __builtin_prefetch(pixels + byte);
      }
      __builtin_prefetch(pixels + bytes - 1);
    }
    column = run.end;
  }
}

// memcpy for the lengths of runs: pieces of 32 or 8 bytes, the last one laid over the end of the one before. A call for each costs
// more than the copying.
BGDEBIAS_INLINE void copy_bytes(void* to_, const void* from_, size_t bytes) {
  constexpr size_t piece = 32;
  auto* to = static_cast<char*>(to_);
  const auto* from = static_cast<const char*>(from_);
  if (bytes >= piece) {
    for (size_t i = 0; i + piece < bytes; i += piece) {
      __builtin_memcpy(to + i, from + i, piece);
    }
    __builtin_memcpy(to + bytes - piece, from + bytes - piece, piece);
    return;
  }
  if (bytes >= 8) {
    for (size_t i = 0; i + 8 < bytes; i += 8) {
      __builtin_memcpy(to + i, from + i, 8);
    }
    __builtin_memcpy(to + bytes - 8, from + bytes - 8, 8);
    return;
  }
  for (size_t i = 0; i < bytes; ++i) {
    to[i] = from[i];
  }
}

// Copy the bank pixels of a row of one channel side by side, so that blending has one loop without borders in it.
template <typename bank_t>
BGDEBIAS_INLINE void gather_row(
    const CompositeArguments& a, const std::vector<Run>& runs, int64_t channel, bank_t* out) {
  const int64_t step = a.bank_stride[3];
  int64_t column = 0;
  for (const Run& run : runs) {
    const auto* bank = static_cast<const bank_t*>(a.bank) + run.bank_row + channel * a.bank_stride[1];
    int64_t bank_column = run.bank_column;
    while (column < run.end) { // once, and once more for every wrap
      const int64_t count = std::min(run.end - column, a.bank_width - bank_column);
      const bank_t* from = bank + bank_column * step;
      if (step == 1) {
        copy_bytes(out + column, from, static_cast<size_t>(count) * sizeof(bank_t));
      } else {
        for (int64_t i = 0; i < count; ++i) {
          out[column + i] = from[i * step];
        }
      }
      column += count;
      bank_column = 0;
    }
  }
}

// value / 255, correctly rounded, without the division: value * 257 / 65536 is exact, and value / 255 is larger than that by
// its 65535th part, so that only the last addition rounds noticeably. `unit_is_exact` has tried every value.
template <typename real>
constexpr real unit(uint8_t value) {
  const real most = static_cast<real>(value) * (real(257) / real(65536));
  return most + most * (real(1) / real(65535));
}

template <typename real>
constexpr bool unit_is_exact() {
  for (int value = 0; value < 256; ++value) {
    if (unit<real>(static_cast<uint8_t>(value)) != static_cast<real>(value) / real(255)) {
      return false;
    }
  }
  return true;
}
static_assert(unit_is_exact<float>() && unit_is_exact<double>());

// Fixed separate roundings, in the order of the plain torch kernel.
template <typename real, typename image_t, typename bank_t, bool normalise>
BGDEBIAS_INLINE void blend_row(
    image_t* __restrict out,
    const image_t* __restrict foreground,
    const image_t* __restrict mask,
    const bank_t* __restrict bank,
    int64_t width,
    real mean,
    real std) {
  for (int64_t i = 0; i < width; ++i) {
    real pixel = static_cast<real>(bank[i]);
    if constexpr (std::is_same_v<bank_t, uint8_t>) {
      pixel = unit<real>(bank[i]);
    }
    if constexpr (normalise) {
      pixel = (pixel - mean) / std;
    }
    const real alpha = static_cast<real>(mask[i]);
    const real kept = alpha * static_cast<real>(foreground[i]);
    const real filled = (real(1) - alpha) * pixel;
    out[i] = static_cast<image_t>(kept + filled);
  }
}

template <typename real, typename image_t, typename bank_t, bool normalise>
BGDEBIAS_INLINE void composite_row(
    const CompositeArguments& a, const bank_t* background, int64_t b, int64_t row, int64_t channel) {
  const auto* foreground = static_cast<const image_t*>(a.foreground) + b * a.foreground_stride[0] +
      channel * a.foreground_stride[1] + row * a.foreground_stride[2];
  const auto* mask = static_cast<const image_t*>(a.mask) + b * a.mask_stride[0] + row * a.mask_stride[1];
  auto* out = static_cast<image_t*>(a.out) + ((b * a.channels + channel) * a.height + row) * a.width;
  const real mean = normalise ? static_cast<const real*>(a.mean)[channel] : real(0);
  const real std = normalise ? static_cast<const real*>(a.std)[channel] : real(1);
  blend_row<real, image_t, bank_t, normalise>(out, foreground, mask, background, a.width, mean, std);
}

template <typename image_t, typename bank_t, bool normalise>
BGDEBIAS_INLINE void composite_rows_inline(
    const CompositeArguments& a, int64_t begin, int64_t end, RowRuns row_runs) {
  using real = std::conditional_t<std::is_same_v<image_t, double>, double, float>;
  Sites sites(a.cells);
  const std::vector<Run> none;
  std::vector<Run> runs, next;
  std::vector<bank_t> background(static_cast<size_t>(a.width));
  int64_t loaded = -1;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t b = i / a.height, row = i % a.height;
    if (b != loaded) {
      load_sites(sites, a, b);
      loaded = b;
      row_runs(sites, a.cells, row, a.width, none, runs);
      locate(a, sites, row, runs);
    } else {
      runs.swap(next);
    }
    if (row + 1 < a.height && i + 1 < end) {
      row_runs(sites, a.cells, row + 1, a.width, runs, next);
      locate(a, sites, row + 1, next);
      prefetch_row<bank_t>(a, next);
    }
    for (int64_t channel = 0; channel < a.channels; ++channel) {
      gather_row<bank_t>(a, runs, channel, background.data());
      composite_row<real, image_t, bank_t, normalise>(a, background.data(), b, row, channel);
    }
  }
}

using RowsKernel = void (*)(const CompositeArguments&, int64_t, int64_t);

template <typename image_t, typename bank_t, bool normalise>
void composite_rows_baseline(const CompositeArguments& a, int64_t begin, int64_t end) {
  composite_rows_inline<image_t, bank_t, normalise>(a, begin, end, row_runs_baseline);
}

#if defined(BGDEBIAS_AVX2)
// The same code for wider registers, chosen at run time, so that a library built here runs on older machines. No "fma".
template <typename image_t, typename bank_t, bool normalise>
__attribute__((target("avx2"))) void composite_rows_avx2(const CompositeArguments& a, int64_t begin, int64_t end) {
  composite_rows_inline<image_t, bank_t, normalise>(a, begin, end, row_runs_avx2);
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
