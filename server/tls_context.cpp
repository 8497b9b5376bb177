#include "server/tls_context.h"

#include <openssl/ssl.h>

#include <stdexcept>
#include <utility>

namespace server {
namespace {

namespace ssl = boost::asio::ssl;
using boost::system::error_code;

[[noreturn]] void Refuse(const std::string& what, const std::string& path,
                         const std::string& reason) {
  throw std::runtime_error("cannot use the TLS " + what + " " + path + ": " + reason + ".");
}

// Clients that offer ALPN learn that this is HTTP/1.1; others go on without.
int ChooseHttp11(SSL*, const unsigned char** out, unsigned char* out_length,
                 const unsigned char* in, unsigned int in_length, void*) {
  static constexpr unsigned char kHttp11[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_length, kHttp11, sizeof kHttp11, in, in_length) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

std::shared_ptr<ssl::context> Load(const std::string& certificate_file,
                                   const std::string& key_file) {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  error_code error;
  context->set_options(ssl::context::default_workarounds | ssl::context::no_tlsv1 |
                       ssl::context::no_tlsv1_1 | ssl::context::no_compression);
  context->use_certificate_chain_file(certificate_file, error);
  if (error) Refuse("certificate", certificate_file, error.message());
  context->use_private_key_file(key_file, ssl::context::pem, error);
  if (error) Refuse("key", key_file, error.message());
  if (SSL_CTX_check_private_key(context->native_handle()) != 1) {
    Refuse("key", key_file, "it does not belong to the certificate " + certificate_file);
  }
  SSL_CTX_set_alpn_select_cb(context->native_handle(), ChooseHttp11, nullptr);
  return context;
}

}  // namespace

TlsContext::TlsContext(std::string certificate_file, std::string key_file)
    : certificate_file_(std::move(certificate_file)), key_file_(std::move(key_file)) {
  if (certificate_file_.empty() != key_file_.empty()) {
    throw std::runtime_error("TLS needs both a certificate and its key, but only the " +
                             std::string(key_file_.empty() ? "certificate" : "key") + " is given.");
  }
  Reload();
}

void TlsContext::Reload() {
  if (certificate_file_.empty()) return;
  auto fresh = Load(certificate_file_, key_file_);
  const std::lock_guard lock(mutex_);
  current_ = std::move(fresh);
}

std::shared_ptr<ssl::context> TlsContext::Current() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

}  // namespace server
