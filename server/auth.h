// Who is calling: bearer tokens from a file, else the name in a client's TLS certificate, else nobody in particular.
//
// File: one `<principal> <token>` per line, no token twice; blank lines and lines that start with # are skipped. Tokens
// are kept as SHA-256 digests and compared in constant time. Thread-safety: any thread.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace statehouse {

class Authenticator {
 public:
  // Asks for no token.
  Authenticator() = default;
  // Reads `file` at once; INVALID_ARGUMENT names file and line, NOT_FOUND the file.
  static absl::Status Load(const std::filesystem::path& file, Authenticator* out);

  // Reads the file again; on an error the tokens stay as they were.
  absl::Status Reload();
  bool required() const { return !file_.empty(); }

  // The principal of an `authorization` value ("Bearer <token>"). UNAUTHENTICATED says what is missing, never what was
  // sent.
  absl::StatusOr<std::string> Check(std::string_view authorization) const;

 private:
  using Digest = std::array<uint8_t, 32>;
  struct Entry {
    std::string principal;
    Digest digest;
  };
  static Digest DigestOf(std::string_view token);
  static absl::StatusOr<std::vector<Entry>> Read(const std::filesystem::path& file);

  std::filesystem::path file_;
  mutable std::mutex mu_;
  std::vector<Entry> entries_;  // guarded by mu_
};

}  // namespace statehouse
