// What every archive that servers share must do: one list of cases, run on each implementation.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/errors.h"
#include "engine/sessions/session_archive.h"

namespace statehouse::testing {

// Opens one server's archive on the store that all servers of a test share.
using OpenArchive = std::function<std::unique_ptr<SessionArchive>()>;

inline std::string IdOf(int number) { return absl::StrCat(absl::Hex(number, absl::kZeroPad16), "00000000deadbeef"); }

inline SessionEntry EntryOf(int number, const std::string& principal, const std::string& name) {
  return {.id = IdOf(number), .principal = principal, .name = name, .meta = absl::StrCat("meta ", number)};
}

inline absl::StatusCode CodeOf(const absl::Status& status) { return status.code(); }
template <typename Value>
absl::StatusCode CodeOf(const absl::StatusOr<Value>& value) {
  return value.status().code();
}

inline void ExpectEntriesAreFoundByTheirOwner(const OpenArchive& open) {
  const auto left = open();
  const auto right = open();
  EXPECT_EQ(left->FindEntry("ann", "notes").status().code(), absl::StatusCode::kNotFound);
  for (int number = 0; number < 30; ++number) {
    const char* const principal = number % 3 == 0 ? "bob" : "ann";
    ASSERT_TRUE(left->PutEntry(EntryOf(number, principal, number < 2 ? "notes" : "")).ok());
  }
  EXPECT_EQ(right->FindEntry("bob", "notes")->id, IdOf(0));
  EXPECT_EQ(right->FindEntry("ann", "notes")->id, IdOf(1));
  EXPECT_EQ(right->FindEntry("ann", IdOf(0))->principal, "bob") << "the caller decides";
  EXPECT_EQ(right->FindEntry("eve", "notes").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(*right->CountEntries("ann"), 20);
  EXPECT_EQ(*right->CountEntries("eve"), 0);
  const std::string ann = "ann";
  for (const std::string* filter : {&ann, static_cast<const std::string*>(nullptr)}) {
    std::vector<std::string> ids;
    std::string after;
    while (true) {
      const auto page = right->ListEntries(filter, after, 7);
      ASSERT_TRUE(page.ok()) << page.status();
      if (page->empty()) break;
      EXPECT_LE(page->size(), 7u);
      for (const SessionEntry& entry : *page) ids.push_back(entry.id);
      after = ids.back();
    }
    EXPECT_EQ(ids.size(), filter == nullptr ? 30u : 20u);
    EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
  }
  SessionEntry changed = EntryOf(1, "ann", "diary");
  changed.meta = std::string("\0\xff new", 6);
  ASSERT_TRUE(right->PutEntry(changed).ok());
  EXPECT_EQ(left->FindEntry("ann", "notes").status().code(), absl::StatusCode::kNotFound) << "it has another name now";
  EXPECT_EQ(left->FindEntry("ann", "diary")->meta, changed.meta);
  EXPECT_EQ(*right->CountEntries("ann"), 20);
}

inline void ExpectNameHasOneHolder(const OpenArchive& open) {
  const auto left = open();
  const auto right = open();
  ASSERT_TRUE(left->PutEntry(EntryOf(1, "ann", "notes")).ok());
  ASSERT_TRUE(left->PutEntry(EntryOf(1, "ann", "notes")).ok()) << "its own name";
  EXPECT_EQ(CodeOf(right->PutEntry(EntryOf(2, "ann", "notes"))), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(right->FindEntry("ann", IdOf(2)).status().code(), absl::StatusCode::kNotFound) << "nothing was entered";
  ASSERT_TRUE(right->PutEntry(EntryOf(3, "ann", "other")).ok());
  EXPECT_EQ(CodeOf(right->PutEntry(EntryOf(3, "ann", "notes"))), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(left->FindEntry("ann", "other")->id, IdOf(3)) << "it kept the name it had";
  ASSERT_TRUE(left->Remove(IdOf(1), 0).ok());
  ASSERT_TRUE(right->PutEntry(EntryOf(3, "ann", "notes")).ok()) << "the name is free again";
  EXPECT_EQ(left->FindEntry("ann", "notes")->id, IdOf(3));
  ASSERT_TRUE(right->PutEntry(EntryOf(4, "ann", "other")).ok()) << "and so is the one it gave up";

  for (int round = 0; round < 25; ++round) {
    std::atomic<int> winners = 0;
    std::vector<std::thread> servers;
    for (int server = 0; server < 4; ++server) {
      servers.emplace_back([&, server] {
        const auto archive = open();
        const absl::Status status =
            archive->PutEntry(EntryOf(100 + 10 * round + server, "ann", absl::StrCat("race ", round)));
        if (status.ok()) ++winners;
        EXPECT_TRUE(status.ok() || absl::IsAlreadyExists(status)) << status;
      });
    }
    for (std::thread& server : servers) server.join();
    EXPECT_EQ(winners, 1) << "round " << round;
    EXPECT_TRUE(left->FindEntry("ann", absl::StrCat("race ", round)).ok());
  }
}

inline void ExpectRecordsComeInOrder(const OpenArchive& open) {
  const auto left = open();
  const auto right = open();
  EXPECT_EQ(CodeOf(left->Append(IdOf(1), 1, 0, "x", true)), absl::StatusCode::kNotFound);
  EXPECT_EQ(left->Read(IdOf(1)).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(left->PutEntry(EntryOf(1, "ann", "")).ok());
  ASSERT_TRUE(left->Read(IdOf(1)).ok());
  EXPECT_TRUE(left->Read(IdOf(1))->records.empty());
  ASSERT_TRUE(left->Append(IdOf(1), 1, 0, "first, before any lease", true).ok());
  const auto lease = right->Acquire(IdOf(1), "right", absl::Minutes(1));
  ASSERT_TRUE(lease.ok()) << lease.status();
  EXPECT_EQ(CodeOf(left->Append(IdOf(1), 2, 0, "x", true)), absl::StatusCode::kAborted) << "leases are given by now";
  EXPECT_EQ(CodeOf(right->Append(IdOf(1), 1, lease->fence, "x", true)), absl::StatusCode::kAborted);
  EXPECT_EQ(CodeOf(right->Append(IdOf(1), 3, lease->fence, "x", true)), absl::StatusCode::kAborted);
  const std::string binary("\0\n\xff", 3);
  ASSERT_TRUE(right->Append(IdOf(1), 2, lease->fence, binary, true).ok());
  ASSERT_TRUE(right->Append(IdOf(1), 3, lease->fence, std::string(100'000, 'z'), false).ok());
  ASSERT_TRUE(right->Sync().ok());
  auto read = left->Read(IdOf(1));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->first, 1);
  EXPECT_EQ(read->records, (std::vector<std::string>{"first, before any lease", binary, std::string(100'000, 'z')}));

  EXPECT_EQ(CodeOf(right->Compact(IdOf(1), 2, lease->fence, "x")), absl::StatusCode::kAborted);
  EXPECT_EQ(CodeOf(left->Compact(IdOf(1), 3, lease->fence + 1, "x")), absl::StatusCode::kAborted);
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(right->Compact(IdOf(1), 3 + round, lease->fence, absl::StrCat("all of ", round)).ok());
    ASSERT_TRUE(right->Append(IdOf(1), 4 + round, lease->fence, "after", true).ok());
    read = left->Read(IdOf(1));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->first, 3 + round);
    EXPECT_EQ(read->records, (std::vector<std::string>{absl::StrCat("all of ", round), "after"}));
  }
  EXPECT_EQ(left->GetLease(IdOf(1))->owner, "right") << "a compaction keeps the lease";
  EXPECT_EQ(CodeOf(left->Remove(IdOf(1), 0)), absl::StatusCode::kAborted) << "it is in use";
  ASSERT_TRUE(right->Remove(IdOf(1), lease->fence).ok());
  EXPECT_EQ(left->Read(IdOf(1)).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(right->Append(IdOf(1), 7, lease->fence, "x", true)), absl::StatusCode::kNotFound);
  EXPECT_EQ(left->FindEntry("ann", IdOf(1)).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(*left->CountEntries("ann"), 0);
  EXPECT_TRUE(right->Remove(IdOf(1), 0).ok()) << "it is missing already";
}

inline void ExpectLeasesFence(const OpenArchive& open) {
  const auto left = open();
  const auto right = open();
  const std::string id = IdOf(1);
  ASSERT_TRUE(left->PutEntry(EntryOf(1, "ann", "")).ok());
  EXPECT_EQ(left->GetLease(id)->owner, "");
  EXPECT_EQ(left->Acquire(IdOf(9), "left", absl::Minutes(1)).status().code(), absl::StatusCode::kNotFound);
  const auto first = left->Acquire(id, "left", absl::Minutes(1));
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_GT(first->fence, 0);
  const auto seen = right->GetLease(id);
  EXPECT_EQ(seen->owner, "left");
  EXPECT_GT(seen->expires - first->expires, -absl::Seconds(5));
  EXPECT_LT(seen->expires - first->expires, absl::Seconds(5));

  const auto refused = right->Acquire(id, "right", absl::Minutes(1));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(refused.status().message()), ::testing::HasSubstr("\"left\""));
  ASSERT_TRUE(RetryAfterOf(refused.status()).has_value());
  EXPECT_LE(*RetryAfterOf(refused.status()), absl::Minutes(1));
  EXPECT_GT(*RetryAfterOf(refused.status()), absl::Seconds(30));

  // The same server again, as after a restart: at once, and what it held before is void.
  const auto second = left->Acquire(id, "left", absl::Minutes(1));
  ASSERT_TRUE(second.ok());
  EXPECT_GT(second->fence, first->fence);
  EXPECT_EQ(CodeOf(left->Append(id, 1, first->fence, "x", true)), absl::StatusCode::kAborted);
  EXPECT_EQ(CodeOf(left->Renew(id, *first, absl::Minutes(1))), absl::StatusCode::kAborted);
  EXPECT_TRUE(left->Release(id, *first).ok()) << "it is not held any more, which is what was asked for";
  EXPECT_TRUE(left->Append(id, 1, second->fence, "one", true).ok()) << "releasing an old lease ends no new one";

  ASSERT_TRUE(left->Release(id, *second).ok());
  EXPECT_EQ(right->GetLease(id)->owner, "");
  EXPECT_EQ(CodeOf(left->Append(id, 2, second->fence, "x", true)), absl::StatusCode::kAborted);
  const auto third = right->Acquire(id, "right", absl::Minutes(1));
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_GT(third->fence, second->fence);
  ASSERT_TRUE(right->Append(id, 2, third->fence, "two", true).ok());

  const auto broken = left->Break(id);
  ASSERT_TRUE(broken.ok()) << broken.status();
  EXPECT_EQ(broken->owner, "right");
  EXPECT_EQ(broken->fence, third->fence);
  EXPECT_EQ(CodeOf(right->Append(id, 3, third->fence, "x", true)), absl::StatusCode::kAborted);
  EXPECT_EQ(CodeOf(right->Renew(id, *third, absl::Minutes(1))), absl::StatusCode::kAborted);
  const auto fourth = left->Acquire(id, "left", absl::Minutes(1));
  ASSERT_TRUE(fourth.ok());
  EXPECT_TRUE(left->Append(id, 3, fourth->fence, "three", true).ok());
  EXPECT_EQ(left->Read(id)->records, (std::vector<std::string>{"one", "two", "three"}));
}

inline void ExpectLeasesRunOutAndAreRenewed(const OpenArchive& open) {
  const auto left = open();
  const auto right = open();
  const std::string id = IdOf(1);
  ASSERT_TRUE(left->PutEntry(EntryOf(1, "ann", "")).ok());
  const absl::Duration ttl = absl::Seconds(2);
  const auto lease = left->Acquire(id, "left", ttl);
  ASSERT_TRUE(lease.ok());
  for (int time = 0; time < 5; ++time) {
    absl::SleepFor(ttl / 4);
    const auto renewed = left->Renew(id, *lease, ttl);
    ASSERT_TRUE(renewed.ok()) << renewed.status();
    EXPECT_EQ(renewed->owner, "left");
    EXPECT_EQ(renewed->fence, lease->fence);
    EXPECT_GE(renewed->expires - lease->expires, ttl / 4 * (time + 1) - absl::Milliseconds(100));
    EXPECT_EQ(renewed->left, ttl);
  }
  const auto seen = right->GetLease(id);
  EXPECT_GT(seen->left, absl::ZeroDuration());
  EXPECT_LE(seen->left, ttl);
  EXPECT_EQ(right->Acquire(id, "right", ttl).status().code(), absl::StatusCode::kAborted) << "it was renewed";
  ASSERT_TRUE(left->Append(id, 1, lease->fence, "one", true).ok());
  ASSERT_TRUE(left->Renew(id, *lease, ttl * 2).ok()) << "for another time";
  absl::SleepFor(ttl * 2 + absl::Milliseconds(100));
  EXPECT_EQ(left->GetLease(id)->owner, "");
  EXPECT_EQ(left->GetLease(id)->left, absl::ZeroDuration());
  EXPECT_EQ(CodeOf(left->Append(id, 2, lease->fence, "x", true)), absl::StatusCode::kAborted) << "it ran out";
  const auto next = right->Acquire(id, "right", ttl);
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_TRUE(right->Append(id, 2, next->fence, "two", true).ok());
  EXPECT_EQ(CodeOf(left->Renew(id, *lease, ttl)), absl::StatusCode::kAborted);
}

// Runs `body` in a process of its own; it ends with what `body` returns.
inline pid_t Spawn(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  return child;
}

inline int ExitOf(pid_t child) {
  int state = 0;
  EXPECT_EQ(waitpid(child, &state, 0), child);
  return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
}

inline void ExpectServerThatSleptBeyondItsLeaseCannotAppend(const OpenArchive& open) {
  const std::string id = IdOf(1);
  ASSERT_TRUE(open()->PutEntry(EntryOf(1, "ann", "")).ok());
  int ready[2], go[2];
  ASSERT_EQ(pipe(ready), 0);
  ASSERT_EQ(pipe(go), 0);
  const pid_t sleeper = Spawn([&] {
    const auto archive = open();
    const auto lease = archive->Acquire(id, "sleeper", absl::Seconds(2));
    if (!lease.ok() || !archive->Append(id, 1, lease->fence, "one", true).ok()) return 10;
    char byte = 1;
    if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1) return 11;
    // Awake again: neither the record it was about to append nor the one after what others did.
    if (!absl::IsAborted(archive->Append(id, 2, lease->fence, "two of the sleeper", true))) return 12;
    if (!absl::IsAborted(archive->Append(id, 3, lease->fence, "three of the sleeper", true))) return 13;
    if (!absl::IsAborted(archive->Compact(id, 2, lease->fence, "all of the sleeper"))) return 14;
    if (!absl::IsAborted(archive->Renew(id, *lease, absl::Seconds(10)).status())) return 15;
    return 0;
  });
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  ASSERT_EQ(kill(sleeper, SIGSTOP), 0);
  absl::SleepFor(absl::Milliseconds(2200));
  const auto other = open();
  const auto lease = other->Acquire(id, "other", absl::Seconds(30));
  ASSERT_TRUE(lease.ok()) << lease.status();
  ASSERT_TRUE(other->Append(id, 2, lease->fence, "two", true).ok());
  ASSERT_EQ(kill(sleeper, SIGCONT), 0);
  ASSERT_EQ(write(go[1], &byte, 1), 1);
  EXPECT_EQ(ExitOf(sleeper), 0);
  EXPECT_EQ(other->Read(id)->records, (std::vector<std::string>{"one", "two"}));
  for (const int end : {ready[0], ready[1], go[0], go[1]}) close(end);
}

// What a server may be told that was stopped in the middle: no, or that it is not known.
inline bool IsExpected(const absl::Status& status) {
  if (absl::IsAborted(status) || absl::IsUnavailable(status)) return true;
  fprintf(stderr, "unexpected: %s\n", status.ToString().c_str());
  return false;
}

// One process of a race: appends under leases, compacts now and then, and reports what was acknowledged.
inline int Race(const OpenArchive& open, const std::string& id, int number, int report) {
  const auto archive = open();
  std::mt19937 random(static_cast<uint32_t>(number));
  int appended = 0;
  for (int attempt = 0; attempt < 2000 && appended < 15; ++attempt) {
    const auto lease = archive->Acquire(id, absl::StrCat("server ", number), absl::Milliseconds(150));
    if (!lease.ok()) {
      if (!IsExpected(lease.status())) return 20;
      absl::SleepFor(absl::Milliseconds(5 + random() % 20));
      continue;
    }
    const auto read = archive->Read(id);
    if (!read.ok()) {
      if (!IsExpected(read.status())) return 21;
      continue;
    }
    const int64_t last = read->first + static_cast<int64_t>(read->records.size()) - 1;
    const std::string record = absl::StrCat(number, ".", attempt);
    const absl::Status status = archive->Append(id, last + 1, lease->fence, record, true);
    const char* const verdict = status.ok() ? "yes" : absl::IsAborted(status) ? "no" : "unknown";
    const std::string line = absl::StrCat(verdict, " ", record, "\n");
    if (write(report, line.data(), line.size()) != static_cast<ssize_t>(line.size())) return 22;
    if (!status.ok() && !IsExpected(status)) return 23;
    if (status.ok()) ++appended;
    if (status.ok() && random() % 3 == 0) {
      std::string all = record;
      for (auto older = read->records.rbegin(); older != read->records.rend(); ++older) {
        all = absl::StrCat(*older, ",", all);
      }
      const absl::Status compacted = archive->Compact(id, last + 1, lease->fence, all);
      if (!compacted.ok() && !IsExpected(compacted)) return 24;
    }
    const absl::Status released = random() % 2 == 0 ? archive->Release(id, *lease) : absl::OkStatus();
    if (!released.ok() && !IsExpected(released)) return 25;
  }
  return appended == 15 ? 0 : 26;
}

inline void ExpectProcessesThatStopAtRandomAppendEachRecordOnce(const OpenArchive& open) {
  const std::string id = IdOf(1);
  ASSERT_TRUE(open()->PutEntry(EntryOf(1, "ann", "")).ok());
  int report[2];
  ASSERT_EQ(pipe(report), 0);
  std::vector<pid_t> servers;
  for (int number = 0; number < 3; ++number) {
    servers.push_back(Spawn([&, number] { return Race(open, id, number, report[1]); }));
  }
  close(report[1]);
  std::atomic<bool> stop = false;
  std::thread trouble([&] {
    std::mt19937 random(7);
    while (!stop) {
      const pid_t victim = servers[random() % servers.size()];
      kill(victim, SIGSTOP);
      absl::SleepFor(absl::Milliseconds(random() % 2 == 0 ? 10 : 250));  // within a lease, and beyond
      kill(victim, SIGCONT);
      absl::SleepFor(absl::Milliseconds(20 + random() % 50));
    }
  });
  std::string reported;
  char part[4096];
  for (ssize_t count; (count = read(report[0], part, sizeof(part))) > 0;) reported.append(part, count);
  stop = true;
  trouble.join();
  close(report[0]);
  for (const pid_t server : servers) EXPECT_EQ(ExitOf(server), 0);

  const auto read = open()->Read(id);
  ASSERT_TRUE(read.ok()) << read.status();
  std::multiset<std::string> there;
  for (const std::string& record : read->records) {
    for (const auto& one : absl::StrSplit(record, ',')) there.insert(std::string(one));
  }
  int acknowledged = 0;
  for (const auto& line : absl::StrSplit(reported, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words[0] == "yes") {
      ++acknowledged;
      EXPECT_EQ(there.count(words[1]), 1u) << words[1];
    } else if (words[0] == "no") {
      EXPECT_EQ(there.count(words[1]), 0u) << words[1];
    } else {
      EXPECT_LE(there.count(words[1]), 1u) << words[1];
    }
  }
  EXPECT_EQ(acknowledged, 45);
}

}  // namespace statehouse::testing
