#include "engine/model_facts.h"

#include "engine/engine.h"
#include "engine/model.h"
#include "engine/model_config.h"
#include "gguf/reader.h"

namespace engine {

ModelFacts InspectModel(const std::string& path, const EngineOptions& options) {
  const gguf::File file = gguf::File::Open(path, ReadOptionsFor(options));
  const ModelConfig config = ModelConfig::FromGguf(file, options);
  ModelFacts facts;
  facts.architecture = config.architecture;
  facts.context_length =
      options.context_length > 0 ? options.context_length : config.context_length;
  facts.vocabulary = config.vocabulary;
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    facts.parameters += tensor.elements();
    facts.weight_bytes += tensor.byte_size;
  }
  facts.kv_bytes = PlannedKvBytes(config, options, facts.weight_bytes);
  facts.kv_block_bytes = PlannedKvGeometry(config, options).BytesPerBlock();
  return facts;
}

std::unique_ptr<const text::Tokenizer> ReadTokenizer(const std::string& path,
                                                     const EngineOptions& options) {
  return text::Tokenizer::FromMetadata(gguf::File::Open(path, ReadOptionsFor(options)).metadata());
}

}  // namespace engine
