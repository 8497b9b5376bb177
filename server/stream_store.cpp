#include "server/stream_store.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <new>
#include <utility>

#include "server/log.h"
#include "server/random_id.h"
#include "server/sse_writer.h"

namespace server {
namespace {

constexpr size_t kPieceBytes = 64u << 10;

}  // namespace

ResumableStream::Reader::Reader(std::shared_ptr<ResumableStream> stream, uint64_t after)
    : stream_(std::move(stream)), next_(after) {
  const std::lock_guard lock(stream_->mutex_);
  if (after > stream_->produced()) {
    throw InvalidValue("after", "Invalid value for 'after': the stream has had " +
                                    std::to_string(stream_->produced()) + " events, not " +
                                    std::to_string(after) + ".");
  }
  if (after < stream_->first_) throw StreamPositionGone(stream_->first_);
  stream_->readers_.push_back(this);
  stream_->expiry_.cancel();
}

ResumableStream::Reader::~Reader() {
  const std::lock_guard lock(stream_->mutex_);
  std::erase(stream_->readers_, this);
  if (stream_->readers_.empty()) stream_->ArmExpiry();
}

bool ResumableStream::Reader::ready() const {
  const std::lock_guard lock(stream_->mutex_);
  return next_ < stream_->produced() || stream_->ended_;
}

void ResumableStream::Reader::SetNotify(std::function<void()> notify) {
  const std::lock_guard lock(stream_->mutex_);
  notify_ = std::move(notify);
}

ResumableStream::Reader::Piece ResumableStream::Reader::Take() {
  const std::lock_guard lock(stream_->mutex_);
  Piece piece;
  if (next_ < stream_->first_) {  // another reader is so far ahead that the buffer moved on
    SseWriter sse;
    sse.Data(ErrorBody(StreamPositionGone(stream_->first_)));
    piece.text = sse.Take();
    piece.ended = true;
    return piece;
  }
  if (next_ == 0) piece.refused = stream_->refused_;
  while (next_ < stream_->produced() && piece.text.size() < kPieceBytes) {
    piece.text += stream_->frames_[next_ - stream_->first_];
    ++next_;
  }
  stream_->handed_out_ = std::max(stream_->handed_out_, next_);
  piece.ended = stream_->ended_ && next_ == stream_->produced();
  return piece;
}

ResumableStream::ResumableStream(StreamStore& store, std::string id, std::string owner,
                                 std::unique_ptr<Generation> generation,
                                 std::unique_ptr<AnswerWriter> writer, StreamLimits limits,
                                 boost::asio::any_io_executor executor)
    : store_(store),
      id_(std::move(id)),
      owner_(std::move(owner)),
      limits_(limits),
      executor_(executor),
      writer_(std::move(writer)),
      generation_(std::move(generation)),
      expiry_(executor) {}

void ResumableStream::Start() {
  {
    const std::lock_guard lock(mutex_);
    generation_->queue().SetNotify([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (self == nullptr) return;
      boost::asio::post(self->executor_, [self] { self->Pump(); });
    });
  }
  Pump();  // for what came before
}

void ResumableStream::Cancel() {
  {
    const std::lock_guard lock(mutex_);
    if (!ended_) TryEnd(StreamCancelled());
  }
  NotifyReaders();
}

bool ResumableStream::abandoned() const {
  const std::lock_guard lock(mutex_);
  return ended_ && readers_.empty();
}

void ResumableStream::Pump() {
  {
    const std::lock_guard lock(mutex_);
    if (!ended_) Collect();
  }
  NotifyReaders();
}

// REQUIRES: the mutex is held, as for the following.
void ResumableStream::Collect() {
  try {
    for (const Generation::Update& update : generation_->Take()) writer_->Write(update);
    if (generation_->finished()) return TryEnd(std::nullopt);
    Append(writer_->Take());
    if (Trim()) return;
  } catch (const ApiError& error) {
    return TryEnd(error);
  } catch (const std::exception&) {
    return TryEnd(OutOfMemory());
  }
  TryEnd(Overloaded("The stream's buffer of " + std::to_string(limits_.buffer_bytes) +
                    " bytes is full of events that nobody has read."));
}

// The generation goes, and with it its model and its place among the key's requests; its events
// stay. Without memory for the last words there are none.
void ResumableStream::TryEnd(const std::optional<ApiError>& error) {
  ended_ = true;
  try {
    if (error) {
      if (produced() == 0) refused_ = error;
      writer_->Fail(*error);
    } else {
      writer_->End(generation_->usage());
    }
    Append(writer_->Take());
  } catch (const std::bad_alloc&) {
    LogError("stream " + id_ + ": no memory for its last events");
  }
  generation_.reset();
  writer_.reset();
}

void ResumableStream::Append(std::string_view text) {
  while (!text.empty()) {
    const size_t end = text.find("\n\n");
    const size_t size = end == std::string_view::npos ? text.size() : end + 2;
    frames_.emplace_back(text.substr(0, size));
    bytes_ += size;
    text.remove_prefix(size);
  }
}

// Drops what was read, where the buffer is full. False when it is full of what was not.
bool ResumableStream::Trim() {
  while (bytes_ > limits_.buffer_bytes && first_ < handed_out_) {
    bytes_ -= frames_.front().size();
    frames_.pop_front();
    ++first_;
  }
  return bytes_ <= limits_.buffer_bytes;
}

// Called where nothing may be thrown.
void ResumableStream::ArmExpiry() noexcept {
  try {
    expiry_.expires_after(Seconds(limits_.seconds));
    expiry_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
      const auto self = weak.lock();
      if (!error && self != nullptr) self->Expire();
    });
  } catch (const std::bad_alloc&) {
    // Then it stays until another reader leaves, or the server ends.
  }
}

void ResumableStream::Expire() {
  {
    const std::lock_guard lock(mutex_);
    // A reader may have come just before the timer was cancelled.
    if (!readers_.empty() || expiry_.expiry() > Clock::now()) return;
  }
  Cancel();
  store_.Remove(id_);
}

// Notifying may be as slow as a post: it is done under the mutex because a reader ends under it.
void ResumableStream::NotifyReaders() {
  const std::lock_guard lock(mutex_);
  try {
    for (Reader* reader : readers_) {
      if (reader->notify_) reader->notify_();
    }
  } catch (const std::bad_alloc&) {
    // Who waits looks now and then by itself.
  }
}

std::shared_ptr<ResumableStream> StreamStore::Add(std::string owner,
                                                  std::unique_ptr<Generation> generation,
                                                  std::unique_ptr<AnswerWriter> writer,
                                                  boost::asio::any_io_executor executor) {
  std::shared_ptr<ResumableStream> evicted;  // ends after the lock
  const std::lock_guard lock(mutex_);
  if (streams_.size() >= limits_.streams) {
    const auto oldest = std::find_if(order_.begin(), order_.end(), [this](const std::string& id) {
      return streams_.at(id)->abandoned();
    });
    if (oldest == order_.end()) {
      throw Overloaded("The server keeps " + std::to_string(limits_.streams) +
                       " resumable streams, which is its limit. Try again soon.");
    }
    evicted = std::move(streams_.extract(*oldest).mapped());
    order_.erase(oldest);
  }
  const std::string id = "strm_" + RandomHex(16);
  auto stream =
      std::make_shared<ResumableStream>(*this, id, std::move(owner), std::move(generation),
                                        std::move(writer), limits_, std::move(executor));
  streams_.emplace(id, stream);
  order_.push_back(id);
  return stream;
}

std::shared_ptr<ResumableStream> StreamStore::Find(const std::string& id,
                                                   const std::string& owner) const {
  const std::lock_guard lock(mutex_);
  const auto found = streams_.find(id);
  if (found == streams_.end() || found->second->owner() != owner) throw StreamNotFound(id);
  return found->second;
}

void StreamStore::Remove(const std::string& id) {
  std::shared_ptr<ResumableStream> removed;
  const std::lock_guard lock(mutex_);
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  removed = std::move(found->second);
  streams_.erase(found);
  std::erase(order_, id);
}

size_t StreamStore::size() const {
  const std::lock_guard lock(mutex_);
  return streams_.size();
}

void StreamStore::Clear() {
  std::map<std::string, std::shared_ptr<ResumableStream>> cleared;
  const std::lock_guard lock(mutex_);
  cleared.swap(streams_);
  order_.clear();
}

}  // namespace server
