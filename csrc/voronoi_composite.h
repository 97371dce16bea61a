// Arguments of the kernels as plain pointers and strides (in elements): what the bindings fill in from tensors.
#pragma once

#include <cstdint>

namespace bgdebias {

enum class Dtype : int32_t { uint8, float16, bfloat16, float32, float64 };

struct CompositeArguments {
  Dtype dtype; // of foreground, mask and out
  Dtype bank_dtype;
  const void* foreground; // (batch, channels, height, width), width stride 1
  const void* mask; // (batch, 1, height, width), width stride 1
  const void* bank; // (images, channels, bank_height, bank_width), any strides
  void* out; // contiguous
  const double* sites; // (batch, cells, 2), contiguous as the next two
  const int64_t* index; // (batch, cells)
  const int64_t* offset; // (batch, cells, 2)
  const void* mean; // (channels,) in the compute dtype (float64 for float64, else float32), or null with std
  const void* std;
  int64_t batch, channels, height, width, cells;
  int64_t images, bank_height, bank_width;
  int64_t foreground_stride[3]; // batch, channel, row
  int64_t mask_stride[2]; // batch, row
  int64_t bank_stride[4];
};

// Runs on the given stream (a cudaStream_t) of the current device. Returns a cudaError_t.
int voronoi_composite_cuda(const CompositeArguments& arguments, void* stream);

} // namespace bgdebias
