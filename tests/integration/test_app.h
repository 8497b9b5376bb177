#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "fabric/worker_team.h"
#include "server/app.h"
#include "tests/server/raw_client.h"
#include "tests/support/eventually.h"

namespace server {

using support::Eventually;

inline std::string DemoModelPath() {
  return std::string(TERN_SOURCE_DIR) + "/models/tern-demo-7m-i2_s.gguf";
}

struct TestAppOptions {
  ServerOptions server;
  scheduler::SchedulerOptions scheduler;
  engine::EngineOptions engine;
  fabric::FabricOptions fabric;
  std::string model_path = DemoModelPath();
  std::vector<std::string> more_names;  // further models of the same file
  ModelPolicy policy;                   // of all
  bool await_ready = true;
};

// The real application with the demo model, on a free port of the loopback interface.
class TestApp {
 public:
  explicit TestApp(TestAppOptions options = {}) : team_(2) {
    options.server.port = 0;
    options.server.log_requests = false;
    scheduler::ModelRuntime::Options model;
    model.name = "demo";
    model.path = options.model_path;
    model.engine = options.engine;
    model.fabric = options.fabric;
    // Measuring which is faster would take a busy machine, or one with ThreadSanitizer, minutes.
    if (!model.fabric.layout) model.fabric.layout = fabric::TernaryLayout::kPanel2Bit;
    model.engine.kv_bytes = 64u << 20;
    model.scheduler = options.scheduler;
    std::vector<ModelSpec> models = {{.runtime = model, .policy = options.policy}};
    for (const std::string& name : options.more_names) {
      models.push_back(models.front());
      models.back().runtime.name = name;
    }
    app_ = std::make_unique<App>(options.server, std::move(models), team_);
    auto ready = std::make_shared<std::promise<bool>>();
    app_->OnReady([ready](bool ok, const std::string&) { ready->set_value(ok); });
    app_->Start();
    if (options.await_ready && !ready->get_future().get()) {
      throw std::runtime_error("the demo model did not load");
    }
  }

  App& app() { return *app_; }
  uint16_t port() const { return app_->port(); }
  RawClient Connect() const { return RawClient(port()); }

  RawClient::Response Get(const std::string& path) const {
    RawClient client = Connect();
    client.Send(GetText(path));
    return client.ReadResponse();
  }
  RawClient::Response Post(const std::string& path, const nlohmann::json& body) const {
    RawClient client = Connect();
    client.Send(PostText(path, body.dump()));
    return client.ReadResponse();
  }
  // REQUIRES: the answer is 200 and JSON.
  nlohmann::json PostOk(const std::string& path, const nlohmann::json& body) const {
    const auto response = Post(path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    return nlohmann::json::parse(response.body);
  }
  // Value of a sample of /metrics by its beginning, or -1.
  double Metric(const std::string& name) const {
    const std::string text = Get("/metrics").body;
    const size_t at = text.find("\n" + name);
    if (at == std::string::npos) return -1;
    const size_t space = text.find(' ', at);
    return std::atof(text.c_str() + space);
  }

 private:
  fabric::WorkerTeam team_;
  std::unique_ptr<App> app_;
};

// The frames of an event stream, without "data: " and the final [DONE].
struct EventStream {
  std::vector<nlohmann::json> chunks;
  bool done = false;  // ended with [DONE]
  bool clean = true;  // nothing but data frames and pings

  explicit EventStream(const std::string& body) {
    size_t begin = 0;
    while (begin < body.size()) {
      const size_t end = body.find("\n\n", begin);
      if (end == std::string::npos) {
        clean = false;
        return;
      }
      const std::string frame = body.substr(begin, end - begin);
      begin = end + 2;
      if (frame == ": ping") continue;
      if (done || !frame.starts_with("data: ")) clean = false;
      if (frame == "data: [DONE]") {
        done = true;
      } else if (frame.starts_with("data: ")) {
        chunks.push_back(nlohmann::json::parse(frame.substr(6)));
      }
    }
  }

  // All content of a choice, chat or text.
  std::string Text(int index = 0) const {
    std::string text;
    for (const auto& chunk : chunks) {
      if (!chunk.contains("choices")) continue;
      for (const auto& choice : chunk["choices"]) {
        if (choice["index"] != index) continue;
        if (choice.contains("text")) text += choice["text"].get<std::string>();
        if (choice.contains("delta")) text += choice["delta"].value("content", "");
      }
    }
    return text;
  }
  std::string FinishReason(int index = 0) const {
    for (const auto& chunk : chunks) {
      if (!chunk.contains("choices")) continue;
      for (const auto& choice : chunk["choices"]) {
        if (choice["index"] == index && choice["finish_reason"].is_string()) {
          return choice["finish_reason"];
        }
      }
    }
    return "";
  }
};

inline nlohmann::json ChatBody(const std::string& content, int max_tokens = 24) {
  return {{"model", "demo"},
          {"messages", {{{"role", "user"}, {"content", content}}}},
          {"max_tokens", max_tokens},
          {"temperature", 0}};
}

inline TestAppOptions OneAtATime() {
  TestAppOptions options;
  options.scheduler.max_sequences = 1;
  return options;
}

// Runs for as long as a test needs, whoever the machine lets run meanwhile: with OneAtATime() its
// choices come one after the other.
inline nlohmann::json LongBody() {
  nlohmann::json body = ChatBody("Tell me a story.", 900);
  body["ignore_eos"] = true;
  body["stream"] = true;
  body["n"] = 16;
  return body;
}

}  // namespace server
