#include "engine/text/jinja/objects.h"

#include <algorithm>

#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/operators.h"

namespace engine::text::jinja {
namespace {

uint32_t CheckedDepth(uint32_t child) {
  if (child >= kMaxDataDepth) throw RenderError("data is nested too deeply");
  return child + 1;
}

// repr() of an object that has none of its own. Python shows an address, which no template can
// want.
std::string OpaqueRepr(std::string_view what) { return "<" + std::string(what) + ">"; }

std::string ReprOf(Interpreter& interpreter, std::vector<Datum> items) {
  return Repr(interpreter, Datum::List(std::move(items)));
}

Datum LoopCycle(Interpreter&, const Datum& self, Arguments& arguments) {
  if (!arguments.named.empty()) FailType("cycle() takes no keyword arguments");
  if (arguments.positional.empty()) FailType("no items for cycling given");
  const auto count = static_cast<int64_t>(arguments.positional.size());
  const int64_t index = self.As<LoopObject>()->index0() % count;
  return arguments.positional[static_cast<size_t>(index)];
}

Datum LoopChanged(Interpreter& interpreter, const Datum& self, Arguments& arguments) {
  if (!arguments.named.empty()) FailType("changed() takes no keyword arguments");
  Datum values = Datum::Tuple(std::move(arguments.positional));
  return Datum::Bool(self.As<LoopObject>()->Changed(interpreter, std::move(values)));
}

Datum CyclerNext(Interpreter&, const Datum& self, Arguments&) {
  auto* cycler = self.As<CyclerObject>();
  Datum value = cycler->current();
  cycler->Advance();
  return value;
}

Datum CyclerReset(Interpreter&, const Datum& self, Arguments&) {
  self.As<CyclerObject>()->Reset();
  return Datum::None();
}

Datum Method(std::string_view name, Builtin function, std::shared_ptr<Exotic> self) {
  return Datum::From(
      std::make_shared<FunctionObject>(std::string(name), function, Datum::From(std::move(self))));
}

}  // namespace

RangeObject::RangeObject(int64_t start, int64_t stop, int64_t step)
    : start_(start), stop_(stop), step_(step) {
  if (step == 0) FailType("range() arg 3 must not be zero");
  // Unsigned, as the distance of two int64 may need 64 bits.
  const bool empty = step > 0 ? start >= stop : start <= stop;
  const uint64_t distance = step > 0 ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                                     : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
  const uint64_t width = step > 0 ? static_cast<uint64_t>(step) : 0 - static_cast<uint64_t>(step);
  const uint64_t count = empty ? 0 : (distance - 1) / width + 1;
  // The sandbox's own limit, with its message.
  if (count > 100000) {
    FailType("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
  }
  length_ = static_cast<int64_t>(count);
}

std::string RangeObject::Repr(Interpreter&) const {
  std::string text = "range(" + std::to_string(start_) + ", " + std::to_string(stop_);
  if (step_ != 1) text += ", " + std::to_string(step_);
  return text + ")";
}

std::optional<Datum> RangeObject::Attribute(Interpreter&, std::string_view name) {
  if (name == "start") return Datum::Int(start_);
  if (name == "stop") return Datum::Int(stop_);
  if (name == "step") return Datum::Int(step_);
  return std::nullopt;
}

std::optional<Datum> RangeObject::Item(Interpreter&, const Datum& key) {
  if (!key.is_integral()) return std::nullopt;
  const int64_t index = key.integer() < 0 ? key.integer() + length_ : key.integer();
  if (index < 0 || index >= length_) return std::nullopt;
  return Datum::Int(At(index));
}

std::unique_ptr<Iterator> RangeObject::Iterate(Interpreter&) {
  return IterateWith([start = start_, step = step_, length = length_, index = int64_t{0}](
                         Interpreter&, Datum* item) mutable {
    if (index >= length) return false;
    *item = Datum::Int(start + step * index++);
    return true;
  });
}

std::optional<bool> RangeObject::Equals(Interpreter&, const Exotic& other) {
  const auto* range = dynamic_cast<const RangeObject*>(&other);
  if (range == nullptr) return std::nullopt;
  if (length_ != range->length_) return false;
  if (length_ == 0) return true;
  return start_ == range->start_ && (length_ == 1 || step_ == range->step_);
}

bool RangeObject::Contains(int64_t value) const {
  if (length_ == 0) return false;
  const int64_t last = At(length_ - 1);
  if (value < std::min(start_, last) || value > std::max(start_, last)) return false;
  return (value - start_) % step_ == 0;
}

DictView::DictView(std::shared_ptr<const DictObject> dict, What what)
    : dict_(std::move(dict)), what_(what) {
  depth = CheckedDepth(dict_->depth);
}

std::string_view DictView::type_name() const {
  static constexpr std::string_view kNames[] = {"dict_keys", "dict_values", "dict_items"};
  return kNames[static_cast<size_t>(what_)];
}

Datum DictView::At(size_t index) const {
  const auto& [key, value] = dict_->entries()[index];
  if (what_ == What::kKeys) return key;
  if (what_ == What::kValues) return value;
  return Datum::Tuple({key, value});
}

std::string DictView::Repr(Interpreter& interpreter) const {
  std::vector<Datum> items;
  for (size_t i = 0; i < dict_->size(); ++i) items.push_back(At(i));
  return std::string(type_name()) + "(" + ReprOf(interpreter, std::move(items)) + ")";
}

std::unique_ptr<Iterator> DictView::Iterate(Interpreter&) {
  return IterateWith([view = std::make_shared<DictView>(dict_, what_), index = size_t{0}](
                         Interpreter&, Datum* item) mutable {
    if (index >= view->dict().size()) return false;
    *item = view->At(index++);
    return true;
  });
}

GeneratorObject::GeneratorObject(std::unique_ptr<Iterator> iterator, const Datum& source,
                                 std::string_view type_name)
    : iterator_(std::move(iterator)), type_name_(type_name) {
  depth = CheckedDepth(source.depth());
}

std::string GeneratorObject::Repr(Interpreter&) const {
  return OpaqueRepr(std::string(type_name_) + " object");
}

std::unique_ptr<Iterator> GeneratorObject::Iterate(Interpreter&) {
  return IterateWith([iterator = iterator_](Interpreter& interpreter, Datum* item) {
    return iterator->Next(interpreter, item);
  });
}

std::string NamespaceObject::Repr(Interpreter& interpreter) const {
  auto dict = std::make_shared<DictObject>();
  for (const auto& [name, value] : attributes_) dict->Set(Datum::String(name), value);
  return "<Namespace " + jinja::Repr(interpreter, Datum::Dict(std::move(dict))) + ">";
}

std::optional<Datum> NamespaceObject::Attribute(Interpreter&, std::string_view name) {
  for (const auto& [key, value] : attributes_) {
    if (key == name) return value;
  }
  return std::nullopt;
}

void NamespaceObject::Set(const std::string& name, Datum value) {
  for (auto& [key, stored] : attributes_) {
    if (key == name) {
      stored = std::move(value);
      return;
    }
  }
  attributes_.emplace_back(name, std::move(value));
}

std::string MacroObject::Repr(Interpreter&) const {
  return macro_.anonymous ? "<Macro anonymous>" : "<Macro " + StringRepr(macro_.name) + ">";
}

std::optional<Datum> MacroObject::Attribute(Interpreter&, std::string_view name) {
  if (name == "name") return macro_.anonymous ? Datum::None() : Datum::String(macro_.name);
  if (name == "catch_kwargs") return Datum::Bool(macro_.uses_kwargs);
  if (name == "catch_varargs") return Datum::Bool(macro_.uses_varargs);
  if (name == "caller") return Datum::Bool(macro_.uses_caller);
  if (name == "explicit_caller") return Datum::Bool(macro_.explicit_caller);
  if (name == "arguments") {
    std::vector<Datum> names;
    for (const Target& parameter : macro_.parameters) {
      names.push_back(Datum::String(parameter.name));
    }
    return Datum::Tuple(std::move(names));
  }
  return std::nullopt;
}

Datum MacroObject::Call(Interpreter& interpreter, Arguments& arguments) {
  return interpreter.CallMacro(macro_, environment_, arguments);
}

FunctionObject::FunctionObject(std::string name, Builtin function, Datum self)
    : name_(std::move(name)), function_(function), self_(std::move(self)) {
  depth = CheckedDepth(self_.depth());
}

std::string FunctionObject::Repr(Interpreter&) const {
  return OpaqueRepr("built-in function " + name_);
}

Datum FunctionObject::Call(Interpreter& interpreter, Arguments& arguments) {
  return function_(interpreter, self_, arguments);
}

LoopObject::LoopObject(Datum iterable, bool has_length, std::unique_ptr<Iterator> iterator,
                       int64_t depth0, const ForStatement* recursion, Environment* environment)
    : iterable_(std::move(iterable)),
      has_length_(has_length),
      iterator_(std::move(iterator)),
      depth0_(depth0),
      recursion_(recursion),
      environment_(environment) {
  depth = CheckedDepth(iterable_.depth());
}

std::string LoopObject::Repr(Interpreter& interpreter) const {
  auto* self = const_cast<LoopObject*>(this);
  return "<LoopContext " + std::to_string(index0_ + 1) + "/" +
         std::to_string(*self->Length(interpreter)) + ">";
}

bool LoopObject::Next(Interpreter& interpreter, Datum* item) {
  if (!after_.is(Kind::kMissing)) {
    *item = std::exchange(after_, Datum());
  } else if (!iterator_->Next(interpreter, item)) {
    return false;
  }
  ++index0_;
  before_ = std::exchange(current_, *item);
  return true;
}

const Datum& LoopObject::Peek(Interpreter& interpreter) {
  if (after_.is(Kind::kMissing)) {
    Datum item;
    if (iterator_->Next(interpreter, &item)) after_ = std::move(item);
  }
  return after_;
}

std::optional<int64_t> LoopObject::Length(Interpreter& interpreter) {
  if (length_) return length_;
  if (has_length_) length_ = jinja::Length(interpreter, iterable_);
  if (length_) return length_;
  std::vector<Datum> rest;
  Datum item;
  while (iterator_->Next(interpreter, &item)) {
    interpreter.budget().Step();
    rest.push_back(std::move(item));
  }
  const bool peeked = !after_.is(Kind::kMissing);
  length_ = static_cast<int64_t>(rest.size()) + index0_ + 1 + (peeked ? 1 : 0);
  iterator_ = IterateVector(std::move(rest));
  return length_;
}

std::optional<Datum> LoopObject::Attribute(Interpreter& interpreter, std::string_view name) {
  if (name == "index0") return Datum::Int(index0_);
  if (name == "index") return Datum::Int(index0_ + 1);
  if (name == "first") return Datum::Bool(index0_ == 0);
  if (name == "last") return Datum::Bool(Peek(interpreter).is(Kind::kMissing));
  if (name == "length") return Datum::Int(*Length(interpreter));
  if (name == "revindex") return Datum::Int(*Length(interpreter) - index0_);
  if (name == "revindex0") return Datum::Int(*Length(interpreter) - index0_ - 1);
  if (name == "depth") return Datum::Int(depth0_ + 1);
  if (name == "depth0") return Datum::Int(depth0_);
  if (name == "previtem") {
    return index0_ == 0 ? Datum::Undefined("there is no previous item") : before_;
  }
  if (name == "nextitem") {
    const Datum& next = Peek(interpreter);
    return next.is(Kind::kMissing) ? Datum::Undefined("there is no next item") : next;
  }
  if (name == "cycle") return Method(name, LoopCycle, shared_from_this());
  if (name == "changed") return Method(name, LoopChanged, shared_from_this());
  return std::nullopt;
}

bool LoopObject::Changed(Interpreter& interpreter, Datum values) {
  if (last_changed_.is(Kind::kMissing)) interpreter.RegisterMutable(shared_from_this());
  if (!last_changed_.is(Kind::kMissing) && Equal(interpreter, last_changed_, values)) return false;
  last_changed_ = std::move(values);
  return true;
}

Datum LoopObject::Call(Interpreter& interpreter, Arguments& arguments) {
  if (recursion_ == nullptr) {
    FailType("The loop must have the 'recursive' marker to be called recursively.");
  }
  if (arguments.positional.size() != 1 || !arguments.named.empty()) {
    FailType("a recursive loop takes one argument");
  }
  return interpreter.CallLoop(*recursion_, environment_, arguments.positional[0], depth0_ + 1);
}

CyclerObject::CyclerObject(std::vector<Datum> items) : items_(std::move(items)) {
  uint32_t deepest = 0;
  for (const Datum& item : items_) deepest = std::max(deepest, item.depth());
  depth = CheckedDepth(deepest);
}

std::string CyclerObject::Repr(Interpreter&) const {
  return OpaqueRepr("jinja2.utils.Cycler object");
}

std::optional<Datum> CyclerObject::Attribute(Interpreter&, std::string_view name) {
  if (name == "current") return current();
  if (name == "next") return Method(name, CyclerNext, shared_from_this());
  if (name == "reset") return Method(name, CyclerReset, shared_from_this());
  return std::nullopt;
}

JoinerObject::JoinerObject(Datum separator) : separator_(std::move(separator)) {
  depth = CheckedDepth(separator_.depth());
}

std::string JoinerObject::Repr(Interpreter&) const {
  return OpaqueRepr("jinja2.utils.Joiner object");
}

Datum JoinerObject::Call(Interpreter&, Arguments&) {
  return std::exchange(used_, true) ? separator_ : Datum::String("");
}

}  // namespace engine::text::jinja
