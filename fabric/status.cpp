#include "fabric/status.h"

namespace fabric {

std::string_view StatusName(Status status) {
  switch (status) {
    case Status::kOk:
      return "OK";
    case Status::kPending:
      return "PENDING";
    case Status::kErrAddr:
      return "ERR_ADDR";
    case Status::kErrPack:
      return "ERR_PACK";
    case Status::kErrBusy:
      return "ERR_BUSY";
    case Status::kErrUnsupported:
      return "ERR_UNSUPPORTED";
    case Status::kErrNoMem:
      return "ERR_NOMEM";
    case Status::kErrTimeout:
      return "ERR_TIMEOUT";
    case Status::kErrStale:
      return "ERR_STALE";
    case Status::kErrGone:
      return "ERR_GONE";
  }
  return "?";
}

}  // namespace fabric
