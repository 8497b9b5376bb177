#include "engine/text/jinja/interpreter.h"

#include <algorithm>

#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/objects.h"
#include "engine/text/jinja/operators.h"

namespace engine::text::jinja {
namespace {

// Levels of evaluation per level of nesting that the limits allow: a macro's body brings its own
// blocks and expressions. 20 * 100 levels need less than 2 MiB of stack.
constexpr uint32_t kDepthPerNesting = 20;

template <typename T>
const T& As(const Expr& expr) {
  return static_cast<const T&>(expr);
}
template <typename T>
const T& As(const Statement& statement) {
  return static_cast<const T&>(statement);
}

Datum Import(const Value& value, uint32_t depth) {
  if (depth > kMaxDataDepth) throw RenderError("data is nested too deeply");
  if (const auto* text = value.as_string()) return Datum::String(*text);
  if (const auto* number = value.as_int()) return Datum::Int(*number);
  if (const auto* real = value.as_double()) return Datum::Float(*real);
  if (const auto* flag = value.as_bool()) return Datum::Bool(*flag);
  if (const auto* array = value.as_array()) {
    std::vector<Datum> items;
    items.reserve(array->size());
    for (const Value& item : *array) items.push_back(Import(item, depth + 1));
    return Datum::List(std::move(items));
  }
  if (const auto* object = value.as_object()) {
    auto dict = std::make_shared<DictObject>();
    for (const auto& [key, item] : object->items()) {
      dict->Set(Datum::String(key), Import(item, depth + 1));
    }
    return Datum::Dict(std::move(dict));
  }
  return Datum::None();
}

// The items of a loop with an `if`, decided one by one as the loop goes.
class ConditionIterator final : public Iterator {
 public:
  ConditionIterator(const ForStatement& loop, Environment* environment,
                    std::unique_ptr<Iterator> source)
      : loop_(loop), environment_(environment), source_(std::move(source)) {}

  bool Next(Interpreter& interpreter, Datum* item) override {
    if (!std::exchange(entered_, true)) interpreter.EnterCondition(loop_, environment_);
    while (source_->Next(interpreter, item)) {
      if (interpreter.Matches(loop_, environment_, item)) return true;
    }
    return false;
  }

 private:
  const ForStatement& loop_;
  Environment* environment_;
  std::unique_ptr<Iterator> source_;
  bool entered_ = false;
};

// Swaps a value for the duration of a scope.
template <typename T>
class Restore {
 public:
  Restore(T* place, T value) : place_(place), old_(std::exchange(*place, std::move(value))) {}
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;
  ~Restore() { *place_ = std::move(old_); }

 private:
  T* place_;
  T old_;
};

}  // namespace

Interpreter::Interpreter(const Template& tree, const Object& variables,
                         const TemplateLimits& limits, int64_t now_seconds)
    : tree_(tree),
      budget_(limits),
      now_seconds_(now_seconds),
      max_depth_(kDepthPerNesting * limits.nesting) {
  for (const std::string& name : tree.context_names) {
    if (const Value* value = variables.Find(name)) {
      context_.push_back(Import(*value, 1));
    } else {
      context_.push_back(FindGlobal(name).value_or(Datum()));
    }
  }
}

Interpreter::~Interpreter() {
  for (const auto& object : mutable_objects_) object->Clear();
}

void Interpreter::FailDepth() { throw RenderError("the template is nested too deeply"); }

std::string Interpreter::Run() {
  std::string text;
  output_ = &text;
  root_.slots.resize(tree_.function.slot_count);
  Enter(tree_.scope);
  Run(tree_.body);
  output_ = nullptr;
  return text;
}

Datum Interpreter::NewString(std::string text) {
  budget_.Make(text.size());
  return Datum::String(std::move(text));
}

Datum Interpreter::NewList(std::vector<Datum> items) {
  budget_.Step(items.size());
  return Datum::List(std::move(items));
}

Datum Interpreter::NewTuple(std::vector<Datum> items) {
  budget_.Step(items.size());
  return Datum::Tuple(std::move(items));
}

void Interpreter::RegisterMutable(std::shared_ptr<Exotic> object) {
  budget_.Make(sizeof(NamespaceObject));
  mutable_objects_.push_back(std::move(object));
}

void Interpreter::Write(std::string_view text) {
  budget_.CheckLength(output_->size() + text.size());
  budget_.Touch(text.size());
  output_->append(text);
}

Datum* Interpreter::Slot(SlotRef ref) const {
  Environment* environment = environment_;
  for (uint32_t i = 0; i < ref.hops; ++i) environment = environment->outer;
  return &environment->slots[ref.slot];
}

void Interpreter::Enter(const ScopeEntries& entries) {
  for (const ScopeEntry& entry : entries) {
    Datum& variable = environment_->slots[entry.slot];
    switch (entry.source) {
      case ScopeEntry::Source::kContext:
        variable = context_[entry.context_name];
        break;
      case ScopeEntry::Source::kOuter:
        variable = *Slot(entry.outer);
        break;
      case ScopeEntry::Source::kMissing:
        variable = Datum();
        break;
    }
  }
}

void Interpreter::Assign(const Target& target, Datum value) {
  switch (target.kind) {
    case Target::Kind::kName:
      *Slot(target.ref) = std::move(value);
      return;
    case Target::Kind::kNamespace: {
      auto* space = Slot(target.ref)->As<NamespaceObject>();
      if (space == nullptr) FailType("cannot assign attribute on non-namespace object");
      return space->Set(target.attribute, std::move(value));
    }
    case Target::Kind::kTuple:
      return Unpack(target, value);
  }
}

void Interpreter::Unpack(const Target& target, const Datum& value) {
  if (value.is_undefined())
    FailType("not enough values to unpack (expected " + std::to_string(target.items.size()) +
             ", got 0)");
  if (!IsIterable(value)) {
    FailType("cannot unpack non-iterable " + std::string(value.type_name()) + " object");
  }
  std::vector<Datum> items;
  const std::unique_ptr<Iterator> iterator = Iterate(*this, value);
  Datum item;
  while (items.size() <= target.items.size() && iterator->Next(*this, &item)) {
    items.push_back(std::move(item));
  }
  if (items.size() > target.items.size()) {
    FailType("too many values to unpack (expected " + std::to_string(target.items.size()) + ")");
  }
  if (items.size() < target.items.size()) {
    FailType("not enough values to unpack (expected " + std::to_string(target.items.size()) +
             ", got " + std::to_string(items.size()) + ")");
  }
  for (size_t i = 0; i < items.size(); ++i) Assign(target.items[i], std::move(items[i]));
}

Flow Interpreter::Run(const Body& body) {
  const Depth depth(this);
  for (const auto& statement : body) {
    budget_.Step();
    line_ = statement->line;
    if (const Flow flow = Run(*statement); flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Flow Interpreter::Run(const Statement& statement) {
  switch (statement.kind) {
    case StatementKind::kText:
      Write(As<TextStatement>(statement).text);
      return Flow::kNormal;
    case StatementKind::kPrint: {
      const Datum value = Eval(*As<PrintStatement>(statement).value);
      if (value.is_string()) {
        Write(value.string());
      } else {
        Write(Str(*this, value));
      }
      return Flow::kNormal;
    }
    case StatementKind::kIf:
      return RunIf(As<IfStatement>(statement));
    case StatementKind::kFor:
      return RunFor(As<ForStatement>(statement));
    case StatementKind::kSet:
      RunSet(As<SetStatement>(statement));
      return Flow::kNormal;
    case StatementKind::kSetBlock:
      return RunSetBlock(As<SetBlockStatement>(statement));
    case StatementKind::kMacro: {
      const auto& node = As<MacroStatement>(statement);
      *Slot(node.ref) = MakeMacro(node.macro);
      return Flow::kNormal;
    }
    case StatementKind::kCallBlock:
      RunCallBlock(As<CallBlockStatement>(statement));
      return Flow::kNormal;
    case StatementKind::kFilterBlock:
      return RunFilterBlock(As<FilterBlockStatement>(statement));
    case StatementKind::kWith:
      return RunWith(As<WithStatement>(statement));
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

Flow Interpreter::RunIf(const IfStatement& node) {
  for (const auto& [test, body] : node.branches) {
    if (Truth(*this, Eval(*test))) return Run(body);
  }
  return Run(node.otherwise);
}

void Interpreter::RunSet(const SetStatement& node) {
  const auto check_namespaces = [this](const auto& self, const Target& target) -> void {
    if (target.kind == Target::Kind::kNamespace &&
        Slot(target.ref)->As<NamespaceObject>() == nullptr) {
      FailType("cannot assign attribute on non-namespace object");
    }
    for (const Target& item : target.items) self(self, item);
  };
  check_namespaces(check_namespaces, node.target);
  Assign(node.target, Eval(*node.value));
}

Flow Interpreter::RunFor(const ForStatement& node) {
  const Datum iterable = Eval(*node.iterable);
  if (!node.recursive) return RunLoop(node, iterable, 0, environment_);
  const Datum text = CallLoop(node, environment_, iterable, 0);
  Write(text.string());
  return Flow::kNormal;
}

Datum Interpreter::CallLoop(const ForStatement& loop, Environment* outer, const Datum& iterable,
                            int64_t depth) {
  const Restore<uint32_t> calls(&calls_, calls_ + 1);
  if (calls_ > budget_.limits().nesting) FailDepth();
  auto environment = std::make_unique<Environment>();
  environment->slots.resize(loop.function.slot_count);
  environment->outer = outer;
  outer->captured = true;  // the loop object can be called later
  std::string text;
  {
    const Restore<Environment*> scope(&environment_, environment.get());
    const Restore<std::string*> output(&output_, &text);
    RunLoop(loop, iterable, depth, outer);
  }
  if (environment->captured) captured_.push_back(std::move(environment));
  return NewString(std::move(text));
}

Flow Interpreter::RunLoop(const ForStatement& node, const Datum& iterable, int64_t depth,
                          Environment* call_site) {
  std::unique_ptr<Iterator> iterator = Iterate(*this, iterable);
  if (node.condition) {
    iterator = std::make_unique<ConditionIterator>(node, environment_, std::move(iterator));
    environment_->captured = environment_->captured || node.uses_loop;
  }
  std::shared_ptr<LoopObject> loop;
  if (node.uses_loop) {
    loop = std::make_shared<LoopObject>(iterable, !node.condition, std::move(iterator), depth,
                                        node.recursive ? &node : nullptr, call_site);
    environment_->slots[node.loop_slot] = Datum::From(loop);
  }
  bool body_completed = false;
  Datum item;
  while (loop ? loop->Next(*this, &item) : iterator->Next(*this, &item)) {
    budget_.Step();
    Assign(node.target, std::move(item));
    Enter(node.body_scope);
    const Flow flow = Run(node.body);
    if (flow == Flow::kBreak) break;
    body_completed = body_completed || flow == Flow::kNormal;
  }
  // As in Jinja, `else` runs unless some iteration reached the end of the body.
  if (body_completed || node.otherwise.empty()) return Flow::kNormal;
  Enter(node.otherwise_scope);
  const Flow flow = Run(node.otherwise);
  return node.recursive ? Flow::kNormal : flow;
}

void Interpreter::EnterCondition(const ForStatement& loop, Environment* environment) {
  const Restore<Environment*> scope(&environment_, environment);
  Enter(loop.condition_scope);
}

bool Interpreter::Matches(const ForStatement& loop, Environment* environment, Datum* item) {
  budget_.Step();
  const Restore<Environment*> scope(&environment_, environment);
  Assign(loop.condition_target, *item);
  if (!Truth(*this, Eval(*loop.condition))) return false;
  *item = ValueOf(loop.condition_target);
  return true;
}

Datum Interpreter::ValueOf(const Target& target) const {
  if (target.kind == Target::Kind::kName) return *Slot(target.ref);
  std::vector<Datum> items;
  for (const Target& item : target.items) items.push_back(ValueOf(item));
  return Datum::Tuple(std::move(items));
}

Flow Interpreter::Capture(const Body& body, std::string* text) {
  const Restore<std::string*> output(&output_, text);
  return Run(body);
}

Flow Interpreter::RunSetBlock(const SetBlockStatement& node) {
  Enter(node.scope);
  std::string text;
  if (const Flow flow = Capture(node.body, &text); flow != Flow::kNormal) return flow;
  if (!node.filter) {
    Assign(node.target, NewString(std::move(text)));
    return Flow::kNormal;
  }
  const Restore<const std::string*> operand(&filter_block_text_, &text);
  Assign(node.target, Eval(*node.filter));
  return Flow::kNormal;
}

Flow Interpreter::RunFilterBlock(const FilterBlockStatement& node) {
  Enter(node.scope);
  std::string text;
  if (const Flow flow = Capture(node.body, &text); flow != Flow::kNormal) return flow;
  const Restore<const std::string*> operand(&filter_block_text_, &text);
  Write(Str(*this, Eval(*node.filter)));
  return Flow::kNormal;
}

Flow Interpreter::RunWith(const WithStatement& node) {
  Enter(node.scope);
  for (const auto& [target, value] : node.assignments) Assign(target, Eval(*value));
  return Run(node.body);
}

Datum Interpreter::MakeMacro(const MacroDefinition& macro) {
  environment_->captured = true;
  budget_.Make(sizeof(MacroObject));
  return Datum::From(std::make_shared<MacroObject>(macro, environment_));
}

void Interpreter::RunCallBlock(const CallBlockStatement& node) {
  if (!node.call) {
    Arguments none;
    Write(CallMacro(node.caller, environment_, none).string());
    return;
  }
  const Datum caller = MakeMacro(node.caller);
  Write(Str(*this, EvalCall(*node.call, &caller)));
}

Datum Interpreter::CallMacro(const MacroDefinition& macro, Environment* outer,
                             Arguments& arguments) {
  const Restore<uint32_t> calls(&calls_, calls_ + 1);
  if (calls_ > budget_.limits().nesting) FailDepth();
  auto environment = std::make_unique<Environment>();
  budget_.Make(sizeof(Environment) + macro.function.slot_count * sizeof(Datum));
  environment->slots.resize(macro.function.slot_count);
  environment->outer = outer;
  const uint32_t line = line_;
  std::string text;
  {
    const Restore<Environment*> scope(&environment_, environment.get());
    const Restore<std::string*> output(&output_, &text);
    BindParameters(macro, environment.get(), arguments);
    Run(macro.body);
  }
  line_ = line;
  if (environment->captured) captured_.push_back(std::move(environment));
  return NewString(std::move(text));
}

void Interpreter::BindParameters(const MacroDefinition& macro, Environment* environment,
                                 Arguments& arguments) {
  const size_t count = macro.parameters.size();
  const std::string name = macro.anonymous ? "None" : "'" + macro.name + "'";
  bool found_caller = arguments.positional.size() >= count && macro.explicit_caller;
  const auto take_named = [&](const std::string& wanted) {
    const auto it = std::find_if(arguments.named.begin(), arguments.named.end(),
                                 [&](const auto& a) { return a.first == wanted; });
    if (it == arguments.named.end()) return Datum();
    Datum value = std::move(it->second);
    arguments.named.erase(it);
    return value;
  };
  std::vector<Datum> values(count);
  for (size_t i = 0; i < count; ++i) {
    if (i < arguments.positional.size()) {
      values[i] = arguments.positional[i];
      continue;
    }
    values[i] = take_named(macro.parameters[i].name);
    found_caller = found_caller || macro.parameters[i].name == "caller";
  }
  if (macro.uses_caller && !found_caller) {
    Datum caller = take_named("caller");
    const bool given = !caller.is(Kind::kMissing) && !caller.is(Kind::kNone);
    environment->slots[macro.caller_slot] =
        given ? std::move(caller) : Datum::Undefined("No caller defined");
  }
  if (macro.uses_kwargs) {
    auto dict = std::make_shared<DictObject>();
    for (auto& [key, value] : arguments.named) dict->Set(Datum::String(key), std::move(value));
    environment->slots[macro.kwargs_slot] = Datum::Dict(std::move(dict));
  } else if (!arguments.named.empty()) {
    for (const auto& [key, value] : arguments.named) {
      if (key != "caller") continue;
      FailType("macro " + name +
               " was invoked with two values for the special caller argument. "
               "This is most likely a bug.");
    }
    FailType("macro " + name + " takes no keyword argument '" + arguments.named.front().first +
             "'");
  }
  if (macro.uses_varargs) {
    std::vector<Datum> rest;
    for (size_t i = count; i < arguments.positional.size(); ++i) {
      rest.push_back(arguments.positional[i]);
    }
    environment->slots[macro.varargs_slot] = Datum::Tuple(std::move(rest));
  } else if (arguments.positional.size() > count) {
    FailType("macro " + name + " takes not more than " + std::to_string(count) + " argument(s)");
  }

  for (size_t i = 0; i < count; ++i) {
    environment->slots[macro.parameters[i].ref.slot] = std::move(values[i]);
  }
  Enter(macro.scope);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t slot = macro.parameters[i].ref.slot;
    if (!environment->slots[slot].is(Kind::kMissing)) continue;
    const size_t first_default = count - macro.defaults.size();
    environment->slots[slot] =
        i >= first_default
            ? Eval(*macro.defaults[i - first_default])
            : Datum::Undefined("parameter '" + macro.parameters[i].name + "' was not provided");
  }
}

Datum Interpreter::Call(const Datum& callee, Arguments& arguments) {
  if (callee.is_undefined()) FailUndefined(callee);
  if (!callee.is(Kind::kExotic) || !callee.exotic().callable()) {
    FailType("'" + std::string(callee.type_name()) + "' object is not callable");
  }
  const Depth depth(this);
  const std::shared_ptr<Exotic> keep_alive = callee.exotic_ptr();
  return keep_alive->Call(*this, arguments);
}

Datum Interpreter::Eval(const Expr& expr) {
  const Depth depth(this);
  budget_.Step();
  line_ = expr.line;
  switch (expr.kind) {
    case ExprKind::kConst:
      return As<ConstExpr>(expr).value;
    case ExprKind::kName:
      return EvalName(As<NameExpr>(expr));
    case ExprKind::kList:
    case ExprKind::kTuple:
      return EvalSequence(As<SequenceExpr>(expr));
    case ExprKind::kDict:
      return EvalDict(As<DictExpr>(expr));
    case ExprKind::kArithmetic:
      return EvalArithmetic(As<ArithmeticExpr>(expr));
    case ExprKind::kConcat:
      return EvalConcat(As<ConcatExpr>(expr));
    case ExprKind::kLogical:
      return EvalLogical(As<LogicalExpr>(expr));
    case ExprKind::kNot:
      return Datum::Bool(!Truth(*this, Eval(*As<NotExpr>(expr).operand)));
    case ExprKind::kSign:
      return Negate(Eval(*As<SignExpr>(expr).operand), As<SignExpr>(expr).negative);
    case ExprKind::kCompare:
      return EvalCompare(As<CompareExpr>(expr));
    case ExprKind::kConditional:
      return EvalConditional(As<ConditionalExpr>(expr));
    case ExprKind::kAttribute: {
      const auto& node = As<AttributeExpr>(expr);
      const Datum object = Eval(*node.object);
      return GetAttribute(*this, object, node.name);
    }
    case ExprKind::kItem:
      return EvalItem(As<ItemExpr>(expr));
    case ExprKind::kSlice:
      break;  // only as the key of an item
    case ExprKind::kCall:
      return EvalCall(As<CallExpr>(expr), nullptr);
    case ExprKind::kFilter:
    case ExprKind::kTest:
      return EvalApply(As<ApplyExpr>(expr));
  }
  return Datum();
}

Datum Interpreter::EvalName(const NameExpr& expr) {
  const Datum& value = *Slot(expr.ref);
  return value.is(Kind::kMissing) ? Datum::UndefinedName(expr.name) : value;
}

Datum Interpreter::EvalSequence(const SequenceExpr& expr) {
  std::vector<Datum> items;
  items.reserve(expr.items.size());
  for (const ExprPtr& item : expr.items) items.push_back(Eval(*item));
  return expr.kind == ExprKind::kList ? Datum::List(std::move(items))
                                      : Datum::Tuple(std::move(items));
}

Datum Interpreter::EvalDict(const DictExpr& expr) {
  auto dict = std::make_shared<DictObject>();
  for (const auto& [key_expr, value_expr] : expr.items) {
    Datum key = Eval(*key_expr);
    Datum value = Eval(*value_expr);
    dict->Set(std::move(key), std::move(value));
  }
  return Datum::Dict(std::move(dict));
}

Datum Interpreter::EvalArithmetic(const ArithmeticExpr& expr) {
  Datum left = Eval(*expr.first);
  for (const auto& [op, operand] : expr.rest) {
    const Datum right = Eval(*operand);
    left = Arithmetic(*this, op, left, right);
  }
  return left;
}

Datum Interpreter::EvalConcat(const ConcatExpr& expr) {
  std::string text;
  for (const ExprPtr& part : expr.parts) {
    AppendStr(*this, Eval(*part), &text);
    budget_.CheckLength(text.size());
  }
  return NewString(std::move(text));
}

Datum Interpreter::EvalLogical(const LogicalExpr& expr) {
  Datum value;
  for (const ExprPtr& operand : expr.operands) {
    value = Eval(*operand);
    const bool last = &operand == &expr.operands.back();
    if (!last && Truth(*this, value) != expr.is_and) break;
  }
  return value;
}

Datum Interpreter::EvalCompare(const CompareExpr& expr) {
  Datum left = Eval(*expr.first);
  for (const auto& [op, operand] : expr.rest) {
    Datum right = Eval(*operand);
    if (!Compare(*this, op, left, right)) return Datum::Bool(false);
    left = std::move(right);
  }
  return Datum::Bool(true);
}

Datum Interpreter::EvalConditional(const ConditionalExpr& expr) {
  if (Truth(*this, Eval(*expr.condition))) return Eval(*expr.when_true);
  if (expr.when_false) return Eval(*expr.when_false);
  return Datum::Undefined("the inline if-expression on line " + std::to_string(expr.line) +
                          " evaluated to false and no else section was defined.");
}

Datum Interpreter::EvalItem(const ItemExpr& expr) {
  const Datum object = Eval(*expr.object);
  if (expr.key->kind != ExprKind::kSlice) return GetItem(*this, object, Eval(*expr.key));
  const auto& slice = As<SliceExpr>(*expr.key);
  SliceBounds bounds;
  if (slice.start) bounds.start = SliceIndex(Eval(*slice.start));
  if (slice.stop) bounds.stop = SliceIndex(Eval(*slice.stop));
  if (slice.step) bounds.step = SliceIndex(Eval(*slice.step));
  return GetSlice(*this, object, bounds);
}

Datum Interpreter::EvalCall(const CallExpr& expr, const Datum* caller) {
  const Datum callee = Eval(*expr.callee);
  Arguments arguments;
  EvalArguments(expr.arguments, &arguments);
  if (caller != nullptr) {
    for (const auto& [name, value] : arguments.named) {
      if (name == "caller") FailType("got multiple values for keyword argument 'caller'");
    }
    arguments.named.emplace_back("caller", *caller);
  }
  line_ = expr.line;
  return Call(callee, arguments);
}

Datum Interpreter::EvalApply(const ApplyExpr& expr) {
  const Datum operand = expr.operand ? Eval(*expr.operand) : NewString(*filter_block_text_);
  if (expr.function == nullptr) {
    const bool is_filter = expr.kind == ExprKind::kFilter;
    throw RenderError(std::string("No ") + (is_filter ? "filter" : "test") + " named '" +
                      expr.name + "' found.");
  }
  Arguments arguments;
  EvalArguments(expr.arguments, &arguments);
  line_ = expr.line;
  return expr.function(*this, operand, arguments);
}

void Interpreter::EvalArguments(const ArgumentExprs& exprs, Arguments* arguments) {
  for (const ExprPtr& argument : exprs.positional) {
    arguments->positional.push_back(Eval(*argument));
  }
  if (exprs.star) {
    std::vector<Datum> rest = ToVector(*this, Eval(*exprs.star));
    std::move(rest.begin(), rest.end(), std::back_inserter(arguments->positional));
  }
  for (const auto& [name, argument] : exprs.named) {
    arguments->named.emplace_back(name, Eval(*argument));
  }
  if (!exprs.double_star) return;
  const Datum named = Eval(*exprs.double_star);
  if (!named.is(Kind::kDict)) FailType("argument after ** must be a mapping");
  for (const auto& [key, value] : named.dict().entries()) {
    if (!key.is_string()) FailType("keywords must be strings");
    for (const auto& [name, given] : exprs.named) {
      if (name == key.string()) {
        FailType("got multiple values for keyword argument '" + name + "'");
      }
    }
    arguments->named.emplace_back(key.string(), value);
  }
}

}  // namespace engine::text::jinja
