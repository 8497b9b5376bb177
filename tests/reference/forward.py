"""Forward passes in plain Python, from the published equations, token by token.

Written apart from the engine, so that both would have to be wrong in the same way. Everything is
double precision; a matrix is a list of rows, and weights have the layout of the original
checkpoints, not that of GGUF: what a converter permutes is permuted by generate.py.

Sources: RMSNorm (Zhang, Sennrich 2019), RoPE (Su et al. 2021), GQA (Ainslie et al. 2023), LoRA (Hu
et al. 2021), Gated DeltaNet (Yang, Kautz, Hatamizadeh 2024), gated attention (Qiu et al. 2025);
GELU with tanh (Hendrycks, Gimpel 2016), BitNet b1.58's int8 activations (Ma et al. 2024); shapes of
Qwen3.5's text model, of Maple and of Gemma 3 from their model code, norms before projections from the
conversion guide of the BitNet embedding models.
"""

import math


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def matvec(w, x):
    return [dot(row, x) for row in w]


def add(a, b):
    return [x + y for x, y in zip(a, b)]


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def silu(x):
    return x * sigmoid(x)


def gelu(x):
    return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def int8_per_token(x):
    """What x becomes before a ternary matrix: round() takes halves to even."""
    scale = 127 / max(1e-5, max(abs(value) for value in x))
    return [max(-128, min(127, round(value * scale))) / scale for value in x]


def rms_norm(x, weight, eps):
    scale = 1 / math.sqrt(dot(x, x) / len(x) + eps)
    return [value * scale * w for value, w in zip(x, weight)]


def l2_norm(x, eps=1e-6):
    scale = 1 / math.sqrt(dot(x, x) + eps)
    return [value * scale for value in x]


def softmax(x):
    largest = max(x)
    powers = [math.exp(value - largest) for value in x]
    total = sum(powers)
    return [power / total for power in powers]


def log_softmax(x):
    largest = max(x)
    total = math.log(sum(math.exp(value - largest) for value in x))
    return [value - largest - total for value in x]


def rope(x, position, dim, base, neox):
    """Rotates the first `dim` elements; the rest pass."""
    out = list(x)
    half = dim // 2
    for i in range(half):
        angle = position * base ** (-2 * i / dim)
        a, b = (i, i + half) if neox else (2 * i, 2 * i + 1)
        c, s = math.cos(angle), math.sin(angle)
        out[a], out[b] = x[a] * c - x[b] * s, x[b] * c + x[a] * s
    return out


def heads_of(x, size):
    return [x[i:i + size] for i in range(0, len(x), size)]


def embedding(model, tokens, pooling):
    """The pooled states of a text, scaled to length one."""
    sequence = Sequence(model)
    states = [sequence.hidden(token) for token in tokens]
    if pooling == "mean":
        pooled = [sum(column) / len(states) for column in zip(*states)]
    else:
        pooled = states[0] if pooling == "cls" else states[-1]
    length = math.sqrt(dot(pooled, pooled))
    return [value / length for value in pooled]


class Sequence:
    """State of one sequence through one model."""

    def __init__(self, model):
        self.model = model
        self.position = 0
        self.cache = [{} for _ in model["layers"]]

    def project(self, layer, name, x):
        """W x; where projections have norms before them, W norm(x)."""
        if name + "_input_norm" in layer:
            x = rms_norm(x, layer[name + "_input_norm"], self.model["eps"])
        if self.model.get("int8"):
            x = int8_per_token(x)
        y = matvec(layer[name], x)
        for scale, adapter in self.model.get("adapters", []):
            pair = adapter["pairs"].get((layer["index"], name))
            if pair is None:
                continue
            a, b = pair
            factor = scale * adapter["alpha"] / len(a)
            y = add(y, [factor * value for value in matvec(b, matvec(a, x))])
        return y

    def hidden(self, token):
        """The state of `token` after the final norm, from which the head makes logits."""
        model = self.model
        scale = model.get("embedding_scale", 1.0)
        x = [value * scale for value in model["embedding"][token]]
        for layer, cache in zip(model["layers"], self.cache):
            h = rms_norm(x, layer["attention_norm"], model["eps"])
            mixer = self.delta_net if "conv" in layer else self.attention
            x = add(x, self.normed(layer, "attention_post_norm", mixer(layer, cache, h)))
            h = rms_norm(x, layer["ffn_norm"], model["eps"])
            y = self.experts(layer, h) if "router" in layer else self.ffn(layer, h)
            x = add(x, self.normed(layer, "ffn_post_norm", y))
        self.position += 1
        return rms_norm(x, model["output_norm"], model["eps"])

    def normed(self, layer, name, y):
        return rms_norm(y, layer[name], self.model["eps"]) if name in layer else y

    def step(self, token):
        """Log-probabilities of the token after `token`."""
        return log_softmax(matvec(self.model["head"], self.hidden(token)))

    def attention(self, layer, cache, h):
        model = self.model
        size = model["head_dim"]
        query = self.project(layer, "query", h)
        gates = None
        if model.get("gated_attention"):
            # Each head's rows: its query, then its gate.
            parts = heads_of(query, 2 * size)
            query = [value for part in parts for value in part[:size]]
            gates = [value for part in parts for value in part[size:]]
        queries = heads_of(query, size)
        keys = heads_of(self.project(layer, "key", h), size)
        values = heads_of(self.project(layer, "value", h), size)
        if "query_norm" in layer:
            queries = [rms_norm(q, layer["query_norm"], model["eps"]) for q in queries]
            keys = [rms_norm(k, layer["key_norm"], model["eps"]) for k in keys]
        if layer.get("rope", True):
            base = layer.get("rope_base", model["rope_base"])
            turn = lambda v: rope(v, self.position, model["rope_dim"], base, model["neox"])
            queries, keys = [turn(q) for q in queries], [turn(k) for k in keys]
        cache.setdefault("keys", []).append(keys)
        cache.setdefault("values", []).append(values)
        # A window of w: the token itself and the w - 1 before it.
        first = max(0, self.position + 1 - layer["window"]) if layer.get("window") else 0
        group = len(queries) // len(keys)
        out = []
        for head, q in enumerate(queries):
            scores = [dot(q, k[head // group]) / math.sqrt(size) for k in cache["keys"][first:]]
            weights = softmax(scores)
            mixed = [0.0] * size
            for weight, v in zip(weights, cache["values"][first:]):
                mixed = [m + weight * value for m, value in zip(mixed, v[head // group])]
            out += mixed
        if gates is not None:
            out = [value * sigmoid(gate) for value, gate in zip(out, gates)]
        return self.project(layer, "attention_output", out)

    def delta_net(self, layer, cache, h):
        model = self.model
        k_heads, v_heads = model["k_heads"], model["v_heads"]
        size_k, size_v = model["state_dim"], model["value_dim"]
        mixed = self.project(layer, "qkv", h)
        history = cache.setdefault("conv", [[0.0] * len(mixed)] * (len(layer["conv"][0]) - 1))
        history.append(mixed)
        window = history[-len(layer["conv"][0]):]
        mixed = [silu(sum(w * column[c] for w, column in zip(layer["conv"][c], window)))
                 for c in range(len(mixed))]
        queries = heads_of(mixed[:k_heads * size_k], size_k)
        keys = heads_of(mixed[k_heads * size_k:2 * k_heads * size_k], size_k)
        values = heads_of(mixed[2 * k_heads * size_k:], size_v)
        gates = heads_of(self.project(layer, "gate_z", h), size_v)
        betas = [sigmoid(b) for b in matvec(layer["beta"], h)]
        decays = []
        for a, bias, log_a in zip(matvec(layer["alpha"], h), layer["dt_bias"], layer["a_log"]):
            decays.append(math.exp(-math.exp(log_a) * math.log1p(math.exp(a + bias))))
        states = cache.setdefault("state",
                                  [[[0.0] * size_v for _ in range(size_k)] for _ in range(v_heads)])
        out = []
        for head in range(v_heads):
            source = head // (v_heads // k_heads)
            q = [value / math.sqrt(size_k) for value in l2_norm(queries[source])]
            k = l2_norm(keys[source])
            state = [[decays[head] * s for s in row] for row in states[head]]
            recalled = [sum(state[i][j] * k[i] for i in range(size_k)) for j in range(size_v)]
            delta = [betas[head] * (v - r) for v, r in zip(values[head], recalled)]
            state = [[s + k[i] * d for s, d in zip(state[i], delta)] for i in range(size_k)]
            states[head] = state
            read = [sum(state[i][j] * q[i] for i in range(size_k)) for j in range(size_v)]
            normed = rms_norm(read, layer["state_norm"], model["eps"])
            out += [value * silu(gate) for value, gate in zip(normed, gates[head])]
        return self.project(layer, "state_output", out)

    def ffn(self, layer, h):
        gate = self.project(layer, "gate", h)
        up = self.project(layer, "up", h)
        act = gelu if self.model.get("gelu") else silu
        return self.project(layer, "down", [act(g) * u for g, u in zip(gate, up)])

    def experts(self, layer, h):
        model = self.model
        probabilities = softmax(matvec(layer["router"], h))
        ranked = sorted(range(len(probabilities)), key=lambda e: -probabilities[e])
        chosen = ranked[:model["experts_used"]]
        total = sum(probabilities[e] for e in chosen)
        limit = model["clamp"]
        out = [0.0] * len(h)
        for e in chosen:
            gate = [min(g, limit) for g in matvec(layer["gate_experts"][e], h)]
            up = [max(-limit, min(u, limit)) for u in matvec(layer["up_experts"][e], h)]
            y = matvec(layer["down_experts"][e], [silu(g) * u for g, u in zip(gate, up)])
            out = [o + probabilities[e] / total * value for o, value in zip(out, y)]
        return out
