#!/usr/bin/env python3
"""Turns the public texts (README.md) into chat documents and plain text.

Writes documents.json (lists of documents with chat marks), novels.txt, and tokenizer_text.txt.
"""

import argparse
import gzip
import json
import pathlib
import random
import re

from chat_format import ASSISTANT, END, USER

STRAIGHT = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"'})
STORY_THINGS = ("dog cat bird ball tree fish car boat bear rabbit frog cake flower toy moon park "
                "star duck horse house").split()
END_OF_TEXT = "<|endoftext|>"
NOVEL_CHARACTERS = 24_000_000
TOKENIZER_NOVEL_CHARACTERS = 4_000_000


def tidy(text):
    """One line, straight quotes, a capital first."""
    text = re.sub(r"\s+", " ", text.translate(STRAIGHT)).strip()
    return text[:1].upper() + text[1:]


def exchange(question, answer):
    return f"{USER}{question}{END}{ASSISTANT}{answer}{END}"


def dialogues(path):
    for line in gzip.open(path, "rt", encoding="utf-8"):
        turns = [tidy(turn) for turn in json.loads(line)["turns"]]
        turns = [turn for turn in turns if turn]
        if len(turns) < 4:
            continue
        turns = turns[:len(turns) // 2 * 2]
        yield "".join((USER if i % 2 == 0 else ASSISTANT) + turn + END
                      for i, turn in enumerate(turns))


def request_for(story):
    requests = ["Tell me a story.", "Can you tell me a story?", "I would like to hear a story."]
    things = [thing for thing in STORY_THINGS if re.search(rf"\b{thing}\b", story)]
    if things:
        requests += [f"Tell me a story about a {random.choice(things)}."] * 4
    name = re.search(r"(?:named|called) ([A-Z][a-z]+)", story)
    if name:
        requests += [f"Tell me a story about {name.group(1)}."] * 2
    return random.choice(requests)


def tiny_stories(path):
    # The last one is cut by the end of the slice.
    for story in path.read_text(errors="ignore").split(END_OF_TEXT)[:-1]:
        story = re.sub(r"[ \t]+", " ", story.strip().translate(STRAIGHT))
        yield exchange(request_for(story), story)


def titled_stories(path):
    for story in path.read_text().split(END_OF_TEXT):
        title, separator, body = story.strip().partition("\n\n")
        if separator:
            yield exchange(f'Tell me a story called "{tidy(title)}".',
                           re.sub(r"\s+", " ", body).strip())


def identities(path):
    for entry in json.loads(path.read_text()):
        answer = entry["output"].replace("{{name}}", "Tern")
        answer = answer.replace("{{author}}", "the Tern project")
        yield exchange(tidy(entry["instruction"]), tidy(answer))


def hold_out(documents, every):
    held = documents[::every]
    return [d for i, d in enumerate(documents) if i % every], held


def write_tokenizer_text(path, documents, novels):
    def plain(document):
        return re.sub(r"<\|\w+\|>", "\n", document)

    with open(path, "w", encoding="utf-8") as out:
        for document in documents["dialogues"]:
            out.write(plain(document) + "\n")
        for document in documents["stories"] * 2:
            out.write(plain(document) + "\n")
        for text in documents["fairytales"]:
            out.write(text + "\n")
        for start in range(0, min(len(novels), TOKENIZER_NOVEL_CHARACTERS), 2000):
            out.write(novels[start:start + 2000] + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--self-dialogue", type=pathlib.Path, required=True, help="JSONL, gzipped")
    parser.add_argument("--tiny-stories", type=pathlib.Path, required=True)
    parser.add_argument("--african-storybook", type=pathlib.Path, required=True)
    parser.add_argument("--fairytales", type=pathlib.Path, required=True)
    parser.add_argument("--identity", type=pathlib.Path, required=True, help="JSON")
    parser.add_argument("--novels", type=pathlib.Path, required=True, help="text, gzipped")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)

    documents = {}
    documents["dialogues"], documents["valid_dialogues"] = hold_out(
        list(dialogues(arguments.self_dialogue)), 50)
    stories = list(tiny_stories(arguments.tiny_stories))
    stories += titled_stories(arguments.african_storybook)
    documents["stories"], documents["valid_stories"] = hold_out(stories, 40)
    documents["identity"] = list(identities(arguments.identity))
    documents["fairytales"] = re.sub(
        r"[ \t]+", " ", arguments.fairytales.read_text()).split(END_OF_TEXT)
    with gzip.open(arguments.novels, "rt", errors="ignore") as file:
        novels = re.sub(r"\s+", " ", file.read())[:NOVEL_CHARACTERS]

    (arguments.out / "documents.json").write_text(json.dumps(documents))
    (arguments.out / "novels.txt").write_text(novels)
    write_tokenizer_text(arguments.out / "tokenizer_text.txt", documents, novels)
    for name, items in documents.items():
        print(f"{name}: {len(items)} documents")


if __name__ == "__main__":
    main()
