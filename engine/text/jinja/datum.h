#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace engine::text::jinja {

class Interpreter;
class Datum;

// A failure while a template runs; Render() adds the line and makes it a TemplateError.
class RenderError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Everything on the heap that a Datum may share. `depth` is 1 + the depth of what it holds: it is
// bounded, so that printing, comparing and destroying may recurse.
struct HeapObject {
  HeapObject() = default;
  HeapObject(const HeapObject&) = delete;
  HeapObject& operator=(const HeapObject&) = delete;
  virtual ~HeapObject() = default;
  uint32_t depth = 0;
};

// Deeper data is refused, as Python refuses to print it. Above the 128 levels of request JSON.
inline constexpr uint32_t kMaxDataDepth = 256;

struct StringObject final : HeapObject {
  explicit StringObject(std::string t) : text(std::move(t)) {}
  const std::string text;  // UTF-8
};

struct SequenceObject;
struct DictObject;
class Exotic;

enum class Kind : uint8_t {
  kMissing,    // a variable that was never set; not a value
  kUndefined,  // Jinja's undefined; prints empty, is false, fails when used
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kExotic,  // ranges, dict views, generators, namespaces, macros, functions, loop, …
};

// A value while a template runs, with Python's semantics. Data is immutable (the sandbox that
// transformers uses forbids append() and the like); only namespaces, generators and loops change.
//
// Ownership: shares its heap object.  Threads: constants of a template are shared by renderings.
class Datum {
 public:
  Datum() = default;  // kMissing
  static Datum None() { return Datum(Kind::kNone); }
  static Datum Bool(bool value);
  static Datum Int(int64_t value);
  static Datum Float(double value);
  static Datum String(std::string value);
  static Datum List(std::vector<Datum> items);
  static Datum Tuple(std::vector<Datum> items);
  static Datum GroupTuple(Datum grouper, Datum list);
  static Datum Dict(std::shared_ptr<DictObject> dict);
  static Datum From(std::shared_ptr<Exotic> object);
  // Undefined with the message that using it fails with.
  static Datum Undefined(std::string message);
  static Datum UndefinedName(std::string_view name);

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }
  // int or bool, which Python counts as a number.
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }

  bool boolean() const { return scalar_.integer != 0; }  // REQUIRES: kBool
  int64_t integer() const { return scalar_.integer; }    // REQUIRES: is_integral()
  double real() const { return scalar_.real; }           // REQUIRES: kFloat
  double number() const;                                 // REQUIRES: is_number()
  const std::string& string() const;                     // REQUIRES: kString
  const std::vector<Datum>& items() const;               // REQUIRES: is_sequence()
  bool is_group_tuple() const;
  const DictObject& dict() const;                      // REQUIRES: kDict
  std::shared_ptr<const DictObject> dict_ptr() const;  // REQUIRES: kDict
  Exotic& exotic() const;                              // REQUIRES: kExotic
  std::shared_ptr<Exotic> exotic_ptr() const;          // REQUIRES: kExotic
  const std::string& undefined_message() const;        // REQUIRES: kUndefined

  template <typename T>
  T* As() const;  // the exotic object when it is a T, else nullptr

  const void* identity() const { return heap_.get(); }
  uint32_t depth() const { return heap_ ? heap_->depth : 0; }

  // Python's name of the type: "str", "dict", "NoneType".
  std::string_view type_name() const;

 private:
  explicit Datum(Kind kind) : kind_(kind) {}
  Datum(Kind kind, std::shared_ptr<HeapObject> heap) : kind_(kind), heap_(std::move(heap)) {}

  Kind kind_ = Kind::kMissing;
  union {
    int64_t integer = 0;
    double real;
  } scalar_;
  std::shared_ptr<HeapObject> heap_;
};

struct SequenceObject final : HeapObject {
  std::vector<Datum> items;
  bool grouped = false;  // a (grouper, list) tuple of groupby
};

// A dict in insertion order. Built with Set(), then shared and never changed.
struct DictObject final : HeapObject {
  const Datum* Find(const Datum& key) const;
  const Datum* Find(std::string_view key) const;
  // Errors: RenderError when the key is not hashable.
  void Set(Datum key, Datum value);
  size_t size() const { return entries_.size(); }
  const std::vector<std::pair<Datum, Datum>>& entries() const { return entries_; }

 private:
  std::optional<size_t> IndexOf(const Datum& key) const;
  std::optional<size_t> IndexOfString(std::string_view key) const;

  std::vector<std::pair<Datum, Datum>> entries_;
  // Only filled for large dicts. Ordered trees, because hashes of request data can be made collide.
  std::map<std::string_view, size_t> strings_;
  std::map<long double, size_t> numbers_;
  std::vector<size_t> others_;  // positions of keys that are neither strings nor numbers
};

// Errors: RenderError for what Python can't hash (lists, dicts).
void RequireHashable(const Datum& key);
// Equality of two hashable values.
bool SameKey(const Datum& left, const Datum& right);

// A stream of values, consumed once.
class Iterator {
 public:
  virtual ~Iterator() = default;
  virtual bool Next(Interpreter& interpreter, Datum* item) = 0;
};

struct Arguments {
  std::vector<Datum> positional;
  std::vector<std::pair<std::string, Datum>> named;
};

// Functions, methods, filters and tests. `self` is the object of the method or the operand.
using Builtin = Datum (*)(Interpreter& interpreter, const Datum& self, Arguments& arguments);

// Objects that are not data. The defaults are those of an object that can nothing.
class Exotic : public HeapObject {
 public:
  virtual std::string_view type_name() const = 0;
  // As object_type_repr of Jinja names it in messages, with its module.
  virtual std::string qualified_type_name() const { return std::string(type_name()); }
  virtual std::string Repr(Interpreter& interpreter) const = 0;
  virtual bool Truth(Interpreter&) { return true; }
  virtual std::optional<Datum> Attribute(Interpreter&, std::string_view) { return std::nullopt; }
  virtual std::optional<Datum> Item(Interpreter&, const Datum&) { return std::nullopt; }
  virtual bool has_items() const { return false; }
  virtual std::optional<int64_t> Length(Interpreter&) { return std::nullopt; }
  virtual std::unique_ptr<Iterator> Iterate(Interpreter&) { return nullptr; }
  virtual bool iterable() const { return false; }
  virtual bool callable() const { return false; }
  virtual Datum Call(Interpreter& interpreter, Arguments& arguments);
  virtual std::optional<bool> Equals(Interpreter&, const Exotic&) { return std::nullopt; }
  // Drops what it holds, so that cycles end.
  virtual void Clear() {}
};

template <typename T>
T* Datum::As() const {
  return kind_ == Kind::kExotic ? dynamic_cast<T*>(heap_.get()) : nullptr;
}

}  // namespace engine::text::jinja
