#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "engine/text/grammar/grammar.h"
#include "engine/text/grammar/matcher.h"
#include "engine/text/tokenizer.h"
#include "server/param_reader.h"

namespace server {

// What a request asks its text to be.
struct GrammarRequest {
  engine::text::grammar::GrammarSource source;
  std::string key;    // equal keys mean equal sources
  std::string param;  // that asked for it, for errors
  // Control tokens that texts of the grammar contain; the same for all such grammars of a model.
  std::vector<engine::TokenId> shown_tokens = {};
};

// Reads response_format (json_object, json_schema), vLLM's structured_outputs and guided_*, and
// llama-server's json_schema and grammar. nullptr: any text.
//
// Errors: ApiError 400; two at once exclude each other.
std::shared_ptr<const GrammarRequest> ReadGrammar(ParamReader& reader);

// The grammars of one model that are compiled already; the least recently used go first.
//
// Threads: any. Compiling runs outside the lock.
class GrammarCache {
 public:
  static constexpr size_t kMaxGrammars = 32;

  // Compiles what is not there yet: up to two seconds. Errors: ApiError 400 naming the parameter.
  std::shared_ptr<const engine::text::grammar::Constraint> Get(
      const GrammarRequest& request, const engine::text::Tokenizer& tokenizer);

 private:
  using Constraint = engine::text::grammar::Constraint;
  struct Entry {
    std::string key;
    std::shared_ptr<const Constraint> constraint;
  };
  std::shared_ptr<const engine::text::grammar::TokenTrie> Trie(
      const engine::text::Tokenizer& tokenizer, const std::vector<engine::TokenId>& shown);

  std::mutex mutex_;
  std::shared_ptr<const engine::text::grammar::TokenTrie> trie_;
  std::shared_ptr<const engine::text::grammar::TokenTrie> trie_with_shown_;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_key_;
};

}  // namespace server
