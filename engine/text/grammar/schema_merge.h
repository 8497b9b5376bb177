#pragma once

#include <string>

#include "engine/text/grammar/grammar_error.h"
#include "engine/text/value.h"

namespace engine::text::grammar {

// What schemas say together, as one schema: references and allOf are followed and combined.
//
// Inside a combined schema `pattern` and `format` may be arrays: all of them hold.
class SchemaMerger {
 public:
  // root: what references point into; outlives it.
  SchemaMerger(const Value& root, CompileBudget& budget) : root_(root), budget_(budget) {}

  // The schema that "#/..." names. Throws GrammarError when there is none.
  const Value& Resolve(const std::string& reference, const std::string& path) const;

  // `schema` without $ref and allOf at its top.
  Object Flatten(const Object& schema, const std::string& path) { return Flatten(schema, path, 1); }

  // A schema for what satisfies both.
  Object Merge(const Object& a, const Object& b, const std::string& path);
  // The same, where either may be `true` or `false`.
  static Value Both(const Value& a, const Value& b);

  // Throws GrammarError when the schema has a keyword that is not supported.
  static void CheckKeywords(const Object& schema, const std::string& path);
  static bool IsAnnotation(std::string_view keyword);
  // True when nothing but annotations stands beside `keyword`.
  static bool Alone(const Object& schema, std::string_view keyword);

 private:
  Object Flatten(const Object& schema, const std::string& path, size_t depth);
  static void MergeMember(Object* result, const std::string& key, const Value& theirs,
                          const std::string& path);

  const Value& root_;
  CompileBudget& budget_;
};

// "#/a/b" + "c" with JSON Pointer's escapes.
std::string ChildPath(const std::string& path, std::string_view key);

}  // namespace engine::text::grammar
