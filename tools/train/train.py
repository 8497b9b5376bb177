#!/usr/bin/env python3
"""Trains the model from scratch on sequences of 256 tokens (about 6 hours on two CPU cores)."""

import argparse
import math
import pathlib
import time

import numpy
import torch

from chat_format import BOS_ID
from model import BitNet, Config

SOURCES = ("dialogues", "stories", "identity", "fairytales", "novels")


def mixture(progress):
    """Share of each source: plain text first, conversations at the end."""
    if progress < 0.5:
        return {"dialogues": .50, "stories": .16, "fairytales": .10, "novels": .23, "identity": .01}
    if progress < 0.8:
        return {"dialogues": .68, "stories": .20, "fairytales": .05, "novels": .06, "identity": .01}
    return {"dialogues": .77, "stories": .21, "identity": .02}


class Sampler:
    """Draws windows of tokens; later in training those of chats begin with a document."""

    def __init__(self, data, context, seed):
        self.tokens = {name: numpy.fromfile(data / f"{name}.bin", dtype=numpy.uint16)
                       for name in SOURCES}
        self.starts = {name: numpy.flatnonzero(self.tokens[name] == BOS_ID)
                       for name in ("dialogues", "stories", "identity")}
        self.context = context
        self.random = numpy.random.default_rng(seed)

    def batch(self, size, progress):
        shares = mixture(progress)
        names = list(shares)
        windows = []
        for _ in range(size):
            name = self.random.choice(names, p=[shares[n] for n in names])
            tokens = self.tokens[name]
            if name in self.starts and progress > 0.3:
                start = int(self.random.choice(self.starts[name]))
            else:
                start = int(self.random.integers(0, len(tokens) - self.context - 1))
            start = min(start, len(tokens) - self.context - 2)
            windows.append(tokens[start:start + self.context + 1])
        batch = torch.from_numpy(numpy.stack(windows).astype(numpy.int64))
        return batch[:, :-1], batch[:, 1:]


@torch.no_grad()
def evaluate(model, tokens, context, windows):
    """Mean loss over windows spread evenly over the tokens."""
    model.eval()
    losses = []
    for i in range(windows):
        start = i * ((len(tokens) - context - 2) // windows)
        window = torch.from_numpy(tokens[start:start + context + 1].astype(numpy.int64))[None]
        losses.append(model(window[:, :-1], window[:, 1:]).item())
    model.train()
    return sum(losses) / len(losses)


def make_optimizer(model, rate):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1},
                              {"params": vectors, "weight_decay": 0.0}], lr=rate,
                             betas=(0.9, 0.95))


def set_schedule(optimizer, step, progress, rate):
    """Warm-up, then cosine to 3 %; no weight decay in the second half, as BitNet trains."""
    rate *= min(1, (step + 1) / 200) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress)))
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.param_groups[0]["weight_decay"] = 0.1 if progress < 0.5 else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True, help="file to write")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)

    config = Config()
    model = BitNet(config)
    sampler = Sampler(arguments.data, config.context, arguments.seed)
    valid = {name: numpy.fromfile(arguments.data / f"{name}.bin", dtype=numpy.uint16)
             for name in ("valid_dialogues", "valid_stories")}
    optimizer = make_optimizer(model, arguments.rate)
    start = time.time()
    for step in range(arguments.steps):
        progress = step / arguments.steps
        set_schedule(optimizer, step, progress, arguments.rate)
        inputs, targets = sampler.batch(arguments.batch, progress)
        # The last steps run in full precision, as the exported model will.
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=progress < 0.94):
            loss = model(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.3f} {time.time() - start:.0f} s", flush=True)
        if step % 500 == 499 or step == arguments.steps - 1:
            losses = {name: evaluate(model, tokens, config.context, 12)
                      for name, tokens in valid.items()}
            print(f"step {step} held out {losses}", flush=True)
            torch.save(model.state_dict(), arguments.checkpoint)


if __name__ == "__main__":
    main()
