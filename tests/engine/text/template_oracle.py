"""Python's Jinja2, set up as transformers sets it up for chat templates.

The environment is ImmutableSandboxedEnvironment with trim_blocks, lstrip_blocks, loop controls, the
{% generation %} tag, a tojson that is json.dumps, raise_exception and strftime_now.
"""
import datetime
import json

import jinja2
import jinja2.ext
import jinja2.sandbox


class Generation(jinja2.ext.Extension):
    """{% generation %}: marks the assistant's part, prints its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_render")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


class Raised(jinja2.TemplateError):
    """The template called raise_exception."""


def make_environment(now):
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    def raise_exception(message):
        raise Raised(message)

    def strftime_now(format):
        moment = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
        return moment.replace(tzinfo=None).strftime(format)

    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


def render(template, variables, now, cache={}):
    """The text, or the exception that Jinja raised."""
    if now not in cache:
        cache[now] = (make_environment(now), {})
    environment, compiled = cache[now]
    try:
        if template not in compiled:
            if len(compiled) > 500:
                compiled.clear()
            compiled[template] = environment.from_string(template)
        return compiled[template].render(**variables)
    except Exception as error:  # whatever Python raises is an answer
        return error
