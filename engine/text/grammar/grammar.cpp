#include "engine/text/grammar/grammar.h"

#include "engine/text/grammar/expressions.h"
#include "engine/text/grammar/gbnf.h"
#include "engine/text/grammar/json_grammar.h"
#include "engine/text/grammar/json_schema.h"
#include "engine/text/grammar/regex.h"

namespace engine::text::grammar {
namespace {

class RootOf {
 public:
  explicit RootOf(Expressions* expressions) : expressions_(*expressions) {}

  RuleId operator()(const AnyJsonObject&) const {
    return Root("a JSON object", JsonGrammar(&expressions_).AnyObject());
  }
  RuleId operator()(const JsonSchema& source) const {
    JsonGrammar json(&expressions_);
    return Root("the schema", AddJsonSchema(&json, source.schema));
  }
  RuleId operator()(const Gbnf& source) const { return AddGbnf(&expressions_, source.text); }
  RuleId operator()(const Regex& source) const {
    return Root("the pattern", AddRegex(&expressions_, source.pattern, RegexMode::kWhole));
  }
  RuleId operator()(const Choices& source) const {
    size_t bytes = 0;
    std::vector<NodeId> options;
    for (const std::string& text : source.texts) {
      bytes += text.size();
      expressions_.budget().CheckSource(bytes);
      options.push_back(expressions_.Literal(text));
    }
    return Root("the list of choices", expressions_.Choice(options));
  }
  RuleId operator()(const Built& source) const {
    JsonGrammar json(&expressions_);
    return Root("the text", source.body(&json));
  }

 private:
  RuleId Root(const char* name, NodeId body) const {
    const RuleId rule = expressions_.AddRule(name);
    expressions_.Define(rule, body);
    return rule;
  }

  Expressions& expressions_;
};

}  // namespace

NodeId AddGrammar(Expressions* expressions, const GrammarSource& source) {
  return expressions->Call(std::visit(RootOf(expressions), source));
}

Automaton CompileGrammar(const GrammarSource& source, const GrammarLimits& limits) {
  CompileBudget budget(limits);
  Expressions expressions(budget);
  const RuleId root = std::visit(RootOf(&expressions), source);
  return BuildAutomaton(expressions, root);
}

}  // namespace engine::text::grammar
