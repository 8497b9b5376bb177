#include "server/answer_grammar.h"

#include <algorithm>
#include <utility>

#include "engine/text/grammar/free_text.h"
#include "engine/text/grammar/grammar.h"
#include "engine/text/grammar/json_schema.h"

namespace server {
namespace {

namespace grammar = engine::text::grammar;
using engine::text::Array;
using engine::text::Object;
using engine::text::Value;
using grammar::NodeId;

// Of one answer, where a model could go on for ever.
constexpr uint32_t kMaxCalls = 64;

// The schema of a function's arguments, which are an object.
Value ArgumentsSchema(const ToolFunction& function) {
  const Object* given = function.parameters.as_object();
  Object schema = given == nullptr ? Object() : *given;
  const bool says_type =
      std::any_of(schema.items().begin(), schema.items().end(), [](const auto& member) {
        return member.first == "type" || member.first == "$ref" || member.first == "anyOf" ||
               member.first == "oneOf" || member.first == "allOf";
      });
  if (!says_type) schema.Set("type", Value("object"));
  return Value(std::move(schema));
}

const Object* ObjectIn(const Value& value, std::string_view key) {
  const Object* object = value.as_object();
  const Value* member = object == nullptr ? nullptr : object->Find(key);
  return member == nullptr ? nullptr : member->as_object();
}

class AnswerBuilder {
 public:
  AnswerBuilder(grammar::JsonGrammar* json, const AnswerSyntax& syntax,
                const std::vector<bool>& loose)
      : json_(*json), expressions_(json->expressions()), syntax_(syntax), loose_(loose) {}

  NodeId Answer(const GrammarRequest* content) {
    const ToolRequest* tools = syntax_.tools.get();
    NodeId body;
    if (tools != nullptr && tools->required()) {
      body = Calls();
    } else if (tools == nullptr) {
      body = grammar::AddGrammar(&expressions_, content->source);
    } else if (content != nullptr) {
      body = expressions_.Choice({Calls(), grammar::AddGrammar(&expressions_, content->source)});
    } else {
      body = TextThenCalls();
    }
    CheckPromised();
    return expressions_.Sequence({Thoughts(), body});
  }

 private:
  // A call that can never be written would be one that the model does not make.
  void CheckPromised() {
    if (promised_.empty()) return;
    const std::vector<bool> has_text = grammar::NodesWithText(expressions_);
    for (const auto& [call, function] : promised_) {
      if (has_text[call]) continue;
      throw grammar::GrammarError("No arguments satisfy the schema of the function '" +
                                  function->name + "'.");
    }
  }

  NodeId Literal(const std::string& text) { return expressions_.Literal(text); }
  NodeId Any(uint32_t min = 0) {
    return expressions_.Repeat(expressions_.Class(grammar::CodePointSet::All()), min,
                               grammar::kUnbounded);
  }
  NodeId Json(const std::string& text) { return Literal(grammar::JsonText(Value(text))); }

  NodeId Thoughts() {
    if (syntax_.reasoning == AnswerSyntax::Reasoning::kNone) return expressions_.Empty();
    std::string open = syntax_.markers.open;
    std::string close = syntax_.markers.close;
    std::string after;
    if (syntax_.format == ToolFormat::kHarmony) {
      open = "<|channel|>analysis<|message|>";
      close = "<|end|>";
      after = "<|start|>assistant";
    }
    const NodeId space =
        expressions_.Choice({expressions_.Empty(), Literal("\n"), Literal("\n\n")});
    const NodeId rest = expressions_.Sequence(
        {grammar::TextWithout(&expressions_, {close}), Literal(close), Literal(after), space});
    if (syntax_.reasoning == AnswerSyntax::Reasoning::kOpen) return rest;
    return expressions_.Optional(expressions_.Sequence({Literal(open), rest}));
  }

  NodeId TextThenCalls() {
    std::vector<std::string> openings = OpeningMarkers(syntax_.format);
    if (syntax_.format == ToolFormat::kHarmony) openings = {"to=functions."};
    if (!openings.empty() && syntax_.format != ToolFormat::kLlamaJson &&
        syntax_.format != ToolFormat::kPythonic) {
      return expressions_.Sequence(
          {grammar::TextWithout(&expressions_, openings), expressions_.Optional(Calls())});
    }
    // Calls stand at the start: other text begins as none does, or there is none.
    const NodeId first = expressions_.Class(
        grammar::CodePointSet({{0, ' '}, {'{', '{'}, {'[', '['}, {'`', '`'}, {'<', '<'}})
            .Complement());
    const NodeId rest = openings.empty() ? Any() : grammar::TextWithout(&expressions_, openings);
    return expressions_.Optional(
        expressions_.Choice({Calls(), expressions_.Sequence({first, rest})}));
  }

  NodeId Calls() {
    std::vector<NodeId> calls;
    for (size_t i = 0; i < syntax_.tools->functions.size(); ++i) {
      const ToolFunction& function = syntax_.tools->functions[i];
      if (!function.allowed) continue;
      const bool loose = i < loose_.size() && loose_[i];
      calls.push_back(Call(function, loose));
      if (UsesSchema(function, loose)) promised_.emplace_back(calls.back(), &function);
    }
    const NodeId call = expressions_.Choice(calls);
    switch (syntax_.format) {
      case ToolFormat::kJson:
        if (!syntax_.tools->parallel) return call;
        return expressions_.Choice({call, Several("[", call, ", ", "]", 2)});
      case ToolFormat::kLlamaJson:
        return Several("", call, "; ", "");
      case ToolFormat::kPythonic:
        return Several(syntax_.call_open + "[", call, ", ", "]" + syntax_.call_close);
      case ToolFormat::kMistral:
        return Several("[TOOL_CALLS][", call, ", ", "]");
      case ToolFormat::kGranite:
        return Several("<|tool_call|>[", call, ", ", "]");
      case ToolFormat::kApertus:
        return Several("<|tools_prefix|>[", call, ", ", "]<|tools_suffix|>");
      case ToolFormat::kDeepSeek:
        return Several("<｜tool▁calls▁begin｜>", call, "\n", "<｜tool▁calls▁end｜>");
      case ToolFormat::kHarmony:
        return call;  // its end is a token that ends the answer
      default:
        return Several("", call, "\n", "");
    }
  }

  NodeId Several(const std::string& before, NodeId call, const std::string& between,
                 const std::string& after, uint32_t min = 1) {
    const uint32_t max = syntax_.tools->parallel && !syntax_.one_call ? kMaxCalls : 1;
    const NodeId more = expressions_.Sequence({Literal(between), call});
    return expressions_.Sequence({Literal(before), call,
                                  expressions_.Repeat(more, min - 1, std::max(max, min) - 1),
                                  Literal(after)});
  }

  NodeId Call(const ToolFunction& function, bool loose) {
    const std::string& name = function.name;
    switch (syntax_.format) {
      case ToolFormat::kHermes:
        return expressions_.Sequence({Literal("<tool_call>\n"),
                                      NamedJson(function, loose, "arguments"),
                                      Literal("\n</tool_call>")});
      case ToolFormat::kQwenXml:
        return expressions_.Sequence(
            {Literal("<tool_call>\n<function=" + name + ">\n"),
             Members(function, loose, {"<parameter=", ">\n", "\n</parameter>\n", ""}),
             Literal("</function>\n</tool_call>")});
      case ToolFormat::kGlm:
        return expressions_.Sequence(
            {Literal("<tool_call>" + name + "\n"),
             Members(function, loose,
                     {"<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n", ""}),
             Literal("</tool_call>")});
      case ToolFormat::kPythonic:
        return expressions_.Sequence(
            {Literal(name + "("), Members(function, loose, {"", "=", "", ", "}), Literal(")")});
      case ToolFormat::kDeepSeek:
        return expressions_.Sequence(
            {Literal("<｜tool▁call▁begin｜>function<｜tool▁sep｜>" + name + "\n```json\n"),
             Arguments(function, loose), Literal("\n```<｜tool▁call▁end｜>")});
      case ToolFormat::kApertus:
        return expressions_.Sequence(
            {Literal("{"), Json(name), Literal(": "), Arguments(function, loose), Literal("}")});
      case ToolFormat::kHarmony:
        return expressions_.Sequence({Literal("<|channel|>commentary to=functions." + name +
                                              " <|constrain|>json<|message|>"),
                                      Arguments(function, loose)});
      case ToolFormat::kLlamaJson:
        return NamedJson(function, loose, "parameters");
      default:
        return NamedJson(function, loose, "arguments");
    }
  }

  NodeId NamedJson(const ToolFunction& function, bool loose, const std::string& arguments) {
    return expressions_.Sequence({Literal("{\"name\": "), Json(function.name),
                                  Literal(", \"" + arguments + "\": "), Arguments(function, loose),
                                  Literal("}")});
  }

  bool UsesSchema(const ToolFunction& function, bool loose) const {
    return !loose && (function.strict || syntax_.tools->required());
  }

  NodeId Arguments(const ToolFunction& function, bool loose) {
    if (function.parameters.is_null()) return Literal("{}");
    if (!UsesSchema(function, loose)) return json_.AnyObject();
    return grammar::AddJsonSchema(&json_, ArgumentsSchema(function));
  }

  // What stands around an argument's name and value.
  struct Frame {
    std::string before;
    std::string middle;
    std::string after;
    std::string between;
  };

  // The arguments where they are no JSON object: each property in its order, required ones always.
  NodeId Members(const ToolFunction& function, bool loose, const Frame& frame) {
    const Object* properties = ObjectIn(function.parameters, "properties");
    if (properties == nullptr || properties->size() == 0) return expressions_.Empty();
    const bool schema = UsesSchema(function, loose);
    grammar::Graph graph;
    graph.states = static_cast<uint32_t>(properties->size()) + 1;
    std::vector<bool> required;
    std::vector<NodeId> members;
    for (const auto& [name, property] : properties->items()) {
      required.push_back(schema && IsRequired(function.parameters, name));
      const NodeId value = ValueOf(function, name, property, schema, frame.after);
      members.push_back(expressions_.Sequence(
          {Literal(frame.before + name + frame.middle), value, Literal(frame.after)}));
    }
    // State i: the last argument was number i - 1.
    for (uint32_t from = 0; from < graph.states; ++from) {
      uint32_t to = from;
      for (; to < members.size(); ++to) {
        const NodeId member =
            from == 0 ? members[to] : expressions_.Sequence({Literal(frame.between), members[to]});
        graph.edges.push_back({from, to + 1, member});
        if (required[to]) break;
      }
      if (to == members.size()) graph.accepting.push_back(from);
    }
    return expressions_.AddGraph(std::move(graph));
  }

  static bool IsRequired(const Value& schema, const std::string& name) {
    const Value* required = schema.as_object()->Find("required");
    const Array* names = required == nullptr ? nullptr : required->as_array();
    return names != nullptr && std::any_of(names->begin(), names->end(), [&](const Value& value) {
             return value.as_string() != nullptr && *value.as_string() == name;
           });
  }

  // One argument's value: text as it is, but in Python, everything else as JSON.
  NodeId ValueOf(const ToolFunction& function, const std::string& name, const Value& property,
                 bool schema, const std::string& close) {
    const Object* text = syntax_.format == ToolFormat::kPythonic
                             ? nullptr
                             : FindTextParameter(function.parameters, name);
    if (text != nullptr) {
      // The marker without the line ends beside it: nothing else may look like the end.
      const size_t begin = close.find('<');
      const std::string marker = close.substr(begin, close.find('>') - begin + 1);
      if (const Value* constant = schema ? text->Find("const") : nullptr) {
        return Listed({*constant}, marker);
      }
      const Value* listed = schema ? text->Find("enum") : nullptr;
      if (listed != nullptr && listed->as_array() != nullptr) {
        return Listed(*listed->as_array(), marker);
      }
      return grammar::TextWithout(&expressions_, {marker});
    }
    if (!schema) return json_.AnyValue();
    if (syntax_.format == ToolFormat::kPythonic && IsBoolean(property)) {
      return expressions_.Choice({Literal("True"), Literal("False")});
    }
    return grammar::AddJsonSchema(&json_, WithDefinitions(function.parameters, property));
  }

  static bool IsBoolean(const Value& property) {
    const Object* schema = property.as_object();
    const Value* type = schema == nullptr ? nullptr : schema->Find("type");
    const bool boolean =
        type != nullptr && type->as_string() != nullptr && *type->as_string() == "boolean";
    return boolean && schema->Find("enum") == nullptr && schema->Find("const") == nullptr;
  }

  // Those that do not look like the end.
  NodeId Listed(const Array& values, const std::string& marker) {
    std::vector<NodeId> options;
    for (const Value& value : values) {
      const std::string* text = value.as_string();
      const bool plain = text != nullptr && text->find(marker) == std::string::npos;
      if (plain) options.push_back(Literal(*text));
    }
    return expressions_.Choice(options);
  }

  // The property as a schema of its own, with what "$ref" may lead to.
  static Value WithDefinitions(const Value& parameters, const Value& property) {
    const Object* object = property.as_object();
    if (object == nullptr) return property;
    Object schema = *object;
    for (const char* key : {"$defs", "definitions"}) {
      const Value* definitions = parameters.as_object()->Find(key);
      if (definitions != nullptr && schema.Find(key) == nullptr) schema.Set(key, *definitions);
    }
    return Value(std::move(schema));
  }

  grammar::JsonGrammar& json_;
  grammar::Expressions& expressions_;
  const AnswerSyntax& syntax_;
  const std::vector<bool>& loose_;
  std::vector<std::pair<NodeId, const ToolFunction*>> promised_;  // calls that follow a schema
};

bool NeedsGrammar(const ToolRequest& tools) {
  if (tools.required()) return true;
  return std::any_of(tools.functions.begin(), tools.functions.end(),
                     [](const ToolFunction& function) { return function.strict; });
}

// Equal keys mean equal answers.
std::string KeyOf(const AnswerSyntax& syntax, const GrammarRequest* content,
                  const std::vector<bool>& loose) {
  std::string key = "answer:" + std::string(ToolFormatName(syntax.format)) + ":" +
                    std::to_string(static_cast<int>(syntax.reasoning)) + ":" +
                    syntax.markers.close + ":" + syntax.call_open + (syntax.one_call ? "1" : "n");
  if (const ToolRequest* tools = syntax.tools.get()) {
    key += tools->required() ? ":required" : ":auto";
    key += tools->parallel ? ":several" : ":one";
    for (size_t i = 0; i < tools->functions.size(); ++i) {
      const ToolFunction& function = tools->functions[i];
      if (!function.allowed) continue;
      key += "\n" + function.name + (function.strict ? " strict " : " ") +
             (i < loose.size() && loose[i] ? "loose " : "") +
             grammar::JsonText(function.parameters);
    }
  }
  return key + "\n" + (content == nullptr ? "" : content->key);
}

}  // namespace

std::shared_ptr<const GrammarRequest> MakeAnswerGrammar(
    const AnswerSyntax& syntax, std::shared_ptr<const GrammarRequest> content,
    const std::vector<bool>& loose) {
  const bool tools = syntax.tools != nullptr && (content || NeedsGrammar(*syntax.tools));
  const bool thoughts = syntax.reasoning != AnswerSyntax::Reasoning::kNone;
  if (!tools && (!content || !thoughts)) return content;
  auto request = std::make_shared<GrammarRequest>();
  request->key = KeyOf(syntax, content.get(), loose);
  request->param = tools ? "tools" : content->param;
  request->shown_tokens = syntax.marker_tokens;
  request->source = grammar::Built{[syntax, content, loose](grammar::JsonGrammar* json) {
    return AnswerBuilder(json, syntax, loose).Answer(content.get());
  }};
  return request;
}

const std::string* UnwritableArgument(ToolFormat format, const ToolFunction& function) {
  const Object* properties = ObjectIn(function.parameters, "properties");
  if (properties == nullptr) return nullptr;
  for (const auto& [name, property] : properties->items()) {
    bool writable = true;
    if (format == ToolFormat::kPythonic) {
      writable = !name.empty() && name.find_first_of("=,()\"' \t\r\n") == std::string::npos;
    } else if (format == ToolFormat::kQwenXml) {
      writable = !name.empty() && name.find_first_of(">\n") == std::string::npos;
    } else if (format == ToolFormat::kGlm) {
      writable = name.find("</arg_key>") == std::string::npos;
    }
    if (!writable) return &name;
  }
  return nullptr;
}

std::string SchemaProblem(const ToolFunction& function) {
  if (function.parameters.is_null()) return {};
  try {
    grammar::CompileGrammar(grammar::JsonSchema{ArgumentsSchema(function)});
  } catch (const grammar::GrammarError& error) {
    return error.what();
  }
  return {};
}

}  // namespace server
