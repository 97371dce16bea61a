#include "voronoi_composite_kernel.h"

#include <torch/csrc/stable/library.h>

#include "../binding.h"

namespace bgdebias {
namespace {

// Rows below which starting another thread costs more than it brings, in pixels of all channels.
constexpr int64_t kPixelsPerThread = 16384;

Tensor voronoi_composite_cpu(
    const Tensor& foreground, const Tensor& mask, const Tensor& bank, const Tensor& sites, const Tensor& index,
    const Tensor& offset, const std::optional<Tensor>& mean, const std::optional<Tensor>& std) {
  const Composite composite(foreground, mask, bank, sites, index, offset, mean, std);
  const CompositeArguments& a = composite.arguments;
  for (int64_t i = 0; i < a.batch * a.cells; ++i) {
    STD_TORCH_CHECK(
        a.index[i] >= 0 && a.index[i] < a.images, "index: expected images of the bank in [0, ", a.images - 1, "], got ",
        a.index[i]);
  }
  const int64_t row_pixels = a.channels * a.width;
  const cpu::RowsKernel rows = cpu::rows_kernel(a);
  if (a.batch * a.height * row_pixels > 0) {
    const int64_t grain = std::max<int64_t>(1, kPixelsPerThread / row_pixels);
    torch::stable::parallel_for(
        0, a.batch * a.height, grain, [&](int64_t begin, int64_t end) { rows(a, begin, end); });
  }
  return composite.out;
}

} // namespace
} // namespace bgdebias

STABLE_TORCH_LIBRARY_IMPL(torch_bgdebias, CPU, m) {
  m.impl("voronoi_composite", TORCH_BOX(&bgdebias::voronoi_composite_cpu));
}
