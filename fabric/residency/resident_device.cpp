#include "fabric/residency/resident_device.h"

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

#include "fabric/projection.h"

namespace fabric::residency {
namespace {

// What is fetched ahead of its use takes this part of the pool, but may always be two matrices.
// Room that waits for its use keeps nothing else: little is enough for the copies not to stop.
constexpr size_t kAheadPart = 8;
constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();
// fabric_cost of a miss.
constexpr double kCostPerMiss = 6;

}  // namespace

// Frames that no eviction may take while this lives.
class ResidentDevice::Locks {
 public:
  explicit Locks(std::span<Frame* const> frames) : frames_(frames) { Set(true); }
  ~Locks() { Set(false); }
  Locks(const Locks&) = delete;
  Locks& operator=(const Locks&) = delete;

 private:
  void Set(bool locked) {
    for (Frame* frame : frames_) frame->locked = locked;
  }

  std::span<Frame* const> frames_;
};

ResidentDevice::ResidentDevice(std::unique_ptr<Device> device, const FabricOptions& options,
                               const kernels::KernelTable& kernels)
    : DeviceDecorator(std::move(device)),
      account_(options.account),
      picojoules_per_byte_(options.energy.dram_byte),
      layout_(options.layout),
      kernels_(kernels),
      // A pool of less than a line would look like none.
      space_(std::max<size_t>(options.pool_bytes, kBufferAlignment)),
      pool_(space_.bytes()),
      store_(options.store),
      copies_(store_) {}

ResidentDevice::~ResidentDevice() = default;

const ResidentDevice::Frame* ResidentDevice::Find(MatrixId id) const noexcept {
  if (id.generation == 0 || id.index >= frames_.size()) return nullptr;
  const Frame& frame = frames_[id.index];
  return frame.used && frame.generation == id.generation ? &frame : nullptr;
}

ResidentDevice::Frame* ResidentDevice::Find(MatrixId id) noexcept {
  return const_cast<Frame*>(std::as_const(*this).Find(id));
}

Status ResidentDevice::Upload(Matrix matrix, MatrixId* id) {
  return Store(std::move(matrix), false, id);
}

Status ResidentDevice::UploadToHost(Matrix matrix, MatrixId* id) {
  return Store(std::move(matrix), true, id);
}

Status ResidentDevice::Store(Matrix matrix, bool on_host, MatrixId* id) {
  if (id == nullptr) return Status::kErrAddr;
  Status status = PrepareMatrix(&matrix, layout_);
  if (status != Status::kOk) return status;
  auto slot = std::find_if(frames_.begin(), frames_.end(), [](const Frame& f) { return !f.used; });
  if (slot == frames_.end()) slot = frames_.emplace(frames_.end());
  slot->shape = *ShapeOf(matrix);
  auto* ternary = std::get_if<TernaryMatrix>(&matrix);
  if (on_host) {
    status = device_->UploadToHost(std::move(matrix), &slot->inner);
  } else if (ternary != nullptr) {
    status = Keep(std::move(*ternary), &*slot);
  } else {
    status = device_->Upload(std::move(matrix), &slot->inner);
  }
  if (status != Status::kOk) return status;
  slot->used = true;
  const auto index = static_cast<uint32_t>(slot - frames_.begin());
  *id = {index, slot->generation};
  if (slot->shell) {
    slot->born = use_clock_;
    JoinCircle(index);
    Fetch(&*slot, false, kNever);  // while there is room
    Publish();
  }
  return Status::kOk;
}

Status ResidentDevice::Keep(TernaryMatrix matrix, Frame* frame) {
  if (matrix.image_bytes() > space_.bytes()) return Status::kErrNoMem;
  const Status status = store_.Put(matrix, &frame->image);
  if (status != Status::kOk) return status;
  matrix.DropWeights();
  largest_ = std::max(largest_, frame->image.bytes);
  frame->shell.emplace(std::move(matrix));
  ++shells_;
  ++absent_;
  return Status::kOk;
}

// What is uploaded one after the other is expected to be used so, round and round.
void ResidentDevice::JoinCircle(uint32_t index) {
  if (first_uploaded_ == kNone) first_uploaded_ = index;
  if (last_uploaded_ != kNone) frames_[last_uploaded_].successor = index;
  frames_[index].successor = first_uploaded_;
  last_uploaded_ = index;
}

Status ResidentDevice::Free(MatrixId id) noexcept {
  Frame* frame = Find(id);
  if (frame == nullptr) return Status::kErrStale;
  if (frame->shell) {
    if (frame->pinned) pinned_bytes_ -= frame->image.bytes;
    if (frame->place) Evict(frame);
    --shells_;
    --absent_;
    store_.Drop(&frame->image);
    const auto forget = [&](uint32_t* index) {
      if (*index == id.index) *index = kNone;
    };
    for (uint32_t* index : {&first_uploaded_, &last_uploaded_, &last_used_}) forget(index);
    for (Frame& other : frames_) forget(&other.successor);
    Publish();
  } else {
    device_->Free(frame->inner);
  }
  const uint32_t generation = frame->generation + 1;
  *frame = {};
  frame->generation = generation;
  // A slot whose generations are used up is never given out again.
  frame->used = generation == 0;
  return Status::kOk;
}

Status ResidentDevice::Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept {
  const auto shape_of = [&](MatrixId id) {
    const Frame* frame = Find(id);
    return frame == nullptr ? std::nullopt : std::optional(frame->shape);
  };
  Status status = Status::kErrAddr;
  bool ours = true;  // what goes wrong inside is counted there
  try {
    if (ticket != nullptr) status = CheckShapes(shape_of, ops);
    if (status == Status::kOk) {
      if (use_clock_ == 0 && absent_ > 0) SpreadOut();
      missed_.clear();
      for (const ProjectionOp& op : ops) NoteUse(op);
      status = Run(ops, &ours);
    }
  } catch (const std::bad_alloc&) {
    status = Status::kErrNoMem;
  }
  Publish();
  if (status == Status::kOk) {
    *ticket = ++last_ticket_;
  } else if (ours) {
    book_.CountFault(status);
  }
  return status;
}

// Submit() returns after the work is done, so every ticket that it gave out is complete.
Status ResidentDevice::Wait(Ticket ticket) noexcept {
  return ticket >= 1 && ticket <= last_ticket_ ? Status::kOk : Status::kErrAddr;
}

// Before the first use: what stays is to lie evenly along the circle, so that there is something to
// copy all the time and never much at once. What fetches and evicts from then on leaves it so.
void ResidentDevice::SpreadOut() {
  size_t total = 0;
  for (const Frame& frame : frames_) total += frame.image.bytes;
  const size_t room = space_.bytes() - std::min(space_.bytes(), AheadBytes());
  const double share = static_cast<double>(room) / static_cast<double>(total);
  size_t passed = 0;
  size_t kept = 0;
  std::vector<Frame*> wanted;
  for (Frame& frame : frames_) {
    if (!frame.shell) continue;
    passed += frame.image.bytes;
    const auto due = static_cast<size_t>(share * static_cast<double>(passed));
    if (frame.pinned || kept + frame.image.bytes <= due) {
      kept += frame.image.bytes;
      wanted.push_back(&frame);
    } else if (frame.place) {
      Evict(&frame);
    }
  }
  for (Frame* frame : wanted) {
    if (!frame->place) Fetch(frame, false, kNever);
  }
}

size_t ResidentDevice::AheadBytes() const {
  return std::max(space_.bytes() / kAheadPart, 2 * largest_);
}

// As many chains at a time as the pool holds together; mostly all.
Status ResidentDevice::Run(std::span<const ProjectionOp> ops, bool* ours) {
  for (size_t begin = 0; begin < ops.size();) {
    size_t end = begin;
    for (size_t next = begin; next < ops.size();) {
      ++next;
      while (next < ops.size() && IsChained(ops[next].epilogue)) ++next;
      if (end > begin && !Fits(ops.subspan(begin, next - begin))) break;
      end = next;
    }
    const Status status = RunSome(ops.subspan(begin, end - begin), ours);
    if (status != Status::kOk) return status;
    begin = end;
  }
  return Status::kOk;
}

// Whether the pool could hold what these ops need beside what is pinned.
bool ResidentDevice::Fits(std::span<const ProjectionOp> ops) const {
  if (absent_ == 0) return true;
  size_t bytes = pinned_bytes_;
  for (size_t i = 0; i < ops.size(); ++i) {
    const Frame* frame = Find(ops[i].matrix);
    const bool again = std::any_of(ops.begin(), ops.begin() + static_cast<ptrdiff_t>(i),
                                   [&](const auto& op) { return Find(op.matrix) == frame; });
    if (frame->shell && !frame->pinned && !again) bytes += frame->image.bytes;
  }
  return bytes <= space_.bytes();
}

Status ResidentDevice::RunSome(std::span<const ProjectionOp> ops, bool* ours) {
  if (Fits(ops)) {
    const std::vector<Frame*> frames = FramesOf(ops);
    const Locks locks(frames);
    const Status status = Acquire(frames);
    if (status == Status::kOk) {
      FetchAhead();
      *ours = false;
      return RunResident(ops);
    }
    if (status != Status::kErrNoMem) return status;
  }
  // They do not fit together, or what is pinned lies in their way.
  const bool one_chain = std::all_of(ops.begin() + 1, ops.end(),
                                     [](const auto& op) { return IsChained(op.epilogue); });
  if (one_chain) return ops.size() > 1 ? RunApart(ops, ours) : Status::kErrNoMem;
  for (size_t begin = 0; begin < ops.size();) {
    size_t end = begin + 1;
    while (end < ops.size() && IsChained(ops[end].epilogue)) ++end;
    const Status status = RunSome(ops.subspan(begin, end - begin), ours);
    if (status != Status::kOk) return status;
    begin = end;
  }
  return Status::kOk;
}

// One op after the other; an epilogue that reads what the one before wrote runs here.
Status ResidentDevice::RunApart(std::span<const ProjectionOp> chain, bool* ours) {
  for (const ProjectionOp& op : chain) {
    const bool chained = IsChained(op.epilogue);
    const uint32_t rows = Find(op.matrix)->shape.rows;
    ProjectionOp plain = op;
    if (chained) {
      staging_.resize(size_t{op.x->tokens} * rows);
      plain = {.matrix = op.matrix, .x = op.x, .y = staging_.data(), .y_stride = rows};
    }
    const Status status = RunSome({&plain, 1}, ours);
    if (status != Status::kOk) return status;
    for (uint32_t token = 0; chained && token < op.x->tokens; ++token) {
      kernels_.floats.apply_epilogue(TileEpilogueOf(op.epilogue),
                                     staging_.data() + size_t{token} * rows, op.bias, rows,
                                     op.y + token * op.y_stride);
    }
  }
  return Status::kOk;
}

Status ResidentDevice::RunResident(std::span<const ProjectionOp> ops) {
  inner_ops_.assign(ops.begin(), ops.end());
  for (ProjectionOp& op : inner_ops_) op.matrix = Find(op.matrix)->inner;
  return Execute(*device_, inner_ops_);
}

void ResidentDevice::NoteUse(const ProjectionOp& op) {
  Frame* frame = Find(op.matrix);
  if (!frame->shell || op.x->tokens == 0) return;
  const bool here =
      frame->place.has_value() || std::find(missed_.begin(), missed_.end(), frame) != missed_.end();
  if (!here) missed_.push_back(frame);
  ++(here ? counted_.residency_hits : counted_.residency_misses);
  if (std::exchange(frame->ahead, false)) ++counted_.prefetches_used;
  ++use_clock_;
  if (frame->last_use > 0) frame->interval = use_clock_ - frame->last_use;
  frame->last_use = use_clock_;
  if (last_used_ != kNone && last_used_ != op.matrix.index) {
    frames_[last_used_].successor = op.matrix.index;
  }
  last_used_ = op.matrix.index;
}

std::vector<ResidentDevice::Frame*> ResidentDevice::FramesOf(std::span<const ProjectionOp> ops) {
  std::vector<Frame*> frames;
  for (const ProjectionOp& op : ops) {
    Frame* frame = Find(op.matrix);
    const bool listed = std::find(frames.begin(), frames.end(), frame) != frames.end();
    if (frame->shell && !listed) frames.push_back(frame);
  }
  return frames;
}

// All of them in the pool and known to the device inside. REQUIRES: they are locked.
Status ResidentDevice::Acquire(std::span<Frame* const> frames) {
  if (!PlaceAll(frames)) {
    // There would be room, but in pieces.
    EvictAll();
    if (!PlaceAll(frames)) return Status::kErrNoMem;
  }
  for (Frame* frame : frames) {
    if (frame->job) {
      const bool read = copies_.Finish(*frame->job);
      frame->job.reset();
      counted_.fetched_bytes += frame->image.bytes;
      if (!read) {
        Evict(frame);
        return Status::kErrGone;
      }
    }
    if (frame->inner.generation != 0) continue;
    const auto image = std::span(pool_).subspan(*frame->place, frame->image.bytes);
    const Status status = device_->Upload(frame->shell->ViewImage(image), &frame->inner);
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

bool ResidentDevice::PlaceAll(std::span<Frame* const> frames) {
  return std::all_of(frames.begin(), frames.end(), [&](Frame* frame) {
    return frame->place.has_value() || Fetch(frame, true, 0);
  });
}

// Begins to copy it into the pool, in place of what is expected later than in so many uses.
bool ResidentDevice::Fetch(Frame* frame, bool urgent, uint64_t expected_in) {
  std::optional<size_t> place = space_.Take(frame->image.bytes);
  while (!place) {
    Frame* victim = ChooseVictim(expected_in);
    if (victim == nullptr) return false;
    Evict(victim);
    place = space_.Take(frame->image.bytes);
  }
  frame->place = place;
  --absent_;
  frame->job =
      copies_.Start(frame->image, std::span(pool_).subspan(*place, frame->image.bytes), urgent);
  return true;
}

// Begins to copy what is expected after the last op, as far as that is known, the pool has room for
// it and nothing that is needed sooner has to go.
void ResidentDevice::FetchAhead() {
  if (absent_ == 0 || last_used_ == kNone) return;
  size_t bytes = 0;
  for (const Frame& frame : frames_) {
    if (frame.ahead) bytes += frame.image.bytes;
  }
  uint32_t index = frames_[last_used_].successor;
  for (uint64_t distance = 1; index != kNone && index != last_used_ && distance <= frames_.size();
       ++distance) {
    Frame& frame = frames_[index];
    if (!frame.place) {
      bytes += frame.image.bytes;
      if (bytes > AheadBytes() || !Fetch(&frame, false, distance)) return;
      frame.ahead = true;
    }
    index = frame.successor;
  }
}

// The one that is expected latest of those that are later than in so many uses. What is fetched
// ahead goes for an op that waits (0) only when there is nothing else.
ResidentDevice::Frame* ResidentDevice::ChooseVictim(uint64_t expected_in) {
  Frame* victim = nullptr;
  uint64_t latest = expected_in;
  for (Frame& frame : frames_) {
    if (!frame.place || frame.locked || frame.pinned) continue;
    const uint64_t expected = frame.ahead ? 0 : ExpectedIn(frame);
    if (expected > latest || (victim == nullptr && expected_in == 0)) {
      victim = &frame;
      latest = expected;
    }
  }
  return victim;
}

// Uses until its next one: as many after the last as that came after the one before, or a whole
// round. What did not come when it was expected is believed to be away for as long again.
uint64_t ResidentDevice::ExpectedIn(const Frame& frame) const {
  const uint64_t last = frame.last_use > 0 ? frame.last_use : frame.born;
  const uint64_t next = last + (frame.interval > 0 ? frame.interval : shells_);
  return next > use_clock_ ? next - use_clock_ : use_clock_ - next;
}

// REQUIRES: it has a place, and no op reads it.
void ResidentDevice::Evict(Frame* frame) noexcept {
  if (frame->inner.generation != 0) device_->Free(std::exchange(frame->inner, {}));
  const bool never_begun = frame->job && copies_.Cancel(*frame->job);
  if (!never_begun) {
    if (frame->job) {
      copies_.Finish(*frame->job);
      counted_.fetched_bytes += frame->image.bytes;
    }
    ++counted_.evictions;
    if (frame->ahead) ++counted_.prefetches_wasted;
  }
  frame->job.reset();
  frame->ahead = false;
  space_.Give(*frame->place, frame->image.bytes);
  frame->place.reset();
  ++absent_;
}

void ResidentDevice::EvictAll() noexcept {
  for (Frame& frame : frames_) {
    if (frame.place && !frame.pinned) Evict(&frame);
  }
}

Status ResidentDevice::SetPinned(MatrixId id, bool pinned) noexcept {
  Frame* frame = Find(id);
  if (frame == nullptr) return Status::kErrStale;
  if (!frame->shell || frame->pinned == pinned) return Status::kOk;
  Status status = Status::kOk;
  if (pinned) {
    try {
      // To the bottom, where it will not be in the way.
      EvictAll();
      const Locks lock({&frame, 1});
      status = Acquire({&frame, 1});
    } catch (const std::bad_alloc&) {
      status = Status::kErrNoMem;
    }
  }
  if (status == Status::kOk) {
    frame->pinned = pinned;
    frame->ahead = false;
    pinned_bytes_ += pinned ? frame->image.bytes : size_t{0} - frame->image.bytes;
  }
  Publish();
  return status;
}

Residency ResidentDevice::residency(MatrixId id) const noexcept {
  const Frame* frame = Find(id);
  if (frame == nullptr) return {.place = MatrixPlace::kHost};
  if (!frame->shell) return device_->residency(frame->inner);
  const bool here = frame->place && (!frame->job || copies_.Ended(*frame->job));
  return {.place = here ? MatrixPlace::kPool : MatrixPlace::kOutside, .pinned = frame->pinned};
}

void ResidentDevice::Settle() noexcept {
  try {
    if (use_clock_ == 0 && absent_ > 0) SpreadOut();
    for (const Frame& frame : frames_) {
      // Whether it could be read is told when it is used.
      if (frame.job) copies_.Await(*frame.job);
    }
  } catch (const std::bad_alloc&) {
    // It begins with what is there.
  }
  Publish();
}

PoolFacts ResidentDevice::pool() const noexcept {
  return {.bytes = space_.bytes(), .in_file = store_.in_file()};
}

// What was counted since the last time, into the account.
void ResidentDevice::Publish() noexcept {
  if (account_) {
    counted_.fabric_cost = kCostPerMiss * static_cast<double>(counted_.residency_misses);
    counted_.energy_picojoules = picojoules_per_byte_ * static_cast<double>(counted_.fetched_bytes);
  }
  book_.Add(std::exchange(counted_, {}));
}

DeviceCounters ResidentDevice::Counters() const noexcept {
  DeviceCounters sum = book_.Read();
  const CopyEngine::Seconds seconds = copies_.seconds();
  sum.fetch_seconds = seconds.copying;
  sum.fetch_wait_seconds = seconds.waiting;
  AddCounters(device_->Counters(), &sum);
  return sum;
}

}  // namespace fabric::residency
