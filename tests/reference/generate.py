"""Makes tests/data/golden/arch: tiny models with random weights, and what forward.py says of them.

    python3 tests/reference/generate.py OUTPUT_DIRECTORY

The same files every time. Standard library only.
"""

import json
import math
import os
import random
import struct
import sys

import forward
import gguf_file

VOCABULARY = 48
PROMPT = 6


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def matrix(self, rows, cols, spread=None):
        spread = spread or 1 / math.sqrt(cols)
        return [[f32(self.random.gauss(0, spread)) for _ in range(cols)] for _ in range(rows)]

    def norm(self, size, center=1.0):
        return [f32(center + self.random.uniform(-0.3, 0.3)) for _ in range(size)]


def tensor(matrix):
    """GGUF extents and values of a matrix or vector."""
    if not isinstance(matrix[0], list):
        return [len(matrix)], [f32(x) for x in matrix]
    return [len(matrix[0]), len(matrix)], [f32(x) for row in matrix for x in row]


def stacked(matrices):
    values = [x for matrix in matrices for row in matrix for x in row]
    return [len(matrices[0][0]), len(matrices[0]), len(matrices)], values


ATTENTION = {"query": "attn_q", "key": "attn_k", "value": "attn_v", "query_norm": "attn_q_norm",
             "key_norm": "attn_k_norm", "attention_output": "attn_output", "gate": "ffn_gate",
             "up": "ffn_up", "down": "ffn_down", "attention_norm": "attn_norm",
             "ffn_norm": "ffn_norm"}


def base_metadata(arch, model, ffn, context=256):
    heads = len(next(l for l in model["layers"] if "query" in l)["attention_output"][0]) // \
        model["head_dim"]
    kv_heads = len(next(l for l in model["layers"] if "key" in l)["key"]) // model["head_dim"]
    metadata = {
        "general.architecture": arch,
        "general.name": "tiny " + arch,
        arch + ".block_count": len(model["layers"]),
        arch + ".context_length": context,
        arch + ".embedding_length": len(model["embedding"][0]),
        arch + ".attention.head_count": heads,
        arch + ".attention.head_count_kv": kv_heads,
        arch + ".attention.key_length": model["head_dim"],
        arch + ".attention.value_length": model["head_dim"],
        arch + ".attention.layer_norm_rms_epsilon": model["eps"],
        arch + ".rope.dimension_count": model["rope_dim"],
        arch + ".rope.freq_base": model["rope_base"],
        arch + ".vocab_size": VOCABULARY,
    }
    if ffn:
        metadata[arch + ".feed_forward_length"] = ffn
    # A vocabulary of bytes: enough for commands that want a tokenizer.
    tokens = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % (32 + i) for i in range(VOCABULARY - 3)]
    metadata["tokenizer.ggml.model"] = "llama"
    metadata["tokenizer.ggml.tokens"] = (gguf_file.STRING, tokens)
    metadata["tokenizer.ggml.scores"] = (gguf_file.FLOAT32, [0.0] * VOCABULARY)
    metadata["tokenizer.ggml.token_type"] = (gguf_file.INT32, [2, 3, 3] + [6] * (VOCABULARY - 3))
    metadata["tokenizer.ggml.bos_token_id"] = 1
    metadata["tokenizer.ggml.eos_token_id"] = 2
    return metadata


def outer_tensors(model):
    return {"token_embd.weight": tensor(model["embedding"]),
            "output_norm.weight": tensor(model["output_norm"]),
            "output.weight": tensor(model["head"])}


def golden(model, seed, cases=2, length=40):
    result = {}
    for case in range(cases):
        rng = random.Random(seed + case)
        tokens = [rng.randrange(VOCABULARY) for _ in range(length)]
        sequence = forward.Sequence(model)
        top = []
        for position, token in enumerate(tokens[:-1]):
            logprobs = sequence.step(token)
            if position >= PROMPT - 1:
                ranked = sorted(range(VOCABULARY), key=lambda t: -logprobs[t])
                top.append([[t, round(logprobs[t], 6)] for t in ranked[:12]])
        result["case %d" % case] = {"prompt": tokens[:PROMPT], "tokens": tokens[PROMPT:],
                                    "top": top}
    return result


def save(directory, name, metadata, tensors, expected):
    if tensors is not None:
        gguf_file.write(os.path.join(directory, name + ".gguf"), metadata, tensors)
    if expected is not None:
        with open(os.path.join(directory, name + ".json"), "w") as file:
            json.dump(expected, file, separators=(",", ":"))
            file.write("\n")


# ---------------------------------------------------------------------------- llama and LoRA


def llama(seed):
    make = Maker(seed)
    hidden, heads, kv_heads, size, ffn = 64, 4, 2, 16, 96
    layers = []
    for index in range(2):
        layers.append({
            "index": index,
            "attention_norm": make.norm(hidden), "ffn_norm": make.norm(hidden),
            "query": make.matrix(heads * size, hidden), "key": make.matrix(kv_heads * size, hidden),
            "value": make.matrix(kv_heads * size, hidden),
            "attention_output": make.matrix(hidden, heads * size),
            "gate": make.matrix(ffn, hidden), "up": make.matrix(ffn, hidden),
            "down": make.matrix(hidden, ffn)})
    return {"layers": layers, "embedding": make.matrix(VOCABULARY, hidden, 1.0),
            "head": make.matrix(VOCABULARY, hidden), "output_norm": make.norm(hidden),
            "eps": f32(1e-5), "head_dim": size, "rope_dim": size, "rope_base": 10000.0,
            "neox": False}, ffn


def layer_tensors(model, names):
    tensors = {}
    for index, layer in enumerate(model["layers"]):
        for key, name in names.items():
            if key in layer:
                tensors["blk.%d.%s.weight" % (index, name)] = tensor(layer[key])
    return tensors


def lora_adapter(model, seed, alpha, rank, projections):
    make = Maker(seed)
    pairs = {}
    for layer in model["layers"]:
        for name in projections:
            rows, cols = len(layer[name]), len(layer[name][0])
            pairs[(layer["index"], name)] = (make.matrix(rank, cols), make.matrix(rows, rank))
    return {"alpha": alpha, "pairs": pairs}


def save_adapter(directory, name, adapter):
    tensors = {}
    for (index, projection), (a, b) in adapter["pairs"].items():
        base = "blk.%d.%s.weight" % (index, ATTENTION[projection])
        tensors[base + ".lora_a"] = tensor(a)
        tensors[base + ".lora_b"] = tensor(b)
    save(directory, name, {"general.architecture": "llama", "general.type": "adapter",
                           "adapter.type": "lora", "adapter.lora.alpha": adapter["alpha"],
                           "adapter.lora.task_name": name}, tensors, None)


def make_lora(directory):
    model, ffn = llama(1)
    metadata = base_metadata("llama", model, ffn)
    tensors = {**outer_tensors(model), **layer_tensors(model, ATTENTION)}
    save(directory, "llama", metadata, tensors, golden(model, 100))
    every = lora_adapter(model, 2, 8.0, 4, ["query", "key", "value", "attention_output", "gate",
                                            "up", "down"])
    some = lora_adapter(model, 3, 6.0, 3, ["query", "value", "up"])
    save_adapter(directory, "lora-every", every)
    save_adapter(directory, "lora-some", some)
    both = dict(model, adapters=[(0.5, every), (-0.75, some)])
    save(directory, "llama-lora", None, None, golden(both, 100))


# ------------------------------------------------------------------------------ Hadamard


def hadamard(x, block):
    """H x on each block, H[r][c] = (-1)^popcount(r & c) / sqrt(block): by the definition."""
    out = []
    for begin in range(0, len(x), block):
        part = x[begin:begin + block]
        for r in range(block):
            total = sum(-value if bin(r & c).count("1") % 2 else value
                        for c, value in enumerate(part))
            out.append(total / math.sqrt(block))
    return out


def fold(matrix, signs, block):
    """W' with W' H(s * x) = W x: each row is H(s * row)."""
    return [hadamard([s * w for s, w in zip(signs, row)], block) for row in matrix]


def hadamard_metadata(block, signs, names, grouped):
    widths = sorted(signs)
    return {"prism.hadamard.version": 1, "prism.hadamard.block_size": block,
            "prism.hadamard.transform": "normalized-sylvester-walsh-hadamard",
            "prism.hadamard.axis": "input-last-dimension", "prism.hadamard.sign_mode": "explicit",
            "prism.hadamard.sign_widths": (gguf_file.INT32, widths),
            "prism.hadamard.sign_values":
                (gguf_file.INT32, [s for width in widths for s in signs[width]]),
            "prism.hadamard.weight_names": (gguf_file.STRING, names),
            "prism.hadamard.inverse_weight_names": (gguf_file.STRING, ["token_embd.weight"]),
            "prism.hadamard.gdn_v_grouped": grouped}


def rotate_tensors(tensors, names, signs, block):
    """Folds the named tensors and the embedding in place."""
    for name in list(names) + ["token_embd.weight"]:
        extents, values = tensors[name]
        rows = forward.heads_of(values, extents[0])
        tensors[name] = tensor(fold(rows, signs[extents[0]], block))


def make_hadamard(directory):
    model, ffn = llama(1)
    rng = random.Random(5)
    signs = {width: [rng.choice((-1, 1)) for _ in range(width)] for width in (64, 96)}
    tensors = {**outer_tensors(model), **layer_tensors(model, ATTENTION)}
    names = [name for name in tensors if "norm" not in name and name != "token_embd.weight"]
    rotate_tensors(tensors, names, signs, 32)
    metadata = base_metadata("llama", model, ffn)
    metadata.update(hadamard_metadata(32, signs, names, False))
    save(directory, "llama-hadamard", metadata, tensors, None)  # its golden file is llama.json


# -------------------------------------------------------------------------------- qwen35

QWEN35 = {**ATTENTION, "ffn_norm": "post_attention_norm", "qkv": "attn_qkv", "gate_z": "attn_gate",
          "alpha": "ssm_alpha", "beta": "ssm_beta", "conv": "ssm_conv1d", "state_norm": "ssm_norm",
          "state_output": "ssm_out"}


def qwen35(seed):
    make = Maker(seed)
    hidden, heads, kv_heads, size, ffn = 64, 4, 2, 32, 96
    k_heads, v_heads, state, value = 2, 4, 16, 16
    layers = []
    for index in range(5):
        layer = {"index": index, "attention_norm": make.norm(hidden), "ffn_norm": make.norm(hidden),
                 "gate": make.matrix(ffn, hidden), "up": make.matrix(ffn, hidden),
                 "down": make.matrix(hidden, ffn)}
        if index % 4 == 3:
            layer.update({"query": make.matrix(heads * size * 2, hidden),
                          "key": make.matrix(kv_heads * size, hidden),
                          "value": make.matrix(kv_heads * size, hidden),
                          "query_norm": make.norm(size), "key_norm": make.norm(size),
                          "attention_output": make.matrix(hidden, heads * size)})
        else:
            channels = 2 * k_heads * state + v_heads * value
            layer.update({"qkv": make.matrix(channels, hidden),
                          "gate_z": make.matrix(v_heads * value, hidden),
                          "alpha": make.matrix(v_heads, hidden),
                          "beta": make.matrix(v_heads, hidden),
                          "conv": make.matrix(channels, 4, 0.5),
                          "a_log": [f32(make.random.uniform(-3, 1)) for _ in range(v_heads)],
                          "dt_bias": make.norm(v_heads, 0.5), "state_norm": make.norm(value),
                          "state_output": make.matrix(hidden, v_heads * value)})
        layers.append(layer)
    return {"layers": layers, "embedding": make.matrix(VOCABULARY, hidden, 1.0),
            "head": make.matrix(VOCABULARY, hidden), "output_norm": make.norm(hidden),
            "eps": f32(1e-6), "head_dim": size, "rope_dim": 16, "rope_base": 10000.0, "neox": True,
            "gated_attention": True, "k_heads": k_heads, "v_heads": v_heads, "state_dim": state,
            "value_dim": value}, ffn


def tile_heads(items, model, width):
    """Value heads from grouped by key head to tiled, as the public converters write them."""
    per = model["v_heads"] // model["k_heads"]
    parts = forward.heads_of(items, width)
    return [x for j in range(per) for k in range(model["k_heads"]) for x in parts[k * per + j]]


def qwen35_tensors(model):
    tensors = outer_tensors(model)
    keys = 2 * model["k_heads"] * model["state_dim"]
    width = model["value_dim"]
    for index, layer in enumerate(model["layers"]):
        layer = dict(layer)
        prefix = "blk.%d." % index
        if "conv" in layer:
            for name in ("qkv", "conv"):
                layer[name] = layer[name][:keys] + tile_heads(layer[name][keys:], model, width)
            layer["gate_z"] = tile_heads(layer["gate_z"], model, width)
            for name in ("alpha", "beta"):
                layer[name] = tile_heads(layer[name], model, 1)
            layer["state_output"] = [tile_heads(row, model, width) for row in layer["state_output"]]
            minus_a = [-math.exp(a) for a in tile_heads(layer["a_log"], model, 1)]
            tensors[prefix + "ssm_a"] = tensor(minus_a)
            tensors[prefix + "ssm_dt.bias"] = tensor(tile_heads(layer["dt_bias"], model, 1))
        for key, name in QWEN35.items():
            if key in layer:
                tensors[prefix + name + ".weight"] = tensor(layer[key])
    return tensors


def qwen35_metadata(model, ffn):
    metadata = base_metadata("qwen35", model, ffn)
    metadata.update({"qwen35.ssm.conv_kernel": 4, "qwen35.ssm.state_size": model["state_dim"],
                     "qwen35.ssm.group_count": model["k_heads"],
                     "qwen35.ssm.time_step_rank": model["v_heads"],
                     "qwen35.ssm.inner_size": model["v_heads"] * model["value_dim"],
                     "qwen35.full_attention_interval": 4,
                     "qwen35.rope.dimension_sections": (gguf_file.INT32, [3, 3, 2, 0])})
    return metadata


def make_qwen35(directory):
    model, ffn = qwen35(11)
    tensors = qwen35_tensors(model)
    save(directory, "qwen35", qwen35_metadata(model, ffn), tensors, golden(model, 200))

    # Rotated as Bonsai 2 is: the low-rank inputs of the recurrence stay as they are, and ssm_out's
    # columns are in the grouped order.
    rng = random.Random(6)
    signs = {width: [rng.choice((-1, 1)) for _ in range(width)] for width in (64, 96, 128)}
    rotated = dict(tensors)
    for index, layer in enumerate(model["layers"]):
        if "conv" in layer:
            rotated["blk.%d.ssm_out.weight" % index] = tensor(layer["state_output"])
    plain = ("norm", "alpha", "beta", "ssm_a", "ssm_dt", "conv1d", "token_embd")
    names = [name for name in rotated if not any(part in name for part in plain)]
    rotate_tensors(rotated, names, signs, 32)
    metadata = qwen35_metadata(model, ffn)
    metadata.update(hadamard_metadata(32, signs, names, True))
    save(directory, "qwen35-hadamard", metadata, rotated, None)  # its golden file is qwen35.json


# --------------------------------------------------------------------------------- maple


def maple(seed):
    make = Maker(seed)
    hidden, heads, kv_heads, size, expert_ffn, experts, used = 64, 4, 2, 16, 32, 8, 3
    layers = []
    for index in range(4):
        window = index % 4 != 3
        layers.append({
            "index": index, "rope": window, "window": 12 if window else 0,
            "attention_norm": make.norm(hidden), "ffn_norm": make.norm(hidden),
            "query": make.matrix(heads * size, hidden), "key": make.matrix(kv_heads * size, hidden),
            "value": make.matrix(kv_heads * size, hidden), "query_norm": make.norm(size),
            "key_norm": make.norm(size), "attention_output": make.matrix(hidden, heads * size),
            "router": make.matrix(experts, hidden, 0.3),
            # Wide enough that the clamp bites now and then.
            "gate_experts": [make.matrix(expert_ffn, hidden, 0.5) for _ in range(experts)],
            "up_experts": [make.matrix(expert_ffn, hidden, 0.5) for _ in range(experts)],
            "down_experts": [make.matrix(hidden, expert_ffn, 0.1) for _ in range(experts)]})
    return {"layers": layers, "embedding": make.matrix(VOCABULARY, hidden, 1.0),
            "head": make.matrix(VOCABULARY, hidden), "output_norm": make.norm(hidden),
            "eps": f32(1e-6), "head_dim": size, "rope_dim": size, "rope_base": 10000.0,
            "neox": True, "experts_used": used, "clamp": 4.0}, expert_ffn, experts


def make_maple(directory):
    model, expert_ffn, experts = maple(21)
    metadata = base_metadata("maple", model, None)
    metadata.update({
        "maple.expert_count": experts, "maple.expert_used_count": model["experts_used"],
        "maple.expert_feed_forward_length": expert_ffn, "maple.attention.sliding_window": 12,
        "maple.attention.sliding_window_pattern":
            (gguf_file.BOOL, [bool(layer["window"]) for layer in model["layers"]]),
        "maple.swiglu_clamp_exp": (gguf_file.FLOAT32, [model["clamp"]] * len(model["layers"]))})
    names = {**ATTENTION, "router": "ffn_gate_inp"}
    tensors = {**outer_tensors(model), **layer_tensors(model, names)}
    for index, layer in enumerate(model["layers"]):
        for key in ("gate", "up", "down"):
            name = "blk.%d.ffn_%s_exps.weight" % (index, key)
            tensors[name] = stacked(layer[key + "_experts"])
    save(directory, "maple", metadata, tensors, golden(model, 300))


# -------------------------------------------------------------------------------- gemma3

GEMMA3 = {**ATTENTION, "attention_post_norm": "post_attention_norm",
          "ffn_post_norm": "post_ffw_norm"}


def gemma3(seed):
    """Seven layers of which the sixth sees everything."""
    make = Maker(seed)
    hidden, heads, kv_heads, size, ffn, window = 32, 4, 1, 16, 48, 12
    layers = []
    for index in range(7):
        layer = {"index": index, "query_norm": make.norm(size), "key_norm": make.norm(size),
                 "query": make.matrix(heads * size, hidden),
                 "key": make.matrix(kv_heads * size, hidden),
                 "value": make.matrix(kv_heads * size, hidden),
                 "attention_output": make.matrix(hidden, heads * size),
                 "gate": make.matrix(ffn, hidden), "up": make.matrix(ffn, hidden),
                 "down": make.matrix(hidden, ffn)}
        layer.update({name: make.norm(hidden) for name in ("attention_norm", "attention_post_norm",
                                                           "ffn_norm", "ffn_post_norm")})
        if index != 5:
            layer.update({"window": window, "rope_base": 10000.0})
        layers.append(layer)
    embedding = make.matrix(VOCABULARY, hidden, 0.2)
    return {"layers": layers, "embedding": embedding, "head": embedding,
            "output_norm": make.norm(hidden), "eps": f32(1e-6), "head_dim": size, "rope_dim": size,
            "rope_base": 1000000.0, "neox": True, "gelu": True,
            "embedding_scale": f32(math.sqrt(hidden))}, ffn, window


def make_gemma3(directory):
    model, ffn, window = gemma3(31)
    metadata = base_metadata("gemma3", model, ffn)
    metadata["gemma3.attention.sliding_window"] = window
    tensors = {**outer_tensors(model), **layer_tensors(model, GEMMA3)}
    del tensors["output.weight"]
    save(directory, "gemma3", metadata, tensors, golden(model, 500))


# ---------------------------------------------------------------------- BitNet embedding

PROJECTIONS = ("query", "key", "value", "attention_output", "gate", "up", "down")


def f16(x):
    return struct.unpack("<e", struct.pack("<e", x))[0]


def bitnet_embedding(seed, gemma):
    """As the published models: heads wider together than the model, a norm before every
    projection, trits times one scale, and all other tensors in half precision."""
    make = Maker(seed)
    hidden, heads, kv_heads, size, ffn = 128, 4, 1 if gemma else 2, 64, 256
    halves = lambda size: [f16(x) for x in make.norm(size)]
    shapes = {"query": (heads * size, hidden), "key": (kv_heads * size, hidden),
              "value": (kv_heads * size, hidden), "attention_output": (hidden, heads * size),
              "gate": (ffn, hidden), "up": (ffn, hidden), "down": (hidden, ffn)}
    layers = []
    for index in range(3):
        layer = {"index": index, "attention_norm": halves(hidden), "ffn_norm": halves(hidden),
                 "query_norm": halves(size), "key_norm": halves(size)}
        for name, (rows, cols) in shapes.items():
            scale = f32(make.random.uniform(0.8, 1.2) / math.sqrt(cols))
            layer[name] = [[scale * make.random.choice((-1, 0, 1)) for _ in range(cols)]
                           for _ in range(rows)]
            layer[name + "_input_norm"] = halves(cols)
        if gemma:
            layer.update({"attention_post_norm": halves(hidden), "ffn_post_norm": halves(hidden)})
        layers.append(layer)
    embedding = [[f16(x) for x in row] for row in make.matrix(VOCABULARY, hidden, 0.2)]
    model = {"layers": layers, "embedding": embedding, "output_norm": halves(hidden),
             "eps": f32(1e-6), "head_dim": size, "rope_dim": size,
             "rope_base": 10000.0 if gemma else 1000000.0, "neox": True, "int8": True}
    if gemma:
        model.update({"gelu": True, "embedding_scale": f32(math.sqrt(hidden))})
    return model, ffn


EMBEDDING_MODELS = {"bitnet-embedding-qwen3": (41, False), "bitnet-embedding-gemma3": (42, True)}


def make_bitnet_embeddings(directory):
    for name, (seed, gemma) in EMBEDDING_MODELS.items():
        model, ffn = bitnet_embedding(seed, gemma)
        arch = "gemma3" if gemma else "qwen3"
        metadata = base_metadata(arch, model, ffn)
        metadata[arch + ".pooling_type"] = 3
        metadata["tokenizer.ggml.add_bos_token"] = gemma
        metadata["tokenizer.ggml.add_eos_token"] = True
        names = dict(GEMMA3 if gemma else ATTENTION)
        names.update({key + "_input_norm": names[key] + "_norm_in" for key in PROJECTIONS})
        tensors = {"token_embd.weight": tensor(model["embedding"]),
                   "output_norm.weight": tensor(model["output_norm"]),
                   **layer_tensors(model, names)}
        ternary = {ATTENTION[key] + ".weight" for key in PROJECTIONS}
        for key, (extents, values) in tensors.items():
            kind = gguf_file.I2_S if key.split(".", 2)[-1] in ternary else gguf_file.F16
            tensors[key] = (extents, values, kind)
        save(directory, name, metadata, tensors, None)


# ----------------------------------------------------------------------------- embeddings


def make_embeddings(directory):
    """Of models that others write: one with attention in every layer, one with recurrent layers;
    and of models that were made for it."""
    rng = random.Random(400)
    result = {}
    models = [("llama", llama(1)[0]), ("qwen35", qwen35(11)[0])]
    for name, made in EMBEDDING_MODELS.items():
        model = bitnet_embedding(*made)[0]
        models += [(name, model), (name + "-float", dict(model, int8=False))]
    for name, model in models:
        cases = []
        for length in (1, 2, 17, 40):
            tokens = [rng.randrange(VOCABULARY) for _ in range(length)]
            vectors = {pooling: [round(x, 6) for x in forward.embedding(model, tokens, pooling)]
                       for pooling in ("mean", "cls", "last")}
            cases.append({"tokens": tokens, **vectors})
        result[name] = cases
    save(directory, "embeddings", None, None, result)


if __name__ == "__main__":
    target = sys.argv[1]
    make_embeddings(target)
    make_lora(target)
    make_hadamard(target)
    make_qwen35(target)
    make_maple(target)
    make_gemma3(target)
    make_bitnet_embeddings(target)
