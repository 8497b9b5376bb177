#include "config/option_table.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <type_traits>

#include "server/api_key_options.h"
#include "server/trace_options.h"

namespace config {
namespace {

[[noreturn]] void Refuse(const std::string& expected, const std::string& found) {
  throw std::invalid_argument("must be " + expected + ", not \"" + found + "\"");
}

template <typename Number>
bool ParseWhole(const std::string& text, Number* out) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *out);
  return error == std::errc() && stop == end && !text.empty();
}

// The shortest text that reads back as the same number.
template <typename Number>
std::string NumberText(Number value) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  std::string text(buffer, error == std::errc() ? end : buffer);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

// Bytes as "4096", "512MiB" or "4GiB".
uint64_t ParseBytes(const std::string& text) {
  const std::string expected = "a number of bytes such as 1073741824, 512MiB or 4GiB";
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  uint64_t count = 0;
  if (!ParseWhole(text.substr(0, digits), &count)) Refuse(expected, text);
  const std::string unit = text.substr(digits);
  int shift = 0;
  if (unit == "KiB") {
    shift = 10;
  } else if (unit == "MiB") {
    shift = 20;
  } else if (unit == "GiB") {
    shift = 30;
  } else if (!unit.empty()) {
    Refuse(expected, text);
  }
  if (count > std::numeric_limits<uint64_t>::max() >> shift) Refuse(expected, text);
  return count << shift;
}

// The builders take `field`, a callable that gives the member: [](auto& c) -> auto& {...}.

template <typename Field>
Option Integer(OptionInfo info, Field field, int64_t low, int64_t high) {
  info.kind = OptionKind::kInteger;
  return {info,
          [=](Config& config, const std::vector<std::string>& values) {
            int64_t value = 0;
            if (!ParseWhole(values[0], &value) || value < low || value > high) {
              Refuse("an integer from " + std::to_string(low) + " to " + std::to_string(high),
                     values[0]);
            }
            field(config) = static_cast<std::remove_reference_t<decltype(field(config))>>(value);
          },
          [=](const Config& config) { return std::to_string(field(config)); }};
}

template <typename Field>
Option Real(OptionInfo info, Field field, double low, double high) {
  info.kind = OptionKind::kReal;
  return {info,
          [=](Config& config, const std::vector<std::string>& values) {
            double value = 0;
            if (!ParseWhole(values[0], &value) || !(value >= low && value <= high)) {
              Refuse("a number from " + NumberText(low) + " to " + NumberText(high), values[0]);
            }
            field(config) = value;
          },
          [=](const Config& config) { return NumberText<double>(field(config)); }};
}

template <typename Field>
Option Boolean(OptionInfo info, Field field) {
  info.kind = OptionKind::kBoolean;
  return {info,
          [=](Config& config, const std::vector<std::string>& values) {
            if (values[0] != "true" && values[0] != "false") Refuse("true or false", values[0]);
            field(config) = values[0] == "true";
          },
          [=](const Config& config) { return field(config) ? "true" : "false"; }};
}

template <typename Field>
Option Text(OptionInfo info, Field field) {
  info.kind = OptionKind::kText;
  return {
      info,
      [=](Config& config, const std::vector<std::string>& values) { field(config) = values[0]; },
      [=](const Config& config) { return Quoted(field(config)); }};
}

template <typename Field>
Option Bytes(OptionInfo info, Field field, uint64_t low = 0) {
  info.kind = OptionKind::kBytes;
  return {info,
          [=](Config& config, const std::vector<std::string>& values) {
            const uint64_t bytes = ParseBytes(values[0]);
            if (bytes < low) Refuse("at least " + std::to_string(low) + " bytes", values[0]);
            field(config) = bytes;
          },
          [=](const Config& config) { return std::to_string(field(config)); }};
}

// Bytes, or "auto" for 0.
template <typename Field>
Option AutoBytes(OptionInfo info, Field field) {
  info.kind = OptionKind::kText;
  return {info,
          [=](Config& config, const std::vector<std::string>& values) {
            field(config) = values[0] == "auto" ? 0 : ParseBytes(values[0]);
          },
          [=](const Config& config) {
            return Quoted(field(config) == 0 ? "auto" : std::to_string(field(config)));
          }};
}

// A text that `parse` turns into the value, and `text` back.
template <typename Field, typename Parse, typename Write>
Option Parsed(OptionInfo info, Field field, Parse parse, Write text) {
  info.kind = OptionKind::kText;
  return {info,
          [=](Config& config, const std::vector<std::string>& values) {
            field(config) = parse(values[0]);
          },
          [=](const Config& config) { return Quoted(text(field(config))); }};
}

template <typename Enum>
using Names = std::vector<std::pair<std::string_view, Enum>>;

template <typename Value, typename Field>
Option Choice(OptionInfo info, Field field, Names<Value> names) {
  info.kind = OptionKind::kText;
  return {info,
          [=](Config& config, const std::vector<std::string>& values) {
            std::string expected;
            for (const auto& [name, value] : names) {
              if (values[0] == name) {
                field(config) = value;
                return;
              }
              if (!expected.empty()) expected += " | ";
              expected += name;
            }
            Refuse(names.size() == 1 ? expected : "one of " + expected, values[0]);
          },
          [=](const Config& config) {
            for (const auto& [name, value] : names) {
              if (field(config) == value) return Quoted(name);
            }
            return Quoted("");
          }};
}

void SetModelNames(Config& config, const std::vector<std::string>& names) {
  // A name alone is the bundled model's.
  if (config.models.empty() && names.size() == 1) config.models.emplace_back();
  if (names.size() > config.models.size()) {
    throw std::invalid_argument("must be given at most once per model (" +
                                std::to_string(std::max<size_t>(config.models.size(), 1)) +
                                "), not " + std::to_string(names.size()) + " times");
  }
  for (size_t i = 0; i < names.size(); ++i) config.models[i].name = names[i];
}

std::string ListLiteral(const Config& config, std::string ModelEntry::*member) {
  std::string list = "[";
  for (const ModelEntry& model : config.models) {
    if (list.size() > 1) list += ", ";
    list += Quoted(model.*member);
  }
  return list + "]";
}

Option ModelPaths() {
  const OptionInfo info{
      "model",      "path",
      "-m,--model", OptionKind::kTextList,
      "FILE",       "GGUF file; may be given more than once (default: the bundled model)"};
  return {info,
          [](Config& config, const std::vector<std::string>& values) {
            config.models.clear();
            for (const std::string& path : values) {
              if (path.empty()) throw std::invalid_argument("must be a path, not empty");
              config.models.push_back({path, "", {}});
            }
          },
          [](const Config& config) { return ListLiteral(config, &ModelEntry::path); }};
}

Option ModelNames() {
  const OptionInfo info{"model",
                        "name",
                        "--served-model-name",
                        OptionKind::kTextList,
                        "NAME",
                        "name in the API of the model at the same place in the list"};
  return {info, SetModelNames,
          [](const Config& config) { return ListLiteral(config, &ModelEntry::name); }};
}

Option ModelSettings() {
  const OptionInfo info{
      "model",
      "set",
      "--model-set",
      OptionKind::kTextList,
      "NAME:KEY=VALUE",
      "option of one model, such as small:engine.kv_bytes=1GiB, small:load=lazy or "
      "small:pinned=true; may be given more than once"};
  return {info,
          [](Config& config, const std::vector<std::string>& values) {
            config.model_settings = values;
          },
          [](const Config&) { return std::string("[]"); },
          [](const Config& config) {
            std::string all;
            for (const ModelEntry& model : config.models) {
              for (const ModelSetting& setting : model.settings) {
                all += Quoted(model.name) + Quoted(setting.key);
                for (const std::string& value : setting.values) all += Quoted(value);
              }
            }
            return all;
          }};
}

// "adapter.gguf" or "adapter.gguf=0.5".
engine::LoraSource ParseLora(const std::string& text) {
  engine::LoraSource source{.path = text};
  const size_t equals = text.find_last_of('=');
  double scale = 1;
  if (equals != std::string::npos && ParseWhole(text.substr(equals + 1), &scale)) {
    if (!(std::abs(scale) <= 100)) Refuse("a path with a scale from -100.0 to 100.0", text);
    source = {.path = text.substr(0, equals), .scale = static_cast<float>(scale)};
  }
  if (source.path.empty()) Refuse("a path, perhaps with =SCALE after it", text);
  return source;
}

Option LoraAdapters() {
  const OptionInfo info{
      "engine",
      "lora",
      "--lora",
      OptionKind::kTextList,
      "FILE[=SCALE]",
      "LoRA adapter in GGUF; may be given more than once; SCALE (default 1) holds "
      "for requests that do not say"};
  return {info,
          [](Config& config, const std::vector<std::string>& values) {
            config.engine.lora.clear();
            for (const std::string& text : values) config.engine.lora.push_back(ParseLora(text));
          },
          [](const Config& config) {
            std::string list = "[";
            for (const engine::LoraSource& source : config.engine.lora) {
              if (list.size() > 1) list += ", ";
              list += Quoted(source.path + "=" + NumberText(source.scale));
            }
            return list + "]";
          }};
}

Option ApiKeys() {
  const OptionInfo info{"server",    "api_keys",
                        "--api-key", OptionKind::kTextList,
                        "KEY",       "key that clients must send; may be given more than once"};
  return {info,
          [](Config& config, const std::vector<std::string>& values) {
            config.server.api_keys.clear();
            config.server.api_key_file.clear();
            for (const std::string& key : values) {
              if (key.empty()) throw std::invalid_argument("must be a key, not empty");
              const std::string name = "key-" + std::to_string(config.server.api_keys.size() + 1);
              config.server.api_keys.push_back({.name = name, .key = key});
            }
          },
          [](const Config&) { return std::string("[]"); },
          [](const Config& config) {
            std::string all;
            if (!config.server.api_key_file.empty()) return all;  // read again by itself
            for (const server::ApiKey& key : config.server.api_keys) all += Quoted(key.key);
            return all;
          }};
}

Option ApiKeyFile() {
  const OptionInfo info{
      "server",
      "api_key_file",
      "--api-key-file",
      OptionKind::kText,
      "FILE",
      "file with lines `KEY` or `NAME KEY [scope=admin] [rpm=N] [tpm=N] [concurrent=N]`"};
  return {info,
          [](Config& config, const std::vector<std::string>& values) {
            config.server.api_keys = server::ReadApiKeyFile(values[0]);
            config.server.api_key_file = values[0];
          },
          [](const Config& config) { return Quoted(config.server.api_key_file); }};
}

Option OtlpEndpoint() {
  const OptionInfo info{"server",
                        "otlp_endpoint",
                        "--otlp-endpoint",
                        OptionKind::kText,
                        "URL",
                        "send traces to this OTLP/HTTP collector, such as http://127.0.0.1:4318 "
                        "(/v1/traces is added)"};
  return {info,
          [](Config& config, const std::vector<std::string>& values) {
            server::CheckOtlpEndpoint(values[0]);
            config.server.otlp_endpoint = values[0];
          },
          [](const Config& config) { return Quoted(config.server.otlp_endpoint); }};
}

Option OtlpHeaders() {
  const OptionInfo info{
      "server",        "otlp_headers",
      "--otlp-header", OptionKind::kTextList,
      "NAME=VALUE",    "header that the collector wants; may be given more than once"};
  return {info,
          [](Config& config, const std::vector<std::string>& values) {
            config.server.otlp_headers.clear();
            for (const std::string& text : values) {
              config.server.otlp_headers.push_back(server::ParseOtlpHeader(text));
            }
          },
          [](const Config&) { return std::string("[]"); },
          [](const Config& config) {
            std::string all;
            for (const auto& [name, value] : config.server.otlp_headers) {
              all += Quoted(name) + Quoted(value);
            }
            return all;
          }};
}

#define TERN_FIELD(member) ([](auto& c) -> auto& { return c.member; })

void AddServerOptions(std::vector<Option>* table) {
  const auto add = [&](Option option) { table->push_back(std::move(option)); };
  const auto info = [](std::string_view name, std::string_view flag, std::string_view value,
                       std::string_view help) {
    return OptionInfo{"server", name, flag, OptionKind::kText, value, help};
  };
  add(Text(info("host", "--host", "ADDRESS", "address to listen on"), TERN_FIELD(server.host)));
  add(Integer(info("port", "--port", "PORT", "port to listen on; 0 takes a free one"),
              TERN_FIELD(server.port), 0, 65535));
  add(Integer(info("threads", "--http-threads", "N", "HTTP threads; 0 chooses"),
              TERN_FIELD(server.threads), 0, 256));
  add(ApiKeys());
  add(ApiKeyFile());
  add(Text(info("tls_certificate", "--tls-certificate", "FILE",
                "PEM certificate chain: serve HTTPS; SIGHUP reads it again"),
           TERN_FIELD(server.tls_certificate_file)));
  add(Text(info("tls_key", "--tls-key", "FILE", "PEM private key of the certificate"),
           TERN_FIELD(server.tls_key_file)));
  add(Text(info("cors_origin", "--cors-origin", "ORIGINS",
                "origins that browsers may call from: * or a list with commas between"),
           TERN_FIELD(server.cors_origin)));
  add(Boolean(info("strict_params", "--strict-params", "",
                   "refuse request parameters that are unknown or have no effect"),
              TERN_FIELD(server.strict_params)));
  add(Choice<std::string>(
      info("tool_parser", "--tool-parser",
           "auto|json|hermes|qwen_xml|glm|llama3_json|pythonic|mistral|deepseek|granite|apertus|"
           "harmony",
           "how the models write calls of functions; auto reads it off the chat template"),
      TERN_FIELD(server.tool_parser),
      {{"auto", "auto"},
       {"json", "json"},
       {"hermes", "hermes"},
       {"qwen_xml", "qwen_xml"},
       {"glm", "glm"},
       {"llama3_json", "llama3_json"},
       {"pythonic", "pythonic"},
       {"mistral", "mistral"},
       {"deepseek", "deepseek"},
       {"granite", "granite"},
       {"apertus", "apertus"},
       {"harmony", "harmony"}}));
  add(Choice<std::string>(info("reasoning_parser", "--reasoning-parser", "auto|none",
                               "tell the models' thoughts apart from their answers"),
                          TERN_FIELD(server.reasoning_parser),
                          {{"auto", "auto"}, {"none", "none"}}));
  add(Choice<bool>(info("metrics_aliases", "--metrics-aliases", "vllm|none",
                        "also export metrics under the names that vLLM's dashboards use"),
                   TERN_FIELD(server.metrics_aliases), {{"vllm", true}, {"none", false}}));
  add(Boolean(info("metrics_keys", "--metrics-keys", "",
                   "also export what each API key has used; /metrics then tells their names"),
              TERN_FIELD(server.metrics_keys)));
  add(Boolean(info("log_requests", "--log-requests", "", "log one line per request on stderr"),
              TERN_FIELD(server.log_requests)));
  add(Choice<bool>(info("log_format", "--log-format", "text|json", "lines of the log"),
                   TERN_FIELD(server.log_json), {{"text", false}, {"json", true}}));
  add(OtlpEndpoint());
  add(OtlpHeaders());
  add(Text(info("trace_service", "--trace-service", "NAME", "service.name of the traces"),
           TERN_FIELD(server.trace_service)));
  add(Choice<bool>(info("trace_sampler", "--trace-sampler", "parent|ratio",
                        "which requests are traced: parent = as the caller's traceparent says, "
                        "those without one by --trace-ratio; ratio = all by --trace-ratio"),
                   TERN_FIELD(server.trace_follows_caller), {{"parent", true}, {"ratio", false}}));
  add(Real(
      info("trace_ratio", "--trace-ratio", "SHARE", "share of requests that are traced, 0 to 1"),
      TERN_FIELD(server.trace_ratio), 0, 1));
  add(Real(info("drain_timeout", "--drain-timeout", "SECONDS",
                "on shutdown, time for accepted requests to finish"),
           TERN_FIELD(server.drain_timeout_seconds), 0, 86400));
  add(Choice<bool>(info("model_load", "--model-load", "startup|lazy",
                        "load models at the start, or each with the first request for it"),
                   TERN_FIELD(policy.lazy), {{"startup", false}, {"lazy", true}}));
  add(Real(info("model_idle_unload", "--model-idle-unload", "SECONDS",
                "a model that no request used for so long is unloaded; 0 = never"),
           TERN_FIELD(policy.idle_seconds), 0, 30 * 86400.0));
  add(Bytes(info("model_memory", "--model-memory", "BYTES",
                 "for the loaded models together: beyond it the least recently used are unloaded; "
                 "0 = no limit"),
            TERN_FIELD(server.model_memory_bytes)));
  add(Real(info("model_wait", "--model-wait", "SECONDS",
                "how long a request waits until its model is loaded"),
           TERN_FIELD(server.model_wait_seconds), 0, 86400));
  add(Integer(info("max_model_waiting", "--max-model-waiting", "N",
                   "requests that may wait for one model to be loaded; more are answered with 503"),
              TERN_FIELD(server.max_model_waiting), 1, 1 << 20));
  add(Bytes(info("max_body", "--max-body", "BYTES", "largest request body"),
            TERN_FIELD(server.max_body_bytes), 1024));
  add(Bytes(info("max_body_memory", "--max-body-memory", "BYTES",
                 "largest sum of request bodies at one time; more are answered with 503"),
            TERN_FIELD(server.max_body_memory_bytes), 1024));
  add(Integer(info("max_header_bytes", "--max-header-bytes", "N", "largest request header"),
              TERN_FIELD(server.max_header_bytes), 1024, 1 << 24));
  add(Integer(info("max_header_lines", "--max-header-lines", "N", "most header lines"),
              TERN_FIELD(server.max_header_lines), 8, 10000));
  add(Integer(info("max_uri_bytes", "--max-uri-bytes", "N", "longest request target"),
              TERN_FIELD(server.max_uri_bytes), 64, 1 << 20));
  add(Integer(info("max_json_depth", "--max-json-depth", "N", "deepest JSON nesting"),
              TERN_FIELD(server.max_json_depth), 8, 1000));
  add(Integer(info("max_connections", "--max-connections", "N", "most open connections"),
              TERN_FIELD(server.max_connections), 1, 1 << 20));
  add(Real(info("header_timeout", "--header-timeout", "SECONDS", "time to send a header"),
           TERN_FIELD(server.header_timeout_seconds), 0.1, 3600));
  add(Real(info("body_timeout", "--body-timeout", "SECONDS", "time to send a body"),
           TERN_FIELD(server.body_timeout_seconds), 0.1, 3600));
  add(Real(info("idle_timeout", "--idle-timeout", "SECONDS", "how long keep-alive waits"),
           TERN_FIELD(server.idle_timeout_seconds), 0.1, 86400));
  add(Real(info("write_timeout", "--write-timeout", "SECONDS",
                "a client that takes nothing for so long is cut"),
           TERN_FIELD(server.write_timeout_seconds), 0.1, 86400));
  add(Real(info("ping", "--ping", "SECONDS", "pause between comments on a silent stream"),
           TERN_FIELD(server.ping_seconds), 0.1, 3600));
  add(Bytes(
      info("stream_backlog", "--stream-backlog", "BYTES",
           "events that wait for a slow reader of a stream; with more it is cut; 0 = no bound"),
      TERN_FIELD(server.stream_backlog_bytes)));
  add(Bytes(info("stream_buffer", "--stream-buffer", "BYTES",
                 "events that are kept of one resumable stream"),
            TERN_FIELD(server.stream_buffer_bytes)));
  add(Real(info("stream_ttl", "--stream-ttl", "SECONDS",
                "how long a resumable stream is kept after its last reader has left"),
           TERN_FIELD(server.stream_ttl_seconds), 0.1, 86400));
  add(Integer(info("max_streams", "--max-streams", "N",
                   "resumable streams that are kept at the same time; more are answered with 503"),
              TERN_FIELD(server.max_streams), 0, 1 << 20));
  add(Real(info("heartbeat_limit", "--heartbeat-limit", "SECONDS",
                "/health fails when the engine is silent for longer"),
           TERN_FIELD(server.heartbeat_limit_seconds), 0.1, 3600));
}

void AddSchedulerOptions(std::vector<Option>* table) {
  const auto add = [&](Option option) { table->push_back(std::move(option)); };
  const auto info = [](std::string_view name, std::string_view flag, std::string_view value,
                       std::string_view help) {
    return OptionInfo{"scheduler", name, flag, OptionKind::kText, value, help};
  };
  add(Integer(info("max_sequences", "--max-sequences", "N",
                   "sequences that run at once; 0 = from model, memory and cores"),
              TERN_FIELD(scheduler.max_sequences), 0, 4096));
  add(Integer(info("max_batch_tokens", "--max-batch-tokens", "N",
                   "token budget of one step; 0 = from model and cores"),
              TERN_FIELD(scheduler.max_batch_tokens), 0, 65536));
  add(Integer(info("prefill_chunk", "--prefill-chunk", "N",
                   "prompt tokens of one sequence in one step while others wait; 0 = a quarter of "
                   "a step"),
              TERN_FIELD(scheduler.prefill_chunk), 0, 65536));
  add(Integer(info("max_queued_requests", "--max-queued-requests", "N",
                   "requests that may wait; more are answered with 503"),
              TERN_FIELD(scheduler.max_queued_requests), 1, 1 << 20));
  add(Integer(info("max_queued_tokens", "--max-queued-tokens", "N", "prompt tokens that may wait"),
              TERN_FIELD(scheduler.max_queued_tokens), 1, int64_t{1} << 40));
  add(Integer(
      info("max_queued_per_key", "--max-queued-per-key", "N",
           "requests of one API key that may wait; more are answered with 429; 0 = no limit"),
      TERN_FIELD(scheduler.max_queued_per_key), 0, 1 << 20));
  add(Real(info("queue_deadline", "--queue-deadline", "SECONDS",
                "a request that waits for longer fails; 0 = waits for ever"),
           TERN_FIELD(scheduler.queue_deadline_seconds), 0, 86400));
  add(Boolean(info("fair_share", "--fair-share", "",
                   "API keys share the machine; priorities order the requests of one key"),
              TERN_FIELD(scheduler.fair_share)));
  add(Real(info("priority_aging", "--priority-aging", "SECONDS",
                "waiting for so long makes up for one level of priority; 0 = never"),
           TERN_FIELD(scheduler.priority_aging_seconds), 0, 86400));
  using scheduler::PrefixCacheMode;
  add(Choice<PrefixCacheMode>(
      info("prefix_cache", "--prefix-cache", "MODE",
           "keep the KV of prompts for those that begin alike: on | per-key "
           "(API keys see only their own) | off"),
      TERN_FIELD(scheduler.prefix_cache),
      {{"on", PrefixCacheMode::kOn},
       {"per-key", PrefixCacheMode::kPerKey},
       {"off", PrefixCacheMode::kOff}}));
  add(Text(info("prefix_cache_file", "--prefix-cache-file", "FILE",
                "keep the prefix cache there over restarts; FILE.key is its key"),
           TERN_FIELD(scheduler.prefix_cache_file)));
  using scheduler::Speculation;
  add(Choice<Speculation>(
      info(
          "speculate", "--speculate", "MODE",
          "guess the next tokens and check them together: ngram (from the text so far) | self "
          "(from the model's first layers) | model (from --draft-model) | off | auto (model, where "
          "there is one); never changes what is generated"),
      TERN_FIELD(scheduler.speculation),
      {{"auto", Speculation::kAuto},
       {"ngram", Speculation::kNgram},
       {"self", Speculation::kSelf},
       {"model", Speculation::kModel},
       {"off", Speculation::kOff}}));
  add(Text(info("draft_model", "--draft-model", "FILE",
                "GGUF of a smaller model with the same vocabulary, to guess the next tokens with"),
           TERN_FIELD(scheduler.draft_model)));
  add(Integer(info("speculate_layers", "--speculate-layers", "N",
                   "layers that --speculate self guesses with; 0 = half of them"),
              TERN_FIELD(scheduler.speculation_layers), 0, 4096));
  add(Integer(info("speculate_max_tokens", "--speculate-max-tokens", "N",
                   "a step of more tokens than this guesses nothing"),
              TERN_FIELD(scheduler.speculation_max_tokens), 1, 4096));
  add(Bytes(info("swap_bytes", "--swap-bytes", "BYTES",
                 "host memory for the KV of preempted sequences; 0 = it is computed again"),
            TERN_FIELD(scheduler.swap_bytes)));
}

void AddEngineOptions(std::vector<Option>* table) {
  const auto add = [&](Option option) { table->push_back(std::move(option)); };
  const auto info = [](std::string_view name, std::string_view flag, std::string_view value,
                       std::string_view help) {
    return OptionInfo{"engine", name, flag, OptionKind::kText, value, help};
  };
  using engine::ActivationMode;
  using engine::HeadMode;
  add(LoraAdapters());
  using engine::KvType;
  add(Integer(info("threads", "-t,--threads", "N", "compute threads; 0 = the CPUs allowed"),
              TERN_FIELD(threads), 0, 1024));
  add(Choice<ActivationMode>(
      info("activation_quant", "--activation-quant", "MODE",
           "input of ternary projections: auto | token | block | float; auto follows the model"),
      TERN_FIELD(engine.activation),
      {{"auto", ActivationMode::kAuto},
       {"token", ActivationMode::kToken},
       {"block", ActivationMode::kBlock},
       {"float", ActivationMode::kFloat}}));
  add(Choice<HeadMode>(info("head", "--head", "MODE",
                            "how the LM head is computed where only the best logits count: full | "
                            "strict | screened; strict skips what a proven bound rules out and "
                            "gives the same bits; screened is faster and trusts a bound of 6 "
                            "sigmas (docs/kernels.md)"),
                       TERN_FIELD(engine.head),
                       {{"full", HeadMode::kFull},
                        {"strict", HeadMode::kStrict},
                        {"screened", HeadMode::kScreened}}));
  add(Text(info("packed_cache", "--packed-cache", "WHERE",
                "keeps weights as they are packed for this CPU, so that the next start reads them: "
                "off | beside (FILE.packed, about as large as the model) | a folder"),
           TERN_FIELD(engine.packed_cache)));
  add(Choice<KvType>(
      info("kv_type", "--kv-type", "TYPE",
           "storage of K and V: f32 | f16 | q8 | t2; q8 takes half of f16 and loses "
           "little, t2 (ternary) an eighth and costs quality (docs/quality.md)"),
      TERN_FIELD(engine.kv_type),
      {{"f32", KvType::kF32}, {"f16", KvType::kF16}, {"q8", KvType::kQ8}, {"t2", KvType::kT2}}));
  add(Integer(info("sliding_window", "--sliding-window", "N",
                   "tokens that a token sees beside the sinks, its own included; what is behind is "
                   "given back, so contexts may be longer than the KV pool; 0 = all; models with "
                   "windows of their own keep those"),
              TERN_FIELD(engine.sliding_window), 0, 1 << 24));
  add(Integer(info("attention_sinks", "--attention-sinks", "N",
                   "first tokens that stay in sight of a sliding window"),
              TERN_FIELD(engine.attention_sinks), 0, 1 << 16));
  add(Integer(info("kv_block_size", "--kv-block-size", "N", "tokens per KV block, times 16"),
              TERN_FIELD(engine.kv_block_size), 16, 4096));
  add(Bytes(info("kv_bytes", "--kv-bytes", "BYTES", "size of the KV pool; 0 = from free memory"),
            TERN_FIELD(engine.kv_bytes)));
  add(Integer(info("context_length", "-c,--context-length", "N",
                   "longest sequence; 0 = what the model was trained for"),
              TERN_FIELD(engine.context_length), 0, 1 << 24));
  add(Choice<std::optional<engine::Pooling>>(
      info("pooling", "--pooling", "POOLING",
           "which tokens an embedding is made of: auto | mean | cls | last; auto = as the model "
           "says, else last"),
      TERN_FIELD(engine.pooling),
      {{"auto", std::nullopt},
       {"mean", engine::Pooling::kMean},
       {"cls", engine::Pooling::kCls},
       {"last", engine::Pooling::kLast}}));
  add(Choice<std::string>(info("i2s_layout", "--i2s-layout", "LAYOUT",
                               "byte layout of I2_S tensors: x86 | arm64 | interleaved4"),
                          TERN_FIELD(engine.i2s_layout),
                          {{"x86", "x86"}, {"arm64", "arm64"}, {"interleaved4", "interleaved4"}}));
}

void AddFabricOptions(std::vector<Option>* table) {
  const auto add = [&](Option option) { table->push_back(std::move(option)); };
  const auto info = [](std::string_view name, std::string_view flag, std::string_view value,
                       std::string_view help) {
    return OptionInfo{"fabric", name, flag, OptionKind::kText, value, help};
  };
  using Layout = std::optional<fabric::TernaryLayout>;
  add(Choice<std::string>(
      info("device", "--fabric-device", "NAME",
           "device of projections: sim | reference | stub | ioctl"),
      TERN_FIELD(fabric.device),
      {{"sim", "sim"}, {"reference", "reference"}, {"stub", "stub"}, {"ioctl", "ioctl"}}));
  add(Integer(info("devices", "--fabric-devices", "N", "so many devices, which share each matrix"),
              TERN_FIELD(fabric.devices), 1, 16));
  add(Choice<fabric::FabricSplit>(
      info("split", "--fabric-split", "HOW", "how devices share a matrix: rows | columns"),
      TERN_FIELD(fabric.split),
      {{"rows", fabric::FabricSplit::kRows}, {"columns", fabric::FabricSplit::kColumns}}));
  add(Choice<Layout>(info("layout", "--fabric-layout", "LAYOUT",
                          "ternary weights in memory: auto (what measures faster) | 2bit | pt5"),
                     TERN_FIELD(fabric.layout),
                     {{"auto", Layout()},
                      {"2bit", Layout(fabric::TernaryLayout::kPanel2Bit)},
                      {"pt5", Layout(fabric::TernaryLayout::kPanelPt5)}}));
  add(Choice<fabric::SparseChoice>(
      info("sparse", "--fabric-sparse", "WHEN",
           "hold a ternary matrix as its non-zeros alone: auto (where that measures faster) | "
           "never | always"),
      TERN_FIELD(fabric.sparse),
      {{"auto", fabric::SparseChoice::kAuto},
       {"never", fabric::SparseChoice::kNever},
       {"always", fabric::SparseChoice::kAlways}}));
  add(Choice<engine::FabricProfile>(
      info("profile", "--fabric-profile", "NAME",
           "quantised matrices: native (on the host) | fast | balanced | accurate, which run them "
           "as ternary planes that err by at most 0.2, 0.06 or nothing"),
      TERN_FIELD(engine.placement.profile),
      {{"native", engine::FabricProfile::kNative},
       {"fast", engine::FabricProfile::kFast},
       {"balanced", engine::FabricProfile::kBalanced},
       {"accurate", engine::FabricProfile::kAccurate}}));
  add(Parsed(info("planes", "--fabric-planes", "N",
                  "ternary planes per quantised matrix: profile | off | auto (the fewest within "
                  "the error) | 1 to 6"),
             TERN_FIELD(engine.placement.planes), engine::ParsePlanes, engine::PlanesText));
  add(Parsed(
      info("max_error", "--fabric-max-error", "E",
           "a matrix whose planes would err by more stays with the host: profile, or 0 to 1"),
      TERN_FIELD(engine.placement.max_error), engine::ParseMaxError,
      [](const std::optional<double>& error) {
        return error ? NumberText(*error) : std::string("profile");
      }));
  add(Text(info("calibration", "--fabric-calibration", "FILE",
                "how much each input column carries, from `tern calibrate`: weighs the error of "
                "planes"),
           TERN_FIELD(engine.placement.importance)));
  add(Parsed(info("layers", "--fabric-layers", "LIST",
                  "layers whose matrices the Fabric gets: all | none | such as 0-23 or 0,4-7; the "
                  "host runs the others"),
             TERN_FIELD(engine.placement.layers), engine::LayerSet::Parse,
             [](const engine::LayerSet& layers) { return layers.Text(); }));
  add(Integer(info("shadow_interval", "--fabric-shadow-interval", "N",
                   "one in N products of planes is compared with the exact weights; 0 = none"),
              TERN_FIELD(fabric.shadow_interval), 0, 1'000'000'000));
  add(AutoBytes(info("pool", "--fabric-pool", "BYTES",
                     "memory of each device for ternary matrices, such as 128MiB; the others wait "
                     "outside and are copied in as they are needed; auto = all stay"),
                TERN_FIELD(fabric.pool_bytes)));
  add(Text(info("store", "--fabric-store", "FOLDER",
                "what waits outside of the pool is in a file in FOLDER, and not in memory"),
           TERN_FIELD(fabric.store)));
  add(Integer(
      info("queue_depth", "--fabric-queue", "N",
           "submissions that wait at each device while a thread of its own works; 0 = none"),
      TERN_FIELD(fabric.queue_depth), 0, 1024));
  add(Boolean(
      info("account", "--fabric-account", "", "keep the account of skips, cycles and energy"),
      TERN_FIELD(fabric.account)));
  add(Integer(info("lanes_per_tile", "--fabric-lanes", "N", "lanes of one modelled tile"),
              TERN_FIELD(fabric.geometry.lanes_per_tile), 1, 4096));
  add(Integer(info("tiles", "--fabric-tiles", "N", "modelled tiles"),
              TERN_FIELD(fabric.geometry.tiles), 1, 8));
  add(Real(info("clock_hz", "--fabric-clock", "HZ", "clock of the modelled fabric"),
           TERN_FIELD(fabric.geometry.clock_hz), 1, 1e12));
  add(Integer(info("dispatch_cycles", "--fabric-dispatch-cycles", "N", "cycles per launch"),
              TERN_FIELD(fabric.geometry.dispatch_cycles), 0, 1 << 20));
  add(Real(info("check_rate", "--fabric-check-rate", "SHARE",
                "share of a stub's or ioctl's results that the host verifies"),
           TERN_FIELD(fabric.check_rate), 0, 1));
  add(Integer(info("watchdog_ms", "--fabric-watchdog", "MS",
                   "a submission that takes longer has failed (ioctl)"),
              TERN_FIELD(fabric.watchdog_ms), 1, 600'000));
  add(Parsed(info("faults", "--fabric-faults", "LIST",
                  "faults that the mock behind ioctl makes up, such as timeout=0.01,flip=0.05"),
             TERN_FIELD(fabric.faults), fabric::ParseFaultPlan, fabric::FaultPlanText));
  add(Text(info("trace", "--fabric-trace", "FILE", "append a line per projection to FILE"),
           TERN_FIELD(fabric.trace)));
}

#undef TERN_FIELD

std::vector<Option> BuildTable() {
  std::vector<Option> table;
  // Names come after paths because they belong to the models that the paths made.
  table.push_back(ModelPaths());
  table.push_back(ModelNames());
  table.push_back(ModelSettings());
  AddServerOptions(&table);
  AddSchedulerOptions(&table);
  AddEngineOptions(&table);
  AddFabricOptions(&table);
  return table;
}

}  // namespace

std::string Quoted(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (byte < 0x20 || byte == 0x7F) {
      quoted += "\\u00";
      quoted += kHex[byte >> 4];
      quoted += kHex[byte & 15];
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

std::span<const Option> OptionTable() {
  static const std::vector<Option> table = BuildTable();
  return table;
}

}  // namespace config
