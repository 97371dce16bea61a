// The CUDA kernel's place in the dispatcher: device guard, current stream, launch check.
#include <cuda_runtime.h>

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include "../binding.h"

namespace bgdebias {
namespace {

void check_device(const Tensor& tensor, const char* name, const Tensor& foreground) {
  STD_TORCH_CHECK(
      tensor.is_cuda() && tensor.get_device_index() == foreground.get_device_index(), name,
      ": expected on the foreground's device");
}

Tensor voronoi_composite_on_device(
    const Tensor& foreground, const Tensor& mask, const Tensor& bank, const Tensor& sites, const Tensor& index,
    const Tensor& offset, const std::optional<Tensor>& mean, const std::optional<Tensor>& std) {
  check_device(mask, "mask", foreground);
  check_device(bank, "bank", foreground);
  check_device(sites, "sites", foreground);
  check_device(index, "index", foreground);
  check_device(offset, "offset", foreground);
  if (mean.has_value() && std.has_value()) {
    check_device(*mean, "mean", foreground);
    check_device(*std, "std", foreground);
  }
  const auto device = foreground.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const Composite composite(foreground, mask, bank, sites, index, offset, mean, std);
  void* stream = nullptr;
  // torch's own macro for this has another name in every other version
  STD_TORCH_CHECK(
      aoti_torch_get_current_cuda_stream(device, &stream) == AOTI_TORCH_SUCCESS, "the current CUDA stream is not known");
  STD_CUDA_CHECK(static_cast<cudaError_t>(voronoi_composite_cuda(composite.arguments, stream)));
  return composite.out;
}

} // namespace
} // namespace bgdebias

STABLE_TORCH_LIBRARY_IMPL(torch_bgdebias, CUDA, m) {
  m.impl("voronoi_composite", TORCH_BOX(&bgdebias::voronoi_composite_on_device));
}
