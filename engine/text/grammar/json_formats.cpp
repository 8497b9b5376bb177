#include "engine/text/grammar/json_formats.h"

#include <array>

namespace engine::text::grammar {
namespace {

// Years 0001 to 9999 without leap days, then the leap days: RFC 3339 with the calendar.
#define TERN_DATE                                                                           \
  "(?:(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-"                              \
  "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|" \
  "02-(?:0[1-9]|1[0-9]|2[0-8]))|"                                                           \
  "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)"
#define TERN_TIME                                                   \
  "(?:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?" \
  "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))"
#define TERN_LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define TERN_OCTET "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define TERN_IPV4 TERN_OCTET "\\." TERN_OCTET "\\." TERN_OCTET "\\." TERN_OCTET
#define TERN_H16 "[0-9A-Fa-f]{1,4}"
#define TERN_NUMBER "[0-9]{1,9}"
#define TERN_CLOCK                                                                                 \
  "T(?:" TERN_NUMBER "H(?:" TERN_NUMBER "M(?:" TERN_NUMBER "S)?)?|" TERN_NUMBER "M(?:" TERN_NUMBER \
  "S)?|" TERN_NUMBER "S)"
#define TERN_ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,32}"
#define TERN_PATH_CHARACTER "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"

struct Format {
  std::string_view name;
  std::string_view pattern;
};

constexpr std::array kFormats = {
    Format{"date", TERN_DATE},
    Format{"time", TERN_TIME},
    Format{"date-time", TERN_DATE "T" TERN_TIME},
    Format{"duration", "P(?:" TERN_NUMBER "W|(?:" TERN_NUMBER "Y(?:" TERN_NUMBER "M(?:" TERN_NUMBER
                       "D)?)?|" TERN_NUMBER "M(?:" TERN_NUMBER "D)?|" TERN_NUMBER "D)(?:" TERN_CLOCK
                       ")?|" TERN_CLOCK ")"},
    Format{"email", TERN_ATOM "(?:\\." TERN_ATOM "){0,4}@" TERN_LABEL "(?:\\." TERN_LABEL "){1,4}"},
    Format{"hostname", TERN_LABEL "(?:\\." TERN_LABEL "){0,3}"},
    Format{"ipv4", TERN_IPV4},
    Format{"ipv6", "(?:(?:" TERN_H16 ":){7}" TERN_H16 "|::(?:" TERN_H16 ":){0,5}" TERN_H16
                   "|" TERN_H16 "::(?:" TERN_H16 ":){0,4}" TERN_H16 "|(?:" TERN_H16
                   ":){2}:(?:" TERN_H16 ":){0,3}" TERN_H16 "|(?:" TERN_H16 ":){3}:(?:" TERN_H16
                   ":){0,2}" TERN_H16 "|(?:" TERN_H16 ":){4}:(?:" TERN_H16 ":)?" TERN_H16
                   "|(?:" TERN_H16 ":){5}:" TERN_H16 "|(?:" TERN_H16 ":){1,7}:|::)"},
    Format{"uuid", "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"},
    Format{"uri",
           "[A-Za-z][A-Za-z0-9+.-]{0,15}://" TERN_LABEL "(?:\\." TERN_LABEL
           "){0,4}(?::[0-9]{1,5})?(?:/" TERN_PATH_CHARACTER "*)*(?:\\?(?:" TERN_PATH_CHARACTER
           "|[/?])*)?(?:#(?:" TERN_PATH_CHARACTER "|[/?])*)?"},
};

}  // namespace

std::string_view FormatPattern(std::string_view format) {
  for (const Format& known : kFormats) {
    if (known.name == format) return known.pattern;
  }
  return {};
}

std::string_view FormatNames() {
  return "date, time, date-time, duration, email, hostname, ipv4, ipv6, uuid, uri";
}

}  // namespace engine::text::grammar
