#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/budget.h"
#include "engine/text/jinja/datum.h"
#include "engine/text/value.h"

namespace engine::text::jinja {

// Variables of one running function (or of the template). Slots are numbered by ResolveNames().
struct Environment {
  std::vector<Datum> slots;
  Environment* outer = nullptr;
  bool captured = false;  // a macro or loop object refers to it and may outlive the call
};

enum class Flow : uint8_t { kNormal, kBreak, kContinue };

// Runs one template once.
//
// Threads:   one. The template is only read.
// Errors:    RenderError; TemplateError (raised() set) from raise_exception.
// Lifetime:  the template and the variables outlive it.
class Interpreter {
 public:
  Interpreter(const Template& tree, const Object& variables, const TemplateLimits& limits,
              int64_t now_seconds);
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;
  ~Interpreter();

  std::string Run();

  // The line of the statement or expression that runs, for messages.
  uint32_t line() const { return line_; }
  int64_t now_seconds() const { return now_seconds_; }
  Budget& budget() { return budget_; }

  // A string value; its length is checked and counted.
  Datum NewString(std::string text);
  Datum NewList(std::vector<Datum> items);
  Datum NewTuple(std::vector<Datum> items);

  Datum Call(const Datum& callee, Arguments& arguments);
  Datum CallMacro(const MacroDefinition& macro, Environment* outer, Arguments& arguments);
  // The text that a recursive loop renders for `iterable`.
  Datum CallLoop(const ForStatement& loop, Environment* outer, const Datum& iterable,
                 int64_t depth);

  // For iterators over a loop's filter condition: assigns the item to the loop's names and tests
  // it. *item becomes what the names hold: a tuple where there are several.
  bool Matches(const ForStatement& loop, Environment* environment, Datum* item);
  void EnterCondition(const ForStatement& loop, Environment* environment);

  // Objects whose contents can change may form cycles; they are cleared when the rendering ends.
  void RegisterMutable(std::shared_ptr<Exotic> object);

  // Counts one level of recursion in evaluation for its lifetime.
  class Depth {
   public:
    explicit Depth(Interpreter* interpreter) : interpreter_(interpreter) {
      if (++interpreter_->depth_ > interpreter_->max_depth_) interpreter_->FailDepth();
    }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;
    ~Depth() { --interpreter_->depth_; }

   private:
    Interpreter* interpreter_;
  };

 private:
  [[noreturn]] void FailDepth();

  void Write(std::string_view text);

  Datum* Slot(SlotRef ref) const;
  void Enter(const ScopeEntries& entries);
  void Assign(const Target& target, Datum value);
  void Unpack(const Target& target, const Datum& value);
  Datum ValueOf(const Target& target) const;

  Flow Run(const Body& body);
  Flow Run(const Statement& statement);
  Flow RunIf(const IfStatement& node);
  Flow RunFor(const ForStatement& node);
  Flow RunLoop(const ForStatement& node, const Datum& iterable, int64_t depth,
               Environment* call_site);
  Flow RunSetBlock(const SetBlockStatement& node);
  Flow RunFilterBlock(const FilterBlockStatement& node);
  Flow RunWith(const WithStatement& node);
  void RunCallBlock(const CallBlockStatement& node);
  void RunSet(const SetStatement& node);

  // Runs `body` with its text caught in *text.
  Flow Capture(const Body& body, std::string* text);
  void BindParameters(const MacroDefinition& macro, Environment* environment, Arguments& arguments);

  Datum Eval(const Expr& expr);
  Datum EvalName(const NameExpr& expr);
  Datum EvalSequence(const SequenceExpr& expr);
  Datum EvalDict(const DictExpr& expr);
  Datum EvalArithmetic(const ArithmeticExpr& expr);
  Datum EvalConcat(const ConcatExpr& expr);
  Datum EvalLogical(const LogicalExpr& expr);
  Datum EvalCompare(const CompareExpr& expr);
  Datum EvalConditional(const ConditionalExpr& expr);
  Datum EvalItem(const ItemExpr& expr);
  Datum EvalCall(const CallExpr& expr, const Datum* caller);
  Datum EvalApply(const ApplyExpr& expr);
  void EvalArguments(const ArgumentExprs& exprs, Arguments* arguments);
  Datum MakeMacro(const MacroDefinition& macro);

  const Template& tree_;
  Budget budget_;
  const int64_t now_seconds_;
  const uint32_t max_depth_;
  uint32_t depth_ = 0;
  uint32_t calls_ = 0;  // macros and recursive loops that are running
  uint32_t line_ = 1;
  std::vector<Datum> context_;  // values of Template::context_names; kMissing where not given
  Environment root_;
  Environment* environment_ = &root_;
  std::string* output_ = nullptr;
  const std::string* filter_block_text_ = nullptr;
  std::vector<std::unique_ptr<Environment>> captured_;
  std::vector<std::shared_ptr<Exotic>> mutable_objects_;
};

}  // namespace engine::text::jinja
