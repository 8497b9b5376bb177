#include "gguf/header.h"

#include <bit>
#include <cstring>
#include <utility>

#include "gguf/error.h"
#include "gguf/quoted.h"

namespace gguf {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read in place");

// The specification's limit on keys; tensor names are held to the same one.
constexpr uint64_t kMaxNameBytes = 65535;
constexpr uint32_t kMaxAlignment = 65536;
constexpr uint32_t kDefaultAlignment = 32;
constexpr int kMaxArrayDepth = 4;
constexpr uint32_t kMaxRank = 4;

// The fewest bytes that each thing can take, to bound a count before it is believed.
constexpr uint64_t kMinStringBytes = 8;
constexpr uint64_t kMinArrayBytes = 4 + 8;
constexpr uint64_t kMinEntryBytes = kMinStringBytes + 4 + 1;
constexpr uint64_t kMinTensorBytes = kMinStringBytes + 4 + 4 + 8;

// A position in the file that cannot leave it.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }

  template <typename T>
  T Read(const char* what) {
    if (remaining() < sizeof(T)) ThrowEnd(what, sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  std::string ReadString(const char* what, uint64_t max_bytes) {
    const auto length = Read<uint64_t>(what);
    if (length > remaining()) ThrowEnd(what, length);
    if (length > max_bytes) {
      throw FormatError(std::string(what) + " at byte " + std::to_string(position_) + " has " +
                        std::to_string(length) + " bytes: expected at most " +
                        std::to_string(max_bytes));
    }
    std::string text(reinterpret_cast<const char*>(bytes_.data() + position_), length);
    position_ += length;
    return text;
  }

  // A count of things that take at least `min_bytes` each.
  uint64_t CheckCount(uint64_t count, uint64_t min_bytes, const char* what) const {
    if (count > remaining() / min_bytes) {
      throw FormatError(std::string(what) + " is " + std::to_string(count) + ", but the " +
                        std::to_string(remaining()) + " bytes left can hold at most " +
                        std::to_string(remaining() / min_bytes));
    }
    return count;
  }

 private:
  [[noreturn]] void ThrowEnd(const char* what, uint64_t wanted) const {
    throw FormatError("the file ends inside " + std::string(what) + ": expected " +
                      std::to_string(wanted) + " bytes at byte " + std::to_string(position_) +
                      ", found " + std::to_string(remaining()));
  }

  std::span<const std::byte> bytes_;
  uint64_t position_ = 0;
};

uint64_t MinElementBytes(ValueType type) {
  switch (type) {
    case ValueType::kUint8:
    case ValueType::kInt8:
    case ValueType::kBool:
      return 1;
    case ValueType::kUint16:
    case ValueType::kInt16:
      return 2;
    case ValueType::kUint32:
    case ValueType::kInt32:
    case ValueType::kFloat32:
      return 4;
    case ValueType::kUint64:
    case ValueType::kInt64:
    case ValueType::kFloat64:
      return 8;
    case ValueType::kString:
      return kMinStringBytes;
    case ValueType::kArray:
      return kMinArrayBytes;
  }
  throw FormatError("unknown metadata value type " + std::to_string(static_cast<uint32_t>(type)) +
                    ": expected 0 to 12");
}

bool ReadBool(Cursor& cursor) {
  const auto byte = cursor.Read<uint8_t>("a bool");
  if (byte > 1) {
    throw FormatError("a metadata bool is " + std::to_string(byte) + ": expected 0 or 1");
  }
  return byte == 1;
}

int64_t ReadSigned(Cursor& cursor, ValueType type) {
  switch (type) {
    case ValueType::kInt8:
      return cursor.Read<int8_t>("an int8");
    case ValueType::kInt16:
      return cursor.Read<int16_t>("an int16");
    case ValueType::kInt32:
      return cursor.Read<int32_t>("an int32");
    default:
      return cursor.Read<int64_t>("an int64");
  }
}

uint64_t ReadUnsigned(Cursor& cursor, ValueType type) {
  switch (type) {
    case ValueType::kBool:
      return ReadBool(cursor) ? 1 : 0;
    case ValueType::kUint8:
      return cursor.Read<uint8_t>("a uint8");
    case ValueType::kUint16:
      return cursor.Read<uint16_t>("a uint16");
    case ValueType::kUint32:
      return cursor.Read<uint32_t>("a uint32");
    default:
      return cursor.Read<uint64_t>("a uint64");
  }
}

double ReadFloating(Cursor& cursor, ValueType type) {
  if (type == ValueType::kFloat32) return static_cast<double>(cursor.Read<float>("a float32"));
  return cursor.Read<double>("a float64");
}

template <typename T, typename ReadElement>
std::vector<T> ReadElements(uint64_t count, const ReadElement& read) {
  std::vector<T> elements;
  elements.reserve(count);
  for (uint64_t i = 0; i < count; ++i) elements.push_back(read());
  return elements;
}

MetadataArray ReadArray(Cursor& cursor, int depth) {
  if (depth > kMaxArrayDepth) {
    throw FormatError("metadata arrays are nested deeper than " + std::to_string(kMaxArrayDepth));
  }
  MetadataArray array;
  array.element_type = static_cast<ValueType>(cursor.Read<uint32_t>("an array's element type"));
  const uint64_t min_bytes = MinElementBytes(array.element_type);
  const uint64_t count =
      cursor.CheckCount(cursor.Read<uint64_t>("an array's length"), min_bytes, "an array's length");
  const ValueType type = array.element_type;
  switch (type) {
    case ValueType::kInt8:
    case ValueType::kInt16:
    case ValueType::kInt32:
    case ValueType::kInt64:
      array.values = ReadElements<int64_t>(count, [&] { return ReadSigned(cursor, type); });
      break;
    case ValueType::kBool:
    case ValueType::kUint8:
    case ValueType::kUint16:
    case ValueType::kUint32:
    case ValueType::kUint64:
      array.values = ReadElements<uint64_t>(count, [&] { return ReadUnsigned(cursor, type); });
      break;
    case ValueType::kFloat32:
    case ValueType::kFloat64:
      array.values = ReadElements<double>(count, [&] { return ReadFloating(cursor, type); });
      break;
    case ValueType::kString:
      array.values = ReadElements<std::string>(
          count, [&] { return cursor.ReadString("a string", cursor.remaining()); });
      break;
    case ValueType::kArray:
      array.values =
          ReadElements<MetadataArray>(count, [&] { return ReadArray(cursor, depth + 1); });
      break;
  }
  return array;
}

MetadataValue ReadValue(Cursor& cursor) {
  MetadataValue value;
  value.type = static_cast<ValueType>(cursor.Read<uint32_t>("a value's type"));
  MinElementBytes(value.type);  // refuses unknown types
  switch (value.type) {
    case ValueType::kBool:
      value.value = ReadBool(cursor);
      break;
    case ValueType::kInt8:
    case ValueType::kInt16:
    case ValueType::kInt32:
    case ValueType::kInt64:
      value.value = ReadSigned(cursor, value.type);
      break;
    case ValueType::kUint8:
    case ValueType::kUint16:
    case ValueType::kUint32:
    case ValueType::kUint64:
      value.value = ReadUnsigned(cursor, value.type);
      break;
    case ValueType::kFloat32:
    case ValueType::kFloat64:
      value.value = ReadFloating(cursor, value.type);
      break;
    case ValueType::kString:
      value.value = cursor.ReadString("a string", cursor.remaining());
      break;
    case ValueType::kArray:
      value.value = ReadArray(cursor, 1);
      break;
  }
  return value;
}

Metadata ReadMetadata(Cursor& cursor, uint64_t count) {
  std::vector<std::pair<std::string, MetadataValue>> entries;
  entries.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    std::string key = cursor.ReadString("a metadata key", kMaxNameBytes);
    try {
      MetadataValue value = ReadValue(cursor);
      entries.emplace_back(std::move(key), std::move(value));
    } catch (const FormatError& error) {
      throw FormatError("metadata key " + Quoted(key) + ": " + error.what());
    }
  }
  return Metadata::FromEntries(std::move(entries));
}

DeclaredTensor ReadTensor(Cursor& cursor) {
  DeclaredTensor tensor;
  tensor.name = cursor.ReadString("a tensor's name", kMaxNameBytes);
  tensor.rank = cursor.Read<uint32_t>("a tensor's rank");
  if (tensor.rank > kMaxRank) {
    throw FormatError("tensor " + Quoted(tensor.name) + " has " + std::to_string(tensor.rank) +
                      " dimensions: expected at most " + std::to_string(kMaxRank));
  }
  for (uint32_t i = 0; i < tensor.rank; ++i) {
    tensor.extents[i] = cursor.Read<uint64_t>("a tensor's extents");
  }
  tensor.type_id = cursor.Read<uint32_t>("a tensor's type");
  tensor.offset = cursor.Read<uint64_t>("a tensor's offset");
  return tensor;
}

uint32_t ReadVersion(Cursor& cursor) {
  constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
  if (cursor.Read<uint32_t>("the magic number") != kMagic) {
    throw FormatError("not a GGUF file: it does not begin with \"GGUF\"");
  }
  const auto version = cursor.Read<uint32_t>("the version");
  if (version == 2 || version == 3) return version;
  if (__builtin_bswap32(version) <= 3) {
    throw FormatError("the file is big-endian GGUF: convert it to little-endian first");
  }
  throw FormatError("GGUF version " + std::to_string(version) +
                    " is not supported: expected 2 or 3");
}

uint32_t ReadAlignment(const Metadata& metadata) {
  const uint64_t alignment = metadata.FindUint("general.alignment").value_or(kDefaultAlignment);
  if (!std::has_single_bit(alignment) || alignment > kMaxAlignment) {
    throw FormatError("general.alignment is " + std::to_string(alignment) +
                      ": expected a power of two up to " + std::to_string(kMaxAlignment));
  }
  return static_cast<uint32_t>(alignment);
}

}  // namespace

Header ParseHeader(std::span<const std::byte> bytes) {
  Cursor cursor(bytes);
  Header header;
  header.version = ReadVersion(cursor);
  const auto tensor_count = cursor.Read<uint64_t>("the tensor count");
  const auto entry_count = cursor.Read<uint64_t>("the metadata count");
  cursor.CheckCount(tensor_count, kMinTensorBytes, "the tensor count");
  cursor.CheckCount(entry_count, kMinEntryBytes, "the metadata count");

  header.metadata = ReadMetadata(cursor, entry_count);
  header.alignment = ReadAlignment(header.metadata);
  // Checked again: the metadata has used up some of the bytes.
  cursor.CheckCount(tensor_count, kMinTensorBytes, "the tensor count");
  header.tensors = ReadElements<DeclaredTensor>(tensor_count, [&] { return ReadTensor(cursor); });
  // Cannot wrap: the position is at most the file's size and the alignment at most 2^16.
  const uint64_t mask = header.alignment - 1;
  header.data_offset = (cursor.position() + mask) & ~mask;
  return header;
}

}  // namespace gguf
