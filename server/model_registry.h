#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "server/served_model.h"

namespace server {

// The models by name, in the order of the command line; the first is the default.
//
// Threads: any. A returned model stays usable while the caller holds it.
class ModelRegistry {
 public:
  enum class State { kLoading, kReady, kFailed };
  struct Status {
    std::string name;
    State state = State::kLoading;
    double progress = 0;  // 0..1
    std::string error;    // kFailed
  };

  // Names are unique; kLoading until SetReady() or SetFailed().
  explicit ModelRegistry(const std::vector<std::string>& names);

  void SetProgress(std::string_view name, double fraction);
  void SetReady(std::string_view name, std::shared_ptr<ServedModel> model);
  void SetFailed(std::string_view name, const std::string& error);

  // Empty name = the default. Throws ApiError model_not_found or model_loading.
  std::shared_ptr<ServedModel> Get(std::string_view name) const;
  std::vector<std::shared_ptr<ServedModel>> Ready() const;
  std::vector<Status> Statuses() const;
  bool AllReady() const;

 private:
  struct Entry {
    Status status;
    std::shared_ptr<ServedModel> model;
  };
  Entry* Find(std::string_view name);

  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
};

}  // namespace server
