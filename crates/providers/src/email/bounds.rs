//! Whether taking a mail apart is bounded work. It is done before it is known who posted the mail, for only the mail
//! says which mailbox's secret counts.
//!
//! Everything the parser does in proportion to the mail's length is free. Counted here, in one pass over the bytes, is
//! what costs more than it has bytes: parts, fields, searches for the end of a part, and long descriptions of parts.
//! The counts are never too low, whatever the structure: a boundary may stand anywhere in a line, so every `--` counts;
//! the parser knows `boundary` and the types of a mail within a mail only as whole words.

/// Parts and mails within mails. Each costs the parser some hundred bytes.
const MAX_PARTS: usize = 50_000;

/// Lines that may be a header field. Each costs the parser some hundred bytes.
const MAX_FIELDS: usize = 500_000;

/// Mentions of a boundary.
const MAX_BOUNDARIES: usize = 1_000;

/// Each boundary may send the parser through the whole rest of the mail: this many bytes altogether.
const MAX_SEARCHED_BYTES: usize = 1 << 30;

/// A description of a part (`Content-Type`, `Content-Disposition`) may take the square of its length. The sum of the
/// squares: one of 64 KiB, or thousands of usual ones.
const MAX_DESCRIPTION_SQUARES: usize = 1 << 32;

/// Names of descriptions, lower-case and from behind.
const DESCRIPTIONS: [&[u8]; 2] = [b"epyt-tnetnoc", b"noitisopsid-tnetnoc"];

/// Whether the mail keeps within the bounds.
pub(super) fn holds(raw: &[u8]) -> bool {
    let Some(longest) = longest_description(raw) else {
        return false;
    };
    let boundaries = count(raw, b"boundary");
    let marks = count(raw, b"--");
    let mails = count(raw, b"rfc822") + count(raw, b"global");
    // Without a boundary nothing parts a mail, and a table drawn with dashes is just that.
    let parts = mails + if boundaries == 0 { 0 } else { marks };
    let fields = raw
        .split(|byte| *byte == b'\n')
        .filter(|line| line.contains(&b':'));
    // At every mark the parser compares as many bytes as the boundary is long, sixteen or more at once.
    let one_search = raw.len().saturating_add(marks.saturating_mul(longest / 8));
    parts <= MAX_PARTS
        && boundaries <= MAX_BOUNDARIES
        && boundaries.saturating_mul(one_search) <= MAX_SEARCHED_BYTES
        && fields.count() <= MAX_FIELDS
}

/// How often the word occurs, in upper or lower case, without overlapping.
fn count(raw: &[u8], word: &[u8]) -> usize {
    let mut count = 0;
    let mut rest = raw;
    while let Some(found) = rest
        .windows(word.len())
        .position(|bytes| bytes.eq_ignore_ascii_case(word))
    {
        count += 1;
        rest = &rest[found + word.len()..];
    }
    count
}

/// The length of the longest description of a part, or `None` where they are too long altogether.
fn longest_description(raw: &[u8]) -> Option<usize> {
    let (mut longest, mut squares) = (0, 0_usize);
    let colons = raw.iter().enumerate().filter(|(_, byte)| **byte == b':');
    for (colon, _) in colons {
        if DESCRIPTIONS.iter().any(|name| ends_in(&raw[..colon], name)) {
            let length = field_length(&raw[colon..]);
            longest = longest.max(length);
            squares = squares.saturating_add(length.saturating_mul(length));
            if squares > MAX_DESCRIPTION_SQUARES {
                return None;
            }
        }
    }
    Some(longest)
}

/// Whether the line ends in this name. The parser skips white space in names.
fn ends_in(line: &[u8], reversed_name: &[u8]) -> bool {
    let letters = line
        .iter()
        .rev()
        .take_while(|byte| **byte != b'\n')
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(u8::to_ascii_lowercase);
    letters
        .take(reversed_name.len())
        .eq(reversed_name.iter().copied())
}

/// Up to the first line that does not begin with white space.
fn field_length(raw: &[u8]) -> usize {
    raw.windows(2)
        .position(|pair| pair[0] == b'\n' && !matches!(pair[1], b' ' | b'\t'))
        .unwrap_or(raw.len())
}
