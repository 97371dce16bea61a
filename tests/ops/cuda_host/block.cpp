// Runs a grid on one CPU thread. Every thread of a block is a coroutine that runs up to its next barrier; the order between
// two barriers is free, so that a result that depends on it shows. Shared memory begins as bytes of 0xff (NaN) and ends in
// bytes that must stay as they are.
#include <cuda_runtime.h>
#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "kernel.inc"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace on_host {

Settings settings{2, 2, 65535, 0};
cudaError_t last_error = cudaSuccess;
int mistake = 0;

namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kSharedBytes = 48 * 1024; // what a launch may ask for without asking first
constexpr size_t kFenceBytes = 64;
constexpr int kNotAtABarrier = -1, kFinished = -2;

struct Thread {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStackBytes);
  int at = kNotAtABarrier; // the line of the barrier that it waits at
};

struct Faults {
  int64_t divergent_barriers = 0; // some threads at one barrier, others at another one, or gone
  int64_t broken_fences = 0; // written behind the shared memory
} faults;

ucontext_t scheduler;
std::vector<Thread> threads;
Thread* current = nullptr;
const std::function<void()>* body = nullptr;
alignas(16) unsigned char shared[kSharedBytes + kFenceBytes];

void start() {
  (*body)();
  current->at = kFinished;
  swapcontext(&current->context, &scheduler);
}

void prepare(Thread& thread) {
  getcontext(&thread.context);
  thread.context.uc_stack.ss_sp = thread.stack.data();
  thread.context.uc_stack.ss_size = thread.stack.size();
  thread.context.uc_link = nullptr;
  thread.at = kNotAtABarrier;
  makecontext(&thread.context, start, 0);
}

void run_block(std::vector<unsigned>& order, size_t shared_bytes, std::mt19937& random) {
  std::memset(shared, 0xff, shared_bytes);
  std::memset(shared + shared_bytes, 0x5a, kFenceBytes);
  for (Thread& thread : threads) {
    prepare(thread);
  }
  size_t finished = 0;
  while (finished < threads.size()) {
    if (settings.order > 1) {
      std::shuffle(order.begin(), order.end(), random);
    }
    finished = 0;
    int line = 0;
    bool same = true;
    for (const unsigned i : order) {
      current = &threads[i];
      threadIdx = dim3(i);
      if (current->at != kFinished) {
        swapcontext(&scheduler, &current->context);
      }
      finished += current->at == kFinished;
      same = same && (line == 0 || line == current->at);
      line = current->at;
    }
    faults.divergent_barriers += !same;
  }
  for (size_t i = 0; i < kFenceBytes; ++i) {
    faults.broken_fences += shared[shared_bytes + i] != 0x5a;
  }
}

} // namespace

void barrier(int line) {
  current->at = line;
  swapcontext(&current->context, &scheduler);
}

unsigned char* shared_memory() { return shared; }

void launch(dim3 grid, unsigned count, size_t shared_bytes, const std::function<void()>& kernel) {
  last_error = shared_bytes > kSharedBytes || count > 1024 || grid.x == 0 || grid.y == 0 || grid.y > 65535
      ? cudaErrorInvalidValue
      : cudaSuccess;
  if (last_error != cudaSuccess) {
    return;
  }
  grid.y = std::min<unsigned>(grid.y, settings.most_rows_of_blocks);
  threads.resize(count);
  body = &kernel;
  gridDim = grid;
  blockDim = dim3(count);
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  if (settings.order == 1) {
    std::reverse(order.begin(), order.end());
  }
  std::mt19937 random(settings.order);
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      blockIdx = dim3(x, y);
      run_block(order, shared_bytes, random);
    }
  }
}

} // namespace on_host

extern "C" int composite_on_host(const bgdebias::CompositeArguments* arguments, const on_host::Settings* settings) {
  on_host::settings = *settings;
  on_host::last_error = cudaSuccess;
  return bgdebias::voronoi_composite_cuda(*arguments, nullptr);
}

extern "C" void make_mistake(int number) { on_host::mistake = number; }
extern "C" int64_t divergent_barriers() { return on_host::faults.divergent_barriers; }
extern "C" int64_t broken_fences() { return on_host::faults.broken_fences; }
