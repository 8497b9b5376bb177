#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/machine_facts.h"

namespace cli {

// One thing that the doctor looked at.
struct Finding {
  enum class Verdict {
    kGood,
    kNote,     // worth knowing; nothing is wrong
    kWarning,  // costs speed or may fail under load
    kProblem,  // the server will not do its work
  };
  std::string id = {};  // "huge_pages"
  Verdict verdict = Verdict::kGood;
  std::string found = {};   // a sentence
  std::string advice = {};  // what to do; empty when nothing is to be done
};

std::string_view VerdictName(Finding::Verdict verdict);  // "good", "note", "warning", "problem"

// Of the kernels that Tern has and can run here.
struct IsaFacts {
  std::string chosen;
  std::string best;  // of this machine
};

// What was measured, or is known of the model. 0 = not measured.
struct ModelFacts {
  std::string name = {};
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;  // of one full context
  uint32_t context = 0;
  double bytes_per_token = 0;
  double tokens_per_second = 0;        // of one sequence, as measured now
  double limit_tokens_per_second = 0;  // by the limits below
  std::string error = {};              // why it cannot be loaded; empty = it can
};

struct SpeedFacts {
  double read_bytes_per_second = 0;
  double int8_macs_per_second = 0;
  int threads = 0;
};

// The findings about the machine, in the order in which they are shown. energy_problem: of
// server::EnergyMeter, empty when energy can be read. max_connections: of the server's options.
std::vector<Finding> DiagnoseMachine(const MachineFacts& facts, const IsaFacts& isa, int threads,
                                     const std::string& energy_problem, uint32_t max_connections);
std::vector<Finding> DiagnoseSpeed(const MachineFacts& facts, const SpeedFacts& speed);
std::vector<Finding> DiagnoseModel(const MachineFacts& facts, const ModelFacts& model);

}  // namespace cli
