// Stand-ins for what csrc/cuda/voronoi_composite.cu uses of CUDA, so that a C++ compiler compiles that very file.
// `block.cpp` runs its blocks. Only the launch and the declaration of shared memory have no form in C++: build.py rewrites
// these two lines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(threads)
#define __syncthreads() on_host::barrier(__LINE__)

struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
template <typename value_t>
value_t __ldg(const value_t* pointer) {
  return *pointer;
}

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };

// A thread's place, set by whoever lets it run.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace on_host {

struct Settings {
  int32_t processors; // of the device that the launch asks about
  int32_t blocks_fitting; // on each
  int32_t most_rows_of_blocks; // a smaller grid than asked for: its blocks walk over several images
  int32_t order; // of the threads between two barriers: 0 ascending, 1 descending, else shuffled by this seed
};

extern Settings settings;
extern cudaError_t last_error;
extern int mistake; // 0 none; build.py puts others in

void barrier(int line);
unsigned char* shared_memory();
void launch(dim3 grid, unsigned threads, size_t shared_bytes, const std::function<void()>& kernel);

} // namespace on_host

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = on_host::settings.processors;
  return cudaSuccess;
}
template <typename kernel_t>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, kernel_t, int, size_t) {
  *blocks = on_host::settings.blocks_fitting;
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return on_host::last_error; }
