// A real model that is small, and the request whose answer must not depend on what runs beside it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "kernels/parallel/thread_pool.h"
#include "models/model.h"
#include "tests/engine/engine_fixture.h"
#include "tests/support/golden.h"

namespace statehouse::testing {

constexpr int32_t kTinyVocab = 300;

// A golden model with chunks of 16, in deterministic mode; null, with a failure, if it cannot be loaded.
inline std::unique_ptr<Model> LoadTiny(kernels::ThreadPool* pool, int64_t switch_over,
                                       const std::string& device = "cpu") {
  LoadOptions load;
  load.chunk = 16;
  load.switch_over = switch_over;
  load.device = device;
  load.deterministic = true;
  absl::StatusOr<std::unique_ptr<Model>> model =
      LoadModel(SourceDir() / "tests/golden/models/powercoder-tiny", load, pool);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? std::move(*model) : nullptr;
}

// It crosses chunks and the switch-over both in its prompt and while decoding.
inline std::unique_ptr<Request> MakeProbe(int64_t prompt_size) {
  auto request = MakeRequest(MakePrompt(prompt_size, 5, kTinyVocab), 60);
  request->sampling.seed = 1234567890123;
  request->sampling.temperature = 1.2;
  request->sampling.top_p = 0.95;
  request->sampling.repetition_penalty = 1.1;
  request->stop.ignore_eos = true;
  request->n = 2;
  request->num_logprobs = 3;
  request->num_prompt_logprobs = 1;
  return request;
}

}  // namespace statehouse::testing
