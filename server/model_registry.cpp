#include "server/model_registry.h"

#include <algorithm>

#include "server/api_error.h"

namespace server {

ModelRegistry::ModelRegistry(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    entries_.emplace_back();
    entries_.back().status.name = name;
  }
}

ModelRegistry::Entry* ModelRegistry::Find(std::string_view name) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.status.name == name; });
  return found == entries_.end() ? nullptr : &*found;
}

void ModelRegistry::SetProgress(std::string_view name, double fraction) {
  const std::lock_guard lock(mutex_);
  if (Entry* entry = Find(name)) entry->status.progress = fraction;
}

void ModelRegistry::SetReady(std::string_view name, std::shared_ptr<ServedModel> model) {
  const std::lock_guard lock(mutex_);
  Entry* entry = Find(name);
  if (entry == nullptr) return;
  entry->status.state = State::kReady;
  entry->status.progress = 1;
  entry->model = std::move(model);
}

void ModelRegistry::SetFailed(std::string_view name, const std::string& error) {
  const std::lock_guard lock(mutex_);
  Entry* entry = Find(name);
  if (entry == nullptr) return;
  entry->status.state = State::kFailed;
  entry->status.error = error;
}

std::shared_ptr<ServedModel> ModelRegistry::Get(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_) {
    if (!name.empty() && entry.status.name != name) continue;
    if (entry.status.state == State::kReady) return entry.model;
    if (entry.status.state == State::kLoading) {
      throw ModelLoading(entry.status.name, entry.status.progress);
    }
    throw Overloaded("The model '" + entry.status.name + "' failed to load.");
  }
  throw ModelNotFound(name);
}

std::vector<std::shared_ptr<ServedModel>> ModelRegistry::Ready() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<ServedModel>> ready;
  for (const Entry& entry : entries_) {
    if (entry.model != nullptr) ready.push_back(entry.model);
  }
  return ready;
}

std::vector<ModelRegistry::Status> ModelRegistry::Statuses() const {
  const std::lock_guard lock(mutex_);
  std::vector<Status> statuses;
  for (const Entry& entry : entries_) statuses.push_back(entry.status);
  return statuses;
}

bool ModelRegistry::AllReady() const {
  const std::lock_guard lock(mutex_);
  return std::all_of(entries_.begin(), entries_.end(),
                     [](const Entry& entry) { return entry.status.state == State::kReady; });
}

}  // namespace server
