#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/api_error.h"
#include "server/openai_schema.h"
#include "server/param_reader.h"

namespace server {

// Parameters that several kinds of requests have, and what they have in common about the others.
// Errors: ApiError 400 that names the parameter.

// Refuses it unless its value switches the feature off: false, 0, "", [] or {}.
void RefuseUnlessNeutral(ParamReader& reader, std::string_view name);
// The names of parameters in vain; in strict mode the first is refused.
std::vector<std::string> CheckIgnored(std::vector<std::string> names, bool strict);
// The same for the parameters that nobody asked the reader for.
std::vector<std::string> CheckUnknown(ParamReader& reader, bool strict);
// The same for those of `names` that switch something on. The reader keeps the names as they are,
// so they must be literals.
std::vector<std::string> CheckWithoutEffect(ParamReader& reader,
                                            std::initializer_list<std::string_view> names,
                                            bool strict);

int32_t ReadPriority(ParamReader& reader);
std::string ReadCacheSalt(ParamReader& reader);
std::vector<engine::TokenId> ReadTokenIds(const Json& array, const std::string& name);
// A string, an array of strings, an array of token ids, or an array of such arrays; at least one
// and at most `most` texts. The reader keeps the name as it is, so it must be a literal.
std::vector<CompletionPrompt> ReadTexts(ParamReader& reader, std::string_view literal, size_t most);
// `lora`: [{"id": 0, "scale": 0.5}], llama-server's shape; an adapter may also be named.
std::optional<std::vector<LoraChoice>> ReadLora(ParamReader& reader);

}  // namespace server
