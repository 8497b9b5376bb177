#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/datum.h"

namespace engine::text::jinja {

// Python's operators on values. All of them throw RenderError with Python's message (or the
// undefined value's) where Python raises.

bool Truth(Interpreter& interpreter, const Datum& value);
std::string Str(Interpreter& interpreter, const Datum& value);
std::string Repr(Interpreter& interpreter, const Datum& value);
void AppendStr(Interpreter& interpreter, const Datum& value, std::string* out);
// repr() of a float: the shortest text that reads back the same.
std::string FloatRepr(double value);
std::string StringRepr(std::string_view text);

bool Equal(Interpreter& interpreter, const Datum& left, const Datum& right);
bool Identical(const Datum& left, const Datum& right);  // `is`
bool Compare(Interpreter& interpreter, CompareOp op, const Datum& left, const Datum& right);
bool Contains(Interpreter& interpreter, const Datum& item, const Datum& container);

Datum Arithmetic(Interpreter& interpreter, ArithmeticOp op, const Datum& left, const Datum& right);
Datum Negate(const Datum& value, bool negative);

// object.name and object[key] as Jinja looks them up: the attribute first, or the item first.
// Undefined when there is neither.
Datum GetAttribute(Interpreter& interpreter, const Datum& object, std::string_view name);
Datum GetItem(Interpreter& interpreter, const Datum& object, const Datum& key);
// Nothing when the object has no such attribute; items don't count.
std::optional<Datum> FindAttribute(Interpreter& interpreter, const Datum& object,
                                   std::string_view name);

struct SliceBounds {
  std::optional<int64_t> start, stop, step;
};
std::optional<int64_t> SliceIndex(const Datum& value);
Datum GetSlice(Interpreter& interpreter, const Datum& object, const SliceBounds& bounds);

// len(); nothing when the value has no length.
std::optional<int64_t> Length(Interpreter& interpreter, const Datum& value);
bool IsIterable(const Datum& value);
std::unique_ptr<Iterator> Iterate(Interpreter& interpreter, const Datum& value);
std::vector<Datum> ToVector(Interpreter& interpreter, const Datum& value);

std::string TypeName(const Datum& value);
[[noreturn]] void FailUndefined(const Datum& value);
[[noreturn]] void FailType(const std::string& message);

// json.dumps as transformers' tojson calls it.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // the text of one level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
std::string ToJson(Interpreter& interpreter, const Datum& value, const JsonStyle& style);

// format % value.
std::string PercentFormat(Interpreter& interpreter, const std::string& format, const Datum& value);
// str.format(*positional, **named).
std::string BraceFormat(Interpreter& interpreter, const std::string& format,
                        const Arguments& arguments);

}  // namespace engine::text::jinja
