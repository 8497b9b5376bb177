#include "cli/config_flags.h"

#include <algorithm>
#include <utility>

namespace cli {
namespace {

// "Server options", the heading in --help.
std::string Heading(std::string_view section) {
  std::string heading(section);
  heading[0] = static_cast<char>(heading[0] - 'a' + 'A');
  return heading + " options";
}

}  // namespace

void ConfigFlags::AddTo(CLI::App& command, std::initializer_list<std::string_view> parts) {
  command.add_option("--config", file_, "TOML file with options (docs/configuration.md)")
      ->type_name("FILE");
  for (const config::OptionInfo& info : config::Options()) {
    const std::string option = std::string(info.section) + "." + std::string(info.name);
    const bool wanted = std::any_of(parts.begin(), parts.end(), [&](std::string_view part) {
      return part == info.section || part == option;
    });
    if (!wanted) continue;
    if (command.get_option_no_throw(std::string(info.flag)) != nullptr) continue;
    Add(command, info);
  }
}

void ConfigFlags::Add(CLI::App& command, const config::OptionInfo& info) {
  values_.push_back({info.flag, {}});
  std::vector<std::string>* values = &values_.back().values;
  const std::string flag(info.flag);
  const std::string normal = config::DefaultOf(info);
  std::string help(info.help);
  if (info.kind == config::OptionKind::kBoolean) {
    const std::string off = "--no-" + flag.substr(2);
    if (normal == "true") help += " (on; " + off + " turns it off)";
    command
        .add_flag_callback(
            flag, [values] { *values = {"true"}; }, help)
        ->group(Heading(info.section));
    command.add_flag_callback(off, [values] { *values = {"false"}; })->group("");
    return;
  }
  // What 0 means, the help says itself.
  if (!normal.empty() && normal != "0") help += " (default: " + normal + ")";
  CLI::Option* option = command.add_option(flag, *values, help);
  option->type_name(std::string(info.value_name))->group(Heading(info.section));
  option->expected(1)->allow_extra_args(false);
  if (info.kind == config::OptionKind::kTextList) {
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  } else {
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
}

config::Loaded ConfigFlags::Load(std::function<std::string()> default_model) const {
  config::Inputs inputs{.file = file_,
                        .environment = config::TernEnvironment(),
                        .default_model = std::move(default_model)};
  for (const config::FlagValue& value : values_) {
    if (!value.values.empty()) inputs.flags.push_back(value);
  }
  return config::Load(inputs);
}

}  // namespace cli
