"""Small bodies of networks for the tests of LRP: every kind of layer, activation and spelling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth


def conv(inputs: int = 3, outputs: int = 4, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


class Lambda(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Gated(nn.Module):
    """Squeeze and excitation, as in MobileNetV3."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.conv, self.down, self.up, self.gate = conv(), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        return x * self.gate(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Attention(nn.Module):
    """Tokens through multi-head attention, one of several ways to write it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.embed = nn.Conv2d(3, 4, 2, 2)
        self.norm = nn.LayerNorm(4)
        self.mha = nn.MultiheadAttention(4, 2, batch_first=True)
        self.qkv = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.embed(x).flatten(2).transpose(1, 2))
        if self.kind == "module":
            return tokens + self.mha(tokens, tokens, tokens)[0]
        q, k, v = (t.unflatten(-1, (2, 2)).transpose(1, 2) for t in self.qkv(tokens).chunk(3, -1))
        if self.kind == "sdpa":
            out = F.scaled_dot_product_attention(q, k, v)
        elif self.kind == "causal":
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.5)
        elif self.kind == "masked":
            mask = torch.eye(q.shape[-2], dtype=torch.bool) | (torch.arange(q.shape[-2]) % 2 == 0)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        elif self.kind == "nowhere":  # the first query may look at no key
            mask = torch.arange(q.shape[-2]).view(-1, 1).expand(-1, q.shape[-2]) > 0
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            out = ((q @ k.transpose(-2, -1)) / 2).softmax(-1) @ v
        return tokens + out.transpose(1, 2).flatten(2)


class Reused(nn.Module):
    """One convolution and one in-place ReLU, three times, with a sum in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = conv(3, 3), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            y = self.conv(x)
            y += x
            x = self.relu(y)
        return x


class Residual(nn.Module):
    """A branch that may be dropped, as in ConvNeXt or EfficientNet."""

    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        self.conv, self.drop = conv(4, 4), drop

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(F.relu(self.conv(x)))


class Dense(nn.Module):
    """Concatenation, with batch norm before the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(3), conv()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.bn(x)))], 1)


def seq(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


BODIES = {
    "relu": lambda: seq(conv(), nn.ReLU()),
    "relu-inplace": lambda: seq(conv(), nn.ReLU(inplace=True)),
    "relu-statement": lambda: seq(conv(), Lambda(lambda x: (F.relu_(x), x)[1])),
    "relu6": lambda: seq(conv(), Lambda(lambda x: 4 * x), nn.ReLU6(inplace=True)),
    "hardtanh": lambda: seq(conv(), nn.Hardtanh(0, 0.5)),
    "clamp": lambda: seq(conv(), Lambda(lambda x: x.clamp(min=0).clamp_(0, 0.7))),
    "leaky": lambda: seq(conv(), nn.LeakyReLU(0.1), conv(4, 4), nn.PReLU()),
    "gelu": lambda: seq(conv(), nn.GELU(), conv(4, 4), nn.GELU(approximate="tanh")),
    "silu": lambda: seq(conv(), nn.SiLU(inplace=True), conv(4, 4), nn.Mish()),
    "hardswish": lambda: seq(conv(), nn.Hardswish(inplace=True), Lambda(lambda x: 3 * x), nn.Hardswish()),
    "elu": lambda: seq(conv(), nn.ELU(0.7, inplace=True), conv(4, 4), nn.SELU(), conv(4, 4), nn.CELU(0.5)),
    "tanh": lambda: seq(conv(), nn.Tanh(), conv(4, 4), Lambda(torch.tanh), nn.Softsign()),
    "tanhshrink": lambda: seq(conv(), Lambda(lambda x: 3 * x), nn.Tanhshrink()),
    "sigmoid": lambda: seq(conv(), nn.Sigmoid(), conv(4, 4), nn.Softplus()),
    "batchnorm": lambda: seq(conv(bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
    "batchnorm-plain": lambda: seq(conv(), nn.BatchNorm2d(4, affine=False, track_running_stats=False), nn.ReLU()),
    "groupnorm": lambda: seq(conv(), nn.GroupNorm(2, 4), nn.ReLU()),
    "instancenorm": lambda: seq(conv(), nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.ReLU()),
    "layernorm": lambda: seq(conv(), nn.LayerNorm([4, 6, 6]), nn.GELU()),
    "rmsnorm": lambda: seq(conv(), nn.RMSNorm([6, 6]), nn.GELU()),
    "lrn": lambda: seq(conv(), nn.LocalResponseNorm(2, 0.5, 0.7, 0.8), nn.GELU(), nn.LocalResponseNorm(3, 2.0)),
    "grouped": lambda: seq(conv(3, 6, groups=3), nn.ReLU(), conv(6, 4, groups=2, dilation=1)),
    "depthwise": lambda: seq(conv(3, 3, groups=3, bias=False), nn.ReLU6(), nn.Conv2d(3, 4, 1)),
    "same": lambda: seq(nn.Conv2d(3, 4, 2, padding="same", dilation=3), nn.ReLU(), nn.Conv2d(4, 4, 3, padding="valid")),
    "transposed": lambda: seq(conv(), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, stride=2)),
    "circular": lambda: seq(conv(padding_mode="circular"), nn.ReLU()),
    "se-sigmoid": lambda: Gated(nn.Sigmoid()),
    "se-hardsigmoid": lambda: Gated(nn.Hardsigmoid(inplace=True)),
    "attention-module": lambda: Attention("module"),
    "attention-sdpa": lambda: Attention("sdpa"),
    "attention-causal": lambda: Attention("causal"),
    "attention-masked": lambda: Attention("masked"),
    "attention-nowhere": lambda: Attention("nowhere"),
    "attention-written": lambda: Attention("written"),
    "reused": Reused,
    "dense": Dense,
    "maxpool": lambda: seq(conv(), nn.ReLU(), nn.MaxPool2d(2)),
    "avgpool": lambda: seq(conv(), nn.ReLU(), nn.AvgPool2d(3, 2, 1)),
    "adaptive": lambda: seq(conv(), nn.ReLU(), nn.AdaptiveMaxPool2d(3), nn.AdaptiveAvgPool2d(2)),
    "pool-options": lambda: seq(
        conv(), nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)
    ),
    "pool-1d": lambda: seq(conv(), Lambda(lambda x: F.avg_pool1d(F.max_pool1d(x.flatten(2), 2), 3))),
    "pool-3d": lambda: seq(conv(), Lambda(lambda x: F.avg_pool3d(F.max_pool3d(x[:, None], 2), (1, 3, 1)))),
    "pool-global": lambda: seq(
        conv(), Lambda(lambda x: torch.cat([x.mean((2, 3)), x.amax((2, 3)), x.flatten(2).logsumexp(2)], 1))
    ),
    "gem": lambda: seq(conv(), Lambda(lambda x: F.avg_pool2d(x.clamp(min=1e-2).pow(3), 2).pow(1 / 3))),
    "fractional": lambda: seq(conv(), nn.ReLU(), nn.FractionalMaxPool2d(2, output_size=3)),
    "unpooled": lambda: seq(conv(), Lambda(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2))),
    "lppool": lambda: seq(conv(), nn.Softplus(), nn.LPPool2d(2, 2)),
    "dropout": lambda: seq(conv(), nn.ReLU(), nn.Dropout2d(0.3), conv(4, 4), nn.Dropout(0.3)),
    "stochastic-depth": lambda: seq(
        conv(), *(Residual(StochasticDepth(p, m)) for p, m in ((0.5, "row"), (0.1, "batch")))
    ),
    "interpolated": lambda: seq(conv(), nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear")),
    "shuffled": lambda: seq(conv(), nn.ChannelShuffle(2), nn.ReLU()),
    "unfolded": lambda: seq(conv(), nn.ReLU(), nn.Unfold(3)),
    "einsum": lambda: seq(conv(), Lambda(lambda x: torch.einsum("bchw,bdhw->bcd", x.relu(), x))),
}
#: networks without any bias, whose relevance is conserved
HOMOGENEOUS = {
    "relu": lambda: seq(conv(bias=False), nn.ReLU(inplace=True), conv(4, 4, bias=False), nn.ReLU()),
    "pooled": lambda: seq(conv(bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2)),
    "gelu": lambda: seq(conv(bias=False), nn.GELU(), conv(4, 4, bias=False), nn.SiLU(), nn.Hardswish(), nn.Mish()),
    "smooth": lambda: seq(conv(bias=False), nn.Tanh(), nn.ELU(), nn.SELU(), nn.CELU(2.0), nn.Softsign()),
    "tanhshrink": lambda: seq(conv(bias=False), Lambda(lambda x: 3 * x), nn.Tanhshrink()),
    "lrn": lambda: seq(conv(bias=False), nn.LocalResponseNorm(3, 2.0), nn.ReLU()),
    "rmsnorm": lambda: seq(conv(bias=False), nn.RMSNorm([6, 6]), nn.GELU()),
    "leaky": lambda: seq(conv(bias=False), nn.LeakyReLU(), nn.PReLU()),
}
