#include "server/json.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "server/api_error.h"

namespace server {
namespace {

using engine::text::Array;
using engine::text::Object;
using engine::text::Value;

// Finding a key of an ordered object is linear, so building one of k members costs k^2 / 2
// comparisons, and comparing long keys that are nearly equal takes time for every byte. This much
// work in one body takes about a tenth of a second.
constexpr uint64_t kMaxKeyComparisons = 20'000'000;
constexpr uint64_t kKeyBytesPerComparison = 32;

// Index of the quote that closes the string opened at `open`, or the size of text.
size_t EndOfString(std::string_view text, size_t open) {
  size_t i = open + 1;
  while (i < text.size() && text[i] != '"') i += text[i] == '\\' ? 2 : 1;
  return std::min(i, text.size());
}

// Walks the brackets of what may be JSON; the parser says later whether it is.
void CheckShape(std::string_view text, uint32_t max_depth) {
  std::vector<uint64_t> members;  // colons seen, per open bracket
  uint64_t comparisons = 0;
  uint64_t key_bytes = 0;  // of the last string
  for (size_t i = 0; i < text.size(); ++i) {
    switch (text[i]) {
      case '"': {
        const size_t end = EndOfString(text, i);
        key_bytes = end - i;
        i = end;
        break;
      }
      case '[':
      case '{':
        members.push_back(0);
        if (members.size() > max_depth) {
          throw BadRequest("The JSON body is nested deeper than " + std::to_string(max_depth) +
                           " levels.");
        }
        break;
      case ']':
      case '}':
        if (!members.empty()) members.pop_back();
        break;
      case ':':
        if (members.empty()) break;
        comparisons += members.back()++ * (1 + key_bytes / kKeyBytesPerComparison);
        if (comparisons > kMaxKeyComparisons) {
          throw BadRequest("The JSON body has objects with too many members.");
        }
        break;
      default:
        break;
    }
  }
}

}  // namespace

Json ParseJson(std::string_view text, uint32_t max_depth) {
  CheckShape(text, max_depth);
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    std::string what = error.what();
    // The library's prefix "[json.exception.parse_error.101] " helps nobody.
    if (const size_t end = what.find("] "); end != std::string::npos) what.erase(0, end + 2);
    constexpr size_t kMaxDetail = 200;
    if (what.size() > kMaxDetail) what = what.substr(0, kMaxDetail) + "...";
    throw BadRequest("We could not parse the JSON body of your request: " + what);
  }
}

Value ToValue(const Json& json) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value(json.get<bool>());
    case Json::value_t::number_integer:
      return Value(json.get<int64_t>());
    case Json::value_t::number_unsigned: {
      const auto number = json.get<uint64_t>();
      if (number <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return Value(static_cast<int64_t>(number));
      }
      return Value(json.get<double>());
    }
    case Json::value_t::number_float:
      return Value(json.get<double>());
    case Json::value_t::string:
      return Value(json.get_ref<const std::string&>());
    case Json::value_t::array: {
      Array array;
      array.reserve(json.size());
      for (const Json& element : json) array.push_back(ToValue(element));
      return Value(std::move(array));
    }
    case Json::value_t::object: {
      Object object;
      for (const auto& [key, value] : json.items()) object.Set(key, ToValue(value));
      return Value(std::move(object));
    }
    default:
      return Value();
  }
}

std::string_view TypeName(const Json& json) {
  switch (json.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::boolean:
      return "a boolean";
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return "an integer";
    case Json::value_t::number_float:
      return "a decimal number";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::object:
      return "an object";
    default:
      return "something else";
  }
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace server
