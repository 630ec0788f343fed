// What every BlobStore must do: one list of cases, run on each implementation.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/state/blob_store.h"

namespace statehouse::testing {

inline std::vector<std::byte> BlobOf(size_t size, int seed) {
  std::vector<std::byte> bytes(size);
  for (size_t at = 0; at < size; ++at) bytes[at] = static_cast<std::byte>((at * 31 + at / 251 + seed) & 0xff);
  return bytes;
}

// In parts of uneven sizes.
inline absl::Status PutBlob(BlobStore* store, const std::string& key, const std::vector<std::byte>& bytes) {
  return store->Put(key, [&bytes](const ByteSink& sink) {
    const std::span<const std::byte> all(bytes);
    for (size_t at = 0, part = 1; at < all.size(); at += part, part = part * 3 + 1) {
      part = std::min(part, all.size() - at);
      if (absl::Status status = sink(all.subspan(at, part)); !status.ok()) return status;
    }
    return absl::OkStatus();
  });
}

inline std::vector<std::string> KeysOf(const absl::StatusOr<std::vector<BlobInfo>>& list) {
  std::vector<std::string> keys;
  EXPECT_TRUE(list.ok()) << list.status();
  if (list.ok()) {
    for (const BlobInfo& info : *list) keys.push_back(info.key);
  }
  return keys;
}

// Read in pieces of uneven sizes.
inline std::vector<std::byte> AllOf(const absl::StatusOr<std::unique_ptr<ByteSource>>& source) {
  std::vector<std::byte> all;
  EXPECT_TRUE(source.ok()) << source.status();
  if (!source.ok()) return all;
  const size_t size = static_cast<size_t>((*source)->size());
  for (size_t at = 0, part = 1; at < size; at += part, part = part * 3 + 1) {
    part = std::min(part, size - at);
    std::vector<std::byte> scratch(part);
    const auto bytes = (*source)->View(static_cast<int64_t>(at), scratch);
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    if (bytes.ok()) all.insert(all.end(), bytes->begin(), bytes->end());
  }
  return all;
}

inline void ExpectValuesAreWholeOrNotThere(BlobStore* store) {
  EXPECT_EQ(store->Get("a/b").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store->Stat("a/b").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store->Open("a/b").status().code(), absl::StatusCode::kNotFound);
  for (const size_t size : {size_t{0}, size_t{1}, size_t{100'000}}) {
    ASSERT_TRUE(PutBlob(store, "a/b", BlobOf(size, 1)).ok());
    const auto got = store->Get("a/b");
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(*got, BlobOf(size, 1)) << size;
    EXPECT_EQ(AllOf(store->Open("a/b")), BlobOf(size, 1)) << size;
    const auto info = store->Stat("a/b");
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->bytes, static_cast<int64_t>(size));
    EXPECT_LT(absl::Now() - info->modified, absl::Minutes(1));
  }
  const absl::Status failed = store->Put("a/b", [](const ByteSink& sink) {
    EXPECT_TRUE(sink(BlobOf(70'000, 9)).ok());
    return absl::CancelledError("the writer gave up");
  });
  EXPECT_EQ(failed.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(*store->Get("a/b"), BlobOf(100'000, 1)) << "a write that failed left its mark";
  EXPECT_TRUE(store->Remove("a/b").ok());
  EXPECT_EQ(store->Get("a/b").status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(store->Remove("a/b").ok()) << "what is missing is removed already";
}

inline void ExpectListsInOrder(BlobStore* store) {
  // '.' sorts before '/', which sorts before letters: a walk by folders alone would get it wrong.
  const std::vector<std::string> keys = {"x/a", "y/a-b", "y/a.b", "y/a/b", "y/a/c/d", "y/ab", "z"};
  for (const std::string& key : keys) ASSERT_TRUE(PutBlob(store, key, BlobOf(10, 1)).ok());
  EXPECT_EQ(KeysOf(store->List("", "", 100)), keys);
  EXPECT_EQ(KeysOf(store->List("y/", "", 100)), std::vector<std::string>(keys.begin() + 1, keys.end() - 1));
  for (size_t limit = 1; limit < 4; ++limit) {
    std::vector<std::string> paged;
    std::string after;
    while (true) {
      const auto page = KeysOf(store->List("y/", after, static_cast<int64_t>(limit)));
      if (page.empty()) break;
      EXPECT_LE(page.size(), limit);
      paged.insert(paged.end(), page.begin(), page.end());
      after = page.back();
    }
    EXPECT_EQ(paged, std::vector<std::string>(keys.begin() + 1, keys.end() - 1)) << "pages of " << limit;
  }
}

inline void ExpectQuarantineHides(BlobStore* store) {
  ASSERT_TRUE(PutBlob(store, "q/one", BlobOf(10, 1)).ok());
  EXPECT_TRUE(store->Quarantine("q/one").ok());
  EXPECT_EQ(store->Get("q/one").status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(KeysOf(store->List("q/", "", 10)).empty());
  EXPECT_TRUE(store->Quarantine("q/one").ok()) << "a second reader found it damaged too";
  ASSERT_TRUE(PutBlob(store, "q/one", BlobOf(10, 2)).ok());
  EXPECT_EQ(*store->Get("q/one"), BlobOf(10, 2));
}

inline void ExpectStrangeKeysAreRefused(BlobStore* store) {
  for (const std::string& key :
       {std::string(), std::string("/etc/passwd"), std::string("a/../../b"), std::string("A"), std::string("a b"),
        std::string("a/"), std::string(201, 'a'), std::string("a\0b", 3)}) {
    EXPECT_EQ(PutBlob(store, key, BlobOf(1, 1)).code(), absl::StatusCode::kInvalidArgument) << key;
    EXPECT_EQ(store->Get(key).status().code(), absl::StatusCode::kInvalidArgument) << key;
  }
}

// Readers see one of the values, whole, while writers replace it.
inline void ExpectReplacementIsAtomic(BlobStore* left, BlobStore* right) {
  ASSERT_TRUE(PutBlob(left, "r/one", BlobOf(50'000, 0)).ok());
  std::thread writer([right] {
    for (int round = 1; round <= 20; ++round) EXPECT_TRUE(PutBlob(right, "r/one", BlobOf(50'000, round)).ok());
  });
  for (int round = 0; round < 50; ++round) {
    const auto got = left->Get("r/one");
    ASSERT_TRUE(got.ok()) << got.status();
    ASSERT_EQ(got->size(), 50'000u);
    ASSERT_EQ(*got, BlobOf(50'000, static_cast<int>((*got)[0])));
  }
  writer.join();
}

}  // namespace statehouse::testing
