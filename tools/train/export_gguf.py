#!/usr/bin/env python3
"""Writes the trained model as GGUF: F16, TQ1_0, TQ2_0 and I2_S hold the same trits and scales."""

import argparse
import pathlib
import struct

import gguf
import numpy
import sentencepiece
import torch
from gguf import GGMLQuantizationType, quants

from chat_format import BOS_ID, CHAT_TEMPLATE, END_ID, UNKNOWN_ID
from model import BitNet, Config, to_trits, weight_scale

ARCHITECTURE = "bitnet-b1.58"
# general.file_type per format; 40 is I2_S in the BitNet forks.
FILE_TYPES = {"f16": 1, "tq1_0": 36, "tq2_0": 37, "i2_s": 40}
I2_S_TYPE = 36
ALIGNMENT = 32


def trits_and_scale(weight):
    """int8 trits and the scale rounded to F16, which every format can hold exactly."""
    return (to_trits(weight).numpy().astype(numpy.int8),
            numpy.float16(weight_scale(weight).item()))


def encode_i2_s(trits, scale):
    """Blocks of 128 weights: byte j packs weights j, j+32, j+64, j+96 from the high bits down; the
    tensor ends with the scale as F32 in 32 bytes."""
    codes = (trits.reshape(-1) + 1).astype(numpy.uint8).reshape(-1, 4, 32)
    packed = (codes[:, 0] << 6) | (codes[:, 1] << 4) | (codes[:, 2] << 2) | codes[:, 3]
    tail = numpy.zeros(32, numpy.uint8)
    tail[:4] = numpy.frombuffer(numpy.float32(scale).tobytes(), numpy.uint8)
    return numpy.concatenate([packed.reshape(-1), tail])


def projections(block):
    return {"attn_q": block.query, "attn_k": block.key, "attn_v": block.value,
            "attn_output": block.attention_output, "ffn_gate": block.gate, "ffn_up": block.up,
            "ffn_down": block.down}


def norms(block):
    return {"attn_norm": block.attention_norm, "attn_sub_norm": block.attention_sub_norm,
            "ffn_norm": block.ffn_norm, "ffn_sub_norm": block.ffn_sub_norm}


def add_metadata(writer, config, context, tokenizer, file_type):
    writer.add_name("Tern demo 7M")
    writer.add_description("Tiny BitNet b1.58 chat model, trained from scratch for Tern")
    writer.add_license("apache-2.0")
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocabulary)
    writer.add_string(f"{ARCHITECTURE}.hidden_activation", "relu2")
    writer.add_file_type(file_type)
    add_vocabulary(writer, tokenizer)


def token_kind(tokenizer, token):
    if tokenizer.is_unknown(token):
        return gguf.TokenType.UNKNOWN
    if tokenizer.is_control(token):
        return gguf.TokenType.CONTROL
    return gguf.TokenType.BYTE if tokenizer.is_byte(token) else gguf.TokenType.NORMAL


def add_vocabulary(writer, tokenizer):
    size = range(tokenizer.get_piece_size())
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokenizer.id_to_piece(i) for i in size])
    writer.add_token_scores([tokenizer.get_score(i) for i in size])
    writer.add_token_types([token_kind(tokenizer, i) for i in size])
    writer.add_bos_token_id(BOS_ID)
    writer.add_eos_token_id(END_ID)
    writer.add_unk_token_id(UNKNOWN_ID)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_file(path, model, context, tokenizer, file_format):
    """One of the formats that the gguf package can write."""
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    add_metadata(writer, model.config, context, tokenizer, FILE_TYPES[file_format])
    writer.add_tensor("token_embd.weight",
                      model.embedding.weight.detach().numpy().astype(numpy.float16))
    writer.add_tensor("output_norm.weight",
                      model.norm.weight.detach().numpy().astype(numpy.float32))
    zeros = total = 0
    for layer, block in enumerate(model.blocks):
        for name, norm in norms(block).items():
            writer.add_tensor(f"blk.{layer}.{name}.weight",
                              norm.weight.detach().numpy().astype(numpy.float32))
        for name, linear in projections(block).items():
            trits, scale = trits_and_scale(linear.weight.detach())
            zeros += int((trits == 0).sum())
            total += trits.size
            values = trits.astype(numpy.float32) * numpy.float32(scale)
            tensor = f"blk.{layer}.{name}.weight"
            if file_format == "f16":
                writer.add_tensor(tensor, values.astype(numpy.float16))
            else:
                kind = GGMLQuantizationType[file_format.upper()]
                writer.add_tensor(tensor, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return zeros / total


def padded(data):
    return data + bytes(-len(data) % ALIGNMENT)


def write_i2_s(path, f16_path, model):
    """The F16 file with its ternary tensors replaced: the gguf package does not know I2_S, so the
    tensor table is written here."""
    encoded = {}
    for layer, block in enumerate(model.blocks):
        for name, linear in projections(block).items():
            encoded[f"blk.{layer}.{name}.weight"] = encode_i2_s(
                *trits_and_scale(linear.weight.detach()))
    reader = gguf.GGUFReader(f16_path)
    source = pathlib.Path(f16_path).read_bytes()
    head = bytearray(source[:min(tensor.field.offset for tensor in reader.tensors)])
    key = b"general.file_type"
    # The key is followed by its value type and the value, four bytes each.
    value_at = head.find(key) + len(key) + 4
    head[value_at:value_at + 4] = struct.pack("<I", FILE_TYPES["i2_s"])

    table, data = b"", b""
    for tensor in reader.tensors:
        name = tensor.name.encode()
        extents = [int(extent) for extent in tensor.shape]
        if tensor.name in encoded:
            kind, blob = I2_S_TYPE, encoded[tensor.name].tobytes()
        else:
            kind, blob = int(tensor.tensor_type), tensor.data.tobytes()
        table += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(extents))
        table += b"".join(struct.pack("<Q", extent) for extent in extents)
        table += struct.pack("<IQ", kind, len(data))
        data += padded(blob)
    pathlib.Path(path).write_bytes(padded(bytes(head) + table) + data)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True, help="tokenizer.model")
    parser.add_argument("--context", type=int, default=1024, help="that the model was trained for")
    parser.add_argument("--output", required=True, help="prefix: models/tern-demo-7m")
    arguments = parser.parse_args()
    model = BitNet(Config())
    model.load_state_dict(torch.load(arguments.checkpoint, weights_only=True))
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(arguments.tokenizer))
    for file_format in ("f16", "tq1_0", "tq2_0"):
        rate = write_file(f"{arguments.output}-{file_format}.gguf", model, arguments.context,
                          tokenizer, file_format)
    write_i2_s(f"{arguments.output}-i2_s.gguf", f"{arguments.output}-f16.gguf", model)
    print(f"zero rate of the trits: {rate:.4f}")


if __name__ == "__main__":
    main()
