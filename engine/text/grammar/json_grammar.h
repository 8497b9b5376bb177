#pragma once

#include <optional>
#include <string>

#include "engine/text/grammar/expressions.h"
#include "engine/text/value.h"

namespace engine::text::grammar {

// JSON text of a value: compact, strings in their shortest escapes, numbers as short as they read
// back.
std::string JsonText(const Value& value);

// The expressions of JSON that schemas are made of. Each is made once.
//
// White space is bounded, so that a model can't go on writing it: after a comma and inside brackets
// nothing, one space, or a newline and up to 64 spaces or tabs; after a colon at most one space;
// elsewhere none.
class JsonGrammar {
 public:
  explicit JsonGrammar(Expressions* expressions) : expressions_(*expressions) {}

  NodeId Space();
  NodeId AnyValue();
  NodeId AnyObject();
  NodeId AnyArray();
  NodeId AnyString();
  // One character inside a string, in any of its spellings.
  NodeId StringCharacter();
  // Up to 18 digits.
  NodeId AnyInteger();
  // Up to 17 digits before and after the point, an exponent below 290.
  NodeId AnyNumber();
  NodeId Boolean();
  NodeId Null() { return expressions_.Literal("null"); }

  // A string whose characters are those of `content`, an expression with Spelling::kJson.
  NodeId Quoted(NodeId content);
  // A constant, with the white space of the others.
  NodeId Constant(const Value& value);
  // `key` is a complete string.
  NodeId Member(NodeId key, NodeId value);
  NodeId Member(std::string_view name, NodeId value);

  // A comma and what may follow it.
  NodeId Comma();

  Expressions& expressions() { return expressions_; }

 private:
  NodeId Rule(std::optional<RuleId>* rule, const char* name, NodeId (JsonGrammar::*body)());
  NodeId SpaceBody();
  NodeId ValueBody();
  NodeId ObjectBody();
  NodeId ArrayBody();
  NodeId StringBody();
  NodeId CharacterBody();
  NodeId IntegerBody();
  NodeId NumberBody();

  Expressions& expressions_;
  std::optional<RuleId> space_, value_, object_, array_, string_, character_, integer_, number_;
};

}  // namespace engine::text::grammar
