#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "engine/text/jinja/arguments.h"
#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/objects.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/text_functions.h"
#include "engine/text/jinja/unicode.h"

namespace engine::text::jinja {
namespace {

template <size_t N>
using ArgumentNames = std::array<std::string_view, N>;

// str(value), as soft_str does for the filters that work on text.
Datum Text(Interpreter& interpreter, const Datum& value) {
  return value.is_string() ? value : Datum::String(Str(interpreter, value));
}

void NoArguments(std::string_view filter, Arguments& arguments) {
  static constexpr ArgumentNames<0> kNames = {};
  const Bound<0> bound(filter, kNames, 0, arguments);
}

Datum Generator(NextFunction next, const Datum& source) {
  return Datum::From(std::make_shared<GeneratorObject>(IterateWith(std::move(next)), source));
}

// All that a lazy filter holds on to, for the depth of its generator.
Datum Held(const Datum& value, const Arguments& arguments) {
  std::vector<Datum> held = arguments.positional;
  for (const auto& [name, argument] : arguments.named) held.push_back(argument);
  held.push_back(value);
  return Datum::Tuple(std::move(held));
}

// "a.b.0" as the steps of a lookup; digits are integers, as Jinja has it.
std::vector<Datum> AttributePath(Interpreter& interpreter, std::string_view path) {
  std::vector<Datum> steps;
  while (true) {
    const size_t dot = path.find('.');
    const std::string_view part = path.substr(0, dot);
    int64_t number = 0;
    if (!part.empty() && part.size() < 19 &&
        std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      for (const char c : part) number = number * 10 + (c - '0');
      steps.push_back(Datum::Int(number));
    } else {
      steps.push_back(Datum::String(std::string(part)));
    }
    interpreter.budget().Step();
    if (dot == std::string_view::npos) return steps;
    path.remove_prefix(dot + 1);
  }
}

// The lookup that filters do with their `attribute` argument.
class AttributeGetter {
 public:
  AttributeGetter() = default;
  AttributeGetter(Interpreter& interpreter, const Datum& attribute, Datum fallback = Datum())
      : fallback_(std::move(fallback)) {
    if (attribute.is(Kind::kMissing) || attribute.is(Kind::kNone)) return;
    if (attribute.is_string()) {
      steps_ = AttributePath(interpreter, attribute.string());
    } else {
      steps_ = {attribute};
    }
  }

  Datum operator()(Interpreter& interpreter, Datum item) const {
    for (const Datum& step : steps_) {
      item = GetItem(interpreter, item, step);
      const bool replace = !fallback_.is(Kind::kMissing) && !fallback_.is(Kind::kNone);
      if (replace && item.is_undefined()) item = fallback_;
    }
    return item;
  }

 private:
  std::vector<Datum> steps_;
  Datum fallback_;
};

Datum IgnoreCase(Interpreter& interpreter, const Datum& value) {
  return value.is_string() ? interpreter.NewString(Lower(value.string())) : value;
}

// Keys of the items of a sequence, in its order, for sorting and grouping.
struct Keyed {
  Datum key;
  Datum item;
};

void SortByKey(Interpreter& interpreter, std::vector<Keyed>* items, bool reverse) {
  std::stable_sort(items->begin(), items->end(), [&](const Keyed& a, const Keyed& b) {
    return reverse ? Compare(interpreter, CompareOp::kLt, b.key, a.key)
                   : Compare(interpreter, CompareOp::kLt, a.key, b.key);
  });
}

Datum Items(std::vector<Keyed> keyed) {
  std::vector<Datum> items;
  items.reserve(keyed.size());
  for (Keyed& entry : keyed) items.push_back(std::move(entry.item));
  return Datum::List(std::move(items));
}

Datum Abs(Interpreter&, const Datum& value, Arguments& arguments) {
  NoArguments("abs", arguments);
  if (value.is_undefined()) FailUndefined(value);
  if (value.is(Kind::kFloat)) return Datum::Float(std::fabs(value.real()));
  if (!value.is_integral()) {
    FailType("bad operand type for abs(): '" + std::string(value.type_name()) + "'");
  }
  return value.integer() < 0 ? Negate(value, true) : Datum::Int(value.integer());
}

Datum Attr(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<1> kNames = {"name"};
  const Bound<1> bound("attr", kNames, 1, arguments);
  const std::string& name = bound.String(0);
  if (value.is_undefined()) FailUndefined(value);
  if (auto found = FindAttribute(interpreter, value, name)) return *std::move(found);
  return Datum::Undefined(StringRepr(TypeName(value)) + " has no attribute " + StringRepr(name));
}

Datum Batch(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<2> kNames = {"linecount", "fill_with"};
  const Bound<2> bound("batch", kNames, 1, arguments);
  const int64_t count = bound.Int(0, 0);
  std::vector<Datum> batches, row;
  for (Datum& item : ToVector(interpreter, value)) {
    if (static_cast<int64_t>(row.size()) == count) {
      batches.push_back(interpreter.NewList(std::exchange(row, {})));
    }
    row.push_back(std::move(item));
  }
  if (!row.empty()) {
    while (bound.HasValue(1) && static_cast<int64_t>(row.size()) < count) {
      interpreter.budget().Step();
      row.push_back(bound[1]);
    }
    batches.push_back(interpreter.NewList(std::move(row)));
  }
  const Datum list = Datum::List(std::move(batches));
  return Datum::From(std::make_shared<GeneratorObject>(Iterate(interpreter, list), list));
}

Datum SliceFilter(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<2> kNames = {"slices", "fill_with"};
  const Bound<2> bound("slice", kNames, 1, arguments);
  const int64_t slices = bound.Int(0, 0);
  const std::vector<Datum> items = ToVector(interpreter, value);
  const auto size = static_cast<int64_t>(items.size());
  if (slices == 0) FailType("integer division or modulo by zero");
  std::vector<Datum> columns;
  int64_t start = 0;
  for (int64_t i = 0; i < slices; ++i) {
    interpreter.budget().Step();
    const bool extra = i < size % slices;
    const int64_t end = start + size / slices + (extra ? 1 : 0);
    std::vector<Datum> column(items.begin() + start, items.begin() + end);
    if (bound.HasValue(1) && !extra) column.push_back(bound[1]);
    columns.push_back(interpreter.NewList(std::move(column)));
    start = end;
  }
  const Datum list = Datum::List(std::move(columns));
  return Datum::From(std::make_shared<GeneratorObject>(Iterate(interpreter, list), list));
}

Datum CapitalizeFilter(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("capitalize", arguments);
  return interpreter.NewString(Capitalize(Text(interpreter, value).string()));
}

Datum CenterFilter(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<1> kNames = {"width"};
  const Bound<1> bound("center", kNames, 0, arguments);
  return Justify(interpreter, Text(interpreter, value).string(), bound.Int(0, 80), " ",
                 Side::kBoth);
}

Datum LengthFilter(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("length", arguments);
  const std::optional<int64_t> length = Length(interpreter, value);
  if (!length) {
    FailType("object of type '" + std::string(value.type_name()) + "' has no len()");
  }
  return Datum::Int(*length);
}

Datum Default(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<2> kNames = {"default_value", "boolean"};
  const Bound<2> bound("default", kNames, 0, arguments);
  const bool boolean = bound.Flag(interpreter, 1, false);
  if (value.is_undefined() || (boolean && !Truth(interpreter, value))) {
    return bound.Or(0, Datum::String(""));
  }
  return value;
}

Datum DictSort(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<3> kNames = {"case_sensitive", "by", "reverse"};
  const Bound<3> bound("dictsort", kNames, 0, arguments);
  const std::string by = bound.Has(1) ? bound.String(1) : "key";
  if (by != "key" && by != "value") FailType("You can only sort by either \"key\" or \"value\"");
  if (value.is_undefined()) FailUndefined(value);
  if (!value.is(Kind::kDict)) FailType("dictsort needs a mapping");
  const bool case_sensitive = bound.Flag(interpreter, 0, false);
  std::vector<Keyed> items;
  for (const auto& [key, item] : value.dict().entries()) {
    interpreter.budget().Step();
    const Datum& sort_key = by == "key" ? key : item;
    items.push_back(
        {case_sensitive ? sort_key : IgnoreCase(interpreter, sort_key), Datum::Tuple({key, item})});
  }
  SortByKey(interpreter, &items, bound.Flag(interpreter, 2, false));
  return Items(std::move(items));
}

Datum Escape(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("escape", arguments);
  const Datum text = Text(interpreter, value);
  std::string out;
  for (const char c : text.string()) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return interpreter.NewString(std::move(out));
}

Datum First(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("first", arguments);
  const auto iterator = Iterate(interpreter, value);
  Datum item;
  if (iterator->Next(interpreter, &item)) return item;
  return Datum::Undefined("No first item, sequence was empty.");
}

// What Python's reversed() accepts.
bool IsReversible(const Datum& value) {
  return value.is_string() || value.is_sequence() || value.is(Kind::kDict) ||
         value.As<RangeObject>() != nullptr || value.As<DictView>() != nullptr;
}

Datum Last(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("last", arguments);
  if (value.is_undefined()) FailUndefined(value);
  if (!IsReversible(value)) {
    FailType("'" + std::string(value.type_name()) + "' object is not reversible");
  }
  if (value.is_sequence()) {
    if (!value.items().empty()) return value.items().back();
  } else if (const std::vector<Datum> items = ToVector(interpreter, value); !items.empty()) {
    return items.back();
  }
  return Datum::Undefined("No last item, sequence was empty.");
}

Datum FloatFilter(Interpreter&, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<1> kNames = {"default"};
  const Bound<1> bound("float", kNames, 0, arguments);
  if (value.is_undefined()) FailUndefined(value);
  if (value.is_number()) return Datum::Float(value.number());
  if (value.is_string()) {
    if (const auto number = ParseFloat(value.string())) return Datum::Float(*number);
  }
  return bound.Or(0, Datum::Float(0.0));
}

std::optional<int64_t> TruncateToInt(double value) {
  if (!(std::fabs(value) < 9223372036854775808.0)) return std::nullopt;
  return static_cast<int64_t>(value);
}

Datum IntFilter(Interpreter&, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<2> kNames = {"default", "base"};
  const Bound<2> bound("int", kNames, 0, arguments);
  if (value.is_undefined()) FailUndefined(value);
  const Datum otherwise = bound.Or(0, Datum::Int(0));
  if (value.is_integral()) return Datum::Int(value.integer());
  std::optional<double> real;
  if (value.is_string()) {
    if (const auto number = ParseInt(value.string(), bound.Int(1, 10))) return Datum::Int(*number);
    real = ParseFloat(value.string());
  } else if (value.is(Kind::kFloat)) {
    real = value.real();
    if (std::isinf(*real)) FailType("cannot convert float infinity to integer");
  }
  if (!real || !std::isfinite(*real)) return otherwise;
  const std::optional<int64_t> number = TruncateToInt(*real);
  if (!number) FailType("an integer does not fit 64 bits");
  return Datum::Int(*number);
}

Datum ForceString(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("string", arguments);
  return Text(interpreter, value);
}

Datum Format(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    FailType("can't handle positional and keyword arguments at the same time");
  }
  const Datum text = Text(interpreter, value);
  if (arguments.named.empty()) {
    const Datum values = Datum::Tuple(std::move(arguments.positional));
    return Datum::String(PercentFormat(interpreter, text.string(), values));
  }
  auto dict = std::make_shared<DictObject>();
  for (auto& [name, item] : arguments.named) dict->Set(Datum::String(name), std::move(item));
  return Datum::String(PercentFormat(interpreter, text.string(), Datum::Dict(std::move(dict))));
}

Datum GroupBy(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<3> kNames = {"attribute", "default", "case_sensitive"};
  const Bound<3> bound("groupby", kNames, 1, arguments);
  const AttributeGetter getter(interpreter, bound[0], bound[1]);
  const bool case_sensitive = bound.Flag(interpreter, 2, false);
  std::vector<Keyed> items;
  for (Datum& item : ToVector(interpreter, value)) {
    Datum key = getter(interpreter, item);
    if (!case_sensitive) key = IgnoreCase(interpreter, key);
    items.push_back({std::move(key), std::move(item)});
  }
  SortByKey(interpreter, &items, false);
  std::vector<Datum> groups;
  for (size_t i = 0; i < items.size();) {
    std::vector<Datum> members;
    const size_t first = i;
    while (i < items.size() && Equal(interpreter, items[first].key, items[i].key)) {
      members.push_back(items[i++].item);
    }
    Datum grouper = case_sensitive ? items[first].key : getter(interpreter, members.front());
    groups.push_back(
        Datum::GroupTuple(std::move(grouper), interpreter.NewList(std::move(members))));
  }
  return interpreter.NewList(std::move(groups));
}

Datum Indent(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<3> kNames = {"width", "first", "blank"};
  const Bound<3> bound("indent", kNames, 0, arguments);
  if (value.is_undefined()) FailUndefined(value);
  if (!value.is_string()) FailType("indent needs a string");
  std::string indention;
  if (bound.Has(0) && bound[0].is_string()) {
    indention = bound[0].string();
  } else {
    const int64_t width = std::max<int64_t>(bound.Int(0, 4), 0);
    interpreter.budget().CheckLength(static_cast<uint64_t>(width));
    indention.assign(static_cast<size_t>(width), ' ');
  }
  const bool blank = bound.Flag(interpreter, 2, false);
  const std::string text = value.string() + "\n";
  interpreter.budget().Touch(text.size());
  std::string out = bound.Flag(interpreter, 1, false) ? indention : "";
  bool first = true;
  for (const std::string_view line : SplitLines(text, /*keep_ends=*/false)) {
    if (!std::exchange(first, false)) {
      out += '\n';
      if (blank || !line.empty()) out += indention;
    }
    out += line;
    interpreter.budget().CheckLength(out.size());
  }
  return interpreter.NewString(std::move(out));
}

Datum ItemsFilter(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("items", arguments);
  if (value.is_undefined()) {
    return Datum::From(std::make_shared<GeneratorObject>(IterateVector({}), value));
  }
  if (!value.is(Kind::kDict)) FailType("Can only get item pairs from a mapping.");
  DictView view(value.dict_ptr(), DictView::What::kItems);
  return Datum::From(std::make_shared<GeneratorObject>(view.Iterate(interpreter), value));
}

Datum Join(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<2> kNames = {"d", "attribute"};
  const Bound<2> bound("join", kNames, 0, arguments);
  const AttributeGetter getter(interpreter, bound[1]);
  const std::string separator = bound.Has(0) ? Str(interpreter, bound[0]) : "";
  std::string out;
  const auto iterator = Iterate(interpreter, value);
  Datum item;
  for (bool first = true; iterator->Next(interpreter, &item); first = false) {
    interpreter.budget().Step();
    if (!first) out += separator;
    AppendStr(interpreter, getter(interpreter, std::move(item)), &out);
    interpreter.budget().CheckLength(out.size());
  }
  return interpreter.NewString(std::move(out));
}

Datum ListFilter(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("list", arguments);
  return Datum::List(ToVector(interpreter, value));
}

Datum LowerFilter(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("lower", arguments);
  return interpreter.NewString(Lower(Text(interpreter, value).string()));
}

Datum UpperFilter(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("upper", arguments);
  return interpreter.NewString(Upper(Text(interpreter, value).string()));
}

// A filter or test that map, select and their kin apply to every item.
struct Application {
  Builtin function = nullptr;
  Arguments arguments;

  Datum operator()(Interpreter& interpreter, const Datum& item) const {
    Arguments copy = arguments;
    return function(interpreter, item, copy);
  }
};

Datum Map(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  if (!Truth(interpreter, value)) {
    return Datum::From(std::make_shared<GeneratorObject>(IterateVector({}), value));
  }
  std::shared_ptr<Iterator> source = Iterate(interpreter, value);
  const Datum held = Held(value, arguments);
  if (arguments.positional.empty()) {
    static constexpr ArgumentNames<2> kNames = {"attribute", "default"};
    const bool has_attribute = std::any_of(arguments.named.begin(), arguments.named.end(),
                                           [](const auto& a) { return a.first == "attribute"; });
    if (!has_attribute) FailType("map requires a filter argument");
    const Bound<2> bound("map", kNames, 1, arguments);
    return Generator(
        [source, getter = AttributeGetter(interpreter, bound[0], bound[1])](Interpreter& running,
                                                                            Datum* item) {
          if (!source->Next(running, item)) return false;
          running.budget().Step();
          *item = getter(running, std::move(*item));
          return true;
        },
        held);
  }
  const Datum name = arguments.positional.front();
  Application application;
  application.function = name.is_string() ? FindFilter(name.string()) : nullptr;
  if (application.function == nullptr) {
    FailType("No filter named " + Repr(interpreter, name) + ".");
  }
  arguments.positional.erase(arguments.positional.begin());
  application.arguments = std::move(arguments);
  return Generator(
      [source, application = std::move(application)](Interpreter& running, Datum* item) {
        if (!source->Next(running, item)) return false;
        running.budget().Step();
        *item = application(running, *item);
        return true;
      },
      held);
}

// select, reject, selectattr and rejectattr.
Datum Choose(Interpreter& interpreter, const Datum& value, Arguments& arguments, bool by_attribute,
             bool keep) {
  if (!Truth(interpreter, value)) {
    return Datum::From(std::make_shared<GeneratorObject>(IterateVector({}), value));
  }
  const Datum held = Held(value, arguments);
  AttributeGetter getter;
  std::vector<Datum>& positional = arguments.positional;
  if (by_attribute) {
    if (positional.empty()) FailType("Missing parameter for attribute name");
    getter = AttributeGetter(interpreter, positional.front());
    positional.erase(positional.begin());
  }
  Application test;
  if (!positional.empty()) {
    const Datum name = positional.front();
    test.function = name.is_string() ? FindTest(name.string()) : nullptr;
    if (test.function == nullptr) FailType("No test named " + Repr(interpreter, name) + ".");
    positional.erase(positional.begin());
    test.arguments = std::move(arguments);
  }
  std::shared_ptr<Iterator> source = Iterate(interpreter, value);
  return Generator(
      [source, getter = std::move(getter), test = std::move(test), keep](Interpreter& running,
                                                                         Datum* item) {
        while (source->Next(running, item)) {
          running.budget().Step();
          const Datum subject = getter(running, *item);
          const Datum verdict = test.function ? test(running, subject) : subject;
          if (Truth(running, verdict) == keep) return true;
        }
        return false;
      },
      held);
}

Datum Select(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  return Choose(interpreter, value, arguments, false, true);
}
Datum Reject(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  return Choose(interpreter, value, arguments, false, false);
}
Datum SelectAttr(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  return Choose(interpreter, value, arguments, true, true);
}
Datum RejectAttr(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  return Choose(interpreter, value, arguments, true, false);
}

Datum Extreme(Interpreter& interpreter, const Datum& value, Arguments& arguments, CompareOp op) {
  static constexpr ArgumentNames<2> kNames = {"case_sensitive", "attribute"};
  const Bound<2> bound(op == CompareOp::kLt ? "min" : "max", kNames, 0, arguments);
  const bool case_sensitive = bound.Flag(interpreter, 0, false);
  const AttributeGetter getter(interpreter, bound[1]);
  Datum best, best_key;
  for (Datum& item : ToVector(interpreter, value)) {
    Datum key = getter(interpreter, item);
    if (!case_sensitive) key = IgnoreCase(interpreter, key);
    if (best.is(Kind::kMissing) || Compare(interpreter, op, key, best_key)) {
      best = std::move(item);
      best_key = std::move(key);
    }
  }
  if (best.is(Kind::kMissing)) return Datum::Undefined("No aggregated item, sequence was empty.");
  return best;
}

Datum Min(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  return Extreme(interpreter, value, arguments, CompareOp::kLt);
}
Datum Max(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  return Extreme(interpreter, value, arguments, CompareOp::kGt);
}

Datum ReplaceFilter(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<3> kNames = {"old", "new", "count"};
  const Bound<3> bound("replace", kNames, 2, arguments);
  const int64_t count = bound.HasValue(2) ? bound.Int(2, -1) : -1;
  return Replace(interpreter, Text(interpreter, value).string(), Str(interpreter, bound[0]),
                 Str(interpreter, bound[1]), count);
}

Datum Reverse(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("reverse", arguments);
  if (value.is_string()) {
    SliceBounds bounds;
    bounds.step = -1;
    return GetSlice(interpreter, value, bounds);
  }
  if (value.is_undefined()) FailUndefined(value);
  if (!IsIterable(value)) FailType("argument must be iterable");
  std::vector<Datum> items = ToVector(interpreter, value);
  std::reverse(items.begin(), items.end());
  if (!IsReversible(value)) return Datum::List(std::move(items));
  return Datum::From(std::make_shared<GeneratorObject>(IterateVector(std::move(items)), value,
                                                       "list_reverseiterator"));
}

Datum Round(Interpreter&, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<2> kNames = {"precision", "method"};
  const Bound<2> bound("round", kNames, 0, arguments);
  const int64_t precision = bound.Int(0, 0);
  const std::string method = bound.Has(1) ? bound.String(1) : "common";
  if (method != "common" && method != "ceil" && method != "floor") {
    FailType("method must be common, ceil or floor");
  }
  if (value.is_undefined()) FailUndefined(value);
  if (!value.is_number()) {
    FailType("type " + std::string(value.type_name()) + " doesn't define __round__ method");
  }
  if (method == "common") return RoundNumber(value, precision);
  if (std::abs(precision) > 300) FailType("round: the precision is too large");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = value.number() * scale;
  if (!std::isfinite(scaled)) FailType("cannot convert float infinity to integer");
  return Datum::Float((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Datum Safe(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("safe", arguments);
  return Text(interpreter, value);
}

Datum Sort(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<3> kNames = {"reverse", "case_sensitive", "attribute"};
  const Bound<3> bound("sort", kNames, 0, arguments);
  const bool case_sensitive = bound.Flag(interpreter, 1, false);
  std::vector<AttributeGetter> getters;
  if (bound.HasValue(2) && bound[2].is_string()) {
    std::string_view rest = bound[2].string();
    while (true) {
      const size_t comma = rest.find(',');
      getters.emplace_back(interpreter, Datum::String(std::string(rest.substr(0, comma))));
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
  } else {
    getters.emplace_back(interpreter, bound[2]);
  }
  std::vector<Keyed> items;
  for (Datum& item : ToVector(interpreter, value)) {
    std::vector<Datum> keys;
    for (const AttributeGetter& getter : getters) {
      Datum key = getter(interpreter, item);
      keys.push_back(case_sensitive ? std::move(key) : IgnoreCase(interpreter, key));
    }
    items.push_back({Datum::List(std::move(keys)), std::move(item)});
  }
  SortByKey(interpreter, &items, bound.Flag(interpreter, 0, false));
  return Items(std::move(items));
}

Datum Sum(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<2> kNames = {"attribute", "start"};
  const Bound<2> bound("sum", kNames, 0, arguments);
  const AttributeGetter getter(interpreter, bound[0]);
  Datum total = bound.Or(1, Datum::Int(0));
  if (total.is_string()) FailType("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Datum& item : ToVector(interpreter, value)) {
    total = Arithmetic(interpreter, ArithmeticOp::kAdd, total, getter(interpreter, item));
  }
  return total;
}

Datum TitleFilter(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("title", arguments);
  return interpreter.NewString(TitleWords(Text(interpreter, value).string()));
}

Datum ToJsonFilter(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<4> kNames = {"ensure_ascii", "indent", "separators", "sort_keys"};
  const Bound<4> bound("tojson", kNames, 0, arguments);
  JsonStyle style;
  style.ensure_ascii = bound.Flag(interpreter, 0, false);
  style.sort_keys = bound.Flag(interpreter, 3, false);
  if (bound.HasValue(1)) {
    if (bound[1].is_string()) {
      style.indent = bound[1].string();
    } else {
      const int64_t width = std::max<int64_t>(bound.Int(1, 0), 0);
      interpreter.budget().CheckLength(static_cast<uint64_t>(width));
      style.indent = std::string(static_cast<size_t>(width), ' ');
    }
    style.item_separator = ",";
  }
  if (bound.HasValue(2)) {
    const std::vector<Datum> separators = ToVector(interpreter, bound[2]);
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string()) {
      FailType("tojson: separators must be a pair of strings");
    }
    style.item_separator = separators[0].string();
    style.key_separator = separators[1].string();
  }
  return Datum::String(ToJson(interpreter, value, style));
}

Datum Trim(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<1> kNames = {"chars"};
  const Bound<1> bound("trim", kNames, 0, arguments);
  const Datum text = Text(interpreter, value);
  return Strip(interpreter, text, bound.HasValue(0) ? &bound.String(0) : nullptr, Side::kBoth);
}

Datum Truncate(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<4> kNames = {"length", "killwords", "end", "leeway"};
  const Bound<4> bound("truncate", kNames, 0, arguments);
  if (value.is_undefined()) return value;
  if (!value.is_string()) FailType("truncate needs a string");
  const int64_t length = bound.Int(0, 255);
  const std::string end = bound.Has(2) ? bound.String(2) : "...";
  const int64_t leeway = bound.HasValue(3) ? bound.Int(3, 5) : 5;
  const auto end_length = static_cast<int64_t>(CountCodePoints(end));
  if (length < end_length) {
    FailType("expected length >= " + std::to_string(end_length) + ", got " +
             std::to_string(length));
  }
  if (leeway < 0) FailType("expected leeway >= 0, got " + std::to_string(leeway));
  const std::string& text = value.string();
  interpreter.budget().Touch(text.size());
  const auto size = static_cast<int64_t>(CountCodePoints(text));
  if (size <= length || size - length <= leeway) return value;
  std::string cut = text.substr(0, ByteOffset(text, static_cast<size_t>(length - end_length)));
  if (!bound.Flag(interpreter, 1, false)) {
    const size_t space = cut.rfind(' ');
    if (space != std::string::npos) cut.resize(space);
  }
  return interpreter.NewString(cut + end);
}

Datum Unique(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  static constexpr ArgumentNames<2> kNames = {"case_sensitive", "attribute"};
  const Datum held = Held(value, arguments);
  const Bound<2> bound("unique", kNames, 0, arguments);
  const bool case_sensitive = bound.Flag(interpreter, 0, false);
  std::shared_ptr<Iterator> source = Iterate(interpreter, value);
  auto seen = std::make_shared<DictObject>();
  return Generator(
      [source, seen, case_sensitive, getter = AttributeGetter(interpreter, bound[1])](
          Interpreter& running, Datum* item) {
        while (source->Next(running, item)) {
          running.budget().Step();
          Datum key = getter(running, *item);
          if (!case_sensitive) key = IgnoreCase(running, key);
          if (seen->Find(key) != nullptr) continue;
          seen->Set(std::move(key), Datum::None());
          return true;
        }
        return false;
      },
      held);
}

Datum UrlEncode(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("urlencode", arguments);
  if (value.is_string() || !IsIterable(value)) {
    return interpreter.NewString(UrlQuote(Text(interpreter, value).string(), /*for_query=*/false));
  }
  const Datum items =
      value.is(Kind::kDict)
          ? Datum::From(std::make_shared<DictView>(value.dict_ptr(), DictView::What::kItems))
          : value;
  std::string out;
  for (const Datum& pair : ToVector(interpreter, items)) {
    const std::vector<Datum> parts = ToVector(interpreter, pair);
    if (parts.size() != 2) FailType("urlencode needs pairs");
    if (!out.empty()) out += '&';
    out += UrlQuote(Text(interpreter, parts[0]).string(), true) + "=" +
           UrlQuote(Text(interpreter, parts[1]).string(), true);
    interpreter.budget().CheckLength(out.size());
  }
  return interpreter.NewString(std::move(out));
}

Datum WordCount(Interpreter& interpreter, const Datum& value, Arguments& arguments) {
  NoArguments("wordcount", arguments);
  const Datum text = Text(interpreter, value);
  interpreter.budget().Touch(text.string().size());
  int64_t count = 0;
  bool in_word = false;
  for (size_t p = 0; p < text.string().size();) {
    const bool word = IsWord(NextCodePoint(text.string(), &p));
    count += word && !in_word;
    in_word = word;
  }
  return Datum::Int(count);
}

}  // namespace

Builtin FindFilter(std::string_view name) {
  static constexpr std::pair<std::string_view, Builtin> kFilters[] = {
      {"abs", Abs},
      {"attr", Attr},
      {"batch", Batch},
      {"capitalize", CapitalizeFilter},
      {"center", CenterFilter},
      {"count", LengthFilter},
      {"d", Default},
      {"default", Default},
      {"dictsort", DictSort},
      {"e", Escape},
      {"escape", Escape},
      {"first", First},
      {"float", FloatFilter},
      {"forceescape", Escape},
      {"format", Format},
      {"groupby", GroupBy},
      {"indent", Indent},
      {"int", IntFilter},
      {"items", ItemsFilter},
      {"join", Join},
      {"last", Last},
      {"length", LengthFilter},
      {"list", ListFilter},
      {"lower", LowerFilter},
      {"map", Map},
      {"max", Max},
      {"min", Min},
      {"reject", Reject},
      {"rejectattr", RejectAttr},
      {"replace", ReplaceFilter},
      {"reverse", Reverse},
      {"round", Round},
      {"safe", Safe},
      {"select", Select},
      {"selectattr", SelectAttr},
      {"slice", SliceFilter},
      {"sort", Sort},
      {"string", ForceString},
      {"sum", Sum},
      {"title", TitleFilter},
      {"tojson", ToJsonFilter},
      {"trim", Trim},
      {"truncate", Truncate},
      {"unique", Unique},
      {"upper", UpperFilter},
      {"urlencode", UrlEncode},
      {"wordcount", WordCount},
  };
  for (const auto& [filter, function] : kFilters) {
    if (filter == name) return function;
  }
  return nullptr;
}

}  // namespace engine::text::jinja
