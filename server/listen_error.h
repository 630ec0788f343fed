// Why an address cannot be listened on, asked of the system once more: the servers' libraries do not tell.
// Thread-safety: any thread.
#pragma once

#include <string>

namespace statehouse {

// "127.0.0.1:50051", "[::1]:50051". `host` may have its brackets already.
std::string TcpAddress(const std::string& host, int port);

// "Address already in use", "No such file or directory", …; empty: nothing is in the way now. The socket's file is gone
// again afterwards. `port` 0: any.
std::string WhyNotListening(const std::string& host, int port);
std::string WhyNotListening(const std::string& socket_path);

}  // namespace statehouse
