#include "server/structured_output.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "server/api_error.h"

namespace server {
namespace {

namespace grammar = engine::text::grammar;

constexpr size_t kMaxChoices = 4096;
constexpr uint32_t kMaxSchemaDepth = 128;

// Finds what a request asks for in one object, and refuses a second wish.
class GrammarReader {
 public:
  std::shared_ptr<const GrammarRequest> Take() { return std::move(found_); }
  bool FoundIn(std::string_view object) const {
    return found_ && found_->param.starts_with(object);
  }

  void Schema(const std::string& name, const Json& schema) {
    Set(name, "schema", schema.dump(), grammar::JsonSchema{ToValue(schema)});
  }
  void AnyObject(const std::string& name) { Set(name, "object", {}, grammar::AnyJsonObject{}); }

  // A schema, or its JSON text.
  void SchemaOrText(ParamReader& reader, std::string_view name) {
    const Json* value = reader.Find(name);
    if (value == nullptr) return;
    if (value->is_string()) {
      const auto& text = value->get_ref<const std::string&>();
      if (text.empty()) return;
      try {
        return Schema(reader.Name(name), ParseJson(text, kMaxSchemaDepth));
      } catch (const ApiError&) {
        throw InvalidValue(reader.Name(name),
                           "Invalid value for '" + reader.Name(name) + "': not a JSON text.");
      }
    }
    if (!value->is_object() && !value->is_boolean()) {
      throw InvalidType(reader.Name(name), "a JSON Schema", TypeName(*value));
    }
    Schema(reader.Name(name), *value);
  }

  void Gbnf(ParamReader& reader, std::string_view name) {
    const auto text = reader.String(name);
    if (text && !text->empty()) Set(reader.Name(name), "gbnf", *text, grammar::Gbnf{*text});
  }
  void Regex(ParamReader& reader, std::string_view name) {
    const auto text = reader.String(name);
    if (text && !text->empty()) Set(reader.Name(name), "regex", *text, grammar::Regex{*text});
  }

  void Choices(ParamReader& reader, std::string_view name) {
    const Json* list = reader.Array(name);
    if (list == nullptr) return;
    if (list->empty()) {
      throw InvalidValue(reader.Name(name), "Invalid value for '" + reader.Name(name) +
                                                "': expected at least one choice, but got none.");
    }
    if (list->size() > kMaxChoices) {
      throw InvalidValue(reader.Name(name), "Invalid value for '" + reader.Name(name) +
                                                "': expected at most " +
                                                std::to_string(kMaxChoices) + " choices, but got " +
                                                std::to_string(list->size()) + ".");
    }
    grammar::Choices choices;
    for (const Json& element : *list) {
      if (!element.is_string()) {
        throw InvalidType(reader.Name(name), "an array of strings", TypeName(element));
      }
      choices.texts.push_back(element.get<std::string>());
    }
    Set(reader.Name(name), "choices", list->dump(), std::move(choices));
  }

 private:
  void Set(const std::string& name, const char* kind, const std::string& text,
           grammar::GrammarSource source) {
    if (found_) {
      throw InvalidValue(name, "'" + name + "' and '" + found_->param + "' exclude each other.");
    }
    found_ = std::make_shared<const GrammarRequest>(
        GrammarRequest{std::move(source), std::string(kind) + ":" + text, name, {}});
  }

  std::shared_ptr<const GrammarRequest> found_;
};

void ReadResponseFormat(ParamReader& reader, GrammarReader* grammars) {
  const Json* format = reader.Object("response_format");
  if (format == nullptr) return;
  ParamReader inner(*format, "response_format.", &reader);
  const std::string type = inner.RequiredString("type");
  if (type == "text") return;
  if (type != "json_object" && type != "json_schema") {
    throw UnsupportedParameter("response_format",
                               "Unsupported parameter: 'response_format' of type '" + type +
                                   "' is not supported, only 'text', 'json_object' and "
                                   "'json_schema'.");
  }
  // llama-server's shape: the schema beside the type.
  if (const Json* schema = inner.Object("schema")) {
    return grammars->Schema("response_format.schema", *schema);
  }
  if (type == "json_object") return grammars->AnyObject("response_format");
  const Json* named = inner.Object("json_schema");
  if (named == nullptr) throw MissingParameter("response_format.json_schema");
  ParamReader details(*named, "response_format.json_schema.", &inner);
  details.String("name");
  details.String("description");
  details.Bool("strict");  // what strict promises holds in either case
  const Json* schema = details.Find("schema");
  // OpenAI's API: without a schema, any object.
  if (schema == nullptr) return grammars->AnyObject("response_format.json_schema");
  grammars->SchemaOrText(details, "schema");
}

void ReadStructuredOutputs(ParamReader& reader, GrammarReader* grammars) {
  const Json* outputs = reader.Object("structured_outputs");
  if (outputs == nullptr) return;
  ParamReader inner(*outputs, "structured_outputs.");
  grammars->SchemaOrText(inner, "json");
  grammars->Regex(inner, "regex");
  grammars->Choices(inner, "choice");
  grammars->Gbnf(inner, "grammar");
  if (inner.Bool("json_object").value_or(false)) {
    grammars->AnyObject("structured_outputs.json_object");
  }
  for (const std::string& unknown : inner.Unknown()) {
    throw UnsupportedParameter(unknown,
                               "Unsupported parameter: '" + unknown + "' is not supported.");
  }
  if (!grammars->FoundIn("structured_outputs.")) {
    throw InvalidValue("structured_outputs",
                       "Invalid value for 'structured_outputs': expected one of 'json', 'regex', "
                       "'choice', 'grammar' and 'json_object', but got none.");
  }
}

}  // namespace

std::shared_ptr<const GrammarRequest> ReadGrammar(ParamReader& reader) {
  GrammarReader grammars;
  ReadResponseFormat(reader, &grammars);
  ReadStructuredOutputs(reader, &grammars);
  grammars.SchemaOrText(reader, "guided_json");
  grammars.Regex(reader, "guided_regex");
  grammars.Choices(reader, "guided_choice");
  grammars.Gbnf(reader, "guided_grammar");
  grammars.SchemaOrText(reader, "json_schema");
  grammars.Gbnf(reader, "grammar");
  return grammars.Take();
}

std::shared_ptr<const grammar::TokenTrie> GrammarCache::Trie(
    const engine::text::Tokenizer& tokenizer, const std::vector<engine::TokenId>& shown) {
  // Built under the lock: half a second once in a model's life, and only once.
  const std::lock_guard lock(mutex_);
  auto& trie = shown.empty() ? trie_ : trie_with_shown_;
  if (!trie) trie = std::make_shared<const grammar::TokenTrie>(tokenizer, shown);
  return trie;
}

std::shared_ptr<const grammar::Constraint> GrammarCache::Get(
    const GrammarRequest& request, const engine::text::Tokenizer& tokenizer) {
  const auto trie = Trie(tokenizer, request.shown_tokens);
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = by_key_.find(request.key); found != by_key_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      return entries_.front().constraint;
    }
  }
  std::shared_ptr<const Constraint> constraint;
  try {
    constraint = std::make_shared<const Constraint>(grammar::CompileGrammar(request.source), trie);
  } catch (const grammar::GrammarError& error) {
    throw InvalidValue(request.param, "Invalid value for '" + request.param + "'. " + error.what());
  }
  const std::lock_guard lock(mutex_);
  if (by_key_.contains(request.key)) return constraint;
  entries_.push_front({request.key, constraint});
  by_key_[request.key] = entries_.begin();
  if (entries_.size() > kMaxGrammars) {
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
  return constraint;
}

}  // namespace server
