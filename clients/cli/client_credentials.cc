#include "clients/cli/client_credentials.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "clients/cli/input_file.h"
#include "clients/cli/server_address.h"

namespace statehouse::cli {
namespace {

constexpr int64_t kMostPemBytes = 16 << 20;

struct CloseBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
struct FreeCertificate {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using Certificate = std::unique_ptr<X509, FreeCertificate>;

// A key with a password: nobody is asked for it.
int NoPassword(char*, int, int, void*) { return -1; }

std::unique_ptr<BIO, CloseBio> BioOf(const std::string& text) {
  return std::unique_ptr<BIO, CloseBio>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

Certificate FirstCertificate(const std::string& pem) {
  const auto bio = BioOf(pem);
  return Certificate(bio == nullptr ? nullptr : PEM_read_bio_X509_AUX(bio.get(), nullptr, NoPassword, nullptr));
}

absl::Status NoCertificate(const char* flag, const std::string& path) {
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", path, " holds no certificate that can be read (PEM)"));
}

absl::Status CheckPair(const ConnectionOptions& options, const grpc::SslCredentialsOptions& ssl) {
  const Certificate certificate = FirstCertificate(ssl.pem_cert_chain);
  if (certificate == nullptr) return NoCertificate("--tls-client-cert", options.tls_cert);
  const auto bio = BioOf(ssl.pem_private_key);
  const std::unique_ptr<EVP_PKEY, FreeKey> key(
      bio == nullptr ? nullptr : PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassword, nullptr));
  if (key == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("--tls-client-key: ", options.tls_key,
                                                   " holds no private key that can be read (PEM, without a password)"));
  }
  if (X509_check_private_key(certificate.get(), key.get()) == 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--tls-client-key: ", options.tls_key,
                                                 " is not the key of the first certificate in ", options.tls_cert));
}

absl::Status ReadTlsFiles(const ConnectionOptions& options, grpc::SslCredentialsOptions* ssl) {
  for (const auto& [flag, path, contents] : {std::tuple{"--tls-ca", &options.tls_ca, &ssl->pem_root_certs},
                                             std::tuple{"--tls-client-cert", &options.tls_cert, &ssl->pem_cert_chain},
                                             std::tuple{"--tls-client-key", &options.tls_key, &ssl->pem_private_key}}) {
    if (path->empty()) continue;
    absl::StatusOr<std::string> text = ReadInput(flag, *path, kMostPemBytes);
    if (!text.ok()) return text.status();
    *contents = *std::move(text);
  }
  if (!options.tls_ca.empty() && FirstCertificate(ssl->pem_root_certs) == nullptr) {
    return NoCertificate("--tls-ca", options.tls_ca);
  }
  return options.tls_cert.empty() ? absl::OkStatus() : CheckPair(options, *ssl);
}

absl::Status CheckToken(const ConnectionOptions& options) {
  if (!IsMetadata(options.token)) {
    return absl::InvalidArgumentError("--token: holds a character that is not allowed; expected printable ASCII");
  }
  if (SpeaksTls(options) || options.token.empty() || options.token_in_clear || IsLocal(options.address)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--token: it would go to ", options.address,
                   " unencrypted, for everybody on the way to read; add --tls or --tls-ca, or --token-in-clear if "
                   "something else encrypts"));
}

}  // namespace

bool SpeaksTls(const ConnectionOptions& options) {
  return !IsSocketFile(options.address) && (options.tls || !options.tls_ca.empty() || !options.tls_cert.empty());
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(const ConnectionOptions& options) {
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return absl::InvalidArgumentError("--tls-client-cert and --tls-client-key belong together: give both or neither");
  }
  if (absl::Status status = CheckToken(options); !status.ok()) return status;
  if (!SpeaksTls(options)) return grpc::InsecureChannelCredentials();
  if (!IsMetadata(options.tls_server_name)) {
    return absl::InvalidArgumentError(
        "--tls-server-name: holds a character that is not allowed; expected printable ASCII");
  }
  grpc::SslCredentialsOptions ssl;
  const absl::Status status = ReadTlsFiles(options, &ssl);
  ERR_clear_error();  // what OpenSSL noted while it looked for something is not the next handshake's
  if (!status.ok()) return status;
  return grpc::SslCredentials(ssl);
}

}  // namespace statehouse::cli
