// The CPU kernel on whatever bytes say, against the formula pixel by pixel, bit by bit. Buffers are exactly as large as they
// must be, so that a sanitizer sees every step beside them. With libFuzzer: `LLVMFuzzerTestOneInput` is its entry; without:
// -DOWN_DRIVER draws the bytes by a seed. Rows are shared out to -DTHREADS threads at odd borders.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "../../../csrc/cpu/voronoi_composite_kernel.h"

#ifndef THREADS
#define THREADS 2
#endif

namespace {

using namespace bgdebias;

struct Bytes {
  const uint8_t* data;
  size_t left;

  uint8_t next() {
    if (left == 0) {
      return 0;
    }
    --left;
    return *data++;
  }
  int64_t between(int64_t low, int64_t high) {
    return low + (next() | next() << 8) % (high - low + 1);
  }
  double number() { // ordinary most of the time, and now and then what breaks arithmetic
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const double odd[] = {infinity, -infinity, std::nan(""), 0.0, -0.0, 1e300, -1e300, 1e-310};
    const uint8_t kind = next();
    return kind < 8 ? odd[kind] : (next() | next() << 8) / (kind % 2 ? 256.0 : 1024.0) - 20.0;
  }
  int64_t integer() {
    const uint8_t kind = next();
    return kind == 0 ? std::numeric_limits<int64_t>::min() : kind == 1 ? std::numeric_limits<int64_t>::max()
                                                                       : (next() | next() << 8) - 30000;
  }
};

template <typename value_t>
value_t value(Bytes& bytes) {
  if constexpr (std::is_same_v<value_t, uint8_t>) {
    return bytes.next();
  } else {
    return static_cast<value_t>(static_cast<float>(bytes.number()));
  }
}

template <typename value_t>
std::vector<value_t> values(Bytes& bytes, int64_t count) {
  std::vector<value_t> result(static_cast<size_t>(count));
  for (value_t& each : result) {
    each = value<value_t>(bytes);
  }
  return result;
}

int64_t owner(const CompositeArguments& a, int64_t b, int64_t row, int64_t column) {
  Nearest<double> nearest;
  for (int64_t k = 0; k < a.cells; ++k) {
    const double y = a.sites[(b * a.cells + k) * 2], x = a.sites[(b * a.cells + k) * 2 + 1];
    const double dy = static_cast<double>(row) + 0.5 - y, dx = static_cast<double>(column) + 0.5 - x;
    const double distance = dy * dy + dx * dx;
    if (std::isfinite(y) && std::isfinite(x)) {
      nearest.offer(k, distance);
    }
  }
  return nearest.cell;
}

template <typename value_t>
bool same(value_t left, value_t right) {
  const double l = static_cast<double>(left), r = static_cast<double>(right);
  return std::memcmp(&left, &right, sizeof left) == 0 || (std::isnan(l) && std::isnan(r));
}

template <typename image_t, typename bank_t>
void compare(const CompositeArguments& a) {
  using real = std::conditional_t<std::is_same_v<image_t, double>, double, float>;
  for (int64_t b = 0; b < a.batch; ++b) {
    for (int64_t row = 0; row < a.height; ++row) {
      for (int64_t column = 0; column < a.width; ++column) {
        const int64_t cell = owner(a, b, row, column);
        const int64_t y = wrap(row % a.bank_height + wrap(a.offset[(b * a.cells + cell) * 2], a.bank_height), a.bank_height);
        const int64_t x =
            wrap(column % a.bank_width + wrap(a.offset[(b * a.cells + cell) * 2 + 1], a.bank_width), a.bank_width);
        for (int64_t channel = 0; channel < a.channels; ++channel) {
          const auto* bank = static_cast<const bank_t*>(a.bank);
          real pixel = static_cast<real>(
              bank[a.index[b * a.cells + cell] * a.bank_stride[0] + channel * a.bank_stride[1] + y * a.bank_stride[2] +
                   x * a.bank_stride[3]]);
          pixel = std::is_same_v<bank_t, uint8_t> ? pixel / real(255) : pixel;
          if (a.mean != nullptr) {
            pixel = (pixel - static_cast<const real*>(a.mean)[channel]) / static_cast<const real*>(a.std)[channel];
          }
          const int64_t at = ((b * a.channels + channel) * a.height + row) * a.width + column;
          const real alpha = static_cast<real>(static_cast<const image_t*>(a.mask)[(b * a.height + row) * a.width + column]);
          const real foreground = static_cast<real>(static_cast<const image_t*>(a.foreground)[at]);
          const real kept = alpha * foreground, filled = (real(1) - alpha) * pixel;
          const image_t expected = static_cast<image_t>(kept + filled);
          if (!same(expected, static_cast<const image_t*>(a.out)[at])) {
            std::fprintf(stderr, "image %ld channel %ld row %ld column %ld cell %ld\n", static_cast<long>(b),
                         static_cast<long>(channel), static_cast<long>(row), static_cast<long>(column), static_cast<long>(cell));
            std::abort();
          }
        }
      }
    }
  }
}

template <typename image_t, typename bank_t>
void one(Bytes& bytes, Dtype dtype, Dtype bank_dtype) {
  using real = std::conditional_t<std::is_same_v<image_t, double>, double, float>;
  CompositeArguments a{};
  a.dtype = dtype, a.bank_dtype = bank_dtype;
  a.batch = bytes.between(1, 3), a.channels = bytes.between(1, 4), a.height = bytes.between(1, 12);
  a.width = bytes.between(1, 70), a.cells = bytes.between(1, 11);
  a.images = bytes.between(1, 4), a.bank_height = bytes.between(1, 15), a.bank_width = bytes.between(1, 80);
  const bool turned = bytes.next() % 4 == 0; // channels last
  const auto sites = [&] {
    std::vector<double> result(static_cast<size_t>(a.batch * a.cells * 2));
    for (double& each : result) {
      each = bytes.number();
    }
    return result;
  }();
  std::vector<int64_t> index(static_cast<size_t>(a.batch * a.cells)), offset(index.size() * 2);
  for (int64_t& each : index) {
    each = bytes.between(0, a.images - 1);
  }
  for (int64_t& each : offset) {
    each = bytes.integer();
  }
  const int64_t plane = a.height * a.width, bank_plane = a.bank_height * a.bank_width;
  const auto foreground = values<image_t>(bytes, a.batch * a.channels * plane), mask = values<image_t>(bytes, a.batch * plane);
  const auto bank = values<bank_t>(bytes, a.images * a.channels * bank_plane);
  const bool normalise = bytes.next() % 2;
  const auto mean = values<real>(bytes, a.channels), std = values<real>(bytes, a.channels);
  std::vector<image_t> out(foreground.size());
  a.sites = sites.data(), a.index = index.data(), a.offset = offset.data();
  a.foreground = foreground.data(), a.mask = mask.data(), a.bank = bank.data(), a.out = out.data();
  a.mean = normalise ? mean.data() : nullptr, a.std = normalise ? std.data() : nullptr;
  a.foreground_stride[0] = a.channels * plane, a.foreground_stride[1] = plane, a.foreground_stride[2] = a.width;
  a.mask_stride[0] = plane, a.mask_stride[1] = a.width;
  a.bank_stride[0] = a.channels * bank_plane;
  a.bank_stride[1] = turned ? 1 : bank_plane, a.bank_stride[2] = a.bank_width * (turned ? a.channels : 1);
  a.bank_stride[3] = turned ? a.channels : 1;
  const cpu::RowsKernel rows = cpu::rows_kernel(a);
  const int64_t total = a.batch * a.height;
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < THREADS; ++t) {
    const int64_t begin = total * t / THREADS, end = total * (t + 1) / THREADS;
    threads.emplace_back([&a, rows, begin, end] { rows(a, begin, end); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  compare<image_t, bank_t>(a);
}

template <typename image_t>
void with_bank(Bytes& bytes, Dtype dtype) {
  switch (bytes.next() % 4) {
    case 0:
      return one<image_t, torch::headeronly::Half>(bytes, dtype, Dtype::float16);
    case 1:
      return one<image_t, torch::headeronly::BFloat16>(bytes, dtype, Dtype::bfloat16);
    case 2:
      return one<image_t, float>(bytes, dtype, Dtype::float32);
    default:
      return one<image_t, uint8_t>(bytes, dtype, Dtype::uint8);
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes{data, size};
  switch (bytes.next() % 4) {
    case 0:
      with_bank<double>(bytes, Dtype::float64);
      break;
    case 1:
      with_bank<torch::headeronly::BFloat16>(bytes, Dtype::bfloat16);
      break;
    case 2:
      with_bank<torch::headeronly::Half>(bytes, Dtype::float16);
      break;
    default:
      with_bank<float>(bytes, Dtype::float32);
  }
  return 0;
}

#if defined(OWN_DRIVER)
int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 2000;
  std::mt19937 generator(argc > 2 ? std::atoi(argv[2]) : 0);
  for (int i = 0; i < count; ++i) {
    std::vector<uint8_t> data(generator() % 60000);
    for (uint8_t& each : data) {
      each = static_cast<uint8_t>(generator());
    }
    LLVMFuzzerTestOneInput(data.data(), data.size());
  }
  std::printf("%d inputs, %d threads: as the formula\n", count, THREADS);
}
#endif
