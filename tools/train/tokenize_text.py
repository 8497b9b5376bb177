#!/usr/bin/env python3
"""Encodes the documents into one file of 16-bit ids per source."""

import argparse
import json
import pathlib

import numpy
import sentencepiece

from chat_format import encode_document

NOVEL_PIECE = 100_000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True,
                        help="folder with documents.json, novels.txt and tokenizer.model")
    data = parser.parse_args().data
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(data / "tokenizer.model"))

    for name, items in json.loads((data / "documents.json").read_text()).items():
        ids = [token for item in items for token in encode_document(tokenizer, item)]
        numpy.array(ids, dtype=numpy.uint16).tofile(data / f"{name}.bin")
        print(f"{name}: {len(ids)} tokens")

    novels = (data / "novels.txt").read_text()
    ids = [token for start in range(0, len(novels), NOVEL_PIECE)
           for token in tokenizer.encode(novels[start:start + NOVEL_PIECE])]
    numpy.array(ids, dtype=numpy.uint16).tofile(data / "novels.bin")
    print(f"novels: {len(ids)} tokens")


if __name__ == "__main__":
    main()
