#include <algorithm>

#include "engine/text/jinja/arguments.h"
#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/objects.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/text_functions.h"
#include "engine/text/jinja/unicode.h"

// The methods of str, dict, list, tuple and float.

namespace engine::text::jinja {
namespace {

// Methods written in C take no names for their arguments.
template <size_t N>
Bound<N> Positional(std::string_view method, size_t required, Arguments& arguments) {
  static constexpr std::array<std::string_view, N> kNames = {};
  if (!arguments.named.empty()) FailType(std::string(method) + "() takes no keyword arguments");
  return Bound<N>(method, kNames, required, arguments);
}

using TextMapping = std::string (*)(std::string_view);

template <TextMapping Mapping>
Datum Mapped(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  Positional<0>("str", 0, arguments);
  interpreter.budget().Touch(self.string().size());
  return interpreter.NewString(Mapping(self.string()));
}

template <Side Where>
Datum StripMethod(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<1>("strip", 0, arguments);
  return Strip(interpreter, self, bound.HasValue(0) ? &bound.String(0) : nullptr, Where);
}

template <Side Where>
Datum JustifyMethod(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<2>("just", 1, arguments);
  const std::string fill = bound.Has(1) ? bound.String(1) : " ";
  return Justify(interpreter, self.string(), bound.Int(0, 0), fill, Where);
}

Datum ZeroFill(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<1>("zfill", 1, arguments);
  const std::string& text = self.string();
  const bool sign = !text.empty() && (text[0] == '+' || text[0] == '-');
  if (!sign) return Justify(interpreter, text, bound.Int(0, 0), "0", Side::kRight);
  const Datum digits = Justify(interpreter, text.substr(1), bound.Int(0, 0) - 1, "0", Side::kRight);
  return interpreter.NewString(text.substr(0, 1) + digits.string());
}

// The part of a string that optional start and end arguments name.
struct Window {
  size_t start = 0, end = 0;    // bytes
  int64_t first_character = 0;  // code points before start
  bool valid = false;           // start <= end
};

Window MakeWindow(Interpreter& interpreter, const std::string& text, const Datum& start,
                  const Datum& end) {
  interpreter.budget().Touch(text.size());
  const auto length = static_cast<int64_t>(CountCodePoints(text));
  const auto index = [&](const Datum& value, int64_t otherwise) {
    if (value.is(Kind::kMissing) || value.is(Kind::kNone)) return otherwise;
    const int64_t given = *SliceIndex(value);
    return given < 0 ? std::max<int64_t>(given + length, 0) : given;
  };
  const int64_t first = index(start, 0);
  const int64_t last = std::min(index(end, length), length);
  Window window;
  window.valid = first <= last;
  if (!window.valid) return window;
  window.first_character = first;
  window.start = ByteOffset(text, static_cast<size_t>(first));
  window.end = ByteOffset(text, static_cast<size_t>(last));
  return window;
}

// Position in code points of the first or last occurrence, or -1.
int64_t FindText(Interpreter& interpreter, const Datum& self, Arguments& arguments, bool last) {
  const auto bound = Positional<3>("find", 1, arguments);
  const std::string& text = self.string();
  const std::string& needle = bound.String(0);
  const Window window = MakeWindow(interpreter, text, bound[1], bound[2]);
  if (!window.valid) return -1;
  const std::string_view view = std::string_view(text).substr(0, window.end);
  const size_t found =
      last ? FindLastIn(view, needle, view.size()) : FindIn(view, needle, window.start);
  if (found == std::string_view::npos || found < window.start) return -1;
  return window.first_character +
         static_cast<int64_t>(CountCodePoints(view.substr(window.start, found - window.start)));
}

template <bool Last>
Datum Find(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  return Datum::Int(FindText(interpreter, self, arguments, Last));
}

template <bool Last>
Datum Index(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const int64_t found = FindText(interpreter, self, arguments, Last);
  if (found < 0) FailType("substring not found");
  return Datum::Int(found);
}

Datum CountText(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<3>("count", 1, arguments);
  const std::string& text = self.string();
  const std::string& needle = bound.String(0);
  const Window window = MakeWindow(interpreter, text, bound[1], bound[2]);
  if (!window.valid) return Datum::Int(0);
  const std::string_view view =
      std::string_view(text).substr(window.start, window.end - window.start);
  if (needle.empty()) return Datum::Int(static_cast<int64_t>(CountCodePoints(view)) + 1);
  int64_t count = 0;
  for (size_t p = 0; (p = FindIn(view, needle, p)) != std::string_view::npos; p += needle.size()) {
    ++count;
  }
  return Datum::Int(count);
}

template <bool AtEnd>
Datum Affix(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<3>(AtEnd ? "endswith" : "startswith", 1, arguments);
  const std::string& text = self.string();
  const Window window = MakeWindow(interpreter, text, bound[1], bound[2]);
  const std::string_view view =
      window.valid ? std::string_view(text).substr(window.start, window.end - window.start) : "";
  const auto matches = [&](const Datum& affix) {
    if (!affix.is_string()) {
      FailType(std::string(AtEnd ? "endswith" : "startswith") +
               " first arg must be str or a tuple of str, not " + std::string(affix.type_name()));
    }
    return window.valid &&
           (AtEnd ? view.ends_with(affix.string()) : view.starts_with(affix.string()));
  };
  if (bound[0].is_undefined()) FailUndefined(bound[0]);
  if (!bound[0].is(Kind::kTuple)) return Datum::Bool(matches(bound[0]));
  const auto& options = bound[0].items();
  return Datum::Bool(std::any_of(options.begin(), options.end(), matches));
}

Datum RemovePrefix(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<1>("removeprefix", 1, arguments);
  const std::string& prefix = bound.String(0);
  if (!self.string().starts_with(prefix)) return self;
  return interpreter.NewString(self.string().substr(prefix.size()));
}

Datum RemoveSuffix(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<1>("removesuffix", 1, arguments);
  const std::string& suffix = bound.String(0);
  if (suffix.empty() || !self.string().ends_with(suffix)) return self;
  return interpreter.NewString(self.string().substr(0, self.string().size() - suffix.size()));
}

Datum ReplaceMethod(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<3>("replace", 2, arguments);
  return Replace(interpreter, self.string(), bound.String(0), bound.String(1), bound.Int(2, -1));
}

Datum StringList(Interpreter& interpreter, const std::vector<std::string_view>& parts) {
  interpreter.budget().Step(parts.size());  // before the memory is taken
  std::vector<Datum> items;
  items.reserve(parts.size());
  for (const std::string_view part : parts) {
    items.push_back(interpreter.NewString(std::string(part)));
  }
  return Datum::List(std::move(items));
}

std::vector<std::string_view> SplitSpace(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  text = StripLeft(text);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(StripRight(text));
      return parts;
    }
    size_t end = 0;
    while (end < text.size()) {
      size_t next = end;
      if (IsSpace(NextCodePoint(text, &next))) break;
      end = next;
    }
    parts.push_back(text.substr(0, end));
    text = StripLeft(text.substr(end));
  }
  return parts;
}

std::vector<std::string_view> SplitSpaceFromEnd(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  text = StripRight(text);
  while (!text.empty()) {
    if (static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(StripLeft(text));
      break;
    }
    size_t start = text.size();
    while (start > 0) {
      const size_t previous = PreviousOffset(text, start);
      size_t at = previous;
      if (IsSpace(NextCodePoint(text, &at))) break;
      start = previous;
    }
    parts.push_back(text.substr(start));
    text = StripRight(text.substr(0, start));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> SplitText(std::string_view text, std::string_view separator,
                                        int64_t limit) {
  std::vector<std::string_view> parts;
  size_t position = 0;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t found = FindIn(text, separator, position);
    if (found == std::string_view::npos) break;
    parts.push_back(text.substr(position, found - position));
    position = found + separator.size();
  }
  parts.push_back(text.substr(position));
  return parts;
}

std::vector<std::string_view> SplitTextFromEnd(Interpreter& interpreter, std::string_view text,
                                               std::string_view separator, int64_t limit) {
  if (limit < 0) {
    // Without a limit only overlapping separators tell the directions apart, so go from the end.
    limit = static_cast<int64_t>(text.size()) + 1;
  }
  std::vector<std::string_view> parts;
  while (static_cast<int64_t>(parts.size()) < limit) {
    if (separator.size() > 16) interpreter.budget().Touch(text.size());
    const size_t found = FindLastIn(text, separator, text.size());
    if (found == std::string_view::npos) break;
    parts.push_back(text.substr(found + separator.size()));
    text = text.substr(0, found);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

template <bool FromEnd>
Datum Split(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  static constexpr std::array<std::string_view, 2> kNames = {"sep", "maxsplit"};
  const Bound<2> bound("split", kNames, 0, arguments);
  const int64_t limit = bound.Int(1, -1);
  const std::string& text = self.string();
  interpreter.budget().Touch(text.size());
  if (!bound.HasValue(0)) {
    return StringList(interpreter, FromEnd && limit >= 0 ? SplitSpaceFromEnd(text, limit)
                                                         : SplitSpace(text, limit));
  }
  const std::string& separator = bound.String(0);
  if (separator.empty()) FailType("empty separator");
  return StringList(interpreter, FromEnd ? SplitTextFromEnd(interpreter, text, separator, limit)
                                         : SplitText(text, separator, limit));
}

Datum SplitLinesMethod(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames = {"keepends"};
  const Bound<1> bound("splitlines", kNames, 0, arguments);
  interpreter.budget().Touch(self.string().size());
  return StringList(interpreter, SplitLines(self.string(), bound.Flag(interpreter, 0, false)));
}

template <bool FromEnd>
Datum Partition(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<1>("partition", 1, arguments);
  const std::string& text = self.string();
  const std::string& separator = bound.String(0);
  if (separator.empty()) FailType("empty separator");
  interpreter.budget().Touch(text.size());
  const size_t found = FromEnd ? FindLastIn(text, separator, text.size()) : FindIn(text, separator);
  const Datum empty = Datum::String("");
  if (found == std::string::npos) {
    return FromEnd ? Datum::Tuple({empty, empty, self}) : Datum::Tuple({self, empty, empty});
  }
  return Datum::Tuple({interpreter.NewString(text.substr(0, found)), bound[0],
                       interpreter.NewString(text.substr(found + separator.size()))});
}

Datum JoinMethod(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<1>("join", 1, arguments);
  if (!IsIterable(bound[0])) FailType("can only join an iterable");
  std::string out;
  const auto iterator = Iterate(interpreter, bound[0]);
  Datum item;
  for (int64_t i = 0; iterator->Next(interpreter, &item); ++i) {
    interpreter.budget().Step();
    if (!item.is_string()) {
      FailType("sequence item " + std::to_string(i) + ": expected str instance, " +
               std::string(item.type_name()) + " found");
    }
    if (i != 0) out += self.string();
    interpreter.budget().CheckLength(out.size() + item.string().size());
    out += item.string();
  }
  return interpreter.NewString(std::move(out));
}

Datum FormatMethod(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  return Datum::String(BraceFormat(interpreter, self.string(), arguments));
}

Datum FormatMap(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<1>("format_map", 1, arguments);
  if (!bound[0].is(Kind::kDict)) FailType("format_map() needs a mapping");
  Arguments named;
  for (const auto& [key, value] : bound[0].dict().entries()) {
    if (key.is_string()) named.named.emplace_back(key.string(), value);
  }
  return Datum::String(BraceFormat(interpreter, self.string(), named));
}

Datum ExpandTabs(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames = {"tabsize"};
  const Bound<1> bound("expandtabs", kNames, 0, arguments);
  const int64_t tab = bound.Int(0, 8);
  std::string out;
  int64_t column = 0;
  const std::string& text = self.string();
  for (size_t p = 0; p < text.size();) {
    const size_t start = p;
    const uint32_t c = NextCodePoint(text, &p);
    if (c == '\t') {
      const int64_t spaces = tab > 0 ? tab - column % tab : 0;
      interpreter.budget().CheckLength(out.size() + static_cast<uint64_t>(spaces));
      out.append(static_cast<size_t>(spaces), ' ');
      column += spaces;
      continue;
    }
    out.append(text, start, p - start);
    column = c == '\n' || c == '\r' ? 0 : column + 1;
  }
  return interpreter.NewString(std::move(out));
}

// str.isX(): not empty, and every character is X.
template <bool (*Predicate)(uint32_t)>
Datum AllOf(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  Positional<0>("str", 0, arguments);
  const std::string& text = self.string();
  interpreter.budget().Touch(text.size());
  for (size_t p = 0; p < text.size();) {
    if (!Predicate(NextCodePoint(text, &p))) return Datum::Bool(false);
  }
  return Datum::Bool(!text.empty());
}

bool IsAlnum(uint32_t c) { return IsAlpha(c) || IsNumeric(c); }

Datum IsAsciiMethod(Interpreter&, const Datum& self, Arguments& arguments) {
  Positional<0>("isascii", 0, arguments);
  return Datum::Bool(IsAscii(self.string()));
}

Datum IsPrintableMethod(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  if (self.string().empty()) return Datum::Bool(true);
  return AllOf<IsPrintable>(interpreter, self, arguments);
}

Datum IsIdentifier(Interpreter&, const Datum& self, Arguments& arguments) {
  Positional<0>("isidentifier", 0, arguments);
  const std::string& text = self.string();
  for (size_t p = 0; p < text.size();) {
    const bool first = p == 0;
    const uint32_t c = NextCodePoint(text, &p);
    if (c != '_' && !IsAlpha(c) && (first || !IsDecimal(c))) return Datum::Bool(false);
  }
  return Datum::Bool(!text.empty());
}

template <bool (*Wanted)(uint32_t), bool (*Other)(uint32_t)>
Datum CaseTest(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  Positional<0>("str", 0, arguments);
  const std::string& text = self.string();
  interpreter.budget().Touch(text.size());
  bool found = false;
  for (size_t p = 0; p < text.size();) {
    const uint32_t c = NextCodePoint(text, &p);
    if (Other(c) || IsTitle(c)) return Datum::Bool(false);
    found = found || Wanted(c);
  }
  return Datum::Bool(found);
}

Datum IsTitleMethod(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  Positional<0>("istitle", 0, arguments);
  interpreter.budget().Touch(self.string().size());
  bool found = false, previous_cased = false;
  for (size_t p = 0; p < self.string().size();) {
    const uint32_t c = NextCodePoint(self.string(), &p);
    const bool starts = IsUpper(c) || IsTitle(c);
    if (starts ? previous_cased : IsLower(c) && !previous_cased) return Datum::Bool(false);
    previous_cased = starts || IsLower(c);
    found = found || previous_cased;
  }
  return Datum::Bool(found);
}

Datum DictGet(Interpreter&, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<2>("get", 1, arguments);
  RequireHashable(bound[0]);
  const Datum* value = self.dict().Find(bound[0]);
  return value != nullptr ? *value : bound.Or(1, Datum::None());
}

template <DictView::What What>
Datum View(Interpreter&, const Datum& self, Arguments& arguments) {
  Positional<0>("dict", 0, arguments);
  return Datum::From(std::make_shared<DictView>(self.dict_ptr(), What));
}

Datum Copy(Interpreter&, const Datum& self, Arguments& arguments) {
  Positional<0>("copy", 0, arguments);
  return self;
}

Datum SequenceCount(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<1>("count", 1, arguments);
  int64_t count = 0;
  for (const Datum& item : self.items()) count += Equal(interpreter, item, bound[0]);
  return Datum::Int(count);
}

Datum SequenceIndex(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const auto bound = Positional<3>("index", 1, arguments);
  const auto size = static_cast<int64_t>(self.items().size());
  const auto clamp = [&](int64_t i) { return std::max<int64_t>(i < 0 ? i + size : i, 0); };
  const int64_t end = std::min(clamp(bound.Int(2, size)), size);
  for (int64_t i = clamp(bound.Int(1, 0)); i < end; ++i) {
    if (Equal(interpreter, self.items()[static_cast<size_t>(i)], bound[0])) return Datum::Int(i);
  }
  FailType(Repr(interpreter, bound[0]) + " is not in list");
}

Datum IsIntegerMethod(Interpreter&, const Datum& self, Arguments& arguments) {
  Positional<0>("is_integer", 0, arguments);
  const double value = self.real();
  return Datum::Bool(value - value == 0 && value == static_cast<double>(__builtin_trunc(value)));
}

struct Entry {
  std::string_view name;
  Builtin function;
};

constexpr Entry kStringMethods[] = {
    {"capitalize", Mapped<Capitalize>},
    {"casefold", Mapped<CaseFold>},
    {"center", JustifyMethod<Side::kBoth>},
    {"count", CountText},
    {"endswith", Affix<true>},
    {"expandtabs", ExpandTabs},
    {"find", Find<false>},
    {"format", FormatMethod},
    {"format_map", FormatMap},
    {"index", Index<false>},
    {"isalnum", AllOf<IsAlnum>},
    {"isalpha", AllOf<IsAlpha>},
    {"isascii", IsAsciiMethod},
    {"isdecimal", AllOf<IsDecimal>},
    {"isdigit", AllOf<IsDigit>},
    {"isidentifier", IsIdentifier},
    {"islower", CaseTest<IsLower, IsUpper>},
    {"isnumeric", AllOf<IsNumeric>},
    {"isprintable", IsPrintableMethod},
    {"isspace", AllOf<IsSpace>},
    {"istitle", IsTitleMethod},
    {"isupper", CaseTest<IsUpper, IsLower>},
    {"join", JoinMethod},
    {"ljust", JustifyMethod<Side::kLeft>},
    {"lower", Mapped<Lower>},
    {"lstrip", StripMethod<Side::kLeft>},
    {"partition", Partition<false>},
    {"removeprefix", RemovePrefix},
    {"removesuffix", RemoveSuffix},
    {"replace", ReplaceMethod},
    {"rfind", Find<true>},
    {"rindex", Index<true>},
    {"rjust", JustifyMethod<Side::kRight>},
    {"rpartition", Partition<true>},
    {"rsplit", Split<true>},
    {"rstrip", StripMethod<Side::kRight>},
    {"split", Split<false>},
    {"splitlines", SplitLinesMethod},
    {"startswith", Affix<false>},
    {"strip", StripMethod<Side::kBoth>},
    {"swapcase", Mapped<SwapCase>},
    {"title", Mapped<TitleCase>},
    {"upper", Mapped<Upper>},
    {"zfill", ZeroFill},
};

constexpr Entry kDictMethods[] = {
    {"copy", Copy},
    {"get", DictGet},
    {"items", View<DictView::What::kItems>},
    {"keys", View<DictView::What::kKeys>},
    {"values", View<DictView::What::kValues>},
};

constexpr Entry kListMethods[] = {
    {"copy", Copy}, {"count", SequenceCount}, {"index", SequenceIndex}};
constexpr Entry kTupleMethods[] = {{"count", SequenceCount}, {"index", SequenceIndex}};
constexpr Entry kFloatMethods[] = {{"is_integer", IsIntegerMethod}};

template <size_t N>
Builtin Search(const Entry (&entries)[N], std::string_view name) {
  for (const Entry& entry : entries) {
    if (entry.name == name) return entry.function;
  }
  return nullptr;
}

}  // namespace

Builtin FindMethod(Kind kind, std::string_view name) {
  switch (kind) {
    case Kind::kString:
      return Search(kStringMethods, name);
    case Kind::kDict:
      return Search(kDictMethods, name);
    case Kind::kList:
      return Search(kListMethods, name);
    case Kind::kTuple:
      return Search(kTupleMethods, name);
    case Kind::kFloat:
      return Search(kFloatMethods, name);
    default:
      return nullptr;
  }
}

bool IsMutatingMethod(Kind kind, std::string_view name) {
  static constexpr std::string_view kList[] = {"append", "clear", "pop",    "reverse",
                                               "insert", "sort",  "extend", "remove"};
  static constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  if (kind == Kind::kList)
    return std::find(std::begin(kList), std::end(kList), name) != std::end(kList);
  if (kind == Kind::kDict)
    return std::find(std::begin(kDict), std::end(kDict), name) != std::end(kDict);
  return false;
}

}  // namespace engine::text::jinja
