#include "server/sse_writer.h"

#include <cassert>
#include <utility>

namespace server {

void SseWriter::Data(std::string_view json) {
  assert(json.find('\n') == std::string_view::npos);
  buffer_.append("data: ").append(json).append("\n\n");
}

void SseWriter::Event(std::string_view name, std::string_view json) {
  buffer_.append("event: ").append(name).append("\n");
  Data(json);
}

void SseWriter::Comment(std::string_view text) {
  assert(text.find('\n') == std::string_view::npos);
  buffer_.append(": ").append(text).append("\n\n");
}

void SseWriter::Done() { buffer_ += "data: [DONE]\n\n"; }

std::string SseWriter::Take() { return std::exchange(buffer_, {}); }

}  // namespace server
