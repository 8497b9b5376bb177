// Property: every option can be set by file, environment and flag; the stronger source wins; and
// every error names the place where the bad setting was given.

#include "config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "config/option_table.h"

namespace config {
namespace {

using testing::HasSubstr;

class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text) {
    static int counter = 0;
    path_ = testing::TempDir() + "tern_config_" + std::to_string(getpid()) + "_" +
            std::to_string(counter++) + ".toml";
    std::ofstream(path_) << text;
  }
  ~ConfigFile() { unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string ErrorOf(const Inputs& inputs) {
  try {
    Load(inputs);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Config, DefaultsAreThoseOfTheOptionStructs) {
  const Config config = Load({}).config;
  EXPECT_EQ(config.server.port, server::ServerOptions{}.port);
  EXPECT_EQ(config.scheduler.max_sequences, scheduler::SchedulerOptions{}.max_sequences);
  EXPECT_EQ(config.engine.kv_block_size, engine::EngineOptions{}.kv_block_size);
  EXPECT_TRUE(config.models.empty());
}

TEST(Config, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const ConfigFile file("[server]\nport = 1001\nhost = \"file\"\nmax_connections = 7\n");
  Inputs inputs{.file = file.path(),
                .environment = {{"TERN_SERVER_PORT", "1002"}, {"TERN_SERVER_HOST", "env"}},
                .flags = {{"--port", {"1003"}}}};
  const Loaded loaded = Load(inputs);
  EXPECT_EQ(loaded.config.server.port, 1003);
  EXPECT_EQ(loaded.config.server.host, "env");
  EXPECT_EQ(loaded.config.server.max_connections, 7U);
  EXPECT_EQ(loaded.origins.at("server.port"), "--port");
  EXPECT_EQ(loaded.origins.at("server.host"), "TERN_SERVER_HOST");
  EXPECT_EQ(loaded.origins.at("server.max_connections"), file.path() + ":4");
  EXPECT_EQ(loaded.origins.count("server.threads"), 0U);
}

// Settings without their origins.
std::string Values(const Loaded& loaded) {
  std::string values;
  std::istringstream lines(ToToml(loaded));
  for (std::string line; std::getline(lines, line);) {
    values += line.substr(0, line.find("  #")) + "\n";
  }
  return values;
}

TEST(Config, ExampleFileShowsEveryOptionWithItsDefault) {
  const Loaded example = Load({.file = TERN_SOURCE_DIR "/config/example.toml"});
  EXPECT_EQ(Values(example), Values(Load({})));
  for (const OptionInfo& info : Options()) {
    if (info.section == "model" || info.name.starts_with("api_key")) continue;
    std::string key(info.section);
    key.append(".").append(info.name);
    EXPECT_EQ(example.origins.count(key), 1U) << key;
  }
}

// A value that the option takes and that is not its default.
std::string OtherValue(const OptionInfo& info) {
  if (info.kind == OptionKind::kBoolean) return "true";
  if (info.name == "kv_block_size") return "32";
  if (info.name == "max_batch_tokens") return "600";
  if (info.name.ends_with("_bytes") && info.kind == OptionKind::kInteger) return "2048";
  if (info.kind == OptionKind::kInteger) return "8";
  if (info.name == "check_rate") return "0.5";
  if (info.name == "trace_ratio") return "0.25";
  if (info.kind == OptionKind::kReal) return "3.5";
  if (info.kind == OptionKind::kBytes) return "12KiB";
  if (info.name == "metrics_aliases") return "none";
  if (info.name == "activation_quant") return "block";
  if (info.name == "head") return "full";
  if (info.name == "kv_type") return "f32";
  if (info.name == "pooling") return "mean";
  if (info.name == "i2s_layout") return "arm64";
  if (info.name == "device") return "reference";
  if (info.name == "layout") return "pt5";
  if (info.name == "split") return "columns";
  if (info.name == "sparse") return "always";
  if (info.name == "pool") return "131072";
  if (info.name == "faults") return "busy=0.5";
  if (info.name == "profile") return "fast";
  if (info.name == "planes") return "3";
  if (info.name == "max_error") return "0.25";
  if (info.name == "layers") return "0-3,7";
  if (info.name == "prefix_cache") return "per-key";
  if (info.name == "speculate") return "ngram";
  if (info.name == "model_load") return "lazy";
  if (info.name == "tool_parser") return "hermes";
  if (info.name == "reasoning_parser") return "none";
  if (info.name == "otlp_endpoint") return "https://collector:4318/base";
  if (info.name == "otlp_headers") return "authorization=Bearer%20abc";
  if (info.name == "trace_sampler") return "ratio";
  return "text";
}

TEST(Config, EveryOptionGivesTheSameFromEverySource) {
  for (const OptionInfo& info : Options()) {
    if (info.section == "model" || info.name.starts_with("api_key")) continue;
    if (info.name.starts_with("tls_")) continue;  // valid in a pair only: the test below
    const std::string value = OtherValue(info);
    const bool quoted = info.kind == OptionKind::kText || info.kind == OptionKind::kBytes;
    std::string toml = "[";
    toml.append(info.section).append("]\n").append(info.name).append(" = ");
    const bool list = info.kind == OptionKind::kTextList;
    toml += list ? "[" + Quoted(value) + "]" : quoted ? Quoted(value) : value;
    const ConfigFile file(toml);
    std::string variable = "TERN_" + std::string(info.section) + "_" + std::string(info.name);
    for (char& c : variable) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    const std::string expected = Values(Load({.flags = {{info.flag, {value}}}}));
    EXPECT_EQ(Values(Load({.file = file.path()})), expected) << info.name;
    EXPECT_EQ(Values(Load({.environment = {{variable, value}}})), expected) << variable;
  }
}

TEST(Config, TlsTakesACertificateAndItsKey) {
  const ConfigFile file("[server]\ntls_certificate = \"a.pem\"\n");
  const Loaded both =
      Load({.file = file.path(), .environment = {{"TERN_SERVER_TLS_KEY", "b.pem"}}});
  EXPECT_EQ(both.config.server.tls_certificate_file, "a.pem");
  EXPECT_EQ(both.config.server.tls_key_file, "b.pem");
  for (const auto& [inputs, missing] :
       {std::pair{Inputs{.file = file.path()}, "needs server.tls_key"},
        {Inputs{.flags = {{"--tls-key", {"b.pem"}}}}, "needs server.tls_certificate"}}) {
    try {
      Load(inputs);
      ADD_FAILURE() << "half a pair was taken, " << missing;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(missing), std::string::npos) << error.what();
    }
  }
}

TEST(Config, PrintedConfigReadsBackAsItself) {
  const Inputs inputs{.flags = {{"-m,--model", {"a.gguf", "dir/b.gguf"}},
                                {"--served-model-name", {"first"}},
                                {"--cors-origin", {"\"quoted\"\\\t"}},
                                {"--kv-bytes", {"3GiB"}},
                                {"--ping", {"0.1"}}}};
  const std::string printed = ToToml(Load(inputs));
  const ConfigFile file(printed);
  const Loaded again = Load({.file = file.path()});
  EXPECT_EQ(again.config.server.cors_origin, "\"quoted\"\\\t");
  EXPECT_EQ(again.config.engine.kv_bytes, 3ULL << 30);
  EXPECT_EQ(again.config.server.ping_seconds, 0.1);
  ASSERT_EQ(again.config.models.size(), 2U);
  EXPECT_EQ(again.config.models[0].name, "first");
  EXPECT_EQ(again.config.models[1].name, "b");
}

TEST(Config, ADraftModelIsOfOneModelAndNeededToDraftWithOne) {
  const auto error = [](const std::vector<FlagValue>& flags) {
    try {
      Load({.flags = flags});
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(error({{"--speculate", {"model"}}}).find("needs a scheduler.draft_model"),
            std::string::npos);
  EXPECT_NE(error({{"-m,--model", {"a.gguf", "b.gguf"}}, {"--draft-model", {"c.gguf"}}})
                .find("needs a server of one model"),
            std::string::npos);
  EXPECT_EQ(error({{"--speculate", {"model"}}, {"--draft-model", {"c.gguf"}}}), "");
  EXPECT_EQ(error({{"--draft-model", {"c.gguf"}}}), "");
}

TEST(Config, LoraScaleStandsAfterThePath) {
  const auto lora = [](const std::vector<std::string>& values) {
    return Load({.flags = {{"--lora", values}}}).config.engine.lora;
  };
  const auto two = lora({"a.gguf", "dir/b=c.gguf=-0.25"});
  ASSERT_EQ(two.size(), 2U);
  EXPECT_EQ(two[0].path, "a.gguf");
  EXPECT_EQ(two[0].scale, 1.0F);
  EXPECT_EQ(two[1].path, "dir/b=c.gguf");
  EXPECT_EQ(two[1].scale, -0.25F);
  EXPECT_EQ(lora({"dir/b=c.gguf"})[0].path, "dir/b=c.gguf");
  const ConfigFile printed(ToToml(Load({.flags = {{"--lora", {"a.gguf=0.1"}}}})));
  EXPECT_EQ(Load({.file = printed.path()}).config.engine.lora[0].scale, 0.1F);
  EXPECT_THROW(lora({"=0.5"}), ConfigError);
  EXPECT_THROW(lora({"a.gguf=1000"}), ConfigError);
  EXPECT_THROW(Load({.flags = {{"-m,--model", {"a.gguf", "b.gguf"}}, {"--lora", {"c.gguf"}}}}),
               ConfigError);
}

TEST(Config, PrintedConfigNeverShowsAKey) {
  const std::string printed = ToToml(Load({.flags = {{"--api-key", {"secret-1", "secret-2"}}}}));
  EXPECT_THAT(printed, Not(HasSubstr("secret")));
  EXPECT_THAT(printed, HasSubstr("2 set, not shown"));
}

TEST(Config, OpenTelemetrysVariablesAreTheWeakestSource) {
  const std::vector<std::pair<std::string, std::string>> platform = {
      {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://platform:4318"},
      {"OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-tenant=t"},
      {"OTEL_SERVICE_NAME", "svc"},
      {"OTEL_TRACES_EXPORTER", "none of ours"}};
  const Loaded loaded = Load({.environment = platform});
  EXPECT_EQ(loaded.config.server.otlp_endpoint, "http://platform:4318");
  EXPECT_EQ(loaded.origins.at("server.otlp_endpoint"), "OTEL_EXPORTER_OTLP_ENDPOINT");
  EXPECT_EQ(loaded.config.server.trace_service, "svc");
  const server::HeaderList headers = {{"authorization", "Bearer abc"}, {"x-tenant", "t"}};
  EXPECT_EQ(loaded.config.server.otlp_headers, headers);
  const std::string printed = ToToml(loaded);
  EXPECT_THAT(printed, Not(HasSubstr("Bearer")));
  EXPECT_THAT(printed, HasSubstr("# otlp_headers: 2 set, not shown"));

  const ConfigFile file("[server]\notlp_endpoint = \"http://mine:4318\"\n");
  EXPECT_EQ(Load({.file = file.path(), .environment = platform}).config.server.otlp_endpoint,
            "http://mine:4318");
  EXPECT_EQ(ErrorOf({.environment = {{"OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"}}}),
            "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL such as http://127.0.0.1:8080, not "
            "\"collector:4317\".");
  for (const char* bad : {"novalue", "=x", "a b=c", "a=%0d%0ax: y", "a=%zz"}) {
    const std::string error = ErrorOf({.flags = {{"--otlp-header", {bad}}}});
    EXPECT_THAT(error, HasSubstr("must be NAME=VALUE")) << bad;
  }
}

TEST(Config, ChangesAreNamedAndLiveOnesMarked) {
  const Config before = Load({}).config;
  EXPECT_TRUE(Changes(before, before).empty());
  const Config after = Load({.flags = {{"--ping", {"3.5"}},
                                       {"--strict-params", {"true"}},
                                       {"--port", {"9"}},
                                       {"--kv-type", {"q8"}}}})
                           .config;
  const auto changes = Changes(before, after);
  std::map<std::string, bool> live;
  for (const Change& change : changes) live[change.key] = change.live;
  const std::map<std::string, bool> expected = {{"server.ping", true},
                                                {"server.strict_params", true},
                                                {"server.port", false},
                                                {"engine.kv_type", false}};
  EXPECT_EQ(live, expected);
  // What is called live is taken over, and nothing else is.
  Config running = before;
  running.server.TakeLiveValues(after.server);
  for (const Change& change : Changes(running, after)) EXPECT_FALSE(change.live) << change.key;
  EXPECT_EQ(Changes(before, running).size(), 2U);
}

// They are printed nowhere, but a key that was taken back and still opens must be named.
TEST(Config, ChangedSecretsAndModelSettingsAreNamed) {
  using Flags = decltype(Inputs::flags);
  const auto changed = [](const Flags& a, const Flags& b) {
    std::vector<std::string> keys;
    for (const Change& change : Changes(Load({.flags = a}).config, Load({.flags = b}).config)) {
      keys.push_back(change.key);
      EXPECT_FALSE(change.live);
      EXPECT_THAT(change.value, testing::Not(HasSubstr("secret")));
    }
    return keys;
  };
  EXPECT_THAT(changed({{"--api-key", {"secret"}}}, {{"--api-key", {"secret-2"}}}),
              testing::ElementsAre("server.api_keys"));
  EXPECT_THAT(changed({{"--otlp-header", {"a=secret"}}}, {{"--otlp-header", {"a=secret-2"}}}),
              testing::ElementsAre("server.otlp_headers"));
  EXPECT_THAT(changed({{"-m,--model", {"m.gguf"}}, {"--model-set", {"m:pinned=true"}}},
                      {{"-m,--model", {"m.gguf"}}, {"--model-set", {"m:pinned=false"}}}),
              testing::ElementsAre("model.set"));
}

TEST(Config, AFolderIsNoFile) {
  try {
    Load({.file = std::filesystem::temp_directory_path().string()});
    FAIL() << "it was taken for an empty file";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("is a folder"));
  }
}

TEST(Config, EveryLiveOptionIsTakenOver) {
  const Config before = Load({}).config;
  int count = 0;
  for (const OptionInfo& info : Options()) {
    if (info.section != "server" || info.name.starts_with("api_key")) continue;
    if (info.name.starts_with("tls_")) continue;  // the paths come as a pair and need a restart
    const std::string other = info.name == "log_requests" ? std::string("false")
                              : info.name == "log_format" ? std::string("json")
                                                          : OtherValue(info);
    const Config after = Load({.flags = {{info.flag, {other}}}}).config;
    const auto changes = Changes(before, after);
    ASSERT_EQ(changes.size(), 1U) << info.name;
    Config running = before;
    running.server.TakeLiveValues(after.server);
    EXPECT_EQ(Changes(running, after).empty(), changes[0].live) << info.name;
    count += changes[0].live ? 1 : 0;
  }
  EXPECT_EQ(count, 9);
}

TEST(Config, KeyFileNamesItsKeys) {
  const ConfigFile keys("# comment\nalice k-1\nk-2\n");
  const Config config = Load({.flags = {{"--api-key-file", {keys.path()}}}}).config;
  ASSERT_EQ(config.server.api_keys.size(), 2U);
  EXPECT_EQ(config.server.api_keys[0].name, "alice");
  EXPECT_EQ(config.server.api_keys[0].key, "k-1");
  EXPECT_EQ(config.server.api_keys[1].name, "key-2");
}

TEST(Config, WorkspaceFollowsTheStepBudget) {
  const Config config = Load({.flags = {{"--max-batch-tokens", {"300"}}}}).config;
  EXPECT_EQ(config.scheduler.max_batch_tokens, 300U);
  EXPECT_EQ(config.engine.max_batch_tokens, 300U);
}

TEST(Config, ModelsOfAStrongerSourceReplaceThoseOfAWeaker) {
  const ConfigFile file(
      "[[model]]\npath = \"x.gguf\"\nname = \"x\"\n[[model]]\npath = \"y.gguf\"\n");
  const Config from_file = Load({.file = file.path()}).config;
  ASSERT_EQ(from_file.models.size(), 2U);
  EXPECT_EQ(from_file.models[1].name, "y");
  const Config both = Load({.file = file.path(), .flags = {{"-m,--model", {"z.gguf"}}}}).config;
  ASSERT_EQ(both.models.size(), 1U);
  EXPECT_EQ(both.models[0].name, "z");
}

TEST(Config, AModelHasSettingsOfItsOwn) {
  const ConfigFile file(
      "[server]\nmodel_idle_unload = 60.0\n[engine]\nkv_bytes = \"1GiB\"\n"
      "[[models]]\nid = \"a\"\npath = \"x.gguf\"\nload = \"lazy\"\npinned = true\n"
      "engine.kv_bytes = \"2GiB\"\nengine.lora = [\"l.gguf\"]\n"
      "scheduler.max_batch_tokens = 64\n"
      "[[models]]\npath = \"dir/b.gguf\"\nidle_unload = 0.0\n");
  const Loaded loaded = Load({.file = file.path(),
                              .flags = {{"--model-set",
                                         {"b:engine.context_length=512", "a:engine.kv_bytes=3GiB",
                                          "b:engine.lora=m.gguf", "b:engine.lora=n.gguf"}}}});
  const Config& config = loaded.config;
  ASSERT_EQ(config.models.size(), 2U);
  const Config a = ConfigOf(config, config.models[0]);
  EXPECT_EQ(config.models[0].name, "a");
  EXPECT_TRUE(a.policy.lazy);
  EXPECT_TRUE(a.policy.pinned);
  EXPECT_EQ(a.policy.idle_seconds, 60);
  EXPECT_EQ(a.engine.kv_bytes, 3ULL << 30);
  EXPECT_EQ(a.engine.lora.size(), 1U);
  EXPECT_EQ(a.engine.max_batch_tokens, 64U);
  const Config b = ConfigOf(config, config.models[1]);
  EXPECT_FALSE(b.policy.lazy);
  EXPECT_FALSE(b.policy.pinned);
  EXPECT_EQ(b.policy.idle_seconds, 0);
  EXPECT_EQ(b.engine.kv_bytes, 1ULL << 30);
  EXPECT_EQ(b.engine.context_length, 512U);
  EXPECT_EQ(b.engine.lora.size(), 2U);
  // And reads back as it is printed.
  const ConfigFile printed(ToToml(loaded));
  const Config again = Load({.file = printed.path()}).config;
  EXPECT_EQ(ConfigOf(again, again.models[0]).engine.kv_bytes, 3ULL << 30);
  EXPECT_TRUE(ConfigOf(again, again.models[0]).policy.pinned);
  EXPECT_EQ(ConfigOf(again, again.models[1]).engine.lora[1].path, "n.gguf");
}

TEST(Config, TheDefaultModelTakesSettingsLikeAnother) {
  const auto bundled = [] { return std::string("/models/demo.gguf"); };
  const Config config =
      Load({.flags = {{"--model-set", {"demo:load=lazy"}}}, .default_model = bundled}).config;
  ASSERT_EQ(config.models.size(), 1U);
  EXPECT_EQ(config.models[0].path, "/models/demo.gguf");
  EXPECT_TRUE(ConfigOf(config, config.models[0]).policy.lazy);
  const Config named =
      Load({.flags = {{"--served-model-name", {"x"}}}, .default_model = bundled}).config;
  EXPECT_EQ(named.models[0].name, "x");
  EXPECT_EQ(named.models[0].path, "/models/demo.gguf");
  const Config other = Load({.flags = {{"-m,--model", {"a.gguf"}}},
                             .default_model =
                                 [] {
                                   ADD_FAILURE() << "asked for, although a model is named";
                                   return std::string();
                                 }})
                           .config;
  EXPECT_EQ(other.models[0].path, "a.gguf");
}

// Otherwise the printed configuration would start a server that asks for no key.
TEST(Config, PrintedConfigKeepsTheKeyFile) {
  const ConfigFile keys("alice k-1\n");
  const std::string printed = ToToml(Load({.flags = {{"--api-key-file", {keys.path()}}}}));
  EXPECT_THAT(printed, testing::Not(HasSubstr("k-1")));
  const ConfigFile file(printed);
  const Config again = Load({.file = file.path()}).config;
  ASSERT_EQ(again.server.api_keys.size(), 1U);
  EXPECT_EQ(again.server.api_keys[0].key, "k-1");
}

TEST(ConfigErrors, ABodyLimitThatRefusesEveryBodyIsNone) {
  EXPECT_EQ(ErrorOf({.flags = {{"--max-body", {"0"}}}}),
            "--max-body must be at least 1024 bytes, not \"0\".");
}

TEST(ConfigErrors, OneKeyUnderTwoNamesIsRefused) {
  const ConfigFile keys("low kk rpm=1\nboss kk scope=admin\n");
  const std::string error = ErrorOf({.flags = {{"--api-key-file", {keys.path()}}}});
  EXPECT_THAT(error, HasSubstr("line 2"));
  EXPECT_THAT(error, HasSubstr("\"low\""));
  EXPECT_THAT(error, testing::Not(HasSubstr("kk ")));
}

TEST(ConfigErrors, SlipsAtTheTopOfTheFileSayWhatIsNeeded) {
  const auto of_file = [](const std::string& text) {
    const ConfigFile file(text);
    return ErrorOf({.file = file.path()});
  };
  EXPECT_THAT(of_file("[models]\npath = \"a.gguf\"\n"), HasSubstr("[[models]], not [models]"));
  EXPECT_THAT(of_file("port = 1\n"), HasSubstr("its section [server]"));
  EXPECT_THAT(of_file("[sever]\nport = 1\n"), HasSubstr("did you mean server?"));
}

TEST(ConfigErrors, SettingsOfAModelNameTheirPlace) {
  const auto of_file = [](const std::string& line) {
    const ConfigFile file("[[models]]\npath = \"x.gguf\"\n" + line + "\n");
    const std::string error = ErrorOf({.file = file.path()});
    EXPECT_THAT(error, HasSubstr(file.path() + ":3")) << error;
    return error;
  };
  EXPECT_THAT(of_file("engine.kv_byte = 1"), HasSubstr("did you mean engine.kv_bytes?"));
  EXPECT_THAT(of_file("engine.threads = 1"), HasSubstr("stands in [engine]"));
  EXPECT_THAT(of_file("server.port = 1"), HasSubstr("stands in [server]"));
  EXPECT_THAT(of_file("server.prot = 1"), HasSubstr("unknown setting"));
  EXPECT_THAT(of_file("pined = true"), HasSubstr("did you mean pinned?"));
  EXPECT_THAT(of_file("pinned = 1"), HasSubstr("true or false"));
  EXPECT_THAT(of_file("load = \"late\""), HasSubstr("startup | lazy"));
  EXPECT_THAT(of_file("engine.kv_block_size = 17"), HasSubstr("must be a multiple of 16"));
  const auto of_flag = [](const std::string& value) {
    return ErrorOf({.flags = {{"-m,--model", {"a.gguf"}}, {"--model-set", {value}}}});
  };
  EXPECT_THAT(of_flag("a:engine.kv_bytes"), HasSubstr("--model-set must be NAME:KEY=VALUE"));
  EXPECT_THAT(of_flag("b:pinned=true"), HasSubstr("the model \"b\", which is not served"));
  EXPECT_THAT(of_flag("a:pinned=yes"), HasSubstr("true or false"));
  EXPECT_THAT(of_flag("a:engine.nothing=1"), HasSubstr("unknown setting"));
  EXPECT_EQ(of_flag("a:pinned=true"), "");
  EXPECT_THAT(
      ErrorOf(
          {.flags = {{"-m,--model", {"a.gguf", "b.gguf"}},
                     {"--model-set",
                      {"a:scheduler.prefix_cache_file=p", "b:scheduler.prefix_cache_file=p"}}}}),
      HasSubstr("give each its own"));
}

TEST(ConfigErrors, FileNamesItsLine) {
  const ConfigFile file("# comment\n[server]\nport = 99999\n");
  EXPECT_EQ(ErrorOf({.file = file.path()}),
            file.path() + ":3: server.port must be an integer from 0 to 65535, not \"99999\".");
}

TEST(ConfigErrors, FileRefusesAnotherType) {
  const ConfigFile file("[server]\nport = \"8080\"\n");
  EXPECT_EQ(ErrorOf({.file = file.path()}), file.path() + ":2: server.port must be an integer.");
}

TEST(ConfigErrors, UnknownKeySuggestsTheNearest) {
  const ConfigFile file("[server]\nprot = 1\n");
  EXPECT_EQ(ErrorOf({.file = file.path()}),
            file.path() + ":2: unknown key \"prot\" in [server] (did you mean port?).");
}

TEST(ConfigErrors, UnknownSectionIsRefused) {
  const ConfigFile file("[sever]\nport = 1\n");
  EXPECT_THAT(ErrorOf({.file = file.path()}), HasSubstr(":1: unknown section \"sever\""));
}

TEST(ConfigErrors, SyntaxErrorNamesItsLine) {
  const ConfigFile file("[server]\nport =\n");
  EXPECT_THAT(ErrorOf({.file = file.path()}), HasSubstr(file.path() + ":2: "));
}

TEST(ConfigErrors, MissingFileIsNamed) {
  EXPECT_THAT(ErrorOf({.file = "/nonexistent/tern.toml"}), HasSubstr("/nonexistent/tern.toml"));
}

TEST(ConfigErrors, VariableIsNamed) {
  EXPECT_EQ(ErrorOf({.environment = {{"TERN_SERVER_PORT", "abc"}}}),
            "TERN_SERVER_PORT must be an integer from 0 to 65535, not \"abc\".");
}

TEST(ConfigErrors, UnknownVariableOfAKnownSectionIsRefused) {
  EXPECT_THAT(ErrorOf({.environment = {{"TERN_SERVER_PROT", "1"}}}),
              HasSubstr("TERN_SERVER_PROT is no option of section \"server\" (did you mean "
                        "TERN_SERVER_PORT?)"));
  EXPECT_EQ(ErrorOf({.environment = {{"TERN_FORCE_ISA", "avx2"}, {"TERN_TEST_DATA", "/x"}}}), "");
}

TEST(ConfigErrors, FlagIsNamed) {
  EXPECT_EQ(ErrorOf({.flags = {{"--kv-type", {"q3"}}}}),
            "--kv-type must be one of f32 | f16 | q8 | t2, not \"q3\".");
  EXPECT_THAT(ErrorOf({.flags = {{"-t,--threads", {"-1"}}}}),
              testing::StartsWith("--threads must"));
  EXPECT_THAT(ErrorOf({.flags = {{"--kv-bytes", {"99999999999GiB"}}}}),
              HasSubstr("a number of bytes"));
}

TEST(ConfigErrors, ModelsNeedDifferentNames) {
  EXPECT_THAT(ErrorOf({.flags = {{"-m,--model", {"a/m.gguf", "b/m.gguf"}}}}),
              HasSubstr("Two models have the name \"m\""));
}

TEST(ConfigErrors, MoreNamesThanModelsAreRefused) {
  EXPECT_THAT(ErrorOf({.flags = {{"-m,--model", {"a.gguf"}}, {"--served-model-name", {"x", "y"}}}}),
              HasSubstr("--served-model-name must be given at most once per model"));
}

TEST(ConfigErrors, OptionsThatContradictNameBothOrigins) {
  const std::string error = ErrorOf({.environment = {{"TERN_SCHEDULER_MAX_BATCH_TOKENS", "4"}},
                                     .flags = {{"--max-sequences", {"8"}}}});
  EXPECT_THAT(error, HasSubstr("from --max-sequences"));
  EXPECT_THAT(error, HasSubstr("from TERN_SCHEDULER_MAX_BATCH_TOKENS"));
}

}  // namespace
}  // namespace config
