#include "models/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "models/json.h"

namespace statehouse {
namespace {

static_assert(std::endian::native == std::endian::little, "tensor data is read as it lies in the file");

constexpr int64_t kLengthBytes = 8;
// The limit of the format's own library; real headers are well below 1 MB.
constexpr int64_t kMaxHeaderBytes = 100'000'000;
// A tensor takes about eight JSON values, so this admits half a million tensors and bounds what a hostile header can
// claim.
constexpr int64_t kMaxHeaderValues = 4'000'000;

struct DTypeSize {
  std::string_view name;
  int64_t bytes;
};
constexpr DTypeSize kDTypes[] = {{"F32", 4}, {"BF16", 2}, {"F16", 2},     {"F64", 8},     {"I64", 8},
                                 {"I32", 4}, {"I16", 2},  {"I8", 1},      {"U64", 8},     {"U32", 4},
                                 {"U16", 2}, {"U8", 1},   {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"BOOL", 1}};

absl::Status FileError(const std::string& file, std::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", std::string(message)));
}

absl::Status TensorError(const std::string& file, std::string_view tensor, std::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": tensor ", QuotedName(tensor), ": ", std::string(message)));
}

bool IsSize(const nlohmann::json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
}

// One entry of the header. `data_bytes` is the size of the data section, `data` its start.
absl::StatusOr<TensorView> ParseTensor(const std::string& file, const std::string& name, const nlohmann::json& entry,
                                       const std::byte* data, int64_t data_bytes) {
  if (!entry.is_object()) return TensorError(file, name, "expected an object with dtype, shape and data_offsets");
  for (const auto& [key, value] : entry.items()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      return TensorError(file, name,
                         absl::StrCat("key ", QuotedName(key), "; expected only dtype, shape and data_offsets"));
    }
  }
  if (entry.size() != 3) return TensorError(file, name, "expected all of dtype, shape and data_offsets");

  TensorView view;
  const auto& dtype = entry["dtype"];
  if (!dtype.is_string()) return TensorError(file, name, "dtype: expected a string");
  view.dtype = dtype.get<std::string>();
  const auto* known = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                   [&](const DTypeSize& candidate) { return candidate.name == view.dtype; });
  if (known == std::end(kDTypes)) {
    return TensorError(file, name,
                       absl::StrCat("dtype ", QuotedName(view.dtype), " is unknown; expected F32, F16 or BF16"));
  }

  const auto& shape = entry["shape"];
  if (!shape.is_array()) return TensorError(file, name, "shape: expected an array of sizes");
  int64_t expected_bytes = known->bytes;
  for (const auto& size : shape) {
    if (!IsSize(size)) return TensorError(file, name, absl::StrCat("shape ", shape.dump(), ": expected sizes >= 0"));
    view.shape.push_back(size.get<int64_t>());
    if (__builtin_mul_overflow(expected_bytes, view.shape.back(), &expected_bytes)) {
      return TensorError(file, name, absl::StrCat("shape ", shape.dump(), " overflows; expected at most 2^63 bytes"));
    }
  }

  const auto& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !IsSize(offsets[0]) || !IsSize(offsets[1])) {
    return TensorError(file, name, "data_offsets: expected [begin, end], two integers >= 0");
  }
  const int64_t begin = offsets[0].get<int64_t>();
  const int64_t end = offsets[1].get<int64_t>();
  if (begin > end || end > data_bytes) {
    return TensorError(file, name,
                       absl::StrCat("data_offsets [", begin, ", ", end, "] out of range; expected begin <= end <= ",
                                    data_bytes, ", the bytes of data in the file (is it truncated?)"));
  }
  if (end - begin != expected_bytes) {
    return TensorError(file, name,
                       absl::StrCat(end - begin, " bytes of data; expected ", expected_bytes, " for ", view.dtype, " [",
                                    absl::StrJoin(view.shape, ", "), "]"));
  }
  view.data = data + begin;
  view.num_bytes = expected_bytes;
  return view;
}

// Tensors must tile the data section: no byte belongs to two of them or to none.
absl::Status CheckTiling(const std::string& file, const std::map<std::string, TensorView>& tensors,
                         const std::byte* data, int64_t data_bytes) {
  std::vector<std::pair<int64_t, const std::string*>> order;
  order.reserve(tensors.size());
  for (const auto& [name, view] : tensors) order.emplace_back(view.data - data, &name);
  std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    // An empty tensor lies before the one that starts at the same offset.
    return std::pair(a.first, tensors.at(*a.second).num_bytes) < std::pair(b.first, tensors.at(*b.second).num_bytes);
  });
  int64_t covered = 0;
  const std::string* last = nullptr;
  for (const auto& [begin, name] : order) {
    if (begin < covered) {
      return TensorError(
          file, *name,
          absl::StrCat("overlaps tensor ", QuotedName(*last), "; expected data_offsets to begin at ", covered));
    }
    if (begin > covered) {
      return TensorError(file, *name,
                         absl::StrCat("data_offsets begin at ", begin, " and leave a gap; expected ", covered));
    }
    covered = begin + tensors.at(*name).num_bytes;
    last = name;
  }
  if (covered != data_bytes) {
    return FileError(file, absl::StrCat(data_bytes - covered,
                                        " bytes of data belong to no tensor; expected the file to end at byte ",
                                        covered, " of its data"));
  }
  return absl::OkStatus();
}

}  // namespace

class Safetensors::Mapping {
 public:
  static absl::StatusOr<std::unique_ptr<Mapping>> Map(const std::string& file) {
    // Opened first, so that what is measured is what is mapped; non-blocking, so that a pipe cannot hold us up.
    const int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) {
      if (errno == ENOENT || errno == ENOTDIR) return absl::NotFoundError(absl::StrCat(file, ": no such file"));
      return FileError(file, absl::StrCat("cannot be opened: ", std::strerror(errno)));
    }
    absl::StatusOr<std::unique_ptr<Mapping>> mapping = MapDescriptor(file, descriptor);
    close(descriptor);
    return mapping;
  }
  ~Mapping() { munmap(const_cast<std::byte*>(data_), size_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  const std::byte* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  static absl::StatusOr<std::unique_ptr<Mapping>> MapDescriptor(const std::string& file, int descriptor) {
    struct stat info;
    if (fstat(descriptor, &info) != 0) return FileError(file, absl::StrCat("cannot be read: ", std::strerror(errno)));
    if (!S_ISREG(info.st_mode)) return FileError(file, "not a regular file");
    if (info.st_size <= kLengthBytes) {
      return FileError(file, absl::StrCat(info.st_size, " bytes; expected a header length of 8 bytes and a header"));
    }
    void* data = mmap(nullptr, info.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED) return FileError(file, absl::StrCat("cannot be mapped: ", std::strerror(errno)));
    return std::unique_ptr<Mapping>(new Mapping(static_cast<const std::byte*>(data), info.st_size));
  }
  Mapping(const std::byte* data, int64_t size) : data_(data), size_(size) {}
  const std::byte* data_;
  int64_t size_;
};

int64_t TensorView::num_elements() const {
  int64_t product = 1;
  for (int64_t size : shape) product *= size;
  return product;
}

Safetensors::Safetensors() = default;
Safetensors::Safetensors(Safetensors&&) noexcept = default;
Safetensors& Safetensors::operator=(Safetensors&&) noexcept = default;
Safetensors::~Safetensors() = default;

absl::StatusOr<Safetensors> Safetensors::Open(const std::filesystem::path& path) {
  const std::string file = path.string();
  auto mapping = Mapping::Map(file);
  if (!mapping.ok()) return mapping.status();
  Safetensors result;
  result.mapping_ = *std::move(mapping);
  const std::byte* start = result.mapping_->data();
  const int64_t size = result.mapping_->size();

  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, start, kLengthBytes);
  const uint64_t allowed = static_cast<uint64_t>(std::min(kMaxHeaderBytes, size - kLengthBytes));
  if (header_bytes == 0 || header_bytes > allowed) {
    return FileError(
        file, absl::StrCat("header length ", header_bytes, "; expected 1 … ", allowed,
                           header_bytes > 0 && header_bytes <= kMaxHeaderBytes ? " (is the file truncated?)" : ""));
  }
  const std::string_view text(reinterpret_cast<const char*>(start) + kLengthBytes, header_bytes);
  JsonLimits limits;
  limits.max_values = kMaxHeaderValues;
  limits.max_depth = 4;
  auto header = ParseJson(text, absl::StrCat(file, ": header"), limits);
  if (!header.ok()) return header.status();
  if (!header->is_object()) return FileError(file, "header: expected a JSON object of tensors");

  const std::byte* data = start + kLengthBytes + header_bytes;
  const int64_t data_bytes = size - kLengthBytes - static_cast<int64_t>(header_bytes);
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return FileError(file, "header: __metadata__: expected an object of strings");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) {
          return FileError(file, absl::StrCat("header: __metadata__ key ", QuotedName(key), ": expected a string"));
        }
        result.metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    auto view = ParseTensor(file, name, entry, data, data_bytes);
    if (!view.ok()) return view.status();
    result.tensors_.emplace(name, *std::move(view));
  }
  if (absl::Status status = CheckTiling(file, result.tensors_, data, data_bytes); !status.ok()) return status;
  return result;
}

}  // namespace statehouse
