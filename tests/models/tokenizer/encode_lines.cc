// encode_lines DIR: runs the tokenizer of DIR for compare_tokenizers.py. One JSON object per line in, one out:
//   {"text": "…", "add": true, "parse": false}  ->  {"ids": […]} or {"error": "…"}
//   {"ids": […], "show": false}                 ->  {"text": "…", "streamed": "…", "whole_characters": true}
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/tokenizer/detokenizer.h"
#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/utf8.h"

namespace {

using nlohmann::json;
using statehouse::Tokenizer;

json Encode(const Tokenizer& tokenizer, const json& request) {
  std::vector<int32_t> ids;
  const absl::Status status = tokenizer.Encode(
      request.at("text").get<std::string>(),
      {.add_special_tokens = request.at("add").get<bool>(), .parse_special_tokens = request.at("parse").get<bool>()},
      &ids);
  if (!status.ok()) return {{"error", status.ToString()}};
  return {{"ids", ids}};
}

json Decode(const Tokenizer& tokenizer, const json& request) {
  const auto ids = request.at("ids").get<std::vector<int32_t>>();
  const bool show = request.at("show").get<bool>();
  statehouse::Detokenizer detokenizer(&tokenizer, show);
  std::string streamed;
  bool whole_characters = true;
  for (const int32_t id : ids) {
    const size_t before = streamed.size();
    detokenizer.Append(id, &streamed);
    const std::string piece = streamed.substr(before);
    whole_characters = whole_characters && statehouse::WellFormedPrefix(piece) == piece.size();
  }
  detokenizer.Flush(&streamed);
  return {{"text", tokenizer.Decode(ids, show)}, {"streamed", streamed}, {"whole_characters", whole_characters}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: encode_lines CHECKPOINT_DIR\n";
    return 2;
  }
  const auto tokenizer = Tokenizer::Load(argv[1]);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  std::ios::sync_with_stdio(false);
  std::string line;
  while (std::getline(std::cin, line)) {
    const json request = json::parse(line);
    const json answer = request.contains("text") ? Encode(**tokenizer, request) : Decode(**tokenizer, request);
    std::cout << answer.dump(-1, ' ', /*ensure_ascii=*/true) << "\n";
  }
  return 0;
}
