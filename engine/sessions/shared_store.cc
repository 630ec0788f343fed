#include "engine/sessions/shared_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "engine/sessions/folder_archive.h"
#include "engine/state/folder_blobs.h"
#ifdef STATEHOUSE_HAS_REDIS
#include "engine/sessions/redis_store.h"
#endif

namespace statehouse {
namespace {

constexpr char kField[] = "--session-store";
constexpr char kExpected[] = "an absolute path, or redis://[user[:password]@]host[:port][/db]";

absl::StatusOr<SharedStore> OpenFolder(const std::string& path) {
  auto archive = FolderArchive::Open(path + "/archive");
  if (!archive.ok()) return archive.status();
  auto blobs = FolderBlobs::Open(FileLayer::Posix(), path + "/blobs", "store", true);
  if (!blobs.ok()) return blobs.status();
  SharedStore store;
  store.archive = *std::move(archive);
  store.blobs = *std::move(blobs);
  store.where = path;
  return store;
}

}  // namespace

absl::StatusOr<SharedStore> OpenSharedStore(const std::string& url) {
  if (url.starts_with('/')) return OpenFolder(url);
  if (url.starts_with("file:///")) return OpenFolder(url.substr(std::string("file://").size()));
  if (url.starts_with("redis://")) {
#ifdef STATEHOUSE_HAS_REDIS
    return OpenRedisStore(url);
#else
    return absl::UnimplementedError("--session-store redis://: this program was built without it (STATEHOUSE_REDIS)");
#endif
  }
  if (url.starts_with("rediss://")) {
    return absl::UnimplementedError(
        "--session-store rediss://: Redis over TLS is not built in; put a tunnel (stunnel, "
        "a service mesh) before it and use redis://");
  }
  return InvalidField(kField, url, kExpected);
}

}  // namespace statehouse
