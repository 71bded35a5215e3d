"""Error texts of Go's standard library, which users and scripts of Hubble know by heart.

In:        text that was refused.
Out:       the words in which Go's strconv, net/netip and regexp packages refuse it.
Elsewhere: the callers decide what is refused; here it is only worded. model/text/quote.py: text in double quotes.
Source:    Go 1.25: strconv.QuoteRune, strconv.ParseUint, netip.ParseAddr, netip.ParsePrefix, regexp/syntax.Error.
"""

from __future__ import annotations

from typing import Final

from model.text.quote import quote

RE2_WORDS: Final = {
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "trailing \\": "trailing backslash at end of expression",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid repetition size": "invalid repeat count",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture",
}
"""What Go says where the C++ library of RE2 uses other words."""


def quote_rune(char: str) -> str:
    """One character as %q prints it."""
    if char in "'\"":
        return "'\"'" if char == '"' else r"'\''"
    return f"'{quote(char)[1:-1]}'"


def parse_uint(text: str, bits: int) -> int:
    """Decimal number without sign.

    Raises: ValueError with the text of strconv.ParseUint.
    """
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: invalid syntax")
    # Longer than any number that fits: not worth the time that int() takes for it.
    if len(text.lstrip("0")) > 20 or int(text) >= 1 << bits:
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return int(text)


def address_error(text: str) -> str | None:
    """Why netip.ParseAddr refuses `text`; None when it is an address. Zones of IPv6 addresses are accepted."""
    problem = _address_problem(text)
    if problem is None:
        return None
    reason, rest = problem
    return f"ParseAddr({quote(text)}): {reason}" + (f" (at {quote(rest)})" if rest else "")


def prefix_error(text: str) -> str | None:
    """Why netip.ParsePrefix refuses `text`; None when it is a prefix. Host bits may be set."""
    reason = _prefix_problem(text)
    return None if reason is None else f"netip.ParsePrefix({quote(text)}): {reason}"


def regexp_error(message: str) -> str:
    """The text of regexp.Compile for what the C++ library says: `reason: expression`."""
    reason, separator, expression = message.partition(": ")
    if not separator:
        reason = message.removesuffix(":")
    return f"error parsing regexp: {RE2_WORDS.get(reason, reason)}: `{expression}`"


Problem = tuple[str, str]
"""A reason, and the rest of the text where it shows (may be empty)."""


def _prefix_problem(text: str) -> str | None:
    address, _, bits = text.rpartition("/")
    if error := address_error(address):
        return error
    if "%" in address:
        return "IPv6 zones cannot be present in a prefix"
    # A sign, leading zeros, no digits and more than an int holds are all the same mistake to Go.
    if not (bits.isascii() and bits.isdigit()) or (len(bits) > 1 and bits[0] == "0") or len(bits) > 18:
        return f"bad bits after slash: {quote(bits)}"
    if int(bits) > (128 if ":" in address else 32):
        return "prefix length out of range"
    return None


def _address_problem(text: str) -> Problem | None:
    """Why netip.ParseAddr refuses `text`; None when it accepts it."""
    kind = next((char for char in text if char in ".:%"), "")
    match kind:
        case ".":
            return _ipv4_problem(text)
        case ":":
            return _ipv6_problem(text)
        case "%":
            return "missing IPv6 address", ""
    return "unable to parse IP", ""


def _ipv4_problem(text: str) -> Problem | None:
    value = digits = dots = 0
    for position, char in enumerate(text):
        if char in "0123456789":
            if digits == 1 and value == 0:
                return "IPv4 field has octet with leading zero", ""
            value = value * 10 + int(char)
            digits += 1
            if value > 255:
                return "IPv4 field has value >255", ""
        elif char == ".":
            if position in (0, len(text) - 1) or text[position - 1] == ".":
                return "IPv4 field must have at least one digit", text[position:]
            if dots == 3:
                return "IPv4 address too long", ""
            dots += 1
            value = digits = 0
        else:
            return "unexpected character", text[position:]
    return ("IPv4 address too short", "") if dots < 3 else None


def _ipv6_problem(text: str) -> Problem | None:
    rest, percent, zone = text.partition("%")
    if percent and not zone:
        return "zone must be a non-empty string", ""
    filled, ellipsis = 0, -1  # bytes read so far, and where among them `::` stands
    if rest.startswith("::"):
        ellipsis, rest = 0, rest[2:]
        if not rest:
            return None
    while filled < 16:
        digits = len(rest) - len(rest.lstrip("0123456789abcdefABCDEF"))
        if digits > 4:
            return "each group must have 4 or less digits", rest
        if digits == 0:
            return "each colon-separated field must have at least one digit", rest
        if rest[digits : digits + 1] == ".":
            if ellipsis < 0 and filled != 12:
                return "embedded IPv4 address must replace the final 2 fields of the address", rest
            if filled + 4 > 16:
                return "too many hex fields to fit an embedded IPv4 at the end of the address", rest
            if problem := _ipv4_problem(rest):
                return problem
            filled, rest = filled + 4, ""
            break
        filled, rest = filled + 2, rest[digits:]
        if not rest:
            break
        if rest[0] != ":":
            return "unexpected character, want colon", rest
        if len(rest) == 1:
            return "colon must be followed by more characters", rest
        rest = rest[1:]
        if rest[0] == ":":
            if ellipsis >= 0:
                return "multiple :: in address", rest
            ellipsis, rest = filled, rest[1:]
            if not rest:
                break
    if rest:
        return "trailing garbage after address", rest
    if filled < 16 and ellipsis < 0:
        return "address string too short", ""
    if filled == 16 and ellipsis >= 0:
        return "the :: must expand to at least one field of zeros", ""
    return None
