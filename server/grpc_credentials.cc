#include "server/grpc_credentials.h"

#include <openssl/pem.h>
#include <openssl/x509.h>

#include <fstream>
#include <memory>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace statehouse {
namespace {

constexpr unsigned kRefreshSeconds = 600;

// Catches the usual mistakes here, with the flag's name; gRPC would only fail each handshake.
absl::Status CheckPem(const char* flag, const std::string& path, std::string_view kind) {
  std::ifstream in(path);
  if (!in) return absl::InvalidArgumentError(absl::StrCat(flag, ": cannot read ", path));
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (text.find("-----BEGIN ") == std::string::npos || text.find(kind) == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": ", path, " is not a PEM file with a ", std::string(kind)));
  }
  return absl::OkStatus();
}

struct CloseBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
struct FreeCertificate {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};

// A key with a password: nobody is there to type it.
int NoPassword(char*, int, int, void*) { return -1; }

// A key of another certificate would start well, and then fail every handshake.
absl::Status CheckPair(const std::string& cert_file, const std::string& key_file) {
  const std::unique_ptr<BIO, CloseBio> cert_bio(BIO_new_file(cert_file.c_str(), "r"));
  const std::unique_ptr<BIO, CloseBio> key_bio(BIO_new_file(key_file.c_str(), "r"));
  const std::unique_ptr<X509, FreeCertificate> certificate(
      cert_bio == nullptr ? nullptr : PEM_read_bio_X509_AUX(cert_bio.get(), nullptr, NoPassword, nullptr));
  const std::unique_ptr<EVP_PKEY, FreeKey> key(
      key_bio == nullptr ? nullptr : PEM_read_bio_PrivateKey(key_bio.get(), nullptr, NoPassword, nullptr));
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls-cert: ", cert_file, " holds no certificate that can be read"));
  }
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls-key: ", key_file, " holds no private key that can be read (one without a password)"));
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls-key: ", key_file, " is not the key of the first certificate in ", cert_file));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const ListenOptions& options) {
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key: give both, or neither");
  }
  if (options.tls_cert.empty()) {
    if (!options.tls_client_ca.empty()) {
      return absl::InvalidArgumentError("--tls-client-ca: needs --tls-cert and --tls-key");
    }
    return grpc::InsecureServerCredentials();
  }
  if (absl::Status status = CheckPem("--tls-cert", options.tls_cert, "CERTIFICATE"); !status.ok()) return status;
  if (absl::Status status = CheckPem("--tls-key", options.tls_key, "PRIVATE KEY"); !status.ok()) return status;
  if (absl::Status status = CheckPair(options.tls_cert, options.tls_key); !status.ok()) return status;
  if (!options.tls_client_ca.empty()) {
    if (absl::Status status = CheckPem("--tls-client-ca", options.tls_client_ca, "CERTIFICATE"); !status.ok())
      return status;
  }
  auto provider = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      options.tls_key, options.tls_cert, options.tls_client_ca, kRefreshSeconds);
  grpc::experimental::TlsServerCredentialsOptions tls(provider);
  tls.watch_identity_key_cert_pairs();
  if (options.tls_client_ca.empty()) {
    tls.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  } else {
    tls.watch_root_certs();
    tls.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(tls);
}

}  // namespace statehouse
