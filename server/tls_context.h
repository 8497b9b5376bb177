#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <mutex>
#include <string>

namespace server {

// The certificate of the server; can be renewed while it runs.
//
// Threads: any.
class TlsContext {
 public:
  // Empty paths: no TLS, and Current() is nullptr. Throws std::runtime_error naming the file and
  // what is wrong with it.
  TlsContext(std::string certificate_file, std::string key_file);

  // Reads the files again. Errors as the constructor's; the old certificate then stays.
  void Reload();
  std::shared_ptr<boost::asio::ssl::context> Current() const;

 private:
  std::string certificate_file_;
  std::string key_file_;
  mutable std::mutex mutex_;
  std::shared_ptr<boost::asio::ssl::context> current_;
};

}  // namespace server
