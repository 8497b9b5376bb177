#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

namespace engine::text {

// Cuts a text into the words that byte-level BPE merges within, by the regular expressions that
// tokenizer.ggml.pre names. Each expression cuts every piece of the one before into its matches and
// what lies between them.
//
// Threads: immutable; Split() from any thread.
// Errors:  Named() throws ModelError for a name that is not known. Split() has none: where an
//          expression reaches its match limit, the rest of that piece stays whole.
class Pretokenizer {
 public:
  static std::unique_ptr<const Pretokenizer> Named(std::string_view name);
  ~Pretokenizer();

  // What else the name says about the vocabulary.
  bool ignores_merges() const { return ignores_merges_; }  // a word that is a piece is that token
  bool adds_bos() const { return adds_bos_; }

  // REQUIRES: text is valid UTF-8. The words joined are the text; none is empty.
  void Split(std::string_view text, const std::function<void(std::string_view)>& word) const;

 private:
  class Expression;
  class Run;
  Pretokenizer() = default;

  std::vector<std::unique_ptr<const Expression>> expressions_;
  bool ignores_merges_ = false;
  bool adds_bos_ = false;
};

}  // namespace engine::text
