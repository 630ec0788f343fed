#include "server/auth.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <fstream>
#include <map>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

constexpr std::string_view kScheme = "Bearer ";
// Short tokens can be guessed.
constexpr size_t kMinTokenBytes = 16;

}  // namespace

Authenticator::Digest Authenticator::DigestOf(std::string_view token) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());
  return digest;
}

absl::StatusOr<std::vector<Authenticator::Entry>> Authenticator::Read(const std::filesystem::path& file) {
  std::ifstream in(file);
  if (!in) return absl::NotFoundError(absl::StrCat("--auth-tokens-file: cannot read ", file.string()));
  std::vector<Entry> entries;
  std::map<Digest, int> line_of;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    std::istringstream words(line);
    std::string principal, token, rest;
    if (!(words >> principal) || principal.front() == '#') continue;
    // The line itself may hold a secret: say where it is, not what it says.
    const std::string where = absl::StrCat("--auth-tokens-file: ", file.string(), ":", number, ": ");
    if (!(words >> token) || words >> rest) {
      return absl::InvalidArgumentError(where + "expected two words: a principal and its token");
    }
    if (token.size() < kMinTokenBytes) {
      return absl::InvalidArgumentError(absl::StrCat(where, "the token of ", principal, " has ", token.size(),
                                                     " bytes; use at least ", kMinTokenBytes,
                                                     " (openssl rand -hex 32)"));
    }
    const Digest digest = DigestOf(token);
    if (const auto [earlier, is_new] = line_of.emplace(digest, number); !is_new) {
      return absl::InvalidArgumentError(absl::StrCat(where, "the token is that of line ", earlier->second,
                                                     " too; give each line a token of its own (openssl rand -hex 32)"));
    }
    entries.push_back({std::move(principal), digest});
  }
  if (entries.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--auth-tokens-file: ", file.string(),
                     " holds no token; nobody could call (one `<principal> <token>` per line)"));
  }
  return entries;
}

absl::Status Authenticator::Load(const std::filesystem::path& file, Authenticator* out) {
  out->file_ = file;
  return out->Reload();
}

absl::Status Authenticator::Reload() {
  if (!required()) return absl::OkStatus();
  absl::StatusOr<std::vector<Entry>> entries = Read(file_);
  if (!entries.ok()) return entries.status();
  std::lock_guard<std::mutex> lock(mu_);
  entries_ = *std::move(entries);
  return absl::OkStatus();
}

absl::StatusOr<std::string> Authenticator::Check(std::string_view authorization) const {
  if (!authorization.starts_with(kScheme)) {
    return absl::UnauthenticatedError("this server asks for a token: send metadata `authorization: Bearer <token>`");
  }
  const Digest digest = DigestOf(authorization.substr(kScheme.size()));
  const Entry* found = nullptr;
  std::lock_guard<std::mutex> lock(mu_);
  for (const Entry& entry : entries_) {  // all of them, so that the time tells nothing
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) found = &entry;
  }
  if (found == nullptr)
    return absl::UnauthenticatedError("the token is not one of this server's; ask its operator for one");
  return found->principal;
}

}  // namespace statehouse
