#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include "cli/command.h"
#include "cli/load_runner.h"
#include "server/http_client.h"

namespace cli {
namespace {

constexpr const char* kHealthExamples =
    "Exit code 0 when the server answers 200: a health check for images without curl.\n"
    "\n"
    "Examples:\n"
    "  tern health\n"
    "  tern health --url http://127.0.0.1:9000/ready --timeout 2\n"
    "  tern health --url https://127.0.0.1:8080/health --insecure     this machine's TLS server";

struct HealthFlags {
  std::string url = "http://127.0.0.1:8080/health";
  int timeout = 5;
  bool insecure = false;
  std::string ca_file;
};

server::ClientUrl UrlOf(const HealthFlags& flags) {
  try {
    return server::ClientUrl::Parse(flags.url);
  } catch (const std::invalid_argument& error) {
    throw UsageError(std::string("--url ") + error.what() + ".");
  }
}

int RunHealth(const HealthFlags& flags) {
  if (!flags.ca_file.empty() && flags.insecure) {
    throw UsageError("Give --ca-file or --insecure, not both.");
  }
  const server::ClientUrl url = UrlOf(flags);
  server::HttpClient client({.verify = !flags.insecure, .ca_file = flags.ca_file});
  const server::HeaderList headers = {{"Connection", "close"}, {"User-Agent", "tern-health"}};
  const std::string body = Fetch(client, url, headers, flags.timeout);
  std::cout << "HTTP 200 " << OneLine(body) << std::endl;
  return kSuccess;
}

}  // namespace

void AddHealth(CLI::App& root, Run* run) {
  auto flags = std::make_shared<HealthFlags>();
  CLI::App* command = root.add_subcommand("health", "Ask a running server whether it is well");
  command->footer(kHealthExamples);
  command->add_option("--url", flags->url, "what to ask; http or https")
      ->type_name("URL")
      ->capture_default_str();
  command->add_option("--timeout", flags->timeout, "seconds to wait")
      ->type_name("N")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  command->add_option("--ca-file", flags->ca_file, "PEM authorities to trust instead")
      ->type_name("FILE");
  command->add_flag("--insecure", flags->insecure, "trust any certificate");
  command->callback([flags, run] { *run = [flags] { return RunHealth(*flags); }; });
}

}  // namespace cli
