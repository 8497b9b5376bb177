#include "engine/text/grammar/json_grammar.h"

#include <charconv>

namespace engine::text::grammar {
namespace {

using Range = CodePointSet::Range;

void AppendQuoted(std::string_view text, std::string* out) {
  static constexpr std::string_view kShort = "\"\\\b\f\n\r\t";
  static constexpr std::string_view kNames = "\"\\bfnrt";
  static constexpr char kHex[] = "0123456789abcdef";
  out->push_back('"');
  for (const char c : text) {
    const size_t index = kShort.find(c);
    if (index != std::string_view::npos) {
      *out += {'\\', kNames[index]};
    } else if (static_cast<uint8_t>(c) < 0x20) {
      *out += {'\\', 'u', '0', '0', kHex[(c >> 4) & 15], kHex[c & 15]};
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

std::string NumberText(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  return {buffer, end};
}

void AppendJson(const Value& value, std::string* out) {
  if (const bool* boolean = value.as_bool()) {
    *out += *boolean ? "true" : "false";
  } else if (const int64_t* integer = value.as_int()) {
    *out += std::to_string(*integer);
  } else if (const double* number = value.as_double()) {
    *out += NumberText(*number);
  } else if (const std::string* text = value.as_string()) {
    AppendQuoted(*text, out);
  } else if (const Array* array = value.as_array()) {
    out->push_back('[');
    for (const Value& element : *array) {
      if (out->back() != '[') out->push_back(',');
      AppendJson(element, out);
    }
    out->push_back(']');
  } else if (const Object* object = value.as_object()) {
    out->push_back('{');
    for (const auto& [name, member] : object->items()) {
      if (out->back() != '{') out->push_back(',');
      AppendQuoted(name, out);
      out->push_back(':');
      AppendJson(member, out);
    }
    out->push_back('}');
  } else {
    *out += "null";
  }
}

}  // namespace

std::string JsonText(const Value& value) {
  std::string text;
  AppendJson(value, &text);
  return text;
}

NodeId JsonGrammar::Rule(std::optional<RuleId>* rule, const char* name,
                         NodeId (JsonGrammar::*body)()) {
  if (!*rule) {
    *rule = expressions_.AddRule(name);
    const RuleId id = **rule;
    expressions_.Define(id, (this->*body)());
  }
  return expressions_.Call(**rule);
}

NodeId JsonGrammar::Space() { return Rule(&space_, "JSON white space", &JsonGrammar::SpaceBody); }
NodeId JsonGrammar::AnyValue() { return Rule(&value_, "JSON value", &JsonGrammar::ValueBody); }
NodeId JsonGrammar::AnyObject() { return Rule(&object_, "JSON object", &JsonGrammar::ObjectBody); }
NodeId JsonGrammar::AnyArray() { return Rule(&array_, "JSON array", &JsonGrammar::ArrayBody); }
NodeId JsonGrammar::AnyString() { return Rule(&string_, "JSON string", &JsonGrammar::StringBody); }
NodeId JsonGrammar::StringCharacter() {
  return Rule(&character_, "JSON character", &JsonGrammar::CharacterBody);
}
NodeId JsonGrammar::AnyInteger() {
  return Rule(&integer_, "JSON integer", &JsonGrammar::IntegerBody);
}
NodeId JsonGrammar::AnyNumber() { return Rule(&number_, "JSON number", &JsonGrammar::NumberBody); }

NodeId JsonGrammar::Boolean() {
  return expressions_.Choice({expressions_.Literal("true"), expressions_.Literal("false")});
}

NodeId JsonGrammar::SpaceBody() {
  constexpr uint32_t kMaxIndent = 64;
  const NodeId blank = expressions_.Class(CodePointSet({{' ', ' '}, {'\t', '\t'}}));
  return expressions_.Choice({expressions_.Empty(), expressions_.Literal(" "),
                              expressions_.Sequence({expressions_.Literal("\n"),
                                                     expressions_.Repeat(blank, 0, kMaxIndent)})});
}

NodeId JsonGrammar::Comma() { return expressions_.Sequence({expressions_.Literal(","), Space()}); }

NodeId JsonGrammar::Member(NodeId key, NodeId value) {
  const NodeId space = expressions_.Optional(expressions_.Literal(" "));
  return expressions_.Sequence({key, expressions_.Literal(":"), space, value});
}

NodeId JsonGrammar::Member(std::string_view name, NodeId value) {
  return Member(expressions_.Literal(JsonText(Value(name))), value);
}

NodeId JsonGrammar::Quoted(NodeId content) {
  const NodeId quote = expressions_.Literal("\"");
  return expressions_.Sequence({quote, content, quote});
}

NodeId JsonGrammar::ValueBody() {
  return expressions_.Choice({AnyObject(), AnyArray(), AnyString(), AnyNumber(),
                              expressions_.Literal("true"), expressions_.Literal("false"),
                              expressions_.Literal("null")});
}

NodeId JsonGrammar::ObjectBody() {
  const NodeId member = Member(AnyString(), AnyValue());
  const NodeId more = expressions_.Sequence({Comma(), member});
  const NodeId members =
      expressions_.Sequence({member, expressions_.Repeat(more, 0, kUnbounded), Space()});
  return expressions_.Sequence({expressions_.Literal("{"), Space(), expressions_.Optional(members),
                                expressions_.Literal("}")});
}

NodeId JsonGrammar::ArrayBody() {
  const NodeId more = expressions_.Sequence({Comma(), AnyValue()});
  const NodeId elements =
      expressions_.Sequence({AnyValue(), expressions_.Repeat(more, 0, kUnbounded), Space()});
  return expressions_.Sequence({expressions_.Literal("["), Space(), expressions_.Optional(elements),
                                expressions_.Literal("]")});
}

NodeId JsonGrammar::StringBody() {
  return Quoted(expressions_.Repeat(CharacterBody(), 0, kUnbounded));
}

// Plain, a short escape, \u of no surrogate, or \u of a surrogate pair.
NodeId JsonGrammar::CharacterBody() {
  const auto one_of = [this](std::vector<Range> ranges) {
    return expressions_.Class(CodePointSet(std::move(ranges)));
  };
  const NodeId plain =
      expressions_.Class(CodePointSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}).Complement());
  const NodeId named = one_of({{'"', '"'},
                               {'\\', '\\'},
                               {'/', '/'},
                               {'b', 'b'},
                               {'f', 'f'},
                               {'n', 'n'},
                               {'r', 'r'},
                               {'t', 't'}});
  const NodeId hex = one_of({{'0', '9'}, {'A', 'F'}, {'a', 'f'}});
  const NodeId d = one_of({{'D', 'D'}, {'d', 'd'}});
  const NodeId unit = expressions_.Choice(
      {expressions_.Sequence(
           {one_of({{'0', '9'}, {'A', 'C'}, {'E', 'F'}, {'a', 'c'}, {'e', 'f'}}), hex, hex, hex}),
       expressions_.Sequence({d, one_of({{'0', '7'}}), hex, hex})});
  const NodeId high =
      expressions_.Sequence({d, one_of({{'8', '9'}, {'A', 'B'}, {'a', 'b'}}), hex, hex});
  const NodeId low = expressions_.Sequence({d, one_of({{'C', 'F'}, {'c', 'f'}}), hex, hex});
  const NodeId pair = expressions_.Sequence({high, expressions_.Literal("\\u"), low});
  const NodeId code =
      expressions_.Sequence({expressions_.Literal("u"), expressions_.Choice({unit, pair})});
  const NodeId escape =
      expressions_.Sequence({expressions_.Literal("\\"), expressions_.Choice({named, code})});
  return expressions_.Choice({plain, escape});
}

NodeId JsonGrammar::IntegerBody() {
  const NodeId digit = expressions_.Class(CodePointSet({{'0', '9'}}));
  const NodeId nonzero = expressions_.Class(CodePointSet({{'1', '9'}}));
  return expressions_.Sequence(
      {expressions_.Optional(expressions_.Literal("-")),
       expressions_.Choice({expressions_.Literal("0"),
                            expressions_.Sequence({nonzero, expressions_.Repeat(digit, 0, 17)})})});
}

NodeId JsonGrammar::NumberBody() {
  const NodeId digit = expressions_.Class(CodePointSet({{'0', '9'}}));
  const NodeId nonzero = expressions_.Class(CodePointSet({{'1', '9'}}));
  const NodeId whole =
      expressions_.Choice({expressions_.Literal("0"),
                           expressions_.Sequence({nonzero, expressions_.Repeat(digit, 0, 16)})});
  const NodeId fraction =
      expressions_.Sequence({expressions_.Literal("."), expressions_.Repeat(digit, 1, 17)});
  // Below 1e290, so that no number is infinite as a double.
  const NodeId hundreds = expressions_.Choice(
      {expressions_.Sequence({expressions_.Literal("1"), digit, digit}),
       expressions_.Sequence(
           {expressions_.Literal("2"), expressions_.Class(CodePointSet({{'0', '8'}})), digit})});
  const NodeId exponent = expressions_.Sequence(
      {expressions_.Class(CodePointSet({{'E', 'E'}, {'e', 'e'}})),
       expressions_.Optional(expressions_.Class(CodePointSet({{'+', '+'}, {'-', '-'}}))),
       expressions_.Choice({expressions_.Repeat(digit, 1, 2), hundreds})});
  return expressions_.Sequence({expressions_.Optional(expressions_.Literal("-")), whole,
                                expressions_.Optional(fraction), expressions_.Optional(exponent)});
}

NodeId JsonGrammar::Constant(const Value& value) {
  const Array* array = value.as_array();
  const Object* object = value.as_object();
  if (array == nullptr && object == nullptr) return expressions_.Literal(JsonText(value));
  std::vector<NodeId> parts = {expressions_.Literal(array != nullptr ? "[" : "{"), Space()};
  const auto add = [&](NodeId part) {
    if (parts.size() > 2) parts.push_back(Comma());
    parts.push_back(part);
  };
  if (array != nullptr) {
    for (const Value& element : *array) add(Constant(element));
  } else {
    for (const auto& [name, member] : object->items()) add(Member(name, Constant(member)));
  }
  if (parts.size() > 2) parts.push_back(Space());
  parts.push_back(expressions_.Literal(array != nullptr ? "]" : "}"));
  return expressions_.Sequence(parts);
}

}  // namespace engine::text::grammar
