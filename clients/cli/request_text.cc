#include "clients/cli/request_text.h"

#include <google/protobuf/descriptor.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/utf8.h"

namespace statehouse::cli {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

absl::Status CheckString(const std::string& path, const std::string& text) {
  const size_t valid = ValidUtf8Prefix(text);
  if (valid == text.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": a text whose byte ", valid, " is not UTF-8 is not allowed; expected UTF-8"));
}

absl::Status CheckMessage(const Message& message, const std::string& prefix);

// Element `index` of a repeated field, or the field itself if that is negative.
absl::Status CheckValue(const Message& message, const FieldDescriptor& field, int index, const std::string& path) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::string scratch;
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return CheckMessage(
        index < 0 ? reflection.GetMessage(message, &field) : reflection.GetRepeatedMessage(message, &field, index),
        path + ".");
  }
  return CheckString(path, index < 0 ? reflection.GetStringReference(message, &field, &scratch)
                                     : reflection.GetRepeatedStringReference(message, &field, index, &scratch));
}

absl::Status CheckMessage(const Message& message, const std::string& prefix) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->type() != FieldDescriptor::TYPE_STRING && field->type() != FieldDescriptor::TYPE_MESSAGE) continue;
    const std::string path = prefix + field->name();
    const int count = field->is_repeated() ? message.GetReflection()->FieldSize(message, field) : 0;
    absl::Status status = field->is_repeated() ? absl::OkStatus() : CheckValue(message, *field, -1, path);
    for (int i = 0; i < count && status.ok(); ++i) {
      status = CheckValue(message, *field, i, absl::StrCat(path, "[", i, "]"));
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckText(const Message& request) { return CheckMessage(request, ""); }

}  // namespace statehouse::cli
