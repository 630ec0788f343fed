#include "server/listen_error.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

// 0, or the error of binding and listening.
int ErrorAt(int family, const sockaddr* address, socklen_t size) {
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int yes = 1;
  if (family != AF_UNIX) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));  // as gRPC does
  const int error = bind(fd, address, size) != 0 || listen(fd, 1) != 0 ? errno : 0;
  close(fd);
  return error;
}

std::string Words(int error) { return error == 0 ? "" : std::generic_category().message(error); }

}  // namespace

std::string TcpAddress(const std::string& host, int port) {
  const bool is_ipv6 = host.find(':') != std::string::npos && host.front() != '[';
  return absl::StrCat(is_ipv6 ? "[" : "", host, is_ipv6 ? "]" : "", ":", port);
}

std::string WhyNotListening(const std::string& host, int port) {
  const bool has_brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  const std::string name = has_brackets ? host.substr(1, host.size() - 2) : host;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(name.c_str(), absl::StrCat(port).c_str(), &hints, &found); error != 0) {
    return error == EAI_SYSTEM ? Words(errno) : gai_strerror(error);
  }
  int first = 0;
  for (const addrinfo* one = found; one != nullptr && first == 0; one = one->ai_next) {
    first = ErrorAt(one->ai_family, one->ai_addr, one->ai_addrlen);
  }
  freeaddrinfo(found);
  return Words(first);
}

std::string WhyNotListening(const std::string& socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof(address.sun_path)) return Words(ENAMETOOLONG);
  std::copy(socket_path.begin(), socket_path.end(), address.sun_path);
  const int error = ErrorAt(AF_UNIX, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  if (error == 0) unlink(socket_path.c_str());
  return Words(error);
}

}  // namespace statehouse
