"""The matrix of conversations and options that every template is rendered with."""
import itertools

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Current weather of a city, "as measured".\nSecond line.',
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name, e.g. Zürich 🏔"},
                "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                "days": {"type": "integer", "description": "How many <days>", "default": 1},
            },
            "required": ["city"],
        },
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Searches.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "array", "items": {"type": "string"}, "nullable": True,
                          "description": " words "},
                "limit": {"type": ["integer", "null"], "description": "most results"},
                "filter": {"oneOf": [{"type": "string", "description": "text", "default": "a"},
                                     {"type": "number"}], "description": "either"},
                "options": {"type": "object", "description": "nested", "properties": {
                    "deep": {"type": "object", "additionalProperties": {"type": "boolean"}},
                    "ratio": {"type": "number", "default": 0.1},
                    "list": {"type": "array", "items": {"type": "object", "properties": {
                        "x": {"type": "boolean"}}}}}},
            },
            "required": ["query", "limit"],
        },
        "return": {"type": "string", "description": "found"},
    },
}
NO_PARAMETERS = {"type": "function", "function": {
    "name": "now", "description": "The time.",
    "parameters": {"type": "object", "properties": {}}}}
FLAT_TOOL = {"name": "flat", "description": "Not wrapped.", "parameters": {
    "type": "object", "properties": {"a": {"type": "number", "description": "A"}},
    "required": []}}


def call(name, arguments, id="abc123def"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "You are  terse.\n"}
UNICODE = "Grüße, Ωmega ﬁn 日本語 👩‍👩‍👧 \u2028 end\u00a0"
QUOTES = "She said \"it's\" \\n \\\\ {{ x }} {% if %} <b>&amp;</b>\ttab\r\nline\n\n\x7f\x01"

CONVERSATIONS = {
    "user": [{"role": "user", "content": "Hello"}],
    "system_user": [SYSTEM, {"role": "user", "content": "  Hi there \n"}],
    "multi_turn": [
        SYSTEM,
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "and 2+2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "thanks"},
    ],
    "assistant_last": [
        {"role": "user", "content": "Say it"},
        {"role": "assistant", "content": "  It.\n\n"},
    ],
    "thinking": [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "<think>\nhmm\nhm\n</think>\n\nBecause.\n"},
        {"role": "user", "content": "Really?"},
        {"role": "assistant", "content": "Yes.", "reasoning_content": "\nI think so\n"},
    ],
    "thinking_field": [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because", "thinking": "plan", "reasoning_content": None},
    ],
    "unicode": [
        {"role": "system", "content": UNICODE},
        {"role": "user", "content": UNICODE + UNICODE},
        {"role": "assistant", "content": "ΣΑΣ. ǅ İ ß"},
        {"role": "user", "content": "🎉" * 5},
    ],
    "quotes": [
        {"role": "user", "content": QUOTES},
        {"role": "assistant", "content": QUOTES[::-1]},
        {"role": "user", "content": "'" + QUOTES + "'"},
    ],
    "empty_content": [
        {"role": "system", "content": ""},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": " "},
    ],
    "none_content": [
        {"role": "user", "content": "Call it"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "and?"},
    ],
    "missing_content": [
        {"role": "user", "content": "x"},
        {"role": "assistant"},
        {"role": "user", "content": "y"},
    ],
    "parts": [
        {"role": "user", "content": [{"type": "text", "text": "One "},
                                     {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "three"}]},
        {"role": "user", "content": ["plain", {"type": "image", "url": "u"}]},
    ],
    "apertus_parts": [
        {"role": "system", "content": {"text": "sys"}},
        {"role": "user", "content": {"parts": [{"type": "text", "text": "p1"},
                                               {"type": "text", "text": "p2"}]}},
        {"role": "assistant", "content": {"blocks": [
            {"type": "thoughts", "text": "t"},
            {"type": "tool_calls", "calls": [{"name": "f", "arguments": "{}"},
                                             {"name": "g", "arguments": "{\"a\": 1}"}]},
            {"type": "tool_outputs", "outputs": [{"output": "1"}, {"output": "2"}]},
            {"type": "response", "text": "r"},
        ]}},
    ],
    "tool_object_arguments": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [
            call("get_weather", {"city": "Zürich \"ZH\"", "days": 3, "ratio": 0.5, "flag": True,
                                 "none": None, "list": [1, 2.0, {"a": []}], "big": 1e22})]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "abc123def",
         "content": "{\"temp\": 21.5}"},
        {"role": "assistant", "content": "21.5 degrees."},
        {"role": "user", "content": "Thanks"},
    ],
    "tool_string_arguments": [
        SYSTEM,
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [
            call("get_weather", "{\"city\": \"Zürich\"}")]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "abc123def", "content": "warm"},
    ],
    "two_calls": [
        {"role": "user", "content": "Both"},
        {"role": "assistant", "content": "Working", "tool_calls": [
            call("get_weather", {"city": "A"}, "123456789"),
            call("search", {"query": ["a", "b"]}, "987654321")]},
        {"role": "tool", "tool_call_id": "123456789", "content": "one"},
        {"role": "tool", "tool_call_id": "987654321", "content": {"k": "v", "n": [1]}},
        {"role": "assistant", "content": "Done."},
    ],
    "flat_calls": [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "tool_calls": [{"name": "flat", "arguments": {"a": 1}}]},
        {"role": "tool", "content": [{"output": "x"}, "y"]},
    ],
    "call_without_content": [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "tool_calls": [call("now", {})], "thinking": "must call"},
        {"role": "tool", "content": "12:00", "tool_call_id": "abc123def"},
        {"role": "user", "content": "<tool_response>fake</tool_response>"},
    ],
    "bad_call_id": [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": "", "tool_calls": [call("now", {}, "short")]},
    ],
    "two_users": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "assistant_first": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}],
    "late_system": [{"role": "user", "content": "a"}, SYSTEM, {"role": "user", "content": "b"}],
    "unknown_role": [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}],
    "developer": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "a"}],
    "ipython": [
        {"role": "user", "content": "run"},
        {"role": "assistant", "content": "", "tool_calls": [call("brave_search", {"query": "q"})]},
        {"role": "ipython", "content": {"output": ["x"]}},
    ],
    "channel_tags": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<|channel|>analysis<|message|>no"},
    ],
    "thinking_switch": [
        {"role": "system", "content": "/no_think Be good. /think"},
        {"role": "user", "content": "a /nothink"},
        {"role": "assistant", "content": "\n\n<think></think>b"},
        {"role": "user", "content": "c"},
    ],
    "tool_first": [{"role": "tool", "content": "orphan"}, {"role": "user", "content": "b"}],
    "empty": [],
}

TOOLS = {
    "no_tools": {},
    "tools_none": {"tools": None},
    "tools_empty": {"tools": []},
    "tools": {"tools": [WEATHER, SEARCH, NO_PARAMETERS]},
    "flat_tool": {"tools": [FLAT_TOOL]},
}

EXTRAS = {
    "plain": {},
    "thinking_on": {"enable_thinking": True, "thinking": True, "reasoning_effort": "high"},
    "thinking_off": {"enable_thinking": False, "model_identity": "You are Tern."},
    "documents": {
        "documents": [{"doc_id": 1, "title": "T", "text": "First \"doc\""},
                      {"doc_id": "b", "text": "Zweites Dokument ß"}],
        "controls": {"citations": True, "hallucinations": True, "length": "short"},
    },
    "builtin_tools": {
        "builtin_tools": ["browser", "python", "code_interpreter", "brave_search"],
        "date_string": "1 Jan 2026", "tools_in_user_message": False,
    },
}


def variables():
    """Yields (name, variables) for every combination."""
    for (conversation, messages), (tools, with_tools), (extra, more), prompt in itertools.product(
        CONVERSATIONS.items(), TOOLS.items(), EXTRAS.items(), (True, False)
    ):
        yield (
            f"{conversation}/{tools}/{extra}/{'prompt' if prompt else 'no prompt'}",
            {
                "messages": messages,
                "add_generation_prompt": prompt,
                "bos_token": "<s>",
                "eos_token": "</s>",
                **with_tools,
                **more,
            },
        )
