// From stable-ABI tensors to plain pointers: the checks and the layout work that both devices share.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <initializer_list>
#include <optional>

#include "voronoi_composite.h"

namespace bgdebias {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Dtype dtype_of(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::Byte:
      return Dtype::uint8;
    case ScalarType::Half:
      return Dtype::float16;
    case ScalarType::BFloat16:
      return Dtype::bfloat16;
    case ScalarType::Float:
      return Dtype::float32;
    case ScalarType::Double:
      return Dtype::float64;
    default:
      STD_TORCH_CHECK(false, name, ": expected uint8, float16, bfloat16, float32 or float64");
  }
}

inline void check_shape(const Tensor& tensor, const char* name, std::initializer_list<int64_t> shape) {
  bool same = tensor.dim() == static_cast<int64_t>(shape.size());
  int64_t dim = 0;
  for (const int64_t size : shape) {
    same = same && tensor.size(dim++) == size;
  }
  STD_TORCH_CHECK(same, name, ": its shape does not agree with the foreground, bank and sites");
}

inline Tensor with_unit_width_stride(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.dim() == 4, "foreground, mask: expected four dimensions");
  return tensor.stride(3) == 1 || tensor.size(3) == 1 ? tensor : torch::stable::contiguous(tensor);
}

// Holds the tensors that the pointers in `arguments` point into.
struct Composite {
  Tensor foreground, mask, bank, sites, index, offset, out;
  std::optional<Tensor> mean, std;
  CompositeArguments arguments{};

  Composite(
      const Tensor& foreground_, const Tensor& mask_, const Tensor& bank_, const Tensor& sites_, const Tensor& index_,
      const Tensor& offset_, const std::optional<Tensor>& mean_, const std::optional<Tensor>& std_)
      : foreground(with_unit_width_stride(foreground_)),
        mask(with_unit_width_stride(mask_)),
        bank(bank_),
        sites(torch::stable::contiguous(sites_)),
        index(torch::stable::contiguous(index_)),
        offset(torch::stable::contiguous(offset_)) {
    STD_TORCH_CHECK(bank.dim() == 4 && bank.numel() > 0, "bank: expected four dimensions and at least one pixel");
    STD_TORCH_CHECK(sites.dim() == 3 && sites.size(1) > 0, "sites: expected three dimensions and at least one cell");
    CompositeArguments& a = arguments;
    a.batch = foreground.size(0), a.channels = foreground.size(1);
    a.height = foreground.size(2), a.width = foreground.size(3);
    a.cells = sites.size(1);
    a.images = bank.size(0), a.bank_height = bank.size(2), a.bank_width = bank.size(3);
    check_shape(mask, "mask", {a.batch, 1, a.height, a.width});
    check_shape(bank, "bank", {a.images, a.channels, a.bank_height, a.bank_width});
    check_shape(sites, "sites", {a.batch, a.cells, 2});
    check_shape(index, "index", {a.batch, a.cells});
    check_shape(offset, "offset", {a.batch, a.cells, 2});
    a.dtype = dtype_of(foreground, "foreground");
    a.bank_dtype = dtype_of(bank, "bank");
    STD_TORCH_CHECK(a.dtype != Dtype::uint8, "foreground: expected a floating dtype");
    STD_TORCH_CHECK(dtype_of(mask, "mask") == a.dtype, "mask: expected the foreground's dtype");
    a.sites = sites.const_data_ptr<double>();
    a.index = index.const_data_ptr<int64_t>();
    a.offset = offset.const_data_ptr<int64_t>();
    set_normalisation(mean_, std_);
    for (int i = 0; i < 3; ++i) {
      a.foreground_stride[i] = foreground.stride(i);
    }
    a.mask_stride[0] = mask.stride(0), a.mask_stride[1] = mask.stride(2);
    for (int i = 0; i < 4; ++i) {
      a.bank_stride[i] = bank.stride(i);
    }
    out = torch::stable::new_empty(foreground, foreground.sizes());
    a.foreground = foreground.const_data_ptr();
    a.mask = mask.const_data_ptr();
    a.bank = bank.const_data_ptr();
    a.out = out.mutable_data_ptr();
  }

 private:
  void set_normalisation(const std::optional<Tensor>& mean_, const std::optional<Tensor>& std_) {
    CompositeArguments& a = arguments;
    STD_TORCH_CHECK(mean_.has_value() == std_.has_value(), "mean, std: expected both or neither");
    if (!mean_.has_value()) {
      return;
    }
    mean = torch::stable::contiguous(*mean_);
    std = torch::stable::contiguous(*std_);
    check_shape(*mean, "mean", {a.channels});
    check_shape(*std, "std", {a.channels});
    const Dtype compute = a.dtype == Dtype::float64 ? Dtype::float64 : Dtype::float32;
    STD_TORCH_CHECK(
        dtype_of(*mean, "mean") == compute && dtype_of(*std, "std") == compute,
        "mean, std: expected float64 with a float64 foreground, else float32");
    a.mean = mean->const_data_ptr();
    a.std = std->const_data_ptr();
  }
};

} // namespace bgdebias
