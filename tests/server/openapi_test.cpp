// docs/openapi.json is true: it names every route and no other, and every parameter that it names
// is known to the parser, even in strict mode.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "server/api_error.h"
#include "server/embedding_schema.h"
#include "server/messages_api.h"
#include "server/openai_schema.h"
#include "server/responses_api.h"
#include "server/routes/routes.h"

namespace server {
namespace {

Json Document() {
  std::ifstream file(std::string(TERN_SOURCE_DIR) + "/docs/openapi.json");
  return Json::parse(file);
}

std::string LowerCase(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

class NoModels : public ModelSource {
 public:
  ModelFacts Inspect(size_t) override { return {}; }
  Loaded Load(size_t, const std::function<void(double)>&) override { return {}; }
  void Unload(size_t, std::shared_ptr<ServedModel>) override {}
};

TEST(OpenApi, NamesEveryRouteAndNoOther) {
  const ServerOptions options;
  NoModels source;
  ModelRegistry models({}, {}, source);
  StreamStore streams({});
  Metrics metrics(true);
  boost::asio::thread_pool workers(1);
  RouteContext context{.options = options,
                       .models = models,
                       .streams = streams,
                       .metrics = metrics,
                       .workers = workers,
                       .heartbeat_age = {},
                       .snapshot = {},
                       .draining = {}};
  Router router;
  AddApiRoutes(context, router);
  std::set<std::string> served;
  for (const Router::Route& route : router.routes()) {
    served.insert(LowerCase(route.method) + " " + route.path);
  }
  std::set<std::string> documented;
  const Json document = Document();
  EXPECT_EQ(document.at("openapi"), "3.1.0");
  for (const auto& [path, item] : document.at("paths").items()) {
    // The router's pattern for a parameter at the end.
    const std::string pattern =
        path.substr(0, path.find('{')) + (path.find('{') == std::string::npos ? "" : "*");
    for (const char* method : {"get", "post", "put", "delete"}) {
      if (item.contains(method)) documented.insert(std::string(method) + " " + pattern);
    }
  }
  EXPECT_EQ(documented, served);
}

// Each property's example on top of what the schema requires.
void CheckParameters(const std::string& name, const std::function<void(const Json&)>& parse) {
  const Json document = Document();
  const Json& schema = document.at("components").at("schemas").at(name);
  Json required = Json::object();
  for (const Json& property : schema.at("required")) {
    const auto key = property.get<std::string>();
    required[key] = schema.at("properties").at(key).at("examples")[0];
  }
  if (name == "TokenizeRequest") required["prompt"] = "Hi";
  for (const auto& [property, description] : schema.at("properties").items()) {
    Json body = required;
    body[property] = description.at("examples")[0];
    if (property == "stream_options") body["stream"] = true;
    if (property == "top_logprobs") {
      const bool response = name == "ResponseRequest";
      body[response ? "include" : "logprobs"] =
          response ? Json::array({"message.output_text.logprobs"}) : Json(true);
    }
    try {
      parse(body);
    } catch (const ApiError& error) {
      ADD_FAILURE() << name << "." << property << ": " << error.what();
    }
  }
}

TEST(OpenApi, NamesOnlyParametersThatAreKnown) {
  const SchemaOptions strict{.strict = true};
  CheckParameters("ChatCompletionRequest",
                  [&](const Json& body) { ParseChatRequest(body, strict); });
  CheckParameters("CompletionRequest",
                  [&](const Json& body) { ParseCompletionRequest(body, strict); });
  CheckParameters("ResponseRequest",
                  [&](const Json& body) { ParseResponsesRequest(body, strict); });
  CheckParameters("MessagesRequest",
                  [&](const Json& body) { ParseMessagesRequest(body, strict, false); });
  CheckParameters("CountTokensRequest",
                  [&](const Json& body) { ParseMessagesRequest(body, strict, true); });
  CheckParameters("TokenizeRequest", [&](const Json& body) { ParseTokenizeRequest(body, strict); });
  CheckParameters("DetokenizeRequest",
                  [&](const Json& body) { ParseDetokenizeRequest(body, strict); });
  CheckParameters("EmbeddingsRequest",
                  [&](const Json& body) { ParseEmbeddingsRequest(body, strict); });
  CheckParameters("InfillRequest", [&](const Json& body) { ParseInfillRequest(body, strict); });
  CheckParameters("RerankRequest", [&](const Json& body) { ParseRerankRequest(body, strict); });
  CheckParameters("ScoreRequest", [&](const Json& body) { ParseScoreRequest(body, strict); });
  CheckParameters("ApplyTemplateRequest",
                  [&](const Json& body) { ParseTemplateRequest(body, strict); });
}

TEST(OpenApi, ReferencesLeadSomewhere) {
  const Json document = Document();
  const std::function<void(const Json&)> check = [&](const Json& node) {
    if (node.is_object() && node.contains("$ref")) {
      const auto pointer = node["$ref"].get<std::string>().substr(1);
      EXPECT_TRUE(document.contains(Json::json_pointer(pointer))) << pointer;
    }
    if (node.is_structured()) {
      for (const Json& child : node) check(child);
    }
  };
  check(document);
}

}  // namespace
}  // namespace server
