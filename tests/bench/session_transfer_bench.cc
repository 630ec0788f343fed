// How fast a session leaves a server: Sessions.Export over loopback TCP, beside a stream of as many messages of the
// same size that a server of the same settings sends without any work. docs/performance.md says what came out.
//
//   session_transfer_bench [layers] [runs]    states of PowerCoder's heads, 8.9 MB per layer; 16 layers, 20 runs
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "grpcpp/server_builder.h"
#include "kernels/power_retention/layout.h"
#include "server/commands/made_up_snapshot.h"
#include "tests/server/session_fixture.h"

namespace statehouse::testing {
namespace {

constexpr size_t kPartBytes = 1 << 20;
constexpr int64_t kPosition = 100'000;
constexpr int64_t kVocab = 49152;

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Sends parts of an export that hold anything.
class PlainExport final : public v1::Sessions::CallbackService {
 public:
  explicit PlainExport(int64_t bytes) : bytes_(bytes) {}

  grpc::ServerWriteReactor<v1::ExportSessionPart>* Export(grpc::CallbackServerContext*,
                                                          const v1::ExportSessionRequest*) override {
    class Reactor final : public grpc::ServerWriteReactor<v1::ExportSessionPart> {
     public:
      explicit Reactor(int64_t bytes) : left_(bytes) {
        part_.mutable_data()->assign(kPartBytes, 'x');
        Next();
      }
      void OnWriteDone(bool) override { Next(); }
      void OnDone() override { delete this; }

     private:
      void Next() {
        if (left_ == 0) return Finish(grpc::Status::OK);
        const size_t count = static_cast<size_t>(std::min<int64_t>(left_, kPartBytes));
        part_.mutable_data()->resize(count);
        left_ -= static_cast<int64_t>(count);
        part_.set_last(left_ == 0);
        StartWrite(&part_);
      }
      int64_t left_;
      v1::ExportSessionPart part_;
    };
    return new Reactor(bytes_);
  }

 private:
  const int64_t bytes_;
};

// Reads an export and drops it. Seconds; `*bytes`: of its parts; `*first`: seconds until the first of them.
double TimeExport(v1::Sessions::Stub* stub, const std::string& session, int64_t* bytes, double* first) {
  const double start = Now();
  grpc::ClientContext context;
  v1::ExportSessionRequest request;
  request.set_session(session);
  auto reader = stub->Export(&context, request);
  *bytes = 0;
  for (v1::ExportSessionPart part; reader->Read(&part);) {
    if (*bytes == 0) *first = Now() - start;
    *bytes += static_cast<int64_t>(part.data().size());
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) {
    std::fprintf(stderr, "export: %s\n", status.error_message().c_str());
    std::exit(1);
  }
  return Now() - start;
}

struct Times {
  std::vector<double> all;
  double median() {
    std::sort(all.begin(), all.end());
    return all[all.size() / 2];
  }
  double min() { return *std::min_element(all.begin(), all.end()); }
};

void Report(const char* what, int64_t bytes, Times* times, Times* plain) {
  std::printf("%-24s %8.1f ms (min %.1f)  %6.2f GB/s  %5.0f %%\n", what, times->median() * 1e3, times->min() * 1e3,
              static_cast<double>(bytes) / times->median() / 1e9, 100 * plain->median() / times->median());
}

int Run(int64_t num_layers, int runs) {
  kernels::RetentionShape retention = {.heads_q = 24, .heads_kv = 2, .head_dim = 128};
  const auto layout = kernels::RetentionLayout::Make(retention);
  if (!layout.ok()) return 1;
  const SlotShape shape = {*layout, num_layers};
  const auto snapshot = MadeUpSnapshot(shape, kVocab, kPosition);
  if (!snapshot.ok()) return 1;
  ServerOptions options;
  options.listen.port = 0;
  SessionServer server(options);
  server.served().slot_shape = shape;
  SessionImage image;
  image.spec.principal = "";
  image.spec.name = "moved";
  image.tokens.assign((*snapshot)->tokens().begin(), (*snapshot)->tokens().end());
  image.snapshot = *snapshot;
  if (const auto made = server.store().Adopt(image.spec, image); !made.ok()) {
    std::fprintf(stderr, "%s\n", std::string(made.status().message()).c_str());
    return 1;
  }
  int64_t bytes = 0, plain_bytes = 0;
  double first = 0;
  TimeExport(&server.sessions(), "moved", &bytes, &first);

  PlainExport plain(bytes);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&plain);
  const auto plain_server = builder.BuildAndStart();
  const auto plain_stub =
      v1::Sessions::NewStub(grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials()));

  Times exported, until_first, sent;
  for (int run = -1; run < runs; ++run) {
    const double took = TimeExport(&server.sessions(), "moved", &bytes, &first);
    double ignored = 0;
    const double plain_took = TimeExport(plain_stub.get(), "", &plain_bytes, &ignored);
    if (run < 0) continue;  // everything is cold
    exported.all.push_back(took);
    until_first.all.push_back(first);
    sent.all.push_back(plain_took);
  }
  plain_server->Shutdown();
  if (plain_bytes != bytes) return 1;
  std::printf("a session of %lld tokens, %.1f MB, %d runs\n", static_cast<long long>(kPosition),
              static_cast<double>(bytes) / 1e6, runs);
  Report("the stream alone", bytes, &sent, &sent);
  Report("export", bytes, &exported, &sent);
  std::printf("%-24s %8.1f ms\n", "of it until the 1st part", until_first.median() * 1e3);
  return 0;
}

}  // namespace
}  // namespace statehouse::testing

int main(int argc, char** argv) {
  const int layers = argc > 1 ? std::atoi(argv[1]) : 16;
  const int runs = argc > 2 ? std::atoi(argv[2]) : 20;
  if (layers < 1 || runs < 1) {
    std::fprintf(stderr, "usage: session_transfer_bench [layers] [runs]\n");
    return 2;
  }
  return statehouse::testing::Run(layers, runs);
}
