#pragma once

#include <prometheus/metric_family.h>

#include <string>
#include <string_view>

namespace server {

// Appends a family under a name (its own or an alias) in Prometheus' text format 0.0.4: what
// prometheus::TextSerializer writes, without an output stream. Whole numbers have no exponent below
// 2^53, others the fewest digits that read back to the same value; so a bucket's `le` keeps its
// spelling. Counters, gauges and histograms; no other kind is in use.
//
// Threads: any.
void AppendFamily(const prometheus::MetricFamily& family, std::string_view name, std::string* out);

}  // namespace server
