"""BitNet b1.58 in the 2B-4T flavour, small enough to train on a CPU.

ReLU^2, sub-norms before the output projections, grouped-query attention, RoPE over halves (NeoX
order), tied embedding. Weights are ternary with one scale per matrix and activations int8 with one
scale per token, both by straight-through estimation (Ma et al., 2024).
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional


@dataclasses.dataclass
class Config:
    vocabulary: int = 4096
    hidden: int = 256
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 768
    context: int = 256
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self):
        return self.hidden // self.heads


def weight_scale(weight):
    """Mean magnitude: the scale of a matrix's trits."""
    return weight.abs().mean().clamp(min=1e-5)


def to_trits(weight):
    return (weight / weight_scale(weight)).round().clamp(-1, 1)


def quantise_activations(x):
    """int8 per token and back: s = 127 / max|x|."""
    scale = 127.0 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    return (x * scale).round().clamp(-128, 127) / scale


class RmsNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class TernaryLinear(nn.Linear):
    """Trains a float weight whose ternary value is what the forward pass uses."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, bias=False)
        nn.init.normal_(self.weight, std=0.02)
        # Set by freeze(): the weight already is trits times scale.
        self.frozen = False

    def freeze(self):
        """Replaces the weight by trits times the scale that a GGUF file stores (F16)."""
        with torch.no_grad():
            scale = weight_scale(self.weight)
            self.weight.copy_(to_trits(self.weight) * scale.half().float())
        self.frozen = True

    def forward(self, x):
        if self.frozen:
            return functional.linear(quantise_activations(x), self.weight)
        ternary = to_trits(self.weight) * weight_scale(self.weight)
        weight = self.weight + (ternary - self.weight).detach()
        x = x + (quantise_activations(x) - x).detach()
        return functional.linear(x, weight)


def rope_tables(config):
    half = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    angles = torch.outer(torch.arange(config.context).float(), 1.0 / (config.rope_base ** half))
    return torch.cos(angles), torch.sin(angles)


def rotate(x, cosines, sines):
    """x: [batch, heads, tokens, head_dim]; pairs are (i, i + head_dim / 2)."""
    first, second = x.chunk(2, dim=-1)
    cosines, sines = cosines[:x.shape[2]], sines[:x.shape[2]]
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], -1)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        kv_width = config.kv_heads * config.head_dim
        self.attention_norm = RmsNorm(config.hidden, config.norm_eps)
        self.attention_sub_norm = RmsNorm(config.hidden, config.norm_eps)
        self.ffn_norm = RmsNorm(config.hidden, config.norm_eps)
        self.ffn_sub_norm = RmsNorm(config.ffn, config.norm_eps)
        self.query = TernaryLinear(config.hidden, config.hidden)
        self.key = TernaryLinear(config.hidden, kv_width)
        self.value = TernaryLinear(config.hidden, kv_width)
        self.attention_output = TernaryLinear(config.hidden, config.hidden)
        self.gate = TernaryLinear(config.hidden, config.ffn)
        self.up = TernaryLinear(config.hidden, config.ffn)
        self.down = TernaryLinear(config.ffn, config.hidden)

    def attend(self, x, cosines, sines, mask):
        config = self.config
        batch, tokens, _ = x.shape

        def split(projected, heads):
            return projected.view(batch, tokens, heads, config.head_dim).transpose(1, 2)

        queries = rotate(split(self.query(x), config.heads), cosines, sines)
        keys = rotate(split(self.key(x), config.kv_heads), cosines, sines)
        values = split(self.value(x), config.kv_heads)
        group = config.heads // config.kv_heads
        keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(config.head_dim)
        weights = (scores + mask[:tokens, :tokens]).softmax(-1)
        return (weights @ values).transpose(1, 2).reshape(batch, tokens, config.hidden)

    def forward(self, x, cosines, sines, mask):
        attended = self.attend(self.attention_norm(x), cosines, sines, mask)
        x = x + self.attention_output(self.attention_sub_norm(attended))
        h = self.ffn_norm(x)
        inner = functional.relu(self.gate(h)).pow(2) * self.up(h)
        return x + self.down(self.ffn_sub_norm(inner))


class BitNet(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.hidden)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = RmsNorm(config.hidden, config.norm_eps)
        cosines, sines = rope_tables(config)
        mask = torch.full((config.context, config.context), float("-inf")).triu(1)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, tokens, targets=None):
        """Logits, or the mean loss when targets are given (-1 is not scored)."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cosines, self.sines, self.mask)
        logits = functional.linear(self.norm(x), self.embedding.weight)
        if targets is None:
            return logits
        return functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1),
                                        ignore_index=-1)


def load_frozen(checkpoint, context):
    """The model exactly as a GGUF file holds it: trits, F16 scales, F16 embedding."""
    model = BitNet(Config(context=context))
    model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    model.eval()
    for module in model.modules():
        if isinstance(module, TernaryLinear):
            module.freeze()
    with torch.no_grad():
        model.embedding.weight.copy_(model.embedding.weight.half().float())
    return model
