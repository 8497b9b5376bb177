#pragma once

#include <coroutine>
#include <cstddef>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace server {

// What separates words and JSON's tokens.
inline constexpr std::string_view kWhiteSpace = " \t\r\n";

// Text that arrives in pieces, read byte by byte by coroutines. A parser is written as if the whole
// text were there; where it ends early the coroutine waits. So what a parser does cannot depend on
// where the text was cut.
//
// Threads: one at a time.
class TextFeed {
 public:
  static constexpr int kEnd = -1;

  TextFeed() = default;
  TextFeed(const TextFeed&) = delete;
  TextFeed& operator=(const TextFeed&) = delete;

  class Reading {
   public:
    Reading(TextFeed& feed, bool consume) : feed_(feed), consume_(consume) {}
    bool await_ready() const noexcept {
      return feed_.ended_ || feed_.position_ < feed_.text_.size();
    }
    void await_suspend(std::coroutine_handle<>) noexcept { feed_.waits_ = true; }
    int await_resume() const { return feed_.Read(consume_); }

   private:
    TextFeed& feed_;
    bool consume_;
  };
  // The next byte, 0 to 255, or kEnd.
  Reading Next() { return {*this, true}; }
  Reading Peek() { return {*this, false}; }

  // Keeps what is read from here on, for a parser that may have to give it back.
  void StartRecording(std::string before = {}) {
    recording_ = true;
    recorded_ = std::move(before);
  }
  void StopRecording() {
    recording_ = false;
    recorded_.clear();
  }
  std::string TakeRecorded() {
    recording_ = false;
    return std::exchange(recorded_, {});
  }

  // The coroutine that runs next. Push() and End() run it until it waits for more text.
  void SetCurrent(std::coroutine_handle<> coroutine) { current_ = coroutine; }
  void Push(std::string_view text) {
    text_.erase(0, position_);
    position_ = 0;
    text_ += text;
    if (!text_.empty()) Run();
  }
  void End() {
    ended_ = true;
    Run();
  }

 private:
  int Read(bool consume) {
    if (position_ == text_.size()) return kEnd;
    const auto byte = static_cast<unsigned char>(text_[position_]);
    if (consume) {
      ++position_;
      if (recording_) recorded_ += static_cast<char>(byte);
    }
    return byte;
  }
  // A loop, not a chain of resumptions: the stack does not grow with the text.
  void Run() {
    waits_ = false;
    while (current_ && !waits_) current_.resume();
  }

  std::string text_;
  size_t position_ = 0;
  bool ended_ = false;
  bool waits_ = false;
  bool recording_ = false;
  std::string recorded_;
  std::coroutine_handle<> current_;
};

// A part of a parser: starts when awaited, then the awaiting one goes on with its result. Its class
// has a member feed().
template <typename T>
class ParserTask {
 public:
  struct promise_type {
    template <typename Self, typename... Args>
    explicit promise_type(Self& self, const Args&...) : feed(self.feed()) {}

    struct Finish {
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<promise_type> done) const noexcept {
        done.promise().feed.SetCurrent(done.promise().parent);
      }
      void await_resume() const noexcept {}
    };

    ParserTask get_return_object() { return ParserTask(Handle::from_promise(*this)); }
    std::suspend_always initial_suspend() const noexcept { return {}; }
    Finish final_suspend() const noexcept { return {}; }
    void return_value(T value) { result = std::move(value); }
    void unhandled_exception() { error = std::current_exception(); }

    TextFeed& feed;
    std::coroutine_handle<> parent;
    std::optional<T> result;
    std::exception_ptr error;
  };
  using Handle = std::coroutine_handle<promise_type>;

  ParserTask(ParserTask&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  ParserTask& operator=(ParserTask&&) = delete;
  ~ParserTask() {
    if (handle_) handle_.destroy();
  }

  // Of the outermost parser: makes it the one that runs. The task is kept as long as the feed.
  void Begin() { handle_.promise().feed.SetCurrent(handle_); }
  // Of the outermost parser: an exception ends it and is told here.
  void Check() const {
    if (handle_.promise().error) std::rethrow_exception(handle_.promise().error);
  }

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> parent) {
    handle_.promise().parent = parent;
    Begin();
  }
  T await_resume() {
    Check();
    return std::move(*handle_.promise().result);
  }

 private:
  explicit ParserTask(Handle handle) : handle_(handle) {}

  Handle handle_;
};

}  // namespace server
