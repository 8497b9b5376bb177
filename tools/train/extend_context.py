#!/usr/bin/env python3
"""Goes on training at 1,024 tokens, so that long conversations work."""

import argparse
import pathlib
import time

import numpy
import torch

from chat_format import BOS_ID
from model import BitNet, Config
from train import evaluate

SHARES = {"dialogues": .74, "stories": .19, "identity": .02, "fairytales": .05}


def draw_batch(tokens, random, context, size):
    """Half of the windows lose their BOS, which glues dialogues to long conversations."""
    names = list(SHARES)
    windows = []
    for _ in range(size):
        source = tokens[random.choice(names, p=[SHARES[n] for n in names])]
        start = int(random.integers(0, max(1, len(source) - 2 * context)))
        window = source[start:start + 2 * context]
        if random.random() < 0.5:
            window = window[window != BOS_ID]
        windows.append(window[:context + 1])
    batch = torch.from_numpy(numpy.stack(windows).astype(numpy.int64))
    return batch[:, :-1], batch[:, 1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True, help="of train.py")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="checkpoint to write")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2.5e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    random = numpy.random.default_rng(arguments.seed)

    model = BitNet(Config(context=arguments.context))
    model.load_state_dict(torch.load(arguments.checkpoint, weights_only=True))
    tokens = {name: numpy.fromfile(arguments.data / f"{name}.bin", dtype=numpy.uint16)
              for name in (*SHARES, "valid_dialogues")}
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate, betas=(0.9, 0.95),
                                  weight_decay=0.0)

    def report(when):
        losses = [evaluate(model, tokens["valid_dialogues"], context, 8)
                  for context in (256, arguments.context)]
        print(f"{when}: held-out dialogues {losses}", flush=True)

    report("before")
    start = time.time()
    for step in range(arguments.steps):
        rate = arguments.rate * min(1, (step + 1) / 20) * (0.1 + 0.9 * (1 - step / arguments.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = draw_batch(tokens, random, arguments.context, arguments.batch)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=step < arguments.steps * 0.85):
            loss = model(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 25 == 0:
            print(f"step {step} loss {loss.item():.3f} {time.time() - start:.0f} s", flush=True)
    report("after")
    torch.save(model.state_dict(), arguments.output)


if __name__ == "__main__":
    main()
