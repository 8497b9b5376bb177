#include "engine/text/grammar/schema_merge.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "engine/text/grammar/json_grammar.h"
#include "engine/text/grammar/json_numbers.h"

namespace engine::text::grammar {
namespace {

constexpr std::array<std::string_view, 18> kAnnotations = {
    "title",       "description",      "default",        "examples",    "example",
    "deprecated",  "readOnly",         "writeOnly",      "$schema",     "$id",
    "$comment",    "$anchor",          "$defs",          "definitions", "discriminator",
    "$vocabulary", "contentMediaType", "contentEncoding"};

constexpr std::array<std::string_view, 27> kKeywords = {"$ref",
                                                        "allOf",
                                                        "anyOf",
                                                        "oneOf",
                                                        "type",
                                                        "enum",
                                                        "const",
                                                        "properties",
                                                        "required",
                                                        "additionalProperties",
                                                        "patternProperties",
                                                        "minProperties",
                                                        "maxProperties",
                                                        "items",
                                                        "prefixItems",
                                                        "minItems",
                                                        "maxItems",
                                                        "minLength",
                                                        "maxLength",
                                                        "pattern",
                                                        "format",
                                                        "minimum",
                                                        "maximum",
                                                        "exclusiveMinimum",
                                                        "exclusiveMaximum",
                                                        "multipleOf",
                                                        "unevaluatedProperties"};

template <size_t kSize>
bool Has(const std::array<std::string_view, kSize>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

[[noreturn]] void Fail(const std::string& keyword, const std::string& path,
                       const std::string& what) {
  throw GrammarError("JSON Schema: '" + keyword + "' at " + path + " " + what);
}

// Merged, one name would look like an array of one.
void CheckRequired(const Value& required, const std::string& path) {
  const Array* names = required.as_array();
  const bool strings = names != nullptr &&
                       std::all_of(names->begin(), names->end(),
                                   [](const Value& name) { return name.as_string() != nullptr; });
  if (!strings) Fail("required", path, "must be an array of strings.");
}

bool IsFalse(const Value& value) { return value.as_bool() != nullptr && !*value.as_bool(); }
bool IsTrue(const Value& value) { return value.as_bool() != nullptr && *value.as_bool(); }

Array AsArray(const Value& value) {
  const Array* array = value.as_array();
  return array != nullptr ? *array : Array{value};
}

bool Contains(const Array& array, const Value& value) {
  const std::string text = JsonText(value);
  return std::any_of(array.begin(), array.end(),
                     [&](const Value& element) { return JsonText(element) == text; });
}

Array Joined(const Value& a, const Value& b) {
  Array all = AsArray(a);
  for (const Value& element : AsArray(b)) {
    if (!Contains(all, element)) all.push_back(element);
  }
  return all;
}

Array Common(const Value& a, const Value& b) {
  const Array other = AsArray(b);
  Array common;
  for (const Value& element : AsArray(a)) {
    if (Contains(other, element)) common.push_back(element);
  }
  return common;
}

// Types in both lists; an integer is a number.
Array CommonTypes(const Value& a, const Value& b) {
  const Value integer("integer");
  const Value number("number");
  Array common = Common(a, b);
  const Array x = AsArray(a);
  const Array y = AsArray(b);
  const bool narrowed = (Contains(x, integer) && Contains(y, number)) ||
                        (Contains(x, number) && Contains(y, integer));
  if (narrowed && !Contains(common, integer)) common.push_back(integer);
  return common;
}

// `extra` of the schema that does not name a property applies to it, too.
void NarrowByExtra(Value* property, std::string_view name, const Object& other) {
  const Value* properties = other.Find("properties");
  const bool named = properties != nullptr && properties->as_object() != nullptr &&
                     properties->as_object()->Find(name) != nullptr;
  const Value* extra = other.Find("additionalProperties");
  if (!named && extra != nullptr) *property = SchemaMerger::Both(*property, *extra);
}

Object MergedProperties(const Object& a, const Object& b) {
  Object merged;
  const auto add_all = [&](const Object& from, const Object& other) {
    const Value* properties = from.Find("properties");
    if (properties == nullptr || properties->as_object() == nullptr) return;
    for (const auto& [name, schema] : properties->as_object()->items()) {
      Value narrowed = schema;
      if (const Value* known = merged.Find(name)) narrowed = SchemaMerger::Both(*known, schema);
      NarrowByExtra(&narrowed, name, other);
      merged.Set(name, std::move(narrowed));
    }
  };
  add_all(a, b);
  add_all(b, a);
  return merged;
}

// Element schemas of a: those of prefixItems, then `items`, as far as `count`.
Value ElementSchema(const Object& schema, size_t index) {
  const Value* prefix = schema.Find("prefixItems");
  if (prefix != nullptr && prefix->as_array() != nullptr && index < prefix->as_array()->size()) {
    return (*prefix->as_array())[index];
  }
  const Value* items = schema.Find("items");
  return items != nullptr ? *items : Value(true);
}

size_t PrefixSize(const Object& schema) {
  const Value* prefix = schema.Find("prefixItems");
  return prefix != nullptr && prefix->as_array() != nullptr ? prefix->as_array()->size() : 0;
}

std::string Unescaped(std::string_view token) {
  std::string out;
  for (size_t i = 0; i < token.size(); ++i) {
    const std::string_view rest = token.substr(i);
    if (rest.starts_with("~1") || rest.starts_with("~0")) {
      out += rest[1] == '1' ? '/' : '~';
      ++i;
    } else if (rest[0] == '%' && rest.size() >= 3) {
      const auto digit = [](char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; };
      out += static_cast<char>((digit(rest[1]) & 15) * 16 + (digit(rest[2]) & 15));
      i += 2;
    } else {
      out += rest[0];
    }
  }
  return out;
}

}  // namespace

std::string ChildPath(const std::string& path, std::string_view key) {
  std::string result = path + "/";
  for (const char c : key) {
    if (c == '~') {
      result += "~0";
    } else if (c == '/') {
      result += "~1";
    } else {
      result += c;
    }
  }
  return result;
}

bool SchemaMerger::IsAnnotation(std::string_view keyword) {
  return Has(kAnnotations, keyword) || keyword.starts_with("x-");
}

bool SchemaMerger::Alone(const Object& schema, std::string_view keyword) {
  return std::all_of(schema.items().begin(), schema.items().end(), [&](const auto& item) {
    return item.first == keyword || IsAnnotation(item.first);
  });
}

void SchemaMerger::CheckKeywords(const Object& schema, const std::string& path) {
  for (const auto& [key, value] : schema.items()) {
    if (Has(kKeywords, key) || IsAnnotation(key)) continue;
    // What they say when they say nothing.
    if (key == "uniqueItems" && IsFalse(value)) continue;
    if (key == "nullable" && IsFalse(value)) continue;
    if (key == "unevaluatedItems" && IsFalse(value)) continue;
    Fail(key, path, "is not supported.");
  }
  if (const Value* required = schema.Find("required")) CheckRequired(*required, path);
  if (const Value* value = schema.Find("unevaluatedProperties"); value && !IsFalse(*value)) {
    Fail("unevaluatedProperties", path, "is supported only as false.");
  }
}

const Value& SchemaMerger::Resolve(const std::string& reference, const std::string& path) const {
  const auto fail = [&]() -> const Value& {
    Fail("$ref", path,
         "names '" + reference + "', which is not in this schema; references are '#' or '#/...'.");
  };
  if (!reference.starts_with('#')) return fail();
  std::string_view rest = std::string_view(reference).substr(1);
  const Value* place = &root_;
  while (!rest.empty()) {
    if (rest[0] != '/') return fail();
    const size_t end = std::min(rest.find('/', 1), rest.size());
    const std::string key = Unescaped(rest.substr(1, end - 1));
    rest.remove_prefix(end);
    const Value* next = nullptr;
    if (const Object* object = place->as_object()) next = object->Find(key);
    if (const Array* array = place->as_array()) {
      const bool digits = !key.empty() && key.size() < 7 &&
                          key.find_first_not_of("0123456789") == std::string::npos;
      const size_t index = digits ? std::stoul(key) : array->size();
      if (index < array->size()) next = &(*array)[index];
    }
    if (next == nullptr) return fail();
    place = next;
  }
  return *place;
}

Object SchemaMerger::Flatten(const Object& schema, const std::string& path, size_t depth) {
  budget_.Step();
  budget_.CheckNesting(depth);
  CheckKeywords(schema, path);
  Object result;
  for (const auto& [key, value] : schema.items()) {
    if (key != "$ref" && key != "allOf") result.Set(key, value);
  }
  const auto add = [&](const Value& part, const std::string& part_path) {
    if (IsTrue(part)) return;
    Object nothing;
    nothing.Set("enum", Array{});
    const Object* object = part.as_object();
    if (object == nullptr && !IsFalse(part)) {
      throw GrammarError("JSON Schema: " + part_path + " is not an object or a boolean.");
    }
    result =
        Merge(result, object != nullptr ? Flatten(*object, part_path, depth + 1) : nothing, path);
  };
  if (const Value* reference = schema.Find("$ref")) {
    const std::string* text = reference->as_string();
    if (text == nullptr) Fail("$ref", path, "must be a string.");
    add(Resolve(*text, path), *text);
  }
  if (const Value* parts = schema.Find("allOf")) {
    if (parts->as_array() == nullptr) Fail("allOf", path, "must be an array.");
    const std::string parts_path = ChildPath(path, "allOf");
    for (size_t i = 0; i < parts->as_array()->size(); ++i) {
      add((*parts->as_array())[i], ChildPath(parts_path, std::to_string(i)));
    }
  }
  return result;
}

Value SchemaMerger::Both(const Value& a, const Value& b) {
  if (IsTrue(a) || IsFalse(b)) return b;
  if (IsTrue(b) || IsFalse(a)) return a;
  Object both;
  both.Set("allOf", Array{a, b});
  return both;
}

Object SchemaMerger::Merge(const Object& a, const Object& b, const std::string& path) {
  budget_.Step();
  Object result = a;
  if (a.Find("properties") != nullptr || b.Find("properties") != nullptr) {
    result.Set("properties", MergedProperties(a, b));
  }
  if (PrefixSize(a) + PrefixSize(b) > 0) {
    Array prefix;
    for (size_t i = 0; i < std::max(PrefixSize(a), PrefixSize(b)); ++i) {
      prefix.push_back(Both(ElementSchema(a, i), ElementSchema(b, i)));
    }
    result.Set("prefixItems", std::move(prefix));
  }
  for (const auto& [key, value] : b.items()) {
    if (key == "properties" || key == "prefixItems") continue;
    if (result.Find(key) == nullptr) {
      result.Set(key, value);
    } else if (!IsAnnotation(key)) {
      MergeMember(&result, key, value, path);
    }
  }
  return result;
}

void SchemaMerger::MergeMember(Object* result, const std::string& key, const Value& theirs,
                               const std::string& path) {
  const Value ours = *result->Find(key);
  const auto take_greater = [&](bool greater) {
    const auto is_number = [](const Value& value) {
      return value.as_int() != nullptr || value.as_double() != nullptr;
    };
    if (!is_number(ours) || !is_number(theirs)) Fail(key, path, "must be a number.");
    if (NumberLess(ours, theirs) == greater) result->Set(key, theirs);
  };
  if (key == "type") {
    result->Set(key, CommonTypes(ours, theirs));
  } else if (key == "enum") {
    result->Set(key, Common(ours, theirs));
  } else if (key == "required" || key == "pattern" || key == "format") {
    result->Set(key, Joined(ours, theirs));
  } else if (key == "items" || key == "additionalProperties") {
    result->Set(key, Both(ours, theirs));
  } else if (key.starts_with("min") || key == "exclusiveMinimum") {
    take_greater(true);
  } else if (key.starts_with("max") || key == "exclusiveMaximum") {
    take_greater(false);
  } else if (key == "anyOf" || key == "oneOf") {
    Object branch;
    branch.Set(key, theirs);
    Array parts;
    if (const Value* known = result->Find("allOf")) parts = AsArray(*known);
    parts.push_back(Value(std::move(branch)));
    result->Set("allOf", std::move(parts));
  } else if (key == "allOf") {
    Array parts = AsArray(ours);
    for (const Value& part : AsArray(theirs)) parts.push_back(part);
    result->Set(key, std::move(parts));
  } else if (key == "multipleOf" && ours.as_int() != nullptr && theirs.as_int() != nullptr &&
             *ours.as_int() > 0 && *theirs.as_int() > 0 && *ours.as_int() < (1 << 30) &&
             *theirs.as_int() < (1 << 30)) {
    result->Set(key, Value(std::lcm(*ours.as_int(), *theirs.as_int())));
  } else if (JsonText(ours) != JsonText(theirs)) {
    // const among them: two that differ leave nothing.
    if (key == "const") {
      result->Set("enum", Array{});
    } else {
      Fail(key, path, "is combined with another '" + key + "', which is not supported.");
    }
  }
}

}  // namespace engine::text::grammar
