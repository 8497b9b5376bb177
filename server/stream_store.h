#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/answer_writer.h"
#include "server/generation.h"
#include "server/wake_source.h"

namespace server {

struct StreamLimits {
  uint64_t buffer_bytes = 1u << 20;  // of one stream's events
  double seconds = 120;              // that a stream is kept after its last reader has left
  uint32_t streams = 256;            // kept at the same time
};

class StreamStore;

// An answer that goes on without its connection: events are numbered 1, 2, ... and kept, so that a
// client that lost its connection reads on where it was. Comments are no events.
//
// Bound:   at most buffer_bytes of events. Those that a reader was given are dropped first; when
//          the rest fills the buffer, nobody reads, and the generation ends with an error event.
// End:     `seconds` after the last reader has left the stream is forgotten and its request, if it
//          still runs, cancelled.
// Threads: any.
class ResumableStream : public std::enable_shared_from_this<ResumableStream> {
 public:
  // Reads the events from a given place on, as a connection does.
  //
  // Threads: one; SetNotify's function is called on any.
  class Reader : public WakeSource {
   public:
    // after: events that the client has already. Throws ApiError when they are not kept any more,
    // or there have not been so many.
    Reader(std::shared_ptr<ResumableStream> stream, uint64_t after);
    ~Reader() override;
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    bool ready() const override;
    void SetNotify(std::function<void()> notify) override;

    struct Piece {
      std::string text;    // whole events
      bool ended = false;  // they are the last ones
      // With `ended`: the stream failed before its first event, and text tells it.
      std::optional<ApiError> refused;
    };
    // What has come, at most some 64 KiB of it.
    Piece Take();

   private:
    friend class ResumableStream;
    const std::shared_ptr<ResumableStream> stream_;
    uint64_t next_;  // number of the next event, from 0
    std::function<void()> notify_;
  };

  ResumableStream(StreamStore& store, std::string id, std::string owner,
                  std::unique_ptr<Generation> generation, std::unique_ptr<AnswerWriter> writer,
                  StreamLimits limits, boost::asio::any_io_executor executor);

  const std::string& id() const { return id_; }
  const std::string& owner() const { return owner_; }

  // Begins to collect events. REQUIRES: the generation was submitted.
  void Start();
  // Its request is cancelled, its readers see the end.
  void Cancel();
  // Ended, and nobody reads it.
  bool abandoned() const;

 private:
  void Pump();
  void Collect();
  void TryEnd(const std::optional<ApiError>& error);
  void Append(std::string_view text);
  bool Trim();
  void ArmExpiry() noexcept;
  void Expire();
  void NotifyReaders();
  uint64_t produced() const { return first_ + frames_.size(); }

  StreamStore& store_;
  const std::string id_;
  const std::string owner_;  // name of the API key
  const StreamLimits limits_;
  const boost::asio::any_io_executor executor_;

  mutable std::mutex mutex_;                // of all that follows
  std::unique_ptr<AnswerWriter> writer_;    // until the end
  std::unique_ptr<Generation> generation_;  // until the end; goes before the writer
  std::deque<std::string> frames_;
  uint64_t first_ = 0;       // number of frames_.front()
  uint64_t handed_out_ = 0;  // events before this were given to a reader
  uint64_t bytes_ = 0;
  bool ended_ = false;
  std::optional<ApiError> refused_;
  std::vector<Reader*> readers_;
  boost::asio::steady_timer expiry_;
};

// The resumable streams of a server, by id.
//
// Threads: any. Clear() before the executor of the streams goes.
class StreamStore {
 public:
  explicit StreamStore(StreamLimits limits) : limits_(limits) {}

  // Errors: ApiError when too many are kept and none of them has ended.
  std::shared_ptr<ResumableStream> Add(std::string owner, std::unique_ptr<Generation> generation,
                                       std::unique_ptr<AnswerWriter> writer,
                                       boost::asio::any_io_executor executor);
  // Errors: ApiError stream_not_found, also for the streams of others.
  std::shared_ptr<ResumableStream> Find(const std::string& id, const std::string& owner) const;
  void Remove(const std::string& id);
  size_t size() const;
  void Clear();

 private:
  const StreamLimits limits_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<ResumableStream>> streams_;
  std::deque<std::string> order_;  // of the ids, oldest first
};

}  // namespace server
