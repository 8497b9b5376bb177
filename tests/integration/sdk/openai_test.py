"""python openai_test.py PORT PORT_WITH_KEY

Runs the official client for Python against a server with the model "demo"; the second server knows
the keys sk-right, and sk-one with one request at a time. Prints one line per check and exits with
the number of failures.
"""

import math
import sys
import time
import traceback
import typing
import urllib.request

import openai
import pydantic
from openai.types.responses import (Response, ResponseOutputText, ResponseTextDeltaEvent,
                                    ResponseTextDoneEvent)

PORT, LOCKED_PORT = sys.argv[1:3]
QUESTION = [{"role": "user", "content": "Do you like movies?"}]


def connect(port, key="none", retries=0):
    return openai.OpenAI(base_url="http://127.0.0.1:%s/v1" % port, api_key=key, max_retries=retries)


client = connect(PORT)


def chat(**more):
    return {"model": "demo", "messages": QUESTION, "max_tokens": 24, "temperature": 0, **more}


def error_of(work):
    try:
        work()
    except openai.OpenAIError as error:
        return error
    raise AssertionError("no error was raised")


def metric(name):
    with urllib.request.urlopen("http://127.0.0.1:%s/metrics" % PORT) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name):
                return float(line.split()[-1])
    raise AssertionError(name + " is not there")


def eventually(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("never became true")


def models_are_listed():
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").object == "model"


def chat_answers():
    answer = client.chat.completions.create(**chat())
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id.startswith("req_")


def a_stream_says_what_the_whole_answer_says():
    whole = client.chat.completions.create(**chat())
    text, usage = "", None
    stream = client.chat.completions.create(
        **chat(stream=True, stream_options={"include_usage": True}))
    for chunk in stream:
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content
    assert usage.total_tokens == whole.usage.total_tokens


def the_stream_helper_collects_the_answer():
    whole = client.chat.completions.create(**chat(n=2))
    with client.chat.completions.stream(**chat(n=2)) as stream:
        for _ in stream:
            pass
        collected = stream.get_final_completion()
    for mine, theirs in zip(collected.choices, whole.choices, strict=True):
        assert mine.message.content == theirs.message.content
        assert mine.finish_reason == theirs.finish_reason


class Answer(pydantic.BaseModel):
    mood: typing.Literal["glad", "sad"]
    likes_films: bool


def structured_output_is_parsed():
    params = chat(max_tokens=300, temperature=1, seed=5, response_format=Answer)
    parsed = client.chat.completions.parse(**params).choices[0].message.parsed
    assert isinstance(parsed, Answer)
    with client.chat.completions.stream(**params) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == parsed


class SetMood(pydantic.BaseModel):
    """Sets the mood."""

    mood: typing.Literal["glad", "sad"]
    points: int


def tools_are_called_whole_and_streamed():
    tools = [openai.pydantic_function_tool(SetMood, name="set_mood")]
    params = chat(max_tokens=300, temperature=1, seed=7, tools=tools, tool_choice="required",
                  parallel_tool_calls=False)
    whole = client.chat.completions.parse(**params).choices[0]
    assert whole.finish_reason == "tool_calls" and whole.message.content is None
    call, = whole.message.tool_calls
    assert call.function.name == "set_mood"
    assert isinstance(call.function.parsed_arguments, SetMood)
    pieces = []
    with client.chat.completions.stream(**params) as stream:
        for event in stream:
            if event.type == "tool_calls.function.arguments.delta":
                pieces.append(event.arguments_delta)
        streamed = stream.get_final_completion().choices[0]
    assert len(pieces) > 1 and "".join(pieces) == call.function.arguments
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.tool_calls[0].function.parsed_arguments == call.function.parsed_arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "done"}
    answer = client.chat.completions.create(
        **chat(messages=[*QUESTION, whole.message, result], tools=tools, tool_choice="none"))
    assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls


def responses_call_tools():
    tool = {"type": "function", "strict": True, **{
        key: value for key, value in openai.pydantic_function_tool(SetMood, name="set_mood")
        ["function"].items() if key != "strict"}}
    ask = {"model": "demo", "input": "Do you like movies?", "max_output_tokens": 300,
           "temperature": 0, "tools": [tool], "tool_choice": {"type": "function", "name": "set_mood"}}
    call, = client.responses.create(**ask).output
    assert call.type == "function_call" and SetMood.model_validate_json(call.arguments)
    with client.responses.stream(**ask) as stream:
        assert stream.get_final_response().output[0].arguments == call.arguments
    history = [{"role": "user", "content": ask["input"]}, call.model_dump(),
               {"type": "function_call_output", "call_id": call.call_id, "output": "done"}]
    answer = client.responses.create(**{**ask, "input": history, "tool_choice": "none"})
    assert answer.output_text


def completions():
    params = {"model": "demo", "prompt": "Once upon a time", "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(logprobs=1, **params)
    assert len(whole.choices[0].logprobs.tokens) == whole.usage.completion_tokens
    stream = client.completions.create(stream=True, **params)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def embeddings_by_default_and_as_floats():
    # The client asks for base64 unless it is told otherwise, and decodes it.
    ask = {"model": "demo", "input": ["A fine day", "Rain"]}
    default = client.embeddings.create(**ask)
    floats = client.embeddings.create(encoding_format="float", **ask)
    for mine, theirs in zip(default.data, floats.data, strict=True):
        assert mine.index == theirs.index
        assert len(mine.embedding) == len(theirs.embedding)
        assert all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(mine.embedding, theirs.embedding))
        assert math.isclose(sum(x * x for x in mine.embedding), 1, rel_tol=1e-5)
    assert default.data[0].embedding != default.data[1].embedding
    assert default.usage.prompt_tokens == default.usage.total_tokens > 0
    short = client.embeddings.create(model="demo", input="Rain", dimensions=8)
    assert len(short.data[0].embedding) == 8


def responses_whole_and_streamed():
    ask = {"model": "demo", "instructions": "Be kind.", "input": "Do you like movies?",
           "max_output_tokens": 24, "temperature": 0}
    whole = client.responses.create(**ask)
    assert whole.output_text
    text = ""
    for event in client.responses.create(stream=True, **ask):
        if event.type == "response.output_text.delta":
            text += event.delta
    assert text == whole.output_text
    with client.responses.stream(**ask) as stream:
        assert stream.get_final_response().output_text == whole.output_text


def responses_include_logprobs():
    ask = {"model": "demo", "input": "Do you like movies?", "max_output_tokens": 24,
           "temperature": 0, "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    part = client.responses.create(**ask).output[0].content[0]
    # The SDK does not validate; the types do when they are asked to.
    ResponseOutputText.model_validate(part.model_dump())
    assert "".join(entry.token for entry in part.logprobs).strip() == part.text
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)
    streamed = []
    for event in client.responses.create(stream=True, **ask):
        if event.type == "response.output_text.delta":
            ResponseTextDeltaEvent.model_validate(event.model_dump())
            streamed += event.logprobs
        if event.type == "response.output_text.done":
            ResponseTextDoneEvent.model_validate(event.model_dump())
            assert len(event.logprobs) == len(part.logprobs)
        if event.type == "response.completed":
            Response.model_validate(event.response.model_dump())
    assert [(e.token, e.logprob) for e in streamed] == [(e.token, e.logprob) for e in part.logprobs]


def abort_frees_the_sequence():
    stream = client.chat.completions.create(
        **chat(stream=True, max_tokens=900, extra_body={"ignore_eos": True}))
    for count, _ in enumerate(stream):
        if count == 5:
            break
    stream.close()
    eventually(lambda: metric("tern_requests_running") == 0)
    assert metric("tern_kv_blocks_used") == 0


def errors_have_their_class_code_and_parameter():
    invalid = error_of(lambda: client.chat.completions.create(**chat(temperature=9)))
    assert isinstance(invalid, openai.BadRequestError)
    assert (invalid.code, invalid.param) == ("invalid_value", "temperature")
    missing = error_of(lambda: client.chat.completions.create(**chat(model="gpt-5")))
    assert isinstance(missing, openai.NotFoundError) and missing.code == "model_not_found"
    long = [{"role": "user", "content": "movie " * 3000}]
    context = error_of(lambda: client.chat.completions.create(**chat(messages=long, stream=True)))
    assert isinstance(context, openai.BadRequestError)
    assert context.code == "context_length_exceeded"
    wrong = error_of(lambda: connect(LOCKED_PORT, "sk-wrong").models.list())
    assert isinstance(wrong, openai.AuthenticationError) and wrong.code == "invalid_api_key"
    assert len(connect(LOCKED_PORT, "sk-right").models.list().data) == 1


def what_a_limit_refuses_is_retried():
    def while_busy(retries):
        """Asks while the key sk-one, which may have one request at a time, is busy; the first
        refusal frees it. Returns the statuses that the client saw, and its error."""
        busy = connect(LOCKED_PORT, "sk-one", 10).chat.completions.create(
            **chat(stream=True, max_tokens=900, extra_body={"ignore_eos": True}))
        statuses = []

        def seen(response):
            statuses.append(response.status_code)
            if response.status_code == 429:
                busy.close()

        limited = openai.OpenAI(
            base_url="http://127.0.0.1:%s/v1" % LOCKED_PORT, api_key="sk-one", max_retries=retries,
            http_client=openai.DefaultHttpxClient(event_hooks={"response": [seen]}))
        try:
            limited.chat.completions.create(**chat())
        except openai.OpenAIError as error:
            return statuses, error
        return statuses, None

    statuses, refused = while_busy(0)
    assert statuses == [429]
    assert isinstance(refused, openai.RateLimitError) and refused.code == "rate_limit_exceeded"
    assert int(refused.response.headers["retry-after"]) >= 1
    statuses, error = while_busy(10)
    assert error is None and statuses[0] == 429 and statuses[-1] == 200, (statuses, error)


CHECKS = [models_are_listed, chat_answers, a_stream_says_what_the_whole_answer_says,
          the_stream_helper_collects_the_answer, structured_output_is_parsed,
          tools_are_called_whole_and_streamed, responses_call_tools, completions,
          embeddings_by_default_and_as_floats, responses_whole_and_streamed,
          responses_include_logprobs,
          abort_frees_the_sequence, errors_have_their_class_code_and_parameter,
          what_a_limit_refuses_is_retried]

failures = 0
for check in CHECKS:
    try:
        check()
        print("ok      " + check.__name__.replace("_", " "))
    except Exception:
        failures += 1
        print("FAILED  " + check.__name__.replace("_", " "))
        traceback.print_exc(file=sys.stdout)
sys.exit(failures)
