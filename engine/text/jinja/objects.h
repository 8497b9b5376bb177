#pragma once

#include <functional>

#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/datum.h"

namespace engine::text::jinja {

struct Environment;

class RangeObject final : public Exotic {
 public:
  RangeObject(int64_t start, int64_t stop, int64_t step);
  std::string_view type_name() const override { return "range"; }
  std::string Repr(Interpreter& interpreter) const override;
  bool Truth(Interpreter&) override { return length_ > 0; }
  std::optional<Datum> Attribute(Interpreter&, std::string_view name) override;
  std::optional<Datum> Item(Interpreter& interpreter, const Datum& key) override;
  bool has_items() const override { return true; }
  std::optional<int64_t> Length(Interpreter&) override { return length_; }
  std::unique_ptr<Iterator> Iterate(Interpreter& interpreter) override;
  bool iterable() const override { return true; }
  std::optional<bool> Equals(Interpreter&, const Exotic& other) override;

  // REQUIRES: 0 <= index <= length(). The end may wrap round: it is no item.
  int64_t At(int64_t index) const {
    return static_cast<int64_t>(static_cast<uint64_t>(start_) +
                                static_cast<uint64_t>(index) * static_cast<uint64_t>(step_));
  }
  int64_t length() const { return length_; }
  int64_t step() const { return step_; }
  bool Contains(int64_t value) const;

 private:
  int64_t start_, stop_, step_, length_;
};

// dict.keys(), .values() and .items().
class DictView final : public Exotic {
 public:
  enum class What : uint8_t { kKeys, kValues, kItems };
  DictView(std::shared_ptr<const DictObject> dict, What what);
  std::string_view type_name() const override;
  std::string Repr(Interpreter& interpreter) const override;
  bool Truth(Interpreter&) override { return dict_->size() > 0; }
  std::optional<int64_t> Length(Interpreter&) override {
    return static_cast<int64_t>(dict_->size());
  }
  std::unique_ptr<Iterator> Iterate(Interpreter& interpreter) override;
  bool iterable() const override { return true; }
  Datum At(size_t index) const;
  const DictObject& dict() const { return *dict_; }
  What what() const { return what_; }

 private:
  std::shared_ptr<const DictObject> dict_;
  What what_;
};

// What map, select and other lazy filters return; consumed once, like Python's generators.
class GeneratorObject final : public Exotic {
 public:
  // source: what the iterator holds on to, for the depth.
  GeneratorObject(std::unique_ptr<Iterator> iterator, const Datum& source,
                  std::string_view type_name = "generator");
  std::string_view type_name() const override { return type_name_; }
  std::string Repr(Interpreter& interpreter) const override;
  std::unique_ptr<Iterator> Iterate(Interpreter& interpreter) override;
  bool iterable() const override { return true; }

 private:
  std::shared_ptr<Iterator> iterator_;
  std::string_view type_name_;
};

class NamespaceObject final : public Exotic {
 public:
  std::string_view type_name() const override { return "Namespace"; }
  std::string qualified_type_name() const override { return "jinja2.utils.Namespace"; }
  std::string Repr(Interpreter& interpreter) const override;
  std::optional<Datum> Attribute(Interpreter&, std::string_view name) override;
  void Set(const std::string& name, Datum value);
  void Clear() override { attributes_.clear(); }

 private:
  std::vector<std::pair<std::string, Datum>> attributes_;
};

class MacroObject final : public Exotic {
 public:
  MacroObject(const MacroDefinition& macro, Environment* environment)
      : macro_(macro), environment_(environment) {}
  std::string_view type_name() const override { return "Macro"; }
  std::string qualified_type_name() const override { return "jinja2.runtime.Macro"; }
  std::string Repr(Interpreter& interpreter) const override;
  std::optional<Datum> Attribute(Interpreter&, std::string_view name) override;
  bool callable() const override { return true; }
  Datum Call(Interpreter& interpreter, Arguments& arguments) override;

 private:
  const MacroDefinition& macro_;
  Environment* environment_;  // where it was defined
};

// A global function or a method bound to its object.
class FunctionObject final : public Exotic {
 public:
  FunctionObject(std::string name, Builtin function, Datum self);
  std::string_view type_name() const override { return "builtin_function_or_method"; }
  std::string Repr(Interpreter& interpreter) const override;
  bool callable() const override { return true; }
  Datum Call(Interpreter& interpreter, Arguments& arguments) override;

 private:
  std::string name_;
  Builtin function_;
  Datum self_;
};

// The `loop` variable, which also drives the loop.
class LoopObject final : public Exotic, public std::enable_shared_from_this<LoopObject> {
 public:
  // iterable: what the loop runs over, for its length; recursion: null unless the loop is
  // recursive.
  LoopObject(Datum iterable, bool has_length, std::unique_ptr<Iterator> iterator, int64_t depth0,
             const ForStatement* recursion, Environment* environment);
  std::string_view type_name() const override { return "LoopContext"; }
  std::string qualified_type_name() const override { return "jinja2.runtime.LoopContext"; }
  std::string Repr(Interpreter& interpreter) const override;
  std::optional<Datum> Attribute(Interpreter& interpreter, std::string_view name) override;
  std::optional<int64_t> Length(Interpreter& interpreter) override;
  bool callable() const override { return true; }
  Datum Call(Interpreter& interpreter, Arguments& arguments) override;
  void Clear() override { last_changed_ = Datum(); }

  bool Next(Interpreter& interpreter, Datum* item);
  bool Changed(Interpreter& interpreter, Datum values);
  int64_t index0() const { return index0_; }

 private:
  const Datum& Peek(Interpreter& interpreter);

  Datum iterable_;
  bool has_length_;
  std::unique_ptr<Iterator> iterator_;
  int64_t depth0_;
  const ForStatement* recursion_;
  Environment* environment_;
  int64_t index0_ = -1;
  std::optional<int64_t> length_;
  Datum before_, current_, after_, last_changed_;  // kMissing where there is none
};

// cycler(...) and joiner(...).
class CyclerObject final : public Exotic, public std::enable_shared_from_this<CyclerObject> {
 public:
  explicit CyclerObject(std::vector<Datum> items);
  std::string_view type_name() const override { return "Cycler"; }
  std::string qualified_type_name() const override { return "jinja2.utils.Cycler"; }
  std::string Repr(Interpreter& interpreter) const override;
  std::optional<Datum> Attribute(Interpreter& interpreter, std::string_view name) override;
  const Datum& current() const { return items_[position_]; }
  void Advance() { position_ = (position_ + 1) % items_.size(); }
  void Reset() { position_ = 0; }

 private:
  std::vector<Datum> items_;
  size_t position_ = 0;
};

class JoinerObject final : public Exotic {
 public:
  explicit JoinerObject(Datum separator);
  std::string_view type_name() const override { return "Joiner"; }
  std::string qualified_type_name() const override { return "jinja2.utils.Joiner"; }
  std::string Repr(Interpreter& interpreter) const override;
  bool callable() const override { return true; }
  Datum Call(Interpreter& interpreter, Arguments& arguments) override;

 private:
  Datum separator_;
  bool used_ = false;
};

// Iterators over ready items and over a function that gives the next one.
std::unique_ptr<Iterator> IterateItems(Datum owner, const std::vector<Datum>& items);
std::unique_ptr<Iterator> IterateVector(std::vector<Datum> items);
using NextFunction = std::function<bool(Interpreter&, Datum*)>;
std::unique_ptr<Iterator> IterateWith(NextFunction next);

}  // namespace engine::text::jinja
