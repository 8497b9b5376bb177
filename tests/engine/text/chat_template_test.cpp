// A chat template renders as Jinja renders it, fails with a sentence, and can't crash, hang or fill
// the memory of the server, whatever the template in the model file does. Equality with Python's
// Jinja2 over many conversations is in check_templates.py; the expected texts here came from it.

#include "engine/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/engine/text/template_values.h"

namespace engine::text {
namespace {

using ::testing::HasSubstr;

Object Conversation() {
  const auto json = nlohmann::ordered_json::parse(R"json({
    "messages": [{"role": "system", "content": " Be brief. "},
                 {"role": "user", "content": "Grüße 🎉"},
                 {"role": "assistant", "content": "Hi\n"}],
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true,
    "data": {"b": 1, "a": [1.0, null, true, "x'y"], "items": "shadowed"}
  })json");
  return *tests::ToValue(json).as_object();
}

std::string Render(const std::string& source) {
  return ChatTemplate(source).Render(Conversation(), 1789000000);
}

// The message of the TemplateError that compiling or rendering ends with.
std::string ErrorOf(const std::string& source, const TemplateLimits& limits = {}) {
  try {
    const std::string text = ChatTemplate(source, limits).Render(Conversation(), 0);
    return "rendered " + text.substr(0, 100);
  } catch (const TemplateError& error) {
    return error.what();
  }
}

std::string Repeat(std::string_view text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

TEST(ChatTemplate, RendersTheBundledTemplate) {
  const std::string bundled =
      "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] | "
      "trim }}<|end|>{% elif m['role'] == 'assistant' %}<|assistant|>{{ m['content'] | trim "
      "}}<|end|>{% elif m['role'] == 'system' %}<|system|>{{ m['content'] | trim }}<|end|>{% else "
      "%}{{ raise_exception('Only system, user and assistant messages are supported.') }}{% endif "
      "%}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
  EXPECT_EQ(Render(bundled),
            "<s><|system|>Be brief.<|end|><|user|>Grüße 🎉<|end|><|assistant|>Hi<|end|>"
            "<|assistant|>");
}

struct Case {
  const char* source;
  const char* expected;
};

class Expressions : public ::testing::TestWithParam<Case> {};

TEST_P(Expressions, RenderAsInJinja) { EXPECT_EQ(Render(GetParam().source), GetParam().expected); }

INSTANTIATE_TEST_SUITE_P(
    ChatTemplate, Expressions,
    ::testing::Values(
        Case{"{{ 1 + 2 * 3 }} {{ 2 ** 3 ** 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }}",
             "7 64 -4 2 3.5"},
        Case{"{{ 1e16 }} {{ 0.1 + 0.2 }} {{ 1e-5 }} {{ 100.0 }} {{ 1.5e300 * 1.5e300 }}",
             "1e+16 0.30000000000000004 1e-05 100.0 inf"},
        Case{"{{ [none, true, 1.0, 'a', \"it's\"] }}", "[None, True, 1.0, 'a', \"it's\"]"},
        Case{"{{ data }}", "{'b': 1, 'a': [1.0, None, True, \"x'y\"], 'items': 'shadowed'}"},
        Case{"{{ data | tojson }}",
             "{\"b\": 1, \"a\": [1.0, null, true, \"x'y\"], \"items\": "
             "\"shadowed\"}"},
        Case{"{{ data['items'] }} {{ data.items() | list | length }}", "shadowed 3"},
        Case{"{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 'a' in 'cat' }} {{ 4 not in [1, 2] }}",
             "True False True True"},
        Case{"{{ missing }}|{{ missing is defined }}|{{ missing | default('d') }}", "|False|d"},
        Case{"{{ 'x' if missing else 'y' }}{{ 'z' if false }}", "y"},
        Case{"{{ messages[-1].content[::-1] }}", "\niH"},
        Case{"{{ messages[1].content | length }} {{ messages[1].content[2:4] }}", "7 üß"},
        Case{"{{ '%s is %05.1f%%' % ('x', 2.25) }} {{ '{:>5}|{!r}'.format('a', 'b') }}",
             "x is 002.2%     a|'b'"},
        Case{"{{ 'straße ΣΑΣ'.upper() }} {{ 'ΣΑΣ'.lower() }} {{ 'ǆ ﬁ'.title() }}",
             "STRASSE ΣΑΣ σας ǅ Fi"},
        Case{"{% set ns = namespace(x=1) %}{% for i in range(3) %}{% set ns.x = ns.x + i %}"
             "{% set y = i %}{% endfor %}{{ ns.x }}{{ y is defined }}",
             "4False"},
        Case{"{% for k, v in data.items() if v != 1 %}{{ loop.index }}{{ k }}{{ loop.last }} "
             "{% else %}none{% endfor %}",
             "1aFalse 2itemsTrue "},
        Case{"{% for i in [1, 2, 3, 4] %}{% if i == 2 %}{% continue %}{% elif i == 4 %}{% break %}"
             "{% endif %}{{ i }}{% endfor %}",
             "13"},
        Case{
            "{% macro m(a, b='B') %}{{ a }}{{ b }}{{ caller('c') if caller else '' }}{% endmacro %}"
            "{{ m(1) }} {{ m(b=2, a=3) }} {% call(x) m('q') %}[{{ x }}]{% endcall %}",
            "1B 32 qB[c]"},
        Case{"{% for n in [[1, [2]], [3]] recursive %}{{ loop.depth }}{% if n is iterable %}"
             "({{ loop(n) }}){% else %}={{ n }} {% endif %}{% endfor %}",
             "1(2=1 2(3=2 ))1(2=3 )"},
        Case{"{% set x %} a{{ 1 }} {% endset %}{{ x | trim }}{% filter upper %}b{% endfilter %}",
             "a1B"},
        Case{"a\n  {% if true %}\n  b\n  {% endif %}\n {{- ' c' -}} \n d {# e #}\n f",
             "a\n  b\n cd  f"},
        Case{"{% raw %}{{ x }}{% endraw %} {{ '{{' }} {{ 'a' 'b' }}", "{{ x }} {{ ab"},
        Case{"{% generation %}{{ 1 }}{% endgeneration %}{{ strftime_now('%d %b %Y') }}",
             "110 Sep 2026"},
        Case{"{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | "
             "join }}",
             "Grüße 🎉"},
        Case{
            "{{ {'z': [1, {'y': 2.50}], 'a': '\\u00e9\"'} | tojson(indent=2) }}",
            "{\n  \"z\": [\n    1,\n    {\n      \"y\": 2.5\n    }\n  ],\n  \"a\": \"é\\\"\"\n}"}));

TEST(ChatTemplate, FailsWithTheTemplatesOwnMessage) {
  try {
    Render("{% if true %}\n{{ raise_exception('Roles must alternate') }}{% endif %}");
    FAIL() << "nothing was raised";
  } catch (const TemplateError& error) {
    EXPECT_TRUE(error.raised());
    EXPECT_STREQ(error.what(), "Roles must alternate");
  }
}

TEST(ChatTemplate, ErrorsNameLineAndReason) {
  EXPECT_EQ(ErrorOf("\n\n{{ missing.attribute }}"), "line 3: 'missing' is undefined");
  EXPECT_EQ(ErrorOf("{{ data.none.such }}"), "line 1: 'dict object' has no attribute 'none'");
  EXPECT_EQ(ErrorOf("a\n{{ 'x' + 1 }}"), "line 2: can only concatenate str (not \"int\") to str");
  EXPECT_EQ(ErrorOf("{{ 1 / 0 }}"), "line 1: division by zero");
  EXPECT_EQ(ErrorOf("{{ 9223372036854775807 + 1 }}"), "line 1: an integer does not fit 64 bits");
  EXPECT_EQ(ErrorOf("\n{{ x | nonsense }}"), "line 2: No filter named 'nonsense'.");
  EXPECT_THAT(ErrorOf("{{ messages.append(1) }}"), HasSubstr("unsafe"));
  EXPECT_THAT(ErrorOf("{{ ''.__class__.__mro__ }}"), HasSubstr("unsafe"));
  EXPECT_THAT(ErrorOf("{% if x %}"), HasSubstr("expected 'elif'"));
  EXPECT_THAT(ErrorOf("{{ (1 }}"), HasSubstr("line 1: "));
  EXPECT_THAT(ErrorOf("{{ 'abc }}"), HasSubstr("line 1: "));
  EXPECT_THAT(ErrorOf("{# open"), HasSubstr("Missing end of comment"));
  EXPECT_THAT(ErrorOf("{% break %}"), HasSubstr("outside a loop"));
}

TEST(ChatTemplate, TagsThatNeedOtherTemplatesAreRefused) {
  for (const char* tag : {"include 'a'", "import 'a' as b", "from 'a' import b", "extends 'a'"}) {
    EXPECT_THAT(ErrorOf(std::string("{% ") + tag + " %}"), HasSubstr("is not supported")) << tag;
  }
}

// Values are data: no attribute, filter or global leads to the program behind them.
TEST(ChatTemplate, Cve2024_34359_NothingLeadsBehindTheValues) {
  for (const char* source : {
           "{{ ''.__class__.__mro__[1].__subclasses__() }}",
           "{{ [].__class__.__base__ }}",
           "{{ ({}|attr('__class__')).__bases__ }}",
           "{{ messages.__init__.__globals__ }}",
           "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
           "{{ lipsum.__globals__['os'].popen('id').read() }}",
           "{{ namespace.__init__.__globals__ }}",
           "{{ raise_exception.__globals__ }}",
           "{{ self.__init__.__globals__.__builtins__ }}",
           "{{ ''.join.__self__.__class__ }}",
           "{{ '{0.__class__}'.format(messages) }}",
           "{{ '%s'.__mod__.__self__ }}",
           "{{ request.application.__globals__ }}",
           "{% macro m() %}{% endmacro %}{{ m.__globals__ }}",
           "{{ loop.__class__ }}",
           "{{ (1).__class__.__base__.__subclasses__() }}",
       }) {
    const std::string error = ErrorOf(source);
    EXPECT_THAT(error, testing::AnyOf(HasSubstr("unsafe"), HasSubstr("undefined"),
                                      HasSubstr("has no attribute"), testing::Eq("rendered ")))
        << source;
  }
}

TEST(ChatTemplate, Issue22900_DollarBraceIsText) {
  EXPECT_EQ(Render("${ x } ${{ 'y' }} ${"), "${ x } $y ${");
  EXPECT_EQ(Render("{{ '${' ~ \"${a}\" }}"), "${${a}");
}

struct Attack {
  const char* name;
  std::string source;
  const char* reason;
};

class Attacks : public ::testing::TestWithParam<Attack> {};

TEST_P(Attacks, AreStopped) {
  const auto start = std::chrono::steady_clock::now();
  // A slow machine must not meet the time limit first where another limit is under test.
  TemplateLimits limits;
  if (std::string_view(GetParam().reason) != "ms") limits.milliseconds = 300'000;
  EXPECT_THAT(ErrorOf(GetParam().source, limits), HasSubstr(GetParam().reason));
  const auto elapsed = std::chrono::steady_clock::now() - start;
  RecordProperty("ms", static_cast<int>(elapsed / std::chrono::milliseconds(1)));
}

INSTANTIATE_TEST_SUITE_P(
    ChatTemplate, Attacks,
    ::testing::Values(
        Attack{"Parentheses", "{{ " + Repeat("(", 60000) + "1" + Repeat(")", 60000) + " }}",
               "nested deeper"},
        Attack{"Brackets", "{{ " + Repeat("[", 60000) + Repeat("]", 60000) + " }}",
               "nested deeper"},
        Attack{"Nots", "{{ " + Repeat("not ", 60000) + "1 }}", "nested deeper"},
        Attack{"Signs", "{{ " + Repeat("-", 60000) + "1 }}", "nested deeper"},
        Attack{"Attributes", "{{ a" + Repeat(".b", 60000) + " }}", "nested too deeply"},
        Attack{"Filters", "{{ a" + Repeat("|trim", 60000) + " }}", "nested too deeply"},
        Attack{"Conditions", "{{ " + Repeat("1 if 1 else ", 60000) + "1 }}", "nested deeper"},
        Attack{"Ifs", Repeat("{% if 1 %}", 40000) + Repeat("{% endif %}", 40000), "nested deeper"},
        Attack{"Fors", Repeat("{% for i in [1] %}", 30000), "nested deeper"},
        Attack{"TooLarge", std::string((1 << 20) + 1, 'a'), "limit"},
        Attack{"RecursiveMacro", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "too deeply"},
        Attack{"MutualMacros",
               "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{% for i in [1] %}"
               "{% if 1 %}{{ [[[[a()]]]] }}{% endif %}{% endfor %}{% endmacro %}{{ a() }}",
               "too deeply"},
        Attack{"RecursiveCaller",
               "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}",
               "too deeply"},
        Attack{"RecursiveLoop",
               "{% set ns = namespace() %}{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
               "too deeply"},
        Attack{"MacroBomb",
               "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
               "{{ m(60) }}",
               "steps"},
        Attack{"LongString", "{{ 'a' * 10**9 }}", "longer than"},
        Attack{"LongerString", "{{ 'abc' * 9223372036854775807 }}", "64 bits"},
        Attack{"DoublingString",
               "{% set ns = namespace(s='a') %}{% for i in range(60) %}"
               "{% set ns.s = ns.s + ns.s %}{% endfor %}",
               "longer than"},
        Attack{"ManyStrings",
               "{% set ns = namespace(l=[]) %}{% for i in range(1000) %}"
               "{% set ns.l = ns.l + ['a' * 10000000] %}{% endfor %}",
               "too much text"},
        Attack{"LongList", "{{ [1] * 10**9 }}", "steps"},
        Attack{"Range", "{% for i in range(10**12) %}{% endfor %}", "MAX_RANGE"},
        Attack{"NestedLoops",
               "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
               "steps"},
        Attack{"Replace", "{% set x = ('a' * 1000000) | replace('a', 'b' * 1000) %}",
               "longer than"},
        Attack{"ReplaceNothing", "{{ ('a' * 1000000).replace('', 'b' * 1000) }}", "longer than"},
        Attack{"Join", "{{ ('b' * 1000000).join('a' * 1000) }}", "longer than"},
        Attack{"JoinFilter", "{{ range(99999) | join('b' * 1000) }}", "longer than"},
        Attack{"Indent", "{{ ('\\n' * 1000000) | indent(1000, blank=true) }}", "longer than"},
        Attack{"Width", "{{ '%1000000000d' % 1 }}", "longer than"},
        Attack{"Precision", "{{ '%.1000000000f' % 1 }}", "longer than"},
        Attack{"FormatWidth", "{{ '{:>1000000000}'.format(1) }}", "longer than"},
        Attack{"Center", "{{ 'a'.center(10**12) }}", "longer than"},
        Attack{"Round", "{{ 1.5 | round(10**9) | round(-10**9) | string | center(10**10) }}",
               "longer than"},
        Attack{"Power", "{{ 10 ** 10 ** 10 }}", "64 bits"},
        Attack{"DeepData",
               "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}"
               "{% set ns.x = [ns.x] %}{% endfor %}",
               "too deeply"},
        Attack{"DeepDict",
               "{% set ns = namespace(x={}) %}{% for i in range(99999) %}"
               "{% set ns.x = {'k': ns.x} %}{% endfor %}",
               "too deeply"},
        Attack{"DeepGenerator",
               "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}"
               "{% set ns.x = ns.x | map('string') %}{% endfor %}{{ ns.x | list }}",
               "too deeply"},
        Attack{"DeepGeneratorArgument",
               "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}"
               "{% set ns.x = [1] | map('default', ns.x) %}{% endfor %}",
               "too deeply"},
        Attack{"DeepJoiner",
               "{% set ns = namespace(x=1) %}{% for i in range(99999) %}"
               "{% set ns.x = joiner(ns.x) %}{% endfor %}",
               "too deeply"},
        Attack{"SharedKey",
               "{% set ns = namespace(x=(1, 2)) %}{% for i in range(100) %}"
               "{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
               "too large for a key"},
        Attack{"ManyParts", "{{ ('a ' * 8000000).split() | length }}", "steps"},
        Attack{"ManyLines", "{{ ('\n' * 16000000).splitlines() | length }}", "steps"},
        Attack{"Backwards", "{{ ('é' * 8000000)[::-1] | length }}", "steps"},
        Attack{"DeepMethod",
               "{% set ns = namespace(x='a') %}{% for i in range(99999) %}"
               "{% set ns.x = {'a': ns.x}.get %}{% endfor %}",
               "too deeply"},
        Attack{"SharedData",
               "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}"
               "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
               "steps"},
        Attack{"SharedJson",
               "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}"
               "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
               "steps"},
        Attack{"SharedEquality",
               "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(100) %}"
               "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}"
               "{{ ns.x == ns.y }}",
               "steps"},
        Attack{"NamespaceCycle", "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x }}",
               "too deeply"},
        Attack{"Comparisons",
               "{% set a = 'a' * 8000000 + 'b' %}{% set b = 'a' * 8000000 + 'c' %}"
               "{{ ([a, b] * 40000) | sort(case_sensitive=true) | length }}",
               "ms"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(ChatTemplate, SearchingIsLinear) {
  // Quadratic search would need 10^13 comparisons here.
  EXPECT_EQ(Render("{{ ('a' * 4000000 + 'b') in ('a' * 8000000) }}"
                   "{{ ('a' * 8000000).rfind('b' + 'a' * 4000000) }}"
                   "{{ ('a' * 8000000).count('a' * 3000000 + 'b') }}"
                   "{{ ('a' * 4000000).strip('b' * 4000000 + 'a') }}"),
            "False-10");
}

TEST(ChatTemplate, ReleasesCyclesBetweenNamespaces) {
  // The leak checker of the sanitizer build is the judge.
  EXPECT_EQ(Render("{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = [b] %}"
                   "{% for i in [1, 2] %}{{ loop.changed(loop) }}{% set a.loop = loop %}"
                   "{% set a.m = loop.cycle %}{% endfor %}{% macro m() %}{% endmacro %}"
                   "{% set a.macro = m %}ok"),
            "TrueFalseok");
}

TEST(ChatTemplate, LimitsAreConfigurable) {
  TemplateLimits limits;
  limits.steps = 100;
  EXPECT_THAT(ErrorOf("{% for i in range(200) %}{% endfor %}", limits), HasSubstr("100 steps"));
  limits = {};
  limits.output_bytes = 1000;
  EXPECT_THAT(ErrorOf("{% for i in range(2000) %}a{% endfor %}", limits), HasSubstr("1000 bytes"));
  limits = {};
  limits.milliseconds = 0;
  EXPECT_THAT(ErrorOf("{% for i in range(99999) %}{% endfor %}", limits), HasSubstr("0 ms"));
  limits = {};
  limits.nesting = 3;
  EXPECT_THAT(ErrorOf("{{ ((((1)))) }}", limits), HasSubstr("3 levels"));
}

TEST(ChatTemplate, DataDeeperThanTheLimitIsRefused) {
  Value value;
  for (int i = 0; i < 100000; ++i) {
    if (i == 1000) break;  // the value itself must be destroyed recursively
    value = Value(Array{value});
  }
  Object variables;
  variables.Set("x", value);
  EXPECT_THROW(ChatTemplate("{{ x }}").Render(variables, 0), TemplateError);
}

TEST(ChatTemplate, InvalidUtf8IsKept) {
  Object variables;
  variables.Set("x", std::string("a\xFF\xC3z\xE2\x82"));
  EXPECT_EQ(ChatTemplate("{{ x }}|{{ x | length }}|{{ x[1] }}\xFE").Render(variables, 0),
            "a\xFF\xC3z\xE2\x82|6|\xFF\xFE");
}

TEST(ChatTemplate, RendersFromManyThreads) {
  const ChatTemplate chat(
      "{% macro m(x) %}{{ x | upper }}{% endmacro %}{% for m1 in messages %}{{ m(m1.content) }}"
      "{{ ['a', 'b'] | join('-') }}{% endfor %}");
  const std::string expected = chat.Render(Conversation(), 0);
  std::vector<std::thread> threads;
  std::atomic<int> equal = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 50; ++j) equal += chat.Render(Conversation(), 0) == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(equal, 200);
}

TEST(ChatTemplate, EveryTruncationOfATemplateEndsWell) {
  const std::string source =
      "{%- macro m(a, b=[1, {'k': 2.5}]) -%}{{ a|default('x')|trim }}{% endmacro %}{# c #}"
      "{% for i, j in data.items() if i is not none recursive %}{{ m(i, b=j)[1:-1] ~ 'é\\n' }}"
      "{% else %}{% raw %}{{{% endraw %}{% endfor %}{% set ns = namespace(a=1) %}"
      "{% set ns.a = 'a' if ns.a > 1 else not 2 ** 3 %}{{ ns.a }}";
  for (size_t length = 0; length <= source.size(); ++length) {
    const std::string message = ErrorOf(source.substr(0, length));
    EXPECT_FALSE(message.empty()) << length;
  }
}

// Our own templates with their committed expected texts; written by check_templates.py golden.
TEST(ChatTemplate, GoldenTextsHold) {
  const std::filesystem::path folder = TERN_SOURCE_DIR "/tests/data/templates_golden";
  size_t cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    std::ifstream file(entry.path());
    std::ifstream source_file(entry.path().string().substr(0, entry.path().string().size() - 5) +
                              ".jinja");
    const std::string source((std::istreambuf_iterator<char>(source_file)), {});
    const ChatTemplate chat(source);
    for (const auto& golden : nlohmann::ordered_json::parse(file)) {
      SCOPED_TRACE(entry.path().filename().string() + " " + golden["name"].get<std::string>());
      const Value variables = tests::ToValue(golden["variables"]);
      ++cases;
      try {
        const std::string text = chat.Render(*variables.as_object(), golden["now"].get<int64_t>());
        ASSERT_TRUE(golden.contains("text")) << "expected an error, got " << text;
        EXPECT_EQ(text, golden["text"].get<std::string>());
      } catch (const TemplateError& error) {
        ASSERT_TRUE(golden.contains("error")) << error.what();
        if (error.raised()) {
          EXPECT_EQ(error.what(), golden["error"].get<std::string>());
        }
      }
    }
  }
  EXPECT_GT(cases, 0u);
}

}  // namespace
}  // namespace engine::text
