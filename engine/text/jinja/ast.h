#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/jinja/datum.h"

namespace engine::text::jinja {

// Where a variable lives at run time: `hops` functions (macros, call blocks, recursive loops) out
// from the running one, in its slot number `slot`. Filled by ResolveNames().
struct SlotRef {
  uint32_t hops = 0;
  uint32_t slot = 0;
};

// What a variable of a scope holds when the scope is entered.
struct ScopeEntry {
  enum class Source : uint8_t { kContext, kOuter, kMissing };
  uint32_t slot = 0;
  Source source = Source::kMissing;
  SlotRef outer;              // kOuter: copied from here
  uint32_t context_name = 0;  // kContext: index into Template::context_names
};
using ScopeEntries = std::vector<ScopeEntry>;

enum class ExprKind : uint8_t {
  kConst,
  kName,
  kList,
  kTuple,
  kDict,
  kArithmetic,
  kConcat,
  kLogical,
  kNot,
  kSign,
  kCompare,
  kConditional,
  kAttribute,
  kItem,
  kSlice,
  kCall,
  kFilter,
  kTest,
};

struct Expr {
  Expr(ExprKind k, uint32_t l) : kind(k), line(l) {}
  Expr(const Expr&) = delete;
  Expr& operator=(const Expr&) = delete;
  virtual ~Expr() = default;

  const ExprKind kind;
  const uint32_t line;
  uint32_t height = 1;  // longest path to a leaf; bounded by the parser, as evaluation recurses
};
using ExprPtr = std::unique_ptr<Expr>;

struct ConstExpr final : Expr {
  ConstExpr(uint32_t l, Datum v) : Expr(ExprKind::kConst, l), value(std::move(v)) {}
  Datum value;
};

struct NameExpr final : Expr {
  NameExpr(uint32_t l, std::string n) : Expr(ExprKind::kName, l), name(std::move(n)) {}
  std::string name;
  SlotRef ref;
};

// A list or a tuple display.
struct SequenceExpr final : Expr {
  SequenceExpr(ExprKind k, uint32_t l) : Expr(k, l) {}
  std::vector<ExprPtr> items;
};

struct DictExpr final : Expr {
  explicit DictExpr(uint32_t l) : Expr(ExprKind::kDict, l) {}
  std::vector<std::pair<ExprPtr, ExprPtr>> items;
};

enum class ArithmeticOp : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };

// first op1 x1 op2 x2 …, evaluated from the left; all operators have one precedence. A chain is one
// node, so that a long sum is not a deep tree.
struct ArithmeticExpr final : Expr {
  explicit ArithmeticExpr(uint32_t l) : Expr(ExprKind::kArithmetic, l) {}
  ExprPtr first;
  std::vector<std::pair<ArithmeticOp, ExprPtr>> rest;
};

struct ConcatExpr final : Expr {
  explicit ConcatExpr(uint32_t l) : Expr(ExprKind::kConcat, l) {}
  std::vector<ExprPtr> parts;
};

struct LogicalExpr final : Expr {
  LogicalExpr(uint32_t l, bool a) : Expr(ExprKind::kLogical, l), is_and(a) {}
  bool is_and;
  std::vector<ExprPtr> operands;
};

struct NotExpr final : Expr {
  explicit NotExpr(uint32_t l) : Expr(ExprKind::kNot, l) {}
  ExprPtr operand;
};

struct SignExpr final : Expr {
  SignExpr(uint32_t l, bool n) : Expr(ExprKind::kSign, l), negative(n) {}
  bool negative;
  ExprPtr operand;
};

enum class CompareOp : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct CompareExpr final : Expr {
  explicit CompareExpr(uint32_t l) : Expr(ExprKind::kCompare, l) {}
  ExprPtr first;
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
};

struct ConditionalExpr final : Expr {
  explicit ConditionalExpr(uint32_t l) : Expr(ExprKind::kConditional, l) {}
  ExprPtr condition;
  ExprPtr when_true;
  ExprPtr when_false;  // null: undefined
};

struct AttributeExpr final : Expr {
  AttributeExpr(uint32_t l, std::string n) : Expr(ExprKind::kAttribute, l), name(std::move(n)) {}
  ExprPtr object;
  std::string name;
};

struct ItemExpr final : Expr {
  explicit ItemExpr(uint32_t l) : Expr(ExprKind::kItem, l) {}
  ExprPtr object;
  ExprPtr key;  // may be a SliceExpr
};

struct SliceExpr final : Expr {
  explicit SliceExpr(uint32_t l) : Expr(ExprKind::kSlice, l) {}
  ExprPtr start, stop, step;  // null where omitted
};

struct ArgumentExprs {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star;         // *args
  ExprPtr double_star;  // **kwargs
};

struct CallExpr final : Expr {
  explicit CallExpr(uint32_t l) : Expr(ExprKind::kCall, l) {}
  ExprPtr callee;
  ArgumentExprs arguments;
};

// A filter or a test applied to `operand`; in a filter block the innermost operand is null and
// stands for the block's text.
struct ApplyExpr final : Expr {
  ApplyExpr(ExprKind k, uint32_t l, std::string n) : Expr(k, l), name(std::move(n)) {}
  ExprPtr operand;
  std::string name;
  Builtin function = nullptr;  // null: no such filter or test, an error when it is reached
  ArgumentExprs arguments;
};

// What `set`, `for` and `with` assign to: a name, an attribute of a namespace, or several of these.
struct Target {
  enum class Kind : uint8_t { kName, kNamespace, kTuple };
  Kind kind = Kind::kName;
  uint32_t line = 0;
  std::string name;
  std::string attribute;  // kNamespace
  SlotRef ref;
  std::vector<Target> items;  // kTuple
};

enum class StatementKind : uint8_t {
  kText,
  kPrint,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kBreak,
  kContinue,
};

struct Statement {
  Statement(StatementKind k, uint32_t l) : kind(k), line(l) {}
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  virtual ~Statement() = default;

  const StatementKind kind;
  const uint32_t line;
};
using Body = std::vector<std::unique_ptr<Statement>>;

struct TextStatement final : Statement {
  TextStatement(uint32_t l, std::string t)
      : Statement(StatementKind::kText, l), text(std::move(t)) {}
  std::string text;
};

struct PrintStatement final : Statement {
  PrintStatement(uint32_t l, ExprPtr v)
      : Statement(StatementKind::kPrint, l), value(std::move(v)) {}
  ExprPtr value;
};

struct IfStatement final : Statement {
  explicit IfStatement(uint32_t l) : Statement(StatementKind::kIf, l) {}
  std::vector<std::pair<ExprPtr, Body>> branches;  // if, elif, …
  Body otherwise;
};

// The body of a macro, of a call block or of a recursive loop: it has variables of its own and can
// run more than once at a time.
struct Function {
  uint32_t slot_count = 0;
};

struct ForStatement final : Statement {
  explicit ForStatement(uint32_t l) : Statement(StatementKind::kFor, l) {}
  Target target;
  ExprPtr iterable;
  ExprPtr condition;        // null: every item
  Target condition_target;  // the target again, in the scope of the condition
  Body body;
  Body otherwise;
  bool recursive = false;

  bool uses_loop = false;
  uint32_t loop_slot = 0;
  ScopeEntries body_scope, condition_scope, otherwise_scope;
  Function function;  // when recursive
};

struct SetStatement final : Statement {
  explicit SetStatement(uint32_t l) : Statement(StatementKind::kSet, l) {}
  Target target;
  ExprPtr value;
};

struct SetBlockStatement final : Statement {
  explicit SetBlockStatement(uint32_t l) : Statement(StatementKind::kSetBlock, l) {}
  Target target;
  ExprPtr filter;  // may be null
  Body body;
  ScopeEntries scope;
};

struct MacroDefinition {
  std::string name;
  bool anonymous = false;
  std::vector<Target> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Body body;

  ScopeEntries scope;
  Function function;
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
  bool explicit_caller = false;
  uint32_t caller_slot = 0, kwargs_slot = 0, varargs_slot = 0;
};

struct MacroStatement final : Statement {
  explicit MacroStatement(uint32_t l) : Statement(StatementKind::kMacro, l) {}
  MacroDefinition macro;
  SlotRef ref;
};

// {% call %}, and transformers' {% generation %}, which calls its own body (call is null).
struct CallBlockStatement final : Statement {
  explicit CallBlockStatement(uint32_t l) : Statement(StatementKind::kCallBlock, l) {}
  MacroDefinition caller;
  std::unique_ptr<CallExpr> call;
};

struct FilterBlockStatement final : Statement {
  explicit FilterBlockStatement(uint32_t l) : Statement(StatementKind::kFilterBlock, l) {}
  ExprPtr filter;
  Body body;
  ScopeEntries scope;
};

struct WithStatement final : Statement {
  explicit WithStatement(uint32_t l) : Statement(StatementKind::kWith, l) {}
  std::vector<std::pair<Target, ExprPtr>> assignments;
  Body body;
  ScopeEntries scope;
};

struct SimpleStatement final : Statement {
  SimpleStatement(StatementKind k, uint32_t l) : Statement(k, l) {}
};

struct Template {
  Body body;
  ScopeEntries scope;
  Function function;
  std::vector<std::string> context_names;  // names that are looked up in the render variables
};

}  // namespace engine::text::jinja
