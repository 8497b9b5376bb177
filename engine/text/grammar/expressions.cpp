#include "engine/text/grammar/expressions.h"

#include <algorithm>
#include <utility>

namespace engine::text::grammar {
namespace {

// Bounds the recursion over a tree. Sources nest less; repeats and sequences add a few levels to
// each level of theirs.
constexpr uint32_t kMaxDepth = 2000;
// Bounds what is kept for a message: a schema may have many parts without a value, and long paths.
constexpr size_t kMaxReasonBytes = 64 << 10;

}  // namespace

NodeId Expressions::Add(Node node) {
  budget_.Step();
  for (const NodeId child : node.children) {
    node.depth = std::max(node.depth, nodes_[child].depth + 1);
  }
  if (node.kind == NodeKind::kGraph) {
    for (const Graph::Edge& edge : graphs_[node.index].edges) {
      node.depth = std::max(node.depth, nodes_[edge.label].depth + 1);
    }
  }
  CompileBudget::CheckAtMost(node.depth, kMaxDepth, "levels of expressions");
  CompileBudget::CheckAtMost(nodes_.size() + 1, budget_.limits().nodes, "expressions");
  nodes_.push_back(std::move(node));
  return static_cast<NodeId>(nodes_.size() - 1);
}

NodeId Expressions::Never(std::string why) {
  const bool kept = !why.empty() && reason_bytes_ + why.size() <= kMaxReasonBytes;
  if (kept) {
    reason_bytes_ += why.size();
    reasons_.push_back(std::move(why));
  }
  const size_t index = kept ? reasons_.size() - 1 : 0;
  return Add({.kind = NodeKind::kNever, .index = static_cast<uint32_t>(index)});
}

NodeId Expressions::Literal(std::string_view bytes) {
  if (bytes.empty()) return Empty();
  literals_.emplace_back(bytes);
  return Add({.kind = NodeKind::kLiteral, .index = static_cast<uint32_t>(literals_.size() - 1)});
}

NodeId Expressions::Class(CodePointSet set, Spelling spelling) {
  if (set.empty()) return Never();
  classes_.push_back(std::move(set));
  return Add({.kind = NodeKind::kClass,
              .spelling = spelling,
              .index = static_cast<uint32_t>(classes_.size() - 1)});
}

NodeId Expressions::Sequence(const std::vector<NodeId>& parts) {
  std::vector<NodeId> kept;
  for (const NodeId part : parts) {
    if (nodes_[part].kind == NodeKind::kNever) return part;
    if (nodes_[part].kind != NodeKind::kEmpty) kept.push_back(part);
  }
  if (kept.empty()) return Empty();
  if (kept.size() == 1) return kept.front();
  return Add({.kind = NodeKind::kSequence, .children = std::move(kept)});
}

NodeId Expressions::Choice(const std::vector<NodeId>& options) {
  std::vector<NodeId> kept;
  for (const NodeId option : options) {
    if (nodes_[option].kind != NodeKind::kNever) kept.push_back(option);
  }
  // The first says why as well as any: one option with a text is enough.
  if (kept.empty()) return options.empty() ? Never() : options.front();
  if (kept.size() == 1) return kept.front();
  return Add({.kind = NodeKind::kChoice, .children = std::move(kept)});
}

NodeId Expressions::Repeat(NodeId body, uint32_t min, uint32_t max) {
  const NodeKind kind = nodes_[body].kind;
  if (max == 0 || kind == NodeKind::kEmpty) return Empty();
  if (kind == NodeKind::kNever) return min == 0 ? Empty() : body;
  if (min == 1 && max == 1) return body;
  const uint32_t largest = max == kUnbounded ? min : max;
  CompileBudget::CheckAtMost(largest, budget_.limits().repetition, "repetitions of one part");
  return Add({.kind = NodeKind::kRepeat, .min = min, .max = max, .children = {body}});
}

NodeId Expressions::Call(RuleId rule) { return Add({.kind = NodeKind::kCall, .index = rule}); }

NodeId Expressions::AddGraph(Graph graph) {
  CompileBudget::CheckAtMost(graph.states, budget_.limits().states, "states");
  CompileBudget::CheckAtMost(graph.edges.size(), budget_.limits().edges, "transitions");
  graphs_.push_back(std::move(graph));
  return Add({.kind = NodeKind::kGraph, .index = static_cast<uint32_t>(graphs_.size() - 1)});
}

RuleId Expressions::AddRule(std::string name) {
  CompileBudget::CheckAtMost(rules_.size() + 1, budget_.limits().nodes, "rules");
  rules_.push_back({std::move(name), 0});
  return static_cast<RuleId>(rules_.size() - 1);
}

}  // namespace engine::text::grammar
