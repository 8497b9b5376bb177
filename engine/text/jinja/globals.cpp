#include <ctime>

#include "engine/text/chat_template.h"
#include "engine/text/jinja/arguments.h"
#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/objects.h"
#include "engine/text/jinja/operators.h"

namespace engine::text::jinja {
namespace {

Datum Range(Interpreter&, const Datum&, Arguments& arguments) {
  static constexpr std::array<std::string_view, 3> kNames = {"start", "stop", "step"};
  if (!arguments.named.empty()) FailType("range() takes no keyword arguments");
  const Bound<3> bound("range", kNames, 1, arguments);
  const bool one = !bound.Has(1);
  const int64_t start = one ? 0 : bound.Int(0, 0);
  const int64_t stop = one ? bound.Int(0, 0) : bound.Int(1, 0);
  return Datum::From(std::make_shared<RangeObject>(start, stop, bound.Int(2, 1)));
}

// dict(mapping or pairs, name=value, …).
Datum MakeDict(Interpreter& interpreter, const Datum&, Arguments& arguments) {
  if (arguments.positional.size() > 1) FailType("dict expected at most 1 argument");
  auto dict = std::make_shared<DictObject>();
  if (!arguments.positional.empty()) {
    const Datum& source = arguments.positional[0];
    if (source.is(Kind::kDict)) {
      for (const auto& [key, value] : source.dict().entries()) {
        interpreter.budget().Step();
        dict->Set(key, value);
      }
    } else {
      for (const Datum& pair : ToVector(interpreter, source)) {
        const std::vector<Datum> items = ToVector(interpreter, pair);
        if (items.size() != 2) FailType("dictionary update sequence element has a wrong length");
        dict->Set(items[0], items[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) dict->Set(Datum::String(name), value);
  return Datum::Dict(std::move(dict));
}

Datum MakeNamespace(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  const Datum dict = MakeDict(interpreter, self, arguments);
  auto space = std::make_shared<NamespaceObject>();
  for (const auto& [key, value] : dict.dict().entries()) {
    if (key.is_string()) space->Set(key.string(), value);
  }
  interpreter.RegisterMutable(space);
  return Datum::From(std::move(space));
}

Datum MakeCycler(Interpreter& interpreter, const Datum&, Arguments& arguments) {
  if (arguments.positional.empty()) FailType("at least one item has to be provided");
  interpreter.budget().Step(arguments.positional.size());
  return Datum::From(std::make_shared<CyclerObject>(std::move(arguments.positional)));
}

Datum MakeJoiner(Interpreter&, const Datum&, Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames = {"sep"};
  const Bound<1> bound("joiner", kNames, 0, arguments);
  return Datum::From(std::make_shared<JoinerObject>(bound.Or(0, Datum::String(", "))));
}

Datum RaiseException(Interpreter& interpreter, const Datum&, Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames = {"message"};
  const Bound<1> bound("raise_exception", kNames, 1, arguments);
  throw TemplateError(Str(interpreter, bound[0]), /*raised=*/true);
}

std::string Padded(int value, size_t width, char fill = '0') {
  std::string text = std::to_string(value);
  return text.size() < width ? std::string(width - text.size(), fill) + text : text;
}

// ISO 8601 year and week of a date.
std::pair<int, int> IsoWeek(const std::tm& time) {
  const int weekday = (time.tm_wday + 6) % 7;  // Monday is 0
  int year = time.tm_year + 1900;
  int week = (time.tm_yday - weekday + 10) / 7;
  const auto weeks_in = [&](int y) {
    const auto p = [](int v) { return (v + v / 4 - v / 100 + v / 400) % 7; };
    return p(y) == 4 || p(y - 1) == 3 ? 53 : 52;
  };
  if (week < 1) return {year - 1, weeks_in(year - 1)};
  if (week > weeks_in(year)) return {year + 1, 1};
  return {year, week};
}

constexpr std::string_view kDays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                      "Thursday", "Friday", "Saturday"};
constexpr std::string_view kMonths[] = {"January",   "February", "March",    "April",
                                        "May",       "June",     "July",     "August",
                                        "September", "October",  "November", "December"};

// One strftime directive in the C locale, written out so that the process locale has no say.
std::string FormatDirective(char directive, const std::tm& time) {
  const auto day = static_cast<size_t>(time.tm_wday);
  const auto month = static_cast<size_t>(time.tm_mon);
  const int year = time.tm_year + 1900;
  const int hour12 = time.tm_hour % 12 == 0 ? 12 : time.tm_hour % 12;
  const auto join = [&](std::string_view directives) {
    std::string text;
    for (const char c : directives) {
      const bool plain = c == ' ' || c == '/' || c == ':' || c == '-';
      text += plain ? std::string(1, c) : FormatDirective(c, time);
    }
    return text;
  };
  switch (directive) {
    case 'a':
      return std::string(kDays[day].substr(0, 3));
    case 'A':
      return std::string(kDays[day]);
    case 'b':
    case 'h':
      return std::string(kMonths[month].substr(0, 3));
    case 'B':
      return std::string(kMonths[month]);
    case 'c':
      return join("a b e H:M:S Y");
    case 'C':
      return Padded(year / 100, 2);
    case 'd':
      return Padded(time.tm_mday, 2);
    case 'D':
    case 'x':
      return join("m/d/y");
    case 'e':
      return Padded(time.tm_mday, 2, ' ');
    case 'f':
      return "000000";
    case 'F':
      return join("Y-m-d");
    case 'g':
      return Padded(IsoWeek(time).first % 100, 2);
    case 'G':
      return std::to_string(IsoWeek(time).first);
    case 'H':
      return Padded(time.tm_hour, 2);
    case 'I':
      return Padded(hour12, 2);
    case 'j':
      return Padded(time.tm_yday + 1, 3);
    case 'k':
      return Padded(time.tm_hour, 2, ' ');
    case 'l':
      return Padded(hour12, 2, ' ');
    case 'm':
      return Padded(time.tm_mon + 1, 2);
    case 'M':
      return Padded(time.tm_min, 2);
    case 'n':
      return "\n";
    case 'p':
      return time.tm_hour < 12 ? "AM" : "PM";
    case 'P':
      return time.tm_hour < 12 ? "am" : "pm";
    case 'r':
      return join("I:M:S p");
    case 'R':
      return join("H:M");
    case 'S':
      return Padded(time.tm_sec, 2);
    case 't':
      return "\t";
    case 'T':
    case 'X':
      return join("H:M:S");
    case 'u':
      return std::to_string(time.tm_wday == 0 ? 7 : time.tm_wday);
    case 'U':
      return Padded((time.tm_yday + 7 - time.tm_wday) / 7, 2);
    case 'V':
      return Padded(IsoWeek(time).second, 2);
    case 'w':
      return std::to_string(time.tm_wday);
    case 'W':
      return Padded((time.tm_yday + 7 - (time.tm_wday + 6) % 7) / 7, 2);
    case 'y':
      return Padded(year % 100, 2);
    case 'Y':
      return std::to_string(year);
    case 'z':
    case 'Z':
      return "";  // as for Python's datetime without a zone
    case '%':
      return "%";
    default:
      return std::string("%") + directive;
  }
}

Datum StrftimeNow(Interpreter& interpreter, const Datum&, Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames = {"format"};
  const Bound<1> bound("strftime_now", kNames, 1, arguments);
  const auto now = static_cast<std::time_t>(interpreter.now_seconds());
  std::tm time{};
  if (gmtime_r(&now, &time) == nullptr) FailType("the time is out of range");
  const std::string& format = bound.String(0);
  std::string text;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      text += format[i];
      continue;
    }
    ++i;
    const bool no_padding = format[i] == '-' && i + 1 < format.size();
    std::string part = FormatDirective(no_padding ? format[++i] : format[i], time);
    if (no_padding && part.size() > 1) {
      const size_t digits = part.find_first_not_of("0 ");
      part.erase(0, digits == std::string::npos ? part.size() - 1 : digits);
    }
    text += part;
  }
  return interpreter.NewString(std::move(text));
}

}  // namespace

std::optional<Datum> FindGlobal(std::string_view name) {
  static constexpr std::pair<std::string_view, Builtin> kGlobals[] = {
      {"range", Range},
      {"dict", MakeDict},
      {"namespace", MakeNamespace},
      {"cycler", MakeCycler},
      {"joiner", MakeJoiner},
      {"raise_exception", RaiseException},
      {"strftime_now", StrftimeNow},
  };
  for (const auto& [global, function] : kGlobals) {
    if (global != name) continue;
    return Datum::From(std::make_shared<FunctionObject>(std::string(name), function, Datum()));
  }
  return std::nullopt;
}

}  // namespace engine::text::jinja
