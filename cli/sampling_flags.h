#pragma once

#include <CLI/CLI.hpp>

#include "engine/sampling_params.h"

namespace cli {

// Adds --temperature, --top-k, ... to a command, writing into *params while parsing.
void AddSamplingFlags(CLI::App& command, engine::SamplingParams* params);

// Errors: UsageError with the sentence of SamplingParams::Validate().
void CheckSampling(const engine::SamplingParams& params, uint32_t vocabulary);

}  // namespace cli
