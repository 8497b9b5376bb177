#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/pooling.h"
#include "server/json.h"
#include "server/openai_schema.h"

namespace server {

// What requests for vectors have in common.
struct EmbeddingParams {
  std::string model;                       // empty = the default model
  std::optional<engine::Pooling> pooling;  // absent = the model's own
  bool add_special_tokens = true;          // to inputs that are text
  int32_t priority = 0;
  std::string cache_salt;
  std::optional<std::vector<LoraChoice>> lora;  // absent = the adapters' own scales
  std::vector<std::string> ignored;             // names that are unknown or have no effect
};

enum class EmbeddingEncoding { kFloat, kBase64 };

struct EmbeddingsRequest {
  EmbeddingParams params;
  std::vector<CompletionPrompt> inputs;  // 1 to 2048
  EmbeddingEncoding encoding = EmbeddingEncoding::kFloat;
  uint32_t dimensions = 0;  // 0 = all
  bool normalize = true;
};

struct RerankRequest {
  EmbeddingParams params;
  std::string query;
  std::vector<std::string> documents;  // 1 to 2048
  uint32_t top_n = 0;                  // 0 = all
  bool return_documents = true;
};

// Pairs: the i-th of both lists, or the only one of `first` with each of `second`.
struct ScoreRequest {
  EmbeddingParams params;
  std::string first_name;  // as the request calls it: "text_1" or "queries"
  std::string second_name;
  std::vector<std::string> first;
  std::vector<std::string> second;  // 1 to 2048
};

// Errors: ApiError 400.
EmbeddingsRequest ParseEmbeddingsRequest(const Json& body, const SchemaOptions& options);
RerankRequest ParseRerankRequest(const Json& body, const SchemaOptions& options);
ScoreRequest ParseScoreRequest(const Json& body, const SchemaOptions& options);

// What an element of `embedding` is: the shortest number that reads back as the same float, or all
// of them as base64 of little-endian float32.
Json EmbeddingJson(const std::vector<float>& vector, EmbeddingEncoding encoding);

}  // namespace server
