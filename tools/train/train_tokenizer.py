#!/usr/bin/env python3
"""Trains the SentencePiece vocabulary: 4,096 BPE pieces with byte fallback and the chat marks."""

import argparse
import pathlib

import sentencepiece

from chat_format import ASSISTANT, BOS_ID, END, SYSTEM, UNKNOWN_ID, USER, VOCABULARY


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True,
                        help="folder of prepare_text.py; tokenizer.model is written there")
    arguments = parser.parse_args()
    sentencepiece.SentencePieceTrainer.train(
        input=str(arguments.data / "tokenizer_text.txt"),
        model_prefix=str(arguments.data / "tokenizer"),
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        unk_id=UNKNOWN_ID,
        bos_id=BOS_ID,
        eos_id=2,
        # Ids 3 to 6, in this order.
        control_symbols=[USER, ASSISTANT, SYSTEM, END],
        # Text is encoded as it is, so that decoding gives it back.
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        character_coverage=0.9995,
        max_sentence_length=16384,
    )


if __name__ == "__main__":
    main()
