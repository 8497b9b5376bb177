// The exact bytes of the event stream: what the SDKs were measured to accept.
#include "server/sse_writer.h"

#include <gtest/gtest.h>

namespace server {
namespace {

TEST(SseWriter, FramesAreDataLineAndEmptyLine) {
  SseWriter sse;
  EXPECT_TRUE(sse.empty());
  sse.Data(R"({"a":1})");
  sse.Ping();
  sse.Done();
  EXPECT_EQ(sse.Take(), "data: {\"a\":1}\n\n: ping\n\ndata: [DONE]\n\n");
  EXPECT_TRUE(sse.empty());
}

}  // namespace
}  // namespace server
