// The tiers of snapshots: what lies where, and what is said when one of them is slow, dead, full or lies.
#include "engine/state/snapshot_vault.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/support/faulty_blobs.h"
#include "tests/support/slot_shapes.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kVocab = 4096;

SlotShape MakeShape() { return MakeSlotShape({.heads = 2, .head_dim = 8, .chunk = 16, .switch_over = 64}); }

class SnapshotVaultTest : public ::testing::Test {
 protected:
  SnapshotVaultTest() {
    here_.identity.weights = 1;
    here_.identity.num_layers = shape_.num_layers;
    here_.identity.vocab_size = kVocab;
    options_.host_bytes = int64_t{1} << 30;
    options_.fetch_timeout = absl::Milliseconds(300);
    options_.first_pause = absl::Milliseconds(20);
    options_.longest_pause = absl::Milliseconds(200);
  }
  std::shared_ptr<const Snapshot> Make(int seed) {
    const int64_t position = 10 + seed % 20;
    const int64_t used = shape_.layout.UsedHeadFloats(position);
    kernels::AlignedBuffer regions;
    EXPECT_TRUE(regions.Allocate(used * shape_.num_regions() * static_cast<int64_t>(sizeof(float))));
    std::vector<float> logits(kVocab, static_cast<float>(seed));
    return std::make_shared<const Snapshot>(shape_, SnapshotPoint{.position = position, .used_floats = used},
                                            std::move(regions), std::move(logits),
                                            std::vector<int32_t>(static_cast<size_t>(position), seed));
  }
  std::unique_ptr<SnapshotVault> Open(BlobStore* disk, BlobStore* store) {
    auto vault = SnapshotVault::Create(options_, here_, shape_, disk, store);
    EXPECT_TRUE(vault.ok()) << vault.status();
    return *std::move(vault);
  }
  static absl::Time Soon() { return absl::Now() + absl::Seconds(20); }
  // What never comes fails the test rather than hang it.
  static void Await(const std::function<bool()>& holds) {
    for (const absl::Time until = Soon(); !holds() && absl::Now() < until;) std::this_thread::yield();
    ASSERT_TRUE(holds());
  }
  // Flush() is content with either tier, and what still waits for the other goes when the vault is closed.
  void ReachDiskAndStore(SnapshotVault* vault) {
    ASSERT_TRUE(vault->Flush(key_, true, Soon()).ok());
    Await([&] { return Totals(*vault, Tier::kDisk).waiting == 0; });
    ASSERT_TRUE(disk_.Holds(key_));
    ASSERT_TRUE(store_.Holds(key_));
  }
  static SnapshotVault::TierTotals Totals(const SnapshotVault& vault, Tier tier) {
    return vault.totals()[static_cast<int>(tier)];
  }
  static void ExpectIs(const absl::StatusOr<SnapshotVault::Fetched>& fetched, Tier tier, int seed) {
    ASSERT_TRUE(fetched.ok()) << fetched.status();
    EXPECT_EQ(TierName(fetched->tier), std::string(TierName(tier)));
    EXPECT_EQ(fetched->snapshot->tokens()[0], seed);
    EXPECT_EQ(fetched->snapshot->logits()[0], static_cast<float>(seed));
  }

  const SlotShape shape_ = MakeShape();
  Fingerprint here_;
  SnapshotVaultOptions options_;
  FaultyBlobs disk_{"disk"};
  FaultyBlobs store_{"store"};
  const std::string key_ = SnapshotVault::NewKey();
};

TEST_F(SnapshotVaultTest, DurableSnapshot_ReachesEveryTierAndIsFoundInTheNearest) {
  {
    const auto vault = Open(&disk_, &store_);
    ASSERT_TRUE(vault->Keep(key_, Make(1), true).ok());
    ReachDiskAndStore(vault.get());
    EXPECT_EQ(vault->Where(key_), Tier::kHost);
    ExpectIs(vault->Fetch(key_, false), Tier::kHost, 1);
  }
  {
    const auto vault = Open(&disk_, &store_);
    ExpectIs(vault->Fetch(key_, false), Tier::kDisk, 1);
    ExpectIs(vault->Fetch(key_, false), Tier::kHost, 1);
    EXPECT_EQ(Totals(*vault, Tier::kDisk).hits, 1);
    EXPECT_EQ(Totals(*vault, Tier::kHost).hits, 1);
  }
  FaultyBlobs empty("disk");
  const auto vault = Open(&empty, &store_);
  ExpectIs(vault->Fetch(key_, false), Tier::kStore, 1);
  EXPECT_EQ(Totals(*vault, Tier::kStore).hits, 1);
}

// A disk that gives its values' beginnings, and then fails.
class BreakingBlobs final : public BlobStore {
 public:
  explicit BreakingBlobs(BlobStore* blobs) : blobs_(blobs) {}
  const std::string& name() const override { return blobs_->name(); }
  absl::Status Put(const std::string& key, const std::function<absl::Status(const ByteSink&)>& write) override {
    return blobs_->Put(key, write);
  }
  absl::StatusOr<std::vector<std::byte>> Get(const std::string& key) override { return blobs_->Get(key); }
  absl::StatusOr<std::unique_ptr<ByteSource>> Open(const std::string& key) override {
    auto source = blobs_->Open(key);
    if (!source.ok()) return source.status();
    return std::make_unique<Source>(*std::move(source), &breaks);
  }
  absl::StatusOr<BlobInfo> Stat(const std::string& key) override { return blobs_->Stat(key); }
  absl::Status Remove(const std::string& key) override { return blobs_->Remove(key); }
  absl::Status Quarantine(const std::string& key) override { return blobs_->Quarantine(key); }
  absl::StatusOr<std::vector<BlobInfo>> List(const std::string& prefix, const std::string& after,
                                             int64_t limit) override {
    return blobs_->List(prefix, after, limit);
  }

  std::atomic<bool> breaks{false};

 private:
  class Source final : public ByteSource {
   public:
    Source(std::unique_ptr<ByteSource> source, const std::atomic<bool>* breaks)
        : source_(std::move(source)), breaks_(breaks) {}
    int64_t size() const override { return source_->size(); }
    absl::StatusOr<std::span<const std::byte>> View(int64_t offset, std::span<std::byte> scratch) const override {
      // The footer can be read.
      if (*breaks_ && offset > 8 && offset < size() / 2) return absl::InternalError("injected: input/output error");
      return source_->View(offset, scratch);
    }

   private:
    const std::unique_ptr<ByteSource> source_;
    const std::atomic<bool>* const breaks_;
  };
  BlobStore* const blobs_;
};

TEST_F(SnapshotVaultTest, DiskThatFailsWhileASnapshotIsRead_IsUnavailableAndKeepsIt) {
  BreakingBlobs disk(&disk_);
  {
    const auto vault = Open(&disk, nullptr);
    ASSERT_TRUE(vault->Keep(key_, Make(1), true).ok());
    ASSERT_TRUE(vault->Flush(key_, false, Soon()).ok());
  }
  const auto vault = Open(&disk, nullptr);
  disk.breaks = true;
  const auto fetched = vault->Fetch(key_, false);
  EXPECT_EQ(fetched.status().code(), absl::StatusCode::kUnavailable) << fetched.status();
  EXPECT_THAT(std::string(fetched.status().message()), HasSubstr("input/output error"));
  EXPECT_EQ(Totals(*vault, Tier::kDisk).errors, 1);
  EXPECT_FALSE(Totals(*vault, Tier::kDisk).available) << "it is left alone for a while";
  disk.breaks = false;
  for (int attempt = 0; attempt < 1000 && !vault->Fetch(key_, false).ok(); ++attempt) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ExpectIs(vault->Fetch(key_, false), Tier::kHost, 1);
}

TEST_F(SnapshotVaultTest, SnapshotOfThePrefixCache_StaysOnThisMachine) {
  const std::string key = SnapshotVault::NewPrefixKey();
  {
    const auto vault = Open(&disk_, &store_);
    ASSERT_TRUE(vault->Keep(key, Make(1), true).ok());
    ASSERT_TRUE(vault->Keep(key_, Make(2), true).ok());
    ASSERT_TRUE(vault->Flush(key, false, Soon()).ok());
    ASSERT_TRUE(vault->Flush(key_, true, Soon()).ok());
    EXPECT_EQ(store_.num_values(), 1) << "the other's";
    Await([&] { return vault->Where(key) == Tier::kDisk; });
    ExpectIs(vault->Fetch(key, false), Tier::kDisk, 1);
    EXPECT_EQ(vault->Where(key), Tier::kDisk) << "host memory is the prefix cache's own affair";
    EXPECT_EQ(Totals(*vault, Tier::kHost).snapshots, 1) << "the other's";
    vault->DropLater(key);
    Await([&] { return !disk_.Holds(key); });
    EXPECT_EQ(vault->Fetch(key, false).status().code(), absl::StatusCode::kNotFound);
    EXPECT_TRUE(disk_.Holds(key_));
  }
  const auto vault = Open(nullptr, &store_);
  EXPECT_FALSE(vault->Keep(key, Make(1), true).ok()) << "without a disk there is nowhere to put it";
  EXPECT_EQ(vault->Where(key), Tier::kNone);
}

TEST_F(SnapshotVaultTest, SnapshotsThatAPrefixCacheLeftBehind_AreRemovedByTheNext) {
  const std::string key = SnapshotVault::NewPrefixKey();
  {
    const auto vault = Open(&disk_, nullptr);
    ASSERT_TRUE(vault->Keep(key, Make(1), true).ok());
    ASSERT_TRUE(vault->Keep(key_, Make(2), true).ok());
    ASSERT_TRUE(vault->Flush(key, false, Soon()).ok());
    ASSERT_TRUE(vault->Flush(key_, false, Soon()).ok());
  }
  const auto vault = Open(&disk_, nullptr);
  Await([&] { return !disk_.Holds(key); });
  ExpectIs(vault->Fetch(key_, false), Tier::kDisk, 2);
}

TEST_F(SnapshotVaultTest, FullDisk_HasRoomForSessionsWherePrefixesAre) {
  const auto vault = Open(&disk_, nullptr);
  std::vector<std::string> prefixes;
  for (int seed = 0; seed < 10; ++seed) {
    prefixes.push_back(SnapshotVault::NewPrefixKey());
    ASSERT_TRUE(vault->Keep(prefixes.back(), Make(1), true).ok());
    ASSERT_TRUE(vault->Flush(prefixes.back(), false, Soon()).ok());
  }
  disk_.SetRoom(Totals(*vault, Tier::kDisk).bytes);
  std::vector<std::string> sessions;
  for (int seed = 0; seed < 8; ++seed) {
    sessions.push_back(SnapshotVault::NewKey());
    ASSERT_TRUE(vault->Keep(sessions.back(), Make(1), true).ok());
    EXPECT_TRUE(vault->Flush(sessions.back(), false, Soon()).ok()) << seed;
    EXPECT_TRUE(disk_.Holds(sessions.back()));
  }
  EXPECT_FALSE(disk_.Holds(prefixes[0]));
  // Another prefix does not hold sessions up, nor push any of them out.
  disk_.SetRoom(1);
  (void)vault->Keep(SnapshotVault::NewPrefixKey(), Make(1), true);
  Await([&] { return Totals(*vault, Tier::kDisk).waiting == 0; });
  for (const std::string& key : sessions) EXPECT_TRUE(disk_.Holds(key));
  EXPECT_EQ(Totals(*vault, Tier::kDisk).why_not, "");
  EXPECT_FALSE(vault->Keep(SnapshotVault::NewPrefixKey(), Make(1), true).ok()) << "it is not tried again at once";
}

TEST_F(SnapshotVaultTest, SnapshotThatIsNotDurable_LeavesWithHostMemory) {
  {
    const auto vault = Open(&disk_, nullptr);
    ASSERT_TRUE(vault->Keep(key_, Make(1), false).ok());
    EXPECT_EQ(vault->Where(key_), Tier::kHost);
  }
  EXPECT_EQ(disk_.num_values(), 0);
  const auto vault = Open(&disk_, nullptr);
  EXPECT_EQ(vault->Fetch(key_, false).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(vault->Where(key_), Tier::kNone);
}

TEST_F(SnapshotVaultTest, HostBudget_DropsTheLeastRecentlyUsedAndOnlyWhatIsElsewhere) {
  options_.host_bytes = 3 * Make(1)->bytes() + Make(1)->bytes() / 2;
  options_.max_queued_bytes = int64_t{1} << 30;
  const auto vault = Open(&disk_, nullptr);
  disk_.SetHanging(true);
  std::vector<std::string> keys;
  for (int seed = 0; seed < 8; ++seed) {
    keys.push_back(SnapshotVault::NewKey());
    ASSERT_TRUE(vault->Keep(keys.back(), Make(20 * seed + 1), true).ok());
  }
  for (const std::string& key : keys) EXPECT_EQ(vault->Where(key), Tier::kHost) << "it is nowhere else";
  disk_.SetHanging(false);
  for (const std::string& key : keys) ASSERT_TRUE(vault->Flush(key, false, Soon()).ok());
  Await([&] { return Totals(*vault, Tier::kHost).bytes <= options_.host_bytes; });
  ASSERT_TRUE(vault->Fetch(keys[0], false).ok());  // the most recently used now, so another one leaves
  EXPECT_EQ(vault->Where(keys[0]), Tier::kHost);
  EXPECT_EQ(Totals(*vault, Tier::kHost).snapshots, 3);
  for (int seed = 0; seed < 8; ++seed) {
    const auto fetched = vault->Fetch(keys[seed], false);
    ASSERT_TRUE(fetched.ok()) << fetched.status();
    EXPECT_EQ(fetched->snapshot->tokens()[0], 20 * seed + 1);
  }
}

TEST_F(SnapshotVaultTest, TooManyBytesWaiting_KeepsTheSnapshotInMemoryAndCountsIt) {
  options_.max_queued_bytes = Make(1)->bytes();
  const auto vault = Open(&disk_, nullptr);
  disk_.SetHanging(true);
  std::vector<std::string> keys;
  for (int seed = 0; seed < 4; ++seed) {
    keys.push_back(SnapshotVault::NewKey());
    ASSERT_TRUE(vault->Keep(keys.back(), Make(1), true).ok());
    if (seed == 0) Await([&] { return Totals(*vault, Tier::kDisk).waiting == 1; });
  }
  EXPECT_GE(Totals(*vault, Tier::kDisk).skipped, 2);
  EXPECT_EQ(vault->Where(keys[3]), Tier::kHost);
  disk_.SetHanging(false);
  EXPECT_TRUE(vault->Flush(keys[3], false, Soon()).ok()) << "who asks for it gets it moved";
  EXPECT_TRUE(disk_.Holds(keys[3]));
}

TEST_F(SnapshotVaultTest, DeadStore_IsLeftAloneNamedAndTriedAgain) {
  const auto vault = Open(nullptr, &store_);
  store_.SetDead(true);
  ASSERT_TRUE(vault->Keep(key_, Make(1), true).ok());
  const absl::Status waited = vault->Flush(key_, true, absl::Now() + absl::Milliseconds(200));
  EXPECT_EQ(waited.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(waited.message()), HasSubstr("store: injected: dead; tried again in"));
  EXPECT_FALSE(Totals(*vault, Tier::kStore).available);
  EXPECT_THAT(Totals(*vault, Tier::kStore).why_not, HasSubstr("injected: dead"));

  const std::string other = SnapshotVault::NewKey();
  absl::Status asked = vault->Fetch(other, false).status();
  EXPECT_EQ(asked.code(), absl::StatusCode::kUnavailable) << asked;
  const int64_t calls = store_.num_calls();
  for (int time = 0; time < 1000; ++time) {
    EXPECT_EQ(vault->Fetch(other, false).status().code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_LT(store_.num_calls() - calls, 100) << "it is left alone for a while";

  store_.SetDead(false);
  EXPECT_TRUE(vault->Flush(key_, true, Soon()).ok());
  EXPECT_TRUE(Totals(*vault, Tier::kStore).available);
  EXPECT_EQ(Totals(*vault, Tier::kStore).why_not, "");
  EXPECT_EQ(vault->Fetch(other, false).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SnapshotVaultTest, HangingStore_HoldsNobodyUpLongerThanItsTimeOut) {
  const auto vault = Open(&disk_, &store_);
  store_.SetHanging(true);
  const absl::Time begin = absl::Now();
  const absl::Status asked = vault->Fetch(key_, false).status();
  EXPECT_EQ(asked.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(asked.message()), HasSubstr("no answer within 300ms"));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  // The disk's movers are not behind the store's.
  ASSERT_TRUE(vault->Keep(key_, Make(2), true).ok());
  EXPECT_TRUE(vault->Flush(key_, false, Soon()).ok());
  ExpectIs(vault->Fetch(key_, false), Tier::kHost, 2);
  store_.SetHanging(false);
  EXPECT_TRUE(vault->Flush(key_, true, Soon()).ok());
}

TEST_F(SnapshotVaultTest, FullDisk_IsSaidToWhoAsksAndTheSnapshotStaysInMemory) {
  const auto vault = Open(&disk_, nullptr);
  disk_.SetRoom(100);
  ASSERT_TRUE(vault->Keep(key_, Make(1), true).ok());
  EXPECT_EQ(vault->Flush(key_, false, absl::Now() + absl::Seconds(1)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Totals(*vault, Tier::kDisk).available) << "reading goes on";
  EXPECT_THAT(Totals(*vault, Tier::kDisk).why_not, HasSubstr("full"));
  EXPECT_EQ(vault->Where(key_), Tier::kHost);
  disk_.SetRoom(int64_t{1} << 30);
  absl::Status status;
  for (int time = 0; time < 100 && !(status = vault->Flush(key_, false, Soon())).ok(); ++time) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(SnapshotVaultTest, LeftoverThatCannotGo_IsTriedOnceAndReadingGoesOn) {
  const std::string prefix = SnapshotVault::NewPrefixKey();
  {
    const auto vault = Open(&disk_, nullptr);
    ASSERT_TRUE(vault->Keep(key_, Make(1), true).ok());
    ASSERT_TRUE(vault->Keep(prefix, Make(2), true).ok());
    Await([&] { return disk_.Holds(key_) && disk_.Holds(prefix); });
  }
  disk_.SetRemovals(absl::InternalError("injected: Permission denied"));
  const auto vault = Open(&disk_, nullptr);  // removes prefixes of an earlier run
  Await([&] { return Totals(*vault, Tier::kDisk).errors > 0; });
  Await([&] { return vault->Verify(key_, Tier::kDisk).ok(); });  // the back-off has run out
  const int64_t errors = Totals(*vault, Tier::kDisk).errors;
  for (int read = 0; read < 50; ++read) {
    ASSERT_TRUE(vault->Verify(key_, Tier::kDisk).ok()) << read;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));  // half a first pause
  }
  EXPECT_EQ(Totals(*vault, Tier::kDisk).errors, errors);
  EXPECT_TRUE(disk_.Holds(prefix)) << "left to the next start";
}

TEST_F(SnapshotVaultTest, DiskBudget_IsMadeRoomInByWhatTheStoreHoldsToo) {
  options_.host_bytes = 0;
  options_.max_queued_bytes = int64_t{1} << 30;
  int64_t file_bytes = 0;
  {
    const auto vault = Open(&disk_, nullptr);
    ASSERT_TRUE(vault->Keep(key_, Make(1), true).ok());
    ASSERT_TRUE(vault->Flush(key_, false, Soon()).ok());
    file_bytes = Totals(*vault, Tier::kDisk).bytes;
    SnapshotVault::Removed removed;
    ASSERT_TRUE(vault->Drop(key_, &removed).ok());
  }
  options_.disk_bytes = 3 * file_bytes;
  {
    const auto vault = Open(&disk_, &store_);
    std::vector<std::string> keys;
    for (int seed = 0; seed < 6; ++seed) {
      keys.push_back(SnapshotVault::NewKey());
      ASSERT_TRUE(vault->Keep(keys.back(), Make(20 * seed + 1), true).ok());
      ASSERT_TRUE(vault->Flush(keys.back(), true, Soon()).ok());
      Await([&] { return Totals(*vault, Tier::kDisk).waiting == 0; });
    }
    EXPECT_LE(Totals(*vault, Tier::kDisk).bytes, options_.disk_bytes);
    ExpectIs(vault->Fetch(keys[0], false), Tier::kStore, 1);
    ExpectIs(vault->Fetch(keys[5], false), Tier::kDisk, 101);
  }
  FaultyBlobs alone("disk");
  const auto vault = Open(&alone, nullptr);
  absl::Status status;
  for (int seed = 0; seed < 4 && status.ok(); ++seed) {
    const std::string key = SnapshotVault::NewKey();
    ASSERT_TRUE(vault->Keep(key, Make(1), true).ok());
    status = vault->Flush(key, false, absl::Now() + absl::Seconds(1));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("give it more space"));
}

TEST_F(SnapshotVaultTest, DamagedSnapshot_GoesToQuarantineAndIsReadFromTheNextTier) {
  {
    const auto vault = Open(&disk_, &store_);
    ASSERT_TRUE(vault->Keep(key_, Make(1), true).ok());
    ReachDiskAndStore(vault.get());
  }
  disk_.FlipABit(key_);
  {
    const auto vault = Open(&disk_, &store_);
    EXPECT_EQ(vault->Verify(key_, Tier::kDisk).code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(disk_.num_quarantined(), 0) << "who checks changes nothing";
    EXPECT_TRUE(vault->Verify(key_, Tier::kStore).ok());
    ExpectIs(vault->Fetch(key_, false), Tier::kStore, 1);
    EXPECT_EQ(disk_.num_quarantined(), 1);
  }
  store_.FlipABit(key_);
  const auto vault = Open(&disk_, &store_);
  const absl::Status damaged = vault->Fetch(key_, false).status();
  EXPECT_EQ(damaged.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(damaged.message()), HasSubstr("quarantine"));
  EXPECT_EQ(vault->Fetch(key_, false).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SnapshotVaultTest, AnotherNumericMode_IsRefusedAlsoOnceItIsInHostMemory) {
  {
    Fingerprint other = here_;
    other.numeric.device = "cuda sm_90";
    const auto vault = *SnapshotVault::Create(options_, other, shape_, &disk_, nullptr);
    ASSERT_TRUE(vault->Keep(key_, Make(1), true).ok());
    ASSERT_TRUE(vault->Flush(key_, false, Soon()).ok());
  }
  const auto vault = Open(&disk_, nullptr);
  EXPECT_EQ(vault->Fetch(key_, false).status().code(), absl::StatusCode::kFailedPrecondition);
  for (const Tier tier : {Tier::kDisk, Tier::kHost}) {
    const auto fetched = vault->Fetch(key_, true);
    ExpectIs(fetched, tier, 1);
    EXPECT_EQ(fetched->exactness, Exactness::kContinued);
    EXPECT_THAT(fetched->numeric_difference, HasSubstr("cuda sm_90"));
  }
  EXPECT_EQ(vault->Fetch(key_, false).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SnapshotVaultTest, DroppedSnapshot_IsInNoTierAlsoIfItWasOnTheWay) {
  const auto vault = Open(&disk_, &store_);
  ASSERT_TRUE(vault->Keep(key_, Make(1), true).ok());
  ReachDiskAndStore(vault.get());
  SnapshotVault::Removed removed;
  ASSERT_TRUE(vault->Drop(key_, &removed).ok());
  for (const Tier tier : {Tier::kHost, Tier::kDisk, Tier::kStore}) {
    EXPECT_EQ(removed.snapshots[static_cast<int>(tier)], 1) << TierName(tier);
    EXPECT_GT(removed.bytes[static_cast<int>(tier)], 0) << TierName(tier);
  }
  EXPECT_EQ(vault->Fetch(key_, false).status().code(), absl::StatusCode::kNotFound);

  const std::string other = SnapshotVault::NewKey();
  disk_.SetDelay(absl::Milliseconds(100));
  ASSERT_TRUE(vault->Keep(other, Make(1), true).ok());
  Await([&] { return Totals(*vault, Tier::kDisk).waiting > 0; });
  ASSERT_TRUE(vault->Drop(other, &removed).ok());
  Await([&] { return Totals(*vault, Tier::kDisk).waiting + Totals(*vault, Tier::kStore).waiting == 0; });
  for (int time = 0; time < 100 && (disk_.Holds(other) || store_.Holds(other)); ++time) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_FALSE(disk_.Holds(other));
  EXPECT_FALSE(store_.Holds(other));
}

TEST_F(SnapshotVaultTest, SnapshotOnDiskOnly_ReachesTheStoreWhenAsked) {
  {
    const auto vault = Open(&disk_, nullptr);
    ASSERT_TRUE(vault->Keep(key_, Make(1), true).ok());
    ASSERT_TRUE(vault->Flush(key_, false, Soon()).ok());
  }
  {
    const auto vault = Open(&disk_, &store_);
    EXPECT_TRUE(vault->Flush(key_, true, Soon()).ok());
  }
  const auto vault = Open(nullptr, &store_);
  ExpectIs(vault->Fetch(key_, false), Tier::kStore, 1);
  EXPECT_EQ(vault->Flush(SnapshotVault::NewKey(), true, Soon()).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Open(nullptr, nullptr)->Flush(key_, false, Soon()).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SnapshotVaultTest, DiskThatCannotBeRead_IsNotBlamedOnTheStoreItShouldMoveTo) {
  {
    const auto vault = Open(&disk_, nullptr);
    ASSERT_TRUE(vault->Keep(key_, Make(1), true).ok());
    ASSERT_TRUE(vault->Flush(key_, false, Soon()).ok());
  }
  const auto vault = Open(&disk_, &store_);
  disk_.SetReads(absl::UnavailableError("injected: unreadable"));
  const absl::Status waited = vault->Flush(key_, true, absl::Now() + absl::Milliseconds(300));
  EXPECT_EQ(waited.code(), absl::StatusCode::kUnavailable) << waited;
  EXPECT_THAT(std::string(waited.message()), HasSubstr("injected: unreadable"));
  EXPECT_TRUE(Totals(*vault, Tier::kStore).available);
  EXPECT_EQ(Totals(*vault, Tier::kStore).errors, 0);
  const std::string other = SnapshotVault::NewKey();
  ASSERT_TRUE(vault->Keep(other, Make(2), true).ok());
  EXPECT_TRUE(vault->Flush(other, true, Soon()).ok()) << "others are moved meanwhile";
  disk_.SetReads(absl::OkStatus());
  Await([&] { return store_.Holds(key_); });
  EXPECT_TRUE(store_.Holds(key_)) << "it is tried again";
}

TEST_F(SnapshotVaultTest, DamagedOnlyCopy_EndsItsMoveAtOnce) {
  {
    const auto vault = Open(&disk_, nullptr);
    ASSERT_TRUE(vault->Keep(key_, Make(1), true).ok());
    ASSERT_TRUE(vault->Flush(key_, false, Soon()).ok());
  }
  const auto vault = Open(&disk_, &store_);
  disk_.SetReads(absl::DataLossError("injected: damaged"));
  EXPECT_EQ(vault->Flush(key_, true, Soon()).code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(Totals(*vault, Tier::kStore).available);
  EXPECT_EQ(Totals(*vault, Tier::kStore).waiting, 0);
}

TEST_F(SnapshotVaultTest, FilesThatAreNoSnapshots_AreNeitherCountedNorListed) {
  const auto put = [this](const std::string& name) {
    ASSERT_TRUE(disk_.Put(name, [](const ByteSink& sink) { return sink(std::vector<std::byte>(3)); }).ok());
  };
  put("snapshots/0a/readme.txt");
  put("snapshots/elsewhere/" + key_);
  put("snapshots/zz/last");
  std::vector<std::string> keys;
  const auto vault = Open(&disk_, nullptr);
  for (int seed = 0; seed < 5; ++seed) {
    keys.push_back(SnapshotVault::NewKey());
    ASSERT_TRUE(vault->Keep(keys.back(), Make(seed), true).ok());
    ASSERT_TRUE(vault->Flush(keys.back(), false, Soon()).ok());
  }
  std::sort(keys.begin(), keys.end());
  std::vector<std::string> listed;
  for (std::string after; listed.size() < 100;) {
    const auto page = vault->List(Tier::kDisk, after, 2);
    ASSERT_TRUE(page.ok()) << page.status();
    if (page->empty()) break;
    for (const BlobInfo& blob : *page) listed.push_back(blob.key);
    after = listed.back();
  }
  EXPECT_EQ(listed, keys);
  const auto again = Open(&disk_, nullptr);
  Await([&] { return Totals(*again, Tier::kDisk).snapshots >= 5; });
  EXPECT_EQ(Totals(*again, Tier::kDisk).snapshots, 5);
}

TEST_F(SnapshotVaultTest, ManyThreads_OnTiersThatComeAndGo_FindWhatTheyKept) {
  options_.host_bytes = 10 * Make(1)->bytes();
  options_.max_queued_bytes = int64_t{1} << 30;
  options_.num_movers = 2;
  const auto vault = Open(&disk_, &store_);
  std::atomic<bool> stop = false;
  std::thread trouble([&] {
    for (int round = 0; !stop; ++round) {
      store_.SetDead(round % 3 == 1);
      disk_.SetDead(round % 5 == 2);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  std::vector<std::thread> users;
  for (int user = 0; user < 4; ++user) {
    users.emplace_back([&, user] {
      std::mt19937 random(static_cast<uint32_t>(user));
      std::vector<std::pair<std::string, int>> kept;
      for (int round = 0; round < 100; ++round) {
        const int seed = user * 1000 + round;
        kept.emplace_back(SnapshotVault::NewKey(), seed);
        EXPECT_TRUE(vault->Keep(kept.back().first, Make(seed), true).ok());
        const auto& [key, expected] = kept[random() % kept.size()];
        const auto fetched = vault->Fetch(key, false);
        if (fetched.ok()) {
          EXPECT_EQ(fetched->snapshot->tokens()[0], expected);
        } else {
          EXPECT_EQ(fetched.status().code(), absl::StatusCode::kUnavailable) << fetched.status();
        }
      }
    });
  }
  for (std::thread& user : users) user.join();
  stop = true;
  trouble.join();
  store_.SetDead(false);
  disk_.SetDead(false);
  for (int round = 0; round < 1000 && disk_.num_values() < 400; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(disk_.num_values(), 400);
}

}  // namespace
}  // namespace statehouse::testing
