// Vectors of texts, and what is made of them: similarities and rankings.

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>
#include <numeric>

#include "server/embedder.h"
#include "server/random_id.h"
#include "server/routes/respond.h"
#include "server/routes/routes.h"

namespace server {
namespace {

namespace asio = boost::asio;

using Vectors = std::vector<std::vector<float>>;

Json UsageJson(const Embedder& embedder) {
  return {{"prompt_tokens", embedder.tokens()}, {"total_tokens", embedder.tokens()}};
}

// REQUIRES: both have length one, or zero.
double Cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return std::clamp(sum, -1.0, 1.0);
}

Vectors AllNormalized(const Vectors& vectors) {
  Vectors result;
  for (const auto& vector : vectors) result.push_back(engine::Normalized(vector, 0));
  return result;
}

std::string Indexed(const std::string& name, size_t index) {
  return name + "[" + std::to_string(index) + "]";
}

// What one of the endpoints does with its request and with the vectors of its inputs.
struct Embeddings {
  using Request = EmbeddingsRequest;
  static Request Parse(const Json& body, const SchemaOptions& options) {
    return ParseEmbeddingsRequest(body, options);
  }
  static void AddInputs(const Request& request, EmbeddingJob* job) {
    const uint32_t length = job->model->embedding_length();
    if (request.dimensions > length) {
      throw InvalidValue("dimensions",
                         "Invalid value for 'dimensions': the embeddings of this "
                         "model have " +
                             std::to_string(length) + ", but got " +
                             std::to_string(request.dimensions) + ".");
    }
    const bool many = request.inputs.size() > 1;
    for (size_t i = 0; i < request.inputs.size(); ++i) {
      job->Add(request.inputs[i], many ? Indexed("input", i) : "input");
    }
  }
  static Json Answer(const Request& request, const Embedder& embedder) {
    Json data = Json::array();
    for (const std::vector<float>& vector : embedder.vectors()) {
      const size_t length = request.dimensions == 0 ? vector.size() : request.dimensions;
      const std::vector<float> shown =
          request.normalize
              ? engine::Normalized(vector, request.dimensions)
              : std::vector<float>(vector.begin(), vector.begin() + static_cast<ptrdiff_t>(length));
      data.push_back({{"object", "embedding"},
                      {"index", data.size()},
                      {"embedding", EmbeddingJson(shown, request.encoding)}});
    }
    return {{"object", "list"},
            {"data", std::move(data)},
            {"model", embedder.job().model->name()},
            {"usage", UsageJson(embedder)}};
  }
};

struct Rerank {
  using Request = RerankRequest;
  static Request Parse(const Json& body, const SchemaOptions& options) {
    return ParseRerankRequest(body, options);
  }
  static void AddInputs(const Request& request, EmbeddingJob* job) {
    job->Add(request.query, "query");
    for (size_t i = 0; i < request.documents.size(); ++i) {
      job->Add(request.documents[i], Indexed("documents", i));
    }
  }
  static Json Answer(const Request& request, const Embedder& embedder) {
    const Vectors vectors = AllNormalized(embedder.vectors());
    std::vector<double> scores;
    for (size_t i = 1; i < vectors.size(); ++i) {
      scores.push_back(Cosine(vectors.front(), vectors[i]));
    }
    std::vector<size_t> order(scores.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return scores[a] > scores[b]; });
    if (request.top_n > 0 && request.top_n < order.size()) order.resize(request.top_n);
    Json results = Json::array();
    for (const size_t index : order) {
      Json result{{"index", index}, {"relevance_score", scores[index]}};
      if (request.return_documents) result["document"] = {{"text", request.documents[index]}};
      results.push_back(std::move(result));
    }
    return {{"id", "rerank-" + RandomHex(32)},
            {"model", embedder.job().model->name()},
            {"usage", UsageJson(embedder)},
            {"results", std::move(results)}};
  }
};

struct Score {
  using Request = ScoreRequest;
  static Request Parse(const Json& body, const SchemaOptions& options) {
    return ParseScoreRequest(body, options);
  }
  static void AddInputs(const Request& request, EmbeddingJob* job) {
    const auto add = [job](const std::vector<std::string>& texts, const std::string& name) {
      for (size_t i = 0; i < texts.size(); ++i) {
        job->Add(texts[i], texts.size() > 1 ? Indexed(name, i) : name);
      }
    };
    add(request.first, request.first_name);
    add(request.second, request.second_name);
  }
  static Json Answer(const Request& request, const Embedder& embedder) {
    const Vectors vectors = AllNormalized(embedder.vectors());
    const size_t firsts = request.first.size();
    Json data = Json::array();
    for (size_t i = 0; i < request.second.size(); ++i) {
      data.push_back({{"index", i},
                      {"object", "score"},
                      {"score", Cosine(vectors[firsts == 1 ? 0 : i], vectors[firsts + i])}});
    }
    return {{"id", "score-" + RandomHex(32)}, {"object", "list"},
            {"created", std::time(nullptr)},  {"model", embedder.job().model->name()},
            {"data", std::move(data)},        {"usage", UsageJson(embedder)}};
  }
};

template <typename Endpoint>
asio::awaitable<void> Serve(RouteContext& context, const HttpRequest& http,
                            HttpExchange& exchange) {
  struct Prepared {
    typename Endpoint::Request request;
    EmbeddingJob job;
  };
  Prepared prepared = co_await OnWorker(context.workers, [&context, &http] {
    auto request = Endpoint::Parse(ParseJson(http.body, context.options.max_json_depth),
                                   {.strict = context.options.strict_params});
    EmbeddingJob job(request.params, context.models.Get(request.params.model), http);
    CountingTooLong(context, *job.model, [&] { Endpoint::AddInputs(request, &job); });
    return Prepared{std::move(request), std::move(job)};
  });
  ModelMetrics* const metrics = context.metrics.ForModel(prepared.job.model->name());
  Embedder embedder(std::move(prepared.job), metrics);
  embedder.Submit();
  while (!embedder.finished()) {
    constexpr double kLong = 3600;
    const auto wake = co_await exchange.WaitFor(embedder.queue(), kLong);
    if (wake == HttpExchange::Wake::kGone) co_return;
    embedder.Take();
  }
  // A long list of numbers takes a while to write.
  HttpResponse response = co_await OnWorker(context.workers, [&prepared, &embedder] {
    return JsonResponse(Endpoint::Answer(prepared.request, embedder));
  });
  AddIgnoredHeader(prepared.request.params.ignored, &response);
  co_await exchange.Reply(response);
}

}  // namespace

void AddEmbeddingRoutes(RouteContext& context, Router& router) {
  AddEndpoint(context, {"/v1/embeddings", "/embeddings"}, Serve<Embeddings>, router);
  AddEndpoint(context, {"/v1/rerank", "/rerank", "/v2/rerank"}, Serve<Rerank>, router);
  AddEndpoint(context, {"/v1/score", "/score"}, Serve<Score>, router);
}

}  // namespace server
