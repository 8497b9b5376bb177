#!/usr/bin/env python3
"""Writes what the trained model must answer, computed by the training code's own forward pass.

golden.json: prompts, greedy tokens and the 20 best log-probabilities after each.
perplexity.json: of held-out chats and of another text, by the definition of docs/decisions.md.
"""

import argparse
import json
import math
import pathlib

import sentencepiece
import torch

from chat_format import BOS_ID, END_ID, encode_chat, turns_of
from model import load_frozen

BEST = 20


@torch.no_grad()
def golden_case(model, tokenizer, prompt, steps=48, stop=True):
    ids, tokens, top = list(prompt), [], []
    for _ in range(steps):
        logprobs = model(torch.tensor([ids]))[0, -1].log_softmax(-1)
        values, indices = logprobs.topk(BEST)
        top.append([[int(i), round(float(v), 5)] for i, v in zip(indices, values)])
        token = int(indices[0])
        tokens.append(token)
        ids.append(token)
        if stop and token == END_ID:
            break
    text = tokenizer.decode([token for token in tokens if token > END_ID])
    return {"prompt": list(prompt), "tokens": tokens, "top": top, "text": text}


@torch.no_grad()
def perplexity(model, tokens, context):
    """Chunks of `context` tokens, the first of each replaced by BOS; positions context/2 to
    context-2 predict the next token."""
    chunks = len(tokens) // context
    nll, scored = 0.0, 0
    for chunk in range(chunks):
        targets = tokens[chunk * context:(chunk + 1) * context]
        inputs = torch.tensor([[BOS_ID, *targets[1:]]])
        logprobs = model(inputs)[0].log_softmax(-1)
        for position in range(context // 2, context - 1):
            nll -= logprobs[position, targets[position + 1]].item()
            scored += 1
    return {"perplexity": round(math.exp(nll / scored), 6), "tokens_scored": scored,
            "chunks": chunks, "tokens": len(tokens)}


def long_conversation(documents, tokenizer, tokens):
    """Turns of several held-out chats, an odd number, at least `tokens` tokens long."""
    turns, index = [], 200
    while sum(len(tokenizer.encode(turn)) + 2 for turn in turns) < tokens:
        turns += turns_of(documents[index])
        index += 1
    return turns[:len(turns) // 2 * 2 - 1]


def make_cases(model, tokenizer, documents):
    def chat(*turns):
        return encode_chat(tokenizer, turns)

    def raw(text):
        return [BOS_ID] + tokenizer.encode(text)

    def case(prompt, **options):
        return golden_case(model, tokenizer, prompt, **options)

    return {
        "movies": case(chat("Do you like movies?")),
        "hello": case(chat("Hi, how are you today?")),
        "story": case(chat("Tell me a story about a dog."), steps=120),
        "who": case(chat("Who are you?")),
        "multi": case(chat("Do you like music?", "Yes, I love music. What kind do you like?",
                           "I like rock and jazz.")),
        "raw": case(raw("Once upon a time there was a little"), steps=64, stop=False),
        "long": case(encode_chat(tokenizer, long_conversation(documents, tokenizer, 620)),
                     steps=32, stop=False),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, help="another text for perplexity.json")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)

    model = load_frozen(arguments.checkpoint, 1024)
    tokenizer = sentencepiece.SentencePieceProcessor(
        model_file=str(arguments.data / "tokenizer.model"))
    documents = json.loads((arguments.data / "documents.json").read_text())["valid_dialogues"]
    cases = make_cases(model, tokenizer, documents)
    (arguments.output / "golden.json").write_text(json.dumps(cases))
    for name, case in cases.items():
        print(f"{name}: {len(case['prompt'])} prompt tokens, {case['text'][:120]!r}")

    dialogues = "\n".join(" ".join(turns_of(document)) for document in documents[:60])
    (arguments.output / "valid_dialog.txt").write_text(dialogues)
    texts = [("valid_dialog@256", dialogues, 256), ("valid_dialog@1024", dialogues, 1024)]
    if arguments.text:
        text = arguments.text.read_text()[:40000].rstrip("\n")
        texts.append((f"{arguments.text.stem}40k@512", text, 512))
    scores = {name: perplexity(model, [BOS_ID] + tokenizer.encode(text), context)
              for name, text, context in texts}
    (arguments.output / "perplexity.json").write_text(json.dumps(scores, indent=1))
    print(json.dumps(scores, indent=1))


if __name__ == "__main__":
    main()
