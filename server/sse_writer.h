#pragma once

#include <string>
#include <string_view>

namespace server {

// Framing of an event stream as the OpenAI clients read it: `data: <json>\n\n`, comments while
// nothing happens, and exactly `data: [DONE]\n\n` at the end. There are never `id:` lines:
// openai-python fails on comments once it has seen an id.
//
// Frames collect in a buffer, so that the events of one wake-up become one write.
class SseWriter {
 public:
  // json: one line, as Dump() gives it.
  void Data(std::string_view json);
  // With an `event:` line, as the Responses and Messages protocols have it.
  void Event(std::string_view name, std::string_view json);
  // text: one line.
  void Comment(std::string_view text);
  void Ping() { Comment("ping"); }
  void Done();

  bool empty() const { return buffer_.empty(); }
  // What was framed since the last call.
  std::string Take();

 private:
  std::string buffer_;
};

}  // namespace server
