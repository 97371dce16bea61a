#include "voronoi_composite_kernel.h"

#include <torch/csrc/stable/library.h>

#include "../binding.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace bgdebias {
namespace {

// Rows below which starting another thread costs more than it brings, in pixels of all channels.
constexpr int64_t kPixelsPerThread = 16384;

// A large fresh output comes from the system in pages of 4 KiB, and taking them one by one costs about as much as blending
// into them. In pages of 2 MiB it costs little. Advice only: where there are no such pages, nothing changes.
void ask_for_huge_pages(void* begin, size_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kHuge = uintptr_t(1) << 21;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(begin) + kHuge - 1) & ~(kHuge - 1);
  const uintptr_t last = (reinterpret_cast<uintptr_t>(begin) + bytes) & ~(kHuge - 1);
  if (last > first) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
}

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
  ask_for_huge_pages(a.out, static_cast<size_t>(composite.out.numel()) * composite.out.element_size());
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
