#include "engine/text/jinja/scope.h"

#include <functional>
#include <map>
#include <set>

#include "engine/text/chat_template.h"

namespace engine::text::jinja {
namespace {

[[noreturn]] void FailAt(uint32_t line, const std::string& message) {
  throw TemplateError("line " + std::to_string(line) + ": " + message);
}

enum class Use : uint8_t { kLoad, kStore, kParameter };

// Calls `visit` for every name in an expression, from the left.
using NameVisitor = std::function<void(const std::string& name, Use use, uint32_t line)>;

template <typename T>
const T& Cast(const Expr& expr) {
  return static_cast<const T&>(expr);
}

// Calls `visit` for the direct children of an expression; null children are skipped.
template <typename Visit>
void ForEachChild(const Expr& expr, const Visit& visit) {
  const auto visit_arguments = [&](const ArgumentExprs& arguments) {
    for (const ExprPtr& argument : arguments.positional) visit(*argument);
    for (const auto& [name, argument] : arguments.named) visit(*argument);
    if (arguments.star) visit(*arguments.star);
    if (arguments.double_star) visit(*arguments.double_star);
  };
  switch (expr.kind) {
    case ExprKind::kConst:
    case ExprKind::kName:
      return;
    case ExprKind::kList:
    case ExprKind::kTuple:
      for (const ExprPtr& item : Cast<SequenceExpr>(expr).items) visit(*item);
      return;
    case ExprKind::kDict:
      for (const auto& [key, value] : Cast<DictExpr>(expr).items) {
        visit(*key);
        visit(*value);
      }
      return;
    case ExprKind::kArithmetic:
      visit(*Cast<ArithmeticExpr>(expr).first);
      for (const auto& [op, operand] : Cast<ArithmeticExpr>(expr).rest) visit(*operand);
      return;
    case ExprKind::kConcat:
      for (const ExprPtr& part : Cast<ConcatExpr>(expr).parts) visit(*part);
      return;
    case ExprKind::kLogical:
      for (const ExprPtr& operand : Cast<LogicalExpr>(expr).operands) visit(*operand);
      return;
    case ExprKind::kNot:
      return visit(*Cast<NotExpr>(expr).operand);
    case ExprKind::kSign:
      return visit(*Cast<SignExpr>(expr).operand);
    case ExprKind::kCompare:
      visit(*Cast<CompareExpr>(expr).first);
      for (const auto& [op, operand] : Cast<CompareExpr>(expr).rest) visit(*operand);
      return;
    case ExprKind::kConditional: {
      const auto& node = Cast<ConditionalExpr>(expr);
      visit(*node.condition);
      visit(*node.when_true);
      if (node.when_false) visit(*node.when_false);
      return;
    }
    case ExprKind::kAttribute:
      return visit(*Cast<AttributeExpr>(expr).object);
    case ExprKind::kItem:
      visit(*Cast<ItemExpr>(expr).object);
      return visit(*Cast<ItemExpr>(expr).key);
    case ExprKind::kSlice: {
      const auto& node = Cast<SliceExpr>(expr);
      for (const ExprPtr* part : {&node.start, &node.stop, &node.step}) {
        if (*part) visit(**part);
      }
      return;
    }
    case ExprKind::kCall:
      visit(*Cast<CallExpr>(expr).callee);
      return visit_arguments(Cast<CallExpr>(expr).arguments);
    case ExprKind::kFilter:
    case ExprKind::kTest: {
      const auto& node = Cast<ApplyExpr>(expr);
      if (node.operand) visit(*node.operand);
      return visit_arguments(node.arguments);
    }
  }
}

void WalkNames(const Expr* expr, const NameVisitor& visit) {
  if (expr == nullptr) return;
  if (expr->kind == ExprKind::kName) {
    return visit(Cast<NameExpr>(*expr).name, Use::kLoad, expr->line);
  }
  ForEachChild(*expr, [&](const Expr& child) { WalkNames(&child, visit); });
}

void WalkNames(const Target& target, Use use, const NameVisitor& visit) {
  switch (target.kind) {
    case Target::Kind::kName:
      return visit(target.name, use, target.line);
    case Target::Kind::kNamespace:
      return;
    case Target::Kind::kTuple:
      for (const Target& item : target.items) WalkNames(item, use, visit);
  }
}

// Every name of statements and of all blocks inside them, targets before values.
void WalkNames(const Body& body, const NameVisitor& visit);

void WalkNames(const MacroDefinition& macro, const NameVisitor& visit) {
  for (const Target& parameter : macro.parameters) WalkNames(parameter, Use::kParameter, visit);
  for (const ExprPtr& value : macro.defaults) WalkNames(value.get(), visit);
  WalkNames(macro.body, visit);
}

void WalkNames(const Statement& statement, const NameVisitor& visit) {
  switch (statement.kind) {
    case StatementKind::kText:
    case StatementKind::kBreak:
    case StatementKind::kContinue:
      return;
    case StatementKind::kPrint:
      return WalkNames(static_cast<const PrintStatement&>(statement).value.get(), visit);
    case StatementKind::kIf: {
      const auto& node = static_cast<const IfStatement&>(statement);
      for (const auto& [test, body] : node.branches) {
        WalkNames(test.get(), visit);
        WalkNames(body, visit);
      }
      return WalkNames(node.otherwise, visit);
    }
    case StatementKind::kFor: {
      const auto& node = static_cast<const ForStatement&>(statement);
      WalkNames(node.target, Use::kStore, visit);
      WalkNames(node.iterable.get(), visit);
      WalkNames(node.body, visit);
      WalkNames(node.otherwise, visit);
      return WalkNames(node.condition.get(), visit);
    }
    case StatementKind::kSet: {
      const auto& node = static_cast<const SetStatement&>(statement);
      WalkNames(node.target, Use::kStore, visit);
      return WalkNames(node.value.get(), visit);
    }
    case StatementKind::kSetBlock: {
      const auto& node = static_cast<const SetBlockStatement&>(statement);
      WalkNames(node.target, Use::kStore, visit);
      WalkNames(node.filter.get(), visit);
      return WalkNames(node.body, visit);
    }
    case StatementKind::kMacro:
      return WalkNames(static_cast<const MacroStatement&>(statement).macro, visit);
    case StatementKind::kCallBlock: {
      const auto& node = static_cast<const CallBlockStatement&>(statement);
      WalkNames(node.call.get(), visit);
      return WalkNames(node.caller, visit);
    }
    case StatementKind::kFilterBlock: {
      const auto& node = static_cast<const FilterBlockStatement&>(statement);
      WalkNames(node.body, visit);
      return WalkNames(node.filter.get(), visit);
    }
    case StatementKind::kWith: {
      const auto& node = static_cast<const WithStatement&>(statement);
      for (const auto& [target, value] : node.assignments) {
        WalkNames(target, Use::kParameter, visit);
      }
      for (const auto& [target, value] : node.assignments) WalkNames(value.get(), visit);
      return WalkNames(node.body, visit);
    }
  }
}

void WalkNames(const Body& body, const NameVisitor& visit) {
  for (const auto& statement : body) WalkNames(*statement, visit);
}

// Whether `name` is read anywhere in the body before something there assigns it.
bool ReadsUndeclared(const Body& body, std::string_view name) {
  bool assigned = false;
  bool read = false;
  WalkNames(body, [&](const std::string& found, Use use, uint32_t) {
    if (found != name || assigned || read) return;
    (use == Use::kLoad ? read : assigned) = true;
  });
  return read;
}

struct FunctionScope {
  Function* function;
  uint32_t level;  // 0: the template itself
};

// The variables of one scope and of the scopes around it.
class Scope {
 public:
  Scope(Scope* parent, FunctionScope function) : parent_(parent), function_(function) {}

  const FunctionScope& function() const { return function_; }

  void Parameter(const std::string& name) {
    stores_.insert(name);
    Define(name, Source::kParameter);
  }

  void Store(const std::string& name) {
    stores_.insert(name);
    if (variables_.contains(name)) return;
    const Variable* outer = parent_ != nullptr ? parent_->Find(name) : nullptr;
    Define(name, outer != nullptr ? Source::kOuter : Source::kMissing);
  }

  void Load(const std::string& name) {
    if (Find(name) == nullptr) Define(name, Source::kContext);
  }

  bool Stores(const std::string& name) const { return stores_.contains(name); }

  // A name that only some branches of an `if` assign keeps, in the others, the value from outside.
  void StoredInBranch(const std::string& name) {
    const Variable* outer = parent_ != nullptr ? parent_->Find(name) : nullptr;
    variables_.at(name).source = outer != nullptr ? Source::kOuter : Source::kContext;
  }

  SlotRef Ref(const std::string& name, const FunctionScope& from) const {
    const Variable* variable = Find(name);
    return {from.level - variable->level, variable->slot};
  }

  ScopeEntries Entries(std::map<std::string, uint32_t>* context_names) const {
    ScopeEntries entries;
    for (const std::string& name : order_) {
      const Variable& variable = variables_.at(name);
      if (variable.source == Source::kParameter) continue;
      ScopeEntry entry;
      entry.slot = variable.slot;
      if (variable.source == Source::kOuter) {
        entry.source = ScopeEntry::Source::kOuter;
        entry.outer = parent_->Ref(name, function_);
      } else if (variable.source == Source::kContext) {
        entry.source = ScopeEntry::Source::kContext;
        entry.context_name =
            context_names->emplace(name, static_cast<uint32_t>(context_names->size()))
                .first->second;
      }
      entries.push_back(entry);
    }
    return entries;
  }

 private:
  enum class Source : uint8_t { kParameter, kContext, kOuter, kMissing };
  struct Variable {
    uint32_t level;
    uint32_t slot;
    Source source;
  };

  const Variable* Find(const std::string& name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->parent_) {
      const auto it = scope->variables_.find(name);
      if (it != scope->variables_.end()) return &it->second;
    }
    return nullptr;
  }

  void Define(const std::string& name, Source source) {
    const auto it = variables_.find(name);
    if (it != variables_.end()) {
      it->second.source = source;
      return;
    }
    variables_.emplace(name, Variable{function_.level, function_.function->slot_count++, source});
    order_.push_back(name);
  }

  Scope* parent_;
  FunctionScope function_;
  std::map<std::string, Variable> variables_;
  std::vector<std::string> order_;
  std::set<std::string> stores_;
};

class Resolver {
 public:
  explicit Resolver(Template* tree) : tree_(tree) {}

  void Run() {
    Scope scope(nullptr, {&tree_->function, 0});
    Analyze(tree_->body, &scope);
    Resolve(&tree_->body, &scope, /*conditional=*/false);
    tree_->scope = Entries(scope);
    tree_->context_names.resize(context_names_.size());
    for (const auto& [name, index] : context_names_) tree_->context_names[index] = name;
  }

 private:
  ScopeEntries Entries(const Scope& scope) { return scope.Entries(&context_names_); }

  // First pass over a scope: which names it has. Inner scopes are not entered.

  static void AnalyzeExpr(const Expr* expr, Scope* scope) {
    WalkNames(expr, [scope](const std::string& name, Use, uint32_t) { scope->Load(name); });
  }

  static void AnalyzeTarget(const Target& target, Use use, Scope* scope) {
    if (target.kind == Target::Kind::kNamespace) return scope->Load(target.name);
    if (target.kind == Target::Kind::kTuple) {
      for (const Target& item : target.items) AnalyzeTarget(item, use, scope);
      return;
    }
    use == Use::kStore ? scope->Store(target.name) : scope->Parameter(target.name);
  }

  void Analyze(const Body& body, Scope* scope) {
    for (const auto& statement : body) Analyze(*statement, scope);
  }

  void Analyze(const Statement& statement, Scope* scope) {
    switch (statement.kind) {
      case StatementKind::kText:
      case StatementKind::kBreak:
      case StatementKind::kContinue:
        return;
      case StatementKind::kPrint:
        return AnalyzeExpr(static_cast<const PrintStatement&>(statement).value.get(), scope);
      case StatementKind::kIf:
        return AnalyzeIf(static_cast<const IfStatement&>(statement), scope);
      case StatementKind::kFor:
        return AnalyzeExpr(static_cast<const ForStatement&>(statement).iterable.get(), scope);
      case StatementKind::kSet: {
        const auto& node = static_cast<const SetStatement&>(statement);
        AnalyzeExpr(node.value.get(), scope);
        RecordStores(node.target, scope);
        return AnalyzeTarget(node.target, Use::kStore, scope);
      }
      case StatementKind::kSetBlock: {
        const auto& node = static_cast<const SetBlockStatement&>(statement);
        RecordStores(node.target, scope);
        return AnalyzeTarget(node.target, Use::kStore, scope);
      }
      case StatementKind::kMacro: {
        const std::string& name = static_cast<const MacroStatement&>(statement).macro.name;
        RecordStore(name, scope);
        return scope->Store(name);
      }
      case StatementKind::kCallBlock:
        return AnalyzeExpr(static_cast<const CallBlockStatement&>(statement).call.get(), scope);
      case StatementKind::kFilterBlock:
        return AnalyzeExpr(static_cast<const FilterBlockStatement&>(statement).filter.get(), scope);
      case StatementKind::kWith:
        for (const auto& [target, value] :
             static_cast<const WithStatement&>(statement).assignments) {
          AnalyzeExpr(value.get(), scope);
        }
        return;
    }
  }

  void AnalyzeIf(const IfStatement& node, Scope* scope) {
    const size_t outer_stores = branch_stores_.size();
    ++branch_depth_;
    for (const auto& [test, body] : node.branches) {
      AnalyzeExpr(test.get(), scope);
      Analyze(body, scope);
    }
    Analyze(node.otherwise, scope);
    --branch_depth_;
    for (size_t i = outer_stores; i < branch_stores_.size(); ++i) {
      scope->StoredInBranch(branch_stores_[i]);
    }
    if (branch_depth_ == 0) branch_stores_.clear();
  }

  // Remembers names that the branches of the current `if` assign first.
  void RecordStore(const std::string& name, Scope* scope) {
    if (branch_depth_ > 0 && !scope->Stores(name)) branch_stores_.push_back(name);
  }
  void RecordStores(const Target& target, Scope* scope) {
    if (target.kind == Target::Kind::kName) RecordStore(target.name, scope);
    for (const Target& item : target.items) RecordStores(item, scope);
  }

  // Second pass: slots of the names in a scope, and the scopes inside it.

  void ResolveExpr(Expr* expr, const Scope& scope, bool conditional) {
    if (expr == nullptr) return;
    if (expr->kind == ExprKind::kName) {
      auto* name = static_cast<NameExpr*>(expr);
      name->ref = scope.Ref(name->name, scope.function());
      return;
    }
    if (expr->kind == ExprKind::kFilter || expr->kind == ExprKind::kTest) {
      const auto& node = Cast<ApplyExpr>(*expr);
      if (node.function == nullptr && !conditional) {
        const bool is_filter = expr->kind == ExprKind::kFilter;
        FailAt(node.line, std::string("No ") + (is_filter ? "filter" : "test") + " named '" +
                              node.name + "'.");
      }
    }
    conditional = conditional || expr->kind == ExprKind::kConditional;
    ForEachChild(*expr, [&](const Expr& child) {
      ResolveExpr(const_cast<Expr*>(&child), scope, conditional);
    });
  }

  static void ResolveTarget(Target* target, const Scope& scope) {
    if (target->kind != Target::Kind::kTuple) {
      target->ref = scope.Ref(target->name, scope.function());
    }
    for (Target& item : target->items) ResolveTarget(&item, scope);
  }

  void Resolve(Body* body, Scope* scope, bool conditional) {
    for (const auto& statement : *body) Resolve(statement.get(), scope, conditional);
  }

  void Resolve(Statement* statement, Scope* scope, bool conditional) {
    switch (statement->kind) {
      case StatementKind::kText:
      case StatementKind::kBreak:
      case StatementKind::kContinue:
        return;
      case StatementKind::kPrint:
        return ResolveExpr(static_cast<PrintStatement*>(statement)->value.get(), *scope,
                           conditional);
      case StatementKind::kIf: {
        auto* node = static_cast<IfStatement*>(statement);
        for (auto& [test, body] : node->branches) {
          ResolveExpr(test.get(), *scope, /*conditional=*/true);
          Resolve(&body, scope, /*conditional=*/true);
        }
        return Resolve(&node->otherwise, scope, /*conditional=*/true);
      }
      case StatementKind::kFor:
        return ResolveFor(static_cast<ForStatement*>(statement), scope, conditional);
      case StatementKind::kSet: {
        auto* node = static_cast<SetStatement*>(statement);
        ResolveExpr(node->value.get(), *scope, conditional);
        return ResolveTarget(&node->target, *scope);
      }
      case StatementKind::kSetBlock:
        return ResolveSetBlock(static_cast<SetBlockStatement*>(statement), scope);
      case StatementKind::kMacro: {
        auto* node = static_cast<MacroStatement*>(statement);
        ResolveMacro(&node->macro, scope, node->line);
        node->ref = scope->Ref(node->macro.name, scope->function());
        return;
      }
      case StatementKind::kCallBlock: {
        auto* node = static_cast<CallBlockStatement*>(statement);
        ResolveMacro(&node->caller, scope, node->line);
        return ResolveExpr(node->call.get(), *scope, conditional);
      }
      case StatementKind::kFilterBlock: {
        auto* node = static_cast<FilterBlockStatement*>(statement);
        Scope inner(scope, scope->function());
        AnalyzeInner(node->body, &inner);
        AnalyzeExpr(node->filter.get(), &inner);
        Resolve(&node->body, &inner, false);
        ResolveExpr(node->filter.get(), inner, false);
        node->scope = Entries(inner);
        return;
      }
      case StatementKind::kWith:
        return ResolveWith(static_cast<WithStatement*>(statement), scope, conditional);
    }
  }

  // A new scope starts outside of any `if`.
  void AnalyzeInner(const Body& body, Scope* scope) {
    const uint32_t depth = std::exchange(branch_depth_, 0);
    std::vector<std::string> stores = std::exchange(branch_stores_, {});
    Analyze(body, scope);
    branch_depth_ = depth;
    branch_stores_ = std::move(stores);
  }

  void ResolveFor(ForStatement* node, Scope* scope, bool conditional) {
    WalkNames(*node, [](const std::string& name, Use use, uint32_t line) {
      if (name == "loop" && use == Use::kStore) {
        FailAt(line, "Can't assign to special loop variable in for-loop target");
      }
    });
    ResolveExpr(node->iterable.get(), *scope, conditional);
    FunctionScope function = scope->function();
    if (node->recursive) function = {&node->function, function.level + 1};

    Scope body(scope, function);
    node->uses_loop = node->recursive || ReadsUndeclared(node->body, "loop");
    if (node->uses_loop) body.Parameter("loop");
    AnalyzeTarget(node->target, Use::kParameter, &body);
    AnalyzeInner(node->body, &body);
    ResolveTarget(&node->target, body);
    Resolve(&node->body, &body, false);
    if (node->uses_loop) node->loop_slot = body.Ref("loop", function).slot;
    node->body_scope = Entries(body);

    Scope otherwise(scope, function);
    AnalyzeInner(node->otherwise, &otherwise);
    Resolve(&node->otherwise, &otherwise, false);
    node->otherwise_scope = Entries(otherwise);

    Scope condition(scope, function);
    AnalyzeTarget(node->condition_target, Use::kParameter, &condition);
    AnalyzeExpr(node->condition.get(), &condition);
    ResolveTarget(&node->condition_target, condition);
    ResolveExpr(node->condition.get(), condition, false);
    node->condition_scope = Entries(condition);
  }

  void ResolveSetBlock(SetBlockStatement* node, Scope* scope) {
    Scope inner(scope, scope->function());
    AnalyzeInner(node->body, &inner);
    AnalyzeExpr(node->filter.get(), &inner);
    Resolve(&node->body, &inner, false);
    ResolveExpr(node->filter.get(), inner, false);
    node->scope = Entries(inner);
    ResolveTarget(&node->target, *scope);
  }

  void ResolveWith(WithStatement* node, Scope* scope, bool conditional) {
    Scope inner(scope, scope->function());
    for (const auto& [target, value] : node->assignments) {
      AnalyzeTarget(target, Use::kParameter, &inner);
    }
    AnalyzeInner(node->body, &inner);
    for (auto& [target, value] : node->assignments) {
      ResolveExpr(value.get(), *scope, conditional);
      ResolveTarget(&target, inner);
    }
    Resolve(&node->body, &inner, false);
    node->scope = Entries(inner);
  }

  void ResolveMacro(MacroDefinition* macro, Scope* scope, uint32_t line) {
    const FunctionScope function{&macro->function, scope->function().level + 1};
    Scope inner(scope, function);
    bool own_kwargs = false, own_varargs = false;
    for (size_t i = 0; i < macro->parameters.size(); ++i) {
      const std::string& name = macro->parameters[i].name;
      inner.Parameter(name);
      own_kwargs = own_kwargs || name == "kwargs";
      own_varargs = own_varargs || name == "varargs";
      if (name != "caller") continue;
      macro->explicit_caller = true;
      const bool has_default = i + macro->defaults.size() >= macro->parameters.size();
      if (!has_default && ReadsUndeclared(macro->body, "caller")) {
        FailAt(line, "the special \"caller\" argument must be omitted or be given a default");
      }
    }
    for (const ExprPtr& value : macro->defaults) AnalyzeExpr(value.get(), &inner);
    AnalyzeInner(macro->body, &inner);
    macro->uses_caller = ReadsUndeclared(macro->body, "caller");
    if (macro->uses_caller && !macro->explicit_caller) inner.Parameter("caller");
    macro->uses_kwargs = !own_kwargs && ReadsUndeclared(macro->body, "kwargs");
    if (macro->uses_kwargs) inner.Parameter("kwargs");
    macro->uses_varargs = !own_varargs && ReadsUndeclared(macro->body, "varargs");
    if (macro->uses_varargs) inner.Parameter("varargs");

    for (Target& parameter : macro->parameters) ResolveTarget(&parameter, inner);
    for (const ExprPtr& value : macro->defaults) ResolveExpr(value.get(), inner, false);
    Resolve(&macro->body, &inner, false);
    if (macro->uses_caller) macro->caller_slot = inner.Ref("caller", function).slot;
    if (macro->uses_kwargs) macro->kwargs_slot = inner.Ref("kwargs", function).slot;
    if (macro->uses_varargs) macro->varargs_slot = inner.Ref("varargs", function).slot;
    macro->scope = Entries(inner);
  }

  Template* tree_;
  std::map<std::string, uint32_t> context_names_;
  uint32_t branch_depth_ = 0;
  std::vector<std::string> branch_stores_;
};

}  // namespace

void ResolveNames(Template* tree) { Resolver(tree).Run(); }

}  // namespace engine::text::jinja
