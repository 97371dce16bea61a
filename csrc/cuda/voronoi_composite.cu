// One pass over the images. A thread takes a run of kRun neighbouring pixels of a row, in all channels: it finds the cells of
// the run's two ends in float32 and, where these are the same beyond doubt (cells.h), has those of all; otherwise it looks
// closer, in the end pixel by pixel in float64. Foreground, mask and output move 16 bytes at a time. A table in shared
// memory normalises uint8 banks. Free of torch, so that it can be compiled wherever nvcc is.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cassert>

#include "../cells.h"
#include "../voronoi_composite.h"

namespace bgdebias {
namespace {

constexpr int kThreads = 256;
constexpr int kRun = 8;
constexpr size_t kSharedBytes = 48 * 1024; // what every device gives without asking

template <typename real>
__device__ __forceinline__ real load_as(const void* pointer, int64_t i, Dtype dtype) {
  switch (dtype) { // the same for all threads
    case Dtype::uint8:
      return static_cast<real>(static_cast<const uint8_t*>(pointer)[i]);
    case Dtype::float16:
      return static_cast<real>(__half2float(static_cast<const __half*>(pointer)[i]));
    case Dtype::bfloat16:
      return static_cast<real>(__bfloat162float(static_cast<const __nv_bfloat16*>(pointer)[i]));
    case Dtype::float32:
      return static_cast<real>(static_cast<const float*>(pointer)[i]);
    case Dtype::float64:
      return static_cast<real>(static_cast<const double*>(pointer)[i]);
  }
  return real(0);
}

template <typename real>
__device__ __forceinline__ real widen(float value) { return static_cast<real>(value); }
template <typename real>
__device__ __forceinline__ real widen(double value) { return static_cast<real>(value); }
template <typename real>
__device__ __forceinline__ real widen(__half value) { return __half2float(value); }
template <typename real>
__device__ __forceinline__ real widen(__nv_bfloat16 value) { return __bfloat162float(value); }

__device__ __forceinline__ void narrow(float& out, float value) { out = value; }
__device__ __forceinline__ void narrow(double& out, double value) { out = value; }
__device__ __forceinline__ void narrow(__half& out, float value) { out = __float2half_rn(value); }
__device__ __forceinline__ void narrow(__nv_bfloat16& out, float value) { out = __float2bfloat16_rn(value); }

// A run in 16-byte pieces, or a single element.
template <typename image_t, int run>
__device__ __forceinline__ void load_run(const image_t* from, image_t (&to)[run]) {
  if constexpr (run == kRun) {
    const auto* pieces = reinterpret_cast<const uint4*>(from);
    auto* values = reinterpret_cast<uint4*>(to);
#pragma unroll
    for (int i = 0; i < static_cast<int>(run * sizeof(image_t) / sizeof(uint4)); ++i) {
      values[i] = __ldg(pieces + i);
    }
  } else {
    to[0] = from[0];
  }
}

template <typename image_t, int run>
__device__ __forceinline__ void store_run(image_t* to, const image_t (&from)[run]) {
  if constexpr (run == kRun) {
    auto* pieces = reinterpret_cast<uint4*>(to);
    const auto* values = reinterpret_cast<const uint4*>(from);
#pragma unroll
    for (int i = 0; i < static_cast<int>(run * sizeof(image_t) / sizeof(uint4)); ++i) {
      pieces[i] = values[i];
    }
  } else {
    to[0] = from[0];
  }
}

// The definition: float64, every site. sites are (y, x) pairs.
__device__ __noinline__ int64_t cell_exactly(const double* sites, int64_t cells, int64_t row, int64_t column) {
  Nearest<double> nearest;
  const double y = static_cast<double>(row) + 0.5, x = static_cast<double>(column) + 0.5;
  for (int64_t k = 0; k < cells; ++k) {
    const double dy = y - sites[2 * k], dx = x - sites[2 * k + 1];
    nearest.offer(k, dy * dy + dx * dx);
  }
  return nearest.cell;
}

// The cell that owns all pixels from column `first` to `last`, or -1 where that is not certain.
__device__ __forceinline__ int64_t common_cell(
    const float2* sites, int64_t cells, int64_t row, int64_t first, int64_t last, float slack) {
  Nearest<float> left, right;
  const float y = static_cast<float>(row) + 0.5f;
  const float x0 = static_cast<float>(first) + 0.5f, x1 = static_cast<float>(last) + 0.5f;
  for (int64_t k = 0; k < cells; ++k) {
    const float2 site = sites[k];
    const float dy = y - site.x, dx0 = x0 - site.y, dx1 = x1 - site.y;
    const float dyy = dy * dy;
    left.offer(k, dyy + dx0 * dx0);
    right.offer(k, dyy + dx1 * dx1);
  }
  return left.cell == right.cell && left.certain(slack) && right.certain(slack) ? left.cell : -1;
}

struct Shared {
  bool sites; // a float32 copy of the image's sites fits
  bool table; // the normalised values of all bytes in all channels fit
  int64_t table_offset; // bytes
};

// Cells of `run` pixels from `column` on.
template <int run>
__device__ __forceinline__ void find_cells(
    const CompositeArguments& a, const Shared& shared, const float2* near, const double* sites, int64_t row, int64_t column,
    float slack, int64_t (&cell)[run]) {
  if (a.cells == 1) {
#pragma unroll
    for (int i = 0; i < run; ++i) {
      cell[i] = 0;
    }
    return;
  }
  int64_t whole = shared.sites ? common_cell(near, a.cells, row, column, column + run - 1, slack) : -1;
  constexpr int half = run > 1 ? run / 2 : 1;
#pragma unroll
  for (int part = 0; part < run; part += half) {
    int64_t owner = whole;
    if (owner < 0 && shared.sites && run > 1) {
      owner = common_cell(near, a.cells, row, column + part, column + part + half - 1, slack);
    }
#pragma unroll
    for (int i = 0; i < half; ++i) {
      int64_t one = owner;
      if (one < 0 && shared.sites && run > 1) {
        one = common_cell(near, a.cells, row, column + part + i, column + part + i, slack);
      }
      cell[part + i] = one >= 0 ? one : cell_exactly(sites, a.cells, row, column + part + i);
    }
  }
}

template <typename real, typename image_t, bool bytes, int run>
__device__ __forceinline__ void composite_run(
    const CompositeArguments& a, const Shared& shared, const float2* near, const real* table, int64_t b, int64_t row,
    int64_t column, float slack) {
  int64_t cell[run], source[run];
  find_cells<run>(a, shared, near, a.sites + b * a.cells * 2, row, column, slack, cell);
#pragma unroll
  for (int i = 0; i < run; ++i) {
    const int64_t k = b * a.cells + cell[i], image = a.index[k];
    assert(image >= 0 && image < a.images && "index: expected images of the bank");
    const int64_t y = wrap(row % a.bank_height + wrap(a.offset[2 * k], a.bank_height), a.bank_height);
    const int64_t x = wrap((column + i) % a.bank_width + wrap(a.offset[2 * k + 1], a.bank_width), a.bank_width);
    source[i] = image * a.bank_stride[0] + y * a.bank_stride[2] + x * a.bank_stride[3];
  }
  alignas(16) image_t alpha[run], pixels[run], result[run];
  load_run<image_t, run>(
      static_cast<const image_t*>(a.mask) + b * a.mask_stride[0] + row * a.mask_stride[1] + column, alpha);
  const auto* foreground =
      static_cast<const image_t*>(a.foreground) + b * a.foreground_stride[0] + row * a.foreground_stride[2] + column;
  auto* out = static_cast<image_t*>(a.out) + (b * a.channels * a.height + row) * a.width + column;
  for (int64_t channel = 0; channel < a.channels; ++channel) {
    load_run<image_t, run>(foreground + channel * a.foreground_stride[1], pixels);
#pragma unroll
    for (int i = 0; i < run; ++i) {
      const int64_t from = source[i] + channel * a.bank_stride[1];
      real background;
      if (bytes && shared.table) {
        background = table[channel * 256 + static_cast<const uint8_t*>(a.bank)[from]];
      } else {
        background = load_as<real>(a.bank, from, a.bank_dtype);
        if constexpr (bytes) {
          background = background / real(255);
        }
        if (a.mean != nullptr) {
          background =
              (background - static_cast<const real*>(a.mean)[channel]) / static_cast<const real*>(a.std)[channel];
        }
      }
      const real weight = widen<real>(alpha[i]);
      const real kept = weight * widen<real>(pixels[i]);
      const real filled = (real(1) - weight) * background;
      narrow(result[i], kept + filled);
    }
    store_run<image_t, run>(out + channel * a.height * a.width, result);
  }
}

template <typename real, typename image_t, bool bytes, int run>
__global__ void __launch_bounds__(kThreads) composite_kernel(const CompositeArguments a, const Shared shared) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto* near = reinterpret_cast<float2*>(memory);
  auto* table = reinterpret_cast<real*>(memory + shared.table_offset);
  if (bytes && shared.table) {
    for (int64_t i = threadIdx.x; i < a.channels * 256; i += blockDim.x) {
      real value = static_cast<real>(i % 256) / real(255);
      if (a.mean != nullptr) {
        value = (value - static_cast<const real*>(a.mean)[i / 256]) / static_cast<const real*>(a.std)[i / 256];
      }
      table[i] = value;
    }
  }
  const float extent = static_cast<float>(a.height) + static_cast<float>(a.width);
  const float slack = 4.0f * extent * extent;
  const int64_t runs_a_row = a.width / run, runs = a.height * runs_a_row;
  for (int64_t b = blockIdx.y; b < a.batch; b += gridDim.y) {
    __syncthreads(); // the sites of the image before are no longer read; the table is written
    if (shared.sites) {
      for (int64_t k = threadIdx.x; k < a.cells; k += blockDim.x) {
        const double* site = a.sites + (b * a.cells + k) * 2;
        near[k] = make_float2(static_cast<float>(site[0]), static_cast<float>(site[1]));
      }
    }
    __syncthreads();
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < runs; i += step) {
      composite_run<real, image_t, bytes, run>(
          a, shared, near, table, b, i / runs_a_row, i % runs_a_row * run, slack);
    }
  }
}

bool aligned(const CompositeArguments& a, size_t size) {
  const auto whole = [&](int64_t elements) { return elements * static_cast<int64_t>(size) % 16 == 0; };
  const auto address = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  return a.width % kRun == 0 && address(a.foreground) && address(a.mask) && address(a.out) &&
      whole(a.foreground_stride[0]) && whole(a.foreground_stride[1]) && whole(a.foreground_stride[2]) &&
      whole(a.mask_stride[0]) && whole(a.mask_stride[1]);
}

template <typename real, typename image_t, bool bytes, int run>
cudaError_t launch(const CompositeArguments& a, cudaStream_t stream) {
  const size_t sites = (static_cast<size_t>(a.cells) * sizeof(float2) + 15) / 16 * 16;
  const size_t table = static_cast<size_t>(a.channels) * 256 * sizeof(real);
  Shared shared{};
  shared.sites = a.cells > 1 && sites <= kSharedBytes / 2;
  shared.table_offset = shared.sites ? static_cast<int64_t>(sites) : 0;
  shared.table = bytes && shared.table_offset + table <= kSharedBytes;
  const size_t memory = shared.table_offset + (shared.table ? table : 0);
  int device = 0, processors = 0, fitting = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  }
  const auto kernel = composite_kernel<real, image_t, bytes, run>;
  if (error == cudaSuccess) {
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fitting, kernel, kThreads, memory);
  }
  if (error != cudaSuccess) {
    return error;
  }
  // As many blocks as run at once, four times over: each fills its table once and then walks over its image.
  const int64_t blocks = static_cast<int64_t>(processors) * std::max(fitting, 1) * 4;
  const int64_t images = std::min<int64_t>(a.batch, 65535);
  const int64_t runs = a.height * (a.width / run);
  const int64_t needed = (runs + kThreads - 1) / kThreads;
  const int64_t columns = std::max<int64_t>(1, std::min(needed, (blocks + images - 1) / images));
  kernel<<<dim3(static_cast<unsigned>(columns), static_cast<unsigned>(images)), kThreads, memory, stream>>>(a, shared);
  return cudaGetLastError();
}

template <typename real, typename image_t>
cudaError_t choose(const CompositeArguments& a, cudaStream_t stream) {
  const bool wide = aligned(a, sizeof(image_t));
  if (a.bank_dtype == Dtype::uint8) {
    return wide ? launch<real, image_t, true, kRun>(a, stream) : launch<real, image_t, true, 1>(a, stream);
  }
  return wide ? launch<real, image_t, false, kRun>(a, stream) : launch<real, image_t, false, 1>(a, stream);
}

} // namespace

int voronoi_composite_cuda(const CompositeArguments& a, void* stream_) {
  if (a.batch * a.channels * a.height * a.width == 0) {
    return cudaSuccess;
  }
  auto* stream = static_cast<cudaStream_t>(stream_);
  switch (a.dtype) {
    case Dtype::float16:
      return choose<float, __half>(a, stream);
    case Dtype::bfloat16:
      return choose<float, __nv_bfloat16>(a, stream);
    case Dtype::float32:
      return choose<float, float>(a, stream);
    case Dtype::float64:
      return choose<double, double>(a, stream);
    case Dtype::uint8:
      break;
  }
  return cudaErrorInvalidValue;
}

} // namespace bgdebias
