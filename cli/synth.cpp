#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include "cli/command.h"
#include "cli/output_file.h"
#include "cli/synthetic_model.h"
#include "cli/tensor_type.h"
#include "cli/unfinished_file.h"

namespace cli {
namespace {

constexpr const char* kSynthExamples =
    "The same options give the same bytes on every machine.\n"
    "\n"
    "Examples:\n"
    "  tern synth --shape tiny --type TQ2_0 -o tiny.gguf\n"
    "  tern synth --shape 2b --type I2_S --embedding-type Q6_K -o 2b.gguf\n"
    "  tern synth --shape 2b --type TQ1_0 --vocab llama-bpe.gguf -o 2b.gguf   with a real "
    "tokenizer";

struct SynthFlags {
  std::string shape;
  std::string type = "I2_S";
  std::string embedding_type = "F16";
  std::string output;
  SyntheticOptions options;
};

int RunSynth(SynthFlags& flags) {
  flags.options.shape = FindShape(flags.shape);
  flags.options.type = ParseTensorType(flags.type);
  flags.options.embedding_type = ParseTensorType(flags.embedding_type);
  CheckOutputFile(flags.output, {flags.options.vocabulary_file});
  const UnfinishedFile unfinished(flags.output + ".partial");
  WriteSyntheticModel(flags.options, flags.output);
  std::cerr << "wrote " << flags.output << ", " << std::filesystem::file_size(flags.output)
            << " bytes\n";
  return kSuccess;
}

}  // namespace

void AddSynth(CLI::App& root, Run* run) {
  auto flags = std::make_shared<SynthFlags>();
  CLI::App* command = root.add_subcommand("synth", "Write a synthetic ternary model");
  command->footer(kSynthExamples);
  command->add_option("--shape", flags->shape, "dimensions: " + ShapeNames())
      ->type_name("NAME")
      ->required();
  command->add_option("--type", flags->type, "type of the projections")
      ->type_name("TYPE")
      ->capture_default_str();
  command->add_option("--embedding-type", flags->embedding_type, "type of embedding and head")
      ->type_name("TYPE")
      ->capture_default_str();
  command->add_option("--vocab", flags->options.vocabulary_file, "copy this file's tokenizer")
      ->type_name("GGUF");
  command->add_option("--zero-rate", flags->options.zero_rate, "share of zero weights")
      ->type_name("X")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--seed", flags->options.seed, "another seed, other weights")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("-o,--output", flags->output, "file to write")->type_name("FILE")->required();
  command->callback([flags, run] { *run = [flags] { return RunSynth(*flags); }; });
}

}  // namespace cli
