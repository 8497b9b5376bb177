#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>

// Writes a fresh self-signed certificate for `name` and its key as PEM files. alternative: another
// name, as OpenSSL writes it, e.g. "IP:127.0.0.1".
inline void WriteCertificate(const std::string& name, const std::string& certificate_path,
                             const std::string& key_path, const char* alternative = nullptr) {
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"),
                                                                &EVP_PKEY_free);
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), &X509_free);
  X509_set_version(certificate.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
  X509_set_pubkey(certificate.get(), key.get());
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(certificate.get(), subject);
  if (alternative != nullptr) {
    const std::unique_ptr<X509_EXTENSION, decltype(&X509_EXTENSION_free)> names(
        X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, alternative),
        &X509_EXTENSION_free);
    X509_add_ext(certificate.get(), names.get(), -1);
  }
  X509_sign(certificate.get(), key.get(), EVP_sha256());
  const auto write = [](const std::string& path, auto save) {
    std::FILE* file = std::fopen(path.c_str(), "w");
    const bool good = file != nullptr && save(file) == 1;
    if (file != nullptr) std::fclose(file);
    if (!good) throw std::runtime_error("cannot write " + path);
  };
  write(certificate_path, [&](std::FILE* file) { return PEM_write_X509(file, certificate.get()); });
  write(key_path, [&](std::FILE* file) {
    return PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  });
}
