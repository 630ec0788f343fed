#include "models/weight_files.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "models/json.h"

namespace statehouse {
namespace {

absl::Status IndexError(const std::string& index, std::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat(index, ": ", std::string(message)));
}

// A plain name in the index's own directory: nothing that could lead elsewhere.
bool IsPlainFileName(const std::string& name) {
  constexpr std::string_view kSuffix = ".safetensors";
  return name.size() > kSuffix.size() && name.ends_with(kSuffix) &&
         name.find_first_of(std::string_view("/\\\0", 3)) == name.npos && name.front() != '.';
}

// weight_map of the index: tensor name -> shard file name.
absl::StatusOr<std::map<std::string, std::string>> ReadWeightMap(const std::filesystem::path& index_file) {
  const std::string index = index_file.string();
  auto document = ReadJsonFile(index_file);
  if (!document.ok()) return document.status();
  if (!document->is_object() || !document->contains("weight_map") || !(*document)["weight_map"].is_object()) {
    return IndexError(index, "weight_map: missing; expected an object of tensor names and shard files");
  }
  std::map<std::string, std::string> weight_map;
  for (const auto& [tensor, shard] : (*document)["weight_map"].items()) {
    if (!shard.is_string() || !IsPlainFileName(shard.get<std::string>())) {
      const std::string shown = shard.is_string() ? QuotedName(shard.get<std::string>()) : "no string";
      return IndexError(index, absl::StrCat("weight_map: tensor ", QuotedName(tensor), ": ", shown,
                                            "; expected the name of a .safetensors file in the same directory"));
    }
    weight_map[tensor] = shard.get<std::string>();
  }
  if (weight_map.empty()) return IndexError(index, "weight_map: names no tensor; expected at least one");
  return weight_map;
}

}  // namespace

absl::Status WeightFiles::OpenShards(const std::filesystem::path& index_file) {
  const std::string index = index_file.string();
  const auto weight_map = ReadWeightMap(index_file);
  if (!weight_map.ok()) return weight_map.status();
  std::map<std::string, std::string> shards;  // file name -> the first tensor that it was named for
  for (const auto& [tensor, shard] : *weight_map) shards.emplace(shard, tensor);
  for (const auto& [shard, first_tensor] : shards) {
    const std::filesystem::path path = index_file.parent_path() / shard;
    auto file = Safetensors::Open(path);
    if (absl::IsNotFound(file.status())) {
      return absl::NotFoundError(absl::StrCat(path.string(), ": no such file; ", index, " expects tensor ",
                                              QuotedName(first_tensor), " in it"));
    }
    if (!file.ok()) return file.status();
    for (const auto& [name, view] : file->tensors()) {
      const auto mapped = weight_map->find(name);
      if (mapped == weight_map->end() || mapped->second != shard) {
        const std::string where = mapped == weight_map->end()
                                      ? "does not name it"
                                      : absl::StrCat("expects it in ", QuotedName(mapped->second));
        return absl::InvalidArgumentError(
            absl::StrCat(path.string(), ": tensor ", QuotedName(name), " is in this file, but ", index, " ", where));
      }
      tensors_.emplace(name, Tensor{path.string(), view});
    }
    files_.push_back(*std::move(file));
  }
  for (const auto& [tensor, shard] : *weight_map) {
    if (tensors_.contains(tensor)) continue;
    return absl::InvalidArgumentError(absl::StrCat((index_file.parent_path() / shard).string(), ": tensor ",
                                                   QuotedName(tensor), " is missing; ", index,
                                                   " expects it in this file"));
  }
  return absl::OkStatus();
}

absl::StatusOr<WeightFiles> WeightFiles::Open(const std::filesystem::path& checkpoint_dir) {
  const std::filesystem::path single = checkpoint_dir / "model.safetensors";
  const std::filesystem::path index = checkpoint_dir / "model.safetensors.index.json";
  WeightFiles result;
  std::error_code ignored;
  if (!std::filesystem::exists(single, ignored) && std::filesystem::exists(index, ignored)) {
    result.main_file_ = index.string();
    if (absl::Status status = result.OpenShards(index); !status.ok()) return status;
    return result;
  }
  result.main_file_ = single.string();
  auto file = Safetensors::Open(single);
  if (absl::IsNotFound(file.status())) {
    return absl::NotFoundError(
        absl::StrCat(single.string(), ": no such file, nor ", index.filename().string(), "; expected one of the two"));
  }
  if (!file.ok()) return file.status();
  for (const auto& [name, view] : file->tensors()) result.tensors_.emplace(name, Tensor{result.main_file_, view});
  result.files_.push_back(*std::move(file));
  return result;
}

}  // namespace statehouse
