#include "server/tool_request.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "server/api_error.h"

namespace server {
namespace {

using engine::text::Array;
using engine::text::Object;
using engine::text::Value;

constexpr size_t kMaxTools = 512;
constexpr size_t kMaxNameBytes = 64;

bool IsFunctionName(std::string_view name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  };
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::all_of(name.begin(), name.end(), plain);
}

ToolFunction ReadFunction(const Json& tool, size_t index) {
  ParamReader reader(tool, "tools[" + std::to_string(index) + "].");
  const std::string type = reader.RequiredString("type");
  if (type != "function") {
    throw UnsupportedParameter(reader.Name("type"),
                               "Tools of type '" + type + "' are not supported, only 'function'.");
  }
  const Json* json = reader.Object("function");
  if (json == nullptr) throw MissingParameter(reader.Name("function"));
  ToolFunction function;
  function.param = reader.Name("function");
  ParamReader inner(*json, function.param + ".");
  const std::string name = inner.RequiredString("name");
  if (!IsFunctionName(name)) {
    throw InvalidValue(inner.Name("name"),
                       "Invalid value for '" + inner.Name("name") +
                           "': expected 1 to 64 of the characters a-z, A-Z, 0-9, _ and -.");
  }
  function.name = name;
  inner.String("description");
  function.strict = inner.Bool("strict").value_or(false);
  if (const Json* schema = inner.Object("parameters")) {
    const auto kind = schema->find("type");
    if (kind != schema->end() && kind->is_string() && *kind != "object") {
      throw InvalidValue(inner.Name("parameters"),
                         "Invalid value for '" + inner.Name("parameters") +
                             "': expected a schema of type 'object', but got type '" +
                             kind->get<std::string>() + "'.");
    }
    function.parameters = ToValue(*schema);
  }
  function.definition = ToValue(tool);
  return function;
}

const ToolFunction& FindNamed(ToolRequest& request, const Json& choice, const std::string& name) {
  ParamReader reader(choice, name + ".");
  const Json* function = reader.Object("function");
  if (function == nullptr) throw MissingParameter(reader.Name("function"));
  ParamReader inner(*function, reader.Name("function") + ".");
  const std::string wanted = inner.RequiredString("name");
  const ToolFunction* found = request.Find(wanted);
  if (found == nullptr) {
    throw InvalidValue(inner.Name("name"), "Invalid value for '" + inner.Name("name") +
                                               "': 'tools' has no function '" + wanted + "'.");
  }
  return *found;
}

ToolRequest::Choice ReadMode(const std::string& mode, const std::string& name) {
  if (mode == "none") return ToolRequest::Choice::kNone;
  if (mode == "auto") return ToolRequest::Choice::kAuto;
  if (mode == "required") return ToolRequest::Choice::kRequired;
  throw InvalidValue(name, "Invalid value for '" + name +
                               "': expected 'none', 'auto', 'required' or a function, but got '" +
                               mode + "'.");
}

// {"type":"allowed_tools","allowed_tools":{"mode","tools":[{"type":"function",...}]}}
void ReadAllowed(ParamReader& choice, ToolRequest* request) {
  const Json* allowed = choice.Object("allowed_tools");
  if (allowed == nullptr) throw MissingParameter(choice.Name("allowed_tools"));
  ParamReader reader(*allowed, choice.Name("allowed_tools") + ".");
  const std::string mode = reader.String("mode").value_or("auto");
  request->choice = ReadMode(mode, reader.Name("mode"));
  const Json* tools = reader.Array("tools");
  if (tools == nullptr) throw MissingParameter(reader.Name("tools"));
  if (tools->empty()) {
    throw InvalidValue(reader.Name("tools"), "Invalid value for '" + reader.Name("tools") +
                                                 "': expected at least one function.");
  }
  std::set<std::string> names;
  for (size_t i = 0; i < tools->size(); ++i) {
    const std::string name = reader.Name("tools") + "[" + std::to_string(i) + "]";
    names.insert(FindNamed(*request, (*tools)[i], name).name);
  }
  for (ToolFunction& function : request->functions) {
    function.allowed = names.contains(function.name);
  }
}

void ReadChoice(ParamReader& reader, ToolRequest* request) {
  const Json* choice = reader.Find("tool_choice");
  if (choice == nullptr) return;
  if (choice->is_string()) {
    request->choice = ReadMode(choice->get<std::string>(), reader.Name("tool_choice"));
  } else if (choice->is_object()) {
    ParamReader inner(*choice, reader.Name("tool_choice") + ".");
    const std::string type = inner.RequiredString("type");
    if (type == "allowed_tools") {
      ReadAllowed(inner, request);
    } else if (type == "function") {
      const std::string name = FindNamed(*request, *choice, reader.Name("tool_choice")).name;
      for (ToolFunction& function : request->functions) function.allowed = function.name == name;
      request->choice = ToolRequest::Choice::kRequired;
      request->parallel = false;
    } else {
      throw UnsupportedParameter(inner.Name("type"),
                                 "A tool_choice of type '" + type + "' is not supported.");
    }
  } else {
    throw InvalidType(reader.Name("tool_choice"), "a string or an object", TypeName(*choice));
  }
  if (request->choice == ToolRequest::Choice::kRequired && request->functions.empty()) {
    throw InvalidValue(reader.Name("tool_choice"),
                       "'tool_choice' asks for a call, but there are no 'tools'.");
  }
}

void CheckCall(const Json& call, const std::string& name, std::set<std::string>* call_ids) {
  ParamReader reader(call, name + ".");
  const std::string id = reader.RequiredString("id");
  if (const auto type = reader.String("type"); type && *type != "function") {
    throw UnsupportedParameter(reader.Name("type"),
                               "Tool calls of type '" + *type + "' are not supported.");
  }
  const Json* function = reader.Object("function");
  if (function == nullptr) throw MissingParameter(reader.Name("function"));
  ParamReader inner(*function, reader.Name("function") + ".");
  inner.RequiredString("name");
  // An object is what the string says: some clients send it.
  const Json* arguments = inner.Find("arguments");
  if (arguments != nullptr && !arguments->is_string() && !arguments->is_object()) {
    throw InvalidType(inner.Name("arguments"), "a string", TypeName(*arguments));
  }
  call_ids->insert(id);
}

// What a "$ref" into the same schema leads to.
const Value* Resolve(const Value& root, const Value* schema) {
  constexpr int kMaxReferences = 16;
  for (int i = 0; i < kMaxReferences && schema != nullptr; ++i) {
    const Object* object = schema->as_object();
    const Value* reference = object == nullptr ? nullptr : object->Find("$ref");
    const std::string* path = reference == nullptr ? nullptr : reference->as_string();
    if (path == nullptr) return schema;
    if (!path->starts_with("#/")) return nullptr;
    schema = &root;
    for (size_t at = 2; at <= path->size() && schema != nullptr;) {
      const size_t end = std::min(path->find('/', at), path->size());
      const Object* level = schema->as_object();
      schema = level == nullptr ? nullptr : level->Find(path->substr(at, end - at));
      at = end + 1;
    }
  }
  return nullptr;
}

}  // namespace

const ToolFunction* ToolRequest::Find(std::string_view name) const {
  const auto found =
      std::find_if(functions.begin(), functions.end(),
                   [&](const ToolFunction& function) { return function.name == name; });
  return found == functions.end() ? nullptr : &*found;
}

ToolRequest ReadTools(ParamReader& reader) {
  ToolRequest request;
  request.parallel = reader.Bool("parallel_tool_calls").value_or(true);
  if (const Json* tools = reader.Array("tools")) {
    if (tools->size() > kMaxTools) {
      throw InvalidValue("tools", "Invalid value for 'tools': expected at most " +
                                      std::to_string(kMaxTools) + " tools, but got " +
                                      std::to_string(tools->size()) + ".");
    }
    std::set<std::string> names;
    for (size_t i = 0; i < tools->size(); ++i) {
      request.functions.push_back(ReadFunction((*tools)[i], i));
      const ToolFunction& function = request.functions.back();
      if (!names.insert(function.name).second) {
        throw InvalidValue(function.param + ".name",
                           "'tools' has two functions '" + function.name + "'.");
      }
    }
  }
  ReadChoice(reader, &request);
  return request;
}

void CheckToolMessage(const Json& message, const std::string& name,
                      std::set<std::string>* call_ids) {
  ParamReader reader(message, name + ".");
  const std::string role = reader.String("role").value_or("");
  if (role == "assistant") {
    const Json* calls = reader.Array("tool_calls");
    for (size_t i = 0; calls != nullptr && i < calls->size(); ++i) {
      CheckCall((*calls)[i], reader.Name("tool_calls") + "[" + std::to_string(i) + "]", call_ids);
    }
  } else if (role == "tool") {
    const std::string id = reader.RequiredString("tool_call_id");
    if (!call_ids->contains(id)) throw UnknownCall(reader.Name("tool_call_id"), id);
  }
}

ApiError UnknownCall(const std::string& name, const std::string& id) {
  return InvalidValue(name, "Invalid value for '" + name + "': '" + id +
                                "' is the id of no tool call in an earlier message.");
}

const Object* FindTextParameter(const Value& parameters, std::string_view name) {
  const Object* schema = parameters.as_object();
  const Value* properties = schema == nullptr ? nullptr : schema->Find("properties");
  const Object* members = properties == nullptr ? nullptr : properties->as_object();
  if (members == nullptr) return nullptr;
  const Value* property = Resolve(parameters, members->Find(name));
  const Object* object = property == nullptr ? nullptr : property->as_object();
  if (object == nullptr) return nullptr;
  const auto is_text = [](const Value& value) { return value.as_string() != nullptr; };
  if (const Value* type = object->Find("type")) {
    return is_text(*type) && *type->as_string() == "string" ? object : nullptr;
  }
  if (const Value* constant = object->Find("const")) return is_text(*constant) ? object : nullptr;
  const Value* listed = object->Find("enum");
  const Array* values = listed == nullptr ? nullptr : listed->as_array();
  const bool texts =
      values != nullptr && !values->empty() && std::all_of(values->begin(), values->end(), is_text);
  return texts ? object : nullptr;
}

}  // namespace server
