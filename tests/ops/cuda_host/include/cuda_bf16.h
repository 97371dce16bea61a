#pragma once

#include <torch/headeronly/util/BFloat16.h>

struct __nv_bfloat16 {
  torch::headeronly::BFloat16 value;
};
inline float __bfloat162float(__nv_bfloat16 half) { return static_cast<float>(half.value); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return {torch::headeronly::BFloat16(value)}; }
