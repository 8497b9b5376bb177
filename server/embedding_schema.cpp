#include "server/embedding_schema.h"

#include <openssl/evp.h>

#include <array>
#include <bit>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "server/api_error.h"
#include "server/param_reader.h"
#include "server/shared_params.h"

namespace server {
namespace {

constexpr size_t kMaxInputs = 2048;  // as many as OpenAI takes
constexpr int64_t kMaxDimensions = std::numeric_limits<int32_t>::max();

// Each would change the vectors, so ignoring it would be a lie.
constexpr std::array<std::string_view, 6> kUnsupported = {
    "messages",           "truncate_prompt_tokens", "truncate",
    "max_tokens_per_doc", "mm_processor_kwargs",    "rank_fields"};

ApiError NotOneOf(const std::string& name, std::string_view expected, const std::string& found) {
  return InvalidValue(name, "Invalid value for '" + name + "': expected " + std::string(expected) +
                                ", but got '" + found + "'.");
}

std::optional<engine::Pooling> ReadPooling(ParamReader& reader) {
  const auto name = reader.String("pooling");
  if (!name) return std::nullopt;
  for (const auto pooling :
       {engine::Pooling::kMean, engine::Pooling::kCls, engine::Pooling::kLast}) {
    if (*name == engine::PoolingName(pooling)) return pooling;
  }
  throw NotOneOf("pooling", "'mean', 'cls' or 'last'", *name);
}

EmbeddingParams ReadShared(ParamReader& reader) {
  for (const std::string_view name : kUnsupported) RefuseUnlessNeutral(reader, name);
  EmbeddingParams params;
  params.model = reader.String("model").value_or("");
  params.pooling = ReadPooling(reader);
  params.add_special_tokens = reader.Bool("add_special_tokens").value_or(true);
  params.priority = ReadPriority(reader);
  params.cache_salt = ReadCacheSalt(reader);
  params.lora = ReadLora(reader);
  return params;
}

// A string, or an object with a `text`.
std::string ReadDocument(const Json& document, const std::string& name) {
  if (document.is_string()) return document.get<std::string>();
  if (!document.is_object()) {
    throw InvalidType(name, "a string or an object with 'text'", TypeName(document));
  }
  ParamReader reader(document, name + ".");
  return reader.RequiredString("text");
}

std::vector<std::string> ReadDocuments(const Json& list, const std::string& name) {
  if (list.empty()) throw InvalidValue(name, "Invalid value for '" + name + "': it is empty.");
  if (list.size() > kMaxInputs) {
    throw InvalidValue(name, "Invalid value for '" + name + "': expected at most " +
                                 std::to_string(kMaxInputs) + " texts, but got " +
                                 std::to_string(list.size()) + ".");
  }
  std::vector<std::string> documents;
  for (size_t i = 0; i < list.size(); ++i) {
    documents.push_back(ReadDocument(list[i], name + "[" + std::to_string(i) + "]"));
  }
  return documents;
}

// One side of the pairs to score: a text or a list of them, under the first of the names that is
// there.
std::vector<std::string> ReadSide(ParamReader& reader, std::string_view name,
                                  std::string_view other, std::string* used) {
  const Json* value = reader.Find(name);
  const Json* alias = reader.Find(other);
  if (value == nullptr && alias == nullptr) throw MissingParameter(name);
  *used = value == nullptr ? other : name;
  if (value == nullptr) value = alias;
  if (value->is_array()) return ReadDocuments(*value, *used);
  return {ReadDocument(*value, *used)};
}

double ShortestDouble(float value) {
  char text[32];
  const auto written = std::to_chars(text, text + sizeof text, value);
  double result = 0;
  std::from_chars(text, written.ptr, result);
  return result;
}

// Of the little-endian bytes.
std::string Base64(const std::vector<float>& vector) {
  static_assert(std::endian::native == std::endian::little);
  const size_t bytes = vector.size() * sizeof(float);
  std::string out((bytes + 2) / 3 * 4 + 1, '\0');  // OpenSSL ends it with a zero
  const int written = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                      reinterpret_cast<const unsigned char*>(vector.data()),
                                      static_cast<int>(bytes));
  out.resize(static_cast<size_t>(written));
  return out;
}

}  // namespace

EmbeddingsRequest ParseEmbeddingsRequest(const Json& body, const SchemaOptions& options) {
  ParamReader reader(body);
  EmbeddingsRequest request;
  request.params = ReadShared(reader);
  request.inputs = ReadTexts(reader, "input", kMaxInputs);
  const auto encoding = reader.String("encoding_format");
  if (encoding && *encoding != "float" && *encoding != "base64") {
    throw NotOneOf("encoding_format", "'float' or 'base64'", *encoding);
  }
  if (encoding && *encoding == "base64") request.encoding = EmbeddingEncoding::kBase64;
  request.dimensions =
      static_cast<uint32_t>(reader.Integer("dimensions", 1, kMaxDimensions).value_or(0));
  request.normalize = reader.Bool("normalize").value_or(true);
  request.params.ignored = CheckUnknown(reader, options.strict);
  return request;
}

RerankRequest ParseRerankRequest(const Json& body, const SchemaOptions& options) {
  ParamReader reader(body);
  RerankRequest request;
  request.params = ReadShared(reader);
  const Json* query = reader.Find("query");
  if (query == nullptr) throw MissingParameter("query");
  request.query = ReadDocument(*query, "query");
  const Json* documents = reader.Array("documents");
  if (documents == nullptr) throw MissingParameter("documents");
  request.documents = ReadDocuments(*documents, "documents");
  request.top_n = static_cast<uint32_t>(
      reader.Integer("top_n", 1, std::numeric_limits<int32_t>::max()).value_or(0));
  request.return_documents = reader.Bool("return_documents").value_or(true);
  request.params.ignored = CheckUnknown(reader, options.strict);
  return request;
}

ScoreRequest ParseScoreRequest(const Json& body, const SchemaOptions& options) {
  ParamReader reader(body);
  ScoreRequest request;
  request.params = ReadShared(reader);
  request.first = ReadSide(reader, "text_1", "queries", &request.first_name);
  request.second = ReadSide(reader, "text_2", "documents", &request.second_name);
  if (request.first.size() != 1 && request.first.size() != request.second.size()) {
    throw InvalidValue(request.first_name,
                       "'" + request.first_name + "' must be one text, or as many as '" +
                           request.second_name + "': expected " +
                           std::to_string(request.second.size()) + ", but got " +
                           std::to_string(request.first.size()) + ".");
  }
  request.params.ignored = CheckUnknown(reader, options.strict);
  return request;
}

Json EmbeddingJson(const std::vector<float>& vector, EmbeddingEncoding encoding) {
  if (encoding == EmbeddingEncoding::kBase64) return Base64(vector);
  Json list = Json::array();
  for (const float value : vector) list.push_back(ShortestDouble(value));
  return list;
}

}  // namespace server
