"""The demo model's vocabulary conventions, shared by every step of the recipe."""

import re

USER, ASSISTANT, SYSTEM, END = "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
UNKNOWN_ID, BOS_ID = 0, 1
SPECIAL_IDS = {USER: 3, ASSISTANT: 4, SYSTEM: 5, END: 6}
END_ID = SPECIAL_IDS[END]
VOCABULARY = 4096

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}<|user|>{{ m['content'] | trim }}<|end|>"
    "{% elif m['role'] == 'assistant' %}<|assistant|>{{ m['content'] | trim }}<|end|>"
    "{% elif m['role'] == 'system' %}<|system|>{{ m['content'] | trim }}<|end|>"
    "{% else %}{{ raise_exception('Only system, user and assistant messages are supported.') }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}")

_MARK = re.compile(r"(<\|\w+\|>)")


def encode_document(tokenizer, text):
    """Ids of one document: BOS, then text with its marks as single ids."""
    ids = [BOS_ID]
    for part in _MARK.split(text):
        if part in SPECIAL_IDS:
            ids.append(SPECIAL_IDS[part])
        elif part:
            ids += tokenizer.encode(part)
    return ids


def turns_of(document):
    """The turns of a document, without its marks."""
    return [part for part in _MARK.split(document) if part and part not in SPECIAL_IDS]


def encode_chat(tokenizer, turns):
    """A conversation that the assistant answers next; user and assistant alternate."""
    ids = [BOS_ID]
    for index, turn in enumerate(turns):
        role = USER if index % 2 == 0 else ASSISTANT
        ids += [SPECIAL_IDS[role]] + tokenizer.encode(turn) + [END_ID]
    return ids + [SPECIAL_IDS[ASSISTANT]]
