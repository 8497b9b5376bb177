#include <nlohmann/json.hpp>

#include "engine/text/detokenizer.h"
#include "server/openai_schema.h"
#include "server/routes/respond.h"
#include "server/routes/routes.h"

namespace server {
namespace {

namespace asio = boost::asio;

// The names of both vLLM and llama-server, so that clients of either work.
HttpResponse Tokenize(const RouteContext& context, const HttpRequest& http) {
  const TokenizeRequest request =
      ParseTokenizeRequest(ParseJson(http.body, context.options.max_json_depth),
                           {.strict = context.options.strict_params});
  const auto model = context.models.Get(request.model);
  const engine::text::Tokenizer& tokenizer = model->tokenizer();
  const auto* chat = std::get_if<ChatPrompt>(&request.input);
  const std::vector<engine::TokenId> tokens =
      chat != nullptr ? EncodeChat(RenderChat(*chat, *model), tokenizer)
                      : tokenizer.Encode(std::get<std::string>(request.input),
                                         {.add_special = request.add_special,
                                          .parse_special = request.parse_special});
  Json json;
  json["tokens"] = tokens;
  json["count"] = tokens.size();
  json["max_model_len"] = model->context_length();
  if (request.with_pieces) {
    json["token_strs"] = Json::array();
    for (const engine::TokenId token : tokens) {
      json["token_strs"].push_back(engine::text::SanitizeUtf8(tokenizer.TokenBytes(token, true)));
    }
  }
  return JsonResponse(json, request.ignored);
}

HttpResponse Detokenize(const RouteContext& context, const HttpRequest& http) {
  const DetokenizeRequest request =
      ParseDetokenizeRequest(ParseJson(http.body, context.options.max_json_depth),
                             {.strict = context.options.strict_params});
  const auto model = context.models.Get(request.model);
  CheckTokens(request.tokens, *model, "tokens");
  const std::string text =
      engine::text::SanitizeUtf8(model->tokenizer().Decode(request.tokens, request.special));
  Json json;
  json["prompt"] = text;
  json["content"] = text;
  return JsonResponse(json, request.ignored);
}

HttpResponse ApplyTemplate(const RouteContext& context, const HttpRequest& http) {
  const ChatRequest request =
      ParseTemplateRequest(ParseJson(http.body, context.options.max_json_depth),
                           {.strict = context.options.strict_params});
  Json json;
  json["prompt"] = RenderChat(request.prompt, *context.models.Get(request.params.model));
  return JsonResponse(json, request.params.ignored);
}

template <HttpResponse (*kWork)(const RouteContext&, const HttpRequest&)>
asio::awaitable<void> Answer(RouteContext& context, const HttpRequest& http,
                             HttpExchange& exchange) {
  const HttpResponse response =
      co_await OnWorker(context.workers, [&context, &http] { return kWork(context, http); });
  co_await exchange.Reply(response);
}

}  // namespace

void AddTokenizeRoutes(RouteContext& context, Router& router) {
  AddEndpoint(context, {"/tokenize", "/v1/tokenize"}, Answer<Tokenize>, router);
  AddEndpoint(context, {"/detokenize", "/v1/detokenize"}, Answer<Detokenize>, router);
  AddEndpoint(context, {"/apply-template", "/v1/apply-template"}, Answer<ApplyTemplate>, router);
}

}  // namespace server
