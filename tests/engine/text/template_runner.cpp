// Renders chat templates for check_templates.py: one JSON case {"t": template, "v": variables,
// "now": seconds} per input line, one JSON result {"text": …} or {"error": …, "raised": …} per
// output line.

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>

#include "engine/text/chat_template.h"
#include "tests/engine/text/template_values.h"

namespace {

using engine::text::ChatTemplate;
using engine::text::TemplateError;
using Json = nlohmann::ordered_json;

Json RunCase(const Json& input) {
  static std::unordered_map<std::string, std::unique_ptr<ChatTemplate>> compiled;
  try {
    std::unique_ptr<ChatTemplate>& entry = compiled[input["t"].get<std::string>()];
    if (!entry) entry = std::make_unique<ChatTemplate>(input["t"].get<std::string>());
    const engine::text::Value variables = tests::ToValue(input["v"]);
    return {{"text", entry->Render(*variables.as_object(), input.value("now", 0))}};
  } catch (const TemplateError& error) {
    return {{"error", error.what()}, {"raised", error.raised()}};
  }
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::cout << RunCase(Json::parse(line)).dump(-1, ' ', false, Json::error_handler_t::replace)
              << "\n";
  }
  return 0;
}
