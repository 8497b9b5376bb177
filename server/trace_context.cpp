#include "server/trace_context.h"

#include <algorithm>
#include <random>
#include <set>

namespace server {
namespace {

constexpr std::string_view kDigits = "0123456789abcdef";

// 2 lower-case digits per byte; false for anything else.
bool ReadHex(std::string_view text, std::span<uint8_t> bytes) {
  if (text.size() != bytes.size() * 2) return false;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const size_t high = kDigits.find(text[2 * i]);
    const size_t low = kDigits.find(text[2 * i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) return false;
    bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

std::optional<TraceContext> ParseTraceparent(std::string_view text) {
  constexpr size_t kLength = 55;  // "00-" 32 digits "-" 16 digits "-" 2 digits
  text = Trim(text);
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') {
    return std::nullopt;
  }
  std::array<uint8_t, 1> version;
  std::array<uint8_t, 1> flags;
  TraceContext context;
  if (!ReadHex(text.substr(0, 2), version) || !ReadHex(text.substr(3, 32), context.trace_id) ||
      !ReadHex(text.substr(36, 16), context.span_id) || !ReadHex(text.substr(53, 2), flags)) {
    return std::nullopt;
  }
  const bool fits = text.size() == kLength || (version[0] > 0 && text[kLength] == '-');
  if (version[0] == 0xFF || !fits || IsZero(context.trace_id) || IsZero(context.span_id)) {
    return std::nullopt;
  }
  context.sampled = (flags[0] & 1) != 0;
  context.random = (flags[0] & 2) != 0;
  return context;
}

// simple-key, or tenant@system: lower-case letters, digits and _-*/.
bool IsStateKey(std::string_view key) {
  const size_t at = key.find('@');
  const std::string_view system = at == std::string_view::npos ? key : key.substr(at + 1);
  const auto letter = [](char c) { return c >= 'a' && c <= 'z'; };
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto plain = [&](char c) {
    return letter(c) || digit(c) || c == '_' || c == '-' || c == '*' || c == '/';
  };
  const auto all_plain = [&](std::string_view text) {
    return std::all_of(text.begin(), text.end(), plain);
  };
  if (system.empty() || !letter(system[0]) || !all_plain(system)) return false;
  if (at == std::string_view::npos) return key.size() <= 256;
  const std::string_view tenant = key.substr(0, at);
  return !tenant.empty() && tenant.size() <= 241 && (letter(tenant[0]) || digit(tenant[0])) &&
         all_plain(tenant) && system.size() <= 14;
}

bool IsStateValue(std::string_view value) {
  return !value.empty() && value.size() <= 256 && value.back() != ' ' &&
         std::all_of(value.begin(), value.end(),
                     [](char c) { return c >= 0x20 && c <= 0x7E && c != ',' && c != '='; });
}

// The members with commas between; empty when one of them is malformed or named twice, or when
// there are more than 32.
std::string ParseTracestate(std::string_view text) {
  constexpr size_t kMaxMembers = 32;
  std::set<std::string_view> keys;
  std::string state;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view member = Trim(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (member.empty()) continue;
    const size_t equals = std::min(member.find('='), member.size());
    const std::string_view key = member.substr(0, equals);
    const std::string_view value = member.substr(std::min(equals + 1, member.size()));
    if (!IsStateKey(key) || !IsStateValue(value) || !keys.insert(key).second) return {};
    if (keys.size() > kMaxMembers) return {};
    state.append(state.empty() ? "" : ",").append(member);
  }
  return state;
}

void FillRandom(std::span<uint8_t> bytes) {
  thread_local std::mt19937_64 random{std::random_device{}()};
  do {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() >> 32);
  } while (IsZero(bytes));
}

}  // namespace

std::optional<TraceContext> ReadTraceContext(const HeaderList& headers) {
  const std::string* parent = nullptr;
  std::string states;
  for (const auto& [name, value] : headers) {
    if (name == "traceparent") {
      if (parent != nullptr) return std::nullopt;
      parent = &value;
    } else if (name == "tracestate") {
      states.append(states.empty() ? "" : ",").append(value);
    }
  }
  if (parent == nullptr) return std::nullopt;
  auto context = ParseTraceparent(*parent);
  if (context) context->state = ParseTracestate(states);
  return context;
}

std::string FormatTraceparent(const TraceContext& context) {
  const std::array<uint8_t, 1> flags = {
      static_cast<uint8_t>((context.sampled ? 1 : 0) | (context.random ? 2 : 0))};
  return "00-" + Hex(context.trace_id) + "-" + Hex(context.span_id) + "-" + Hex(flags);
}

TraceId NewTraceId() {
  TraceId id;
  FillRandom(id);
  return id;
}

SpanId NewSpanId() {
  SpanId id;
  FillRandom(id);
  return id;
}

bool IsZero(std::span<const uint8_t> id) {
  return std::all_of(id.begin(), id.end(), [](uint8_t byte) { return byte == 0; });
}

std::string Hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

bool InSample(const TraceId& id, double ratio) {
  constexpr double kRange = 72057594037927936.0;  // 2^56
  uint64_t tail = 0;
  for (size_t i = id.size() - 7; i < id.size(); ++i) tail = tail << 8 | id[i];
  return static_cast<double>(tail) >= (1 - ratio) * kRange;
}

}  // namespace server
