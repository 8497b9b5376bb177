#include "engine/text/jinja/parser.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <optional>

#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/lexer.h"

namespace engine::text::jinja {
namespace {

// Named arguments and parameters are searched one by one.
constexpr size_t kMaxArguments = 256;

using Names = std::initializer_list<std::string_view>;

bool Contains(Names names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string Describe(const Token& token) {
  switch (token.type) {
    case TokenType::kData:
      return "template text";
    case TokenType::kVariableBegin:
      return "begin of print statement";
    case TokenType::kVariableEnd:
      return "end of print statement";
    case TokenType::kBlockBegin:
      return "begin of statement block";
    case TokenType::kBlockEnd:
      return "end of statement block";
    case TokenType::kString:
      return "string";
    case TokenType::kEnd:
      return "end of template";
    default:
      return token.text;
  }
}

class Parser {
 public:
  Parser(std::vector<Token> tokens, uint32_t max_nesting)
      : tokens_(std::move(tokens)), max_nesting_(max_nesting) {}

  Template Run() {
    Template result;
    result.body = ParseBody({});
    return result;
  }

 private:
  // Counts one level of nesting for its lifetime.
  class Level {
   public:
    explicit Level(Parser* parser) : parser_(parser) {
      if (++parser_->nesting_ > parser_->max_nesting_) {
        parser_->Fail("nested deeper than " + std::to_string(parser_->max_nesting_) + " levels");
      }
    }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    ~Level() { --parser_->nesting_; }

   private:
    Parser* parser_;
  };

  [[noreturn]] void FailAt(uint32_t line, const std::string& message) const {
    throw TemplateError("line " + std::to_string(line) + ": " + message);
  }
  [[noreturn]] void Fail(const std::string& message) const { FailAt(current().line, message); }

  const Token& current() const { return tokens_[position_]; }
  const Token& next() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  Token Take() {
    Token token = current();
    if (position_ + 1 < tokens_.size()) ++position_;
    return token;
  }

  bool At(TokenType type) const { return current().type == type; }
  bool AtOp(std::string_view op) const { return At(TokenType::kOperator) && current().text == op; }
  bool AtName(std::string_view name) const {
    return At(TokenType::kName) && current().text == name;
  }
  bool SkipOp(std::string_view op) {
    if (!AtOp(op)) return false;
    Take();
    return true;
  }
  bool SkipName(std::string_view name) {
    if (!AtName(name)) return false;
    Take();
    return true;
  }
  void ExpectOp(std::string_view op) {
    if (!SkipOp(op)) Unexpected(std::string("'") + std::string(op) + "'");
  }
  Token Expect(TokenType type, std::string_view what) {
    if (!At(type)) Unexpected(std::string(what));
    return Take();
  }
  [[noreturn]] void Unexpected(const std::string& expected) const {
    Fail("expected " + expected + ", got '" + Describe(current()) + "'");
  }

  // Sets the height of a node over the heights of its children.
  void Raise(Expr* node, const Expr* child) const {
    if (child == nullptr) return;
    node->height = std::max(node->height, child->height + 1);
    if (node->height > 2 * max_nesting_) FailAt(node->line, "an expression is nested too deeply");
  }

  // Statements.

  Body ParseBody(Names end_tags) {
    Body body;
    while (true) {
      switch (current().type) {
        case TokenType::kData: {
          Token token = Take();
          body.push_back(std::make_unique<TextStatement>(token.line, std::move(token.text)));
          break;
        }
        case TokenType::kVariableBegin: {
          const uint32_t line = Take().line;
          body.push_back(std::make_unique<PrintStatement>(line, ParseTuple()));
          Expect(TokenType::kVariableEnd, "end of print statement");
          break;
        }
        case TokenType::kBlockBegin: {
          Take();
          if (At(TokenType::kName) && Contains(end_tags, current().text)) return body;
          ParseStatement(&body);
          Expect(TokenType::kBlockEnd, "end of statement block");
          break;
        }
        default:
          if (end_tags.size() != 0) {
            Fail("unexpected end of template; expected '" + std::string(*end_tags.begin()) + "'");
          }
          return body;
      }
    }
  }

  // The body after a tag's arguments; the end tag is the current token afterwards.
  Body ParseBlock(Names end_tags) {
    const Level level(this);
    SkipOp(":");
    Expect(TokenType::kBlockEnd, "end of statement block");
    return ParseBody(end_tags);
  }
  Body ParseWholeBlock(std::string_view end_tag) {
    Body body = ParseBlock({end_tag});
    Take();
    return body;
  }

  void ParseStatement(Body* body) {
    const Token tag = Expect(TokenType::kName, "a tag name");
    const uint32_t line = tag.line;
    if (tag.text == "if") return body->push_back(ParseIf(line));
    if (tag.text == "for") return body->push_back(ParseFor(line));
    if (tag.text == "set") return body->push_back(ParseSet(line));
    if (tag.text == "macro") return body->push_back(ParseMacro(line));
    if (tag.text == "call") return body->push_back(ParseCallBlock(line));
    if (tag.text == "filter") return body->push_back(ParseFilterBlock(line));
    if (tag.text == "with") return body->push_back(ParseWith(line));
    if (tag.text == "generation") return body->push_back(ParseGeneration(line));
    if (tag.text == "print") return ParsePrint(line, body);
    if (tag.text == "break" || tag.text == "continue") {
      if (loop_depth_ == 0) FailAt(line, "'" + tag.text + "' outside a loop");
      const bool is_break = tag.text == "break";
      body->push_back(std::make_unique<SimpleStatement>(
          is_break ? StatementKind::kBreak : StatementKind::kContinue, line));
      return;
    }
    if (Contains({"include", "import", "from", "extends", "block", "autoescape"}, tag.text)) {
      FailAt(line, "the tag '" + tag.text + "' is not supported in a chat template");
    }
    FailAt(line, "unknown tag '" + tag.text + "'");
  }

  std::unique_ptr<Statement> ParseIf(uint32_t line) {
    auto node = std::make_unique<IfStatement>(line);
    while (true) {
      ExprPtr test = ParseTuple({}, /*conditional=*/false);
      Body branch = ParseBlock({"elif", "else", "endif"});
      node->branches.emplace_back(std::move(test), std::move(branch));
      const Token tag = Take();
      if (tag.text == "elif") continue;
      if (tag.text == "else") node->otherwise = ParseWholeBlock("endif");
      return node;
    }
  }

  std::unique_ptr<Statement> ParseFor(uint32_t line) {
    auto node = std::make_unique<ForStatement>(line);
    node->target = ParseTarget({"in"});
    if (!SkipName("in")) Unexpected("'in'");
    node->iterable = ParseTuple({"recursive"}, /*conditional=*/false);
    if (SkipName("if")) node->condition = ParseExpression();
    node->condition_target = node->target;
    node->recursive = SkipName("recursive");
    ++loop_depth_;
    node->body = ParseBlock({"endfor", "else"});
    --loop_depth_;
    if (Take().text == "else") node->otherwise = ParseWholeBlock("endfor");
    return node;
  }

  std::unique_ptr<Statement> ParseSet(uint32_t line) {
    Target target = ParseTarget({}, /*namespaces=*/true);
    if (SkipOp("=")) {
      auto node = std::make_unique<SetStatement>(line);
      node->target = std::move(target);
      node->value = ParseTuple();
      return node;
    }
    auto node = std::make_unique<SetBlockStatement>(line);
    node->target = std::move(target);
    while (SkipOp("|")) node->filter = ParseFilter(std::move(node->filter));
    node->body = ParseWholeBlock("endset");
    return node;
  }

  void ParseParameters(MacroDefinition* macro) {
    ExpectOp("(");
    while (!AtOp(")")) {
      if (!macro->parameters.empty()) ExpectOp(",");
      const Token name = Expect(TokenType::kName, "a parameter name");
      macro->parameters.push_back(NameTarget(name));
      if (macro->parameters.size() > kMaxArguments) Fail("too many parameters");
      if (SkipOp("=")) {
        macro->defaults.push_back(ParseExpression());
      } else if (!macro->defaults.empty()) {
        Fail("a parameter without default follows one with a default");
      }
    }
    ExpectOp(")");
  }

  // The body of a macro or call block is a function of its own: a loop outside can't be left.
  Body ParseFunctionBody(std::string_view end_tag) {
    const uint32_t loops = std::exchange(loop_depth_, 0);
    Body body = ParseWholeBlock(end_tag);
    loop_depth_ = loops;
    return body;
  }

  std::unique_ptr<Statement> ParseMacro(uint32_t line) {
    auto node = std::make_unique<MacroStatement>(line);
    node->macro.name = NameTarget(Expect(TokenType::kName, "a macro name")).name;
    ParseParameters(&node->macro);
    node->macro.body = ParseFunctionBody("endmacro");
    return node;
  }

  std::unique_ptr<Statement> ParseCallBlock(uint32_t line) {
    auto node = std::make_unique<CallBlockStatement>(line);
    node->caller.anonymous = true;
    if (AtOp("(")) ParseParameters(&node->caller);
    ExprPtr call = ParseExpression();
    if (call->kind != ExprKind::kCall) FailAt(line, "expected a call");
    node->call.reset(static_cast<CallExpr*>(call.release()));
    node->caller.body = ParseFunctionBody("endcall");
    return node;
  }

  std::unique_ptr<Statement> ParseGeneration(uint32_t line) {
    auto node = std::make_unique<CallBlockStatement>(line);
    node->caller.anonymous = true;
    node->caller.body = ParseFunctionBody("endgeneration");
    return node;
  }

  std::unique_ptr<Statement> ParseFilterBlock(uint32_t line) {
    auto node = std::make_unique<FilterBlockStatement>(line);
    node->filter = ParseFilter(nullptr);
    while (SkipOp("|")) node->filter = ParseFilter(std::move(node->filter));
    node->body = ParseWholeBlock("endfilter");
    return node;
  }

  std::unique_ptr<Statement> ParseWith(uint32_t line) {
    auto node = std::make_unique<WithStatement>(line);
    while (!At(TokenType::kBlockEnd)) {
      if (!node->assignments.empty()) ExpectOp(",");
      Target target = ParseTarget({});
      ExpectOp("=");
      node->assignments.emplace_back(std::move(target), ParseExpression());
    }
    node->body = ParseWholeBlock("endwith");
    return node;
  }

  void ParsePrint(uint32_t line, Body* body) {
    for (bool first = true; !At(TokenType::kBlockEnd); first = false) {
      if (!first) ExpectOp(",");
      body->push_back(std::make_unique<PrintStatement>(line, ParseExpression()));
    }
  }

  // Assignment targets.

  Target NameTarget(const Token& token) const {
    if (Contains({"true", "false", "none", "True", "False", "None"}, token.text)) {
      FailAt(token.line, "can't assign to '" + token.text + "'");
    }
    Target target;
    target.line = token.line;
    target.name = token.text;
    return target;
  }

  Target ParseTarget(Names end_names, bool namespaces = false) {
    Target tuple;
    tuple.kind = Target::Kind::kTuple;
    tuple.line = current().line;
    bool is_tuple = false;
    while (true) {
      if (!tuple.items.empty()) ExpectOp(",");
      if (AtTupleEnd(end_names)) break;
      tuple.items.push_back(ParseTargetItem(namespaces));
      if (!AtOp(",")) break;
      is_tuple = true;
    }
    if (is_tuple) return tuple;
    if (tuple.items.empty()) Unexpected("a name to assign to");
    return std::move(tuple.items.front());
  }

  Target ParseTargetItem(bool namespaces) {
    if (SkipOp("(")) {
      const Level level(this);
      Target target = ParseTarget({});
      ExpectOp(")");
      return target;
    }
    const Token name = Expect(TokenType::kName, "a name to assign to");
    Target target = NameTarget(name);
    if (namespaces && SkipOp(".")) {
      target.kind = Target::Kind::kNamespace;
      target.attribute = Expect(TokenType::kName, "an attribute name").text;
    }
    return target;
  }

  // Expressions, loosest binding first.

  bool AtTupleEnd(Names end_names) const {
    if (At(TokenType::kVariableEnd) || At(TokenType::kBlockEnd) || AtOp(")")) return true;
    return At(TokenType::kName) && Contains(end_names, current().text);
  }

  ExprPtr ParseTuple(Names end_names = {}, bool conditional = true, bool parentheses = false) {
    std::vector<ExprPtr> items;
    uint32_t line = current().line;
    bool is_tuple = false;
    while (true) {
      if (!items.empty()) ExpectOp(",");
      if (AtTupleEnd(end_names)) break;
      items.push_back(conditional ? ParseExpression() : ParseOr());
      if (!AtOp(",")) break;
      is_tuple = true;
    }
    if (!is_tuple && !items.empty()) return std::move(items.front());
    if (!is_tuple && !parentheses) Unexpected("an expression");
    auto node = std::make_unique<SequenceExpr>(ExprKind::kTuple, line);
    for (const ExprPtr& item : items) Raise(node.get(), item.get());
    node->items = std::move(items);
    return node;
  }

  ExprPtr ParseExpression() {
    const Level level(this);
    ExprPtr value = ParseOr();
    while (AtName("if")) {
      auto node = std::make_unique<ConditionalExpr>(Take().line);
      node->when_true = std::move(value);
      node->condition = ParseOr();
      if (SkipName("else")) node->when_false = ParseExpression();
      Raise(node.get(), node->when_true.get());
      Raise(node.get(), node->condition.get());
      Raise(node.get(), node->when_false.get());
      value = std::move(node);
    }
    return value;
  }

  ExprPtr ParseLogical(bool is_and) {
    ExprPtr first = is_and ? ParseNot() : ParseLogical(true);
    const std::string_view word = is_and ? "and" : "or";
    if (!AtName(word)) return first;
    auto node = std::make_unique<LogicalExpr>(current().line, is_and);
    node->operands.push_back(std::move(first));
    while (SkipName(word)) node->operands.push_back(is_and ? ParseNot() : ParseLogical(true));
    for (const ExprPtr& operand : node->operands) Raise(node.get(), operand.get());
    return node;
  }
  ExprPtr ParseOr() { return ParseLogical(/*is_and=*/false); }

  ExprPtr ParseNot() {
    if (!AtName("not")) return ParseCompare();
    const Level level(this);
    auto node = std::make_unique<NotExpr>(Take().line);
    node->operand = ParseNot();
    Raise(node.get(), node->operand.get());
    return node;
  }

  std::optional<CompareOp> TakeCompareOp() {
    static constexpr std::pair<std::string_view, CompareOp> kOps[] = {
        {"==", CompareOp::kEq}, {"!=", CompareOp::kNe}, {"<", CompareOp::kLt},
        {"<=", CompareOp::kLe}, {">", CompareOp::kGt},  {">=", CompareOp::kGe}};
    for (const auto& [text, op] : kOps) {
      if (SkipOp(text)) return op;
    }
    if (SkipName("in")) return CompareOp::kIn;
    if (AtName("not") && next().type == TokenType::kName && next().text == "in") {
      Take();
      Take();
      return CompareOp::kNotIn;
    }
    return std::nullopt;
  }

  ExprPtr ParseCompare() {
    ExprPtr first = ParseSum();
    std::unique_ptr<CompareExpr> node;
    while (true) {
      const uint32_t line = current().line;
      const std::optional<CompareOp> op = TakeCompareOp();
      if (!op) break;
      if (!node) {
        node = std::make_unique<CompareExpr>(line);
        Raise(node.get(), first.get());
        node->first = std::move(first);
      }
      node->rest.emplace_back(*op, ParseSum());
      Raise(node.get(), node->rest.back().second.get());
    }
    if (node) return node;
    return first;
  }

  using Ops = std::initializer_list<std::pair<std::string_view, ArithmeticOp>>;

  template <typename ParseOperand>
  ExprPtr ParseArithmetic(Ops ops, ParseOperand parse_operand) {
    ExprPtr first = parse_operand();
    std::unique_ptr<ArithmeticExpr> node;
    while (At(TokenType::kOperator)) {
      const auto op = std::find_if(ops.begin(), ops.end(),
                                   [this](const auto& o) { return o.first == current().text; });
      if (op == ops.end()) break;
      if (!node) {
        node = std::make_unique<ArithmeticExpr>(current().line);
        Raise(node.get(), first.get());
        node->first = std::move(first);
      }
      Take();
      node->rest.emplace_back(op->second, parse_operand());
      Raise(node.get(), node->rest.back().second.get());
    }
    if (node) return node;
    return first;
  }

  ExprPtr ParseSum() {
    return ParseArithmetic({{"+", ArithmeticOp::kAdd}, {"-", ArithmeticOp::kSub}},
                           [this] { return ParseConcat(); });
  }

  ExprPtr ParseConcat() {
    ExprPtr first = ParseProduct();
    if (!AtOp("~")) return first;
    auto node = std::make_unique<ConcatExpr>(current().line);
    node->parts.push_back(std::move(first));
    while (SkipOp("~")) node->parts.push_back(ParseProduct());
    for (const ExprPtr& part : node->parts) Raise(node.get(), part.get());
    return node;
  }

  ExprPtr ParseProduct() {
    return ParseArithmetic({{"*", ArithmeticOp::kMul},
                            {"/", ArithmeticOp::kDiv},
                            {"//", ArithmeticOp::kFloorDiv},
                            {"%", ArithmeticOp::kMod}},
                           [this] { return ParsePower(); });
  }

  // Unlike Python's, Jinja's power is left-associative.
  ExprPtr ParsePower() {
    return ParseArithmetic({{"**", ArithmeticOp::kPow}}, [this] { return ParseUnary(true); });
  }

  ExprPtr ParseUnary(bool with_filters) {
    ExprPtr node;
    if (AtOp("-") || AtOp("+")) {
      const Level level(this);
      const Token sign = Take();
      auto unary = std::make_unique<SignExpr>(sign.line, sign.text == "-");
      unary->operand = ParseUnary(false);
      Raise(unary.get(), unary->operand.get());
      node = std::move(unary);
    } else {
      node = ParsePrimary();
    }
    node = ParsePostfix(std::move(node));
    return with_filters ? ParseFilters(std::move(node)) : std::move(node);
  }

  ExprPtr ParsePrimary() {
    const Token token = current();
    switch (token.type) {
      case TokenType::kName:
        Take();
        if (token.text == "true" || token.text == "True") return Constant(token, Datum::Bool(true));
        if (token.text == "false" || token.text == "False") {
          return Constant(token, Datum::Bool(false));
        }
        if (token.text == "none" || token.text == "None") return Constant(token, Datum::None());
        return std::make_unique<NameExpr>(token.line, token.text);
      case TokenType::kString: {
        std::string text = Take().text;
        while (At(TokenType::kString)) text += Take().text;
        return Constant(token, Datum::String(std::move(text)));
      }
      case TokenType::kInteger:
        Take();
        return Constant(token, Datum::Int(ParseInteger(token)));
      case TokenType::kFloat:
        Take();
        return Constant(token, Datum::Float(std::strtod(token.text.c_str(), nullptr)));
      default:
        break;
    }
    if (SkipOp("(")) {
      const Level level(this);
      ExprPtr node = ParseTuple({}, /*conditional=*/true, /*parentheses=*/true);
      ExpectOp(")");
      return node;
    }
    if (AtOp("[")) return ParseList();
    if (AtOp("{")) return ParseDict();
    FailAt(token.line, "unexpected '" + Describe(token) + "'");
  }

  static ExprPtr Constant(const Token& token, Datum value) {
    return std::make_unique<ConstExpr>(token.line, std::move(value));
  }

  int64_t ParseInteger(const Token& token) const {
    std::string_view digits = token.text;
    int base = 10;
    if (digits.size() > 2 && digits[0] == '0' && digits[1] > '9') {
      const char kind = static_cast<char>(digits[1] | 0x20);
      base = kind == 'x' ? 16 : kind == 'o' ? 8 : 2;
      digits.remove_prefix(2);
    }
    int64_t value = 0;
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (result.ec != std::errc()) {
      FailAt(token.line, "the integer " + token.text.substr(0, 40) + " does not fit 64 bits");
    }
    return value;
  }

  ExprPtr ParseList() {
    const Level level(this);
    auto node = std::make_unique<SequenceExpr>(ExprKind::kList, Take().line);
    while (!AtOp("]")) {
      if (!node->items.empty()) ExpectOp(",");
      if (AtOp("]")) break;
      node->items.push_back(ParseExpression());
      Raise(node.get(), node->items.back().get());
    }
    ExpectOp("]");
    return node;
  }

  ExprPtr ParseDict() {
    const Level level(this);
    auto node = std::make_unique<DictExpr>(Take().line);
    while (!AtOp("}")) {
      if (!node->items.empty()) ExpectOp(",");
      if (AtOp("}")) break;
      ExprPtr key = ParseExpression();
      ExpectOp(":");
      ExprPtr value = ParseExpression();
      Raise(node.get(), key.get());
      Raise(node.get(), value.get());
      node->items.emplace_back(std::move(key), std::move(value));
    }
    ExpectOp("}");
    return node;
  }

  ExprPtr ParsePostfix(ExprPtr node) {
    while (true) {
      if (AtOp(".")) {
        node = ParseAttribute(std::move(node));
      } else if (AtOp("[")) {
        node = ParseSubscript(std::move(node));
      } else if (AtOp("(")) {
        node = ParseCall(std::move(node));
      } else {
        return node;
      }
    }
  }

  ExprPtr ParseAttribute(ExprPtr object) {
    const uint32_t line = Take().line;
    const Token name = Take();
    if (name.type == TokenType::kInteger) {
      auto node = std::make_unique<ItemExpr>(line);
      Raise(node.get(), object.get());
      node->object = std::move(object);
      node->key = Constant(name, Datum::Int(ParseInteger(name)));
      return node;
    }
    if (name.type != TokenType::kName) FailAt(name.line, "expected name or number");
    auto node = std::make_unique<AttributeExpr>(line, name.text);
    Raise(node.get(), object.get());
    node->object = std::move(object);
    return node;
  }

  ExprPtr ParseSubscript(ExprPtr object) {
    const Level level(this);
    const uint32_t line = Take().line;
    std::vector<ExprPtr> keys;
    while (!AtOp("]")) {
      if (!keys.empty()) ExpectOp(",");
      keys.push_back(ParseSubscriptKey());
    }
    ExpectOp("]");
    auto node = std::make_unique<ItemExpr>(line);
    if (keys.size() == 1) {
      node->key = std::move(keys.front());
    } else {
      auto tuple = std::make_unique<SequenceExpr>(ExprKind::kTuple, line);
      for (const ExprPtr& key : keys) {
        if (key->kind == ExprKind::kSlice) FailAt(line, "a slice can't be part of a tuple");
        Raise(tuple.get(), key.get());
      }
      tuple->items = std::move(keys);
      node->key = std::move(tuple);
    }
    Raise(node.get(), object.get());
    Raise(node.get(), node->key.get());
    node->object = std::move(object);
    return node;
  }

  ExprPtr ParseSubscriptKey() {
    const uint32_t line = current().line;
    ExprPtr start;
    if (!AtOp(":")) {
      start = ParseExpression();
      if (!AtOp(":")) return start;
    }
    ExpectOp(":");
    auto slice = std::make_unique<SliceExpr>(line);
    slice->start = std::move(start);
    if (!AtOp(":") && !AtOp("]") && !AtOp(",")) slice->stop = ParseExpression();
    if (SkipOp(":") && !AtOp("]") && !AtOp(",")) slice->step = ParseExpression();
    Raise(slice.get(), slice->start.get());
    Raise(slice.get(), slice->stop.get());
    Raise(slice.get(), slice->step.get());
    return slice;
  }

  void RaiseArguments(Expr* node, const ArgumentExprs& arguments) const {
    for (const ExprPtr& argument : arguments.positional) Raise(node, argument.get());
    for (const auto& [name, argument] : arguments.named) Raise(node, argument.get());
    Raise(node, arguments.star.get());
    Raise(node, arguments.double_star.get());
  }

  ExprPtr ParseCall(ExprPtr callee) {
    auto node = std::make_unique<CallExpr>(current().line);
    node->arguments = ParseArguments();
    Raise(node.get(), callee.get());
    RaiseArguments(node.get(), node->arguments);
    node->callee = std::move(callee);
    return node;
  }

  ArgumentExprs ParseArguments() {
    const Level level(this);
    const uint32_t line = current().line;
    const auto require = [&](bool valid) {
      if (!valid) FailAt(line, "invalid syntax for function call expression");
    };
    ExpectOp("(");
    ArgumentExprs arguments;
    for (bool first = true; !AtOp(")"); first = false) {
      if (!first) {
        ExpectOp(",");
        if (AtOp(")")) break;
      }
      if (SkipOp("*")) {
        require(!arguments.star && !arguments.double_star);
        arguments.star = ParseExpression();
      } else if (SkipOp("**")) {
        require(!arguments.double_star);
        arguments.double_star = ParseExpression();
      } else if (At(TokenType::kName) && next().type == TokenType::kOperator &&
                 next().text == "=") {
        require(!arguments.double_star);
        std::string name = Take().text;
        Take();
        if (arguments.named.size() >= kMaxArguments) Fail("too many arguments");
        for (const auto& [other, value] : arguments.named) require(other != name);
        arguments.named.emplace_back(std::move(name), ParseExpression());
      } else {
        require(!arguments.star && !arguments.double_star && arguments.named.empty());
        arguments.positional.push_back(ParseExpression());
      }
    }
    ExpectOp(")");
    return arguments;
  }

  ExprPtr ParseFilters(ExprPtr node) {
    while (true) {
      if (SkipOp("|")) {
        node = ParseFilter(std::move(node));
      } else if (AtName("is")) {
        node = ParseTest(std::move(node));
      } else if (AtOp("(")) {
        node = ParseCall(std::move(node));
      } else {
        return node;
      }
    }
  }

  std::string ParseDottedName() {
    std::string name = Expect(TokenType::kName, "a name").text;
    while (SkipOp(".")) name += "." + Expect(TokenType::kName, "a name").text;
    return name;
  }

  // After the "|". A null operand stands for the text of a filter block.
  ExprPtr ParseFilter(ExprPtr operand) {
    const uint32_t line = current().line;
    auto node = std::make_unique<ApplyExpr>(ExprKind::kFilter, line, ParseDottedName());
    node->function = FindFilter(node->name);
    if (AtOp("(")) node->arguments = ParseArguments();
    Raise(node.get(), operand.get());
    RaiseArguments(node.get(), node->arguments);
    node->operand = std::move(operand);
    return node;
  }

  bool AtTestArgument() const {
    if (At(TokenType::kName)) return !Contains({"else", "or", "and"}, current().text);
    return At(TokenType::kString) || At(TokenType::kInteger) || At(TokenType::kFloat) ||
           AtOp("[") || AtOp("{");
  }

  ExprPtr ParseTest(ExprPtr operand) {
    const uint32_t line = Take().line;
    const bool negated = SkipName("not");
    auto node = std::make_unique<ApplyExpr>(ExprKind::kTest, line, ParseDottedName());
    node->function = FindTest(node->name);
    if (AtOp("(")) {
      node->arguments = ParseArguments();
    } else if (AtTestArgument()) {
      if (AtName("is")) Fail("tests can't be chained with 'is'");
      node->arguments.positional.push_back(ParsePostfix(ParsePrimary()));
    }
    Raise(node.get(), operand.get());
    RaiseArguments(node.get(), node->arguments);
    node->operand = std::move(operand);
    if (!negated) return node;
    auto inverse = std::make_unique<NotExpr>(line);
    Raise(inverse.get(), node.get());
    inverse->operand = std::move(node);
    return inverse;
  }

  std::vector<Token> tokens_;
  size_t position_ = 0;
  const uint32_t max_nesting_;
  uint32_t nesting_ = 0;
  uint32_t loop_depth_ = 0;  // loops of the running function around the current position
};

}  // namespace

Template Parse(std::string_view source, const TemplateLimits& limits) {
  return Parser(Tokenize(source), limits.nesting).Run();
}

}  // namespace engine::text::jinja
