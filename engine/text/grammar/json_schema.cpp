#include "engine/text/grammar/json_schema.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "engine/text/grammar/code_point_dfa.h"
#include "engine/text/grammar/json_formats.h"
#include "engine/text/grammar/json_numbers.h"
#include "engine/text/grammar/regex.h"
#include "engine/text/grammar/schema_merge.h"

namespace engine::text::grammar {
namespace {

constexpr std::array<std::string_view, 7> kTypes = {"object",  "array",   "string", "number",
                                                    "integer", "boolean", "null"};

// The type that a keyword speaks of, for schemas that name none.
std::string_view TypeOfKeyword(std::string_view keyword) {
  if (keyword == "properties" || keyword == "required" || keyword == "additionalProperties" ||
      keyword == "patternProperties" || keyword == "minProperties" || keyword == "maxProperties" ||
      keyword == "unevaluatedProperties") {
    return "object";
  }
  if (keyword == "items" || keyword == "prefixItems" || keyword == "minItems" ||
      keyword == "maxItems") {
    return "array";
  }
  if (keyword == "minLength" || keyword == "maxLength" || keyword == "pattern" ||
      keyword == "format") {
    return "string";
  }
  if (keyword == "minimum" || keyword == "maximum" || keyword == "exclusiveMinimum" ||
      keyword == "exclusiveMaximum" || keyword == "multipleOf") {
    return "number";
  }
  return {};
}

struct CountRange {
  uint32_t min = 0;
  uint32_t max = kUnbounded;
};

bool IsNumberFormat(std::string_view format) {
  return format == "int32" || format == "int64" || format == "float" || format == "double";
}

class SchemaCompiler {
 public:
  SchemaCompiler(JsonGrammar* json, const Value& root)
      : json_(*json),
        expressions_(json->expressions()),
        root_(root),
        merger_(root, expressions_.budget()) {}

  NodeId Run() {
    const NodeId body = RuleOf("#", "#");
    // Rules are compiled one after the other, so that a chain of references is no recursion.
    for (size_t i = 0; i < waiting_.size(); ++i) {
      const auto [rule, schema, path] = waiting_[i];
      expressions_.Define(rule, Compile(*schema, path, 1));
    }
    return body;
  }

 private:
  struct WaitingRule {
    RuleId rule;
    const Value* schema;
    std::string path;
  };

  [[noreturn]] static void Fail(std::string_view keyword, const std::string& path,
                                const std::string& what) {
    throw GrammarError("JSON Schema: '" + std::string(keyword) + "' at " + path + " " + what);
  }

  // No value, as what Fail() refuses, but only where nothing else is left: another branch may do.
  NodeId None(std::string_view keyword, const std::string& path, const std::string& what) {
    return expressions_.Never("JSON Schema: '" + std::string(keyword) + "' at " + path + " " +
                              what);
  }

  // The same, for keywords that leave nothing together. Those that the schema has are named.
  NodeId NoneSatisfies(std::string_view type, std::initializer_list<std::string_view> keywords,
                       const Object& schema, const std::string& path) {
    std::string named;
    for (const std::string_view keyword : keywords) {
      const Value* value = schema.Find(keyword);
      if (value == nullptr) continue;
      named += (named.empty() ? "'" : ", '") + std::string(keyword) + "'";
      const bool number = value->as_int() != nullptr || value->as_double() != nullptr;
      if (number) named += " " + JsonText(*value);
    }
    return expressions_.Never("JSON Schema: no " + std::string(type) + " at " + path +
                              " satisfies " + named + ".");
  }

  bool IsNever(NodeId id) const { return expressions_.node(id).kind == NodeKind::kNever; }

  NodeId RuleOf(const std::string& reference, const std::string& path) {
    const auto [found, added] = references_.try_emplace(reference, 0);
    if (added) {
      const Value& schema = reference == "#" ? root_ : merger_.Resolve(reference, path);
      found->second = expressions_.AddRule(reference == "#" ? "the schema" : reference);
      waiting_.push_back({found->second, &schema, reference});
    }
    return expressions_.Call(found->second);
  }

  NodeId Compile(const Value& schema, const std::string& path, size_t depth) {
    expressions_.budget().CheckNesting(depth);
    if (const bool* all = schema.as_bool()) {
      if (*all) return json_.AnyValue();
      return expressions_.Never("JSON Schema: " + path +
                                " is false, or combined with false: no value satisfies it.");
    }
    const Object* object = schema.as_object();
    if (object == nullptr) {
      throw GrammarError("JSON Schema: " + path + " is not an object or a boolean.");
    }
    SchemaMerger::CheckKeywords(*object, path);
    const Value* reference = object->Find("$ref");
    if (reference != nullptr && SchemaMerger::Alone(*object, "$ref")) {
      if (reference->as_string() == nullptr) Fail("$ref", path, "must be a string.");
      return RuleOf(*reference->as_string(), path);
    }
    if (reference == nullptr && object->Find("allOf") == nullptr) {
      return CompileFlat(*object, path, depth);
    }
    return CompileFlat(merger_.Flatten(*object, path), path, depth);
  }

  NodeId CompileFlat(const Object& schema, const std::string& path, size_t depth) {
    for (const std::string_view keyword : {"anyOf", "oneOf"}) {
      if (schema.Find(keyword) != nullptr) return CompileUnion(schema, keyword, path, depth);
    }
    if (schema.Find("enum") != nullptr || schema.Find("const") != nullptr) {
      return CompileConstants(schema, path);
    }
    const std::vector<std::string_view> types = Types(schema, path);
    if (types.empty()) {
      return None("type", path,
                  "leaves no type: it is empty, or combined types exclude each other.");
    }
    std::vector<NodeId> options;
    options.reserve(types.size());
    for (const std::string_view type : types) {
      options.push_back(CompileType(type, schema, path, depth));
    }
    return expressions_.Choice(options);
  }

  NodeId CompileUnion(const Object& schema, std::string_view keyword, const std::string& path,
                      size_t depth) {
    const Array* branches = schema.Find(keyword)->as_array();
    if (branches == nullptr) Fail(keyword, path, "must be an array.");
    if (branches->empty()) return None(keyword, path, "has no branch.");
    Object base;
    for (const auto& [key, value] : schema.items()) {
      if (key != keyword) base.Set(key, value);
    }
    const bool plain = SchemaMerger::Alone(schema, keyword);
    const std::string branches_path = ChildPath(path, keyword);
    std::vector<NodeId> options;
    for (size_t i = 0; i < branches->size(); ++i) {
      const Value& branch = (*branches)[i];
      const std::string branch_path = ChildPath(branches_path, std::to_string(i));
      if (plain || (branch.as_bool() != nullptr && !*branch.as_bool())) {
        options.push_back(Compile(branch, branch_path, depth + 1));
      } else if (const Object* object = branch.as_object()) {
        SchemaMerger::CheckKeywords(*object, branch_path);
        Value merged(merger_.Merge(base, *object, branch_path));
        options.push_back(Compile(merged, branch_path, depth + 1));
      } else {
        options.push_back(Compile(Value(base), branch_path, depth + 1));
      }
    }
    return expressions_.Choice(options);
  }

  std::vector<std::string_view> Types(const Object& schema, const std::string& path) const {
    std::vector<std::string_view> types;
    if (const Value* named = schema.Find("type")) {
      const Array list = named->as_array() != nullptr ? *named->as_array() : Array{*named};
      for (const Value& element : list) {
        const std::string* name = element.as_string();
        const auto known =
            name == nullptr ? kTypes.end() : std::find(kTypes.begin(), kTypes.end(), *name);
        if (known == kTypes.end()) Fail("type", path, "must name JSON types.");
        types.push_back(*known);
      }
    } else {
      for (const auto& [key, value] : schema.items()) {
        const std::string_view type = TypeOfKeyword(key);
        if (!type.empty() && std::find(types.begin(), types.end(), type) == types.end()) {
          types.push_back(type);
        }
      }
      if (types.empty()) types.assign(kTypes.begin(), kTypes.end());
    }
    // An integer is a number.
    const bool number = std::find(types.begin(), types.end(), "number") != types.end();
    if (number) std::erase(types, "integer");
    return types;
  }

  NodeId CompileType(std::string_view type, const Object& schema, const std::string& path,
                     size_t depth) {
    if (type == "object") return CompileObject(schema, path, depth);
    if (type == "array") return CompileArray(schema, path, depth);
    if (type == "string") return CompileString(schema, path);
    if (type == "boolean") return json_.Boolean();
    if (type == "null") return json_.Null();
    return CompileNumber(type, schema, path);
  }

  NodeId CompileNumber(std::string_view type, const Object& schema, const std::string& path) {
    const bool integer = type == "integer";
    const NumberBounds bounds = Bounds(schema, path);
    if (bounds.empty()) return integer ? json_.AnyInteger() : json_.AnyNumber();
    const NodeId numbers =
        integer ? AddIntegers(&expressions_, bounds) : AddNumbers(&expressions_, bounds);
    if (!IsNever(numbers)) return numbers;
    return NoneSatisfies(
        type,
        {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf", "format"},
        schema, path);
  }

  NodeId CompileConstants(const Object& schema, const std::string& path) {
    Array values;
    const Value* constant = schema.Find("const");
    if (const Value* list = schema.Find("enum")) {
      if (list->as_array() == nullptr) Fail("enum", path, "must be an array.");
      values = *list->as_array();
    } else {
      values.push_back(*constant);
    }
    const std::vector<std::string_view> types = Types(schema, path);
    std::vector<NodeId> options;
    std::map<std::string, bool> seen;
    for (const Value& value : values) {
      const std::string text = JsonText(value);
      if (constant != nullptr && text != JsonText(*constant)) continue;
      if (schema.Find("type") != nullptr && !HasType(value, types)) continue;
      if (!Satisfies(value, schema, path) || !seen.emplace(text, true).second) continue;
      options.push_back(json_.Constant(value));
    }
    if (options.empty()) {
      return None(constant != nullptr ? "const" : "enum", path,
                  "leaves no value: it is empty, or what it is combined with excludes it.");
    }
    return expressions_.Choice(options);
  }

  static bool HasType(const Value& value, const std::vector<std::string_view>& types) {
    const auto has = [&](std::string_view type) {
      return std::find(types.begin(), types.end(), type) != types.end();
    };
    if (value.is_null()) return has("null");
    if (value.as_bool() != nullptr) return has("boolean");
    if (value.as_string() != nullptr) return has("string");
    if (value.as_array() != nullptr) return has("array");
    if (value.as_object() != nullptr) return has("object");
    if (has("number")) return true;
    const double* number = value.as_double();
    return has("integer") && (number == nullptr || std::trunc(*number) == *number);
  }

  // What other keywords say of a listed value.
  bool Satisfies(const Value& value, const Object& schema, const std::string& path) {
    for (const auto& [key, unused] : schema.items()) {
      const std::string_view type = TypeOfKeyword(key);
      const bool structured = (type == "object" && value.as_object() != nullptr) ||
                              (type == "array" && value.as_array() != nullptr);
      if (structured) Fail(key, path, "beside listed values of its type is not supported.");
    }
    if (const std::string* text = value.as_string()) {
      const auto pattern = StringDfa(schema, path);
      return !pattern || pattern->Matches(*text);
    }
    if (value.as_int() == nullptr && value.as_double() == nullptr) return true;
    const NumberBounds bounds = Bounds(schema, path);
    if (bounds.low && NumberLess(value, bounds.low->value)) return false;
    if (bounds.high && NumberLess(bounds.high->value, value)) return false;
    const auto equals = [&](const Value& other) {
      return !NumberLess(value, other) && !NumberLess(other, value);
    };
    if (bounds.low && bounds.low->exclusive && equals(bounds.low->value)) return false;
    if (bounds.high && bounds.high->exclusive && equals(bounds.high->value)) return false;
    if (!bounds.multiple_of) return true;
    return value.as_int() != nullptr && *value.as_int() % int64_t{*bounds.multiple_of} == 0;
  }

  NumberBounds Bounds(const Object& schema, const std::string& path) const {
    NumberBounds bounds;
    const auto tighten = [&](std::string_view keyword, std::optional<NumberBounds::Bound>* bound,
                             bool exclusive, bool low) {
      const Value* value = schema.Find(keyword);
      if (value == nullptr) return;
      if (value->as_int() == nullptr && value->as_double() == nullptr) {
        Fail(keyword, path, "must be a number.");
      }
      if (*bound) {
        const Value& known = (*bound)->value;
        const bool tighter = low ? NumberLess(known, *value) : NumberLess(*value, known);
        const bool looser = low ? NumberLess(*value, known) : NumberLess(known, *value);
        if (looser || (!tighter && !exclusive)) return;
      }
      *bound = NumberBounds::Bound{*value, exclusive};
    };
    tighten("minimum", &bounds.low, false, true);
    tighten("exclusiveMinimum", &bounds.low, true, true);
    tighten("maximum", &bounds.high, false, false);
    tighten("exclusiveMaximum", &bounds.high, true, false);
    if (const Value* value = schema.Find("multipleOf")) {
      const int64_t* divisor = value->as_int();
      if (divisor == nullptr || *divisor <= 0 || *divisor > UINT32_MAX) {
        Fail("multipleOf", path, "is supported for positive integers only.");
      }
      bounds.multiple_of = static_cast<uint32_t>(*divisor);
    }
    if (HasFormat(schema, "int32")) {
      if (!bounds.low) bounds.low = NumberBounds::Bound{Value(int64_t{INT32_MIN})};
      if (!bounds.high) bounds.high = NumberBounds::Bound{Value(int64_t{INT32_MAX})};
    }
    return bounds;
  }

  static Array Strings(const Object& schema, std::string_view keyword, const std::string& path) {
    const Value* value = schema.Find(keyword);
    if (value == nullptr) return {};
    Array all = value->as_array() != nullptr ? *value->as_array() : Array{*value};
    for (const Value& element : all) {
      if (element.as_string() == nullptr) Fail(keyword, path, "must be a string.");
    }
    return all;
  }

  static bool HasFormat(const Object& schema, std::string_view name) {
    const Value* format = schema.Find("format");
    return format != nullptr && format->as_string() != nullptr && *format->as_string() == name;
  }

  CountRange Counts(const Object& schema, std::string_view low, std::string_view high,
                    const std::string& path) const {
    CountRange range;
    const auto read = [&](std::string_view keyword, uint32_t* count) {
      const Value* value = schema.Find(keyword);
      if (value == nullptr) return;
      const int64_t* number = value->as_int();
      if (number == nullptr || *number < 0)
        Fail(keyword, path, "must be an integer of at least 0.");
      const uint32_t limit = expressions_.budget().limits().repetition;
      // A maximum beyond the limit is as good as none.
      if (keyword.starts_with("max") && *number > limit) return;
      if (*number > limit) Fail(keyword, path, "must be at most " + std::to_string(limit) + ".");
      *count = static_cast<uint32_t>(*number);
    };
    read(low, &range.min);
    read(high, &range.max);
    return range;
  }

  // The regular expressions of `pattern` and `format`, as plain text.
  std::vector<NodeId> Patterns(const Object& schema, const std::string& path, Spelling spelling) {
    std::vector<NodeId> patterns;
    for (const Value& pattern : Strings(schema, "pattern", path)) {
      try {
        patterns.push_back(
            AddRegex(&expressions_, *pattern.as_string(), RegexMode::kSearch, spelling));
      } catch (const GrammarError& error) {
        Fail("pattern", path, std::string("cannot be used. ") + error.what());
      }
    }
    for (const Value& format : Strings(schema, "format", path)) {
      const std::string& name = *format.as_string();
      if (IsNumberFormat(name)) continue;
      const std::string_view pattern = FormatPattern(name);
      if (pattern.empty()) {
        Fail("format", path,
             "is '" + name + "'; supported are " + std::string(FormatNames()) + ".");
      }
      patterns.push_back(AddRegex(&expressions_, pattern, RegexMode::kWhole, spelling));
    }
    return patterns;
  }

  // The texts that all string keywords allow; nullopt when there is none.
  std::optional<CodePointDfa> StringDfa(const Object& schema, const std::string& path) {
    CompileBudget& budget = expressions_.budget();
    const CountRange length = Counts(schema, "minLength", "maxLength", path);
    std::vector<NodeId> patterns = Patterns(schema, path, Spelling::kPlain);
    const bool any_length = length.min == 0 && length.max == kUnbounded;
    if (patterns.empty() && any_length) return std::nullopt;
    if (patterns.empty()) {
      patterns.push_back(
          expressions_.Repeat(expressions_.Class(CodePointSet::All()), 0, kUnbounded));
    }
    CodePointDfa dfa = CodePointDfa::FromNode(expressions_, patterns.front());
    for (size_t i = 1; i < patterns.size(); ++i) {
      dfa = dfa.Intersect(CodePointDfa::FromNode(expressions_, patterns[i]), budget);
    }
    return any_length ? dfa : dfa.WithLength(length.min, length.max, budget);
  }

  NodeId CompileString(const Object& schema, const std::string& path) {
    const CountRange length = Counts(schema, "minLength", "maxLength", path);
    const bool any_length = length.min == 0 && length.max == kUnbounded;
    const std::vector<NodeId> patterns = Patterns(schema, path, Spelling::kJson);
    if (patterns.empty() && any_length) return json_.AnyString();
    const NodeId text = StringText(schema, path, length, patterns);
    if (!IsNever(text)) return json_.Quoted(text);
    return NoneSatisfies("string", {"minLength", "maxLength", "pattern", "format"}, schema, path);
  }

  NodeId StringText(const Object& schema, const std::string& path, const CountRange& length,
                    const std::vector<NodeId>& patterns) {
    if (length.min > length.max) return expressions_.Never();
    if (patterns.empty()) {
      return expressions_.Repeat(json_.StringCharacter(), length.min, length.max);
    }
    const bool any_length = length.min == 0 && length.max == kUnbounded;
    if (patterns.size() == 1 && any_length) return patterns.front();
    return StringDfa(schema, path)->ToNode(&expressions_, Spelling::kJson);
  }

  NodeId CompileArray(const Object& schema, const std::string& path, size_t depth) {
    const CountRange count = Counts(schema, "minItems", "maxItems", path);
    if (count.min > count.max) {
      return NoneSatisfies("array", {"minItems", "maxItems"}, schema, path);
    }
    const Value* prefix = schema.Find("prefixItems");
    const Value* items = schema.Find("items");
    if (prefix == nullptr && items == nullptr && count.min == 0 && count.max == kUnbounded) {
      return json_.AnyArray();
    }
    if (prefix != nullptr && prefix->as_array() == nullptr) {
      Fail("prefixItems", path, "must be an array.");
    }
    const size_t prefix_size = prefix == nullptr ? 0 : prefix->as_array()->size();
    // What the schema does not describe is not written.
    const bool open = items != nullptr || prefix == nullptr;
    if (!open && count.min > prefix_size) {
      return None("minItems", path,
                  "is above the number of 'prefixItems', and 'items' does not say what follows.");
    }
    // State i: i elements are written; the last two: more may follow, and the end.
    Graph graph;
    const auto rest = static_cast<uint32_t>(prefix_size);
    const uint32_t end = rest + 1;
    graph.states = rest + 2;
    const NodeId close = expressions_.Literal("]");
    const NodeId space_close = expressions_.Sequence({json_.Space(), close});
    const std::string prefix_path = ChildPath(path, "prefixItems");
    for (uint32_t i = 0; i <= rest; ++i) {
      if (i >= count.min && i <= count.max) {
        graph.edges.push_back({i, end, i == 0 ? close : space_close});
      }
      if (i == rest || i >= count.max) continue;
      NodeId element =
          Compile((*prefix->as_array())[i], ChildPath(prefix_path, std::to_string(i)), depth + 1);
      if (i > 0) element = expressions_.Sequence({json_.Comma(), element});
      graph.edges.push_back({i, i + 1, element});
    }
    if (open && rest < count.max)
      AddRest(items, count, rest, end, path, depth, &graph, space_close);
    graph.accepting = {end};
    return expressions_.Sequence(
        {expressions_.Literal("["), json_.Space(), expressions_.AddGraph(std::move(graph))});
  }

  // Elements beyond the prefix: at least one.
  void AddRest(const Value* items, const CountRange& count, uint32_t rest, uint32_t end,
               const std::string& path, size_t depth, Graph* graph, NodeId space_close) {
    const NodeId item = items == nullptr
                            ? json_.AnyValue()
                            : AsRule(Compile(*items, ChildPath(path, "items"), depth + 1),
                                     ChildPath(path, "items"));
    const NodeId more = expressions_.Sequence({json_.Comma(), item});
    const uint32_t min = std::max(count.min, rest + 1) - rest - 1;
    const uint32_t max = count.max == kUnbounded ? kUnbounded : count.max - rest - 1;
    const NodeId first = rest == 0 ? item : more;
    graph->edges.push_back(
        {rest, end,
         expressions_.Sequence({first, expressions_.Repeat(more, min, max), space_close})});
  }

  // So that an expression that is used twice is built once.
  NodeId AsRule(NodeId body, const std::string& name) {
    const Node& node = expressions_.node(body);
    if (node.kind == NodeKind::kCall || node.kind == NodeKind::kNever) return body;
    const RuleId rule = expressions_.AddRule(name);
    expressions_.Define(rule, body);
    return expressions_.Call(rule);
  }

  struct Member {
    std::string name;
    NodeId node;
    bool required;
  };

  NodeId CompileObject(const Object& schema, const std::string& path, size_t depth) {
    const bool described = schema.Find("properties") != nullptr ||
                           schema.Find("patternProperties") != nullptr ||
                           schema.Find("unevaluatedProperties") != nullptr;
    const Value* additional = schema.Find("additionalProperties");
    const CountRange count = Counts(schema, "minProperties", "maxProperties", path);
    if (count.min > count.max) {
      return NoneSatisfies("object", {"minProperties", "maxProperties"}, schema, path);
    }
    const bool any_count = count.min == 0 && count.max == kUnbounded;
    const bool anything =
        additional == nullptr || (additional->as_bool() != nullptr && *additional->as_bool());
    if (!described && anything && any_count && schema.Find("required") == nullptr) {
      return json_.AnyObject();
    }
    // What the schema does not describe is not written.
    const Value extra = additional != nullptr ? *additional : Value(!described);
    const bool closed = extra.as_bool() != nullptr && !*extra.as_bool();

    std::vector<std::pair<std::string, Value>> patterns = PatternProperties(schema, path);
    std::vector<Member> members = Members(schema, extra, patterns, path, depth);
    std::vector<NodeId> extras;
    const std::vector<CodePointDfa> keys = PatternKeys(patterns, members, path);
    for (size_t i = 0; i < patterns.size(); ++i) {
      const std::string value_path =
          ChildPath(ChildPath(path, "patternProperties"), patterns[i].first);
      extras.push_back(json_.Member(json_.Quoted(keys[i].ToNode(&expressions_, Spelling::kJson)),
                                    Compile(patterns[i].second, value_path, depth + 1)));
    }
    if (!closed) {
      const NodeId value = Compile(extra, ChildPath(path, "additionalProperties"), depth + 1);
      extras.push_back(json_.Member(OtherKey(members, keys), value));
    }
    if (count.min > 1 && !extras.empty() && count.min > RequiredCount(members)) {
      Fail("minProperties", path, "above 1 is supported only where all members are named.");
    }
    return ObjectGraph(members, extras, count, path);
  }

  static uint32_t RequiredCount(const std::vector<Member>& members) {
    return static_cast<uint32_t>(
        std::count_if(members.begin(), members.end(), [](const Member& m) { return m.required; }));
  }

  std::vector<std::pair<std::string, Value>> PatternProperties(const Object& schema,
                                                               const std::string& path) const {
    const Value* patterns = schema.Find("patternProperties");
    if (patterns == nullptr) return {};
    if (patterns->as_object() == nullptr) Fail("patternProperties", path, "must be an object.");
    return patterns->as_object()->items();
  }

  CodePointDfa KeyDfa(const std::string& pattern, const std::string& path) {
    try {
      return CodePointDfa::FromNode(
          expressions_, AddRegex(&expressions_, pattern, RegexMode::kSearch, Spelling::kPlain));
    } catch (const GrammarError& error) {
      Fail("patternProperties", path, std::string("cannot be used. ") + error.what());
    }
  }

  // The keys of each pattern that no member has. Patterns may not overlap.
  std::vector<CodePointDfa> PatternKeys(const std::vector<std::pair<std::string, Value>>& patterns,
                                        const std::vector<Member>& members,
                                        const std::string& path) {
    CompileBudget& budget = expressions_.budget();
    std::vector<CodePointDfa> keys;
    for (const auto& [pattern, unused] : patterns) {
      CodePointDfa dfa = KeyDfa(pattern, path);
      for (const CodePointDfa& other : keys) {
        if (!dfa.Intersect(other, budget).IsEmpty()) {
          Fail("patternProperties", path, "has patterns that match the same keys.");
        }
      }
      keys.push_back(std::move(dfa));
    }
    const CodePointDfa others = NotNamed(members);
    for (CodePointDfa& dfa : keys) dfa = dfa.Intersect(others, budget);
    return keys;
  }

  CodePointDfa NotNamed(const std::vector<Member>& members) {
    std::vector<NodeId> names;
    names.reserve(members.size());
    for (const Member& member : members) names.push_back(expressions_.Literal(member.name));
    return CodePointDfa::FromNode(expressions_, expressions_.Choice(names)).Complement();
  }

  // A key that no member has and no pattern matches.
  NodeId OtherKey(const std::vector<Member>& members, const std::vector<CodePointDfa>& patterns) {
    if (members.empty() && patterns.empty()) return json_.AnyString();
    CodePointDfa keys = NotNamed(members);
    for (const CodePointDfa& pattern : patterns) {
      keys = keys.Intersect(pattern.Complement(), expressions_.budget());
    }
    return json_.Quoted(keys.ToNode(&expressions_, Spelling::kJson));
  }

  std::vector<Member> Members(const Object& schema, const Value& extra,
                              const std::vector<std::pair<std::string, Value>>& patterns,
                              const std::string& path, size_t depth) {
    std::vector<std::pair<std::string, Value>> named;
    if (const Value* properties = schema.Find("properties")) {
      if (properties->as_object() == nullptr) Fail("properties", path, "must be an object.");
      named = properties->as_object()->items();
    }
    const auto find = [&](const std::string& name) {
      return std::find_if(named.begin(), named.end(),
                          [&](const auto& item) { return item.first == name; });
    };
    const bool closed = extra.as_bool() != nullptr && !*extra.as_bool();
    std::set<std::string> required;
    std::set<std::string> undescribed;
    for (const Value& element : Strings(schema, "required", path)) {
      const std::string& name = *element.as_string();
      required.insert(name);
      if (find(name) != named.end()) continue;
      const bool matches = MatchesAny(name, patterns, path);
      if (closed && !matches) undescribed.insert(name);
      named.emplace_back(name, matches ? Value(true) : extra);
    }
    std::vector<Member> members;
    const std::string properties_path = ChildPath(path, "properties");
    for (auto& [name, value] : named) {
      Value narrowed = value;
      for (const auto& [pattern, pattern_schema] : patterns) {
        if (KeyDfa(pattern, path).Matches(name)) {
          narrowed = SchemaMerger::Both(narrowed, pattern_schema);
        }
      }
      const NodeId node =
          undescribed.contains(name)
              ? None("required", path, "names '" + name + "', which the schema does not describe.")
              : Compile(narrowed, ChildPath(properties_path, name), depth + 1);
      members.push_back({name, json_.Member(name, node), required.contains(name)});
    }
    return members;
  }

  bool MatchesAny(const std::string& name,
                  const std::vector<std::pair<std::string, Value>>& patterns,
                  const std::string& path) {
    return std::any_of(patterns.begin(), patterns.end(), [&](const auto& pattern) {
      return KeyDfa(pattern.first, path).Matches(name);
    });
  }

  // Members in order, those that are not required perhaps absent, then any number of extras.
  //
  // State (i, c): members before i are dealt with and c are written, where counting stops when
  // more makes no difference. Before each member or extra stands a state in which its comma is
  // written already, so that its expression is built once for each count.
  NodeId ObjectGraph(const std::vector<Member>& members, const std::vector<NodeId>& extras,
                     const CountRange& count, const std::string& path) {
    const auto n = static_cast<uint32_t>(members.size());
    const bool bounded = count.min > 1 || count.max != kUnbounded;
    const uint32_t most = extras.empty() ? n : kUnbounded;
    if (count.min > most) {
      return None("minProperties", path, "is above the number of members that are described.");
    }
    if (RequiredCount(members) > count.max) {
      return None("maxProperties", path, "is below the number of members that are required.");
    }
    const uint32_t stop =
        !bounded ? 1
                 : std::max(std::min(count.max == kUnbounded ? count.min : count.max, most), 1U);
    CompileBudget::CheckAtMost(uint64_t{n + 1} * (stop + 1), expressions_.budget().limits().states,
                               "states in one object");
    const auto state = [&](uint32_t i, uint32_t c) { return 2 * (i * (stop + 1) + c); };
    const auto body = [&](uint32_t i, uint32_t c) { return state(i, c) + 1; };
    Graph graph;
    const uint32_t end = state(n, stop) + 2;
    graph.states = end + 1;
    graph.accepting = {end};

    const NodeId nothing = expressions_.Empty();
    const NodeId comma = json_.Comma();
    const NodeId close = expressions_.Literal("}");
    const NodeId space_close = expressions_.Sequence({json_.Space(), close});
    const NodeId extra = expressions_.Choice(extras);
    const bool repeated = stop > 1;
    for (uint32_t i = 0; i <= n; ++i) {
      NodeId node = i < n ? members[i].node : extra;
      if (repeated) node = AsRule(node, path);
      const uint32_t next = std::min(i + 1, n);
      for (uint32_t c = 0; c <= stop; ++c) {
        expressions_.budget().Step();
        const bool full = bounded && c >= count.max;
        if (!full) {
          graph.edges.push_back(
              {state(i, c), body(i, std::min(c + 1, stop)), c > 0 ? comma : nothing});
        }
        if (c > 0) graph.edges.push_back({body(i, c), state(next, c), node});
        if (i < n && !members[i].required) {
          graph.edges.push_back({state(i, c), state(i + 1, c), nothing});
        }
        if (i == n && c >= std::min(count.min, stop) && (c > 0 || count.min == 0)) {
          graph.edges.push_back({state(i, c), end, c > 0 ? space_close : close});
        }
      }
    }
    return expressions_.Sequence(
        {expressions_.Literal("{"), json_.Space(), expressions_.AddGraph(std::move(graph))});
  }

  JsonGrammar& json_;
  Expressions& expressions_;
  const Value& root_;
  SchemaMerger merger_;
  std::map<std::string, RuleId> references_;
  std::vector<WaitingRule> waiting_;
};

}  // namespace

NodeId AddJsonSchema(JsonGrammar* json, const Value& schema) {
  return SchemaCompiler(json, schema).Run();
}

}  // namespace engine::text::grammar
