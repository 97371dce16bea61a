#include "voronoi_composite_kernel.h"

#include <torch/csrc/stable/library.h>

#include "../binding.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace bgdebias {
namespace {

// Rows below which starting another thread costs more than it brings, in pixels of all channels.
constexpr int64_t kPixelsPerThread = 16384;

// A large fresh output comes from the system in pages of 4 KiB, and taking them one by one costs about as much as blending
// into them; in pages of 2 MiB a quarter of it. Where several threads blend, the calling one takes them all before the
// others begin, since it is the one that gives them back: they wait on its core's list of free pages. Other cores would
// take pages that nobody has used yet, call after call, and in a virtual machine each of these costs milliseconds. One
// thread takes each page when it comes to it, while the zeros that the system wrote are still in its cache. Memory that is
// there already, and a system without such pages, lose nothing by one byte written in every 2 MiB.
void take_huge_pages(void* begin, size_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kHuge = uintptr_t(1) << 21;
  const uintptr_t small = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t first = reinterpret_cast<uintptr_t>(begin), end = first + bytes;
  if (bytes < 2 * kHuge) {
    return;
  }
  const uintptr_t page = first & ~(small - 1); // its other bytes belong to the allocator, and advice changes none
  madvise(reinterpret_cast<void*>(page), ((end + small - 1) & ~(small - 1)) - page, MADV_HUGEPAGE);
  if (torch::stable::get_num_threads() == 1) {
    return;
  }
  for (uintptr_t at = first; at < end; at = (at & ~(kHuge - 1)) + kHuge) {
    *reinterpret_cast<volatile char*>(at) = 0;
  }
#else
  (void)begin, (void)bytes;
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
  take_huge_pages(a.out, static_cast<size_t>(composite.out.numel()) * composite.out.element_size());
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
