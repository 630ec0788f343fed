#include "clients/cli/server_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace statehouse::cli {
namespace {

constexpr std::string_view kUnix = "unix:";

bool IsHostName(std::string_view host) {
  return !host.empty() && std::all_of(host.begin(), host.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' || c == '_';
  });
}

bool IsBracketed(std::string_view host) { return host.size() > 2 && host.front() == '[' && host.back() == ']'; }

// With a zone, as in "fe80::1%eth0", or without.
bool IsV6(std::string_view host) {
  const std::string number(host.substr(0, host.find('%')));
  in6_addr v6{};
  return inet_pton(AF_INET6, number.c_str(), &v6) == 1;
}

bool IsPort(const std::string& text) {
  int port = 0;
  const bool is_number =
      !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  return is_number && absl::SimpleAtoi(text, &port) && port >= 1 && port <= 65535;
}

}  // namespace

bool IsSocketFile(const std::string& address) { return address.starts_with(kUnix); }

bool IsLocal(const std::string& address) {
  if (IsSocketFile(address)) return true;
  std::string host = address.substr(0, address.rfind(':'));
  if (host == "localhost") return true;
  if (IsBracketed(host)) host = host.substr(1, host.size() - 2);
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  in6_addr v6{};
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

absl::Status CheckAddress(const std::string& address) {
  const auto refuse = [&](const std::string& expected) {
    return absl::InvalidArgumentError(
        absl::StrCat("--address: \"", address, "\" is not an address; expected ", expected));
  };
  constexpr char kForms[] = "host:port, [v6]:port or unix:PATH";
  if (IsSocketFile(address)) {
    constexpr size_t kMostPathBytes = sizeof(sockaddr_un::sun_path) - 1;
    const size_t path_bytes = address.size() - kUnix.size();
    if (path_bytes >= 1 && path_bytes <= kMostPathBytes) return absl::OkStatus();
    return refuse(absl::StrCat("a path of 1 to ", kMostPathBytes, " bytes behind unix:"));
  }
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return refuse(kForms);
  const std::string host = address.substr(0, colon);
  const bool is_host = IsBracketed(host) ? IsV6(std::string_view(host).substr(1, host.size() - 2)) : IsHostName(host);
  if (!is_host) return refuse(kForms);
  if (!IsPort(address.substr(colon + 1))) return refuse(absl::StrCat("a port from 1 to 65535 behind ", host, ":"));
  return absl::OkStatus();
}

}  // namespace statehouse::cli
