#pragma once

#include <functional>

namespace server {

// What a handler can wait for beside its client (HttpExchange::WaitFor): token events, a model.
//
// Threads: any.
class WakeSource {
 public:
  virtual ~WakeSource() = default;

  // Waiting is over: there is something to take.
  virtual bool ready() const = 0;
  // Called after ready() became true, on the thread that made it so; must not block. Replaces the
  // former one; an empty function is allowed.
  virtual void SetNotify(std::function<void()> notify) = 0;
};

}  // namespace server
