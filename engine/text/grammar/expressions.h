#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/grammar/code_points.h"
#include "engine/text/grammar/grammar_error.h"

namespace engine::text::grammar {

using NodeId = uint32_t;
using RuleId = uint32_t;

// A count without an upper end.
inline constexpr uint32_t kUnbounded = UINT32_MAX;

// How a character of a pattern is written.
enum class Spelling : uint8_t {
  kPlain,  // as UTF-8
  kJson,   // as inside a JSON string: escaped where JSON needs it, in the shortest form
};

enum class NodeKind : uint8_t {
  kEmpty,     // the empty text
  kNever,     // no text
  kLiteral,   // bytes
  kClass,     // one character of a set
  kSequence,  // all children, in order
  kChoice,    // one of the children
  kRepeat,    // the child, min to max times
  kCall,      // what a rule says
  kGraph,     // the labels along any path from state 0 to an accepting state
};

// A graph of expressions, for what is clumsy as a tree: members in order of which any may be
// absent.
struct Graph {
  struct Edge {
    uint32_t from;
    uint32_t to;
    NodeId label;
  };
  uint32_t states = 1;
  std::vector<Edge> edges;
  std::vector<uint32_t> accepting;
};

struct Node {
  NodeKind kind = NodeKind::kEmpty;
  Spelling spelling = Spelling::kPlain;  // kClass
  uint32_t depth = 1;                    // of the tree below
  uint32_t index = 0;  // kLiteral, kClass, kGraph, kNever: into their tables; kCall: the rule
  uint32_t min = 0;    // kRepeat
  uint32_t max = 0;    // kRepeat
  std::vector<NodeId> children = {};
};

// The expressions of one grammar: a table of nodes and of rules, which may be recursive. All
// sources (JSON Schema, GBNF, regular expressions, choices) are turned into these.
//
// Errors:  GrammarError when a limit is exceeded.
class Expressions {
 public:
  explicit Expressions(CompileBudget& budget) : budget_(budget) {}

  NodeId Empty() { return Add({.kind = NodeKind::kEmpty}); }
  // why: a sentence for the message when nothing else is left; may be empty.
  NodeId Never(std::string why = {});
  NodeId Literal(std::string_view bytes);
  NodeId Class(CodePointSet set, Spelling spelling = Spelling::kPlain);
  NodeId Sequence(const std::vector<NodeId>& parts);
  NodeId Choice(const std::vector<NodeId>& options);
  NodeId Repeat(NodeId body, uint32_t min, uint32_t max);
  NodeId Optional(NodeId body) { return Repeat(body, 0, 1); }
  NodeId Call(RuleId rule);
  NodeId AddGraph(Graph graph);

  // name: for messages. A rule is called before or after it is defined.
  RuleId AddRule(std::string name);
  void Define(RuleId rule, NodeId body) { rules_[rule].body = body; }

  const Node& node(NodeId id) const { return nodes_[id]; }
  const std::string& literal(const Node& node) const { return literals_[node.index]; }
  const std::string& why(const Node& never) const { return reasons_[never.index]; }
  const CodePointSet& code_points(const Node& node) const { return classes_[node.index]; }
  const Graph& graph(const Node& node) const { return graphs_[node.index]; }
  size_t nodes() const { return nodes_.size(); }

  struct Rule {
    std::string name;
    NodeId body = 0;
  };
  const std::vector<Rule>& rules() const { return rules_; }

  CompileBudget& budget() const { return budget_; }

 private:
  NodeId Add(Node node);

  CompileBudget& budget_;
  std::vector<Node> nodes_;
  std::vector<std::string> literals_;
  std::vector<std::string> reasons_ = {""};
  size_t reason_bytes_ = 0;
  std::vector<CodePointSet> classes_;
  std::vector<Graph> graphs_;
  std::vector<Rule> rules_;
};

}  // namespace engine::text::grammar
