// Writes what the fuzzers start from: fuzz_seed_corpus FOLDER makes FOLDER/gguf, FOLDER/tokenizer,
// FOLDER/template, FOLDER/tfmbs and FOLDER/answer.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

#include "tests/support/gguf_seeds.h"

namespace {

namespace fs = std::filesystem;

void Write(const fs::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

void WriteGgufSeeds(const fs::path& folder) {
  for (const auto& [name, bytes] : support::SeedFiles()) {
    std::string seed(1, '\0');  // the layout choice that gguf_fuzz takes first
    seed.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    Write(folder / name, seed);
  }
}

// A text per fixed vocabulary and set of flags, and some vocabularies of the fuzzer's own.
void WriteTokenizerSeeds(const fs::path& folder) {
  constexpr std::string_view kTexts[] = {
      "Hello, world! It's 12345 o'clock.\r\n\r\n\tNext  line \n",
      "a\xC3\xA9 \xE2\x96\x81 \xF0\x9F\x98\x80\xF0\x9F\x8F\xBD \xE4\xBD\xA0\xE5\xA5\xBD \xFF\xC3",
      "<|eot_id|>[u][u][u] <s> </s> <0x41> <|user|>\n<|assistant|>",
      "IF x==1 {\n        return \"ABCdefGHI\"; // 'll 'LL 've\n}",
      "\xE0\xA4\xA8\xE0\xA4\xAE\xE0\xA4\xB8\xE0\xA5\x8D\xE0\xA4\xA4\xE0\xA5\x87 "
      "\xD9\x85\xD8\xB1\xD8\xAD\xD8\xA8\xD8\xA7 \xE3\x80\x82\xEF\xBC\x8C 3.14159 2^10 ~~~"};
  constexpr int kFixedVocabularies = 24;
  for (int selector = 0; selector < kFixedVocabularies; ++selector) {
    for (size_t text = 0; text < std::size(kTexts); ++text) {
      std::string seed = {static_cast<char>(selector),
                          static_cast<char>((static_cast<size_t>(selector) + text) % 8)};
      seed += kTexts[text];
      Write(folder / ("fixed_" + std::to_string(selector) + "_" + std::to_string(text)), seed);
    }
  }
  for (int flags = 0; flags < 8; ++flags) {
    std::string seed = {'\xC8', static_cast<char>(flags)};
    for (int i = 0; i < 64; ++i) seed += static_cast<char>(i * 37 + flags * 11);
    Write(folder / ("own_" + std::to_string(flags)), seed + std::string(kTexts[0]));
  }
}

// One construct each; whole templates are tests/data/templates_golden.
void WriteTemplateSeeds(const fs::path& folder) {
  constexpr std::string_view kTemplates[] = {
      "{%- for m in messages if m.content %}{{ loop.index0 }}{{ m['role'] | upper }}{% else %}-"
      "{%- endfor -%}",
      "{% if tools is defined and tools | length > 1 %}a{% elif n == 2.5 %}b{% else %}c{% endif %}",
      "{% set ns = namespace(i=0) %}{% for c in 'abc' %}{% set ns.i = ns.i + 1 %}{% endfor %}"
      "{{ ns.i }}",
      "{% macro f(a, b=2, *c) %}{{ a ~ b }}{{ caller() if caller }}{% endmacro %}{{ f(1, b=3) }}"
      "{% call f(1) %}x{% endcall %}",
      "{{ messages | map(attribute='role') | select('equalto', 'user') | list | tojson }}",
      "{{ tools | tojson(indent=2) }}{{ {'a': [1, 2.5, none, true]} | tojson }}",
      "{{ 'a,b,c'.split(',')[1:][::-1] | join('-') }}{{ ' x '.strip() }}{{ 'Ab' | lower }}",
      "{% for k, v in {'a': 1, 'b': 2} | dictsort %}{{ '%s=%05.2f' % (k, v) }}{{ '{:>4}'.format(v) "
      "}}"
      "{% endfor %}",
      "{% for i in range(3) recursive %}{{ i }}{{ loop([1]) if i > 9 }}{% if i == 1 %}{% continue "
      "%}"
      "{% endif %}{% break %}{% endfor %}",
      "{{ raise_exception('no') if not add_generation_prompt }}{{ strftime_now('%d %b %Y') }}",
      "{# comment #}{% raw %}{{ not }}{% endraw %}{% filter upper %}abc{% endfilter %}",
      "{% set x %}block{% endset %}{{ x | replace('o', '0') | indent(2) | trim | title }}",
      "{{ (1 + 2 * 3 // 2 ** 2 % 5 - 1) / 4 }}{{ 1 < 2 <= 3 != 4 }}{{ 'a' in 'abc' and not none }}",
      "{{ messages[-1].content.startswith('G') }}{{ messages | selectattr('tool_calls') | first }}",
      "{% with a = 1 %}{{ a }}{% endwith %}{{ joiner(', ')() }}{{ cycler('a', 'b').next() }}",
      "{% generation %}{{ dict(a=1) | items | list }}{% endgeneration %}{{ [3, 1] | sort | sum }}",
      "{{ messages | groupby('role') }}{{ [1, 2, 3] | batch(2) | list }}{{ 'x' | default('y') }}",
  };
  for (size_t i = 0; i < std::size(kTemplates); ++i) {
    Write(folder / std::to_string(i), kTemplates[i]);
  }
  for (const auto& entry : fs::directory_iterator(TERN_SOURCE_DIR "/tests/data/templates_golden")) {
    if (entry.path().extension() != ".jinja") continue;
    fs::copy_file(entry.path(), folder / entry.path().filename(),
                  fs::copy_options::overwrite_existing);
  }
}

// Sessions as tfmbs_fuzz reads them: a frame or planes of zeros, then products.
void WriteTfmbsSeeds(const fs::path& folder) {
  const auto text = [](std::initializer_list<int> bytes) {
    std::string out;
    for (const int byte : bytes) out += static_cast<char>(byte);
    return out;
  };
  // 3 x 5: 15 trits in 3 bytes.
  const std::string descriptor = text({3, 5, 0});
  const std::string trits = text({3, 0, 0x79, 0x79, 0xF2});
  const std::string no_scales = text({0, 0, 0, 1});
  const std::string row_scales = text({3, 1, 0, 0});
  const std::string gemm = text({2, 0, 2});
  const std::string submit = text({3, 0, 0, 1, 2, 0, 0, 0});
  const std::string end = text({9, 0, 4, 0, 5, 0, 7, 0, 6, 0});
  for (int device = 0; device < 2; ++device) {
    const std::string name = std::to_string(device);
    const std::string frame = text({device, 0}) + descriptor + trits;
    Write(folder / ("frame_" + name), frame + no_scales + gemm + submit + end);
    Write(folder / ("scales_" + name), frame + row_scales + gemm + submit + end);
    Write(folder / ("planes_" + name),
          text({device, 1}) + descriptor + trits + text({3}) + gemm + submit + end);
  }
}

// A call in each format, in the order of ToolFormat, with and without thoughts.
void WriteAnswerSeeds(const fs::path& folder) {
  constexpr std::string_view kCalls[] = {
      R"([{"name": "f", "arguments": {"n": 1, "text": "a\"b"}}, {"name": "g", "arguments": {}}] end)",
      "Hi <tool_call>\n{\"name\": \"f\", \"arguments\": {\"text\": \"a\"}}\n</tool_call> end",
      "<tool_call>\n<function=f>\n<parameter=text>\na <b>\n</parameter>\n<parameter=n>\n[1, {}]\n"
      "</parameter>\n</function>\n</tool_call>",
      "<tool_call>f\n<arg_key>text</arg_key>\n<arg_value>a</arg_value>\n<arg_key>n</arg_key>\n"
      "<arg_value>1</arg_value>\n</tool_call>",
      R"({"name": "f", "parameters": {"n": 1}}; {"name": "g", "parameters": {}})",
      "[f(text='a, b', n=[1, (2)], any={'x': True}), g()] end",
      R"(Hi [TOOL_CALLS]f[CALL_ID]123456789[ARGS]{"n": 1}[TOOL_CALLS][{"name": "g"}])",
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"n\": 1}\n```"
      "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
      R"(<|tool_call|>[{"name": "f", "arguments": {"n": 1}}])",
      R"(<|tools_prefix|>[{"f": {"n": 1}}, {"g": {}}]<|tools_suffix|>)",
      "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>commentary "
      "to=functions.f <|constrain|>json<|message|>{\"n\": 1}<|call|>"};
  for (size_t format = 0; format < std::size(kCalls); ++format) {
    for (const char flags : {'\0', '\1', '\2', '\4'}) {
      std::string seed = {static_cast<char>(format), flags};
      if (flags == '\2') seed += "<think>Hm, <tool_call></think>\n\n";
      if (flags == '\4') seed += "Hm.</think>";
      Write(folder / (std::to_string(format) + "_" + std::to_string(flags)),
            seed + std::string(kCalls[format]));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seed_corpus FOLDER\n");
    return 2;
  }
  const fs::path folder = argv[1];
  try {
    for (const char* name : {"gguf", "tokenizer", "template", "tfmbs", "answer"}) {
      fs::create_directories(folder / name);
    }
    WriteGgufSeeds(folder / "gguf");
    WriteTokenizerSeeds(folder / "tokenizer");
    WriteTemplateSeeds(folder / "template");
    WriteTfmbsSeeds(folder / "tfmbs");
    WriteAnswerSeeds(folder / "answer");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fuzz_seed_corpus: %s\n", error.what());
    return 1;
  }
  return 0;
}
