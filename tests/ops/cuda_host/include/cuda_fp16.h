#pragma once

#include <torch/headeronly/util/Half.h>

struct __half {
  torch::headeronly::Half value;
};
inline float __half2float(__half half) { return static_cast<float>(half.value); }
inline __half __float2half_rn(float value) { return {torch::headeronly::Half(value)}; }
