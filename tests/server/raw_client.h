#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace server {

// A TCP connection that sends exactly the bytes it is told to.
class RawClient {
 public:
  explicit RawClient(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      ::close(fd_);
      throw std::runtime_error("cannot connect");
    }
  }
  RawClient(RawClient&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), buffer_(std::move(other.buffer_)) {}
  RawClient& operator=(RawClient&&) = delete;
  ~RawClient() { Close(); }

  // False when the server has closed.
  bool Send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      text.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  void Close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  // Without waiting for anything: the server sees a reset.
  void Reset() {
    const linger now{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    Close();
  }
  int fd() const { return fd_; }

  // Everything until `text` has come, or until the end when it never comes.
  std::string ReadUntil(std::string_view text) {
    while (buffer_.find(text) == std::string::npos && Fill()) {
    }
    const size_t found = buffer_.find(text);
    return Take(found == std::string::npos ? buffer_.size() : found + text.size());
  }
  std::string ReadToEnd() {
    while (Fill()) {
    }
    return Take(buffer_.size());
  }

  struct Response {
    int status = 0;  // 0: the server closed without an answer
    std::string head;
    std::string body;
    std::string Header(std::string_view name) const {
      const std::string line = std::string("\r\n") + std::string(name) + ": ";
      const size_t at = head.find(line);
      if (at == std::string::npos) return {};
      const size_t begin = at + line.size();
      return head.substr(begin, head.find("\r\n", begin) - begin);
    }
  };

  // As ReadResponse(), but gives up when nothing has come for so long.
  Response ReadResponseWithin(double seconds) {
    patience_ms_ = static_cast<int>(seconds * 1e3);
    return ReadResponse();
  }

  // One answer with Content-Length or chunks (chunks joined).
  Response ReadResponse(bool head_only = false) {
    Response response;
    response.head = ReadUntil("\r\n\r\n");
    if (response.head.size() < 12) return response;
    response.status = std::atoi(response.head.c_str() + 9);
    if (head_only || response.status == 204 || response.status == 100) return response;
    if (const std::string length = response.Header("Content-Length"); !length.empty()) {
      const auto wanted = static_cast<size_t>(std::stoul(length));
      while (buffer_.size() < wanted && Fill()) {
      }
      response.body = Take(std::min(wanted, buffer_.size()));
    } else if (response.Header("Transfer-Encoding") == "chunked") {
      while (auto chunk = ReadChunk()) response.body += *chunk;
    } else {
      response.body = ReadToEnd();
    }
    return response;
  }

  // nullopt at the last chunk or when the connection breaks.
  std::optional<std::string> ReadChunk() {
    const std::string line = ReadUntil("\r\n");
    if (!line.ends_with("\r\n")) return std::nullopt;
    const size_t size = std::strtoul(line.c_str(), nullptr, 16);
    while (buffer_.size() < size + 2 && Fill()) {
    }
    if (buffer_.size() < size + 2) return std::nullopt;
    std::string chunk = Take(size);
    Take(2);
    if (size == 0) return std::nullopt;
    return chunk;
  }

 private:
  bool Fill() {
    pollfd poll_fd{.fd = fd_, .events = POLLIN, .revents = 0};
    if (::poll(&poll_fd, 1, patience_ms_) <= 0) return false;
    char bytes[4096];
    const ssize_t count = ::recv(fd_, bytes, sizeof bytes, 0);
    if (count <= 0) return false;
    buffer_.append(bytes, static_cast<size_t>(count));
    return true;
  }
  std::string Take(size_t count) {
    std::string taken = buffer_.substr(0, count);
    buffer_.erase(0, count);
    return taken;
  }

  int fd_;
  int patience_ms_ = 120'000;  // ends a test that fails, no other
  std::string buffer_;
};

inline std::string PostText(std::string_view path, std::string_view body,
                            std::string_view more_headers = "") {
  std::string text = std::string("POST ") + std::string(path) +
                     " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " +
                     std::to_string(body.size()) + "\r\n";
  text.append(more_headers).append("\r\n").append(body);
  return text;
}

inline std::string GetText(std::string_view path, std::string_view more_headers = "") {
  return std::string("GET ") + std::string(path) + " HTTP/1.1\r\nHost: x\r\n" +
         std::string(more_headers) + "\r\n";
}

}  // namespace server
