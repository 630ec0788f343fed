// What a model costs, as arithmetic on its config: for `statehouse info`, admission and benchmarks' floors.
// Thread-safety: pure functions. Bytes are bytes, FLOPs count a multiply-add as two.
#pragma once

#include <cstdint>

#include "kernels/matmul/matmul.h"  // WeightType
#include "models/config.h"

namespace statehouse {

enum class StateType { kF32, kBF16 };  // of S; the normaliser z is float32 always

// Parameters of the layers' matrices (without embedding, head, norms and biases), of the head, and of everything.
int64_t LinearParameters(const ModelConfig& config);
int64_t HeadParameters(const ModelConfig& config);
int64_t NumParameters(const ModelConfig& config);

// State of one sequence, all layers: D·d numbers of S and D of z per layer and key/value head, without padding or tail.
// 0 for shapes without a state form (degree 4 with head sizes above 32).
int64_t StateBytes(const ModelConfig& config, StateType type);
// The tail at its fullest, 2C rows of k, v and a gate sum, float32.
int64_t TailBytes(const ModelConfig& config);
// The key/value cache that softmax attention of the same shape would keep, bf16.
int64_t KvCacheBytesPerToken(const ModelConfig& config);
// Context length from which on the state is smaller than that cache. 0 without a state form.
int64_t BreakEvenTokens(const ModelConfig& config, StateType type);
// How many sequences of `bytes_per_sequence` > 0 fit in `bytes`.
int64_t SequencesThatFit(int64_t bytes, int64_t bytes_per_sequence);

// Forward FLOPs of one token past the switch-over. Linear: the layers' matrices. Retention: query of the state, update,
// and the chunk itself (causal half). Head: one row of logits.
double LinearFlopsPerToken(const ModelConfig& config);
double RetentionFlopsPerToken(const ModelConfig& config);
double HeadFlopsPerRow(const ModelConfig& config);

// Bytes of all weights as `type`, int8 with its scales.
int64_t WeightBytes(const ModelConfig& config, kernels::WeightType type);
// The fewest bytes that a decode step of `num_sequences` past the switch-over moves, given the bytes of weights it
// reads: weights once, and per sequence the state and a tail of average length (1.5 C rows).
int64_t DecodeFloorBytes(const ModelConfig& config, int64_t weight_bytes, int64_t num_sequences, StateType type);

}  // namespace statehouse
